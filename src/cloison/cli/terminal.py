"""The user's terminal: raw while a container has it, restored whatever happens; its size; the detach keys."""

from __future__ import annotations

import os

from cloison.errors import InvalidArgument

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"  # ctrl- and the index's letter is that byte


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def terminal_size(*fds: int) -> tuple[int, int]:
    """Rows and columns of the first descriptor that is a terminal with a size; (0, 0) when none is."""
    for fd in fds:
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return 0, 0


class RawTerminal:
    """Raw mode for the time of a ``with`` block (cfmakeraw(3)); nothing happens to a descriptor that is no terminal.

    ``NORAW`` in the environment disables it, as in docker.
    """

    def __init__(self, fd: int, *, wanted: bool = True) -> None:
        self._fd = fd
        self._wanted = wanted and is_terminal(fd)
        self._before: list[object] | None = None

    def __enter__(self) -> RawTerminal:
        if not self._wanted:
            return self
        import termios as t

        before = t.tcgetattr(self._fd)
        raw = [*before[:6], list(before[6])]
        raw[0] &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
        raw[1] &= ~t.OPOST
        raw[2] = raw[2] & ~(t.CSIZE | t.PARENB) | t.CS8
        raw[3] &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
        raw[6][t.VMIN], raw[6][t.VTIME] = 1, 0
        self._before = before
        t.tcsetattr(self._fd, t.TCSADRAIN, raw)
        return self

    def __exit__(self, *_exception: object) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the terminal back as it was; may be called twice, and from a signal handler."""
        if self._before is None:
            return
        import termios

        from cloison.cli.signals import without_stopping

        before = self._before
        try:
            without_stopping(lambda: termios.tcsetattr(self._fd, termios.TCSADRAIN, before))  # type: ignore[arg-type]
        except termios.error:
            pass  # it was hung up
        self._before = None


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` as the bytes that a terminal sends; "" disables. Raises: InvalidArgument."""
    keys = bytearray()
    for name in text.split(",") if text else ():
        letter = name.removeprefix("ctrl-")
        if name == "DEL":
            keys.append(127)
        elif len(name) == 1 and name.isascii():
            keys += name.encode()
        elif name != letter and len(letter) == 1 and letter.lower() in _CONTROL:
            keys.append(_CONTROL.index(letter.lower()))
        else:
            raise InvalidArgument(
                f"invalid detach keys ({text})",
                why=f"Unknown character: '{name}'",
                hint="a comma list of letters and ctrl- with one of a-z @ [ \\ ] ^ _",
            )
    return bytes(keys)


class DetachScanner:
    """Finds the detach keys in what the user types, also in pieces; holds back what may be their beginning."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What goes on to the container, and whether the keys were complete."""
        keys = self._keys
        if not keys:
            return data, False
        typed = self._held + data
        at = typed.find(keys)
        if at >= 0:
            self._held = b""
            return typed[:at], True
        keep = next((n for n in range(min(len(keys) - 1, len(typed)), 0, -1) if typed.endswith(keys[:n])), 0)
        self._held = typed[len(typed) - keep :]
        return typed[: len(typed) - keep], False
