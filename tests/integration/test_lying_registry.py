"""What a user sees of a registry that lies: exit status 1, one clear line, no traceback, and not a byte left."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Cloison, Roots
from registry_fixture import compress, digest_of, tar_of
from scripted_registry import Exchange, ScriptedRegistry

OCI = "application/vnd.oci.image"
MANIFEST, INDEX = f"{OCI}.manifest.v1+json", f"{OCI}.index.v1+json"
TAR = tar_of({"etc/file": b"x" * 5000})
LAYER = compress(TAR, "gzip")[1]
CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(TAR)]}}
).encode()


def described(data: bytes, kind: str, **more: object) -> dict[str, object]:
    return {"mediaType": f"{OCI}.{kind}", "digest": digest_of(data), "size": len(data), **more}


def manifest(**layer: object) -> dict[str, object]:
    return {
        "schemaVersion": 2, "mediaType": MANIFEST, "config": described(CONFIG, "config.v1+json"),
        "layers": [described(LAYER, "layer.v1.tar+gzip", **layer)],
    }  # fmt: skip


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    """An honest one, to be bent."""
    with ScriptedRegistry() as running:
        running.add_manifest(manifest())
        for blob in (CONFIG, LAYER):
            running.add_blob(blob)
        yield running


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


def on_layer(server: ScriptedRegistry, answer: Callable[[Exchange], None]) -> None:
    server.on(f"/v2/app/blobs/{digest_of(LAYER)}", answer)


def on_manifest(server: ScriptedRegistry, answer: Callable[[Exchange], None]) -> None:
    server.on("/v2/app/manifests/latest", answer)


def wrong_digest(server: ScriptedRegistry) -> None:
    on_layer(server, lambda e: e.answer(200, LAYER[:-1] + b"\7"))


def wrong_size(server: ScriptedRegistry) -> None:
    server.add_manifest(manifest(size=len(LAYER) + 1))


def truncated(server: ScriptedRegistry) -> None:
    def answer(exchange: Exchange) -> None:
        exchange.head(200, content_length=str(len(LAYER)))
        exchange.send(LAYER[:20])  # and the connection ends

    on_layer(server, answer)


def error(server: ScriptedRegistry) -> None:
    on_manifest(server, lambda e: e.answer(500, b"<html>oops</html>"))


def page(server: ScriptedRegistry) -> None:
    on_manifest(server, lambda e: e.answer(200, b"<html>log in</html>", content_type="text/html"))


def page_as_manifest(server: ScriptedRegistry) -> None:
    on_manifest(server, lambda e: e.answer(200, b"<html>log in</html>", content_type=MANIFEST))


def rate_limit(server: ScriptedRegistry) -> None:
    on_manifest(server, lambda e: e.answer(429, b"{}", retry_after="3600"))


def redirect(server: ScriptedRegistry) -> None:
    on_layer(server, lambda e: e.answer(307, location="http://192.0.2.1/blob"))


def another_platform(server: ScriptedRegistry) -> None:
    body = json.dumps(manifest()).encode()
    platform = {"os": "linux", "architecture": "s390x"}
    member = {"mediaType": MANIFEST, "digest": digest_of(body), "size": len(body), "platform": platform}
    server.add_manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": [member]}, media_type=INDEX)


def other_files(server: ScriptedRegistry) -> None:
    """A layer that is what the manifest says and not what the configuration says."""
    layer = compress(tar_of({"etc/other": b"y"}), "gzip")[1]
    server.add_blob(layer)
    lie = manifest()
    lie["layers"] = [described(layer, "layer.v1.tar+gzip")]
    server.add_manifest(lie)


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (wrong_digest, digest_of(LAYER)),
        (wrong_size, "bytes"),
        (truncated, "127.0.0.1"),
        (error, "status 500"),
        (page, "text/html"),
        (page_as_manifest, "manifest"),
        (rate_limit, "3600 s"),
        (redirect, "refused the redirect to http://192.0.2.1"),
        (another_platform, "no image for platform linux/"),
        (other_files, ""),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_lie_is_one_clear_line_and_leaves_nothing(
    command: Cloison, server: ScriptedRegistry, lie: Callable[[ScriptedRegistry], None], says: str
) -> None:
    lie(server)
    done = command("pull", "-q", f"{server.address}/app")
    assert (done.returncode, done.stdout) == (1, "")
    first, *rest = done.stderr.splitlines()
    assert first.startswith("cloison: ") and says in first, done.stderr
    assert all(line.startswith("hint: ") for line in rest) and len(rest) <= 1, done.stderr
    assert command.ok("images", "-aq") == ""
    command.ok("image", "prune", "-f")  # what a broken transfer keeps is there to be resumed, and goes when asked to
    left = [str(path) for path in Path(command.roots.data_root).rglob("sha256/*") if path.is_file()]
    assert left == []


def test_the_honest_one_is_believed(command: Cloison, server: ScriptedRegistry) -> None:
    """The control for the tests above."""
    name = f"{server.address}/app:latest"
    assert command.ok("pull", "-q", f"{server.address}/app") == name
    assert command.inspect(name)["Id"] == "sha256:" + hashlib.sha256(CONFIG).hexdigest()


def test_no_password_follows_a_redirect_to_another_host(command: Cloison, server: ScriptedRegistry) -> None:
    with ScriptedRegistry() as other:
        other.on("/blob", lambda e: e.answer(200, LAYER))
        on_layer(server, lambda e: e.answer(307, location=f"{other.url}/blob"))
        honest = server.handlers["/v2/app/manifests/latest"]

        def ask(exchange: Exchange) -> None:
            if "authorization" in exchange.headers:
                honest(exchange)
            else:
                exchange.answer(401, www_authenticate='Basic realm="test"')

        on_manifest(server, ask)
        command.ok("pull", "-q", "--creds", "ali:sesame", f"{server.address}/app")
        assert server.headers_seen("authorization")
        assert [request.path for request in other.requests] == ["/blob"]
        assert other.headers_seen("authorization") == []


def test_a_registry_that_is_gone_is_one_line(command: Cloison) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    done = command("pull", f"127.0.0.1:{port}/app:1")
    assert done.returncode == 1
    assert done.stderr.startswith(f"cloison: cannot reach registry 127.0.0.1:{port}")
    assert len(done.stderr.splitlines()) <= 2
