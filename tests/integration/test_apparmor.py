"""AppArmor: the profile that a bundle, a run or an exec names confines the command, and nothing else."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison
from oci_bundle import Door

ENABLED = Path("/sys/module/apparmor/parameters/enabled")

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(not ENABLED.exists(), reason="needs a kernel with AppArmor: make test-guest"),
]

PROFILE = """\
profile {name} flags=(attach_disconnected, mediate_deleted) {{
  capability,
  signal,
  file,
  deny /forbidden rwx,
}}
"""
READ = ("sh", "-c", "cat /proc/self/attr/current; cat /forbidden")


@pytest.fixture(scope="module")
def profiles() -> Iterator[tuple[str, str]]:
    """Two that forbid one file, loaded into the kernel."""
    names = ("cloison-test", "cloison-test-other")
    text = "".join(PROFILE.format(name=name) for name in names).encode()
    subprocess.run(["apparmor_parser", "--replace"], input=text, check=True)
    yield names
    subprocess.run(["apparmor_parser", "--remove"], input=text, check=True)


@pytest.fixture
def bundle(door: Door) -> Door:
    (door.bundle / "rootfs" / "forbidden").write_text("secret\n")
    return door


@pytest.mark.parametrize("more", [{}, {"noNewPrivileges": False}, {"user": {"uid": 1000, "gid": 1000}}])
def test_the_command_runs_under_its_profile(bundle: Door, profiles: tuple[str, str], more: dict[str, object]) -> None:
    bundle.write(*READ, apparmorProfile=profiles[0], **more)
    done = bundle("run", "t-armor")
    assert done.stdout == f"{profiles[0]} (enforce)\n"
    assert "can't open '/forbidden': Permission denied" in done.stderr


def test_without_a_profile_the_same_file_is_readable(bundle: Door, profiles: tuple[str, str]) -> None:
    bundle.write(*READ)
    assert bundle.ok("run", "t-armor") == "unconfined\nsecret\n"


def test_an_exec_has_the_containers_profile_or_its_own(bundle: Door, profiles: tuple[str, str]) -> None:
    bundle.write("sleep", "100", apparmorProfile=profiles[0])
    bundle.ok("run", "--detach", "t-armor")
    assert bundle("exec", "t-armor", *READ).stdout == f"{profiles[0]} (enforce)\n"
    assert bundle("exec", "--apparmor", profiles[1], "t-armor", *READ).stdout == f"{profiles[1]} (enforce)\n"


def test_a_container_whose_profile_lets_no_signal_in_can_be_deleted(bundle: Door) -> None:
    text = PROFILE.format(name="cloison-test-deaf").replace("  signal,\n", "").encode()
    subprocess.run(["apparmor_parser", "--replace"], input=text, check=True)
    try:
        bundle.write("sleep", "100", apparmorProfile="cloison-test-deaf")
        bundle.ok("run", "--detach", "t-armor")
        bundle.ok("delete", "--force", "t-armor")
    finally:
        subprocess.run(["apparmor_parser", "--remove"], input=text, check=True)


def test_a_profile_that_is_not_loaded_is_an_error(bundle: Door) -> None:
    bundle.write("true", apparmorProfile="cloison-no-such-profile")
    assert "cannot apply the security label 'exec cloison-no-such-profile'" in bundle.fails("create", "t-armor")


OPTION = ("--security-opt", "apparmor=cloison-test")
RUN = ("run", "--rm", "--network", "none")


def test_run_puts_the_command_under_its_profile(
    cloison: Cloison, busybox_image: str, profiles: tuple[str, str]
) -> None:
    assert cloison.ok(*RUN, *OPTION, busybox_image, "cat", "/proc/self/attr/current") == "cloison-test (enforce)"
    denied = cloison(*RUN, *OPTION, busybox_image, "sh", "-c", "touch /forbidden")
    assert "Permission denied" in denied.stderr
    unconfined = (*RUN, "--security-opt", "apparmor=unconfined", busybox_image, *READ)
    assert cloison(*unconfined).stdout == "unconfined\n"


def test_what_is_executed_in_a_container_has_its_profile(
    cloison: Cloison, busybox_image: str, profiles: tuple[str, str]
) -> None:
    cloison.ok("run", "-d", "--name", "armed", "--network", "none", *OPTION, busybox_image, "sleep", "300")
    assert cloison.inspect("armed")["AppArmorProfile"] == "cloison-test"
    assert cloison.ok("exec", "armed", "cat", "/proc/self/attr/current") == "cloison-test (enforce)"
    assert cloison.ok("exec", "--privileged", "armed", "cat", "/proc/self/attr/current") == "unconfined"
    cloison.ok("rm", "-f", "armed")


def test_run_refuses_a_profile_that_is_not_loaded(cloison: Cloison, busybox_image: str) -> None:
    refused = cloison(*RUN, "--security-opt", "apparmor=cloison-no-such-profile", busybox_image, "true")
    assert refused.returncode == 125
    assert "cannot apply the security label 'exec cloison-no-such-profile'" in refused.stderr
    assert cloison.ok("ps", "-aq") == ""
