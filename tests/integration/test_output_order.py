"""What a command writes first is neither lost nor told before the command is."""

from __future__ import annotations

import cloison
from cloison.model.container import ContainerSpec, Stdio
from harness import Roots

TERMINAL = Stdio(stdin="pty", stdout="pty", stderr="pty", rows=24, columns=80)


def test_a_terminals_first_output_comes_after_the_start_and_whole(roots: Roots, busybox_image: str) -> None:
    containers = cloison.Engine(roots.settings).containers
    spec = ContainerSpec(image=busybox_image, command=("echo", "first"), tty=True, network="none", auto_remove=True)
    for _ in range(20):
        with containers.run(spec, stdio=TERMINAL) as session:
            seen = b""
            while (message := session.receive(timeout_s=10)).kind == "output":
                seen += message.data
            assert message.kind == "exited"
            assert seen == b"first\r\n"
            containers.finish(session)
