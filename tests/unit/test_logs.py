"""Reading framed logs: tail, since, streams, rotation, a torn last record."""

from __future__ import annotations

import struct
from pathlib import Path

from cloison.engine.logs import LogQuery, read_log


def frame(data: bytes, *, stream: int = 1, time_ns: int = 1) -> bytes:
    return struct.pack("<B3xIQ", stream, len(data), time_ns) + data


def text(path: Path, **query: object) -> bytes:
    entries = read_log(str(path), LogQuery(**query), is_running=lambda: False)
    return b"".join(entry.data for entry in entries)


def test_both_streams_come_in_order_and_can_be_chosen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(frame(b"out\n") + frame(b"err\n", stream=2) + frame(b"more\n"))
    assert text(log) == b"out\nerr\nmore\n"
    assert text(log, stderr=False) == b"out\nmore\n"
    assert text(log, stdout=False) == b"err\n"


def test_tail_counts_lines_not_records(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(frame(b"1\n2\n3\n") + frame(b"4\n5") + frame(b"5\n6\n"))
    assert text(log, tail=0) == b""
    assert text(log, tail=1) == b"6\n"
    assert text(log, tail=2) == b"55\n6\n"
    assert text(log, tail=4) == b"3\n4\n55\n6\n"
    assert text(log, tail=100) == b"1\n2\n3\n4\n55\n6\n"


def test_tail_counts_an_unfinished_last_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(frame(b"1\n2\nunfinished"))
    assert text(log, tail=1) == b"unfinished"
    assert text(log, tail=2) == b"2\nunfinished"


def test_since_and_until_bound_the_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"".join(frame(b"%d\n" % n, time_ns=n) for n in range(1, 6)))
    assert text(log, since_ns=3) == b"3\n4\n5\n"
    assert text(log, until_ns=2) == b"1\n2\n"


def test_rotated_files_are_read_oldest_first(tmp_path: Path) -> None:
    (tmp_path / "log.2").write_bytes(frame(b"a"))
    (tmp_path / "log.1").write_bytes(frame(b"b"))
    (tmp_path / "log").write_bytes(frame(b"c"))
    assert text(tmp_path / "log") == b"abc"


def test_a_torn_last_record_is_not_there_yet_and_damage_ends_the_reading(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(frame(b"whole") + frame(b"torn")[:-1])
    assert text(log) == b"whole"
    log.write_bytes(frame(b"whole") + b"\x07" * 40)
    assert text(log) == b"whole"


def test_following_reads_across_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(frame(b"one\n"))
    steps = iter((True, True, False))

    def still_running() -> bool:
        running = next(steps)
        if running and not (tmp_path / "log.1").exists():
            with log.open("ab") as file:
                file.write(frame(b"two\n"))
            log.rename(tmp_path / "log.1")
            log.write_bytes(frame(b"three\n"))
        return running

    entries = read_log(str(log), LogQuery(follow=True), is_running=still_running)
    assert b"".join(entry.data for entry in entries) == b"one\ntwo\nthree\n"
