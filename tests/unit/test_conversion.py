"""Conversion of manifests: media types change, blobs do not, and what is in the wanted form keeps its bytes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from cloison.errors import InvalidArgument, Unsupported
from cloison.images.conversion import check_form, convert
from cloison.oci.image import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, parse_manifest
from cloison.registry.client import ManifestAnswer

LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs"


def blob(kind: str, letter: str = "a", **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": "sha256:" + letter * 64, "size": 7, **more}


def answer(kind: str, **value: Any) -> ManifestAnswer:
    body = json.dumps({"schemaVersion": 2, "mediaType": kind, **value}, indent=3).encode()
    return ManifestAnswer(media_type=kind, body=body, digest="sha256:" + hashlib.sha256(body).hexdigest())


def image(*layers: dict[str, Any], **more: Any) -> ManifestAnswer:
    config = blob("application/vnd.oci.image.config.v1+json", "c")
    return answer(OCI_MANIFEST, config=config, layers=list(layers), **more)


def index(*members: ManifestAnswer) -> ManifestAnswer:
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    found = [
        {"mediaType": item.media_type, "digest": item.digest, "size": len(item.body), "platform": platform,
         "annotations": {"a": "b"}} for item in members
    ]  # fmt: skip
    return answer(OCI_INDEX, manifests=found)


def plain(item: ManifestAnswer) -> dict[str, Any]:
    assert item.digest == "sha256:" + hashlib.sha256(item.body).hexdigest()
    parse_manifest(item.body, media_type=item.media_type)
    value: dict[str, Any] = json.loads(item.body)
    return value


def test_an_image_becomes_dockers_and_comes_back() -> None:
    kinds = [LAYER, f"{LAYER}+gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"]
    original = image(*(blob(kind, "abf"[i]) for i, kind in enumerate(kinds)), annotations={"x": "y"})
    (docker,) = convert([original], "v2s2")
    value = plain(docker)
    assert docker.media_type == value["mediaType"] == DOCKER_MANIFEST
    assert value["config"] == blob("application/vnd.docker.container.image.v1+json", "c")
    assert [layer["mediaType"] for layer in value["layers"]] == [
        f"{DOCKER}.diff.tar", f"{DOCKER}.diff.tar.gzip", f"{DOCKER}.foreign.diff.tar.gzip",
    ]  # fmt: skip
    assert [layer["digest"] for layer in value["layers"]] == ["sha256:" + letter * 64 for letter in "abf"]
    assert "annotations" not in value
    (back,) = convert([docker], "oci")
    assert plain(back) == {key: item for key, item in plain(original).items() if key != "annotations"}


def test_an_index_goes_with_its_members() -> None:
    one, two = image(blob(f"{LAYER}+gzip")), image(blob(LAYER, "b"))
    first, second, top = convert([one, two, index(one, two)], "v2s2")
    value = plain(top)
    assert top.media_type == value["mediaType"] == DOCKER_INDEX
    assert [(item["digest"], item["size"]) for item in value["manifests"]] == [
        (item.digest, len(item.body)) for item in (first, second)
    ]
    assert {item["mediaType"] for item in value["manifests"]} == {DOCKER_MANIFEST}
    assert value["manifests"][0]["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}


def test_what_has_the_form_already_keeps_its_bytes() -> None:
    one = image(blob(f"{LAYER}+zstd"))
    both = [one, index(one)]
    assert convert(both, "oci") == tuple(both)


def test_an_index_of_the_form_with_members_of_the_other_names_the_new_ones() -> None:
    (docker,) = convert([image(blob(LAYER))], "v2s2")
    mixed = index(docker)
    member, top = convert([docker, mixed], "oci")
    assert member.media_type == OCI_MANIFEST
    assert plain(top)["manifests"][0]["digest"] == member.digest != docker.digest


@pytest.mark.parametrize(
    ("kind", "why"), [(f"{LAYER}+zstd", "zstd layer"), ("application/vnd.in-toto+json", "is no part of an image")]
)
def test_what_dockers_schema_cannot_say_is_refused(kind: str, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        convert([image(blob(kind))], "v2s2")


def test_an_artifact_is_refused() -> None:
    config = blob("application/vnd.oci.empty.v1+json", "c")
    with pytest.raises(Unsupported, match="no part of an image"):
        convert([answer(OCI_MANIFEST, config=config, layers=[])], "v2s2")


@pytest.mark.parametrize(("form", "message"), [("v2s1", "schema 1"), ("v3", "unknown manifest format 'v3'")])
def test_other_forms_are_refused(form: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        check_form(form)
