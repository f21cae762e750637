"""The launch plan: what the launcher will do, as data that can be printed, compared and sent.

A plan is a tuple of `Op`s. Python decides everything in it, the launcher (C) obeys; the table below and the
launcher's own (``cloison-launcher --operations``) are the same list, and a test holds them together. Format:
docs/launch-plan.md.

Where an operation takes a descriptor its word is ``-1`` (none), the number of a descriptor of *this* process, or an
absolute path that `cloison.runtime.launch` opens; the numbers that the launcher will see are put in at encoding.
"""

from __future__ import annotations

from cloison.errors import Internal, InvalidArgument
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Protocol

    class Operations(Protocol):
        """A plan to look things up in."""

        def __len__(self) -> int: ...
        def __iter__(self) -> Iterator[Op]: ...
        def __getitem__(self, index: int, /) -> Op: ...


MAGIC = b"clsn"
VERSION = 1
MAX_BYTES = 4 << 20
MAX_OPERATIONS = 4096
MAX_WORDS = 16384

_write = object.__setattr__

# Four hundred words a plan, nearly all of them short: a look-up instead of a call each.
_SMALL = tuple([number.to_bytes(4, "little") for number in range(256)])

# Sides: B before the clone, P in the launcher after it, C in the child, M the monitor's configuration.
SIDES = "BPCM"


class Op(Record):
    """One operation: a verb of `VERBS` and its arguments. Only ``seccomp``'s program is bytes."""

    verb: str
    words: tuple[str | bytes, ...] = ()

    def __init__(self, *, verb: str, words: tuple[str | bytes, ...] = ()) -> None:
        # A start makes a hundred of these; written out, that takes a third of the general way's time.
        _write(self, "verb", verb)
        _write(self, "words", words)


class Verb(Record):
    """How the launcher reads one verb; ``count`` arguments, or at least ``~count`` of them when negative."""

    count: int
    side: str
    descriptors: tuple[int, ...] = ()  # which arguments are descriptors

    def __init__(self, *, count: int, side: str, descriptors: tuple[int, ...] = ()) -> None:
        # As with operations: there are eighty at every start
        _write(self, "count", count)
        _write(self, "side", side)
        _write(self, "descriptors", descriptors)


def _verb(count: int, side: str, *descriptors: int) -> Verb:
    return Verb(count=count, side=side, descriptors=descriptors)


def at_least(count: int) -> int:
    """An argument count that is a lower bound, as the tables on both sides write it (-1 is any number)."""
    return ~count


VERBS: dict[str, Verb] = {
    "detach": _verb(0, "B"),
    "legacy-mounts": _verb(0, "B"),
    "new-namespaces": _verb(at_least(0), "B"),
    "time-namespace": _verb(4, "B"),
    "join-pid-namespace": _verb(1, "B", 0),
    "enter-namespace": _verb(2, "B", 0),
    "cgroup-fd": _verb(1, "B", 0),
    "initial-affinity": _verb(at_least(1), "B"),
    "stdio": _verb(3, "B", 0, 1, 2),
    "setgroups-deny": _verb(0, "P"),
    "uid-map": _verb(1, "P"),
    "gid-map": _verb(1, "P"),
    "cgroup-join": _verb(1, "C"),
    "await-client": _verb(0, "P"),
    "new-network": _verb(0, "P"),
    "join-network": _verb(0, "C"),
    "await-parent": _verb(0, "C"),
    "join-namespaces": _verb(at_least(1), "C", 0),
    "join-namespace": _verb(2, "C", 0),
    "unshare": _verb(at_least(0), "C"),
    "become": _verb(2, "C"),
    "loopback-up": _verb(0, "C"),
    "send-netlink": _verb(0, "C"),
    "keyring": _verb(1, "C"),
    "propagation": _verb(2, "C"),
    "root-overlay": _verb(at_least(4), "C"),
    "root-bind": _verb(2, "C"),
    "mount": _verb(at_least(4), "C"),
    "bind": _verb(5, "C"),
    "bind-fd": _verb(5, "C", 0),
    "unmount": _verb(1, "C"),
    "directory": _verb(2, "C"),
    "symlink": _verb(2, "C"),
    "device": _verb(7, "C"),
    "console": _verb(0, "C"),
    "mask": _verb(1, "C"),
    "readonly-path": _verb(1, "C"),
    "readonly-root": _verb(0, "C"),
    "change-root": _verb(1, "C", 0),
    "pivot-root": _verb(0, "C"),
    "hostname": _verb(1, "C"),
    "domainname": _verb(1, "C"),
    "sysctl": _verb(2, "C"),
    "rlimit": _verb(3, "C"),
    "oom-score-adj": _verb(1, "C"),
    "personality": _verb(1, "C"),
    "memory-policy": _verb(at_least(1), "C"),
    "affinity": _verb(at_least(1), "C"),
    "scheduler": _verb(7, "C"),
    "io-priority": _verb(1, "C"),
    "terminal": _verb(3, "C", 2),
    "umask": _verb(1, "C"),
    "exec-label": _verb(2, "C"),
    "bounding": _verb(1, "C"),
    "user": _verb(at_least(2), "C"),
    "capabilities": _verb(4, "C"),
    "no-new-privs": _verb(0, "C"),
    "seccomp": _verb(2, "C"),
    "cwd": _verb(1, "C"),
    "parent-death-signal": _verb(1, "C"),
    "await-start": _verb(1, "C"),
    "await-start-on": _verb(2, "C", 0, 1),
    "init": _verb(0, "C"),
    "preserve-fd": _verb(2, "C", 0),
    "find-command": _verb(1, "C"),
    "env": _verb(at_least(0), "C"),
    "exec": _verb(at_least(2), "C"),
    "client": _verb(1, "M", 0),
    "no-monitor": _verb(0, "M"),
    "sibling": _verb(0, "M"),
    "listen": _verb(1, "M", 0),
    "keep": _verb(1, "M", 0),
    "log": _verb(3, "M"),
    "relay": _verb(3, "M", 0, 1, 2),
    "exit-file": _verb(1, "M"),
    "exit-stat": _verb(3, "M"),
    "reap": _verb(at_least(1), "M"),
}


