"""Archives that want out, lie or explode: every trick crossed with every kind of member.

A case is (what must become of it, how its bytes are made for a given directory outside). ``OUT`` in a name or in a
link's target stands for that directory, which holds a canary.
"""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import sys
import tarfile
from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

from cloison.archive.budget import Limits
from cloison.archive.pax import render_record
from unpack_fixture import Member, archive, character, file, folder, hardlink, member, symlink

REFUSED, HARMLESS = "refused", "harmless"
SMALL = Limits(total_bytes=8 << 20, ratio=50, ratio_after_bytes=1 << 20, entries=300)


class Case(NamedTuple):
    expected: str
    build: Callable[[str], bytes]
    limits: Limits = Limits()


Cases = Iterator[tuple[str, Case]]

_FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
_MAKERS: dict[str, Callable[[str], Member]] = {
    "file": file,
    "directory": lambda name: folder(name, mode=0o777, mtime=1),
    "symbolic link": lambda name: symlink(name, "OUT"),
    "hard link": lambda name: hardlink(name, "origin"),
    "device": lambda name: character(name, 1, 3),
    "fifo": lambda name: member(name, tarfile.FIFOTYPE),
}


def corpus() -> dict[str, Case]:
    """Every case by its name."""
    found: dict[str, Case] = {}
    for cases in (_names(), _links(), _hard_links(), _confusions(), _whiteouts(), _xattrs(), _headers(), _cuts(),
                  _extensions(), _sparse(), _bombs()):  # fmt: skip
        for name, case in cases:
            assert name not in found
            found[name] = case
    return found


def _members(expected: str, *members: Member, format: int = tarfile.PAX_FORMAT) -> Case:
    def build(outside: str) -> bytes:
        ready = []
        for info, data in members:
            copy = tarfile.TarInfo.frombuf(info.tobuf(tarfile.GNU_FORMAT), "utf-8", "surrogateescape")
            copy.name, copy.linkname = (text.replace("OUT", outside) for text in (info.name, info.linkname))
            copy.size, copy.pax_headers = info.size, dict(info.pax_headers)
            ready.append((copy, data))
        return archive(*ready, format=format)

    # TarInfo knows names longer than a header only until it is rendered
    if any(len(info.name) > 90 or len(info.linkname) > 90 for info, _ in members):
        return Case(expected, lambda _outside: archive(*members, format=format))
    return Case(expected, build)


def _bytes(expected: str, data: bytes, limits: Limits = SMALL) -> Case:
    return Case(expected, lambda _outside: data, limits)


# --- names


def _names() -> Cases:
    climbing = ("..", "../x", "../outside/canary", "a/../x", "a/../../outside/canary", "a/..", "./../x", "/../x",
                "//..//x", "a/./../../x", "OUT/../outside/canary")  # fmt: skip
    for name, (kind, make) in product(climbing, _MAKERS.items()):
        yield f"{kind} named {name}", _members(REFUSED, file("origin"), make(name))
    for name, (kind, make) in product(("OUT/canary", "//OUT//canary", "/./OUT/./canary", ".../x"), _MAKERS.items()):
        yield f"{kind} named {name}", _members(HARMLESS, file("origin"), make(name))
    for (kind, make), (label, name) in product(_MAKERS.items(), {
        "name of 256 bytes": "n" * 256, "path of 5000 bytes": "/".join(["d" * 99] * 50),
        "path 300 deep": "/".join(["d"] * 300),
    }.items()):  # fmt: skip
        yield f"{kind} with a {label}", _members(REFUSED, file("origin"), make(name))


# --- links, and what goes through them


