"""What ``run`` and ``create`` say while they have to fetch their image first."""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloison.cli.progress import Shown


class PullNotice:
    """A Progress that says and imports nothing until the first news comes; all of it goes to standard error."""

    def __init__(self, *, environ: Mapping[str, str], quiet: bool = False) -> None:
        self._environ = environ
        self._quiet = quiet
        self._lock = _thread.allocate_lock()
        self._shown: Shown | None = None

    def start(self, item: str, total_bytes: int, action: str) -> None:
        self._open().start(item, total_bytes, action)

    def advance(self, item: str, count: int) -> None:
        self._open().advance(item, count)

    def finish(self, item: str, message: str) -> None:
        self._open().finish(item, message)

    def message(self, text: str) -> None:
        self._open().message(text)

    def choose(self, question: str, options: Sequence[str]) -> str:
        return self._open().choose(question, options)

    def is_open(self) -> bool:
        """Whether a pull has begun and not ended."""
        return self._shown is not None

    def close(self) -> None:
        """Take the bars down."""
        if self._shown is not None:
            self._shown.close()
            self._shown = None

    def __enter__(self) -> PullNotice:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _open(self) -> Shown:
        with self._lock:
            if self._shown is None:
                import sys

                from cloison.cli.progress import progress_on

                self._shown = progress_on(sys.stderr, environ=self._environ, quiet=self._quiet)
            return self._shown
