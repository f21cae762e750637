"""checkpoint and restore: containers that go on where they were, by CRIU, and what is left when that fails."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import until
from oci_bundle import OUTSIDE, Door, hook, in_user_namespace, subreaping

CRIU = shutil.which("criu", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
CAN = CRIU is not None and subprocess.run([CRIU, "check"], capture_output=True).returncode == 0

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not CAN, reason="needs criu, and a kernel that it can work with: make test-guest"),
]

COUNT = "i=0; while :; do i=$((i+1)); echo $i >>/data/count; sleep 0.1; done"


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    with subreaping():
        yield


@pytest.fixture
def images(door: Door) -> str:
    return str(door.home / "images")


class Counter:
    """A container that counts in its memory, and writes each number into a file of the host."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.data = door.home / "data"
        self.data.mkdir()
        bind = {"destination": "/data", "type": "bind", "source": str(self.data), "options": ["rbind", "rw"]}
        door.config["mounts"].append(bind)

    def start(self) -> int:
        pid = self.door.start("t-count", "sh", "-c", COUNT)
        self.go_on()
        return pid

    def numbers(self) -> list[int]:
        file = self.data / "count"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def go_on(self) -> None:
        before = len(self.numbers())
        until(lambda: len(self.numbers()) > before + 2, timeout_s=30, what="three more numbers")

    def has_not_begun_again(self) -> bool:
        numbers = self.numbers()
        return numbers == list(range(1, len(numbers) + 1))


def restore(door: Door, name: str, *words: str) -> int:
    """Its pid; it is a child of ours from then on."""
    door.ok("restore", "--detach", "--pid-file", str(door.bundle / "pid"), *words, name)
    return int((door.bundle / "pid").read_text())


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


def test_a_checkpoint_that_leaves_it_running_can_be_restored_later(door: Door, images: str) -> None:
    counter = Counter(door)
    pid = counter.start()
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
    assert stopped - 3 <= counter.numbers()[0] <= stopped + 3


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
    "nc -l -p 5000 -e cat & until grep -q :1388 /proc/net/tcp; do sleep 0.1; done; i=0;"
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


@pytest.mark.parametrize(("parent", "why"), [("/first", "relative"), ("../no", "no such directory")])
def test_a_parent_is_a_directory_beside(door: Door, images: str, parent: str, why: str) -> None:
    door.start("t-count", "sleep", "100")
    assert why in door.fails("checkpoint", "--parent-path", parent, "--image-path", images, "t-count")


def test_what_is_paused_stays_so(door: Door, images: str) -> None:
    counter = Counter(door)
    counter.start()
    door.ok("pause", "t-count")
    door.ok("checkpoint", "--leave-running", "--image-path", images, "t-count")
    assert door.state("t-count")["status"] == "paused"
    door.ok("resume", "t-count")
    counter.go_on()


def test_a_bind_mount_is_where_the_bundle_has_it_now(door: Door, images: str) -> None:
    counter = Counter(door)
    counter.start()
    door.ok("checkpoint", "--image-path", images, "t-count")
    last = counter.numbers()[-1]
    counter.data = counter.data.rename(door.home / "elsewhere")
    (counter.data / "count").unlink()
    door.config["mounts"][-1]["source"] = str(counter.data)
    door.write()
    # A root file system that never saw the container: mount points are made again
    (door.bundle / "rootfs" / "data").rmdir()
    restore(door, "t-count", "--image-path", images)
    counter.go_on()
    assert counter.numbers()[0] == last + 1


def test_a_bind_mount_that_the_bundle_has_no_more_is_named(door: Door, images: str) -> None:
    counter = Counter(door)
    counter.start()
    door.ok("checkpoint", "--image-path", images, "t-count")
    del door.config["mounts"][-1]
    door.write()
    said = door.fails("restore", "--detach", "--image-path", images, "t-count")
    assert said.startswith("cannot restore the mount on /data: ")


def test_a_restored_command_ends_in_front_as_it_would_have(door: Door, images: str) -> None:
    counter = Counter(door)
    door.start("t-count", "sh", "-c", "until [ -e /data/go ]; do sleep 0.1; done; echo done; exit 7")
    door.ok("checkpoint", "--image-path", images, "t-count")
    words = door.argv("restore", "--image-path", images, "t-count")
    with subprocess.Popen(words, cwd=door.bundle, stderr=subprocess.PIPE, text=True) as running:
        until(lambda: door("state", "t-count").code == 0, timeout_s=30, what="the restored container")
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


