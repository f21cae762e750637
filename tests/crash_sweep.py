"""Every scenario of the crash tests, at every call that changes the world: who dies there, and what must hold then.

A program of its own, so that several can work side by side, each in roots of its own, and so that the family it traces
is all it has to wait for:

    python tests/crash_sweep.py IMAGE.tar SCENARIO [--shard I/N] [--every N]

prints one line a broken promise, then how many points it tried. ``--every N`` takes only each N-th call of the process
that builds a container's inside (``init``); the others are always tried at each call.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, NoReturn

import cloison.cli
import cloison.engine
import sudden_death
from cloison.__main__ import main as main_of_command
from harness import (
    SOURCE,
    Cloison,
    Result,
    Roots,
    compare,
    ledger,
    own_cgroups,
    own_links,
    own_mounts,
    own_run_files,
    until,
)
from sudden_death import ATTACHED, DETACHED, Story

NAME, CODE = "doomed", 7
_ENTRY = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from cloison.__main__ import main; sys.exit(main())"
_LEDGER_EVERY = 20  # points between two looks at everything; the cheap half of it is compared after each
_ENDS = ("sh", "-c", f"exit {CODE}")
_NONE = ("--network", "none", "busybox")
_STAYS = ("run", "-d", "--name", NAME, *_NONE, "sleep", "1000")


class Engine(Cloison):
    """The command in a bare interpreter, or forked from this one: a sweep starts thousands."""

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-I", "-S", "-c", _ENTRY, *words]

    def __call__(self, *words: str, input: str | None = None, timeout: float = 120, **env: str) -> Result:
        """To the end, in a child that knows the modules already and nothing else: what is true is on the disk."""
        assert input is None
        with open(os.devnull, "r+b") as null, TemporaryFile() as out, TemporaryFile() as err:
            if not (pid := os.fork()):
                _become_command(words, {**self.roots.environ, **env}, [file.fileno() for file in (null, out, err)])
            signal.alarm(int(timeout))  # whose default is death
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            signal.alarm(0)
            said = []
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode(errors="surrogateescape"))
        return Result(words, code, *said)

    def state(self, name: str = NAME) -> dict[str, Any] | None:
        """What ``inspect`` says of its state; None when there is no such container."""
        done = self("inspect", name)
        if done.returncode:
            assert "No such" in done.stderr, done.stderr
            return None
        state: dict[str, Any] = json.loads(done.stdout)[0]["State"]
        return state


def _become_command(words: Sequence[str], environ: Mapping[str, str], streams: Sequence[int]) -> NoReturn:
    code = 1
    try:
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        os.environ.clear()
        os.environ.update(environ)
        code = main_of_command(words)
    finally:
        os._exit(code)


def _load_modules() -> None:
    """Of every verb, once; the commands are children of this process."""
    for package in (cloison.cli, cloison.engine):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


class Scenario(NamedTuple):
    """``before`` is done in peace, ``words`` is where somebody dies, ``holds`` says what must be true afterwards."""

    words: tuple[str, ...]
    holds: Callable[[Engine, Story], None]
    before: tuple[tuple[str, ...], ...] = ()
    roles: Sequence[str] = ATTACHED
    victims: Sequence[str] = ATTACHED


# -- what must hold


def gone(engine: Engine, _story: Story) -> None:
    assert engine.state() is None, "the container is still there"


def truth(engine: Engine, story: Story) -> None:
    """Of a container that is kept: whole or gone; what has been recorded is said, now and later."""
    state = engine.state()
    recorded = story.made("monitor", "rename") > 0  # of the exit file
    executed = story.made("init", "execve") > 0
    if state is None:
        assert not executed, "a container whose command has run is gone"
        return
    assert state == engine.state(), "two looks, two answers"
    found = (state["Status"], state["ExitCode"])
    assert not state["Running"], state
    if recorded and executed:
        assert found == ("exited", CODE), f"{found}, and the end was recorded"
    elif not executed:
        assert found in (("created", 0), ("created", 128), ("exited", 255), ("exited", 137)), found
    else:
        assert found in (("exited", 255), ("exited", 137)), f"{found}, after a monitor that was killed"
    if found[0] == "created":
        assert engine("start", "-a", NAME).returncode == CODE, "a created container cannot be started"


def runs_or_ended(engine: Engine, story: Story) -> None:
    """Of ``stop`` and ``kill``: it runs on with its process, or it has ended by SIGKILL."""
    state = engine.state()
    assert state is not None, "the container is gone"
    if state["Running"] and not Path(f"/proc/{state['Pid']}").exists():  # it died since: its monitor is about to say so
        until(lambda: not (engine.state() or {}).get("Running"), what="the recorded end")
        state = engine.state()
        assert state is not None, "the container is gone"
    if state["Running"]:
        assert not story.made("command", "pidfd_send_signal") or story.killed
    else:
        assert (state["Status"], state["ExitCode"]) == ("exited", 137), state


def runs_on(engine: Engine, _story: Story) -> None:
    """Of ``exec``: the container does not notice."""
    state = engine.state()
    assert state is not None and state["Running"], state
    assert engine("exec", NAME, "sh", "-c", f"exit {CODE}").returncode == CODE


def ended_or_gone(engine: Engine, _story: Story) -> None:
    """Of ``rm`` of a container that had ended: all of it or nothing."""
    state = engine.state()
    assert state is None or (state["Status"], state["ExitCode"]) == ("exited", CODE), state


def whole_or_gone(engine: Engine, story: Story) -> None:
    """Of ``create``."""
    if engine.state() is not None:
        truth(engine, story)


def anything_true(engine: Engine, _story: Story) -> None:
    """Of ``rm -f``: running, ended by force, or gone."""
    state = engine.state()
    assert state is None or state["Running"] or state["ExitCode"] == 137, state


def one_name(engine: Engine, _story: Story) -> None:
    """Of ``rename``: the container has one of the names, and the other is free."""
    names = engine.ok("ps", "-a", "--format", "{{.Names}}").split()
    assert len(names) == 1, names
    other = {NAME: "other", "other": NAME}[names[0]]
    engine.ok("create", "--name", other, *_NONE, "true")
    engine.ok("rm", other)


def image_is_whole(engine: Engine, _story: Story) -> None:
    """Of the image verbs: what is listed runs; what is not even named goes with the next image that is removed."""
    rows = engine.ok("images", "--format", "{{.ID}} {{.Repository}}").splitlines()
    listed = {name if name != "<none>" else digest for digest, name in map(str.split, rows)}
    assert "busybox" in listed
    for name in listed:
        assert engine("run", "--rm", "--network", "none", name, *_ENDS).returncode == CODE, name
    engine.ok("tag", "busybox", "another")
    for name in {"another", *listed} - {"busybox"}:
        engine.ok("rmi", name)


_TWO = ("command", "monitor")
_LAST = ("run", "--name", NAME, *_NONE, *_ENDS)
SCENARIOS: dict[str, Scenario] = {
    "run --rm": Scenario(("run", "--rm", "--name", NAME, *_NONE, *_ENDS), gone),
    "run --rm, bridge": Scenario(("run", "--rm", "--name", NAME, "-p", "127.0.0.1:0:80", "busybox", *_ENDS), gone),
    "run --rm -d": Scenario(
        ("run", "--rm", "-d", "--name", NAME, *_NONE, *_ENDS), gone, roles=DETACHED, victims=DETACHED[:3]
    ),
    "run": Scenario(_LAST, truth),
    "run, bridge": Scenario(("run", "--name", NAME, "busybox", *_ENDS), truth, victims=_TWO),
    "run -d": Scenario(("run", "-d", "--name", NAME, *_NONE, *_ENDS), truth, roles=DETACHED, victims=DETACHED),
    "create": Scenario(("create", "--name", NAME, *_NONE, *_ENDS), whole_or_gone),
    "start": Scenario(("start", "-a", NAME), truth, (("create", "--name", NAME, *_NONE, *_ENDS),), victims=_TWO),
    "stop": Scenario(("stop", "-t", "0", NAME), runs_or_ended, (_STAYS,)),
    "kill": Scenario(("kill", NAME), runs_or_ended, (_STAYS,)),
    "exec": Scenario(("exec", NAME, "true"), runs_on, (_STAYS,)),
    "rm": Scenario(("rm", NAME), ended_or_gone, (_LAST,)),
    "rm -f": Scenario(("rm", "-f", NAME), anything_true, (_STAYS,)),
    "rename": Scenario(("rename", NAME, "other"), one_name, (("create", "--name", NAME, *_NONE, *_ENDS),)),
    "tag": Scenario(("tag", "busybox", "other"), image_is_whole),
    "rmi": Scenario(("rmi", "other"), image_is_whole, (("tag", "busybox", "other"),)),
    "rmi, last reference": Scenario(("rmi", "loaded"), image_is_whole, (("load", "-i", "IMAGE"),)),
    "load": Scenario(("load", "-i", "IMAGE"), image_is_whole),
}


# -- the sweep


class Sweep:
    """One scenario in roots of its own; `points` is known after its first run, in which nobody dies."""

    def __init__(self, scenario: Scenario, archives: Sequence[str]) -> None:
        self.roots = Roots()
        self.engine = Engine(self.roots)
        self._scenario = scenario
        self._archive = archives[-1]
        self.engine.ok("import", "--change", "ENV PATH=/bin", archives[0], "busybox")
        self.engine("run", "--rm", "busybox", "true")  # the bridge and the filter's cache are there
        self._story = self._play(("", 0))
        self._tidy()
        self._everything, self._cheap = ledger(self.roots), self._glance()

    def points(self, *, every: int) -> Iterator[tuple[str, int]]:
        for role in self._scenario.victims:
            step = every if role == "init" else 1
            yield from ((role, at) for at in range(1, self._story.count(role) + 1, step))

    def try_point(self, point: tuple[str, int]) -> bool:
        """Whether it was reached. Raises: AssertionError for a promise that does not hold."""
        story = self._play(point)
        self._let_a_minute_pass()
        self.engine.ok("ps", "-a")
        self._scenario.holds(self.engine, story)
        self._tidy()
        self._await(lambda: compare(self._cheap, self._glance()))
        return story.killed

    def check_everything(self) -> None:
        self._await(lambda: compare(self._everything, ledger(self.roots)))

    @staticmethod
    def _await(leftovers: Callable[[], list[str]]) -> None:
        """Until there are none: a cgroup, a link, a monitor's last steps take their time."""
        deadline = time.monotonic() + 10
        while found := leftovers():
            assert time.monotonic() < deadline, "left behind:\n" + "\n".join(found)
            time.sleep(0.05)

    def forgive(self) -> None:
        """After a broken promise: what is left is told once."""
        self.engine.remove_all()
        self._everything, self._cheap = ledger(self.roots), self._glance()

    def close(self) -> None:
        self.engine.remove_all()
        self.roots.remove()

    def _play(self, point: tuple[str, int]) -> Story:
        for words in self._scenario.before:
            self.engine(*self._filled(words))
        argv = self.engine.argv(*self._filled(self._scenario.words))
        return sudden_death.run(argv, environ=self.roots.environ, roles=self._scenario.roles, point=point)

    def _filled(self, words: Sequence[str]) -> list[str]:
        return [self._archive if word == "IMAGE" else word for word in words]

    def _tidy(self) -> None:
        self.engine("rm", "-f", NAME)
        if "other" in self._scenario.words and self.engine("inspect", "other").returncode == 0:
            self.engine("rm", "-f", "other")

    def _let_a_minute_pass(self) -> None:
        """What was made aside, before it has a lock and a name, is taken for a crash after one minute."""
        with os.scandir(f"{self.roots.run_root}/containers") as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    os.utime(entry.path, (time.time() - 120,) * 2)

    def _glance(self) -> dict[str, list[str]]:
        settings = self.roots.settings
        return {
            "mounts": own_mounts(self.roots),
            "links": own_links(settings),
            "cgroups": own_cgroups(settings, parents=False),
            "run files": own_run_files(self.roots),
            "images": [str(path) for path in sorted(Path(self.roots.data_root).glob("*/*/*")) if _lasts(path)],
        }


