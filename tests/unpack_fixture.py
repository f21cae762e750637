"""Archives for the tests of unpacking: members as raw as a hostile writer makes them, and trees compared as data."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison.archive.budget import Limits
from cloison.archive.unpack import Applied, apply_layer

Member = tuple[tarfile.TarInfo, bytes]

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, version 2


def member(name: str, kind: bytes = tarfile.REGTYPE, *, data: bytes = b"", link: str = "", **fields: object) -> Member:
    """One member; ``fields`` are TarInfo's (mode, uid, mtime, devmajor, pax_headers, …)."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mtime = kind, link, len(data), 1_700_000_000
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def file(name: str, data: bytes = b"data", **fields: object) -> Member:
    return member(name, data=data, **fields)


def folder(name: str, **fields: object) -> Member:
    return member(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> Member:
    return member(name, tarfile.SYMTYPE, link=target)


def hardlink(name: str, target: str) -> Member:
    return member(name, tarfile.LNKTYPE, link=target)


def character(name: str, major: int, minor: int) -> Member:
    return member(name, tarfile.CHRTYPE, devmajor=major, devminor=minor)


def archive(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, errors="surrogateescape") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def unpack(data: bytes, root: Path, limits: Limits | None = None) -> Applied:
    root.mkdir(exist_ok=True)
    with opened(root) as fd:
        return apply_layer(io.BytesIO(data), root_fd=fd, limits=limits or Limits())


def describe(root: Path, *, times: bool = True) -> dict[str, tuple[object, ...]]:
    """Everything a user can see of a tree, by relative path; hard links carry the first name of their file."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for folder_path, directories, files in os.walk(os.fsencode(root)):
        directories.sort()
        for raw in sorted([*directories, *files, *((b".",) if folder_path == os.fsencode(root) else ())]):
            path = os.path.join(folder_path, raw)
            name = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            found[name] = _describe_one(path, name, first=first, times=times)
    return found


def _describe_one(path: bytes, name: str, *, first: dict[int, str], times: bool) -> tuple[object, ...]:
    info = os.lstat(path)
    mode = info.st_mode
    content: object = ""
    if stat.S_ISREG(mode):
        content = (hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest(), info.st_size)
    elif stat.S_ISLNK(mode):
        content = os.readlink(path)
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        content = info.st_rdev
    xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
    same = "" if stat.S_ISDIR(mode) else first.setdefault(info.st_ino, name)
    return (oct(mode), info.st_uid, info.st_gid, info.st_mtime_ns if times else 0, content, tuple(xattrs.items()), same)


def is_whiteout(path: Path) -> bool:
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)
