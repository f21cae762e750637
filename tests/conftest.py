"""For every test: time limits and order. Unit tests come first, so that a typo is told before a container is run."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

BUSYBOX = Path("/bin/busybox")
ORDER = ("house", "unit", "contract", "integration", "conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        room = item.path.relative_to(tests).parts[0]
        return ORDER.index(room) if room in ORDER else len(ORDER)

    items.sort(key=rank)  # stable: files keep their order inside a room


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
