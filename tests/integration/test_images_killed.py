"""kill -9 at any moment of pull, load, commit, tag, rmi and prune: no image that can be seen is ever not whole.

The moments are random times, and random system calls; commands that ended before do not count. ``CLOISON_KILLS=200``
kills more of them than a quick run has time for. A failure tells its seed, and ``CLOISON_SEED`` repeats it.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.engine.system import System
from harness import Cloison, Roots
from image_store import Store
from registry_fixture import Layout, Registry, digest_of, is_available, running_registry
from unpack_fixture import archive, file, folder

KILLS = int(os.environ.get("CLOISON_KILLS", "36"))
SEED = int(os.environ.get("CLOISON_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
# and up to the how manieth of a command: Python's own start opens some 150 files
CALLS = {"rename": 8, "unlink": 8, "unlinkat": 40, "openat": 600, "mkdir": 5, "rmdir": 3, "fsync": 8, "syncfs": 1,
         "write": 60, "flock": 8, "utimensat": 80, "fchmod": 8}  # fmt: skip

pytestmark = pytest.mark.timeout(60 + 6 * KILLS)


def layer(rng: random.Random, name: str, *, count: int = 40) -> bytes:
    return archive(folder(name), *(file(f"{name}/{i}", rng.randbytes(4000)) for i in range(count)))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry | None]:
    """One with two images that share a layer; none where the package is not installed."""
    if not is_available():
        yield None
        return
    root, rng = tmp_path_factory.mktemp("killed"), random.Random(1)
    layout = Layout(root / "oci")
    shared = layer(rng, "shared")
    for name in ("one", "two"):
        layout.add_image([(shared, "gzip"), (layer(rng, name), "gzip")], tag=name)
    with running_registry(root / "registry") as running:
        for name in ("one", "two"):
            running.push(layout.path, f"{name}:1", tag=name)
        yield running


def docker_archive(path: Path, rng: random.Random) -> None:
    layers = [layer(rng, name) for name in ("a", "b")]
    config = {"os": "linux", "rootfs": {"type": "layers", "diff_ids": [*map(digest_of, layers)]}}
    manifest = [{"Config": "c.json", "RepoTags": ["loaded:1"], "Layers": ["0.tar", "1.tar"]}]
    members = {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode(),
               **{f"{i}.tar": data for i, data in enumerate(layers)}}  # fmt: skip
    path.write_bytes(archive(*(file(name, data) for name, data in members.items())))


def killed_after(command: Cloison, words: list[str], seconds: float) -> bool:
    """Whether it still ran."""
    process = command.spawn(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -signal.SIGKILL


def killed_at(command: Cloison, words: list[str], *, call: str, when: int) -> bool:
    """Whether it came to that call."""
    argv = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e",
            f"inject={call}:signal=KILL:when={when}", *command.argv(*words)]  # fmt: skip
    done = subprocess.run(argv, env=command.roots.environ, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode == -signal.SIGKILL  # strace ends as what it traces


def test_whatever_is_killed_whatever_is_seen_is_whole(registry: Registry | None, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    docker_archive(tmp_path / "image.tar", rng)
    roots = Roots()
    command, store = Cloison(roots), Store(roots)
    verbs = [["load", "-i", str(tmp_path / "image.tar")], ["rmi", "-f", "loaded:1"], ["tag", "loaded:1", "more:1"],
             ["image", "prune", "-af"], ["system", "prune", "-f"], ["rmi", "more:1"]]  # fmt: skip
    if registry:
        verbs += [["pull", "-q", f"{registry.address}/{name}:1"] for name in ("one", "two")] * 2
    try:
        number = kills = 0
        while kills < KILLS:
            number += 1
            assert number < 20 * KILLS, f"of {number} commands only {kills} could be killed"
            words = rng.choice(verbs)
            if rng.random() < 0.5 and shutil.which("strace"):
                call = rng.choice(list(CALLS))
                when = rng.randint(1, CALLS[call])
                kills += killed_at(command, words, call=call, when=when)
                moment = f"{call} number {when}"
            else:
                seconds = rng.uniform(0.05, 0.25)
                kills += killed_after(command, words, seconds)
                moment = f"{seconds:.3f} s"
            wrong = [p for p in System(store.settings).check() if p.what != "nobody needs it"]
            assert not wrong, f"seed {SEED}, kill {number}, {' '.join(words)} at {moment}: {wrong}"
        print(f"{kills} of {number} died")
        end_well(command, store, str(tmp_path / "image.tar"), registry)
    finally:
        roots.remove()


def end_well(command: Cloison, store: Store, image: str, registry: Registry | None) -> None:
    """Everything can be brought again, and goes without leaving a byte."""
    command.ok("load", "-i", image)
    if registry:
        command.ok("pull", f"{registry.address}/one:1")
    assert [p for p in System(store.settings).check() if p.what != "nobody needs it"] == []
    command.ok("image", "prune", "-af")
    assert store.is_empty(), f"seed {SEED}: {store.content()}"
    files = [path for path in store.root.rglob("*") if path.is_file() and path.stat().st_size]
    assert files == [], f"seed {SEED}"


def test_what_a_crash_kept_from_its_name_goes_with_the_next_prune() -> None:
    roots = Roots()
    store = Store(roots)
    try:
        store.images.import_rootfs(io.BytesIO(archive(file("x"))), "x:1")
        for place in ("images/names", "images/records", "images"):
            (store.root / place / "a.1.2.tmp").write_text("half")
        store.images.prune(all=True)
        assert store.is_empty(), store.content()
        assert not list(store.root.rglob("*.tmp"))
    finally:
        roots.remove()


def test_a_brought_image_is_there_after_a_power_cut_of_what_was_not_synced(tmp_path: Path) -> None:
    """The order of the calls: the layers' data is on disk before a record names them."""
    if not shutil.which("strace"):
        pytest.skip("needs Debian's package strace")
    roots = Roots()
    command = Cloison(roots)
    docker_archive(tmp_path / "image.tar", random.Random(2))
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-qq", "-y", "-o", str(trace), "-e", "trace=syncfs,rename,fsync",
            *command.argv("load", "-i", str(tmp_path / "image.tar"))]  # fmt: skip
    try:
        subprocess.run(argv, env=roots.environ, check=True, capture_output=True, timeout=60)
        lines = trace.read_text().splitlines()
        first = {what: next(i for i, line in enumerate(lines) if what in line and "ENOENT" not in line)
                 for what in ("syncfs(", "overlay/layers/", "/images/records/", "/images/names/")}  # fmt: skip
        order = sorted(first, key=lambda what: first[what])
        assert order == ["syncfs(", "overlay/layers/", "/images/records/", "/images/names/"]
    finally:
        roots.remove()


def test_two_loads_at_once_are_one(tmp_path: Path) -> None:
    docker_archive(tmp_path / "image.tar", random.Random(3))
    roots = Roots()
    command, store = Cloison(roots), Store(roots)
    try:
        loads = [command.spawn("load", "-i", str(tmp_path / "image.tar"), stdout=subprocess.PIPE) for _ in range(5)]
        assert [load.communicate(timeout=60)[0] for load in loads] == [b"Loaded image: loaded:1\n"] * 5
        assert list(System(store.settings).check()) == []
        assert len(list(store.snapshots.list_layers())) == 2
        out = io.BytesIO()
        store.images.save(["loaded:1"], out)
        assert len(out.getvalue()) > 300_000
    finally:
        roots.remove()
