"""Archives on their way out: to a file that appears whole or not at all, or to standard output, never to a terminal."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager

from cloison.cli import output
from cloison.cli.terminal import is_terminal
from cloison.errors import InvalidArgument, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_GATHER_BYTES = 1 << 20


def write_text(path: str, text: str) -> None:
    """A small file where the user wants it (``--digestfile``). Raises: InvalidArgument."""
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError as err:
        raise InvalidArgument(f"open {path}", why=(err.strerror or str(err)).lower()) from err


class ArchiveOutput:
    """A descriptor that small writes are gathered for."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._gathered = bytearray()

    def write(self, data: bytes, /) -> int:
        """Raises: BrokenPipeError, Unavailable (a full disk)."""
        if len(self._gathered) + len(data) < _GATHER_BYTES:
            self._gathered += data
        else:
            self.flush()
            self._write(data)
        return len(data)

    def flush(self) -> None:
        if self._gathered:
            self._write(bytes(self._gathered))
            self._gathered.clear()

    def _write(self, data: bytes) -> None:
        try:
            output.write_all(self._fd, data)
        except BrokenPipeError:
            raise
        except OSError as err:
            raise Unavailable(f"cannot write to {self._name}", why=os.strerror(err.errno or 0).lower()) from err


@contextmanager
def archive_output(path: str, *, verb: str) -> Iterator[ArchiveOutput]:
    """Standard output for ""; else a file that is renamed to its name once the block has ended well.

    Raises: InvalidArgument for a terminal, or a path that cannot be written.
    """
    if not path and is_terminal(output.STDOUT):
        raise InvalidArgument(
            f"cowardly refusing to {verb} to a terminal", hint="use the -o flag, or redirect standard output"
        )
    if not path:
        sink = ArchiveOutput(output.STDOUT, "standard output")
        yield sink
        sink.flush()
    elif _is_special(path):
        yield from _written_in_place(path)
    else:
        yield from _written_beside(path)


def _written_in_place(path: str) -> Iterator[ArchiveOutput]:
    """A pipe or a device: what is written is gone."""
    fd = _open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        sink = ArchiveOutput(fd, path)
        yield sink
        sink.flush()
    finally:
        os.close(fd)


def _written_beside(path: str) -> Iterator[ArchiveOutput]:
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
    fd = _open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, shown=path)
    try:
        sink = ArchiveOutput(fd, path)
        yield sink
        sink.flush()
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)


def _open(path: str, flags: int, *, shown: str = "") -> int:
    try:
        return os.open(path, flags, 0o600)
    except OSError as err:
        raise InvalidArgument(f"open {shown or path}", why=(err.strerror or str(err)).lower()) from err


def _is_special(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        raise InvalidArgument(f"open {path}", why="is a directory")
    return not stat.S_ISREG(mode)
