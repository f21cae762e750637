"""Members of a tar stream, one after the other.

The stream is read once, front to back, in large chunks, to its very end: whoever hashes it beneath (a layer's diff ID)
sees everything, padding and what follows the end included. Where two readers could take the bytes for two different
archives, this one refuses.
"""

from __future__ import annotations

from cloison.archive.budget import DEFAULT_LIMITS, Limits, bad_archive, shown
from cloison.archive.decompress import CHUNK
from cloison.archive.headers import (
    BLOCK,
    DIRECTORY,
    EXTENSIONS,
    FILE,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    PAX_GLOBAL,
    ZERO_BLOCK,
    Entry,
    parse_header,
)
from cloison.archive.pax import Records, apply_records, check_global, check_owner, parse_records
from cloison.archive.sparse import read_old_gnu, read_pax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloison.archive.decompress import Readable


_SLASH = 0x2F


class Source:
    """Exact reads from a stream that comes in chunks."""

    def __init__(self, stream: Readable, *, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._chunk = b""
        self._position = 0
        self.total = 0

    @property
    def position(self) -> int:
        """How many bytes were taken."""
        return self.total - max(len(self._chunk) - self._position, 0)

    def block(self) -> bytes:
        """The next 512 bytes; none at the end. Raises: InvalidArgument when the stream ends between."""
        end = self._position + BLOCK
        data = self._chunk[self._position : end]
        if len(data) == BLOCK:
            self._position = end
            return data
        return b"" if self.at_end() else self.take(BLOCK)

    def take(self, count: int) -> bytes:
        """Exactly ``count`` bytes. Raises: InvalidArgument when the stream ends before."""
        end = self._position + count
        data = self._chunk[self._position : end]
        self._position = end
        if len(data) == count:
            return data
        return data + self._take_more(count - len(data))

    def skip(self, count: int) -> None:
        """Take a few bytes that nobody looks at."""
        if self._position + count <= len(self._chunk):
            self._position += count
        else:
            self.take(count)

    def _take_more(self, count: int) -> bytes:
        pieces = []
        while count:
            if not self._refill():
                raise bad_archive("it ends in the middle of a member")
            piece = self._chunk[:count]
            self._position = len(piece)
            count -= len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def at_end(self) -> bool:
        return self._position >= len(self._chunk) and not self._refill()

    def pieces(self, count: int) -> Iterator[memoryview]:
        """``count`` bytes without copies. Raises: InvalidArgument when the stream ends before."""
        while count:
            if self._position >= len(self._chunk) and not self._refill():
                raise bad_archive("it ends in the middle of a member")
            piece = memoryview(self._chunk)[self._position : self._position + count]
            self._position += len(piece)
            count -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read to the end: a digest is taken over all of the bytes."""
        self._position = len(self._chunk)
        while self._refill():
            self._position = len(self._chunk)

    def _refill(self) -> bool:
        self._chunk = self._stream.read(CHUNK)
        self._position = 0
        self.total += len(self._chunk)
        if self.total > self._limits.total_bytes:
            raise bad_archive(f"more than {self._limits.total_bytes} bytes")
        return bool(self._chunk)


class TarReader:
    """Iterates over members; between two steps ``pieces`` gives the current member's content, once.

    After the loop ``total_bytes`` is that of the whole stream.
    Raises (while iterating): InvalidArgument.
    """

    def __init__(self, stream: Readable, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._source = Source(stream, limits=limits)
        self._limits = limits
        self._globals: Records = []
        self._unread = 0
        self._padding = 0
        self.entries = 0

    @property
    def total_bytes(self) -> int:
        return self._source.total

    @property
    def position(self) -> int:
        """Offset in the stream of what is read next: within a step, of the current member's content."""
        return self._source.position

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry
        self._source.drain()

    def pieces(self) -> Iterator[memoryview]:
        """The content of the current member that has not been read yet."""
        for piece in self._source.pieces(self._unread):
            self._unread -= len(piece)
            yield piece

    def content(self, limit: int) -> bytes:
        """All of the current member's content. Raises: InvalidArgument above ``limit`` bytes."""
        if self._unread > limit:
            raise bad_archive(f"a member has {self._unread} bytes, more than {limit}")
        data = self._source.take(self._unread)
        self._unread = 0
        return data

    def _skip_rest(self) -> None:
        if self._unread:
            for _piece in self.pieces():
                pass
        self._source.skip(self._padding)
        self._padding = 0

    def _next(self) -> Entry | None:
        """The next member with everything that its extension headers say."""
        if self._unread or self._padding:
            self._skip_rest()
        long_name = long_link = b""
        records: Records | None = None
        pending = False
        while True:
            block = self._block()
            if block is None:
                if pending:
                    raise bad_archive("it ends after an extended header")
                return None
            entry = parse_header(block)
            self._count()
            if entry.kind not in EXTENSIONS:
                break
            data = self._extension(entry)
            pending = pending or entry.kind != PAX_GLOBAL
            if entry.kind == GNU_LONG_NAME:
                long_name = data.rstrip(b"\0")
            elif entry.kind == GNU_LONG_LINK:
                long_link = data.rstrip(b"\0")
            elif entry.kind == PAX_GLOBAL:
                self._globals = list({**dict(self._globals), **dict(check_global(parse_records(data)))}.items())
            elif records is not None:
                raise bad_archive("two extended headers for one member")
            else:
                records = parse_records(data)
        entry.name = long_name or entry.name
        entry.link = long_link or entry.link
        self._complete(entry, block, records=self._globals + (records or []), gnu_name=long_name)
        return entry

    def _count(self) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise bad_archive(f"more than {self._limits.entries} members")

    def _block(self) -> bytes | None:
        """The next header block, or None at the end: two blocks of zeros, or the end of the stream."""
        block = self._source.block()
        if block != ZERO_BLOCK:
            return block or None
        if self._source.block() not in (b"", ZERO_BLOCK):
            raise bad_archive("a lone block of zeros between members")
        return None

    def _extension(self, entry: Entry) -> bytes:
        if entry.size > self._limits.pax_bytes:
            raise bad_archive(f"an extended header of {entry.size} bytes")
        data = self._source.take(entry.size)
        self._source.take(-entry.size % BLOCK)
        if entry.kind in (GNU_LONG_NAME, GNU_LONG_LINK) and b"\0" in (data.rstrip(b"\0") or b"\0"):
            raise bad_archive("a long name is empty or holds a NUL")
        return data

    def _complete(self, entry: Entry, block: bytes, *, records: Records, gnu_name: bytes) -> None:
        sparse = apply_records(entry, records) if records else {}
        if gnu_name and entry.name != gnu_name:
            raise bad_archive(f"two different names for one member, one of them {shown(gnu_name)}")
        stored = entry.size
        if sparse:
            read_pax(entry, sparse, take=self._source.take, limits=self._limits)
        elif entry.kind == GNU_SPARSE:
            read_old_gnu(entry, block, take=self._source.take, limits=self._limits)
        self._check(entry)
        self._unread = entry.size
        self._padding = -stored % BLOCK

    def _check(self, entry: Entry) -> None:
        check_owner(entry)
        name, link = entry.name, entry.link
        longest = self._limits.path_bytes
        if not name or len(name) > longest or len(link) > longest:
            raise bad_archive("a member's name is empty or too long")
        if b"\0" in name or b"\0" in link:
            raise bad_archive("a member's name holds a NUL")
        if entry.kind == FILE and name[-1] == _SLASH:
            entry.kind = DIRECTORY  # V7 had no type for directories
        # POSIX lets some writers put a size there without content, others with: the next header's place is a guess
        if entry.kind != FILE and entry.size:
            raise bad_archive(f"{shown(entry.name)} has content but is no regular file")
        if entry.size > self._limits.file_bytes:
            raise bad_archive(f"{shown(entry.name)} is larger than any file can be")
