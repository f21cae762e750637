"""One living Python process that runs a container for each line it reads and prints the seconds it took."""

from __future__ import annotations

import sys
import time

import cloison


def main() -> None:
    for _ in sys.stdin:
        started = time.perf_counter()
        result = cloison.run("bench", ["/bin/busybox", "true"], network="none")
        elapsed = time.perf_counter() - started
        if result.exit_code:
            sys.exit(f"exit code {result.exit_code}: {result.stderr!r}")
        print(elapsed, flush=True)


if __name__ == "__main__":
    main()