def _lasts(path: Path) -> bool:
    return path.parts[-3] in ("blobs", "images", "snapshots") and not path.name.endswith(".lock")


def sweep(name: str, *, archives: Sequence[str], shard: tuple[int, int], every: int) -> int:
    """Print what is wrong; the number of wrong points."""
    work = Sweep(SCENARIOS[name], archives)
    tried = missed = wrong = 0
    try:
        for number, point in enumerate(work.points(every=every)):
            if number % shard[1] != shard[0]:
                continue
            tried += 1
            try:
                missed += not work.try_point(point)
                if tried % _LEDGER_EVERY == 0:
                    work.check_everything()
            except AssertionError as err:
                wrong += 1
                print(f"{name}: {point[0]} killed at its call number {point[1]}: {err}", flush=True)
                work.forgive()
        try:
            work.check_everything()
        except AssertionError as err:
            wrong += 1
            print(f"{name}: {err}", flush=True)
    finally:
        work.close()
    print(f"{name}: {tried} points, {missed} not reached, {wrong} wrong", flush=True)
    return wrong + (missed > 1 + tried // 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", help="a root file system and an image to load, both tar, with a comma between")
    parser.add_argument("scenarios", help="comma-separated; 'all' is every one", nargs="+")
    parser.add_argument("--shard", default="0/1", help="I/N: only every N-th point, from the I-th on")
    parser.add_argument("--every", type=int, default=1, help="of init's calls, each N-th")
    options = parser.parse_args()
    shard = tuple(map(int, options.shard.split("/")))
    _load_modules()
    names = list(SCENARIOS) if options.scenarios == ["all"] else options.scenarios
    archives = options.archives.split(",")
    wrong = sum(sweep(name, archives=archives, shard=(shard[0], shard[1]), every=options.every) for name in names)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
