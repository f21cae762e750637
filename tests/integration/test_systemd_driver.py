"""The systemd driver of the OCI runtime door: what systemd, and the kernel, say of a container's unit."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import until
from oci_bundle import Door, subreaping

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not os.path.isdir("/run/systemd/system"), reason="needs systemd as PID 1: make test-guest"),
]

UNIFIED = Path("/sys/fs/cgroup")
SCOPE = "cloison-t-unit.scope"


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    with subreaping():
        yield


@pytest.fixture(autouse=True)
def no_unit_is_left(door: Door) -> Iterator[None]:
    yield
    door.remove()
    listed = subprocess.run(
        ["systemctl", "list-units", "--all", "--no-legend", "--plain"], capture_output=True, text=True
    )
    assert "t-unit" not in listed.stdout


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit, as systemd tells them."""
    words = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def create(door: Door, *args: str, path: str = "system.slice:cloison:t-unit", **resources: object) -> int:
    """A container of that cgroupsPath, created and started; its pid."""
    door.config["linux"].update(cgroupsPath=path, resources=resources)
    door.write(*(args or ("sleep", "100")))
    door.ok("--systemd-cgroup", "create", "--pid-file", str(door.bundle / "pid"), "t-unit")
    door.ok("--systemd-cgroup", "start", "t-unit")
    return int((door.bundle / "pid").read_text())


def group_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::")[2]


def test_a_container_is_a_scope_in_the_slice_that_was_asked_for(door: Door) -> None:
    pid = create(door, path="machine-tests.slice:prefix:t-unit")
    assert group_of(pid) == "/machine.slice/machine-tests.slice/prefix-t-unit.scope"
    told = show("prefix-t-unit.scope", "ActiveState", "Delegate", "Description", "ControlGroup")
    assert told == {
        "ActiveState": "active", "Delegate": "yes", "Description": "cloison container t-unit",
        "ControlGroup": group_of(pid),
    }  # fmt: skip
    assert (UNIFIED / group_of(pid)[1:] / "cgroup.procs").read_text() == f"{pid}\n"  # and nobody else


def test_without_a_path_the_scope_is_in_the_system_slice(door: Door) -> None:
    pid = create(door, path="")
    assert group_of(pid) == "/system.slice/cloison-t-unit.scope"


def test_limits_are_told_to_systemd_and_stand_in_the_group(door: Door) -> None:
    pid = create(
        door,
        memory={"limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20},
        cpu={"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0", "mems": "0"},
        pids={"limit": 17},
        unified={"memory.high": "60000000"},
    )
    group = UNIFIED / group_of(pid)[1:]
    files = (
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "memory.high",
        "cpu.weight",
        "cpu.max",
        "cpuset.cpus",
        "pids.max",
    )
    assert {name: (group / name).read_text().strip() for name in files} == {
        "memory.max": str(64 << 20), "memory.swap.max": str(32 << 20), "memory.low": str(32 << 20),
        "memory.high": str(60_000_000 // 4096 * 4096), "cpu.weight": "59", "cpu.max": "50000 100000",
        "cpuset.cpus": "0", "pids.max": "17",
    }  # fmt: skip
    told = show(
        SCOPE, "MemoryMax", "MemorySwapMax", "MemoryLow", "CPUWeight", "CPUQuotaPerSecUSec", "AllowedCPUs", "TasksMax"
    )
    assert told == {
        "MemoryMax": str(64 << 20), "MemorySwapMax": str(32 << 20), "MemoryLow": str(32 << 20), "CPUWeight": "59",
        "CPUQuotaPerSecUSec": "500ms", "AllowedCPUs": "0", "TasksMax": "17",
    }  # fmt: skip


def test_a_reload_of_systemd_takes_no_limit_away(door: Door) -> None:
    pid = create(door, memory={"limit": 64 << 20}, pids={"limit": 17})
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    group = UNIFIED / group_of(pid)[1:]
    assert ((group / "memory.max").read_text(), (group / "pids.max").read_text()) == (f"{64 << 20}\n", "17\n")


def test_an_update_changes_the_unit_and_the_group(door: Door) -> None:
    pid = create(door, memory={"limit": 64 << 20})
    door.ok("update", "--memory", "128m", "--memory-swap", "128m", "--pids-limit", "33", "t-unit")
    group = UNIFIED / group_of(pid)[1:]
    assert ((group / "memory.max").read_text(), (group / "pids.max").read_text()) == (f"{128 << 20}\n", "33\n")
    assert show(SCOPE, "MemoryMax", "TasksMax") == {"MemoryMax": str(128 << 20), "TasksMax": "33"}


def test_devices_are_an_allow_list_in_the_unit_too(door: Door) -> None:
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}]
    door.config["process"]["capabilities"] = {name: ["CAP_MKNOD"] for name in ("bounding", "effective", "permitted")}
    create(door, devices=rules)
    words = ["systemctl", "show", SCOPE, "--property=DevicePolicy,DeviceAllow"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"DevicePolicy=strict", "DeviceAllow=/dev/char/10:229 rw", "DeviceAllow=/dev/char/1:3 rwm"} <= set(told)
    probe = "mknod /dev/own c 1 11 && cat /dev/own; echo x > /dev/null && echo null works"  # kmsg
    done = door("exec", "t-unit", "sh", "-c", probe)
    assert "can't open '/dev/own': Operation not permitted" in done.stderr
    assert done.stdout == "null works\n"


