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
    _fill_standard_descriptors()
    gc.set_threshold(100_000)  # a command that ends at once has nothing to collect: 1.4 ms of looking for it
    status = _run(sys.argv[1:])
    threading = sys.modules.get("threading")
    if threading is None or threading.active_count() == 1:
        # Taking the interpreter down costs 2 ms, or more, and frees what the kernel frees anyway. All output was
        # written by then.
        os._exit(status)
    return status


def _fill_standard_descriptors() -> None:
    """Where a caller closed 0, 1 or 2, the next file we open would get that number, and our output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


if __name__ == "__main__":
    sys.exit(main())
