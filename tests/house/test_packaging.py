"""What `pip install` brings: a wheel with the launcher inside, for this machine; a source archive that is complete."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from harness import PROJECT


def build(
    kind: str, source: Path, *, into: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Call the build backend as an installer does (PEP 517), without its isolated environment."""
    script = f"import hatchling.build as b; print(b.build_{kind}({str(into)!r}))"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=source, capture_output=True, text=True, timeout=110,
        env={**os.environ, **(env or {})},
    )  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as its own source archive holds it, unpacked: nothing that git ignores, nothing already built."""
    pytest.importorskip("hatchling", reason="needs the dev extra")
    where = tmp_path_factory.mktemp("sdist")
    made = build("sdist", PROJECT, into=where)
    assert made.returncode == 0, made.stderr
    archive = where / made.stdout.split()[-1]
    with tarfile.open(archive) as tar:
        tar.extractall(where, filter="data")
    return where / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("wheel")
    made = build("wheel", source, into=where)
    assert made.returncode == 0, made.stderr
    return where / made.stdout.split()[-1]


def test_the_source_archive_holds_everything_that_is_built_and_read(source: Path) -> None:
    for name in ("launcher/Makefile", "launcher/main.c", "LICENSE", "README.md", "tests/harness.py", "Makefile",
                 "src/cloison/py.typed", "docs/launch-plan.md", "hatch_build.py"):  # fmt: skip
        assert (source / name).is_file(), name
    assert not list(source.rglob("cloison-launcher"))


def test_the_wheel_holds_the_launcher_and_is_tagged_for_this_machine(wheel: Path) -> None:
    assert wheel.name.split("-")[2:4] == ["py3", "none"]
    assert wheel.name.endswith(f"linux_{os.uname().machine}.whl")
    with zipfile.ZipFile(wheel) as archive:
        entry = archive.getinfo("cloison/libexec/cloison-launcher")
        assert entry.external_attr >> 16 & 0o111, "not executable"
        assert "cloison/py.typed" in archive.namelist()


def test_a_fresh_environment_with_the_wheel_has_a_working_command(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=60)
    pip = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=60)
    script = environment / "bin" / "cloison"
    assert " re" not in script.read_text(), "the console command imports re, which costs 4 ms on each call"
    plain = {"PATH": os.environ["PATH"]}
    shown = subprocess.run([script, "--version"], capture_output=True, text=True, env=plain, timeout=30)
    assert shown.returncode == 0, shown.stderr
    assert wheel.name.split("-")[1] in shown.stdout


def test_without_a_compiler_the_build_names_the_package_to_install(source: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("make", "sh", "env"):
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
        (programs / name).symlink_to(real)
    made = build("wheel", source, into=tmp_path, env={"PATH": str(programs), "CC": ""})
    assert made.returncode != 0
    assert "apt-get install gcc" in made.stdout + made.stderr
