"""The part of Go's text/template that ``--format`` is used with, on plain values (dict, list, str, int, bool, None).

Actions: fields and ``.``, variables, strings, numbers, pipes, parentheses, ``range`` (also with variables), ``if``,
``else if``, ``else``, ``with``, ``end``, comments, trim markers; docker's functions json join lower pad split title
truncate upper, and of Go's own and eq index len ne not or print printf println. A template that does not parse, or
names a field that is not there, is a TemplateError (exit status 64).
"""

from __future__ import annotations

from cloison.cli.template_parts import Block, MisfitError, Node, Scope, TemplateError, Text, show, truth
from cloison.cli.template_words import Pipeline, parse_pipeline, tokenize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Template", "TemplateError", "parse_template"]


class Template:
    """A parsed template."""

    def __init__(self, body: Block) -> None:
        self._body = body

    def render(self, value: object) -> str:
        """The text for one value. Raises: MisfitError."""
        return "".join(self._body.render(Scope(value, {"$": value})))


def parse_template(text: str) -> Template:
    """Parse. ``\\t`` and ``\\n``, typed as two characters, count as tab and newline. Raises: TemplateError."""
    parser = _Parser(text)
    body, ended_by = parser.block()
    if ended_by:
        raise TemplateError(f"template parsing error: unexpected {{{{{ended_by}}}}}")
    return Template(body)


class _Action(Node):
    def __init__(self, pipeline: Pipeline, variable: str) -> None:
        self.pipeline, self.variable = pipeline, variable

    def render(self, scope: Scope) -> Iterable[str]:
        value = self.pipeline.evaluate(scope)
        if self.variable:
            scope.variables[self.variable] = value
        else:
            yield show(value)


class _If(Node):
    """``if`` and ``with``: the latter moves the dot."""

    def __init__(self, pipeline: Pipeline, body: Block, *, otherwise: Block, moves_dot: bool) -> None:
        self.pipeline, self.body, self.otherwise, self.moves_dot = pipeline, body, otherwise, moves_dot

    def render(self, scope: Scope) -> Iterable[str]:
        value = self.pipeline.evaluate(scope)
        if not truth(value):
            return self.otherwise.render(scope)
        return self.body.render(scope.at(value) if self.moves_dot else scope)


class _Range(Node):
    def __init__(self, pipeline: Pipeline, body: Block, *, otherwise: Block, variables: tuple[str, ...]) -> None:
        self.pipeline, self.body, self.otherwise, self.variables = pipeline, body, otherwise, variables

    def render(self, scope: Scope) -> Iterable[str]:
        value = self.pipeline.evaluate(scope)
        if not truth(value):
            yield from self.otherwise.render(scope)
            return
        for key, item in _pairs(value):
            inner = scope.at(item)
            if len(self.variables) == 2:
                inner.variables[self.variables[0]] = key
            if self.variables:
                inner.variables[self.variables[-1]] = item
            yield from self.body.render(inner)


def _pairs(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, dict):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    raise MisfitError(f"template: range can't iterate over {show(value)}")


class _Parser:
    """Text and actions to nodes, by recursive descent over ``{{`` … ``}}``."""

    def __init__(self, text: str) -> None:
        self.rest = text
        self.trim_left = False  # the text that follows an action with " -}}"
        self.trim_right = False  # the text that stands before an action with "{{- "

    def block(self) -> tuple[Block, str]:
        """Nodes up to ``end`` or ``else`` (its words are given back), or the end of the text ("")."""
        nodes: list[Node] = []
        while True:
            before, found, after = self.rest.partition("{{")
            trim_left, self.trim_right = self.trim_left, False
            action, self.rest = self._action(after) if found else ("", "")
            before = before.lstrip() if trim_left else before
            before = before.rstrip() if self.trim_right else before
            if before:
                nodes.append(Text(before.replace("\\t", "\t").replace("\\n", "\n")))
            if not found:
                return Block(nodes), ""
            word = action.split(None, 1)[0] if action.split() else ""
            if word in ("end", "else"):
                return Block(nodes), action
            if not action.startswith("/*"):
                nodes.append(self._node(word, action))

    def _action(self, after: str) -> tuple[str, str]:
        """The words of one action and what follows it."""
        end = _closing(after)
        body = after[:end]
        self.trim_right = body.startswith("- ")
        self.trim_left = body.endswith(" -")
        body = body.removeprefix("- ").removesuffix(" -").strip()
        if not body:
            raise TemplateError("template parsing error: template: :1: missing value for command")
        return body, after[end + 2 :]

    def _node(self, word: str, action: str) -> Node:
        if word in ("if", "with"):
            return self._if(action[len(word) :], moves_dot=word == "with")
        variables, pipeline = _assignment(action[5:] if word == "range" else action)
        if word != "range":
            if len(variables) > 1:
                raise TemplateError("template parsing error: too many variables")
            return _Action(pipeline, variables[0] if variables else "")
        body, otherwise = self._bodies()
        return _Range(pipeline, body, otherwise=otherwise, variables=variables)

    def _if(self, words: str, *, moves_dot: bool) -> Node:
        pipeline = parse_pipeline(words)
        body, otherwise = self._bodies()
        return _If(pipeline, body, otherwise=otherwise, moves_dot=moves_dot)

    def _bodies(self) -> tuple[Block, Block]:
        body, ended_by = self.block()
        if ended_by == "end":
            return body, Block([])
        if ended_by.startswith("else if"):
            return body, Block([self._if(ended_by[len("else if") :], moves_dot=False)])
        if ended_by == "else":
            otherwise, ended_by = self.block()
            if ended_by == "end":
                return body, otherwise
        raise TemplateError("template parsing error: template: :1: unexpected EOF")


def _closing(text: str) -> int:
    """Where the action's ``}}`` is; one inside a string does not count."""
    quote, index = "", 0
    while index < len(text):
        letter = text[index]
        if quote:
            if letter == "\\" and quote == '"':
                index += 1
            elif letter == quote:
                quote = ""
        elif letter in '"`':
            quote = letter
        elif text.startswith("}}", index):
            return index
        index += 1
    raise TemplateError("template parsing error: template: :1: unclosed action")


def _assignment(words: str) -> tuple[tuple[str, ...], Pipeline]:
    """``$a, $b := pipeline``."""
    tokens = tokenize(words)
    if ":=" not in tokens:
        return (), parse_pipeline(words)
    at = tokens.index(":=")
    names = tuple(token for token in tokens[:at] if token != ",")
    if not names or len(names) > 2 or not all(name.startswith("$") and len(name) > 1 for name in names):
        raise TemplateError("template parsing error: bad assignment")
    return names, parse_pipeline(words.partition(":=")[2])
