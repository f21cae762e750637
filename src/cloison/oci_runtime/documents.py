"""The JSON documents that a caller names: a bundle's config.json, processes, resources, mounts."""

from __future__ import annotations

import os

from cloison.errors import InvalidArgument, NotFound
from cloison.store.json import loads

_MAX_BYTES = 16 << 20
_SHOWN = 256  # characters of a place


def read_document(path: str, *, name: str) -> tuple[bytes, object]:
    """The bytes, and the JSON value in them; links are followed, a pipe is read to its end, "-" is standard input.

    Raises: NotFound; InvalidArgument, which calls the document ``name`` and says where in it the fault is.
    """
    try:
        text = _read(path)
    except FileNotFoundError as err:
        raise NotFound(f"cannot read {path}", why="no such file or directory") from err
    except OSError as err:
        raise InvalidArgument(f"cannot read {path}", why=os.strerror(err.errno or 0).lower()) from err
    return text, _parse(text, name=name)


def _read(path: str) -> bytes:
    # a FIFO that nobody writes must not hold us for ever: it is empty, and that is said
    fd = os.dup(0) if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        if path != "-":
            os.set_blocking(fd, True)
        pieces, size = [], 0
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > _MAX_BYTES:
                raise InvalidArgument(f"cannot read {path}", why=f"it has more than {_MAX_BYTES >> 20} MiB")
        return b"".join(pieces)
    finally:
        os.close(fd)


def _parse(text: bytes, *, name: str) -> object:
    try:
        value: object = loads(text)
        half = _lone_surrogate(value) if b"\\ud" in text.lower() else ""
    except ValueError as err:
        why = f"it is not UTF-8 at byte {err.start}" if isinstance(err, UnicodeDecodeError) else str(err)
        raise InvalidArgument(f"invalid {name}", why=why if text.strip() else "it is empty") from err
    except RecursionError as err:
        raise InvalidArgument(f"invalid {name}", why="nested too deeply") from err
    if half:
        place = half.lstrip(".")[:_SHOWN]
        raise InvalidArgument(f"invalid {name}", why=f"{place} holds half a character (a lone surrogate)")
    return value


def _lone_surrogate(value: object) -> str:
    """Where the first text is that has no UTF-8 form, ".process.args[0]"; "" when there is none."""
    if isinstance(value, str):
        return "" if _has_utf8(value) else "."
    if isinstance(value, list):
        steps = [(f"[{i}]", item) for i, item in enumerate(value)]
    elif isinstance(value, dict):
        if not all(map(_has_utf8, value)):
            return ".a key"
        steps = [(f".{key}", item) for key, item in value.items()]
    else:
        return ""
    for step, item in steps:
        if place := _lone_surrogate(item):
            return f"{step}{place.removesuffix('.')}"
    return ""


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
