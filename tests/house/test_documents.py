"""What the documents say can be followed: links resolve, no path of somebody's machine, a change log that is kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import PROJECT

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|tmp|root|mnt|opt)/[\w.-]+|/home/(?!user\b)\w+")


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def anchor(heading: str) -> str:
    """As forges make them: lower case, punctuation dropped, blanks to hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for target in LINK.findall(path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        if not where.exists():
            broken.append(target)
        elif fragment and fragment not in {anchor(h) for h in HEADING.findall(where.read_text())}:
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_file_that_a_document_names_exists(path: Path) -> None:
    """`src/cloison/…`, `launcher/…`, `tests/…` in backquotes are promises, too."""
    named = re.findall(r"`((?:src/cloison|launcher|tests|bench|scripts|docs)/[\w./-]+)`", path.read_text())
    assert not [name for name in named if not (PROJECT / name).exists() and "libexec" not in name]


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_no_document_shows_a_path_of_somebodys_machine(path: Path) -> None:
    assert not MACHINE_PATH.findall(path.read_text())


def test_the_change_log_has_an_unreleased_section_that_says_something() -> None:
    text = (PROJECT / "CHANGELOG.md").read_text()
    unreleased = re.search(r"^## Unreleased$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert unreleased, "no '## Unreleased'"
    assert re.search(r"^- ", unreleased[1], re.MULTILINE)


def test_the_documents_a_newcomer_reads_are_there_in_order() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE",
                 "docs/life-of-a-container.md", "docs/on-disk.md", "docs/launch-plan.md"):  # fmt: skip
        assert (PROJECT / name).stat().st_size > 500, name


def test_the_architecture_states_its_invariants() -> None:
    assert (PROJECT / "ARCHITECTURE.md").read_text().count("**Invariant:**") >= 8
