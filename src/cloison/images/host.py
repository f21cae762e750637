"""`image from-host`: this machine's own programs, each with what it needs to start, as one layer.

A program is followed to its ELF interpreter and libraries, or to the interpreter of its script; nothing is run to find
out. Links are kept as they are (a merged /usr, /etc/alternatives), times of files too, and everything else is fixed:
the same programs give the same bytes.
"""

from __future__ import annotations

import os
import posixpath
import stat

from cloison.archive.headers import DIRECTORY, FILE, NS, SYMLINK
from cloison.archive.writer import TarWriter, new_entry
from cloison.errors import InvalidArgument, NotFound
from cloison.images.elf import Elf, read_elf
from cloison.images.host_libraries import Libraries
from cloison.images.layout import store_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cloison.archive.headers import Entry
    from cloison.archive.writer import Writable
    from cloison.images.layout import Layer
    from cloison.store.blobs import Blobs

SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_MAX_HOPS = 40
_MAX_SHEBANG = 256  # BINPRM_BUF_SIZE, binfmts.h
_TOP_LEVEL_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")


def find_command(name: str) -> str:
    """Path of a command: itself when it has a slash, else the first in the system's directories; "" is none."""
    candidates = (name,) if "/" in name else tuple(f"{directory}/{name}" for directory in SEARCH_PATH)
    for path in candidates:
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def store_host_layer(commands: Sequence[str], *, blobs: Blobs) -> tuple[Layer, int]:
    """The layer with these commands and a minimal system around them.

    And when its newest file was changed, in ns since the epoch.

    Raises: NotFound for a command that is not on this machine, InvalidArgument without any, Unavailable (disk full).
    """
    from cloison.images.host_base import add_system

    if not commands:
        raise InvalidArgument("from-host needs at least one command", hint="cloison image from-host NAME sh ls cat")
    tree = HostTree()
    for command in dict.fromkeys(commands):
        path = find_command(command)
        if not path:
            raise NotFound(f"no such command on this machine: {command}")
        tree.add_program(path)
    add_system(tree)
    newest_ns = 0

    def write(out: Writable) -> None:
        nonlocal newest_ns
        newest_ns = tree.write(TarWriter(out))

    return store_layer(write, blobs=blobs), newest_ns