def op(verb: str, *words: str | bytes | int) -> Op:
    """An operation whose numbers may be given as numbers."""
    return Op(verb=verb, words=tuple([str(word) if isinstance(word, int) else word for word in words]))


def check(ops: Iterable[Op]) -> None:
    """Raises: Internal for a verb or argument count that the launcher would refuse: our own mistake."""
    for index, each in enumerate(ops):
        verb = VERBS.get(each.verb)
        if verb is None:
            raise Internal(f"the launch plan has an unknown verb in operation {index}: {each.verb}")
        given = len(each.words)
        if given != verb.count and (verb.count >= 0 or given < ~verb.count):
            raise Internal(f"the launch plan has {given} arguments in operation {index}: {each.verb}")


def descriptors(ops: Iterable[Op]) -> dict[str, str]:
    """Every descriptor the plan names, in its order: the whole word -> the number or path in it (``fd:7`` -> ``7``)."""
    found: dict[str, str] = {}
    for each in ops:
        for position in VERBS[each.verb].descriptors:
            word = each.words[position]
            if isinstance(word, str):
                name = word.removeprefix("fd:")
                if name.startswith("/") or name.isdecimal():
                    found[word] = name
    return found


def encode(ops: tuple[Op, ...], *, numbers: Mapping[str, int] | None = None) -> bytes:
    """The plan as the launcher reads it; ``numbers`` gives the launcher's number for each key of `descriptors`.

    Raises: InvalidArgument when a word holds a NUL or the whole is too large; Internal as `check`.
    """
    check(ops)
    if len(ops) > MAX_OPERATIONS:
        raise InvalidArgument(f"the launch plan has {len(ops)} operations", why=f"{MAX_OPERATIONS} are possible")
    pieces: list[bytes] = []
    for each in ops:
        _add_operation(pieces, each, numbers=numbers or {})
    body = b"".join(pieces)
    total = len(MAGIC) + 12 + len(body)
    if total > MAX_BYTES:
        raise InvalidArgument(
            f"the launch plan has {total} bytes",
            why=f"{MAX_BYTES} are possible",
            hint="shorten the arguments or the environment of the command",
        )
    return b"".join((MAGIC, _u32(VERSION), _u32(total), _u32(len(ops)), body))


def _add_operation(pieces: list[bytes], each: Op, *, numbers: Mapping[str, int]) -> None:
    words = (each.verb, *each.words)
    if len(words) > MAX_WORDS:
        raise InvalidArgument(f"'{each.verb}' has {len(words)} words", why=f"{MAX_WORDS} are possible")
    if numbers and (positions := VERBS[each.verb].descriptors):
        words = _renumbered(words, positions, numbers=numbers)
    pieces.append(_u32(len(words)))
    for word in words:
        if isinstance(word, str):
            if "\0" in word:
                raise InvalidArgument(f"an argument of '{each.verb}' holds a NUL byte", why=_quote(word))
            word = word.encode("utf-8", "surrogateescape")
        size = len(word)
        pieces += (_SMALL[size] if size < 256 else _u32(size), word, b"\0")


def _renumbered(
    words: tuple[str | bytes, ...], positions: tuple[int, ...], *, numbers: Mapping[str, int]
) -> tuple[str | bytes, ...]:
    changed = list(words)
    for position in positions:
        word = changed[position + 1]
        if isinstance(word, str) and word in numbers:
            changed[position + 1] = f"fd:{numbers[word]}" if word.startswith("fd:") else str(numbers[word])
    return tuple(changed)


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "little")


def render(ops: Iterable[Op]) -> str:
    """One line an operation, quoted as a shell would want it; a seccomp program is only counted."""
    return "".join(f"{render_op(each)}\n" for each in ops)


def render_op(each: Op) -> str:
    """The line of one operation."""
    return " ".join((each.verb, *(_shown(word) for word in each.words)))


def _shown(word: str | bytes) -> str:
    if isinstance(word, bytes):
        return f"<{len(word) // 8} instructions>"  # struct sock_filter has 8 bytes
    return _quote(word)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./-_")


def _quote(word: str) -> str:
    # shlex.quote's rule; shlex itself imports re
    if word and _PLAIN.issuperset(word):
        return word
    if not word.isprintable():
        word = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in word)
    return "'" + word.replace("'", "'\"'\"'") + "'"
