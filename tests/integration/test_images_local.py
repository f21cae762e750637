"""Images without a registry: loaded, imported, tagged, removed; nothing of them is left behind when they go or fail."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cloison.engine.images import Images
from cloison.errors import CloisonError, Conflict, InvalidArgument, NotFound, Unavailable
from cloison.images.layout import StoredImage
from cloison.model.settings import Settings, settings_for
from cloison.oci.image import Descriptor
from cloison.snapshots.overlay import Overlay
from cloison.store.blobs import Blobs
from harness import Roots
from registry_fixture import Layout, digest_of
from unpack_fixture import archive, describe, file, folder, symlink


class Store:
    """Images of a data root of their own, and all that is on its disk."""

    def __init__(self, roots: Roots) -> None:
        self.settings: Settings = settings_for(roots.environ)
        self.images = Images(self.settings)
        self.snapshots = Overlay(roots.data_root)
        self.blobs = Blobs(roots.data_root)
        self.root = Path(roots.data_root)

    def content(self) -> dict[str, list[str]]:
        places = ("blobs/sha256", "blobs/incoming", "images/names", "images/records", "snapshots/overlay/layers",
                  "snapshots/overlay/incoming")  # fmt: skip
        return {place: sorted(os.listdir(self.root / place)) for place in places if (self.root / place).exists()}

    def is_empty(self) -> bool:
        return not any(self.content().values())

    def load(self, path: Path) -> list[str]:
        with open(path, "rb", buffering=0) as stream:
            return list(self.images.load(stream))

    def tree(self, name: str) -> Path:
        """The topmost layer of an image, as a directory."""
        return Path(self.snapshots.layer_path(self.images.find(name).layers[-1]))


@pytest.fixture
def store() -> Iterator[Store]:
    roots = Roots()
    yield Store(roots)
    roots.remove()


BASE = archive(folder("."), folder("etc"), file("etc/base", b"base"), file("gone", b"x"))
TOP = archive(file("etc/top", b"top"), file(".wh.gone", b""))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout of one image with a gzip and a zstd layer, and one for another machine."""
    path = tmp_path_factory.mktemp("layout") / "oci"
    made = Layout(path)
    made.add_image([(BASE, "gzip"), (TOP, "zstd")], tag="example.org/app:1")
    made.add_image([(BASE, "gzip"), (TOP, "plain")], tag="example.org/app:2")  # docker-archives know no zstd
    return path


def tar_of_directory(path: Path) -> bytes:
    return subprocess.run(["tar", "-C", path, "-c", "."], check=True, capture_output=True).stdout


def skopeo(source: str, target: str) -> None:
    argv = ["skopeo", "--insecure-policy", "copy", "--quiet", source, target]
    subprocess.run(argv, check=True, capture_output=True)


def docker_archive(members: Mapping[str, bytes], *extra: tuple[object, bytes]) -> io.BytesIO:
    return io.BytesIO(archive(*(file(name, data) for name, data in members.items()), *extra))  # type: ignore[arg-type]


def parts(layer: bytes = BASE, *, tags: object = ("app:1",), **manifest: object) -> dict[str, bytes]:
    """The files of a docker-archive with one image."""
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}
    entry = {"Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"], **manifest}
    return {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps([entry]).encode(),
    }


# --- load


def test_an_oci_layout_is_loaded_from_a_tar_stream(store: Store, layout: Path) -> None:
    lines = store.images.load(io.BytesIO(tar_of_directory(layout)))
    assert list(lines) == ["Loaded image: example.org/app:1", "Loaded image: example.org/app:2"]
    image = store.images.find("example.org/app:1")
    assert len(image.layers) == 2
    assert image.size_bytes == 8
    assert (store.tree("example.org/app:1") / "etc/top").read_text() == "top"
    manifest = json.loads(store.blobs.read(image.digest))
    assert all(store.blobs.has(layer["digest"]) for layer in manifest["layers"])


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("packed", [False, True])
def test_what_skopeo_writes_is_loaded(store: Store, layout: Path, tmp_path: Path, kind: str, packed: bool) -> None:
    target = tmp_path / "image.tar"
    skopeo(f"oci:{layout}:example.org/app:2", f"{kind}:{target}:example.org/other:2")
    if packed:
        target.write_bytes(gzip.compress(target.read_bytes()))
    assert store.load(target) == ["Loaded image: example.org/other:2"]
    image = store.images.find("example.org/other:2")
    assert image.config.cmd == ("/bin/true",)
    assert (store.tree("example.org/other:2") / "etc/top").read_text() == "top"


def test_what_podman_saves_is_loaded_with_its_id(store: Store, tmp_path: Path) -> None:
    run_root = tempfile.mkdtemp(prefix="cloison-t", dir="/run")  # podman wants a short one
    storage = ["--root", tmp_path / "root", "--runroot", run_root, "--storage-driver", "vfs"]
    tarball, saved = tmp_path / "rootfs.tar", tmp_path / "saved.tar"
    tarball.write_bytes(BASE)
    podman = ["podman", *map(str, storage)]
    subprocess.run([*podman, "import", "-q", tarball, "example.org/podman:1"], check=True, capture_output=True)
    subprocess.run([*podman, "save", "-q", "-o", saved, "example.org/podman:1"], check=True, capture_output=True)
    argv = [*podman, "image", "inspect", "--format", "{{.Id}}", "example.org/podman:1"]
    expected = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    shutil.rmtree(run_root)
    assert store.load(saved) == ["Loaded image: example.org/podman:1"]
    assert store.images.find("example.org/podman:1").id == f"sha256:{expected}"


