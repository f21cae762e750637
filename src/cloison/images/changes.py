"""`--change` of `import`: the Dockerfile instructions that touch an image's configuration alone, as functions of it."""

from __future__ import annotations

import posixpath
import shlex

from cloison.errors import InvalidArgument
from cloison.oci.strict import parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloison.model.image import ImageConfig

_SHELL = ("/bin/sh", "-c")
_PROTOCOLS = ("tcp", "udp", "sctp")


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The configuration after all instructions, in order. Raises: InvalidArgument for one that makes no sense."""
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            raise InvalidArgument(f"{word} is not a valid change command", hint="use one of " + " ".join(_INSTRUCTIONS))
        if not rest.strip():
            raise InvalidArgument(f"{word.upper()} requires an argument")
        config = apply(config, rest.strip())
    return config


def _cmd(config: ImageConfig, rest: str) -> ImageConfig:
    return config.replace(cmd=_command(rest))


def _entrypoint(config: ImageConfig, rest: str) -> ImageConfig:
    # docker's rule: a new entrypoint takes the inherited command away
    return config.replace(entrypoint=_command(rest), cmd=())


def _command(rest: str) -> tuple[str, ...]:
    """JSON array, or else a line for the shell (Dockerfile reference, "Shell and exec form")."""
    if rest.startswith("["):
        try:
            words = parse_json(rest.encode(), document="command")
        except InvalidArgument:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return tuple(words)
    return (*_SHELL, rest)


def _pairs(rest: str) -> dict[str, str]:
    """``K=V K2="a b"``, or the old form ``K value to the end``."""
    try:
        words = shlex.split(rest)
    except ValueError as err:
        raise InvalidArgument(f"cannot read {rest!r}", why=str(err).lower()) from err
    if "=" not in words[0]:
        key, _, value = rest.partition(" ")
        words = [f"{key}={value.strip()}"]
    if not all(word.partition("=")[0] and "=" in word for word in words):
        raise InvalidArgument(f"cannot read {rest!r}", why="not KEY=VALUE")
    return dict(word.split("=", 1) for word in words)


def _env(config: ImageConfig, rest: str) -> ImageConfig:
    values = dict(word.split("=", 1) for word in config.env) | _pairs(rest)
    return config.replace(env=tuple(f"{key}={value}" for key, value in values.items()))


def _label(config: ImageConfig, rest: str) -> ImageConfig:
    return config.replace(labels={**config.labels, **_pairs(rest)})


def _expose(config: ImageConfig, rest: str) -> ImageConfig:
    ports = dict.fromkeys(config.exposed_ports)
    for word in rest.split():
        first, _, protocol = word.partition("/")
        low, _, high = first.partition("-")
        bounds = (low, high or low)
        if not all(text.isascii() and text.isdigit() and 0 < int(text) < 65536 for text in bounds):
            raise InvalidArgument(f"invalid port: {word!r}")
        if (protocol or "tcp").lower() not in _PROTOCOLS:
            raise InvalidArgument(f"invalid proto: {protocol}")
        ports |= {f"{port}/{(protocol or 'tcp').lower()}": None for port in range(int(low), int(high or low) + 1)}
    return config.replace(exposed_ports=tuple(ports))


def _user(config: ImageConfig, rest: str) -> ImageConfig:
    return config.replace(user=rest)


def _workdir(config: ImageConfig, rest: str) -> ImageConfig:
    return config.replace(workdir=posixpath.normpath(posixpath.join(config.workdir or "/", rest)))


def _stop_signal(config: ImageConfig, rest: str) -> ImageConfig:
    return config.replace(stop_signal=rest)


def _volume(config: ImageConfig, rest: str) -> ImageConfig:
    paths = _command(rest) if rest.startswith("[") else tuple(rest.split())
    return config.replace(volumes=tuple(dict.fromkeys((*config.volumes, *paths))))


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": _cmd, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose, "LABEL": _label, "STOPSIGNAL": _stop_signal,
    "USER": _user, "VOLUME": _volume, "WORKDIR": _workdir,
}  # fmt: skip
