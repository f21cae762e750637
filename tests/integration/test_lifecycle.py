"""The life of a container where several hands are on it: restart, late reapers, stop and remove at once, sweeps."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest

from cloison.engine import ending
from cloison.engine.containers import Containers
from cloison.engine.images import Images
from cloison.errors import CloisonError, Conflict, NotFound
from cloison.model.container import ContainerSpec, ExecSpec, Stdio
from cloison.snapshots.overlay import Overlay
from cloison.store.containers import ContainerStore
from cloison.store.locks import Lock
from harness import Roots


@pytest.fixture
def containers(roots: Roots, busybox_image: str) -> Containers:
    return Containers(roots.settings)


def spec(*command: str, **words: object) -> ContainerSpec:
    return ContainerSpec(image="busybox", command=command, network="none", **words)


DETACHED = Stdio(detached=True)


def wait_until(condition: object, *, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_late_reaper_leaves_the_next_run_alone(containers: Containers) -> None:
    record = containers.create(spec("sleep", "60", name="again"))
    containers.start("again", stdio=DETACHED).close()
    for _ in range(5):
        containers.restart("again", timeout_s=0)
        containers.reap(record.id)  # what the monitor of the run before asks for, at the worst moment
        assert containers.find("again").state.status == "running"
    containers.remove("again", force=True)


def test_a_killed_monitor_takes_its_container_along_and_is_told(containers: Containers, roots: Roots) -> None:
    session = containers.run(spec("sleep", "60", name="lost"), stdio=DETACHED)
    _record, running = containers.running("lost")
    with open(f"/proc/{running.pid}/stat") as file:
        monitor = int(file.read().rpartition(")")[2].split()[1])
    os.kill(monitor, signal.SIGKILL)
    session.close()
    wait_until(lambda: not os.path.exists(f"/proc/{running.pid}"))
    state = containers.find("lost").state
    assert (state.status, state.exit_code, state.reason) == ("exited", 255, "monitor-lost")
    containers.remove("lost")


def test_what_has_ended_is_told_so_before_it_is_cleaned_up(containers: Containers, roots: Roots) -> None:
    session = containers.run(spec("sleep", "60", name="between"), stdio=DETACHED)
    record, running = containers.running("between")
    store = ContainerStore(roots.settings)
    operation = Lock(store.path(record.id, "op.lock"))  # a clean-up waits for it
    try:
        os.kill(running.pid, signal.SIGKILL)
        session.close()
        wait_until(lambda: not store.monitor_lives(record.id))
        state = containers.find("between").state
        assert (state.status, state.exit_code) == ("exited", 137)
    finally:
        operation.release()
    containers.remove("between")


def test_stop_asks_first_and_kills_after_the_timeout(containers: Containers) -> None:
    polite = spec("sh", "-c", "trap 'exit 5' TERM; touch /ready; while :; do sleep 0.05; done", name="polite")
    containers.run(polite, stdio=DETACHED).close()
    _record, running = containers.running("polite")
    wait_until(lambda: os.path.exists(f"/proc/{running.pid}/root/ready"))
    containers.stop("polite", timeout_s=30)
    assert containers.find("polite").state.exit_code == 5
    containers.start("polite", stdio=DETACHED).close()
    stubborn = spec("sh", "-c", "trap '' TERM; touch /ready; while :; do sleep 0.05; done", name="stubborn")
    containers.run(stubborn, stdio=DETACHED).close()
    _record, running = containers.running("stubborn")
    wait_until(lambda: os.path.exists(f"/proc/{running.pid}/root/ready"))
    began = time.monotonic()
    containers.stop("stubborn", timeout_s=1)
    assert 0.9 < time.monotonic() - began < 9  # 10 is the default
    assert containers.find("stubborn").state.exit_code == 137
    for name in ("polite", "stubborn"):
        containers.remove(name, force=True)


def test_many_hands_end_one_container_and_each_hears_something_true(containers: Containers) -> None:
    containers.run(spec("sleep", "60", name="crowd"), stdio=DETACHED).close()
    errors: list[BaseException] = []

    def end(action: object) -> None:
        try:
            action()  # type: ignore[operator]
        except CloisonError as err:
            errors.append(err)

    actions = [lambda: containers.stop("crowd", timeout_s=0), lambda: containers.remove("crowd", force=True)] * 4
    threads = [threading.Thread(target=end, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, (NotFound, Conflict)) for error in errors), errors
    with pytest.raises(NotFound):
        containers.find("crowd")


def test_a_name_is_won_by_one_of_many(containers: Containers) -> None:
    won: list[str] = []

    def create() -> None:
        try:
            won.append(containers.create(spec("true", name="prize")).id)
        except Conflict:
            return

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    containers.remove("prize")


def test_a_removed_container_leaves_no_byte(containers: Containers, roots: Roots) -> None:
    store = ContainerStore(roots.settings)
    before = store.ids()
    session = containers.run(spec("sh", "-c", "echo x > /file; exit 4", auto_remove=True), stdio=Stdio())
    with session:
        assert containers.finish(session).exit_code == 4
    assert store.ids() == before
    names = f"{roots.data_root}/names"
    assert session.id not in [os.readlink(f"{names}/{name}") for name in os.listdir(names)]


def test_exec_runs_beside_and_ends_with_the_container(containers: Containers) -> None:
    containers.run(spec("sleep", "60", name="host"), stdio=DETACHED).close()
    with containers.exec("host", ExecSpec(command=("sh", "-c", "exit 9")), stdio=Stdio()) as session:
        assert containers.finish_exec(session) == 9
    with containers.exec("host", ExecSpec(command=("sleep", "60")), stdio=Stdio()) as session:
        containers.remove("host", force=True)
        assert containers.finish_exec(session) == 137


def test_logs_follow_to_the_end_and_keep_the_streams_apart(containers: Containers) -> None:
    script = "for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.2; done"
    containers.run(spec("sh", "-c", script, name="talker"), stdio=DETACHED).close()
    entries = list(containers.logs("talker", follow=True))
    assert b"".join(e.data for e in entries if e.stream == 1) == b"out1\nout2\nout3\n"
    assert b"".join(e.data for e in entries if e.stream == 2) == b"err1\nerr2\nerr3\n"
    assert b"".join(e.data for e in containers.logs("talker", tail=2)) in (b"out3\nerr3\n", b"err3\nout3\n")
    containers.remove("talker")


def test_a_finished_container_that_nobody_waited_for_is_reaped_by_its_monitor(
    containers: Containers, roots: Roots
) -> None:
    code = (
        "from cloison.engine.containers import Containers; from cloison.model.container import *; "
        "from cloison.model.settings import settings_for; import os; "
        "c = Containers(settings_for(dict(os.environ))); "
        "c.run(ContainerSpec(image='busybox', command=('sleep', '0.3'), network='none', auto_remove=True), "
        "stdio=Stdio(stdout='null', stderr='null')); os._exit(0)"
    )
    store = ContainerStore(roots.settings)
    before = store.ids()
    subprocess.run([os.sys.executable, "-c", code], env=roots.environ, check=True)  # type: ignore[attr-defined]
    assert len(store.ids() - before) == 1
    wait_until(lambda: store.ids() == before)


def test_a_strict_umask_of_the_caller_is_not_the_containers(containers: Containers) -> None:
    before = os.umask(0o077)
    try:
        script = "umask; cat /etc/hosts /etc/hostname > /dev/null && touch /tmp/x && echo fine"
        session = containers.run(spec("sh", "-c", script, user="1000", name="strict"), stdio=DETACHED)
        containers.wait("strict")
        session.close()
    finally:
        os.umask(before)
    assert b"".join(entry.data for entry in containers.logs("strict")) == b"0022\nfine\n"
    containers.remove("strict")


def test_a_kill_amid_the_last_clean_up_does_not_lose_the_exit_code(
    containers: Containers, roots: Roots, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a SIGKILL: nothing of ours runs after it."""

    unlink, removed = os.unlink, 0

    def dying_unlink(path: str, *words: object, **named: object) -> None:
        if f"{roots.run_root}/containers/" in str(path) and removed >= limit:
            raise Killed
        unlink(path, *words, **named)  # type: ignore[arg-type]
        counted(path)

    def counted(path: str) -> None:
        nonlocal removed
        removed += f"{roots.run_root}/containers/" in str(path)

    for limit in range(8):
        session = containers.run(spec("sh", "-c", "exit 7", name=f"cut{limit}"), stdio=Stdio(stdout="null"))
        removed = 0
        with session, monkeypatch.context() as patch:
            exit = session.wait()
            patch.setattr(os, "unlink", dying_unlink)
            patch.setattr(os, "listdir", lambda path, listing=os.listdir: sorted(listing(path)))  # "exit" comes early
            with contextlib.suppress(Killed):
                ending.finish_run(session.id, settings=roots.settings, exit=exit, pid=session.pid)
        ending.sweep(roots.settings)
        state = containers.find(f"cut{limit}").state
        assert (state.status, state.exit_code, state.reason) == ("exited", 7, "")
        containers.remove(f"cut{limit}")


def test_the_sweep_after_a_boot_spares_what_was_begun_since(containers: Containers, roots: Roots) -> None:
    store, snapshots = ContainerStore(roots.settings), Overlay(roots.data_root)
    image = Images(roots.settings).find("busybox")
    old, new = "0" * 64, "1" * 64
    for container_id in (old, new):  # as far as a creation has come before its name is claimed
        snapshots.prepare(container_id, image.layers, volatile=True)
    os.utime(f"{roots.data_root}/snapshots/overlay/containers/{old}", (0, 0))
    ending.sweep_after_boot(roots.settings)
    assert new in set(snapshots.list_containers())
    assert old not in set(snapshots.list_containers())
    snapshots.remove(new)
    assert store.run_ids() == set()
