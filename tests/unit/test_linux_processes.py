"""What /proc says of a process, for people."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from cloison.errors import NotFound
from cloison.linux import processes


def test_a_process_is_described_with_the_words_it_was_started_with() -> None:
    script = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, "a b", ""], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()  # until then it may have no words yet
            info = processes.read_process(child.pid)
            assert (info.pid, info.parent, info.user_id) == (child.pid, os.getpid(), os.geteuid())
            assert info.command.startswith(f"{sys.executable} -c import time")
            started_s = processes.boot_time_s() + info.start_ticks / processes.TICKS_PER_S
            assert abs(time.time() - started_s) < 30
        finally:
            child.kill()
    with pytest.raises(NotFound):
        processes.read_process(child.pid)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, ""), (os.makedev(136, 3), "pts/3"), (os.makedev(137, 1), "pts/257"), (os.makedev(4, 1), "tty1"),
        (os.makedev(4, 65), "ttyS1"), (os.makedev(5, 1), ""),
    ],
)  # fmt: skip
def test_terminals_are_named_by_their_device_numbers(number: int, name: str) -> None:
    assert processes._terminal(number) == name


def test_what_is_gone_has_used_nothing() -> None:
    assert processes.disk_bytes(1 << 22) == processes.network_bytes(1 << 22) == (0, 0)
