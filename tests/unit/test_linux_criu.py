"""CRIU's protocol: messages on the wire, a conversation with a program in its place, and what its log says."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cloison.errors import Internal, Unavailable, Unsupported
from cloison.linux import criu, protobuf


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ({1: 150}, b"\x08\x96\x01"),  # protobuf.dev, "A Simple Message"
        ({2: b"testing"}, b"\x12\x07testing"),
        ({3: {1: 150}}, b"\x1a\x03\x08\x96\x01"),
        ({4: [1, 2]}, b"\x20\x01\x20\x02"),
        ({1: -2}, b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ({23: [{1: b"/a", 2: b"/b"}]}, b"\xba\x01\x08\x0a\x02/a\x12\x02/b"),
    ],
)
def test_a_message_is_written_as_the_encoding_has_it(message: dict[int, protobuf.Value], data: bytes) -> None:
    assert protobuf.encode(message) == data


def test_what_is_written_is_read_with_repetitions_and_widths_that_we_do_not_use() -> None:
    data = protobuf.encode({1: [7, 8], 2: b"x", 68: -3}) + b"\x19" + bytes(8) + b"\x25" + bytes(4)
    found = protobuf.decode(data)
    assert found == {1: [7, 8], 2: [b"x"], 68: [(1 << 64) - 3], 3: [bytes(8)], 4: [bytes(4)]}
    assert protobuf.signed((1 << 64) - 3) == -3


@pytest.mark.parametrize("data", [b"\x08", b"\x08\xff", b"\x12\x05ab", b"\x0b", b"\x08" + b"\xff" * 11, b"\x19\0"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(Internal, match="protocol buffer"):
        protobuf.decode(data)


def test_options_are_written_by_their_numbers() -> None:
    options = {
        "images_dir_fd": 5, "shell_job": True, "log_file": "dump.log", "manage_cgroups_mode": criu.SOFT,
        "ext_mnt": [("/a", "/a"), ("/b", "/b")], "external": ["net[7]:extRootNetNS"], "ps": ("::1", 27),
        "cg_root": [("", "/x")],
    }  # fmt: skip
    assert criu.encode_options(options) == {
        1: 5, 7: 1, 10: b"dump.log", 34: 3, 23: [{1: b"/a", 2: b"/a"}, {1: b"/b", 2: b"/b"}],
        37: [b"net[7]:extRootNetNS"], 11: {1: b"::1", 2: 27}, 25: [{1: b"", 2: b"/x"}],
    }  # fmt: skip


def test_answers_are_read() -> None:
    notice = protobuf.encode({1: 6, 2: 1, 5: {1: b"setup-namespaces", 2: 42}})
    assert criu.read_notice(notice) == criu.Notice(script="setup-namespaces", pid=42)
    assert criu.read_notice(protobuf.encode({1: 2, 2: 1, 4: {1: 43}})) == criu.Notice(pid=43)
    failed = protobuf.encode({1: 2, 2: 0, 4: {1: -1}, 7: 17, 9: b"Can't open it\n"})
    assert criu.read_notice(failed) == criu.Notice(success=False, error="Can't open it")


def test_the_last_errors_of_a_log_are_found_without_their_places(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text(
        "(00.01) Collecting\n(00.02) Error (criu/tty.c:417): tty: Only one\n(00.03)     12: Error (a.c:1): second\n"
        "(00.04) Warn  (x)\n(00.05) Error (b.c:2): third\n(00.06) Error (c.c:3): fourth (see it)\n"
    )
    assert criu.last_errors(str(log)) == ["second", "third", "fourth (see it)"]
    assert criu.last_errors(str(tmp_path / "no.log")) == []


def test_an_absent_program_names_the_package() -> None:
    with pytest.raises(Unsupported, match="/no/such/criu is not installed .Debian's package criu"):
        criu.installed("/no/such/criu")


FAKE = """#!/usr/bin/python3 -I
import array, os, socket, sys
assert sys.argv[1:] == ["swrk", "3"]
talk = socket.socket(fileno=3)
{body}
"""


def fake(directory: Path, body: str) -> str:
    """A program in CRIU's place."""
    path = directory / "criu"
    path.write_text(FAKE.format(body=body))
    path.chmod(stat.S_IRWXU)
    return str(path)


def test_a_conversation_brings_notices_descriptors_and_an_answer(tmp_path: Path) -> None:
    notice = protobuf.encode({1: 6, 2: 1, 5: {1: b"orphan-pts-master"}})
    done = protobuf.encode({1: 2, 2: 1, 4: {1: 7}})
    body = f"""
assert talk.recv(99) == {protobuf.encode({1: criu.RESTORE, 2: {1: 9}})!r}
reader, writer = os.pipe()
os.write(writer, b"hello")
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [reader]))]
talk.sendmsg([{notice!r}], rights)
assert talk.recv(99) == {protobuf.encode({1: 6, 3: 1})!r}
os.write(4, b"inherited")
talk.send({done!r})
"""
    reader, writer = os.pipe()
    with criu.Worker(fake(tmp_path, body), descriptors=[writer]) as worker:
        os.close(writer)
        worker.ask(criu.RESTORE, {"images_dir_fd": 9})
        first = worker.receive()
        assert (first.script, os.read(first.fd, 9)) == ("orphan-pts-master", b"hello")
        os.close(first.fd)
        worker.go_on()
        assert worker.receive() == criu.Notice(pid=7)
    assert os.read(reader, 99) == b"inherited"
    os.close(reader)


def test_a_program_that_dies_is_told_of(tmp_path: Path) -> None:
    with criu.Worker(fake(tmp_path, "talk.recv(99)")) as worker:
        worker.ask(criu.DUMP, {})
        with pytest.raises(Unavailable, match="ended without an answer"):
            worker.receive()


def test_what_shall_get_no_new_privileges_is_born_without(tmp_path: Path) -> None:
    body = "talk.recv(99); assert 'NoNewPrivs:\\t1' in open('/proc/self/status').read(); "
    done = protobuf.encode({1: 2, 2: 1})
    with criu.Worker(fake(tmp_path, f"{body}talk.send({done!r})"), no_new_privileges=True) as worker:
        worker.ask(criu.RESTORE, {})
        assert worker.receive().success
