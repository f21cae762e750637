"""Whom we may speak to: origins, and the rules for every address that a server chooses for us. No I/O.

A registry names other addresses: redirects, and the realm that gives out tokens. Both are attack surface (server-side
request forgery, plaintext downgrade, stolen credentials: CVE-2020-15157, GHSA-vh4v-xx7w-mpmr), so one rule covers both:

    https may lead to https alone; plain HTTP is spoken to loopback and to listed registries alone, never as a fallback
    a registry may lead us to public addresses, and to the kind of address that it lives at itself
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit

from cloison.errors import Denied, InvalidArgument
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# docker.io names a front page; the registry behind it lives elsewhere
_ALIASES: Final = {"docker.io": "registry-1.docker.io"}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_URL = 16 << 10

PUBLIC = "public"
PRIVATE = "private"
LINK_LOCAL = "link-local"
LOOPBACK = "loopback"
# a registry that lives at the key may lead us to these; cloud metadata services are link-local
_MAY_LEAD_TO: Final = {
    PUBLIC: (PUBLIC,), PRIVATE: (PUBLIC, PRIVATE), LINK_LOCAL: (PUBLIC, PRIVATE, LINK_LOCAL),
    LOOPBACK: (PUBLIC, PRIVATE, LOOPBACK),
}  # fmt: skip


class Origin(Record):
    """Scheme, host and port: what must be equal before a secret is sent again (RFC 6454)."""

    scheme: str
    host: str  # lower case, IPv6 without brackets
    port: int

    @property
    def authority(self) -> str:
        """``host[:port]`` as people write it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}"


def origin_of(url: str) -> Origin:
    """The origin of an absolute http or https URL. Raises: InvalidArgument, without the URL: it may hold a secret."""
    _check_letters(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as err:
        raise InvalidArgument("the registry sent a malformed address") from err
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise InvalidArgument("the registry sent an address that is neither http nor https")
    if "@" in parts.netloc:
        raise InvalidArgument("the registry sent an address with a user name in it")
    return Origin(scheme=parts.scheme, host=parts.hostname, port=_DEFAULT_PORTS[parts.scheme] if port is None else port)


def resolve(base: str, location: str) -> str:
    """What a ``Location`` header means, seen from ``base`` (RFC 3986 section 5). Raises: InvalidArgument."""
    # before the join: urllib drops newlines and tabs without a word
    _check_letters(location)
    try:
        return urljoin(base, location)
    except ValueError as err:
        raise InvalidArgument("the registry sent a malformed address") from err


def _check_letters(url: str) -> None:
    # a backslash is a slash to some parsers and a letter to others
    if len(url) > _MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        raise InvalidArgument("the registry sent a malformed address")


def registry_origin(domain: str, insecure: tuple[str, ...] = ()) -> Origin:
    """Where the registry of a reference's domain answers: by plain HTTP on loopback and for ``insecure`` ones alone."""
    https = origin_of("https://" + _ALIASES.get(domain, domain))
    # port 443 is TLS wherever it is
    explicit_tls = domain.endswith(":443")
    if explicit_tls or not (is_loopback_name(https.host) or domain in insecure or https.host in insecure):
        return https
    return origin_of("http://" + domain)


def is_loopback_name(host: str) -> bool:
    """``localhost``, 127.0.0.0/8 or ::1, by name: what the user typed, not what a name server answers."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def kind_of_address(address: str) -> str:
    """``public``, ``private``, ``link-local`` or ``loopback``, for a numeric IPv4 or IPv6 address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        # ::ffff:a.b.c.d, 64:ff9b::a.b.c.d and 2002::/16 all end at an IPv4 address
        embedded = ip.ipv4_mapped or ip.sixtofour or _nat64(ip)
        if embedded is not None:
            return kind_of_address(str(embedded))
    # 0.0.0.0 and :: connect to this machine
    if ip.is_loopback or ip.is_unspecified:
        return LOOPBACK
    if ip.is_link_local or ip.is_multicast:
        return LINK_LOCAL
    return PUBLIC if ip.is_global else PRIVATE


def _nat64(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    packed = ip.packed
    return ipaddress.IPv4Address(packed[12:]) if packed.startswith(b"\x00\x64\xff\x9b" + bytes(8)) else None


def printable(text: str, *, limit: int = 200) -> str:
    """A stranger's text, fit for one line on a terminal: no control characters, no escapes, not long."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * limit]).strip()
    return clean if len(clean) <= limit else clean[:limit] + "…"


class Guard:
    """Decides for one registry where it may lead us. ``home_kind`` is learnt from the first connection to it."""

    def __init__(self, home: Origin, *, insecure: tuple[str, ...] = ()) -> None:
        self.home = home
        self.home_kind = LOOPBACK if is_loopback_name(home.host) else PUBLIC
        self._insecure = insecure

    def check_lead(self, source: Origin, target: Origin, *, what: str) -> None:
        """Whether ``source`` may send us to ``target``, as far as names tell. Raises: Denied."""
        if target.scheme == "https":
            self._check_name(target, what=what)
            return
        if source.scheme == "https":
            raise self._refusal(what, target, why="it leads from HTTPS to plain HTTP")
        listed = target.host in self._insecure or target.authority in self._insecure
        if not (listed or target == self.home or is_loopback_name(target.host)):
            raise self._refusal(what, target, why="plain HTTP to another machine")
        self._check_name(target, what=what)

    def check_address(self, origin: Origin, address: str) -> None:
        """Whether we may connect to ``origin`` at this numeric address, which its name resolved to. Raises: Denied."""
        kind = kind_of_address(address)
        if origin.host == self.home.host:
            # the user chose this one; "localhost" that resolves elsewhere would carry plain HTTP off this machine
            if is_loopback_name(origin.host) and kind != LOOPBACK:
                raise self._refusal("connection", origin, why=f"{origin.host} is not this machine but {address}")
            self.home_kind = kind
        elif kind not in _MAY_LEAD_TO[self.home_kind]:
            raise self._refusal("connection", origin, why=f"{address} is a {kind} address")

    def _check_name(self, target: Origin, *, what: str) -> None:
        if target.host == self.home.host:
            return
        if is_loopback_name(target.host) and LOOPBACK not in _MAY_LEAD_TO[self.home_kind]:
            raise self._refusal(what, target, why="it leads to this machine")
        try:
            kind = kind_of_address(target.host)
        except ValueError:  # a name: check_address sees what it resolves to
            return
        if kind not in _MAY_LEAD_TO[self.home_kind]:
            raise self._refusal(what, target, why=f"{target.host} is a {kind} address")

    def _refusal(self, what: str, target: Origin, *, why: str) -> Denied:
        return Denied(f"refused the {what} to {target.url} that registry {self.home.authority} asked for", why=why)
