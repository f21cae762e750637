"""Image references: ``[domain/]path[:tag][@digest]`` (distribution-spec; grammar of docker's reference package).

No regular expressions: ``run`` parses one reference and would pay 6 ms for importing `re`.

    reference  := name [":" tag] ["@" digest]
    name       := [domain "/"] component ("/" component)*       at most 255 characters after the domain
    domain     := (label ("." label)* | "[" ipv6 "]") [":" port]
    component  := alnum ((("." | "_" | "__" | "-"+) alnum)*     lower case
    tag        := word (word | "." | "-"){0,127}                word := letter, digit or "_"
"""

from __future__ import annotations

from cloison.errors import InvalidArgument
from cloison.model.digest import is_digest
from cloison.model.record import Record

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_MAX_PATH = 255
_MAX_TAG = 128

_DIGITS = "0123456789"
_LOWER = "abcdefghijklmnopqrstuvwxyz" + _DIGITS
_ALNUM = _LOWER + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_HEX = _DIGITS + "abcdefABCDEF"
_ALNUM_TO_BLANK = {ord(letter): " " for letter in _LOWER}


class Reference(Record):
    """A complete reference: the domain is always filled in, and at least one of tag and digest is there."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def canonical_name(self) -> str:
        """``docker.io/library/debian``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """``debian``: what people type for this name."""
        if self.domain != DEFAULT_DOMAIN:
            return self.canonical_name
        rest = self.path.removeprefix(_OFFICIAL)
        # library/a/b would come back as docker.io/a/b; only one component is official
        return self.path if "/" in rest else rest

    @property
    def familiar(self) -> str:
        """``debian:bookworm``."""
        return self.familiar_name + self.suffix

    @property
    def canonical(self) -> str:
        """``docker.io/library/debian:bookworm``."""
        return self.canonical_name + self.suffix

    @property
    def suffix(self) -> str:
        """``:bookworm``, ``@sha256:…``, or both."""
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_reference(text: str) -> Reference:
    """What ``text`` names; ``latest`` when it has neither tag nor digest.

    The whole text counts, so a trailing newline is refused. Raises: InvalidArgument, with docker's words.
    """
    if _is_id(text):
        raise InvalidArgument(f"invalid repository name ({text})", why="cannot specify 64-byte hexadecimal strings")
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _malformed(text)
    domain, remainder = _split_domain(name)
    path, colon, tag = remainder.partition(":")
    if path != path.lower():
        raise InvalidArgument("invalid reference format", why=f"repository name ({path}) must be lowercase")
    if colon and not _is_tag(tag):
        raise _malformed(text)
    if not _is_domain(domain) or not all(map(_is_component, path.split("/"))):
        raise _malformed(text)
    if len(path) > _MAX_PATH:
        raise InvalidArgument(
            "invalid reference format", why=f"repository name must not be longer than {_MAX_PATH} characters"
        )
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(domain=domain, path=path, tag=tag, digest=digest)


def is_short(text: str) -> bool:
    """Whether a reference names no registry: which one is meant, configuration may say. A whole id is no reference."""
    first, slash, _ = text.partition("/")
    return not _is_id(text) and (not slash or not _is_registry(first))


def _is_id(text: str) -> bool:
    return len(text) == 64 and not text.strip(_HEX)


def _is_registry(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost" or first.lower() != first


def _split_domain(name: str) -> tuple[str, str]:
    """Domain and the rest, by docker's rule: a domain has ``.``, ``:`` or upper case, or is localhost."""
    first, slash, rest = name.partition("/")
    if not slash or not _is_registry(first):
        first, rest = DEFAULT_DOMAIN, name
    if first == _LEGACY_DOMAIN:
        first = DEFAULT_DOMAIN
    if first == DEFAULT_DOMAIN and "/" not in rest:
        rest = _OFFICIAL + rest
    return first, rest


def _is_domain(text: str) -> bool:
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        good = bool(bracket and address) and not address.strip(_HEX + ":")
    else:
        host, colon, port = text.partition(":")
        port = colon + port
        good = all(map(_is_label, host.split(".")))
    return good and (not port or (port[0] == ":" and len(port) > 1 and not port[1:].strip(_DIGITS)))


def _is_label(text: str) -> bool:
    return bool(text) and text[0] in _ALNUM and text[-1] in _ALNUM and not text.strip(_ALNUM + "-")


def _is_component(text: str) -> bool:
    if not text or text.strip(_LOWER + "._-") or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    separators = text.translate(_ALNUM_TO_BLANK).split()
    return all(run in (".", "_", "__") or not run.strip("-") for run in separators)


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= _MAX_TAG and text[0] not in ".-" and not text.strip(_ALNUM + "_.-")


def _malformed(text: str) -> InvalidArgument:
    shown = text if len(text) <= 300 else text[:300] + "…"
    return InvalidArgument("invalid reference format", why=f"{shown!r} is not [domain/]name[:tag][@digest]")
