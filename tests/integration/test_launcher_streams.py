"""The monitor: bytes to pipes, log, relay and clients without loss, terminal, start, attach, the end."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher_plan import Operation, Run, World, launch, made_world

SIZE = 8 << 20
ZEROS = ("dd", "if=/dev/zero", "bs=8192", "count=1024")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        yield world


def attached(run: Run, bits: int = 6) -> Run:
    run.send("A", bytes([bits]))
    run.send("S")
    return run


def eventually(condition: Callable[[], bool], timeout: float = 30) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def links_of(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]


def records(path: Path) -> list[tuple[int, int, bytes]]:
    """The log's frames: stream, time, bytes."""
    data, found = path.read_bytes(), []
    while data:
        stream, zero, length, moment = struct.unpack("<B3sIQ", data[:16])
        assert zero == bytes(3) and len(data) >= 16 + length
        found.append((stream, moment, data[16 : 16 + length]))
        data = data[16 + length :]
    return found


def connect(path: Path) -> Run:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect(str(path))
    return Run(subprocess.Popen(["true"]), client)


def hang_up(run: Run) -> None:
    run.client.close()
    run.process.wait()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(path))
        server.listen(16)
        yield path, server.fileno()


AWAIT: list[Operation] = [("await-start", "client")]


def test_output_reaches_an_attached_client_whole(world: World) -> None:
    started = attached(launch(world.plan(*ZEROS, late=AWAIT)))
    time.sleep(0.3)  # a slow reader slows the command down and loses nothing
    assert started.exit()["status"] == 0
    assert started.output() == bytes(SIZE)
    assert started.output(b"e").endswith(b"records out\n")
    assert started.close() == 0


def test_the_log_holds_everything_in_frames_with_their_times(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"
    started = launch(
        [("log", str(log), 0, 0), *world.plan("sh", "-c", f"echo first; {' '.join(ZEROS)}; echo last >&2")]
    )
    before = time.time_ns()
    assert started.exit()["status"] == 0
    started.close()
    frames = records(log)
    assert b"".join(data for stream, _, data in frames if stream == 1) == b"first\n" + bytes(SIZE)
    assert b"".join(data for stream, _, data in frames if stream == 2).endswith(b"last\n")
    times = [moment for _, moment, _ in frames]
    assert times == sorted(times)
    assert abs(times[0] - before) < 60e9


def test_the_log_is_rotated_between_records_and_old_files_go(world: World, tmp_path: Path) -> None:
    log = tmp_path / "log"
    # A read takes 32 KiB at most, so no single record passes the limit
    code = "i=0; while [ $i -lt 60 ]; do printf '%09999d\\n' $i; i=$((i+1)); done"
    started = launch([("log", str(log), 100000, 3), *world.plan("sh", "-c", code)])
    assert started.exit()["status"] == 0
    started.close()
    files = sorted(tmp_path.glob("log*"))
    assert [file.name for file in files] == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 100000 for file in files)
    frames = [records(tmp_path / name) for name in ("log.2", "log.1", "log")]
    kept = b"".join(data for file in frames for _, _, data in file)
    numbers = [int(line[-4:]) for line in kept.split()]
    assert numbers == list(range(numbers[0], 60))
    for old, new in (("log.2", frames[1]), ("log.1", frames[2])):  # no sooner than the next record needs
        assert (tmp_path / old).stat().st_size + 16 + len(new[0][2]) > 100000


