"""Connections: to the first address of a name that may be spoken to and answers; and one request over a bare one."""

from __future__ import annotations

import os
import socket
import time

from cloison.errors import Unavailable
from cloison.registry.budget import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloison.registry.origin import Origin

_MAX_ADDRESSES = 8
_HEAD_BYTES = 64 << 10


def dial(origin: Origin, *, check: Callable[[str], None], timeout_s: float, peer: str = "registry") -> socket.socket:
    """A TCP connection to the first address of ``origin`` that answers; each passes ``check`` before it is tried.

    Raises: Denied (from check), Unavailable "cannot reach registry …" (or what ``peer`` is).
    """
    deadline = time.monotonic() + timeout_s
    failure: OSError = OSError(0, "no address")
    for family, address in _resolve(origin, peer):
        check(str(address[0]))
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(remaining)
            sock.connect(address)
            sock.settimeout(timeout_s)  # for the TLS handshake
            return sock
        except OSError as err:
            sock.close()
            failure = err
        except BaseException:
            sock.close()
            raise
    raise _unreachable(f"{peer} {origin.authority}", failure, timeout_s=timeout_s) from failure


def _resolve(origin: Origin, peer: str) -> list[tuple[socket.AddressFamily, tuple[str | int, ...]]]:
    try:
        # as bytes where that is the same: for a text, Python loads its tables of international names
        host = origin.host.encode() if origin.host.isascii() else origin.host
        found = socket.getaddrinfo(host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        why = f"no such host: {origin.host}"
        if getattr(err, "errno", 0) == socket.EAI_AGAIN:
            why = f"name resolution of {origin.host} failed for now"
        raise Unavailable(f"cannot reach {peer} {origin.authority}", why=why) from err
    return [(family, (str(address[0]), *address[1:])) for family, _, _, _, address in found[:_MAX_ADDRESSES]]


def _unreachable(peer: str, err: OSError, *, timeout_s: float) -> Unreachable:
    what = f"cannot reach {peer}"
    if isinstance(err, TimeoutError):
        return Unreachable(what, why=f"no connection in {timeout_s:g} s")
    return Unreachable(what, why=os.strerror(err.errno).lower() if err.errno else "it has no address")


def ask_head(
    sock: socket.socket, path: str, *, headers: Mapping[str, str], timeout_s: float
) -> tuple[int, dict[str, str]]:
    """HEAD over a fresh connection, which is done with then: status, and headers by their names in lower case.

    For the one request of a pull that brings nothing: the import of an HTTP library costs more than that. What is out
    of the ordinary is an error, after which the caller asks again in the ordinary way.  Raises: ValueError, OSError.
    """
    lines = [f"HEAD {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]
    if not all(line.isascii() and line.isprintable() for line in lines):
        raise ValueError("a header that cannot be sent")
    deadline = time.monotonic() + timeout_s
    sock.settimeout(timeout_s)
    sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    data = b""
    while b"\r\n\r\n" not in data:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = sock.recv(8192)
        data += piece
        if not piece or len(data) > _HEAD_BYTES:
            raise ValueError("no answer, or too long a one")
    status, *rest = data.partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")
    version, _, code = status.partition(" ")
    if version not in ("HTTP/1.1", "HTTP/1.0") or not code[:3].isdigit():
        raise ValueError("no HTTP")
    pairs = (line.partition(":") for line in rest)
    return int(code[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}
