"""JSON from strangers: one meaning or none (no duplicate keys, NaN, huge numbers, lone surrogates, deep nesting)."""

from __future__ import annotations

import json

from cloison.errors import InvalidArgument
from cloison.oci.fields import Fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# distribution-spec, "Pushing Manifests": registries should allow, and clients expect, at most 4 MiB
MAX_DOCUMENT_BYTES = 4 << 20


def parse_document(data: bytes, *, document: str) -> Fields:
    """One JSON object from untrusted bytes. Raises: InvalidArgument."""
    return Fields(parse_json(data, document=document), document=document)


def parse_json(data: bytes, *, document: str) -> object:
    """Any JSON value from untrusted bytes; equal for every conforming parser. Raises: InvalidArgument."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise InvalidArgument(f"invalid {document}", why=f"{len(data)} bytes, more than {MAX_DOCUMENT_BYTES}")
    try:
        value: object = json.loads(
            data.decode(), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite, parse_int=_bounded
        )
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8 form
    except (ValueError, RecursionError) as err:
        why = "nested too deeply" if isinstance(err, RecursionError) else str(err)
        raise InvalidArgument(f"invalid {document}", why=why) from None
    return value


def _unique(pairs: Sequence[tuple[str, object]]) -> Mapping[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return values


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text[:20]} is out of range")
    return value


def _bounded(text: str) -> int:
    # int() of many digits takes quadratic time
    if len(text) > 20:
        raise ValueError(f"number {text[:20]}… is out of range")
    return int(text)
