"""Uploads: in one piece, resumed, in chunks, mounted; registries that lie, break off and lead astray."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator

import pytest

from cloison.errors import CloisonError, Denied, InvalidArgument, Unavailable, Unsupported
from cloison.oci.image import OCI_MANIFEST
from cloison.registry.listing import list_repositories, list_tags
from cloison.registry.referrers import list_referrers
from scripted_registry import Exchange, ScriptedRegistry, bounded, client_of
from writable_registry import Writable, described, opener, uploader_of

SMALL = b"a small blob"
BIG = os.urandom(3 << 20)


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


@pytest.fixture
def registry(server: ScriptedRegistry) -> Writable:
    return Writable(server)


def test_a_small_blob_takes_two_requests_and_a_big_one_three(registry: Writable) -> None:
    with uploader_of(registry.server) as uploader:
        uploader.put_blob(described(SMALL), opener(SMALL))
        assert registry.methods() == ["POST", "PUT"]
        uploader.put_blob(described(BIG), opener(BIG))
        assert registry.methods() == ["POST", "PUT", "POST", "PATCH", "PUT"]
    assert set(registry.stored.values()) == {SMALL, BIG}


def test_an_upload_that_breaks_goes_on_where_the_registry_says(registry: Writable) -> None:
    breaks = iter([1 << 20, 300_000])

    def patch(exchange: Exchange) -> None:
        if (most := next(breaks, None)) is None:
            registry.patch(exchange)
        else:
            registry.arrived += exchange.read(most)  # and no answer: the connection ends

    registry.server.on(f"PATCH {registry.place}", patch)
    with uploader_of(registry.server) as uploader:
        uploader.put_blob(described(BIG), opener(BIG))
    assert registry.stored[described(BIG).digest] == BIG
    ranges = registry.server.headers_seen("content-range")
    assert [text.partition("-")[0] for text in ranges] == [str(1 << 20), str((1 << 20) + 300_000)]


def test_an_upload_that_always_breaks_ends_and_is_cancelled(registry: Writable) -> None:
    registry.server.on(f"PATCH {registry.place}", lambda exchange: None)
    with uploader_of(registry.server) as uploader, bounded(5), pytest.raises(Unavailable, match="broke off"):
        uploader.put_blob(described(BIG), opener(BIG))
    assert registry.methods()[-1] == "DELETE"
    assert not registry.stored


def test_a_body_that_is_too_large_for_a_proxy_goes_in_chunks(
    registry: Writable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloison.registry.upload._CHUNK_BYTES", 1 << 20)

    def patch(exchange: Exchange) -> None:
        if int(exchange.headers["content-length"]) > 1 << 20:
            exchange.read()
            exchange.answer(413)
        else:
            registry.patch(exchange)

    registry.server.on(f"PATCH {registry.place}", patch)
    with uploader_of(registry.server) as uploader:
        uploader.put_blob(described(BIG), opener(BIG))
    assert registry.stored[described(BIG).digest] == BIG
    assert registry.methods().count("PATCH") == 4


def test_a_digest_that_the_registry_does_not_find_is_told(registry: Writable) -> None:
    with uploader_of(registry.server) as uploader:
        with pytest.raises(InvalidArgument, match="provided digest did not match"):
            uploader.put_blob(described(SMALL), opener(b"x" * len(SMALL)))
        with pytest.raises(InvalidArgument, match="ends 1 bytes early"):
            uploader.put_blob(described(BIG), opener(BIG[:-1]))
    assert registry.methods()[-1] == "DELETE"


@pytest.mark.parametrize("answer", [(202, ""), (500, "x"), (404, "x"), (403, "x"), (200, "x"), (405, "x")])
def test_a_registry_that_takes_no_upload_is_one_error(registry: Writable, answer: tuple[int, str]) -> None:
    status, location = answer
    headers = {"location": location} if location else {}
    registry.server.on("POST /v2/app/blobs/uploads/", lambda exchange: exchange.answer(status, **headers))
    with uploader_of(registry.server) as uploader, bounded(3), pytest.raises(CloisonError) as caught:
        uploader.put_blob(described(SMALL), opener(SMALL))
    assert str(caught.value).isprintable()


def test_content_goes_to_no_other_origin_and_no_secret_either(registry: Writable) -> None:
    with ScriptedRegistry() as other:
        for location in (f"{other.url}/upload", "http://localhost:1/x", "ftp://x/", "//192.0.2.1/"):
            registry.server.on(
                "POST /v2/app/blobs/uploads/", lambda exchange, to=location: exchange.answer(202, location=to)
            )
            with uploader_of(registry.server) as uploader, pytest.raises((Denied, InvalidArgument)):
                uploader.put_blob(described(SMALL), opener(SMALL))
        for status in (301, 302, 303, 307, 308):
            registry.server.on(
                f"PUT {registry.place}", lambda e, s=status: (e.read(), e.answer(s, location=f"{other.url}/x"))
            )
            registry.server.on("POST /v2/app/blobs/uploads/", registry.begin)
            with uploader_of(registry.server) as uploader, pytest.raises(Denied, match="refused a redirect"):
                uploader.put_blob(described(SMALL), opener(SMALL))
        assert other.requests == []


def test_a_blob_is_mounted_or_the_upload_that_began_instead_is_cancelled(registry: Writable) -> None:
    answers = iter([(201, ""), (202, registry.place), (404, "")])

    def begin(exchange: Exchange) -> None:
        assert "mount=sha256%3A" in exchange.query
        assert "from=other%2Fapp" in exchange.query
        status, location = next(answers)
        exchange.answer(status, location=location)

    registry.server.on("POST /v2/app/blobs/uploads/", begin)
    with uploader_of(registry.server) as uploader:
        mounted = [uploader.mount_blob(described(SMALL).digest, "other/app") for _ in range(3)]
    assert mounted == [True, False, False]
    assert registry.methods() == ["POST", "POST", "DELETE", "POST"]


def test_a_blob_that_is_there_with_another_size_is_refused(registry: Writable) -> None:
    blob = described(SMALL)
    for length, there in ((str(blob.size), True), ("7", None)):
        registry.server.on(f"HEAD /v2/app/blobs/{blob.digest}", lambda e, n=length: e.head(200, content_length=n))
        with uploader_of(registry.server) as uploader:
            if there:
                assert uploader.has_blob(blob)
            else:
                with pytest.raises(InvalidArgument, match="7 bytes for 12"):
                    uploader.has_blob(blob)


def test_a_manifest_with_a_subject_is_listed_where_the_registry_does_not_do_so(registry: Writable) -> None:
    subject = "sha256:" + "5" * 64
    tag = subject.replace(":", "-")
    body = json.dumps({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "text/x-note", "annotations": {"a": "b"},
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": subject, "size": 2}, "layers": [],
        "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 7},
    }).encode()  # fmt: skip
    for name in ("note", tag):
        registry.take_manifests(name)
    with uploader_of(registry.server) as uploader:
        digest = uploader.put_manifest(body, media_type=OCI_MANIFEST, name="note")
    listed = json.loads(registry.manifests[tag])["manifests"]
    assert [(item["digest"], item["artifactType"], item["annotations"]) for item in listed] == [
        (digest, "text/x-note", {"a": "b"})
    ]
    registry.server.add_manifest(registry.manifests[tag], tag=tag, media_type="application/vnd.oci.image.index.v1+json")
    with client_of(registry.server) as client:
        assert [item.digest for item in list_referrers(client, subject)] == [digest]
        assert list_referrers(client, subject, artifact_type="other") == []
    registry.take_manifests("note", subjects=True)
    registry.manifests.pop(tag)
    with uploader_of(registry.server) as uploader:
        uploader.put_manifest(body, media_type=OCI_MANIFEST, name="note")
    assert tag not in registry.manifests


def test_a_registry_that_stores_another_manifest_is_refused(registry: Writable) -> None:
    other = "sha256:" + hashlib.sha256(b"other").hexdigest()
    registry.server.on("PUT /v2/app/manifests/t", lambda e: (e.read(), e.answer(201, docker_content_digest=other)))
    with uploader_of(registry.server) as uploader, pytest.raises(InvalidArgument, match="stored another manifest"):
        uploader.put_manifest(b'{"schemaVersion":2}', media_type=OCI_MANIFEST, name="t")


def test_deleting_says_when_a_registry_does_not_do_it(registry: Writable) -> None:
    registry.server.on("DELETE /v2/app/manifests/t", lambda e: e.answer(405))
    with uploader_of(registry.server) as uploader, pytest.raises(Unsupported, match="does not do this"):
        uploader.delete_manifest("t")


# --- lists ------------------------------------------------------------------------------------------------------------


def test_lists_come_page_by_page(server: ScriptedRegistry) -> None:
    def tags(exchange: Exchange) -> None:
        if "last" in exchange.query:
            exchange.answer(200, b'{"name":"app","tags":["c"]}')
        else:
            exchange.answer(200, b'{"tags":["a","b"]}', link='</v2/app/tags/list?last=b&n=2>; rel="next"')

    server.on("/v2/app/tags/list", tags)
    server.on("/v2/_catalog", lambda e: e.answer(200, b'{"repositories":["app","b/c"]}'))
    with client_of(server) as client:
        assert list(list_tags(client)) == ["a", "b", "c"]
        assert list(list_repositories(client.session)) == ["app", "b/c"]


def test_a_list_that_leads_in_circles_or_away_ends(server: ScriptedRegistry) -> None:
    for link, error in (("/v2/app/tags/list?n=1000", Unavailable), ("http://192.0.2.7/v2/x", Denied)):
        server.on("/v2/app/tags/list", lambda e, to=link: e.answer(200, b'{"tags":[]}', link=f'<{to}>; rel="next"'))
        with client_of(server) as client, bounded(5), pytest.raises(error):
            list(list_tags(client))


def test_a_null_list_of_tags_is_empty(server: ScriptedRegistry) -> None:
    server.on("/v2/app/tags/list", lambda e: e.answer(200, b'{"name":"app","tags":null}'))
    with client_of(server) as client:
        assert list(list_tags(client)) == []
