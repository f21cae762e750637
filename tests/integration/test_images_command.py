"""The image verbs as a user types them: what docker's users know, bad input, a full disk."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import NoSpace
from harness import Cloison, Roots
from image_store import Store
from registry_fixture import Layout, Registry, digest_of, is_available, running_registry
from unpack_fixture import archive, file, folder, symlink


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Roots]:
    """Roots whose data root can be mounted anew, smaller and smaller."""
    mount = tmp_path / "small"
    mount.mkdir()
    roots = Roots(data_root=str(mount))
    yield roots
    roots.remove()


def busybox(*more: str) -> bytes:
    binary = Path("/bin/busybox")
    if not binary.exists():
        pytest.skip("needs Debian's package busybox-static")
    programs = [symlink(f"bin/{name}", "busybox") for name in ("sh", "ls", "cat")]
    return archive(
        folder("."), folder("bin"), file("bin/busybox", binary.read_bytes(), mode=0o755), *programs,
        *(file(name) for name in more),
    )  # fmt: skip


def docker_archive(*layers: bytes, tag: str) -> bytes:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [*map(digest_of, layers)]},
    }
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": names}]
    members = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    return archive(*(file(name, data) for name, data in {**members, **dict(zip(names, layers, strict=True))}.items()))


def files_below(root: str) -> list[str]:
    """All files that are not the lasting locks."""
    found = [os.path.join(directory, name) for directory, _, names in os.walk(root) for name in names]
    return [path for path in found if not path.endswith(("images/lock", "images/incoming.lock"))]


def test_what_a_layer_with_an_opaque_root_deletes_is_gone_in_a_container(command: Cloison, tmp_path: Path) -> None:
    below = archive(folder("."), file("gone"), folder("old"), file("old/gone"))
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(below, archive(file(".wh..wh..opq", b"")), busybox("here"), tag="opaque:1"))
    assert command.ok("load", "-i", str(path)) == "Loaded image: opaque:1"
    shown = command.ok("run", "--rm", "--network", "none", "opaque:1", "ls", "/").split()
    assert "here" in shown
    assert not {"gone", "old"} & set(shown)


def test_a_directory_is_imported_and_runs(command: Cloison, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (tmp_path / "bin/busybox").chmod(0o755)
    image_id = command.ok("import", "-c", 'CMD ["/bin/busybox", "echo", "hello"]', str(tmp_path), "mine:1")
    assert command.ok("run", "--rm", "--network", "none", "mine:1") == "hello"
    assert command.ok("images", "-q", "--no-trunc") == image_id
    assert command.ok("rmi", image_id).startswith("Untagged: mine:1\nDeleted: sha256:")


def test_inspect_names_layers_by_their_diff_ids(command: Cloison, tmp_path: Path) -> None:
    layers = [archive(file(name)) for name in "ab"]
    path = tmp_path / "image.tar"
    path.write_bytes(docker_archive(*layers, tag="two:1"))
    assert command.ok("load", "-q", "-i", str(path)) == "Loaded image: two:1"
    document = command.inspect("two:1")
    assert document["RootFS"]["Layers"] == [digest_of(layer) for layer in layers]
    assert document["RepoDigests"] == []


BAD = {
    "missing archive": (["load", "-i", "missing-file"], "open missing-file: no such file or directory"),
    "missing archive, long": (["image", "load", "--input", "missing-file"], "open missing-file: no such file"),
    "a directory as an archive": (["load", "-i", "."], "the directory . is no OCI layout: it has no index.json"),
    "garbage to load": (["load", "-i", "garbage"], "invalid archive"),
    "garbage to import": (["import", "garbage", "x"], "invalid archive"),
    "short garbage": (["import", "short", "x"], "invalid archive"),
    "nothing to import": (["import", "empty", "x"], "the archive is empty"),
    "nothing to load": (["load", "-i", "empty"], "neither a docker-archive (manifest.json) nor an OCI layout"),
    "missing root": (["import", "nowhere"], "open nowhere: no such file or directory"),
    "bad change": (["import", "-c", "FOO bar", ".", "x"], "FOO is not a valid change command"),
    "bad name to import": (["import", ".", "Upper"], "must be lowercase"),
    "bad name to tag": (["tag", "nothing", "Not a Name"], "invalid reference format"),
    "digest to tag": (["tag", "nothing", "x@sha256:" + "0" * 64], "refusing to create a tag with a digest reference"),
    "unknown image to tag": (["tag", "nothing", "x"], "No such image: nothing:latest"),
    "unknown image to remove": (["rmi", "nothing"], "No such image: nothing:latest"),
    "bad name to pull": (["pull", "Not a Name"], "invalid reference format"),
    "bad platform": (["pull", "--platform", "a/b/c/d", "x"], "invalid platform 'a/b/c/d'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(command: Cloison, tmp_path: Path, case: str) -> None:
    words, message = BAD[case]
    for name, data in (("garbage", b"\x01no archive at all" * 100), ("short", b"garbage\n"), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
    result = subprocess.run(
        command.argv(*words), cwd=tmp_path, env=command.roots.environ, capture_output=True, text=True, timeout=30
    )
    lines = [line for line in result.stderr.splitlines() if not line.startswith("hint: ")]
    assert (result.returncode, len(lines)) == (1, 1), result.stderr
    assert lines[0].startswith("cloison: ") and message in lines[0]
    assert result.stdout in ("", "Using default tag: latest\n")
    assert files_below(command.roots.data_root) == []


def test_a_forced_removal_of_what_is_not_there_is_said_and_no_failure(command: Cloison) -> None:
    result = command("rmi", "-f", "nothing")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "cloison: No such image: nothing:latest\n"


# --- a full disk


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if not is_available():
        pytest.skip("needs Debian's docker-registry and skopeo")
    root = tmp_path_factory.mktemp("registry")
    layout = Layout(root / "oci")
    layers = [(archive(file(f"f{number}", os.urandom(40_000))), kind) for number, kind in enumerate(("gzip", "plain"))]
    layout.add_image(layers, tag="app")
    with running_registry(root / "registry") as running:
        running.push(layout.path, "app:1", tag="app")
        yield running


LIMITS = [*(f"size={size}k" for size in range(4, 240, 12)), *(f"size=1m,nr_inodes={count}" for count in range(4, 30))]


def test_wherever_the_disk_is_full_a_pull_or_an_import_leaves_nothing(small: Roots, registry: Registry) -> None:
    brought = 0
    for limit in LIMITS:
        for verb in ("pull", "import"):
            mount = ["mount", "-t", "tmpfs", "-o", f"{limit},mode=0700", "cloison-test", small.data_root]
            subprocess.run(mount, check=True)
            try:
                brought += brings(Store(small), registry, verb=verb)
            finally:
                subprocess.run(["umount", small.data_root], check=True)
            (Path(small.run_root) / "boot").unlink(missing_ok=True)
    assert 0 < brought < 2 * len(LIMITS)  # some had room, some had not


def brings(store: Store, registry: Registry, *, verb: str) -> bool:
    try:
        if verb == "pull":
            store.images.pull(f"{registry.address}/app:1")
        else:
            store.images.import_rootfs(io.BytesIO(archive(file("f", os.urandom(60_000)))), "x")
    except NoSpace as error:
        assert "no space left on device" in str(error)
        assert files_below(str(store.root)) == []
        return False
    return True
