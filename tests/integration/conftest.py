"""Fixtures of the tests that meet the kernel: own roots, the command, an image, and the leak check after every test.

They need root; without it they are skipped, and the report says so (``-ra`` is on).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from harness import Cloison, Roots, no_leak
from oci_bundle import Door


@pytest.fixture(scope="session")
def roots() -> Iterator[Roots]:
    """A data root and a run root of this test session; bridge, table and cgroup parents go with them."""
    own = Roots()
    try:
        yield own
    finally:
        Cloison(own).remove_all()
        own.remove()


@pytest.fixture(scope="session")
def cloison(roots: Roots) -> Cloison:
    """``cloison("run", "--rm", "busybox", "true") -> CompletedProcess``; ``cloison.ok(…) -> str``."""
    return Cloison(roots)


@pytest.fixture(scope="session")
def busybox_image(cloison: Cloison, busybox_tar: bytes) -> str:
    """The image ``busybox:latest`` in the session's roots, made with ``cloison import``."""
    changes = ["--change", "ENV PATH=/bin", "--change", 'CMD ["sh"]']
    result = subprocess.run(
        cloison.argv("import", *changes, "-", "busybox"), input=busybox_tar, capture_output=True,
        env=cloison.roots.environ, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr.decode()
    return "busybox"


@pytest.fixture(autouse=True)
def leak_check(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test that used the session's roots, the kernel holds what it held before."""
    if "roots" not in request.fixturenames:
        yield
        return
    with no_leak(request.getfixturevalue("roots")):
        yield


@pytest.fixture
def door(busybox_tar: bytes) -> Iterator[Door]:
    """The OCI runtime's command with a bundle of busybox; nothing may be left of what a test makes with it."""
    own = Door()
    rootfs = own.bundle / "rootfs"
    rootfs.mkdir(parents=True)
    subprocess.run(["tar", "-x", "-C", rootfs], input=busybox_tar, check=True)
    try:
        yield own
    finally:
        own.remove()
        left = own.left(), own.groups()
        own.close()
    assert left == ([], [])
