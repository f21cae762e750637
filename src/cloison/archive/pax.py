"""PAX extended headers: ``"<length> <key>=<value>\\n"`` records, and what they change in the member that follows.

Sources: POSIX pax(1), "pax Extended Header"; GNU tar manual, "Storing Sparse Files" for the three GNU.sparse formats.
"""

from __future__ import annotations

from cloison.archive.budget import bad_archive, shown
from cloison.archive.headers import MAX_ID, NS, clamp_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloison.archive.headers import Entry

_DIGITS = b"0123456789"
_XATTR = b"SCHILY.xattr."
_SPARSE = b"GNU.sparse."
# these say where a member lies or what it is: for all members at once they have no sane meaning, and readers differ
_NEVER_GLOBAL = (b"path", b"linkpath", b"size")
_GLOBAL = (b"uid", b"gid", b"mtime")

Records = list[tuple[bytes, bytes]]


def parse_records(data: bytes) -> Records:
    """The records in order; a key may come again, the last one counts. Raises: InvalidArgument for any deviation."""
    records: Records = []
    position = 0
    while position < len(data):
        blank = data.find(b" ", position, position + 20)
        digits = data[position:blank] if blank > 0 else b""
        if not digits or digits.strip(_DIGITS) or digits[:1] == b"0":
            raise bad_archive("malformed extended header (length)")
        end = position + int(digits)
        record = data[blank + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(data) or end <= blank + 1 or record[-1:] != b"\n" or not equals or not key:
            raise bad_archive("malformed extended header (record)")
        records.append((key, value))
        position = end
    return records


def check_global(records: Records) -> Records:
    """The records of a global header that matter here.

    Raises: InvalidArgument for one that cannot be meant for all members.
    """
    for key, _value in records:
        if key in _NEVER_GLOBAL or key.startswith((_SPARSE, _XATTR)):
            raise bad_archive(f"global extended header sets {shown(key)}")
    return [(key, value) for key, value in records if key in _GLOBAL]


def apply_records(entry: Entry, records: Records) -> dict[bytes, bytes]:
    """Change what the header block said. Returns the GNU.sparse records, offsets and lengths of format 0.0 as a map.

    An empty value takes a record back (POSIX). Raises: InvalidArgument.
    """
    sparse: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    for key, value in records:
        if key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.numbytes") != bool(len(pieces) % 2):
                raise bad_archive("sparse map with an offset but no length")
            pieces.append(value)
        elif key.startswith(_SPARSE):
            sparse[key[len(_SPARSE) :]] = value
        elif value:
            _apply_one(entry, key=key, value=value)
    if pieces:
        sparse[b"map"] = b",".join(pieces)
    return sparse


def _apply_one(entry: Entry, *, key: bytes, value: bytes) -> None:
    if key == b"path":
        entry.name = _text(value)
    elif key == b"linkpath":
        entry.link = _text(value)
    elif key == b"size":
        entry.size = parse_decimal(value)
    elif key == b"uid":
        entry.uid = parse_decimal(value)
    elif key == b"gid":
        entry.gid = parse_decimal(value)
    elif key == b"mtime":
        entry.mtime_ns = _parse_time(value)


def _text(value: bytes) -> bytes:
    if b"\0" in value:
        raise bad_archive("a name in an extended header holds a NUL")
    return value


def parse_decimal(value: bytes, *, limit: int = (1 << 63) - 1) -> int:
    """Digits alone. Raises: InvalidArgument."""
    if not value or value.strip(_DIGITS) or len(value) > 20 or int(value) > limit:
        raise bad_archive(f"{shown(value)} is not a number in range")
    return int(value)


def _parse_time(value: bytes) -> int:
    """Seconds with a fraction, as nanoseconds; digits beyond are cut. Binary floating point would not keep them."""
    negative = value.startswith(b"-")
    whole, dot, fraction = value.removeprefix(b"-").partition(b".")
    if not whole or whole.strip(_DIGITS) or fraction.strip(_DIGITS) or len(value) > 64:
        raise bad_archive(f"{shown(value)} is not a time")
    nanoseconds = int((fraction[:9] if dot else b"").ljust(9, b"0"))
    seconds = clamp_seconds(-int(whole) if negative else int(whole))
    return seconds * NS + (-nanoseconds if negative else nanoseconds)


def check_owner(entry: Entry) -> None:
    """Raises: InvalidArgument when chown would not take the owner as a number."""
    if entry.uid > MAX_ID or entry.gid > MAX_ID:
        raise bad_archive(f"owner of {shown(entry.name)} is out of range")


def sparse_version(sparse: Mapping[bytes, bytes]) -> tuple[int, int]:
    """(0, 0) also stands for 0.1: the map's records tell them apart, and here both are a map."""
    major = parse_decimal(sparse.get(b"major", b"0"))
    minor = parse_decimal(sparse.get(b"minor", b"0"))
    if (major, minor) not in ((0, 0), (0, 1), (1, 0)):
        raise bad_archive(f"sparse format {major}.{minor} is not known")
    return major, minor


def render_record(key: bytes, value: bytes) -> bytes:
    """One record; its length counts its own digits."""
    size = len(key) + len(value) + 3
    total = size + len(str(size))
    if len(str(total)) > len(str(size)):
        total = size + len(str(total))
    return b"%d %s=%s\n" % (total, key, value)
