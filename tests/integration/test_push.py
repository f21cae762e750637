"""Pushing to real registries and logging in there: what we push, skopeo reads, byte for byte; and back."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import Authority
from harness import Cloison, Roots
from registry_fixture import Layout, Registry, htpasswd, is_available, running_registry, tar_of

pytestmark = pytest.mark.skipif(
    not (is_available() and shutil.which("openssl") and shutil.which("perl")),
    reason="needs Debian's docker-registry, skopeo, openssl and perl",
)
USER, PASSWORD = "ali", "open sesame"


def skopeo(*words: str, check: bool = True) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, timeout=60)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "oci")
    base = (tar_of({"etc/base": os.urandom(3 << 20)}), "gzip")
    layout.add_image([base, (tar_of({"etc/top": b"top"}), "zstd")], tag="app")
    members = [
        layout.add_image([base, (tar_of({"etc/arch": name.encode()}), "gzip")], architecture=name)
        for name in ("amd64", "arm64")
    ]
    layout.add_index(members, tag="multi")
    return layout


@pytest.fixture
def registry(tmp_path: Path, layout: Layout) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        running.push(layout.path, "app:1", "--preserve-digests", tag="app")
        running.push(layout.path, "multi:1", "--all", "--preserve-digests", tag="multi")
        yield running


def digest_at(registry: Registry, name: str) -> str:
    return skopeo(
        "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{registry.address}/{name}"
    ).strip()


def test_what_we_push_skopeo_copies_with_the_same_digests(command: Cloison, registry: Registry, tmp_path: Path) -> None:
    host = registry.address
    command.ok("pull", f"{host}/app:1")
    command.ok("tag", f"{host}/app:1", f"{host}/deep/er/copy:2")
    said = command.ok("push", f"{host}/deep/er/copy:2").splitlines()
    assert said[0] == f"The push refers to repository [{host}/deep/er/copy]"
    assert sum("Mounted from app" in line for line in said) == 2
    digest = digest_at(registry, "app:1")
    assert said[-1].startswith(f"2: digest: {digest} size: ")
    with running_registry(tmp_path / "other") as other:
        command.ok("tag", f"{host}/app:1", f"{other.address}/copy:3")
        said = command.ok("push", f"{other.address}/copy:3").splitlines()
        assert sum(line.endswith(": Pushed") for line in said) == 2
        assert digest_at(other, "copy:3") == digest
        again = command.ok("push", f"{other.address}/copy:3").splitlines()
        assert sum(line.endswith(": Layer already exists") for line in again) == 2
        source = f"docker://{other.address}/copy:3"
        skopeo("copy", "--quiet", "--src-tls-verify=false", "--preserve-digests", source, f"dir:{tmp_path}/dir")
        assert command.ok("push", "-q", f"{other.address}/copy:3") == f"{other.address}/copy:3"
    names = {path.name for path in (tmp_path / "dir").iterdir()}
    manifest = json.loads((tmp_path / "dir/manifest.json").read_text())
    assert {layer["digest"].partition(":")[2] for layer in manifest["layers"]} <= names


def test_what_was_made_here_is_pushed_compressed_and_twice_the_same(
    command: Cloison, registry: Registry, busybox_tar: bytes, tmp_path: Path
) -> None:
    (tmp_path / "root.tar").write_bytes(busybox_tar)
    name = f"{registry.address}/made:1"
    command.ok("import", f"{tmp_path}/root.tar", name)
    command.ok("push", "-q", name)
    pushed = digest_at(registry, "made:1")
    raw = json.loads(skopeo("inspect", "--tls-verify=false", "--raw", f"docker://{name}"))
    (layer,) = raw["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert layer["size"] < 0.8 * len(busybox_tar)
    command.ok("push", "-q", f"{registry.address}/made:1")
    assert digest_at(registry, "made:1") == pushed
    skopeo("copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/dir")


def test_an_image_for_all_platforms_is_pushed_with_all_or_with_one(command: Cloison, registry: Registry) -> None:
    host = registry.address
    command.ok("pull", "--all-platforms", f"{host}/multi:1")
    command.ok("pull", f"{host}/app:1")  # a collection in between must not take the other platforms away
    command.ok("rmi", f"{host}/app:1")
    command.ok("tag", f"{host}/multi:1", f"{host}/copy:all")
    command.ok("push", f"{host}/copy:all")
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{host}/copy:all"))
    assert {item["platform"]["architecture"] for item in raw["manifests"]} == {"amd64", "arm64"}
    command.ok("push", "--platform", "linux/arm64", f"{host}/multi:1", f"{host}/copy:arm")
    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{host}/copy:arm"))
    assert shown["Architecture"] == "arm64"
    failed = command("push", "--platform", "linux/s390x", f"{host}/multi:1", f"{host}/copy:none")
    assert failed.returncode == 1
    assert "no image for platform linux/s390x" in failed.stderr


def test_an_image_pulled_for_one_platform_is_pushed_as_that_one(command: Cloison, registry: Registry) -> None:
    host = registry.address
    command.ok("pull", "--platform", "linux/amd64", f"{host}/multi:1")
    command.ok("push", f"{host}/multi:1", f"docker://{host}/one:1", "--digestfile", f"{command.roots.data_root}/digest")
    digest = Path(f"{command.roots.data_root}/digest").read_text()
    assert digest == digest_at(registry, "one:1") != digest_at(registry, "multi:1")


def test_all_tags_are_pushed_and_pulled(command: Cloison, registry: Registry) -> None:
    host = registry.address
    command.ok("pull", f"{host}/app:1")
    for tag in ("a", "b"):
        command.ok("tag", f"{host}/app:1", f"{host}/many:{tag}")
    command.ok("push", "-a", f"{host}/many")
    assert sorted(command.ok("registry", "tags", f"{host}/many").split()) == ["a", "b"]
    listed = json.loads(command.ok("list-tags", f"docker://{host}/many"))
    assert (listed["Repository"], sorted(listed["Tags"])) == (f"{host}/many", ["a", "b"])
    command.ok("rmi", f"{host}/many:a", f"{host}/many:b")
    command.ok("pull", "-aq", f"{host}/many")
    assert len(command.ok("images", "-q", f"{host}/many").split()) == 1
    assert {"app", "many", "multi"} == set(command.ok("registry", "catalog", host).split())
    digest = command.ok("registry", "delete", f"{host}/many:a")
    assert digest == digest_at(registry, "app:1")
    assert "many:a not found" in command("pull", f"{host}/many:a").stderr


def test_a_push_of_nothing_or_by_digest_is_one_line(command: Cloison, registry: Registry) -> None:
    missing = command("push", f"{registry.address}/nothing:1")
    assert missing.returncode == 1
    assert missing.stderr == f"cloison: An image does not exist locally with the tag: {registry.address}/nothing\n"
    digest = command("push", f"{registry.address}/x@sha256:{'1' * 64}")
    assert digest.returncode == 1
    assert "push a tag" in digest.stderr


# --- login ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(tmp_path: Path, registry: Registry) -> Iterator[Registry]:
    """The same content behind a password."""
    with running_registry(tmp_path / "registry", auth=htpasswd(tmp_path / "users", user=USER, password=PASSWORD)) as it:
        yield it


def test_login_keeps_what_is_right_and_logout_forgets_it(command: Cloison, guarded: Registry) -> None:
    host = guarded.address
    config = Path(command.roots.environ["DOCKER_CONFIG"]) / "config.json"
    refused = command("pull", f"{host}/app:1")
    assert refused.returncode == 1
    assert f"cloison login {host}" in refused.stderr
    wrong = command("login", "-u", USER, "--password-stdin", host, input="wrong\n")
    assert wrong.returncode == 1
    assert "denies access" in wrong.stderr
    assert not config.exists()
    assert command.ok("login", "-u", USER, "--password-stdin", host, input=PASSWORD + "\n") == "Login Succeeded"
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert PASSWORD not in config.read_text()
    assert command.ok("login", "--get-login", host) == USER
    command.ok("pull", f"{host}/app:1")
    command.ok("tag", f"{host}/app:1", f"{host}/new:1")
    command.ok("push", f"{host}/new:1")
    # what we keep, skopeo reads
    assert "sha256:" in skopeo("inspect", "--tls-verify=false", "--authfile", str(config), f"docker://{host}/new:1")
    assert command.ok("logout", host) == f"Removing login credentials for {host}"
    assert command.ok("logout", host) == f"Not logged in to {host}"
    assert command("push", f"{host}/new:1").returncode == 1


def test_what_skopeo_logged_in_serves_us(command: Cloison, guarded: Registry, tmp_path: Path) -> None:
    host, auth = guarded.address, tmp_path / "auth.json"
    words = ["login", "--tls-verify=false", "--authfile", str(auth), "-u", USER, "-p", PASSWORD, host]
    skopeo(*words)
    assert command("pull", f"{host}/app:1").returncode == 1
    command.ok("pull", f"{host}/app:1", REGISTRY_AUTH_FILE=str(auth))
    command.ok("pull", "--authfile", str(auth), f"{host}/multi:1")
    command.ok("push", "--creds", f"{USER}:{PASSWORD}", f"{host}/multi:1", f"{host}/creds:1")
    directory = Path(command.roots.environ["XDG_CONFIG_HOME"]) / "containers"
    directory.mkdir(parents=True)
    shutil.copy(auth, directory / "auth.json")
    command.ok("push", f"{host}/multi:1", f"{host}/found:1")


def test_a_broken_helper_warns_once_and_public_images_come(command: Cloison, registry: Registry) -> None:
    directory = Path(command.roots.environ["DOCKER_CONFIG"])
    directory.mkdir()
    (directory / "config.json").write_text('{"credsStore": "nowhere"}')
    said = command.ok("pull", f"{registry.address}/app:1")
    warnings = [line for line in said.splitlines() if "docker-credential-nowhere" in line]
    assert warnings == [
        "WARNING: credential helper docker-credential-nowhere failed: it is not installed; going on without credentials"
    ]


def test_no_terminal_no_question(command: Cloison) -> None:
    asked = command("login", "127.0.0.1:1")
    assert asked.returncode == 1
    assert "non TTY" in asked.stderr
    alone = command("login", "--password-stdin", "127.0.0.1:1", input="x")
    assert "Must provide --username" in alone.stderr
    empty = command("login", "-u", "a", "--password-stdin", "127.0.0.1:1", input="\n")
    assert "empty" in empty.stderr


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


def test_certificates_are_checked_against_certs_d_and_shown_from_there(
    command: Cloison, registry: Registry, authority: Authority, tmp_path: Path
) -> None:
    tls = authority.sign("server")
    client, key = authority.sign("client")
    with running_registry(tmp_path / "registry", tls=tls) as secure:
        name = f"{secure.address}/app:1"
        untrusted = command("pull", name)
        assert untrusted.returncode == 1
        assert f"cannot trust registry {secure.address}" in untrusted.stderr
        command.ok("pull", "--tls-verify=false", name)
        command.ok("rmi", name)
        place = Path(command.roots.environ["XDG_CONFIG_HOME"]) / "containers/certs.d" / secure.address
        place.mkdir(parents=True)
        shutil.copy(authority.file, place / "ca.crt")
        command.ok("pull", name)
        command.ok("push", name, f"{secure.address}/pushed:1")
    with running_registry(tmp_path / "registry", tls=tls, authority=authority.file) as mutual:
        name, directory = f"{mutual.address}/app:1", tmp_path / "certs"
        directory.mkdir()
        shutil.copy(authority.file, directory / "ca.crt")
        assert command("pull", "--cert-dir", str(directory), name).returncode == 1
        shutil.copy(client, directory / "client.cert")
        assert "its key client.key is missing" in command("pull", "--cert-dir", str(directory), name).stderr
        shutil.copy(key, directory / "client.key")
        command.ok("pull", "--cert-dir", str(directory), name)
