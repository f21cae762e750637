"""The root and everything in it, also when the image is hostile: links to outside lead nowhere."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher_plan import NAMESPACES, Operation, World, launch, made_world

LEGACY = [pytest.param([], id="new-calls"), pytest.param([("legacy-mounts",)], id="legacy")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with made_world(tmp_path) as world:
        yield world


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A host directory that must look the same afterwards: names, times, modes."""
    directory = tmp_path / "canary"
    (directory / "pts").mkdir(parents=True)
    (directory / "secret").write_text("token")

    def picture() -> dict[str, tuple[int, int, int]]:
        return {
            str(path): (path.lstat().st_ino, path.lstat().st_mode, path.lstat().st_ctime_ns)
            for path in [directory, *directory.rglob("*")]
        }

    before = picture()
    yield directory
    assert picture() == before


def mount_options(output: str, target: str) -> set[str]:
    """The options of the topmost mount on TARGET in the text of /proc/mounts."""
    return [set(line.split()[3].split(",")) for line in output.splitlines() if line.split()[1:2] == [target]][-1]


@pytest.mark.parametrize("legacy", LEGACY)
def test_a_whole_container_has_what_the_plan_says_and_nothing_of_the_host(
    world: World, legacy: list[Operation]
) -> None:
    extra: list[Operation] = [
        ("mount", "tmpfs", "shm", "/dev/shm", "nosuid,nodev,noexec", "mode=1777", "size=1m", "nr_inodes=100"),
        ("mount", "mqueue", "mqueue", "/dev/mqueue", "nosuid,nodev,noexec"),
        ("mount", "sysfs", "sysfs", "/sys", "ro,nosuid,nodev,noexec"),
    ]
    exit, output = world.run("cat", "/proc/mounts", before=legacy, extra=extra)
    assert exit["status"] == 0, output
    targets = [line.split()[1] for line in output.splitlines()]
    assert sorted(targets) == sorted(["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys"])
    assert {"ro", "nosuid", "nodev", "noexec"} <= mount_options(output, "/sys")
    assert {"rw", "nosuid", "nodev", "noexec", "size=1024k"} <= mount_options(output, "/dev/shm")


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("layers", [2, 100])
def test_an_overlay_root_has_as_many_layers_as_it_takes(
    world: World, tmp_path: Path, layers: int, legacy: list[Operation]
) -> None:
    base = tmp_path / ("a-long-name-" * 8)
    paths = []
    for number in range(layers):
        layer = base / f"{number}:comma,colon\\backslash"
        (layer / "layers").mkdir(parents=True)
        (layer / "layers" / str(number)).write_text("")
        (layer / "top").write_text(str(number))
        paths.append(str(layer))
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    root = (
        "root-overlay",
        world.staging,
        str(tmp_path / "upper"),
        str(tmp_path / "work"),
        "volatile",
        *paths,
        world.root,
    )
    code = "ls /layers | wc -l; cat /top; echo; echo new > /file; head -c 0 /etc/x 2>/dev/null; sync"
    exit, output = world.run("sh", "-c", code, before=legacy, mounts=world.mounts(root=root))
    assert exit["status"] == 0, output
    assert output.split() == [str(layers), "0"]
    assert (tmp_path / "upper" / "file").read_text() == "new\n"


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("more", [0, 1])
def test_an_overlay_without_upper_is_read_only(
    world: World, tmp_path: Path, more: int, legacy: list[Operation]
) -> None:
    for name in ("proc", "dev"):
        os.mkdir(os.path.join(world.root, name))
    (tmp_path / "layer").mkdir()
    root = ("root-overlay", world.staging, "", "", "", *[str(tmp_path / "layer")] * more, world.root)
    exit, output = world.run("touch", "/file", before=legacy, mounts=world.mounts(root=root))
    assert exit["status"] == 1 << 8
    assert "Read-only file system" in output
    assert not os.path.exists(os.path.join(world.root, "file"))


