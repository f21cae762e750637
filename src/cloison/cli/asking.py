"""Questions to whoever sits at the terminal."""

from __future__ import annotations

import os

from cloison.cli import output
from cloison.cli.terminal import is_terminal
from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def choose(question: str, options: Sequence[str]) -> str:
    """One of the options by its number, the first for an empty line; "" unless standard input and output are terminals.

    Raises: InvalidArgument for an answer that is none of them.
    """
    if not (is_terminal(output.STDIN) and is_terminal(output.STDOUT)):
        return ""
    lines = [question, *(f"  {number}) {option}" for number, option in enumerate(options, 1))]
    output.complain("\n".join(lines))
    answer = ask("Number [1]: ") or "1"
    if not (answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(options)):
        raise InvalidArgument(f"no choice has the number {answer!r}", hint=f"there are 1 to {len(options)}")
    return options[int(answer) - 1]


def ask(prompt: str) -> str:
    """One line of standard input, asked for on standard error. Raises: InvalidArgument where that has ended."""
    output.write_all(output.STDERR, prompt.encode())
    answer = os.read(output.STDIN, 4096).decode(errors="surrogateescape")
    if not answer:
        raise InvalidArgument("nobody answers", why="standard input has ended")
    return answer.strip()
