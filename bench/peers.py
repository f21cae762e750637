"""The engines we compare with, each on roots of its own; what is not installed is said, what was started is stopped.

All of this runs in a network namespace and a mount namespace of the benchmark's own, with a /run of its own (see
``compare.py``): Docker may set up its bridge and its iptables rules as always, and nothing of it stays on the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from measure import Once, command, sequence

PROJECT = Path(__file__).resolve().parents[1]
BUSYBOX = "/bin/busybox"
OUR_RUN_ROOT = "/run/cloison-bench"  # a /run of the benchmark's own
TRUE = ("/bin/busybox", "true")


def rootfs_tar(directory: Path) -> Path:
    """A root file system of one static program, as directory ``rootfs`` and as ``rootfs.tar``."""
    root = directory / "rootfs"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for applet in ("sh", "true", "sleep"):
        (root / "bin" / applet).symlink_to("busybox")
    archive = directory / "rootfs.tar"
    subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
    return archive


class Peer:
    """An engine with Docker's verbs. ``words`` start each of its commands."""

    def __init__(self, name: str, words: list[str], *, run_flags: tuple[str, ...] = ()) -> None:
        self.name, self.words, self.run_flags = name, words, run_flags
        self.environ = dict(os.environ)

    def call(self, *argv: str) -> str:
        done = subprocess.run([*self.words, *argv], capture_output=True, text=True, env=self.environ, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{self.name} {' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def once(self, *argv: str) -> Once:
        return command(*self.words, *argv, environ=self.environ)

    def run(self, *flags: str) -> Once:
        return self.once("run", "--rm", *self.run_flags, *flags, "bench", *TRUE)

    def start(self, directory: Path, archive: Path) -> None:
        self.call("import", str(archive), "bench")

    def stop(self) -> None:
        names = self.call("ps", "-aq").split()
        if names:
            self.call("rm", "-f", *names)


class Cloison(Peer):
    """Ours, as installed: the console command beside this interpreter."""

    def __init__(self) -> None:
        super().__init__("cloison", [str(Path(sys.executable).parent / "cloison")])

    def start(self, directory: Path, archive: Path) -> None:
        self.environ |= {"CLOISON_DATA_ROOT": str(directory / "cloison"), "CLOISON_RUN_ROOT": OUR_RUN_ROOT}
        super().start(directory, archive)


class Sdk:
    """Ours, in process: one living Python that runs on demand and says how long it took (`measure.TimesItself`)."""

    def __init__(self, engine: Cloison) -> None:
        worker = str(PROJECT / "bench" / "sdk_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, worker], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=engine.environ
        )

    def __call__(self) -> float:
        return self.burst(runs=1, settle_s=0.0)[0]

    def burst(self, *, runs: int, settle_s: float) -> list[float]:
        assert self.process.stdin and self.process.stdout
        print(runs, settle_s, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the SDK worker ended")
        return [float(word) for word in answer.split()]

    def stop(self) -> None:
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait(timeout=30)


class Docker(Peer):
    def __init__(self) -> None:
        super().__init__("docker", ["docker"])
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self, directory: Path, archive: Path) -> None:
        home, socket = directory / "docker", "unix:///run/docker.sock"
        self.environ["DOCKER_HOST"] = socket
        log = open(directory / "dockerd.log", "wb")  # the daemon's, for its whole life
        self.daemon = subprocess.Popen(
            ["dockerd", "--data-root", str(home), "--pidfile", str(directory / "pid"),
             "--host", socket, "--exec-opt", "native.cgroupdriver=cgroupfs"],
            stdout=log, stderr=log,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while subprocess.run([*self.words, "version"], capture_output=True, env=self.environ).returncode:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("dockerd does not come up: " + (directory / "dockerd.log").read_text()[-500:])
            time.sleep(0.1)
        super().start(directory, archive)

    def stop(self) -> None:
        if self.daemon is None:
            return
        try:
            super().stop()
        finally:
            self.daemon.terminate()  # containerd is its child and goes with it
            self.daemon.wait(timeout=60)


class Podman(Peer):
    def __init__(self) -> None:
        # limits that a machine without CAP_SYS_RESOURCE can grant
        limits = ("--ulimit", "nofile=1024:20000", "--ulimit", "nproc=4096:4096", "--log-driver", "k8s-file")
        super().__init__("podman", [], run_flags=limits)

    def start(self, directory: Path, archive: Path) -> None:
        self.words = [
            "podman", "--root", str(directory / "podman"), "--runroot", "/run/podman", "--runtime", "runc",
            "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--tmpdir", "/run/podman/tmp",
            "--network-config-dir", str(directory / "podman-networks"),
        ]  # fmt: skip
        super().start(directory, archive)

    def stop(self) -> None:
        if self.words:
            super().stop()


def bundle(directory: Path, *args: str, root: str = "rootfs", memory_kib: int = 0) -> Path:
    """An OCI bundle of the same root file system: what a bare runtime gets. No network, every other namespace."""
    (directory / "config.json").unlink(missing_ok=True)
    subprocess.run(["runc", "spec", "--bundle", str(directory)], check=True)
    config = json.loads((directory / "config.json").read_text())
    config["process"] |= {"args": list(args or TRUE), "terminal": False}
    config["root"] = {"path": root, "readonly": False}
    config["linux"]["resources"] = {"pids": {"limit": 4096}, "devices": [{"allow": False, "access": "rwm"}]}
    if memory_kib:
        config["linux"]["resources"]["memory"] = {"limit": memory_kib << 10}
    # a machine without CAP_SYS_RESOURCE cannot raise limits
    config["process"].pop("rlimits", None)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


class Runtime:
    """An OCI runtime, called as an engine calls it; crun needs a view without a hybrid machine's empty v2 tree."""

    def __init__(self, name: str, words: list[str]) -> None:
        self.name, self.words = name, [*words, "--root", f"/run/bare-{name}"]

    def once(self, *calls: tuple[str, ...]) -> Once:
        argvs = [[*self.words, *call] for call in calls]
        return InPrivateView(argvs).once if self.name == "crun" else sequence(*argvs)


def our_runtime(directory: Path) -> Runtime:
    """Ours by the script that ``cloison-oci script`` writes: how an engine is told to call it."""
    script = directory / "cloison-oci"
    script.write_text(subprocess.run([Path(sys.executable).parent / "cloison-oci", "script"], capture_output=True,
                                     text=True, check=True).stdout)  # fmt: skip
    script.chmod(0o755)
    return Runtime("cloison", [str(script)])


class InPrivateView:
    """Runs commands over and over in a mount namespace from which the cgroup v2 tree was taken away."""

    LOOP = (
        "import json, os, sys\nsys.path.insert(0, sys.argv[1])\nfrom measure import sequence\n"
        "once = sequence(*json.loads(sys.argv[2]))\nfor _ in sys.stdin: print(once(), flush=True)\n"
    )

    def __init__(self, argvs: list[list[str]]) -> None:
        script = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh",
             sys.executable, "-c", self.LOOP, str(PROJECT / "bench"), json.dumps(argvs)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def once(self) -> float:
        assert self.process.stdin and self.process.stdout
        print("run", file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def missing(*programs: str) -> list[str]:
    return [program for program in programs if not shutil.which(program)]
