"""Tokens: the answer to a registry's 401 (distribution's token specification; RFC 6750, RFC 9110 section 11.6).

The realm, the address that gives out tokens, is chosen by the server, so it passes the same guard as a redirect. The
scope is ours, never the server's: it asks for what we need.
"""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from urllib.parse import urlencode, urlsplit

from cloison.errors import CloisonError, Denied, InvalidArgument, Unavailable
from cloison.model.record import Record
from cloison.oci.strict import parse_document
from cloison.registry.origin import origin_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloison.registry.origin import Guard
    from cloison.registry.transport import Transport

_MAX_CHALLENGE = 8 << 10
_MAX_ANSWER_BYTES = 64 << 10
_MAX_TOKEN = 16 << 10
# RFC 9110 section 5.6.2, "tchar"
_TOKEN_LETTERS = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# the token specification's default, and a margin for the request that uses the token
_DEFAULT_LIFE_S = 60
_MARGIN_S = 10
# a token that is refused so young was never good; an older one may have expired early
_FRESH_S = 5
_LOGIN_HINT = "the image may be private, or not exist; cloison cannot log in to registries yet"


class Credentials(Record):
    """A user of one registry. Never printed."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=…)"

    @property
    def basic(self) -> str:
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode()


class Challenge(Record):
    """One of the ways to authenticate that a 401 offers; scheme and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = {}


class Authenticator:
    """Authorization headers for one registry, a token a scope, kept until it expires. Thread-safe."""

    def __init__(
        self, transport: Transport, guard: Guard, *, credentials: Credentials | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._guard = guard
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._headers: dict[str, tuple[str, float]] = {}  # scope -> (header, when it expires)
        self._obtained: dict[str, float] = {}

    def headers(self, scope: str) -> dict[str, str]:
        """What to send along, as far as is known: empty before the first challenge."""
        header, expires = self._headers.get(scope, ("", 0.0))
        return {"Authorization": header} if header and self._clock() < expires else {}

    def answer(self, challenge: str, *, scope: str, refused: Mapping[str, str]) -> None:
        """Get a new header for ``scope`` after a 401 whose request carried ``refused``.

        Raises: Denied when nothing is left to try, or the realm is not to be trusted; Unavailable; InvalidArgument.
        """
        with self._lock:  # one token for all layers that were refused together
            now = self.headers(scope)
            if now and now != dict(refused):
                return
            if now and self._clock() - self._obtained.get(scope, 0.0) < _FRESH_S:
                raise self._denied("it refuses the token that it asked for")
            self._headers[scope] = self._obtain(challenge, scope=scope)
            self._obtained[scope] = self._clock()

    def _obtain(self, challenge: str, *, scope: str) -> tuple[str, float]:
        offers = {offer.scheme: offer.parameters for offer in reversed(parse_challenges(challenge))}
        if "bearer" in offers:
            return self._fetch_token(offers["bearer"], scope=scope)
        if "basic" in offers and self._credentials:
            return self._credentials.basic, float("inf")
        if "basic" in offers:
            raise self._denied("it wants a user name and a password")
        raise self._denied("it offers no way to authenticate that is known here")

    def _fetch_token(self, parameters: Mapping[str, str], *, scope: str) -> tuple[str, float]:
        url = self._token_url(parameters, scope=scope)
        headers = {"Authorization": self._credentials.basic} if self._credentials else {}
        with self._transport.get_direct(url, headers=headers, body_bytes=_MAX_ANSWER_BYTES) as answer:
            if answer.status in (400, 401, 403, 404):
                raise self._denied(f"its token service answers {answer.status}")
            if answer.status != 200:
                raise Unavailable(
                    f"the token service of {self._guard.home.authority} fails", why=f"status {answer.status}"
                )
            token, life_s = parse_token(answer.read(_MAX_ANSWER_BYTES))
        return f"Bearer {token}", self._clock() + max(life_s, _DEFAULT_LIFE_S) - _MARGIN_S

    def _token_url(self, parameters: Mapping[str, str], *, scope: str) -> str:
        """The realm with our query, once it has been found harmless. Raises: Denied, InvalidArgument."""
        realm = parameters.get("realm", "")
        target = origin_of(realm)
        self._guard.check_lead(self._guard.home, target, what="token realm")
        query = {"scope": scope}
        if service := parameters.get("service"):
            query["service"] = service
        bare = realm.partition("#")[0]
        return f"{bare}{'&' if urlsplit(bare).query else '?'}{urlencode(query)}"

    def _denied(self, why: str) -> Denied:
        hint = "" if self._credentials else _LOGIN_HINT
        return Denied(f"registry {self._guard.home.authority} denies access", why=why, hint=hint)


def parse_token(body: bytes) -> tuple[str, float]:
    """The token and its life in seconds from a token service's answer. Raises: Unavailable, InvalidArgument."""
    answer = parse_document(body, document="answer of the token service")
    token = answer.text("token", default="") or answer.text("access_token", default="")
    if not 0 < len(token) <= _MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise Unavailable("the token service's answer is malformed", why="it holds no token")
    # an absurd life is no error: the registry will refuse the token when it wants
    life_s = min(answer.number("expires_in"), 3600) if answer.has("expires_in") else 0
    return token, float(life_s or _DEFAULT_LIFE_S)


def parse_challenges(text: str) -> tuple[Challenge, ...]:
    """The offers in a ``WWW-Authenticate`` header, also when several headers were joined by commas.

    Shape: ``scheme SP name=value *( "," name=value )``, values bare or quoted, schemes separated by commas.
    Raises: InvalidArgument for anything else.
    """
    if len(text) > _MAX_CHALLENGE:
        raise InvalidArgument("the registry's challenge is malformed", why="it is too long")
    scanner = _Scanner(text)
    found: list[tuple[str, dict[str, str]]] = []
    while scanner.skip(" \t,"):
        word = scanner.token()
        scanner.skip(" \t")
        if scanner.take("="):
            if not found:
                raise scanner.malformed()
            scanner.skip(" \t")
            found[-1][1].setdefault(word.lower(), scanner.value())
        else:
            found.append((word.lower(), {}))
    return tuple(Challenge(scheme=scheme, parameters=parameters) for scheme, parameters in found)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def skip(self, letters: str) -> bool:
        """Step over these letters; whether anything is left."""
        while self._at < len(self._text) and self._text[self._at] in letters:
            self._at += 1
        return self._at < len(self._text)

    def take(self, letter: str) -> bool:
        if self._text.startswith(letter, self._at):
            self._at += 1
            return True
        return False

    def token(self) -> str:
        begin = self._at
        while self._at < len(self._text) and self._text[self._at] in _TOKEN_LETTERS:
            self._at += 1
        if begin == self._at:
            raise self.malformed()
        return self._text[begin : self._at]

    def value(self) -> str:
        if not self.take('"'):
            return self.token()
        letters: list[str] = []
        while not self.take('"'):
            self.take("\\")
            if self._at >= len(self._text):
                raise self.malformed()
            letters.append(self._text[self._at])
            self._at += 1
        return "".join(letters)

    def malformed(self) -> CloisonError:
        return InvalidArgument("the registry's challenge is malformed", why=f"at character {self._at + 1}")
