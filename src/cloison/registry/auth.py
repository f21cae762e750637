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
    from cloison.registry.transport import Response, Transport

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
_CLIENT_ID = "cloison"


class Credentials(Record):
    """A user of one registry, or a token that stands for one. Never printed."""

    username: str = ""
    password: str = ""
    identity_token: str = ""  # to be exchanged for tokens at the realm (OAuth 2 refresh token)
    registry_token: str = ""  # to be sent as it is

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"

    @property
    def basic(self) -> str:
        return "Basic " + b64encode(f"{self.username}:{self.password}".encode()).decode()


class Token(Record):
    """What a token service gave. Never printed."""

    bearer: str
    life_s: float
    refresh: str = ""  # an identity token, when one was asked for

    def __repr__(self) -> str:
        return "Token(…)"


class Challenge(Record):
    """One of the ways to authenticate that a 401 offers; scheme and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str] = {}


class Authenticator:
    """Authorization headers for one registry, a token a scope, kept until it expires. Thread-safe.

    A scope is ``repository:app:pull,push``, several are separated by blanks; "" asks for no more than to be known.
    """

    def __init__(
        self, transport: Transport, guard: Guard, *, credentials: Credentials | None = None,
        clock: Callable[[], float] = time.monotonic, wants_identity: bool = False,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._guard = guard
        self._credentials = credentials
        self._clock = clock
        self._wants_identity = wants_identity
        self.identity_token = ""  # what the token service gave, if ``wants_identity``
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
                is_basic = now["Authorization"].startswith("Basic ")
                raise self._denied("it refuses " + ("the user or the password" if is_basic else "its own token"))
            self._headers[scope] = self._obtain(challenge, scope=scope)
            self._obtained[scope] = self._clock()

    def _obtain(self, challenge: str, *, scope: str) -> tuple[str, float]:
        offers = {offer.scheme: offer.parameters for offer in reversed(parse_challenges(challenge))}
        known = self._credentials
        if "bearer" in offers:
            if known and known.registry_token:
                return f"Bearer {known.registry_token}", float("inf")
            return self._fetch_token(offers["bearer"], scope=scope)
        if "basic" in offers and known and known.username:
            return known.basic, float("inf")
        if "basic" in offers:
            raise self._denied("it wants a user name and a password")
        raise self._denied("it offers no way to authenticate that is known here")

    def _fetch_token(self, parameters: Mapping[str, str], *, scope: str) -> tuple[str, float]:
        realm = self._checked_realm(parameters)
        query = [("scope", word) for word in scope.split(" ") if word]
        if service := parameters.get("service"):
            query.insert(0, ("service", service))
        with self._ask(realm, query) as answer:
            if answer.status in (400, 401, 403, 404):
                wrong = answer.status == 401 and self._credentials is not None
                why = "incorrect username or password" if wrong else f"its token service answers {answer.status}"
                raise self._denied(why)
            if answer.status != 200:
                raise Unavailable(
                    f"the token service of {self._guard.home.authority} fails", why=f"status {answer.status}"
                )
            token = parse_token(answer.read(_MAX_ANSWER_BYTES))
        self.identity_token = token.refresh
        return f"Bearer {token.bearer}", self._clock() + max(token.life_s, _DEFAULT_LIFE_S) - _MARGIN_S

    def _ask(self, realm: str, query: list[tuple[str, str]]) -> Response:
        """GET with the password (token.md), or POST with the identity token (oauth.md)."""
        known = self._credentials
        if known and known.identity_token:
            form = [*query, ("grant_type", "refresh_token"), ("refresh_token", known.identity_token)]
            form.append(("client_id", _CLIENT_ID))
            return self._transport.send(
                "POST", realm, headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(), answer_bytes=_MAX_ANSWER_BYTES, peer="token service",
            )  # fmt: skip
        if known and known.username:
            query = [("account", known.username), *query]
        if self._wants_identity:
            query += [("client_id", _CLIENT_ID), ("offline_token", "true")]
        url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}" if query else realm
        headers = {"Authorization": known.basic} if known and known.username else {}
        return self._transport.send(
            "GET", url, headers=headers, answer_bytes=_MAX_ANSWER_BYTES, peer="token service"
        )  # fmt: skip

    def _checked_realm(self, parameters: Mapping[str, str]) -> str:
        """The address that gives out tokens, once it has been found harmless. Raises: Denied, InvalidArgument."""
        realm = parameters.get("realm", "")
        self._guard.check_lead(self._guard.home, origin_of(realm), what="token realm")
        return realm.partition("#")[0]

    def _denied(self, why: str) -> Denied:
        return Denied(
            f"registry {self._guard.home.authority} denies access", why=why,
            hint=login_hint(self._guard.home.authority, known=self._credentials is not None),
        )  # fmt: skip


def login_hint(domain: str, *, known: bool) -> str:
    """What to do about a registry that refuses us."""
    shown = "" if domain == "registry-1.docker.io" else f" {domain}"
    again = (
        "the user may lack the right; to log in as another" if known else "it may be private, or not exist; to log in"
    )
    return f"{again}: cloison login{shown}"


def parse_token(body: bytes) -> Token:
    """A token service's answer. Raises: Unavailable, InvalidArgument."""
    answer = parse_document(body, document="answer of the token service")
    token = answer.text("token", default="") or answer.text("access_token", default="")
    refresh = answer.text("refresh_token", default="")
    if not token or not all(map(_is_token, filter(None, (token, refresh)))):
        raise Unavailable("the token service's answer is malformed", why="it holds no token")
    # an absurd life is no error: the registry will refuse the token when it wants
    life_s = min(answer.number("expires_in"), 3600) if answer.has("expires_in") else 0
    return Token(bearer=token, life_s=float(life_s or _DEFAULT_LIFE_S), refresh=refresh)


def _is_token(text: str) -> bool:
    return len(text) <= _MAX_TOKEN and text.isascii() and text.isprintable() and " " not in text


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
