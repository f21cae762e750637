"""The compiled modules in one file: used while they are what the sources say, and only then."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloison.oci_runtime import bytecode
from cloison.oci_runtime.main import VERBS

PACKAGE = Path(bytecode.__file__).resolve().parents[1]
PROC = "import cloison.linux.proc as m; print(type(m.__spec__.loader).__name__, m.__file__)"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with its file."""
    home = tmp_path_factory.mktemp("package")
    shutil.copytree(PACKAGE, home / "cloison", ignore=shutil.ignore_patterns("__pycache__"))
    run(home, "from cloison.oci_runtime import bytecode; bytecode.write()", starter="")
    return home


@pytest.fixture
def home(written: Path, tmp_path: Path) -> Path:
    """One to be spoilt: the file is that of the other place, and so are the sources it names."""
    shutil.copytree(written, tmp_path / "home")
    return tmp_path / "home"


def run(home: Path, code: str, *words: str, starter: str = bytecode.starter()) -> str:
    start = f"import sys\n{starter.replace(str(PACKAGE), f'{home}/cloison')}\nsys.path.insert(0, {str(home)!r})\n"
    argv = [sys.executable, "-ISB", "-c", start + code, *words]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write_again(home: Path) -> None:
    run(home, "from cloison.oci_runtime import bytecode; bytecode.write()", starter="")


def test_modules_come_from_the_file(written: Path) -> None:
    assert run(written, PROC) == f"_Finder {written}/cloison/linux/proc.py"
    loaders = "print(*{type(m.__spec__.loader).__name__ for n, m in sys.modules.items() if n.startswith('cloison')})"
    names = "cloison.oci_runtime.creating, cloison.oci_runtime.exec_verb, cloison.oci_runtime.ending"
    assert run(written, f"import {names}; {loaders}") == "_Finder"


@pytest.mark.parametrize("verb", bytecode.CHAPTERS)
def test_the_modules_of_a_verb_are_there_before_they_are_imported(written: Path, verb: str) -> None:
    listed = "print(*(n for n, m in sys.modules.items() if n.partition('.')[0] == 'cloison'))"
    names = bytecode.chapter(bytecode.CHAPTERS[verb])
    assert verb in VERBS
    assert {f"cloison.{word}" for word in bytecode.CHAPTERS[verb].split()} <= set(names)
    assert run(written, listed, "--root", "/x", verb, "id").split() == list(names)
    assert run(written, f"import {', '.join(names)}; {listed}", verb).split() == list(names)


def test_a_module_is_executed_after_those_that_it_imports() -> None:
    names = bytecode.chapter("oci_runtime.ending")
    assert names.index("cloison") < names.index("cloison.linux") < names.index("cloison.linux.proc")
    assert names.index("cloison.errors") < names.index("cloison.linux.proc") < names.index("cloison.oci_runtime.ending")


def test_a_preloaded_module_is_like_an_imported_one(written: Path) -> None:
    code = "import cloison.linux, cloison.linux.proc as m; print(m.__name__, m.__file__, *cloison.linux.__path__"
    expected = f"cloison.linux.proc {written}/cloison/linux/proc.py {written}/cloison/linux"
    assert run(written, f"{code}, cloison.linux.proc is m)", "state") == f"{expected} True"
    later = "import cloison.linux.seccomp as m; print(type(m.__spec__.loader).__name__)"
    assert run(written, later, "state") == "_Finder"


@pytest.mark.parametrize("words", [(), ("state",)])
def test_a_changed_source_counts(home: Path, words: tuple[str, ...]) -> None:
    write_again(home)
    source = home / "cloison" / "linux" / "proc.py"
    source.write_text(source.read_text() + "\nNEW = 1\n")
    assert run(home, "import cloison.linux.proc as m; print(m.NEW)", *words) == "1"


def test_a_source_of_another_time_counts(home: Path) -> None:
    write_again(home)
    os.utime(home / "cloison" / "linux" / "proc.py", (1, 1))
    assert run(home, PROC, "state").startswith("SourceFileLoader ")


def test_another_interpreters_file_is_left_alone(home: Path) -> None:
    file = home / "cloison" / Path(bytecode.path()).relative_to(PACKAGE)
    file.write_bytes(b"\0" * 4 + file.read_bytes()[4:])
    assert run(home, PROC, "state") == f"SourceFileLoader {home}/cloison/linux/proc.py"


def test_it_works_without_a_file(home: Path) -> None:
    (home / "cloison" / Path(bytecode.path()).relative_to(PACKAGE)).unlink()
    assert run(home, PROC, "state").startswith("SourceFileLoader ")


def test_a_traceback_shows_the_source(written: Path) -> None:
    code = (
        "import cloison.linux.proc as m, traceback\n"
        "try: m.start_time(-1)\n"
        "except Exception: print(traceback.format_exc())"
    )
    for words in ((), ("state",)):
        shown = run(written, code, *words)
        lines = (PACKAGE / "linux" / "proc.py").read_text().split("\n")
        line = next(number for number, text in enumerate(lines, 1) if "_stat(pid)[" in text)
        assert f'File "{written}/cloison/linux/proc.py", line {line}, in start_time' in shown


def test_records_keep_their_fields_and_functions_lose_their_annotations(written: Path) -> None:
    code = (
        "from cloison.oci_runtime.containers import Container, check_id\n"
        "from cloison.model.record import Record\n"
        "print(check_id.__annotations__, check_id.__doc__, Record._fields, 'id' in Container._fields)"
    )
    assert run(written, code, "state") == "{} None {} True"


def test_os_is_whole_as_soon_as_it_is_asked_for_more_than_system_calls(written: Path) -> None:
    light = "import os; os.stat('/'); os.path.join('a', os.fsdecode(b'b')); dict(os.environ); "
    assert run(written, light + "print('_collections_abc' in sys.modules, os.O_RDONLY)", "state") == "False 0"
    code = (
        "import os as before; before.makedirs; import os; print(os is before, os.makedirs is before.makedirs, os.name)"
    )
    assert run(written, code, "state") == "False True posix"
    assert run(written, "import os, shutil, tempfile, subprocess; print(os.walk is sys.modules['os'].walk)") == "True"
    missing = "import os\ntry: os.nonsense\nexcept AttributeError as err: print(err)"
    assert run(written, missing) == "module 'os' has no attribute 'nonsense'"


def test_what_stands_for_os_gives_what_os_gives(written: Path) -> None:
    """Every name of the interpreter's own module, and those few that are added."""
    code = (
        "import os as light, posix\n"
        "names = *dir(posix), 'fsencode', 'fsdecode', 'SEEK_SET', 'name'\n"
        "got = {name: getattr(light, name) for name in names if name[0] != '_'}\n"
        "del sys.modules['os']\nimport os\n"
        "names = b'a\\xff', 'a\\udcff', 'b'\n"
        "assert got.pop('environ') == dict(os.environ)\n"
        "assert [got['fsencode'](n) for n in names] == [os.fsencode(n) for n in names]\n"
        "assert [got['fsdecode'](n) for n in names] == [os.fsdecode(n) for n in names]\n"
        "del got['fsencode'], got['fsdecode']\n"
        "print([n for n, value in got.items() if getattr(os, n) != value])"
    )
    assert run(written, code, "state") == "[]"
