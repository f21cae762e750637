"""Words out: bytes to the caller's descriptors, whole, whatever the locale; and errors in one form."""

from __future__ import annotations

import os

from cloison.errors import CloisonError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

STDIN, STDOUT, STDERR = 0, 1, 2

# An error's code to an exit status; any other gets the verb's own (125 for run and create, else 1)
EXIT_STATUS: Mapping[str, int] = {
    "command-not-found": 127,
    "command-not-invocable": 126,
    "usage": 125,
    "word-count": 1,
    "template": 64,
}


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, also to a descriptor that somebody made non-blocking. Raises: OSError (BrokenPipeError)."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            import select

            poller = select.poll()
            poller.register(fd, select.POLLOUT)
            poller.poll()


def say(text: str) -> None:
    """One line, or several, on standard output. Raises: BrokenPipeError, Unavailable (a full disk)."""
    try:
        write_all(STDOUT, (text + "\n").encode("utf-8", "surrogateescape"))
    except BrokenPipeError:
        raise
    except OSError as err:
        raise Unavailable("cannot write to standard output", why=os.strerror(err.errno or 0).lower()) from err


def complain(text: str) -> None:
    """One line, or several, on standard error; nobody there to read it is no error."""
    try:
        write_all(STDERR, (text + "\n").encode("utf-8", "surrogateescape"))
    except OSError:
        pass


def report(error: CloisonError) -> None:
    """An error as users see it: ``cloison: what: why`` and a line with the hint."""
    complain("cloison: " + visible(str(error), keep="\n"))
    if error.hint:
        complain("hint: " + visible(error.hint, keep="\n"))


def exit_status(error: CloisonError, failure: int) -> int:
    return EXIT_STATUS.get(error.code, failure)


def visible(text: str, *, keep: str = "") -> str:
    """The text with control characters escaped: names and commands come from images and must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) or letter in keep else _escape(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    # a byte that was not UTF-8 comes as a surrogate and goes out as it came: no control to a UTF-8 terminal
    return letter.isprintable() or "\udc80" <= letter <= "\udcff"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
