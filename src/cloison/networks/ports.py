"""Host ports, claimed. A claim is a symbolic link whose target is ``<container id> <address> <container port>``:

    <run root>/ports/tcp-8080                 on every address of the host
    <run root>/ports/tcp-8080.at/127.0.0.1    on one address

That is all one needs to write the firewall's map anew. While a claim is made, a socket is bound to the port: the
kernel's own rules (every address against one, listeners of the host) decide who may have it, and of two who ask at once
exactly one gets it. No process stays: packets are translated.
"""

from __future__ import annotations

import _socket
import errno
import os

from cloison.errors import Conflict, InvalidArgument, Unavailable, Unsupported
from cloison.linux.links import parse_ipv4
from cloison.model.record import Record
from cloison.store.atomic import disk_error, make_private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.container import PortMapping
    from cloison.model.settings import Settings

ANY = "0.0.0.0"
_AT = ".at"
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_CHOICES = 200  # how many free ports the kernel may offer that other containers hold


class Claim(Record):
    """One published port of one container, as on disk."""

    protocol: str
    host_address: str  # ANY is every address
    host_port: int
    container_id: str
    address: str
    container_port: int


def claim_ports(
    settings: Settings, container_id: str, *, address: str, ports: Sequence[PortMapping]
) -> tuple[PortMapping, ...]:
    """Claim them all, or none; every ``host_port`` of 0 is replaced by one the kernel chose.

    Raises: Conflict when a container or a program of the host has one; InvalidArgument, Unsupported, Unavailable.
    """
    claimed: list[PortMapping] = []
    try:
        for port in ports:
            claimed.append(_claim(settings, container_id, address=address, port=port))
    except BaseException:
        release_ports(settings, container_id, ports=claimed)
        raise
    return tuple(claimed)


def release_ports(settings: Settings, container_id: str, *, ports: Sequence[PortMapping]) -> None:
    """Give claims back; those of others, and missing ones, are left alone."""
    for port in ports:
        claim = read_claim(settings, protocol=port.protocol, host_address=port.host_address, host_port=port.host_port)
        if claim is not None and claim.container_id == container_id:
            path = _path(settings, port.protocol, host_address=port.host_address, host_port=port.host_port)
            _remove(path, host_address=port.host_address)


def read_claim(settings: Settings, *, protocol: str, host_address: str, host_port: int) -> Claim | None:
    """Who has this very address and port."""
    try:
        target = os.readlink(_path(settings, protocol, host_address=host_address, host_port=host_port))
    except FileNotFoundError:
        return None
    container_id, address, port = target.split(" ")
    return Claim(
        protocol=protocol, host_address=host_address or ANY, host_port=host_port, container_id=container_id,
        address=address, container_port=int(port),
    )  # fmt: skip


def sweep_directories(settings: Settings) -> None:
    """Remove directories of addresses that nobody has claimed in: made by a claim that a crash cut short."""
    for name in _listdir(f"{settings.run_root}/ports"):
        if name.endswith(_AT):
            _remove_directory(f"{settings.run_root}/ports/{name}")


def list_claims(settings: Settings) -> list[Claim]:
    """Every claim there is."""
    found = []
    for name in _listdir(f"{settings.run_root}/ports"):
        protocol, _, port = name.removesuffix(_AT).partition("-")
        bound = name.endswith(_AT)
        for host_address in _listdir(f"{settings.run_root}/ports/{name}") if bound else [ANY]:
            claim = read_claim(settings, protocol=protocol, host_address=host_address, host_port=int(port))
            if claim is not None:
                found.append(claim)
    return found


