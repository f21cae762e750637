"""Manifests, indexes and configurations from strangers: one meaning, or an error for people."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.errors import CloisonError, InvalidArgument, Unsupported
from cloison.oci.image import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    ConfigDocument,
    Descriptor,
    Index,
    Manifest,
    chain_ids,
    parse_config,
    parse_manifest,
    render_config,
    render_manifest,
)
from cloison.oci.strict import parse_json

SHA = "sha256:" + "ab" * 32
LAYER = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": SHA, "size": 7}
MANIFEST: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": LAYER, "layers": [LAYER]}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "manifests": [{**LAYER, "platform": {"architecture": "arm", "os": "linux"}}],
}
CONFIG: dict[str, Any] = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [SHA]}}


def parse(value: object, media_type: str = "") -> Manifest | Index:
    return parse_manifest(json.dumps(value).encode(), media_type=media_type)


def test_a_manifest_names_its_config_and_its_layers() -> None:
    manifest = parse(MANIFEST)
    assert isinstance(manifest, Manifest)
    assert (manifest.layers[0].digest, manifest.layers[0].size, manifest.config.size) == (SHA, 7, 7)


def test_an_index_names_manifests_with_their_platforms() -> None:
    index = parse(INDEX, OCI_INDEX)
    assert isinstance(index, Index)
    assert index.manifests[0].platform is not None
    assert index.manifests[0].platform.architecture == "arm"


@pytest.mark.parametrize(
    ("value", "announced"),
    [
        ({**MANIFEST, **INDEX}, ""),
        ({"schemaVersion": 2}, ""),
        ({**INDEX, "config": LAYER}, ""),
        (MANIFEST, OCI_INDEX),
        (MANIFEST, DOCKER_MANIFEST),
        ({**MANIFEST, "mediaType": DOCKER_INDEX}, ""),
        ({**MANIFEST, "mediaType": "text/html"}, ""),
        ({**MANIFEST, "schemaVersion": 3}, ""),
        ({**MANIFEST, "schemaVersion": "2"}, ""),
        ({**MANIFEST, "schemaVersion": True}, ""),
        ({**MANIFEST, "config": None}, ""),
        ({**MANIFEST, "config": [LAYER]}, ""),
        ({**MANIFEST, "layers": {}}, ""),
        ({**MANIFEST, "layers": [None]}, ""),
        ({**MANIFEST, "layers": [LAYER] * 501}, ""),
        ({**MANIFEST, "layers": [{**LAYER, "size": -1}]}, ""),
        ({**MANIFEST, "layers": [{**LAYER, "size": True}]}, ""),
        ({**MANIFEST, "layers": [{**LAYER, "size": 1.0}]}, ""),
        ({**MANIFEST, "layers": [{**LAYER, "size": 1 << 63}]}, ""),
        ({**MANIFEST, "layers": [{**LAYER, "digest": "sha256:../../x"}]}, ""),
        ({**MANIFEST, "layers": [{**LAYER, "digest": None}]}, ""),
        ([MANIFEST], ""),
        ("manifest", ""),
    ],
)
def test_a_manifest_that_could_be_read_two_ways_or_has_wrong_types_is_refused(value: object, announced: str) -> None:
    with pytest.raises(InvalidArgument):
        parse(value, announced)


def test_a_schema_1_manifest_is_refused_by_its_name() -> None:
    with pytest.raises(Unsupported, match="schema 1"):
        parse({"schemaVersion": 1, "name": "x", "fsLayers": []})


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"\xff\xfe", b"nul", b"NaN", b'{"a": Infinity}', b'{"a": 1e999}', b'{"a":1,"a":2}', b"1" * 30,
        b"[" * 100_000, b'{"a":' * 100_000, b'"\\ud800"', b"{} {}", b"0" * (4 << 20) + b" ",
    ],
)  # fmt: skip
def test_json_that_parsers_read_differently_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_json(text, document="manifest")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(MANIFEST) + ["manifests"]), JSON)
def test_any_value_in_any_field_of_a_manifest_gives_a_manifest_or_an_error_for_people(
    field: str, value: object
) -> None:
    try:
        parse({**MANIFEST, field: value})
    except CloisonError:
        pass


@given(st.sampled_from(["architecture", "config", "rootfs", "history", "created", "os"]), JSON)
def test_any_value_in_any_field_of_a_config_gives_a_config_or_an_error_for_people(field: str, value: object) -> None:
    try:
        parse_config(json.dumps({**CONFIG, field: value}).encode())
    except CloisonError:
        pass


def test_null_fields_of_a_config_are_absent_ones() -> None:
    fields = {"Env": None, "Cmd": None, "Labels": None, "ExposedPorts": {"80/tcp": {}}, "User": "me", "Volumes": None}
    document = parse_config(json.dumps({**CONFIG, "config": fields}).encode())
    assert document.config.exposed_ports == ("80/tcp",)
    assert (document.config.user, document.config.env) == ("me", ())


def test_what_we_render_is_what_we_parse() -> None:
    document = parse_config(
        json.dumps({**CONFIG, "config": {"Env": ["A=1"], "Cmd": ["x"], "Labels": {"k": "v"}}}).encode()
    )
    assert parse_config(render_config(document)) == document
    manifest = Manifest(config=Descriptor(media_type="c", digest=SHA, size=1), layers=())
    assert parse_manifest(render_manifest(manifest)) == manifest
    assert render_config(document) == render_config(parse_config(render_config(document)))


def test_chain_ids_are_those_of_the_image_specification() -> None:
    first, second = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    both = hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert chain_ids([first, second]) == (first, f"sha256:{both}")
    with pytest.raises(InvalidArgument):
        chain_ids([])


def test_a_config_without_layers_type_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="rootfs.type"):
        parse_config(json.dumps({**CONFIG, "rootfs": {"type": "x", "diff_ids": []}}).encode())
    assert isinstance(parse_config(json.dumps(CONFIG).encode()), ConfigDocument)
