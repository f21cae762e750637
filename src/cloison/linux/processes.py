"""What /proc says of one process, for people who watch it (proc(5))."""

from __future__ import annotations

import os

from cloison.linux import proc
from cloison.model.record import Record

# fields of /proc/PID/stat after the command's closing parenthesis
_PARENT, _TERMINAL, _USER_TICKS, _START_TIME = 1, 4, 11, 19
_PTY_MAJORS = range(136, 144)
_TTY_MAJOR = 4
_FIRST_SERIAL = 64
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ProcessInfo(Record):
    """``cpu_ticks`` are its own, ``waited_ticks`` those of children that it has waited for; ``terminal`` may be ""."""

    pid: int
    parent: int
    user_id: int
    terminal: str
    start_ticks: int
    cpu_ticks: int
    waited_ticks: int
    command: str


def read_process(pid: int) -> ProcessInfo:
    """Raises: NotFound when it is gone."""
    name, fields = proc.read_stat(pid)
    try:
        user_id = os.stat(f"/proc/{pid}").st_uid
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(1 << 16)
    except (FileNotFoundError, ProcessLookupError) as err:
        raise proc.gone(pid) from err
    user, system, waited_user, waited_system = map(int, fields[_USER_TICKS : _USER_TICKS + 4])
    command = words.rstrip(b"\0").replace(b"\0", b" ") or b"[" + name + b"]"
    return ProcessInfo(
        pid=pid, parent=int(fields[_PARENT]), user_id=user_id, terminal=_terminal(int(fields[_TERMINAL])),
        start_ticks=int(fields[_START_TIME]), cpu_ticks=user + system, waited_ticks=waited_user + waited_system,
        command=command.decode(errors="surrogateescape"),
    )  # fmt: skip


def _terminal(number: int) -> str:
    major, minor = os.major(number), os.minor(number)
    if major in _PTY_MAJORS:
        return f"pts/{(major - _PTY_MAJORS.start) * 256 + minor}"
    if major == _TTY_MAJOR:
        return f"tty{minor}" if minor < _FIRST_SERIAL else f"ttyS{minor - _FIRST_SERIAL}"
    return ""


def disk_bytes(pid: int) -> tuple[int, int]:
    """Bytes read from and written to disks, with those of children that it has waited for; 0 once it is gone."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            counts = dict(line.split(": ") for line in file)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0, 0
    return int(counts["read_bytes"]), int(counts["write_bytes"])


def network_bytes(pid: int) -> tuple[int, int]:
    """Bytes received and sent by the interfaces that the process sees, without loopback; 0 once it is gone."""
    received = sent = 0
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
            rows = [line.partition(":") for line in file if ":" in line]
    except (FileNotFoundError, ProcessLookupError, OSError):
        return 0, 0
    for name, _, counters in rows:
        if name.strip() != "lo":
            values = counters.split()
            received, sent = received + int(values[0]), sent + int(values[8])
    return received, sent


def boot_time_s() -> int:
    """When this machine was started, in seconds since the epoch."""
    with open("/proc/stat", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("btime "))


def memory_total_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
