"""JSON for the hot path, without the standard package's imports.

``import json`` costs 6 ms because it compiles regular expressions; the C accelerators underneath cost nothing. Where
this interpreter does not have them in the shape we know, the package itself is used: same results, slower start.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_SPACE = " \t\n\r"


class _Context:
    """What ``_json.make_scanner`` reads from a ``json.JSONDecoder``."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")


def _unserialisable(value: object) -> None:
    raise TypeError(f"{type(value).__name__} has no JSON form")


try:
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    _scan = make_scanner(_Context)  # type: ignore[arg-type]  # a decoder, whatever the stub says
    _encode = make_encoder(None, _unserialisable, encode_basestring_ascii, None, ": ", ", ", False, False, False)
except (ImportError, TypeError, AttributeError):  # another interpreter, or a later CPython
    import json

    def loads(text: str | bytes) -> Any:
        """Parse one JSON document. Raises: ValueError."""
        return json.loads(text, parse_constant=_Context.parse_constant)

    def dumps(value: Any) -> str:
        """Render a value of dicts, lists, strings, numbers, booleans and None."""
        return json.dumps(value, allow_nan=False)

else:

    def loads(text: str | bytes) -> Any:
        """Parse one JSON document. Raises: ValueError."""
        document = (text.decode() if isinstance(text, bytes) else text).rstrip(_SPACE)
        try:
            value, end = _scan(document, len(document) - len(document.lstrip(_SPACE)))
        except (StopIteration, RecursionError, SystemError, ValueError) as err:
            # SystemError: json.decoder is not loaded to raise its own error; where it is, that is a ValueError
            if isinstance(err, ValueError) and not hasattr(err, "lineno"):
                raise
            raise ValueError(_fault(document)) from err
        if end != len(document):
            raise ValueError(f"something follows the JSON document at character {end}")
        return value

    def _fault(document: str) -> str:
        """What is wrong, and where; it costs the import that was saved, once."""
        import json

        try:
            json.loads(document)
        except json.JSONDecodeError as err:
            return f"not a JSON document: {err.msg.lower().removesuffix(' at')}, line {err.lineno}, column {err.colno}"
        except RecursionError:
            return "not a JSON document: nested too deeply"
        return "not a JSON document"

    def dumps(value: Any) -> str:
        """Render a value of dicts, lists, strings, numbers, booleans and None."""
        return "".join(_encode(value, 0))
