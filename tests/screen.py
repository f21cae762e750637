"""The command on a pseudo-terminal: what it shows, what is typed to it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time

from harness import Cloison


class Screen:
    """A ``cloison`` whose controlling terminal is ours; what it shows is collected."""

    def __init__(self, cloison: Cloison, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = os.openpty()
        self.resize(rows, columns)
        self.slave = os.dup(slave)
        # the terminal is opened by name after setsid, which makes it the controlling one
        wrapper = "import os, sys; os.setsid(); os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", wrapper, os.ttyname(slave), *cloison.argv(*words)], env=cloison.roots.environ,
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def see(self, text: str, *, timeout_s: float = 20) -> None:
        """Wait until the text appears in what came since the last one that was seen."""
        deadline = time.monotonic() + timeout_s
        while text.encode() not in self.shown:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} is not in {self.shown!r}"
            if select.select([self.master], [], [], left)[0]:
                self.shown += os.read(self.master, 65536)
        self.shown = self.shown.partition(text.encode())[2]

    def end(self, *, timeout_s: float = 20) -> int:
        """Wait for the client's end; its terminal must be as it was."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running, showing {self.shown!r}"
            if select.select([self.master], [], [], 0.05)[0]:
                self.shown += os.read(self.master, 65536)
        return self.process.returncode

    def is_cooked(self) -> bool:
        wanted = termios.ICANON | termios.ECHO | termios.ISIG
        return termios.tcgetattr(self.slave)[3] & wanted == wanted

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)