def test_a_layer_that_is_a_link_inside_the_archive_is_found(store: Store) -> None:
    files = parts(Layers=["second/layer.tar"])
    assert list(store.images.load(docker_archive(files, symlink("second/layer.tar", "../layer.tar")))) == [
        "Loaded image: app:1"
    ]


def test_an_archive_without_names_gives_an_id(store: Store) -> None:
    (line,) = store.images.load(docker_archive(parts(tags=None)))
    image = store.images.find(line.removeprefix("Loaded image ID: "))
    assert [listing.reference for listing in store.images.list()] == [""]
    assert image.layers == (digest_of(BASE),)


HOSTILE: dict[str, dict[str, bytes]] = {
    "empty": {},
    "no manifest": {"x": b"y"},
    "not json": {"manifest.json": b"{"},
    "not a list": {"manifest.json": b"{}"},
    "a list of nothing": {"manifest.json": b"[null]"},
    "config missing": {**parts(), "manifest.json": b'[{"Config":"nothing","RepoTags":[],"Layers":[]}]'},
    "config above": parts(Config="../config.json"),
    "config absolute": parts(Config="/etc/passwd"),
    "config is a number": parts(Config=1),
    "layer above": parts(Layers=["../../../../etc/passwd"]),
    "layer missing": parts(Layers=["nothing.tar"]),
    "too many layers": parts(Layers=["layer.tar", "layer.tar"]),
    "layers is text": parts(Layers="layer.tar"),
    "tag with a digest": parts(tags=["app@sha256:" + "0" * 64]),
    "tag upper case": parts(tags=["App"]),
    "tag is a path": parts(tags=["../../x"]),
    "tag is empty": parts(tags=[""]),
    "another layer": {**parts(), "layer.tar": TOP},
    "layer is no tar": {**parts(b"x" * 700), "layer.tar": b"x" * 700},
    "layer climbs": {**parts(archive(file("../x")))},
    "config is no json": {**parts(), "config.json": b"["},
    "schema": {"index.json": b'{"schemaVersion":2,"manifests":[]}'},
    "index twice": {"index.json": b'{"schemaVersion":2,"manifests":[],"manifests":[]}'},
    "blob missing": {
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [{"digest": digest_of(b"x"), "size": 1}]}).encode()
    },
    "member above": {**parts(), "../x": b"x"},
    "member absolute": {**parts(), "/x": b"x"},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_damaged_archive_is_refused_and_leaves_nothing(store: Store, case: str) -> None:
    with pytest.raises(InvalidArgument):
        store.images.load(docker_archive(HOSTILE[case]))
    assert not store.images.list()
    assert store.content().get("snapshots/overlay/incoming", []) == []
    store.images.collect()
    assert store.is_empty(), store.content()


def test_a_link_out_of_the_archive_is_no_layer(store: Store, tmp_path: Path) -> None:
    (tmp_path / "layer.tar").write_bytes(BASE)
    files = {name: data for name, data in parts().items() if name != "layer.tar"}
    for target in (str(tmp_path / "layer.tar"), f"../../..{tmp_path}/layer.tar", "layer.tar"):
        with pytest.raises(InvalidArgument):
            store.images.load(docker_archive(files, symlink("layer.tar", target)))


def test_the_declared_id_is_not_believed(store: Store) -> None:
    fake = "f" * 64
    files = parts(Config=f"{fake}.json")
    files[f"{fake}.json"] = files.pop("config.json")
    store.images.load(docker_archive(files))
    assert store.images.find("app:1").id == digest_of(files[f"{fake}.json"])
    with pytest.raises(NotFound):
        store.images.find(fake)


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


def test_without_a_name_the_import_is_found_by_its_id(store: Store) -> None:
    image = store.images.import_rootfs(io.BytesIO(BASE))
    assert store.images.find(image.id[7:19]) == image
    assert list(store.images.references_of(image)) == []


@pytest.mark.parametrize(
    "data", [b"", b"no archive at all" * 100, archive(file("../x")), BASE[:700], gzip.compress(BASE)[:50]]
)
def test_what_is_no_root_file_system_is_refused_and_leaves_nothing(store: Store, data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        store.images.import_rootfs(io.BytesIO(data), "x")
    store.images.collect()
    assert store.is_empty(), store.content()


def test_a_debian_root_file_system_is_imported_as_tar_unpacks_it(store: Store, tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs.tar"
    sources = Path("/etc/apt/sources.list")
    if not shutil.which("mmdebstrap"):
        pytest.skip("needs Debian's package mmdebstrap")
    words = [
        "mmdebstrap",
        "--quiet",
        "--variant=extract",
        "--include=base-files,base-passwd,libc-bin",
        "bookworm",
        rootfs,
    ]
    made = subprocess.run([*words, *([sources] if sources.exists() else [])], capture_output=True, check=False)
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


def test_layers_that_another_image_has_stay(store: Store, layout: Path) -> None:
    store.images.load(io.BytesIO(tar_of_directory(layout)))
    base = store.images.import_rootfs(io.BytesIO(BASE), "base")
    assert store.images.find("example.org/app:1").layers[0] == base.layers[0]
    store.images.remove(["example.org/app:1", "example.org/app:2"])
    assert list(store.snapshots.list_layers()) == list(base.layers)
    assert (store.tree("base") / "etc/base").exists()


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
        assert not store.images.list()
        store.images.collect()
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
    from cloison.engine.publishing import publish
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
        publish(stored, data_root=str(store.root), blobs=store.blobs, store=records, progress=NoProgress())
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
