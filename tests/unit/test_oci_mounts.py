"""``mounts`` of a config.json: mappings, crun's words, and what becomes of each on its way to the plan."""

from __future__ import annotations

import copy
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from cloison.errors import CloisonError, InvalidArgument, Unsupported
from cloison.linux.copies import copy_tree
from cloison.model.mount import IdMapping, Mount
from cloison.oci.config_json import parse_config
from cloison.oci.config_mounts import host_id
from cloison.oci.runtime import Spec
from cloison.oci_runtime.fitting import fit_mounts, fit_root, with_mappings
from cloison.runtime.plan import render_op
from cloison.runtime.rootfs import plan_devices, plan_mount
from oci_bundle import CONFIG

RANGE = [{"containerID": 0, "hostID": 1000, "size": 10}]


def parse(mount: dict[str, Any], *, root: str = "/b/rootfs", namespaces: tuple[str, ...] = (), **linux: object) -> Spec:
    config = copy.deepcopy(CONFIG)
    config["root"]["path"] = root
    config["mounts"] = [{"destination": "/m", "type": "bind", "source": "/h", **mount}]
    config["linux"].update(linux)
    config["linux"]["namespaces"] += [{"type": kind} for kind in namespaces]
    return parse_config(config, bundle="/b").spec


def mapped(start: int, shown: int, size: int) -> tuple[IdMapping, ...]:
    return (IdMapping(container_id=start, host_id=shown, size=size),)


def test_mappings_of_a_mount_mean_idmap() -> None:
    (mount,) = parse({"uidMappings": RANGE, "gidMappings": RANGE}).mounts
    assert (mount.uid_mappings, mount.gid_mappings) == (mapped(0, 1000, 10), mapped(0, 1000, 10))
    assert mount.options == ("idmap",)
    (deep,) = parse({"uidMappings": RANGE, "gidMappings": RANGE, "options": ["rbind", "ridmap"]}).mounts
    assert deep.options == ("rbind", "ridmap")


def test_cruns_way_to_give_mappings() -> None:
    own = [{"containerID": 0, "hostID": 0, "size": 1}, {"containerID": 1, "hostID": 2, "size": 1000}]
    option = "idmap=uids=0-1-10#10-11-10;gids=@1-3-10"
    (mount,) = parse({"options": [option]}, uidMappings=own, gidMappings=own).mounts
    assert mount.uid_mappings == (*mapped(0, 1, 10), *mapped(10, 11, 10))
    assert mount.gid_mappings == mapped(1, 4, 10)
    assert mount.options == ("idmap",)


@pytest.mark.parametrize(
    ("mount", "place"),
    [
        ({"uidMappings": RANGE}, "mounts[0].gidMappings is missing"),
        ({"type": "tmpfs", "options": ["idmap"]}, "mounts[0].options has idmap"),
        ({"options": ["idmap=uids=0-1-1"]}, "go together"),
        ({"options": ["idmap=uids=0-1;gids=0-1-1"]}, "'0-1', which is not"),
        ({"options": ["idmap=uids=0-1-0;gids=0-1-1"]}, "out of range"),
        ({"options": ["idmap=uids=@0-9-1;gids=0-1-1"]}, "out of range"),
        ({"options": ["idmap=x"]}, "neither uids"),
    ],
)
def test_a_faulty_mapping_is_named_by_its_place(mount: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(mount, uidMappings=RANGE[:1] and [{"containerID": 0, "hostID": 5, "size": 2}])
    assert place in str(caught.value)


def test_data_of_a_bind_mount_goes_nowhere_and_an_unknown_word_is_an_error() -> None:
    (mount,) = parse({"options": ["bind", "mode=755", "size=1k", "sync", "nosuid"]}).mounts
    assert mount.options == ("bind", "nosuid")
    with pytest.raises(Unsupported, match="nonsense"):
        plan_mount(parse({"options": ["bind", "nonsense"]}).mounts[0])


def test_an_id_of_the_container_is_somebody_on_the_host() -> None:
    ranges = (*mapped(0, 100, 10), *mapped(10, 500, 5))
    assert [host_id(inside, ranges) for inside in (0, 9, 10, 14, 15)] == [100, 109, 500, 504, -1]
    assert host_id(7, ()) == 7


def test_an_opened_tree_goes_to_its_place_by_descriptor() -> None:
    mount = Mount(type="bind", source="/h", target="/t", options=("ro", "rro", "rshared", "dest-nofollow"), tree=9)
    assert render_op(plan_mount(mount)) == "bind-fd 9 /t rro,ro rshared 0"
    plain = Mount(type="bind", source="/h", target="/t", options=("idmap",), tree=9)
    assert render_op(plan_mount(plain)) == "bind-fd 9 /t '' rprivate 1"
    with pytest.raises(Unsupported, match="idmap"):  # nobody has opened it: the mappings would be lost
        plan_mount(plain.replace(tree=-1))


def test_a_copied_link_is_a_link() -> None:
    mount = Mount(type="bind", source="to/nowhere", target="/t", options=("rbind", "copy-symlink"))
    assert render_op(plan_mount(mount)) == "symlink to/nowhere /t"


def test_a_user_namespace_with_the_hosts_network_gets_the_hosts_sysfs(tmp_path: Path) -> None:
    sysfs = {"type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid"]}
    spec = parse(sysfs, root=str(tmp_path), namespaces=("user",))
    assert fit_mounts(spec).mounts[0].type == "sysfs"  # it has a network of its own
    shared = [namespace for namespace in spec.linux.namespaces if namespace.type != "network"]
    (mount,) = fit_mounts(spec.replace(linux=spec.linux.replace(namespaces=tuple(shared)))).mounts
    assert (mount.type, mount.source, mount.options) == ("bind", "/sys", ("rbind", "rro", "rnosuid"))


