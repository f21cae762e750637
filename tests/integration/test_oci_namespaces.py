"""Namespaces of a bundle that exist already, user namespaces among them, as the containers of a pod share them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.linux import resctrl
from cloison.oci_runtime.main import run_command_line
from oci_bundle import OUTSIDE, Door, in_user_namespace

KINDS = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid", "cgroup": "cgroup", "time": "time"}
SHOW = "for kind in mnt user net ipc uts pid cgroup time; do readlink /proc/self/ns/$kind; done"


@pytest.fixture
def pod(door: Door) -> int:
    """The pid of a container with a user namespace and all others of its own."""
    in_user_namespace(door)
    door.config["linux"]["namespaces"] += [{"type": "cgroup"}, {"type": "time"}]
    return door.start("t-pod")


def share(door: Door, pid: int, *kinds: str) -> None:
    """The next container joins these, and has a mount namespace of its own."""
    namespaces = [{"type": kind, "path": f"/proc/{pid}/ns/{KINDS[kind]}"} for kind in kinds]
    door.config["linux"]["namespaces"] = [{"type": "mount"}, *namespaces]
    door.config["linux"].pop("uidMappings", None)
    door.config["linux"].pop("gidMappings", None)
    if "uts" in kinds:
        door.config.pop("hostname", None)


def test_every_kind_is_joined_by_path(door: Door, pod: int) -> None:
    share(door, pod, *KINDS)
    door.write("sh", "-c", SHOW)
    mnt, *others = door.ok("run", "t-member").split()
    assert others == [os.readlink(f"/proc/{pod}/ns/{word}") for word in ("user", *list(KINDS.values())[1:])]
    assert mnt != os.readlink(f"/proc/{pod}/ns/mnt")


def test_new_namespaces_belong_to_the_user_namespace_that_was_joined(door: Door, pod: int) -> None:
    share(door, pod, "user", "network", "ipc")
    door.config["linux"]["namespaces"] += [{"type": "pid"}, {"type": "uts"}]
    door.config["hostname"] = "member"
    door.config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    door.write("sh", "-c", "hostname; id -u; stat -c %u /tmp /bin /dev/null; echo $$; echo x > /dev/null && echo ok")
    assert door.ok("run", "t-member").split() == ["member", "0", "0", "0", "0", "1", "ok"]


def test_a_new_user_namespace_goes_with_a_network_of_somebody_else(door: Door) -> None:
    first = door.start("t-pod")
    network = os.readlink(f"/proc/{first}/ns/net")
    in_user_namespace(door)
    for namespace in door.config["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = f"/proc/{first}/ns/net"
    door.write("sh", "-c", "readlink /proc/self/ns/net; cat /proc/self/uid_map")
    assert door.ok("run", "t-member").split() == [network, "0", str(OUTSIDE), "1000"]


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """The pid of somebody with a mount namespace of his own."""
    with subprocess.Popen(["unshare", "--mount", "sleep", "100"]) as sleeper:
        while os.readlink(f"/proc/{sleeper.pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt"):
            time.sleep(0.01)
        yield sleeper.pid
        sleeper.kill()


def join_mounts(door: Door, path: str) -> None:
    for namespace in door.config["linux"]["namespaces"]:
        if namespace["type"] == "mount":
            namespace["path"] = path


def test_a_mount_namespace_is_joined_and_left_as_it_was(door: Door, elsewhere: int) -> None:
    before = Path(f"/proc/{elsewhere}/mountinfo").read_text()
    join_mounts(door, f"/proc/{elsewhere}/ns/mnt")
    door.start("t-m", "sh", "-c", "exec sleep 100")
    pid = door.state("t-m")["pid"]
    assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink(f"/proc/{elsewhere}/ns/mnt")
    assert os.readlink(f"/proc/{elsewhere}/root") == "/"
    assert door.ok("exec", "t-m", "sh", "-c", "echo /*; hostname").split()[-1] == "inside"
    assert door.ok("exec", "t-m", "ls", "/").split() == sorted(os.listdir(door.bundle / "rootfs"))
    assert Path(f"/proc/{elsewhere}/mountinfo").read_text() != before
    door.ok("delete", "--force", "t-m")
    assert Path(f"/proc/{elsewhere}/mountinfo").read_text() == before


def test_a_failure_takes_the_mounts_off_and_no_others(door: Door) -> None:
    root = door.bundle / "rootfs"
    script = f"mount --bind {root} {root} && exec sleep 100"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script]) as sleeper:
        mounts = Path(f"/proc/{sleeper.pid}/mountinfo")
        while f" {root} " not in mounts.read_text():
            time.sleep(0.01)
        before = mounts.read_text()
        join_mounts(door, f"/proc/{sleeper.pid}/ns/mnt")
        door.write("no-such-command")
        assert "no-such-command" in door.fails("run", "t-m")
        assert mounts.read_text() == before
        door.config["linux"]["uidMappings"] = [{"containerID": 0, "hostID": 0, "size": 1}]
        door.config["linux"]["namespaces"].append({"type": "user"})  # may not join: fails before anything is mounted
        door.write("true")
        door.fails("run", "t-m")
        assert mounts.read_text() == before
        sleeper.kill()
    assert door.left() == []


@pytest.mark.parametrize("path", ["", "/proc/self/ns/mnt"], ids=["inherited", "by path"])
def test_the_commands_own_mount_namespace_is_left_as_it_was(door: Door, path: str) -> None:
    """config-linux.md: without a namespace of this type the runtime's MUST be inherited."""
    before = mounts_below(door.bundle)
    linux = door.config["linux"]
    linux["namespaces"] = [namespace for namespace in linux["namespaces"] if namespace["type"] != "mount"]
    if path:
        linux["namespaces"].append({"type": "mount", "path": path})
    door.start("t-m", "sh", "-c", "exec sleep 100")
    assert os.readlink(f"/proc/{door.state('t-m')['pid']}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    assert door.ok("exec", "t-m", "ls", "/").split() == sorted(os.listdir(door.bundle / "rootfs"))
    assert mounts_below(door.bundle) != before
    door.ok("delete", "--force", "t-m")
    assert mounts_below(door.bundle) == before
    door.write("no-such-command")
    assert "no-such-command" in door.fails("run", "t-m")
    assert mounts_below(door.bundle) == before


def mounts_below(place: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {place}/" in line]


def test_exec_joins_a_user_namespace_and_what_is_outside_of_it(door: Door) -> None:
    in_user_namespace(door)
    linux = door.config["linux"]
    linux["namespaces"] = [namespace for namespace in linux["namespaces"] if namespace["type"] != "network"]
    door.start("t-pod")
    out = door.ok("exec", "t-pod", "sh", "-c", "id -u; hostname; readlink /proc/self/ns/net").split()
    assert out == ["0", "inside", os.readlink("/proc/self/ns/net")]


def test_exec_into_a_paused_container_waits_for_its_end(door: Door) -> None:
    door.start("t-m")
    door.ok("pause", "t-m")
    assert "paused" in door.fails("exec", "t-m", "true")
    with subprocess.Popen(door.argv("exec", "--ignore-paused", "t-m", "sh", "-c", "exit 7")) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=0.5)
        door.ok("resume", "t-m")
        assert waiting.wait(timeout=10) == 7


@pytest.fixture
def device() -> Iterator[str]:
    """A device with a broadcast address that is not the usual one, and an IPv6 address."""
    name = "cloison-oci0"
    for words in (
        ("link", "add", name, "type", "veth", "peer", "name", "cloison-oci1"),
        ("link", "set", name, "mtu", "1400", "up"),
        ("addr", "add", "10.99.0.3/24", "brd", "10.99.0.77", "dev", name), ("addr", "add", "10.99.1.3/24", "dev", name),
        ("addr", "add", "fd00:99::3/64", "dev", name, "nodad"),
    ):  # fmt: skip
        subprocess.run(["ip", *words], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("apart", [False, True], ids=["host", "user namespace"])
def test_a_network_device_moves_in_with_its_addresses(door: Door, device: str, apart: bool) -> None:
    if apart:
        in_user_namespace(door)
    door.config["linux"]["netDevices"] = {device: {"name": "inner0"}}
    door.write("sh", "-c", "ip -o addr show dev inner0; ip -o link show dev inner0; cat /proc/net/if_inet6")
    out = door.ok("run", "t-m")
    assert "inet 10.99.0.3/24 brd 10.99.0.77 scope global inner0" in out
    assert "inet 10.99.1.3/24 scope global inner0" in out
    assert "fd000099000000000000000000000003" in out
    assert "mtu 1400" in out and "UP" in out


def test_a_network_device_that_does_not_exist_fails_the_create_and_leaves_nothing(door: Door) -> None:
    door.config["linux"]["netDevices"] = {"cloison-none": {}}
    door.write("true")
    assert "network device cloison-none" in door.fails("run", "t-m")
    assert door.left() == []


def test_a_machine_without_rdt_refuses_it_and_leaves_nothing(door: Door) -> None:
    if " - resctrl " in Path("/proc/self/mountinfo").read_text():
        pytest.skip("this machine has resctrl")
    door.config["linux"]["intelRdt"] = {"closID": "gold"}
    door.write("true")
    assert "no resctrl file system is mounted" in door.fails("run", "t-m")
    assert door.left() == []


def test_a_container_is_in_its_rdt_class_before_it_runs(
    door: Door, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a fake file tree, which makes no files of its own: the class is there already."""
    (tmp_path / "gold").mkdir()
    (tmp_path / "gold" / "tasks").touch()
    (tmp_path / "gold" / "schemata").write_text("L3:0=f\n")
    monkeypatch.setattr(resctrl, "find_root", lambda: str(tmp_path))
    door.config["linux"]["intelRdt"] = {"closID": "gold", "schemata": ["L3:0=f"]}
    door.write("sleep", "100")
    monkeypatch.chdir(door.bundle)
    assert run_command_line(["--root", str(door.root), "create", "t-m"]) == 0
    assert (tmp_path / "gold" / "tasks").read_text() == str(door.state("t-m")["pid"])
    door.ok("delete", "--force", "t-m")
    assert (tmp_path / "gold").is_dir()  # it is not the container's
