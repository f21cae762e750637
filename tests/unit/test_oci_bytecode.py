"""The compiled modules in one file: used while they are what the sources say, and only then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloison.oci_runtime import bytecode

PACKAGE = Path(bytecode.__file__).resolve().parents[1]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A copy of the package with its file."""
    shutil.copytree(PACKAGE, tmp_path / "cloison", ignore=shutil.ignore_patterns("__pycache__"))
    run(tmp_path, "bytecode.write()")
    return tmp_path


def run(home: Path, code: str) -> str:
    start = f"import sys; sys.path.insert(0, {str(home)!r}); from cloison.oci_runtime import bytecode; "
    done = subprocess.run([sys.executable, "-ISB", "-c", start + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOADER = "bytecode.use(); import cloison.linux.proc as m; print(type(m.__spec__.loader).__name__, m.__file__)"


def test_modules_come_from_the_file(home: Path) -> None:
    assert run(home, LOADER) == f"_Finder {home}/cloison/linux/proc.py"
    names = "cloison.oci_runtime.creating, cloison.oci_runtime.exec_verb, cloison.oci_runtime.ending"
    others = f"bytecode.use(); import {names}; " + (
        "print(*(n for n, m in sys.modules.items() if n.startswith('cloison') and '_Finder' != "
        "type(m.__spec__.loader).__name__))"
    )
    assert run(home, others).split() == ["cloison", "cloison.oci_runtime", "cloison.oci_runtime.bytecode"]


def test_a_changed_source_counts(home: Path) -> None:
    source = home / "cloison" / "linux" / "proc.py"
    source.write_text(source.read_text() + "\nNEW = 1\n")
    assert run(home, "bytecode.use(); import cloison.linux.proc as m; print(m.NEW)") == "1"


def test_a_source_of_another_time_counts(home: Path) -> None:
    os.utime(home / "cloison" / "linux" / "proc.py", (1, 1))
    assert run(home, LOADER).startswith("SourceFileLoader ")


def test_another_interpreters_file_is_left_alone(home: Path) -> None:
    file = Path(run(home, "print(bytecode.path())"))
    file.write_bytes(b"\0" * 4 + file.read_bytes()[4:])
    assert run(home, LOADER).startswith("SourceFileLoader ")


def test_it_works_without_a_file(home: Path) -> None:
    Path(run(home, "print(bytecode.path())")).unlink()
    assert run(home, LOADER).startswith("SourceFileLoader ")


def test_a_traceback_shows_the_source(home: Path) -> None:
    code = (
        "bytecode.use(); import cloison.linux.proc as m, traceback\n"
        "try: m.start_time(-1)\n"
        "except Exception: print(traceback.format_exc())"
    )
    assert f'File "{home}/cloison/linux/proc.py"' in run(home, code)
