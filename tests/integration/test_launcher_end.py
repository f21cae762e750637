"""How it ends: exit file, statistics, who cleans up, what is held until then."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher_plan import Operation, World, launch, made_world, parse_exit

AWAIT: list[Operation] = [("await-start", "client")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        yield world


def eventually(condition: Callable[[], bool], timeout: float = 30) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_the_callers_end_before_the_start_is_the_containers(world: World, tmp_path: Path) -> None:
    done = tmp_path / "reaped"
    plan = [
        ("reap", "/bin/busybox", "touch", str(done)),
        ("exit-file", str(tmp_path / "exit")),
        *world.plan("true", late=AWAIT),
    ]
    started = launch(plan)
    started.until("w")
    started.close()
    assert eventually(done.exists)
    numbers = parse_exit((tmp_path / "exit").read_text())
    assert (numbers["status"], numbers["started_ns"]) == (9, 0)


def test_the_exit_file_has_statistics_and_arrives_by_rename(world: World, tmp_path: Path) -> None:
    (tmp_path / "events").write_text("low 0\noom 3\noom_kill 2\n")
    (tmp_path / "peak").write_text("12345\n")
    plan: list[Operation] = [
        ("exit-file", str(tmp_path / "exit")), ("exit-stat", "oom", str(tmp_path / "events"), "oom_kill"),
        ("exit-stat", "peak", str(tmp_path / "peak"), ""), ("exit-stat", "none", str(tmp_path / "missing"), "x"),
        *world.plan("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"),
    ]  # fmt: skip
    started = launch(plan)
    message = started.exit()
    started.close()
    numbers = parse_exit((tmp_path / "exit").read_text())
    assert numbers == message
    assert (numbers["oom"], numbers["peak"], "none" in numbers) == (2, 12345, False)
    assert numbers["user_us"] > 1000 and numbers["max_rss_kib"] > 100
    assert 0 < numbers["started_ns"] < numbers["finished_ns"]
    assert not (tmp_path / "exit.tmp").exists()


def test_reap_runs_only_when_the_caller_is_gone_with_a_clean_environment(world: World, tmp_path: Path) -> None:
    done = tmp_path / "reaped"
    report = f"env > {done}.new; ls -l /proc/self/fd >> {done}.new; mv {done}.new {done}"
    reap: Operation = ("reap", "/bin/busybox", "sh", "-c", report)
    started = launch([reap, *world.plan("true")])
    started.exit()
    assert started.close() == 0
    assert not done.exists()
    started = launch([reap, *world.plan("sleep", "0.3")])
    started.until("s")
    started.close()
    assert eventually(done.exists)
    text = done.read_text()
    assert {line.split("=")[0] for line in text.splitlines() if "=" in line} <= {"PATH", "PWD", "SHLVL", "OLDPWD"}
    assert "socket:" not in text and "plan" not in text


def test_signals_that_came_before_do_not_keep_reap_from_running(world: World, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    done = tmp_path / "reaped"
    plan = [
        ("reap", "/bin/busybox", "touch", str(done)),
        ("relay", -1, "{0}", -1),
        *world.plan("sh", "-c", "read x; echo x; sleep 0.5"),
    ]
    started = launch(plan, fds=[writer])
    started.until("s")
    os.close(writer)
    os.close(reader)  # the relay's write ends in SIGPIPE
    started.process.send_signal(signal.SIGTERM)
    started.send("I", b"\n")
    started.close()
    assert eventually(done.exists)


def test_kept_descriptors_stay_open_until_the_end(world: World, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    started = launch([("keep", "{0}"), *world.plan("sleep", "60")], fds=[fd])
    pid = started.pid()
    started.until("s")
    os.close(fd)
    again = os.open(tmp_path / "lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.kill(pid, signal.SIGKILL)
    started.exit()
    started.close()
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(again)
