"""A real registry for tests: Debian's docker-registry on 127.0.0.1, storing in a directory of the test; its images."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}/data}}
  delete: {{enabled: true}}
http:
  addr: 127.0.0.1:{port}
"""
_READY_S = 20.0


class Registry:
    """Where it listens, and where it stores."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.address = f"127.0.0.1:{port}"

    def blob_file(self, digest: str) -> Path:
        """The file in which this registry keeps a blob, for tests that damage it."""
        encoded = digest.partition(":")[2]
        return self.root / "data/docker/registry/v2/blobs/sha256" / encoded[:2] / encoded / "data"

    def push(self, layout: Path, name: str, *options: str, tag: str = "latest") -> None:
        """Push image ``tag`` of an OCI layout as ``name`` (``path[:tag]``), as skopeo does it."""
        command = [
            "skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *options,
            f"oci:{layout}:{tag}", f"docker://{self.address}/{name}",
        ]  # fmt: skip
        environ = {**os.environ, "TMPDIR": str(self.root)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
        if done.returncode:
            raise AssertionError(f"skopeo failed: {done.stderr}")


def htpasswd(path: Path, *, user: str, password: str) -> str:
    """The line of a registry's configuration that wants this user's password."""
    script = r'print shift, ":", crypt(shift, q($2y$05$abcdefghijklmnopqrstuu)), "\n"'
    done = subprocess.run(["perl", "-e", script, user, password], check=True, capture_output=True)
    path.write_bytes(done.stdout)
    return f"auth: {{htpasswd: {{realm: test, path: {path}}}}}\n"


def is_available() -> bool:
    return bool(shutil.which("docker-registry") and shutil.which("skopeo"))


@contextmanager
def running_registry(
    root: Path, *, auth: str = "", tls: tuple[Path, Path] | None = None, authority: Path | None = None
) -> Iterator[Registry]:
    """A registry that answers before this yields and is gone afterwards; ``auth`` is a line of its configuration.

    ``tls`` is a certificate and its key; with ``authority`` it wants certificates of its clients, too.
    """
    port = _free_port()
    root.mkdir(parents=True, exist_ok=True)
    config = root / "config.yml"
    secure = f"  tls: {{certificate: {tls[0]}, key: {tls[1]}" if tls else ""
    secure += (f", clientcas: [{authority}]" if authority else "") + ("}\n" if tls else "")
    config.write_text(_CONFIG.format(root=root, port=port) + secure + auth)
    with open(root / "log", "wb") as log:
        # OTEL and friends in the environment change its behaviour: it gets none
        process = subprocess.Popen(
            ["docker-registry", "serve", str(config)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    try:
        _await_answer(port, process, root / "log")
        yield Registry(root, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_answer(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.sendall(b"GET /v2/ HTTP/1.0\r\n\r\n")
                if probe.recv(64).startswith((b"HTTP/1.0 200", b"HTTP/1.0 401", b"HTTP/1.0 400")):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"docker-registry did not start: {log.read_text()[-2000:]}")


# --- images ---------------------------------------------------------------------------------------------------------

_OCI = "application/vnd.oci.image"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A layer with these files, the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def compress(tar: bytes, kind: str) -> tuple[str, bytes]:
    """(media type suffix, bytes) of a layer; ``kind`` is plain, gzip or zstd."""
    if kind == "plain":
        return "", tar
    if kind == "gzip":
        return "+gzip", gzip.compress(tar, mtime=0)
    return "+zstd", subprocess.run(["zstd", "-qc"], input=tar, stdout=subprocess.PIPE, check=True).stdout


class Layout:
    """An OCI image layout that grows by images (image-spec image-layout.md)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tags: list[dict[str, object]] = []
        (path / "blobs/sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add_blob(self, data: bytes, media_type: str) -> dict[str, object]:
        encoded = hashlib.sha256(data).hexdigest()
        (self.path / "blobs/sha256" / encoded).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(data)}

    def add_image(
        self, layers: Sequence[tuple[bytes, str]], *, architecture: str = "amd64", variant: str = "", tag: str = "",
        config_media_type: str = f"{_OCI}.config.v1+json",
    ) -> dict[str, object]:  # fmt: skip
        """An image of (tar, kind) layers; its manifest's descriptor."""
        config = {
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar, _ in layers]},
        }  # fmt: skip
        if variant:
            config["variant"] = variant
        packed = [compress(tar, kind) for tar, kind in layers]
        manifest = {
            "schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json",
            "config": self.add_blob(json.dumps(config).encode(), config_media_type),
            "layers": [self.add_blob(data, f"{_OCI}.layer.v1.tar{suffix}") for suffix, data in packed],
        }  # fmt: skip
        descriptor = self.add_blob(json.dumps(manifest).encode(), str(manifest["mediaType"]))
        platform = {"architecture": architecture, "os": "linux", **({"variant": variant} if variant else {})}
        return self._tag({**descriptor, "platform": platform}, tag)

    def add_index(self, manifests: Sequence[dict[str, object]], *, tag: str) -> dict[str, object]:
        index = {"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": list(manifests)}
        return self._tag(self.add_blob(json.dumps(index).encode(), str(index["mediaType"])), tag)

    def _tag(self, descriptor: dict[str, object], tag: str) -> dict[str, object]:
        if tag:
            self._tags.append({**descriptor, "annotations": {"org.opencontainers.image.ref.name": tag}})
            index = {"schemaVersion": 2, "manifests": self._tags}
            (self.path / "index.json").write_text(json.dumps(index))
        return descriptor
