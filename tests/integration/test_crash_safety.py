"""kill -9 at the worst moment: of the command, the launcher, the monitor, at many system calls of a ``run``.

strace delivers SIGKILL at the n-th call of one name in any process of the tree. Afterwards the next command (``ps``)
must tell the truth, and nothing may be left: no mount, link, element, cgroup, process or file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from harness import Cloison, no_leak, until

# What changes the world, by phase: intention and record, launch, kernel objects, clean-up
CALLS = (
    "mkdir", "rename", "symlink", "unlink", "rmdir", "fsync", "openat", "write", "flock",
    "memfd_create", "vfork", "clone3", "clone", "execve", "sendmsg", "sendto", "recvmsg", "socket", "bind", "connect",
    "mount", "fsopen", "fsmount", "move_mount", "mount_setattr", "umount2", "pivot_root", "unshare", "setns", "prctl",
    "seccomp", "close_range", "epoll_ctl", "exit_group", "wait4",
)  # fmt: skip
BUDGET_S = 100.0

pytestmark = [pytest.mark.timeout(400), pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")]


def census(cloison: Cloison, words: list[str], trace: Path) -> Counter[str]:
    """How often a whole ``run``, clean-up included, makes each of the calls."""
    known = ",".join(f"?{name}" for name in CALLS)
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        str(trace),
        "-e",
        f"trace={known}",
        "-e",
        "signal=none",
        *cloison.argv(*words),
    ]
    subprocess.run(command, env=cloison.roots.environ, check=True, capture_output=True, timeout=60)
    found: Counter[str] = Counter()
    busiest: dict[tuple[str, str], int] = Counter()
    for line in trace.read_text().splitlines():
        pid, _, rest = line.partition(" ")
        name = rest.strip().partition("(")[0]
        if name in CALLS:
            busiest[pid, name] += 1
    for (_, name), count in busiest.items():
        found[name] = max(found[name], count)  # strace counts per process
    return found


def killed_at(cloison: Cloison, words: list[str], *, call: str, when: int) -> int:
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}",
               "-e", f"inject={call}:signal=KILL:when={when}", *cloison.argv(*words)]  # fmt: skip
    done = subprocess.run(command, env=cloison.roots.environ, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode


def let_a_minute_pass(cloison: Cloison) -> None:
    """A directory made aside, before it has a lock and a name, is taken for a crash after one minute."""
    with os.scandir(f"{cloison.roots.run_root}/containers") as entries:
        for entry in entries:
            if entry.name.startswith("."):
                os.utime(entry.path, (time.time() - 120,) * 2)


def points(found: Counter[str]) -> list[tuple[str, int]]:
    """Every call's first and last, then what lies between, coarse before fine, so that a cut-off sample is even."""
    rounds: list[list[tuple[str, int]]] = [[], [], [], []]
    for call, count in sorted(found.items()):
        for when in range(1, count + 1):
            rank = 0 if when in (1, count) else 1 if when % 8 == 0 else 2 if when % 3 == 0 else 3
            rounds[rank].append((call, when))
    return [point for group in rounds for point in group]


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_a_run_killed_at_any_system_call_leaves_nothing(
    cloison: Cloison, busybox_image: str, tmp_path: Path, network: str
) -> None:
    words = ["run", "--rm", "--name", "doomed", "--network", network, busybox_image, "true"]
    cloison.ok(*words)
    found = census(cloison, words, tmp_path / "trace")
    assert {"mkdir", "rename", "execve"} <= set(found), found
    deadline, tried, wrong = time.monotonic() + BUDGET_S / 2, 0, []
    for call, when in points(found):
        if time.monotonic() > deadline or len(wrong) > 5:
            break
        tried += 1
        try:
            with no_leak(cloison.roots):
                killed_at(cloison, words, call=call, when=when)
                let_a_minute_pass(cloison)
                until(lambda: "doomed" not in cloison.ok("ps", "-a"), timeout_s=5, what="the end of the container")
        except AssertionError as err:
            wrong.append(f"killed at {call} number {when}: {err}")
    assert not wrong, "\n".join(wrong)
    assert tried >= 30, f"only {tried} points in {BUDGET_S / 2} s"
    cloison.ok(*words)  # and the name is free


def test_a_kept_container_killed_while_it_starts_can_be_started_again_or_removed(
    cloison: Cloison, busybox_image: str
) -> None:
    for call, when in (("clone3", 1), ("move_mount", 5), ("execve", 2), ("rename", 3), ("rename", 5), ("sendmsg", 2)):
        cloison.ok("create", "--name", "kept", "--network", "none", busybox_image, "true")
        killed_at(cloison, ["start", "-a", "kept"], call=call, when=when)
        until(lambda: not cloison.inspect("kept")["State"]["Running"], what=f"the end after {call} {when}")
        cloison.ok("start", "-a", "kept")
        cloison.ok("rm", "kept")


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
