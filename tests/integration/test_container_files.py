"""``diff``, ``export``, ``commit``: what a container wrote, as a list, as an archive, as an image."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cloison
from tree_changes import EXPECTED, SCRIPT


@pytest.fixture
def written(cloison: Cloison, busybox_image: str) -> Iterator[str]:
    cloison.ok("run", "--name", "written", "--network", "none", "--cap-add", "MKNOD", busybox_image, "sh", "-c", SCRIPT)
    yield "written"
    cloison.ok("rm", "-f", "written")


def export(cloison: Cloison, name: str) -> bytes:
    done = subprocess.run(cloison.argv("export", name), env=cloison.roots.environ, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def members(data: bytes) -> dict[str, tuple[object, ...]]:
    """Everything that an archive says of its members but the root's time, which is that of the container."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isreg() else None
            content = file.read() if file else b""
            found[info.name] = (
                info.type, oct(info.mode), info.uid, info.gid, info.mtime if info.name != "." else 0, info.linkname,
                info.devmajor, info.devminor, content, tuple(sorted(info.pax_headers.items())) if info.isreg() else (),
            )  # fmt: skip
    return found


def test_diff_tells_what_was_added_changed_and_deleted(cloison: Cloison, written: str) -> None:
    assert set(cloison.ok("diff", written).splitlines()) == EXPECTED
    lists = json.loads(cloison.ok("diff", "--format", "json", written))
    assert lists["deleted"] == ["/etc/passwd"]
    assert "/new" in lists["added"]


def test_a_container_that_wrote_nothing_has_no_changes(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "--name", "quiet", "--network", "none", busybox_image, "true")
    assert cloison.ok("diff", "quiet") == ""
    image_id = cloison.ok("commit", "quiet")
    layers = cloison.inspect(image_id)["RootFS"]["Layers"]
    assert layers == cloison.inspect(busybox_image)["RootFS"]["Layers"]
    assert cloison.ok("history", "-q", "--no-trunc", image_id).splitlines()[0] == image_id
    cloison.ok("rm", "quiet")
    cloison.ok("rmi", image_id)


def test_a_container_of_the_committed_image_has_the_very_same_files(cloison: Cloison, written: str) -> None:
    cloison.ok("commit", written, "same:1")
    cloison.ok("create", "--name", "same", "--network", "none", "same:1", "true")
    exported = members(export(cloison, written))
    assert {"new", "again", "pipe", "null", "sparse", "root"} <= set(exported)
    assert exported["again"][:1] == (tarfile.SYMTYPE,) or exported["new"][0] == tarfile.LNKTYPE
    assert "etc/passwd" not in exported
    assert members(export(cloison, "same")) == exported
    assert cloison.ok("diff", "same") == ""
    cloison.ok("rm", "same")
    cloison.ok("rmi", "same:1")


