"""What a command inside can see and do: the wall, looked at from within and from without."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison, until

# CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP
DEFAULT_CAPABILITIES = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31))


def inside(cloison: Cloison, image: str, script: str, *flags: str) -> str:
    return cloison.ok("run", "--rm", "--network", "none", *flags, image, "sh", "-c", script)


def status(text: str) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_the_command_is_pid_one_and_sees_only_its_own_processes(cloison: Cloison, busybox_image: str) -> None:
    seen = inside(cloison, busybox_image, "echo $$; ls -d /proc/[0-9]*; true").splitlines()
    assert seen[0] == "1"
    assert len(seen) <= 3, seen  # the shell and ls


def test_the_hostname_is_the_short_id_and_not_the_hosts(cloison: Cloison, busybox_image: str) -> None:
    container_id = cloison.ok("run", "-d", "--network", "none", busybox_image, "sleep", "300")
    try:
        assert cloison.ok("exec", container_id, "hostname") == container_id[:12] != os.uname().nodename
    finally:
        cloison.ok("rm", "-f", container_id)


def test_without_a_network_there_is_only_loopback_and_it_is_up(cloison: Cloison, busybox_image: str) -> None:
    links = inside(cloison, busybox_image, "ls /sys/class/net; ip -o link show lo | grep -c 'LOOPBACK,UP'")
    assert links.splitlines() == ["lo", "1"]


def test_no_mount_of_the_host_is_visible(cloison: Cloison, busybox_image: str) -> None:
    mounts = inside(cloison, busybox_image, "cut -d' ' -f2 /proc/self/mounts").splitlines()
    assert mounts[0] == "/"
    allowed = ("/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
    assert [m for m in mounts[1:] if not m.startswith(allowed)] == []


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory of the host with a file system mounted below it."""
    below = tmp_path / "tree" / "below"
    below.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid", "tmpfs", str(below)], check=True)
    yield tmp_path / "tree"
    subprocess.run(["umount", str(below)], check=True)


@pytest.mark.parametrize(
    ("words", "made"),
    [
        (["-v", "{}:/t:ro"], []),
        (["-v", "{}:/t:ro,rslave"], []),
        (["--mount", "type=bind,source={},target=/t,readonly"], []),
        (["--mount", "type=bind,source={},target=/t,readonly,bind-recursive=readonly,bind-propagation=rprivate"], []),
        (["--mount", "type=bind,source={},target=/t,readonly,bind-recursive=writable"], ["below/x"]),
        (["-v", "{}:/t"], ["below/x", "x"]),
    ],
)
def test_a_read_only_volume_is_read_only_below_too(
    cloison: Cloison, busybox_image: str, tree: Path, words: list[str], made: list[str]
) -> None:
    flags = [word.format(tree) for word in words]
    script = "touch /t/x /t/below/x 2>/dev/null; mount -o remount,rw /t/below; touch /t/below/x; true"
    inside(cloison, busybox_image, script, *flags)
    assert sorted(str(path.relative_to(tree)) for path in tree.rglob("x")) == made


def test_a_bind_that_is_not_recursive_leaves_out_what_is_mounted_below(
    cloison: Cloison, busybox_image: str, tree: Path
) -> None:
    (tree / "below" / "file").touch()
    mount = f"type=bind,source={tree},target=/t,readonly,bind-recursive=disabled"
    assert inside(cloison, busybox_image, "ls /t/below", "--mount", mount) == ""


@pytest.mark.parametrize("how", ["run", "exec"])
def test_capabilities_seccomp_and_no_new_privileges_are_as_documented(
    cloison: Cloison, busybox_image: str, how: str
) -> None:
    if how == "run":
        text = inside(cloison, busybox_image, "cat /proc/self/status")
    else:
        cloison.ok("run", "-d", "--name", "walled", "--network", "none", busybox_image, "sleep", "300")
        text = cloison.ok("exec", "walled", "cat", "/proc/self/status")
        cloison.ok("rm", "-f", "walled")
    facts = status(text)
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert int(facts[name], 16) == DEFAULT_CAPABILITIES, name
    assert int(facts["CapInh"], 16) == int(facts["CapAmb"], 16) == 0
    assert facts["Seccomp"] == "2"
    assert facts["NoNewPrivs"] == "1"


def test_capabilities_are_added_and_dropped_as_asked(cloison: Cloison, busybox_image: str) -> None:
    none = status(inside(cloison, busybox_image, "cat /proc/self/status", "--cap-drop", "ALL"))
    assert int(none["CapEff"], 16) == int(none["CapBnd"], 16) == 0
    one = status(inside(cloison, busybox_image, "cat /proc/self/status", "--cap-drop=all", "--cap-add=net_admin"))
    assert int(one["CapEff"], 16) == 1 << 12


def test_an_ordinary_user_inside_has_no_capability_at_all(cloison: Cloison, busybox_image: str) -> None:
    facts = status(inside(cloison, busybox_image, "cat /proc/self/status", "-u", "1000"))
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == 0


def test_only_three_descriptors_are_open(cloison: Cloison, busybox_image: str) -> None:
    container_id = cloison.ok("run", "-d", "--network", "none", busybox_image, "sleep", "300")
    try:
        pid = cloison.inspect(container_id)["State"]["Pid"]
        until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"]
    finally:
        cloison.ok("rm", "-f", container_id)


