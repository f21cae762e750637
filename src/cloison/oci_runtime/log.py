"""Where callers look for errors: standard error, and the file of ``--log``, as text or one JSON object a line."""

from __future__ import annotations

import os
import time

from cloison.errors import InvalidArgument
from cloison.store.json import dumps

FORMATS = ("text", "json")


class Log:
    """``path`` "" is none. A line is written with one call, so that several runtimes may share a file."""

    def __init__(self, path: str, *, form: str = "text", debug: bool = False) -> None:
        self._path = path
        self._form = form
        self._debug = debug
        self._fd = self._open() if path else -1

    def _open(self) -> int:
        """Raises: InvalidArgument."""
        try:
            return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as err:
            raise InvalidArgument(f"cannot open log {self._path}", why=os.strerror(err.errno or 0).lower()) from err

    def error(self, message: str) -> None:
        self._write("error", message)
        _complain(message)

    def warning(self, message: str) -> None:
        self._write("warning", message)
        _complain(f"warning: {message}")

    def debug(self, message: str) -> None:
        if self._debug:
            self._write("debug", message)

    def _write(self, level: str, message: str) -> None:
        if not self._path:
            return
        now = timestamp(time.time_ns())
        if self._form == "json":
            line = dumps({"level": level, "msg": message, "time": now})
        else:
            line = f'time="{now}" level={level} msg={dumps(message)}'
        os.write(self._fd, f"{line}\n".encode("utf-8", "surrogateescape"))


def timestamp(ns: int) -> str:
    """RFC 3339 in UTC, with nine digits."""
    seconds, rest = divmod(ns, 1_000_000_000)
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:09}Z"


def _complain(text: str) -> None:
    try:
        os.write(2, f"{text}\n".encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # nobody there to read it


def say(text: str) -> None:
    """Text on standard output, whole. Raises: OSError."""
    view = memoryview(text.encode("utf-8", "surrogateescape"))
    while view:
        view = view[os.write(1, view) :]
