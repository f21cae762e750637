"""No module over 400 lines, no function over 60, two positional parameters: what is small can be read whole."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import PROJECT

MODULE_LINES = 400
FUNCTION_LINES = 60
POSITIONAL = 2
POSITIONAL_PRIVATE = 4  # what only its own module calls may lean on its reader knowing the order

# The exceptions, each with its reason. An entry that is no longer needed fails, too.
LONG_MODULES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
MANY_POSITIONALS: dict[str, str] = {
    "src/cloison/cli/progress.py:start": "the Progress protocol: item, total, action, called once a layer",
    "src/cloison/cli/pull_notice.py:start": "the Progress protocol",
    "src/cloison/images/progress.py:start": "the Progress protocol",
    "src/cloison/linux/proc.py:send_signal": "pid and start time are one identity; the signal is the second parameter",
}

PYTHON = sorted(path for top in ("src", "bench", "tests") for path in (PROJECT / top).rglob("*.py"))
OURS = [path for path in PYTHON if path.is_relative_to(PROJECT / "src")]
C_FILES = sorted((PROJECT / "launcher").glob("*.[ch]"))


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def python_functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name_of(path)}:{node.name}", node


def python_lines(path: Path) -> dict[str, int]:
    """Lines of every function, without its decorators."""
    return {name: (node.end_lineno or node.lineno) - node.lineno + 1 for name, node in python_functions(path)}


def c_lines(path: Path) -> dict[str, int]:
    """Lines of every function; in this style a body opens and closes with a brace in the first column."""
    lines, found, opened = path.read_text().splitlines(), {}, 0
    for number, line in enumerate(lines, 1):
        if line == "{":
            opened = number
        elif line == "}" and opened:
            head = next(text for text in reversed(lines[: opened - 1]) if re.match(r"^[A-Za-z_].*\(", text))
            name = re.search(r"(\w+)\s*\(", head)
            found[f"{name_of(path)}:{name[1] if name else '?'}"] = number - opened + 2
            opened = 0
    return found


def check(too_big: dict[str, int], allowed: dict[str, str], *, limit: int) -> None:
    offenders = {name: size for name, size in too_big.items() if size > limit and name not in allowed}
    assert not offenders, f"over {limit}: {offenders}"
    stale = [name for name in allowed if too_big.get(name, 0) <= limit]
    assert not stale, f"no longer over {limit}, take it off the list: {stale}"


def test_no_module_is_longer_than_four_hundred_lines() -> None:
    sizes = {name_of(path): len(path.read_text().splitlines()) for path in PYTHON + C_FILES}
    check(sizes, LONG_MODULES, limit=MODULE_LINES)


def test_no_function_is_longer_than_sixty_lines() -> None:
    sizes: dict[str, int] = {}
    for path in PYTHON:
        sizes.update(python_lines(path))
    for path in C_FILES:
        sizes.update(c_lines(path))
    check(sizes, LONG_FUNCTIONS, limit=FUNCTION_LINES)


def test_the_c_scanner_finds_the_launchers_functions() -> None:
    """The check above would pass on an empty list."""
    names = {name.rpartition(":")[2] for path in C_FILES for name in c_lines(path)}
    assert "main" in names
    assert len(names) > 50, sorted(names)


def positionals(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    names = [argument.arg for argument in node.args.posonlyargs + node.args.args]
    return len([name for name in names if name not in ("self", "cls", "mcls")])


def positional_counts(*, private: bool) -> dict[str, int]:
    counts: dict[str, int] = {}
    for path in OURS:
        for name, node in python_functions(path):
            # the language fixes the special methods: __exit__ has three
            if not node.name.startswith("__") and node.name.startswith("_") == private:
                counts[name] = max(counts.get(name, 0), positionals(node))
    return counts


def test_functions_take_two_positional_parameters_and_then_keywords() -> None:
    check(positional_counts(private=False), MANY_POSITIONALS, limit=POSITIONAL)
    check(positional_counts(private=True), {}, limit=POSITIONAL_PRIVATE)


@pytest.mark.parametrize("path", OURS, ids=name_of)
def test_every_module_says_what_lives_in_it(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    assert future or len(tree.body) == 1, f"{name_of(path)} needs 'from __future__ import annotations'"
