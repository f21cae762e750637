"""The walls of a real container: identity, rights, file systems, control groups, namespaces, and joining them."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

import runtime_world
from cloison.errors import LaunchFailed
from cloison.linux import cgroups, proc
from cloison.model.container import Resources, Stdio
from cloison.model.mount import Mount
from cloison.oci.runtime import User
from cloison.runtime import defaults
from cloison.runtime.compile import plan_exec, plan_launch
from cloison.runtime.launch import launch
from cloison.runtime.monitor import MonitorPlan
from cloison.runtime.process import UNCONFINED
from runtime_world import MARKS, World, expect, read_to_end

pytestmark = MARKS
busybox_root = runtime_world.busybox_root
staging = runtime_world.staging
nothing_left = runtime_world.nothing_left
world = runtime_world.world


def test_the_walls_stand_as_planned(world: World) -> None:
    script = "cat /proc/self/status; hostname; id; ls /proc/self/fd; cat /proc/sys/net/ipv4/ping_group_range; ulimit -n"
    text = world.output("sh", "-c", script, user=User(uid=1000, gid=100, additional_gids=(7,)))
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    mask = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 31))
    assert int(status["CapBnd"], 16) == mask
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert (status["SigIgn"], status["SigBlk"]) == ("0" * 16, "0" * 16)
    assert status["Groups"].split() == ["7"]
    assert "wall\nuid=1000 gid=100 groups=100,7\n" in text or "wall\nuid=1000 gid=100 groups=7" in text
    assert "\n0\n1\n2\n3\n0\t2147483647\n1024\n" in text


def test_file_systems_are_private_bounded_masked_and_read_only_where_they_shall_be(world: World) -> None:
    script = """
    set -e
    test "$(cat /proc/kcore | wc -c)" = 0
    test "$(ls /sys/firmware | wc -l)" = 0
    ! echo 1 2>/dev/null > /proc/sys/kernel/hostname || exit 1
    ! touch /sys/x 2>/dev/null || exit 2
    touch /dev/shm/x /srv/x; rm /srv/x
    df -k /dev/shm | tail -1
    ls -l /dev/null /dev/ptmx /dev/fd
    echo x > /dev/null
    grep -c . /proc/self/mountinfo
    """
    text = world.output("sh", "-c", script)
    assert " 65536 " in text
    assert "/dev/ptmx -> pts/ptmx" in text
    assert "1,   3" in text


def test_a_read_only_root_refuses_writes_but_not_below_tmpfs(world: World) -> None:
    world.root = world.root.replace(readonly=True)
    world.mounts = (*world.mounts, *defaults.read_only_mounts()[1:2])
    assert "ok" in world.output("sh", "-c", "! touch /srv/x 2>/dev/null && touch /tmp/x && echo ok")


def test_the_control_group_is_entered_before_the_command_and_seen_as_its_root(world: World) -> None:
    parent_path = f"cloison-test-{os.getpid()}"
    path = f"{parent_path}/one"
    layout = cgroups.read_layout()
    placement = cgroups.create(layout, path, resources=Resources(pids_limit=50))
    try:
        world.around = world.around.replace(placement=placement, layout=layout)
        text = world.output(
            "sh", "-c", "cat /proc/self/cgroup; ls /sys/fs/cgroup; find /sys/fs/cgroup -name pids.max | xargs cat"
        )
        own = [line for line in text.splitlines() if line.count(":") == 2]
        joined = {os.path.basename(os.path.dirname(os.path.dirname(os.path.dirname(d)))) for d in placement.join}
        assert own
        for line in own:
            _, names, place = line.split(":")
            if names in joined or (not names and placement.into):
                assert place == "/", line
        assert "50\n" in text
        assert (
            world.output(
                "sh", "-c", "touch /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2>/dev/null; find /sys/fs/cgroup -name x"
            )
            == ""
        )
        assert "cloison-test" not in "".join(line for line in text.splitlines() if line in own and line.endswith(path))
    finally:
        cgroups.remove(layout, path)
        for parent in layout.all_roots():
            if os.path.isdir(f"{parent}/{parent_path}"):
                os.rmdir(f"{parent}/{parent_path}")


def test_a_second_command_joins_a_running_container_with_the_same_walls(world: World) -> None:
    with world.start("sh", "-c", "mkdir -p /dev/shm/mark; exec sleep 100") as session:
        expect(session, "started")
        pidfd = proc.open_pidfd(session.pid, proc.start_time(session.pid))
        script = "ls /dev/shm; hostname; grep Seccomp: /proc/self/status; ls /proc/self/fd; echo $$ $PPID"
        ops = plan_exec(
            world.process("sh", "-c", script), pidfd=pidfd, placement=cgroups.Placement(), stdio=Stdio(),
            facts=world.facts, seccomp=world.around.seccomp, keyring="cloison-test",
            monitor=MonitorPlan(await_start="client"),
        )  # fmt: skip
        with launch(ops) as joined:
            joined.attach(stdout=True, stderr=True)
            joined.start()
            text, ended = read_to_end(joined)
        os.close(pidfd)
        assert ended.exit_code == 0, text
        assert b"mark\nwall\n" in text
        assert b"Seccomp:\t2" in text
        assert text.endswith(b" 0\n")  # its parent is outside of its pid namespace
        proc.send_signal(session.pid, proc.start_time(session.pid), 9)
        ended = session.wait(30)
        assert ended is not None and ended.signal == 9


def test_a_network_namespace_is_handed_out_configured_and_joined_by_a_second_container(world: World) -> None:
    around = world.around.replace(configure_network=True)
    with world.start("sleep", "100", around=around) as session:
        expect(session, "created")
        message = expect(session, "netlink")
        with socket.socket(fileno=message.fd) as netlink:
            assert (netlink.family, netlink.proto) == (socket.AF_NETLINK, 0)
        session.start()
        expect(session, "started")
        other = World(world.root.mount.source, world.around.staging)
        path = f"/proc/{session.pid}/ns/net"
        other.namespaces = tuple(
            n.replace(path=path) if n.type == "network" else n for n in world.namespaces
        )  # fmt: skip
        assert (
            other.output("readlink", "/proc/self/ns/net").strip()
            == os.readlink(path)
            != os.readlink("/proc/self/ns/net")
        )
        proc.send_signal(session.pid, proc.start_time(session.pid), 9)
        session.wait(30)


def test_devices_keep_their_numbers_and_modes(world: World) -> None:
    text = world.output(
        "sh", "-c", "stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty"
    )
    assert text.splitlines() == [
        "/dev/null 1:3 666", "/dev/zero 1:5 666", "/dev/full 1:7 666", "/dev/random 1:8 666", "/dev/urandom 1:9 666",
        "/dev/tty 5:0 666",
    ]  # fmt: skip
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_shared_namespaces_are_the_hosts(world: World) -> None:
    world.namespaces = tuple(n for n in world.namespaces if n.type in ("mount", "pid", "cgroup", "uts"))
    for kind in ("net", "ipc"):
        assert world.output("readlink", f"/proc/self/ns/{kind}").strip() == os.readlink(f"/proc/self/ns/{kind}")


def test_the_default_filter_stops_what_would_widen_the_attack_surface_and_nothing_ordinary(world: World) -> None:
    script = "unshare -U true && echo a; mount -t tmpfs x /tmp && echo b; dmesg && echo c; echo end"
    assert world.output("sh", "-c", f"({script}) 2>/dev/null") == "end\n"


def test_an_overlay_root_is_made_of_its_layers_and_keeps_writes_to_itself(world: World, tmp_path: Path) -> None:
    for name in ("upper", "work", "extra"):
        tmp_path.joinpath(name).mkdir()
    tmp_path.joinpath("extra", "marker").write_text("from the top layer")
    options = (
        f"lowerdir+={tmp_path}/extra", f"lowerdir+={world.root.mount.source}", f"upperdir={tmp_path}/upper",
        f"workdir={tmp_path}/work", "volatile", "index=off",
    )  # fmt: skip
    world.root = world.root.replace(mount=Mount(type="overlay", source="overlay", target="/", options=options))
    assert world.output("sh", "-c", "cat /marker; echo mine > /srv/mine") == "from the top layer"
    assert tmp_path.joinpath("upper", "srv", "mine").read_text() == "mine\n"
    assert not os.path.exists(f"{world.root.mount.source}/srv/mine")


def test_a_working_directory_is_made_when_the_image_lacks_it_and_never_outside_of_the_root(world: World) -> None:
    assert world.output("pwd", cwd="/srv/new/deep") == "/srv/new/deep\n"
    for number in (3, 4, 5, 10):
        with world.start("true", cwd=f"/proc/self/fd/{number}") as session, pytest.raises(LaunchFailed):
            session.wait(30)


def test_privileged_containers_see_no_masks_yet_have_their_own_namespaces(world: World) -> None:
    world.mounts = defaults.mounts(privileged=True)
    process = world.process(
        "sh", "-c", "grep -c . /proc/kallsyms; hostname inner && hostname; grep CapEff /proc/self/status",
        capabilities=defaults.capabilities(facts=world.facts, privileged=True), no_new_privileges=False,
    )  # fmt: skip
    spec = world.spec("true")
    spec = spec.replace(process=process, linux=spec.linux.replace(masked_paths=(), readonly_paths=()))
    around = world.around.replace(seccomp=UNCONFINED, monitor=MonitorPlan(await_start="client"))
    with launch(plan_launch(spec, around=around, stdio=Stdio())) as session:
        session.attach(stdout=True, stderr=True)
        session.start()
        text, ended = read_to_end(session)
    assert ended.exit_code == 0, text
    symbols, name, rights = text.decode().splitlines()
    assert int(symbols) > 1000
    assert name == "inner" != os.uname().nodename
    assert int(rights.split()[1], 16) == world.facts.permitted
