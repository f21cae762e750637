"""kill -9 at the worst moment: of the command, the launcher, the monitor, at every call that changes the world.

Afterwards the next command must tell the truth, and nothing may be left: no mount, link, element, cgroup, process or
file. `crash_sweep` has the scenarios and what must hold in each, `sudden_death` does the killing.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from crash_sweep import SCENARIOS
from harness import PROJECT, SOURCE, Cloison, until
from registry_fixture import digest_of

# With CLOISON_SWEEP=all each call of everybody; otherwise one in this many of the 170 that build a container's inside.
EVERY = 1 if os.environ.get("CLOISON_SWEEP") == "all" else 40
BUSYBOX, APPLETS = Path("/bin/busybox"), ("sh", "sleep", "true")
SHARDS = 4  # at once; half of the time is the kernel's

pytestmark = pytest.mark.timeout(1800 if EVERY == 1 else 300)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small root file system, and an image to load that is another one."""
    if not BUSYBOX.exists():
        pytest.skip("needs Debian's package busybox-static")
    directory = tmp_path_factory.mktemp("archives")
    root = _tar({"bin/busybox": BUSYBOX.read_bytes()}, links={f"bin/{name}": "busybox" for name in APPLETS})
    layer = root + bytes(10240)  # more zeros at the end: the same files, another digest
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer)]}
    config = json.dumps({"os": "linux", "config": {"Env": ["PATH=/bin"]}, "rootfs": rootfs}).encode()
    manifest = json.dumps([{"Config": "config", "RepoTags": ["loaded:latest"], "Layers": ["layer"]}]).encode()
    (directory / "rootfs.tar").write_bytes(root)
    (directory / "image.tar").write_bytes(_tar({"layer": layer, "config": config, "manifest.json": manifest}))
    return f"{directory}/rootfs.tar,{directory}/image.tar"


def _tar(files: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return buffer.getvalue()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_promise_holds_whoever_is_killed_at_whichever_call(scenario: str, archives: str) -> None:
    script = [sys.executable, str(PROJECT / "tests" / "crash_sweep.py"), archives, scenario, "--every", str(EVERY)]
    environ = {**os.environ, "PYTHONPATH": f"{SOURCE}:{PROJECT / 'tests'}"}
    shards = [
        subprocess.Popen([*script, "--shard", f"{n}/{SHARDS}"], env=environ, stdout=subprocess.PIPE, text=True)
        for n in range(SHARDS)
    ]
    said = [shard.communicate()[0] for shard in shards]
    assert [shard.returncode for shard in shards] == [0] * SHARDS, "".join(said)


def test_a_killed_monitor_takes_its_container_along_and_the_next_command_says_so(
    cloison: Cloison, busybox_image: str
) -> None:
    cloison.ok("run", "-d", "--name", "orphan", busybox_image, "sleep", "300")
    pid = cloison.inspect("orphan")["State"]["Pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    monitor = int(next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1])
    os.kill(monitor, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the container's command")
    state = cloison.inspect("orphan")["State"]
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 255)
    assert "Exited (255)" in cloison.ok("ps", "-a")
    cloison.ok("start", "orphan")
    assert cloison.inspect("orphan")["State"]["Running"]
    cloison.ok("rm", "-f", "orphan")


def test_a_killed_command_leaves_a_container_that_can_be_found_and_stopped(
    cloison: Cloison, busybox_image: str
) -> None:
    run = cloison.spawn("run", "--rm", "--name", "alone", "--network", "none", busybox_image, "sleep", "300")
    until(lambda: "Up" in cloison.ok("ps"))
    run.kill()
    run.wait(timeout=10)
    assert "alone" in cloison.ok("ps")
    cloison.ok("stop", "-t", "1", "alone")
    until(lambda: "alone" not in cloison.ok("ps", "-a"), what="--rm without its command")


def test_the_containers_first_process_killed_from_outside_is_an_ordinary_end(
    cloison: Cloison, busybox_image: str
) -> None:
    cloison.ok("run", "-d", "--name", "hit", "--network", "none", busybox_image, "sleep", "300")
    os.kill(cloison.inspect("hit")["State"]["Pid"], signal.SIGKILL)
    until(lambda: cloison.inspect("hit")["State"]["Status"] == "exited")
    assert cloison.inspect("hit")["State"]["ExitCode"] == 137
    cloison.ok("rm", "hit")


def test_what_a_run_root_says_about_the_time_before_a_reboot_is_void(cloison: Cloison, busybox_image: str) -> None:
    """A power cut: the run directory stands as it was, its boot id is another's, no process or cgroup exists."""
    cloison.ok("run", "-d", "--name", "survivor", "--network", "none", busybox_image, "sleep", "300")
    details = cloison.inspect("survivor")
    run_dir = Path(cloison.roots.run_root, "containers", details["Id"])
    kept = {file.name: file.read_bytes() for file in run_dir.iterdir() if file.is_file()}
    assert "run.json" in kept
    cloison.ok("kill", "survivor")
    until(lambda: not run_dir.exists(), what="the clean-up")
    run_dir.mkdir()
    for name, content in kept.items():
        (run_dir / name).write_bytes(content)
    Path(cloison.roots.run_root, "boot").write_text("00000000-0000-0000-0000-000000000000\n")
    assert cloison.ok("ps", "-q") == ""
    assert cloison.inspect("survivor")["State"]["Status"] == "exited"
    cloison.ok("start", "survivor")
    assert cloison.inspect("survivor")["State"]["Running"]
    cloison.ok("rm", "-f", "survivor")
