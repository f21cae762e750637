"""``version``, ``info`` and ``--version``."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.parser import Flag, Verb
from cloison.model.units import render_binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloison.cli.call import Call


def print_version() -> int:
    """``cloison --version``."""
    from cloison import __version__

    output.say(f"cloison version {__version__}")
    return 0


def version(call: Call) -> int:
    facts = call.engine.system.version()
    # Docker's templates ask .Server.Version and .Client.Version: here they are one program
    document: dict[str, object] = {**facts, "Client": dict(facts), "Server": dict(facts)}
    if not _formatted(call, document):
        output.say("\n".join(["cloison:", *_lines(facts, indent=1)]))
    return 0


def info(call: Call) -> int:
    facts = call.engine.system.info()
    if not _formatted(call, facts):
        output.say("\n".join(_lines(facts)))
    return 0


def _formatted(call: Call, document: Mapping[str, object]) -> bool:
    form = call.text("format").strip()
    if not form:
        return False
    if form == "json":
        from cloison.cli.documents import dumps

        output.say(dumps(document))
        return True
    from cloison.cli.template import parse_template

    output.say(parse_template(form).render(document))
    return True


def _lines(facts: Mapping[str, object], *, indent: int = 0) -> list[str]:
    """``Key: value`` lines; mappings are indented below their key."""
    lines: list[str] = []
    margin = " " * indent
    for key, value in facts.items():
        name = _spaced(key)
        if isinstance(value, dict):
            lines += [f"{margin}{name}:", *_lines(value, indent=indent + 1)]
        elif isinstance(value, (list, tuple)):
            lines.append(f"{margin}{name}: {' '.join(map(str, value))}")
        elif key == "MemTotal" and isinstance(value, int):
            lines.append(f"{margin}Total Memory: {render_binary_size(value)}")
        else:
            lines.append(f"{margin}{name}: {output.visible(str(value))}")
    return lines


def _spaced(name: str) -> str:
    """``CgroupVersion`` as ``Cgroup Version``; runs of capitals stay together."""
    text = ""
    for index, letter in enumerate(name):
        starts = letter.isupper() and index > 0
        if starts and (name[index - 1].islower() or name[index + 1 : index + 2].islower()):
            text += " "
        text += letter
    return text


_FORMAT = Flag("-f, --format", "string", help="Format output: json, or a Go TEMPLATE")

VERSION = Verb("version", version, summary="Show the version information", usage="[OPTIONS]", most=0, flags=(_FORMAT,))
INFO = Verb("info", info, summary="Display system-wide information", usage="[OPTIONS]", most=0, flags=(_FORMAT,))
