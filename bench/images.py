"""Rows on images: one of real files, between a registry, archives and the engines of this machine, in turns.

The registry is Debian's docker-registry on loopback, its files in the page cache. Everybody begins without the image,
but for the row that pulls it again. What is removed, and what a row needs before it, is not timed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import measure
from image_sample import Sample
from measure import Once, command
from peers import PROJECT, Cloison, Docker, Peer, Podman, missing

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_PORT = 5055
_TAG = f"127.0.0.1:{_PORT}/bench:1"
_POLICY = ["skopeo", "--insecure-policy"]
_NAMES = ("cloison", "docker", "podman", "skopeo", "umoci")


def rows(directory: Path, engines: list[Peer], *, megabytes: int, runs: int) -> None:
    """Every row, for an image that has so many megabytes unpacked."""
    if lacking := missing("docker-registry", "skopeo"):
        print(f"- images: not measured ({', '.join(lacking)} not installed)")
        return
    sample = Sample(directory / "sample", plain_bytes=megabytes * 1_000_000)
    bench = _Bench(directory, engines, sample=sample, runs=runs)
    size = f"{sample.packed_bytes / 1e6:.0f} MB gzip, {len(sample.layers)} layers, {megabytes} MB unpacked"
    print(f"\n| image: {size}, {sample.files} files | {' | '.join(_NAMES)} | what bounds ours |")
    print(f"|---|{'---|' * (len(_NAMES) + 1)}")
    with registry(directory / "registry"):
        bench.skopeo("copy", sample_name(sample), f"docker://{_TAG}", dest=True)
        bench.pull()
        bench.unpack()
        bench.pull_again()
        bench.peak()
        bench.save()
        bench.load()
    bench.push()


def sample_name(sample: Sample) -> str:
    return f"oci:{sample.path}:bench"


@contextmanager
def registry(root: Path) -> Iterator[None]:
    """A registry of its own that answers; its files go with it."""
    root.mkdir()
    config = root / "config.yml"
    config.write_text(_CONFIG.format(root=root, port=_PORT))
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/v2/", timeout=1).close()
                break
            if time.monotonic() > deadline:
                raise RuntimeError("the registry does not answer")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        shutil.rmtree(root)


class _Bench:
    def __init__(self, directory: Path, engines: list[Peer], *, sample: Sample, runs: int) -> None:
        self._directory = directory
        self._engines = {engine.name: engine for engine in engines}
        self._sample = sample
        self._runs = runs
        self._scratch = directory / "scratch"
        self._environ = {**os.environ, "TMPDIR": str(directory)}  # skopeo's and podman's large files

    # -- rows

    def pull(self) -> None:
        contenders = {
            name: self._timed(engine, engine.words + ["pull", "-q", *_insecure(engine), _TAG], after=self._forget)
            for name, engine in self._engines.items()
        }
        target = f"oci:{self._scratch}:bench"
        copy = command(*_POLICY, "copy", "-q", "--src-tls-verify=false", f"docker://{_TAG}", target,
                       environ=self._environ)  # fmt: skip
        contenders["skopeo"] = self._emptied(copy)
        self._row("pull (skopeo: without unpacking)", contenders, "inflating, two hashes and the making of files")

    def unpack(self) -> None:
        contenders: dict[str, Once] = {}
        if "cloison" in self._engines:
            worker = [sys.executable, str(PROJECT / "bench" / "publish_worker.py"), str(self._sample.path)]
            contenders["cloison"] = self._emptied(command(*worker, str(self._scratch), environ=self._environ))
        if "podman" in self._engines:
            podman = self._engines["podman"]
            words = [*podman.words, "pull", "-q", sample_name(self._sample)]
            contenders["podman"] = self._timed(podman, words, after=self._forget_all)
        if not missing("umoci"):
            unpack = command("umoci", "unpack", "--image", f"{self._sample.path}:bench", str(self._scratch))
            contenders["umoci"] = self._emptied(unpack)
        self._row("unpack alone", contenders, "inflating, one hash and the making of files")

    def pull_again(self) -> None:
        engines = self._engines.values()
        for engine in engines:
            engine.call("pull", "-q", *_insecure(engine), _TAG)
        contenders = {engine.name: engine.once("pull", "-q", *_insecure(engine), _TAG) for engine in engines}
        samples = measure.take_turns(contenders, runs=max(15, self._runs), period_s=0.3)
        self._print(
            "pull again, unchanged (ms: median / 95 %)", samples, "Python's start, and imports", milliseconds=True
        )

    def peak(self) -> None:
        """Of one process: docker's daemon does its work elsewhere."""
        cells = []
        for name in ("cloison", "podman"):
            if engine := self._engines.get(name):
                self._forget(engine)
                peak = measure.peak_kib([*engine.words, "pull", "-q", *_insecure(engine), _TAG], engine.environ)
                cells.append((name, f"{peak / 1024:.0f} MiB"))
        self._write("peak memory of the pull", dict(cells), "four pieces on their way a layer")

    def save(self) -> None:
        out = self._directory / "saved.tar"
        contenders = {name: self._without(out, engine.once("save", "-o", str(out), _TAG))
                      for name, engine in self._engines.items()}  # fmt: skip
        copy = command(*_POLICY, "copy", "-q", sample_name(self._sample), f"oci-archive:{out}:bench",
                       environ=self._environ)  # fmt: skip
        contenders["skopeo"] = self._without(out, copy)
        self._row("save (docker, podman: plain layers; ours and skopeo's: as they came)", contenders, "copying")

    def load(self) -> None:
        for form, source in (("docker-archive, plain layers", "docker-archive"), ("OCI, gzip layers", "oci-archive")):
            path = self._directory / "load.tar"
            name = "bench:loaded" if source == "docker-archive" else "bench"
            self.skopeo("copy", sample_name(self._sample), f"{source}:{path}:{name}")
            able = {name: engine for name, engine in self._engines.items() if self._loads(engine, path)}
            contenders = {name: self._timed(engine, [*engine.words, "load", "-q", "-i", str(path)],
                                            after=self._forget_all) for name, engine in able.items()}  # fmt: skip
            self._row(f"load: {form}", contenders, "hashing and the making of files")
            path.unlink()

    def _loads(self, engine: Peer, path: Path) -> bool:
        try:
            engine.call("load", "-q", "-i", str(path))
        except RuntimeError:
            return False
        return True

    def push(self) -> None:
        """Into an empty registry each time."""
        contenders: dict[str, Once] = {}
        for name, engine in self._engines.items():
            contenders[name] = self._into_empty(engine.once("push", "-q", *_insecure(engine), _TAG))
        copy = command(*_POLICY, "copy", "-q", "--dest-tls-verify=false", sample_name(self._sample), f"docker://{_TAG}",
                       environ=self._environ)  # fmt: skip
        contenders["skopeo"] = self._into_empty(copy)
        with registry(self._directory / "registry"):
            self.skopeo("copy", sample_name(self._sample), f"docker://{_TAG}", dest=True)
            for engine in self._engines.values():
                engine.call("pull", "-q", *_insecure(engine), _TAG)
        self._row("push", contenders, "the registry's own hash, and its disk")

    # -- inside

    def skopeo(self, *words: str, dest: bool = False) -> None:
        flags = ["--dest-tls-verify=false"] if dest else []
        subprocess.run([*_POLICY, *words, "-q", *flags], check=True, env=self._environ)

    def _forget(self, engine: Peer) -> None:
        with suppress(RuntimeError):
            engine.call("rmi", "-f", _TAG)

    def _forget_all(self, engine: Peer) -> None:
        ids = engine.call("images", "-q").split()
        if ids:
            engine.call("rmi", "-f", *dict.fromkeys(ids))

    def _timed(self, engine: Peer, words: list[str], *, after: Callable[[Peer], None]) -> Once:
        run = command(*words, environ={**engine.environ, "TMPDIR": str(self._directory)})

        def once() -> float:
            after(engine)
            try:
                return run()
            finally:
                after(engine)

        return once

    def _emptied(self, run: Once) -> Once:
        def once() -> float:
            try:
                return run()
            finally:
                shutil.rmtree(self._scratch, ignore_errors=True)

        return once

    def _without(self, path: Path, run: Once) -> Once:
        def once() -> float:
            path.unlink(missing_ok=True)
            try:
                return run()
            finally:
                path.unlink(missing_ok=True)

        return once

    def _into_empty(self, run: Once) -> Once:
        def once() -> float:
            with registry(self._directory / "registry"):
                return run()

        return once

    def _row(self, title: str, contenders: dict[str, Once], bound: str) -> None:
        samples = measure.take_turns(contenders, runs=self._runs, period_s=0.3, warm_ups=0)
        self._print(f"{title} (s)", samples, bound)

    def _print(self, title: str, samples: list[measure.Sample], bound: str, *, milliseconds: bool = False) -> None:
        ours = next((sample.quantile(0.5) for sample in samples if sample.peer == "cloison"), 0.0)
        cells = {}
        for sample in samples:
            median = sample.quantile(0.5)
            text = f"{median * 1e3:.0f} / {sample.quantile(0.95) * 1e3:.0f}" if milliseconds else f"{median:.1f}"
            cells[sample.peer] = text + (f" ({median / ours:.2f}×)" if ours and sample.peer != "cloison" else "")
        self._write(title, cells, bound)

    def _write(self, title: str, cells: dict[str, str], bound: str) -> None:
        print(f"| {title} | {' | '.join(cells.get(name, '') for name in _NAMES)} | {bound} |", flush=True)


def _insecure(engine: Peer) -> list[str]:
    return ["--tls-verify=false"] if isinstance(engine, Podman) else []


def engines(directory: Path, start: Callable[..., list[Peer]], wanted: set[str], archive: Path) -> list[Peer]:
    """Ours, and those of docker and podman that are wanted and come up."""
    ours = Cloison()
    ours.start(directory, archive)
    found: list[Peer] = [ours]
    for peer, programs in ((Docker(), ("docker", "dockerd", "containerd")), (Podman(), ("podman", "runc"))):
        if not wanted or peer.name in wanted:
            found += start(peer, programs, directory=directory, archive=archive)
    return found
