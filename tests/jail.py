"""Tests marked ``jailed`` run where a hostile archive that breaks out finds canaries, and nothing of this machine.

One child does all of them, with mount and pid namespaces of its own. Its root is a tmpfs that holds canaries, the
directory of the tests' temporary files, and, read-only, what Python is made of; there are no devices. Fixtures run in
there, too. Whatever a test changes outside its own directory, its report is a failure that says so.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from cloison.linux.host_mounts import attach, restrict
from cloison.linux.mounts import NO_DEVICES, NO_SETUID, READ_ONLY, new_file_system, open_tree

_PROJECT = Path(__file__).resolve().parents[1]
_NEWNS, _NEWPID = 0x0002_0000, 0x2000_0000
_REC_PRIVATE = 0x4000 | 0x4_0000
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CANARIES = ("canary", "etc/canary", "root/canary", "var/lib/canary", "tmp/canary")


class Jail:
    """Runs tests in a child that is made for the first of them; ``close`` ends it."""

    def __init__(self, session: pytest.Session) -> None:
        self._places = {item.nodeid: number for number, item in enumerate(session.items)}
        root = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        self._connection, theirs = multiprocessing.Pipe()
        self._config = session.config
        sys.stdout.flush()
        with warnings.catch_warnings():
            # pytest's own threads wait for messages that the child has no part in
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if not self._pid:
            self._connection.close()
            _become_jail(session, theirs, root)
        theirs.close()

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> Sequence[pytest.TestReport]:
        """Setup, call and teardown of one test, as they were reported in there."""
        try:
            following = self._places[nextitem.nodeid] if nextitem else -1
            self._connection.send((self._places[item.nodeid], following))
            answers = self._connection.recv()
        except (EOFError, ConnectionError, pytest.fail.Exception) as err:  # the last is pytest-timeout's
            os.kill(self._pid, 9)
            self.close()
            return [_failure(item, f"the jail ended: {err!r}")]
        hook = self._config.hook
        return [hook.pytest_report_from_serializable(config=self._config, data=answer) for answer in answers]

    def close(self) -> None:
        self._connection.close()
        if self._pid:
            os.waitpid(self._pid, 0)
        self._pid = 0


def _failure(item: pytest.Item, text: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid, location=item.location, keywords={}, outcome="failed", longrepr=text, when="call"
    )


def _become_jail(session: pytest.Session, connection: Connection, temporary: Path) -> None:
    """In the child; never returns. A grandchild is the first process of the new pid namespace, and ends with us."""
    status = 1
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
        _call(libc.unshare, _NEWNS | _NEWPID)
        pid = os.fork()
        if pid:
            connection.close()
            _, wait_status = os.waitpid(pid, 0)
            status = os.waitstatus_to_exitcode(wait_status)
        else:
            libc.prctl(1, 9)
            _change_root(libc, temporary)
            _serve(session, connection)
            status = 0
    except BaseException as err:
        os.write(2, f"no jail for the tests: {err!r}\n".encode())
    finally:
        os._exit(status & 0xFF)


def _change_root(libc: ctypes.CDLL, temporary: Path) -> None:
    _call(libc.mount, None, b"/", None, _REC_PRIVATE, None)
    readable = set(map(os.path.realpath, (sys.prefix, sys.base_prefix, _PROJECT, "/usr")))
    # taken before anything is mounted that could hide them
    trees = {path: open_tree(path, recursive=False) for path in [*sorted(readable), str(temporary)]}
    links = {name: os.readlink(f"/{name}") for name in ("bin", "sbin", "lib", "lib64") if os.path.islink(f"/{name}")}
    here = temporary / "jail"
    here.mkdir()
    attach(new_file_system("tmpfs", ("mode=0755", "size=256m"), attributes=NO_DEVICES | NO_SETUID), str(here))
    for path, tree in trees.items():
        restrict(tree, NO_DEVICES | NO_SETUID | (READ_ONLY if path in readable else 0))
        (inside := here / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        attach(tree, str(inside))
    for name, target in links.items():
        (here / name).symlink_to(target)
    for name in (*_CANARIES, "proc/canary"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text("alive")
    attach(new_file_system("proc", (), attributes=READ_ONLY), str(here / "proc"))
    os.chdir(here)
    _call(libc.syscall, _PIVOT_ROOT[platform.machine()], b".", b".")
    _call(libc.umount2, b".", _DETACH)
    os.chdir(_PROJECT)


def _serve(session: pytest.Session, connection: Connection) -> None:
    hook = session.config.hook
    before = _outside()
    while True:
        try:
            number, following = connection.recv()
        except EOFError:
            return
        item = session.items[number]
        # the first for the last: what belongs to the whole session is not ours to tear down
        nextitem = session.items[max(following, 0)]
        reports = runtestprotocol(item, log=False, nextitem=nextitem if nextitem is not item else None)
        if (after := _outside()) != before:
            reports.append(_failure(item, f"it broke out: {sorted(set(before.items()) ^ set(after.items()))}"))
            before = after
        connection.send(
            [hook.pytest_report_to_serializable(config=session.config, report=report) for report in reports]
        )


def _outside() -> dict[str, tuple[object, ...]]:
    """All that lies on the jail's own root, without what is mounted there."""
    found: dict[str, tuple[object, ...]] = {}
    device = os.stat("/").st_dev
    for folder, directories, files in os.walk("/"):
        directories[:] = [name for name in directories if os.lstat(os.path.join(folder, name)).st_dev == device]
        for path in [folder, *(os.path.join(folder, name) for name in files)]:
            info = os.lstat(path)
            content = Path(path).read_bytes() if os.path.isfile(path) else b""
            found[path] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_nlink, content)
    return found


def _call(function: object, *arguments: object) -> None:
    if function(*arguments) == -1:  # type: ignore[operator]
        raise OSError(code := ctypes.get_errno(), os.strerror(code))
