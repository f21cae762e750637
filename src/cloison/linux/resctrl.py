"""Cache and memory bandwidth of a processor, shared out by the resctrl file system (kernel x86/resctrl.rst).

A directory below its root is a class of service: ``schemata`` says what it gets, ``tasks`` who is in it.
"""

from __future__ import annotations

import os

from cloison.errors import Conflict, Denied, InvalidArgument, NotFound, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.errors import CloisonError
    from cloison.oci.runtime import Rdt


def find_root() -> str:
    """Where it is mounted. Raises: Unsupported."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            place, _, rest = line.partition(" - ")
            if rest.startswith("resctrl "):
                return place.split()[4]
    raise Unsupported(
        "linux.intelRdt is not supported on this machine",
        why="no resctrl file system is mounted",
        hint="mount -t resctrl resctrl /sys/fs/resctrl, on a processor that shares its cache out",
    )


def check(wanted: Rdt, *, root: str, container_id: str) -> bool:
    """Whether the directory has to be made. Raises: NotFound, Conflict, as the specification has it."""
    directory = directory_of(wanted, root=root, container_id=container_id)
    exists = os.path.isdir(directory)
    what = f"cannot use RDT class {os.path.basename(directory)}"
    # "If closID is set, and neither of l3CacheSchema and memBwSchema is set, runtime MUST check if the corresponding
    # pre-configured directory closID is present […] If directory does not exist, runtime MUST generate an error."
    if wanted.id and not wanted.schemata and not exists:
        raise NotFound(what, why=f"{directory} does not exist, and no schema is given to make it")
    # "If the directory exists, runtime MUST compare […] MUST generate an error if they do not match"
    if exists and wanted.schemata and not _allots(_read(f"{directory}/schemata"), wanted.schemata):
        raise Conflict(what, why=f"{directory}/schemata says otherwise")
    return not exists


def directory_of(wanted: Rdt, *, root: str, container_id: str) -> str:
    """The class's directory. Raises: InvalidArgument."""
    name = wanted.id or container_id
    if name == "/":
        return root
    if "/" in name or name in (".", "..", "info", "mon_groups", "mon_data"):
        raise InvalidArgument("invalid config.json", why=f"linux.intelRdt.closID {name[:64]!r} is no name of a class")
    return f"{root}/{name}"


def make(directory: str, schemata: Iterable[str] = ()) -> None:
    """A new class, or monitoring group; nothing is left when the kernel does not like it.

    Raises: Conflict, Denied, Unavailable.
    """
    try:
        os.mkdir(directory)
    except OSError as err:
        raise _refusal(f"cannot make {directory}", err) from err
    try:
        for line in schemata:
            _write(f"{directory}/schemata", f"{line}\n")
    except BaseException:
        remove(directory)
        raise


def monitoring_group(directory: str, container_id: str) -> str:
    """Where a class counts what this container uses."""
    return f"{directory}/mon_groups/{container_id}"


def join(directory: str, pid: int) -> None:
    """Raises: Denied, Unavailable."""
    _write(f"{directory}/tasks", str(pid))


def remove(directory: str) -> None:
    """A class or a monitoring group; who is in it falls back to the one above. Gone already is fine."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as err:
        raise _refusal(f"cannot remove {directory}", err) from err


def _allots(present: str, wanted: Iterable[str]) -> bool:
    """Whether every domain that is asked for has what is asked."""
    have = _domains(present.splitlines())
    return all(have.get(key) == value for key, value in _domains(wanted).items())


def _domains(lines: Iterable[str]) -> dict[tuple[str, str], str]:
    """``L3:0=ff;1=f`` -> {("L3", "0"): "ff", ("L3", "1"): "f"}; leading zeros mean nothing."""
    found = {}
    for line in lines:
        resource, _, domains = line.strip().partition(":")
        for domain in filter(None, domains.split(";")):
            number, _, value = domain.partition("=")
            found[resource.strip(), number.strip()] = value.strip().lower().lstrip("0") or "0"
    return found


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as err:
        raise _refusal(f"cannot write {text.strip()[:64]!r} to {path}", err) from err


def _refusal(what: str, err: OSError) -> CloisonError:
    why = os.strerror(err.errno or 0).lower()
    if isinstance(err, PermissionError):
        return Denied(what, why=why, hint="run as root")
    if isinstance(err, FileExistsError):
        return Conflict(what, why=why)
    hint = "info/last_cmd_status in the resctrl file system says what the kernel did not like"
    return Unavailable(what, why=why, hint=hint)