def test_a_descriptor_that_the_caller_leaves_open_does_not_come_in(cloison: Cloison, busybox_image: str) -> None:
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        run = cloison.spawn(
            "run", "--rm", "--network", "none", busybox_image, "ls", f"/proc/self/fd/{secret}",
            pass_fds=(secret,), stdin=-3, stdout=-3, stderr=-3,
        )  # fmt: skip
        assert run.wait(timeout=30) != 0
    finally:
        os.close(secret)


@pytest.mark.parametrize("path", ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"])
def test_masked_files_are_empty(cloison: Cloison, busybox_image: str, path: str) -> None:
    assert inside(cloison, busybox_image, f"[ ! -e {path} ] && echo 0 || wc -c <{path}") == "0"


@pytest.mark.parametrize("path", ["/sys/firmware", "/proc/acpi", "/proc/scsi", "/sys/fs/selinux"])
def test_masked_directories_are_empty(cloison: Cloison, busybox_image: str, path: str) -> None:
    assert inside(cloison, busybox_image, f"[ ! -e {path} ] || ls -A {path}") == ""


@pytest.mark.parametrize(
    "attack",
    [
        "mount -t tmpfs none /tmp",
        "umount /proc",
        "mknod /tmp/disk b 8 0",
        "echo 1 >/proc/sys/kernel/sysrq",
        "echo c >/proc/sysrq-trigger",
        "echo x >/sys/kernel/uevent_helper",
        "hostname other",
        "unshare -m true",
        "unshare -U true",
        "chroot / mount -t proc none /proc",
        "adjtimex -t 10000",
        "ip link add dummy0 type dummy",
        "dmesg",
        "mkdir /sys/fs/cgroup/mine",
        "echo 0 >/proc/1/oom_score_adj && echo -1000 >/proc/1/oom_score_adj",
    ],
)
def test_an_attack_on_the_host_fails(cloison: Cloison, busybox_image: str, attack: str) -> None:
    assert inside(cloison, busybox_image, f"( {attack} ) >/dev/null 2>&1 || echo refused") == "refused"


def test_privileged_takes_the_wall_down_and_says_so_in_the_status(cloison: Cloison, busybox_image: str) -> None:
    """The control for the tests above: with --privileged the same attack works."""
    facts = status(inside(cloison, busybox_image, "cat /proc/self/status", "--privileged"))
    assert facts["Seccomp"] == "0"
    assert int(facts["CapEff"], 16) & (1 << 21)  # SYS_ADMIN
    assert inside(cloison, busybox_image, "mount -t tmpfs none /tmp && echo mounted", "--privileged") == "mounted"


def test_devices_are_the_harmless_ones_and_work(cloison: Cloison, busybox_image: str) -> None:
    names = set(inside(cloison, busybox_image, "ls /dev").split())
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"} <= names
    assert not names & {"mem", "kmsg", "vda", "sda", "kvm", "fuse", "loop0", "port"}
    assert inside(cloison, busybox_image, "echo gone >/dev/null; head -c 4 /dev/zero | wc -c") == "4"
    full = inside(cloison, busybox_image, "echo x >/dev/full 2>/dev/null || echo full")
    assert full == "full"


def test_two_containers_do_not_share_files_processes_or_shared_memory(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "-d", "--name", "one", "--network", "none", busybox_image, "sleep", "300")
    cloison.ok("run", "-d", "--name", "two", "--network", "none", busybox_image, "sleep", "300")
    try:
        cloison.ok("exec", "one", "sh", "-c", "echo mine | tee /file /dev/shm/file /tmp/file")
        assert cloison.ok("exec", "two", "sh", "-c", "ls /file /dev/shm/file /tmp/file 2>/dev/null; true") == ""
        assert "300" not in cloison.ok("exec", "two", "sh", "-c", "ps -o pid,args | grep '[s]leep' | tail -n +2")
    finally:
        cloison.ok("rm", "-f", "one", "two")


def test_the_monitor_cannot_be_traced_or_read_from_inside(cloison: Cloison, busybox_image: str) -> None:
    assert inside(cloison, busybox_image, "cat /proc/1/comm; readlink /proc/1/exe") == "sh\n/bin/busybox"


def test_the_hosts_loopback_is_not_reachable_without_a_network(cloison: Cloison, busybox_image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"nc -w 2 127.0.0.1 {port} </dev/null 2>&1; ip route | wc -l"
        answer = inside(cloison, busybox_image, script)
        assert "Connection refused" in answer
        assert answer.endswith("\n0")
        # the control: with the host's network the same address answers
        run = [
            "run",
            "--rm",
            "--init",
            "--network",
            "host",
            busybox_image,
            "timeout",
            "1",
            "nc",
            "127.0.0.1",
            str(port),
        ]
        assert "refused" not in cloison(*run).stderr


@pytest.mark.skipif(Path("/sys/module/apparmor").exists(), reason="this kernel has AppArmor: see test_apparmor.py")
def test_a_profile_is_refused_where_nothing_would_enforce_it(cloison: Cloison, busybox_image: str) -> None:
    run = ["run", "--rm", "--network", "none", "--security-opt"]
    refused = cloison(*run, "apparmor=web", busybox_image, "true")
    assert refused.returncode == 125
    assert "cannot apply the AppArmor profile 'web': this kernel runs without AppArmor" in refused.stderr
    assert cloison(*run, "apparmor=unconfined", busybox_image, "true").returncode == 0
