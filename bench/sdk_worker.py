"""One living Python process: for each line ``RUNS SETTLE_S``, a burst of container runs; it prints their seconds."""

from __future__ import annotations

import sys
import time

from measure import burst

import cloison


def run() -> float:
    started = time.perf_counter()
    result = cloison.run("bench", ["/bin/busybox", "true"], network="none")
    elapsed = time.perf_counter() - started
    if result.exit_code:
        sys.exit(f"exit code {result.exit_code}: {result.stderr!r}")
    return elapsed


def main() -> None:
    for line in sys.stdin:
        runs, settle_s = line.split()
        print(*burst(run, runs=int(runs), settle_s=float(settle_s)), flush=True)


if __name__ == "__main__":
    main()
