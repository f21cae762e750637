"""Bundles for the tests of the OCI runtime door, the command, and what must not be left of a container."""

from __future__ import annotations

import copy
import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import SOURCE, Result

PR_SET_CHILD_SUBREAPER = 36
CGROUP_ROOT = Path("/sys/fs/cgroup")

CONFIG: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["true"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "noNewPrivileges": True,
    },
    "root": {"path": "rootfs"},
    "hostname": "inside",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]},
    ],
    "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
}


# Root inside is this user outside
OUTSIDE = 100_000
MAPPING = [{"containerID": 0, "hostID": OUTSIDE, "size": 1000}]


class Door:
    """``door("state", "c1") -> Result``: the command, with a state root and a bundle of its own."""

    def __init__(self) -> None:
        # Not pytest's directories: root of a user namespace must get through, and a socket's path is short
        self.home = Path(tempfile.mkdtemp(prefix="cloison-o", dir="/run"))
        self.home.chmod(0o711)
        self.root = self.home / "state"
        self.bundle = self.home / "bundle"
        self.config = copy.deepcopy(CONFIG)
        self._names: set[str] = set()  # containers that were spoken of

    def argv(self, *words: str) -> list[str]:
        for name in {word for word in words if word.startswith("t-")} - self._names:
            _names_in_use(fcntl.LOCK_EX, name)  # waits for it
            self._names.add(name)
        return [sys.executable, "-c", _ENTRY, "--root", str(self.root), *words]

    def write(self, *args: str, **process: object) -> None:
        """config.json as it stands in ``config``, with these arguments and other fields of ``process``."""
        self.config["process"].update(process)
        if args:
            self.config["process"]["args"] = list(args)
        (self.bundle / "config.json").write_text(json.dumps(self.config))

    def __call__(self, *words: str, timeout: float = 120, input: str | None = None) -> Result:
        """Run to the end, whatever the container does with the streams: they are files."""
        with (
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
            tempfile.TemporaryFile("w+") as source,
        ):
            source.write(input or "")
            source.seek(0)
            done = subprocess.run(
                self.argv(*words), stdin=source, stdout=out, stderr=err, timeout=timeout, cwd=self.bundle,
                env={"PATH": "/usr/bin:/bin"}, check=False,
            )  # fmt: skip
            out.seek(0)
            err.seek(0)
            return Result(done.args, done.returncode, out.read(), err.read())

    def ok(self, *words: str, input: str | None = None) -> str:
        done = self(*words, input=input)
        assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stderr}"
        return str(done.stdout)

    def fails(self, *words: str) -> str:
        """What it says on standard error."""
        done = self(*words)
        assert done.returncode != 0, f"{words} should fail, and said {done.stdout!r}"
        assert done.stdout == ""
        return str(done.stderr)

    def state(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.ok("state", name))
        return document

    def start(self, name: str, *args: str) -> int:
        """Create and start one; its pid, of which this process is the parent from now on."""
        self.write(*(args or ("sleep", "100")))
        self.ok("create", "--pid-file", str(self.bundle / "pid"), name)
        self.ok("start", name)
        return int((self.bundle / "pid").read_text())

    def groups(self) -> list[str]:
        """Control groups of this door's containers; other tests may run beside us."""
        names = {f"cloison-oci-{name}" for name in self._names}
        return [str(path) for path in CGROUP_ROOT.glob("*/*") if path.name in names]

    def remove(self) -> None:
        for name in self.left():
            self("delete", "--force", name)

    def close(self) -> None:
        """Others may have the names and what is called after them."""
        shutil.rmtree(self.home)
        for name in self._names:
            _names_in_use(fcntl.LOCK_UN, name)

    def left(self) -> list[str]:
        """Containers that have a directory in the state root."""
        return os.listdir(self.root) if self.root.exists() else []


def _names_in_use(operation: int, name: str) -> None:
    """A container's control groups are called after it, and are the machine's: one test at a time, of all test runs."""
    if not _LOCKS:
        _LOCKS.append(os.open("/run/cloison-tests.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    fcntl.lockf(_LOCKS[0], operation, 1, zlib.crc32(name.encode()))


_LOCKS: list[int] = []  # a byte a name; a process's locks end with it
_ENTRY = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from cloison.oci_runtime.main import main; sys.exit(main())"


@contextmanager
def subreaping() -> Iterator[None]:
    """As containerd's shim and conmon: orphans of our children are ours. Those that have ended are taken."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                continue
        except ChildProcessError:
            pass


def hook(log: Path, name: str, *, code: int = 0, more: Sequence[str] = ()) -> dict[str, Any]:
    """One that writes its name and the state it got into a file, then ends with this code."""
    script = f'echo "{name} $VALUE $(cat)" >> {log}; {"; ".join((*more, f"exit {code}"))}'
    return {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["VALUE=v", "PATH=/usr/bin:/bin"]}


def in_user_namespace(door: Door) -> None:
    """Root inside is OUTSIDE; the root file system is its own."""
    door.config["linux"]["namespaces"].append({"type": "user"})
    door.config["linux"].update(uidMappings=MAPPING, gidMappings=MAPPING)
    root = door.bundle / "rootfs"
    for path in (root, *root.rglob("*")):
        os.chown(path, OUTSIDE, OUTSIDE, follow_symlinks=False)