@pytest.mark.parametrize("legacy", LEGACY)
def test_masks_hide_files_and_directories_and_take_no_content(world: World, legacy: list[Operation]) -> None:
    os.makedirs(os.path.join(world.root, "hidden", "inner"))
    os.makedirs(os.path.join(world.root, "hidden2"))
    for name in ("secret", "secret2"):
        Path(world.root, name).write_text("secret")
    os.symlink("secret2", os.path.join(world.root, "link"))
    masks = [
        "/hidden",
        "/hidden2",
        "/secret",
        "/link",
        "/proc/timer_list",
        "/proc/bus",
        "/proc/no-such",
        "/secret/below",
    ]
    code = """ls -A /hidden /hidden2 | grep -v : ; cat /secret /secret2 /link
              for f in /secret /secret2; do test -c $f || echo no; done
              echo x > /secret; touch /hidden/x; cat /secret; ls -A /hidden"""
    exit, output = world.run("sh", "-c", code, before=legacy, extra=[("mask", path) for path in masks])
    assert [line for line in output.splitlines() if line] == ["touch: /hidden/x: Read-only file system"]
    assert Path(world.root, "secret2").read_text() == "secret"
    _, output = world.run("cat", "/proc/mounts", before=legacy, extra=[("mask", "/hidden"), ("mask", "/secret")])
    assert "ro" in mount_options(output, "/hidden")
    assert legacy or {"ro", "nosuid", "noexec"} <= mount_options(output, "/secret")


@pytest.mark.parametrize("legacy", LEGACY)
def test_read_only_paths_and_roots_cannot_be_written(world: World, legacy: list[Operation]) -> None:
    os.makedirs(os.path.join(world.root, "fixed"))
    extra: list[Operation] = [("readonly-path", "/fixed"), ("readonly-path", "/proc/sys"), ("readonly-path", "/absent")]
    code = "touch /fixed/x; echo 1 > /proc/sys/kernel/domainname; touch /ok; mount | grep -c ' /fixed '"
    _, output = world.run("sh", "-c", code, before=legacy, extra=extra)
    assert output.count("Read-only file system") == 2
    assert os.path.exists(os.path.join(world.root, "ok"))
    _, output = world.run("touch", "/no", before=legacy, extra=[("readonly-root",)])
    assert "Read-only file system" in output
    assert not os.path.exists(os.path.join(world.root, "no"))


@pytest.mark.parametrize("legacy", LEGACY)
def test_binds_make_their_targets_and_carry_their_attributes(
    world: World, tmp_path: Path, legacy: list[Operation]
) -> None:
    (tmp_path / "data" / "sub").mkdir(parents=True)
    (tmp_path / "data" / "file").write_text("content\n")
    extra: list[Operation] = [
        ("bind", str(tmp_path / "data"), "/new/deep/dir", 1, "nosuid,nodev", ""),
        ("bind", str(tmp_path / "data"), "/ro", 0, "ro,noexec", "rprivate"),
        ("bind", str(tmp_path / "data" / "file"), "/etc/deep/file", 0, "ro", "rslave"),
    ]
    code = """cat /new/deep/dir/file /etc/deep/file; touch /ro/x; echo y > /etc/deep/file
              touch /new/deep/dir/made; cat /proc/mounts"""
    _, output = world.run("sh", "-c", code, before=legacy, extra=extra)
    assert output.startswith("content\ncontent\n")
    assert output.count("Read-only file system") == 2
    assert (tmp_path / "data" / "made").exists() and not (tmp_path / "data" / "x").exists()
    assert {"rw", "nosuid", "nodev"} <= mount_options(output.split("\n", 2)[2].replace("touch:", ""), "/new/deep/dir")
    assert {"ro", "noexec"} <= mount_options(output, "/ro")


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("how", [("readonly-path", "/a"), ("bind", "{root}/a", "/b", 1, "rro", "")])
def test_a_recursive_attribute_goes_for_what_is_mounted_below(
    world: World, tmp_path: Path, how: Operation, legacy: list[Operation]
) -> None:
    (tmp_path / "data").mkdir()
    staged = [str(word).replace("{root}", world.staging) for word in how]
    inner: list[Operation] = [
        ("bind", str(tmp_path / "data"), "/a", 1, "", ""),
        ("mount", "tmpfs", "t", "/a/below", ""), ("mount", "tmpfs", "t", "/a/below/two words", "nosuid"),
        ("mount", "tmpfs", "t", "/ab", ""), tuple(staged),
    ]  # fmt: skip
    read_only = "/a" if how[0] == "readonly-path" else "/b"
    script = f"""touch {read_only}/below/x; touch "{read_only}/below/two words/x"; touch {read_only}/x; touch /ab/x
                 cat /proc/mounts"""
    _, output = world.run("sh", "-c", script, before=legacy, extra=inner)
    assert output.count("Read-only file system") == 3, output
    assert {"ro", "nosuid"} <= mount_options(output, f"{read_only}/below/two\\040words")
    assert "rw" in mount_options(output, "/ab")


