"""D-Bus on the wire: bytes that the specification's rules of alignment ask for, and both ways through all types."""

from __future__ import annotations

import _socket
import threading
from pathlib import Path

import pytest

from cloison.errors import Internal, Unavailable
from cloison.linux.dbus import Connection, Refused, marshal, split_signature, unmarshal


def test_a_signature_falls_into_its_complete_types() -> None:
    assert split_signature("ssa(sv)a(sa(sv))u") == ["s", "s", "a(sv)", "a(sa(sv))", "u"]
    assert split_signature("sa{sv}aai") == ["s", "a{sv}", "aai"]
    assert split_signature("") == []


def test_values_are_aligned_to_their_size() -> None:
    assert marshal("yu", (1, 2)) == b"\1\0\0\0\2\0\0\0"
    assert marshal("sy", ("ab", 7)) == b"\2\0\0\0ab\0\7"
    assert marshal("v", (("t", 5),)) == b"\1t\0\0\0\0\0\0" + b"\5\0\0\0\0\0\0\0"
    # the padding before the first struct does not count in the array's length
    assert marshal("a(y)", ([(1,), (2,)],)) == b"\x09\0\0\0" + b"\0\0\0\0" + b"\1\0\0\0\0\0\0\0" + b"\2"
    assert marshal("at", ([],)) == b"\0\0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("signature", "values"),
    [
        ("ybnqiuxtd", (255, 1, -2, 3, -4, 5, -6, (1 << 64) - 1, 1.5)),
        ("sog", ("über", "/org/a", "a(sv)")),
        ("sa(sv)", ("x", [("A", ("as", ["b", "c"])), ("B", ("a(st)", [("/d", 9)])), ("C", ("ay", [1, 2]))])),
        ("sa{sv}as", ("i", [("k", ("v", ("u", 1)))], [])),
    ],
)
def test_what_is_written_is_read(signature: str, values: tuple[object, ...]) -> None:
    assert unmarshal(signature, marshal(signature, values)) == values


@pytest.mark.parametrize("data", [b"", b"\5\0\0\0ab", b"\1\0\0"])
def test_a_message_that_is_cut_off_is_an_error(data: bytes) -> None:
    with pytest.raises(Internal):
        unmarshal("u" if len(data) < 4 else "su", data)


def reply(kind: int, serial: int, *, signature: str = "", body: tuple[object, ...] = (), error: str = "") -> bytes:
    fields: list[tuple[int, tuple[str, object]]] = [(5, ("u", serial))]
    if error:
        fields.append((4, ("s", error)))
    if signature:
        fields.append((8, ("g", signature)))
    payload = marshal(signature, body)
    head = marshal("yyyyuua(yv)", (ord("l"), kind, 0, 1, len(payload), 7, fields))
    return head + bytes(-len(head) % 8) + payload


def serve(path: Path, *answers: bytes, words: bytes = b"OK 1234\r\n") -> threading.Thread:
    """A service that lets one caller in, and says the same whatever it is asked."""
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)

    def run() -> None:
        fd, _address = listener._accept()  # type: ignore[attr-defined]
        caller = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fileno=fd)
        assert caller.recv(1 << 12).endswith(b"BEGIN\r\n")
        caller.sendall(words)
        for answer in answers:
            if not caller.recv(1 << 16):
                break
            for byte in range(0, len(answer), 50):  # a stream has no borders
                caller.sendall(answer[byte : byte + 50])
        caller.close()
        listener.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def call(connection: Connection) -> tuple[object, ...]:
    return connection.call("/a", "Do", interface="a.b", destination="a", signature="s", body=("x",))


def test_a_call_gets_its_own_answer_and_keeps_the_signals(tmp_path: Path) -> None:
    signal = reply(4, 0, signature="uoss", body=(1, "/job/1", "a.scope", "done"))
    thread = serve(tmp_path / "bus", signal + reply(2, 99) + reply(2, 1, signature="o", body=("/job/1",)))
    with Connection(str(tmp_path / "bus")) as connection:
        assert call(connection) == ("/job/1",)
        assert [message.body[3] for message in connection.signals] == ["done"]
    thread.join()


def test_an_error_answer_has_its_name_and_text(tmp_path: Path) -> None:
    thread = serve(tmp_path / "bus", reply(3, 1, signature="s", body=("no such unit",), error="a.NoSuchUnit"))
    with Connection(str(tmp_path / "bus")) as connection, pytest.raises(Refused, match="no such unit") as caught:
        call(connection)
    assert caught.value.name == "a.NoSuchUnit"
    thread.join()


def test_silence_is_an_error_after_a_while(tmp_path: Path) -> None:
    thread = serve(tmp_path / "bus", b"")
    with Connection(str(tmp_path / "bus"), timeout_s=0.2) as connection, pytest.raises(OSError):
        call(connection)
    thread.join()


def test_whoever_is_not_let_in_is_told(tmp_path: Path) -> None:
    thread = serve(tmp_path / "bus", words=b"REJECTED EXTERNAL\r\n")
    with pytest.raises(Unavailable, match="REJECTED"):
        Connection(str(tmp_path / "bus"))
    thread.join()
