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
    import ssl
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Final

    from urllib3 import BaseHTTPResponse, PoolManager

    from cloison.model.settings import Settings

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


class Response:
    """An answer whose body has not been read; a context manager, to be closed. Header names are in lower case."""

    def __init__(self, answer: BaseHTTPResponse, *, origin: Origin) -> None:
        self._answer = answer
        self.origin = origin
        self.status: int = answer.status
        self.headers: dict[str, str] = {name.lower(): value for name, value in answer.headers.items()}

    def read_some(self, size: int) -> bytes:
        """Up to ``size`` bytes, b"" at the end. Raises: TransferBroken when the body ends early."""
        from cloison.registry.connections import explain

        try:
            return self._answer.read(size, decode_content=False)
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
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._limits = limits or Limits()
        self._proxies = proxies or Proxies()
        self._tls = tls
        self._pools: dict[str, PoolManager] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[Response] = set()
        self._current = CurrentMeter()

    def get(self, url: str, *, headers: Mapping[str, str], body_bytes: int, what: str = "redirect") -> Response:
        """GET ``url``; redirects are followed, passing failures retried. The caller looks at the status and closes.

        body_bytes is the longest good body. Raises: Unavailable, TransferBroken, Denied (it leads where it may not).
        """
        origin = origin_of(url)
        sent = {**_IDENTITY, **headers}
        for _ in range(self._limits.redirects + 1):
            response = self._patiently(url, origin, headers=sent, body_bytes=body_bytes)
            if response.status not in _REDIRECTS:
                return response
            with response:
                location = response.headers.get("location", "")
            if not location:
                raise Unavailable(f"registry {origin.authority} redirects to nowhere")
            url = resolve(url, location)
            target = origin_of(url)
            self._guard.check_lead(origin, target, what=what)
            if target != origin:
                sent = {name: value for name, value in sent.items() if name.lower() not in _SECRET_HEADERS}
            origin = target
        raise Unavailable(f"registry {self._guard.home.authority} redirects more than {self._limits.redirects} times")

    def get_direct(self, url: str, *, headers: Mapping[str, str], body_bytes: int) -> Response:
        """GET without following redirects, for token services: who gets a secret does not send it on."""
        origin = origin_of(url)
        response = self._patiently(url, origin, headers={**_IDENTITY, **headers}, body_bytes=body_bytes)
        if response.status in _REDIRECTS:
            response.close()
            raise Denied(
                f"refused a redirect of the token service {origin.authority}", why="tokens are asked for directly"
            )
        return response

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

    def _patiently(self, url: str, origin: Origin, *, headers: Mapping[str, str], body_bytes: int) -> Response:
        """One request, sent again after failures that pass: broken connections, 429 and gateway errors."""
        delay_s = self._limits.backoff_s
        for attempt in range(1, self._limits.attempts + 1):
            last = attempt == self._limits.attempts
            try:
                response = self._once(url, origin, headers=headers, body_bytes=body_bytes)
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

    def _once(self, url: str, origin: Origin, *, headers: Mapping[str, str], body_bytes: int) -> Response:
        from cloison.registry.connections import explain

        self.pause(0)
        pools = self._pools_for(origin)
        self._current.meter = Meter(self._limits, body_bytes=body_bytes)
        try:
            answer = pools.urlopen(
                "GET", url, headers=dict(headers), redirect=False, retries=False, preload_content=False,
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

    def forget(self, response: Response) -> None:
        with self._lock:
            self._open.discard(response)

    def _pools_for(self, origin: Origin) -> PoolManager:
        # urllib3 costs 50 ms at import: only those pay who reach for a registry
        from cloison.registry.connections import make_pools

        proxy = self._proxies.for_origin(origin)
        with self._lock:
            if proxy not in self._pools:
                dialer = self._dial_proxy if proxy else self._dial
                self._pools[proxy] = make_pools(dialer, self._current, tls=self._tls_context(), proxy=proxy)
            return self._pools[proxy]

    def _dial(self, origin: Origin) -> socket.socket:
        from cloison.registry.connections import dial

        return dial(
            origin,
            check=lambda address: self._guard.check_address(origin, address),
            timeout_s=self._limits.connect_timeout_s,
        )

    def _dial_proxy(self, origin: Origin) -> socket.socket:
        from cloison.registry.connections import dial

        # the proxy resolves the names behind it, and the user chose the proxy: there is no address to check
        return dial(origin, check=lambda address: None, timeout_s=self._limits.connect_timeout_s, peer="proxy")

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        return self._tls


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
