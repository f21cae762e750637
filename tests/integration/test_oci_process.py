"""The OCI runtime door: exec, terminals, limits, and what is left of a create that fails."""

from __future__ import annotations

import array
import json
import os
import pty
import socket
import subprocess
from pathlib import Path

import pytest

from cloison.linux.cgroups import read_layout
from oci_bundle import Door, subreaping


def test_exec_has_the_containers_walls_and_its_own_options(door: Door) -> None:
    door.start("t-exec")
    assert door.ok("exec", "t-exec", "hostname") == "inside\n"
    done = door("exec", "t-exec", "sh", "-c", "exit 3")
    assert done.returncode == 3
    words = ["--user", "7:8", "--cwd", "/tmp", "--env", "X=1", "-g", "9"]
    assert door.ok("exec", *words, "t-exec", "sh", "-c", "id -u; id -G; pwd; echo $X").split() == [
        "7",
        "8",
        "9",
        "/tmp",
        "1",
    ]
    status = door.ok("exec", "--cap", "CAP_KILL", "t-exec", "grep", "CapEff", "/proc/self/status")
    assert int(status.split()[1], 16) == 1 << 5
    missing = door("exec", "t-exec", "nope")
    assert (missing.returncode, "executable file not found" in missing.stderr) == (255, True)


def test_exec_takes_a_process_file(door: Door, tmp_path: Path) -> None:
    door.start("t-file")
    process = {
        "args": ["sh", "-c", "id -u; pwd; echo $A"],
        "cwd": "/tmp",
        "env": ["PATH=/bin", "A=b"],
        "user": {"uid": 5, "gid": 6},
    }
    (tmp_path / "process").write_text(json.dumps(process))
    assert door.ok("exec", "--process", str(tmp_path / "process"), "t-file").split() == ["5", "/tmp", "b"]
    (tmp_path / "process").write_text(json.dumps({**process, "cwd": 3}))
    assert "cwd is not a string" in door.fails("exec", "--process", str(tmp_path / "process"), "t-file")


def test_a_detached_exec_is_its_callers_orphan_however_soon_it_ends(door: Door, tmp_path: Path) -> None:
    with subreaping():
        door.start("t-soon")
        for code in range(5):
            door.ok("exec", "--detach", "--pid-file", str(tmp_path / "pid"), "t-soon", "sh", "-c", f"exit {code}")
            _, status = os.waitpid(int((tmp_path / "pid").read_text()), 0)
            assert os.waitstatus_to_exitcode(status) == code
        door.ok("delete", "--force", "t-soon")


def test_a_terminal_goes_to_the_console_socket(door: Door, tmp_path: Path) -> None:
    path = str(door.home / "console")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        door.write(
            "sh", "-c", "tty; stty size; ls -l /dev/console", terminal=True, consoleSize={"height": 20, "width": 30}
        )
        assert "console socket" in door.fails("create", "t-tty")
        door.ok("create", "--console-socket", path, "t-tty")
        listener.settimeout(10)
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
        master = array.array("i", ancillary[0][2])[0]
    door.ok("start", "t-tty")
    text = read_all(master)
    assert text.startswith(b"/dev/pts/0\r\n20 30\r\ncrw")


def test_run_joins_the_callers_terminal(door: Door) -> None:
    door.write("sh", "-c", "tty; read line; echo got $line; exit 5", terminal=True)
    pid, master = pty.fork()
    if pid == 0:
        os.chdir(door.bundle)
        argv = door.argv("run", "t-pty")
        os.execv(argv[0], argv)
    os.write(master, b"words\n")
    text = read_all(master)
    assert b"/dev/pts/0" in text
    assert b"got words" in text
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5


def read_all(master: int) -> bytes:
    text = b""
    try:
        while piece := os.read(master, 4096):
            text += piece
    except OSError:
        pass  # EIO: nobody has the other end
    os.close(master)
    return text


def test_limits_hold_and_can_be_changed(door: Door) -> None:
    door.config["linux"]["resources"] = {"pids": {"limit": 30}, "memory": {"limit": 64 << 20}}
    door.start("t-limits")
    assert limits(door) == (30, 64 << 20)
    door.ok(
        "update",
        "--resources",
        "-",
        "t-limits",
        input=json.dumps({"pids": {"limit": 40}, "memory": {"limit": 0}, "cpu": {"shares": 0}}),
    )
    assert limits(door) == (40, 64 << 20)
    door.ok("update", "--memory", "32m", "--pids-limit", "50", "t-limits")
    assert limits(door) == (50, 32 << 20)
    assert "not a whole number" in door.fails("update", "--pids-limit", "many", "t-limits")


def limits(door: Door) -> tuple[int, int]:
    data = json.loads(door.ok("events", "--stats", "t-limits"))["data"]
    return data["pids"]["limit"], data["memory"]["usage"]["limit"]


