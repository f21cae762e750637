"""What a command writes first is neither lost nor told before the command is."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

import cloison
from cloison.model.container import ContainerSpec, ExecSpec, Stdio
from cloison.runtime import launch
from cloison.runtime.session import Session
from harness import Roots

TERMINAL = Stdio(stdin="pty", stdout="pty", stderr="pty", rows=24, columns=80)


def output(session: Session) -> bytes:
    """All of it."""
    seen = b""
    while (message := session.receive(timeout_s=30)).kind == "output":
        seen += message.data
    assert message.kind == "exited"
    return seen


def test_a_terminals_first_output_comes_after_the_start_and_whole(roots: Roots, busybox_image: str) -> None:
    containers = cloison.Engine(roots.settings).containers
    spec = ContainerSpec(image=busybox_image, command=("echo", "first"), tty=True, network="none", auto_remove=True)
    for _ in range(20):
        with containers.run(spec, stdio=TERMINAL) as session:
            assert output(session) == b"first\r\n"
            containers.finish(session)


def then_rest(call: Callable[..., object]) -> Callable[..., object]:
    def rested(*words: object, **named: object) -> object:
        given = call(*words, **named)
        time.sleep(0.3)
        return given

    return rested


def test_it_is_whole_when_the_caller_is_slower_than_the_command(
    roots: Roots, busybox_image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a busy machine: the command has ended before the caller goes on."""
    containers = cloison.Engine(roots.settings).containers
    monkeypatch.setattr(Session, "proceed", then_rest(Session.proceed))
    monkeypatch.setattr(launch, "_posix_spawn", then_rest(launch._posix_spawn))
    spec = ContainerSpec(image=busybox_image, command=("echo", "first"), tty=True, network="none", auto_remove=True)
    with containers.run(spec, stdio=TERMINAL) as session:
        assert output(session) == b"first\r\n"
        containers.finish(session)
    stays = ContainerSpec(image=busybox_image, command=("sleep", "60"), name="stays", network="none")
    containers.run(stays, stdio=Stdio(detached=True)).close()
    with containers.exec("stays", ExecSpec(command=("echo", "joined"), tty=True), stdio=TERMINAL) as session:
        assert output(session) == b"joined\r\n"
    containers.remove("stays", force=True)
