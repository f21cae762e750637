"""checkpoint and restore: what is around a container's processes, mounts, namespaces, control groups and hooks."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints import CAN, COUNT, NEEDS, Counter, restore
from oci_bundle import OUTSIDE, Door, hook, in_user_namespace, subreaping

pytestmark = [pytest.mark.guest, pytest.mark.skipif(not CAN, reason=NEEDS)]


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    with subreaping():
        yield


@pytest.fixture
def images(door: Door) -> str:
    return str(door.home / "images")


def test_a_bind_mount_is_where_the_bundle_has_it_now_or_named_when_it_has_it_no_more(door: Door, images: str) -> None:
    counter = Counter(door)
    counter.start()
    door.ok("checkpoint", "--image-path", images, "t-count")
    last = counter.numbers()[-1]
    mount = door.config["mounts"].pop()
    door.write()
    said = door.fails("restore", "--detach", "--image-path", images, "t-count")
    assert said.startswith("cannot restore the mount on /data: ")
    counter.data = counter.data.rename(door.home / "elsewhere")
    (counter.data / "count").unlink()
    door.config["mounts"].append({**mount, "source": str(counter.data)})
    door.write()
    # A root file system that never saw the container: mount points are made again
    (door.bundle / "rootfs" / "data").rmdir()
    restore(door, "t-count", "--image-path", images)
    counter.go_on()
    assert counter.numbers()[0] == last + 1


def test_everything_of_a_usual_bundle_comes_back(door: Door, images: str) -> None:
    """`spec`'s own: a read-only root, a cgroup namespace and its mount, masked and read-only paths, limits."""
    own, door.config = door.config, json.loads((spec_of(door) / "config.json").read_text())
    door.config["process"].update(terminal=False, env=own["process"]["env"])
    door.config["linux"]["resources"]["memory"] = {"limit": 64 << 20}
    forbidden = {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}
    door.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [forbidden]}
    counter = Counter(door)
    for name in ("one", "two"):
        mount = {"destination": f"/{name}", "type": "bind", "source": "/etc", "options": ["rbind", "ro", "nosuid"]}
        door.config["mounts"].append(mount)
    walls = walls_of(counter.start())
    views = [
        "cat /proc/self/cgroup", "cat /proc/mounts", "cat /proc/kcore | wc -c", "ls /sys/firmware",
        "cat /sys/fs/cgroup/memory.max", "touch /x 2>&1",
    ]  # fmt: skip
    before = [door("exec", "t-count", "sh", "-c", view).stdout for view in views]
    assert before[4] == f"{64 << 20}\n"
    assert "Read-only" in before[5]
    door.ok("checkpoint", "--image-path", images, "t-count")
    pid = restore(door, "t-count", "--image-path", images)
    counter.go_on()
    assert counter.has_not_begun_again()
    assert walls_of(pid) == walls
    assert "Seccomp:\t2" in walls
    after = [door("exec", "t-count", "sh", "-c", view).stdout for view in views]
    assert sorted(after[1].splitlines()) == sorted(before[1].splitlines())
    assert after[:1] + after[2:] == before[:1] + before[2:]


def walls_of(pid: int) -> list[str]:
    """What a process may do, as the kernel tells it."""
    names = ("Uid", "Gid", "Groups", "Umask", "NoNewPrivs", "Seccomp", "Cap", "CoreDumping")
    lines = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(names)]
    return [*lines, *Path(f"/proc/{pid}/limits").read_text().splitlines()]


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
    door.ok("checkpoint", "--pre-dump", "--image-path", f"{images}/first", "t-count")
    door.ok("checkpoint", "--parent-path", "../first", "--image-path", f"{images}/second", "t-count")
    Path(images).chmod(0o711)
    pid = restore(door, "t-count", "--image-path", f"{images}/second")
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


@pytest.mark.parametrize("mode", ["full", "ignore"])
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
