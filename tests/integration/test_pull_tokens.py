"""Tokens and passwords against a real registry: Debian's docker-registry checks what our client sends."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from cloison.errors import Denied
from cloison.images.progress import NoProgress
from cloison.model.reference import parse_reference
from cloison.model.settings import Settings
from cloison.registry.auth import Credentials
from cloison.registry.client import RegistryClient
from cloison.store.blobs import Blobs
from harness import Roots
from image_pull import fetch
from image_store import Store
from registry_fixture import Layout, Registry, is_available, running_registry, tar_of
from scripted_registry import Exchange, ScriptedRegistry

pytestmark = pytest.mark.skipif(
    not (is_available() and shutil.which("openssl") and shutil.which("perl")),
    reason="needs Debian's docker-registry, skopeo, openssl and perl",
)


class TokenService:
    """Signs tokens as the distribution's token specification wants them (RS256, the certificate in x5c)."""

    def __init__(self, directory: Path) -> None:
        self.certificate, self._key = directory / "token.pem", directory / "token.key"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens",
                "-keyout", self._key, "-out", self.certificate,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        self.allowed = {"repository:app:pull"}
        self.asked: list[dict[str, list[str]]] = []

    def __call__(self, exchange: Exchange) -> None:
        query = parse_qs(exchange.query)
        self.asked.append(query)
        token = self._sign(query.get("scope", []), query["service"][0])
        exchange.answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    def _sign(self, scopes: list[str], service: str) -> str:
        granted = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if scope in self.allowed else []
            granted.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {
            "iss": "issuer", "sub": "", "aud": service, "exp": now + 300, "nbf": now - 10, "iat": now - 10, "jti": "1",
            "access": granted,
        }  # fmt: skip
        der = subprocess.run(
            ["openssl", "x509", "-in", self.certificate, "-outform", "DER"], check=True, capture_output=True
        ).stdout
        header = {"typ": "JWT", "alg": "RS256", "x5c": [b64encode(der).decode()]}
        signed = b".".join(_encode(json.dumps(part).encode()) for part in (header, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key], input=signed, check=True, capture_output=True
        ).stdout
        return (signed + b"." + _encode(signature)).decode()


def _encode(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A registry's directory with the image app:latest in it."""
    root = tmp_path / "registry"
    with running_registry(root) as registry:
        layout = Layout(tmp_path / "oci")
        layout.add_image([(tar_of({"etc/x": b"x"}), "gzip"), (tar_of({"etc/y": b"y"}), "gzip")], tag="app")
        registry.push(layout.path, "app:latest", "--preserve-digests", tag="app")
    return root


@pytest.fixture
def service(tmp_path: Path) -> TokenService:
    return TokenService(tmp_path)


@pytest.fixture
def guarded(filled: Path, service: TokenService) -> Iterator[Registry]:
    """The registry again, now wanting tokens."""
    with ScriptedRegistry() as tokens:
        tokens.on("/token", service)
        words = f"realm: {tokens.url}/token, service: test, issuer: issuer, rootcertbundle: {service.certificate}"
        with running_registry(filled, auth=f"auth: {{token: {{{words}}}}}\n") as registry:
            yield registry


def test_a_registry_that_wants_tokens_gives_the_image_for_one_token(
    guarded: Registry, service: TokenService, tmp_path: Path
) -> None:
    blobs = Blobs(str(tmp_path / "data"))
    reference = parse_reference(f"{guarded.address}/app")
    fetched = fetch(reference, blobs=blobs, settings=Settings(), platform="linux/amd64", progress=NoProgress())
    assert all(blobs.has(layer.digest) for layer in fetched.layers)
    assert service.asked == [{"scope": ["repository:app:pull"], "service": ["test"]}]


def test_a_push_asks_for_one_token_that_covers_what_it_mounts(guarded: Registry, service: TokenService) -> None:
    roots = Roots()
    try:
        store, host = Store(roots), guarded.address
        image = store.images.pull(f"{host}/app")
        service.asked.clear()
        store.images.tag(f"{host}/app", f"{host}/new:1")
        with pytest.raises(Denied, match=f"{host} denies access"):
            store.images.push(f"{host}/new:1")
        service.asked.clear()
        service.allowed.add("repository:new:pull,push")
        news = Lines()
        digest = store.images.push(f"{host}/new:1", progress=news)
        assert digest == image.digest
        assert service.asked == [{"service": ["test"], "scope": ["repository:new:pull,push", "repository:app:pull"]}]
        assert news.finished.count("Mounted from app") == 2
    finally:
        roots.remove()


class Lines(NoProgress):
    def __init__(self) -> None:
        self.finished: list[str] = []

    def finish(self, item: str, message: str) -> None:
        self.finished.append(message)


def test_a_token_that_grants_nothing_is_denied_in_one_line(
    guarded: Registry, service: TokenService, tmp_path: Path
) -> None:
    service.allowed.clear()
    reference = parse_reference(f"{guarded.address}/app")
    with pytest.raises(Denied, match=f"registry {guarded.address} denies access") as caught:
        fetch(reference, blobs=Blobs(str(tmp_path / "data")), settings=Settings(), progress=NoProgress())
    assert "private" in caught.value.hint
    assert str(caught.value).isprintable()


def test_a_registry_that_wants_a_password_gets_the_given_one_alone(filled: Path, tmp_path: Path) -> None:
    script = r'print "ali:", crypt("open sesame", q($2y$05$abcdefghijklmnopqrstuu)), "\n"'
    users = tmp_path / "users"
    users.write_bytes(subprocess.run(["perl", "-e", script], check=True, capture_output=True).stdout)
    with running_registry(filled, auth=f"auth: {{htpasswd: {{realm: test, path: {users}}}}}\n") as registry:
        reference = parse_reference(f"{registry.address}/app")
        for password, welcome in (("open sesame", True), ("wrong", False), (None, False)):
            credentials = Credentials(username="ali", password=password) if password else None
            with RegistryClient(reference, settings=Settings(), credentials=credentials) as client:
                if welcome:
                    assert client.manifest(reference).digest.startswith("sha256:")
                else:
                    with pytest.raises(Denied):
                        client.manifest(reference)
