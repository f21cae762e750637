"""Images of this machine's own programs: they run with nothing but what is inside, and are the same each time."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.archive.unpack import apply_layer
from cloison.engine.images import Images
from cloison.errors import InvalidArgument, NotFound
from cloison.images.elf import read_elf
from cloison.model.image import Image
from cloison.model.settings import settings_for
from cloison.snapshots.overlay import Overlay
from harness import Roots
from unpack_fixture import describe, opened


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    roots = Roots()
    yield Images(settings_for(roots.environ))
    roots.remove()


@pytest.fixture(scope="module")
def base(images: Images) -> Image:
    began = time.process_time()
    image = images.ensure("host/base")
    assert time.process_time() - began < 30  # an order of magnitude above what it takes
    return image


def root_of(images: Images, image: Image) -> Path:
    return Path(Overlay(images._settings.data_root).layer_path(image.layers[-1]))


def inside(root: Path, *words: str, **env: str) -> str:
    """Run a command with the image as its root: nothing of the machine is left to help it."""
    argv = ["chroot", str(root), *words]
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", **env})
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("sh", "-c", "echo hello | tr a-z A-Z | grep HELLO"), ("ls", "-l", "/"), ("id", "-un"),
        ("cat", "/etc/os-release"),
        ("awk", "BEGIN { print 6 * 7 }"), ("sed", "s/root/x/", "/etc/passwd"), ("find", "/etc", "-name", "passwd"),
        ("tar", "--version"), ("sh", "-c", "echo x | gzip | gunzip"), ("env",), ("date",), ("which", "ls"),
    ],
)  # fmt: skip
def test_the_usual_programs_run_inside(images: Images, base: Image, words: tuple[str, ...]) -> None:
    assert inside(root_of(images, base), *words)


def test_python_runs_inside_with_its_standard_library(images: Images, base: Image) -> None:
    if not os.path.exists("/usr/bin/python3"):
        pytest.skip("this machine has no system Python")
    program = (
        "import asyncio, ctypes, decimal, email, hashlib, json, lzma, socket, sqlite3, ssl, subprocess, sys, zoneinfo\n"
        "print(subprocess.run(['echo', 'child'], capture_output=True, text=True).stdout.strip())\n"
        "print(zoneinfo.ZoneInfo('Europe/Berlin'))\n"
        "print(ssl.create_default_context().cert_store_stats()['x509_ca'] > 50)\n"
    )
    assert inside(root_of(images, base), "python3", "-I", "-c", program).split() == ["child", "Europe/Berlin", "True"]


def test_time_zones_and_users_are_there(images: Images, base: Image) -> None:
    root = root_of(images, base)
    if os.path.isdir("/usr/share/zoneinfo"):
        assert inside(root, "date", "-d", "@0", "+%H %Z", TZ="Asia/Tokyo") == "09 JST\n"
    assert inside(root, "id", "-u", "nobody") == "65534\n"
    assert inside(root, "sh", "-c", "echo ~root") == "/root\n"


def test_the_same_programs_give_the_same_image(images: Images) -> None:
    first = images.from_host("one", ["sh", "ls", "cat"])
    time.sleep(1.1)  # a clock inside would show
    second = images.from_host("two", ["sh", "ls", "cat"])
    assert first == second.replace(repo_digests=first.repo_digests)
    assert images.find("one").id == images.find("two").id


def test_the_layer_blob_unpacks_to_the_layer(images: Images, tmp_path: Path) -> None:
    from cloison.store.blobs import Blobs

    image = images.from_host("one", ["sh", "ls", "cat"])
    blobs = Blobs(images._settings.data_root)
    (layer,) = json.loads(blobs.read(image.digest))["layers"]
    data = blobs.read(layer["digest"], 100 << 20)
    (tmp_path / "root").mkdir()
    with opened(tmp_path / "root") as fd:
        assert apply_layer(io.BytesIO(data), root_fd=fd).diff_id == image.layers[0]
    assert describe(tmp_path / "root") == describe(root_of(images, image))


def test_a_minimal_image_is_small_and_holds_only_what_is_needed(images: Images) -> None:
    image = images.from_host("small", ["sh"])
    root = root_of(images, image)
    programs = {path.name for path in (root / "usr/bin").iterdir()} | {path.name for path in (root / "bin").iterdir()}
    assert programs <= {"sh", "dash", "bash"}
    assert inside(root, "/bin/sh", "-c", "echo here") == "here\n"
    assert image.size_bytes < 12_000_000
    assert not any(info[0].startswith("0o104") for info in describe(root).values())  # no setuid


def test_link_chains_are_kept_as_they_are(images: Images) -> None:
    if not os.path.islink("/usr/bin/awk"):
        pytest.skip("awk is no link on this machine")
    root = root_of(images, images.from_host("links", ["awk", "sh"]))
    path = "/usr/bin/awk"
    while os.path.islink(path):
        target = os.readlink(path)
        assert os.readlink(f"{root}{path}") == target
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))
    assert os.path.isfile(f"{root}{path}")


def test_a_script_brings_its_interpreter(images: Images, tmp_path: Path) -> None:
    script = tmp_path / "greet"
    script.write_text("#!/usr/bin/env sh\necho greetings\n")
    script.chmod(0o755)
    root = root_of(images, images.from_host("script", [str(script)]))
    assert inside(root, str(script)) == "greetings\n"


def test_a_program_with_a_library_beside_it_brings_that(images: Images, tmp_path: Path) -> None:
    if not shutil.which("gcc"):
        pytest.skip("needs gcc")
    (tmp_path / "l.c").write_text("int answer(void) { return 42; }")
    (tmp_path / "m.c").write_text("int answer(void); int main(void) { return answer() - 42; }")
    (tmp_path / "lib").mkdir()
    program = tmp_path / "prog"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "lib/libanswer.so", tmp_path / "l.c"], check=True)
    link = ["-L", tmp_path / "lib", "-lanswer", "-Wl,-rpath,$ORIGIN/lib"]
    subprocess.run(["gcc", "-o", program, tmp_path / "m.c", *link], check=True)
    root = root_of(images, images.from_host("beside", [str(program), "sh"]))
    # without /proc the dynamic linker has no other way to know where the program lies
    inside(root, str(program), LD_ORIGIN_PATH=str(tmp_path))


def test_the_elf_reader_agrees_with_readelf() -> None:
    if not shutil.which("readelf"):
        pytest.skip("needs binutils")
    for path in ("/bin/ls", "/usr/bin/env", "/bin/sh"):
        fd = os.open(path, os.O_RDONLY)
        try:
            elf = read_elf(fd)
        finally:
            os.close(fd)
        text = subprocess.run(["readelf", "-dl", path], capture_output=True, text=True, check=True).stdout
        needed = [line.split("[")[1].rstrip("]") for line in text.splitlines() if "(NEEDED)" in line]
        assert elf is not None
        assert list(elf.needed) == needed
        assert f"interpreter: {elf.interpreter}]" in text


@pytest.mark.parametrize("size", [0, 3, 4, 51, 64, 200])
def test_a_damaged_elf_file_is_no_elf_file(tmp_path: Path, size: int) -> None:
    data = bytearray(Path("/bin/ls").read_bytes()[:size])
    (tmp_path / "x").write_bytes(data)
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    try:
        elf = read_elf(fd)
    finally:
        os.close(fd)
    assert elf is None or elf.needed == ()


def test_a_command_that_is_not_there_is_named(images: Images) -> None:
    with pytest.raises(NotFound, match="no such command on this machine: no-such-command"):
        images.from_host("x", ["sh", "no-such-command"])
    with pytest.raises(InvalidArgument):
        images.from_host("x", [])
    with pytest.raises(NotFound):
        images.find("x")


def test_several_first_users_wait_for_one_maker() -> None:
    roots = Roots()
    try:
        found: list[Image] = []
        threads = [
            threading.Thread(target=lambda: found.append(Images(settings_for(roots.environ)).ensure("host/base")))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 3
        assert len({image.id for image in found}) == 1
    finally:
        roots.remove()
