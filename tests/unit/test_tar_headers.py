"""The tar reader against Python's tarfile as a writer, and against random bytes."""

from __future__ import annotations

import hashlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloison.archive.budget import Limits
from cloison.archive.headers import parse_header, parse_number
from cloison.archive.pax import parse_records, render_record
from cloison.archive.read_ahead import ReadAhead
from cloison.archive.reader import TarReader
from cloison.archive.writer import TarWriter, new_entry
from cloison.errors import InvalidArgument


def listing(data: bytes, limits: Limits | None = None) -> list[tuple[bytes, bytes, bytes]]:
    """(name, kind, content) of each member."""
    reader = TarReader(io.BytesIO(data), limits=limits or Limits())
    return [(entry.name, entry.kind, b"".join(map(bytes, reader.pieces()))) for entry in reader]


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive(*members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def header(**changes: bytes) -> bytes:
    """A valid header block with raw fields replaced and its checksum made right again."""
    places = {"name": 0, "mode": 100, "uid": 108, "size": 124, "mtime": 136, "type": 156, "link": 157, "magic": 257}
    block = bytearray(archive(member("x"))[:512])
    for field, value in changes.items():
        block[places[field] : places[field] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=120)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=2000), st.integers(0, 1 << 40), st.integers(0, 1 << 22)), max_size=5),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_what_tarfile_writes_is_read_back(members: list[tuple[str, bytes, int, int]], format: int) -> None:
    data = archive(*(member(name, content, mtime=when, uid=uid) for name, content, when, uid in members), format=format)
    reader = TarReader(io.BytesIO(data))
    found = [(e.name, b"".join(map(bytes, reader.pieces())), e.uid) for e in reader]
    assert found == [(name.encode(), content, uid) for name, content, _, uid in members]
    assert reader.total_bytes == len(data)


@settings(max_examples=60)
@given(
    st.binary(min_size=1, max_size=400).filter(lambda name: b"\0" not in name and not name.endswith(b"/")),
    st.binary(max_size=700), st.integers(-(10**18), 10**19), st.integers(0, (1 << 32) - 2), st.binary(max_size=50),
)  # fmt: skip
def test_what_we_write_is_read_back_the_same(name: bytes, data: bytes, mtime_ns: int, uid: int, value: bytes) -> None:
    buffer = io.BytesIO()
    writer = TarWriter(buffer)
    entry = new_entry(name, b"0", mode=0o4755, uid=uid, gid=uid, mtime_ns=mtime_ns)
    entry.xattrs = {b"user.x": value}
    writer.add(entry, data=data)
    writer.finish()
    reader = TarReader(io.BytesIO(buffer.getvalue()))
    found = next(iter(reader))
    assert (found.name, found.mode, found.uid, found.gid) == (name, 0o4755, uid, uid)
    assert found.xattrs == {b"user.x": value}
    assert b"".join(map(bytes, reader.pieces())) == data
    if -(1 << 31) <= mtime_ns // 10**9 < (1 << 34) - 1:
        assert found.mtime_ns == mtime_ns


