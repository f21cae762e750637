"""A layer takes at most 64 MiB of memory, whatever its size and whatever it is made of."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloison.archive.pax import render_record
from hostile_archives import PACKERS, block
from unpack_fixture import archive, file

MEASURED = """
import os, sys
from cloison.archive.unpack import apply_layer
with open(sys.argv[1], "rb", buffering=0) as layer:
    apply_layer(layer, root_fd=os.open(sys.argv[2], os.O_RDONLY))
# not ru_maxrss, which remembers the process before the exec
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_memory_does_not_grow_with_the_layer(tmp_path: Path, compression: str) -> None:
    size, rng = 128 << 20, random.Random(1)
    content = b"".join(rng.randbytes(4096) * 8 for _ in range(size >> 15))
    data = archive(file("large", content), *map(file, map(str, range(500))))
    (tmp_path / "layer").write_bytes(PACKERS[compression](data))
    (tmp_path / "root").mkdir()
    assert peak_kib(MEASURED, tmp_path / "layer", tmp_path / "root") < 64 << 10
    assert (tmp_path / "root/large").stat().st_size == size


def peak_kib(script: str, *words: str | int | Path) -> int:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    argv = [sys.executable, "-c", script, *map(str, words)]
    return int(subprocess.run(argv, env=environ, check=True, capture_output=True).stdout)


def sparse_gigabyte(directory: Path, format: str) -> bytes:
    with open(directory / "sparse", "wb") as file:
        for offset in range(0, 1 << 30, 300_000):
            file.seek(offset)
            file.write(b"island" * 700)
        file.truncate(1 << 30)
    words = ["tar", "-C", directory, "-c", "--sparse", *format.split(), "sparse"]
    return subprocess.run(words, check=True, capture_output=True).stdout


def many_attributes(number: int) -> bytes:
    records = b"".join(render_record(b"SCHILY.xattr.x%d.%d" % (number, n) + b"x" * 80, b"") for n in range(8000))
    header = block(type=b"x", size=b"%011o\0" % len(records))
    return header + records + bytes(-len(records) % 512) + block(name=b"%d\0" % number)


GREEDY: dict[str, Callable[[Path], bytes]] = {
    "a gigabyte of holes, pax": lambda path: sparse_gigabyte(path, "--format=posix --sparse-version=1.0"),
    "a gigabyte of holes, old": lambda path: sparse_gigabyte(path, "--format=gnu"),
    "headers of a megabyte": lambda _path: archive(
        *(file(f"{i}", pax_headers={"comment": "x" * 1_000_000}) for i in range(60))
    ),
    "names of four kilobytes": lambda _path: archive(
        *(file("/".join(["d" * 200] * 19) + f"/{i}" + "n" * 200) for i in range(3000))
    ),
    "names of attributes": lambda _path: b"".join(map(many_attributes, range(50))) + bytes(1024),
}


@pytest.mark.parametrize("greed", GREEDY)
def test_memory_does_not_grow_with_what_a_layer_is_made_of(tmp_path: Path, greed: str) -> None:
    (tmp_path / "layer").write_bytes(subprocess.run(["gzip", "-1"], input=GREEDY[greed](tmp_path), capture_output=True,
                                                    check=True).stdout)  # fmt: skip
    (tmp_path / "root").mkdir()
    assert peak_kib(MEASURED, tmp_path / "layer", tmp_path / "root") < 64 << 10
    if "holes" in greed:
        found = (tmp_path / "root/sparse").stat()
        assert found.st_size == 1 << 30
        assert found.st_blocks * 512 < 64 << 20


DIRECTORIES = """
import os, sys
from cloison.archive.tree import LayerTree
from cloison.errors import InvalidArgument
tree = LayerTree(os.open("/", os.O_RDONLY))
try:
    for number in range(int(sys.argv[2])):
        tree.set_time(sys.argv[1].encode() % number, 1_700_000_000_123_456_789)
except InvalidArgument as err:
    assert "too long altogether" in str(err)
else:
    assert sum(1 for _ in tree._noted_times()) == number + 1
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize(
    ("pattern", "count"), [("usr/share/some/where/directory-%08d", 300_000), ("%06d" + "n" * 4000, 99_999)]
)
def test_memory_does_not_grow_with_the_number_of_directories(pattern: str, count: int) -> None:
    assert peak_kib(DIRECTORIES, pattern, count) < 64 << 10
