"""D-Bus, the wire: method calls, their answers, and signals in between (dbus-specification.html, versions of 1.0 on).

Values travel with a signature: ``y`` byte, ``b`` boolean, ``n q i u x t`` integers of 16, 32 and 64 bits, ``d`` double,
``s o g`` text, ``aX`` array (a list), ``(XY)`` struct and ``{XY}`` dictionary entry (a tuple), ``v`` variant: the pair
(signature, value).
Only what systemd's manager speaks is here; no descriptors, no introspection.
"""

from __future__ import annotations

import _socket
import os
from struct import Struct
from struct import error as StructError

from cloison.errors import Internal, Unavailable
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any, Self

_NUMBERS = {
    code: Struct(f"<{letter}")
    for code, letter in {
        "y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d",
    }.items()
}  # fmt: skip
_ALIGNMENT = {code: packed.size for code, packed in _NUMBERS.items()}
_ALIGNMENT.update({"s": 4, "o": 4, "a": 4, "(": 8, "{": 8, "g": 1, "v": 1})
_LENGTH = _NUMBERS["u"]
_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
# Header fields
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 4, 5, 6, 8
_HEADER = "yyyyuua(yv)"
_FIXED_BYTES = 16  # of the header: up to and with the length of its fields
_MAX_BYTES = 16 << 20


