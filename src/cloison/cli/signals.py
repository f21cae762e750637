"""Signals that reach the client while a container's command has the floor: passed on, never lost, handlers put back.

The C module behind `signal` is used directly: `signal` itself imports `enum`, which costs ``run`` 2 ms.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]

from cloison.errors import CloisonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

SIGALRM: int = _signal.SIGALRM
SIGWINCH: int = _signal.SIGWINCH

# Not forwarded: what is about this process (children, its pipes, its terminal), and its own faults, which would come
# again for ever as soon as a handler returned; so would SIGTTIN and SIGTTOU. 32 and 33 belong to the C library.
_OWN = frozenset((
    _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGURG, SIGWINCH, _signal.SIGTTIN,
    _signal.SIGTTOU, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, 32, 33,
))  # fmt: skip
FORWARDED: Sequence[int] = tuple(number for number in range(1, _signal.NSIG) if number not in _OWN)
FATAL: Sequence[int] = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)


class Killed(BaseException):
    """A fatal signal came: raised so that every ``finally`` on the way out runs, the terminal's above all."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Handlers:
    """Signal handlers for the time of a ``with`` block."""

    def __init__(self, numbers: Iterable[int], handle: Callable[[int], None]) -> None:
        self._numbers = tuple(numbers)
        self._handle = handle
        self._before: list[tuple[int, Any]] = []

    def __enter__(self) -> Handlers:
        for number in self._numbers:
            previous = _signal.getsignal(number)
            if previous == _signal.SIG_IGN:
                continue  # nohup, or a shell's background job: what was ignored stays ignored
            self._before.append((number, previous))
            _signal.signal(number, lambda n, _frame: self._handle(n))
        return self

    def __exit__(self, *_exception: object) -> None:
        while self._before:
            number, previous = self._before.pop()
            # None: a handler that was not installed from Python
            _signal.signal(number, _signal.SIG_DFL if previous is None else previous)


def proxy(send: Callable[[int], None], *, except_for: Iterable[int] = ()) -> Handlers:
    """Forward everything that can be forwarded; a container that is gone already is no error."""

    def forward(number: int) -> None:
        try:
            send(number)
        except CloisonError:
            pass

    spared = frozenset(except_for)
    return Handlers((number for number in FORWARDED if number not in spared), forward)


def dying_cleanly(restore: Callable[[], None]) -> Handlers:
    """Turn the fatal signals into `Killed`; ``restore`` runs first, for the exception may land amid a clean-up."""

    def die(number: int) -> None:
        restore()
        raise Killed(number)

    return Handlers(FATAL, die)


def without_stopping(act: Callable[[], None]) -> None:
    """Carry out something that the kernel would stop us for from the background: changing the terminal's settings."""
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGTTOU,))
    try:
        act()
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


class Alarm:
    """Call ``ring`` once, ``seconds`` from now, unless the ``with`` block ends first; None never rings."""

    def __init__(self, seconds: float | None, ring: Callable[[], None]) -> None:
        self._seconds = seconds
        self._handlers = Handlers((SIGALRM,), lambda _number: ring())

    def __enter__(self) -> Alarm:
        if self._seconds:
            self._handlers.__enter__()
            _signal.setitimer(_signal.ITIMER_REAL, self._seconds)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._seconds:
            _signal.setitimer(_signal.ITIMER_REAL, 0)
            self._handlers.__exit__(*exception)
