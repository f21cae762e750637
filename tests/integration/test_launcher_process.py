"""The launcher's child: exit statuses, reasons why a command cannot start, what it inherits, init, joining."""

from __future__ import annotations

import os
import signal
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_plan import LAUNCHER, NAMESPACES, Operation, World, encode, launch, made_world

SIGKILL = signal.SIGKILL


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        yield world


def status_of(pid: int, key: str) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return line.split(":", 1)[1].strip()
    raise KeyError(key)


def gone(pid: int, timeout: float = 30) -> bool:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if status_of(pid, "State").startswith("Z"):
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("code", [0, 1, 7, 126, 127, 255])
def test_the_exit_code_arrives(world: World, code: int) -> None:
    exit, _ = world.run("sh", "-c", f"exit {code}")
    assert exit["status"] == code << 8
    assert 0 < exit["started_ns"] <= exit["finished_ns"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_killing_signal_arrives(world: World, number: int) -> None:
    # Not in a pid namespace: its process 1 ignores what it has no handler for (pid_namespaces(7))
    namespaces = tuple(word for word in NAMESPACES if word != "pid")
    plan = world.plan("sleep", "60", stdio=("null", "null", "null"), namespaces=namespaces, mounts=world.mounts()[:2])
    started = launch([*plan[:-4], *plan[-2:-1], ("exec", "/bin/busybox", "sleep", "60")])
    pid = started.pid()
    started.until("s")
    os.kill(pid, number)
    assert started.exit()["status"] & 0x7F == number
    assert started.close() == 0


ATTRIBUTES = """
grep -E '^(SigBlk|SigIgn|Groups|Uid|Gid|Cap...|NoNewPrivs|Seccomp):' /proc/self/status
echo umask=$(umask); echo nice=$(cut -d' ' -f19 /proc/self/stat); echo cwd=$(pwd)
echo slack=$(cat /proc/self/timerslack_ns)
echo fds=$(ls /proc/self/fd | tr '\\n' ' '); echo login=$(cat /proc/self/loginuid 2>/dev/null); env | sort
"""


def test_nothing_is_inherited_from_a_dirty_caller(world: World) -> None:
    os.symlink("busybox", os.path.join(world.root, "bin", "tr"))
    leaked = os.open("/etc/passwd", os.O_RDONLY)

    def dirty() -> None:
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGRTMIN + 3):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
        os.umask(0o077)
        os.nice(5)
        os.sched_setaffinity(0, {0})
        os.setgroups([4, 20, 27])
        os.environ["SECRET"] = "token"
        Path("/proc/self/timerslack_ns").write_text("123456")
        for fd in range(20, 40):
            os.dup2(leaked, fd, inheritable=True)

    filter_program = struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000)
    late: list[Operation] = [
        ("umask", "22"), ("bounding", "400"), ("user", 1000, 1001, 1001, 3000),
        ("capabilities", "400", "400", "0", "0"),
        ("no-new-privs",), ("cwd", "/bin"), ("await-start", "client"), ("seccomp", filter_program, 0),
    ]  # fmt: skip
    started = launch(world.plan("sh", "-c", ATTRIBUTES, late=late, env=["PATH=/bin"]), preexec=dirty)
    os.close(leaked)
    started.send("A", b"\6")
    started.send("S")
    started.exit()
    lines = dict(line.replace(":\t", "=").split("=", 1) for line in started.output().decode().splitlines())
    assert started.output(b"e") == b""
    started.close()
    zero = "0" * 16
    assert {key: lines[key].split() for key in ("Uid", "Gid", "Groups")} == {
        "Uid": ["1000"] * 4, "Gid": ["1001"] * 4, "Groups": ["1001", "3000"],
    }  # fmt: skip
    assert (lines["SigBlk"], lines["SigIgn"]) == (zero, zero)
    assert (lines["CapInh"], lines["CapAmb"]) == (zero, zero)
    # Executed by another user than root, a file without capabilities leaves none (capabilities(7)); the bound stays
    assert (lines["CapPrm"], lines["CapEff"], lines["CapBnd"]) == (zero, zero, "0" * 13 + "400")
    assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
    assert (lines["umask"], lines["nice"], lines["cwd"], lines["slack"]) == ("0022", "0", "/bin", "50000")
    assert lines["fds"].split() == ["0", "1", "2", "3"]  # 3 is ls's own
    assert lines["login"] in ("4294967295", "")
    assert {key for key in lines if key.isupper() and key.isalpha()} <= {"PATH", "PWD", "SHLVL", "OLDPWD"}


