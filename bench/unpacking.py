"""Rows on unpacking: one gzip layer into an empty directory, by ours and by the tars of this machine, in turns.

Small files are system calls, six each, half of the time in the kernel and half in Python around them, while another
thread inflates and hashes. Large files are inflating and hashing, which no tar does. Ours pays Python's start, too.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import measure
from measure import Once, command
from peers import PROJECT, missing

_LARGE_BYTES = 16 << 20
_PER_DIRECTORY = 100


def rows(directory: Path, *, files: int, runs: int, keep: bool) -> None:
    """A row for ``files`` small files, and one for five times the bytes in large ones.

    With ``keep`` nothing is removed before the row is over: for minutes ext4 does not take the inodes of removed files
    again, and looks for others past each of them, which whoever comes next would pay for.
    """
    print(f"\n| unpack one gzip layer | {' | '.join(_NAMES)} | what bounds ours |\n|---|{'---|' * (len(_NAMES) + 1)}")
    large = max(1, files * 10_000 // _LARGE_BYTES)
    for title, count, size, bound in (
        (f"{files} small files", files, 0, "system calls, and Python around them"),
        (f"{large} files of 16 MiB", large, _LARGE_BYTES, "inflating and hashing, beside writing"),
    ):
        layer = directory / "layer.tar.gz"
        with tarfile.open(layer, "w:gz", compresslevel=1, format=tarfile.GNU_FORMAT) as tar:
            _fill(tar, count=count, size=size)
        contenders = {name: once for name, once in _contenders(layer, directory, keep=keep).items() if once}
        samples = {
            sample.peer: sample for sample in measure.take_turns(contenders, runs=runs, period_s=0.3, warm_ups=1)
        }
        ours = samples["cloison"].quantile(0.5)
        cells = [_cell(samples[name], ours) if name in samples else "" for name in _NAMES]
        print(f"| {title} | {' | '.join(cells)} | {bound} |", flush=True)
        for left in directory.glob("unpacked-*"):
            shutil.rmtree(left)


def _cell(sample: measure.Sample, ours: float) -> str:
    median = sample.quantile(0.5)
    return f"{median * 1e3:.0f}" + ("" if sample.peer == "cloison" else f" ({median / ours:.2f}×)")


def _fill(tar: tarfile.TarFile, *, count: int, size: int) -> None:
    rng = random.Random(7)
    for number in range(count):
        folder = f"usr/share/package-{number // _PER_DIRECTORY:04d}"
        if number % _PER_DIRECTORY == 0:
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        info = tarfile.TarInfo(f"{folder}/file-{number:06d}")
        info.size, info.mtime = size or rng.randrange(100, 4000), 1_700_000_000 + number
        # each kilobyte twice: it shrinks to a half, about as programs and texts do
        block = b"".join(rng.randbytes(min(info.size // 2, 1024)) * 2 for _ in range(min(512, 1 + info.size // 2048)))
        tar.addfile(info, io.BytesIO((block * (1 + info.size // len(block)))[: info.size]))


_NAMES = ("cloison", "GNU tar + gzip", "bsdtar", "umoci")


def _contenders(layer: Path, directory: Path, *, keep: bool) -> dict[str, Once | None]:
    target = directory / "unpacked"
    worker = str(PROJECT / "bench" / "unpack_worker.py")
    argvs: dict[str, list[str]] = {
        "cloison": [sys.executable, worker, str(layer), str(target)],
        "GNU tar + gzip": ["tar", "-C", str(target), "-xpzf", str(layer)],
        "bsdtar": ["bsdtar", "-C", str(target), "-xpf", str(layer)],
    }
    if not missing("umoci"):
        argvs["umoci"] = ["umoci", "raw", "unpack", "--image", f"{_layout(layer, directory)}:bench", str(target)]
    return {name: _into_empty(target, argv, keep=keep) for name, argv in argvs.items() if not missing(argv[0])}


def _into_empty(target: Path, argv: list[str], *, keep: bool) -> Once:
    """The command alone; the directory is made before, and removed after it, or put aside."""
    unpack = command(*argv)

    def once() -> float:
        target.mkdir()
        try:
            return unpack()
        finally:
            if keep:
                target.rename(tempfile.mkdtemp(prefix="unpacked-", dir=target.parent))
            else:
                shutil.rmtree(target)

    return once


def _layout(layer: Path, directory: Path) -> Path:
    """The layer as an image that umoci can unpack."""
    layout = directory / "umoci-layout"
    shutil.rmtree(layout, ignore_errors=True)
    plain = directory / "layer.tar"
    with open(plain, "wb") as out:
        subprocess.run(["gzip", "-dc", str(layer)], stdout=out, check=True)
    for words in (["init", "--layout", str(layout)], ["new", "--image", f"{layout}:bench"],
                  ["raw", "add-layer", "--image", f"{layout}:bench", str(plain)]):  # fmt: skip
        subprocess.run(["umoci", *words], check=True, capture_output=True)
    plain.unlink()
    return layout
