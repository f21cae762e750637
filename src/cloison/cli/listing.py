"""``ps`` and ``images`` alike: a table, ids alone, JSON lines, or a template."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.table import render_table
from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloison.cli.call import Call
    from cloison.cli.template import Template

TABLE = "table"


def print_listing(
    call: Call, rows: Sequence[Mapping[str, object]], *, columns: Mapping[str, str], quiet_field: str,
    headings: Mapping[str, str],
) -> None:  # fmt: skip
    """Print rows of named values in the form that ``--quiet`` and ``--format`` ask for.

    ``columns`` are the plain table's fields with their headings, ``headings`` those of all that a template may name.
    """
    form = call.text("format").strip() or TABLE
    if call.switch("quiet") and form == TABLE:
        lines = [str(row[quiet_field]) for row in rows]
    elif form == TABLE:
        table = render_table([list(columns.values()), *([str(row[name]) for name in columns] for row in rows)])
        lines = table.split("\n")[1 if call.switch("noheading") else 0 :]
    elif form == "json":
        from cloison.cli.documents import dumps

        lines = [dumps(row) for row in rows]
    else:
        lines = _templated(form, rows, headings=headings)
    if lines:
        output.say("\n".join(lines))


def _templated(form: str, rows: Sequence[Mapping[str, object]], *, headings: Mapping[str, str]) -> list[str]:
    from cloison.cli.template import parse_template
    from cloison.cli.template_parts import Heading

    in_table = form.startswith("table ")
    template: Template = parse_template(form.removeprefix("table ") if in_table else form)
    lines = [template.render(row) for row in rows]
    if not in_table:
        return lines
    heading = template.render({name: Heading(text) for name, text in headings.items()})
    return [render_table([line.split("\t") for line in (heading, *lines)])]


def parse_filters(texts: Sequence[str], known: Sequence[str]) -> dict[str, list[str]]:
    """``key=value`` of every ``--filter`` by key. Raises: InvalidArgument for a bad or unknown one."""
    filters: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals:
            raise InvalidArgument(
                "invalid argument for --filter", why=f"bad format of filter '{text}' (expected name=value)"
            )
        if key not in known:
            raise InvalidArgument(f"invalid filter '{key}'", hint=f"there are {', '.join(known)}")
        filters.setdefault(key, []).append(value.strip())
    return filters


def matches(filters: Mapping[str, Sequence[str]], tests: Mapping[str, Callable[[str], bool]]) -> bool:
    """Whether one thing passes: any value of each key; labels must all match, as in docker."""
    for key, test in tests.items():
        values = filters.get(key)
        if values and not (all(map(test, values)) if key == "label" else any(map(test, values))):
            return False
    return True


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """``key`` or ``key=value``."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