def test_annotations_are_properties_of_the_unit(door: Door) -> None:
    door.config["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "uint64 7", "org.systemd.property.MemoryHigh": "uint64 50000000",
        "org.systemd.property.Description": "'of my own'", "other": "x",
    }  # fmt: skip
    create(door)
    told = show(SCOPE, "TimeoutStopUSec", "MemoryHigh", "Description")
    assert told == {"TimeoutStopUSec": "7s", "MemoryHigh": "50000000", "Description": "of my own"}


def test_delete_ends_the_unit_at_once_whatever_the_command_thinks_of_it(door: Door) -> None:
    pid = create(door, "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    group = UNIFIED / group_of(pid)[1:]
    begun = time.monotonic()
    door.ok("delete", "--force", "t-unit")
    assert time.monotonic() - begun < 20  # systemd would wait 90 s for what ignores SIGTERM
    assert not group.exists()
    assert show(SCOPE, "LoadState", "ActiveState") == {"LoadState": "not-found", "ActiveState": "inactive"}


def test_the_scope_goes_with_the_last_process_and_delete_still_works(door: Door) -> None:
    pid = create(door, "true")
    os.waitpid(pid, 0)
    until(lambda: show(SCOPE, "ActiveState")["ActiveState"] == "inactive", what="the scope's end")
    assert door.state("t-unit")["status"] == "stopped"
    door.ok("delete", "t-unit")


def test_an_oom_kill_leaves_no_failed_unit(door: Door) -> None:
    pid = create(
        door, "dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1", memory={"limit": 32 << 20, "swap": 32 << 20}
    )
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == 9
    door.ok("delete", "t-unit")


def test_pause_and_exec_work_in_a_scope(door: Door) -> None:
    pid = create(door)
    door.ok("pause", "t-unit")
    assert door.state("t-unit")["status"] == "paused"
    door.ok("resume", "t-unit")
    assert door.ok("exec", "t-unit", "sh", "-c", "cat /proc/self/cgroup") != ""
    assert group_of(pid).endswith(SCOPE)


def test_a_name_that_is_taken_is_a_conflict_and_its_unit_stays(door: Door) -> None:
    subprocess.run(["systemd-run", "--quiet", f"--unit={SCOPE.removesuffix('.scope')}", "--scope", "-d", "--", "true"])
    with subprocess.Popen(["systemd-run", "--quiet", "--scope", f"--unit={SCOPE}", "sleep", "60"]) as other:
        until(lambda: show(SCOPE, "ActiveState")["ActiveState"] == "active", what="the other's scope")
        door.config["linux"]["cgroupsPath"] = "system.slice:cloison:t-unit"
        door.write("true")
        assert "refuses StartTransientUnit" in door.fails("--systemd-cgroup", "create", "t-unit")
        assert show(SCOPE, "ActiveState") == {"ActiveState": "active"}
        other.kill()
    until(lambda: show(SCOPE, "ActiveState")["ActiveState"] != "active", what="the end of the other's scope")


@pytest.mark.parametrize(
    "path", ["/a/b", "a:b", "system:cloison:x", "a/b.slice:c:d", "system.slice::", "system.slice:a:b/c"]
)
def test_a_path_of_another_form_is_refused(door: Door, path: str) -> None:
    door.config["linux"]["cgroupsPath"] = path
    door.write("true")
    assert "invalid cgroupsPath" in door.fails("--systemd-cgroup", "create", "t-unit")


def test_a_failed_create_leaves_no_unit(door: Door) -> None:
    door.config["linux"]["cgroupsPath"] = "system.slice:cloison:t-unit"
    door.write("/no/such/command")
    assert "no such file" in door.fails("--systemd-cgroup", "create", "t-unit")


USER = 1000


@pytest.fixture
def session() -> Iterator[Path]:
    """The runtime directory of a user's own systemd, started for the test."""
    directory = Path(f"/run/user/{USER}")
    found = subprocess.run(["loginctl", "enable-linger", str(USER)], capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"needs a user with the number {USER} and systemd-logind: {found.stderr.strip()}")
    until(lambda: (directory / "systemd" / "private").exists(), timeout_s=60, what="the user's systemd")
    yield directory
    subprocess.run(["loginctl", "disable-linger", str(USER)], check=True)


def test_a_user_without_rights_has_scopes_of_the_own_session(door: Door, session: Path) -> None:
    door.config["linux"].update(
        namespaces=[{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "user")],
        resources={"memory": {"limit": 64 << 20}, "pids": {"limit": 17}},
    )
    door.config["mounts"] = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    door.write("sh", "-c", "cat /proc/self/cgroup")
    subprocess.run(["chown", "-R", f"{USER}:{USER}", str(door.bundle)], check=True)
    command = [
        "cloison-oci",
        "--systemd-cgroup",
        "--root",
        str(session / "cloison-oci"),
        "run",
        "--bundle",
        str(door.bundle),
    ]
    words = ["systemd-run", "--user", "--quiet", "--pipe", "--wait", "--collect", "--", *command, "t-unit"]
    done = subprocess.run(
        ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *words],
        capture_output=True, text=True, timeout=60, env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(session)},
    )  # fmt: skip
    own = f"/user.slice/user-{USER}.slice/user@{USER}.service/user.slice/{SCOPE}"
    assert (done.stdout, done.stderr) == (f"0::{own}\n", "")
    assert not (UNIFIED / own[1:]).exists()