def test_a_user_namespace_without_mappings_has_one_id() -> None:
    linux = with_mappings(parse({}, namespaces=("user",)).linux)
    assert linux.uid_mappings == mapped(0, os.geteuid(), 1)
    assert with_mappings(parse({}).linux).uid_mappings == ()


@pytest.mark.parametrize("target", ["/", "//", "/x/..", "/."])
def test_the_root_cannot_be_copied_into_what_hides_it(tmp_path: Path, target: str) -> None:
    mount = {"type": "tmpfs", "destination": target, "options": ["tmpcopyup"]}
    with pytest.raises(CloisonError, match="tmpfs on /"):
        fit_mounts(parse(mount, root=str(tmp_path)))


def test_only_what_the_root_has_can_be_copied(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    spec = parse({"type": "tmpfs", "destination": "/a/b", "options": ["tmpcopyup"]}, root=str(tmp_path))
    below = Mount(type="bind", source="/h", target="/a")
    with pytest.raises(Unsupported, match="/a is a mount itself"):
        fit_mounts(spec.replace(mounts=(below, *spec.mounts)))
    assert fit_mounts(spec).mounts[0].options == ("mode=755",)  # it is empty


def test_a_root_without_a_mount_on_dev_is_filled_around_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "fd").touch()
    root = fit_root(parse({}, root=str(tmp_path))).root
    ops = plan_devices((), root=root, mounts=())
    assert [op.words[1] for op in ops] == ["/dev/ptmx", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/dev/core"]


def test_a_link_as_dev_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dev").symlink_to("/elsewhere")
    with pytest.raises(InvalidArgument, match="symbolic link"):
        fit_root(parse({}, root=str(tmp_path)))


def test_a_copy_has_everything_the_original_has(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep" / "er").mkdir(parents=True)
    target.mkdir()
    (source / "deep" / "file").write_bytes(b"x" * 100_000)
    (source / "deep" / "file").chmod(0o4711)
    os.link(source / "deep" / "file", source / "again")
    (source / "link").symlink_to("/nowhere")
    os.mkfifo(source / "pipe", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    (source / "deep").chmod(0o1770)
    os.utime(source / "deep" / "file", ns=(1, 2))
    os.utime(source / "deep", ns=(3, 4))
    fds = [os.open(path, os.O_RDONLY) for path in (source, target)]
    copy_tree(*fds)
    for fd in fds:
        os.close(fd)
    assert sorted(os.listdir(target)) == ["again", "deep", "link", "pipe"]
    assert (target / "again").read_bytes() == (source / "deep" / "file").read_bytes()
    assert os.path.samefile(target / "again", target / "deep" / "file")
    assert os.readlink(target / "link") == "/nowhere"
    for name in ("deep", "deep/er", "deep/file", "pipe"):
        one, other = (source / name).lstat(), (target / name).lstat()
        assert (one.st_mode, one.st_mtime_ns) == (other.st_mode, other.st_mtime_ns) or name == "pipe"
        assert one.st_mode == other.st_mode


def test_a_copy_ends_somewhere(tmp_path: Path) -> None:
    (tmp_path / "source" / "/".join("d" * 120)).mkdir(parents=True)
    (tmp_path / "target").mkdir()
    fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("source", "target")]
    with pytest.raises(Unsupported, match="levels"):
        copy_tree(*fds)
    for fd in fds:
        os.close(fd)