def test_affinity_and_scheduling_are_the_kernels_defaults(world: World) -> None:
    everything = os.sched_getaffinity(0)

    def dirty() -> None:
        os.sched_setaffinity(0, {min(everything)})
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))

    started = launch(world.plan("sleep", "60", stdio=("null", "null", "null")), preexec=dirty)
    pid = started.pid()
    started.until("s")
    assert os.sched_getaffinity(pid) == everything
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    os.kill(pid, SIGKILL)
    started.exit()
    started.close()


def test_a_waiting_container_holds_no_descriptor_of_its_caller_or_monitor(world: World, tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    ops = [("keep", "{0}"), ("log", str(tmp_path / "log"), 0, 0), *world.plan("true", late=[("await-start", "anyone")])]
    started = launch(ops, fds=[lock])
    pid = started.pid()
    started.until("w")
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert not [link for link in links if "lock" in link or "log" in link or "plan" in link]
    pipes = [link for link in links if link.startswith("pipe:")]
    assert len(pipes) == len(set(pipes)) == 3
    assert len([link for link in links if link.startswith("socket:")]) == 1  # the wire to the monitor
    started.send("S")
    started.exit()
    os.close(lock)
    started.close()


def test_a_working_directory_outside_the_root_is_refused(world: World, tmp_path: Path) -> None:
    outside = os.open("/etc", os.O_RDONLY)
    os.symlink("/proc/self/fd/3", os.path.join(world.root, "escape"))
    for number in (*range(3, 12), 100, 101, 102):
        plan = world.plan("pwd", late=[("cwd", f"/proc/self/fd/{number}")])
        started = launch([("keep", "{0}"), *plan], fds=[outside])
        data = started.until("fx")
        assert data[:1] == b"f", (number, data)
        started.close()
    assert world.fails("pwd", late=[("cwd", "/escape")]).verb == "cwd"
    os.close(outside)


def test_init_reaps_orphans_hands_signals_on_and_keeps_the_status(world: World) -> None:
    gone = r"while ps | grep -qE 'sleep 0.05$|\[sleep\]'; do sleep 0.02; done"
    code = f"for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.1; {gone}; ps; exit 9"
    exit, output = world.run("sh", "-c", code, late=[("init",)])
    assert exit["status"] == 9 << 8
    assert output.splitlines()[1].split() == ["1", "0", "init"]
    code = "trap 'exit 33' TERM; echo; while :; do sleep 0.02; done"
    started = launch(world.plan("sh", "-c", code, late=[("init",), ("await-start", "client")]))
    started.send("A", b"\6")
    started.send("S")
    started.until("o")
    os.kill(started.pid(), signal.SIGTERM)
    assert started.exit()["status"] == 33 << 8
    started.close()


def test_init_shows_the_commands_failure_and_its_killing_signal(world: World) -> None:
    assert world.fails("absent", late=[("init",)]).reason == "missing"
    exit, _ = world.run("sh", "-c", "kill -9 $$", late=[("init",)])
    assert exit["status"] == (128 + 9) << 8


def test_an_exec_joins_a_running_container(world: World) -> None:
    main = launch(world.plan("sleep", "60", late=[("hostname", "joined")]))
    pid = main.pid()
    main.until("s")
    pidfd, pid_namespace = os.pidfd_open(pid), os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY)
    ops: list[Operation] = [
        ("stdio", "pipe", "pipe", "pipe"), ("join-pid-namespace", "{1}"),
        ("join-namespaces", "{0}", "mnt", "net", "ipc", "uts"), ("user", 0, 0), ("cwd", "/"),
        ("parent-death-signal", 9), ("await-start", "client"), ("env", "PATH=/bin"),
        ("exec", "sh", "sh", "-c", "hostname; ps; ls /proc/self/fd; exit 5"),
    ]  # fmt: skip
    started = launch(ops, fds=[pidfd, pid_namespace])
    started.until("w")
    namespaces = [os.readlink(f"/proc/{p}/ns/pid_for_children") for p in (started.process.pid, "self")]
    assert namespaces[0] == namespaces[1]
    started.send("A", b"\6")
    started.send("S")
    assert started.exit()["status"] == 5 << 8
    output = started.output().decode()
    assert output.startswith("joined\n")
    assert "sleep 60" in output
    assert started.close() == 0
    os.kill(pid, SIGKILL)
    main.exit()
    main.close()
    os.close(pidfd)
    os.close(pid_namespace)


