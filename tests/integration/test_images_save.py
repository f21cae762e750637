"""``save``: what it writes is read by skopeo and umoci, and by our own ``load``, with every digest as it was."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison, Roots, missing_tools
from image_store import Store
from registry_fixture import Layout
from unpack_fixture import archive, describe, file, folder, symlink

BASE = archive(folder("."), folder("etc"), file("etc/base", b"base", mode=0o4711, uid=7), file("gone", b"x"))
TOP = archive(file("etc/top", b"top"), file(".wh.gone", b""), symlink("link", "etc/top"))


@pytest.fixture
def store() -> Iterator[Store]:
    roots = Roots()
    yield Store(roots)
    roots.remove()


@pytest.fixture
def other() -> Iterator[Store]:
    roots = Roots()
    yield Store(roots)
    roots.remove()


@pytest.fixture
def images(store: Store, tmp_path: Path) -> Store:
    """Two images that share a layer; one has two names."""
    layout = Layout(tmp_path / "layout")
    layout.add_image([(BASE, "gzip"), (TOP, "zstd")], tag="example.org/app:1")
    layout.add_image([(BASE, "gzip")], tag="app:base")
    tar = subprocess.run(["tar", "-C", layout.path, "-c", "."], check=True, capture_output=True).stdout
    store.images.load(io.BytesIO(tar))
    store.images.tag("example.org/app:1", "example.org/app:second")
    return store


def saved(store: Store, *names: str, form: str = "docker-archive") -> bytes:
    out = io.BytesIO()
    store.images.save(names, out, form=form)
    return out.getvalue()


def contents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = [info for info in tar if info.isreg()]
        found = {info.name: tar.extractfile(info).read() for info in names}  # type: ignore[union-attr]
    assert len(found) == len(names), "a member is in the archive twice"
    return found


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_is_saved_is_loaded_with_the_same_digests(images: Store, other: Store, form: str) -> None:
    data = saved(images, "example.org/app:1", "example.org/app:second", "app:base", form=form)
    loaded = other.images.load(io.BytesIO(data))
    assert sorted(loaded) == ["app:base", "example.org/app:1", "example.org/app:second"]
    for name in loaded:
        one, two = images.images.find(name), other.images.find(name)
        assert (one.id, one.layers, one.size_bytes) == (two.id, two.layers, two.size_bytes)
        if form == "oci-archive":
            assert one.digest == two.digest
    trees = [describe(made.tree("example.org/app:1")) for made in (other, images)]
    for tree in trees:
        del tree["gone"]  # a whiteout has no time of its own
    assert trees[0] == trees[1]


def test_every_blob_is_there_once_under_its_digest(images: Store) -> None:
    data = saved(images, "example.org/app:1", "app:base")
    blobs = {name: body for name, body in contents(data).items() if name.startswith("blobs/")}
    assert all(hashlib.sha256(body).hexdigest() == name.rpartition("/")[2] for name, body in blobs.items())
    assert len(blobs) == 2 + 2 + 2  # layers, configurations, manifests
    assert data == saved(images, "example.org/app:1", "app:base")


def test_a_repository_stands_for_all_its_tags_and_an_id_for_no_name(images: Store) -> None:
    image = images.images.find("app:base")
    (entry,) = json.loads(contents(saved(images, "example.org/app"))["manifest.json"])
    assert entry["RepoTags"] == ["example.org/app:1", "example.org/app:second"]
    (entry,) = json.loads(contents(saved(images, image.id[7:19]))["manifest.json"])
    assert entry["RepoTags"] is None
    (entry,) = json.loads(contents(saved(images, "example.org/app:second"))["manifest.json"])
    assert entry["RepoTags"] == ["example.org/app:second"]


@pytest.mark.skipif(bool(missing_tools("skopeo")), reason="needs Debian's package skopeo")
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_copies_what_is_saved(images: Store, tmp_path: Path, form: str) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(saved(images, "app:base", form=form))
    source = f"{form}:{path}:{'docker.io/library/app:base' if form == 'docker-archive' else 'base'}"
    argv = ["skopeo", "--insecure-policy", "copy", "--quiet", source, f"dir:{tmp_path}/copy"]
    subprocess.run(argv, check=True, capture_output=True)
    image = images.images.find("app:base")
    manifest = (tmp_path / "copy/manifest.json").read_bytes()
    assert json.loads(manifest)["config"]["digest"] == image.id
    assert hashlib.sha256((tmp_path / "copy" / image.id[7:]).read_bytes()).hexdigest() == image.id[7:]
    if form == "oci-archive":
        assert manifest == images.blobs.read(image.digest)


@pytest.mark.skipif(bool(missing_tools("umoci")), reason="needs Debian's package umoci")
def test_umoci_unpacks_what_is_saved(images: Store, tmp_path: Path) -> None:
    layout, bundle = tmp_path / "saved", tmp_path / "bundle"
    layout.mkdir()
    data = saved(images, "app:base", form="oci-archive")
    subprocess.run(["tar", "-x", "-C", layout], input=data, check=True)
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:base", bundle], check=True, capture_output=True)
    assert describe(bundle / "rootfs", times=False) == describe(images.tree("app:base"), times=False)


@pytest.mark.skipif(bool(missing_tools("umoci", "skopeo")), reason="needs Debian's packages umoci and skopeo")
def test_a_committed_layer_means_the_same_to_umoci(cloison: Cloison, busybox_image: str, tmp_path: Path) -> None:
    script = "rm -r /etc; mkdir /etc; echo x > /etc/y; ln /etc/y /etc/z; rm /bin/ls; ln -s a /b; chmod 4700 /root"
    cloison.ok("run", "--name", "made", "--network", "none", busybox_image, "sh", "-c", script)
    cloison.ok("commit", "made", "made:1")
    cloison.ok("save", "--format", "oci-archive", "-o", f"{tmp_path}/made.tar", "made:1")
    (tmp_path / "layout").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "made.tar", "-C", tmp_path / "layout"], check=True)
    argv = ["umoci", "unpack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle"]
    subprocess.run(argv, check=True, capture_output=True)
    cloison.ok("export", "-o", f"{tmp_path}/export.tar", "made")
    (tmp_path / "exported").mkdir()
    subprocess.run(["tar", "-xpf", tmp_path / "export.tar", "-C", tmp_path / "exported"], check=True)
    ours, theirs = describe(tmp_path / "exported"), describe(tmp_path / "bundle/rootfs")
    del ours["."], theirs["."]
    assert ours == theirs
    cloison.ok("rm", "made")
    cloison.ok("rmi", "made:1")


def test_an_image_in_dockers_own_form_becomes_ocis_in_an_oci_archive(store: Store, tmp_path: Path) -> None:
    if missing_tools("skopeo"):
        pytest.skip("needs Debian's package skopeo")
    layout = Layout(tmp_path / "layout")
    layout.add_image([(BASE, "gzip")], tag="app:1")
    argv = ["skopeo", "--insecure-policy", "copy", "--quiet", "--format", "v2s2", f"oci:{layout.path}:app:1",
            f"dir:{tmp_path}/dir"]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    manifest = (tmp_path / "dir/manifest.json").read_bytes()
    index = {"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "size": len(manifest),
        "digest": "sha256:" + hashlib.sha256(manifest).hexdigest(), "annotations": {"io.containerd.image.name": "d:1"},
    }]}  # fmt: skip
    blobs = [manifest, *(path.read_bytes() for path in (tmp_path / "dir").iterdir() if len(path.name) == 64)]
    members = [file(f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob) for blob in blobs]
    store.images.load(io.BytesIO(archive(file("index.json", json.dumps(index).encode()), *members)))
    image = store.images.find("d:1")
    assert "docker" in json.loads(store.blobs.read(image.digest))["mediaType"]
    kept = contents(saved(store, "d:1"))
    assert kept[f"blobs/sha256/{image.digest[7:]}"] == manifest
    turned = contents(saved(store, "d:1", form="oci-archive"))
    assert not any(b"vnd.docker" in body for body in turned.values())
    assert f"blobs/sha256/{image.id[7:]}" in turned


def test_save_into_a_pipe_and_bad_words(cloison: Cloison, busybox_image: str, other: Store) -> None:
    environ = {**cloison.roots.environ, "CLOISON_DATA_ROOT": str(other.root)}
    piped = subprocess.run(cloison.argv("save", busybox_image), env=cloison.roots.environ, capture_output=True)
    done = subprocess.run(cloison.argv("load"), input=piped.stdout, env=environ, capture_output=True)
    assert done.stdout == b"Loaded image: busybox:latest\n", done.stderr
    result = cloison("save", "--format", "zip", busybox_image, "nothing")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "cloison: No such image: nothing:latest\n"
    assert "unknown archive format 'zip'" in cloison("save", "--format", "zip", busybox_image).stderr
