"""What the integration tests stand on: own roots, the command, and a ledger of everything the kernel holds for us.

The ledger is scoped to one pair of roots, so that suites can run side by side and a busy machine is no leak.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cloison.model.settings import Settings, settings_for

PROJECT = Path(__file__).resolve().parents[1]
SOURCE = PROJECT / "src"
CGROUP_ROOT = Path("/sys/fs/cgroup")
Result = subprocess.CompletedProcess[str]


class Roots:
    """A data root and a run root of our own, made empty."""

    def __init__(self, *, data_root: str = "") -> None:
        # unix socket paths end at 108 bytes, hence the short names
        self.run_root = tempfile.mkdtemp(prefix="cloison-t", dir="/run")
        self.data_root = data_root or tempfile.mkdtemp(prefix="cloison-t", dir="/var/tmp")
        self.subnet, self._claim = _own_subnet()

    @property
    def environ(self) -> dict[str, str]:
        """What the command reads, on top of a plain environment."""
        plain = {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}
        own = {"CLOISON_DATA_ROOT": self.data_root, "CLOISON_RUN_ROOT": self.run_root}
        # nobody's credentials and registries
        own |= {"DOCKER_CONFIG": f"{self.data_root}/docker", "XDG_CONFIG_HOME": f"{self.data_root}/config"}
        own["XDG_CACHE_HOME"] = f"{self.data_root}/caches"
        if subnet := getattr(self, "subnet", ""):
            own["CLOISON_SUBNET"] = subnet
        return {**plain, **own, "PYTHONPATH": str(SOURCE), "TERM": "dumb"}

    @property
    def settings(self) -> Settings:
        return settings_for(self.environ)

    def remove(self) -> None:
        """Take away everything a suite may have left: bridge, table, cgroup parents, both directories."""
        _quietly("ip", "link", "del", self.settings.bridge)
        for family, name in own_tables(self.settings):
            _quietly("nft", "delete", "table", family, name)
        for directory in sorted(own_cgroups(self.settings), reverse=True):
            with suppress(OSError):
                os.rmdir(directory)
        for mount in reversed(own_mounts(self)):
            _quietly("umount", "-l", mount.split(" ")[0])
        shutil.rmtree(self.run_root, ignore_errors=True)
        shutil.rmtree(self.data_root, ignore_errors=True)
        self._claim.close()


def _own_subnet() -> tuple[str, socket.socket]:
    """A /24 of 10.209.0.0/16 that no other roots in this network namespace have; closing the socket gives it back."""
    claim = socket.socket(socket.AF_UNIX)
    for third in range(256):
        with suppress(OSError):
            claim.bind(f"\0cloison-test-10.209.{third}")  # abstract, unix(7): taken once, gone with its last holder
            return f"10.209.{third}.0/24", claim
    raise AssertionError("256 roots at once, and each wants a network")


class Cloison:
    """The command, as a user types it, in one pair of roots: ``cloison("run", "--rm", …) -> Result``."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots

    @property
    def settings(self) -> Settings:
        return self.roots.settings

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cloison", *words]

    def __call__(self, *words: str, input: str | None = None, timeout: float = 120, **env: str) -> Result:
        """Run to the end; never raises for an exit code. Standard input is empty unless given."""
        stdin = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        return subprocess.run(
            self.argv(*words), capture_output=True, text=True, errors="surrogateescape", timeout=timeout,
            env={**self.roots.environ, **env}, **stdin,  # type: ignore[call-overload,no-any-return]
        )  # fmt: skip

    def ok(self, *words: str, input: str | None = None, timeout: float = 120, **env: str) -> str:
        """The same, but must exit 0; returns standard output without its last newline."""
        result = self(*words, input=input, timeout=timeout, **env)
        assert result.returncode == 0, f"cloison {' '.join(words)}: exit {result.returncode}\n{result.stderr}"
        return result.stdout.removesuffix("\n")

    def spawn(self, *words: str, **options: object) -> subprocess.Popen[bytes]:
        """Start it and come back; ``options`` go to Popen. The caller waits for it."""
        return subprocess.Popen(self.argv(*words), env=self.roots.environ, **options)  # type: ignore[call-overload,no-any-return]

    def shell(self, script: str, *, timeout: float = 120) -> Result:
        """A shell pipeline in which ``cloison`` is the command."""
        define = f'cloison() {{ {sys.executable} -m cloison "$@"; }}\n'
        return subprocess.run(
            ["bash", "-c", define + script], capture_output=True, text=True, timeout=timeout, env=self.roots.environ,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def inspect(self, name: str) -> dict[str, Any]:
        """What ``inspect`` says about one object."""
        document: list[dict[str, Any]] = json.loads(self.ok("inspect", name))
        return document[0]

    def remove_all(self) -> None:
        """Every container of these roots, running or not."""
        names = self("ps", "-aq", "--no-trunc").stdout.split()
        if names:
            self("rm", "-f", "-v", *names)


# --- the ledger ---------------------------------------------------------------------------------------------------


def ledger(roots: Roots) -> dict[str, list[str]]:
    """Everything the kernel and our directories hold for these roots, apart from the lasting bridge and table."""
    settings = roots.settings
    return {
        "mounts": own_mounts(roots),
        "links": own_links(settings),
        "elements": own_elements(settings),
        "cgroups": own_cgroups(settings, parents=False),
        "processes": own_processes(roots),
        "run files": own_run_files(roots),
    }


@contextmanager
def no_leak(roots: Roots, *, patience_s: float = 20.0) -> Iterator[None]:
    """Fail when the ledger differs afterwards; clean-up off the caller's path gets ``patience_s`` to finish."""
    before = ledger(roots)
    yield
    deadline = time.monotonic() + patience_s
    while difference := compare(before, ledger(roots)):
        if time.monotonic() > deadline:
            raise AssertionError("left behind:\n" + "\n".join(difference))
        time.sleep(0.05)


def compare(before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]]) -> list[str]:
    """What is there and was not; that an earlier test's leftover went away is that test's affair."""
    return [f"  {kind}: + {entry}" for kind, old in before.items() for entry in after[kind] if entry not in old]


