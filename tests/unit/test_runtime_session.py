"""The caller's end of the monitor's socket, against the bytes of docs/launch-plan.md."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import CommandNotFound, Conflict, Internal, NotFound
from cloison.runtime.plan import op
from cloison.runtime.session import Session, connect, listen

EXIT = b"status 9\nstarted_ns 5\nfinished_ns 7\nuser_us 1\nsystem_us 2\nmax_rss_kib 3\noom 1\n"


@pytest.fixture
def pair() -> Iterator[tuple[Session, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    plan = (op("hostname", "h"), op("exec", "nope", "nope"))
    with theirs, Session(ours, id="abc", plan=plan) as session:
        yield session, theirs


def test_every_message_of_a_run_is_understood(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    for packet in (b"c123", b"s", b"oout", b"eerr\n", b"x" + EXIT):
        monitor.send(packet)
    monitor.close()
    created, started, out, err, exited, closed = (session.receive(5) for _ in range(6))
    assert (created.kind, created.pid, session.pid, started.kind) == ("created", 123, 123, "started")
    assert (out.kind, out.stream, out.data, err.stream, err.data) == ("output", 1, b"out", 2, b"err\n")
    assert exited.exit is not None
    assert (exited.exit.exit_code, exited.exit.signal, exited.exit.stats) == (137, 9, {"oom": 1})
    assert closed.kind == "closed"


def test_a_netlink_socket_arrives_as_a_descriptor_of_ours(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    reader, writer = os.pipe()
    socket.send_fds(monitor, [b"n"], [writer])
    os.close(writer)
    message = session.receive(5)
    assert message.kind == "netlink"
    assert not os.get_inheritable(message.fd)
    os.write(message.fd, b"x")
    os.close(message.fd)
    assert os.read(reader, 9) == b"x"
    os.close(reader)


def test_a_failure_tells_its_line_of_the_plan(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    monitor.send(b"f" + b"\0".join((b"1", b"exec", b"execve", b"2", b"nope", b"missing", b"")))
    error = session.receive(5).error
    assert isinstance(error, CommandNotFound)
    assert str(error) == 'exec: "nope": executable file not found in $PATH'
    assert error.operation == "exec nope nope"


def test_descriptors_nobody_asked_for_are_closed_at_once(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(monitor, [b"s"], [0, 0])
    assert session.receive(5).kind == "started"
    socket.send_fds(monitor, [b"n"], [0, 0])
    monitor.send(b"s")
    assert session.receive(5).kind == "started"
    assert len(os.listdir("/proc/self/fd")) == before


def test_waiting_drops_output_and_ends_with_the_exit_or_with_none(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    for packet in (b"c7", b"s", b"odata", b"x" + EXIT):
        monitor.send(packet)
    ended = session.wait()
    assert ended is not None and ended.finished_ns == 7
    assert session.wait() == ended  # asked again, it answers from memory


def test_a_monitor_that_vanishes_is_no_exit(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    session.start()  # words it never reads turn its end into a reset connection
    monitor.close()
    assert session.wait() is None


def test_waiting_raises_what_went_wrong(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    monitor.send(b"f" + b"\0".join((b"1", b"exec", b"execve", b"2", b"nope", b"missing", b"")))
    with pytest.raises(CommandNotFound):
        session.wait()


def test_receiving_with_a_limit_times_out_and_loses_nothing(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    with pytest.raises(TimeoutError):
        session.receive(0.01)
    monitor.send(b"s")
    assert session.receive(0).kind == "started"


def test_a_kind_that_is_not_known_is_passed_over(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    for packet in (b"?what", b"w", b"s"):
        monitor.send(packet)
    assert [session.receive(5).kind for _ in range(2)] == ["waiting", "started"]


def test_a_message_that_does_not_fit_is_an_error_and_not_half_a_truth(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    monitor.send(b"o" + b"x" * (100 << 10))
    with pytest.raises(Internal, match="cut"):
        session.receive(5)


def test_what_we_send_are_the_documented_bytes(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    session.start()
    session.attach(stdin=True, stderr=True)
    session.attach(stdin=True, owns_input=True)
    session.resize(rows=50, columns=132)
    session.send_input(b"x" * 40000)
    session.end_input()
    session.detach()
    packets = [monitor.recv(1 << 17) for _ in range(8)]
    assert packets[:4] == [b"S", b"A\x05", b"A\x09", b"W\x32\x00\x84\x00"]
    assert b"".join(packet[1:] for packet in packets[4:6]) == b"x" * 40000
    assert {packet[:1] for packet in packets[4:6]} == {b"I"}
    assert packets[6:] == [b"E", b"D"]


def test_a_start_goes_on_or_is_cancelled_to_its_end(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    session.proceed()
    assert monitor.recv(100) == b"G"
    monitor.send(b"c77")
    before = set(os.listdir("/proc/self/fd"))
    socket.send_fds(monitor, [b"n"], [monitor.fileno()])
    monitor.send(b"f" + b"3\0await-client\0recv\x00125\0the caller\0\0")
    session.cancel()
    assert monitor.recv(100) == b"C"
    assert session.fileno() == -1
    assert set(os.listdir("/proc/self/fd")) < before


def test_to_go_on_with_a_launcher_that_failed_is_no_error_it_has_said_why(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    monitor.send(b"f" + b"3\0new-network\0unshare\x0028\0net\0\0")
    monitor.close()
    session.proceed()
    message = session.receive()
    assert message.error is not None and "network namespace" in str(message.error)
    session.cancel()


def test_talking_to_a_monitor_that_is_gone_is_a_conflict(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    monitor.close()
    with pytest.raises(Conflict):
        session.send_input(b"x")


def test_closing_twice_is_fine_and_the_session_is_no_longer_a_descriptor(pair: tuple[Session, socket.socket]) -> None:
    session, _monitor = pair
    session.close()
    session.close()
    assert session.fileno() == -1


def test_a_monitor_is_found_by_the_path_of_its_socket_however_long(tmp_path: Path) -> None:
    directory = tmp_path.joinpath("d" * 100, "e" * 100)
    directory.mkdir(parents=True)
    path = str(directory / "socket")
    before = len(os.listdir("/proc/self/fd"))
    listener = socket.socket(fileno=listen(path))
    with listener, connect(path, id="abc") as session:
        monitor, _ = listener.accept()
        with monitor:
            monitor.send(b"s")
            assert session.receive(5).kind == "started"
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(NotFound):
        connect(path)
    with pytest.raises(NotFound):
        connect(f"{path}-not-there")


def test_a_launcher_process_is_reaped_even_when_its_session_was_closed_early() -> None:
    from cloison.runtime.session import reap_children

    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    Session(ours, launcher=child.pid).close()
    reap_children()
    assert os.path.exists(f"/proc/{child.pid}")  # it runs, nobody has waited for it
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    reap_children()
    assert not os.path.exists(f"/proc/{child.pid}")
    theirs.close()
    child.returncode = 0


def test_one_thread_may_send_while_another_receives(pair: tuple[Session, socket.socket]) -> None:
    session, monitor = pair
    heard: list[str] = []
    listener = threading.Thread(target=lambda: heard.append(session.receive(5).kind))
    listener.start()
    session.start()
    assert monitor.recv(9) == b"S"
    monitor.send(b"s")
    listener.join()
    assert heard == ["started"]
