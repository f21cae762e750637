"""Help texts, made from the same tables as the parser."""

from __future__ import annotations

import os

from cloison.cli.dispatch import load_verb
from cloison.cli.verbs import GROUP_SUMMARIES, GROUP_VERBS, GROUPS, VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.cli.parser import Flag, Verb

HEADING = "Containers, images and what they need: a complete engine without a daemon"
SECTIONS = (
    ("Containers", (
        "run", "create", "start", "exec", "attach", "ps", "logs", "inspect", "stop", "kill", "restart", "pause",
        "unpause", "update", "wait", "top", "stats", "port", "rename", "rm", "diff", "commit", "export",
    )),
    ("Images", ("pull", "push", "images", "rmi", "tag", "untag", "history", "save", "load", "import")),
    ("Registries", ("login", "logout", "search", "copy", "list-tags")),
    ("The engine", ("explain", "version", "info")),
)  # fmt: skip


def render_top(flags: Sequence[Flag]) -> str:
    """``cloison --help``: every verb by group."""
    lines = ["Usage:  cloison [OPTIONS] COMMAND", "", HEADING, ""]
    for title, names in SECTIONS:
        lines += [f"{title}:", *_rows((name, load_verb(VERBS[name]).summary) for name in names), ""]
    lines += ["Management Commands:", *_rows(GROUP_SUMMARIES.items()), ""]
    lines += ["Global Options:", *render_flags(flags), ""]
    lines.append("Run 'cloison COMMAND --help' for more information on a command.")
    return "\n".join(lines)


def render_group(group: str) -> str:
    """``cloison image --help``: the verbs of one group, aliases left out."""
    shown: dict[str, str] = {}
    targets: set[str] = set()
    for name, target in GROUPS[group].items():
        if target not in targets:
            targets.add(target)
            shown[name] = load_verb(GROUP_VERBS.get(target) or VERBS[target]).summary
    lines = [f"Usage:  cloison {group} COMMAND", "", GROUP_SUMMARIES[group], "", "Commands:", *_rows(shown.items()), ""]
    lines.append(f"Run 'cloison {group} COMMAND --help' for more information on a command.")
    return "\n".join(lines)


def render_verb(verb: Verb) -> str:
    """``cloison run --help``."""
    lines = [f"Usage:  cloison {verb.name} {verb.usage}".rstrip(), "", verb.summary]
    if verb.details:
        lines += ["", *_wrap(verb.details, width())]
    aliases = _aliases(verb)
    if len(aliases) > 1:
        lines += ["", "Aliases:", "  " + ", ".join(aliases)]
    shown = [flag for flag in verb.flags if not flag.hidden]
    if shown:
        lines += ["", "Options:", *render_flags(shown)]
    return "\n".join(lines)


def _aliases(verb: Verb) -> list[str]:
    """Every spelling that leads to this verb: ``cloison container ls``, ``cloison ps``."""
    places = {**VERBS, **GROUP_VERBS}
    found = [f"cloison {group} {name}" for group, names in GROUPS.items() for name, target in names.items()
             if target == verb.name.replace(" ", "-") or _names(places, target, verb)]  # fmt: skip
    return [*found, *(f"cloison {name}" for name in VERBS if name == verb.name)]


def _names(places: dict[str, str], target: str, verb: Verb) -> bool:
    return target == verb.name and target in places


def render_flags(flags: Sequence[Flag]) -> list[str]:
    """Two columns: ``  -m, --memory bytes   Memory limit``, the second wrapped to the terminal."""
    heads = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        head = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
        heads.append((head if flag.kind == "bool" else f"{head} {flag.kind}", flag))
    column = max(len(head) for head, _ in heads) + 3
    lines = []
    for head, flag in heads:
        text = flag.help + (f" (default {flag.default})" if flag.default else "")
        first, *rest = _wrap(text, max(width() - column, 20))
        lines.append(head.ljust(column) + first)
        lines += [" " * column + line for line in rest]
    return lines


def _rows(pairs: object) -> list[str]:
    rows = [(str(name), str(text)) for name, text in pairs]  # type: ignore[attr-defined]
    column = max(len(name) for name, _ in rows) + 2
    return [f"  {name.ljust(column)}{text}" for name, text in rows]


def width() -> int:
    """Columns of the terminal, 100 where there is none."""
    try:
        return max(os.get_terminal_size(1).columns, 40)
    except OSError:
        return 100


def _wrap(text: str, columns: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > columns:
            lines.append(word)
        else:
            lines[-1] += (" " if lines[-1] else "") + word
    return lines
