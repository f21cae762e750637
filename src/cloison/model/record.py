"""The one record tool: keyword-only, frozen, slotted values with ``==``, ``hash``, ``repr`` and ``replace``.

It imports nothing, because ``run`` pays for every import on each call (dataclasses cost 12 ms, msgspec 15 ms).
Modules that define records must say ``from __future__ import annotations``: field types stay text, never evaluated.

    class Point(Record):
        x: int
        y: int = 0

A field that holds records (one, or a tuple of them) is named in ``NESTED`` so that ``from_plain`` can rebuild it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

    R = TypeVar("R", bound="Record")
else:

    def dataclass_transform(**_options):
        return lambda cls: cls


_MISSING = object()


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _RecordType(type):
    """Turns annotated names into slots, and their values into defaults."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> _RecordType:
        fields: dict[str, Any] = {}
        for base in bases:
            fields.update(getattr(base, "_fields", {}))
        own = [f for f, kind in namespace.get("__annotations__", {}).items() if not kind.startswith("ClassVar")]
        fields.update({field: namespace.pop(field, _MISSING) for field in own})
        namespace["__slots__"] = tuple(own)
        namespace["_fields"] = fields
        return super().__new__(mcls, name, bases, namespace)


class Record(metaclass=_RecordType):
    """A frozen value. Mappings inside are shared, never copied: treat them as frozen too."""

    NESTED: ClassVar[Mapping[str, Any]] = {}
    _fields: ClassVar[dict[str, Any]]

    def __init__(self, **values: Any) -> None:
        write = object.__setattr__
        for field, default in self._fields.items():
            value = values.pop(field, default)
            if value is _MISSING:
                raise TypeError(f"{type(self).__name__} needs {field!r}")
            write(self, field, value)
        if values:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use replace({name}=…)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, f) == getattr(other, f) for f in self._fields)

    def __hash__(self) -> int:
        return hash((type(self), *(_frozen(getattr(self, f)) for f in self._fields)))

    def __repr__(self) -> str:
        shown = (f"{f}={getattr(self, f)!r}" for f, default in self._fields.items() if getattr(self, f) != default)
        return f"{type(self).__name__}({', '.join(shown)})"

    def replace(self, **changes: Any) -> Self:
        """The same record with some fields changed."""
        values = {field: getattr(self, field) for field in self._fields}
        values.update(changes)
        return type(self)(**values)


def _frozen(value: object) -> object:
    return tuple(sorted(value.items())) if isinstance(value, dict) else value


def to_plain(value: Any) -> Any:
    """A record as dicts, lists and scalars, ready for JSON; fields that still have their default are left out."""
    if isinstance(value, Record):
        return {
            field: to_plain(getattr(value, field))
            for field, default in value._fields.items()
            if getattr(value, field) != default
        }
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def from_plain(cls: type[R], plain: Mapping[str, Any]) -> R:
    """Rebuild a record that ``to_plain`` took apart; lists become tuples, ``NESTED`` fields become records.

    Raises: TypeError when a field is missing or unknown: our own files have a version, so that is damage.
    """
    nested = cls.NESTED
    values = {field: _rebuild(value, nested.get(field)) for field, value in plain.items()}
    return cls(**values)


def _rebuild(value: Any, kind: Any) -> Any:
    if isinstance(value, list):
        return tuple(_rebuild(item, kind) for item in value)
    if kind is not None and isinstance(value, dict):
        return from_plain(kind, value)
    return value
