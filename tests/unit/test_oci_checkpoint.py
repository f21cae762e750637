"""Options of checkpoint and restore, mounts that come from outside, and what is read beside an image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloison.errors import Denied, InvalidArgument, NotFound, Unsupported
from cloison.linux import criu
from cloison.linux.mount_table import parse_mounts
from cloison.model.mount import Mount
from cloison.oci.runtime import Linux, Namespace, Process, Root, Spec
from cloison.oci_runtime import criu_verbs
from cloison.oci_runtime.checkpoint import CHECKPOINT, dump_options, list_descriptors, page_server
from cloison.oci_runtime.criu_verbs import Directories, check_namespaces, common_options, config_file
from cloison.oci_runtime.external_mounts import (
    External,
    View,
    find_external,
    find_sources,
    make_targets,
    named_in,
)
from cloison.oci_runtime.log import Log
from cloison.oci_runtime.options import Call, parse
from cloison.oci_runtime.restore import RESTORE


def call(*words: str, verb: object = CHECKPOINT) -> Call:
    values, rest = parse(verb, [*words, "id"])  # type: ignore[arg-type]
    return Call(values, rest, root="/state", log=Log(""), environ={})


def spec(*mounts: Mount, root: str = "/rootfs", **linux: object) -> Spec:
    process = Process(args=("true",))
    return Spec(process=process, root=Root(mount=Mount(type="bind", source=root, target="/")), mounts=mounts,
                linux=Linux(**linux))  # fmt: skip


def bind(target: str, source: str, *options: str) -> Mount:
    return Mount(type="bind", source=source, target=target, options=("rbind", *options))


def test_every_switch_of_a_caller_has_its_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu_verbs, "find", lambda _name: "/sbin/iptables-restore")
    monkeypatch.setattr(criu_verbs, "CONFIG_FILES", ())
    asked = call(
        "--tcp-established", "--ext-unix-sk", "--shell-job", "--file-locks", "--auto-dedup", "--leave-running",
        "--tcp-skip-in-flight", "--link-remap", "--empty-ns", "network", "--manage-cgroups-mode", "strict",
        "--page-server", "10.0.0.1:27", "--image-path", str(tmp_path / "i"), "--work-path", str(tmp_path / "w"),
    )  # fmt: skip
    with Directories(asked, make=True) as directories:
        options = {**common_options(asked, {}), **dump_options(asked, directories)}
        numbers = directories.options()
        links = {name: os.readlink(f"/proc/self/fd/{number}") for name, number in numbers.items()}
    assert links == {"images_dir_fd": str(tmp_path / "i"), "work_dir_fd": str(tmp_path / "w")}
    assert {name: value for name, value in options.items() if name not in numbers} == {
        "tcp_established": True, "ext_unix_sk": True, "shell_job": True, "file_locks": True, "auto_dedup": True,
        "lazy_pages": False, "leave_running": True, "tcp_skip_in_flight": True, "link_remap": True, "log_level": 4,
        "log_file": "dump.log", "notify_scripts": True, "orphan_pts_master": True, "empty_ns": 0x40000000,
        "manage_cgroups": True, "manage_cgroups_mode": criu.STRICT, "ps": ("10.0.0.1", 27),
    }  # fmt: skip
    criu.encode_options(options)


def test_packets_are_held_back_by_nftables_where_there_is_no_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criu_verbs, "find", lambda _name: "")
    assert common_options(call(), {})["network_lock"] == criu.NFTABLES


def test_a_parent_is_told_by_its_relative_path(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    asked = call("--parent-path", "../first", "--image-path", str(tmp_path / "second"))
    with Directories(asked, make=True) as directories:
        options = dump_options(asked, directories)
    assert (options["parent_img"], options["track_mem"]) == ("../first", True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--manage-cgroups-mode", "all"), "soft, full, strict, ignore"),
        (("--empty-ns", "pid"), "'pid' is not supported"),
    ],
)
def test_what_neither_verb_knows_is_named(words: tuple[str, ...], text: str) -> None:
    for verb in (CHECKPOINT, RESTORE):
        with pytest.raises(InvalidArgument, match=text):
            common_options(call(*words, verb=verb), {})


@pytest.mark.parametrize("text", ["host", "host:", ":27", "host:x", "host:0", "host:70000", "host:-1"])
def test_a_page_server_is_an_address_with_a_port(text: str) -> None:
    with pytest.raises(InvalidArgument, match="ADDRESS:PORT"):
        page_server(text)


def test_a_page_server_may_have_a_long_address() -> None:
    assert page_server("[fe80::1]:27") == ("fe80::1", 27)


def test_the_configuration_is_what_the_annotation_names_or_the_first_of_the_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(criu_verbs, "CONFIG_FILES", (str(tmp_path / "own"), str(tmp_path / "other")))
    assert config_file({}) == ""
    (tmp_path / "other").touch()
    assert config_file({}) == str(tmp_path / "other")
    (tmp_path / "own").touch()
    assert config_file({}) == str(tmp_path / "own")
    assert config_file({"org.criu.config": "/mine"}) == "/mine"
    assert config_file({"org.criu.config": ""}) == ""


@pytest.mark.parametrize(
    ("namespaces", "kind"),
    [
        (("pid",), "mount"), (("mount=/x",), "mount"), (("mount", "user=/x"), "user"),
        (("mount", "cgroup=/x"), "cgroup"),
        (("mount", "network=/x", "pid=/x", "ipc=/x", "user"), ""),
    ],
)  # fmt: skip
def test_namespaces_that_cannot_be_joined_again_are_refused(namespaces: tuple[str, ...], kind: str) -> None:
    records = [Namespace(type=word.partition("=")[0], path=word.partition("=")[2]) for word in namespaces]
    given = spec(namespaces=tuple(records))
    if not kind:
        return check_namespaces(given, "restore")
    with pytest.raises(Unsupported, match=f"its {kind} namespace is not its own"):
        check_namespaces(given, "restore")


MOUNTINFO = r"""
50 40 8:1 /bundle/rootfs / rw,relatime - ext4 /dev/sda1 rw
51 50 0:60 / /proc rw,relatime - proc proc rw
52 50 0:61 / /dev rw,nosuid - tmpfs tmpfs rw
53 52 0:62 / /dev/pts rw - devpts devpts rw
54 50 8:1 /data\040dir /data\040dir ro,relatime - ext4 /dev/sda1 rw
55 51 0:60 /sys /proc/sys ro - proc proc rw
56 51 0:5 /null /proc/kcore ro,nosuid - devtmpfs dev rw
57 50 0:25 /our/group /sys/fs/cgroup ro - cgroup2 cgroup rw
58 50 0:25 /other /mnt/cgroup ro shared:3 - cgroup2 cgroup rw
59 50 0:99 / /idle rw - tmpfs gone rw
60 50 0:20 / /sys ro - sysfs sysfs rw
61 52 0:5 /zero /dev/zero rw - devtmpfs dev rw
"""


def test_mounts_from_outside_are_those_of_the_hosts_file_systems() -> None:
    rows = parse_mounts(MOUNTINFO)
    view = View(
        host_devices=frozenset(("8:1", "0:5", "0:25", "0:20")), names={54: "/var/data", 59: "/idle"},
        nulls=frozenset((56,)), group="our/group",
    )  # fmt: skip
    assert find_external(rows, view) == [
        External(name="/data dir", wanted="/var/data", options="ro,relatime"),
        External(name="/proc/kcore", wanted="/dev/null", options="ro,nosuid"),
        External(name="/mnt/cgroup", wanted="/mnt/cgroup", options="ro"),
        External(name="/idle", wanted="/idle", options="rw"),
        External(name="/dev/zero", wanted="/dev/zero", options="rw"),
    ]
    without = find_external(rows, view.replace(group=""))
    assert "/sys/fs/cgroup" in [mount.name for mount in without]  # without a namespace it is a part of the host's


def external(wanted: str) -> External:
    return External(name=wanted, wanted=wanted, options="")


def test_sources_are_the_bundles_and_nothing_else() -> None:
    from cloison.oci.runtime import Device

    given = spec(
        bind("/data", "/srv/data"), bind("/sys", "/sys"),
        devices=(Device(path="/dev/zero", type="c", major=1, minor=5),),
    )  # fmt: skip
    wanted = ["/data", "/sys/kernel/debug", "/dev/null", "/dev/zero", "/sys/fs/cgroup"]
    found = find_sources(map(external, wanted), given, groups={"/sys/fs/cgroup": "/cg/x"})
    assert [path for _, path in found] == ["/srv/data", "/sys/kernel/debug", "/dev/null", "/dev/zero", "/cg/x"]
    for name in ("/etc/shadow", "/datadir", "/data/../../etc", "/dev/sda"):
        with pytest.raises(InvalidArgument, match="cannot restore the mount on"):
            find_sources([external(name)], given, groups={})


def test_anothers_checkpoint_names_mounts_by_their_destination() -> None:
    found = named_in(spec(bind("/data", "/srv", "ro"), Mount(type="proc", source="proc", target="/proc")))
    assert [(one.name, one.options) for one in found] == [("/dev/null", ""), ("/data", "rbind,ro")]


def test_mount_points_are_made_in_what_will_lie_above_them(tmp_path: Path) -> None:
    root, data, file = tmp_path / "root", tmp_path / "data", tmp_path / "file"
    root.mkdir()
    data.mkdir()
    file.touch()
    (root / "var").symlink_to("/elsewhere")
    make_targets(
        spec(
            Mount(type="tmpfs", source="tmpfs", target="/tmp"), bind("/tmp/hidden", str(data)), bind("/a/b", str(data)),
            bind("/a/b/c/file", str(file)), Mount(type="proc", source="proc", target="/proc"), bind("/a/b", str(data)),
            root=str(root),
        )
    )  # fmt: skip
    made = sorted(str(path.relative_to(tmp_path)) for path in (*root.rglob("*"), *data.rglob("*")))
    assert made == ["data/c", "data/c/file", "root/a", "root/a/b", "root/proc", "root/tmp", "root/var"]


def test_descriptors_are_called_as_criu_calls_them(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with open(tmp_path / "x", "w") as file:
        words = list_descriptors(os.getpid(), mounts=set())
        inode = os.fstat(file.fileno()).st_ino
        assert words[file.fileno()].endswith(f":{inode:x}]")
        assert words[file.fileno()].startswith("file[")
        assert words[reader] == os.readlink(f"/proc/self/fd/{reader}")
        mount = int(words[file.fileno()][5:].partition(":")[0], 16)
        own = list_descriptors(os.getpid(), mounts={mount})
        assert own[file.fileno()] == str(tmp_path / "x")
    os.close(reader)
    os.close(writer)


def test_directories_are_made_for_a_checkpoint_and_must_be_there_for_a_restore(tmp_path: Path) -> None:
    asked = call("--image-path", str(tmp_path / "a" / "b"))
    with pytest.raises(NotFound, match="cannot use directory"):
        Directories(asked, make=False)
    Directories(asked, make=True).close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", '[["a", "b"]]', '[["a", "b", 3]]', '[["a", "b", "\\u0000"]]'])
def test_what_stands_beside_an_image_is_not_trusted(tmp_path: Path, text: str) -> None:
    (tmp_path / "mounts.json").write_text(text)
    with (
        Directories(call("--image-path", str(tmp_path)), make=False) as directories,
        pytest.raises(InvalidArgument, match=r"cannot read .*mounts\.json"),
    ):
        directories.read_rows("mounts.json", width=3)


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Denied, match="criu needs root"):
        criu_verbs.check_rights("checkpoint")
