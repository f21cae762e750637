"""Control group trees as plain directories: what the kernel does on mkdir and rmdir, done by hand.

A directory gets its control files when it is made, and is removed with them; a group with groups below or with
processes in it is busy. No limit is enforced: these trees show which words go where.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cloison.linux.cgroup_layout import Layout, parse_layout

V1_FILES = {
    "cpu": ("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"),
    "cpuacct": ("cpuacct.usage",),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes",
               "memory.oom_control", "memory.max_usage_in_bytes"),
    "devices": ("devices.allow", "devices.deny"),
    "freezer": ("freezer.state",),
    "blkio": ("blkio.bfq.weight", "blkio.throttle.read_bps_device"),
    "pids": ("pids.max",),
}  # fmt: skip
V2_FILES = {
    "cpu": ("cpu.max", "cpu.weight"),
    "io": ("io.max", "io.weight"),
    "memory": ("memory.max", "memory.swap.max", "memory.oom.group", "memory.low", "memory.events", "memory.peak"),
    "pids": ("pids.max",),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "hugetlb": ("hugetlb.2MB.max",),
}
V2_CORE = (
    "cgroup.procs",
    "cgroup.subtree_control",
    "cgroup.controllers",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.events",
)


class FakeTrees:
    """Version 1 hierarchies, a version 2 tree, or both below ``top``."""

    def __init__(self, top: Path, *, v1: tuple[str, ...] = (), v2: tuple[str, ...] | None = None) -> None:
        self.top = top
        self.v1 = {name: top / name for name in v1}  # "cpu,cpuacct" share one
        self.unified = top / "unified" if v2 is not None else None
        self.written: list[tuple[str, str]] = []
        for directory in self.v1.values():
            self._mkdir(directory)
            self._populate(directory)
        if self.unified is not None:
            self._mkdir(self.unified)
            self._populate(self.unified)
            (self.unified / "cgroup.controllers").write_text(" ".join(v2 or ()))

    def layout(self) -> Layout:
        lines = [
            f"30 20 0:{at} / {path} rw - cgroup cgroup rw,{name}" for at, (name, path) in enumerate(self.v1.items())
        ]
        if self.unified is not None:
            lines.append(f"31 20 0:99 / {self.unified} rw - cgroup2 cgroup2 rw,nsdelegate")
        table = self.top / "mountinfo"
        table.write_text("\n".join(["20 1 8:1 / / rw - ext4 /dev/sda1 rw", *lines, ""]))
        return parse_layout(str(table))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let os.mkdir and os.rmdir behave as on cgroupfs, below ``top``."""
        real_mkdir, real_rmdir, real_write = os.mkdir, os.rmdir, os.write

        def mkdir(path: str | Path, mode: int = 0o777, **keys: int) -> None:
            real_mkdir(path, mode, **keys)
            if Path(path).is_relative_to(self.top):
                self._populate(Path(path))

        def rmdir(path: str | Path, **keys: int) -> None:
            directory = Path(path)
            if directory.is_relative_to(self.top) and directory.is_dir():
                busy = any(entry.is_dir() for entry in directory.iterdir()) or self.procs(directory)
                if busy:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
                for file in directory.iterdir():
                    file.unlink()
            real_rmdir(path, **keys)

        def write(fd: int, data: bytes) -> int:
            name = os.readlink(f"/proc/self/fd/{fd}")
            if name.startswith(f"{self.top}/"):
                self._control(Path(name), data.decode())
                return len(data)
            return real_write(fd, data)

        monkeypatch.setattr(os, "mkdir", mkdir)
        monkeypatch.setattr(os, "rmdir", rmdir)
        monkeypatch.setattr(os, "write", write)

    def procs(self, directory: Path) -> str:
        file = directory / "cgroup.procs"
        return file.read_text().strip() if file.exists() else ""

    def _control(self, file: Path, value: str) -> None:
        self.written.append((str(file.relative_to(self.top)), value))
        if file.name == "cgroup.subtree_control":
            self._enable(file, value.lstrip("+"))
        elif file.name == "cgroup.kill":
            (file.parent / "cgroup.procs").write_text("")
        elif file.name == "cgroup.freeze":
            file.write_text(value)
            (file.parent / "cgroup.events").write_text(f"populated 1\nfrozen {value}\n")
        else:
            file.write_text(value)

    def _enable(self, file: Path, name: str) -> None:
        if name not in (file.parent / "cgroup.controllers").read_text().split():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
        file.write_text(f"{file.read_text()} {name}".strip())
        for child in file.parent.iterdir():
            if child.is_dir():
                self._populate(child)

    def _mkdir(self, directory: Path) -> None:
        directory.mkdir(parents=True)

    def _populate(self, directory: Path) -> None:
        """The files that the kernel shows in this directory, as far as they are not there."""
        files: list[str] = ["cgroup.procs"]
        relative = directory.relative_to(self.top).parts[0]
        if self.unified is not None and relative == "unified":
            files = list(V2_CORE)
            control = directory.parent / "cgroup.subtree_control"
            enabled = control.read_text().split() if control.exists() else []
            for name in enabled:
                files += V2_FILES.get(name, ())
            (directory / "cgroup.controllers").write_text(" ".join(enabled))
        else:
            for name in relative.split(","):
                files += V1_FILES.get(name, ())
        for file in files:
            if not (directory / file).exists():
                (directory / file).write_text("")