def _claim(settings: Settings, container_id: str, *, address: str, port: PortMapping) -> PortMapping:
    host = port.host_address or ANY
    _check(port, host=host)
    sockets: list[_socket.socket] = []
    try:
        for _ in range(1 if port.host_port else _CHOICES):
            # Refused offers stay bound meanwhile, so that the kernel does not make them again.
            socket, number = _reserve(port.protocol, host=host, port=port.host_port)
            sockets.append(socket)
            if not _is_claimed(settings, port.protocol, host=host, number=number):
                path = _path(settings, port.protocol, host_address=host, host_port=number)
                _write(path, f"{container_id} {address} {port.container_port}")
                return port.replace(host_port=number)
    finally:
        for socket in sockets:
            socket.close()
    if port.host_port:
        raise _allocated(host, port.host_port)
    raise Unavailable(f"no free host port for {host}", why=f"{_CHOICES} that the kernel offered are published already")


def _check(port: PortMapping, *, host: str) -> None:
    if port.protocol not in PROTOCOLS:
        raise InvalidArgument(f"invalid protocol {port.protocol!r}", why="it must be tcp, udp or sctp")
    if not 0 < port.container_port < 65536 or not 0 <= port.host_port < 65536:
        raise InvalidArgument(f"invalid port {port.host_port}:{port.container_port}", why="ports go from 1 to 65535")
    try:
        parse_ipv4(host)
    except OSError:
        if ":" in host:
            raise Unsupported(f"cannot publish on {host}", why="containers have no IPv6 addresses yet") from None
        raise InvalidArgument(f"invalid host address {host!r}", why="it must be an IPv4 address") from None


def _reserve(protocol: str, *, host: str, port: int) -> tuple[_socket.socket, int]:
    """A socket bound to the port (0: one the kernel chooses from ip_local_port_range), and its number.

    A TCP socket listens: with SO_REUSEADDR, which forgives connections that are on their way out, only listeners
    exclude each other. It accepts nothing and is closed within microseconds.
    """
    stream = protocol == "tcp"
    # This kernel may have no SCTP at all; UDP's port table then at least serialises those who ask.
    socket = _socket.socket(
        _socket.AF_INET, (_socket.SOCK_STREAM if stream else _socket.SOCK_DGRAM) | _socket.SOCK_CLOEXEC
    )
    try:
        if stream:
            socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        socket.bind((host, port))
        if stream:
            socket.listen(1)
        return socket, socket.getsockname()[1]
    except OSError as err:
        socket.close()
        if err.errno == errno.EADDRINUSE and port:
            raise _allocated(host, port) from err
        kind = InvalidArgument if err.errno == errno.EADDRNOTAVAIL else Unavailable
        raise kind(f"Bind for {host}:{port} failed", why=os.strerror(err.errno or 0).lower()) from err


def _is_claimed(settings: Settings, protocol: str, *, host: str, number: int) -> bool:
    """Whether a container has the port on this address, or on one that includes it."""
    everywhere = _path(settings, protocol, host_address=ANY, host_port=number)
    if os.path.lexists(everywhere):
        return True
    held = _listdir(everywhere + _AT)
    return bool(held) if host == ANY else host in held


def _allocated(host: str, port: int) -> Conflict:
    return Conflict(
        f"Bind for {host}:{port} failed: port is already allocated",
        hint="publish another host port, or stop the container or program that uses this one",
    )


def _write(path: str, target: str) -> None:
    while True:
        try:
            os.symlink(target, path)
            return
        except FileNotFoundError:  # the first claim; or another container took the directory of its address away
            make_private_directory(os.path.dirname(path))
        except OSError as err:
            raise disk_error(path, err) from err


def _remove(path: str, *, host_address: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as err:
        raise disk_error(path, err) from err
    if host_address not in ("", ANY):
        _remove_directory(os.path.dirname(path))


def _remove_directory(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError as err:
        if err.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise disk_error(path, err) from err


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        return []


def _path(settings: Settings, protocol: str, *, host_address: str, host_port: int) -> str:
    path = f"{settings.run_root}/ports/{protocol}-{host_port}"
    return path if host_address in ("", ANY) else f"{path}{_AT}/{host_address}"
