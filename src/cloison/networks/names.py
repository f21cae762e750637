"""What a container's name files say: hosts and resolv.conf. Pure: text in, text out (hosts(5), resolv.conf(5)).

Every word that comes from a user is checked, for a newline, a ``#`` or a space in it would write lines of its own.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOST_GATEWAY = "host-gateway"  # stands for the address under which a container reaches this host
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
_OPTION_LETTERS = _LETTERS | {":"}
_HOSTNAME_BYTES = 64  # __NEW_UTS_LEN, sethostname(2)
_LABEL_BYTES = 63  # RFC 1035
_NAME_BYTES = 253

_LOCAL_HOSTS = """\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def render_hosts(hostname: str, address: str, *, extra_hosts: Iterable[str] = (), gateway: str = "") -> str:
    """/etc/hosts: the loopback names, ``--add-host`` in its order, the container itself.

    A name with a dot is followed by its first part. Without an address (no network) the container's own name is
    127.0.0.1. Raises: InvalidArgument.
    """
    lines = [_LOCAL_HOSTS]
    for entry in extra_hosts:
        name, target = parse_extra_host(entry)
        if target == HOST_GATEWAY:
            if not gateway:
                raise InvalidArgument(f"invalid extra host {entry!r}", why="this network has no gateway to the host")
            target = gateway
        lines.append(f"{target}\t{name}\n")
    if hostname:
        short = hostname.partition(".")[0]
        names = check_hostname(hostname) if short == hostname else f"{check_hostname(hostname)} {short}"
        lines.append(f"{address or '127.0.0.1'}\t{names}\n")
    return "".join(lines)


def render_resolv_conf(
    host_text: str,
    *,
    dns: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    keep_loopback: bool = False,
    upstream_text: str = "",
) -> str:
    """/etc/resolv.conf: what the user asked for, else what the host says, of which a container can use only a part.

    ``host_text`` is the host's file; ``upstream_text`` is systemd-resolved's list of the real servers
    (/run/systemd/resolve/resolv.conf), used when the host's file names only servers on its own loopback. Those, and
    IPv6 servers, are out of reach for a container with a network of its own: they are dropped unless ``keep_loopback``
    (host network) is set. No server is ever invented: when none is left the file says so. ``--dns-search .`` is an
    empty list.
    Raises: InvalidArgument.
    """
    servers = [check_dns_server(server) for server in dns]
    comment = ""
    if not servers:
        servers = _usable_servers(host_text, all=keep_loopback) or _usable_servers(upstream_text, all=keep_loopback)
        if not servers:
            comment = "# no name server of the host can be reached from here: name one with --dns\n"
    domains = [check_domain(domain) for domain in search if domain != "."] if search else _words(host_text, "search")
    if not search and not domains:
        domains = _words(host_text, "domain")
    chosen = [check_dns_option(option) for option in options] if options else _words(host_text, "options")
    lines = [comment, *(f"nameserver {server}\n" for server in servers)]
    if domains:
        lines.append(f"search {' '.join(domains)}\n")
    if chosen:
        lines.append(f"options {' '.join(chosen)}\n")
    return "".join(lines)


def parse_extra_host(entry: str) -> tuple[str, str]:
    """``name:address``, ``name=address``, with an IPv6 address bare or in brackets -> name, address or "host-gateway".

    Raises: InvalidArgument.
    """
    separator = "=" if "=" in entry else ":"
    name, found, target = entry.partition(separator)
    if target.startswith("[") and target.endswith("]"):
        target = target[1:-1]
    if not found or not target:
        raise InvalidArgument(f"invalid extra host {entry!r}", why="it must look like name:address")
    _check_name(name, what="extra host")
    if target != HOST_GATEWAY and not _is_address(target):
        raise InvalidArgument(f"invalid extra host {entry!r}", why=f"{target!r} is not an IP address")
    return name, target


def check_hostname(name: str) -> str:
    """The name, when sethostname(2) and /etc/hosts can hold it. Raises: InvalidArgument."""
    _check_name(name, what="hostname")
    if len(name) > _HOSTNAME_BYTES:
        raise InvalidArgument(f"invalid hostname {name!r}", why=f"it has more than {_HOSTNAME_BYTES} characters")
    return name


def check_domain(name: str) -> str:
    """A domain to search in. Raises: InvalidArgument."""
    return _check_name(name.rstrip("."), what="search domain")


def check_dns_server(server: str) -> str:
    """An address of a name server. Raises: InvalidArgument."""
    if not _is_address(server):
        raise InvalidArgument(f"invalid DNS server {server!r}", why="it must be an IP address")
    return server


def check_dns_option(option: str) -> str:
    """A word for the options line, such as ``ndots:2``. Raises: InvalidArgument."""
    if not option or not _OPTION_LETTERS.issuperset(option):
        raise InvalidArgument(f"invalid DNS option {option!r}", why="it must be a word such as ndots:2")
    return option


def _check_name(name: str, *, what: str) -> str:
    """RFC 1123's names and, as everybody allows it, the underscore."""
    labels = name.split(".")
    if not name or len(name) > _NAME_BYTES or not _LETTERS.issuperset(name):
        raise InvalidArgument(f"invalid {what} {name!r}", why="it must be made of letters, digits, '-', '_' and '.'")
    if any(not label or len(label) > _LABEL_BYTES or label[0] == "-" or label[-1] == "-" for label in labels):
        raise InvalidArgument(
            f"invalid {what} {name!r}",
            why=f"each part between dots has 1 to {_LABEL_BYTES} characters and no '-' at its ends",
        )
    return name


def _is_address(text: str) -> bool:
    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, text)
            return True
        except (OSError, ValueError):  # ValueError: a NUL inside
            continue
    return False


def _usable_servers(text: str, *, all: bool) -> list[str]:
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver" and words[1] not in found and (all or _is_reachable(words[1])):
            found.append(words[1])
    return found


def _is_reachable(server: str) -> bool:
    """Whether a container with IPv4 and a loopback of its own can reach it."""
    try:
        packed = inet_pton(AF_INET, server)
    except OSError:
        return False
    return packed[0] != 127 and packed != b"\0\0\0\0"


def _words(text: str, keyword: str) -> list[str]:
    """The words after the last line of this keyword, as resolv.conf(5) reads it; "." is the empty search list."""
    words: list[str] = []
    for line in text.splitlines():
        parts = line.partition("#")[0].partition(";")[0].split()
        if parts and parts[0] == keyword:
            words = [part for part in parts[1:] if part != "." and _OPTION_LETTERS.issuperset(part)]
    return words
