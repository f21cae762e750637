"""JSON from strangers: one meaning or none (no duplicate keys, NaN, huge numbers, lone surrogates, deep nesting)."""

from __future__ import annotations

import json

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeVar

    T = TypeVar("T")

# distribution-spec, "Pushing Manifests": registries should allow, and clients expect, at most 4 MiB
MAX_DOCUMENT_BYTES = 4 << 20


class Fields:
    """One JSON object, read field by field with the type that is expected; absent and null are the same.

    Every error names the document and the field: "invalid manifest: layers[2].size is not a whole number".
    """

    def __init__(self, value: object, *, document: str, where: str = "") -> None:
        self.document = document
        self.where = where
        if not isinstance(value, dict):
            raise self.invalid("", "is not an object")
        self._values: dict[str, object] = value

    def invalid(self, field: str, problem: str) -> InvalidArgument:
        path = f"{self.where}.{field}".strip(".") or "the document"
        return InvalidArgument(f"invalid {self.document}", why=f"{path} {problem}")

    def has(self, field: str) -> bool:
        return self._values.get(field) is not None

    def text(self, field: str, *, default: str | None = None) -> str:
        value = self._values.get(field)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.invalid(field, "is missing" if value is None else "is not a string")
        if "\0" in value:
            raise self.invalid(field, "holds a NUL")
        return value

    def number(self, field: str) -> int:
        """A whole number of at least 0 below 2^63; true and 1.0 are not numbers."""
        value = self._values.get(field)
        if type(value) is not int or not 0 <= value < 1 << 63:
            raise self.invalid(field, "is missing" if value is None else "is not a whole number")
        return value

    def inner(self, field: str) -> Fields:
        """An object; absent is empty."""
        value = self._values.get(field)
        where = f"{self.where}.{field}".strip(".")
        return Fields({} if value is None else value, document=self.document, where=where)

    def texts(self, field: str) -> tuple[str, ...]:
        values = self._list(field)
        texts = tuple(value for value in values if isinstance(value, str) and "\0" not in value)
        if len(texts) != len(values):
            raise self.invalid(field, "is not a list of strings")
        return texts

    def objects(self, field: str, build: Callable[[Fields], T], *, limit: int) -> tuple[T, ...]:
        """Each object of a list through ``build``; more than ``limit`` is refused."""
        values = self._list(field)
        if len(values) > limit:
            raise self.invalid(field, f"has {len(values)} entries, more than {limit}")
        where = f"{self.where}.{field}".strip(".")
        inner = [Fields(value, document=self.document, where=f"{where}[{i}]") for i, value in enumerate(values)]
        return tuple(map(build, inner))

    def text_map(self, field: str) -> dict[str, str]:
        fields = self.inner(field)
        return {key: fields.text(key, default="") for key in fields._values}

    def keys(self, field: str) -> tuple[str, ...]:
        """The names in an object that is used as a set (``ExposedPorts``)."""
        return tuple(self.inner(field)._values)

    def _list(self, field: str) -> Sequence[object]:
        value = self._values.get(field)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.invalid(field, "is not a list")
        return value


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
