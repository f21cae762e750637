"""Looking at a container that runs: its processes, what it uses, where its ports are."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from harness import Cloison, until

BUSY = "dd if=/dev/zero of=/dev/shm/held bs=1M count=8 2>/dev/null; while :; do :; done"


@pytest.fixture(autouse=True)
def _nothing_stays(cloison: Cloison) -> Iterator[None]:
    yield
    cloison.remove_all()


@pytest.fixture
def target(cloison: Cloison, busybox_image: str) -> str:
    cloison.ok("run", "-d", "--name", "seen", "-m", "64m", "-p", "127.0.0.1:0:80", "-p", "127.0.0.1:0:53/udp",
               busybox_image, "sh", "-c", f"sleep 1000 & {BUSY}")  # fmt: skip
    return "seen"


def rows(text: str) -> list[list[str]]:
    return [re.split(r" {3,}", line.rstrip()) for line in text.splitlines()]


def test_top_shows_the_containers_processes_as_the_host_sees_them(cloison: Cloison, target: str) -> None:
    pid = str(cloison.inspect(target)["State"]["Pid"])
    until(lambda: len(rows(cloison.ok("top", target))) == 3, what="sleep and the loop")
    titles, *shown = rows(cloison.ok("top", target))
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    first, second = sorted(shown, key=lambda row: row[1] != pid)
    assert (first[0], first[1], first[5]) == ("root", pid, "?")
    assert first[7].startswith("sh -c sleep 1000")
    assert (second[2], second[7]) == (pid, "sleep 1000")


def test_top_takes_options_of_ps(cloison: Cloison, target: str) -> None:
    pid = str(cloison.inspect(target)["State"]["Pid"])
    until(lambda: "sleep" in cloison.ok("top", target), what="sleep")
    titles, *shown = rows(cloison.ok("top", target, "-o", "pid,comm"))
    assert titles == ["PID", "COMMAND"]
    assert sorted(shown, key=lambda row: row[0] != pid) == [[pid, "sh"], [shown[-1][0], "sleep"]]
    assert "Couldn't find PID field" in cloison("top", target, "-o", "comm").stderr
    assert "invalid ps options" in cloison("top", target, "--no-such-option").stderr


def test_stats_are_the_kernels_counters(cloison: Cloison, target: str) -> None:
    until(lambda: "sleep" in cloison.ok("top", target), what="sleep")
    shown = json.loads(cloison.ok("stats", "--no-stream", "--format", "json", target))
    assert (shown["Container"], shown["Name"], shown["PIDs"]) == ("seen", "seen", "2")
    assert 5 < float(shown["CPUPerc"].removesuffix("%")) < 150  # a loop, on a machine that does other things
    used, limit = shown["MemUsage"].split(" / ")
    assert (used[-3:], limit) == ("MiB", "64MiB")
    assert 8 <= float(used[:-3]) < 16
    assert abs(float(shown["MemPerc"].removesuffix("%")) - float(used[:-3]) / 64 * 100) < 1


def test_stats_count_what_comes_over_the_network(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "-d", "--name", "taker", "-p", "127.0.0.1:0:80/udp", busybox_image, "sleep", "1000")
    before = cloison.ok("stats", "--no-stream", "--format", "{{.NetIO}}", "taker")
    assert before.split(" / ")[0].endswith("B")
    host, _, port = cloison.ok("port", "taker", "80/udp").strip().rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(100):
            sender.sendto(b"x" * 1000, (host, int(port)))
    received = cloison.ok("stats", "--no-stream", "--format", "{{.NetIO}}", "taker").split(" / ")[0]
    assert received.endswith("kB") and 100 < float(received[:-2]) < 120


def test_stats_of_all_that_run_and_of_all_there_are(cloison: Cloison, target: str, busybox_image: str) -> None:
    cloison.ok("create", "--name", "still", busybox_image, "true")
    table = cloison.ok("stats", "--no-stream").splitlines()
    assert re.split(r" {3,}", table[0]) == [
        "CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS",
    ]  # fmt: skip
    assert [line.split()[1] for line in table[1:]] == ["seen"]
    everything = cloison.ok("stats", "-a", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}}")
    assert "still -- -- / --" in everything.splitlines()
    missing = cloison("stats", "--no-stream", "nobody")
    assert (missing.returncode, "No such container: nobody" in missing.stderr) == (1, True)


def test_port_lists_and_finds(cloison: Cloison, target: str) -> None:
    listed = dict(line.split(" -> ") for line in cloison.ok("port", target).splitlines())
    assert sorted(listed) == ["53/udp", "80/tcp"]
    assert cloison.ok("port", target, "80").strip() == listed["80/tcp"]
    assert cloison.ok("container", "port", target, "53/udp").strip() == listed["53/udp"]
    missing = cloison("port", target, "81")
    assert (missing.returncode, "no public port '81/tcp' published for seen" in missing.stderr) == (1, True)
    assert "invalid port" in cloison("port", target, "http").stderr


def test_a_container_that_does_not_run_has_no_processes(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("create", "--name", "still", busybox_image, "true")
    refused = cloison("top", "still")
    assert (refused.returncode, "container still is not running" in refused.stderr) == (1, True)
    assert cloison.ok("port", "still") == ""
