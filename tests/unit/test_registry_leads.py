"""Where a registry sends us, for tokens and by redirects: no secret leaks, and not every path is followed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloison.errors import CloisonError, Denied, InvalidArgument, Unavailable
from cloison.oci.image import Descriptor
from cloison.registry.auth import Credentials
from scripted_registry import (
    DATA,
    MANIFEST,
    OCI_MANIFEST,
    TOKEN,
    Exchange,
    ScriptedRegistry,
    bounded,
    client_of,
    fetch_blob,
    name_on,
    with_token,
)


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


@pytest.fixture
def other() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_challenged_client_gets_a_token_once_and_uses_it_for_everything(
    server: ScriptedRegistry, other: ScriptedRegistry
) -> None:
    server.add_manifest(MANIFEST)
    digest = server.add_blob(DATA)
    with_token(server, other)
    with client_of(server) as client:
        client.manifest(name_on(server))
        assert fetch_blob(client, Descriptor(media_type="x", digest=digest, size=len(DATA))) == DATA
    assert len(other.requests) == 1
    assert "scope=repository%3Aapp%3Apull" in other.requests[0].query
    assert "service=reg" in other.requests[0].query
    assert [request.headers.get("authorization") for request in server.requests] == [None, *[f"Bearer {TOKEN}"] * 2]


def test_an_anonymous_client_sends_the_token_service_no_authorization(
    server: ScriptedRegistry, other: ScriptedRegistry
) -> None:
    server.add_manifest(MANIFEST)
    with_token(server, other)
    with client_of(server) as client:
        client.manifest(name_on(server))
    assert other.headers_seen("authorization") == []


def test_credentials_go_to_the_token_service_and_not_to_the_registry(
    server: ScriptedRegistry, other: ScriptedRegistry
) -> None:
    server.add_manifest(MANIFEST)
    with_token(server, other)
    with client_of(server, credentials=Credentials(username="ali", password="sesame")) as client:
        client.manifest(name_on(server))
    assert other.headers_seen("authorization") == ["Basic YWxpOnNlc2FtZQ=="]
    assert server.headers_seen("authorization") == [f"Bearer {TOKEN}"]


def test_basic_credentials_are_sent_when_the_registry_asks_for_them(server: ScriptedRegistry) -> None:
    def handler(exchange: Exchange) -> None:
        if exchange.headers.get("authorization") == "Basic YWxpOnNlc2FtZQ==":
            exchange.answer(200, b"{}", content_type=OCI_MANIFEST)
        else:
            exchange.answer(401, www_authenticate='Basic realm="here"')

    server.on("/v2/app/manifests/latest", handler)
    with client_of(server, credentials=Credentials(username="ali", password="sesame")) as client:
        assert client.manifest(name_on(server)).body == b"{}"
    with client_of(server) as client, pytest.raises(Denied, match="user name and a password") as caught:
        client.manifest(name_on(server))
    assert "log in" in caught.value.hint


@pytest.mark.parametrize(
    "realm",
    [
        "http://198.51.100.7/token", "http://169.254.169.254/latest/meta-data", "https://169.254.169.254/token",
        "https://[fe80::1]/token", "https://[::ffff:169.254.169.254]/token", "http://user:secret@127.0.0.1/token",
        "ftp://127.0.0.1/token", "file:///etc/passwd", "gopher://127.0.0.1/", "//127.0.0.1/token", "",
    ],
)  # fmt: skip
def test_a_realm_that_is_plain_http_or_leads_inside_is_refused(server: ScriptedRegistry, realm: str) -> None:
    server.on("/v2/app/manifests/latest", lambda e: e.answer(401, www_authenticate=f'Bearer realm="{realm}"'))
    with client_of(server) as client, bounded(2), pytest.raises((Denied, InvalidArgument)) as caught:
        client.manifest(name_on(server))
    assert "secret" not in str(caught.value)


def test_a_token_service_that_redirects_is_refused(server: ScriptedRegistry, other: ScriptedRegistry) -> None:
    server.add_manifest(MANIFEST)
    with_token(server, other, realm=f"{other.url}/elsewhere")
    other.on("/elsewhere", lambda exchange: exchange.answer(302, location=f"{other.url}/token"))
    with client_of(server) as client, pytest.raises(Denied, match="redirect of the token service"):
        client.manifest(name_on(server))
    assert [request.path for request in other.requests] == ["/elsewhere"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"token": 5}', b'{"token": ""}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}', b"x" * 100_000],
)
def test_a_token_that_is_none_is_refused(server: ScriptedRegistry, other: ScriptedRegistry, body: bytes) -> None:
    server.add_manifest(MANIFEST)
    with_token(server, other)
    other.on("/token", lambda exchange: exchange.answer(200, body))
    with client_of(server) as client, pytest.raises(CloisonError):
        client.manifest(name_on(server))
    assert server.headers_seen("authorization") == []


def test_a_registry_that_refuses_its_own_token_is_asked_twice_and_no_more(
    server: ScriptedRegistry, other: ScriptedRegistry
) -> None:
    challenge = f'Bearer realm="{other.url}/token"'
    other.on("/token", lambda exchange: exchange.answer(200, b'{"access_token": "t"}'))
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(401, www_authenticate=challenge))
    with client_of(server) as client, pytest.raises(Denied):
        client.manifest(name_on(server))
    assert len(server.requests) == 2
    assert len(other.requests) == 1


# --- redirects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_carries_no_authorization(
    server: ScriptedRegistry, other: ScriptedRegistry, status: int
) -> None:
    with ScriptedRegistry() as tokens:
        digest = server.add_blob(DATA)
        location = f"{other.url}/stored?signature=1"
        server.on(f"/v2/app/blobs/{digest}", lambda exchange: exchange.answer(status, location=location))
        other.on("/stored", lambda exchange: exchange.answer(200, DATA))
        with_token(server, tokens)
        with client_of(server) as client:
            assert fetch_blob(client, Descriptor(media_type="x", digest=digest, size=len(DATA))) == DATA
    assert server.headers_seen("authorization") == [f"Bearer {TOKEN}"]
    assert len(other.requests) == 1
    assert other.headers_seen("authorization") == []
    assert other.headers_seen("cookie") == []


def test_authorization_does_not_come_back_after_a_detour(server: ScriptedRegistry, other: ScriptedRegistry) -> None:
    with ScriptedRegistry() as tokens:
        digest = server.add_blob(DATA)
        server.on(f"/v2/app/blobs/{digest}", lambda exchange: exchange.answer(307, location=f"{other.url}/back"))
        with_token(server, tokens)
        other.on("/back", lambda exchange: exchange.answer(307, location=f"{server.url}/open"))
        server.on("/open", lambda exchange: exchange.answer(200, DATA))
        with client_of(server) as client:
            assert fetch_blob(client, Descriptor(media_type="x", digest=digest, size=len(DATA))) == DATA
    assert server.requests[-1].path == "/open"
    assert "authorization" not in server.requests[-1].headers


def test_a_challenge_from_where_we_were_redirected_to_gets_no_token(
    server: ScriptedRegistry, other: ScriptedRegistry
) -> None:
    with ScriptedRegistry() as tokens:
        tokens.on("/token", lambda exchange: exchange.answer(200, b'{"token": "t"}'))
        server.on("/v2/app/manifests/latest", lambda e: e.answer(302, location=f"{other.url}/stored"))
        other.on("/stored", lambda e: e.answer(401, www_authenticate=f'Bearer realm="{tokens.url}/token"'))
        with client_of(server) as client, pytest.raises(Denied):
            client.manifest(name_on(server))
        assert tokens.requests == []


def test_a_redirect_on_the_same_origin_keeps_authorization(server: ScriptedRegistry, other: ScriptedRegistry) -> None:
    digest = server.add_blob(DATA)
    server.on(f"/v2/app/blobs/{digest}", lambda exchange: exchange.answer(307, location="/elsewhere"))
    server.on("/elsewhere", lambda exchange: exchange.answer(200, DATA))
    with_token(server, other)
    with client_of(server) as client:
        assert fetch_blob(client, Descriptor(media_type="x", digest=digest, size=len(DATA))) == DATA
    assert server.headers_seen("authorization") == [f"Bearer {TOKEN}"] * 2


@pytest.mark.parametrize(
    "location",
    [
        "http://198.51.100.7/x", "https://169.254.169.254/x", "http://169.254.169.254/x", "file:///etc/shadow", "",
        "http://ali:secret@127.0.0.1/x", "http://127.0.0.1:99999/x", "https://[bad/x", "http://127.0.0.1\\@evil/x",
    ],
)  # fmt: skip
def test_a_redirect_off_the_allowed_paths_is_refused(server: ScriptedRegistry, location: str) -> None:
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(302, location=location))
    with client_of(server) as client, bounded(2), pytest.raises(CloisonError) as caught:
        client.manifest(name_on(server))
    assert "secret" not in str(caught.value)
    assert len(server.requests) == 1


def test_a_redirect_loop_ends(server: ScriptedRegistry) -> None:
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(302, location="/v2/app/manifests/latest"))
    with client_of(server) as client, bounded(5), pytest.raises(Unavailable, match="redirects more than 8 times"):
        client.manifest(name_on(server))
    assert len(server.requests) == 9
