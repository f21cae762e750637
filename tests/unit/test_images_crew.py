"""Threads that work together stop together, and a caller that is interrupted is let go."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from cloison.images import crew
from cloison.images.crew import Crew


def test_every_job_is_done_once_by_as_many_threads_as_were_asked_for() -> None:
    done: list[int] = []
    together = threading.Barrier(3, timeout=5)

    def job(number: int) -> None:
        together.wait()
        done.append(number)

    Crew([partial(job, number) for number in range(9)]).run(3)
    assert sorted(done) == list(range(9))


def test_one_thread_keeps_the_order_and_no_job_needs_no_thread() -> None:
    done: list[int] = []
    Crew([partial(done.append, number) for number in range(5)]).run(1)
    assert done == [0, 1, 2, 3, 4]
    Crew([]).run(4)


def test_the_first_failure_is_raised_and_no_job_begins_after_it() -> None:
    done: list[int] = []
    stopped: list[bool] = []

    def fail() -> None:
        raise ZeroDivisionError("first")

    jobs: list[Callable[[], None]] = [fail, *(partial(done.append, number) for number in range(5))]
    with pytest.raises(ZeroDivisionError, match="first"):
        Crew(jobs, on_stop=lambda: stopped.append(True)).run(1)
    assert (done, stopped) == ([], [True])


def interrupted(team: Crew, inside: threading.Event) -> float:
    """Run with ^C once a job is at work; how long the caller was held after that."""

    def press() -> None:
        inside.wait(60)
        time.sleep(0.1)  # the caller waits by now
        pressed.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    pressed: list[float] = []
    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        team.run(2)
    presser.join()
    return time.monotonic() - pressed[0]


def test_an_interrupted_caller_waits_until_the_threads_have_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_PATIENCE_S", 60)
    inside, ended = threading.Event(), threading.Event()
    more: list[bool] = []

    def job() -> None:
        try:
            while True:
                inside.set()
                team.check()
                time.sleep(0.01)
        finally:
            ended.set()

    team = Crew([job, job, partial(more.append, True)])
    assert interrupted(team, inside) < 30
    assert ended.is_set()
    assert more == []


def test_an_interrupted_caller_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_PATIENCE_S", 0.1)
    inside, release, more = threading.Event(), threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        release.wait(60)

    team = Crew([hang, hang, more.set])
    assert interrupted(team, inside) < 30
    release.set()
    assert not more.wait(0.2)
