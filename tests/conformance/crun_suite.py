"""Runs crun's own test-suite (``tests/test_*.py`` of containers/crun) against a runtime, and counts.

    crun_suite.py [--only FILE,...] [--json RESULTS] CHECKOUT RUNTIME

Needs root and a C compiler. What the suite expects of the machine is made in a mount namespace of its own: a shared
``/``, as systemd makes it. It runs on a terminal, because parts of it skip without one. Stand-ins are written for what
a machine may lack: util-linux's Python binding (else 48 tests are lost in silence), ``os.setns`` and ``os.unshare``
(Python 3.12), libseccomp's header (of which the helper program uses nothing). A file that comes to no end is run again
test by test. With VERBOSE in the environment what the tests say is shown.

docs/conformance.md has the results.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
FILE_TIMEOUT_S = 90.0
TEST_TIMEOUT_S = 40.0
_LINE = re.compile(r"^(ok|not ok) \d+ - (.+?) #(.*)$", re.MULTILINE)

STAND_INS = {
    "libmount.py": '''
class _Found:
    def __init__(self, fields):
        dash = fields.index("-")
        self.target, self.source, self.fstype = fields[4], fields[dash + 2], fields[dash + 1]
        self.vfs_options, self.fs_options = fields[5], fields[dash + 3]
        self.options = f"{self.vfs_options},{self.fs_options}"


class Table:
    """The part of libmount.Table that the suite uses: the last mount on a target, from a mountinfo file."""

    def __init__(self, path):
        with open(path) as lines:
            self._all = [_Found(line.split()) for line in lines if " - " in line]

    def find_target(self, target):
        return next((one for one in reversed(self._all) if one.target == target), None)
''',
    "sitecustomize.py": """
import ctypes
import os

if not hasattr(os, "setns"):
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(function, *arguments):
        if function(*arguments) < 0:
            raise OSError(ctypes.get_errno(), function.__name__)

    os.setns = lambda fd, nstype=0: checked(libc.setns, fd if isinstance(fd, int) else fd.fileno(), nstype)
    os.unshare = lambda flags: checked(libc.unshare, flags)
    os.CLONE_NEWNET = 0x40000000