def _links() -> Cases:
    targets = ("OUT", "../outside", "..", "../..", "/", "/proc/self/root", "/proc/self/cwd", "../root-sibling",
               "OUT/../outside", "//", "./../../../../../../../../..", "../root/../outside")  # fmt: skip
    for target, (kind, make) in product(targets, _MAKERS.items()):
        through = make("l/outside/canary" if target in ("..", "../..") else "l/canary")
        yield f"{kind} through a link to {target}", _members(HARMLESS, file("origin"), symlink("l", target), through)
        name = f"{kind} over a link to {target}"
        yield name, _members(HARMLESS, file("origin"), symlink("l", target), make("l"))
    for target, name in product(targets, ("l/.wh.canary", "l/.wh..wh..opq")):
        yield f"{name} through a link to {target}", _members(HARMLESS, symlink("l", target), file(name, b""))
    for length in (2, 5, 39):
        chain = [symlink(f"c{i}", f"c{i + 1}") for i in range(length)]
        name = f"chain of {length} links"
        yield name, _members(HARMLESS, *chain, symlink(f"c{length}", "OUT"), file("c0/canary"))
        yield f"ring of {length} links", _members(REFUSED, *chain, symlink(f"c{length}", "c0"), file("c0/canary"))


def _hard_links() -> Cases:
    before = (folder("d"), file("f"), symlink("l", "OUT"), file(".wh.gone", b""))
    targets = ("../outside/canary", "OUT/canary", "/", ".", "", "missing", "d", "d/", "l/canary", "gone", ".wh.gone",
               "h", "later", "..", "d/..", "d/../f", "f/x", "/proc/self/environ")  # fmt: skip
    for target, (label, format) in product(targets, _FORMATS.items()):
        members = (*before, hardlink("h", target), file("later"))
        yield f"hard link to {target!r} ({label})", _members(REFUSED, *members, format=format)
    for (kind, make), (label, format) in product(_MAKERS.items(), _FORMATS.items()):
        for name in ("h", "h/canary"):
            fits = name == "h"
            members = (file("origin"), symlink("l", "OUT/canary" if fits else "OUT"), hardlink("h", "l"), make(name))
            yield f"{kind} {name} on a hard link to a link ({label})", _members(HARMLESS, *members, format=format)


# --- one name, two kinds


def _confusions() -> Cases:
    for (first, make), (second, make_again) in product(_MAKERS.items(), repeat=2):
        members = (file("origin"), make("n"), make_again("n"))
        yield f"{first}, then {second}", _members(HARMLESS, *members)
        enters = second in ("directory", "symbolic link")
        expected = HARMLESS if enters else REFUSED
        yield f"{first}, then {second}, then a child", _members(expected, *members, file("n/canary"))
    for kind, make in _MAKERS.items():
        members = (folder("n"), folder("n/deep", mode=0o700, mtime=1), file("n/deep/f"), file("origin"))
        yield f"{kind} over a full directory", _members(HARMLESS, *members, make("n"))
        if kind != "directory":
            yield f"{kind} as the root", _members(REFUSED, file("origin"), make("./"))


def _whiteouts() -> Cases:
    names = (".wh.", ".wh..", ".wh...", ".wh..wh.", ".wh..wh.x", ".wh..wh.aufs", ".wh..wh.plnk", ".wh..wh..opq.x")
    for name, parent in product(names, ("", "d/", "l/")):
        yield f"whiteout {parent}{name}", _members(REFUSED, folder("d"), symlink("l", "OUT"), file(parent + name, b""))
    for name, (kind, make) in product((".wh.x", ".wh..wh..opq", "d/.wh.canary"), _MAKERS.items()):
        # a file that is empty is what a whiteout is; some writers link one to the next
        expected = HARMLESS if kind == "hard link" else REFUSED
        yield f"{kind} named {name}", _members(expected, file("origin"), make(name))
        if kind != "hard link":
            yield f"{kind} below {name}", _members(REFUSED, file("origin"), make(f"{name}/x"))
    for (label, format), name in product(_FORMATS.items(), ("w", "d/w", ".wh.w")):
        yield f"device 0:0 named {name} ({label})", _members(REFUSED, character(name, 0, 0), format=format)


_FOREIGN = (
    "user.overlay.opaque",
    "user.overlay.redirect",
    "user.overlay.whiteout",
    "trusted.overlay.opaque",
    "trusted.overlay.redirect",
    "trusted.overlay.metacopy",
    "trusted.overlay.origin",
    "trusted.x",
    "security.selinux",
    "security.ima",
    "security.evm",
    "security.apparmor",
    "system.posix_acl_access",
    "odd",
)


