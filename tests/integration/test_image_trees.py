"""``history``, ``image diff``, ``image tree``: what is in images, and where it comes from."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator

import pytest

from harness import Cloison, Roots
from registry_fixture import digest_of
from unpack_fixture import archive, file, folder, symlink

FIRST = archive(folder("."), folder("etc"), file("etc/kept", b"1"), file("etc/old", b"1"), folder("opt"),
                file("opt/a"), file("opt/b"), file("same", b"s"))  # fmt: skip
SECOND = archive(file("etc/.wh.old", b""), file("etc/new", b"2"), file("opt/.wh..wh..opq", b""), file("opt/c"))
THIRD = archive(file("etc/new", b"3", mode=0o600), symlink("link", "etc"))


@pytest.fixture
def command() -> Iterator[Cloison]:
    roots = Roots()
    yield Cloison(roots)
    roots.remove()


def load(command: Cloison, *layers: bytes, tag: str, history: object = ()) -> None:
    config = {"architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z", "history": history,
              "rootfs": {"type": "layers", "diff_ids": [*map(digest_of, layers)]}}  # fmt: skip
    names = [f"{number}.tar" for number in range(len(layers))]
    manifest = [{"Config": "c.json", "RepoTags": [tag], "Layers": names}]
    members = {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    data = archive(*(file(name, body) for name, body in {**members, **dict(zip(names, layers, strict=True))}.items()))
    path = os.path.join(command.roots.run_root, "load.tar")
    with open(path, "wb") as out:
        out.write(io.BytesIO(data).getvalue())
    command.ok("load", "-i", path)


HISTORY = [
    {"created": "2026-01-01T00:00:00Z", "created_by": "ADD rootfs.tar /"},
    {"created": "2026-01-01T00:00:01Z", "created_by": 'CMD ["sh"]', "empty_layer": True},
    {"created": "2026-01-01T00:00:02Z", "created_by": "RUN   something " + "long " * 20, "comment": "why"},
]


def test_history_gives_sizes_to_the_entries_that_made_layers(command: Cloison) -> None:
    load(command, FIRST, SECOND, tag="h:1", history=HISTORY)
    image_id = command.inspect("h:1")["Id"]
    rows = [json.loads(line) for line in command.ok("history", "--format", "json", "--no-trunc", "h:1").splitlines()]
    assert [row["ID"] for row in rows] == [image_id, "<missing>", "<missing>"]
    assert [row["Size"] for row in rows] == ["5B", "0B", "11B"]
    assert [row["Comment"] for row in rows] == ["why", "", ""]
    assert rows[2]["CreatedAt"] == "2026-01-01T00:00:00Z"
    table = command.ok("history", "h:1").splitlines()
    assert table[0].split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert "RUN something long long long long long long …" in table[1]
    plain = command.ok("history", "--human=false", "h:1").splitlines()
    assert plain[0].split()[:3] == ["IMAGE", "CREATED", "AT"]
    assert plain[3].split()[1] == "2026-01-01T00:00:00Z"
    assert command.ok("history", "-q", "h:1").splitlines() == [image_id[7:19], "<missing>", "<missing>"]


def test_an_image_without_a_history_has_its_layers(command: Cloison) -> None:
    load(command, FIRST, SECOND, tag="h:1")
    assert command.ok("history", "--format", "{{.Size}} {{.CreatedBy}}|", "h:1").splitlines() == ["5B |", "11B |"]


def test_two_images_are_compared_by_content(command: Cloison) -> None:
    load(command, FIRST, SECOND, tag="one:1")
    again = archive(
        folder(".", mtime=5),
        folder("etc", mtime=6),
        file("etc/kept", b"1", mtime=7),
        file("etc/old", b"2"),
        folder("opt"),
        file("opt/a"),
        file("opt/b"),
        file("same", b"s", mtime=8),
    )
    load(command, again, tag="two:1")
    changes = command.ok("image", "diff", "one:1", "two:1").splitlines()
    assert changes == ["C /etc", "D /etc/new", "A /etc/old", "C /opt", "A /opt/a", "A /opt/b", "D /opt/c"]
    assert command.ok("image", "diff", "one:1", "one:1") == ""
    lists = json.loads(command.ok("image", "diff", "--format", "json", "two:1", "one:1"))
    assert lists["deleted"] == ["/etc/old", "/opt/a", "/opt/b"]


def test_an_image_alone_is_compared_with_what_is_below_its_last_layer(command: Cloison) -> None:
    load(command, FIRST, SECOND, THIRD, tag="one:1")
    assert command.ok("image", "diff", "one:1").splitlines() == ["C /etc", "C /etc/new", "A /link"]
    assert command("image", "diff", "one:1", "none:1").stderr == "cloison: No such image: none:1\n"


def test_the_tree_tells_what_each_layer_did(command: Cloison) -> None:
    load(command, FIRST, SECOND, THIRD, tag="one:1", history=HISTORY)
    text = command.ok("image", "tree", "one:1")
    head, layers = text.splitlines()[:5], text.splitlines()[5:]
    assert head[1:4:2] == ["Tags:     [one:1]", "Size:     17B"]
    counts = [line.partition("Files: ")[2].split()[:3] for line in layers]
    assert counts == [["+7", "~0", "-0"], ["+2", "~2", "-3"], ["+1", "~2", "-0"]]
    assert layers[0].startswith("├── ID: ") and layers[0].endswith("ADD rootfs.tar /")
    assert layers[2].startswith("└── ID: ")
    files = command.ok("image", "tree", "--files", "one:1").splitlines()
    assert "│   D /etc/old" in files and "    A /link" in files
