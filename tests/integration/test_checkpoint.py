"""checkpoint and restore: containers that go on where they were, by CRIU, and what is left when that fails."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from checkpoints import CAN, COUNT, NEEDS, Counter, restore
from harness import until
from oci_bundle import Door, subreaping

pytestmark = [pytest.mark.guest, pytest.mark.skipif(not CAN, reason=NEEDS)]


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    with subreaping():
        yield


@pytest.fixture
def images(door: Door) -> str:
    return str(door.home / "images")


def test_a_container_goes_on_where_it_was(door: Door, images: str) -> None:
    counter = Counter(door)
    door.config["linux"]["resources"] = {"pids": {"limit": 33}}
    counter.start()
    door.ok("checkpoint", "--image-path", images, "t-count")
    assert "does not exist" in door.fails("state", "t-count")
    assert not door.groups()
    stopped = len(counter.numbers())
    pid = restore(door, "t-count", "--image-path", images)
    counter.go_on()
    assert counter.numbers()[stopped - 1 : stopped + 1] == [stopped, stopped + 1]
    assert counter.has_not_begun_again()
    state = door.state("t-count")
    assert (state["status"], state["pid"]) == ("running", pid)
    group = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")
    assert group == "cloison-oci-t-count"
    assert Path("/sys/fs/cgroup", group, "pids.max").read_text() == "33\n"
    assert "eth" not in door.ok("exec", "t-count", "sh", "-c", "hostname; cat /proc/net/dev; echo $$")
    door.ok("pause", "t-count")
    assert door.state("t-count")["status"] == "paused"
    door.ok("resume", "t-count")
    door.ok("kill", "t-count", "KILL")
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9
    door.ok("delete", "t-count")


def test_a_checkpoint_that_leaves_it_as_it_is_can_be_restored_later(door: Door, images: str) -> None:
    counter = Counter(door)
    pid = counter.start()
    door.ok("pause", "t-count")
    door.ok("checkpoint", "--leave-running", "--image-path", images, "t-count")
    assert door.state("t-count")["status"] == "paused"
    door.ok("resume", "t-count")
    counter.go_on()
    before = len(counter.numbers())
    door.ok("checkpoint", "--leave-running", "--image-path", images, "--work-path", f"{images}-work", "t-count")
    assert Path(f"{images}-work", "dump.log").exists()
    assert door.state("t-count")["pid"] == pid
    stopped = len(counter.numbers())
    counter.go_on()
    door.ok("delete", "--force", "t-count")
    shutil.rmtree(counter.data)
    counter.data.mkdir()
    restore(door, "t-count", "--image-path", images)
    counter.go_on()
    assert before < counter.numbers()[0] <= stopped + 1


def test_a_failed_restore_leaves_nothing(door: Door, images: str) -> None:
    counter = Counter(door)
    counter.start()
    door.ok("checkpoint", "--image-path", images, "t-count")
    before = Path("/proc/self/mountinfo").read_text()
    next(Path(images).glob("pages-*.img")).unlink()
    said = door.fails("restore", "--detach", "--image-path", images, "t-count")
    assert f"see {images}/restore.log" in said
    assert said.startswith("cannot restore container t-count: criu: ")
    assert len(said.splitlines()) == 1
    assert (door.left(), door.groups()) == ([], [])
    assert Path("/proc/self/mountinfo").read_text() == before


TALK = (
    "nc -l -p 5000 -e cat & until grep -q :1388 /proc/net/tcp6; do sleep 0.1; done; i=0;"
    " (while :; do i=$((i+1)); echo $i; sleep 0.1; done) | nc 127.0.0.1 5000 >>/data/count"
)


def test_a_connection_goes_on_or_is_a_reason_that_is_named(door: Door, images: str) -> None:
    counter = Counter(door)
    door.start("t-count", "sh", "-c", TALK)
    counter.go_on()
    said = door.fails("checkpoint", "--image-path", images, "t-count")
    assert "--tcp-established" in said
    assert f"see {images}/dump.log" in said
    assert door.state("t-count")["status"] == "running"
    counter.go_on()  # a failure stops nothing
    door.ok("checkpoint", "--tcp-established", "--image-path", images, "t-count")
    restore(door, "t-count", "--tcp-established", "--image-path", images)
    counter.go_on()
    assert counter.has_not_begun_again()


def test_memory_is_copied_beforehand(door: Door, images: str) -> None:
    counter = Counter(door)
    script = f"x=$(head -c 3000000 /dev/zero | tr '\\0' a); {COUNT}"
    pid = door.start("t-count", "sh", "-c", script)
    counter.go_on()
    door.ok("checkpoint", "--pre-dump", "--image-path", f"{images}/first", "t-count")
    counter.go_on()
    assert door.state("t-count") | {"status": "running", "pid": pid} == door.state("t-count")
    second = ["--parent-path", "../first", "--image-path", f"{images}/second"]
    door.ok("checkpoint", *second, "t-count")
    assert pages(f"{images}/second") < pages(f"{images}/first") / 2
    restore(door, "t-count", "--image-path", f"{images}/second")
    counter.go_on()
    assert counter.has_not_begun_again()


def pages(images: str) -> int:
    return sum(path.stat().st_size for path in Path(images).glob("pages-*.img"))


def test_a_parent_is_a_directory_beside(door: Door, images: str) -> None:
    door.start("t-count", "sleep", "100")
    for parent, why in (("/first", "relative"), ("../no", "no such directory")):
        assert why in door.fails("checkpoint", "--parent-path", parent, "--image-path", images, "t-count")


def test_a_restored_command_ends_in_front_as_it_would_have(door: Door, images: str) -> None:
    counter = Counter(door)
    door.start("t-count", "sh", "-c", "until [ -e /data/go ]; do sleep 0.1; done; echo done; exit 7")
    door.ok("checkpoint", "--image-path", images, "t-count")
    words = door.argv("restore", "--image-path", images, "t-count")
    with subprocess.Popen(words, cwd=door.bundle, stderr=subprocess.PIPE, text=True) as running:
        until(lambda: door("state", "t-count").returncode == 0, timeout_s=30, what="the restored container")
        (counter.data / "go").touch()
        assert (running.wait(30), running.stderr and running.stderr.read()) == (7, "")
    assert door.left() == []


def test_pipes_are_the_callers_of_restore(door: Door, images: str) -> None:
    door.write("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    words = ["restore", "--detach", "--image-path", images, "t-pipes"]
    with piped(door, ["run", "--detach", "t-pipes"]) as lines:
        assert [next(lines), next(lines)] == [1, 2]
        door.ok("checkpoint", "--image-path", images, "t-pipes")
        rest = list(lines)
    with piped(door, words) as lines:
        assert next(lines) == (rest or [2])[-1] + 1
        door.ok("delete", "--force", "t-pipes")


@contextmanager
def piped(door: Door, words: list[str]) -> Iterator[Iterator[int]]:
    """The numbers that come out of a container's pipe."""
    reader, writer = os.pipe()
    subprocess.run(door.argv(*words), cwd=door.bundle, stdin=subprocess.DEVNULL, stdout=writer, timeout=30, check=True)
    os.close(writer)
    with open(reader) as file:
        yield (int(line) for line in file)


