"""Running commands of the host."""

from __future__ import annotations

import os

import pytest

from cloison.errors import Unavailable, Unsupported
from cloison.linux.command import run


def test_output_and_input_are_bytes() -> None:
    assert run(["cat"], input=b"\0\xff") == b"\0\xff"


def test_the_callers_environment_and_directory_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD_CANARY", "1")
    assert sorted(line.split(b"=")[0] for line in run(["env"]).splitlines()) == [b"LC_ALL", b"PATH"]
    assert run(["pwd", "-P"]) == b"/\n"


def test_no_descriptor_of_ours_is_handed_on() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(fd, True)
    try:
        assert str(fd).encode() not in run(["ls", "/proc/self/fd"]).split()
    finally:
        os.close(fd)


def test_a_failure_says_the_last_line_of_its_errors() -> None:
    with pytest.raises(Unavailable) as caught:
        run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 3"])
    assert str(caught.value) == "sh failed with exit status 3: the reason"


def test_a_silent_failure_says_so() -> None:
    with pytest.raises(Unavailable, match="did not say why"):
        run(["false"])


def test_a_death_by_signal_names_the_signal() -> None:
    with pytest.raises(Unavailable, match="signal 9"):
        run(["sh", "-c", "kill -9 $$"])


def test_a_command_that_does_not_end_is_killed() -> None:
    with pytest.raises(Unavailable, match=r"0\.2 s"):
        run(["sleep", "30"], timeout_s=0.2)


def test_a_missing_command_is_named() -> None:
    with pytest.raises(Unsupported, match="no-such-command") as caught:
        run(["no-such-command"])
    assert "install" in caught.value.hint


def test_a_shell_is_not_asked() -> None:
    assert run(["echo", "$HOME;", "*"]) == b"$HOME; *\n"
