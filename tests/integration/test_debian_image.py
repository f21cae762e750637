"""A real distribution: Debian's root file system, pushed to Debian's registry, pulled and run by us."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison, missing_tools, until
from registry_fixture import running_registry
from seclusion import outside

LACKING = missing_tools("mmdebstrap", "umoci", "skopeo", "docker-registry")
pytestmark = [
    pytest.mark.skipif(bool(LACKING), reason=f"needs {', '.join(LACKING)}"),
    pytest.mark.timeout(300),
]


def bootstrap(archive: Path) -> None:
    """The smallest bookworm with apt. Debian's mirror is asked; without it the tests are skipped, and say so."""
    command = ["mmdebstrap", "--quiet", "--variant=apt", "bookworm", str(archive)]
    done = subprocess.run(outside(*command), capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"needs Debian's mirror: {done.stderr.strip().splitlines()[-1]}")


def layout_of(archive: Path, layout: Path) -> None:
    for words in (
        ["init", "--layout", str(layout)],
        ["new", "--image", f"{layout}:latest"],
        ["raw", "add-layer", "--image", f"{layout}:latest", str(archive)],
        ["config", "--image", f"{layout}:latest", "--config.cmd", "bash"],
    ):
        subprocess.run(["umoci", *words], check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    where = tmp_path_factory.mktemp("debian")
    bootstrap(where / "rootfs.tar")
    layout_of(where / "rootfs.tar", where / "oci")
    with running_registry(where / "registry") as registry:
        registry.push(where / "oci", "debian:bookworm")
        yield f"{registry.address}/debian:bookworm"


def test_run_pulls_debian_and_runs_its_programs(cloison: Cloison, debian: str) -> None:
    first = cloison("run", "--rm", debian, "apt-get", "--version", timeout=120)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("apt 2.6")
    assert f"Unable to find image '{debian}' locally" in first.stderr
    again = cloison("run", "--rm", debian, "cat", "/etc/debian_version")
    assert again.stdout.startswith("12")
    assert again.stderr == ""


def test_debians_own_tools_work_inside(cloison: Cloison, debian: str) -> None:
    script = "dpkg --list | grep -c ^ii; su nobody -s /bin/bash -c id; mkfifo /tmp/f && ls /tmp; perl -e 'print 6*7'"
    result = cloison("run", "--rm", debian, "bash", "-c", script, timeout=120)
    assert "uid=65534(nobody)" in result.stdout, result.stderr
    assert result.stdout.endswith("42")


def test_a_signal_reaches_bash_and_stop_ends_it(cloison: Cloison, debian: str) -> None:
    cloison.ok(
        "run",
        "-d",
        "--name",
        "deb",
        debian,
        "bash",
        "-c",
        "trap 'exit 5' TERM; while :; do sleep 0.05; done",
        timeout=120,
    )
    until(lambda: cloison.inspect("deb")["State"]["Running"])
    cloison.ok("stop", "deb")
    assert cloison.inspect("deb")["State"]["ExitCode"] == 5
    cloison.ok("rm", "deb")
