"""Flags as the field's users type them: a declarative table per verb gives the parser and the help text.

The grammar is that of Go's pflag, which docker and podman use: ``--name value``, ``--name=value``, ``-n value``,
``-nvalue``, ``-n=value``, ``-it`` for two switches, ``--switch=false``, ``--`` ends the flags. A verb whose words are
another program's command line (run, create, exec) stops at its first word.
"""

from __future__ import annotations

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloison.cli.call import Call

LISTS = frozenset(("list", "map", "mount", "network", "ulimit", "port"))  # kinds of flags that may be repeated
NUMBERS = frozenset(("int", "bytes", "decimal", "duration"))
TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


class UsageError(InvalidArgument):
    """The words of the command line make no sense; exit status 125 for every verb, as docker does."""

    code = "usage"


class WordCountError(InvalidArgument):
    """Too few or too many words; exit status 1, as docker does."""

    code = "word-count"


class Flag:
    """One row of a verb's table.

    ``names`` is ``"-m, --memory"``; further long names after the first are silent aliases. ``kind`` is the word that
    help shows: bool, one of ``LISTS``, one of ``NUMBERS``, or anything else for text.
    """

    __slots__ = ("aliases", "default", "help", "hidden", "kind", "name", "short")

    def __init__(
        self, names: str, kind: str = "bool", *, help: str = "", default: str = "", hidden: bool = False
    ) -> None:
        spelled = names.split(", ")
        self.short = spelled.pop(0)[1:] if names[1] != "-" else ""
        self.name = spelled[0][2:]
        self.aliases = tuple(alias[2:] for alias in spelled[1:])
        self.kind = kind
        self.help = help
        self.default = default
        self.hidden = hidden

    @property
    def label(self) -> str:
        """``-m, --memory``, as messages name it."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Verb:
    """One verb: all that the parser, the help and the dispatcher know of it.

    ``least`` and ``most`` bound the number of words (-1: no bound). ``failure`` is the exit status of any error that
    has none of its own. ``later`` names flags of docker that this release refuses by name.
    """

    __slots__ = (
        "action", "details", "failure", "flags", "hidden", "interspersed", "later", "least", "most", "name", "summary",
        "usage",
    )  # fmt: skip

    def __init__(
        self, name: str, action: Callable[[Call], int], *, summary: str, usage: str = "", flags: tuple[Flag, ...] = (),
        least: int = 0, most: int = -1, interspersed: bool = True, failure: int = 1, later: str = "",
        details: str = "", hidden: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.action = action
        self.summary = summary
        self.usage = usage
        self.flags = flags
        self.least = least
        self.most = most
        self.interspersed = interspersed
        self.failure = failure
        self.later = later
        self.details = details
        self.hidden = hidden


class HelpWanted(Exception):
    """``--help`` was among the flags."""


def parse(verb: Verb, argv: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """Split a verb's words into flag values by long name and the rest.

    Shape: bool -> bool, list kinds -> list[str], number kinds -> int, others -> str; absent ones are absent.
    Raises: UsageError, WordCountError, HelpWanted.
    """
    reader = _Reader(verb, argv)
    values, words = reader.read()
    check_word_count(verb, words)
    return values, words


def check_word_count(verb: Verb, words: Sequence[str], *, least: int = 0) -> None:
    """Raises: WordCountError in docker's words. ``least`` is what this very call needs, if it is more."""
    least, most, count = max(verb.least, least), verb.most, len(words)
    if least <= count and (most < 0 or count <= most):
        return
    if most == 0:
        wanted = "accepts no arguments"
    elif least == most:
        wanted = f"requires exactly {_arguments(least)}"
    elif count < least:
        wanted = f"requires at least {_arguments(least)}"
    else:
        wanted = f"requires at most {_arguments(most)}"
    raise WordCountError(
        f"'cloison {verb.name}' {wanted}\n\nUsage:  cloison {verb.name} {verb.usage}\n\n"
        f"Run 'cloison {verb.name} --help' for more information"
    )


def _arguments(count: int) -> str:
    return "1 argument" if count == 1 else f"{count} arguments"


