"""Mounts and devices of a bundle: what the kernel shows inside of what config.json asks for."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from oci_bundle import MAPPING, OUTSIDE, Door, in_user_namespace


def bind(source: Path | str, target: str, *options: str, **more: object) -> dict[str, Any]:
    return {"destination": target, "type": "bind", "source": str(source), "options": ["bind", *options], **more}


def tmpfs(target: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def run(door: Door, script: str, *mounts: dict[str, Any]) -> str:
    door.config["mounts"] += mounts
    door.write("sh", "-c", script)
    return door.ok("run", "t-m")


@pytest.fixture
def data(door: Door) -> Path:
    directory = door.home / "data"
    directory.mkdir()
    (directory / "file").write_text("content\n")
    return directory


def test_a_mount_shows_owners_by_mappings_of_its_own(door: Door, data: Path) -> None:
    maps = {"uidMappings": [{"containerID": 0, "hostID": 1234, "size": 10}], "gidMappings": MAPPING}
    out = run(
        door, "stat -c %u:%g /a/file /b/file", bind(data, "/a", **maps),
        bind(data, "/b", "idmap=uids=0-7-1;gids=0-8-1"),
    )  # fmt: skip
    assert out.split() == [f"1234:{OUTSIDE}", "7:8"]
    assert (data / "file").stat().st_uid == 0


def test_a_mount_takes_the_mappings_of_the_containers_user_namespace(door: Door, data: Path) -> None:
    in_user_namespace(door)
    script = "stat -c %u /plain/file /mapped/file; echo x > /mapped/made"
    assert run(door, script, bind(data, "/plain"), bind(data, "/mapped", "idmap")).split() == ["65534", "0"]
    assert (data / "made").stat().st_uid == 0


def test_idmap_without_any_mappings_is_an_error(door: Door, data: Path) -> None:
    door.config["mounts"].append(bind(data, "/a", "idmap"))
    door.write("true")
    assert "idmap needs mappings" in door.fails("run", "t-m")
    assert door.left() == []


def test_a_source_is_found_where_the_containers_ids_may_not_go(door: Door, data: Path) -> None:
    in_user_namespace(door)
    (data / "inner").mkdir()
    (data / "inner" / "file").write_text("reached\n")
    data.chmod(0o700)
    assert run(door, "cat /a/file", bind(data / "inner", "/a", "ro")) == "reached\n"


def test_links_are_followed_copied_or_mounted_themselves(door: Door, data: Path) -> None:
    (data / "link").symlink_to("file")
    (door.bundle / "rootfs" / "there").symlink_to("nowhere")
    (door.bundle / "rootfs" / "here").symlink_to("nowhere")
    script = "cat /followed; readlink /copied; readlink /there; cat /here; ls /nowhere 2>/dev/null"
    out = run(
        door, f"{script}; true", bind(data / "link", "/followed"), bind(data / "link", "/copied", "copy-symlink"),
        bind(data / "link", "/there", "src-nofollow", "dest-nofollow"), bind(data / "link", "/here", "dest-nofollow"),
    )  # fmt: skip
    assert out.split() == ["content", "file", "file", "content"]


def test_a_link_below_proc_is_never_covered(door: Door, data: Path) -> None:
    (data / "link").symlink_to("file")
    door.config["mounts"].append(bind(data / "link", "/proc/self", "src-nofollow", "dest-nofollow"))
    door.write("true")
    assert "/proc/self" in door.fails("run", "t-m")


def test_recursive_attributes_go_for_the_mounts_below_and_plain_ones_do_not(door: Door) -> None:
    script = "grep -o ' /[ab]/shm [a-z,]*' /proc/self/mountinfo"
    mounts = [bind("/dev", target, "rbind", *words) for target, words in (("/a", ["ro"]), ("/b", ["rro", "rnoexec"]))]
    found = dict(line.split() for line in run(door, script, *mounts).splitlines())
    assert "rw" in found["/a/shm"].split(",")
    assert {"ro", "noexec"} <= set(found["/b/shm"].split(","))


def test_what_is_mounted_on_the_root_is_the_root(door: Door) -> None:
    (door.bundle / "rootfs" / "hidden").touch()
    other = door.home / "other"
    (other / "proc").mkdir(parents=True)
    (other / "bin").mkdir()
    busybox = (door.bundle / "rootfs" / "bin" / "busybox").read_bytes()
    (other / "bin" / "sh").write_bytes(busybox)
    (other / "bin" / "sh").chmod(0o755)
    door.config["mounts"].insert(0, bind(other, "/"))
    door.config["root"]["readonly"] = True
    out = run(door, "echo /*; (: > /made) || echo read-only")
    assert "hidden" not in out
    assert out.splitlines() == ["/bin /dev /proc", "read-only"]


def test_a_temporary_root_is_empty(door: Door, data: Path) -> None:
    programs = shutil.copytree(door.bundle / "rootfs" / "bin", door.home / "programs", symlinks=True)
    door.config["mounts"].insert(0, tmpfs("/", "size=1m"))
    assert run(door, "echo /*", bind(programs, "/bin")).split() == ["/bin", "/dev", "/proc"]


def test_a_temporary_file_system_begins_with_a_copy(door: Door) -> None:
    covered = door.bundle / "rootfs" / "data"
    (covered / "deep").mkdir(parents=True)
    (covered / "deep" / "file").write_text("content\n")
    (covered / "deep" / "file").chmod(0o604)
    os.chown(covered / "deep" / "file", 5, 6)
    covered.chmod(0o1770)
    script = "cat /data/deep/file; stat -c %a:%u:%g /data /data/deep/file; rm -r /data/deep; df -k /data | tail -n1"
    out = run(door, script, tmpfs("/data", "tmpcopyup", "size=64k")).split()
    assert out[:3] == ["content", "1770:0:0", "604:5:6"]
    assert out[4] == "64"
    assert (covered / "deep" / "file").exists()


def test_a_copy_that_does_not_fit_is_an_error(door: Door) -> None:
    (door.bundle / "rootfs" / "data").mkdir()
    (door.bundle / "rootfs" / "data" / "file").write_bytes(bytes(1 << 17))
    door.config["mounts"].append(tmpfs("/data", "tmpcopyup", "size=64k"))
    door.write("true")
    assert "no space left" in door.fails("run", "t-m")
    assert door.left() == []


def test_a_shared_bind_and_the_host_see_each_others_mounts(door: Door, data: Path, shared: Path) -> None:
    (shared / "inside").mkdir()
    (shared / "outside").mkdir()
    door.config["mounts"].append(bind(shared, "/s", "rbind", "rshared"))
    door.config["process"]["capabilities"] = {
        name: ["CAP_SYS_ADMIN"] for name in ("bounding", "effective", "permitted")
    }
    door.start("t-m", "sh", "-c", "mount -t tmpfs inner /s/inside; touch /s/inside/x; exec sleep 100")
    for _ in range(100):
        if (shared / "inside" / "x").exists():
            break
        os.sched_yield()
        door("state", "t-m")
    assert (shared / "inside" / "x").exists()


@pytest.mark.parametrize("apart", [False, True], ids=["host", "user namespace"])
def test_mounts_are_in_the_order_of_the_configuration_and_shared_ones_leave_the_hosts_alone(
    door: Door, shared: Path, apart: bool
) -> None:
    (shared / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", str(shared / "below")], check=True)
    (shared / "below" / "file").write_text("content\n")
    if apart:
        in_user_namespace(door)
    mounts = (tmpfs("/a"), bind(shared, "/s", "rbind", "rshared"), tmpfs("/z"))
    out = run(door, "cat /s/below/file; grep -oE ' /(a|s|s/below|z) .*shared:|/(a|z) ' /proc/self/mountinfo", *mounts)
    seen = [line.split()[0] for line in out.splitlines()]
    assert seen == ["content", "/a", "/s", "/s/below", "/z"]
    assert (shared / "below" / "file").read_text() == "content\n"


def test_a_new_file_system_is_shared_among_the_containers_own_namespaces(door: Door) -> None:
    out = run(
        door, "grep -E ' /(s|u|p) ' /proc/self/mountinfo", tmpfs("/s", "shared"), tmpfs("/u", "unbindable"), tmpfs("/p")
    )
    said = {line.split()[4]: line.split(" - ")[0].split()[6:] for line in out.splitlines()}
    assert said.pop("/s")[0].startswith("shared:")
    assert said == {"/u": ["unbindable"], "/p": []}


@pytest.fixture
def shared(door: Door) -> Any:
    """A directory that is a mount with peers, as everything is where systemd runs."""
    path = door.home / "shared"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "shared", str(path)], check=True)
    subprocess.run(["mount", "--make-shared", str(path)], check=True)
    yield path
    subprocess.run(["umount", "-R", "-l", str(path)], check=True)


@pytest.mark.parametrize("apart", [False, True], ids=["host", "user namespace"])
def test_devices_have_their_numbers_modes_and_owners(door: Door, apart: bool) -> None:
    if apart:
        in_user_namespace(door)
    door.config["linux"]["devices"] = [
        {"path": "/dev/deep/block", "type": "b", "major": 1, "minor": 5, "fileMode": 0o157, "uid": 10, "gid": 11},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o640, "uid": 1, "gid": 2},
    ]
    script = "stat -c %F:%a:%u:%g:%t:%T /dev/deep/block /dev/pipe /dev/null; echo x > /dev/null && echo ok"
    block, pipe, null, ok = run(door, script).splitlines()
    assert block == "block special file:157:10:11:1:5"
    assert pipe.startswith("fifo:640:1:2")
    assert (null, ok) == ("character special file:666:0:0:1:3", "ok")


def test_nobody_else_gets_at_the_names_of_bound_nodes_on_the_host(door: Door) -> None:
    in_user_namespace(door)
    door.start("t-m")
    assert stat.S_IMODE((door.root / "t-m" / "nodes").stat().st_mode) == 0o700
    door.ok("delete", "--force", "t-m")
    assert door.left() == []


def test_without_a_mount_on_dev_the_roots_own_is_filled(door: Door) -> None:
    root = door.bundle / "rootfs"
    door.config["mounts"] = [mount for mount in door.config["mounts"] if "/dev" not in mount["destination"]]
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / "fd").write_text("own\n")
    assert run(door, "cat /dev/fd; readlink /dev/stdin").split() == ["own", "/proc/self/fd/0"]
    assert stat.S_ISCHR((root / "dev" / "null").stat().st_mode)


def test_a_link_as_dev_fills_nothing_outside(door: Door, data: Path) -> None:
    root = door.bundle / "rootfs"
    door.config["mounts"] = [mount for mount in door.config["mounts"] if "/dev" not in mount["destination"]]
    if (root / "dev").is_dir():
        (root / "dev").rmdir()
    (root / "dev").symlink_to(data)
    door.write("true")
    assert "symbolic link" in door.fails("run", "t-m")
    assert os.listdir(data) == ["file"]


def test_a_user_namespace_with_the_hosts_network_sees_sysfs_read_only(door: Door) -> None:
    in_user_namespace(door)
    linux = door.config["linux"]
    linux["namespaces"] = [namespace for namespace in linux["namespaces"] if namespace["type"] != "network"]
    sysfs = {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]}
    out = run(door, "ls /sys; grep -o ' /sys[^ ]* [a-z,]*' /proc/self/mountinfo", sysfs)
    assert "kernel" in out
    assert all(line.split()[1].startswith("ro") for line in out.splitlines() if line.startswith(" /sys"))


@pytest.mark.parametrize("apart", [False, True], ids=["host", "user namespace"])
def test_mounts_come_and_go_while_the_container_runs(door: Door, data: Path, apart: bool) -> None:
    if apart:
        in_user_namespace(door)
    door.config["mounts"].append(tmpfs("/m"))
    door.start("t-m")
    wanted = [bind(data, "/m/deep/data", "ro"), tmpfs("/m/tmp", "size=64k"), bind(data / "file", "/m/file")]
    (door.home / "mounts.json").write_text(json.dumps(wanted))
    door.ok("mounts", "add", "t-m", str(door.home / "mounts.json"))
    count = "grep -c ' /m/' /proc/self/mountinfo"
    show = f"cat /m/deep/data/file /m/file; touch /m/deep/data/x 2>/dev/null || echo ro; {count}"
    assert door.ok("exec", "t-m", "sh", "-c", show).split() == ["content", "content", "ro", "3"]
    door.ok("mounts", "remove", "t-m", str(door.home / "mounts.json"))
    assert door.ok("exec", "t-m", "sh", "-c", f"{count}; ls /m/deep/data").split() == ["0"]
    assert "invalid argument" in door.fails("mounts", "remove", "t-m", str(door.home / "mounts.json"))


def test_mounts_are_refused_by_their_place(door: Door) -> None:
    door.start("t-m")
    (door.home / "mounts.json").write_text('[{"destination": ""}]')
    assert "mounts[0].destination is empty" in door.fails("mounts", "add", "t-m", str(door.home / "mounts.json"))
    assert "unknown action" in door.fails("mounts", "change", "t-m", "x")
