"""Other engines as tests meet them: a command, a daemon while it answers, and a skip where there is none."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Result


class Engine:
    """``engine(…) -> Result``: one engine's command, with our runtime below it."""

    def __init__(self, *argv: str) -> None:
        self.argv = argv

    def __call__(self, *words: str, timeout: float = 60) -> Result:
        return subprocess.run(
            [*self.argv, *words], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )

    def ok(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stderr}"
        return done.stdout.strip()

    def in_terminal(self, *words: str) -> str:
        done = subprocess.run(
            ["script", "-qec", " ".join([*self.argv, *words]), "/dev/null"], capture_output=True, text=True, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout


def needs(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"needs {program}")


def running(argv: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """A daemon from the moment when it answers until its end."""
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not ready():
                if time.monotonic() > deadline or process.poll() is not None:
                    pytest.skip(f"{argv[0]} does not start here: {log.read_text()[-300:]}")
                time.sleep(0.2)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