""",
    "config.h": "#define HAVE_ERROR_H 1\n#define HAVE_LINUX_IOPRIO_H 1\n#define HAVE_SECCOMP 1\n",
    "seccomp.h": "",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkout", type=Path, help="a working tree of containers/crun")
    parser.add_argument("runtime", help="the command to judge")
    parser.add_argument("--only", default="", help="files, or file:test, with commas, as in 'hooks,exec:exec'")
    parser.add_argument("--json", type=Path, help="write every test's result there")
    options = parser.parse_args()
    if not os.environ.get("CLOISON_CRUN_SUITE"):  # a mount namespace of our own
        os.environ["CLOISON_CRUN_SUITE"] = "1"
        os.execvp("unshare", ["unshare", "-m", "--propagation", "shared", sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory(prefix="crun-suite-") as scratch:
        environment = prepare(options.checkout, Path(scratch), runtime=os.path.abspath(shutil.which(options.runtime)))
        before = left_groups()
        try:
            results = run_all(options.checkout, environment=environment, only=options.only)
        finally:
            remove_groups(left_groups() - before)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    report(results)
    return 0


def prepare(checkout: Path, scratch: Path, *, runtime: str) -> dict[str, str]:
    """Stand-ins and the static helper programs; the environment for the tests."""
    subprocess.run(["mount", "--make-private", "/"], check=True)  # ours alone from here on …
    subprocess.run(["mount", "--make-rshared", "/"], check=True)  # … and shared within
    os.chmod(scratch, 0o755)
    for name, text in STAND_INS.items():
        (scratch / name).write_text(text)
    compile_c = ["cc", "-static", "-w", f"-I{scratch}", "-o"]
    subprocess.run([*compile_c, scratch / "init", checkout / "tests/init.c"], check=True)
    if (checkout / "tests/no_openat2.c").exists():
        subprocess.run([*compile_c, checkout / "tests/no_openat2", checkout / "tests/no_openat2.c"], check=True)
    return {
        "PATH": os.environ["PATH"], "HOME": "/root", "TERM": "xterm", "INIT": str(scratch / "init"),
        "OCI_RUNTIME": runtime, "PYTHONPATH": str(scratch), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def run_all(checkout: Path, *, environment: Mapping[str, str], only: str) -> dict[str, dict[str, str]]:
    """File -> test -> ``ok``, ``skip``, ``not ok`` or ``timeout``."""
    wanted: dict[str, list[str]] = {}
    for entry in filter(None, only.split(",")):
        name, _, test = entry.partition(":")
        wanted.setdefault(name, []).extend(filter(None, [test]))
    results = {}
    for path in sorted((checkout / "tests").glob("test_*.py")):
        name = path.stem.removeprefix("test_")
        if wanted and name not in wanted:
            continue
        before = time.monotonic()
        results[name] = run_file(path, environment=environment, tests=wanted.get(name, []))
        print(f"{name}: {summary(results[name])} {time.monotonic() - before:.0f} s", flush=True)
    return results


def run_file(path: Path, *, environment: Mapping[str, str], tests: list[str]) -> dict[str, str]:
    chosen = {**environment, "RUN_TESTS": " ".join(tests)} if tests else environment
    output, finished = run_on_terminal(path, environment=chosen, timeout_s=FILE_TIMEOUT_S)
    if os.environ.get("VERBOSE"):
        print(output)
    if finished:
        return parse(output)
    found = {}
    for test in tests or names_in(path):
        output, finished = run_on_terminal(
            path, environment={**environment, "RUN_TESTS": test}, timeout_s=TEST_TIMEOUT_S
        )
        found.update(parse(output) if finished else {test: "timeout"})
    return found


def names_in(path: Path) -> list[str]:
    """The keys of its table of tests."""
    table = path.read_text().partition("all_tests = {")[2].partition("}")[0]
    return re.findall(r'^\s*["\']([^"\']+)["\']', table, re.MULTILINE)


def parse(output: str) -> dict[str, str]:
    found = {}
    for verdict, name, rest in _LINE.findall(output.replace("\r", "")):
        found[name] = "skip" if verdict == "ok" and rest.startswith("SKIP") else verdict
    return found


def run_on_terminal(path: Path, *, environment: Mapping[str, str], timeout_s: float) -> tuple[str, bool]:
    """Its output, and whether it came to an end in time."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        ["/usr/bin/env", "python3", str(path.resolve())], cwd=path.parent.parent, env=dict(environment),
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    end = time.monotonic() + timeout_s
    pieces = []
    while (left := end - time.monotonic()) > 0:
        ready = select.select([master], [], [], min(left, 0.2))[0]
        try:
            piece = os.read(master, 1 << 16) if ready else b""
        except OSError:
            break  # EIO: the last slave end is closed
        pieces.append(piece)
        if not piece and child.poll() is not None:
            break
    finished = child.poll() is not None or time.monotonic() < end
    if not finished:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    os.close(master)
    return b"".join(pieces).decode(errors="replace"), finished


def left_groups() -> set[Path]:
    """Control groups by the names that the suite gives, whichever runtime leaves them."""
    return {path for path in CGROUPS.glob("*/*") if path.is_dir() and re.match(r"frozen$|test", path.name)}


def remove_groups(groups: Iterable[Path]) -> None:
    """With what is in them: one test leaves a process frozen, and later ones would stumble over it."""
    inside = sorted({path for group in groups for path in (group, *group.rglob("*/"))}, reverse=True)
    for path in inside:
        if (path / "freezer.state").exists():
            (path / "freezer.state").write_text("THAWED")
        for pid in (path / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
    time.sleep(0.2)
    for path in inside:
        path.rmdir()


def summary(results: Mapping[str, str]) -> str:
    count = list(results.values()).count
    return f"{count('ok')}/{len(results) - count('ok') - count('skip')}/{count('skip')}"


def report(results: Mapping[str, Mapping[str, str]]) -> None:
    every: Iterable[str] = [verdict for tests in results.values() for verdict in tests.values()]
    for file, tests in results.items():
        for name, verdict in tests.items():
            if verdict not in ("ok", "skip"):
                print(f"{verdict}: {file} {name}")
    print("pass/fail/skip:", summary(dict(enumerate(every))))  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
