"""One flock an object. The kernel lets go of it when its holder dies, so a free lock on unfinished work means a crash.

Always taken in this order: image, snapshot, volume, network, container (design, "What is on disk").
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Lock:
    """An exclusive lock on a file (made when missing); a context manager. The descriptor is close-on-exec."""

    def __init__(self, path: str, *, wait: bool = True, shared: bool = False) -> None:
        """Raises: BlockingIOError when ``wait`` is false and somebody holds it; OSError."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        while True:
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(self.fd, kind if wait else kind | fcntl.LOCK_NB)
                if self._is_current(path):
                    return
            except BaseException:
                Lock.release(self)
                raise
            Lock.release(self)

    def _is_current(self, path: str) -> bool:
        """Whether the file was not removed, or replaced, while we waited."""
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(path, follow_symlinks=False))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Lock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Claim(Lock):
    """A lock whose file goes with it: for work that two might do at once, of which there is no end of kinds."""

    def __init__(self, path: str, *, wait: bool = True) -> None:
        """Raises: BlockingIOError when ``wait`` is false and somebody holds it; Unavailable (disk full), Denied."""
        try:
            super().__init__(path, wait=wait)
        except BlockingIOError:
            raise
        except OSError as err:
            from cloison.store.atomic import disk_error

            raise disk_error(path, err) from err
        self._path = path

    def release(self) -> None:
        if self.fd >= 0:
            try:
                os.unlink(self._path)  # while it is ours: who waits for it sees that, and makes it anew
            except FileNotFoundError:
                pass
        super().release()


def is_held(path: str) -> bool:
    """Whether somebody alive holds the lock exclusively; a missing file is held by nobody."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