def test_everything_of_a_usual_bundle_comes_back(door: Door, images: str) -> None:
    """`spec`'s own: a read-only root, a cgroup namespace and its mount, masked and read-only paths, limits."""
    own, door.config = door.config, json.loads((spec_of(door) / "config.json").read_text())
    door.config["process"].update(terminal=False, env=own["process"]["env"])
    door.config["linux"]["resources"]["memory"] = {"limit": 64 << 20}
    counter = Counter(door)
    (door.bundle / "rootfs" / "data").mkdir()
    counter.start()
    views = [
        "cat /proc/self/cgroup", "cat /proc/mounts", "cat /proc/kcore | wc -c", "ls /sys/firmware",
        "cat /sys/fs/cgroup/memory.max", "touch /x 2>&1",
    ]  # fmt: skip
    before = [door("exec", "t-count", "sh", "-c", view).stdout for view in views]
    assert before[4] == f"{64 << 20}\n"
    assert "Read-only" in before[5]
    door.ok("checkpoint", "--image-path", images, "t-count")
    restore(door, "t-count", "--image-path", images)
    counter.go_on()
    assert counter.has_not_begun_again()
    after = [door("exec", "t-count", "sh", "-c", view).stdout for view in views]
    assert sorted(after[1].splitlines()) == sorted(before[1].splitlines())
    assert after[:1] + after[2:] == before[:1] + before[2:]


def spec_of(door: Door) -> Path:
    directory = door.home / "spec"
    directory.mkdir()
    door.ok("spec", "--bundle", str(directory))
    return directory


def test_a_network_namespace_by_path_is_joined_again(door: Door, images: str) -> None:
    subprocess.run(["ip", "netns", "add", "t-criu"], check=True)
    try:
        counter = Counter(door)
        for namespace in door.config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = "/run/netns/t-criu"
        counter.start()
        door.ok("checkpoint", "--image-path", images, "t-count")
        pid = restore(door, "t-count", "--image-path", images)
        counter.go_on()
        assert os.path.samefile(f"/proc/{pid}/ns/net", "/run/netns/t-criu")
        door.ok("delete", "--force", "t-count")
    finally:
        subprocess.run(["ip", "netns", "del", "t-criu"], check=True)


def test_a_user_namespace_is_restored(door: Door, images: str) -> None:
    in_user_namespace(door)
    counter = Counter(door)
    os.chown(counter.data, OUTSIDE, OUTSIDE)
    counter.start()
    door.ok("checkpoint", "--image-path", images, "t-count")
    pid = restore(door, "t-count", "--image-path", images)
    counter.go_on()
    assert counter.has_not_begun_again()
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", str(OUTSIDE), "1000"]


@pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="needs systemd as PID 1")
def test_a_restored_container_is_a_unit_again(door: Door, images: str) -> None:
    counter = Counter(door)
    door.write("sh", "-c", COUNT)
    door.ok("--systemd-cgroup", "run", "--detach", "t-count")
    counter.go_on()
    door.ok("--systemd-cgroup", "checkpoint", "--image-path", images, "t-count")
    door.ok("--systemd-cgroup", "restore", "--detach", "--image-path", images, "t-count")
    counter.go_on()
    pid = door.state("t-count")["pid"]
    assert Path(f"/proc/{pid}/cgroup").read_text() == "0::/system.slice/cloison-t-count.scope\n"
    shown = subprocess.run(["systemctl", "is-active", "cloison-t-count.scope"], capture_output=True, text=True)
    assert shown.stdout == "active\n"


@pytest.mark.parametrize("mode", ["soft", "full", "ignore"])
def test_limits_count_whatever_criu_does_of_groups(door: Door, images: str, mode: str) -> None:
    counter = Counter(door)
    door.config["linux"]["resources"] = {"pids": {"limit": 33}}
    counter.start()
    words = ["--manage-cgroups-mode", mode, "--image-path", images]
    door.ok("checkpoint", *words, "t-count")
    pid = restore(door, "t-count", *words)
    counter.go_on()
    group = Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")
    assert (group, Path("/sys/fs/cgroup", group, "pids.max").read_text()) == ("cloison-oci-t-count", "33\n")


def test_hooks_of_the_host_see_the_new_namespaces(door: Door, images: str) -> None:
    counter = Counter(door)
    counter.start()
    door.ok("checkpoint", "--image-path", images, "t-count")
    log = door.home / "hooks"
    door.config["hooks"] = {kind: [hook(log, kind)] for kind in ("createRuntime", "poststart", "poststop")}
    door.write()
    pid = restore(door, "t-count", "--image-path", images)
    name, _, state = log.read_text().splitlines()[0].split(" ", 2)
    assert (name, json.loads(state)["pid"]) == ("createRuntime", pid)
    door.config["hooks"] = {"createRuntime": [hook(log, "failing", code=3)]}
    door.write()
    door.ok("delete", "--force", "t-count")
    assert [line.split(" ")[0] for line in log.read_text().splitlines()] == ["createRuntime", "poststop"]
    assert "exit code 3" in door.fails("restore", "--detach", "--image-path", images, "t-count")
    assert (door.left(), door.groups()) == ([], [])


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