class Refused(Exception):
    """The other side's answer is an error: its name (``org.freedesktop.…``) and its words."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{text} ({name})" if text else name)
        self.name = name
        self.text = text


class Message(Record):
    """What came in."""

    kind: int
    reply_to: int = 0  # serial of the call that it answers
    path: str = ""
    member: str = ""
    error: str = ""
    body: tuple[Any, ...] = ()


class Connection:
    """To a bus, or to a service's own socket, in which case ``destination`` means nothing. Not thread-safe."""

    def __init__(self, socket: str, *, timeout_s: float = 30.0) -> None:
        """Connect and say who we are. Raises: OSError; Unavailable when we are not let in."""
        self._serial = 0
        self._buffer = b""
        self.signals: list[Message] = []  # those that came while an answer was awaited
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(socket)
            # BEGIN in the same breath: with a message right behind it in one read, systemd (252) would wait for another
            # before it looks at that one
            self._socket.sendall(b"\0AUTH EXTERNAL %s\r\nBEGIN\r\n" % str(os.geteuid()).encode().hex().encode())
            answer = self._take_line()
            if not answer.startswith(b"OK "):
                raise Unavailable(f"{socket} does not let us in", why=answer.decode(errors="replace"))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def call(
        self, path: str, member: str, *, interface: str, destination: str, signature: str = "", body: Sequence[Any] = ()
    ) -> tuple[Any, ...]:
        """Call a method and wait for its answer's values. Raises: Refused, OSError, Internal."""
        self._serial += 1
        fields = [
            (_PATH, ("o", path)), (_INTERFACE, ("s", interface)), (_MEMBER, ("s", member)),
            (_DESTINATION, ("s", destination)),
        ]  # fmt: skip
        if signature:
            fields.append((_SIGNATURE, ("g", signature)))
        payload = marshal(signature, body)
        head = marshal(_HEADER, (ord("l"), _CALL, 0, 1, len(payload), self._serial, fields))
        self._socket.sendall(head + bytes(-len(head) % 8) + payload)
        while True:
            message = self.receive()
            if message.kind == _SIGNAL:
                self.signals.append(message)
            elif message.reply_to == self._serial and message.kind == _ERROR:
                raise Refused(message.error, str(message.body[0]) if message.body else "")
            elif message.reply_to == self._serial:
                return message.body

    def receive(self) -> Message:
        """The next message, whatever it is. Raises: OSError (TimeoutError among them), Internal."""
        fixed = self._peek(_FIXED_BYTES)
        if fixed[0] != ord("l"):
            raise Internal("cannot read a D-Bus message", why="it is not little-endian")
        body_bytes, _serial, field_bytes = (_LENGTH.unpack_from(fixed, at)[0] for at in (4, 8, 12))
        head_bytes = _FIXED_BYTES + field_bytes + -field_bytes % 8
        if head_bytes + body_bytes > _MAX_BYTES:
            raise Internal("cannot read a D-Bus message", why=f"it has {head_bytes + body_bytes} bytes")
        data = self._peek(head_bytes + body_bytes)
        self._buffer = self._buffer[len(data) :]
        *_numbers, listed = unmarshal(_HEADER, data)
        fields = {code: value for code, (_signature, value) in listed}
        return Message(
            kind=data[1],
            reply_to=fields.get(_REPLY_SERIAL, 0),
            path=fields.get(_PATH, ""),
            member=fields.get(_MEMBER, ""),
            error=fields.get(_ERROR_NAME, ""),
            body=unmarshal(fields.get(_SIGNATURE, ""), data[head_bytes:]),
        )

    def _peek(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        return self._buffer[:size]

    def _take_line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _more(self) -> None:
        piece = self._socket.recv(1 << 16)
        if not piece:
            raise ConnectionResetError("the D-Bus connection was closed")
        self._buffer += piece


def marshal(signature: str, values: Sequence[Any]) -> bytes:
    """The values as bytes, from an offset that is a multiple of eight."""
    out = bytearray()
    for kind, value in zip(split_signature(signature), values, strict=True):
        _write(out, kind, value)
    return bytes(out)


def unmarshal(signature: str, data: bytes) -> tuple[Any, ...]:
    """The reverse. Raises: Internal."""
    at, values = 0, []
    try:
        for kind in split_signature(signature):
            value, at = _read(data, at, kind)
            values.append(value)
    except (IndexError, KeyError, ValueError, StructError) as err:
        raise Internal("cannot read a D-Bus message", why=f"it does not fit {signature[:64]!r}") from err
    return tuple(values)


def split_signature(signature: str) -> list[str]:
    """Its complete types: "sa(sv)u" -> "s", "a(sv)", "u"."""
    kinds, start, depth = [], 0, 0
    for at, code in enumerate(signature):
        depth += (code in "({") - (code in ")}")
        if depth == 0 and code != "a":
            kinds.append(signature[start : at + 1])
            start = at + 1
    return kinds


def _write(out: bytearray, kind: str, value: Any) -> None:
    code = kind[0]
    out += bytes(-len(out) % _ALIGNMENT[code])
    if code in _NUMBERS:
        out += _NUMBERS[code].pack(value)
    elif code in "sog":
        text = value.encode()
        out += (bytes((len(text),)) if code == "g" else _LENGTH.pack(len(text))) + text + b"\0"
    elif code == "v":
        _write(out, "g", value[0])
        _write(out, value[0], value[1])
    elif code in "({":
        for inner, member in zip(split_signature(kind[1:-1]), value, strict=True):
            _write(out, inner, member)
    else:
        length_at = len(out)
        out += bytes(4)
        out += bytes(-len(out) % _ALIGNMENT[kind[1]])
        start = len(out)
        for member in value:
            _write(out, kind[1:], member)
        _LENGTH.pack_into(out, length_at, len(out) - start)


def _read(data: bytes, at: int, kind: str) -> tuple[Any, int]:
    code = kind[0]
    at += -at % _ALIGNMENT[code]
    if code in _NUMBERS:
        return _NUMBERS[code].unpack(data[at : at + _NUMBERS[code].size])[0], at + _NUMBERS[code].size
    if code in "sog":
        size, at = (data[at], at + 1) if code == "g" else (_LENGTH.unpack_from(data, at)[0], at + 4)
        return data[at : at + size].decode(), at + size + 1
    if code == "v":
        inner, at = _read(data, at, "g")
        value, at = _read(data, at, inner)
        return (inner, value), at
    members = []
    if code in "({":
        for inner in split_signature(kind[1:-1]):
            value, at = _read(data, at, inner)
            members.append(value)
        return tuple(members), at
    size, at = _LENGTH.unpack_from(data, at)[0], at + 4
    at += -at % _ALIGNMENT[kind[1]]
    end = at + size
    while at < end:
        value, at = _read(data, at, kind[1:])
        members.append(value)
    return members, at
