"""A file of credentials (docker's config.json, containers-auth.json(5)): read strictly, changed in place.

What we do not know in it stays; a malformed one is never overwritten; a symbolic link is followed to its file.
"""

from __future__ import annotations

import json
import os

from cloison.errors import Denied, InvalidArgument
from cloison.store.atomic import make_private_directory, write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Auths = dict[str, object]

_MAX_BYTES = 4 << 20


class AuthFile:
    """One file, which need not exist."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self) -> dict[str, object]:
        """Everything in it; {} when there is no file. Raises: InvalidArgument, Denied."""
        try:
            with open(self.path, "rb") as file:
                text = file.read(_MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as err:
            raise Denied(f"cannot read {self.path}", why=os.strerror(err.errno or 0).lower()) from err
        return _parse(text, self.path) if text.strip() else {}

    def auths(self, content: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
        return _auths(content, self.path)

    def change(self, change: Callable[[Auths], object]) -> None:
        """Rewrite it with its ``auths`` changed: whole, 0600 when it is new. Raises: InvalidArgument, Denied."""
        content = self.read()
        auths: Auths = dict(self.auths(content))
        change(auths)
        path = os.path.realpath(self.path)
        make_private_directory(os.path.dirname(path))
        try:
            before = os.stat(path)
        except OSError:
            before = None
        data = json.dumps({**content, "auths": auths}, indent="\t", ensure_ascii=False) + "\n"
        write_file(path, data, durable=True, mode=before.st_mode & 0o777 if before else 0o600)
        if before is not None and before.st_uid != os.geteuid():
            os.chown(path, before.st_uid, before.st_gid)  # root changed a user's file, by sudo


def read_auths(text: str, *, name: str) -> dict[str, Mapping[str, object]]:
    """The ``auths`` in the value of a variable. Raises: InvalidArgument."""
    return _auths(_parse(text.encode(errors="surrogateescape"), name), name)


def _parse(text: bytes, name: str) -> dict[str, object]:
    try:
        if len(text) > _MAX_BYTES:
            raise ValueError("too large")
        value = json.loads(text)
    except (ValueError, RecursionError) as err:
        why = "not JSON" if isinstance(err, json.JSONDecodeError) else "not to be read"
        raise InvalidArgument(f"{name} is malformed", why=why, hint="correct it, or move it away") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{name} is malformed", why="not a JSON object", hint="correct it, or move it away")
    return value


def _auths(content: Mapping[str, object], name: str) -> dict[str, Mapping[str, object]]:
    auths = content.get("auths")
    if auths is None:
        return {}
    if not isinstance(auths, dict) or not all(isinstance(entry, dict) for entry in auths.values()):
        raise InvalidArgument(f"{name} is malformed", why="auths is not an object of objects")
    return auths
