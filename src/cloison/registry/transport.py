"""HTTP out: one registry's requests, redirects followed by hand, patience and size bounded.

**Invariant:** a header that carries a secret never reaches another origin than the one it was made for.
**Invariant:** no request is ever repeated over plain HTTP because HTTPS failed.
"""

from __future__ import annotations

import threading

from cloison.errors import CloisonError, Denied, Unavailable
from cloison.model.record import Record
from cloison.registry.budget import CurrentMeter, Limits, Meter, TransferBroken
from cloison.registry.origin import Guard, Origin, is_loopback_name, origin_of, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Final

    from urllib3 import BaseHTTPResponse, PoolManager

    from cloison.model.settings import Settings
    from cloison.registry.tls import Trust

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_PASSING: Final = (429, 502, 503, 504)
_SECRET_HEADERS: Final = ("authorization", "cookie", "proxy-authorization")
_IDENTITY: Final = {"User-Agent": "cloison", "Accept-Encoding": "identity"}


class Proxies(Record):
    """Proxy settings as the environment names them; "" is none. Loopback never goes through a proxy."""

    http: str = ""
    https: str = ""
    exclude: tuple[str, ...] = ()  # hosts, domain suffixes, or "*"

    def for_origin(self, origin: Origin) -> str:
        if is_loopback_name(origin.host) or any(_excludes(rule, origin) for rule in self.exclude):
            return ""
        return self.https if origin.scheme == "https" else self.http


def proxies_from(settings: Settings) -> Proxies:
    """The proxies of these settings."""
    exclude = tuple(filter(None, (rule.strip().lower() for rule in settings.no_proxy.split(","))))
    return Proxies(http=settings.http_proxy, https=settings.https_proxy, exclude=exclude)


def _excludes(rule: str, origin: Origin) -> bool:
    suffix = rule.lstrip("*").lstrip(".")
    return not suffix or origin.host == suffix or origin.host.endswith("." + suffix) or origin.authority == suffix


class Body:
    """A request's body in pieces, of known size; it can be sent once."""

    def __init__(self, pieces: Iterable[bytes], *, size: int) -> None:
        self.pieces = pieces
        self.size = size


class _Request(Record):
    method: str
    url: str
    headers: Mapping[str, str]
    answer_bytes: int
    body: bytes | Body = b""


