"""runc's and crun's grammar of options: ``--name value``, ``--name=value``, ``-n value``, before and after the words.

One dash does for long names too, as in Go's own flag package. ``--`` ends the options.
"""

from __future__ import annotations

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloison.oci_runtime.log import Log

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


class HelpWanted(Exception):
    """``--help`` was among the options."""


class Verb:
    """One verb: ``options`` are "name" -> "switch", "text" or "list"; ``short`` is a letter or alias -> name."""

    __slots__ = ("action", "failure", "interspersed", "least", "most", "name", "options", "short", "usage")

    def __init__(
        self, name: str, action: Callable[[Call], int], *, usage: str, options: Mapping[str, str] = {},
        short: Mapping[str, str] = {}, least: int = 1, most: int = 1, interspersed: bool = True, failure: int = 1,
    ) -> None:  # fmt: skip
        self.name = name
        self.action = action
        self.usage = usage
        self.options = {"help": "switch", **options}
        self.short = {"h": "help", **short}
        self.least = least
        self.most = most
        self.interspersed = interspersed
        self.failure = failure


class Call:
    """One invocation: the options by name, the words, and the state root."""

    __slots__ = ("_values", "cache", "cgroups", "criu", "environ", "log", "root", "systemd", "words")

    def __init__(
        self, values: dict[str, object], words: list[str], *, root: str, log: Log, environ: Mapping[str, str],
        cgroups: bool = True, systemd: bool = False, cache: str = "", criu: str = "",
    ) -> None:  # fmt: skip
        self._values = values
        self.words = words
        self.root = root
        self.log = log
        self.environ = environ
        self.cache = cache  # directory of compiled filters, the same for every state root
        self.criu = criu  # the program, where it is not the installed one
        self.systemd = systemd  # whether those are made by systemd
        self.cgroups = cgroups  # whether containers get control groups of their own

    @property
    def id(self) -> str:
        return self.words[0]

    def set(self, name: str, value: str) -> None:
        self._values[name] = value

    def given(self, name: str) -> bool:
        return name in self._values

    def switch(self, name: str) -> bool:
        return bool(self._values.get(name))

    def text(self, name: str, default: str = "") -> str:
        return str(self._values.get(name, default))

    def texts(self, name: str) -> list[str]:
        value = self._values.get(name)
        return list(value) if isinstance(value, list) else []

    def number(self, name: str) -> int | None:
        """A whole number. Raises: InvalidArgument."""
        if name not in self._values:
            return None
        text = self.text(name)
        if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 21):
            raise InvalidArgument(f'invalid value "{text}" for flag -{name}', why="it is not a whole number")
        return int(text)


def parse(verb: Verb, argv: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """Options by name, and the words. Raises: InvalidArgument, HelpWanted."""
    values: dict[str, object] = {}
    words: list[str] = []
    rest = list(reversed(argv))
    while rest:
        word = rest.pop()
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            words.append(word)
            if not verb.interspersed:
                break
            continue
        name, equals, text = word.lstrip("-").partition("=")
        name = verb.short.get(name, name)
        kind = verb.options.get(name)
        if kind is None:
            raise InvalidArgument(f"flag provided but not defined: {word.partition('=')[0]}")
        if kind != "switch" and not equals:
            if not rest:
                raise InvalidArgument(f"flag needs an argument: {word}")
            text = rest.pop()
        _store(values, name, kind=kind, text=text if equals or kind != "switch" else "true")
    words += reversed(rest)
    if values.get("help"):
        raise HelpWanted
    return values, words


def _store(values: dict[str, object], name: str, *, kind: str, text: str) -> None:
    if kind == "list":
        kept = values.setdefault(name, [])
        assert isinstance(kept, list)
        kept.append(text)
    elif kind == "text":
        values[name] = text
    elif text in _TRUE or text in _FALSE:
        values[name] = text in _TRUE
    else:
        raise InvalidArgument(f'invalid boolean value "{text}" for flag -{name}')


def check_words(verb: Verb, words: Sequence[str]) -> None:
    """Raises: InvalidArgument in runc's words."""
    count = len(words)
    if verb.least <= count and (verb.most < 0 or count <= verb.most):
        return
    wanted = f"exactly {verb.least}" if verb.least == verb.most else f"a minimum of {verb.least}"
    if 0 <= verb.most < count and verb.least != verb.most:
        wanted = f"a maximum of {verb.most}"
    raise InvalidArgument(f'"{verb.name}" requires {wanted} argument(s)')
