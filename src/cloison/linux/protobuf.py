"""Protocol Buffers, the wire (protobuf.dev, "Encoding"): messages of numbers, bytes and messages, by field number.

What CRIU's requests and answers are made of; no floats, no groups, no packed lists.
"""

from __future__ import annotations

from cloison.errors import Internal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Value: TypeAlias = "int | bytes | Message | Sequence[int | bytes | Message]"
    Message: TypeAlias = "Mapping[int, Value]"
    Decoded: TypeAlias = "dict[int, list[int | bytes]]"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}
_WORD = (1 << 64) - 1


def encode(message: Message) -> bytes:
    """A list is a repeated field; a negative number is the 64-bit one of the same meaning."""
    pieces: list[bytes] = []
    for number, value in message.items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(one, int):
                pieces += (_varint(number << 3 | _VARINT), _varint(one & _WORD))
            else:
                data = one if isinstance(one, bytes) else encode(one)
                pieces += (_varint(number << 3 | _BYTES), _varint(len(data)), data)
    return b"".join(pieces)


def decode(data: bytes) -> Decoded:
    """Every occurrence of every field, in order; an inner message is its bytes. Raises: Internal for what is none."""
    found: Decoded = {}
    place = 0
    while place < len(data):
        key, place = _read_varint(data, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _read_varint(data, place)
            found.setdefault(key >> 3, []).append(value)
            continue
        if kind == _BYTES:
            length, place = _read_varint(data, place)
        elif kind in _WIDTH:
            length = _WIDTH[kind]
        else:
            raise _broken(f"a field of wire type {kind}")
        if place + length > len(data):
            raise _broken("it ends in the middle of a field")
        found.setdefault(key >> 3, []).append(data[place : place + length])
        place += length
    return found


def signed(number: int) -> int:
    """What an int32 or int64 field means: negative numbers travel as large ones."""
    return number - (1 << 64) if number >> 63 else number


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that another follows."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while place < len(data) and shift < 70:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _WORD, place
        shift += 7
    raise _broken("a number has no end")


def _broken(why: str) -> Internal:
    return Internal("cannot read a protocol buffer", why=why)
