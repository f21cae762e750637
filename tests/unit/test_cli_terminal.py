"""The user's terminal, on real pseudo-terminals: raw mode, sizes, detach keys, streaming."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli_fakes import FakeSession, Line, line, record_of
from cloison.cli.signals import Killed, dying_cleanly
from cloison.cli.stream import CHUNK, Streamer
from cloison.cli.terminal import DetachScanner, RawTerminal, parse_detach_keys, terminal_size
from cloison.errors import Conflict, InvalidArgument
from cloison.model.container import ContainerSpec, ContainerState

__all__ = ["line"]  # the fixture


class Pty:
    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.resize(24, 80)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self.slave)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def pty() -> Iterator[Pty]:
    pair = Pty()
    yield pair
    pair.close()


@pytest.fixture
def console(pty: Pty) -> Iterator[Pty]:
    """The pseudo-terminal is descriptor 0; output stays with the capture."""
    saved = os.dup(0)
    os.dup2(pty.slave, 0)
    yield pty
    os.dup2(saved, 0)
    os.close(saved)


@pytest.fixture
def session() -> Iterator[FakeSession]:
    made = FakeSession()
    yield made
    made.near.close()
    made.far.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


# --- raw mode


def test_raw_mode_is_undone_at_the_end_of_the_block(pty: Pty) -> None:
    before = pty.attributes()
    with RawTerminal(pty.slave):
        assert pty.is_raw()
    assert pty.attributes() == before


def test_raw_mode_is_undone_by_an_exception(pty: Pty) -> None:
    before = pty.attributes()
    with pytest.raises(ZeroDivisionError), RawTerminal(pty.slave):
        raise ZeroDivisionError
    assert pty.attributes() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_raw_mode_is_undone_by_a_fatal_signal(pty: Pty, number: int) -> None:
    before = pty.attributes()
    raw = RawTerminal(pty.slave)
    found = signal.signal(number, signal.SIG_DFL)  # ignored, where a shell started the tests in the background
    try:
        with pytest.raises(Killed) as death, dying_cleanly(raw.restore), raw:
            os.kill(os.getpid(), number)
            time.sleep(5)
    finally:
        signal.signal(number, found)
    assert death.value.number == number
    assert pty.attributes() == before


def test_raw_mode_leaves_what_is_no_terminal_alone(tmp_path: object) -> None:
    read, write = os.pipe()
    with RawTerminal(read):
        pass
    os.close(read)
    os.close(write)


def test_raw_mode_can_be_unwanted(pty: Pty) -> None:
    with RawTerminal(pty.slave, wanted=False):
        assert not pty.is_raw()


def test_a_hung_up_terminal_is_no_error() -> None:
    master, slave = os.openpty()
    with RawTerminal(slave):
        os.close(master)
    os.close(slave)


def test_the_size_is_that_of_the_first_terminal(pty: Pty) -> None:
    read, write = os.pipe()
    pty.resize(50, 132)
    assert terminal_size(read, pty.slave) == (50, 132)
    assert terminal_size(read) == (0, 0)
    os.close(read)
    os.close(write)


# --- detach keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [("ctrl-p,ctrl-q", b"\x10\x11"), ("", b""), ("a,b", b"ab"), ("ctrl-@", b"\0"), ("ctrl-[", b"\x1b"),
     ("ctrl-\\", b"\x1c"), ("ctrl-]", b"\x1d"), ("ctrl-^", b"\x1e"), ("ctrl-_", b"\x1f"), ("DEL", b"\x7f"),
     ("ctrl-A,x", b"\x01x")],
)  # fmt: skip
def test_detach_keys_are_bytes(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "alt-x", "ab", "a,,b", "ctrl-p,", "é"])
def test_bad_detach_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid detach keys"):
        parse_detach_keys(text)


def test_the_detach_keys_are_found_in_pieces_and_never_sent() -> None:
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"ls\x10") == (b"ls", False)
    assert scanner.feed(b"\x11rest") == (b"", True)


def test_the_beginning_of_the_keys_is_sent_once_it_is_none() -> None:
    scanner = DetachScanner(b"\x10\x11")
    assert scanner.feed(b"\x10") == (b"", False)
    assert scanner.feed(b"x") == (b"\x10x", False)
    assert scanner.feed(b"\x10\x10\x11") == (b"\x10", True)


@given(st.lists(st.binary(max_size=5)), st.binary(min_size=1, max_size=3))
def test_without_the_keys_nothing_typed_is_lost_or_added(pieces: list[bytes], keys: bytes) -> None:
    typed = b"".join(pieces)
    scanner = DetachScanner(keys)
    sent, detached = b"", False
    for piece in pieces:
        more, detached = scanner.feed(piece)
        sent += more
        if detached:
            break
    assert detached == (keys in typed)
    if detached:
        assert sent == typed[: typed.index(keys)]
    else:
        assert typed.startswith(sent) and keys.startswith(typed[len(sent) :])


# --- streaming


def test_input_that_is_not_read_does_not_stop_output(session: FakeSession, capfd: pytest.CaptureFixture[str]) -> None:
    """A program that writes before it reads: both directions are full, and still everything arrives."""
    read, write = os.pipe()
    total = 4 << 20
    feeder = threading.Thread(target=lambda: (_feed(write, b"i" * total), os.close(write)))
    received: list[int] = []

    def monitor() -> None:
        for _ in range(200):  # much more than the socket holds, before one byte of input is taken
            session.far.send(b"o" + b"x" * 20_000)
        count = 0
        while count < total:
            count += len(session.far.recv(1 << 17)) - 1
        received.append(count)
        session.far.send(b"x0")

    far = threading.Thread(target=monitor)
    feeder.start()
    far.start()
    end = Streamer(session, stdin=read).run()  # type: ignore[arg-type]
    feeder.join()
    far.join()
    os.close(read)
    assert end is not None and received == [total]
    assert len(capfd.readouterr().out) == 200 * 20_000
    assert max(len(data) for kind, data in session.sent if kind == "input") <= CHUNK


def _feed(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def test_a_monitor_that_goes_away_ends_the_stream(session: FakeSession) -> None:
    session.far.close()
    assert Streamer(session).run() is None  # type: ignore[arg-type]


def test_output_to_a_reader_that_is_slow_and_non_blocking_is_whole(session: FakeSession) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    got: list[bytes] = []

    def slow() -> None:
        while piece := os.read(read, 4096):
            got.append(piece)

    reader = threading.Thread(target=slow)
    reader.start()
    sender = threading.Thread(
        target=lambda: ([session.far.send(b"o" + b"y" * 30_000) for _ in range(50)], session.far.send(b"x0"))
    )
    sender.start()
    Streamer(session, outputs={1: write}).run()  # type: ignore[arg-type]
    os.close(write)
    reader.join()
    sender.join()
    os.close(read)
    assert sum(map(len, got)) == 50 * 30_000


def test_a_terminal_that_is_hung_up_ends_the_stream_quietly(session: FakeSession) -> None:
    master, slave = os.openpty()
    os.close(master)
    session.far.send(b"oanybody there?")
    with pytest.raises(BrokenPipeError):
        Streamer(session, stdin=slave, outputs={1: slave}).run()  # type: ignore[arg-type]
    os.close(slave)


# --- run -it


def test_an_interactive_run_is_raw_sized_and_restored(line: Line, console: Pty) -> None:
    before = console.attributes()
    session = line.engine.session
    seen: list[object] = []

    def monitor() -> None:
        until(console.is_raw)
        os.write(console.master, b"ls\x03")  # ^C is a byte for the container, no signal for us
        seen.append(session.far.recv(100))
        console.resize(30, 100)
        os.kill(os.getpid(), signal.SIGWINCH)
        until(lambda: ("resize", (30, 100)) in session.sent)
        session.far.send(b"ofile\r\n")
        session.far.send(b"x3")

    far = threading.Thread(target=monitor)
    far.start()
    line.engine.state = ContainerState(status="exited", exit_code=3)
    assert line("run", "-it", "img", "sh") == 3
    far.join()
    assert seen == [b"Ils\x03"]
    assert line.out == "file\r\n"
    stdio = line.engine.asked("run")[1]
    assert (stdio.stdin, stdio.rows, stdio.columns) == ("pty", 24, 80)
    assert console.attributes() == before


def test_the_detach_keys_leave_the_container_running(line: Line, console: Pty) -> None:
    before = console.attributes()

    def user() -> None:
        until(console.is_raw)
        os.write(console.master, b"a\x10\x11")

    typist = threading.Thread(target=user)
    typist.start()
    assert line("run", "-it", "img", "sh") == 0
    typist.join()
    assert ("detach", None) in line.engine.session.sent
    assert not [call for call in line.engine.calls if call[0] == "finish"]
    assert console.attributes() == before


def test_attach_says_that_it_was_escaped(line: Line, console: Pty) -> None:
    spec = ContainerSpec(image="img", tty=True, interactive=True)
    line.engine.records = [record_of("a", spec=spec, state=ContainerState(status="running", pid=1))]

    def user() -> None:
        until(console.is_raw)
        os.write(console.master, b"xyz")

    typist = threading.Thread(target=user)
    typist.start()
    assert line("attach", "--detach-keys", "y,z", "a") == 1
    typist.join()
    assert line.err == "read escape sequence\n"
    resizes = [size for kind, size in line.engine.session.sent if kind == "resize"]
    assert line.engine.session.sent[0] == ("attach", (True, True, True))
    assert resizes == [(25, 81), (24, 80)]  # twice, for a screen that is painted already


def test_raw_mode_is_not_entered_with_noraw(line: Line, console: Pty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORAW", "1")
    line.engine.session.far.send(b"x0")
    before = console.attributes()
    assert line("run", "-it", "img") == 0
    assert console.attributes() == before


def test_the_terminal_is_restored_when_the_stream_breaks(line: Line, console: Pty) -> None:
    before = console.attributes()

    def broken(_timeout_s: float | None = None) -> None:
        assert console.is_raw()
        raise Conflict("the monitor speaks nonsense")

    session = line.engine.session
    session.receive = broken  # type: ignore[assignment,method-assign]
    session.far.send(b"o?")
    assert line("run", "-it", "img") == 125
    assert line.err == "cloison: the monitor speaks nonsense\n"
    assert console.attributes() == before


def test_a_killed_client_restores_the_terminal_and_says_which_signal(line: Line, console: Pty) -> None:
    before = console.attributes()

    def killer() -> None:
        until(console.is_raw)
        os.kill(os.getpid(), signal.SIGTERM)

    far = threading.Thread(target=killer)
    far.start()
    assert line("run", "-it", "--sig-proxy=false", "img") == 128 + signal.SIGTERM
    far.join()
    assert console.attributes() == before
