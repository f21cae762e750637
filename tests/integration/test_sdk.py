"""The engine in process: `cloison.run` and `Engine`, as a program would use them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import cloison
from cloison.errors import CommandNotFound, CommandNotInvocable, InvalidArgument, NotFound
from cloison.model.container import MountRequest
from cloison.model.settings import Settings
from harness import Roots


@pytest.fixture
def settings(roots: Roots, busybox_image: str) -> Settings:
    return roots.settings


def test_output_and_exit_code_come_back(settings: Settings, busybox_image: str) -> None:
    result = cloison.run(busybox_image, ["sh", "-c", "echo out; echo err >&2; exit 3"], settings=settings)
    assert (result.exit_code, result.stdout, result.stderr, result.reason) == (3, b"out\n", b"err\n", "")


def test_input_reaches_the_command_and_ends(settings: Settings, busybox_image: str) -> None:
    data = os.urandom(3 << 20)
    result = cloison.run(busybox_image, ["cat"], input=data, settings=settings)
    assert result.stdout == data


def test_a_timeout_kills_everything_inside(settings: Settings, busybox_image: str) -> None:
    began = time.monotonic()
    result = cloison.run(busybox_image, ["sh", "-c", "sleep 1000 & sleep 1000"], timeout=0.5, settings=settings)
    assert (result.exit_code, result.reason) == (137, "timeout")
    assert time.monotonic() - began < 60  # of 1000


def test_a_timeout_counts_after_the_output_was_closed(settings: Settings, busybox_image: str) -> None:
    result = cloison.run(busybox_image, ["sh", "-c", "exec >&- 2>&-; sleep 1000"], timeout=0.5, settings=settings)
    assert result.reason == "timeout"


def test_memory_beyond_the_limit_is_an_oom(settings: Settings, busybox_image: str) -> None:
    hog = ["sh", "-c", "x=x; while :; do x=$x$x; done"]
    result = cloison.run(busybox_image, hog, memory="32m", timeout=60, settings=settings)
    assert (result.exit_code, result.reason) == (137, "oom")
    assert 16 << 20 <= result.memory_peak_bytes <= 33 << 20


def test_too_much_output_ends_the_command(settings: Settings, busybox_image: str) -> None:
    result = cloison.run(busybox_image, ["yes"], max_output=1 << 20, timeout=60, settings=settings)
    assert (len(result.stdout), result.reason) == (1 << 20, "output-limit")


def test_the_default_has_no_network(settings: Settings, busybox_image: str) -> None:
    result = cloison.run(busybox_image, ["ip", "-o", "link"], settings=settings)
    assert [line.split(b":")[1] for line in result.stdout.splitlines()] == [b" lo"]


def test_env_workdir_user_and_mounts_are_given(settings: Settings, busybox_image: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    tmp_path.chmod(0o755)
    result = cloison.run(
        busybox_image, ["sh", "-c", "echo $A; pwd; id -u; cat /m/file; echo x >/m/new"], env={"A": "b c"},
        workdir="/tmp", user="1000", settings=settings,
        mounts=[MountRequest(type="bind", source=str(tmp_path), target="/m", read_only=True)],
    )  # fmt: skip
    assert result.stdout == b"b c\n/tmp\n1000\nfrom the host"
    assert b"Read-only" in result.stderr


@pytest.mark.parametrize(
    ("command", "kind"),
    [(["nope"], CommandNotFound), (["/etc/passwd"], CommandNotInvocable), (["/"], CommandNotInvocable)],
)
def test_a_command_that_cannot_start_is_an_error_of_its_kind(
    settings: Settings, busybox_image: str, command: list[str], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        cloison.run(busybox_image, command, settings=settings)


def test_a_missing_image_and_a_string_as_command_are_told(settings: Settings, busybox_image: str) -> None:
    with pytest.raises(NotFound):
        cloison.Engine(settings).images.find("no/such")
    with pytest.raises(InvalidArgument, match="sequence"):
        cloison.run(busybox_image, "ls -l", settings=settings)


def test_many_threads_run_at_once_without_leak(settings: Settings, busybox_image: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    outputs: list[bytes] = []

    def work(number: int) -> None:
        for turn in range(5):
            outputs.append(cloison.run(busybox_image, ["echo", f"{number}.{turn}"], settings=settings).stdout)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == sorted(b"%d.%d\n" % (n, t) for n in range(8) for t in range(5))
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # the launcher's sealed copy stays


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys; old = set(sys.modules); import cloison; print(sorted(set(sys.modules) - old))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(eval(shown)) <= {"cloison", "__future__"}


def test_the_engine_tells_its_networks_and_system(settings: Settings) -> None:
    with cloison.Engine(settings).containers.run(
        cloison.ContainerSpec(image="busybox", command=("sleep", "60"), auto_remove=True),
        stdio=cloison.Stdio(detached=True),
    ) as session:
        engine = cloison.Engine(settings)
        bridge = engine.networks.find("bridge")
        address = engine.containers.find(session.id).attachment
        assert address is not None
        assert (session.id, address.address) in bridge.addresses
        assert engine.system.info()["ContainersRunning"] == 1
        engine.containers.remove(session.id, force=True)
    with pytest.raises(NotFound):
        engine.networks.find("no-such")
