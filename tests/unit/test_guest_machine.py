"""The guest machine's harness: what it says and returns when the machine does not do as it should."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from guest import machine


@pytest.fixture
def fake_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in QEMU's place; its shell script is for the test to write."""
    program = tmp_path / "qemu"
    monkeypatch.setattr(machine, "QEMU", str(program))
    monkeypatch.setattr(machine, "BUILD", tmp_path)
    (tmp_path / "console.log").write_text("the kernel's last words\n")
    return program


def boot(program: Path, script: str) -> int:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return machine.boot(program.parent, work=Path("work"), reports=Path("reports"))


def test_a_machine_that_does_not_come_up_is_switched_off(
    fake_qemu: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "BOOT_S", 0.2)
    assert boot(fake_qemu, "exec sleep 60") == 1
    said = capsys.readouterr().out
    assert "did not come up within" in said and "the kernel's last words" in said


def test_a_machine_that_does_not_end_is_switched_off(
    fake_qemu: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "RUN_S", 0.5)
    assert boot(fake_qemu, "echo first; exec sleep 60") == 1
    said = capsys.readouterr().out
    assert said.startswith("first\n") and "did not end within" in said


def test_what_the_tests_say_is_passed_on_line_by_line(fake_qemu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert boot(fake_qemu, r"printf 'one\r\ntwo\r\n'") == 0
    assert capsys.readouterr().out.startswith("one\ntwo\nguest machine:")


def test_a_machine_that_breaks_down_is_a_failure(fake_qemu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert boot(fake_qemu, "exit 3") == 1
    assert "qemu ended with 3" in capsys.readouterr().out


def test_the_status_is_that_of_the_tests(fake_qemu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status").write_text("5\n")
    reports = tmp_path / "reports.tar"
    with tarfile.open(reports, "w") as tar:
        tar.add(tmp_path / "status", "out/status")
    os.truncate(reports, 1 << 20)  # a disk has an end
    assert machine.unpack(reports) == 5


def test_no_report_is_a_failure(fake_qemu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "status").write_text("0\n")  # of another run
    (tmp_path / "empty").write_bytes(bytes(1 << 16))
    assert machine.unpack(tmp_path / "empty") == 1
    assert "left no report" in capsys.readouterr().out
