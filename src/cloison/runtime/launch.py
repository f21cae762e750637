"""Launching a plan: descriptors in a row, the plan in a memfd, one `posix_spawn` of the launcher's sealed copy.

Never fork: a program with threads and a large heap would copy its page tables, and could stop for ever on another
thread's lock. posix_spawn shares the memory until the exec and takes the same third of a millisecond whatever we are
part of.
"""

from __future__ import annotations

import _socket
import errno
import os

from cloison.errors import Denied, InvalidArgument, NotFound, Unavailable
from cloison.runtime import launcher as executable
from cloison.runtime import plan
from cloison.runtime.session import ATTACH_TO_ALL, Session, reap_children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloison.errors import CloisonError
    from cloison.runtime.launcher import Launcher
    from cloison.runtime.plan import Op


_SHORT = 12  # digits of an id that become a container's hostname


class Repeated:
    """A plan that is launched again and again, for containers that differ in their id alone: encoded once.

    Ids have one length and are random, so putting another one into the bytes moves nothing and hits nothing else.
    Thread-safe.
    """

    def __init__(self, ops: tuple[Op, ...], *, id: str = "") -> None:
        """``id`` is the one that stands in ``ops`` (and its first twelve digits, as hostname); "" when none does."""
        self._ops = ops
        self._id = id
        self._named = plan.descriptors(ops)
        self._encoded: tuple[tuple[int, ...], bytes] = ((), b"")

    def launch(self, id: str, *, attached: bool = False, launcher: Launcher = executable.DEFAULT) -> Session:
        """Start the launcher; returns at once, the session tells what becomes of it.

        ``attached``: to all streams before there is a launcher, so that nothing a command writes first is missed.
        Descriptors in the plan stay the caller's, open and unchanged; what it names by path is opened here.
        Raises: NotFound (no launcher, no such namespace), Denied, InvalidArgument (the plan is too large), Unavailable.
        """
        reap_children()
        image = launcher.descriptor()
        ours, theirs = _socketpair()
        try:
            if attached:
                ours.send(ATTACH_TO_ALL)
            pid = self._spawn(id, client=str(theirs.fileno()), image=image)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Session(ours, id=id, launcher=pid, plan=_Renamed(self._ops, self._id, new=id))

    def _spawn(self, id: str, *, client: str, image: int) -> int:
        """The launcher's pid. Every descriptor opened here is closed here, whatever happens."""
        opened: list[int] = []
        try:
            names = [_renamed(name, self._id, new=id) for name in self._named.values()]
            sources = _open_sources((*self._named, client), (*names, client), opened=opened)
            opened.append(executable.memfd("plan"))
            targets = _targets((opened[-1], *sources.values()), avoid=image)
            numbers = {word: targets[fd] for word, fd in sources.items()}
            executable.fill(opened[-1], self._encode(id, client=client, numbers=numbers))
            return _posix_spawn(targets, image=image)
        except OSError as err:
            raise _spawn_error(err) from err
        finally:
            for fd in opened:
                os.close(fd)

    def _encode(self, id: str, *, client: str, numbers: dict[str, int]) -> bytes:
        order = tuple(numbers.values())
        known, data = self._encoded
        if known != order:  # the first time, or the caller's descriptors have other numbers
            data = plan.encode((*self._ops, plan.op("client", client)), numbers=numbers)
            self._encoded = (order, data)
        old, new = self._id.encode(), id.encode()
        return data if old == new or not old else data.replace(old, new).replace(old[:_SHORT], new[:_SHORT])


class _Renamed:
    """The operations as launched, for whoever has to name the one that failed."""

    def __init__(self, ops: tuple[Op, ...], old: str, *, new: str) -> None:
        self._ops, self._old, self._new = ops, old, new

    def __len__(self) -> int:
        return len(self._ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self._ops)

    def __getitem__(self, index: int) -> Op:
        op = self._ops[index]
        words = [_renamed(word, self._old, new=self._new) if isinstance(word, str) else word for word in op.words]
        return plan.Op(verb=op.verb, words=tuple(words))