def own_mounts(roots: Roots) -> list[str]:
    """``TARGET TYPE`` of every mount below our roots in this mount namespace."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        target = left.split()[4]
        if target.startswith((roots.run_root, roots.data_root)) and target != roots.data_root:
            found.append(f"{target} {right.split()[0]}")
    return found


def own_links(settings: Settings) -> list[str]:
    """Ports of our bridge, and links that carry our instance's name."""
    names = [] if settings.instance == "cloison" else [settings.instance]
    found = []
    for directory in Path("/sys/class/net").iterdir():
        master = directory / "master"
        enslaved = master.is_symlink() and master.resolve().name == settings.bridge
        if enslaved or (directory.name != settings.bridge and any(directory.name.startswith(n) for n in names)):
            found.append(directory.name)
    return sorted(found)


def own_tables(settings: Settings) -> list[tuple[str, str]]:
    """(family, name) of our nft tables."""
    if not shutil.which("nft"):
        return []
    listed = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=True).stdout
    tables = [entry["table"] for entry in json.loads(listed or '{"nftables": []}')["nftables"] if "table" in entry]
    return [(table["family"], table["name"]) for table in tables if table["name"] == settings.nft_table]


def own_elements(settings: Settings) -> list[str]:
    """Elements of the sets and maps in our tables, and rules outside the static ones would show as a new line too."""
    found = []
    for family, name in own_tables(settings):
        listed = subprocess.run(["nft", "-j", "list", "table", family, name], capture_output=True, text=True).stdout
        for entry in json.loads(listed or '{"nftables": []}')["nftables"]:
            for kind in ("set", "map"):
                for element in entry.get(kind, {}).get("elem", ()):
                    found.append(f"{family} {name} {entry[kind]['name']} {json.dumps(element, sort_keys=True)}")
    return sorted(found)


def own_cgroups(settings: Settings, *, parents: bool = True) -> list[str]:
    """Our directories on every hierarchy; ``parents`` counts the lasting ``cloison-…`` directory itself."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            top = os.path.join(left.split()[4], settings.cgroup_parent)
            for directory, _, _ in os.walk(top):
                if parents or directory != top:
                    found.append(directory)
    return sorted(found)


def own_processes(roots: Roots) -> list[str]:
    """``PID NAME`` of everything that holds our files, lies in our cgroups or has our roots in its environment."""
    marks = (roots.run_root.encode(), roots.data_root.encode(), b"/" + roots.settings.cgroup_parent.encode() + b"/")
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid() and _belongs(entry, marks):
            found.append(f"{entry} {_read(f'/proc/{entry}/comm').decode(errors='replace').strip()}")
    return sorted(found)


def _belongs(pid: str, marks: Sequence[bytes]) -> bool:
    for name in ("cgroup", "cmdline"):
        text = _read(f"/proc/{pid}/{name}")
        if any(mark in text for mark in marks):
            return True
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{fd}").encode()
                # the test runner's own captures live elsewhere; only a file of ours below the roots counts
                if target.startswith((marks[0], marks[1])):
                    return True
    return False


def own_run_files(roots: Roots) -> list[str]:
    """Files of containers, names, leases, port claims and writable snapshots; locks come and go with their users."""
    found = []
    for directory in (
        f"{roots.run_root}/containers",
        f"{roots.run_root}/ipam",
        f"{roots.run_root}/ports",
        f"{roots.data_root}/containers",
        f"{roots.data_root}/names",
        f"{roots.data_root}/volumes",
        f"{roots.data_root}/snapshots/overlay/containers",
    ):
        with suppress(OSError):
            found += [f"{directory}/{name}" for name in os.listdir(directory) if not name.endswith((".lock", "last"))]
    return sorted(found)


# --- small tools --------------------------------------------------------------------------------------------------


def until(condition: Callable[[], object], *, timeout_s: float = 30.0, what: str = "the condition") -> None:
    """Poll until true. Raises: AssertionError after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout_s} s")
        time.sleep(0.02)


def missing_tools(*names: str) -> list[str]:
    return [name for name in names if not shutil.which(name)]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _quietly(*argv: str) -> None:
    if shutil.which(argv[0]):
        subprocess.run(argv, capture_output=True)
