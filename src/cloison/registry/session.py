"""Requests to one repository's registry: where it answers, a token when it asks for one, its refusals as our errors."""

from __future__ import annotations

import threading

from cloison.errors import CloisonError, Denied, NotFound, Unavailable, Unsupported
from cloison.model.record import Record
from cloison.oci.strict import parse_document
from cloison.registry.auth import Authenticator, login_hint
from cloison.registry.budget import Limits, NoTls, TransferBroken, Unreachable
from cloison.registry.origin import Guard, Origin, is_loopback_name, origin_of, printable, registry_origin, resolve
from cloison.registry.tls import TlsFiles, Trust
from cloison.registry.transport import Body, Transport, proxies_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from cloison.model.settings import Settings
    from cloison.registry.auth import Credentials
    from cloison.registry.transport import Response

_MAX_ERROR_BYTES = 16 << 10


class Endpoint(Record):
    """Where one repository is served: the registry of its name, or a mirror of that."""

    domain: str  # host[:port]
    path: str = ""  # of the repository, there
    scheme: str = ""  # "http" or "https" where the configuration says; "" follows from the name
    root: str = "/v2"  # what all its addresses begin with
    verify: bool = True  # False: no certificate is checked, and plain HTTP will do where nobody speaks TLS
    files: TlsFiles = TlsFiles()
    headers: Mapping[str, str] = {}  # sent along with each request to this origin
    is_mirror: bool = False


class _Link:
    """An origin with all that speaking to it takes."""

    def __init__(
        self, origin: Origin, endpoint: Endpoint, *, settings: Settings, limits: Limits,
        credentials: Credentials | None, tls: ssl.SSLContext | None, wants_identity: bool,
    ) -> None:  # fmt: skip
        self.origin = origin
        self.guard = guard = Guard(origin, insecure=settings.insecure_registries)
        trust = Trust(origin.host, files=endpoint.files, verify=endpoint.verify, context=tls)
        self.transport = Transport(guard, limits=limits, proxies=proxies_from(settings), trust=trust)
        self.auth = Authenticator(self.transport, guard, credentials=credentials, wants_identity=wants_identity)