def _renamed(word: str, old: str, *, new: str) -> str:
    return word.replace(old, new).replace(old[:_SHORT], new[:_SHORT]) if old else word


def launch(
    ops: tuple[Op, ...], *, id: str = "", attached: bool = False, launcher: Launcher = executable.DEFAULT
) -> Session:
    """`Repeated.launch`, once."""
    return Repeated(ops).launch(id, attached=attached, launcher=launcher)


class Placeholder:
    """A launcher that waits for its plan: a process of 100 KB that holds a place until the container's own is there."""

    def __init__(self, *, launcher: Launcher = executable.DEFAULT) -> None:
        """Raises: as `Repeated.launch`."""
        image = launcher.descriptor()
        reading, self._writing = os.pipe()
        try:
            self.pid = _posix_spawn(_targets([reading], avoid=image), image=image)
        except OSError as err:
            os.close(self._writing)
            raise _spawn_error(err) from err
        finally:
            os.close(reading)

    def close(self) -> None:
        """Let it end, and wait for that."""
        os.close(self._writing)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:  # whoever called us ignores SIGCHLD
            pass


def _socketpair() -> tuple[_socket.socket, _socket.socket]:
    try:
        return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    except OSError as err:
        raise Unavailable("cannot launch", why=os.strerror(err.errno or 0).lower()) from err


def _open_sources(words: Iterable[str], names: Iterable[str], *, opened: list[int]) -> dict[str, int]:
    """Word of the plan -> descriptor of ours; what is named by path is opened and added to ``opened``."""
    sources: dict[str, int] = {}
    for word, name in zip(words, names, strict=True):
        if not name.startswith("/"):
            sources[word] = int(name)
            continue
        try:
            opened.append(os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except (FileNotFoundError, ProcessLookupError) as err:
            raise NotFound(f"cannot launch: {name} does not exist", why="what it belonged to has ended") from err
        except PermissionError as err:
            raise Denied(f"cannot launch: {name} may not be opened", why="permission denied") from err
        sources[word] = opened[-1]
    return sources


def _targets(sources: Iterable[int], *, avoid: int) -> dict[int, int]:
    """Descriptor of ours -> its number in the launcher: a row, in the order given, each descriptor once.

    The row is the lowest one without any of our own numbers in it: dup2(2) goes through them one after the other and
    must not overwrite one that is still to be copied, nor the executable, which is opened last by its number.
    """
    unique = list(dict.fromkeys(sources))
    taken = sorted({*unique, avoid})
    first = 3
    for fd in taken:
        if first <= fd < first + len(unique):
            first = fd + 1
    return {fd: first + index for index, fd in enumerate(unique)}


def _posix_spawn(targets: dict[int, int], *, image: int) -> int:
    # The monitor outlives the caller and must not hold its terminal or pipe open, so 0 to 2 are /dev/null; last,
    # because they may be sources. Nothing is inherited: the environment is empty, the launcher closes what is not in
    # the row.
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]]
    actions = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in targets.items()]
    actions += [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]
    argv = ("cloison-launcher", str(min(targets.values())), str(len(targets)))
    return os.posix_spawn(f"/proc/self/fd/{image}", argv, {}, file_actions=actions)


def _spawn_error(err: OSError) -> CloisonError:
    why = os.strerror(err.errno or 0).lower()
    if err.errno == errno.EBADF:
        return InvalidArgument("cannot launch", why="a descriptor that was to be handed over is not open")
    if err.errno in (errno.EACCES, errno.EPERM):
        return Denied("cannot execute the launcher", why=why, hint="is vm.memfd_noexec set, or /proc mounted noexec?")
    if err.errno in (errno.EMFILE, errno.ENFILE):
        return Unavailable("cannot launch", why=why, hint="raise the limit on open files (ulimit -n)")
    return Unavailable("cannot launch", why=why)
