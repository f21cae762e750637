"""Layers are unpacked while they arrive, unseen until all digests are right; a pull cut short goes on at its byte."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.engine.system import System
from cloison.errors import InvalidArgument
from cloison.model.reference import parse_reference
from cloison.oci.image import OCI_CONFIG, OCI_LAYER
from cloison.registry.budget import Limits
from cloison.store.partial import PartialBlob
from harness import Cloison, Roots, until
from image_pull import fetch
from image_store import Store
from registry_fixture import digest_of
from scripted_registry import Exchange, ScriptedRegistry
from unpack_fixture import archive, file, folder

FILES = 24
SIZE = 256 << 10
PLAIN = archive(folder("d"), *(file(f"d/{i}", os.urandom(SIZE)) for i in range(FILES)))
LAYER = gzip.compress(PLAIN, 1, mtime=0)
HALF = len(LAYER) // 2
DIGEST = digest_of(LAYER)
WINDOW = 1 << 20  # what may be on its way between the socket and the files


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        add_image(running, PLAIN, LAYER)
        running.on(f"/v2/app/blobs/{DIGEST}", honest)
        yield running


def add_image(server: ScriptedRegistry, plain: bytes, packed: bytes) -> None:
    """``app:latest``, of one layer."""
    rootfs = {"type": "layers", "diff_ids": [digest_of(plain)]}
    document = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    server.add_manifest({
        "schemaVersion": 2,
        "config": {"mediaType": OCI_CONFIG, "digest": server.add_blob(document), "size": len(document)},
        "layers": [{"mediaType": OCI_LAYER, "digest": server.add_blob(packed), "size": len(packed)}],
    })  # fmt: skip


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture
def store(command: Cloison) -> Store:
    return Store(command.roots)


def honest(exchange: Exchange) -> None:
    """The layer, or what was asked for of it."""
    first, _, last = exchange.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
    begin, end = int(first), int(last or len(LAYER) - 1)
    if "range" in exchange.headers:
        exchange.answer(206, LAYER[begin : end + 1], content_range=f"bytes {begin}-{end}/{len(LAYER)}")
    else:
        exchange.answer(200, LAYER)


def serve(server: ScriptedRegistry, data: bytes, *, stall: bool = False) -> None:
    """The layer's address gives these bytes, with the layer's length; ``stall``: and then nothing more."""

    def handler(exchange: Exchange) -> None:
        exchange.head(200, content_length=str(len(LAYER)))
        exchange.send(data)
        if stall:
            exchange.wait(30)

    server.on(f"/v2/app/blobs/{DIGEST}", handler)


def ranges(server: ScriptedRegistry) -> list[str]:
    """What was asked for of the layer, in order."""
    return [request.headers.get("range", "") for request in server.requests if DIGEST in request.path]


def unpacked(store: Store) -> list[Path]:
    return [path for path in store.root.glob("snapshots/*/incoming/*/d/*") if path.stat().st_size == SIZE]


def partials(store: Store) -> list[Path]:
    return list(store.root.glob("blobs/incoming/*.partial"))


def assert_whole(store: Store, name: str) -> None:
    assert sorted(os.listdir(store.tree(name) / "d")) == sorted(map(str, range(FILES)))
    assert list(System(store.settings).check()) == []


def cut_short(command: Cloison, server: ScriptedRegistry, *, number: int = signal.SIGKILL) -> None:
    """A pull that ends after half of the layer."""
    serve(server, LAYER[:HALF], stall=True)
    store = Store(command.roots)
    process = command.spawn("pull", "-q", f"{server.address}/app", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: [path.stat().st_size for path in partials(store)] == [HALF], what="half of the layer")
        process.send_signal(number)
        process.wait(10)
    finally:
        process.kill()
        process.wait()
    server.on(f"/v2/app/blobs/{DIGEST}", honest)
    server.requests.clear()


# --- while it arrives


def test_files_are_there_before_the_rest_has_been_sent_and_nobody_sees_them(
    server: ScriptedRegistry, store: Store
) -> None:
    seen: list[int] = []

    def watched(exchange: Exchange) -> None:
        exchange.head(200, content_length=str(len(LAYER)))
        exchange.send(LAYER[:HALF])
        enough = (HALF - WINDOW) // SIZE - 1
        until(lambda: len(unpacked(store)) >= enough, timeout_s=20, what="files of the first half")
        seen.append(len(unpacked(store)))
        assert not store.blobs.has(DIGEST)
        assert not list(store.snapshots.list_layers())
        exchange.send(LAYER[HALF:])

    server.on(f"/v2/app/blobs/{DIGEST}", watched)
    name = f"{server.address}/app"
    store.images.pull(name)
    assert seen
    assert_whole(store, name)


@pytest.mark.parametrize("at", [HALF, len(LAYER) - 4], ids=["in the middle", "in the checksum of gzip"])
def test_wrong_bytes_are_told_by_the_digest_and_leave_nothing(server: ScriptedRegistry, store: Store, at: int) -> None:
    wrong = LAYER[:at] + bytes([LAYER[at] ^ 1]) + LAYER[at + 1 :]
    serve(server, wrong)
    with pytest.raises(InvalidArgument, match="does not match") as caught:
        store.images.pull(f"{server.address}/app")
    assert DIGEST in str(caught.value)
    assert digest_of(wrong) in str(caught.value)
    assert store.is_empty(), store.content()


def test_what_no_archive_is_ends_the_pull_with_its_own_error(server: ScriptedRegistry, store: Store) -> None:
    """The digest is right; what it names cannot be unpacked."""
    nonsense = os.urandom(3 << 20)
    add_image(server, nonsense, nonsense)
    with pytest.raises(InvalidArgument, match="invalid archive"):
        store.images.pull(f"{server.address}/app")
    assert store.is_empty(), store.content()


def test_a_layer_that_ends_early_leaves_nothing(server: ScriptedRegistry, store: Store) -> None:
    def short(exchange: Exchange) -> None:
        exchange.answer(200, LAYER[:HALF])

    server.on(f"/v2/app/blobs/{DIGEST}", short)
    with pytest.raises(InvalidArgument, match="does not have"):
        store.images.pull(f"{server.address}/app")
    assert store.is_empty(), store.content()


def test_a_disk_that_fills_up_while_both_write_to_it_is_empty_again(server: ScriptedRegistry, tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    # enough for the blob, not for its files as well
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={len(LAYER) * 3 // 2}", "none", mount], check=True)
    roots = Roots(data_root=str(mount / "data"))
    try:
        result = Cloison(roots)("pull", "-q", f"{server.address}/app")
        said, *hints = result.stderr.splitlines()
        assert result.returncode == 1
        assert "no space left on device" in said
        assert all(line.startswith("hint: ") for line in hints)
        assert Store(roots).is_empty(), Store(roots).content()
    finally:
        subprocess.run(["umount", mount], check=True)
        roots.remove()


def peak_kib(command: Cloison, *words: str) -> int:
    """The most memory that a command had, by the kernel's account of its address space (proc(5), VmHWM)."""
    script = (
        "import sys; from cloison.__main__ import main; code = main(sys.argv[1:])\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], env=command.roots.environ, check=True,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    return int(done.stdout.split()[-1])


def test_memory_does_not_grow_with_a_layer(command: Cloison) -> None:
    peaks = []
    for size in (4 << 20, 128 << 20):
        plain = archive(file("noise", os.urandom(size)))
        with ScriptedRegistry() as server:
            add_image(server, plain, gzip.compress(plain, 0, mtime=0))
            peaks.append(peak_kib(command, "pull", "-q", f"{server.address}/app"))
    assert peaks[1] - peaks[0] < 16 << 10, peaks
    assert peaks[1] < 80 << 10, peaks


# --- cut short, and gone on with


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_the_next_pull_asks_for_the_rest_alone(
    server: ScriptedRegistry, command: Cloison, store: Store, number: int
) -> None:
    cut_short(command, server, number=number)
    assert [path.read_bytes() for path in partials(store)] == [LAYER[:HALF]]
    command.ok("pull", "-q", f"{server.address}/app")
    assert ranges(server) == [f"bytes={HALF}-"]
    assert_whole(store, f"{server.address}/app")
    assert not partials(store)


def test_a_registry_without_ranges_sends_it_all_and_that_is_good_too(
    server: ScriptedRegistry, command: Cloison, store: Store
) -> None:
    cut_short(command, server)
    serve(server, LAYER)
    command.ok("pull", "-q", f"{server.address}/app")
    assert_whole(store, f"{server.address}/app")


def test_a_beginning_that_has_every_byte_is_asked_nobody_for(
    server: ScriptedRegistry, command: Cloison, store: Store
) -> None:
    cut_short(command, server)
    partials(store)[0].write_bytes(LAYER)
    command.ok("pull", "-q", f"{server.address}/app")
    assert ranges(server) == []
    assert_whole(store, f"{server.address}/app")


@pytest.mark.parametrize("wrong", [
    pytest.param(bytes(HALF), id="zeros, as after a power cut"),
    pytest.param(LAYER[: HALF - 100] + bytes(100), id="a wrong tail"),
])  # fmt: skip
def test_a_wrong_beginning_is_found_out_and_comes_anew(
    server: ScriptedRegistry, command: Cloison, store: Store, wrong: bytes
) -> None:
    cut_short(command, server)
    partials(store)[0].write_bytes(wrong)
    command.ok("pull", "-q", f"{server.address}/app")
    assert ranges(server) == [f"bytes={HALF}-", ""]
    assert_whole(store, f"{server.address}/app")


def test_a_beginning_that_is_longer_than_its_blob_is_forgotten(
    server: ScriptedRegistry, command: Cloison, store: Store
) -> None:
    cut_short(command, server)
    partials(store)[0].write_bytes(LAYER + b"more")
    command.ok("pull", "-q", f"{server.address}/app")
    assert ranges(server) == [""]
    assert_whole(store, f"{server.address}/app")


def test_a_registry_that_lies_about_the_rest_is_asked_once_more_and_then_told(
    server: ScriptedRegistry, command: Cloison, store: Store
) -> None:
    cut_short(command, server)
    lie = bytes(len(LAYER))

    def liar(exchange: Exchange) -> None:
        begin = int(exchange.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        more = {"content_range": f"bytes {begin}-{len(lie) - 1}/{len(lie)}"} if begin else {}
        exchange.answer(206 if begin else 200, lie[begin:], **more)

    server.on(f"/v2/app/blobs/{DIGEST}", liar)
    with pytest.raises(InvalidArgument, match=digest_of(lie)):
        store.images.pull(f"{server.address}/app")
    assert store.is_empty(), store.content()


def test_a_big_blob_goes_on_in_parts(server: ScriptedRegistry, command: Cloison, store: Store) -> None:
    cut_short(command, server)
    limits = Limits(ranges_on_loopback=3, range_bytes=256 << 10, big_blob_bytes=1 << 20)
    fetch(parse_reference(f"{server.address}/app"), blobs=store.blobs, platform="linux/amd64", limits=limits)
    begins = sorted(int(words.removeprefix("bytes=").partition("-")[0]) for words in ranges(server))
    assert begins == list(range(HALF, len(LAYER), 256 << 10))
    assert store.blobs.is_whole(DIGEST)
    assert not partials(store)


# --- what nobody goes on with


@pytest.mark.parametrize("words", [["image", "prune", "-f"], ["system", "prune", "-f"]], ids=" ".join)
def test_a_beginning_is_accounted_for_and_goes_with_a_prune(
    server: ScriptedRegistry, command: Cloison, store: Store, words: list[str]
) -> None:
    cut_short(command, server)
    du = subprocess.run(["du", "-sxB1", store.root], check=True, capture_output=True, text=True).stdout.split()[0]
    usage = System(store.settings).usage()
    assert usage.engine["blobs/incoming"] >= HALF
    assert int(du) == pytest.approx(usage.images_bytes + sum(usage.engine.values()), rel=0.01)
    (problem,) = {p.what for p in System(store.settings).check() if "blobs/incoming" in p.thing}
    assert problem == "nobody needs it"
    said = command.ok(*words)
    assert not partials(store)
    assert "0B" not in said.splitlines()[-1]


def test_a_beginning_stays_while_other_images_come(server: ScriptedRegistry, command: Cloison, store: Store) -> None:
    cut_short(command, server)
    store.images.import_rootfs(io.BytesIO(archive(file("x"))), "other")
    assert [path.read_bytes() for path in partials(store)] == [LAYER[:HALF]]


def test_a_beginning_goes_when_a_week_has_passed(server: ScriptedRegistry, command: Cloison, store: Store) -> None:
    cut_short(command, server)
    week_ago = time.time() - 8 * 86400
    os.utime(partials(store)[0], (week_ago, week_ago))
    command.ok("pull", "-q", f"{server.address}/app")
    assert ranges(server) == [""]


def test_a_beginning_that_somebody_writes_is_not_swept(store: Store) -> None:
    store.images.list()
    with pytest.raises(KeyboardInterrupt), store.blobs.partial(DIGEST, len(LAYER)) as out:
        assert isinstance(out, PartialBlob)
        out.write(LAYER[:HALF])
        assert store.blobs.sweep(partials_before_s=float("inf")) == 0
        raise KeyboardInterrupt
    assert store.blobs.sweep(partials_before_s=0) == 0
    with store.blobs.partial(DIGEST, len(LAYER)) as out:
        assert out.written == HALF
        out.write(LAYER[HALF:])
    assert store.blobs.is_whole(DIGEST)
