"""What a template is made of: nodes, the scope they are evaluated in, and how Go shows and judges values."""

from __future__ import annotations

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class TemplateError(InvalidArgument):
    """A template that does not parse; exit status 64."""

    code = "template"


class MisfitError(TemplateError):
    """A template that does not fit the value; exit status 1, as any other failure."""

    code = "template-value"


class Heading(str):
    """A column's heading in a value's place: what changes how a value looks leaves it alone, as in docker."""

    __slots__ = ()


class Scope:
    """The dot and the variables."""

    __slots__ = ("dot", "variables")

    def __init__(self, dot: object, variables: dict[str, object]) -> None:
        self.dot = dot
        self.variables = variables

    def at(self, dot: object) -> Scope:
        """The same variables, another dot; what is assigned inside stays inside."""
        return Scope(dot, dict(self.variables))


class Node:
    """Something that renders to pieces of text."""

    def render(self, scope: Scope) -> Iterable[str]:
        raise NotImplementedError


class Text(Node):
    def __init__(self, text: str) -> None:
        self.text = text

    def render(self, scope: Scope) -> Iterable[str]:
        return (self.text,)


class Block(Node):
    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes

    def render(self, scope: Scope) -> Iterable[str]:
        for node in self.nodes:
            yield from node.render(scope)


def show(value: object) -> str:
    """As Go's fmt prints it with %v."""
    if value is None:
        return "<no value>"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(map(show, value)) + "]"
    return str(value)


def truth(value: object) -> bool:
    """Go's rule: false, 0, nil and what is empty are false."""
    return bool(value)


def field(value: object, name: str) -> object:
    """``.Name`` of a value. Raises: MisfitError when there is none."""
    if isinstance(value, dict):
        if name in value:
            found: object = value[name]
            return found
        raise MisfitError(
            f'template: :1: executing "" at <.{name}>: map has no entry for key "{name}"',
        )
    raise MisfitError(f'template: :1: executing "" at <.{name}>: can\'t evaluate field {name} in {show(value)}')