def test_the_monitors_death_is_the_containers(world: World) -> None:
    for waits in (False, True):
        started = launch(world.plan("sleep", "60", late=[("await-start", "anyone")] if waits else []))
        pid = started.pid()
        started.until("w" if waits else "s")
        started.process.kill()
        assert gone(pid)
        started.close()


def test_a_monitor_ignores_every_signal_but_kill(world: World) -> None:
    started = launch(world.plan("sh", "-c", "sleep 0.3; exit 4"))
    started.until("s")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGUSR1, signal.SIGALRM):
        started.process.send_signal(number)
    assert started.exit()["status"] == 4 << 8
    assert started.close() == 0


def open_to_all(path: Path) -> None:
    """Other uids have to get there; pytest closes its directories, the system's own are open."""
    for directory in (path, *path.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o755)


def test_a_user_namespace_maps_ids(world: World, tmp_path: Path) -> None:
    subprocess.run(["chown", "-hR", "200000:200000", world.root], check=True)
    open_to_all(tmp_path)
    before = [("await-parent",), ("become", 0, 0)]
    maps = [("uid-map", "0 200000 65536\n"), ("gid-map", "0 200000 65536\n")]
    code = "id -u; cat /proc/self/uid_map; test -c /dev/null && echo node; stat -c %u /bin/busybox"
    exit, output = world.run(
        "sh", "-c", code, namespaces=(*NAMESPACES, "user"), before=maps, mounts=[*before, *world.mounts()]
    )
    assert exit["status"] == 0, output
    assert [line.split() for line in output.splitlines()] == [["0"], ["0", "200000", "65536"], ["node"], ["0"]]


def test_an_ordinary_user_can_have_a_container(world: World, tmp_path: Path) -> None:
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("this machine allows no user namespaces (sysctl user.max_user_namespaces)")
    subprocess.run(["chown", "-hR", "1234:1234", str(tmp_path)], check=True)
    open_to_all(tmp_path)
    launcher = str(tmp_path / "launcher")
    subprocess.run(["install", "-m", "755", LAUNCHER, launcher], check=True)

    def drop() -> None:
        os.setgroups([])
        os.setresgid(1234, 1234, 1234)
        os.setresuid(1234, 1234, 1234)

    maps: list[Operation] = [("setgroups-deny",), ("uid-map", "0 1234 1\n"), ("gid-map", "0 1234 1\n")]
    mounts = [("await-parent",), ("become", 0, 0), ("loopback-up",), *world.mounts()]
    late: list[Operation] = [("user", 0, 0), ("await-start", "client")]
    code = "id -u; test -c /dev/null && echo node; echo x > /file; echo $$"
    plan = world.plan("sh", "-c", code, namespaces=(*NAMESPACES, "user", "time"), before=maps, mounts=mounts, late=late)
    started = launch(plan, preexec=drop, launcher=launcher)
    started.send("A", b"\6")
    started.send("S")
    assert started.exit()["status"] == 0
    assert started.output() == b"0\nnode\n1\n"
    assert started.output(b"e") == b""
    started.close()
    assert os.stat(os.path.join(world.root, "file")).st_uid == 1234


