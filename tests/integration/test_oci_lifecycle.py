"""The OCI runtime door, verb by verb: what containerd, Docker and Podman count on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.linux.cgroups import read_layout
from oci_bundle import Door, subreaping

pytestmark = pytest.mark.guest


@pytest.fixture(autouse=True)
def subreaper() -> Iterator[None]:
    with subreaping():
        yield


def test_a_container_goes_from_created_to_deleted(door: Door) -> None:
    door.write("sh", "-c", "exit 42")
    door.ok("create", "--pid-file", str(door.bundle / "pid"), "t-life")
    pid = int((door.bundle / "pid").read_text())
    state = door.state("t-life")
    assert (state["status"], state["pid"], state["bundle"]) == ("created", pid, str(door.bundle))
    door.ok("start", "t-life")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
    assert (door.state("t-life")["status"], door.state("t-life")["pid"]) == ("stopped", 0)
    door.ok("delete", "t-life")
    assert "does not exist" in door.fails("state", "t-life")


def test_the_first_process_is_an_orphan_for_the_callers_subreaper(door: Door) -> None:
    pid = door.start("t-orphan")
    parent = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("PPid"))
    assert int(parent.split()[1]) == os.getpid()
    door.ok("kill", "t-orphan", "KILL")
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_nothing_of_the_runtime_is_left_while_a_container_runs(door: Door) -> None:
    door.start("t-alone")
    titles = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [title for title in titles if str(door.root).encode() in title]
    door.ok("delete", "--force", "t-alone")


def test_verbs_refuse_what_the_state_forbids(door: Door) -> None:
    door.write("sleep", "100")
    door.ok("create", "t-state")
    assert "already exists" in door.fails("create", "t-state")
    door.ok("start", "t-state")
    assert "already running" in door.fails("start", "t-state")
    assert "not stopped" in door.fails("delete", "t-state")
    assert "not paused" in door.fails("resume", "t-state")
    door.ok("kill", "t-state", "9")
    wait_for(door, "t-state", "stopped")
    assert "not running" in door.fails("kill", "t-state", "9")
    assert "has stopped" in door.fails("start", "t-state")
    assert "stopped" in door.fails("exec", "t-state", "true")
    assert "not running" in door.fails("pause", "t-state")


def test_force_deletes_what_runs_and_is_silent_about_what_does_not_exist(door: Door) -> None:
    door.start("t-force")
    door.ok("delete", "--force", "t-force")
    assert door.ok("delete", "--force", "t-force") == ""
    assert "does not exist" in door.fails("delete", "t-force")


def test_a_created_container_is_deleted_without_force(door: Door) -> None:
    door.write()
    door.ok("create", "t-never")
    door.ok("delete", "t-never")


def test_run_gives_the_commands_output_and_status(door: Door) -> None:
    door.write("sh", "-c", "echo out; echo err >&2; hostname; exit 7")
    done = door("run", "t-run")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\ninside\n", "err\n")
    assert "does not exist" in door.fails("state", "t-run")


def test_run_keeps_and_detaches_when_told_to(door: Door) -> None:
    door.write()
    door.ok("run", "--keep", "t-keep")
    assert door.state("t-keep")["status"] == "stopped"
    door.write("sleep", "100")
    door.ok("run", "--detach", "t-detach")
    assert door.state("t-detach")["status"] == "running"


def test_signals_to_run_reach_the_command(door: Door) -> None:
    import subprocess

    door.write("sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    with subprocess.Popen(door.argv("run", "t-signal"), stdout=subprocess.PIPE, cwd=door.bundle) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(20) == 9


def test_pause_stops_everything_and_kill_ends_what_is_paused(door: Door) -> None:
    door.start("t-pause")
    door.ok("pause", "t-pause")
    assert door.state("t-pause")["status"] == "paused"
    assert "--ignore-paused" in door.fails("exec", "t-pause", "true")
    door.ok("resume", "t-pause")
    door.ok("exec", "t-pause", "true")
    door.ok("pause", "t-pause")
    door.ok("kill", "t-pause", "KILL")
    wait_for(door, "t-pause", "stopped")


def test_kill_all_reaches_processes_beside_the_first(door: Door) -> None:
    door.config["linux"]["namespaces"] = [{"type": "mount"}, {"type": "uts"}]
    door.start("t-all", "sh", "-c", "sleep 100 & sleep 100 & wait")
    for _ in range(100):
        if len(json.loads(door.ok("ps", "--format", "json", "t-all"))) == 3:
            break
        time.sleep(0.05)
    door.ok("kill", "--all", "t-all", "9")
    wait_for(door, "t-all", "stopped")
    door.ok("delete", "t-all")


def test_list_and_ps_show_what_runs(door: Door) -> None:
    pid = door.start("t-list")
    assert json.loads(door.ok("ps", "--format", "json", "t-list")) == [pid]
    assert str(pid) in door.ok("ps", "t-list")
    assert door.ok("list", "--quiet") == "t-list\n"
    assert [row["status"] for row in json.loads(door.ok("list", "-f", "json"))] == ["running"]
    assert door.ok("list").split()[:6] == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]


def test_a_missing_command_fails_the_create_in_dockers_words(door: Door) -> None:
    for args, text in (
        (("nope",), "executable file not found"),
        (("/nope",), "no such file"),
        (("/etc",), "is a directory"),
    ):
        door.write(*args)
        assert text in door.fails("create", "t-missing")
        assert "does not exist" in door.fails("state", "t-missing")


def test_a_command_that_cannot_be_executed_fails_the_start(door: Door) -> None:
    script = door.bundle / "rootfs" / "bin" / "odd"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    door.write("/bin/odd")
    door.ok("create", "t-odd")
    assert "interpreter" in door.fails("start", "t-odd")
    wait_for(door, "t-odd", "stopped")


def test_a_container_without_a_process_can_be_created_and_not_started(door: Door) -> None:
    del door.config["process"]
    (door.bundle / "config.json").write_text(json.dumps(door.config))
    door.ok("create", "t-empty")
    assert "no process" in door.fails("start", "t-empty")
    assert door.state("t-empty")["status"] == "created"


def test_later_changes_of_the_bundle_have_no_effect(door: Door) -> None:
    door.write("sleep", "100", env=["PATH=/bin", "WHICH=first"])
    door.ok("create", "t-bundle")
    door.write("sleep", "100", env=["PATH=/bin", "WHICH=second"])
    door.ok("start", "t-bundle")
    assert door.ok("exec", "t-bundle", "sh", "-c", "echo $WHICH") == "first\n"


def test_errors_are_in_the_json_log_as_well(door: Door) -> None:
    log = door.bundle / "log"
    door.fails("--log", str(log), "--log-format", "json", "state", "t-none")
    entry = json.loads(log.read_text())
    assert (entry["level"], "does not exist" in entry["msg"]) == ("error", True)
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a b", "x" * 2000, "é"])
def test_hostile_ids_are_refused(door: Door, name: str) -> None:
    door.write()
    assert "container ID" in door.fails("create", name)


def test_version_features_and_spec_are_what_callers_parse(door: Door) -> None:
    lines = door.ok("--version").splitlines()
    assert lines[0].startswith("cloison-oci version ")
    assert lines[2].startswith("spec: 1.")
    assert "cgroup" in json.loads(door.ok("features"))["linux"]
    door.ok("spec")
    assert "exists" in door.fails("spec")
    config = json.loads((door.bundle / "config.json").read_text())
    config["process"].update(terminal=False, args=["echo", "hi"])
    (door.bundle / "config.json").write_text(json.dumps(config))
    assert door.ok("run", "t-spec") == "hi\n"


def test_unknown_verbs_options_and_drivers_are_errors(door: Door) -> None:
    assert "unknown command" in door.fails("frobnicate")
    assert "not defined" in door.fails("state", "--frob", "x")
    if not os.path.isdir("/run/systemd/system"):
        assert "systemd is not running" in door.fails("--systemd-cgroup", "list")
    assert "invalid cgroup-manager" in door.fails("--cgroup-manager", "other", "list")
    assert "requires exactly 1" in door.fails("state")
    assert "--criu" in door.ok("--help")
    assert "[--pre-dump]" in door.ok("checkpoint", "--help")
    assert "Debian's package criu" in door.fails("--criu", "/no/such/criu", "restore", "t-x")


@pytest.mark.parametrize("name", ["crun", "runc", "other"])
def test_what_is_printed_names_the_runtime_in_whose_place_we_stand(door: Door, name: str) -> None:
    argv = door.argv("exec", "--help")
    argv[2] = f"import sys; sys.argv[0] = '/usr/bin/{name}'; {argv[2]}"
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    shown = name if name != "other" else "cloison-oci"
    assert done.stdout.startswith(f"Usage: {shown} [OPTION...] exec CONTAINER cmd")
    argv = [*argv[:-2], "--version"]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.startswith(f"{shown} version ")


def test_delete_reaches_a_process_that_somebody_froze_elsewhere(door: Door) -> None:
    """On version 1 what a freezer holds cannot die, not even by SIGKILL."""
    if "freezer" not in read_layout().legacy:
        pytest.skip("needs the version 1 freezer")
    foreign = Path(read_layout().legacy["freezer"]) / f"cloison-oci-t-foreign-{os.getpid()}"
    pid = door.start("t-foreign")
    foreign.mkdir()
    try:
        (foreign / "cgroup.procs").write_text(str(pid))
        (foreign / "freezer.state").write_text("FROZEN")
        before = time.monotonic()
        door.ok("delete", "--force", "t-foreign")
        assert time.monotonic() - before < 8
        assert "does not exist" in door.fails("state", "t-foreign")
    finally:
        (foreign / "freezer.state").write_text("THAWED")
        foreign.rmdir()


def wait_for(door: Door, name: str, status: str) -> None:
    deadline = time.monotonic() + 30
    while door.state(name)["status"] != status:
        assert time.monotonic() < deadline, door.state(name)
        time.sleep(0.05)
