"""Images go round: pushed and saved by us, pulled and loaded by docker and podman, and back, the same to the digest."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import Engine, needs, running
from harness import Cloison, Roots
from registry_fixture import Layout, Registry, is_available, running_registry, tar_of

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not is_available(), reason="needs Debian's docker-registry and skopeo"),
]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="cloison-e", dir="/var/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def registry(home: Path) -> Iterator[Registry]:
    layout = Layout(home / "oci")
    layout.add_image([(tar_of({"etc/base": b"b" * 9000}), "gzip"), (tar_of({"etc/top": b"t"}), "gzip")], tag="app")
    with running_registry(home / "registry") as found:
        found.push(layout.path, "oci:1", "--preserve-digests", tag="app")
        found.push(layout.path, "docker:1", "--format", "v2s2", tag="app")
        yield found


@pytest.fixture(scope="module")
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture(scope="module")
def docker(home: Path) -> Iterator[Engine]:
    needs("dockerd", "docker")
    run = Path(tempfile.mkdtemp(prefix="cloison-d", dir="/run"))
    engine = Engine("docker", "-H", f"unix://{run}/sock")
    argv = [
        "dockerd", "--data-root", str(home / "docker"), "--exec-root", str(run / "exec"), "--pidfile", str(run / "pid"),
        "-H", f"unix://{run}/sock", "--bridge", "none", "--iptables=false", "--ip6tables=false",
        "--storage-driver", "vfs",
    ]  # fmt: skip
    for _ in running(argv, home / "docker.log", lambda: engine("version").returncode == 0):
        yield engine
    shutil.rmtree(run, ignore_errors=True)


@pytest.fixture(scope="module")
def podman(home: Path) -> Iterator[Engine]:
    needs("podman")
    run = Path(tempfile.mkdtemp(prefix="cloison-p", dir="/run"))
    yield Engine(
        "podman", "--root", str(home / "podman"), "--runroot", str(run), "--tmpdir", str(run / "tmp"),
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
    )  # fmt: skip
    shutil.rmtree(run, ignore_errors=True)


def manifest_at(registry: Registry, name: str) -> bytes:
    """What skopeo sees there."""
    place = f"docker://{registry.address}/{name}"
    done = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", place], capture_output=True, check=True)
    return done.stdout


def blobs_at(registry: Registry, name: str) -> list[str]:
    """Digests of the configuration and the layers."""
    manifest = json.loads(manifest_at(registry, name))
    return [item["digest"] for item in (manifest["config"], *manifest["layers"])]


def id_in(engine: Engine, name: str) -> str:
    return engine.ok("image", "inspect", "--format", "{{.Id}}", name).removeprefix("sha256:")


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_pushed_by_us_pulled_by_docker_and_back(
    command: Cloison, docker: Engine, registry: Registry, form: str
) -> None:
    ours, theirs = f"{registry.address}/{form}-ours:1", f"{registry.address}/{form}-theirs:1"
    here = command.ok("pull", "-q", f"{registry.address}/{form}:1")
    command.ok("push", "-q", here, ours)
    assert manifest_at(registry, f"{form}-ours:1") == manifest_at(registry, f"{form}:1")
    docker.ok("pull", "-q", ours)
    image_id = command.inspect(here)["Id"]
    assert f"sha256:{id_in(docker, ours)}" == image_id
    docker.ok("tag", ours, theirs)
    docker.ok("push", "-q", theirs)
    assert blobs_at(registry, f"{form}-theirs:1") == blobs_at(registry, f"{form}:1")
    back = command.ok("pull", "-q", theirs)
    assert command.inspect(back)["Id"] == image_id


def test_pushed_by_us_pulled_by_podman_and_back(command: Cloison, podman: Engine, registry: Registry) -> None:
    ours, theirs = f"{registry.address}/p-ours:1", f"{registry.address}/p-theirs:1"
    here = command.ok("pull", "-q", f"{registry.address}/oci:1")
    command.ok("push", "-q", here, ours)
    podman.ok("pull", "-q", "--tls-verify=false", ours)
    image_id = command.inspect(here)["Id"]
    assert f"sha256:{id_in(podman, ours)}" == image_id
    podman.ok("push", "-q", "--tls-verify=false", "--remove-signatures", ours, theirs)
    assert command.inspect(command.ok("pull", "-q", theirs))["Id"] == image_id


@pytest.mark.parametrize("kind", ["docker", "podman"])
def test_saved_by_us_loaded_by_them_and_back(
    command: Cloison, registry: Registry, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    engine: Engine = request.getfixturevalue(kind)
    name = command.ok("pull", "-q", f"{registry.address}/oci:1")
    image_id = command.inspect(name)["Id"]
    command.ok("save", "-o", str(tmp_path / "ours.tar"), name)
    assert f"Loaded image: {name}" in engine.ok("load", "-i", str(tmp_path / "ours.tar"))
    assert f"sha256:{id_in(engine, name)}" == image_id
    engine.ok("save", "-o", str(tmp_path / "theirs.tar"), name)
    command.ok("rmi", "-f", name)
    assert command.ok("load", "-i", str(tmp_path / "theirs.tar")) == f"Loaded image: {name}"
    assert command.inspect(name)["Id"] == image_id


@pytest.mark.parametrize("form", ["oci-archive", "oci-dir"])
def test_ocis_forms_go_to_podman_and_back(
    command: Cloison, podman: Engine, registry: Registry, tmp_path: Path, form: str
) -> None:
    name = command.ok("pull", "-q", f"{registry.address}/oci:1")
    image_id = command.inspect(name)["Id"]
    command.ok("save", "--format", form, "-o", str(tmp_path / "ours"), name)
    podman.ok("load", "-i", str(tmp_path / "ours"))
    assert image_id.removeprefix("sha256:") in podman.ok("images", "-q", "--no-trunc")
    podman.ok("save", "--format", form, "-o", str(tmp_path / "theirs"), image_id.removeprefix("sha256:"))
    command.ok("rmi", "-f", name)
    assert command.ok("load", "-i", str(tmp_path / "theirs")).startswith("Loaded image")
    assert command("image", "exists", image_id).returncode == 0
