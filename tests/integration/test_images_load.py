"""Archives of docker, podman and skopeo are loaded; hostile ones are refused and leave nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cloison.errors import InvalidArgument, NotFound
from cloison.images.records import ImageStore
from harness import Roots
from image_store import Store
from registry_fixture import Layout, digest_of
from unpack_fixture import archive, file, folder, symlink


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


def test_an_oci_layout_is_loaded_from_a_tar_stream(store: Store, layout: Path) -> None:
    lines = store.images.load(io.BytesIO(tar_of_directory(layout)))
    assert list(lines) == ["example.org/app:1", "example.org/app:2"]
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
    assert store.load(target) == ["example.org/other:2"]
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
    assert store.load(saved) == ["example.org/podman:1"]
    assert store.images.find("example.org/podman:1").id == f"sha256:{expected}"


def test_a_layer_that_is_a_link_inside_the_archive_is_found(store: Store) -> None:
    files = parts(Layers=["second/layer.tar"])
    assert list(store.images.load(docker_archive(files, symlink("second/layer.tar", "../layer.tar")))) == ["app:1"]


def test_an_archive_without_names_gives_an_id(store: Store) -> None:
    (line,) = store.images.load(docker_archive(parts(tags=None)))
    image = store.images.find(line)
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
    assert store.is_empty(), store.content()


def test_a_failed_load_takes_nothing_that_somebody_counts_on(store: Store) -> None:
    shared = store.blobs.path(digest_of(BASE))
    with ImageStore(str(store.root)).incoming():  # a pull that has just seen the blob
        with pytest.raises(InvalidArgument):
            store.images.load(docker_archive({**parts(), "manifest.json": b"[{}]"}))
        assert os.path.exists(shared)
    store.images.collect()
    assert store.is_empty(), store.content()


def test_what_an_archive_has_beside_its_images_is_not_kept(store: Store) -> None:
    store.images.load(docker_archive({**parts(), "repositories": b"{}", "VERSION": b"1.0"}))
    image = store.images.find("app:1")
    assert set(store.blobs.list()) == {image.id, image.digest, digest_of(BASE)}


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


def test_layers_that_another_image_has_stay(store: Store, layout: Path) -> None:
    store.images.load(io.BytesIO(tar_of_directory(layout)))
    base = store.images.import_rootfs(io.BytesIO(BASE), "base")
    assert store.images.find("example.org/app:1").layers[0] == base.layers[0]
    store.images.remove(["example.org/app:1", "example.org/app:2"])
    assert list(store.snapshots.list_layers()) == list(base.layers)
    assert (store.tree("base") / "etc/base").exists()
