"""Pulls from registries whose documents do not fit together: nothing wrong is visible, nothing is fetched twice."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import CloisonError, InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.images.progress import NoProgress, Progress
from cloison.images.pull import Fetched
from cloison.model.settings import Settings
from cloison.oci.image import OCI_CONFIG, OCI_LAYER
from cloison.store.blobs import Blobs
from image_pull import fetch
from scripted_registry import DATA, LIMITS, OCI_INDEX, OCI_MANIFEST, Exchange, ScriptedRegistry, bounded, name_on

Json = dict[str, object]


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(str(tmp_path))


def add_image(
    server: ScriptedRegistry,
    *layers: bytes,
    tag: str = "latest",
    diff_ids: int | None = None,
    architecture: str = "amd64",
) -> Json:
    """An image of these layers; its manifest's descriptor. diff_ids: how many the configuration has."""
    count = len(layers) if diff_ids is None else diff_ids
    rootfs = {"type": "layers", "diff_ids": ["sha256:" + f"{n:064x}" for n in range(count)]}
    config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": rootfs}).encode()
    manifest: Json = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": server.add_blob(config), "size": len(config)},
        "layers": [{"mediaType": OCI_LAYER, "digest": server.add_blob(data), "size": len(data)} for data in layers],
    }
    digest = server.add_manifest(manifest, tag=tag)
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(json.dumps(manifest))}


def add_index(server: ScriptedRegistry, *manifests: Json, tag: str = "latest") -> Json:
    platform = {"os": "linux", "architecture": "amd64"}
    index: Json = {"schemaVersion": 2, "manifests": [{"platform": platform, **manifest} for manifest in manifests]}
    digest = server.add_manifest(index, tag=tag, media_type=OCI_INDEX)
    return {"mediaType": OCI_INDEX, "digest": digest, "size": len(json.dumps(index))}


def pull(server: ScriptedRegistry, blobs: Blobs, *, progress: Progress | None = None) -> Fetched:
    return fetch(
        name_on(server), blobs=blobs, settings=Settings(), platform="linux/amd64", progress=progress or NoProgress(),
        limits=LIMITS,
    )  # fmt: skip


def nothing_unfinished(blobs: Blobs) -> bool:
    incoming = Path(blobs.root) / "incoming"
    return not incoming.exists() or not os.listdir(incoming)


def test_a_layer_that_is_used_twice_is_fetched_once(server: ScriptedRegistry, blobs: Blobs) -> None:
    add_image(server, DATA, b"other", DATA)
    fetched = pull(server, blobs)
    assert len(fetched.layers) == 3
    assert len([request for request in server.requests if fetched.layers[0].digest in request.path]) == 1