def test_a_time_namespace_has_its_offsets_and_the_monitor_none(world: World) -> None:
    exit, output = world.run("cat", "/proc/uptime", before=[("time-namespace", 0, 0, 100000, 0)])
    own = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(float(output.split()[0]) - own - 100000) < 60
    started = launch(world.plan("sleep", "60", before=[("time-namespace", 1, 0, 1, 0)]))
    pid = started.pid()
    started.until("s")
    monitor, ours = (os.readlink(f"/proc/{p}/ns/time_for_children") for p in (started.process.pid, "self"))
    assert monitor == ours != os.readlink(f"/proc/{pid}/ns/time")
    os.kill(pid, SIGKILL)
    started.exit()
    started.close()


def test_limits_and_sysctls_are_set(world: World) -> None:
    late: list[Operation] = [("rlimit", 7, 100, 200), ("rlimit", 4, 0, 0), ("oom-score-adj", 500)]
    extra: list[Operation] = [("sysctl", "net.ipv4.ip_forward", "1"), ("sysctl", "kernel.shm_rmid_forced", "1")]
    code = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj /proc/sys/net/ipv4/ip_forward"
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    _, output = world.run("sh", "-c", code, extra=extra, late=late)
    assert output.split() == ["100", "200", "0", "500", "1"]
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


@pytest.mark.parametrize("key", ["../../etc/x", "kernel.no_such_key", "", "self.oom_score_adj", "kernel...hostname"])
def test_a_sysctl_that_does_not_exist_is_refused(world: World, key: str) -> None:
    assert world.fails("true", extra=[("sysctl", key, "1")]).verb == "sysctl"


def test_the_session_keyring_is_a_new_one(world: World) -> None:
    keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    if not Path("/proc/keys").exists():
        pytest.skip("this kernel has no keyrings (CONFIG_KEYS)")
    assert keyctl
    _, output = world.run("cat", "/proc/keys", extra=[("keyring", "cloison-test-ring")])
    assert "cloison-test-ring" in output


def test_a_lost_child_is_reported(world: World) -> None:
    # the launcher waits in `await-client`, the child in `await-parent`
    started = launch([("await-client",), *world.plan("true", mounts=[("await-parent",)])])
    pid = started.pid()
    time.sleep(0.2)
    os.kill(pid, SIGKILL)
    started.send("G")
    fault = started.fault()
    assert (fault.verb, fault.call, fault.errno, fault.reason) == ("await-parent", "child", 0, "killed:9")
    assert started.close() == 1


def test_a_failure_beside_the_child_ends_it(world: World) -> None:
    plan = world.plan("true", before=[("uid-map", "0 0 1")], mounts=[("await-parent",)])
    started = launch(plan)
    fault = started.fault()
    assert (fault.verb, fault.call, fault.errno) == ("uid-map", "write", 1)
    assert gone(started.pid())
    assert started.close() == 1


def test_the_plan_may_be_long(world: World) -> None:
    many = [f"V{n}={'x' * 100}" for n in range(5000)]
    assert len(encode([("env", *many)])) > 500_000
    exit, output = world.run("sh", "-c", "env | wc -l", env=["PATH=/bin", *many])
    assert int(output) >= 5000


def test_detach_lets_the_caller_go_at_once(world: World, tmp_path: Path) -> None:
    done = tmp_path / "reaped"
    reap: Operation = ("reap", "/bin/busybox", "touch", str(done))
    started = launch([("detach",), reap, ("exit-file", str(tmp_path / "exit")), *world.plan("sh", "-c", "sleep 0.2")])
    assert started.process.wait(5) == 0
    started.until("s")
    started.close()
    deadline = time.monotonic() + 30
    while not done.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done.exists()
    assert (tmp_path / "exit").read_text().startswith("status 0\n")


def test_the_monitor_is_small(world: World) -> None:
    started = launch(world.plan("sleep", "60", late=[("await-start", "client")]))
    started.until("w")
    started.send("S")
    started.until("s")
    rollup = subprocess.run(["cat", f"/proc/{started.process.pid}/smaps_rollup"], capture_output=True, text=True).stdout
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    os.kill(started.pid(), SIGKILL)
    started.exit()
    started.close()
    assert 0 < pss < 300
