"""One JSON object read field by field, each with the type that is expected; imports nothing, so the hot path may."""

from __future__ import annotations

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    T = TypeVar("T")


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

    def flag(self, field: str) -> bool:
        """True or false; absent is false."""
        value = self._values.get(field)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self.invalid(field, "is neither true nor false")
        return value

    def whole(self, field: str, *, least: int = -(1 << 63), most: int = (1 << 64) - 1) -> int | None:
        """A whole number within these bounds; None when absent. true and 1.0 are not numbers."""
        value = self._values.get(field)
        if value is None:
            return None
        if type(value) is not int:
            raise self.invalid(field, "is not a whole number")
        if not least <= value <= most:
            raise self.invalid(field, f"is {value}, not a number from {least} to {most}")
        return value

    def wholes(self, field: str, *, least: int = 0, most: int = (1 << 63) - 1) -> tuple[int, ...]:
        values = self._list(field)
        numbers = tuple(value for value in values if type(value) is int and least <= value <= most)
        if len(numbers) != len(values):
            raise self.invalid(field, f"is not a list of whole numbers from {least} to {most}")
        return numbers

    def choice(self, field: str, words: Sequence[str], *, default: str | None = None) -> str:
        """One of these words."""
        value = self.text(field, default=default)
        if value not in words and value != default:
            raise self.invalid(field, f"is {value[:64]!r}, not one of {', '.join(words)}")
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

    def raw(self, field: str) -> object:
        """The value as it stands, None when absent; for what is read elsewhere."""
        return self._values.get(field)

    def keys(self, field: str) -> tuple[str, ...]:
        """The names in an object that is used as a set (``ExposedPorts``); "" is this very object."""
        return tuple((self.inner(field) if field else self)._values)

    def _list(self, field: str) -> Sequence[object]:
        value = self._values.get(field)
        if value is None:
            return ()
        if not isinstance(value, list):
            raise self.invalid(field, "is not a list")
        return value
