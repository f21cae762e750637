"""The urllib3 side of `transport`: connections that dial only where the guard allows and read only under a meter."""

from __future__ import annotations

import io
import os

from urllib3 import PoolManager, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util import make_headers

from cloison.errors import InvalidArgument, Unavailable, Unsupported
from cloison.registry.budget import CurrentMeter, Meter, MeteredReader, NoTls, TransferBroken
from cloison.registry.origin import Origin, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterator
    from http.client import HTTPResponse  # noqa: TID251 - a part of transport

    Dial = Callable[[Origin], socket.socket]


def make_pools(dial: Dial, current: CurrentMeter, *, tls: ssl.SSLContext, proxy: str = "") -> PoolManager:
    """A connection manager whose every connection uses ``dial`` and ``current``. ``proxy`` is ``http://[user:password@]host:port``."""
    pool_classes = {
        "http": _pool_class("http", HTTPConnectionPool, HTTPConnection, dial=dial, current=current),
        "https": _pool_class("https", HTTPSConnectionPool, HTTPSConnection, dial=dial, current=current),
    }
    # 8 pools: the registry, its token service, and a few storage hosts that it redirects to
    if proxy:
        address, headers = _split_proxy(proxy)
        pools: PoolManager = ProxyManager(address, num_pools=8, maxsize=8, ssl_context=tls, proxy_headers=headers)
    else:
        pools = PoolManager(num_pools=8, maxsize=8, ssl_context=tls)
    pools.pool_classes_by_scheme = pool_classes
    return pools


def _split_proxy(proxy: str) -> tuple[str, dict[str, str]]:
    """The proxy's bare address, and the header with its user's name. Raises: Unsupported, InvalidArgument."""
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname, parts.port or 80
    except ValueError as err:
        raise InvalidArgument("the proxy's address is malformed") from err
    if parts.scheme != "http" or not host:
        raise Unsupported(f"cannot use a proxy of kind {parts.scheme!r}", hint="set HTTPS_PROXY=http://host:port")
    headers: dict[str, str] = {}
    if parts.username:
        userinfo = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = dict(make_headers(proxy_basic_auth=userinfo))
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", headers


def _pool_class(
    scheme: str, pool: type[HTTPConnectionPool], connection: type[HTTPConnection], *, dial: Dial, current: CurrentMeter
) -> type[HTTPConnectionPool]:
    def _respond(
        sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> HTTPResponse:
        return _metered_response(sock, method, meter=current.meter)

    def new_conn(self: HTTPConnection) -> socket.socket:
        return dial(Origin(scheme=scheme, host=self.host.strip("[]"), port=self.port))

    members = {"response_class": staticmethod(_respond), "_new_conn": new_conn}
    guarded = type("Guarded" + connection.__name__, (connection,), members)
    return type("Guarded" + pool.__name__, (pool,), {"ConnectionCls": guarded})


def _metered_response(sock: socket.socket, method: str | None, *, meter: Meter) -> HTTPResponse:
    from http.client import HTTPResponse  # noqa: TID251 - a part of transport

    response = HTTPResponse(sock, method=method)
    # http.client made a buffer above the socket's reader: ours goes in between, before the first byte is read
    raw = response.fp.detach()
    response.fp = io.BufferedReader(MeteredReader(raw, sock=sock, meter=meter))
    begin = response.begin

    def begin_then_note() -> None:
        begin()
        meter.head_done()

    response.begin = begin_then_note  # type: ignore[method-assign]
    return response


def explain(err: Exception, origin: Origin) -> Unavailable:
    """The complaint of urllib3, http.client or the kernel about a request, for people; never shows the URL."""
    import ssl
    from http.client import HTTPException, IncompleteRead  # noqa: TID251 - a part of transport

    registry = f"registry {origin.authority}"
    causes = list(_causes(err))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unavailable(
                f"cannot trust {registry}",
                why=f"its certificate fails: {cause.verify_message}",
                hint=f"put its authority's certificate into /etc/containers/certs.d/{origin.authority}/ca.crt",
            )
        if isinstance(cause, ssl.SSLEOFError):
            return TransferBroken(f"the connection to {registry} broke off", why="TLS ended early")
        if isinstance(cause, ssl.SSLError):
            hint = f"if plain HTTP is meant, list it: CLOISON_INSECURE_REGISTRIES={origin.authority}"
            return NoTls(
                f"cannot speak TLS with {registry}", why=(cause.reason or "").lower().replace("_", " "), hint=hint
            )
        if isinstance(cause, TimeoutError):
            return TransferBroken(f"the connection to {registry} broke off", why="timed out")
    for cause in causes:
        if isinstance(cause, (IncompleteRead, ConnectionError)):
            return TransferBroken(f"the connection to {registry} broke off")
        if isinstance(cause, HTTPException):
            return Unavailable(f"the answer of {registry} is malformed", why=type(cause).__name__)
        if isinstance(cause, OSError) and cause.errno:
            return TransferBroken(f"the connection to {registry} broke off", why=os.strerror(cause.errno).lower())
    # a proxy that refuses the tunnel says so in the text of a bare OSError
    tunnel = next((str(cause) for cause in causes if str(cause).startswith("Tunnel connection failed")), "")
    return Unavailable(f"cannot reach {registry}", why=printable(tunnel or type(err).__name__))


def _causes(err: BaseException) -> Iterator[BaseException]:
    """An exception, and those that it wraps (urllib3 keeps them in args or as the cause)."""
    seen: set[int] = set()
    queue: list[BaseException] = [err]
    while queue:
        now = queue.pop(0)
        if id(now) not in seen:
            seen.add(id(now))
            yield now
            queue.extend(
                item for item in (*now.args, now.__cause__, now.__context__) if isinstance(item, BaseException)
            )
