"""IPv4 addresses, leased. A lease is a symbolic link ``<run root>/ipam/<address>`` whose target is the container's id.

symlink(2) creates name and content in one exclusive, atomic step: a lease is never seen without its owner, and a crash
leaves a whole one or none. The run root is tmpfs, so a reboot, which kills every container, forgets every lease.
"""

from __future__ import annotations

import os
from _socket import AF_INET, inet_pton

from cloison.errors import InvalidArgument, Unavailable
from cloison.linux.links import parse_ipv4, render_ipv4
from cloison.store.atomic import disk_error, make_private_directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.settings import Settings

_WIDTH = 15  # of the longest address


def parse_subnet(subnet: str) -> tuple[int, int]:
    """Network, as a number, and prefix of "10.210.0.0/16". Raises: InvalidArgument, also for bits below the prefix."""
    address, _, prefix = subnet.partition("/")
    try:
        network, bits = parse_ipv4(address), int(prefix) if prefix.isdecimal() else -1
    except OSError:
        network, bits = 0, -1
    if not 8 <= bits <= 30:
        raise InvalidArgument(
            f"invalid subnet {subnet!r}", why="it must look like 10.210.0.0/16, with a prefix of 8 to 30"
        )
    if network & ((1 << (32 - bits)) - 1):
        raise InvalidArgument(f"invalid subnet {subnet!r}", why="bits are set below its prefix")
    return network, bits


def gateway_of(subnet: str) -> str:
    """The bridge's own address: the first of the subnet."""
    return render_ipv4(parse_subnet(subnet)[0] + 1)


def mac_of(address: str) -> str:
    """A locally administered Ethernet address that follows from the IPv4 address: neighbours' caches stay true."""
    return "02:c1:" + inet_pton(AF_INET, address).hex(":")


def link_name(container_id: str) -> str:
    """The host's end of a container's pair: at most 15 bytes (IFNAMSIZ), with the short id that ``ps`` shows."""
    return f"cl{container_id[:12]}"


def lease_address(settings: Settings, container_id: str, *, subnet: str) -> str:
    """Lease the next free address after the last one. Raises: Unavailable when every address is leased."""
    directory = _directory(settings)
    make_private_directory(directory)
    network, prefix = parse_subnet(subnet)
    first, count = network + 2, (1 << (32 - prefix)) - 3  # without network, gateway and broadcast
    start = _read_last(settings, default=first - 1) + 1 - first
    for step in range(count):
        address = render_ipv4(first + (start + step) % count)
        try:
            os.symlink(container_id, f"{directory}/{address}")
        except FileExistsError:
            continue
        except OSError as err:
            raise disk_error(f"{directory}/{address}", err) from err
        _write_last(settings, address)
        return address
    raise Unavailable(
        f"no address is left in {subnet}",
        why=f"all {count} are leased",
        hint="remove containers, or set a larger subnet",
    )


def release_address(settings: Settings, container_id: str, *, address: str) -> None:
    """Give an address back; nothing happens when the container does not hold it."""
    path = f"{_directory(settings)}/{address}"
    try:
        if os.readlink(path) == container_id:
            os.unlink(path)
    except OSError as err:
        if not isinstance(err, FileNotFoundError):
            raise disk_error(path, err) from err


def list_leases(settings: Settings) -> dict[str, str]:
    """Address -> container id."""
    directory = _directory(settings)
    found: dict[str, str] = {}
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return found
    for name in names:
        try:
            found[name] = os.readlink(f"{directory}/{name}")
        except FileNotFoundError:  # released since
            continue
    return found


def _directory(settings: Settings) -> str:
    return f"{settings.run_root}/ipam"


def _read_last(settings: Settings, *, default: int) -> int:
    """The address leased last: an address rests before it is used again."""
    try:
        fd = os.open(_last(settings), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return default
    try:
        return parse_ipv4(os.read(fd, _WIDTH).decode("ascii", errors="replace").strip())
    except OSError:  # a hint that cannot be read is no hint
        return default
    finally:
        os.close(fd)


def _write_last(settings: Settings, address: str) -> None:
    """Two at once may lose one update: then an address is tried that is taken, and the next one is found."""
    fd = os.open(_last(settings), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.pwrite(fd, address.ljust(_WIDTH).encode(), 0)
    finally:
        os.close(fd)


def _last(settings: Settings) -> str:
    return f"{settings.run_root}/networks/last-address"
