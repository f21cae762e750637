"""A stream read and hashed by a thread of its own, some pieces ahead of whoever uses them.

Inflating, hashing and the making of files take about the same time, and all three leave Python's lock while they are at
it: two threads do them in little more than the time of the longer.
"""

from __future__ import annotations

import hashlib
import threading
from queue import Queue

from cloison.archive.decompress import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.archive.decompress import Readable

# of CHUNK bytes: 4 MiB in all, whatever the layer's size
_PIECES_AHEAD = 16


class ReadAhead:
    """Gives what the stream gives, and fails as it fails. The stream is not touched any more after ``close``."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._pieces: Queue[bytes | BaseException] = Queue(_PIECES_AHEAD)
        self._sha256 = hashlib.sha256()
        self._stopped = False
        self._ended = False
        # a daemon: a read that hangs in the kernel must not hold the process after ^C
        threading.Thread(target=self._work, daemon=True).start()

    def digest(self) -> str:
        """``sha256:…`` of the stream, once its end has been read."""
        return "sha256:" + self._sha256.hexdigest()

    def read(self, _size: int = CHUNK, /) -> bytes:
        """The next piece as it was read, whatever the size asked for. Raises: what reading the stream raised."""
        if self._ended:
            return b""
        piece = self._pieces.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        self._ended = not piece
        return piece

    def close(self) -> None:
        """Stop, and wait until the thread has let go of the stream."""
        self._stopped = True
        while not self._ended:
            piece = self._pieces.get()
            self._ended = not piece or isinstance(piece, BaseException)

    def _work(self) -> None:
        try:
            while not self._stopped and (piece := self._stream.read(CHUNK)):
                self._sha256.update(piece)
                self._pieces.put(piece)
            self._pieces.put(b"")
        except BaseException as err:
            self._pieces.put(err)
