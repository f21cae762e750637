"""The launcher's executable: where it lies, and a sealed copy of it that no container can write to.

A container can open ``/proc/PID/exe`` of whatever enters it (CVE-2019-5736). What it finds there is a memfd that is
sealed against writing, for itself and for everybody; the file on disk is never executed.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os

from cloison.errors import Denied, Internal, NotFound, Unavailable

# memfd_create(2), Linux 6.3: tells the kernel that this one is meant to be executed; older kernels refuse the flag.
_MFD_EXEC = 0x10
_MFD_NOEXEC_SEAL = 0x08
_F_SEAL_EXEC = 0x20  # fcntl(2), Linux 6.3: the mode cannot change any more
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NAME = "cloison-launcher"


def default_path() -> str:
    """Where the package's build puts the launcher: ``cloison/libexec`` beside this package."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "libexec", _NAME)


class Launcher:
    """One launcher executable and its sealed copy, made at the first use. Thread-safe."""

    def __init__(self, path: str = "") -> None:
        self.path = path or default_path()
        self._lock = _thread.allocate_lock()
        self._fd = -1

    def descriptor(self) -> int:
        """The sealed copy, close-on-exec; stays open as long as this object.

        Raises: NotFound when the launcher was not built; Denied when this machine forbids executable memfds.
        """
        if self._fd < 0:
            with self._lock:
                if self._fd < 0:
                    self._fd = _sealed_copy(self.path)
        return self._fd

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


# The process has one copy, as it has one of each imported module: 60 KB and a descriptor, whatever is launched.
DEFAULT = Launcher()


def _sealed_copy(path: str) -> int:
    source = _open(path)
    try:
        target = _executable_memfd()
        if target < 3:  # the caller has closed a standard stream; the launcher's are opened anew before it is executed
            low, target = target, fcntl.fcntl(target, fcntl.F_DUPFD_CLOEXEC, 3)
            os.close(low)
        try:
            while os.sendfile(target, source, None, 1 << 30):
                pass
            _seal(target)
        except BaseException:
            os.close(target)
            raise
        return target
    except OSError as err:
        raise Unavailable("cannot copy the launcher into memory", why=os.strerror(err.errno or 0).lower()) from err
    finally:
        os.close(source)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        raise NotFound(
            f"the launcher is missing: {path}",
            why=os.strerror(err.errno or 0).lower(),
            hint="in a source tree run 'make -C launcher', else install the package again",
        ) from err


def _executable_memfd() -> int:
    try:
        return _memfd(_NAME, os.MFD_ALLOW_SEALING, optional=_MFD_EXEC)
    except OSError as err:
        if err.errno not in (errno.EACCES, errno.EPERM):
            raise
        raise Denied(
            "this machine forbids the launcher's sealed copy",
            why="memory files cannot be executed (sysctl vm.memfd_noexec is 2)",
            hint="set it to 1 or 0: sysctl -w vm.memfd_noexec=1",
        ) from err


def memfd(name: str) -> int:
    """An empty memory file, never executable; close-on-exec. Raises: OSError."""
    return _memfd(name, 0, optional=_MFD_NOEXEC_SEAL)


def fill(fd: int, data: bytes) -> None:
    """Write a memory file's whole content and go back to its start. Raises: OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)


def _memfd(name: str, flags: int, *, optional: int) -> int:
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC | flags | optional)
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, os.MFD_CLOEXEC | flags)  # before Linux 6.3


def _seal(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS | _F_SEAL_EXEC)
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS != _SEALS:
        raise Internal("the launcher's copy is not sealed")