@pytest.mark.parametrize("wrong", [{"size": 7}, {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"}])
def test_an_index_that_describes_its_manifest_wrongly_is_refused(
    server: ScriptedRegistry, blobs: Blobs, wrong: Json
) -> None:
    add_index(server, {**add_image(server, DATA, tag="inner"), **wrong})
    with pytest.raises(InvalidArgument, match="does not match"):
        pull(server, blobs)
    assert list(blobs.list()) == []


def test_indexes_inside_indexes_end_somewhere(server: ScriptedRegistry, blobs: Blobs) -> None:
    descriptor = add_image(server, DATA, tag="inner")
    for level in range(3):
        descriptor = add_index(server, descriptor, tag="latest" if level == 2 else f"level{level}")
    assert pull(server, blobs).digest == descriptor["digest"]
    add_index(server, descriptor)
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        pull(server, blobs)


def test_an_index_that_names_a_manifest_which_is_not_there_is_not_found(server: ScriptedRegistry, blobs: Blobs) -> None:
    add_index(server, {"mediaType": OCI_MANIFEST, "digest": "sha256:" + "3" * 64, "size": 10})
    with pytest.raises(NotFound, match="manifest for .*@sha256:333"):
        pull(server, blobs)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_configuration_with_another_number_of_layers_is_refused(
    server: ScriptedRegistry, blobs: Blobs, count: int
) -> None:
    add_image(server, DATA, b"other", diff_ids=count)
    with pytest.raises(InvalidArgument, match="differ in layers"):
        pull(server, blobs)


def test_a_type_and_a_body_that_disagree_are_refused(server: ScriptedRegistry, blobs: Blobs) -> None:
    body: Json = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}
    for media_type, value in ((OCI_INDEX, body), (OCI_MANIFEST, body), (OCI_MANIFEST, {**body, "layers": []})):
        server.add_manifest(value, media_type=media_type)
        with pytest.raises(InvalidArgument, match="invalid manifest"):
            pull(server, blobs)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"schemaVersion": 2}', b"[" * 100_000, b"\xff\xfe", b"null"])
def test_a_body_that_is_no_manifest_is_refused(server: ScriptedRegistry, blobs: Blobs, body: bytes) -> None:
    server.add_manifest(body)
    with pytest.raises(InvalidArgument) as caught:
        pull(server, blobs)
    assert str(caught.value).isprintable()


def test_a_layer_of_a_kind_that_is_no_layer_is_refused_before_it_is_fetched(
    server: ScriptedRegistry, blobs: Blobs
) -> None:
    descriptor = {"mediaType": "application/x-tea", "digest": server.add_blob(DATA), "size": len(DATA)}
    config = {"mediaType": OCI_CONFIG, "digest": server.add_blob(b"{}"), "size": 2}
    server.add_manifest({"schemaVersion": 2, "config": config, "layers": [descriptor]})
    with pytest.raises(Unsupported, match="application/x-tea"):
        pull(server, blobs)
    assert len(server.requests) == 1


def test_addresses_in_a_layers_descriptor_are_ignored(server: ScriptedRegistry, blobs: Blobs) -> None:
    with ScriptedRegistry() as other:
        config = json.dumps({"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}}).encode()
        layer = {"mediaType": OCI_LAYER, "digest": server.add_blob(DATA), "size": len(DATA), "urls": [f"{other.url}/x"]}
        described = {"mediaType": OCI_CONFIG, "digest": server.add_blob(config), "size": len(config)}
        server.add_manifest({"schemaVersion": 2, "config": described, "layers": [layer]})
        assert pull(server, blobs).layers[0].size == len(DATA)
        assert other.requests == []


def test_a_wrong_layer_ends_the_others_and_none_is_half_visible(server: ScriptedRegistry, blobs: Blobs) -> None:
    other = DATA[::-1]
    add_image(server, DATA, other)
    wrong, slow = server.add_blob(DATA), server.add_blob(other)
    partial = Path(blobs.incoming, f"{slow.replace(':', '-')}.partial")

    def lie(exchange: Exchange) -> None:
        for _ in range(1000):  # only when there is something of the slow one
            if partial.exists() and partial.stat().st_size:
                break
            time.sleep(0.002)
        exchange.answer(200, other)

    def stall(exchange: Exchange) -> None:
        exchange.head(200, content_length=str(len(other)))
        exchange.send(other[:1000])
        exchange.wait(20)

    server.on(f"/v2/app/blobs/{wrong}", lie)
    server.on(f"/v2/app/blobs/{slow}", stall)
    with bounded(5), pytest.raises(InvalidArgument) as caught:
        pull(server, blobs)
    assert wrong in str(caught.value)
    assert slow in str(caught.value)  # the content was the other layer's: both digests are named
    assert not blobs.has(wrong) and not blobs.has(slow)
    assert os.listdir(blobs.incoming) == [partial.name]  # of which nothing was wrong


def test_a_descriptor_with_another_size_than_the_blob_that_is_there_is_refused(
    server: ScriptedRegistry, blobs: Blobs
) -> None:
    add_image(server, DATA)
    fetched = pull(server, blobs)
    digest = fetched.layers[0].digest
    manifest = json.loads(blobs.read(fetched.manifest_digest))
    manifest["layers"][0]["size"] = len(DATA) + 1
    server.add_manifest(manifest)
    with pytest.raises(InvalidArgument, match=f"blob {digest} does not have {len(DATA) + 1} bytes"):
        pull(server, blobs)
    assert Path(blobs.path(digest)).read_bytes() == DATA


def test_a_blob_that_was_cut_short_on_disk_is_mended_by_the_next_pull(server: ScriptedRegistry, blobs: Blobs) -> None:
    add_image(server, DATA)
    digest = pull(server, blobs).layers[0].digest
    path = Path(blobs.path(digest))
    path.unlink()
    path.write_bytes(DATA[:1000])
    pull(server, blobs)
    assert path.read_bytes() == DATA


def test_a_registry_that_breaks_off_every_layer_leaves_nothing(server: ScriptedRegistry, blobs: Blobs) -> None:
    add_image(server, DATA)

    def cut(exchange: Exchange) -> None:
        exchange.head(200, content_length=str(len(DATA)))
        exchange.send(b"")

    server.on(f"/v2/app/blobs/{server.add_blob(DATA)}", cut)
    with bounded(5), pytest.raises(Unavailable, match="broke off"):
        pull(server, blobs)
    assert nothing_unfinished(blobs)


def test_a_failure_of_whoever_watches_is_raised_and_not_swallowed(server: ScriptedRegistry, blobs: Blobs) -> None:
    class Broken(NoProgress):
        def advance(self, item: str, count: int) -> None:
            raise RuntimeError("nobody looks")

    add_image(server, DATA)
    with pytest.raises(RuntimeError, match="nobody looks"):
        pull(server, blobs, progress=Broken())
    assert nothing_unfinished(blobs)


def test_a_data_root_that_cannot_be_written_is_told_in_one_line(server: ScriptedRegistry, tmp_path: Path) -> None:
    add_image(server, DATA)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "blobs").write_text("a file where the directory should be")
    with pytest.raises(CloisonError) as caught:
        pull(server, Blobs(str(blocked)))
    assert "\n" not in str(caught.value)
