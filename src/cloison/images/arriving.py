"""Blobs on their way from a registry into the store, a few at a time; each can be read while it arrives.

A blob is hashed and written by the thread that receives it. Whoever unpacks it reads the file behind that thread, from
the page cache, and gets its end only when the digest was right: so nothing waits in memory, and a slow reader does not
hold up the line.
"""

from __future__ import annotations

import os
import threading
from functools import partial

from cloison.errors import InvalidArgument, Unavailable
from cloison.images.copying import short
from cloison.images.crew import Crew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Set

    from cloison.images.mirrors import Mirrored
    from cloison.images.progress import Progress
    from cloison.oci.image import Descriptor
    from cloison.store.blobs import Blobs
    from cloison.store.locks import Claim
    from cloison.store.partial import PartialBlob

# docker uses 3; more connections gain little and strain the registry
_PARALLEL = 4
_LOOK_AGAIN_S = 0.05  # while somebody else brings a blob


class _Arrival:
    """How far one blob has come."""

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.fd = -1  # its writer's, while it is being written
        self.written = 0
        self.restarts = 0
        self.is_whole = False  # in the store, verified


class Arrivals:
    """All of these blobs, each once. The first failure stops the rest, and everybody who reads hears of it.

    A context manager: leaving it ends what is still on its way.
    """

    def __init__(
        self, client: Mirrored, descriptors: Iterable[Descriptor], *, blobs: Blobs, progress: Progress,
        quiet: Set[str] = frozenset(),
    ) -> None:  # fmt: skip
        """Nothing is shown of the digests in ``quiet``."""
        self._client = client
        self._blobs = blobs
        self._progress = progress
        self._quiet = quiet
        self._stopped = threading.Event()
        self._news = threading.Condition()
        self._arrivals = {descriptor.digest: _Arrival(descriptor) for descriptor in descriptors}
        jobs = [partial(self._bring, arrival) for arrival in self._arrivals.values()]
        self._crew = Crew(jobs, on_stop=self._stop)

    def __enter__(self) -> Arrivals:
        self._crew.begin(_PARALLEL)
        return self

    def __exit__(self, *_failure: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End what is still on its way, and wait a little until it has."""
        if not all(arrival.is_whole for arrival in self._arrivals.values()):  # else the client can go on
            self._crew.end(Unavailable("the pull was stopped"))

    def wait(self, digest: str = "") -> None:
        """Until this blob is in the store, or all are. Raises: the first failure of any."""
        wanted = [self._arrivals[digest]] if digest else list(self._arrivals.values())
        with self._news:
            self._news.wait_for(lambda: self._crew.failure or all(arrival.is_whole for arrival in wanted))
        self._crew.check()

    def open(self, descriptor: Descriptor) -> ArrivingBlob:
        """Read one of them while it comes; the caller closes it."""
        return ArrivingBlob(self, self._arrivals[descriptor.digest])

    def check(self, digest: str) -> None:
        """Hash what is in the store; it may have been there for long. Raises: Unavailable when it is damaged."""
        self._blobs.check(digest)

    # -- the reading side

    def await_more(self, stream: ArrivingBlob, arrival: _Arrival) -> int:
        """Wait until there is something behind the stream's position; how far it can read.

        Opens the stream's descriptor. Raises: the first failure of any blob; InvalidArgument when it began anew.
        """
        with self._news:
            self._news.wait_for(
                lambda: (
                    self._crew.failure
                    or arrival.is_whole
                    or stream.is_stale
                    or (arrival.fd >= 0 and arrival.written > stream.offset)
                )
            )
            self._crew.check()
            if stream.is_stale:
                raise InvalidArgument("the blob began anew")
            if stream.fd < 0:
                stream.fd = os.dup(arrival.fd) if arrival.fd >= 0 else self._blobs.open(arrival.descriptor.digest)
            return arrival.written

    # -- the bringing side

    def _stop(self) -> None:
        self._stopped.set()
        self._client.abort()
        with self._news:
            self._news.notify_all()

    def _bring(self, arrival: _Arrival) -> None:
        """One blob, or wait for whoever is bringing it at this moment, in this process or another."""
        descriptor = arrival.descriptor
        with self._claim(descriptor):
            if self._is_there(descriptor):
                done = "Already exists"
            else:
                self._fetch(arrival)
                done = "Download complete"
        if descriptor.digest not in self._quiet:
            self._progress.finish(short(descriptor.digest), done)
        with self._news:
            arrival.written, arrival.is_whole = descriptor.size, True
            self._news.notify_all()

    def _claim(self, descriptor: Descriptor) -> Claim:
        waits = False
        while True:
            try:
                return self._blobs.claim(descriptor.digest, wait=False)
            except BlockingIOError:
                pass
            if not waits and descriptor.digest not in self._quiet:
                self._progress.start(short(descriptor.digest), descriptor.size, "Waiting")
            waits = True
            if self._stopped.wait(_LOOK_AGAIN_S):
                raise Unavailable("the pull was stopped")

    def _is_there(self, descriptor: Descriptor) -> bool:
        # when sizes differ, the file or the descriptor is wrong: fetching again mends the one and tells the other
        return self._blobs.has(descriptor.digest) and self._blobs.size(descriptor.digest) == descriptor.size

    def _fetch(self, arrival: _Arrival) -> None:
        descriptor = arrival.descriptor
        if descriptor.digest not in self._quiet:
            self._progress.start(short(descriptor.digest), descriptor.size, "Downloading")
        with self._blobs.partial(descriptor.digest, descriptor.size) as out:
            begun = out.written
            try:
                self._receive(arrival, out)
                if begun and not out.is_right():
                    self._begin_anew(arrival, out)
                    self._receive(arrival, out)
            finally:
                with self._news:
                    arrival.fd = -1

    def _receive(self, arrival: _Arrival, out: PartialBlob) -> None:
        self._tell(arrival, out, count=out.written)
        if out.written == out.expected:
            return
        for chunk in self._client.blob(arrival.descriptor, offset=out.written):
            out.write(chunk)
            self._tell(arrival, out, count=len(chunk))

    def _tell(self, arrival: _Arrival, out: PartialBlob, *, count: int) -> None:
        with self._news:
            arrival.fd, arrival.written = out.fd, out.written
            self._news.notify_all()
        if count and arrival.descriptor.digest not in self._quiet:
            self._progress.advance(short(arrival.descriptor.digest), count)

    def _begin_anew(self, arrival: _Arrival, out: PartialBlob) -> None:
        """What was there before us was not the beginning of this blob."""
        with self._news:
            out.restart()
            arrival.written = 0
            arrival.restarts += 1
            self._news.notify_all()
        if arrival.descriptor.digest not in self._quiet:
            self._progress.start(short(arrival.descriptor.digest), arrival.descriptor.size, "Downloading")


class ArrivingBlob:
    """A blob read as far as it has come; a read waits for more. ``is_whole`` once all of it was there to be read."""

    def __init__(self, arrivals: Arrivals, arrival: _Arrival) -> None:
        self._arrivals = arrivals
        self._arrival = arrival
        self._restarts = arrival.restarts
        self.fd = -1
        self.offset = 0

    @property
    def is_whole(self) -> bool:
        return self._arrival.is_whole

    @property
    def is_stale(self) -> bool:
        return self._arrival.restarts != self._restarts

    def read(self, size: int, /) -> bytes:
        """The next bytes, b"" at the end. Raises: the first failure of any blob; InvalidArgument when it began anew."""
        end = self._arrivals.await_more(self, self._arrival)
        data = os.pread(self.fd, min(size, end - self.offset), self.offset)
        self.offset += len(data)
        return data

    def reads_anew(self) -> bool:
        """After what was read made no sense: whether that was no part of the blob, so that it has to be read again.

        Waits until the blob is here. Raises: the failure to bring it, which explains nonsense best; as `Blobs.check`.
        """
        digest = self._arrival.descriptor.digest
        self._arrivals.wait(digest)
        if not self.is_stale:
            self._arrivals.check(digest)
        return self.is_stale

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
