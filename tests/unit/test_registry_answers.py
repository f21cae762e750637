"""Registries that lie and stall: every answer is bounded in time and size, and nothing false is believed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cloison.errors import CloisonError, Denied, InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.registry.budget import Limits
from scripted_registry import (
    DATA,
    LIMITS,
    MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Exchange,
    ScriptedRegistry,
    blob_of,
    bounded,
    client_of,
    fetch_blob,
    name_on,
)


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


# --- manifests --------------------------------------------------------------------------------------------------------


def test_a_manifest_that_is_not_what_was_asked_for_is_refused_with_both_digests(server: ScriptedRegistry) -> None:
    actual = server.add_manifest(MANIFEST)
    wanted = "sha256:" + "1" * 64
    server.on(f"/v2/app/manifests/{wanted}", server.handlers["/v2/app/manifests/latest"])
    with client_of(server) as client, pytest.raises(InvalidArgument) as caught:
        client.manifest(name_on(server, suffix=f"@{wanted}"))
    assert wanted in str(caught.value) or actual in str(caught.value)


def test_a_digest_header_that_lies_is_refused(server: ScriptedRegistry) -> None:
    lie = "sha256:" + "2" * 64
    server.on(
        "/v2/app/manifests/latest",
        lambda exchange: exchange.answer(200, b"{}", content_type=OCI_MANIFEST, docker_content_digest=lie),
    )
    with client_of(server) as client, pytest.raises(InvalidArgument, match=f"expected {lie}, got sha256:44136fa355b3"):
        client.manifest(name_on(server))


@pytest.mark.parametrize("digest", ["sha256:../../etc", "SHA256:" + "a" * 64, "md5:" + "a" * 32, "sha256:" + "A" * 64])
def test_a_malformed_digest_header_is_refused(server: ScriptedRegistry, digest: str) -> None:
    server.on(
        "/v2/app/manifests/latest",
        lambda exchange: exchange.answer(200, b"{}", content_type=OCI_MANIFEST, docker_content_digest=digest),
    )
    with client_of(server) as client, pytest.raises(InvalidArgument, match="malformed digest"):
        client.manifest(name_on(server))


def test_a_type_that_is_no_manifest_is_refused_by_its_name(server: ScriptedRegistry) -> None:
    server.add_manifest({}, media_type="application/vnd.docker.distribution.manifest.v1+prettyjws")
    with client_of(server) as client, pytest.raises(Unsupported, match="schema 1"):
        client.manifest(name_on(server))
    server.add_manifest({}, media_type="text/html\x1b[31m")
    with client_of(server) as client, pytest.raises(Unsupported, match="its media type is text/html") as caught:
        client.manifest(name_on(server))
    assert "\x1b" not in str(caught.value)


def test_a_manifest_over_4_mib_is_refused_whether_announced_or_endless(server: ScriptedRegistry) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.head(200, content_type=OCI_INDEX)
        while exchange.send(b" " * 65536):
            pass

    server.on("/v2/app/manifests/latest", endless)
    with client_of(server) as client, bounded(5), pytest.raises(Unavailable, match="longer than"):
        client.manifest(name_on(server))


def test_the_registrys_own_words_are_shown_harmless_and_in_one_line(server: ScriptedRegistry) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"go\\n\\u001b[2Jaway"}]}'
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(403, body))
    with client_of(server) as client, pytest.raises(Denied) as caught:
        client.manifest(name_on(server))
    assert str(caught.value).isprintable()
    assert "go" in str(caught.value)


def test_an_unknown_manifest_is_not_found(server: ScriptedRegistry) -> None:
    with client_of(server) as client, pytest.raises(NotFound) as caught:
        client.manifest(name_on(server))
    assert str(caught.value) == f"manifest for {server.address}/app:latest not found: manifest unknown"


# --- blobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_blob_whose_announced_length_is_off_by_one_is_refused(server: ScriptedRegistry, difference: int) -> None:
    descriptor = blob_of(server, lambda exchange: exchange.answer(200, DATA), size=len(DATA) + difference)
    with client_of(server) as client, pytest.raises(InvalidArgument, match=f"does not have {descriptor.size} bytes"):
        fetch_blob(client, descriptor)
    assert len(server.requests) == 1


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_blob_without_a_length_that_is_off_by_one_is_refused(server: ScriptedRegistry, difference: int) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.head(200)
        exchange.send(DATA)

    descriptor = blob_of(server, handler, size=len(DATA) + difference)
    with client_of(server) as client, pytest.raises(InvalidArgument, match=f"does not have {descriptor.size} bytes"):
        fetch_blob(client, descriptor)


def test_an_endless_blob_is_cut_off_at_its_size(server: ScriptedRegistry) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.head(200)
        while exchange.send(DATA):
            pass

    received = 0
    with client_of(server) as client, bounded(5), pytest.raises(InvalidArgument, match="the registry sends more"):
        for chunk in client.blob(blob_of(server, handler)):
            received += len(chunk)
    assert received <= len(DATA)


def test_a_broken_transfer_is_resumed_where_it_broke(server: ScriptedRegistry) -> None:
    ranges: list[str] = []

    def handler(exchange: Exchange) -> None:
        asked = exchange.headers.get("range", "")
        ranges.append(asked)
        begin = int(asked[6:-1]) if asked else 0
        if begin:
            where = f"bytes {begin}-{len(DATA) - 1}/{len(DATA)}"
            exchange.head(206, content_length=str(len(DATA) - begin), content_range=where)
        else:
            exchange.head(200, content_length=str(len(DATA)))
        exchange.send(DATA[begin : begin + 200_000])  # and hang up

    with client_of(server) as client:
        assert fetch_blob(client, blob_of(server, handler)) == DATA
    assert ranges == ["", "bytes=200000-", "bytes=400000-"]


def test_a_resumed_transfer_that_starts_over_is_stitched_without_a_seam(server: ScriptedRegistry) -> None:
    calls = 0

    def handler(exchange: Exchange) -> None:
        nonlocal calls
        calls += 1
        exchange.head(200, content_length=str(len(DATA)))
        exchange.send(DATA[:300_000] if calls == 1 else DATA)

    with client_of(server) as client:
        assert fetch_blob(client, blob_of(server, handler)) == DATA
    assert calls == 2


@pytest.mark.parametrize("where", ["bytes 0-511999/512000", "bytes 5-511999/512000", "", "nonsense"])
def test_a_resumed_transfer_of_another_range_is_refused(server: ScriptedRegistry, where: str) -> None:
    def handler(exchange: Exchange) -> None:
        if "range" in exchange.headers:
            exchange.answer(206, DATA[100_000:], content_range=where)
        else:
            exchange.head(200, content_length=str(len(DATA)))
            exchange.send(DATA[:100_000])

    with client_of(server) as client, pytest.raises(Unavailable, match="cannot be resumed"):
        fetch_blob(client, blob_of(server, handler))


def test_a_transfer_that_always_breaks_is_given_up(server: ScriptedRegistry) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.head(200, content_length=str(len(DATA)))
        exchange.send(b"")

    with client_of(server) as client, bounded(5), pytest.raises(Unavailable, match="broke off"):
        fetch_blob(client, blob_of(server, handler))
    assert len(server.requests) == LIMITS.resumes + 1


# --- time and space ---------------------------------------------------------------------------------------------------


def test_a_registry_that_never_answers_is_given_up(server: ScriptedRegistry) -> None:
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.wait(20) and None)
    with client_of(server) as client, bounded(4), pytest.raises(Unavailable, match="does not answer"):
        client.manifest(name_on(server))
    assert len(server.requests) == LIMITS.attempts


def test_headers_that_trickle_in_are_given_up(server: ScriptedRegistry) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n")
        while exchange.wait(0.05) and exchange.send(b"x"):
            pass

    server.on("/v2/app/manifests/latest", handler)
    with client_of(server) as client, bounded(4), pytest.raises(Unavailable, match="does not answer"):
        client.manifest(name_on(server))


def test_a_body_that_trickles_in_is_given_up(server: ScriptedRegistry) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.head(200, content_length=str(len(DATA)))
        while exchange.wait(0.02) and exchange.send(b"x"):
            pass

    with client_of(server) as client, bounded(6), pytest.raises(Unavailable, match="too slow"):
        fetch_blob(client, blob_of(server, handler))


def test_one_huge_header_is_refused(server: ScriptedRegistry) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nX: ")
        while exchange.send(b"x" * 65536):
            pass

    server.on("/v2/app/manifests/latest", handler)
    with client_of(server) as client, bounded(3), pytest.raises(Unavailable):
        client.manifest(name_on(server))


def test_headers_are_refused_above_64_kib_altogether(server: ScriptedRegistry) -> None:
    many = {f"x_{n}": "y" * 30_000 for n in range(20)}
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(200, b"{}", **many))
    with client_of(server) as client, bounded(3), pytest.raises(Unavailable, match="more than 65536 bytes of headers"):
        client.manifest(name_on(server))


def test_endless_headers_and_endless_interim_answers_are_refused(server: ScriptedRegistry) -> None:
    def headers(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n")
        while exchange.send(b"X: y\r\n" * 1000):
            pass

    def interim(exchange: Exchange) -> None:
        while exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000):
            pass

    for handler in (headers, interim):
        server.on("/v2/app/manifests/latest", handler)
        with client_of(server) as client, bounded(3), pytest.raises(Unavailable):
            client.manifest(name_on(server))


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02 nothing like HTTP\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_http_is_an_error_in_one_line(server: ScriptedRegistry, sent: bytes) -> None:
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.send(sent) and None)
    with client_of(server) as client, bounded(4), pytest.raises(CloisonError) as caught:
        client.manifest(name_on(server))
    assert str(caught.value).isprintable()


def test_endless_chunk_extensions_and_trailers_are_refused(server: ScriptedRegistry) -> None:
    def extension(exchange: Exchange) -> None:
        exchange.head(200, transfer_encoding="chunked", content_type=OCI_MANIFEST)
        exchange.send(b"5;")
        while exchange.send(b"x" * 65536):
            pass

    def trailers(exchange: Exchange) -> None:
        exchange.head(200, transfer_encoding="chunked", content_type=OCI_MANIFEST)
        exchange.send(b"2\r\n{}\r\n0\r\n")
        while exchange.send(b"X: y\r\n" * 10_000):
            pass

    for handler in (extension, trailers):
        server.on("/v2/app/manifests/latest", handler)
        with client_of(server) as client, bounded(5), pytest.raises(CloisonError):
            client.manifest(name_on(server))


def test_a_rate_limit_is_waited_for_as_long_as_the_registry_asks(server: ScriptedRegistry) -> None:
    calls = 0

    def handler(exchange: Exchange) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            exchange.answer(429, retry_after="1")
        else:
            exchange.answer(200, b"{}", content_type=OCI_MANIFEST)

    server.on("/v2/app/manifests/latest", handler)
    begun = time.monotonic()
    with client_of(server) as client:
        client.manifest(name_on(server))
    assert calls == 2
    assert time.monotonic() - begun >= 1.0


def test_a_rate_limit_that_is_too_long_is_told_instead_of_waited_for(server: ScriptedRegistry) -> None:
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(429, retry_after="86400"))
    with client_of(server) as client, bounded(2), pytest.raises(Unavailable, match="come back in 86400 s"):
        client.manifest(name_on(server))


@pytest.mark.parametrize("retry_after", ["", "-5", "nonsense", "Wed, 21 Oct 2099 07:28:00 GMT", "9" * 400])
def test_a_storm_of_429_and_503_ends_with_an_error(server: ScriptedRegistry, retry_after: str) -> None:
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(503, retry_after=retry_after))
    with client_of(server) as client, bounded(3), pytest.raises(Unavailable, match="status 503"):
        client.manifest(name_on(server))
    assert len(server.requests) == LIMITS.attempts


def test_aborting_ends_a_transfer_that_hangs(server: ScriptedRegistry) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.head(200, content_length=str(len(DATA)))
        exchange.send(DATA[:300_000])
        exchange.wait(20)

    with client_of(server, limits=Limits()) as client, bounded(3), pytest.raises(Unavailable, match="cancelled"):
        for _ in client.blob(blob_of(server, handler)):
            client.abort()
