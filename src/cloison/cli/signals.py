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


class Killed(SystemExit):
    """A fatal signal came: raised so that every ``finally`` on the way out runs, the terminal's above all."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
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


class Forwarder:
    """Forwards everything that can be forwarded to a command, from before it exists until the ``with`` block ends.

    What comes before `forward_to` is kept for the command, which may be about to say that it is ready. But a fatal
    signal ends us when it comes a second time, or while ``is_busy`` says that the start may take long (a pull).
    """

    def __init__(self, *, is_busy: Callable[[], bool], except_for: Iterable[int] = (), wanted: bool = True) -> None:
        spared = frozenset(except_for)
        numbers = [number for number in FORWARDED if number not in spared] if wanted else []
        self._handlers = Handlers(numbers, self._handle)
        self._is_busy = is_busy
        self._kept: list[int] = []
        self._send: Callable[[int], None] | None = None
        self.active = wanted

    def forward_to(self, send: Callable[[int], None]) -> None:
        """From now on signals go there, those first that came already; a command that has ended is no error."""
        self._send = send
        while self._kept:
            self._handle(self._kept.pop(0))

    def _handle(self, number: int) -> None:
        if self._send is not None:
            try:
                self._send(number)
            except CloisonError:
                pass
        elif number in FATAL and (number in self._kept or self._is_busy()):
            raise Killed(number)
        else:
            self._kept.append(number)

    def __enter__(self) -> Forwarder:
        self._handlers.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._handlers.__exit__(*exception)


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
