"""Inside an action: operands, pipes, functions."""

from __future__ import annotations

from cloison.cli.template_parts import Heading, MisfitError, Scope, TemplateError, field, show, truth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_SPACE = frozenset(" \t\r\n")
_BREAKS = _SPACE | frozenset('|(),"`')


def tokenize(text: str) -> list[str]:
    """Words, strings (with their opening quote), ``| ( ) , :=``. Raises: TemplateError."""
    tokens: list[str] = []
    index = 0
    while index < len(text):
        letter = text[index]
        if letter in _SPACE:
            index += 1
        elif letter in '"`':
            token, index = _string(text, index)
            tokens.append(token)
        elif text.startswith(":=", index):
            tokens.append(":=")
            index += 2
        elif letter in "|(),":
            tokens.append(letter)
            index += 1
        else:
            end = index
            while end < len(text) and text[end] not in _BREAKS and not text.startswith(":=", end):
                end += 1
            tokens.append(text[index:end])
            index = end
    return tokens


def _string(text: str, start: int) -> tuple[str, int]:
    quote, index, value = text[start], start + 1, ""
    escapes = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "r": "\r"}
    while index < len(text):
        letter = text[index]
        if letter == quote:
            return '"' + value, index + 1
        if letter == "\\" and quote == '"' and text[index + 1 : index + 2] in escapes:
            value += escapes[text[index + 1]]
            index += 2
            continue
        value += letter
        index += 1
    raise TemplateError("template parsing error: template: :1: unterminated quoted string")


class Pipeline:
    """Commands, each of operands; the value of one is the last argument of the next."""

    def __init__(self, commands: Sequence[Sequence[object]]) -> None:
        self._commands = commands

    def evaluate(self, scope: Scope) -> object:
        value: object = None
        for number, command in enumerate(self._commands):
            value = _command(command, scope, extra=[value] if number else [])
        return value


class _Group:
    """``(pipeline).Field``."""

    def __init__(self, pipeline: Pipeline, path: str) -> None:
        self.pipeline, self.path = pipeline, path


def parse_pipeline(text: str) -> Pipeline:
    """Raises: TemplateError."""
    tokens = tokenize(text)
    pipeline = _pipeline(tokens)
    if tokens:
        raise TemplateError(f"template parsing error: template: :1: unexpected {tokens[0]!r}")
    return pipeline


def _pipeline(tokens: list[str]) -> Pipeline:
    commands: list[list[object]] = [[]]
    while tokens and tokens[0] != ")":
        token = tokens.pop(0)
        if token == "|":
            commands.append([])
        elif token == "(":
            inner = _pipeline(tokens)
            if not tokens or tokens.pop(0) != ")":
                raise TemplateError("template parsing error: template: :1: unclosed left paren")
            path = tokens.pop(0) if tokens and tokens[0].startswith(".") and len(tokens[0]) > 1 else ""
            commands[-1].append(_Group(inner, path))
        else:
            _check(token, first=not commands[-1])
            commands[-1].append(token)
    if not all(commands):
        raise TemplateError("template parsing error: template: :1: missing value for command")
    return Pipeline(commands)


def _check(token: str, *, first: bool) -> None:
    """A word must be something: an operand or, in front, a function."""
    if token[0] in '.$"' or token in ("true", "false", "nil") or _number(token) is not None:
        return
    if token not in FUNCTIONS:
        raise TemplateError(f'template parsing error: template: :1: function "{token}" not defined')


_LOOKS = ("json", "lower", "pad", "title", "truncate", "upper")


def _number(token: str) -> int | None:
    body = token.removeprefix("-")
    return int(token) if body.isascii() and body.isdigit() else None


def _command(words: Sequence[object], scope: Scope, *, extra: list[object]) -> object:
    head = words[0]
    if isinstance(head, str) and head in FUNCTIONS:
        arguments = [_operand(word, scope) for word in words[1:]] + extra
        if head in _LOOKS and (heading := next((item for item in arguments if isinstance(item, Heading)), None)):
            return heading
        try:
            return FUNCTIONS[head](*arguments)
        except (TypeError, ValueError, IndexError, AttributeError) as err:
            raise MisfitError(f'template: :1: executing "" at <{head}>: error calling {head}: {err}') from None
    if len(words) > 1 or extra:
        raise MisfitError(f'template: :1: executing "": can\'t give argument to non-function {head}')
    return _operand(head, scope)


def _operand(word: object, scope: Scope) -> object:
    if isinstance(word, _Group):
        return _walk(word.pipeline.evaluate(scope), word.path)
    assert isinstance(word, str)
    if word.startswith('"'):
        return word[1:]
    if word == ".":
        return scope.dot
    if word.startswith("."):
        return _walk(scope.dot, word)
    if word.startswith("$"):
        name, dot, path = word.partition(".")
        if name not in scope.variables:
            raise TemplateError(f'template: :1: undefined variable "{name}"')
        return _walk(scope.variables[name], dot + path)
    number = _number(word)
    if number is not None:
        return number
    if word in FUNCTIONS:
        return _command([word], scope, extra=[])
    return {"true": True, "false": False}.get(word)


def _walk(value: object, path: str) -> object:
    for name in path.split(".")[1:]:
        value = field(value, name)
    return value


def _json(value: object) -> str:
    from cloison.cli.documents import dumps

    return dumps(value)


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif isinstance(value, (list, tuple)) and isinstance(key, int):
            value = value[key]
        else:
            raise ValueError(f"can't index {show(value)} with {show(key)}")
    return value


def _join(items: Sequence[object], separator: str) -> str:
    return separator.join(map(show, items))


def _print(*values: object) -> str:
    return "".join(map(show, values))


def _printf(form: str, *values: object) -> str:
    rest = list(values)
    pieces: list[str] = []
    position = 0
    while (at := form.find("%", position)) >= 0:
        pieces.append(form[position:at])
        end = at + 1
        while end < len(form) and not form[end].isalpha() and form[end] != "%":
            end += 1
        verb, width = form[end : end + 1], form[at + 1 : end]
        pieces.append("%" if verb == "%" else _formatted(verb, width, rest.pop(0)))
        position = end + 1
    return "".join([*pieces, form[position:]])


def _formatted(verb: str, width: str, value: object) -> str:
    text = '"' + show(value).replace('"', '\\"') + '"' if verb == "q" else show(value)
    if verb not in "vsdqt" or not width.lstrip("-").isdigit():
        if width or verb not in "vsdqt":
            raise ValueError(f"unsupported %{width}{verb}")
        return text
    return text.ljust(int(width[1:])) if width.startswith("-") else text.rjust(int(width))


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _and(*values: object) -> object:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: object) -> object:
    return next((value for value in values if truth(value)), values[-1])


FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "and": _and,
    "eq": lambda first, *others: any(first == other for other in others),
    "index": _index,
    "join": _join,
    "json": _json,
    "len": len,
    "lower": str.lower,
    "ne": lambda first, second: first != second,
    "not": lambda value: not truth(value),
    "or": _or,
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(map(show, values)) + "\n",
    "split": lambda text, separator: text.split(separator),
    "title": str.title,
    "truncate": lambda text, length: text[:length],
    "upper": str.upper,
}