def test_a_log_on_a_full_disk_keeps_whole_records_and_the_command_runs_on(world: World, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "cloison-test", str(small)], check=True)
    try:
        started = launch([("log", str(small / "log"), 0, 0), *world.plan(*ZEROS)])
        assert started.exit()["status"] == 0
        started.close()
        assert set(b"".join(data for stream, _, data in records(small / "log") if stream == 1)) <= {0}
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_relay_to_a_slow_pipe_is_lossless(
    world: World, tmp_path: Path, listening: tuple[Path, int], blocking: bool
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    log = tmp_path / "log"
    plan = [("log", str(log), 0, 0), ("relay", -1, "{0}", -1), ("listen", "{1}"), *world.plan(*ZEROS)]
    started = launch(plan, fds=[writer, listening[1]])
    os.close(writer)
    time.sleep(0.5)
    first = os.read(reader, 5000)  # room for a page, not for all that waits
    other = connect(listening[0])
    other.send("A", b"\0")
    other.until("c", 5)  # it still answers
    hang_up(other)
    ticks = sum(map(int, Path(f"/proc/{started.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
    assert ticks < 20, "the monitor spins while the reader sleeps"
    with open(reader, "rb") as file:
        assert first + file.read() == bytes(SIZE)
    started.exit()
    started.close()
    assert b"".join(data for stream, _, data in records(log) if stream == 1) == bytes(SIZE)


def test_a_relay_whose_reader_has_gone_is_given_up_and_the_log_goes_on(world: World, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = tmp_path / "log"
    started = launch([("log", str(log), 0, 0), ("relay", -1, "{0}", -1), *world.plan(*ZEROS)], fds=[writer])
    os.close(writer)
    assert started.exit()["status"] == 0
    started.close()
    assert b"".join(data for stream, _, data in records(log) if stream == 1) == bytes(SIZE)


def test_a_relay_to_and_from_regular_files_works(world: World, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(os.urandom(1 << 20))
    source, target = os.open(tmp_path / "in", os.O_RDONLY), os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    started = launch([("relay", "{0}", "{1}", -1), *world.plan("cat")], fds=[source, target])
    os.close(source)
    os.close(target)
    assert started.exit()["status"] == 0
    started.close()
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_the_callers_own_descriptors_can_be_the_commands(world: World) -> None:
    reader, writer = os.pipe()
    started = launch(world.plan("sh", "-c", "echo direct; sleep 60", stdio=("null", "fd:{0}", "null")), fds=[writer])
    os.close(writer)
    assert os.read(reader, 100) == b"direct\n"
    assert os.readlink(f"/proc/self/fd/{reader}") not in links_of(started.process.pid)
    os.kill(started.pid(), signal.SIGKILL)
    assert os.read(reader, 100) == b""
    started.exit()
    started.close()
    os.close(reader)


def test_stdin_arrives_whole_and_ends(world: World) -> None:
    data = os.urandom(3 << 20)
    started = attached(launch(world.plan("md5sum", late=AWAIT)), bits=7)
    for at in range(0, len(data), 65536):
        started.send("I", data[at : at + 65536])
    started.send("E")
    assert started.exit()["status"] == 0
    started.close()
    expected = subprocess.run(["md5sum"], input=data, capture_output=True, check=True).stdout.split()[0]
    assert started.output().split()[0] == expected


def test_output_goes_on_after_stdin_was_closed(world: World) -> None:
    started = attached(launch(world.plan("sh", "-c", "cat; echo after", late=AWAIT)), bits=7)
    started.send("I", b"before\n")
    started.send("E")
    started.exit()
    assert started.output() == b"before\nafter\n"
    started.close()


def test_stdin_ends_with_its_client_only_when_that_was_asked_for(world: World, listening: tuple[Path, int]) -> None:
    path, server = listening
    started = launch([("listen", "{0}"), *world.plan("sh", "-c", "cat >/dev/null; exit 3")], fds=[server])
    started.until("s")
    for bits in (1, 9):
        other = connect(path)
        other.send("A", bytes([bits]))
        other.until("s")
        hang_up(other)
        if bits == 1:
            time.sleep(0.2)
            assert started.process.poll() is None
    assert started.exit()["status"] == 3 << 8
    started.close()


def test_nothing_is_executed_before_the_start_message(world: World) -> None:
    started = launch(world.plan("sh", "-c", "echo ran", late=AWAIT))
    started.until("w")
    with pytest.raises(TimeoutError):
        started.receive(0.2)
    attached(started).exit()
    assert started.output() == b"ran\n"
    started.close()


def test_anyone_may_start_what_waits_for_anyone(world: World, listening: tuple[Path, int], tmp_path: Path) -> None:
    path, server = listening
    plan = [
        ("listen", "{0}"),
        ("exit-file", str(tmp_path / "exit")),
        *world.plan("echo", "hi", late=[("await-start", "anyone")]),
    ]
    started = launch(plan, fds=[server])
    started.until("w")
    started.client.close()
    other = attached(connect(path))
    assert other.exit()["status"] == 0
    assert other.output() == b"hi\n"
    assert [data[:1] for data in other.seen] == [b"c", b"s", b"o", b"x"]
    hang_up(other)
    started.close()
    assert (tmp_path / "exit").read_text().startswith("status 0\n")


def test_fifteen_more_clients_all_get_everything(world: World, listening: tuple[Path, int]) -> None:
    path, server = listening
    plan = [("listen", "{0}"), *world.plan("dd", "if=/dev/zero", "bs=4096", "count=64", late=AWAIT)]
    started = launch(plan, fds=[server])
    others = [connect(path) for _ in range(15)]
    for other in others:
        other.send("A", b"\2")
        other.until("c")
    threads = [threading.Thread(target=other.exit) for other in others]
    for thread in threads:
        thread.start()
    attached(started).exit()
    for thread in threads:
        thread.join(20)
    assert {len(other.output()) for other in [started, *others]} == {4096 * 64}
    for other in others:
        hang_up(other)
    started.close()


def test_a_detached_client_gets_no_more_and_holds_nothing_up(world: World, listening: tuple[Path, int]) -> None:
    path, server = listening
    plan = [("listen", "{0}"), *world.plan("sh", "-c", "while read x; do dd if=/dev/zero bs=8192 count=512; done")]
    started = launch(plan, fds=[server])
    other = connect(path)
    other.send("A", b"\6")
    other.until("s")
    other.send("D")
    started.send("I", b"\n\n")
    started.send("E")
    assert started.exit()["status"] == 0
    assert other.output() == b""
    hang_up(other)
    started.close()


def test_a_client_that_dies_is_forgotten(world: World, listening: tuple[Path, int]) -> None:
    path, server = listening
    started = launch([("listen", "{0}"), *world.plan(*ZEROS, late=AWAIT)], fds=[server])
    other = connect(path)
    other.send("A", b"\2")
    other.until("c")
    attached(started)
    other.until("o")
    hang_up(other)
    assert started.exit()["status"] == 0
    assert len(started.output()) == SIZE
    started.close()


@pytest.mark.parametrize("way", ["dies", "detaches"])
def test_a_client_that_leaves_unread_output_behind_does_not_stop_the_command(
    world: World, listening: tuple[Path, int], way: str
) -> None:
    path, server = listening
    started = launch([("listen", "{0}"), *world.plan("sh", "-c", f"read x; {' '.join(ZEROS)}; exit 5")], fds=[server])
    other = connect(path)
    other.send("A", b"\2")
    other.until("s")
    started.send("I", b"\n")
    time.sleep(0.3)  # the socket is full by now, the command blocked
    if way == "detaches":
        other.send("D")
    else:
        hang_up(other)
    assert started.exit()["status"] == 5 << 8
    started.close()
    if way == "detaches":
        hang_up(other)


def test_two_clients_may_feed_stdin_when_it_is_slow(world: World, listening: tuple[Path, int]) -> None:
    path, server = listening
    started = launch([("listen", "{0}"), *world.plan("sh", "-c", "sleep 0.5; wc -c", late=AWAIT)], fds=[server])
    other = connect(path)
    other.send("A", b"\1")
    attached(started)
    for client in (started, other):
        client.until("s")
    threads = [
        threading.Thread(target=lambda run=run: [run.send("I", bytes(65000)) for _ in range(8)])
        for run in (started, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    other.send("W", struct.pack("<HH", 1, 1))
    unread = bytearray(4)
    while fcntl.ioctl(other.client, termios.TIOCOUTQ, unread) or any(unread):  # unix(7): SIOCOUTQ
        time.sleep(0.01)
    started.send("E")
    started.exit()
    assert started.output() == b"1040000\n"
    hang_up(other)
    started.close()


def test_a_background_process_that_holds_the_pipe_does_not_hold_the_end(world: World) -> None:
    plan: list[Operation] = [
        ("stdio", "null", "pipe", "pipe"), *AWAIT, ("env", "PATH=/bin"),
        ("exec", "/bin/busybox", "sh", "-c", "busybox sleep 60 & echo $!; exit 6"),
    ]  # fmt: skip
    started = attached(launch(plan))
    assert started.exit(30)["status"] == 6 << 8
    os.kill(int(started.output()), signal.SIGKILL)  # it was there to the end
    started.close()


def test_a_background_process_that_floods_the_pipe_does_not_hold_the_end(world: World) -> None:
    plan: list[Operation] = [
        ("stdio", "null", "pipe", "null"), *AWAIT, ("env", "PATH=/bin"),
        ("exec", "/bin/busybox", "sh", "-c", "busybox yes & sleep 0.2; exit 6"),
    ]  # fmt: skip
    started = attached(launch(plan))
    assert started.exit()["status"] == 6 << 8
    assert started.close() == 0  # with the pipe's reader the flood ends, by SIGPIPE


def test_a_netlink_socket_of_the_new_network_namespace_is_handed_over(world: World) -> None:
    plan = world.plan("cat", "/proc/net/dev", late=AWAIT, mounts=[("loopback-up",), ("send-netlink",), *world.mounts()])
    started = launch(plan)
    started.until("n")
    with socket.socket(fileno=os.dup(started.fds[0])) as netlink:
        # RTM_GETLINK, dump (rtnetlink(7)): the answer of a new namespace is lo alone, and it is up
        netlink.send(struct.pack("<IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
        answer = netlink.recv(65536)
    length, kind = struct.unpack("<IH", answer[:6])
    flags = struct.unpack("<I", answer[24:28])[0]
    assert kind == 16 and flags & 1
    assert answer.count(b"lo\0") == 1 and len(answer) - length < 64
    attached(started).exit()
    started.close()
