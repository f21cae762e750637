"""What the runtime's integration tests share: a root with busybox, containers started straight by plans."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.linux import cgroups
from cloison.linux.capabilities import mask_of
from cloison.model.container import Stdio
from cloison.model.mount import Mount
from cloison.oci.runtime import Linux, Process, Root, Spec
from cloison.runtime import defaults, launcher, seccomp_cache, sysctls
from cloison.runtime.compile import Surroundings, plan_launch
from cloison.runtime.exits import Exit
from cloison.runtime.facts import HostFacts, read_facts
from cloison.runtime.launch import launch
from cloison.runtime.process import Filter
from cloison.runtime.session import Message, Session, reap_children

BUSYBOX = "/bin/busybox"
PIPES = Stdio()

MARKS = [
    pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="needs Debian's package busybox-static"),
    pytest.mark.skipif(
        not os.path.exists(launcher.default_path()), reason="the launcher is not built: make -C launcher"
    ),
    pytest.mark.usefixtures("nothing_left"),
]


def mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text().splitlines()


@pytest.fixture(scope="session")
def busybox_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root file system with one program under many names."""
    directory = tmp_path_factory.mktemp("root")
    directory.chmod(0o755)
    for name in ("bin", "etc", "tmp", "srv"):
        directory.joinpath(name).mkdir()
    shutil.copy(BUSYBOX, directory / "bin" / "busybox")
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            directory.joinpath("bin", applet).symlink_to("busybox")
    scripts = {"bad-interpreter": "#!/bin/nope\n", "windows": "#!/bin/sh\r\n", "no-format": "hello\n"}
    for name, text in scripts.items():
        directory.joinpath("srv", name).write_text(text)
        directory.joinpath("srv", name).chmod(0o755)
    directory.joinpath("srv", "not-executable").write_text("#!/bin/sh\n")
    foreign = bytearray(Path(BUSYBOX).read_bytes()[:4096])
    foreign[18:20] = struct.pack("<H", 0xF3 if os.uname().machine != "riscv64" else 0x3E)
    directory.joinpath("srv", "foreign").write_bytes(foreign)
    directory.joinpath("srv", "foreign").chmod(0o755)
    return str(directory)


@pytest.fixture(scope="session")
def staging(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("staging"))


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No mount, no descriptor, no child remains of any test here."""
    launcher.DEFAULT.descriptor()
    mounts, fds = mountinfo(), set(os.listdir("/proc/self/fd"))
    yield
    deadline = time.monotonic() + 30
    while children() and time.monotonic() < deadline:
        reap_children()
        time.sleep(0.01)
    assert children() == []
    assert set(os.listdir("/proc/self/fd")) == fds
    assert mountinfo() == mounts


def children() -> list[int]:
    """Launchers and what they started; the test runner's own children have other names."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in listed if "cloison" in Path(f"/proc/{pid}/cmdline").read_text()]


def default_filter(staging: str, facts: HostFacts) -> Filter:
    """The filter of a container with default capabilities, compiled once for all tests."""
    mask = mask_of(defaults.capabilities(facts=facts).bounding)
    cache = os.path.join(os.path.dirname(staging), "seccomp")
    return Filter(program=Path(seccomp_cache.default_filter(cache, capabilities_mask=mask)).read_bytes())


class World:
    """How one container is started in these tests; fields are changed by the tests that care."""

    def __init__(self, root: str, staging: str) -> None:
        self.facts = read_facts()
        self.root = Root(mount=Mount(type="bind", source=root, target="/"))
        self.around = Surroundings(
            placement=cgroups.Placement(), staging=staging, layout=cgroups.read_layout(), facts=self.facts,
            seccomp=default_filter(staging, self.facts), keyring="cloison-test",
        )  # fmt: skip
        self.mounts = defaults.mounts()
        self.namespaces = defaults.namespaces(facts=self.facts)

    def process(self, *args: str, **changes: object) -> Process:
        plain = Process(
            args=args, env=("PATH=/bin", "HOME=/"), capabilities=defaults.capabilities(facts=self.facts),
            rlimits=defaults.rlimits(), oom_score_adj=0,
        )  # fmt: skip
        return plain.replace(**changes)

    def spec(self, *args: str, **changes: object) -> Spec:
        linux = Linux(
            namespaces=self.namespaces,
            devices=defaults.devices(),
            sysctl=sysctls.plan_sysctls({}, own_network=True, own_ipc=True),
            masked_paths=defaults.masked_paths(facts=self.facts),
            readonly_paths=defaults.readonly_paths(),
        )
        process = self.process(*args, **changes)
        return Spec(process=process, root=self.root, hostname="wall", mounts=self.mounts, linux=linux)

    def start(self, *args: str, stdio: Stdio = PIPES, around: Surroundings | None = None, **changes: object) -> Session:
        return launch(plan_launch(self.spec(*args, **changes), around=around or self.around, stdio=stdio), id="test")

    def output(self, *args: str, **changes: object) -> str:
        """What a command writes on both streams; it must end well."""
        waiting = self.around.replace(monitor=self.around.monitor.replace(await_start="client"))
        with self.start(*args, around=waiting, **changes) as session:
            session.attach(stdout=True, stderr=True)
            session.start()
            text, ended = read_to_end(session)
        assert ended.exit_code == 0, text
        return text.decode()


@pytest.fixture
def world(busybox_root: str, staging: str) -> World:
    return World(busybox_root, staging)


def read_to_end(session: Session) -> tuple[bytes, Exit]:
    output = b""
    while True:
        message = session.receive(30)
        if message.error:
            raise message.error
        assert message.kind != "closed", output
        output += message.data
        if message.exit:
            return output, message.exit


def expect(session: Session, kind: str) -> Message:
    while True:
        message = session.receive(30)
        if message.error and kind != "failed":
            raise message.error
        if message.kind == kind:
            return message
        assert message.kind in ("created", "waiting", "started", "output"), message


def drain(fd: int) -> int:
    total = 0
    while piece := os.read(fd, 1 << 16):
        total += len(piece)
    os.close(fd)
    return total
