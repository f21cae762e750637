"""An engine that records what the command line asks of it, and a session over a real socket pair.

The command line is tested against these for its words alone; what an engine does is tested with the real one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from cloison.__main__ import main
from cloison.errors import Conflict, NotFound
from cloison.model.container import ContainerRecord, ContainerSpec, ContainerState, ExecSpec, Stdio
from cloison.model.image import Image, ImageConfig, ImageListing
from cloison.model.reference import parse_reference

SECOND = 1_000_000_000
ID = "0123456789ab" + "c" * 52


def record_of(name: str = "web", *, id: str = ID, created_ns: int = SECOND, **fields: Any) -> ContainerRecord:
    """A container's record with everything that a test does not care about filled in."""
    spec = fields.pop("spec", ContainerSpec(image="debian:bookworm", name=name))
    values: dict[str, Any] = {
        "argv": ("sleep", "300"), "env": ("PATH=/bin",), "workdir": "/", "user": "", "stop_signal": "SIGTERM",
        "layers": (), "image_id": "sha256:" + "d" * 64,
    }  # fmt: skip
    return ContainerRecord(id=id, name=name, created_ns=created_ns, spec=spec, **{**values, **fields})


def image_of(reference: str = "debian:bookworm", *, letter: str = "d", **fields: Any) -> ImageListing:
    values: dict[str, Any] = {"config": ImageConfig(), "layers": (), "created": "2026-11-20T10:00:00Z"}
    image = Image(id="sha256:" + letter * 64, digest="sha256:" + "e" * 64, **{**values, **fields})
    return ImageListing(reference=reference, image=image)


class FakeSession:
    """The client's end of a seqpacket pair; ``far`` is the monitor's. Messages: ``o``, ``e``, ``x`` and their bytes."""

    def __init__(self, id: str = ID) -> None:
        self.id = id
        self.pid = os.getpid()
        self.near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sent: list[tuple[str, Any]] = []
        self.closed = False

    def fileno(self) -> int:
        return self.near.fileno()

    def receive(self, timeout_s: float | None = None) -> SimpleNamespace:
        packet = self.near.recv(1 << 17)
        kind, body = packet[:1], packet[1:]
        if kind in (b"o", b"e"):
            return SimpleNamespace(kind="output", stream=1 if kind == b"o" else 2, data=body, error=None, exit=None)
        if kind == b"x":
            return SimpleNamespace(kind="exited", error=None, exit=SimpleNamespace(exit_code=int(body)))
        return SimpleNamespace(kind="closed", error=None, exit=None)

    def attach(self, *, stdin: bool = False, stdout: bool = False, stderr: bool = False) -> None:
        self.sent.append(("attach", (stdin, stdout, stderr)))

    def send_input(self, data: bytes) -> None:
        self.sent.append(("input", data))
        self.near.send(b"I" + data)

    def end_input(self) -> None:
        self.sent.append(("end", None))

    def resize(self, *, rows: int, columns: int) -> None:
        self.sent.append(("resize", (rows, columns)))

    def detach(self) -> None:
        self.sent.append(("detach", None))

    def close(self) -> None:
        self.closed = True
        self.near.close()


