"""Credentials as other tools keep them: config.json, auth.json, and the helper programs that they name.

The first that has it wins: ``DOCKER_AUTH_CONFIG``; ``--authfile`` or ``REGISTRY_AUTH_FILE``, and no other file then;
else ``$DOCKER_CONFIG/config.json`` (``~/.docker``), then ``containers/auth.json`` below ``$XDG_RUNTIME_DIR`` and
``$XDG_CONFIG_HOME`` (``~/.config``).  In a file: ``credHelpers``, ``credsStore``, ``auths``.
Sources: docker's "login" page, docker-credential-helpers' README, containers-auth.json(5).
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

from cloison.errors import CloisonError, InvalidArgument, Unavailable
from cloison.registry.auth import Credentials
from cloison.registry.helpers import Helper
from cloison.store.authfile import AuthFile, read_auths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cloison.model.settings import Settings

HUB_KEY = "https://index.docker.io/v1/"
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_MAX_AUTH = 64 << 10


def _ignore(_text: str) -> None:
    pass


class Keychain:
    """The credentials that a user has. ``warn`` hears, once each, of what cannot be used."""

    def __init__(self, settings: Settings, *, auth_file: str = "", warn: Callable[[str], None] = _ignore) -> None:
        self._environ = settings.environ
        self._warn = warn
        self._warned: set[str] = set()
        only = auth_file or self._environ.get("REGISTRY_AUTH_FILE", "")
        self._files = [AuthFile(path) for path in ([only] if only else self._usual_paths())]

    def _usual_paths(self) -> Iterator[str]:
        environ = self._environ
        home = environ.get("HOME", "")
        if directory := environ.get("DOCKER_CONFIG") or (home and f"{home}/.docker"):
            yield f"{directory}/config.json"
        if runtime := environ.get("XDG_RUNTIME_DIR"):
            yield f"{runtime}/containers/auth.json"
        if config := environ.get("XDG_CONFIG_HOME") or (home and f"{home}/.config"):
            yield f"{config}/containers/auth.json"

    # -- looking

    def find(self, domain: str, path: str = "") -> Credentials | None:
        """The credentials for a repository, the most specific entry first; None: go on anonymously.

        Raises: nothing: a broken helper or file is warned of, since many images are public.
        """
        keys = list(_keys(domain, path))
        if text := self._environ.get("DOCKER_AUTH_CONFIG"):
            try:
                found = self._from_auths(read_auths(text, name="DOCKER_AUTH_CONFIG"), keys)
            except CloisonError as err:
                self._complain(str(err))
            else:
                if found:
                    return found
        for file in self._files:
            try:
                found = self._from_file(file, domain, keys)
            except CloisonError as err:
                self._complain(str(err))
            else:
                if found:
                    return found
        return None

    def _from_file(self, file: AuthFile, domain: str, keys: Sequence[str]) -> Credentials | None:
        content = file.read()
        name = self._helper_name(content, domain)
        if name:
            try:
                found = Helper(name, self._environ).get(_server(domain))
            except CloisonError as err:
                self._complain(str(err))
            else:
                if found:
                    return found
        return self._from_auths(file.auths(content), keys)

    def _helper_name(self, content: Mapping[str, object], domain: str) -> str:
        """The helper for one registry, else the one for all; "" is none."""
        helpers = content.get("credHelpers")
        if isinstance(helpers, dict):
            for key in (domain, _server(domain), *(_HUB if domain in _HUB else ())):
                if isinstance(name := helpers.get(key), str) and name:
                    return name
        store = content.get("credsStore")
        return store if isinstance(store, str) else ""

    def _from_auths(self, auths: Mapping[str, Mapping[str, object]], keys: Sequence[str]) -> Credentials | None:
        plain = {_plain_key(key): value for key, value in auths.items()}
        for key in keys:
            entry = auths.get(key) or plain.get(key)
            if entry and (found := _parse_entry(entry, key)):
                return found
        return None

    def _complain(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(f"WARNING: {text}; going on without credentials")

    # -- changing

    def store(self, server: str, credentials: Credentials) -> str:
        """Keep credentials for a registry; where: a path, or the helper's name. Raises: Denied, InvalidArgument."""
        file = self._first_file()
        name = self._helper_name(file.read(), server)
        if name:
            Helper(name, self._environ).store(_server(server), credentials)
            return f"docker-credential-{name}"
        entry: dict[str, object] = {"auth": credentials.basic.removeprefix("Basic ")}
        if credentials.identity_token:
            user = b64encode(f"{credentials.username}:".encode()).decode()
            entry = {"auth": user, "identitytoken": credentials.identity_token}
        file.change(lambda auths: auths.update({_server(server): entry}))
        return file.path

    def erase(self, server: str) -> bool:
        """Forget a registry's credentials wherever they are; whether there were any. Raises: Denied, Unavailable."""
        gone = False
        keys = {*_keys(server, ""), _server(server)}
        for file in self._files:
            content = file.read()
            name = self._helper_name(content, server)
            if name:
                helper = Helper(name, self._environ)
                if helper.get(_server(server)):
                    helper.erase(_server(server))
                    gone = True
            doomed = [key for key in file.auths(content) if key in keys or _plain_key(key) in keys]
            if doomed:
                file.change(lambda auths, doomed=doomed: [auths.pop(key) for key in doomed])  # type: ignore[misc]
                gone = True
        return gone

    def servers(self) -> Sequence[str]:
        """Registries that have an entry in a file, by name."""
        return sorted({key for file in self._files for key in file.auths(file.read())})

    def _first_file(self) -> AuthFile:
        if not self._files:
            raise Unavailable("cannot keep credentials", why="neither HOME nor DOCKER_CONFIG is set")
        return self._files[0]


def _server(domain: str) -> str:
    """The name under which docker and its helpers know a registry."""
    return HUB_KEY if domain in _HUB else domain


def _keys(domain: str, path: str) -> Iterator[str]:
    """``host/a/b``, ``host/a``, ``host`` (containers-auth.json(5)); Docker Hub by all its names."""
    names = _HUB if domain in _HUB else (domain,)
    parts = path.split("/") if path else []
    for count in range(len(parts), 0, -1):
        yield f"{names[0]}/{'/'.join(parts[:count])}"
    if domain in _HUB:
        yield HUB_KEY
    yield from names


def _plain_key(key: str) -> str:
    """``https://host/v1/`` of old docker is ``host``; other keys stand as they are."""
    scheme, mark, rest = key.partition("://")
    return rest.partition("/")[0] if mark and scheme in ("http", "https") else key


def _parse_entry(entry: Mapping[str, object], key: str) -> Credentials | None:
    """One of ``auths``; None for an empty one, as docker leaves beside a helper. Raises: InvalidArgument."""

    def text(field: str) -> str:
        value = entry.get(field, "")
        return value if isinstance(value, str) and len(value) <= _MAX_AUTH else ""

    username, password = text("username"), text("password")
    if auth := text("auth"):
        try:
            username, colon, password = b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise InvalidArgument(
                f"the credentials for {key} cannot be read", why="not base64 of user:password"
            ) from None
        if not colon:
            raise InvalidArgument(f"the credentials for {key} cannot be read", why="no colon after the user")
    found = Credentials(
        username=username, password=password.strip("\0"), identity_token=text("identitytoken"),
        registry_token=text("registrytoken"),
    )  # fmt: skip
    return found if found != Credentials() else None
