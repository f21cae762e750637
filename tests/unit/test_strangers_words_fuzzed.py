"""Valid documents, references and headers, changed somewhere: what reads them gives a sound value or a clean error."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloison.errors import CloisonError, InvalidArgument
from cloison.model.digest import is_digest
from cloison.model.reference import parse_reference
from cloison.oci.image import OCI_INDEX, OCI_MANIFEST, Index, parse_config, parse_manifest
from cloison.registry.auth import parse_challenges

SHA = "sha256:" + "ab" * 32
LAYER = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
    "digest": SHA,
    "size": 7,
    "annotations": {"a": "b"},
}
PLATFORM = {"architecture": "arm", "os": "linux", "variant": "v7", "os.version": "1", "os.features": ["x"]}
MANIFEST = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": LAYER, "layers": [LAYER], "subject": LAYER}
INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [{**LAYER, "platform": PLATFORM}]}
CONFIG = {
    "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z", "author": "a",
    "config": {"Env": ["A=1"], "Cmd": ["x"], "Entrypoint": ["y"], "Labels": {"k": "v"}, "ExposedPorts": {"80/tcp": {}},
               "Volumes": {"/v": {}}, "User": "u", "WorkingDir": "/w", "StopSignal": "SIGTERM"},
    "rootfs": {"type": "layers", "diff_ids": [SHA]},
    "history": [{"created": "2020-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}],
}  # fmt: skip
ODD = st.sampled_from(
    [None, True, -1, 1 << 63, 1e300, "", "x" * 5000, "\0", "../x", "sha256:../x", SHA.upper(), [], {}, [[]]]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place below a document, as the keys that lead there."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, child in inner for found in [(*path, key), *places(child, (*path, key))]]


@st.composite
def changed(draw: st.DrawFn, document: Any) -> bytes:
    """The document with one to three places removed, replaced, or put where another was."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        if not (found := places(document)):
            break
        *way, last = draw(st.sampled_from(found))
        holder = document
        for key in way:
            holder = holder[key]
        action = draw(st.sampled_from(["remove", "replace", "move"]))
        if action == "remove":
            del holder[last]
        elif action == "replace":
            holder[last] = copy.deepcopy(draw(ODD))  # the next round may change it
        else:
            for key in draw(st.sampled_from(found)):
                if not isinstance(document, dict) or key not in document:
                    break
                holder[last] = copy.deepcopy(document[key])
    text = bytearray(json.dumps(document).encode())
    if draw(st.booleans()):
        text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
    return bytes(text)


@settings(max_examples=300)
@given(changed(MANIFEST) | changed(INDEX))
def test_a_changed_manifest_is_sound_or_refused(data: bytes) -> None:
    try:
        found = parse_manifest(data)
    except CloisonError:
        return
    descriptors = found.manifests if isinstance(found, Index) else (found.config, *found.layers)
    for descriptor in descriptors:
        assert is_digest(descriptor.digest) and 0 <= descriptor.size < 1 << 63
        assert isinstance(descriptor.media_type, str)


@settings(max_examples=300)
@given(changed(CONFIG))
def test_a_changed_config_is_sound_or_refused(data: bytes) -> None:
    try:
        document = parse_config(data)
    except CloisonError:
        return
    assert all(is_digest(diff_id) for diff_id in document.diff_ids)
    config = document.config
    for words in (config.env, config.cmd or (), config.entrypoint or (), config.exposed_ports):
        assert all(isinstance(word, str) and "\0" not in word for word in words)


@settings(max_examples=300)
@given(
    st.sampled_from(["registry.example:5000/a/b:tag", f"a/b@{SHA}", "debian", "[::1]:5000/x:1", f"h.io/x:t@{SHA}"]),
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from("/:@.-_[]A \n\0é") | st.characters()), max_size=3),
)
def test_a_changed_reference_is_itself_again_or_refused(text: str, changes: list[tuple[int, str]]) -> None:
    for place, junk in changes:
        place %= len(text) + 1
        text = text[:place] + junk + text[place + 1 :]
    try:
        reference = parse_reference(text)
    except InvalidArgument:
        return
    assert parse_reference(reference.canonical) == reference
    assert reference.canonical.isascii() and reference.canonical.isprintable()
    assert not {"..", ".", ""} & set(reference.path.split("/"))
    assert not reference.digest or is_digest(reference.digest)


HEADER = 'Bearer realm="https://auth.example/token?a=b",service="s",scope="repository:x:pull", Basic realm="r\\"q"'


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 200), st.sampled_from('",=\\ \t\r\n') | st.characters()), max_size=5))
def test_a_changed_challenge_is_read_or_refused(changes: list[tuple[int, str]]) -> None:
    text = HEADER
    for place, junk in changes:
        place %= len(text) + 1
        text = text[:place] + junk + text[place + 1 :]
    try:
        challenges = parse_challenges(text)
    except InvalidArgument:
        return
    for challenge in challenges:
        assert challenge.scheme.isascii() and challenge.scheme.isprintable()
        assert all(name.isascii() and name == name.lower() for name in challenge.parameters)
