"""Containers on disk: names, locks, and what a crash leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloison.errors import Conflict, NotFound
from cloison.model.container import ContainerRecord, ContainerSpec
from cloison.model.settings import Settings
from cloison.store.containers import ContainerStore, Running

ONE, TWO = "a" * 64, "ab" + "c" * 62


@pytest.fixture
def store(tmp_path: Path) -> ContainerStore:
    return ContainerStore(Settings(data_root=f"{tmp_path}/data", run_root=f"{tmp_path}/run"))


def add(store: ContainerStore, container_id: str, name: str, *, transient: bool = False) -> ContainerRecord:
    record = ContainerRecord(
        id=container_id, name=name, created_ns=1, spec=ContainerSpec(image="x", auto_remove=transient), image_id="",
        argv=("a",), env=(), workdir="/", user="", stop_signal="TERM", layers=(),
    )  # fmt: skip
    with store.begin(container_id):
        store.save(record, durable=False)
        store.claim_name(name, container_id)
    return record


def test_a_container_is_found_by_name_id_and_unique_prefix(store: ContainerStore) -> None:
    add(store, ONE, "one")
    add(store, TWO, "two", transient=True)
    assert [store.resolve(text) for text in ("one", "/one", ONE, "aaa", "two", "ab")] == [ONE, ONE, ONE, ONE, TWO, TWO]
    with pytest.raises(Conflict):
        store.resolve("a")
    for missing in ("three", "", "..", "a/b"):
        with pytest.raises(NotFound, match="No such container"):
            store.resolve(missing)


def test_a_name_belongs_to_one_container(store: ContainerStore) -> None:
    record = add(store, ONE, "one")
    with pytest.raises(Conflict, match="is already in use by container"):
        add(store, TWO, "one")
    store.forget(record)
    store.forget_run(ONE)
    assert store.owner_of("one") == ""


def test_a_name_left_by_a_crash_is_free(store: ContainerStore) -> None:
    add(store, ONE, "one")
    store.forget_run(ONE)
    (Path(store.home(ONE, transient=False)) / "record.json").unlink()
    store.claim_name("one", TWO)
    assert store.owner_of("one") == TWO


def test_an_operation_lock_is_seen_and_ends_with_its_holder(store: ContainerStore) -> None:
    with store.begin(ONE):
        assert store.operation_runs(ONE)
        with pytest.raises(BlockingIOError):
            store.lock(ONE, wait=False)
    assert not store.operation_runs(ONE)
    with store.enter(ONE):
        assert store.operation_runs(ONE)


def test_what_runs_is_written_down_and_forgotten(store: ContainerStore) -> None:
    add(store, ONE, "one")
    running = Running(pid=7, pid_started=8, cgroup="c")
    store.save_running(ONE, running)
    assert store.load_running(ONE) == running
    assert store.has_ended(ONE)
    store.forget_run(ONE)
    assert store.load_running(ONE) is None
    assert store.load(ONE).name == "one"


def test_what_a_killed_begin_left_aside_is_swept_once_it_is_old(store: ContainerStore) -> None:
    add(store, ONE, "one")
    aside = Path(store.run_dir(TWO)).parent / f".{TWO}.0000"
    aside.mkdir()
    (aside / "op.lock").touch()
    store.sweep_aside()
    assert aside.exists()
    os.utime(aside, (0, 0))
    store.sweep_aside()
    assert not aside.exists()
    assert store.ids() == {ONE}
