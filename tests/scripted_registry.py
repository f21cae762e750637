"""A registry that does exactly what a test tells it, lies and stalls included: one thread a connection, on 127.0.0.1.

with ScriptedRegistry() as server:
    server.on("/v2/app/manifests/latest", lambda exchange: exchange.answer(200, body))
"""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloison.model.reference import Reference, parse_reference
from cloison.model.settings import Settings
from cloison.oci.image import Descriptor
from cloison.registry.auth import Credentials
from cloison.registry.budget import Limits
from cloison.registry.client import RegistryClient

Handler = Callable[["Exchange"], None]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


class Exchange:
    """One request, and the means to answer it. A client that hangs up is no error."""

    def __init__(self, connection: socket.socket, head: bytes, *, rest: bytes, stopped: threading.Event) -> None:
        self._connection = connection
        self._rest = rest
        self._stopped = stopped
        lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = lines[0].split(" ", 2)
        self.path, _, self.query = self.target.partition("?")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.keep_alive = False
        self.content = b""  # of the request's body, as far as it was read

    def read(self, size: int = -1) -> bytes:
        """The request's body, or its next ``size`` bytes; less when the client went away."""
        length = int(self.headers.get("content-length", "0"))
        wanted = length if size < 0 else min(length, len(self.content) + size)
        begin = len(self.content)
        while len(self.content) < wanted:
            try:
                piece = self._rest or self._connection.recv(65536)
            except ConnectionError:  # it hung up with words of ours unread
                break
            if not piece:
                break
            self.content += piece[: wanted - len(self.content)]
            self._rest = b""
        return self.content[begin:]

    @property
    def is_read(self) -> bool:
        return len(self.content) == int(self.headers.get("content-length", "0"))

    def send(self, data: bytes) -> bool:
        """Raw bytes; false when the client has gone."""
        try:
            self._connection.sendall(data)
        except OSError:
            return False
        return True

    def head(self, status: int, **headers: str) -> bool:
        """A status line and headers; ``content_length="3"`` becomes ``Content-Length: 3``."""
        lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
        return self.send(f"HTTP/1.1 {status} Said So\r\n{''.join(lines)}\r\n".encode())

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A complete answer with its true length (unless told otherwise)."""
        headers.setdefault("content_length", str(len(body)))
        self.keep_alive = self.head(status, **headers) and self.send(body)

    def tunnel(self, port: int) -> None:
        """Answer a CONNECT, then copy both ways between the client and 127.0.0.1:``port`` until either side ends."""
        with socket.create_connection(("127.0.0.1", port), timeout=10) as onward:
            self.head(200)
            back = threading.Thread(target=_copy, args=(onward, self._connection), daemon=True)
            back.start()
            _copy(self._connection, onward)
            back.join(10)

    def wait(self, seconds: float) -> bool:
        """Sleep; false when the test is over."""
        return not self._stopped.wait(seconds)


class ScriptedRegistry:
    """Routes by ``METHOD path``, else by path; an unknown one is a 404. ``requests`` keeps what was asked."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._stopped = threading.Event()
        self.handlers: dict[str, Handler] = {}
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self.requests: list[Exchange] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.address}"

    def on(self, path: str, handler: Handler) -> None:
        self.handlers[path] = handler

    def add_blob(self, data: bytes, *, name: str = "app") -> str:
        """Serve these bytes honestly; their digest."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.on(f"/v2/{name}/blobs/{digest}", lambda exchange: exchange.answer(200, data))
        return digest

    def add_manifest(
        self, value: object, *, name: str = "app", tag: str = "latest", media_type: str = OCI_MANIFEST
    ) -> str:
        """Serve a manifest honestly, by tag and by digest; its digest."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()

        def handler(exchange: Exchange) -> None:
            exchange.answer(200, body, content_type=media_type, docker_content_digest=digest)

        self.on(f"/v2/{name}/manifests/{tag}", handler)
        self.on(f"/v2/{name}/manifests/{digest}", handler)
        return digest

    def headers_seen(self, name: str) -> list[str]:
        """The values of one header in all requests that carried it."""
        return [exchange.headers[name] for exchange in self.requests if name in exchange.headers]

    def __enter__(self) -> ScriptedRegistry:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for connection in (self._listener, *self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # shut down by __exit__
            connection.settimeout(10)
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, plain: socket.socket) -> None:
        with plain:
            try:
                connection = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            except (OSError, ValueError):
                return  # the client did not like our certificate
            with connection:
                self._converse(connection)

    def _converse(self, connection: socket.socket) -> None:
        while not self._stopped.is_set() and (head := _read_head(connection)):
            exchange = Exchange(connection, head[0], rest=head[1], stopped=self._stopped)
            self.requests.append(exchange)
            handler = self.handlers.get(f"{exchange.method} {exchange.path}") or self.handlers.get(exchange.path)
            if handler is None:
                exchange.read()
                exchange.answer(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            else:
                handler(exchange)
            if not (exchange.keep_alive and exchange.is_read):
                return


def _read_head(connection: socket.socket) -> tuple[bytes, bytes] | None:
    """One request's head, and what came with it of the body; None when there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            piece = connection.recv(4096)
        except OSError:
            return None
        if not piece:
            return None
        data += piece
        if data[0] == 0x16:  # a TLS handshake on a plain port: answered as most servers do
            connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server\n")
            return None
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


# --- our client, impatient -------------------------------------------------------------------------------------------

LIMITS = Limits(
    connect_timeout_s=2.0, head_timeout_s=0.3, window_s=0.3, minimum_rate=1000, backoff_s=0.01,
    retry_after_max_s=2.0, attempts=2, resumes=2,
)  # fmt: skip
MANIFEST = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {}, "layers": []}
DATA = bytes(range(256)) * 2000
TOKEN = "a-token-that-nobody-else-may-see"


@contextmanager
def client_of(
    server: ScriptedRegistry, *, credentials: Credentials | None = None, limits: Limits = LIMITS
) -> Iterator[RegistryClient]:
    with RegistryClient(name_on(server), settings=Settings(), credentials=credentials, limits=limits) as client:
        yield client


def name_on(server: ScriptedRegistry, *, suffix: str = ":latest") -> Reference:
    return parse_reference(f"{server.address}/app{suffix}")


def blob_of(server: ScriptedRegistry, handler: Callable[[Exchange], None], *, size: int = len(DATA)) -> Descriptor:
    digest = server.add_blob(DATA)
    server.on(f"/v2/app/blobs/{digest}", handler)
    return Descriptor(media_type="x", digest=digest, size=size)


def fetch_blob(client: RegistryClient, descriptor: Descriptor) -> bytes:
    return b"".join(client.blob(descriptor))


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """For what takes half of this on an idle machine; one that is busy with other tests gets three times as long."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 3 * seconds


def with_token(server: ScriptedRegistry, token_server: ScriptedRegistry, *, realm: str = "") -> None:
    """``server`` wants a token for every manifest and blob, from ``token_server``."""
    where = realm or f"{token_server.url}/token"
    inner = dict(server.handlers)
    token_server.on("/token", lambda exchange: exchange.answer(200, f'{{"token": "{TOKEN}"}}'.encode()))

    def guarded(handler: Callable[[Exchange], None]) -> Callable[[Exchange], None]:
        def check(exchange: Exchange) -> None:
            if exchange.headers.get("authorization") == f"Bearer {TOKEN}":
                handler(exchange)
            else:
                exchange.answer(
                    401, www_authenticate=f'Bearer realm="{where}",service="reg",scope="registry:catalog:*"'
                )

        return check

    for path, handler in inner.items():
        server.on(path, guarded(handler))
