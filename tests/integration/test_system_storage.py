"""``system df``, ``system check`` and the prunes: every byte is somebody's, and what nobody needs can go."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Cloison, Roots
from image_store import Store
from registry_fixture import digest_of
from unpack_fixture import archive, file, folder, symlink


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    Cloison(roots).remove_all()
    roots.remove()


@pytest.fixture
def store(command: Cloison) -> Store:
    return Store(command.roots)


def du(path: str | Path) -> int:
    return int(subprocess.run(["du", "-sxB1", path], check=True, capture_output=True, text=True).stdout.split()[0])


SHARED = archive(folder("."), folder("etc"), *(file(f"etc/{i}", os.urandom(3000)) for i in range(200)))


def load(store: Store, *layers: bytes, tag: str, labels: object = (), created: str = "2026-01-02T03:04:05Z") -> None:
    config = {"architecture": "amd64", "os": "linux", "created": created, "config": {"Labels": dict(labels)},  # type: ignore[call-overload]
              "rootfs": {"type": "layers", "diff_ids": [*map(digest_of, layers)]}}  # fmt: skip
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": [tag] if tag else None, "Layers": names}]
    members = {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    files = {**members, **dict(zip(names, layers, strict=True))}
    store.images.load(io.BytesIO(archive(*(file(name, body) for name, body in files.items()))))


def own(size: int = 100_000) -> bytes:
    return archive(file("own", os.urandom(size)))


def row(command: Cloison, kind: str) -> dict[str, str]:
    rows = [json.loads(line) for line in command.ok("system", "df", "--format", "json").splitlines()]
    return next(found for found in rows if found["Type"] == kind)


# --- df


def test_df_is_what_du_says_with_everything_there_is(command: Cloison, store: Store, busybox_tar: bytes) -> None:
    store.images.import_rootfs(io.BytesIO(busybox_tar), "busybox")
    load(store, SHARED, own(), tag="one:1")
    load(store, SHARED, own(), tag="two:1")
    load(store, own(), tag="")
    command.ok(
        "run",
        "--name",
        "wrote",
        "--network",
        "none",
        "-v",
        "data:/data",
        "-v",
        "/anonymous",
        "busybox",
        "/bin/sh",
        "-c",
        "/bin/busybox dd if=/dev/zero of=/file bs=1k count=300; echo x > /data/x; echo y",
    )
    command.ok("create", "--name", "idle", "--network", "none", "one:1", "/x")
    (store.root / "blobs/incoming/left").write_bytes(b"x" * 50_000)
    usage, said = store_usage(store), du(store.root)
    assert abs(usage.total_bytes - said) <= said // 100
    assert {usage_.image.id for usage_ in usage.images} == {listing.image.id for listing in store.images.list()}
    one, two = (next(u for u in usage.images if u.references == (name,)) for name in ("one:1", "two:1"))
    assert one.shared_bytes == two.shared_bytes > 600_000
    assert 200_000 < one.size_bytes - one.shared_bytes < 260_000  # unpacked, and its blob
    (wrote,) = (u for u in usage.containers if u.container.name == "wrote")
    assert 300_000 < wrote.size_bytes < 400_000
    assert sorted((len(volume.name), volume.containers) for volume in usage.volumes) == [(4, 1), (64, 1)]
    assert usage.engine["blobs/incoming"] >= 50_000
    text = command.ok("system", "df", "-v")
    for words in ("one ", "two ", "<none>", "wrote", "data ", "blobs/incoming", "Total: "):
        assert words in text
    assert command("system", "df", "-v", "--format", "json").returncode == 1


def store_usage(store: Store):  # type: ignore[no-untyped-def]
    from cloison.engine.system import System

    return System(store.settings).usage()


def test_reclaimable_is_what_prune_frees(command: Cloison, store: Store) -> None:
    load(store, SHARED, own(), tag="used:1")
    load(store, SHARED, own(), tag="unused:1")
    command.ok("create", "--name", "idle", "--network", "none", "used:1", "/x")
    usage, before = store_usage(store), du(store.root)
    pruned = store.images.prune(all=True)
    assert before - du(store.root) == pruned.reclaimed_bytes
    assert abs(usage.images_reclaimable_bytes - pruned.reclaimed_bytes) < 20_000  # records and names
    assert [listing.reference for listing in store.images.list()] == ["used:1"]
    assert row(command, "Images")["Reclaimable"].startswith("0B")


# --- prune


def images(store: Store) -> list[str]:
    return sorted(listing.reference for listing in store.images.list())


def test_prune_takes_images_without_a_name_and_all_takes_all(command: Cloison, store: Store) -> None:
    load(store, own(), tag="kept:1")
    load(store, own(), tag="")
    text = command.ok("image", "prune", input="y\n")
    assert "WARNING! This will remove all dangling images." in text
    assert "\nDeleted Images:\ndeleted: sha256:" in text or "] Deleted Images:\ndeleted: sha256:" in text
    assert images(store) == ["kept:1"]
    for answer in ("n\n", "", "\n", "maybe\n"):
        command.ok("image", "prune", "-a", input=answer)
        assert images(store) == ["kept:1"]
    assert "untagged: kept:1\ndeleted: sha256:" in command.ok("image", "prune", "-af")
    assert store.is_empty(), store.content()
    assert command.ok("image", "prune", "-af") == "Total reclaimed space: 0B"


def test_prune_spares_what_containers_were_made_from(command: Cloison, store: Store) -> None:
    load(store, own(), tag="used:1")
    command.ok("create", "--name", "idle", "--network", "none", "used:1", "/x")
    assert command.ok("image", "prune", "-af") == "Total reclaimed space: 0B"
    command.ok("container", "prune", "-f")
    assert "untagged: used:1" in command.ok("image", "prune", "-af")


def test_prune_filters_by_age_and_label(command: Cloison, store: Store) -> None:
    load(store, own(), tag="old:1", labels={"a": "1"}.items())
    load(store, own(), tag="new:1", created="2026-03-01T00:00:00Z", labels={"a": "2", "keep": ""}.items())
    for words in ("until=2025-01-01T00:00:00", "label=b", "label=a=3", "label!=a"):
        command.ok("image", "prune", "-af", "--filter", words)
    assert images(store) == ["new:1", "old:1"]
    command.ok("image", "prune", "-af", "--filter", "label=a", "--filter", "label!=keep")
    assert images(store) == ["new:1"]
    load(store, own(), tag="old:1")
    command.ok("image", "prune", "-af", "--filter", "until=2026-02-01T00:00:00Z")
    assert images(store) == ["new:1"]
    assert command("image", "prune", "-af", "--filter", "until=gibberish").returncode == 1
    assert "contradict each other" in command("image", "prune", "-af", "--filter", "dangling=true").stderr
    assert images(store) == ["new:1"]


def test_a_budget_takes_the_longest_unused_first(command: Cloison, store: Store) -> None:
    for name in ("a:1", "b:1", "c:1"):
        load(store, own(1_000_000), tag=name)
    command.ok("create", "--name", "idle", "--network", "none", "a:1", "/x")  # used now, and in use
    command.ok("rm", "idle")  # no longer in use, but used last
    text = command.ok("image", "prune", "-f", "--keep-storage", "4500k")
    assert "untagged: b:1" in text
    assert images(store) == ["a:1", "c:1"]
    assert command.ok("image", "prune", "-f", "--keep-storage", "1g") == "Total reclaimed space: 0B"
    data = archive(*(file(name, body) for name, body in {"x": os.urandom(2_000_000)}.items()))
    path = Path(command.roots.run_root, "rootfs.tar")
    path.write_bytes(data)
    command.ok("import", str(path), "d:1", CLOISON_KEEP_STORAGE="4500k")
    assert images(store) == ["d:1"]  # and what came in a moment ago stays, whatever it takes
    command.ok("import", str(path), "e:1", CLOISON_KEEP_STORAGE="1k")
    assert images(store) == ["e:1"] or images(store) == ["d:1", "e:1"]
    assert "invalid CLOISON_KEEP_STORAGE" in command("images", CLOISON_KEEP_STORAGE="much").stderr


def test_system_prune_takes_containers_images_and_where_asked_volumes(
    command: Cloison, store: Store, busybox_tar: bytes
) -> None:
    store.images.import_rootfs(io.BytesIO(busybox_tar), "busybox")
    load(store, own(), tag="")
    command.ok("run", "--name", "over", "--network", "none", "-v", "data:/d", "-v", "/anon", "busybox", "/bin/true")
    command.ok("run", "-d", "--name", "runs", "--network", "none", "busybox", "/bin/sleep", "300")
    text = command.ok("system", "prune", "-f")
    assert "Deleted Containers:\n" in text and "Deleted Images:\ndeleted: " in text and "Volumes" not in text
    assert command.ok("ps", "-a", "--format", "{{.Names}}") == "runs"
    assert images(store) == ["busybox:latest"]
    assert len(os.listdir(store.root / "volumes")) == 2
    assert "Deleted Volumes:\n" in command.ok("system", "prune", "-af", "--volumes")
    assert os.listdir(store.root / "volumes") == ["data"]
    assert images(store) == ["busybox:latest"]
    assert command("system", "prune", "-f", "--volumes", "--filter", "until=1h").returncode == 1
    command.ok("rm", "-f", "runs")
    assert "Total reclaimed space: " in command.ok("system", "prune", "-af")
    assert store.is_empty(), store.content()


def test_what_goes_while_something_comes_in_is_cleaned_up_by_who_brings_it(store: Store) -> None:
    from cloison.engine.bringing import Bringing

    load(store, own(), tag="gone:1")
    with Bringing(store.settings):
        store.images.remove(["gone:1"])
        assert not store.is_empty()  # nobody can tell its parts from those that are coming
    assert store.is_empty(), store.content()


# --- check


def problems(command: Cloison, *words: str) -> tuple[int, list[str]]:
    result = command("system", "check", *words)
    return result.returncode, result.stdout.splitlines()


def blob_of_layer(store: Store) -> Path:
    manifest = json.loads(store.blobs.read(store.images.find("app:1").digest))
    return Path(store.blobs.path(manifest["layers"][0]["digest"]))


def flip(path: Path) -> None:
    os.chmod(path, 0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def layer(store: Store) -> Path:
    return Path(store.snapshots.layer_path(store.images.find("app:1").layers[0]))


# what is done to the store, what the check says of it, whether the image is there after a repair
DAMAGE: dict[str, tuple[Callable[[Store], object], str, bool]] = {
    "a byte in a file": (lambda s: flip(layer(s) / "etc/file"), "layer sha256:", True),
    "a file removed": (lambda s: (layer(s) / "etc/file").unlink(), "/etc/file is not as it was unpacked", True),
    "a file added": (lambda s: (layer(s) / "etc/more").touch(), "is not as it was unpacked", True),
    "a mode": (lambda s: (layer(s) / "etc/file").chmod(0o4755), "/etc/file is not as it was unpacked", True),
    "an owner": (lambda s: os.chown(layer(s) / "etc", 7, 7), "/etc is not as it was unpacked", True),
    "a link's target": (lambda s: relink(layer(s) / "link"), "/link is not as it was unpacked", True),
    "a whiteout removed": (lambda s: (layer(s) / "white").unlink(), "/white is not as it was unpacked", True),
    "a layer removed": (lambda s: s.snapshots.remove_layer(s.images.find("app:1").layers[0]), "it is missing", True),
    "a byte in a blob": (lambda s: flip(blob_of_layer(s)), "its content has changed", False),
    "a blob cut": (lambda s: os.truncate(blob_of_layer(s), 100), "its content has changed", False),
    "a blob removed": (lambda s: blob_of_layer(s).unlink(), "the blob is missing", False),
    "the configuration": (lambda s: flip(Path(s.blobs.path(s.images.find("app:1").id))), "has changed", False),
    "the manifest removed": (lambda s: s.blobs.remove(s.images.find("app:1").digest), "no such blob", False),
    "the record": (lambda s: record(s).write_text("{"), "file images/records/", False),
    "the record removed": (lambda s: record(s).unlink(), "its image is missing", False),
    "another's record": (lambda s: record(s).rename(record(s).with_name("f" * 64)), "it is another image's", False),
    "a name": (lambda s: next((s.root / "images/names").iterdir()).write_text("[]"), "it is damaged", True),
    "a stray blob": (lambda s: s.blobs.add_bytes(b"stray"), "nobody needs it", True),
    "a rest": (lambda s: (s.root / "blobs/incoming/x").write_text("x"), "file blobs/incoming/x: nobody needs it", True),
}


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def record(store: Store) -> Path:
    (path,) = (store.root / "images/records").glob("[0-9a-f]" * 64)
    return path


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told_and_mended(command: Cloison, store: Store, case: str) -> None:
    damage, told, is_kept = DAMAGE[case]
    base = archive(folder("."), folder("etc"), file("etc/file", os.urandom(5000)), symlink("link", "etc"),
                   file(".wh.white", b""))  # fmt: skip
    load(store, base, tag="app:1")
    image_id = store.images.find("app:1").id
    assert problems(command) == (0, ["No problem found"])
    damage(store)
    status, lines = problems(command)
    assert status == 1
    assert any(told in line for line in lines), lines
    assert problems(command)[0] == 1  # looking changes nothing
    status, lines = problems(command, "--repair")
    assert (status, lines[-1].rpartition(", ")[2]) == (0, f"{len(lines) - 1} mended")
    assert problems(command) == (0, ["No problem found"])
    assert (image_id in [listing.image.id for listing in store.images.list()]) == is_kept
    if is_kept:
        top = Path(store.snapshots.layer_path(store.images.find(image_id).layers[0]))
        assert (top / "etc/file").stat().st_size == 5000
    load(store, base, tag="app:1")  # and it can be brought again
    assert problems(command) == (0, ["No problem found"])


def test_a_quick_check_reads_no_content(command: Cloison, store: Store) -> None:
    load(store, SHARED, tag="app:1")
    flip(layer(store) / "etc/1")
    assert problems(command, "--quick")[0] == 0
    assert problems(command)[0] == 1


def test_the_layer_of_a_running_container_is_not_replaced(command: Cloison, store: Store, busybox_tar: bytes) -> None:
    store.images.import_rootfs(io.BytesIO(busybox_tar), "app:1")
    command.ok("run", "-d", "--name", "runs", "--network", "none", "app:1", "/bin/sleep", "300")
    (layer(store) / "etc/passwd").write_text("x")
    status, lines = problems(command, "--repair")
    assert status == 1 and "/etc/passwd is not as it was unpacked" in lines[0]
    assert command.ok("exec", "runs", "/bin/cat", "/etc/passwd") == "x"
    command.ok("rm", "-f", "runs")
    load(store, SHARED, tag="other:1")


def test_files_that_are_not_ours_are_told_and_left_alone(command: Cloison, store: Store) -> None:
    load(store, SHARED, tag="app:1")
    (store.root / "notes").write_text("mine")
    status, lines = problems(command, "--repair")
    assert status == 1 and lines[0] == "file notes: it is not ours; it was left alone"
    assert (store.root / "notes").read_text() == "mine"
