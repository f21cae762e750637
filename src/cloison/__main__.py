"""``cloison …`` and ``python -m cloison …``."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def _run(argv: Sequence[str]) -> int:
    if argv and argv[0] == "oci":
        from cloison.oci_runtime.main import run_command_line as run_oci_runtime

        return run_oci_runtime(argv[1:])
    from cloison.cli.dispatch import run_command_line

    return run_command_line(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line: the given words, or the process's own. Gives the exit status."""
    if argv is not None:
        return _run(argv)
    gc.set_threshold(100_000)  # a command that ends at once has nothing to collect: 1.4 ms of looking for it
    status = _run(sys.argv[1:])
    if "threading" not in sys.modules:
        # Taking the interpreter down costs 2 ms and frees what the kernel frees anyway. All output was written by then.
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
