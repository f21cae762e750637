"""For every test: its surroundings and the order. Unit tests come first: a typo is told before a container is run."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from jail import Jail
from seclusion import seclude

try:
    import hypothesis
except ImportError:  # the guest machine does without
    pass
else:
    # The same examples each time, however slow the machine is: who changes something is not refused for something else.
    # To look for new ones: pytest --hypothesis-profile=default
    hypothesis.settings.load_profile("ci")

needs = ""  # why tests of the kernel cannot be run here
BUSYBOX = Path("/bin/busybox")
ORDER = ("house", "unit", "contract", "integration", "conformance")


KERNEL_ROOMS = ("contract", "integration")


def pytest_configure(config: pytest.Config) -> None:
    """Whoever starts them, tests find the same: each process has a network of its own; the guest machine is one."""
    global needs
    if getattr(config.option, "numprocesses", None):
        return  # the processes that it starts run the tests
    os.umask(0o022)
    os.environ.setdefault("HOME", "/")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of what a script starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("CLOISON_GUEST"):
        return
    try:
        seclude()
    except PermissionError as err:
        needs = f"needs root: namespaces, mounts and cgroups of the real kernel (run: sudo make test): {err}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def room(item: pytest.Item) -> str:
        return item.path.relative_to(tests).parts[0]

    items.sort(key=lambda item: ORDER.index(room(item)))  # stable: files keep their order inside a room
    for item in items:
        if needs and room(item) in KERNEL_ROOMS:
            item.add_marker(pytest.mark.skip(reason=needs))


_jail = pytest.StashKey[Jail]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Tests marked ``jailed`` run in a child that cannot reach this machine."""
    if item.get_closest_marker("jailed") is None or needs:
        return None
    stash = item.session.stash
    if _jail not in stash:
        stash[_jail] = Jail(item.session)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in stash[_jail].run(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _jail in session.stash:
        session.stash[_jail].close()


@pytest.fixture(scope="session")
def busybox_tar() -> bytes:
    """A root file system of one static program and its applets."""
    if not BUSYBOX.exists():
        pytest.skip("needs Debian's package busybox-static")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("var", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        tar.add(BUSYBOX, "bin/busybox", recursive=False)
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
        passwd = (
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nweb:x:1000:1000::/tmp:/bin/sh\n"
        )
        group = b"root:x:0:\nnogroup:x:65534:\nweb:x:1000:\nextra:x:2000:web\n"
        for name, text in (("etc/passwd", passwd), ("etc/group", group)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()
