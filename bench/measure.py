"""Timing: spawn, wait, nothing else between two reads of the clock. Peers take turns, so that drift hits all alike."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

Once = Callable[[], float]  # runs one thing to its end, returns seconds

_NULL = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


class Failed(Exception):
    """A measured command did not exit 0."""


class Sample(NamedTuple):
    """Seconds of every run of one peer in one row."""

    peer: str
    seconds: tuple[float, ...]

    def quantile(self, share: float) -> float:
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spawn(argv: Sequence[str], *, environ: dict[str, str], output: int = _NULL) -> int:
    streams = [(os.POSIX_SPAWN_DUP2, _NULL, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    return os.posix_spawnp(argv[0], list(argv), environ, file_actions=streams)


def command(*argv: str, environ: dict[str, str] | None = None) -> Once:
    """The wall time of one command, from before its spawn to after its wait."""
    env = dict(os.environ if environ is None else environ)

    def once() -> float:
        started = time.perf_counter()
        _, status = os.waitpid(spawn(argv, environ=env), 0)
        elapsed = time.perf_counter() - started
        if status:
            raise Failed(f"{' '.join(argv)}: exit code {os.waitstatus_to_exitcode(status)}")
        return elapsed

    return once


def sequence(*argvs: Sequence[str]) -> Once:
    """The wall time of several commands, one after the other."""
    steps = [command(*argv) for argv in argvs]
    return lambda: sum(step() for step in steps)


# A child begins with its parent's peak (a vfork shares its memory), hence a small parent in between
_PEAK = (
    "import os, sys\nnull = os.open(os.devnull, os.O_RDWR)\n"
    "actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in range(3)]\n"
    "pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=actions)\n"
    "_, status, usage = os.wait4(pid, 0)\nprint(usage.ru_maxrss)\nsys.exit(status != 0)\n"
)


def peak_kib(argv: Sequence[str], environ: dict[str, str] | None = None) -> int:
    """Largest resident set of a command, or of a process that it waited for; some 9 MiB is the least this can see."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", _PEAK, *argv], capture_output=True, text=True,
                          env=environ)  # fmt: skip
    if done.returncode:
        raise Failed(f"{' '.join(argv)} failed")
    return int(done.stdout)


BURST = 6
SETTLE_S = 0.1


def burst(once: Once, *, runs: int, settle_s: float) -> list[float]:
    """Seconds of ``runs`` back to back, after ``settle_s`` of runs that do not count (none for 0)."""
    passed = 0.0
    while passed < settle_s:
        passed += once()
    return [once() for _ in range(runs)]


@runtime_checkable
class TimesItself(Protocol):
    """A contender in another process, which does a burst there: nobody's pipe and wake-up lies between two runs."""

    def __call__(self) -> float: ...

    def burst(self, *, runs: int, settle_s: float) -> list[float]: ...


def take_turns(contenders: dict[str, Once], *, runs: int, period_s: float, warm_ups: int = 3) -> list[Sample]:
    """``runs`` of each, in turns.

    With a period: A B C A B C …, one start every ``period_s`` seconds. Without, in bursts of `BURST`, A A A B B B …,
    each after `SETTLE_S` of runs that do not count, one at least: back to back means that what came before was one's
    own, not a neighbour's that left the machine's caches, grace periods and workers with its remains.
    """
    seconds: dict[str, list[float]] = {peer: [] for peer in contenders}
    for _ in range(warm_ups):
        for once in contenders.values():
            once()
    if not period_s:
        while any(len(values) < runs for values in seconds.values()):
            for peer, once in contenders.items():
                in_a_row = once.burst if isinstance(once, TimesItself) else partial(burst, once)
                seconds[peer] += in_a_row(runs=BURST, settle_s=SETTLE_S)
        return [Sample(peer, tuple(values[:runs])) for peer, values in seconds.items()]
    due = time.monotonic()
    for _ in range(runs):
        for peer, once in contenders.items():
            time.sleep(max(0.0, due - time.monotonic()))
            due = time.monotonic() + period_s
            seconds[peer].append(once())
    return [Sample(peer, tuple(values)) for peer, values in seconds.items()]


def pss_kib(pid: int) -> int:
    """Proportional set size of one process (proc(5), smaps_rollup)."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


def descendants_named(name: str) -> list[int]:
    """Pids of every process called ``name`` (argv[0], up to a dash) that shares our network namespace."""
    own, found = os.readlink("/proc/self/ns/net"), []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/cmdline", encoding="utf-8", errors="replace") as cmdline:
                called = os.path.basename(cmdline.read().partition("\0")[0])
            if called.startswith(name) and os.readlink(f"/proc/{entry}/ns/net") == own:
                found.append(int(entry))
        except OSError:
            continue
    return found