class FakeContainers:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def _do(self, verb: str, *arguments: Any) -> None:
        self.engine.calls.append((verb, *arguments))
        error = self.engine.errors.get(verb)
        if error is not None:
            raise error

    def create(self, spec: ContainerSpec, *, progress: Any = None) -> ContainerRecord:
        self._do("create", spec)
        return record_of(spec=spec)

    def run(self, spec: ContainerSpec, *, stdio: Stdio, progress: Any = None) -> FakeSession:
        if self.engine.news and progress is not None:
            progress.message(self.engine.news)
        self._do("run", spec, stdio)
        return self.engine.session

    def start(self, name: str, *, stdio: Stdio) -> FakeSession:
        self._do("start", name, stdio)
        return self.engine.session

    def finish(self, session: FakeSession, *, reason: str = "") -> ContainerState:
        self._do("finish", session.id)
        return self.engine.state

    def find(self, name: str) -> ContainerRecord:
        for record in self.engine.records:
            if name == record.name or record.id.startswith(name):
                return record
        raise NotFound(f"No such container: {name}")

    def list(self, *, all: bool = False) -> list[ContainerRecord]:
        return [r for r in self.engine.records if all or r.state.status in ("running", "paused")]

    def attach(self, name: str) -> FakeSession:
        self._do("attach", name)
        return self.engine.session

    def exec(self, name: str, spec: ExecSpec, *, stdio: Stdio) -> FakeSession:
        self._do("exec", name, spec, stdio)
        return self.engine.session

    def finish_exec(self, session: FakeSession) -> int:
        return self.engine.state.exit_code

    def signal(self, name: str, number: int) -> None:
        self._do("signal", name, number)

    def stop(self, name: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        self.find(name)
        self._do("stop", name, timeout_s, signal)

    def kill(self, name: str, *, signal: str = "KILL") -> None:
        self._do("kill", name, signal)

    def restart(self, name: str, *, timeout_s: int | None = None) -> None:
        self._do("restart", name, timeout_s)

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        self.find(name)
        self._do("remove", name, force, volumes)

    def wait(self, name: str) -> int:
        return self.find(name).state.exit_code

    def rename(self, name: str, new: str) -> None:
        self._do("rename", name, new)

    def pause(self, name: str) -> None:
        self._do("pause", name)

    def unpause(self, name: str) -> None:
        raise Conflict(f"container {name} is not paused")

    def logs(self, name: str, **query: Any) -> Iterator[Any]:
        self._do("logs", name, query)
        return iter(self.engine.entries)

    def dry_run(self, spec: ContainerSpec) -> str:
        self._do("dry_run", spec)
        return "new-namespaces mnt pid\nmount proc proc /proc\nmount tmpfs tmpfs /dev\nexec sh\n"

    def reap(self, container_id: str) -> None:
        self._do("reap", container_id)


class FakeImages:
    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine

    def history(self, name: str) -> list[Any]:
        return []

    def places(self, image: Image) -> tuple[str, list[str]]:
        return "overlay", []

    def list(self) -> list[ImageListing]:
        return self.engine.listings

    def find(self, text: str, *, platform: str = "") -> Image:
        for listing in self.engine.listings:
            if text in (listing.reference, listing.image.id):
                return listing.image
        raise NotFound(f"No such image: {text}")

    def remove(self, names: Sequence[str], *, force: bool = False) -> list[str]:
        self.find(names[0])
        self.engine.calls.append(("rmi", tuple(names), force))
        return [f"Untagged: {name}" for name in names]

    def tag(self, source: str, target: str) -> None:
        self.engine.calls.append(("tag", source, target))

    def full_name(self, text: str) -> str:
        return parse_reference(text).canonical

    def pull(self, text: str, *, platform: str, progress: Any, **_options: Any) -> Image:
        self.engine.calls.append(("pull", text, platform))
        progress.message("pulling")
        return self.engine.listings[0].image

    def load(self, stream: BinaryIO, *, platform: str) -> list[str]:
        self.engine.calls.append(("load", stream.read()))
        return ["debian:bookworm", "sha256:" + "f" * 64]

    def import_rootfs(
        self, stream: BinaryIO, reference: str, *, changes: Sequence[str], message: str, platform: str
    ) -> Image:
        self.engine.calls.append(("import", stream.read(), reference, tuple(changes), message))
        return self.engine.listings[0].image

    def from_host(self, name: str, commands: Sequence[str]) -> Image:
        self.engine.calls.append(("from_host", name, tuple(commands)))
        return self.engine.listings[0].image


class FakeEngine:
    """``errors`` maps a verb to what it raises; ``calls`` is what was asked, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.errors: dict[str, BaseException] = {}
        self.records: list[ContainerRecord] = []
        self.listings: list[ImageListing] = []
        self.entries: list[Any] = []
        self.state = ContainerState(status="exited")
        self._session: FakeSession | None = None
        self.news = ""
        self.containers = FakeContainers(self)
        self.images = FakeImages(self)
        self.system = SimpleNamespace(
            version=lambda: {"Version": "9.8.7"},
            info=lambda: {"Containers": 3, "MemTotal": 1 << 30, "Names": ["a", "b"]},
        )

    @property
    def session(self) -> FakeSession:
        if self._session is None:
            self._session = FakeSession()
        return self._session

    def close(self) -> None:
        if self._session is not None:
            self._session.near.close()
            self._session.far.close()

    def asked(self, verb: str) -> tuple[Any, ...]:
        """The arguments of the one call of this kind."""
        found = [call[1:] for call in self.calls if call[0] == verb]
        assert len(found) == 1, f"{verb}: {self.calls}"
        return found[0]


class Line:
    """The command line on a fake engine: ``line("ps", "-a") -> status``; ``out`` and ``err`` are what it printed."""

    def __init__(self, engine: FakeEngine, capture: pytest.CaptureFixture[str]) -> None:
        self.engine = engine
        self.capture = capture
        self.out = self.err = ""

    def __call__(self, *words: str) -> int:
        status = main(words)
        self.out, self.err = self.capture.readouterr()
        return status

    def spec(self, *words: str) -> ContainerSpec:
        """What ``create WORDS`` asks the engine for."""
        self.engine.calls.clear()
        assert self("create", *words) == 0, self.err
        spec = self.engine.asked("create")[0]
        assert isinstance(spec, ContainerSpec)
        return spec


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Line]:
    """The command line on a fake engine; a test module imports this fixture by name."""
    engine = FakeEngine()
    monkeypatch.setattr("cloison.engine.engine.Engine", lambda _settings: engine)
    yield Line(engine, capfd)
    engine.close()


@pytest.fixture
def stdin(tmp_path: Path) -> Iterator[Path]:
    """Standard input is a file of ours: descriptor 0 of the test runner may be anything."""
    path = tmp_path / "stdin"
    path.write_text("input")
    saved, fd = os.dup(0), os.open(path, os.O_RDONLY)
    os.dup2(fd, 0)
    os.close(fd)
    yield path
    os.dup2(saved, 0)
    os.close(saved)
