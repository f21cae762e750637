"""HTTPS, and the ways that must not lead around it: certificates, downgrades, proxies, name servers that lie.

A name that is not loopback is needed for HTTPS: ``registry.test``, which the patched resolver finds on this machine.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloison.errors import CloisonError, Denied, Unavailable, Unsupported
from cloison.model.reference import parse_reference
from cloison.model.settings import Settings
from cloison.registry.budget import Limits
from cloison.registry.client import ManifestAnswer, RegistryClient
from scripted_registry import OCI_MANIFEST, Exchange, ScriptedRegistry

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make certificates")

LIMITS = Limits(connect_timeout_s=2.0, head_timeout_s=1.0, window_s=1.0, backoff_s=0.01, attempts=2)


class Certificate:
    """A self-signed certificate, its own authority."""

    def __init__(self, directory: Path, host: str) -> None:
        self.file, self.key = directory / f"{host}.pem", directory / f"{host}.key"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
                "-keyout", self.key, "-out", self.file,
            ],
            check=True, capture_output=True,
        )  # fmt: skip

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("tls"), "registry.test")


@pytest.fixture
def server(certificate: Certificate) -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry(certificate.server_context()) as running:
        running.add_manifest({"schemaVersion": 2})
        yield running


@pytest.fixture
def plain() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        running.add_manifest({"schemaVersion": 2})
        yield running


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Host name -> address; everything else is asked of the real resolver."""
    known = {"registry.test": "127.0.0.1"}
    real: Callable[..., list[tuple[object, ...]]] = socket.getaddrinfo

    def resolve(host: bytes | str, *arguments: int, **options: int) -> list[tuple[object, ...]]:
        return real(known.get(host if isinstance(host, str) else host.decode(), host), *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


def ask(port: int, tls: ssl.SSLContext | None = None, *, settings: Settings | None = None) -> ManifestAnswer:
    reference = parse_reference(f"registry.test:{port}/app")
    with RegistryClient(reference, settings=settings or Settings(), limits=LIMITS, tls=tls) as client:
        return client.manifest(reference)


def test_a_registry_with_a_trusted_certificate_is_asked_over_https(
    server: ScriptedRegistry, certificate: Certificate
) -> None:
    assert ask(server.port, certificate.client_context()).media_type == OCI_MANIFEST
    assert server.requests[0].headers["host"] == f"registry.test:{server.port}"


def test_a_certificate_that_nobody_signed_is_not_trusted(server: ScriptedRegistry) -> None:
    with pytest.raises(Unavailable, match="cannot trust registry registry.test:.*self.signed certificate"):
        ask(server.port)
    assert server.requests == []


def test_a_certificate_for_another_host_is_not_trusted(tmp_path: Path) -> None:
    other = Certificate(tmp_path, "elsewhere.test")
    with ScriptedRegistry(other.server_context()) as server:
        with pytest.raises(Unavailable, match="cannot trust registry registry.test:.*[Hh]ostname mismatch"):
            ask(server.port, other.client_context())
        assert server.requests == []


def test_a_server_without_tls_gets_no_request_over_plain_http(plain: ScriptedRegistry) -> None:
    with pytest.raises(Unavailable, match="cannot speak TLS with registry") as caught:
        ask(plain.port)
    assert "CLOISON_INSECURE_REGISTRIES" in caught.value.hint
    assert plain.requests == []


def test_a_closed_tls_port_is_an_error_and_no_reason_to_try_plain_http(
    plain: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]
    dialled: list[tuple[object, ...]] = []
    connect = socket.socket.connect

    def note(self: socket.socket, address: tuple[object, ...]) -> None:
        dialled.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", note)
    with pytest.raises(Unavailable, match="connection refused"):
        ask(closed)
    assert dialled == [("127.0.0.1", closed)]


def test_plain_http_is_spoken_to_a_listed_registry(plain: ScriptedRegistry) -> None:
    listed = Settings(insecure_registries=(f"registry.test:{plain.port}",))
    assert ask(plain.port, settings=listed).media_type == OCI_MANIFEST


def test_a_redirect_from_https_to_plain_http_is_refused_even_to_a_listed_host(
    server: ScriptedRegistry, plain: ScriptedRegistry, certificate: Certificate
) -> None:
    server.on("/v2/app/manifests/latest", lambda e: e.answer(302, location=f"{plain.url}/v2/app/manifests/latest"))
    listed = Settings(insecure_registries=(plain.address,))
    with pytest.raises(Denied, match="from HTTPS to plain HTTP"):
        ask(server.port, certificate.client_context(), settings=listed)
    assert plain.requests == []


def test_a_realm_from_https_to_plain_http_is_refused(
    server: ScriptedRegistry, plain: ScriptedRegistry, certificate: Certificate
) -> None:
    challenge = f'Bearer realm="{plain.url}/token"'
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(401, www_authenticate=challenge))
    with pytest.raises(Denied, match="from HTTPS to plain HTTP"):
        ask(server.port, certificate.client_context())
    assert plain.requests == []


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "0.0.0.0", "::ffff:169.254.169.254"])
def test_a_realm_whose_name_resolves_inside_is_refused_before_a_connection(
    server: ScriptedRegistry, certificate: Certificate, names: dict[str, str], address: str
) -> None:
    names["tokens.test"] = address
    # a registry on a private address: neither this machine nor link-local addresses are its to name
    challenge = 'Bearer realm="https://tokens.test/token"'
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(401, www_authenticate=challenge))
    reference = parse_reference(f"registry.test:{server.port}/app")
    with RegistryClient(reference, settings=Settings(), limits=LIMITS, tls=certificate.client_context()) as client:
        guard = client.session.guard
        check = guard.check_address

        def seen_as_private(origin: object, numeric: str) -> None:
            check(origin, "10.1.2.3" if numeric == "127.0.0.1" else numeric)  # type: ignore[arg-type]

        guard.check_address = seen_as_private  # type: ignore[method-assign]
        with pytest.raises(Denied, match="refused the connection to https://tokens.test"):
            client.manifest(reference)


