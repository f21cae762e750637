"""The OCI runtime door: hooks, where and when they run, and what comes of one that fails."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from oci_bundle import Door, hook


def share(door: Door, directory: Path) -> None:
    """The container has this directory, too, by its name."""
    bind = {"destination": str(directory), "type": "bind", "source": str(directory), "options": ["bind", "rw"]}
    door.config["mounts"].append(bind)


def said_by(door: Door, kind: str, script: str, tmp_path: Path, **process: object) -> list[str]:
    """What a hook says of where it is."""
    log = tmp_path / "said"
    share(door, tmp_path)
    door.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"( {script} ) > {log} 2>&1; true"]}]}
    door.write(**process)
    door.ok("run", "t-said")
    return log.read_text().split()


def test_hooks_run_in_order_with_the_state(door: Door, tmp_path: Path) -> None:
    log = tmp_path / "log"
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    share(door, tmp_path)
    door.config["hooks"] = {kind: [hook(log, kind), hook(log, f"{kind}-2")] for kind in kinds}
    door.config["annotations"] = {"a": "b"}
    door.write()
    door.ok("run", "t-hooks")
    rows = [line.split(" ", 2) for line in log.read_text().splitlines()]
    assert [row[0] for row in rows] == [name for kind in kinds for name in (kind, f"{kind}-2")]
    assert {row[1] for row in rows} == {"v"}
    states = [json.loads(row[2]) for row in rows[::2]]
    assert [state["status"] for state in states] == [
        "created",
        "creating",
        "creating",
        "created",
        "running",
        "stopped",
    ]
    assert {(state["id"], state["bundle"], state["annotations"]["a"]) for state in states} == {
        ("t-hooks", str(door.bundle), "b")
    }
    # runtime.md, "State": as seen by whoever is told
    assert [state.get("pid", 0) == 1 for state in states] == [False, False, True, True, False, False]
    assert [state.get("pid", 0) > 1 for state in states] == [True, True, False, False, True, False]


def test_a_create_hook_sees_the_mounted_root_and_a_command_that_does_not_run(door: Door, tmp_path: Path) -> None:
    found = f"pid=$(sed 's/.*pid.: \\([0-9]*\\).*/\\1/' {tmp_path / 'log'})"
    more = [found, f"readlink /proc/$pid/ns/net > {tmp_path / 'ns'}"]
    door.config["hooks"] = {"createRuntime": [hook(tmp_path / "log", "one", more=more)]}
    door.write("true")
    door.ok("run", "t-early")
    assert (tmp_path / "ns").read_text().strip() not in ("", os.readlink("/proc/self/ns/net"))


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_a_failed_hook_takes_the_container_away_and_poststop_still_runs(door: Door, tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    share(door, tmp_path)
    door.config["hooks"] = {kind: [hook(log, "bad", code=4), hook(log, "never")], "poststop": [hook(log, "end")]}
    door.write("sleep", "100")
    assert f"{kind} hook failed with exit code 4" in door.fails("run", "t-bad")
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["bad", "end"]
    assert "does not exist" in door.fails("state", "t-bad")
    assert not door.groups()


def test_a_failed_poststop_hook_is_a_warning_and_the_others_run(door: Door, tmp_path: Path) -> None:
    log = tmp_path / "log"
    door.config["hooks"] = {"poststop": [hook(log, "bad", code=3), hook(log, "next")]}
    door.write()
    done = door("run", "t-warn")
    assert (done.returncode, "poststop hook failed with exit code 3" in done.stderr) == (0, True)
    assert [line.split()[0] for line in log.read_text().splitlines()] == ["bad", "next"]


@pytest.mark.parametrize("kind", ["prestart", "createContainer", "startContainer"])
def test_a_hook_that_takes_too_long_is_killed(door: Door, kind: str) -> None:
    door.config["hooks"] = {kind: [{"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1}]}
    door.write()
    assert "timeout of 1 s" in door.fails("run", "t-slow")
    assert not door.groups()


def test_a_create_container_hook_is_the_hosts_program_among_the_containers_mounts(door: Door, tmp_path: Path) -> None:
    """config.md: "path MUST resolve in the runtime namespace", "MUST be executed in the container namespace"."""
    script = "hostname; pwd; ls -d rootfs/proc/self; cat rootfs/proc/self/comm; id -u; ls /usr/bin/python3"
    found = said_by(door, "createContainer", script, tmp_path, user={"uid": 5, "gid": 6})
    assert found == ["inside", str(door.bundle), "rootfs/proc/self", "cat", "0", "/usr/bin/python3"]


def test_a_start_container_hook_has_the_walls_of_the_containers_process(door: Door, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    script = (
        "hostname; pwd; id -u; grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status; ls /usr/bin/python3"
    )
    found = said_by(door, "startContainer", script, tmp_path, user={"uid": 5, "gid": 6}, cwd="/proc")
    assert found[:3] == ["inside", "/proc", "5"]
    assert found[3:7] == ["NoNewPrivs:", "1", "CapEff:", "0000000000000000"]
    assert "No such file" in " ".join(found[7:])


@pytest.mark.parametrize("kind", ["createContainer", "startContainer"])
def test_a_hook_enters_a_user_namespace(door: Door, tmp_path: Path, kind: str) -> None:
    tmp_path.chmod(0o777)
    for parent in (door.bundle, door.home):
        parent.chmod(0o711)
    door.config["linux"]["namespaces"].append({"type": "user"})
    for kind_of_id in ("uidMappings", "gidMappings"):
        door.config["linux"][kind_of_id] = [{"containerID": 0, "hostID": 0, "size": 1000}]
    assert said_by(door, kind, "id -u; cat /proc/self/uid_map", tmp_path) == ["0", "0", "0", "1000"]


def test_a_start_container_hook_that_is_not_in_the_container_is_named(door: Door) -> None:
    door.config["hooks"] = {"startContainer": [{"path": "/usr/bin/python3"}]}
    door.write()
    assert "startContainer hook cannot be executed: no such file" in door.fails("run", "t-none")


def test_hooks_without_an_environment_have_the_callers_and_the_containers_only_its_own(
    door: Door, tmp_path: Path
) -> None:
    said = said_by(door, "prestart", "echo $PATH", tmp_path)
    assert said == ["/usr/bin:/bin"]
    assert said_by(door, "startContainer", "echo $PATH", tmp_path) == ["/bin"]


@pytest.mark.parametrize("kind", ["prestart", "createContainer", "startContainer", "poststop"])
def test_annotations_say_where_hooks_write(door: Door, tmp_path: Path, kind: str) -> None:
    door.config["annotations"] = {f"run.oci.hooks.{name}": str(tmp_path / name) for name in ("stdout", "stderr")}
    door.config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", "echo out; echo err >&2"]}] * 2}
    door.write()
    door.ok("run", "t-said")
    assert [(tmp_path / name).read_text() for name in ("stdout", "stderr")] == ["out\n" * 2, "err\n" * 2]


def test_a_place_for_output_that_cannot_be_written_is_an_error(door: Door) -> None:
    door.config["annotations"] = {"run.oci.hooks.stdout": "/nowhere/out"}
    door.config["hooks"] = {"prestart": [{"path": "/bin/true"}]}
    door.write()
    assert "cannot write the hooks' output to /nowhere/out: no such file" in door.fails("create", "t-out")
    assert not door.left()
