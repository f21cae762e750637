"""The OCI runtime door under those who call one: dockerd, containerd and podman, each with roots of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import Engine, needs, running
from harness import SOURCE

pytestmark = pytest.mark.timeout(240)
LOOP = ("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Everything that the engines write, and the runtime as an executable without options."""
    path = Path(tempfile.mkdtemp(prefix="cloison-e", dir="/var/tmp"))
    path.chmod(0o711)
    lines = (
        f"#!{sys.executable} -IS", "import sys", f"sys.path.insert(0, {str(SOURCE)!r})",
        "from cloison.oci_runtime.main import main", "sys.exit(main())",
    )  # fmt: skip
    (path / "cloison-oci").write_text("\n".join(lines) + "\n")
    (path / "cloison-oci").chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def root_tar(home: Path, busybox_tar: bytes) -> Path:
    (home / "root.tar").write_bytes(busybox_tar)
    return home / "root.tar"


@pytest.fixture(scope="module")
def docker(home: Path, root_tar: Path) -> Iterator[Engine]:
    needs("dockerd", "docker", "script")
    run = Path(tempfile.mkdtemp(prefix="cloison-d", dir="/run"))
    engine = Engine("docker", "-H", f"unix://{run}/sock")
    argv = [
        "dockerd", "--data-root", str(home / "docker"), "--exec-root", str(run / "exec"), "--pidfile", str(run / "pid"),
        "-H", f"unix://{run}/sock", "--bridge", "none", "--iptables=false", "--ip6tables=false",
        "--storage-driver", "vfs",
        "--add-runtime", f"cloison={home}/cloison-oci", "--default-runtime", "cloison",
    ]  # fmt: skip
    for _ in running(argv, home / "docker.log", lambda: engine("version").returncode == 0):
        engine.ok("import", str(root_tar), "box")
        yield engine
        left = os.listdir(run / "exec" / "runtime-runc" / "moby")
    shutil.rmtree(run, ignore_errors=True)
    assert left == []


@pytest.fixture(scope="module")
def podman(home: Path, root_tar: Path) -> Iterator[Engine]:
    needs("podman", "conmon", "script")
    run = Path(tempfile.mkdtemp(prefix="cloison-p", dir="/run"))
    engine = Engine(
        "podman", "--root", str(home / "podman"), "--runroot", str(run), "--tmpdir", str(run / "tmp"),
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", str(home / "cloison-oci"),
    )  # fmt: skip
    engine.ok("import", str(root_tar), "box")
    yield engine
    engine("rm", "-af", "-t", "0")
    shutil.rmtree(run, ignore_errors=True)


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


RUN = ("run", "--rm", "--network", "none")


def test_output_and_exit_codes_are_the_commands(engine: Engine) -> None:
    assert engine.ok(*RUN, "box", "echo", "hi") == "hi"
    assert engine(*RUN, "box", "sh", "-c", "exit 42").returncode == 42


def test_a_missing_command_is_127_and_a_directory_126(engine: Engine) -> None:
    missing = engine(*RUN, "box", "nope")
    assert (missing.returncode, "executable file not found in $PATH" in missing.stderr) == (127, True)
    assert engine(*RUN, "box", "/etc").returncode == 126


