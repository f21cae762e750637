"""How a pull looks: bars on a terminal, docker's plain lines elsewhere, nothing when asked to be quiet.

    with progress_on(sys.stderr, environ=environ, quiet=quiet) as progress:
        engine.images.pull(…, progress=progress)

Rich costs 30 ms at import; it is loaded with the first bar, so a plain stream never pays.
"""

from __future__ import annotations

import threading

from cloison.images.progress import NoProgress, Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import TextIO

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

# docker's words for the begin of an action, where they differ from the action's name
_FIRST_WORDS = {"Downloading": "Pulling fs layer", "Pushing": "Preparing", "Copying": "Copying blob"}


class Shown(Progress):
    """A progress that somebody looks at; a context manager, because bars must be taken down before other output."""

    def close(self) -> None:
        pass

    def choose(self, question: str, options: Sequence[str]) -> str:
        from cloison.cli.asking import choose

        self.close()  # bars and a question do not go together
        return choose(question, options)

    def __enter__(self) -> Shown:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def progress_on(stream: TextIO, *, environ: Mapping[str, str], quiet: bool = False) -> Shown:
    """Bars when ``stream`` is a terminal that can move its cursor, plain lines elsewhere, nothing when ``quiet``."""
    if quiet:
        return Quiet()
    if stream.isatty() and environ.get("TERM", "dumb") not in ("", "dumb"):
        return BarProgress(stream, colour=not environ.get("NO_COLOR"))
    return PlainProgress(stream)


class Quiet(Shown, NoProgress):
    """Says nothing, but asks what it must."""

    start, advance, finish, message = NoProgress.start, NoProgress.advance, NoProgress.finish, NoProgress.message


class PlainProgress(Shown):
    """One line a change of state, as docker prints them to a pipe. Thread-safe; a reader that went away is no error."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._broken = False

    def start(self, item: str, total_bytes: int, action: str) -> None:
        if first := _FIRST_WORDS.get(action):
            self.message(f"{item}: {first}")

    def advance(self, item: str, count: int) -> None:
        pass

    def finish(self, item: str, message: str) -> None:
        self.message(f"{item}: {message}")

    def message(self, text: str) -> None:
        with self._lock:
            if self._broken:
                return
            try:
                # one write a line: lines of several processes on one pipe stay whole
                self._stream.write(f"{text}\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._broken = True


class BarProgress(Shown):
    """A bar a layer, redrawn in place. Thread-safe."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        self._lock = threading.Lock()
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}

    def start(self, item: str, total_bytes: int, action: str) -> None:
        with self._lock:
            bars, task = self._task(item)
            bars.reset(task, total=total_bytes or None, description=f"{item}: {action}")

    def advance(self, item: str, count: int) -> None:
        with self._lock:
            bars, task = self._task(item)
            bars.advance(task, count)

    def finish(self, item: str, message: str) -> None:
        with self._lock:
            bars, task = self._task(item)
            shown = bars.tasks[bars.task_ids.index(task)]
            total = shown.total or shown.completed
            bars.update(task, total=total, completed=total, description=f"{item}: {message}")

    def message(self, text: str) -> None:
        with self._lock:
            # neither markup nor highlighting: the text holds names that strangers chose
            self._open_bars().console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                self._bars, self._tasks = None, {}

    def _task(self, item: str) -> tuple[Bars, TaskID]:
        bars = self._open_bars()
        if item not in self._tasks:
            self._tasks[item] = bars.add_task(item, total=None)
        return bars, self._tasks[item]

    def _open_bars(self) -> Bars:
        if self._bars is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn
            from rich.progress import Progress as Bars

            console = Console(file=self._stream, no_color=not self._colour, force_terminal=True)
            columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=False))
            self._bars = Bars(*columns, console=console, redirect_stdout=False, redirect_stderr=False)
            self._bars.start()
        return self._bars
