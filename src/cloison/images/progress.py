"""What a pull says while it works. The doors decide how it looks: `cloison.cli.progress`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol
else:
    Protocol = object


class Progress(Protocol):
    """Receives news, from several threads at once; must not raise. ``item`` is the short name of a layer."""

    def start(self, item: str, total_bytes: int, action: str) -> None:
        """``item`` begins an ``action`` (Downloading, Extracting) of so many bytes; 0 is "not known"."""

    def advance(self, item: str, count: int) -> None:
        """``count`` more bytes are done."""

    def finish(self, item: str, message: str) -> None:
        """The action ended (Download complete, Pull complete, Already exists)."""

    def message(self, text: str) -> None:
        """A line of its own."""

    def choose(self, question: str, options: Sequence[str]) -> str:
        """One of the options, picked by a person; "" where there is nobody to ask. May raise."""
        return ""


class NoProgress(Progress):
    """Says nothing (``--quiet``)."""

    def start(self, item: str, total_bytes: int, action: str) -> None:
        pass

    def advance(self, item: str, count: int) -> None:
        pass

    def finish(self, item: str, message: str) -> None:
        pass

    def message(self, text: str) -> None:
        pass
