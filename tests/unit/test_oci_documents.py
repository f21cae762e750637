"""The JSON files that a caller of the OCI runtime names: each fault is one line that says where it is."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cloison.errors import InvalidArgument, NotFound
from cloison.oci_runtime.documents import read_document


def fault(path: Path) -> str:
    with pytest.raises(InvalidArgument) as caught:
        read_document(str(path), name="config.json")
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 400
    return said


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b"{", "line 1, column 2"),
        (b'{"a":\n 1,}', "line 2, column 4"),
        (b'{"a": "\x01"}', "invalid control character, line 1, column 8"),
        (b'{"a": 1} x', "something follows the JSON document at character 8"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": \xff}', "it is not UTF-8 at byte 6"),
        (b"\xef\xbb\xbf{}", "not a JSON document: unexpected utf-8 bom"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": [1, {"b": "x\\ud800"}]}', "a[1].b holds half a character"),
        (b'{"a": {"\\udfff": 1}}', "a.a key holds half a character"),
        (b'"\\uD800"', "holds half a character"),
        (b'{"abc":' * 900 + b'"\\ud800"' + b"}" * 900, "holds half a character"),
        (b" " * (16 << 20) + b"{}", "it has more than 16 MiB"),
    ],
)
def test_every_fault_has_a_place(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert text in fault(tmp_path / "config.json")


def test_whole_characters_in_two_halves_are_text(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": "\\ud83d\\ude00"}')
    assert read_document(str(path), name="config.json") == (path.read_bytes(), {"a": "\U0001f600"})


def test_ten_megabytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": "' + b"x" * 10_000_000 + b'"}')
    assert read_document(str(path), name="config.json")[1] == {"a": "x" * 10_000_000}


def test_links_are_followed_and_what_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("{}")
    (tmp_path / "link").symlink_to("real")
    assert read_document(str(tmp_path / "link"), name="x")[1] == {}
    assert "is a directory" in fault(tmp_path)
    with pytest.raises(NotFound, match="no such file"):
        read_document(str(tmp_path / "nowhere"), name="x")


def test_a_pipe_is_read_to_its_end_and_one_that_nobody_writes_does_not_hold_us(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        sender = threading.Timer(0.1, lambda: (os.write(writing, b'{"a": 1}'), os.close(writing)))
        sender.start()
        assert read_document(f"/dev/fd/{reading}", name="x")[1] == {"a": 1}
        sender.join()
    finally:
        os.close(reading)
    os.mkfifo(tmp_path / "fifo")
    assert "it is empty" in fault(tmp_path / "fifo")