class Session:
    """Thread-safe. ``scope`` is asked for with each token: `Authenticator` has its form."""

    def __init__(
        self, endpoint: Endpoint, *, settings: Settings, scope: str, credentials: Credentials | None = None,
        limits: Limits | None = None, tls: ssl.SSLContext | None = None, wants_identity: bool = False,
    ) -> None:  # fmt: skip
        self.endpoint = endpoint
        self.limits = limits or Limits()
        self.scope = scope
        self.rate_limit = ""  # "76 of 100 left in 6 h", when the registry says so
        self._settings = settings
        self._credentials = credentials
        self._tls = tls
        self._wants_identity = wants_identity
        self._lock = threading.Lock()
        self._links: list[_Link] = [self._make_link(self._first_origin())]
        self._is_settled = endpoint.verify or self.origin.scheme == "http" or bool(endpoint.scheme)

    @property
    def origin(self) -> Origin:
        return self._links[-1].origin

    @property
    def guard(self) -> Guard:
        return self._links[-1].guard

    @property
    def name(self) -> str:
        """What messages call this registry."""
        return self.origin.authority

    @property
    def identity_token(self) -> str:
        return self._links[-1].auth.identity_token

    def _first_origin(self) -> Origin:
        endpoint = self.endpoint
        if endpoint.scheme:
            return origin_of(f"{endpoint.scheme}://{endpoint.domain}")
        origin = registry_origin(endpoint.domain, self._settings.insecure_registries)
        if origin.scheme == "http" and (endpoint.files.authorities or endpoint.files.pairs):
            return origin_of(f"https://{endpoint.domain}")
        return origin

    def _make_link(self, origin: Origin) -> _Link:
        return _Link(
            origin, self.endpoint, settings=self._settings, limits=self.limits, credentials=self._credentials,
            tls=self._tls, wants_identity=self._wants_identity,
        )  # fmt: skip

    # -- requests

    def get(self, resource: str, headers: Mapping[str, str], *, body_bytes: int, method: str = "GET") -> Response:
        """GET or HEAD of a resource below ``/v2/``, like ``app/tags/list``, or of an address that `at_home` gave."""

        def ask(authorization: Mapping[str, str]) -> Response:
            sent = {**self.endpoint.headers, **headers, **authorization}
            transport = self._links[-1].transport
            url = resource if "://" in resource else self.url(resource)
            return transport.get(url, headers=sent, body_bytes=body_bytes, method=method)

        self._settle()
        response = self._authorized(ask)
        if response.status == 400 and self._may_speak_tls(response):
            response = self._authorized(ask)
        self._note_rate_limit(response.headers)
        return response

    def glance(self, resource: str, headers: Mapping[str, str]) -> Mapping[str, str] | None:
        """The headers of a HEAD that goes well at once; None where `get` has to do it. A challenge is answered."""
        if not self._is_settled:
            return None
        link = self._links[-1]
        found = link.transport.glance(self.url(resource), headers={**self.endpoint.headers, **headers})
        if found is None:
            return None
        status, answered = found
        if status == 401 and "www-authenticate" in answered:
            link.auth.answer(answered["www-authenticate"], scope=self.scope, refused={})
        self._note_rate_limit(answered)
        return answered if status == 200 else None

    def send(
        self, method: str, resource: str, *, headers: Mapping[str, str] | None = None, body: bytes | Body = b""
    ) -> Response:
        """One request that changes something. ``resource`` may be an address of this origin, as `at_home` gives it."""

        def ask(authorization: Mapping[str, str]) -> Response:
            sent = {**self.endpoint.headers, **(headers or {}), **authorization}
            url = resource if "://" in resource else self.url(resource)
            return self._links[-1].transport.send(method, url, headers=sent, body=body)

        self._settle()
        return self._authorized(ask, repeatable=not isinstance(body, Body))

    def url(self, resource: str) -> str:
        return f"{self.origin.url}{self.endpoint.root}/{resource}"

    def at_home(self, resource: str, location: str) -> str:
        """The address that a ``Location`` header names, which must be at home. Raises: Denied, InvalidArgument."""
        base = resource if "://" in resource else self.url(resource)
        url = resolve(base, location)
        target = origin_of(url)
        if target.authority == self.origin.authority and target.scheme != self.origin.scheme:
            # a registry behind a proxy that ends TLS often does not know its own scheme
            return self.origin.url + url[len(target.url) :]
        if target != self.origin:
            raise Denied(
                f"registry {self.name} is refused", why=f"it wants content to be sent to {printable(target.authority)}"
            )
        return url

    def _authorized(self, ask: Callable[[Mapping[str, str]], Response], *, repeatable: bool = True) -> Response:
        link = self._links[-1]
        for _ in range(2):
            authorization = link.auth.headers(self.scope)
            response = ask(authorization)
            # a 401 from where we were redirected to is not the registry's, and gets no token
            if response.status != 401 or response.origin != link.origin:
                return response
            with response:
                challenge = response.headers.get("www-authenticate", "")
            link.auth.answer(challenge, scope=self.scope, refused=authorization)
            if not repeatable:
                raise TransferBroken(f"registry {self.name} wanted a new token")
        raise self.denied("it refuses the token that it asked for")

    # -- where it answers

    def _settle(self) -> None:
        """Find out once whether an insecure registry speaks TLS."""
        with self._lock:
            if self._is_settled:
                return
            try:
                self._links[-1].transport.get(self.url(""), headers={}, body_bytes=_MAX_ERROR_BYTES).close()
            except (NoTls, Unreachable):
                self._links.append(self._make_link(origin_of(f"http://{self.endpoint.domain}")))
            self._is_settled = True

    def _may_speak_tls(self, response: Response) -> bool:
        """Whether a server on loopback complains about plain HTTP (Go, nginx); TLS is spoken with it then."""
        if self.origin.scheme != "http" or self.endpoint.scheme or not is_loopback_name(self.origin.host):
            return False
        with response:
            if b"HTTPS" not in response.read(_MAX_ERROR_BYTES):
                raise self._unexpected(response, why="")
        with self._lock:
            if self.origin.scheme == "http":
                self._links.append(self._make_link(origin_of(f"https://{self.endpoint.domain}")))
        return True

    def abort(self) -> None:
        """End all transfers, from any thread."""
        for link in self._links:
            link.transport.abort()

    def close(self) -> None:
        for link in self._links:
            link.transport.close()

    def pause(self, seconds: float) -> None:
        """Sleep, unless aborted. Raises: Unavailable."""
        self._links[-1].transport.pause(seconds)

    # -- refusals

    def check(self, response: Response, *good: int, missing: str) -> None:
        """Raises what any status but these means: NotFound, Denied, Unsupported, Unavailable."""
        if response.status in good:
            return
        why = error_text(response)
        if response.status == 404:
            raise NotFound(missing, why=why, hint="check the name and the tag; a private image needs a login")
        if response.status in (401, 403):
            raise self.denied(why or f"status {response.status}")
        if response.status == 405:
            raise Unsupported(f"registry {self.name} does not do this", why=why or "method not allowed")
        if response.status == 429:
            limit = self.rate_limit and f"{self.rate_limit}; "
            raise Unavailable(
                f"registry {self.name} limits the rate of requests", why=f"{limit}{why}".removesuffix("; "),
                hint="try again later, or log in: a registry often grants its users more",
            )  # fmt: skip
        raise self._unexpected(response, why=why)

    def denied(self, why: str) -> Denied:
        name = f"{self.endpoint.domain}/{self.endpoint.path}" if self.endpoint.path else f"registry {self.name}"
        return Denied(
            f"registry {self.name} denies access to {name}", why=why,
            hint=login_hint(self.name, known=self._credentials is not None),
        )  # fmt: skip

    def _unexpected(self, response: Response, *, why: str) -> Unavailable:
        return Unavailable(f"registry {self.name} answers with status {response.status}", why=why)

    def _note_rate_limit(self, headers: Mapping[str, str]) -> None:
        """Docker Hub's ``ratelimit-limit: 100;w=21600``, ``ratelimit-remaining: 76;w=21600``."""
        limit, _, rest = headers.get("ratelimit-limit", "").partition(";w=")
        remaining = headers.get("ratelimit-remaining", "").partition(";")[0]
        if all(text.isascii() and text.isdigit() and len(text) < 10 for text in (limit, remaining)):
            window = f" in {int(rest) / 3600:g} h" if rest.isascii() and rest.isdigit() and len(rest) < 10 else ""
            self.rate_limit = f"{remaining} of {limit} pulls left{window}"


def error_text(response: Response) -> str:
    """The registry's own words (distribution-spec, "Error Codes"), made harmless; "" when it has none."""
    try:
        errors = parse_document(response.read(_MAX_ERROR_BYTES), document="error").objects(
            "errors", lambda error: (error.text("code", default=""), error.text("message", default="")), limit=100
        )
    except CloisonError:
        return ""
    code, message = errors[0] if errors else ("", "")
    return printable(message or code.lower().replace("_", " "))
