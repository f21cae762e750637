"""The launcher obeys, Python decides: both must mean the same words."""

from __future__ import annotations

import re
import subprocess

import pytest

from harness import PROJECT, SOURCE

LAUNCHER = SOURCE / "cloison" / "libexec" / "cloison-launcher"
PLAN = PROJECT / "docs" / "launch-plan.md"


def launcher_operations() -> dict[str, tuple[int, str]]:
    """verb -> (argument count, negative for "at least"; side), as the executable itself tells it."""
    if not LAUNCHER.exists():
        pytest.fail("the launcher is not built: make launcher")
    listed = subprocess.run([LAUNCHER, "--operations"], capture_output=True, text=True, check=True).stdout
    table = {}
    for line in listed.splitlines():
        verb, count, side = line.split()
        table[verb] = (int(count), side)
    return table


def test_the_launchers_operation_table_equals_pythons() -> None:
    from cloison.runtime.plan import VERBS

    ours = {name: (verb.count, verb.side) for name, verb in VERBS.items()}
    assert launcher_operations() == ours


def test_the_document_names_every_operation_and_no_other() -> None:
    text = PLAN.read_text()
    table = text[text.index("## Operations") : text.index("## Messages")]
    documented = set()
    for line in table.splitlines():
        if line.startswith("| `"):
            documented |= set(re.findall(r"`([a-z0-9-]+)`", line.split("|")[1]))
    assert documented == set(launcher_operations())


def test_the_launcher_is_static_stripped_and_small() -> None:
    image = LAUNCHER.read_bytes()
    assert image[:4] == b"\x7fELF"
    headers = subprocess.run(["readelf", "-lS", LAUNCHER], capture_output=True, text=True, check=True).stdout
    assert "INTERP" not in headers, "it asks for a dynamic loader"
    assert ".symtab" not in headers, "it is not stripped"
    assert len(image) < 1 << 20
