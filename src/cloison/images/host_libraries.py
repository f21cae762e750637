"""Where the dynamic linker would find a library: RPATH, RUNPATH, its cache, the default directories (ld.so(8))."""

from __future__ import annotations

import os
import posixpath

from cloison.errors import CloisonError
from cloison.images.elf import Elf, read_elf
from cloison.linux.command import run

_TRIPLETS = (
    "x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf", "i386-linux-gnu", "riscv64-linux-gnu",
    "powerpc64le-linux-gnu", "s390x-linux-gnu",
)  # fmt: skip
_PLAIN_DEFAULTS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
_MULTIARCH_DEFAULTS = tuple(f"{top}/{triplet}" for triplet in _TRIPLETS for top in ("/lib", "/usr/lib"))


class Libraries:
    """Answers are remembered; ``beyond_default`` tells whether one needed the cache."""

    def __init__(self) -> None:
        self.beyond_default = False
        self._cache: dict[str, list[str]] | None = None
        self._defaults = [path for path in _PLAIN_DEFAULTS + _MULTIARCH_DEFAULTS if os.path.isdir(path)]
        self._machines: dict[str, tuple[int, int] | None] = {}
        self._machine: tuple[int, int] | None = None  # of the first program: what is loaded by name must fit it

    def find(self, name: str, *, wanted_by: Elf | None = None, origin: str = "") -> str:
        """Path of a library for the machine of ``wanted_by``, a file in directory ``origin``; "" when there is none."""
        if wanted_by is not None:
            self._machine = self._machine or wanted_by.machine
        machine = wanted_by.machine if wanted_by is not None else self._machine
        if "/" in name:
            return name if self._fits(name, machine) else ""
        own = _own_directories(wanted_by, origin) if wanted_by is not None else []
        for directory in (*own, *self._defaults):
            path = posixpath.join(directory, name)
            if self._fits(path, machine):
                return path
        for path in self._from_cache(name):
            if self._fits(path, machine):
                self.beyond_default = True
                return path
        return ""

    def _fits(self, path: str, machine: tuple[int, int] | None) -> bool:
        """Whether it is an ELF file of this machine: a biarch system has two of each name."""
        if path not in self._machines:
            self._machines[path] = _machine_of(path)
        found = self._machines[path]
        return found is not None and machine in (None, found)

    def _from_cache(self, name: str) -> list[str]:
        if self._cache is None:
            self._cache = _read_cache()
        return self._cache.get(name, [])


def _own_directories(elf: Elf, origin: str) -> list[str]:
    """What the file itself says; RUNPATH switches RPATH off."""
    directories = elf.runpath or elf.rpath
    return [path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin) for path in directories]


def _machine_of(path: str) -> tuple[int, int] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        elf = read_elf(fd)
    finally:
        os.close(fd)
    return elf.machine if elf else None


def _read_cache() -> dict[str, list[str]]:
    """``ldconfig -p``: name -> paths, best first; empty where there is no such cache (musl)."""
    try:
        text = os.fsdecode(run(("ldconfig", "-p")))
    except CloisonError:
        return {}
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        left, arrow, path = line.strip().partition(" => ")
        if arrow:
            found.setdefault(left.partition(" ")[0], []).append(path)
    return found
