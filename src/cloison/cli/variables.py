"""Environment and labels: ``-e``, ``--env-file``, ``-l``, ``--label-file`` (docker's opts and pkg/kvfile).

In a file everything after ``=`` is the value: quotes, dollars, escapes and trailing blanks stay.
"""

from __future__ import annotations

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MAX_LINE = 64 << 10


def check_variable(text: str) -> str:
    """A value of ``-e``. Raises: ValueError when the name is missing."""
    if text.startswith("=") or not text:
        raise ValueError(f"invalid environment variable: {text}")
    if "\0" in text:
        raise ValueError("a variable cannot hold a NUL byte")
    return text


def check_label(text: str) -> str:
    """A value of ``-l``. Raises: ValueError when the key is missing."""
    if text.startswith("=") or not text:
        raise ValueError(f"invalid label format: {text!r}")
    return text


def read_environment(*, files: Iterable[str], words: Iterable[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """``K=V`` in order, files first, later ones win; a bare ``K`` says "remove what the image sets".

    ``-e K`` imports K from our own environment and, where it is unset, removes it; a bare K in a file imports or is
    skipped.
    """
    found: dict[str, str] = {}
    for path in files:
        for line in read_lines(path, what="env file"):
            name, equals, value = line.partition("=")
            if equals:
                found[name] = line
            elif name in environ:
                found[name] = f"{name}={environ[name]}"
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name in environ:
            word = f"{name}={environ[name]}"
        found[name] = word
    return tuple(found.values())


def read_labels(*, files: Iterable[str], words: Iterable[str]) -> dict[str, str]:
    """Labels of ``--label-file`` and ``-l``; a bare key has an empty value."""
    labels: dict[str, str] = {}
    for path in files:
        for line in read_lines(path, what="label file"):
            key, _, value = line.partition("=")
            labels[key] = value
    for word in words:
        key, _, value = word.partition("=")
        labels[key] = value
    return labels


def read_lines(path: str, *, what: str) -> Iterator[str]:
    """The meaningful lines of a file of ``KEY=VALUE``. Raises: InvalidArgument that names file and line."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as err:
        raise InvalidArgument(f"open {path}", why=(err.strerror or str(err)).lower()) from err
    content = content.removeprefix(b"\xef\xbb\xbf")
    for number, raw in enumerate(content.split(b"\n"), 1):
        raw = raw.removesuffix(b"\r")
        if len(raw) > MAX_LINE:
            raise InvalidArgument(f"invalid {what} ({path})", why=f"line {number} is longer than 64 KiB")
        try:
            line = raw.decode()
        except UnicodeDecodeError as err:
            raise InvalidArgument(f"invalid {what} ({path})", why=f"line {number} is not UTF-8: {raw!r}") from err
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        yield _checked(line, path, number=number, what=what)


def _checked(line: str, path: str, *, number: int, what: str) -> str:
    name = line.partition("=")[0]
    where = f"invalid {what} ({path})"
    if not name:
        raise InvalidArgument(where, why=f"no variable name on line {number}: '{line}'")
    if any(letter.isspace() for letter in name):
        raise InvalidArgument(where, why=f"variable '{name}' on line {number} contains whitespaces")
    if "\0" in line:
        raise InvalidArgument(where, why=f"line {number} holds a NUL byte")
    return line
