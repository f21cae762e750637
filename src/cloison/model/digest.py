"""Content digests: ``algorithm:hex`` (image-spec descriptor.md, "Digests"). Text becomes one here, or nowhere."""

from __future__ import annotations

from cloison.errors import InvalidArgument

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = "0123456789abcdef"


def is_digest(text: str) -> bool:
    """Whether this is exactly ``sha256:<64 lower hex>`` or ``sha512:<128 lower hex>``; a digest becomes a file name."""
    algorithm, _, encoded = text.partition(":")
    return len(encoded) == _HEX_LENGTH.get(algorithm, -1) and not encoded.strip(_HEX)


def parse_digest(text: str) -> str:
    """The digest itself, checked. Raises: InvalidArgument. Source: image-spec, "Registered algorithms"."""
    if not is_digest(text):
        shown = text if len(text) <= 140 else text[:140] + "…"
        raise InvalidArgument(f"invalid digest {shown!r}", why="not sha256:<64 lower-case hex digits> or sha512:<128>")
    return text


def split_digest(digest: str) -> tuple[str, str]:
    """Algorithm and hex of a digest. Raises: InvalidArgument."""
    algorithm, _, encoded = parse_digest(digest).partition(":")
    return algorithm, encoded
