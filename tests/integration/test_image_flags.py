"""Flags of the image verbs, on real images: platforms, directories, the tree, URLs, lists."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison, Roots
from registry_fixture import Layout, Registry, is_available, running_registry, tar_of
from scripted_registry import ScriptedRegistry

pytestmark = pytest.mark.skipif(not is_available(), reason="needs Debian's docker-registry and skopeo")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    root = tmp_path_factory.mktemp("registry")
    layout = Layout(root / "oci")
    base = (tar_of({"etc/base": b"base" * 1000}), "gzip")
    members = [
        layout.add_image([base, (tar_of({"etc/arch": name.encode()}), "gzip")], architecture=name)
        for name in ("amd64", "arm64")
    ]
    layout.add_index(members, tag="multi")
    with running_registry(root / "registry") as running:
        running.push(layout.path, "multi:1", "--all", "--preserve-digests", tag="multi")
        yield running


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture
def multi(command: Cloison, registry: Registry) -> str:
    return command.ok("pull", "-q", "--platform", "linux/amd64", f"{registry.address}/multi:1")


OTHER = ("--platform", "linux/arm64")
MISMATCH = "its platform (linux/amd64) does not match the specified platform (linux/arm64)"


def test_an_image_for_another_platform_is_not_taken_for_the_wanted_one(command: Cloison, multi: str) -> None:
    for words in (["history"], ["save"], ["image", "inspect"], ["rmi"]):
        refused = command(*words, *OTHER, multi)
        assert (refused.returncode, MISMATCH in refused.stderr) == (1, True), words
        assert refused.stdout in ("", "[]\n")
    for words in (["history"], ["image", "inspect"], ["rmi"]):
        command.ok(*words, "--platform", "linux/amd64", multi)


def test_an_archive_is_loaded_for_one_platform_or_not_at_all(
    command: Cloison, registry: Registry, tmp_path: Path
) -> None:
    archive = tmp_path / "multi.tar"
    name = f"docker://{registry.address}/multi:1"
    command.ok("copy", "-q", "--all", name, f"oci-archive:{archive}:named/multi:1")
    assert command.ok("load", *OTHER, "-i", str(archive)) == "Loaded image: named/multi:1"
    assert command.inspect("named/multi:1")["Architecture"] == "arm64"
    refused = command("load", "--platform", "linux/s390x", "-i", str(archive))
    assert refused.returncode == 1
    assert "no image for" in refused.stderr or "s390x" in refused.stderr
    command.ok("copy", "-q", name, f"docker-archive:{archive}:one/arch:1")
    refused = command("load", *OTHER, "-i", str(archive))
    assert (refused.returncode, "no image for platform linux/arm64 in the archive: it has linux/amd64" in refused.stderr
            ) == (1, True)  # fmt: skip
    assert "one/arch" not in command.ok("images")


@pytest.mark.parametrize("form", ["oci-dir", "docker-dir"])
def test_a_directory_is_saved_and_skopeo_reads_it(command: Cloison, multi: str, tmp_path: Path, form: str) -> None:
    target = tmp_path / "saved"
    compress = ["--compress"] if form == "docker-dir" else []
    command.ok("save", "--format", form, *compress, "-o", str(target), multi)
    place = f"oci:{target}:{multi}" if form == "oci-dir" else f"dir:{target}"
    done = subprocess.run(["skopeo", "inspect", place], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["Architecture"] == "amd64"
    raw = json.loads(subprocess.run(["skopeo", "inspect", "--raw", place], capture_output=True, check=True).stdout)
    assert raw["mediaType"].startswith("application/vnd." + ("oci" if form == "oci-dir" else "docker"))
    if form == "oci-dir":
        command.ok("rmi", multi)
        assert command.ok("load", "-i", str(target)) == f"Loaded image: {multi}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compress", "-o", "x"], "--compress can only be set"),
        (["--format", "oci-dir"], "writes one image to the directory of --output"),
        (["--format", "tarball", "-o", "x"], "unknown archive format"),
    ],
)
def test_save_refuses_what_makes_no_sense(command: Cloison, multi: str, words: list[str], message: str) -> None:
    refused = command("save", *words, multi)
    assert refused.returncode == 1
    assert message in refused.stderr


def test_a_directory_that_is_no_layout_is_refused(command: Cloison, tmp_path: Path) -> None:
    refused = command("load", "-i", str(tmp_path))
    assert refused.returncode == 1
    assert "is no OCI layout: it has no index.json" in refused.stderr


def test_a_layout_with_a_link_in_it_is_refused(command: Cloison, tmp_path: Path) -> None:
    (tmp_path / "index.json").symlink_to("/etc/passwd")
    refused = command("load", "-i", str(tmp_path))
    assert refused.returncode == 1
    assert "index.json" in refused.stderr
    assert "root:" not in refused.stderr + refused.stdout


def test_the_tree_has_every_platform_and_what_is_here_of_it(command: Cloison, registry: Registry, multi: str) -> None:
    lines = [line.split() for line in command.ok("images", "--tree").splitlines()]
    assert lines[0] == ["IMAGE", "ID", "DISK", "USAGE", "CONTENT", "SIZE", "EXTRA"]
    assert lines[1][0] == multi
    assert [line[:2] for line in lines[2:]] == [["├─", "linux/amd64"], ["└─", "linux/arm64"]]
    assert lines[3][3:] == ["0B", "0B"]
    command.ok("pull", "-q", "--all-platforms", multi)
    both = [line.split() for line in command.ok("images", "--tree").splitlines()]
    assert both[3][3] == "0B" != both[3][4]
    assert "--quiet is not supported with --tree" in command("images", "--tree", "--quiet").stderr


def test_images_are_sorted_chosen_by_id_and_listed_without_headings(command: Cloison, multi: str) -> None:
    command.ok("tag", multi, "a:2")
    command.ok("tag", multi, "b:1")
    names = command.ok("images", "--sort", "tag", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert [name.rpartition(":")[2] for name in names] == ["1", "1", "2"]
    assert [line.split()[0] for line in command.ok("images", "-n", "--sort", "repository").splitlines()][1:] == [
        "a",
        "b",
    ]
    image_id = command.inspect(multi)["Id"]
    assert len(command.ok("images", "-n", "--filter", f"id={image_id[7:15]}").splitlines()) == 3
    assert command.ok("images", "-n", "--filter", "id=ffffffffffff") == ""
    assert "invalid sort key 'colour'" in command("images", "--sort", "colour").stderr


def test_all_images_are_removed_and_missing_ones_ignored(command: Cloison, multi: str) -> None:
    command.ok("tag", multi, "a:2")
    assert command("image", "exists", "a:2").returncode == 0
    assert command.ok("rmi", "--ignore", "nothing:here") == ""
    assert "requires at least 1 argument" in command("rmi").stderr
    assert "two things" in command("rmi", "--all", "a:2").stderr
    assert "Untagged: a:2" in command.ok("rmi", "--all", "--no-prune").splitlines()
    assert command.ok("images", "-q") == ""
    assert (gone := command("image", "exists", "a:2")).returncode == 1 and not gone.stderr


def test_the_older_word_prunes_all(command: Cloison, multi: str) -> None:
    command.ok("image", "prune", "-f", "--filter", "dangling=true")
    assert command.ok("images", "-q")
    assert "invalid filter 'dangling=perhaps'" in command("image", "prune", "-f", "--filter", "dangling=perhaps").stderr
    command.ok("image", "prune", "-f", "--filter", "dangling=false")
    assert command.ok("images", "-q") == ""


def test_a_root_file_system_comes_from_a_url(command: Cloison) -> None:
    archive = gzip.compress(tar_of({"etc/hello": b"hello\n"}))
    with ScriptedRegistry() as server:
        server.on("/rootfs.tar.gz", lambda e: e.answer(200, archive))
        server.on("/moved", lambda e: e.answer(302, location="/rootfs.tar.gz"))
        server.on("/broken", lambda e: e.answer(200, archive[:100], content_length=str(len(archive))))
        said = command("import", "--platform", "linux/arm64/v8", "-c", "CMD /x", f"{server.url}/moved", "web:1")
        assert said.returncode == 0, said.stderr
        assert said.stderr == f"Downloading from {server.url}/moved\n"
        found = command.inspect("web:1")
        assert (found["Id"], found["Architecture"], found["Variant"]) == (said.stdout.strip(), "arm64", "v8")
        missing = command("import", "-q", f"{server.url}/nothing", "web:2")
        assert missing.stderr.count("\n") == 1
        assert f"no such file: {server.url}/nothing" in missing.stderr
        assert command("import", f"{server.url}/broken", "web:2").returncode == 1
    assert command.ok("images", "-q", "web:2") == ""


def test_members_of_a_list_are_described_and_annotated(command: Cloison, registry: Registry) -> None:
    name, list_name = f"{registry.address}/multi:1", f"{registry.address}/list:1"
    command.ok("manifest", "create", "--all", list_name)
    command.ok("manifest", "add", "--arch", "riscv64", "--variant", "v1", "--annotation", "a=b", list_name, name)
    members = json.loads(command.ok("manifest", "inspect", list_name))["manifests"]
    assert {item["platform"]["architecture"] for item in members} == {"riscv64"}
    assert {item["annotations"]["a"] for item in members} == {"b"}
    digest = members[0]["digest"]
    command.ok("manifest", "annotate", "--annotation", "c=d=e", "--os-version", "1", list_name, digest)
    first = json.loads(command.ok("manifest", "inspect", list_name))["manifests"][0]
    assert first["annotations"] == {"a": "b", "c": "d=e"}
    assert command("manifest", "annotate", "--annotation", "c", list_name, digest).returncode == 125
    path = f"{command.roots.data_root}/digest"
    assert command.ok("manifest", "push", "-q", "--all", "--rm", "--digestfile", path, list_name) == ""
    assert Path(path).read_text().startswith("sha256:")
    assert command("manifest", "exists", list_name).returncode == 1


@pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
def test_tags_may_be_left_out_of_what_is_elsewhere(command: Cloison, registry: Registry) -> None:
    name = f"docker://{registry.address}/multi:1"
    assert json.loads(command.ok("inspect", name))["RepoTags"] == ["1"]
    assert json.loads(command.ok("inspect", "--no-tags", name))["RepoTags"] == []


@pytest.mark.parametrize(
    "words",
    [
        ["push", "--sign-by", "me", "a"],
        ["push", "--compress", "a"],
        ["copy", "--dest-compress", "dir:a", "dir:b"],
        ["save", "--uncompressed", "a"],
        ["images", "--history"],
        ["manifest", "push", "--sign-by", "me", "a"],
    ],
)
def test_what_is_not_done_is_refused_by_name(command: Cloison, words: list[str]) -> None:
    refused = command(*words)
    assert refused.returncode == 125
    assert "does not support the flag --" in refused.stderr