class HostTree:
    """What goes into the layer, by its absolute path; parents and link targets come along by themselves."""

    def __init__(self) -> None:
        self._members: dict[str, Callable[[str], tuple[Entry, bytes | None]]] = {}
        self._done: set[str] = set()
        self._libraries = Libraries()
        for link in _TOP_LEVEL_LINKS:
            if os.path.islink(link):
                self.add(link)

    def __contains__(self, path: str) -> bool:
        return path in self._members

    # -- what can be added

    def add_program(self, path: str) -> None:
        """A command with its interpreter and libraries, or a script with its own."""
        real = self.add(path)
        self._add_needs(real)
        name = posixpath.basename(real)
        if name.startswith("python3"):
            from cloison.images.host_python import add_standard_library

            add_standard_library(self, real)

    def add(self, path: str) -> str:
        """A path of the host, links on the way included; returns where it ends. Raises: NotFound."""
        done, todo = "/", [part for part in path.split("/") if part]
        for _hop in range(_MAX_HOPS * 8):
            if not todo:
                return done
            part = todo.pop(0)
            if part in ("..", "."):
                done = posixpath.dirname(done) if part == ".." else done
                continue
            here = posixpath.join(done, part)
            try:
                info = os.lstat(here)
            except OSError:
                raise NotFound(f"{here} is missing on this machine", why=f"needed for {path}") from None
            if stat.S_ISLNK(info.st_mode):
                target = os.readlink(here)
                self._members[here] = _link_to(target)
                done = "/" if target.startswith("/") else done
                todo = [word for word in target.split("/") if word] + todo
                continue
            self._members.setdefault(here, _directory if stat.S_ISDIR(info.st_mode) else _file)
            done = here
        raise NotFound(f"{path} has too many links")

    def add_tree(self, path: str, *, skip: Callable[[str, str], bool]) -> None:
        """A directory of the host; ``skip(directory, name)`` leaves out. Shared objects bring what they need."""
        for name in sorted(os.listdir(self.add(path))):
            child = posixpath.join(path, name)
            if skip(path, name):
                continue
            info = os.lstat(child)
            if stat.S_ISDIR(info.st_mode):
                self.add_tree(child, skip=skip)
            elif stat.S_ISREG(info.st_mode) or (stat.S_ISLNK(info.st_mode) and os.path.isfile(child)):
                real = self.add(child)
                if ".so" in posixpath.basename(real):
                    self._add_needs(real)

    def add_optional(self, paths: Iterable[str]) -> None:
        """Those of the paths that this machine has."""
        for path in paths:
            if os.path.isfile(path):
                self.add(path)

    def add_library(self, name: str) -> None:
        """A library that programs load by name at run time, when this machine has it for the programs chosen."""
        path = self._libraries.find(name)
        if path:
            self._add_needs(self.add(path))

    def make_directory(self, path: str, mode: int = 0o755) -> None:
        self._make_parents(path)
        self._members[path] = lambda _path: (new_entry(b"", DIRECTORY, mode=mode), None)

    def make_file(self, path: str, text: str) -> None:
        self._make_parents(path)
        self._members[path] = lambda _path: (new_entry(b"", FILE, mode=0o644), text.encode())

    def make_link(self, path: str, target: str) -> None:
        self._make_parents(path)
        self._members[path] = _link_to(target)

    @property
    def needs_cache(self) -> bool:
        """Whether a library lies where only the linker's cache leads."""
        return self._libraries.beyond_default

    # -- inside

    def _make_parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        if parent != "/" and parent not in self._members:
            self.make_directory(parent)

    def _add_needs(self, real: str) -> None:
        """Interpreter and libraries of a file, and theirs, and so on."""
        todo = [real]
        while todo:
            path = todo.pop()
            if path in self._done:
                continue
            self._done.add(path)
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                elf = read_elf(fd)
                first = b"" if elf else os.pread(fd, _MAX_SHEBANG, 0).partition(b"\n")[0]
            finally:
                os.close(fd)
            if elf is not None:
                todo += self._elf_needs(path, elf)
            elif first.startswith(b"#!"):
                todo += self._script_needs(os.fsdecode(first[2:]).split())

    def _elf_needs(self, path: str, elf: Elf) -> list[str]:
        found = [self.add(elf.interpreter)] if elf.interpreter else []
        for name in elf.needed:
            library = self._libraries.find(name, wanted_by=elf, origin=posixpath.dirname(path))
            if not library:
                raise NotFound(f"library {name} is missing on this machine", why=f"needed for {path}")
            found.append(self.add(library))
        return found

    def _script_needs(self, words: list[str]) -> list[str]:
        """Interpreter of a script; what env(1) is to find for it comes too."""
        if not words:
            return []
        needed = [words[0]]
        if posixpath.basename(words[0]) == "env":
            needed += [word for word in words[1:] if not word.startswith("-") and "=" not in word][:1]
        paths = [find_command(name) for name in needed]
        return [self.add(path) for path in paths if path]

    def write(self, writer: TarWriter) -> int:
        """All members, parents first; the newest one's time in ns."""
        newest_ns = 0
        writer.add(new_entry(b"./", DIRECTORY, mode=0o755))
        for path in sorted(self._members, key=lambda path: path.split("/")):
            entry, data = self._members[path](path)
            newest_ns = max(newest_ns, entry.mtime_ns)
            entry.name = os.fsencode(path.lstrip("/") + ("/" if entry.kind == DIRECTORY else ""))
            if entry.kind == FILE and data is None:
                _write_file(writer, entry, path)
            else:
                writer.add(entry, data=data or b"")
        writer.finish()
        return newest_ns


def _write_file(writer: TarWriter, entry: Entry, path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        entry.size = os.fstat(fd).st_size  # of the file that is read, whatever was there before
        writer.add(entry, fd=fd)
    finally:
        os.close(fd)


def _link_to(target: str) -> Callable[[str], tuple[Entry, bytes | None]]:
    return lambda _path: (new_entry(b"", SYMLINK, mode=0o777, link=os.fsencode(target)), None)


def _directory(path: str) -> tuple[Entry, bytes | None]:
    return new_entry(b"", DIRECTORY, mode=stat.S_IMODE(os.lstat(path).st_mode) & 0o1777), None


def _file(path: str) -> tuple[Entry, bytes | None]:
    info = os.lstat(path)
    # a compiled Python module is valid for one time of its source alone; setuid makes no sense without a system
    mode = stat.S_IMODE(info.st_mode) & 0o777
    return new_entry(b"", FILE, mode=mode, mtime_ns=info.st_mtime_ns // NS * NS), None
