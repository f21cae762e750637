"""Every hostile archive of the corpus ends as it must, soon, in little memory, and the canaries outside live."""

from __future__ import annotations

import itertools
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloison.errors import InvalidArgument
from hostile_archives import HARMLESS, REFUSED, block, corpus
from unpack_fixture import describe, unpack

pytestmark = pytest.mark.jailed

CORPUS = corpus()
OURS = ("user.", "security.capability")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Path]:
    """``world/root`` is unpacked into; everything beside it must be the same afterwards."""
    for name in ("outside", "root-sibling", "root"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "canary").write_text("alive")
    (tmp_path / "root" / "canary").unlink()
    before = describe_outside(tmp_path)
    yield tmp_path
    assert describe_outside(tmp_path) == before


def describe_outside(world: Path) -> dict[str, dict[str, tuple[object, ...]]]:
    return {path.name: describe(path) for path in sorted(world.iterdir()) if path.name != "root"}


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 400
    assert {case.expected for case in CORPUS.values()} == {REFUSED, HARMLESS}


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_archive_ends_as_it_must(world: Path, name: str) -> None:
    case = CORPUS[name]
    data = case.build(str(world / "outside"))
    root = world / "root"
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        unpack(data, root, case.limits)
        outcome = HARMLESS
    except InvalidArgument:
        outcome = REFUSED
    assert outcome == case.expected
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200 << 10
    for path in (root, *root.rglob("*")):
        kept = [key for key in os.listxattr(path, follow_symlinks=False) if not key.startswith(OURS)]
        assert kept in ([], ["trusted.overlay.opaque"]) and not kept or "opq" in name or "whiteout" in name


_BUILT = {name: case.build("/outside") for name, case in CORPUS.items()}
_SEEDS = sorted(name for name, data in _BUILT.items() if 0 < len(data) < 16_384)
_NUMBERS = itertools.count()


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.sampled_from(_SEEDS),
    st.lists(st.tuples(st.integers(0, 1 << 14), st.binary(min_size=1, max_size=12)), max_size=4),
    st.booleans(),
)
def test_a_damaged_hostile_archive_is_read_or_refused(
    world: Path, name: str, changes: list[tuple[int, bytes]], repair: bool
) -> None:
    data = bytearray(_BUILT[name])
    for place, junk in changes:
        place %= len(data)
        data[place : place + len(junk)] = junk
    if repair:  # the checksums of what may be headers, so that more than the checksum is looked at
        for start in range(0, len(data) - 511, 512):
            if data[start + 257 : start + 262] == b"ustar":
                data[start + 148 : start + 156] = b" " * 8
                data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    try:
        unpack(bytes(data), world / "root" / str(next(_NUMBERS)), CORPUS[name].limits)
    except InvalidArgument:
        pass
    assert (world / "outside" / "canary").read_text() == "alive"


def test_the_corpus_makes_headers_that_are_right_but_for_what_they_change(world: Path) -> None:
    unpack(block(name=b"fine\0") + bytes(1024), world / "root")
    assert os.listdir(world / "root") == ["fine"]
