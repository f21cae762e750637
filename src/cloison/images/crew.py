"""A few threads that do many jobs, and stop together: at the first failure, or when their caller is interrupted."""

from __future__ import annotations

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Job = Callable[[], None]

# how long an interrupted caller waits for threads that have been told to stop
_PATIENCE_S = 2.0


class Crew:
    """``Crew(jobs).run(4)``; ``on_stop`` is called once, to end what the threads may be waiting for."""

    def __init__(self, jobs: Iterable[Job], *, on_stop: Callable[[], None] | None = None) -> None:
        self._todo = list(jobs)[::-1]
        self._on_stop = on_stop
        self.failure: BaseException | None = None
        self._at_work: set[object] = set()
        self._lock = threading.Lock()
        # not Thread.join: interrupted by ^C, it takes the thread for dead (CPython issue 90882, until 3.13)
        self._idle = threading.Event()

    def run(self, count: int) -> None:
        """Do all jobs in their order, ``count`` at a time. Raises: the first failure, after all threads have ended.

        Interrupted, it stops the threads, waits a little and passes the interruption on. A thread that hangs in the
        kernel may be at its job even then: what a job leaves behind must not rely on somebody who takes it.
        """
        try:
            self.begin(count)
            self._idle.wait()
        except BaseException as err:
            self.end(err)
            raise
        self.check()

    def begin(self, count: int) -> None:
        """Do all jobs in their order, ``count`` at a time, while the caller does something else; then comes `end`."""
        count = min(count, len(self._todo))
        if not count:
            self._idle.set()
        for _ in range(count):
            self._start()

    def end(self, failure: BaseException) -> None:
        """Stop, and wait a little for threads that are at work."""
        self.stop(failure)
        self._idle.wait(_PATIENCE_S)

    def check(self) -> None:
        """Raises: the first failure, once there is one; a long job asks now and then."""
        if self.failure is not None:
            raise self.failure

    def stop(self, failure: BaseException) -> None:
        """No job begins from now on."""
        with self._lock:
            first = self.failure is None
            if first:
                self.failure = failure
        if first and self._on_stop is not None:
            self._on_stop()

    def _start(self) -> None:
        worker = object()
        with self._lock:
            self._at_work.add(worker)
        try:
            # a daemon: a thread that hangs in the kernel must not hold the process after ^C
            threading.Thread(target=self._work, args=(worker,), daemon=True).start()
        except BaseException:
            self._leave(worker)
            raise

    def _work(self, worker: object) -> None:
        try:
            while (job := self._next()) is not None:
                job()
        except BaseException as err:
            self.stop(err)
        finally:
            self._leave(worker)

    def _next(self) -> Job | None:
        with self._lock:
            return self._todo.pop() if self._todo and self.failure is None else None

    def _leave(self, worker: object) -> None:
        with self._lock:
            self._at_work.discard(worker)
            if not self._at_work:
                self._idle.set()