def test_a_bind_by_descriptor_works_for_a_detached_tree(world: World, tmp_path: Path) -> None:
    import ctypes

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("by descriptor\n")
    libc = ctypes.CDLL(None, use_errno=True)
    tree = libc.syscall(428, -100, str(tmp_path / "data").encode(), 0x80001)  # open_tree(OPEN_TREE_CLONE)
    assert tree >= 0
    bind: list[Operation] = [("bind-fd", "{0}", "/vol", "ro", "", 1)]
    plan = world.plan("cat", "/vol/file", extra=bind, late=[("await-start", "client")])
    started = launch(plan, fds=[tree])
    os.close(tree)
    started.send("A", b"\6")
    started.send("S")
    assert started.exit()["status"] == 0
    assert started.output() == b"by descriptor\n"
    started.close()


def test_device_nodes_have_their_numbers_modes_and_owners(world: World) -> None:
    extra: list[Operation] = [
        ("device", "/dev/x/full", "c", 1, 7, "640", 5, 6),
        ("device", "/dev/pipe", "p", 0, 0, "600", 0, 0),
    ]
    _, output = world.run("sh", "-c", "stat -c '%a %u %g %t %T %F' /dev/null /dev/x/full /dev/pipe", extra=extra)
    assert output.splitlines() == [
        "666 0 0 1 3 character special file", "640 5 6 1 7 character special file", "600 0 0 0 0 fifo",
    ]  # fmt: skip


def test_no_device_node_is_made_on_a_bound_directory(world: World, tmp_path: Path) -> None:
    (tmp_path / "bound").mkdir()
    extra: list[Operation] = [
        ("bind", str(tmp_path / "bound"), "/mnt", 0, "", ""),
        ("device", "/mnt/n", "c", 1, 3, "666", 0, 0),
    ]
    fault = world.fails("true", extra=extra)
    assert (fault.verb, fault.errno) == ("device", 18)
    assert list((tmp_path / "bound").iterdir()) == []


def test_a_link_is_left_when_it_is_the_same_and_refused_when_another(world: World) -> None:
    os.symlink("/one", os.path.join(world.root, "link"))
    exit, output = world.run("readlink", "/link", extra=[("symlink", "/one", "/link"), ("symlink", "a", "/sub/dir/b")])
    assert (exit["status"], output) == (0, "/one\n")
    assert os.readlink(os.path.join(world.root, "sub/dir/b")) == "a"
    assert world.fails("true", extra=[("symlink", "/two", "/link")]).errno == 17


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("kind", ["absolute", "relative", "inside", "file", "dangling"])
def test_proc_and_sys_must_be_real_directories(
    world: World, canary: Path, name: str, kind: str, legacy: list[Operation]
) -> None:
    place = os.path.join(world.root, name)
    if kind == "file":
        Path(place).write_text("")
    else:
        targets = {"absolute": str(canary), "relative": "../canary", "inside": "/bin", "dangling": "/nowhere"}
        os.symlink(targets[kind], place)
    fault = world.fails("true", before=legacy, extra=[("mount", "sysfs", "sysfs", "/sys", "ro")])
    assert (fault.verb, fault.path) == ("mount", f"/{name}")
    assert fault.errno in (40, 20)  # ELOOP, ENOTDIR