def test_what_is_exported_is_what_the_container_sees(cloison: Cloison, written: str, tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    subprocess.run(["tar", "-x", "-C", tmp_path / "rootfs"], input=export(cloison, written), check=True)
    script = "cd / && find . -xdev -type f -exec md5sum {} + | grep -v ' ./dev/' | sort -k2"
    cloison.ok("commit", written, "seen:1")
    inside = cloison.ok("run", "--rm", "--network", "none", "seen:1", "sh", "-c", script)
    outside = subprocess.run(
        ["sh", "-c", script.replace("cd /", f"cd {tmp_path}/rootfs")], capture_output=True, text=True, check=True
    ).stdout
    mounted = ("./etc/hosts", "./etc/hostname", "./etc/resolv.conf")
    assert [line for line in inside.splitlines() if not line.endswith(mounted)] == outside.splitlines()
    cloison.ok("rmi", "seen:1")


def test_the_same_changes_give_the_same_layer(cloison: Cloison, written: str) -> None:
    one, two = cloison.ok("commit", written), cloison.ok("commit", "-m", "again", written)
    assert one != two
    assert cloison.inspect(one)["RootFS"] == cloison.inspect(two)["RootFS"]
    cloison.ok("rmi", one, two)


def test_a_commit_says_how_the_container_was_run(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "--name", "words", "--network", "none", "-e", "A=1", "-w", "/var", "-u", "web", "-l", "k=v",
               busybox_image, "sh", "-c", "touch /tmp/x")  # fmt: skip
    image_id = cloison.ok("commit", "-a", "Ann", "-m", "why", "-c", "EXPOSE 80", "-c", 'CMD ["true"]', "words", "w:1")
    document = cloison.inspect("w:1")
    config = document["Config"]
    assert (document["Id"], document["Author"], document["Comment"]) == (image_id, "Ann", "why")
    places = document["GraphDriver"]
    assert places["Name"] == "overlay" and os.path.isfile(f"{places['Data']['UpperDir']}/tmp/x")
    assert os.path.isfile(f"{places['Data']['LowerDir']}/bin/busybox")
    assert (config["User"], config["WorkingDir"], config["Labels"]) == ("web", "/var", {"k": "v"})
    assert (config["Cmd"], config["ExposedPorts"]) == (["true"], {"80/tcp": {}})
    assert {"A=1", "PATH=/bin"} <= set(config["Env"])
    newest, base = cloison.ok("history", "--format", "{{.CreatedBy}}|{{.Comment}}|{{.Size}}", "w:1").splitlines()
    assert newest == "sh -c touch /tmp/x|why|0B"
    assert not base.endswith("|0B")
    cloison.ok("rm", "words")
    cloison.ok("rmi", "w:1")


def test_a_running_container_goes_on_after_its_commit(cloison: Cloison, busybox_image: str) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done"
    cloison.ok("run", "-d", "--name", "busy", "--network", "none", busybox_image, "sh", "-c", script)
    for flag in ("--pause", "--pause=false", "--no-pause"):
        image_id = cloison.ok("commit", flag, "busy")
        assert cloison.inspect("busy")["State"]["Status"] == "running"
        cloison.ok("rmi", image_id)
    assert len(export(cloison, "busy")) > 1_000_000
    cloison.ok("rm", "-f", "busy")


def test_a_name_that_would_delete_files_is_no_part_of_a_layer(cloison: Cloison, busybox_image: str) -> None:
    cloison.ok("run", "--name", "sly", "--network", "none", busybox_image, "touch", "/.wh.etc")
    result = cloison("commit", "sly", "sly:1")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "cloison: cannot put /.wh.etc in a layer: names that begin with .wh. delete files\n"
    assert "sly" not in cloison.ok("images")
    cloison.ok("rm", "sly")


def test_a_commit_needs_its_image(cloison: Cloison, busybox_tar: bytes, tmp_path: Path) -> None:
    (tmp_path / "rootfs.tar").write_bytes(busybox_tar)
    cloison.ok("import", "-m", "another", str(tmp_path / "rootfs.tar"), "short:1")
    cloison.ok("create", "--name", "left", "--network", "none", "short:1", "/bin/true")
    cloison.ok("rmi", "-f", "short:1")
    result = cloison("commit", "left")
    assert result.returncode == 1
    assert result.stderr.startswith("cloison: cannot commit left: its image sha256:")
    assert "bin/busybox" in members(export(cloison, "left"))
    cloison.ok("rm", "left")


def test_an_archive_is_not_written_to_a_terminal(cloison: Cloison, written: str) -> None:
    main, side = pty.openpty()
    for words in (["export", written], ["save", "busybox"]):
        done = subprocess.run(
            cloison.argv(*words), stdout=side, stderr=subprocess.PIPE, env=cloison.roots.environ, text=True
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"cloison: cowardly refusing to {words[0]} to a terminal\nhint: ")
    os.close(main)
    os.close(side)


def test_a_file_appears_whole_or_not_at_all(cloison: Cloison, written: str, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    target.write_text("old")
    assert cloison("export", "-o", str(target), "nobody").returncode == 1
    assert cloison("save", "-o", str(target), "nothing").returncode == 1
    assert (target.read_text(), os.listdir(tmp_path)) == ("old", ["out.tar"])
    limited = cloison.shell(f"ulimit -f 100; cloison export -o {target} {written}")
    assert limited.returncode == 1, limited
    assert "file too large" in limited.stderr
    assert (target.read_text(), os.listdir(tmp_path)) == ("old", ["out.tar"])
    cloison.ok("export", "-o", str(target), written)
    assert members(target.read_bytes()) == members(export(cloison, written))
    assert cloison("export", "-o", str(tmp_path / "no/where"), written).stderr.startswith(
        f"cloison: open {tmp_path}/no/where: no such file"
    )
    assert cloison.shell(f"cloison export {written} | head -c 1000 | wc -c; echo ${{PIPESTATUS[0]}}").stderr == ""