@given(st.binary(min_size=512, max_size=512))
def test_random_blocks_are_refused_with_an_error_for_people(block: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_header(block)


@settings(max_examples=300)
@given(
    st.integers(0, 511), st.binary(min_size=1, max_size=12), st.sampled_from([b"0", b"S", b"x", b"L", b"g", b"1", b"5"])
)
def test_a_header_with_random_fields_is_read_or_refused_but_never_crashes(place: int, junk: bytes, kind: bytes) -> None:
    block = bytearray(header(type=kind))
    block[place : place + len(junk)] = junk
    block = block[:512]
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    try:
        listing(bytes(block) + bytes(4096))
    except InvalidArgument:
        pass


@given(st.binary(max_size=300))
def test_random_pax_records_are_refused_or_render_back_to_themselves(data: bytes) -> None:
    try:
        records = parse_records(data)
    except InvalidArgument:
        return
    assert b"".join(render_record(key, value) for key, value in records) == data


@given(st.binary(min_size=1, max_size=20).filter(lambda key: b"=" not in key), st.binary(max_size=1200))
def test_a_rendered_pax_record_is_parsed_back(key: bytes, value: bytes) -> None:
    assert parse_records(render_record(key, value)) == [(key, value)]


@pytest.mark.parametrize(
    "data",
    [b"4 a=\n", b"x a=b\n", b"6 a=b", b"06 a=b\n", b"99 a=b\n", b"6 a=b\n6", b"0 \n", b"-1 a=b\n", b"6 ab\n\n",
     b"5 =b\n", b"99999999999999999999 a=b\n"],
)  # fmt: skip
def test_a_malformed_pax_record_is_a_hard_error(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_records(data)


@pytest.mark.parametrize(
    ("field", "number"),
    [(b"0000644\0", 0o644), (b"   644 \0", 0o644), (b"644\0junk", 0o644), (b"\0" * 8, 0), (b"        ", 0),
     (b"\x80\0\0\0\0\0\1\0", 256)],
)  # fmt: skip
def test_numbers_are_octal_or_base_256(field: bytes, number: int) -> None:
    assert parse_number(field) == number


@pytest.mark.parametrize("field", [b"0o7\0\0\0\0\0", b"-7\0\0\0\0\0\0", b"+7\0\0\0\0\0\0", b"1_0\0\0\0\0\0",
                                   b"1 2\0\0\0\0\0", b"9\0\0\0\0\0\0\0", b"\xff" * 8, b"\xc0" + b"\0" * 7])  # fmt: skip
def test_what_is_no_octal_number_or_is_negative_is_refused(field: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_number(field)


def test_a_pax_size_wins_over_the_header_for_the_next_headers_place() -> None:
    inner = archive(member("smuggled", b"evil"))[:1024]
    pax = render_record(b"size", b"%d" % len(inner))
    hidden = header(type=b"x", size=b"%011o\0" % len(pax)) + pax.ljust(512, b"\0")
    data = hidden + header(name=b"outer", size=b"00000000000\0") + inner + archive(member("last"))
    assert [name for name, _, _ in listing(data)] == [b"outer", b"last"]


def test_gnu_and_pax_names_that_differ_for_one_member_are_refused() -> None:
    pax = render_record(b"path", b"two")
    data = header(type=b"L", size=b"00000000004\0") + b"one\0".ljust(512, b"\0")
    data += header(type=b"x", size=b"%011o\0" % len(pax)) + pax.ljust(512, b"\0") + header() + bytes(1024)
    with pytest.raises(InvalidArgument, match="two different names"):
        listing(data)


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"size", b"GNU.sparse.major", b"SCHILY.xattr.user.x"])
def test_a_global_header_may_not_say_what_one_member_is(key: bytes) -> None:
    pax = render_record(key, b"1")
    data = header(type=b"g", size=b"%011o\0" % len(pax)) + pax.ljust(512, b"\0") + header() + bytes(1024)
    with pytest.raises(InvalidArgument, match="global"):
        listing(data)


def test_a_harmless_global_header_passes() -> None:
    pax = render_record(b"comment", b"a commit")
    data = header(type=b"g", size=b"%011o\0" % len(pax)) + pax.ljust(512, b"\0") + header() + bytes(1024)
    assert len(listing(data)) == 1


@pytest.mark.parametrize(
    "data",
    [
        header(size=b"00000001000\0"),  # content missing
        header()[:100],
        header() + bytes(512) + header(),  # lone zero block
        header(type=b"x", size=b"00000000000\0"),  # nothing after an extension
        header(type=b"L", size=b"00000000000\0") + bytes(1024),
        header(type=b"M"), header(type=b"V"), header(type=b"\xff"),
        header(type=b"5", size=b"00000001000\0") + bytes(2048),
        header(type=b"1", size=b"00000000001\0") + bytes(2048),
        header(name=b"\0"),
        header(name=b"d/", size=b"00000000001\0") + bytes(1536),
        header(type=b"x", size=b"00000000007\0") + b"7 a=b\0\n".ljust(512, b"\0") * 2,
        header(type=b"x", size=b"77777777777\0") + bytes(1024),
        header(uid=b"\x80\0\0\0\xff\xff\xff\xff"),  # chown would take it for "leave the owner"
    ],
)  # fmt: skip
def test_a_damaged_or_ambiguous_archive_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        listing(data)


def test_what_follows_the_end_is_ignored_but_digested() -> None:
    data = archive(member("a")) + archive(member("b"))
    ahead = ReadAhead(io.BytesIO(data))
    assert [entry.name for entry in TarReader(ahead)] == [b"a"]
    assert ahead.digest() == "sha256:" + hashlib.sha256(data).hexdigest()


def test_the_number_of_members_is_bounded() -> None:
    with pytest.raises(InvalidArgument, match="more than 3 members"):
        listing(archive(*(member(str(i)) for i in range(4))), Limits(entries=3))
    assert len(listing(archive(*(member(str(i)) for i in range(3))), Limits(entries=3))) == 3


def test_the_size_of_the_stream_is_bounded() -> None:
    with pytest.raises(InvalidArgument, match="more than 20000 bytes"):
        listing(archive(member("a", bytes(30_000))), Limits(total_bytes=20_000))


SPARSE_10 = b"1\n0\n10\n"


@pytest.mark.parametrize(
    "records",
    [
        {b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,10,5,10"},  # overlap
        {b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"95,10"},  # beyond the end
        {b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,11"},  # not what is stored
        {b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,10,20"},
        {b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,-10"},
        {b"GNU.sparse.size": b"99999999999999999999", b"GNU.sparse.map": b"0,10"},
        {b"GNU.sparse.size": b"9223372036854775807", b"GNU.sparse.map": b"0,10"},
        {b"GNU.sparse.map": b"0,10"},
        {b"GNU.sparse.size": b"100", b"GNU.sparse.map": b"0,10", b"GNU.sparse.numblocks": b"2"},
        {b"GNU.sparse.numbytes": b"10", b"GNU.sparse.size": b"10"},
        {b"GNU.sparse.major": b"2", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"10"},
        {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.realsize": b"10"},
        {b"GNU.sparse.size": b"100", b"GNU.sparse.map": b",".join([b"0,0"] * 70_000)},
    ],
)
def test_a_sparse_map_that_is_wrong_is_refused(records: dict[bytes, bytes]) -> None:
    pax = b"".join(render_record(key, value) for key, value in records.items())
    data = header(type=b"x", size=b"%011o\0" % len(pax)) + pax + bytes(-len(pax) % 512)
    data += header(size=b"00000000012\0") + b"0123456789".ljust(512, b"x") + bytes(1024)
    with pytest.raises(InvalidArgument):
        listing(data)


@given(st.binary(min_size=100, max_size=100).filter(lambda name: name[0]), st.integers(-3, 3), st.booleans())
def test_a_checksum_is_the_sum_of_the_bytes_signed_or_not_and_nothing_near_it(
    name: bytes, off: int, signed: bool
) -> None:
    block = bytearray(header(name=name))
    block[345:500] = b"\xff" * 155
    block[148:156] = b" " * 8
    total = sum(block) - 256 * signed * sum(byte > 127 for byte in block)
    block[148:156] = b"%06o\0 " % (max(total + off, 0))
    if off == 0 and total > 0:
        assert parse_header(bytes(block)).name.startswith(b"\xff")
    else:
        with pytest.raises(InvalidArgument, match="checksum"):
            parse_header(bytes(block))