@pytest.mark.parametrize("legacy", LEGACY)
@pytest.mark.parametrize("name", ["dev", "dev/pts", "dev/shm", "etc"])
def test_links_to_outside_lead_nowhere(world: World, canary: Path, name: str, legacy: list[Operation]) -> None:
    place = os.path.join(world.root, name)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    depth = name.count("/") + 1
    for target in (str(canary), "../" * depth + "canary", "../" * 12 + str(canary)[1:]):
        os.symlink(target, place)
        extra: list[Operation] = [
            ("mount", "tmpfs", "shm", "/dev/shm", "", "size=64k"), ("directory", "/etc/made", "755"),
            ("bind", "/etc/hostname", "/etc/hostname", 0, "ro", ""),
            ("symlink", "x", "/etc/link"), ("mask", "/etc/secret"),
        ]  # fmt: skip
        started = launch(world.plan("true", before=legacy, extra=extra))
        data = started.until("fx")  # refused, or done inside the root: both are safe
        started.close()
        assert data[:1] in (b"f", b"x")
        os.unlink(place)
    assert not os.path.exists(os.path.join(world.root, "..", "nowhere"))


def test_a_dangling_link_as_a_target_is_made_where_it_points_inside(world: World) -> None:
    os.makedirs(os.path.join(world.root, "etc"))
    os.symlink("../run/resolve/stub.conf", os.path.join(world.root, "etc", "resolv.conf"))
    os.symlink("/var/data", os.path.join(world.root, "data"))
    extra: list[Operation] = [
        ("bind", "/etc/hostname", "/etc/resolv.conf", 0, "ro", ""), ("directory", "/data/deep/er", "755"),
    ]  # fmt: skip
    exit, output = world.run("cat", "/etc/resolv.conf", extra=extra)
    assert (exit["status"], output) == (0, Path("/etc/hostname").read_text())
    assert os.path.exists(os.path.join(world.root, "run/resolve/stub.conf"))
    assert os.path.isdir(os.path.join(world.root, "var/data/deep/er"))


@pytest.mark.parametrize(
    "path", ["/a/../../../x", "/loop/x", "/loop", "/" + "n" * 256, "/" + "d/" * 2100, "/bin/busybox/x", "/a/.."]
)
def test_a_bad_directory_is_refused_or_stays_inside(world: World, path: str) -> None:
    os.symlink("loop", os.path.join(world.root, "loop"))
    outside = set(os.listdir(world.directory))
    started = launch(world.plan("true", extra=[("directory", path, "755")]))
    started.until("fx")
    started.close()
    assert set(os.listdir(world.directory)) == outside
    assert not os.path.exists("/x")


@pytest.mark.parametrize(
    "operation",
    [
        ("mount", "nosuchfs", "x", "/x", ""),
        ("mount", "tmpfs", "t", "/x", "bogus"),
        ("mount", "tmpfs", "t", "/x", "", "no_such_option=1"),
        ("bind", "/etc", "/x", 0, "rox", ""),
        ("bind", "/etc", "/x", 0, "", "everywhere"),
        ("propagation", "/", "everywhere"),
        ("propagation", "/absent", "private"),
        ("root-overlay", "/absent", "", "", "", "/a", "/b"),
        ("root-bind", "/tmp", "/absent"),
    ],
)
def test_what_the_kernel_refuses_is_reported_with_its_verb(world: World, operation: Operation) -> None:
    fault = world.fails("true", extra=[operation])
    assert fault.verb == operation[0]
    assert fault.errno > 0 and fault.call


