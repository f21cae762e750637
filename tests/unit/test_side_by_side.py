"""`make test`'s two jobs at once: what is printed when, which exit status counts, and that nobody is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness import PROJECT, until

CODE = """
import sys
from pathlib import Path
import side_by_side
side_by_side.PATIENCE_S, side_by_side.SAID = 2, Path("said")
side_by_side.PYTEST, side_by_side.MACHINE = (["sh", "-c", script] for script in sys.argv[1:])
del sys.argv[1:]
sys.exit(side_by_side.main())
"""


def start(where: Path, *, suite: str, machine: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CODE, suite, machine]
    return subprocess.Popen(
        argv, cwd=where, env={**os.environ, "PYTHONPATH": str(PROJECT / "tests")}, stdout=subprocess.PIPE, text=True,
        # Whoever runs us may ignore it, and what is ignored when a shell starts it cannot trap
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def run(where: Path, *, suite: str, machine: str) -> tuple[int, str]:
    with start(where, suite=suite, machine=machine) as process:
        said = process.communicate(timeout=30)[0]
    return process.returncode, said


@pytest.mark.parametrize(
    ("suite", "machine", "together"), [(0, 0, 0), (3, 0, 3), (0, 5, 5), (3, 5, 3), (0, 77, 0), (1, 77, 1)]
)
def test_it_fails_when_one_of_them_does(tmp_path: Path, suite: int, machine: int, together: int) -> None:
    assert run(tmp_path, suite=f"exit {suite}", machine=f"exit {machine}")[0] == together


def test_a_job_that_is_killed_is_no_success(tmp_path: Path) -> None:
    assert run(tmp_path, suite="exit 0", machine="kill -9 $$")[0] != 0
    assert run(tmp_path, suite="kill -9 $$", machine="exit 0")[0] != 0


def test_the_machines_words_come_at_the_end(tmp_path: Path) -> None:
    """Each waits for the other to have spoken first."""
    wait = "while [ ! -e {} ]; do sleep 0.02; done"
    suite = f"cd {tmp_path}; echo one; {wait.format('two')}; echo three"
    machine = f"cd {tmp_path}; echo from the machine; touch two"
    code, said = run(tmp_path, suite=suite, machine=machine)
    assert code == 0
    assert said.splitlines()[:2] == ["one", "three"]
    assert said.splitlines()[-1] == "from the machine"


def test_who_is_left_is_told_and_killed(tmp_path: Path) -> None:
    suite = f"sh -c 'trap \"\" TERM INT; sleep 987 & echo $! >{tmp_path}/pid; wait' >/dev/null & exit 0"
    code, said = run(tmp_path, suite=suite, machine="exit 0")
    assert code == 1
    assert "left behind by the tests:" in said and "sleep 987" in said
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_both(tmp_path: Path, number: int, code: int) -> None:
    suite = f"trap 'echo interrupted; exit 2' INT; echo $$ >{tmp_path}/suite; while :; do sleep 0.02; done"
    machine = f"echo $$ >{tmp_path}/machine; sleep 987"
    with start(tmp_path, suite=suite, machine=machine) as process:
        pids = [tmp_path / "suite", tmp_path / "machine"]
        until(lambda: all(path.exists() and path.read_text() for path in pids), what="the start of both")
        process.send_signal(number)
        assert process.communicate(timeout=30)[0].startswith("interrupted\n")
    assert process.returncode == code
    assert not [path for path in pids if Path("/proc", path.read_text().strip()).exists()]
