"""Images without a registry: imported, tagged, removed; nothing of them is left behind when they go or fail."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloison.errors import CloisonError, Conflict, InvalidArgument, NotFound, Unavailable
from cloison.images.layout import StoredImage
from cloison.oci.image import Descriptor
from harness import Roots
from image_store import Store
from registry_fixture import digest_of
from seclusion import outside
from unpack_fixture import archive, describe, file, folder


@pytest.fixture
def store() -> Iterator[Store]:
    roots = Roots()
    yield Store(roots)
    roots.remove()


BASE = archive(folder("."), folder("etc"), file("etc/base", b"base"), file("gone", b"x"))
TOP = archive(file("etc/top", b"top"), file(".wh.gone", b""))


# --- import


def test_a_root_file_system_is_imported_with_changes(store: Store) -> None:
    image = store.images.import_rootfs(
        io.BytesIO(gzip.compress(BASE)), "app:2", changes=["ENV A=1", 'CMD ["/x"]'], message="made here"
    )
    assert store.images.find("app:2") == image
    assert image.layers == (digest_of(BASE),)
    assert (image.config.env, image.config.cmd) == (("A=1",), ("/x",))
    assert json.loads(store.blobs.read(image.id))["history"][0]["comment"] == "made here"
    assert (store.tree("app:2") / "etc/base").read_text() == "base"


def test_a_directory_is_imported_as_it_is(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d" / ("deep" * 30)).mkdir(parents=True)
    (source / "d" / ("deep" * 30) / "file").write_bytes(os.urandom(100_000))
    (source / "setuid").write_text("x")
    os.chmod(source / "setuid", 0o4755)
    os.chown(source / "d", 5, 6)
    os.link(source / "setuid", source / "again")
    os.symlink("/elsewhere", source / "link")
    os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    first = store.images.import_rootfs(str(source), "dir:1")
    second = store.images.import_rootfs(str(source), "dir:2")
    assert first.layers == second.layers
    assert describe(store.tree("dir:1")) == describe(source)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress], ids=["plain", "gzip", "bzip2"])
def test_what_is_imported_is_kept_as_it_is_pushed_compressed(
    store: Store, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    data = archive(folder("."), file("words", b"the same words again and again\n" * 50_000))
    streamed = store.images.import_rootfs(io.BytesIO(pack(data)), "stream:1")
    from_directory = store.images.import_rootfs(str(store.tree("stream:1")), "directory:1")
    for image in (streamed, from_directory):
        manifest = json.loads(store.blobs.read(image.digest))
        (layer,) = manifest["layers"]
        assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
        body = store.blobs.read(layer["digest"])
        assert layer["size"] == len(body) < 100_000
        assert digest_of(gzip.decompress(body)) == image.layers[0]
    assert streamed.layers == (digest_of(data),)
    blobs = sum(path.stat().st_size for path in (store.root / "blobs").rglob("*") if path.is_file())
    assert blobs < 200_000  # no plain tar beside them


def test_without_a_name_the_import_is_found_by_its_id(store: Store) -> None:
    image = store.images.import_rootfs(io.BytesIO(BASE))
    assert store.images.find(image.id[7:19]) == image
    assert list(store.images.references_of(image)) == []


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive at all" * 100, archive(file("../x")), BASE[:700], gzip.compress(BASE)[:50]],
    ids=["empty", "text", "a path upwards", "a cut archive", "a cut stream"],
)
def test_what_is_no_root_file_system_is_refused_and_leaves_nothing(store: Store, data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        store.images.import_rootfs(io.BytesIO(data), "x")
    assert store.is_empty(), store.content()


def test_a_debian_root_file_system_is_imported_as_tar_unpacks_it(store: Store, tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs.tar"
    sources = Path("/etc/apt/sources.list")
    if not shutil.which("mmdebstrap"):
        pytest.skip("needs Debian's package mmdebstrap")
    words = ["--quiet", "--variant=extract", "--include=base-files,base-passwd,libc-bin", "bookworm", str(rootfs)]
    words += [str(sources)] if sources.exists() else []
    made = subprocess.run(outside("mmdebstrap", *words), capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no Debian mirror can be reached: {made.stderr.decode()[-200:]}")
    (tmp_path / "gnu").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "gnu", "-xpf", rootfs, "--xattrs", "--xattrs-include=*"], check=True)
    with open(rootfs, "rb") as stream:
        store.images.import_rootfs(stream, "debian:bookworm")
    assert describe(store.tree("debian:bookworm")) == describe(tmp_path / "gnu")


# --- names, removal, space


def test_the_last_name_takes_layers_and_blobs_along(store: Store) -> None:
    image = store.images.import_rootfs(io.BytesIO(BASE), "app:1")
    store.images.tag("app:1", "app:2")
    assert list(store.images.remove(["app:1"])) == ["Untagged: app:1"]
    assert list(store.images.remove(["app:2"])) == [
        "Untagged: app:2", f"Deleted: {image.id}", f"Deleted: {image.layers[0]}",
    ]  # fmt: skip
    assert store.is_empty(), store.content()


def test_a_missing_name_stops_the_removal_before_it_begins(store: Store) -> None:
    store.images.import_rootfs(io.BytesIO(BASE), "app:1")
    with pytest.raises(NotFound, match="No such image: missing:latest"):
        store.images.remove(["app:1", "missing"])
    assert store.images.find("app:1")


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "cloison-test", mount], check=True)
    roots = Roots(data_root=str(mount / "data"))
    try:
        store = Store(roots)
        with pytest.raises(Unavailable) as caught:
            store.images.import_rootfs(io.BytesIO(archive(file("f", os.urandom(2 << 20)))), "x")
        assert "no space left on device" in str(caught.value)
        assert "\n" not in str(caught.value)
        with pytest.raises(Unavailable, match="no space left on device"):
            store.images.import_rootfs(io.BytesIO(archive(file("f", os.urandom(4 << 20)))), "x")
        assert store.is_empty(), store.content()
    finally:
        subprocess.run(["umount", mount], check=True)
        roots.remove()


def test_many_imports_at_once_all_succeed(store: Store) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(3):
                store.images.import_rootfs(io.BytesIO(BASE), f"same:{number % 2}")
                store.images.import_rootfs(io.BytesIO(archive(file(f"f{number}"))), f"own{number}")
                store.images.remove([f"own{number}"])
        except BaseException as err:
            failures.append(err)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert {listing.reference for listing in store.images.list() if listing.reference} == {"same:0", "same:1"}
    for listing in store.images.list():
        store.images.remove([listing.reference or listing.image.id])
    store.images.collect()
    assert store.is_empty(), store.content()


def test_a_layer_that_does_not_match_is_never_published(store: Store) -> None:
    from cloison.engine.publishing import StoredLayers, publish
    from cloison.images.progress import NoProgress
    from cloison.images.records import ImageStore

    blob = store.blobs.add_bytes(BASE)
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(TOP)]}}
    data = json.dumps(config).encode()
    stored = StoredImage(
        manifest_digest=digest_of(b""), config_digest=store.blobs.add_bytes(data), config=data,
        layers=(Descriptor(media_type="", digest=blob, size=len(BASE)),),
    )  # fmt: skip
    records = ImageStore(str(store.root))
    with pytest.raises(InvalidArgument, match="does not match"):
        publish(
            stored,
            StoredLayers(store.blobs),
            settings=store.settings,
            blobs=store.blobs,
            store=records,
            progress=NoProgress(),
        )
    assert not store.images.list()
    assert store.content()["snapshots/overlay/layers"] == store.content()["snapshots/overlay/incoming"] == []


def test_removing_while_a_layer_comes_in_takes_nothing_of_it(store: Store) -> None:
    class Slow(io.BytesIO):
        """A stream in whose middle another image is removed."""

        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() and not removed:
                removed.extend(store.images.remove(["victim"]))
            return super().read(1000)

    store.images.import_rootfs(io.BytesIO(TOP), "victim")
    removed: list[str] = []
    store.images.import_rootfs(Slow(archive(file("a", os.urandom(20_000)))), "survivor")
    assert removed
    assert (store.tree("survivor") / "a").stat().st_size == 20_000
    store.images.remove(["survivor"])
    assert store.is_empty(), store.content()


def test_an_unknown_pull_policy_is_refused_and_never_means_never(store: Store) -> None:
    with pytest.raises(InvalidArgument):
        store.images.ensure("x", policy="sometimes")
    with pytest.raises(NotFound, match="No such image: x:latest"):
        store.images.ensure("x", policy="never")
    image = store.images.import_rootfs(io.BytesIO(BASE), "x")
    for policy in ("never", "missing"):
        assert store.images.ensure("x", policy=policy) == image


def test_errors_are_for_people(store: Store) -> None:
    for call in (lambda: store.images.find("Upper"), lambda: store.images.tag("a", "B"), lambda: store.images.find("")):
        with pytest.raises(CloisonError) as caught:
            call()
        assert not isinstance(caught.value, Conflict)
        assert "\n" not in str(caught.value)
