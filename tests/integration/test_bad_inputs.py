"""What goes wrong says what, why and what to do, in one line, with the right exit code, and leaves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison, Result, Roots, no_leak


def assert_one_line(result: Result, *, code: int, says: str) -> None:
    """One line of error, perhaps a hint and docker's pointer to the help after it; never a traceback."""
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("hint: ", "See ", "Run "))]
    lines = [line for line in lines if not line.startswith("Unable to find image")]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("cloison: ")
    assert says.lower() in lines[0].lower()


def test_an_unknown_image_is_named(cloison: Cloison, busybox_image: str) -> None:
    result = cloison("run", "--rm", "--pull", "never", "no/such:image", "true")
    assert_one_line(result, code=125, says="no/such:image")


def test_an_unreachable_registry_is_named(cloison: Cloison, busybox_image: str) -> None:
    result = cloison("run", "--rm", "127.0.0.1:1/some/image", "true")
    assert "Unable to find image '127.0.0.1:1/some/image:latest' locally" in result.stderr
    assert_one_line(result, code=125, says="127.0.0.1:1")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["run", "--no-such-flag", "busybox"], 125, "unknown flag: --no-such-flag"),
        (["ps", "--no-such-flag"], 125, "unknown flag: --no-such-flag"),
        (["run", "-m", "lots", "busybox", "true"], 125, "lots"),
        (["run", "--rm", "Upper/Case", "true"], 125, "must be lowercase"),
        (["run", "-p", "99999:80", "busybox", "true"], 125, "99999"),
        (["run", "-v", "a:b:c:d", "busybox", "true"], 125, "a:b:c:d"),
        (["run", "--name", "no spaces", "--pull", "never", "busybox", "true"], 125, "no spaces"),
        (["run", "--cap-add", "FLYING", "busybox", "true"], 125, "FLYING"),
        (["run", "--network", "moon", "busybox", "true"], 125, "moon"),
        (["run", "--sysctl", "kernel.panic=1", "busybox", "true"], 125, "kernel.panic"),
        (["exec", "nobody-there", "true"], 1, "nobody-there"),
        (["stop", "nobody-there"], 1, "nobody-there"),
        (["rm", "nobody-there"], 1, "nobody-there"),
        (["logs", "nobody-there"], 1, "nobody-there"),
        (["no-such-verb"], 1, "no-such-verb"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_with_the_right_code(
    cloison: Cloison, busybox_image: str, words: list[str], code: int, says: str
) -> None:
    assert_one_line(cloison(*words), code=code, says=says)


def test_inspect_of_nothing_prints_an_empty_list(cloison: Cloison, busybox_image: str) -> None:
    result = cloison("inspect", "nobody-there")
    assert (result.returncode, result.stdout.strip()) == (1, "[]")


@pytest.fixture
def tiny_disk() -> Iterator[Cloison]:
    """An engine whose data root is a tmpfs of 1 MiB."""
    own = Roots()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", own.data_root], check=True)
    try:
        yield Cloison(own)
    finally:
        subprocess.run(["umount", own.data_root], check=True)
        own.remove()


def test_a_full_disk_is_said_and_leaves_no_half_image(tiny_disk: Cloison, busybox_tar: bytes, tmp_path: Path) -> None:
    archive = tmp_path / "rootfs.tar"
    archive.write_bytes(busybox_tar)
    with no_leak(tiny_disk.roots):
        result = tiny_disk("import", str(archive), "busybox")
        assert_one_line(result, code=1, says="no space left on device")
        assert tiny_disk.ok("images", "-q") == ""
    # and the space is free again
    used = shutil.disk_usage(tiny_disk.roots.data_root).used
    assert used < 300 << 10, f"{used} bytes still in use"


def test_an_ordinary_user_is_told_what_is_missing(cloison: Cloison, tmp_path: Path) -> None:
    """The right to read files is kept, so that it is cloison that answers and not the import system."""
    keep = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *keep]
    for words in (["run", "--rm", "busybox", "true"], ["ps"]):
        result = subprocess.run(
            [*as_nobody, *cloison.argv(*words)], capture_output=True, text=True, timeout=30,
            env={**cloison.roots.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert_one_line(result, code=125 if words[0] == "run" else 1, says="root")
        assert "hint: " in result.stderr


def test_a_world_that_closed_standard_streams_is_no_reason_to_crash(cloison: Cloison, busybox_image: str) -> None:
    script = f"cloison run --rm --network none {busybox_image} true <&- >&- 2>&-"
    assert cloison.shell(script).returncode == 0


def test_roots_are_private_to_their_owner(cloison: Cloison, busybox_image: str) -> None:
    for root in (cloison.roots.data_root, cloison.roots.run_root):
        assert os.stat(root).st_mode & 0o077 == 0
