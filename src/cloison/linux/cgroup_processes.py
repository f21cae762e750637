"""The processes in a control group: which they are, killing and freezing all of them at once."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import os
import time

from cloison.errors import NotFound, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloison.linux.cgroup_layout import Layout

_KILL_TIMEOUT_S = 2.0
_FREEZE_TIMEOUT_S = 2.0
_SIGKILL = 9


def pids(layout: Layout, path: str) -> list[int]:
    """Every process in the group and in those below it, as our pid namespace counts them. Empty when it is gone."""
    found: set[int] = set()
    for root in _process_roots(layout):
        _collect(f"{root}/{path}", found)
    return sorted(found)


def kill(layout: Layout, path: str) -> None:
    """SIGKILL to every process of the group, those it is forking included; does not wait for their end."""
    if layout.unified and write_if_there(f"{layout.unified}/{path}/cgroup.kill", "1"):
        if layout.legacy:
            _signal_members(layout, path)  # one that was moved into the version 1 half alone
    else:  # version 1, or version 2 before Linux 5.14
        _kill_listed(layout, path)
    _thaw(layout, path)


def freeze(layout: Layout, path: str, *, frozen: bool) -> None:
    """Stop every process of the group where it stands, or let all go on; returns when it is so.

    Raises: Unavailable when a process cannot be stopped within two seconds, after letting all go on; NotFound;
    Unsupported on a machine with version 1 and no freezer.
    """
    # Version 2 first: what it froze can still be killed and traced.
    if layout.unified and write_if_there(f"{layout.unified}/{path}/cgroup.freeze", "1" if frozen else "0"):
        events = f"{layout.unified}/{path}/cgroup.events"
        reached = _wait(lambda: read_field(events, "frozen") == int(frozen))
        if not reached and frozen:
            write_if_there(f"{layout.unified}/{path}/cgroup.freeze", "0")
    elif "freezer" in layout.legacy:
        reached = _freeze_v1(f"{layout.legacy['freezer']}/{path}", frozen=frozen)
    elif layout.unified:
        raise NotFound(f"control group {path} does not exist")
    else:
        raise Unsupported(f"cannot freeze control group {path}", why="this machine has no freezer controller")
    if not reached and frozen:
        raise Unavailable(
            f"cannot freeze control group {path}",
            why="a process in it waits in the kernel",
            hint="try again; a process that waits for a disk or a file server cannot be stopped",
        )


def leave_foreign_freezer(layout: Layout, path: str, *, pid: int) -> None:
    """Back into its own group with a process that somebody put elsewhere: what a version 1 freezer holds cannot die."""
    freezer = layout.legacy.get("freezer")
    if not freezer:
        return
    try:
        rows = [row.split(":", 2) for row in read_text(f"/proc/{pid}/cgroup").splitlines()]
        if any(names == "freezer" and place != f"/{path}" for _, names, place in rows):
            write_if_there(f"{freezer}/{path}/cgroup.procs", str(pid))
    except (FileNotFoundError, ProcessLookupError, NotFound):
        return  # it has ended, and is in no group before its parent has heard of that


def is_frozen(layout: Layout, path: str) -> bool:
    """Whether the group was told to stand still, by either version's freezer."""
    if layout.unified and read_text(f"{layout.unified}/{path}/cgroup.freeze").strip() == "1":
        return True
    freezer = layout.legacy.get("freezer")
    return freezer is not None and read_text(f"{freezer}/{path}/freezer.state").strip() in ("FROZEN", "FREEZING")


def write_if_there(file: str, value: str) -> bool:
    """Write a control file; False when it does not exist. Raises: OSError."""
    try:
        write_value(file, value)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as err:
        if err.errno == errno.ENODEV:  # the group was removed between open and write
            return False
        raise
    return True


def write_value(file: str, value: str) -> None:
    """Write a control file; never makes one. Raises: OSError."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read_text(file: str) -> str:
    """A control file's text; "" when it, or the group, is gone."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    try:
        pieces = []
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
        return b"".join(pieces).decode()
    except OSError as err:
        if err.errno == errno.ENODEV:
            return ""
        raise
    finally:
        os.close(fd)


def read_field(file: str, field: str) -> int:
    """The number after ``field`` in a file of "name number" lines, or the file's only number when it is ""; else 0."""
    for line in read_text(file).splitlines():
        name, _, number = line.rpartition(" ")
        if name == field and number.isdigit():
            return int(number)
    return 0


def _process_roots(layout: Layout) -> tuple[str, ...]:
    """The version 2 tree and one version 1 hierarchy: a container's processes are in all of the latter or in none."""
    first = layout.hierarchies()[:1]
    return (layout.unified, *first) if layout.unified else first


def _collect(directory: str, found: set[int]) -> None:
    try:
        text = read_text(f"{directory}/cgroup.procs")
    except OSError as err:
        if err.errno != errno.EOPNOTSUPP:
            raise
        text = read_text(f"{directory}/cgroup.threads")  # a threaded group lists its threads alone
    # 0 is a process that our pid namespace does not see.
    found.update(pid for pid in map(int, text.split()) if pid > 0)
    for child in subdirectories(directory):
        _collect(f"{directory}/{child}", found)


def subdirectories(directory: str) -> list[str]:
    """Names of the groups directly below; none when the directory is gone."""
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _kill_listed(layout: Layout, path: str) -> None:
    """Freeze, kill everything listed, thaw; repeated, because a freezing process may still have forked."""
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while pids(layout, path) and time.monotonic() < deadline:
        try:
            freeze(layout, path, frozen=True)
        except (Unavailable, Unsupported, NotFound):
            pass  # then the rounds must win the race
        _signal_members(layout, path)
        _thaw(layout, path)
        time.sleep(0.001)


def _thaw(layout: Layout, path: str) -> None:
    """Let everything go on, whichever freezer holds it: on version 1 not even SIGKILL reaches the frozen."""
    if layout.unified:
        write_if_there(f"{layout.unified}/{path}/cgroup.freeze", "0")
    if "freezer" in layout.legacy:
        write_if_there(f"{layout.legacy['freezer']}/{path}/freezer.state", "THAWED")


def _signal_members(layout: Layout, path: str) -> None:
    """SIGKILL by pidfd to those that are listed before *and* after it was opened: a reused number is not hit."""
    held: dict[int, int] = {}
    try:
        for pid in pids(layout, path):
            try:
                held[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
        for pid in pids(layout, path):
            if pid in held:
                try:
                    _signal.pidfd_send_signal(held[pid], _SIGKILL)
                except ProcessLookupError:
                    continue
    finally:
        for fd in held.values():
            os.close(fd)


def _freeze_v1(directory: str, *, frozen: bool) -> bool:
    state = f"{directory}/freezer.state"
    word = "FROZEN" if frozen else "THAWED"
    if not write_if_there(state, word):
        raise NotFound(f"control group {directory} does not exist")

    def reached() -> bool:
        # Written again each time: the kernel stays at FREEZING when a process forked meanwhile.
        return read_text(state).strip() == word or not write_if_there(state, word)

    if _wait(reached):
        return True
    if frozen:
        write_if_there(state, "THAWED")
    return False


def _wait(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _FREEZE_TIMEOUT_S
    pause_s = 0.0005
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
    return True
