"""Manifests of OCI's kind as Docker's schema 2, and the other way round: other names, the same blobs.

Sources: image-spec media-types.md, "Compatibility Matrix"; Docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

import hashlib

from cloison.errors import InvalidArgument, Unsupported
from cloison.oci.image import OCI_LAYER, OCI_NAMES, render_document
from cloison.oci.strict import parse_json
from cloison.registry.client import ManifestAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FORMS = ("oci", "v2s2")
# zstd has a name in Docker's manner, which containerd alone understands
_DOCKER_NAMES = {oci: docker for docker, oci in OCI_NAMES.items() if not oci.endswith("+zstd")}
_OCI_ONLY = ("annotations", "artifactType", "subject")  # Docker's schema has no place for them


def check_form(form: str) -> None:
    """Raises: InvalidArgument unless it is one of `FORMS`, or "" (leave manifests as they are)."""
    if form == "v2s1":
        raise InvalidArgument("cannot write manifests of Docker's schema 1", why="it is obsolete since 2017")
    if form and form not in FORMS:
        raise InvalidArgument(f"unknown manifest format {form!r}", hint=f"there are {' and '.join(FORMS)}")


def convert(manifests: Sequence[ManifestAnswer], form: str) -> tuple[ManifestAnswer, ...]:
    """The same manifests, members first, in one form; bytes and digest of one that has it already stay.

    Raises: Unsupported for what Docker's form cannot say: zstd layers, artifacts.
    """
    names = _DOCKER_NAMES if form == "v2s2" else OCI_NAMES
    moved: dict[str, ManifestAnswer] = {}
    for answer in manifests:
        moved[answer.digest] = _converted(answer, names, moved)
    return tuple(moved[answer.digest] for answer in manifests)


def _converted(
    answer: ManifestAnswer, names: Mapping[str, str], moved: Mapping[str, ManifestAnswer]
) -> ManifestAnswer:  # fmt: skip
    value = parse_json(answer.body, document="manifest")
    assert isinstance(value, dict)  # it has been parsed before
    has_moved = any(digest != new.digest for digest, new in moved.items())
    if answer.media_type in names.values() and not ("manifests" in value and has_moved):
        return answer
    value["mediaType"] = kind = names.get(answer.media_type, answer.media_type)
    if "manifests" in value:
        value["manifests"] = [_member(item, moved) for item in value["manifests"]]
    else:
        value["config"] = _blob(value["config"], names, answer)
        value["layers"] = [_blob(item, names, answer) for item in value.get("layers") or []]
    if names is _DOCKER_NAMES:
        for item in (value, *value.get("manifests", ()), *value.get("layers", ()), value.get("config", {})):
            for field in _OCI_ONLY:
                item.pop(field, None)
    body = render_document(value)
    return ManifestAnswer(media_type=kind, body=body, digest="sha256:" + hashlib.sha256(body).hexdigest())


def _member(item: dict[str, Any], moved: Mapping[str, ManifestAnswer]) -> dict[str, Any]:
    new = moved[item["digest"]]
    return {**item, "mediaType": new.media_type, "digest": new.digest, "size": len(new.body)}


def _blob(item: dict[str, Any], names: Mapping[str, str], answer: ManifestAnswer) -> dict[str, Any]:
    kind = item.get("mediaType", "")
    if kind in names:
        return {**item, "mediaType": names[kind]}
    if kind in names.values() or (names is OCI_NAMES and kind.startswith(OCI_LAYER)):
        return item
    if "zstd" in kind:
        why = "it has a zstd layer, which Docker's schema 2 does not know"
    else:
        why = f"it holds {kind[:100] or 'something without a type'}, which is no part of an image"
    raise Unsupported(f"cannot convert manifest {answer.digest}", why=why, hint="copy it without --format")
