"""All tests, side by side: pytest in as many processes as there are processors, and the guest machine.

``side_by_side.py [PYTEST ARGUMENTS]`` is what ``make test`` runs. Pytest is heard at once; what the guest machine says
is kept in ``build/guest/said`` and printed when both have ended. The exit status is pytest's, or else the machine's.
However this ends, by ^C too, nothing that it has started is alive afterwards.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
SAID = PROJECT / "build" / "guest" / "said"
PROCESSES = max(2, min(4, os.cpu_count() or 1))  # on one processor, too: many tests wait
PYTEST = (
    sys.executable, "-m", "pytest", "--numprocesses", str(PROCESSES), "--dist", "loadfile", "--no-loadscope-reorder",
)  # fmt: skip
MACHINE = (sys.executable, str(PROJECT / "tests" / "guest" / "machine.py"))
UNAVAILABLE = 77  # the machine's word for: it cannot be run here, and has said why
PATIENCE_S = 20.0
GUEST_S = "780"  # alone it may take 480
PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    SAID.parent.mkdir(parents=True, exist_ok=True)
    try:
        return run([*PYTEST, *sys.argv[1:]], MACHINE, said=SAID)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def run(suite: Sequence[str], machine: Sequence[str], *, said: Path) -> int:
    """Run both to their ends. 0 when both are content and nobody is left."""
    # Orphans come to us and are reaped at once, which not every machine's process 1 does
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    last_words: dict[int, tuple[int, int]] = {}
    ended: dict[int, int] = {}
    try:
        with said.open("wb") as out:
            environ = {"GUEST_TIMEOUT": GUEST_S, **os.environ}
            guest = _spawn(["setpriv", "--pdeathsig", "TERM", *machine], stdout=out, env=environ)
        last_words[guest] = (-guest, signal.SIGTERM)  # the whole group: its disk may be in the making
        tests = _spawn(suite)
        last_words[tests] = (tests, signal.SIGINT)  # pytest cleans up when it is interrupted
        while not ended.keys() >= {guest, tests}:
            pid, status = os.wait()
            ended[pid] = os.waitstatus_to_exitcode(status)
    finally:
        left = end_children(dict(last_words[pid] for pid in last_words.keys() - ended.keys()))
    there, here = ended[guest], ended[tests]
    print(f"\nThe guest machine ended with {there} and said:\n{said.read_text(errors='replace')}", end="", flush=True)
    if left:
        print("left behind by the tests:", *left, sep="\n  ")
    return here or (there if there != UNAVAILABLE else 0) or int(bool(left))


def _spawn(argv: Sequence[str], **options: Any) -> int:
    """Its pid; in a process group of its own, so that ^C reaches this process alone, which hands it on."""
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, process_group=0, cwd=PROJECT, **options
    )
    process.returncode = 0  # whoever waits for it, it is not this object
    return process.pid


def end_children(last_words: Mapping[int, int]) -> list[str]:
    """Signal some, wait for all, kill who is there after ``PATIENCE_S``: ``PID NAME`` of those."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for pid, number in last_words.items():
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    deadline = time.monotonic() + PATIENCE_S
    killed: dict[int, str] = {}
    with suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG) != (0, 0):
                continue
            if time.monotonic() > deadline:
                for pid in _children():
                    killed.setdefault(pid, Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
                    os.kill(pid, signal.SIGKILL)  # whose children are ours then
            time.sleep(0.02)
    return [f"{pid} {name}" for pid, name in killed.items()]


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


if __name__ == "__main__":
    sys.exit(main())