def convert(flag: Flag, text: str) -> object:
    """The value of one flag. Raises: ValueError with the reason in words."""
    kind = flag.kind
    if kind == "bool":
        if text in TRUE:
            return True
        if text in FALSE:
            return False
        raise ValueError(f'parsing "{text}": invalid syntax')
    if kind not in NUMBERS:
        return text
    if kind == "int":
        try:
            return int(text, 10)
        except ValueError:
            raise ValueError(f'parsing "{text}": invalid syntax') from None
    from cloison.model import units

    parsers: dict[str, Callable[[str], int]] = {
        "bytes": units.parse_size, "decimal": units.parse_decimal_nano, "duration": units.parse_duration_ns,
    }  # fmt: skip
    return parsers[kind](text)


def bad_value(flag: Flag, text: str, *, reason: str, verb: str) -> UsageError:
    """The error that pflag gives for a value that does not parse."""
    return UsageError(f'invalid argument "{text}" for "{flag.label}" flag: {reason}\nSee \'cloison {verb} --help\'.')


class _Reader:
    """One pass over the words of one verb."""

    def __init__(self, verb: Verb, argv: Sequence[str]) -> None:
        self.verb = verb
        self.rest = list(reversed(argv))
        self.values: dict[str, object] = {}
        self.longs: dict[str, Flag] = {}
        self.shorts: dict[str, Flag] = {}
        for flag in verb.flags:
            self.longs[flag.name] = flag
            if flag.short:
                self.shorts[flag.short] = flag
            for alias in flag.aliases:
                self.longs[alias] = flag

    def read(self) -> tuple[dict[str, object], list[str]]:
        words: list[str] = []
        while self.rest:
            word = self.rest.pop()
            if word == "--":
                break
            if len(word) < 2 or word[0] != "-":
                words.append(word)
                if not self.verb.interspersed:
                    break
            elif word[1] == "-":
                self.read_long(word[2:])
            else:
                self.read_shorts(word[1:])
        words.extend(reversed(self.rest))
        return self.values, words

    def read_long(self, body: str) -> None:
        name, equals, text = body.partition("=")
        if not name:
            raise self.usage(f"bad flag syntax: --{body}")
        flag = self.longs.get(name)
        if flag is None:
            self.refuse(name, f"unknown flag: --{name}")
            return
        if equals:
            self.store(flag, text)
        elif flag.kind == "bool":
            self.values[flag.name] = True
        elif self.rest:
            self.store(flag, self.rest.pop())
        else:
            raise self.usage(f"flag needs an argument: --{name}")

    def read_shorts(self, cluster: str) -> None:
        """``it``, ``p8080:80``, ``p=8080:80``, ``i=false``: switches until one flag takes the rest as its value."""
        for index, letter in enumerate(cluster):
            flag = self.shorts.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpWanted
                self.refuse(letter, f"unknown shorthand flag: '{letter}' in -{cluster}")
                return
            tail = cluster[index + 1 :]
            if tail.startswith("="):
                self.store(flag, tail[1:])
                return
            if flag.kind == "bool":
                self.values[flag.name] = True
                continue
            if tail:
                self.store(flag, tail)
            elif self.rest:
                self.store(flag, self.rest.pop())
            else:
                raise self.usage(f"flag needs an argument: '{letter}' in -{cluster}")
            return

    def store(self, flag: Flag, text: str) -> None:
        if flag.kind in LISTS:
            kept = self.values.setdefault(flag.name, [])
            assert isinstance(kept, list)
            kept.append(text)
            return
        try:
            self.values[flag.name] = convert(flag, text)
        except ValueError as err:
            raise bad_value(flag, text, reason=str(err), verb=self.verb.name) from None

    def refuse(self, name: str, message: str) -> None:
        if name == "help":
            raise HelpWanted
        if name in self.verb.later.split():
            dashes = "-" if len(name) == 1 else "--"
            raise self.usage(f"cloison {self.verb.name} does not support the flag {dashes}{name} yet")
        raise self.usage(message)

    def usage(self, message: str) -> UsageError:
        return UsageError(f"{message}\nSee 'cloison {self.verb.name} --help'.")