def test_limits_and_walls_are_as_asked(engine: Engine) -> None:
    files = "memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us"
    if not os.path.isdir("/sys/fs/cgroup/memory"):
        files = "memory.max pids.max"
    limits = ("-m", "64m", "--pids-limit", "50", "--cpus", "0.5")
    shown = engine.ok(*RUN, *limits, "box", "sh", "-c", f"cd /sys/fs/cgroup; cat {files}").split()
    assert shown[:2] == ["67108864", "50"]
    walls = ("-u", "5:6", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
    status = engine.ok(
        *RUN, *walls, "box", "sh", "-c", "touch /x; id -u; grep -E 'CapBnd|NoNew|Seccomp:' /proc/self/status"
    )
    assert status.split() == ["5", "CapBnd:", "0" * 16, "NoNewPrivs:", "1", "Seccomp:", "2"]


def test_a_terminal_is_one(engine: Engine) -> None:
    shown = engine.in_terminal(*RUN, "-it", "box", "sh", "-c", "'tty; ls -l /dev/console; sleep 0.5'")
    assert "/dev/pts/0" in shown  # the wait is for podman, which attaches late, with every runtime
    assert "136," in shown


def test_a_container_lives_through_every_verb(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "lives", "--network", "none", "box", *LOOP)
    done = engine("exec", "lives", "sh", "-c", "echo in; exit 5")
    assert (done.returncode, done.stdout) == (5, "in\n")
    assert engine.ok(
        "exec", "-u", "7", "-e", "A=b", "-w", "/tmp", "lives", "sh", "-c", "id -u; echo $A; pwd"
    ).split() == ["7", "b", "/tmp"]
    assert "/dev/pts/0" in engine.in_terminal("exec", "-it", "lives", "tty")
    assert engine("exec", "lives", "nope").returncode in (126, 127)
    assert "trap" in engine.ok("top", "lives")
    engine.ok("pause", "lives")
    assert "paused" in engine.ok("inspect", "-f", "{{.State.Status}}", "lives")
    engine.ok("unpause", "lives")
    engine.ok("update", "-m", "100m", "--memory-swap", "200m", "lives")
    engine.ok("stop", "lives")
    assert engine.ok("inspect", "-f", "{{.State.ExitCode}}", "lives") == "9"
    engine.ok("start", "lives")
    engine.ok("kill", "lives")
    assert engine.ok("wait", "lives") == "137"
    engine.ok("rm", "lives")


def test_commands_that_end_at_once_are_not_lost(engine: Engine) -> None:
    engine.ok("run", "-d", "--name", "many", "--network", "none", "box", "sleep", "100")
    assert [engine("exec", "many", "sh", "-c", f"exit {code}").returncode for code in range(5)] == list(range(5))
    engine.ok("rm", "-f", "many")


def test_an_oom_kill_is_told(docker: Engine) -> None:
    assert (
        docker(
            "run", "--name", "oom", "-m", "20m", "--network", "none", "box", "sh", "-c", "x=a; while :; do x=$x$x; done"
        ).returncode
        == 137
    )
    assert docker.ok("inspect", "-f", "{{.State.OOMKilled}}", "oom") == "true"
    docker.ok("rm", "oom")


def test_a_pod_shares_its_namespaces(podman: Engine) -> None:
    podman.ok(
        "pod",
        "create",
        "--name",
        "pod",
        "--infra-image",
        "box",
        "--infra-command",
        "sleep 100",
        "--network",
        "none",
        "--share",
        "pid,uts",
    )
    podman.ok("run", "-d", "--pod", "pod", "box", "sleep", "200")
    shown = podman.ok("run", "--rm", "--pod", "pod", "box", "sh", "-c", "hostname; ps")
    assert shown.startswith("pod")
    assert "sleep 200" in shown
    podman.ok("pod", "rm", "-f", "-t", "0", "pod")


def test_an_image_is_built(podman: Engine, home: Path) -> None:
    (home / "context").mkdir()
    (home / "context" / "Dockerfile").write_text("FROM box\nRUN echo built > /made\n")
    podman.ok("build", "--isolation", "oci", "--network", "none", "-t", "made", str(home / "context"))
    assert podman.ok(*RUN, "made", "cat", "/made") == "built"


def test_buildah_runs_what_it_builds_with(podman: Engine, home: Path) -> None:
    needs("buildah")
    store = ["--root", str(home / "podman"), "--runroot", str(home / "buildah"), "--storage-driver", "vfs"]
    buildah = Engine("buildah", *store)
    made = buildah.ok("from", "--pull-never", "box")
    run = ("run", "--runtime", str(home / "cloison-oci"), "--isolation", "oci", made)
    try:
        assert buildah.ok(*run, "sh", "-c", "echo $$; readlink /proc/1/exe").split() == ["1", "/bin/busybox"]
        assert buildah(*run, "sh", "-c", "exit 9").returncode == 9
    finally:
        buildah.ok("rm", made)


def test_containerd_runs_execs_pauses_and_kills(home: Path, root_tar: Path) -> None:
    needs("containerd", "ctr")
    run = Path(tempfile.mkdtemp(prefix="cloison-c", dir="/run"))
    rootfs = home / "ctr-root"
    rootfs.mkdir()
    subprocess.run(["tar", "-C", str(rootfs), "-xf", str(root_tar)], check=True)
    (home / "containerd.toml").write_text(
        f'version = 2\nroot = "{home}/containerd"\nstate = "{run}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{run}/sock"\n'
    )
    ctr = Engine("ctr", "-a", f"{run}/sock")
    made = ("--runc-binary", f"{home}/cloison-oci", "--runc-root", f"{run}/oci", "--rootfs", str(rootfs))
    argv = ["containerd", "--config", str(home / "containerd.toml")]
    for _ in running(argv, home / "containerd.log", lambda: ctr("version").returncode == 0):
        assert ctr.ok("run", "--rm", *made, "one", "echo", "hi") == "hi"
        assert ctr("run", "--rm", *made, "one", "sh", "-c", "exit 42").returncode == 42
        assert "executable file not found" in ctr("run", "--rm", *made, "one", "nope").stderr
        ctr.ok("run", "-d", *made, "two", "sleep", "100")
        done = ctr("task", "exec", "--exec-id", "e", "two", "sh", "-c", "echo in; exit 5")
        assert (done.returncode, done.stdout) == (5, "in\n")
        ctr.ok("task", "pause", "two")
        assert "PAUSED" in ctr.ok("task", "ls")
        ctr.ok("task", "resume", "two")
        ctr.ok("task", "kill", "-s", "9", "two")
        deadline = time.monotonic() + 30
        while "STOPPED" not in ctr.ok("task", "ls"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        ctr("task", "rm", "two")
        ctr.ok("containers", "rm", "two")
        assert os.listdir(run / "oci" / "default") == []
    shutil.rmtree(run, ignore_errors=True)
