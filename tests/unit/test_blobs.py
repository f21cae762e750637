"""A blob is visible when it is whole and right, and at no moment before."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from cloison.errors import InvalidArgument, NotFound, Unavailable
from cloison.store.blobs import Blobs


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path))


def files(blobs: Blobs) -> list[str]:
    return [name for _, _, names in os.walk(blobs.root) for name in names]


def test_a_blob_is_invisible_until_the_last_byte_was_verified(blobs: Blobs) -> None:
    digest = digest_of(b"hello")
    with blobs.writer(digest, 5) as out:
        out.write(b"hello")
        assert not blobs.has(digest)
    assert blobs.has(digest)
    assert blobs.read(digest) == b"hello"
    assert list(blobs.list()) == [digest]
    assert blobs.size(digest) == 5


@pytest.mark.parametrize(
    ("content", "size"),
    [(b"hellO", 5), (b"hell", 5), (b"hello!", 5), (b"hello", 4), (b"hello", 6), (b"", 5), (b"x", -1)],
)
def test_wrong_bytes_or_a_wrong_size_leave_nothing(blobs: Blobs, content: bytes, size: int) -> None:
    with pytest.raises(InvalidArgument, match="does not match"), blobs.writer(digest_of(b"hello"), size) as out:
        out.write(content)
    assert files(blobs) == []


def test_a_failure_while_writing_leaves_nothing(blobs: Blobs) -> None:
    with pytest.raises(ZeroDivisionError), blobs.writer(digest_of(b"hello"), 5) as out:
        out.write(b"hel")
        raise ZeroDivisionError
    assert files(blobs) == []


def test_a_writer_that_begins_anew_forgets_what_it_had(blobs: Blobs) -> None:
    digest = digest_of(b"hello")
    with blobs.writer(digest, 5) as out:
        out.write(b"xxxx")
        out.restart()
        out.write(b"hello")
    assert blobs.read(digest) == b"hello"


def test_a_collector_names_what_it_collected(blobs: Blobs) -> None:
    with blobs.collector() as first:
        first.write(b"abc")
    with blobs.collector() as second:
        second.write(b"abc")
    assert first.digest == second.digest == digest_of(b"abc")
    assert list(blobs.list()) == [first.digest]


def test_two_writers_of_one_blob_both_succeed(blobs: Blobs) -> None:
    data = os.urandom(1 << 20)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with blobs.writer(digest_of(data), len(data)) as out:
                for start in range(0, len(data), 4096):
                    out.write(data[start : start + 4096])
        except BaseException as err:
            failures.append(err)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert blobs.read(digest_of(data)) == data
    assert len(files(blobs)) == 1


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "md5:" + "0" * 32, "sha256:" + "AB" * 32, ""])
def test_a_malformed_digest_never_becomes_a_path(blobs: Blobs, digest: str) -> None:
    for use in (blobs.path, blobs.has, blobs.open, blobs.remove, blobs.writer):
        with pytest.raises(InvalidArgument):
            use(digest)


def test_a_missing_a_large_and_a_damaged_blob_are_told_apart(blobs: Blobs) -> None:
    with pytest.raises(NotFound):
        blobs.read(digest_of(b"x"))
    digest = blobs.add_bytes(b"x" * 100)
    with pytest.raises(InvalidArgument, match="too large"):
        blobs.read(digest, 99)
    os.chmod(blobs.path(digest), 0o600)
    Path(blobs.path(digest)).write_bytes(b"y" * 100)
    with pytest.raises(Unavailable, match="damaged"):
        blobs.read(digest)


def test_a_sweep_takes_what_the_dead_left_and_nothing_of_the_living(blobs: Blobs) -> None:
    with blobs.writer(digest_of(b"hello"), 5) as out:
        abandoned = Path(blobs.root, "incoming", "1-dead")
        abandoned.write_bytes(b"half")
        assert blobs.sweep(partials_before_s=0) == 1
        assert not abandoned.exists()
        out.write(b"hello")
    assert blobs.has(digest_of(b"hello"))


def test_blobs_are_read_only_files_in_private_directories(blobs: Blobs) -> None:
    digest = blobs.add_bytes(b"x")
    assert os.stat(blobs.path(digest)).st_mode & 0o777 == 0o444
    assert os.stat(os.path.dirname(blobs.path(digest))).st_mode & 0o777 == 0o700


# --- damage


def damage(blobs: Blobs, digest: str) -> None:
    """Other bytes of the same number, as a failing disk has them."""
    path = Path(blobs.path(digest))
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_blob_is_removed_once_it_is_noticed(blobs: Blobs) -> None:
    for notice in (blobs.read, blobs.check):
        digest = blobs.add_bytes(b"hello")
        blobs.check(digest)
        damage(blobs, digest)
        with pytest.raises(Unavailable, match="damaged on disk"):
            notice(digest)
        assert not blobs.has(digest)
        with pytest.raises(NotFound):
            notice(digest)


def test_adding_bytes_mends_the_blob_that_should_have_them(blobs: Blobs) -> None:
    digest = blobs.add_bytes(b"hello")
    damage(blobs, digest)
    assert blobs.add_bytes(b"hello") == digest
    assert blobs.read(digest) == b"hello"
    with pytest.raises(InvalidArgument, match="does not match"):
        blobs.add_bytes(b"other", digest=digest)