def test_a_terminal_is_handed_over_again(door: Door, images: str) -> None:
    door.write("sh", "-c", "i=0; while read line; do i=$((i+1)); echo $i:$line; done", terminal=True)
    with listening(door) as console:
        door.ok("create", "--console-socket", console.path, "--pid-file", str(door.bundle / "pid"), "t-tty")
        door.ok("start", "t-tty")
        master = console.master()
        assert ask(master, "a") == "1:a"
        door.ok("checkpoint", "--image-path", images, "t-tty")
        os.close(master)
        restore(door, "t-tty", "--image-path", images, "--console-socket", console.path)
        master = console.master()
        assert ask(master, "b") == "2:b"
        os.close(master)


class Console:
    """A console socket, as callers have it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(path)
        self._socket.listen()
        self._socket.settimeout(30)

    def master(self) -> int:
        connection, _ = self._socket.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 64, 1)
            return fds[0]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def listening(door: Door) -> Iterator[Console]:
    console = Console(str(door.home / "console"))
    try:
        yield console
    finally:
        console.close()


def ask(master: int, line: str) -> str:
    """What the container answers on its terminal, which repeats what is typed."""
    os.write(master, f"{line}\n".encode())
    heard = b""

    def answered() -> bool:
        nonlocal heard
        heard += os.read(master, 4096)
        return heard.count(b"\n") > 1

    until(answered, timeout_s=30, what=f"an answer to {line}")
    return heard.decode().split("\r\n")[1]


def test_memory_goes_to_a_page_server(door: Door, images: str) -> None:
    counter = Counter(door)
    counter.start()
    remote = door.home / "remote"
    remote.mkdir()
    words = ["criu", "page-server", "--images-dir", str(remote), "--address", "127.0.0.1", "--port", "27000"]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        until(lambda: listens_on(27000), timeout_s=30, what="the page server")
        door.ok("checkpoint", "--page-server", "127.0.0.1:27000", "--image-path", images, "t-count")
        assert server.wait(30) == 0
    assert pages(images) == 0 < pages(str(remote))
    for path in remote.glob("page*.img"):
        shutil.copy(path, images)
    restore(door, "t-count", "--image-path", images)
    counter.go_on()
    assert counter.has_not_begun_again()


def listens_on(port: int) -> bool:
    return f":{port:04X} 00000000:0000 0A" in Path("/proc/net/tcp").read_text()


def test_memory_is_fetched_when_it_is_touched(door: Door, images: str) -> None:
    """The first container serves its pages until the second has them all."""
    counter = Counter(door)
    counter.start()
    reader, writer = os.pipe()
    words = ["--lazy-pages", "--page-server", "127.0.0.1:27001", "--status-fd", str(writer), "--image-path", images]
    fetch = ["--images-dir", images, "--work-dir", images, "--page-server", "--address", "127.0.0.1", "--port", "27001"]
    with subprocess.Popen(door.argv("checkpoint", *words, "t-count"), pass_fds=[writer]) as source:
        os.close(writer)
        assert os.read(reader, 2) == b"\0"
        os.close(reader)
        with subprocess.Popen(["criu", "lazy-pages", *fetch], stderr=subprocess.DEVNULL) as fetcher:
            until(lambda: Path(images, "lazy-pages.socket").exists(), timeout_s=30, what="the fetcher")
            restore(door, "t-other", "--lazy-pages", "--image-path", images)
            counter.go_on()
            assert fetcher.wait(30) == 0
        assert source.wait(30) == 0
    assert counter.has_not_begun_again()
    assert door.left() == ["t-other"]


def test_a_terminal_is_the_callers_in_front(door: Door, images: str) -> None:
    door.write("sh", "-c", "i=0; while read line; do i=$((i+1)); echo $i:$line; done; exit 9", terminal=True)
    with listening(door) as console:
        door.ok("run", "--detach", "--console-socket", console.path, "t-tty")
        master = console.master()
        assert ask(master, "a") == "1:a"
        door.ok("checkpoint", "--image-path", images, "t-tty")
        os.close(master)
    master, slave = os.openpty()
    words = door.argv("restore", "--image-path", images, "t-tty")
    with subprocess.Popen(words, cwd=door.bundle, stdin=slave, stdout=slave, stderr=slave) as running:
        os.close(slave)
        until(lambda: not termios.tcgetattr(master)[3] & termios.ECHO, timeout_s=30, what="the terminal's hand-over")
        assert ask(master, "b") == "2:b"
        os.write(master, b"\4")  # ^D
        assert running.wait(30) == 9
    os.close(master)
