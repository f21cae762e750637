"""Blobs whose beginning outlives a transfer that was cut short: ``blobs/incoming/<algorithm>-<hex>.partial``.

Its writer has the blob's claim and locks the file; a free lock means that nobody is at it. The next writer hashes what
is there and goes on behind it. No byte of it is believed: should the whole have another digest, it comes again from the
first byte. What nobody goes on with is removed by age, and by every collection of garbage.
"""

from __future__ import annotations

import os
from functools import partial

from cloison.errors import NoSpace, Unavailable
from cloison.store.blobs import PARTIAL_SUFFIX, BlobWriter

_PIECE_BYTES = 1 << 20


class PartialBlob(BlobWriter):
    """A context manager as `BlobWriter` is, but a transfer that may succeed another time leaves what has arrived.

    After entering ``written`` says how much was there already.
    """

    def __enter__(self) -> PartialBlob:
        super().__enter__()
        if self.written:
            self._take_up()
        return self

    @property
    def fd(self) -> int:
        """For reading what has been written, with pread(2)."""
        return self._fd

    def is_right(self) -> bool:
        """Whether size and digest are those of the blob."""
        return self.written == self.expected and self._digest() == self.digest

    def _name(self) -> str:
        return self.digest.replace(":", "-") + PARTIAL_SUFFIX

    def _open(self) -> None:
        super()._open()
        self.written = os.fstat(self._fd).st_size

    def _take_up(self) -> None:
        if self.written > self.expected:
            self.restart()
            return
        self.written = 0
        for piece in iter(partial(os.read, self._fd, _PIECE_BYTES), b""):
            self._hash.update(piece)
            self.written += len(piece)

    def _keeps(self, err: BaseException | None) -> bool:
        return bool(self.written) and err is not None and was_cut_short(err)


def was_cut_short(err: BaseException) -> bool:
    """Whether the network or the user ended it: what is complete, or right so far, will be of use another time."""
    return isinstance(err, (Unavailable, KeyboardInterrupt)) and not isinstance(err, NoSpace)
