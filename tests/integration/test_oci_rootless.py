"""The OCI runtime door for a user without rights: one id, no control group."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import Result
from oci_bundle import Door

NOBODY = 65534


def argv_of(door: Door, *words: str) -> list[str]:
    """Without ``--root``: the state root is where such a user has it."""
    interpreter, flag, code, *_ = door.argv()
    for candidate in (interpreter, "/usr/bin/python3"):
        found = (
            subprocess.run([candidate, flag, "import _ctypes"], user=NOBODY, check=False) if may(candidate) else None
        )
        if found is not None and found.returncode == 0:
            return [candidate, "-I", "-S", flag, code, *words]
    pytest.skip("needs a Python that other users may execute")


def may(program: str) -> bool:
    """Whether everybody may reach and execute it."""
    path = Path(program).resolve()
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents))


def as_nobody(door: Door, *words: str) -> Result:
    """The command as nobody."""
    return subprocess.run(
        argv_of(door, *words), capture_output=True, text=True, timeout=30, user=NOBODY, group=NOBODY,
        extra_groups=[], cwd=door.bundle, env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(door.home / "user")},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def own(door: Door) -> None:
    (door.home / "user").mkdir()
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", str(door.bundle), str(door.home / "user")], check=True)


def configure(door: Door, *args: str, **linux: object) -> None:
    path = Path(door.bundle, "config.json")
    config = json.loads(path.read_text())
    config["process"].update(args=list(args), terminal=False)
    config["linux"].update(linux)
    path.write_text(json.dumps(config))


def test_a_user_without_rights_runs_the_rootless_template(door: Door) -> None:
    own(door)
    assert as_nobody(door, "spec", "--rootless").returncode == 0
    configure(door, "sh", "-c", "id -u; cat /proc/self/uid_map; ls /sys/kernel >/dev/null && echo sys")
    done = as_nobody(door, "run", "t-user")
    assert (done.stdout.split(), done.stderr) == (["0", "0", str(NOBODY), "1", "sys"], "")
    assert os.listdir(door.home / "user" / "cloison-oci") == []


def begin(door: Door) -> None:
    """One that sleeps, as t-user."""
    own(door)
    as_nobody(door, "spec", "--rootless")
    configure(door, "sleep", "100")
    with open(os.devnull, "r+b") as null:
        subprocess.run(
            argv_of(door, "run", "--detach", "t-user"),
            user=NOBODY, group=NOBODY, extra_groups=[], cwd=door.bundle, stdin=null, stdout=null, stderr=null,
            env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(door.home / "user")}, check=True,
        )  # fmt: skip


def test_exec_enters_the_user_namespace_first(door: Door) -> None:
    begin(door)
    done = as_nobody(
        door, "exec", "t-user", "sh", "-c", "id -u; hostname; cat /proc/1/comm; readlink /proc/self/ns/user"
    )
    uid, host, first, users = done.stdout.split() or pytest.fail(done.stderr)
    assert (uid, host, first) == ("0", "cloison", "sleep")
    assert users != os.readlink("/proc/self/ns/user")
    assert as_nobody(door, "exec", "t-user", "sh", "-c", "exit 3").returncode == 3
    assert as_nobody(door, "delete", "--force", "t-user").returncode == 0
    shutil.rmtree(door.home / "user")


def test_state_and_delete_work_there_too(door: Door) -> None:
    begin(door)
    assert json.loads(as_nobody(door, "state", "t-user").stdout)["status"] == "running"
    assert as_nobody(door, "delete", "--force", "t-user").returncode == 0
    shutil.rmtree(door.home / "user")


def test_a_limit_that_cannot_be_set_is_an_error(door: Door) -> None:
    own(door)
    as_nobody(door, "spec", "--rootless")
    configure(door, "true", resources={"pids": {"limit": 10}})
    done = as_nobody(door, "run", "t-user")
    assert done.returncode == 1
    assert "control group" in done.stderr or "cannot" in done.stderr
