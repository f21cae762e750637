"""Copying between registries, directories and archives: skopeo, umoci and our own load read what we write, and back."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import Cloison, Roots
from registry_fixture import Layout, Registry, is_available, running_registry, tar_of

pytestmark = pytest.mark.skipif(not is_available(), reason="needs Debian's docker-registry and skopeo")
INSECURE = ("--src-tls-verify=false", "--dest-tls-verify=false")


@pytest.fixture(scope="module")
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("registry")
    layout = Layout(root / "oci")
    base = (tar_of({"etc/base": os.urandom(3 << 20)}), "gzip")
    layout.add_image([base, (tar_of({"etc/top": b"top"}), "zstd")], tag="app")
    members = [
        layout.add_image([base, (tar_of({"etc/arch": name.encode()}), "plain")], architecture=name)
        for name in ("amd64", "arm64")
    ]
    layout.add_index(members, tag="multi")
    with running_registry(root / "registry") as running:
        running.push(layout.path, "app:1", "--preserve-digests", tag="app")
        running.push(layout.path, "multi:1", "--all", "--preserve-digests", tag="multi")
        yield running


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def digest_of(place: str) -> str:
    check = ["--tls-verify=false"] if place.startswith("docker://") else []
    return str(json.loads(skopeo("inspect", *check, place))["Digest"])


def raw(name: str) -> tuple[dict[str, Any], str]:
    """A manifest on a registry and its digest."""
    text = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    return json.loads(text), "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_manifests_become_dockers_and_ocis_again_over_the_same_blobs(command: Cloison, registry: Registry) -> None:
    host = registry.address
    command.ok("copy", "-q", "--all", "--format", "v2s2", f"docker://{host}/multi:1", f"docker://{host}/d:all")
    index, digest = raw(f"{host}/d:all")
    assert index["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    assert digest_of(f"docker://{host}/d:all") == digest
    here = command.ok("pull", "-q", f"{host}/d:all")
    assert command.inspect(here)["Id"] == command.inspect(command.ok("pull", "-q", f"{host}/multi:1"))["Id"]
    command.ok("push", "-q", "--format", "oci", here, f"{host}/d:one")
    assert raw(f"{host}/d:one")[0]["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    command.ok("copy", "-q", "--all", "--format", "oci", f"docker://{host}/d:all", f"docker://{host}/d:back")
    assert raw(f"{host}/d:back")[0]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    skopeo("copy", "--all", *INSECURE, f"docker://{host}/d:all", f"docker://{host}/d:theirs")


def test_skopeos_conversion_and_ours_name_the_same_blobs(command: Cloison, registry: Registry) -> None:
    host = registry.address
    skopeo("copy", *INSECURE, "--format", "v2s2", f"docker://{host}/multi:1", f"docker://{host}/t:skopeo")
    command.ok("copy", "-q", "--format", "v2s2", f"docker://{host}/multi:1", f"docker://{host}/t:ours")
    theirs, ours = raw(f"{host}/t:skopeo")[0], raw(f"{host}/t:ours")[0]
    assert ours["config"] == theirs["config"]
    assert ours["layers"][0] == theirs["layers"][0]


def test_what_dockers_schema_has_no_word_for_is_refused_and_nothing_is_left(
    command: Cloison, registry: Registry
) -> None:
    host = registry.address
    failed = command("copy", "--format", "v2s2", f"docker://{host}/app:1", f"docker://{host}/zstd:1")
    assert failed.returncode == 1
    assert "zstd layer, which Docker's schema 2 does not know" in failed.stderr
    assert "zstd" not in command.ok("registry", "catalog", host).split()
    kept = command("copy", "--format", "oci", "--preserve-digests", f"docker://{host}/app:1", f"docker://{host}/zstd:1")
    assert kept.returncode == 125
    assert "forbids it" in kept.stderr


@pytest.mark.parametrize("form", ["oci", "oci-archive", "dir"])
def test_what_we_copy_to_a_file_skopeo_reads_and_we_read_again(
    command: Cloison, registry: Registry, tmp_path: Path, form: str
) -> None:
    name = f"docker://{registry.address}/app:1"
    place = f"{form}:{tmp_path}/copy" + ("" if form == "dir" else ":tag")
    said = command.ok("copy", name, place)
    digest = digest_of(name)
    assert said.splitlines()[-1] == f"Digest: {digest}"
    assert digest_of(place) == digest
    back = f"docker://{registry.address}/back/{form}:2"
    command.ok("copy", "-q", place, back, "--digestfile", str(tmp_path / "digest"))
    assert (tmp_path / "digest").read_text() == digest == digest_of(back)
    leftovers = [path.name for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert not leftovers


@pytest.mark.parametrize("form", ["oci", "oci-archive", "dir"])
def test_all_platforms_are_copied_when_asked_for(
    command: Cloison, registry: Registry, tmp_path: Path, form: str
) -> None:
    name, place = f"docker://{registry.address}/multi:1", f"{form}:{tmp_path}/copy"
    command.ok("copy", "-q", "--all", name, place)
    raw = json.loads(skopeo("inspect", "--raw", place))
    assert len(raw["manifests"]) == 2
    skopeo("copy", "-q", "--all", *INSECURE, "--preserve-digests", place, f"docker://{registry.address}/all/{form}:1")
    assert digest_of(f"docker://{registry.address}/all/{form}:1") == digest_of(name)
    one = f"{form}:{tmp_path}/one"
    command.ok("copy", "-q", "--override-arch", "arm64", place, one)
    assert json.loads(skopeo("inspect", one))["Architecture"] == "arm64"


@pytest.mark.parametrize("form", ["oci", "oci-archive", "dir", "docker-archive"])
def test_what_skopeo_wrote_we_copy_on(command: Cloison, registry: Registry, tmp_path: Path, form: str) -> None:
    place = f"{form}:{tmp_path}/theirs"
    skopeo("copy", "-q", *INSECURE, "--override-os=linux", f"docker://{registry.address}/multi:1", place)
    target = f"docker://{registry.address}/theirs/{form}:1"
    command.ok("copy", "-q", place, target)
    command.ok("pull", "-q", target)
    assert command.ok("images", "-q", target.removeprefix("docker://"))
    if form != "docker-archive":  # that one keeps no manifest
        assert digest_of(target) == digest_of(place)


def test_a_docker_archive_of_ours_is_loaded_by_skopeo_and_by_us(
    command: Cloison, registry: Registry, tmp_path: Path
) -> None:
    place = f"docker-archive:{tmp_path}/a.tar:example.test/app:7"
    command.ok("copy", "-q", f"docker://{registry.address}/multi:1", place)
    assert json.loads(skopeo("inspect", place))["Architecture"] == "amd64"
    assert "example.test/app:7" in command.ok("load", "-i", str(tmp_path / "a.tar"))
    data = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(data))
    command.ok("copy", "-q", f"docker-archive:{tmp_path}/a.tar.gz:example.test/app:7", f"oci:{tmp_path}/oci:x")
    assert json.loads(skopeo("inspect", f"oci:{tmp_path}/oci:x"))["Os"] == "linux"
    whole = command("copy", "--all", f"docker://{registry.address}/multi:1", f"docker-archive:{tmp_path}/b.tar")
    assert whole.returncode == 1
    assert "one platform" in whole.stderr
    assert not (tmp_path / "b.tar").exists()


@pytest.mark.skipif(not shutil.which("umoci"), reason="needs umoci")
def test_umoci_unpacks_our_layout_with_several_images(command: Cloison, registry: Registry, tmp_path: Path) -> None:
    for tag in ("one", "two", "two"):
        command.ok("copy", "-q", f"docker://{registry.address}/multi:1", f"oci:{tmp_path}/oci:{tag}")
    done = subprocess.run(["umoci", "ls", "--layout", tmp_path / "oci"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["one", "two"]
    subprocess.run(["umoci", "unpack", "--image", f"{tmp_path}/oci:two", tmp_path / "bundle"], check=True)
    assert (tmp_path / "bundle/rootfs/etc/arch").read_text() == "amd64"
    unclear = command("copy", f"oci:{tmp_path}/oci", f"dir:{tmp_path}/x")
    assert "cannot choose an image" in unclear.stderr
    assert not (tmp_path / "x").exists()


def test_an_image_that_is_here_is_copied_out_of_the_store(command: Cloison, registry: Registry, tmp_path: Path) -> None:
    command.ok("pull", "-q", f"{registry.address}/app:1")
    command.ok("copy", "-q", f"store:{registry.address}/app:1", f"oci:{tmp_path}/oci:here")
    assert digest_of(f"oci:{tmp_path}/oci:here") == digest_of(f"docker://{registry.address}/app:1")


def test_a_copy_that_fails_is_one_line_and_leaves_nothing(command: Cloison, registry: Registry, tmp_path: Path) -> None:
    command.ok("copy", "-q", f"docker://{registry.address}/app:1", f"oci:{tmp_path}/good:t")
    blobs = sorted((tmp_path / "good/blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    damaged = bytearray(blobs[-1].read_bytes())
    damaged[1000] ^= 1
    blobs[-1].write_bytes(damaged)
    targets = (f"dir:{tmp_path}/d", f"oci:{tmp_path}/o:t", f"oci-archive:{tmp_path}/a.tar",
               f"docker-archive:{tmp_path}/b.tar:x:y", f"docker://{registry.address}/damaged:1")  # fmt: skip
    for target in targets:
        failed = command("copy", f"oci:{tmp_path}/good:t", target)
        assert failed.returncode == 1
        assert f"blob sha256:{blobs[-1].name} does not match" in failed.stderr
        assert failed.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["good"]
    assert command("registry", "tags", f"{registry.address}/damaged").returncode == 1


@pytest.mark.parametrize(
    "words", [("debian", "dir:x"), ("docker:debian", "dir:x"), ("oci:", "dir:x"), ("dir:/nonexistent", "dir:/x"),
              ("oci-archive:/none", "dir:/x"), ("docker-archive:/etc/passwd", "dir:/x"), ("dir:/etc", "store:x")],
)  # fmt: skip
def test_words_that_name_no_place_are_one_line(command: Cloison, words: tuple[str, str]) -> None:
    failed = command("copy", *words)
    assert failed.returncode == 1
    assert failed.stderr.startswith("cloison: ")
    assert "Traceback" not in failed.stderr
    assert not os.path.exists("/x")


# --- looking ----------------------------------------------------------------------------------------------------------


def test_inspect_shows_what_skopeo_shows(command: Cloison, registry: Registry) -> None:
    name = f"docker://{registry.address}/multi:1"
    ours = json.loads(command.ok("inspect", name))
    theirs = json.loads(skopeo("inspect", "--tls-verify=false", name))
    assert {key: ours[key] for key in theirs} == theirs
    raw = command.ok("inspect", "--raw", name)
    assert json.loads(raw) == json.loads(skopeo("inspect", "--raw", "--tls-verify=false", name))
    assert json.loads(command.ok("image", "inspect", "--config", name))["architecture"] == "amd64"
    assert command.ok("inspect", "-f", "{{.Os}}/{{.Architecture}}", "--platform", "linux/arm64", name) == "linux/arm64"
    missing = command("inspect", f"docker://{registry.address}/none:1")
    assert missing.returncode == 1
    assert "not found" in missing.stderr


# --- manifest lists ---------------------------------------------------------------------------------------------------


def test_a_list_is_made_annotated_pushed_and_pulled(command: Cloison, registry: Registry, tmp_path: Path) -> None:
    host = registry.address
    for arch in ("amd64", "arm64"):
        command.ok("copy", "-q", "--override-arch", arch, f"docker://{host}/multi:1", f"docker://{host}/one/{arch}:1")
    name = f"{host}/made:1"
    assert command("manifest", "exists", name).returncode == 1
    said = command.ok("manifest", "create", name, f"{host}/one/amd64:1", f"docker://{host}/one/arm64:1")
    assert said == f"Created manifest list {name}"
    again = command("manifest", "create", name, f"{host}/app:1")
    assert again.returncode == 1
    assert "--amend" in again.stderr
    command.ok("manifest", "annotate", "--variant", "v8", "--os-features", "a,b", name, f"{host}/one/arm64:1")
    shown = json.loads(command.ok("manifest", "inspect", name))
    platforms = [item["platform"] for item in shown["manifests"]]
    assert platforms == [
        {"architecture": "amd64", "os": "linux"},
        {"architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["a", "b"]},
    ]
    digest = command.ok("manifest", "push", "-p", name)
    assert digest == digest_of(f"docker://{name}")
    assert command("manifest", "exists", name).returncode == 1
    assert json.loads(command.ok("manifest", "inspect", name)) == shown
    verbose = json.loads(command.ok("manifest", "inspect", "-v", name))
    assert [item["Descriptor"]["platform"]["architecture"] for item in verbose] == ["amd64", "arm64"]
    skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/all")


def test_a_list_goes_to_another_registry_with_its_members(command: Cloison, registry: Registry, tmp_path: Path) -> None:
    name = f"{registry.address}/list:2"
    command.ok("manifest", "create", name, f"{registry.address}/multi:1")
    with running_registry(tmp_path / "other") as other:
        digest = command.ok("manifest", "push", name, f"docker://{other.address}/far:1")
        assert digest_of(f"docker://{other.address}/far:1") == digest
    arm = json.loads(command.ok("manifest", "inspect", name))["manifests"][1]["digest"]
    command.ok("manifest", "remove", name, arm)
    assert len(json.loads(command.ok("manifest", "inspect", name))["manifests"]) == 1
    command.ok("manifest", "add", name, f"{registry.address}/multi:1")
    command.ok("manifest", "rm", name)
    gone = command("manifest", "rm", name)
    assert gone.returncode == 1
    assert gone.stderr == f"cloison: No such manifest: {name}\n"
