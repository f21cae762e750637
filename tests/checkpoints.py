"""A container to be checkpointed: it counts, so that everybody sees whether it went on or began again."""

from __future__ import annotations

import os
import shutil
import subprocess

from harness import until
from oci_bundle import Door

CRIU = shutil.which("criu", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
CAN = CRIU is not None and subprocess.run([CRIU, "check"], capture_output=True).returncode == 0
NEEDS = "needs criu, and a kernel that it can work with: make test-guest"

COUNT = "i=0; while :; do i=$((i+1)); echo $i >>/data/count; sleep 0.1; done"


class Counter:
    """A container that counts in its memory, and writes each number into a file of the host."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self.data = door.home / "data"
        self.data.mkdir()
        bind = {"destination": "/data", "type": "bind", "source": str(self.data), "options": ["rbind", "rw"]}
        door.config["mounts"].append(bind)

    def start(self) -> int:
        pid = self.door.start("t-count", "sh", "-c", COUNT)
        self.go_on()
        return pid

    def numbers(self) -> list[int]:
        file = self.data / "count"
        return [int(line) for line in file.read_text().splitlines()] if file.exists() else []

    def go_on(self) -> None:
        before = len(self.numbers())
        until(lambda: len(self.numbers()) > before + 2, timeout_s=30, what="three more numbers")

    def has_not_begun_again(self) -> bool:
        numbers = self.numbers()
        return numbers == list(range(1, len(numbers) + 1))


def restore(door: Door, name: str, *words: str) -> int:
    """Its pid; it is a child of ours from then on."""
    door.ok("restore", "--detach", "--pid-file", str(door.bundle / "pid"), *words, name)
    return int((door.bundle / "pid").read_text())
