"""One invocation of one verb: its flags, its words, and the way to the engine."""

from __future__ import annotations

from cloison.cli.parser import bad_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from cloison.cli.parser import Verb
    from cloison.engine.engine import Engine
    from cloison.model.settings import Settings

    T = TypeVar("T")


class Call:
    """What a verb's action gets: typed access to the flags by their long names."""

    __slots__ = ("_engine", "_values", "environ", "settings", "verb", "words")

    def __init__(
        self, verb: Verb, values: dict[str, object], *, words: list[str], settings: Settings, environ: Mapping[str, str]
    ) -> None:
        self.verb = verb
        self._values = values
        self.words = words
        self.settings = settings
        self.environ = environ
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine, imported at first use: a wrong flag must not pay for it."""
        if self._engine is None:
            from cloison.engine.engine import Engine

            self._engine = Engine(self.settings)
        return self._engine

    def given(self, name: str) -> bool:
        """Whether the flag was typed at all, whatever its value."""
        return name in self._values

    def switch(self, name: str, *, default: bool = False) -> bool:
        return bool(self._values.get(name, default))

    def text(self, name: str, default: str = "") -> str:
        value = self._values.get(name, default)
        assert isinstance(value, str)
        return value

    def texts(self, name: str) -> list[str]:
        value = self._values.get(name)
        return list(value) if isinstance(value, list) else []

    def number(self, name: str) -> int | None:
        """The value of a number flag in its unit (bytes, ns, billionths), None when it was not given."""
        value = self._values.get(name)
        return value if isinstance(value, int) else None

    def each(self, name: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """Every value of a flag, parsed. Raises: UsageError (flag and value named) where ``parse`` has a ValueError."""
        value = self._values.get(name, [])
        texts = value if isinstance(value, list) else [value]
        return tuple(self._parsed(name, str(text), parse) for text in texts)

    def _parsed(self, name: str, text: str, parse: Callable[[str], T]) -> T:
        try:
            return parse(text)
        except ValueError as err:
            flag = next(flag for flag in self.verb.flags if flag.name == name)
            raise bad_value(flag, text, reason=str(err), verb=self.verb.name) from None