def test_a_root_that_was_never_mounted_is_not_pivoted_to(world: World) -> None:
    fault = world.fails("true", mounts=[("pivot-root",)])
    assert (fault.verb, fault.call) == ("pivot-root", "pivot_root")


def test_a_cgroup_namespace_hides_the_hierarchy_above(world: World) -> None:
    hierarchy = Path("/sys/fs/cgroup/unified" if Path("/sys/fs/cgroup/unified").is_dir() else "/sys/fs/cgroup")
    if not (hierarchy / "cgroup.procs").exists():
        pytest.skip("no cgroup v2 hierarchy is mounted on this machine")
    directory = hierarchy / f"cloison-test-{os.getpid()}"
    directory.mkdir()
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        late: list[Operation] = [("await-start", "client")]
        mounts: list[Operation] = [
            ("unshare", "cgroup"),
            *world.mounts(extra=[("mount", "cgroup2", "cgroup", "/sys/fs/cgroup", "ro")]),
        ]
        plan = world.plan(
            "sh", "-c", "grep '^0:' /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs", mounts=mounts, late=late
        )
        started = launch([("cgroup-fd", "{0}"), *plan], fds=[fd])
        pid = started.pid()
        started.until("w")
        assert (directory / "cgroup.procs").read_text().split() == [str(pid)]
        started.send("A", b"\6")
        started.send("S")
        assert started.exit()["status"] == 0
        assert started.output().split()[0] == b"0::/"
        started.close()
        os.close(fd)
    finally:
        directory.rmdir()


def test_mounts_made_inside_do_not_reach_the_host_nor_the_hosts_the_inside(world: World, tmp_path: Path) -> None:
    (tmp_path / "peer").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "cloison-test", str(tmp_path / "peer")], check=True)
    subprocess.run(["mount", "--make-shared", str(tmp_path / "peer")], check=True)
    try:
        mounts_do_not_travel(world, tmp_path / "peer" / "shared")
    finally:
        subprocess.run(["umount", "-R", str(tmp_path / "peer")], check=True)


def mounts_do_not_travel(world: World, directory: Path) -> None:
    directory.mkdir()
    binds: list[Operation] = [("bind", str(directory), target, 1, "", "") for target in ("/shared", "/inner")]
    # Cut off the weak way: what the host mounts later would arrive below a bind that was not made private
    mounts: list[Operation] = [("propagation", "/", "rslave"), *world.mounts(extra=binds)[1:]]
    code = "mount -t tmpfs inside /inner; cat; ls /shared"
    started = launch(world.plan("sh", "-c", code, mounts=mounts, late=[("await-start", "client")]))
    started.send("A", b"\7")
    started.send("S")
    started.until("s")
    subprocess.run(["mount", "-t", "tmpfs", "cloison-test", str(directory)], check=True)
    (directory / "of-the-host").write_text("")
    seen = Path("/proc/self/mountinfo").read_text()
    started.send("E")
    assert started.exit()["status"] == 0
    assert started.output() == b""
    assert " - tmpfs inside " not in seen
    started.close()


def test_what_lies_in_the_root_keeps_its_modes(world: World) -> None:
    os.mkdir(os.path.join(world.root, "tmp"), 0o700)
    extra: list[Operation] = [("directory", "/tmp", "1777"), ("directory", "/var/tmp", "1777")]
    world.run("true", extra=extra, namespaces=NAMESPACES)
    assert stat.S_IMODE(os.stat(os.path.join(world.root, "tmp")).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(world.root, "var/tmp")).st_mode) == 0o1777
    assert stat.S_IMODE(os.stat(os.path.join(world.root, "var")).st_mode) == 0o755
