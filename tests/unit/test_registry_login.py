"""Logging in: what a registry refuses is not kept, an identity token is kept in place of the password and exchanged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from cloison.engine.registries import Registries
from cloison.errors import CloisonError, Denied, InvalidArgument, NotFound, Unavailable
from cloison.model.settings import Settings
from scripted_registry import Exchange, ScriptedRegistry, bounded

PASSWORD = "open sesame"


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


@pytest.fixture
def tokens() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


def wants_tokens(server: ScriptedRegistry, tokens: ScriptedRegistry) -> None:
    def check(exchange: Exchange) -> None:
        if exchange.headers.get("authorization") == "Bearer good":
            exchange.answer(200, b'{"tags":["a"]}')
        else:
            exchange.answer(401, www_authenticate=f'Bearer realm="{tokens.url}/token",service="s"')

    for path in ("/v2/", "/v2/app/tags/list"):
        server.on(path, check)


def kept(home: Path) -> dict[str, dict[str, str]]:
    auths: dict[str, dict[str, str]] = json.loads((home / ".docker/config.json").read_text())["auths"]
    return auths


def test_an_identity_token_is_kept_and_exchanged_for_tokens(
    server: ScriptedRegistry, tokens: ScriptedRegistry, tmp_path: Path
) -> None:
    wants_tokens(server, tokens)
    forms: list[dict[str, list[str]]] = []

    def exchange_token(exchange: Exchange) -> None:
        forms.append(parse_qs(exchange.read().decode()))
        exchange.answer(200, b'{"access_token":"good"}')

    tokens.on("GET /token", lambda e: e.answer(200, b'{"token":"good","refresh_token":"id-token"}'))
    tokens.on("POST /token", exchange_token)
    registries = Registries(Settings(environ={"HOME": str(tmp_path)}))
    registries.login(server.address, "ali", password=PASSWORD)
    asked = parse_qs(tokens.requests[0].query)
    assert (asked["account"], asked["offline_token"], asked["service"]) == (["ali"], ["true"], ["s"])
    assert "scope" not in asked
    assert kept(tmp_path)[server.address]["identitytoken"] == "id-token"
    assert PASSWORD not in (tmp_path / ".docker/config.json").read_text()
    assert registries.tags(f"{server.address}/app") == ["a"]
    (form,) = forms
    assert form == {
        "service": ["s"], "scope": ["repository:app:pull"], "grant_type": ["refresh_token"],
        "refresh_token": ["id-token"], "client_id": ["cloison"],
    }  # fmt: skip
    assert tokens.requests[-1].headers.get("authorization") is None


def test_what_is_refused_is_not_kept(server: ScriptedRegistry, tokens: ScriptedRegistry, tmp_path: Path) -> None:
    wants_tokens(server, tokens)
    tokens.on("/token", lambda e: e.answer(401))
    with pytest.raises(Denied, match="incorrect username or password") as caught:
        Registries(Settings(environ={"HOME": str(tmp_path)})).login(server.address, "ali", password=PASSWORD)
    assert PASSWORD not in str(caught.value)
    assert not (tmp_path / ".docker").exists()


@pytest.mark.parametrize("status", [404, 500, 301])
def test_what_is_no_registry_is_said_in_one_line(server: ScriptedRegistry, tmp_path: Path, status: int) -> None:
    server.on("/v2/", lambda e: e.answer(status, b"<html>", content_type="text/html"))
    with bounded(3), pytest.raises((NotFound, Unavailable, Denied)) as caught:
        Registries(Settings(environ={"HOME": str(tmp_path)})).login(server.address, "ali", password=PASSWORD)
    assert str(caught.value).isprintable()
    assert not (tmp_path / ".docker").exists()


@pytest.mark.parametrize("server_name", ["debian", "a b", "a\nb.example", "-x.example"])
def test_a_word_that_is_no_registry_is_refused(tmp_path: Path, server_name: str) -> None:
    with pytest.raises(InvalidArgument):
        Registries(Settings(environ={"HOME": str(tmp_path)})).login(server_name, "ali", password=PASSWORD)


def test_a_registry_on_loopback_that_wants_tls_gets_it_verified(tmp_path: Path) -> None:
    """Go's words for plain HTTP on a TLS port; what follows is a TLS handshake that this server does not speak."""
    with ScriptedRegistry() as server:
        body = b"Client sent an HTTP request to an HTTPS server.\n"
        server.on("/v2/app/tags/list", lambda e: e.answer(400, body))
        with bounded(5), pytest.raises(CloisonError, match="TLS|broke off"):
            Registries(Settings(environ={"HOME": str(tmp_path)})).tags(f"{server.address}/app")
