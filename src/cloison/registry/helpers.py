"""Credential helpers: ``docker-credential-NAME get|store|erase`` (docker-credential-helpers, "Development").

One runs as its user would run it, with the caller's environment: it has to find keyrings, agents and cloud profiles.
"""

from __future__ import annotations

import json
import os

from cloison.errors import Unavailable
from cloison.linux.command import run_exactly
from cloison.registry.auth import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_S = 30.0
_TOKEN_USER = "<token>"
# how helpers say that they have nothing, on standard output
_NOT_FOUND = b"credentials not found"


class Helper:
    """One helper by its name (``ecr-login``)."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        self._program = f"docker-credential-{name}"
        self._environ = environ

    def get(self, server: str) -> Credentials | None:
        """What it keeps for a registry. Raises: Unavailable: not installed, failed, or not understood."""
        said, status = self._run("get", server.encode())
        if status:
            if _NOT_FOUND in said.lower():
                return None
            raise self._failure(said, status)
        try:
            answer = json.loads(said)
            user, secret = answer["Username"], answer["Secret"]
        except (ValueError, KeyError, TypeError):
            raise Unavailable(f"credential helper {self._program} failed", why="its answer is malformed") from None
        if not (isinstance(user, str) and isinstance(secret, str)) or not secret:
            return None
        if user == _TOKEN_USER:
            return Credentials(identity_token=secret)
        return Credentials(username=user, password=secret)

    def store(self, server: str, credentials: Credentials) -> None:
        """Raises: Unavailable."""
        token = credentials.identity_token
        value = {
            "ServerURL": server, "Username": _TOKEN_USER if token else credentials.username,
            "Secret": token or credentials.password,
        }  # fmt: skip
        said, status = self._run("store", json.dumps(value).encode())
        if status:
            raise self._failure(said, status)

    def erase(self, server: str) -> None:
        """Raises: Unavailable."""
        said, status = self._run("erase", server.encode())
        if status:
            raise self._failure(said, status)

    def _run(self, verb: str, text: bytes) -> tuple[bytes, int]:
        """Standard output and exit status, negative for a signal."""
        path = self._find()
        if "/" in self._program or not path:
            raise Unavailable(f"credential helper {self._program} failed", why="it is not installed")
        environ = [f"{key}={value}" for key, value in self._environ.items()]
        try:
            done = run_exactly(path, argv=[path, verb], environ=environ, input=text, timeout_s=_TIMEOUT_S)
        except OSError as err:
            why = os.strerror(err.errno or 0).lower()
            raise Unavailable(f"credential helper {self._program} failed", why=why) from err
        if not done.in_time:
            raise Unavailable(f"credential helper {self._program} failed", why=f"no answer in {_TIMEOUT_S:g} s")
        return done.stdout, done.code

    def _find(self) -> str:
        for directory in self._environ.get("PATH", "").split(":"):
            path = os.path.join(directory, self._program)
            if directory and os.access(path, os.X_OK) and os.path.isfile(path):
                return path
        return ""

    def _failure(self, said: bytes, status: int) -> Unavailable:
        from cloison.registry.origin import printable

        ending = f"signal {-status}" if status < 0 else f"exit status {status}"
        text = said.decode(errors="replace").strip().splitlines()
        return Unavailable(f"credential helper {self._program} failed", why=printable(text[-1]) if text else ending)