class Response:
    """An answer whose body has not been read; a context manager, to be closed. Header names are in lower case."""

    def __init__(self, answer: BaseHTTPResponse, *, origin: Origin) -> None:
        self._answer = answer
        self.origin = origin
        self.status: int = answer.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in answer.headers.items()}

    def read_some(self, size: int) -> bytes:
        """What is there, up to ``size`` bytes, b"" at the end. Raises: TransferBroken when the body ends early."""
        from cloison.registry.connections import explain

        try:
            return self._answer.read1(size, decode_content=False)
        except CloisonError:
            raise
        except Exception as err:
            raise explain(err, self.origin) from err

    def read(self, limit: int) -> bytes:
        """The whole body. Raises: Unavailable above ``limit``; TransferBroken."""
        pieces, total = [], 0
        while piece := self.read_some(min(64 << 10, limit + 1 - total)):
            pieces.append(piece)
            total += len(piece)
            if total > limit:
                raise Unavailable("the registry's answer is refused", why=f"it is longer than {limit} bytes")
        return b"".join(pieces)

    def close(self) -> None:
        # an unread rest would be taken for the next answer: the connection goes with it
        self._answer.close()

    def abort(self) -> None:
        """From any thread: whoever reads sees the end now."""
        try:
            self._answer.shutdown()
        except (OSError, ValueError, RuntimeError, AttributeError):
            pass  # read to its end already

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transport:
    """Requests to one registry and to where it leads. Thread-safe."""

    def __init__(
        self,
        guard: Guard,
        *,
        limits: Limits | None = None,
        proxies: Proxies | None = None,
        trust: Trust | None = None,
    ) -> None:
        from cloison.registry.tls import Trust

        self._guard = guard
        self._limits = limits or Limits()
        self._proxies = proxies or Proxies()
        self._trust = trust or Trust(guard.home.host)
        self._pools: dict[tuple[str, bool], PoolManager] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[Response] = set()
        self._current = CurrentMeter()

    def get(
        self, url: str, *, headers: Mapping[str, str], body_bytes: int, method: str = "GET", what: str = "redirect"
    ) -> Response:
        """GET or HEAD; redirects are followed, passing failures retried. The caller looks at the status and closes.

        body_bytes is the longest good body. Raises: Unavailable, TransferBroken, Denied (it leads where it may not).
        """
        origin = origin_of(url)
        request = _Request(method=method, url=url, headers={**_IDENTITY, **headers}, answer_bytes=body_bytes)
        for _ in range(self._limits.redirects + 1):
            response = self._patiently(request, origin)
            if response.status not in _REDIRECTS:
                return response
            with response:
                location = response.headers.get("location", "")
            if not location:
                raise Unavailable(f"registry {origin.authority} redirects to nowhere")
            request = request.replace(url=resolve(request.url, location))
            target = origin_of(request.url)
            self._guard.check_lead(origin, target, what=what)
            if target != origin:
                request = request.replace(headers=_without_secrets(request.headers))
            origin = target
        raise Unavailable(f"registry {self._guard.home.authority} redirects more than {self._limits.redirects} times")

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | Body = b"",
        answer_bytes: int = 64 << 10, peer: str = "registry",
    ) -> Response:  # fmt: skip
        """One request that goes where it is sent or nowhere: token services, and whatever changes a registry.

        A body of bytes is sent again after failures that pass; a `Body` is sent once, and its sender resumes it.
        Raises: Unavailable, TransferBroken, Denied (it redirects).
        """
        origin = origin_of(url)
        request = _Request(
            method=method, url=url, headers={**_IDENTITY, **headers}, body=body, answer_bytes=answer_bytes
        )
        response = self._patiently(request, origin)
        if response.status in _REDIRECTS:
            response.close()
            raise Denied(
                f"refused a redirect of the {peer} {origin.authority}",
                why="what carries a secret or a content goes where it was meant to go",
            )
        return response

    def glance(self, url: str, *, headers: Mapping[str, str]) -> tuple[int, dict[str, str]] | None:
        """HEAD by the shortest way: status and headers; None where `get` has to do it, and to say what is wrong."""
        from cloison.registry.dialing import ask_head

        origin = origin_of(url)
        if self._proxies.for_origin(origin):
            return None
        sent = {"Host": origin.authority, **_IDENTITY, **headers}
        try:
            sock = self._dial(origin)
            with sock:
                if origin.scheme == "https":
                    sock = self._trust.context(origin).wrap_socket(sock, server_hostname=origin.host)
                with sock:
                    path = url[len(origin.url) :]
                    return ask_head(sock, path, headers=sent, timeout_s=self._limits.head_timeout_s)
        except (CloisonError, OSError, ValueError):
            return None

    def abort(self) -> None:
        """End every request, in whatever thread: each raises Unavailable soon. The transport cannot be used again."""
        self._stopped.set()
        with self._lock:
            open_now = list(self._open)
        for response in open_now:
            response.abort()

    def close(self) -> None:
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.clear()

    def pause(self, seconds: float) -> None:
        """Sleep, unless aborted. Raises: Unavailable."""
        if self._stopped.wait(seconds):
            raise Unavailable("the transfer was cancelled")

    def _patiently(self, request: _Request, origin: Origin) -> Response:
        """One request, sent again after failures that pass: broken connections, 429 and gateway errors."""
        delay_s = self._limits.backoff_s
        attempts = 1 if isinstance(request.body, Body) else self._limits.attempts
        for attempt in range(1, attempts + 1):
            last = attempt == attempts
            try:
                response = self._once(request, origin)
            except TransferBroken:
                if last:
                    raise
            else:
                if last or response.status not in _PASSING:
                    return response
                response.close()
                asked_s = _retry_after_s(response.headers.get("retry-after", ""))
                if asked_s > self._limits.retry_after_max_s:
                    raise Unavailable(
                        f"registry {origin.authority} is not available now", why=f"it asks to come back in {asked_s} s"
                    )
                delay_s = max(delay_s, asked_s)
            self.pause(delay_s)
            delay_s *= 2
        raise AssertionError("the last attempt returns or raises")

    def _once(self, request: _Request, origin: Origin) -> Response:
        from cloison.registry.connections import explain

        self.pause(0)
        pools = self._pools_for(origin)
        meter = self._current.meter = Meter(self._limits, body_bytes=request.answer_bytes)
        headers, body = dict(request.headers), request.body
        if isinstance(body, Body):
            headers["Content-Length"] = str(body.size)
        try:
            answer = pools.urlopen(
                request.method, request.url, headers=headers, redirect=False, retries=False, preload_content=False,
                body=self._watched(body.pieces, meter) if isinstance(body, Body) else body or None,
                timeout=self._limits.connect_timeout_s,
            )  # fmt: skip
        except CloisonError:
            raise
        except Exception as err:
            raise explain(err, origin) from err
        response = _Tracked(answer, origin=origin, transport=self)
        with self._lock:
            self._open.add(response)
        return response

    def _watched(self, pieces: Iterable[bytes], meter: Meter) -> Iterator[bytes]:
        """The pieces of a body on their way out: `abort` ends them, and the answer's patience begins after them."""
        for piece in pieces:
            self.pause(0)
            yield piece
        meter.restart()

    def forget(self, response: Response) -> None:
        with self._lock:
            self._open.discard(response)

    def _pools_for(self, origin: Origin) -> PoolManager:
        # urllib3 costs 50 ms at import: only those pay who reach for a registry
        from cloison.registry.connections import make_pools

        proxy = self._proxies.for_origin(origin)
        key = (proxy, self._trust.is_home(origin))
        with self._lock:
            if key not in self._pools:
                dialer = self._dial_proxy if proxy else self._dial
                self._pools[key] = make_pools(dialer, self._current, tls=self._trust.context(origin), proxy=proxy)
            return self._pools[key]

    def _dial(self, origin: Origin) -> socket.socket:
        from cloison.registry.dialing import dial

        return dial(
            origin,
            check=lambda address: self._guard.check_address(origin, address),
            timeout_s=self._limits.connect_timeout_s,
        )

    def _dial_proxy(self, origin: Origin) -> socket.socket:
        from cloison.registry.dialing import dial

        # the proxy resolves the names behind it, and the user chose the proxy: there is no address to check
        return dial(origin, check=lambda address: None, timeout_s=self._limits.connect_timeout_s, peer="proxy")


class _Tracked(Response):
    def __init__(self, answer: BaseHTTPResponse, *, origin: Origin, transport: Transport) -> None:
        super().__init__(answer, origin=origin)
        self._transport = transport

    def close(self) -> None:
        self._transport.forget(self)
        super().close()


def _retry_after_s(text: str) -> int:
    """Seconds of a Retry-After header; 0 when it is absent, a date, or nonsense (our own back-off is used then)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _without_secrets(headers: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _SECRET_HEADERS}
