"""Who owns a descriptor: exactly one `Fd`, until it is closed or taken."""

from __future__ import annotations

import os


class Fd:
    """The owner of one open descriptor; a context manager. ``number`` is -1 once closed or taken.

    Closing twice is harmless, because a second close(2) of the same number would hit a stranger's descriptor.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        """The number, for select(2) and friends. Raises: ValueError when it is gone."""
        if self.number < 0:
            raise ValueError("this descriptor is closed")
        return self.number

    def take(self) -> int:
        """Hand ownership to the caller, who must close the number."""
        number = self.fileno()
        self.number = -1
        return number

    def close(self) -> None:
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __enter__(self) -> Fd:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A net below the trapeze: an owner that was forgotten in an exception's frame must not leak into the next run.
        try:
            self.close()
        except OSError:
            pass

    def __repr__(self) -> str:
        return f"Fd({self.number})"
