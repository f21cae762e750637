"""What every snapshot driver owes: layers that mean what they say, containers that keep to themselves, nothing left.

overlay and native run where the tests run; btrfs, and native that shares blocks, on file systems in a file.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.archive.union import Union
from cloison.errors import Conflict, InvalidArgument, NotFound
from cloison.snapshots import probing
from cloison.snapshots.drivers import NAMES, open_snapshots
from cloison.snapshots.snapshotter import Snapshotter
from harness import Cloison, Roots, compare, ledger, until
from registry_fixture import digest_of
from tree_changes import EXPECTED, SCRIPT
from unpack_fixture import archive, file, folder, hardlink, symlink

DRIVERS = {"overlay": "", "native": "", "native on xfs": "xfs", "btrfs": "btrfs", "fuse-overlayfs": ""}
MAKE = {"xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q"]}


@pytest.fixture(params=DRIVERS)
def roots(request: pytest.FixtureRequest) -> Iterator[Roots]:
    """Empty roots with one driver; afterwards the kernel holds nothing of them."""
    driver, disk = request.param.partition(" ")[0], DRIVERS[request.param]
    tools = [MAKE[disk][0]] if disk else [driver] if driver == "fuse-overlayfs" else []
    if missing := [tool for tool in tools if not shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin")]:
        pytest.skip(f"needs {missing[0]}")
    folder_ = Path(tempfile.mkdtemp(prefix="cloison-t", dir="/var/tmp"))
    data_root = folder_ / "data"
    data_root.mkdir(mode=0o700)
    if disk:
        image = folder_ / "disk"
        with open(image, "wb") as out:
            out.truncate(400 << 20)
        subprocess.run([*MAKE[disk], image], check=True, capture_output=True)
        mounted = subprocess.run(["mount", "-o", "loop", image, data_root], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"cannot mount {disk} here: {mounted.stderr.strip()}")
        data_root = data_root / "root"
    own = Driven(data_root=str(data_root), driver=driver)
    try:
        before = ledger(own)
        yield own
        Cloison(own).remove_all()
        until(lambda: not compare(before, ledger(own)), timeout_s=30, what="the end of all that was made")
    finally:
        own.remove()
        if disk:
            # what a failed test holds open must not keep the machine from its disk
            subprocess.run(["umount", "-l", folder_ / "data"], check=True)
        shutil.rmtree(folder_)


class Driven(Roots):
    """Roots whose engine uses one driver."""

    def __init__(self, *, data_root: str, driver: str) -> None:
        self.driver = driver
        super().__init__(data_root=data_root)

    @property
    def environ(self) -> dict[str, str]:
        return {**super().environ, "CLOISON_STORAGE_DRIVER": self.driver}


@pytest.fixture
def snapshots(roots: Roots) -> Snapshotter:
    return open_snapshots(roots.settings)


@pytest.fixture
def command(roots: Roots) -> Cloison:
    return Cloison(roots)


BASE = archive(
    folder("."), folder("etc", mode=0o750, uid=5), file("etc/a", b"a"), file("etc/b", b"b"), folder("opt"),
    file("opt/old"), file("setuid", b"s", mode=0o4755, uid=7), hardlink("again", "setuid"), symlink("link", "/etc/a"),
)  # fmt: skip
MIDDLE = archive(file("etc/.wh.a", b""), file("opt/.wh..wh..opq", b""), file("opt/new"), file("etc/c", b"c"))
TOP = archive(file(".wh.link", b""), folder("link"), file("link/inside"), file(".wh.opt", b""), file("etc/b", b"B"))


def stack(snapshots: Snapshotter, *layers: bytes) -> list[str]:
    """Commit layers on top of each other; their names."""
    chain: list[str] = []
    for data in layers:
        name = digest_of("".join([*chain, digest_of(data)]).encode()) if chain else digest_of(data)
        staged = snapshots.stage(io.BytesIO(data))
        assert staged.applied.diff_id == digest_of(data)
        staged.commit(name, below=chain)
        chain.append(name)
    return chain


def shown(directories: object) -> dict[str, tuple[int, int, int]]:
    """Path -> mode, owner, links of a merged tree."""
    found = {}
    with Union(directories) as tree:  # type: ignore[arg-type]
        waiting = [tree.root()]
        while waiting:
            for item in tree.children(waiting.pop()):
                found[os.fsdecode(item.path)] = (item.info.st_mode & 0o7777, item.info.st_uid, item.info.st_nlink)
                waiting += [item] if item.is_directory else []
    return found


def paths(directories: object) -> set[str]:
    return set(shown(directories))


def test_layers_on_top_of_each_other_add_change_and_delete(snapshots: Snapshotter) -> None:
    chain = stack(snapshots, BASE, MIDDLE, TOP)
    assert set(snapshots.list_layers()) == set(chain)
    base = shown(snapshots.layer_directories(chain[:1]))
    assert set(base) == {"etc", "etc/a", "etc/b", "opt", "opt/old", "setuid", "again", "link"}
    assert (base["setuid"], base["etc"][:2]) == ((0o4755, 7, 2), (0o750, 5))
    middle = shown(snapshots.layer_directories(chain[:2]))
    assert set(middle) == {"etc", "etc/b", "etc/c", "opt", "opt/new", "setuid", "again", "link"}
    assert middle["etc"][:2] == (0o750, 5)  # not described by the layer: as below
    top = shown(snapshots.layer_directories(chain))
    assert set(top) == {"etc", "etc/b", "etc/c", "setuid", "again", "link", "link/inside"}


def test_a_layer_is_invisible_until_it_is_committed_and_gone_when_discarded(snapshots: Snapshotter) -> None:
    staged = snapshots.stage(io.BytesIO(BASE))
    name = digest_of(BASE)
    assert not snapshots.has(name) and not list(snapshots.list_layers())
    staged.discard()
    assert os.listdir(snapshots.incoming) == []
    with pytest.raises(InvalidArgument):
        snapshots.stage(io.BytesIO(b"no archive" * 100))
    assert os.listdir(snapshots.incoming) == []
    first, second = snapshots.stage(io.BytesIO(BASE)), snapshots.stage(io.BytesIO(BASE))
    first.commit(name)
    second.commit(name)  # somebody was quicker
    assert list(snapshots.list_layers()) == [name]
    assert os.listdir(snapshots.incoming) == []


def test_what_a_crash_left_is_swept(snapshots: Snapshotter) -> None:
    chain = stack(snapshots, BASE)
    staged = snapshots.stage(io.BytesIO(MIDDLE))
    staged.adopt(chain)
    snapshots.sweep()
    assert os.listdir(snapshots.incoming) != []  # its maker lives
    os.close(staged._lock.fd)  # type: ignore[attr-defined]
    staged._lock.fd = -1  # type: ignore[attr-defined]
    snapshots.sweep()
    assert os.listdir(snapshots.incoming) == []


def test_layers_and_snapshots_that_are_not_there_or_there_twice(snapshots: Snapshotter) -> None:
    chain = stack(snapshots, BASE)
    with pytest.raises(NotFound):
        snapshots.prepare("one", ["sha256:" + "0" * 64], volatile=False)
    assert "one" not in list(snapshots.list_containers())
    with pytest.raises(NotFound):
        snapshots.mount_of("one", chain, volatile=False)
    snapshots.prepare("one", chain, volatile=False)
    with pytest.raises(Conflict):
        snapshots.prepare("one", chain, volatile=False)
    with pytest.raises(InvalidArgument):
        snapshots.prepare("../x", chain, volatile=False)
    assert list(snapshots.list_containers()) == ["one"]
    assert snapshots.remove("one") and not snapshots.remove("one")
    assert snapshots.remove_layer(chain[0]) and not snapshots.remove_layer(chain[0])
    assert list(snapshots.list_layers()) == list(snapshots.list_containers()) == []


def test_a_directory_says_nothing_of_an_unwritten_container(snapshots: Snapshotter) -> None:
    chain = stack(snapshots, BASE, MIDDLE, TOP)
    snapshots.prepare("one", chain, volatile=False)
    assert paths(snapshots.directories_of("one", chain)) >= paths(snapshots.layer_directories(chain))
    snapshots.remove("one")


# --- with the engine


@pytest.fixture
def busybox(command: Cloison, busybox_tar: bytes) -> str:
    done = subprocess.run(
        command.argv("import", "-c", "ENV PATH=/bin", "-c", 'CMD ["sh"]', "-", "busybox"), input=busybox_tar,
        capture_output=True, env=command.roots.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return "busybox"


def test_containers_of_one_image_keep_to_themselves(command: Cloison, busybox: str) -> None:
    for name in ("one", "two"):
        script = f"cat /mine; echo {name} > /mine; cat /mine; rm /etc/passwd"
        text = command.shell(f"cloison run --name {name} --network none {busybox} sh -c '{script}' 2>/dev/null").stdout
        assert text == f"{name}\n"
    assert "root" in command.ok("run", "--rm", "--network", "none", busybox, "cat", "/etc/passwd")
    assert command.ok("diff", "two").splitlines() == ["C /etc", "D /etc/passwd", "A /mine"]
    command.ok("rm", "one", "two")


def test_diff_commit_and_export_are_the_same_with_every_driver(command: Cloison, busybox: str) -> None:
    command.ok("run", "--name", "made", "--network", "none", "--cap-add", "MKNOD", busybox, "sh", "-c", SCRIPT)
    assert set(command.ok("diff", "made").splitlines()) == EXPECTED
    command.ok("commit", "made", "made:1")
    command.ok("create", "--name", "again", "--network", "none", "made:1", "true")
    assert command.ok("diff", "again") == ""
    assert members(command, "again") == members(command, "made")
    assert command.ok("run", "--rm", "--network", "none", "made:1", "cat", "/again", "/tmp/inside") == "new\nx"
    counts = command.ok("image", "tree", "made:1").splitlines()[-1].partition("Files: ")[2].split()[:3]
    assert counts == ["+15", "~5", "-1"] or counts[2] == "-1"
    assert command.ok("system", "check") == "No problem found"
    command.ok("rm", "made", "again")


def members(command: Cloison, name: str) -> dict[str, tuple[object, ...]]:
    done = subprocess.run(command.argv("export", name), env=command.roots.environ, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {
            info.name: (info.type, info.mode, info.uid, info.gid, info.mtime, info.linkname, info.size)
            for info in tar
            if info.name != "."
        }


def test_a_container_that_runs_twice_finds_what_it_wrote(command: Cloison, busybox: str) -> None:
    command.ok("run", "--name", "twice", "--network", "none", busybox, "sh", "-c", "echo x >> /file; cat /file")
    assert command.ok("start", "-a", "twice") == "x\nx"
    command.ok("rm", "twice")


def test_a_killed_monitor_leaves_nothing_in_the_way(command: Cloison, busybox: str) -> None:
    command.ok("run", "-d", "--name", "shot", "--network", "none", busybox, "sleep", "300")
    command.ok("exec", "shot", "touch", "/x")
    command.ok("kill", "shot")
    until(lambda: command.inspect("shot")["State"]["Status"] == "exited")
    assert command.ok("diff", "shot") == "A /x"
    command.ok("start", "shot")
    assert command.ok("exec", "shot", "ls", "/x") == "/x"
    command.ok("rm", "-f", "shot")


def test_damage_is_found_and_mended_with_every_driver(command: Cloison, busybox: str) -> None:
    command.ok("run", "--name", "more", "--network", "none", busybox, "sh", "-c", "echo y > /y; rm /etc/group")
    command.ok("commit", "more", "more:1")
    command.ok("rm", "more")
    snapshots = open_snapshots(command.settings)
    from cloison.engine.images import Images

    top = Path(snapshots.layer_path(Images(command.settings).find("more:1").layers[-1]))
    (top / "y").write_text("z")
    assert "/y is not as it was unpacked" in command("system", "check").stdout
    command.ok("system", "check", "--repair")
    assert command.ok("run", "--rm", "--network", "none", "more:1", "cat", "/y") == "y"
    assert command.ok("system", "check") == "No problem found"


def test_the_driver_is_said_and_kept_and_prune_leaves_nothing(command: Cloison, roots: Roots, busybox: str) -> None:
    assert command.ok("info", "--format", "{{.Driver}}") == command.settings.storage_driver
    other = next(name for name in NAMES if name != command.settings.storage_driver)
    refused = command("run", "--rm", busybox, "true", CLOISON_STORAGE_DRIVER=other)
    assert f"cannot use the storage driver {other}: " in refused.stderr
    assert command.ok("run", "--rm", "--network", "none", busybox, "echo", "kept", CLOISON_STORAGE_DRIVER="") == "kept"
    rows = [json.loads(line) for line in command.ok("system", "df", "--format", "json").splitlines()]
    assert [row["Type"] for row in rows][:2] == ["Images", "Containers"]
    command.ok("image", "prune", "-af")
    snapshots = open_snapshots(command.settings)
    assert list(snapshots.list_layers()) == list(snapshots.list_containers()) == os.listdir(snapshots.incoming) == []


def test_where_the_kernel_mounts_no_overlay_the_next_that_works_is_taken(tmp_path: Path, busybox_tar: bytes) -> None:
    """A data root that lies on an overlay itself, as inside of another engine's container."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = ",".join(f"{name}dir={tmp_path}/{name}" for name in ("lower", "upper", "work"))
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", tmp_path / "merged"], check=True)
    own = Roots(data_root=f"{tmp_path}/merged/data")
    command = Cloison(own)
    try:
        done = subprocess.run(
            command.argv("import", "-", "busybox"), input=busybox_tar, env=own.environ, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        driver = command.ok("info", "--format", "{{.Driver}}")
        assert driver in ("fuse-overlayfs", "native")
        assert "overlay: " in command.ok("info", "--format", "{{json .DriverStatus}}")
        assert command.ok("run", "--rm", "--network", "none", "busybox", "/bin/echo", "hello") == "hello"
    finally:
        command.remove_all()
        own.remove()
        subprocess.run(["umount", tmp_path / "merged"], check=True)


def test_an_unknown_driver_is_refused_by_name() -> None:
    own = Roots()
    try:
        refused = Cloison(own)("image", "prune", "-f", CLOISON_STORAGE_DRIVER="zfs")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("cloison: unknown storage driver 'zfs'\nhint: there are overlay, btrfs, ")
    finally:
        own.remove()


def test_an_image_is_mounted_to_look_into_with_every_driver(command: Cloison, busybox: str) -> None:
    command.ok("run", "--name", "more", "--network", "none", busybox, "sh", "-c", "echo y > /y; rm /etc/group")
    command.ok("commit", "more", "more:1")
    command.ok("rm", "more")
    for name, has in ((busybox, True), ("more:1", False)):
        path = Path(command.ok("image", "mount", name))
        assert (path / "etc/group").exists() == has and (path / "bin/busybox").exists()
        with pytest.raises(OSError, match="Read-only"):
            (path / "y").write_text("z")
    command.ok("image", "unmount", "-a")


def test_a_probe_that_was_killed_is_swept_and_one_at_work_is_let_be(tmp_path: Path) -> None:
    corner = tmp_path / ".probe"
    (corner / "upper").mkdir(parents=True)
    with pytest.raises(OSError, match="no overlay here"):
        probing.in_a_corner_of(str(tmp_path), _refuse)
    assert not corner.exists()
    corner.mkdir()
    probing.sweep(str(tmp_path))
    assert not corner.exists()

    def look(_corner: str) -> None:
        probing.sweep(str(tmp_path))
        assert corner.exists()

    probing.in_a_corner_of(str(tmp_path), look)


def _refuse(corner: str) -> None:
    assert os.listdir(corner) == []
    raise OSError("no overlay here")