# --- proxies ----------------------------------------------------------------------------------------------------------


def test_https_goes_through_a_proxy_as_a_tunnel_with_the_proxys_own_password(
    server: ScriptedRegistry, plain: ScriptedRegistry, certificate: Certificate
) -> None:
    plain.on(f"registry.test:{server.port}", lambda exchange: exchange.tunnel(server.port))
    settings = Settings(https_proxy=f"http://ali:open%20sesame@{plain.address}")
    assert ask(server.port, certificate.client_context(), settings=settings).media_type == OCI_MANIFEST
    assert plain.requests[0].method == "CONNECT"
    assert plain.headers_seen("proxy-authorization") == ["Basic YWxpOm9wZW4gc2VzYW1l"]
    assert server.headers_seen("proxy-authorization") == []


def test_a_listed_registry_is_asked_for_through_the_http_proxy(plain: ScriptedRegistry) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.answer(200, b"{}", content_type=OCI_MANIFEST)

    plain.on("http://registry.test:5000/v2/app/manifests/latest", handler)
    settings = Settings(insecure_registries=("registry.test:5000",), http_proxy=plain.url)
    assert ask(5000, settings=settings).body == b"{}"


@pytest.mark.parametrize("rule", ["*", "registry.test", ".test", "other.example, test"])
def test_an_excluded_host_and_this_machine_are_asked_directly(
    server: ScriptedRegistry, plain: ScriptedRegistry, certificate: Certificate, rule: str
) -> None:
    settings = Settings(https_proxy="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1", no_proxy=rule)
    assert ask(server.port, certificate.client_context(), settings=settings).media_type == OCI_MANIFEST
    reference = parse_reference(f"{plain.address}/app")
    with RegistryClient(reference, settings=settings, limits=LIMITS) as client:
        assert client.manifest(reference).media_type == OCI_MANIFEST


def test_a_proxy_that_refuses_or_is_not_there_is_named_without_its_password(plain: ScriptedRegistry) -> None:
    plain.on("registry.test:5000", lambda exchange: exchange.answer(407))
    for address, complaint in ((plain.address, "407"), ("127.0.0.1:1", "cannot reach proxy 127.0.0.1:1")):
        with pytest.raises(CloisonError, match=complaint) as caught:
            ask(5000, settings=Settings(https_proxy=f"http://ali:sesame@{address}"))
        assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "https://127.0.0.1:3128", "http://:x"])
def test_a_proxy_of_a_kind_that_is_not_spoken_is_an_error(proxy: str) -> None:
    with pytest.raises((Unsupported, CloisonError)):
        ask(5000, settings=Settings(https_proxy=proxy))