def test_the_containers_processes_are_in_a_group_of_their_own_in_every_hierarchy(door: Door) -> None:
    """Callers read the figures themselves, by these paths; what is not joined would be those of the whole machine."""
    pid = door.start("t-every")
    known = read_layout().legacy
    door.ok("exec", "--detach", "--pid-file", "second", "t-every", "sleep", "60")
    for process in (pid, int((door.bundle / "second").read_text())):
        rows = [row.split(":", 2) for row in Path(f"/proc/{process}/cgroup").read_text().splitlines()]
        ours = {name: path for _, names, path in rows for name in names.split(",") if name in known}
        assert set(ours) == set(known)
        assert all("t-every" in path for path in ours.values()), ours
    door.ok("exec", "t-every", "sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    data = json.loads(door.ok("events", "--stats", "t-every"))["data"]
    assert data["cpu"]["usage"]["total"] > 1_000_000


def test_a_control_group_that_somebody_lives_in_is_not_taken(door: Door) -> None:
    door.config["linux"]["cgroupsPath"] = "/cloison-oci-t-shared"
    door.start("t-one")
    door.write()
    assert "exists already" in door.fails("create", "t-two")
    assert door.state("t-one")["status"] == "running"


def test_a_failed_create_leaves_nothing(door: Door) -> None:
    door.config["mounts"].append({"destination": "/x", "type": "no-such-type", "source": "x"})
    door.write()
    assert "no-such-type" in door.fails("create", "t-nothing")
    assert "does not exist" in door.fails("state", "t-nothing")
    assert door.groups() == []


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("kernel.sysrq", "0", "not allowed"), ("net.ipv4.ip_forward", "0\n1", "invalid value"),
        ("net/../kernel/sysrq", "0", "invalid sysctl"),
    ],
)  # fmt: skip
def test_sysctls_of_the_host_are_out_of_reach(door: Door, key: str, value: str, text: str) -> None:
    door.config["linux"]["sysctl"] = {key: value}
    door.write()
    assert text in door.fails("create", "t-sysctl")


def test_home_comes_from_the_containers_accounts(door: Door) -> None:
    for uid, home in ((0, "/root"), (1000, "/tmp"), (4242, "/")):
        door.write("sh", "-c", "echo $HOME", user={"uid": uid, "gid": uid})
        assert door.ok("run", "t-home") == f"{home}\n"
    door.write("sh", "-c", "echo $HOME", env=["PATH=/bin", "HOME=/own"])
    assert door.ok("run", "t-home") == "/own\n"


def test_a_temporary_file_system_has_the_mode_of_what_it_covers(door: Door) -> None:
    covered = door.bundle / "rootfs" / "covered"
    covered.mkdir()
    covered.chmod(0o712)
    options = ["nosuid", "tmpcopyup"]
    for target, more in (("/covered", []), ("/told", ["mode=700"]), ("/new", [])):
        door.config["mounts"].append({"destination": target, "type": "tmpfs", "options": options + more})
    door.write("stat", "-c", "%a", "/covered", "/told", "/new")
    assert door.ok("run", "t-mode").split() == ["712", "700", "1777"]


def test_a_user_namespace_has_its_own_root(door: Door) -> None:
    door.config["linux"]["namespaces"].append({"type": "user"})
    ids = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    door.config["linux"].update(uidMappings=ids, gidMappings=ids)
    os.chown(door.bundle / "rootfs", 100000, 100000)  # it makes its own mount points
    door.start("t-user")
    assert door.ok("exec", "t-user", "cat", "/proc/self/uid_map").split() == ["0", "100000", "1000"]
    (pid,) = json.loads(door.ok("ps", "--format", "json", "t-user"))
    assert os.stat(f"/proc/{pid}").st_uid in (0, 100000)
    del door.config["linux"]["uidMappings"], door.config["linux"]["gidMappings"]
    door.write("cat", "/proc/self/uid_map")
    assert door.ok("run", "t-one").split() == ["0", "0", "1"]


def test_without_a_cgroup_namespace_the_containers_groups_are_all_there_is(door: Door) -> None:
    door.config["mounts"] += [
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]
    listed = "cat /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null"
    door.write("sh", "-c", f"set -- $({listed}); echo $#")
    assert door.ok("run", "t-groups") == "2\n"  # shell and cat


def test_descriptors_are_handed_on_as_asked_and_no_others(door: Door) -> None:
    fds = "for fd in 3 4 5 6; do test -e /proc/self/fd/$fd && readlink /proc/self/fd/$fd; done"
    script = f"{fds}; echo $LISTEN_FDS $LISTEN_PID"
    door.write("sh", "-c", script)
    files = []
    for number in (3, 5, 6):
        (door.home / f"file{number}").write_text("")
        files.append(f"{number}<{door.home}/file{number}")

    def run(*words: str, env: str = "") -> list[str]:
        shell = f'{env} exec "$@" {" ".join(files)} 4<&-'
        argv = ["bash", "-c", shell, "-", *door.argv("run", *words, "t-fds")]
        return subprocess.run(argv, capture_output=True, text=True, cwd=door.bundle, check=True).stdout.splitlines()

    def held(*numbers: int) -> list[str]:
        return [f"{door.home}/file{number}" for number in numbers]

    assert run() == [""]
    assert run("--preserve-fds", "3") == [*held(3, 5), ""]
    assert run(env="LISTEN_FDS=1") == [*held(3), "1 1"]
    assert run("--preserve-fds", "3", env="LISTEN_FDS=1") == [*held(3, 5, 6), "1 1"]
    assert "descriptors" in door.fails("run", "--preserve-fds", "100000", "t-fds")


def test_the_callers_groups_are_kept_when_an_annotation_says_so(door: Door) -> None:
    before = os.getgroups()
    os.setgroups([0, 11, 12])
    try:
        door.config["process"]["user"]["additionalGids"] = [13]
        door.write("id", "-G")
        assert door.ok("run", "t-groups").split() == ["0", "13"]
        door.config["annotations"] = {"run.oci.keep_original_groups": "1"}
        door.write("id", "-G")
        assert sorted(map(int, door.ok("run", "t-groups").split())) == [0, 11, 12, 13]
    finally:
        os.setgroups(before)


def test_pipes_become_the_users_with_its_group(door: Door) -> None:
    door.write("stat", "-L", "-c", "%u:%g", "/proc/self/fd/1", user={"uid": 7, "gid": 8})
    done = subprocess.run(door.argv("run", "t-pipe"), cwd=door.bundle, capture_output=True, text=True, check=True)
    assert done.stdout == "7:8\n"