def _xattrs() -> Cases:
    for name, (kind, make) in product(_FOREIGN, (("file", file), ("directory", folder))):
        headers = {f"SCHILY.xattr.{name}": "y"}
        yield f"{kind} with the attribute {name}", _members(HARMLESS, make("x", pax_headers=headers))
    for label, name, value in (("huge value", "user.x", "v" * 70_000), ("NUL in its name", "user.\0x", "v")):
        yield f"attribute with a {label}", _members(REFUSED, file("x", pax_headers={f"SCHILY.xattr.{name}": value}))


# --- headers that lie


def block(**changes: bytes) -> bytes:
    """A header with raw fields replaced, and its checksum made right again."""
    places = {
        "name": 0,
        "mode": 100,
        "uid": 108,
        "gid": 116,
        "size": 124,
        "mtime": 136,
        "type": 156,
        "link": 157,
        "magic": 257,
        "major": 329,
        "minor": 337,
        "prefix": 345,
        "map": 386,
        "extended": 482,
        "real": 483,
    }
    raw = bytearray(archive(member("x"), format=tarfile.USTAR_FORMAT)[:512])
    for field, value in changes.items():
        raw[places[field] : places[field] + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def _octal(number: int) -> bytes:
    return b"%011o\0" % number


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


_END = bytes(1024)


def _headers() -> Cases:
    numbers = {"negative": b"\xff" * 8, "signed": b"-0000001", "not octal": b"0000008\0", "hexadecimal": b"0x00010\0",
               "underscored": b"0_00_01\0", "split": b"00 0001\0"}  # fmt: skip
    for (label, value), field in product(numbers.items(), ("mode", "uid", "gid", "size", "mtime")):
        wide = value + value[:4] if field in ("size", "mtime") else value
        if field == "mtime" and label == "negative":
            continue  # before 1970
        yield f"{field} that is {label}", _bytes(REFUSED, block(**{field: wide}) + _END)
    for code in b"89ABCDEFGHIJMNOPQRTUVWXYZabcz\x01\x7f\x80\xff":
        yield f"member of type {code:#x}", _bytes(REFUSED, block(type=bytes([code])) + _END)
    for kind in b"123456":
        data = block(type=bytes([kind]), link=b"f", size=_octal(512)) + bytes(512) + _END
        yield f"content in a member of type {chr(kind)}", _bytes(REFUSED, data)
    for label, size in (("exabyte", b"\x80\0\0\0\x10" + bytes(7)), ("terabyte", _octal(0o17777777777777 >> 6))):
        yield f"file of an {label} that is not there", _bytes(REFUSED, block(size=size) + _END)
    for label, owner in (("uid", {"uid": b"\x80\0\0\0\xff\xff\xff\xff"}), ("gid", {"gid": b"\x80\0\0\1" + bytes(4)})):
        yield f"{label} that chown takes for another", _bytes(REFUSED, block(**owner) + _END)
    wrong = bytearray(block())
    wrong[148] ^= 1
    yield "wrong checksum", _bytes(REFUSED, bytes(wrong) + _END)
    moved = bytearray(block())
    moved[0] += 1
    yield "byte changed after the checksum", _bytes(REFUSED, bytes(moved) + _END)
    yield "empty name", _bytes(REFUSED, block(name=b"\0") + _END)
    yield "prefix that climbs", _bytes(REFUSED, block(prefix=b"..") + _END)
    yield "absolute prefix", _bytes(HARMLESS, block(prefix=b"/etc") + _END)
    yield "lone block of zeros", _bytes(REFUSED, block() + bytes(512) + block() + _END)
    yield "members after the end", _bytes(HARMLESS, block() + _END + block(name=b"../x") + _END)
    yield "no end", _bytes(HARMLESS, block())
    yield "nothing at all", _bytes(HARMLESS, b"")


def _cuts() -> Cases:
    """An archive with a header, 700 bytes of content, an extended header: cut anywhere but between two members."""
    whole = archive(file("one", b"x" * 700), file("two", b"y" * 700, pax_headers={"comment": "z"}))
    for cut in (1, 100, 300, 511, 513, 700, 1024, 1200, 1212, 1535, 1537, 1900, 2048, 2300, 2560, 2600, 3071, 3073,
                3500, 3584, 3800):  # fmt: skip
        yield f"cut after {cut} bytes", _bytes(REFUSED, whole[:cut])
        yield f"cut after {cut} bytes and packed", _bytes(REFUSED, gzip.compress(whole[:cut]))
    for kind, pack in PACKERS.items():
        packed = pack(whole)
        for cut in (7, len(packed) // 2, len(packed) - 1):
            yield f"{kind} cut after {cut} bytes", _bytes(REFUSED, packed[:cut])


# --- extended headers


def _pax(data: bytes, *, kind: bytes = b"x", then: bytes = b"") -> bytes:
    return block(type=kind, size=_octal(len(data))) + _padded(data) + (then or block()) + _END


def _extensions() -> Cases:
    malformed = (
        b"x a=b\n",
        b"6 a=b",
        b"06 a=b\n",
        b"99 a=b\n",
        b"6 a=b\n6",
        b"0 \n",
        b"-1 a=b\n",
        b"6 ab\n\n",
        b"5 =b\n",
        b"99999999999999999999 a=b\n",
        b"+6 a=b\n",
        b"6\ta=b\n",
        b" 6 a=b\n",
    )
    for data in malformed:
        yield f"extended header {data!r}", _bytes(REFUSED, _pax(data))
    records = {
        b"path": (b"../x", b"a/../../x", b"x\0y", b"d" * 5000),
        b"size": (b"-1", b"1e3", b"0x10", b"9" * 19, b"9" * 30, b" 1"),
        b"uid": (b"-1", b"4294967295", b"4294967296", b"1_0", "٣".encode()),
        b"gid": (b"-1", b"4294967295", b"+1"),
        b"mtime": (b"nan", b"inf", b"1e9", b"--1", b"1.2.3", b"."),
        b"linkpath": (b"x\0y", b"l" * 5000),
    }
    for key, values in records.items():
        for value in values:
            shown = value[:20].decode("latin-1")
            data = _pax(render_record(key, value))
            yield f"extended header that sets {key.decode()} to {shown!r} ({len(value)})", _bytes(REFUSED, data)
    for key in (b"path", b"linkpath", b"size", b"GNU.sparse.major", b"SCHILY.xattr.user.x"):
        yield f"global header that sets {key.decode()}", _bytes(REFUSED, _pax(render_record(key, b"1"), kind=b"g"))
    comment = render_record(b"comment", b"x")
    yield "two extended headers", _bytes(REFUSED, _pax(comment, then=_pax(comment)[:-1024]))
    for kind in (b"x", b"L", b"K", b"g"):
        name = kind.decode()
        yield f"extension {name} of a gigabyte", _bytes(REFUSED, block(type=kind, size=_octal(1 << 30)) + _END)
        yield f"extension {name} that is cut", _bytes(REFUSED, block(type=kind, size=_octal(700)) + bytes(512))
    for kind in (b"x", b"L", b"K"):
        data = comment if kind == b"x" else b"name\0"
        yield f"extension {kind.decode()} of nothing", _bytes(REFUSED, _pax(data, kind=kind, then=_END))
    for kind, data in product((b"L", b"K"), (b"", b"\0", b"a\0b", b"../x\0", b"n" * 5000)):
        if kind == b"K" and data == b"../x\0":
            continue  # nobody asks where a file's link goes
        yield f"long name {kind.decode()} {data[:8]!r} ({len(data)})", _bytes(REFUSED, _pax(data, kind=kind))
    long = block(type=b"L", size=_octal(4)) + _padded(b"one\0")
    yield "two names for one member", _bytes(REFUSED, long + _pax(render_record(b"path", b"two")))
    hidden = archive(file("smuggled"))[:1024]
    data = _pax(render_record(b"size", b"%d" % len(hidden)), then=block(size=_octal(0)) + hidden)
    yield "archive hidden by two sizes", _bytes(HARMLESS, data)


def _sparse() -> Cases:
    maps = {
        "overlap": b"0,10,5,10",
        "an end beyond the file": b"95,10",
        "more than is stored": b"0,11",
        "no length": b"0,10,20",
        "a negative length": b"0,-10",
        "descending extents": b"50,5,0,5",
        "words": b"a,b",
        "too many extents": b",".join([b"0,0"] * 70_000),
    }
    for label, extents in maps.items():
        pax = render_record(b"GNU.sparse.size", b"100") + render_record(b"GNU.sparse.map", extents)
        content = block(size=_octal(10)) + _padded(b"0123456789")
        yield f"sparse map with {label}", _bytes(REFUSED, _pax(pax, then=content))
        version = b"".join(
            render_record(b"GNU.sparse." + key, value)
            for key, value in ((b"major", b"1"), (b"minor", b"0"), (b"realsize", b"100"))
        )
        numbers = extents.split(b",")
        lines = b"\n".join([b"%d" % (len(numbers) // 2), *numbers, b""])
        stored = _padded(lines) + b"0123456789"
        content = block(size=_octal(len(stored))) + _padded(stored)
        yield f"sparse map 1.0 with {label}", _bytes(REFUSED, _pax(version, then=content))
    for label, size in (
        ("no size", b""),
        ("a size beyond all", b"9" * 19),
        ("a size of an exabyte", b"%d" % (1 << 60)),
    ):
        pax = render_record(b"GNU.sparse.map", b"0,10") + (render_record(b"GNU.sparse.size", size) if size else b"")
        yield f"sparse file with {label}", _bytes(REFUSED, _pax(pax, then=block(size=_octal(10)) + bytes(512)))
    old = {
        "overlap": (_octal(0) + _octal(10) + _octal(5) + _octal(10), _octal(100), 20),
        "an end beyond the file": (_octal(95) + _octal(10), _octal(100), 10),
        "more than is stored": (_octal(0) + _octal(100), _octal(100), 10),
        "a negative offset": (b"\xff" * 12 + _octal(10), _octal(100), 10),
        "a size of an exabyte": (_octal(0) + _octal(10), b"\x80\0\0\0\x10" + bytes(7), 10),
    }  # fmt: skip
    for label, (extents, real, size) in old.items():
        data = block(type=b"S", magic=b"ustar  \0", map=extents, real=real, size=_octal(size)) + bytes(512) + _END
        yield f"old sparse file with {label}", _bytes(REFUSED, data)
    endless = (
        block(type=b"S", magic=b"ustar  \0", extended=b"\1", size=_octal(0)) + (bytes(504) + b"\1" + bytes(7)) * 4000
    )
    yield "old sparse map without end", _bytes(REFUSED, endless)


# --- bombs, each with small bounds so that it is small itself

_zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "zstd": _zstd.compress, "xz": lzma.compress, "bzip2": bz2.compress,
}  # fmt: skip


def _bombs() -> Cases:
    zeros = archive(file("zeros", bytes(6 << 20)))
    for kind, pack in PACKERS.items():
        yield f"{kind} of zeros", _bytes(REFUSED, pack(zeros))
        members = b"".join([pack(zeros[: 1 << 18])] * 40)
        yield f"many {kind} members of zeros", _bytes(REFUSED, members)
        yield f"{kind} within {kind}", _bytes(REFUSED, pack(pack(zeros)))
        yield f"zeros after the end, {kind}", _bytes(REFUSED, pack(archive(file("x")) + bytes(6 << 20)))
    yield "too many bytes", _bytes(REFUSED, archive(file("large", bytes(9 << 20))))
    for kind, make in _MAKERS.items():
        if kind != "hard link":
            yield f"too many of kind {kind}", _bytes(REFUSED, archive(*(make(f"n{i}") for i in range(301))))
    headers = [_pax(render_record(b"comment", b"x"), kind=b"g", then=block())[:-1536] for _ in range(301)]
    yield "too many global headers", _bytes(REFUSED, b"".join(headers) + block() + _END)
