"""What the field's tools say about registries: mirrors, blocked ones, insecure ones, short names.

``registries.conf`` (containers-registries.conf(5)), Docker's ``daemon.json`` (``registry-mirrors`` and
``insecure-registries``), containerd's ``hosts.toml`` (hosts.md).  All are read, none is written but the file of short
names that users were asked about; a malformed one is an error that names it.
"""

from __future__ import annotations

import os

from cloison.errors import CloisonError, InvalidArgument
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloison.model.settings import Settings
    from cloison.oci.fields import Fields

_MAX_BYTES = 1 << 20
_PULL_FROM = ("all", "digest-only", "tag-only")
_MODES = ("enforcing", "permissive", "disabled")
_MAX_ENTRIES = 10_000


class Mirror(Record):
    """One ``[[registry.mirror]]``."""

    location: str
    insecure: bool = False
    pull_from: str = "all"


class Rule(Record):
    """One ``[[registry]]``: what is done with all names that begin with ``prefix`` (``host/path``, or ``*.host``)."""

    prefix: str
    location: str = ""  # "" leaves names as they are
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()


class RegistriesConf(Record):
    """All of registries.conf and its drop-ins."""

    search: tuple[str, ...] | None = None  # where short names are looked for; None: nothing is said
    mode: str = "permissive"
    aliases: Mapping[str, str] = {}
    rules: tuple[Rule, ...] = ()

    def rule_for(self, name: str) -> Rule | None:
        """The rule with the longest prefix of ``host/path``."""
        fitting = [rule for rule in self.rules if prefix_length(name, rule.prefix)]
        return max(fitting, key=lambda rule: len(rule.prefix)) if fitting else None


def prefix_length(name: str, prefix: str) -> int:
    """How much of ``host/path`` a prefix covers; 0 when it does not fit."""
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        return len(host) if host.partition(":")[0].endswith(prefix[1:]) or host.endswith(prefix[1:]) else 0
    fits = name == prefix or (name.startswith(prefix) and name[len(prefix)] in "/:@")
    return len(prefix) if fits else 0


# --- registries.conf ------------------------------------------------------------------------------------------------


def load_registries_conf(settings: Settings, *, names: bool = True) -> RegistriesConf:
    """The user's file instead of the machine's, then the drop-ins of both; later ones win.

    Without ``names`` files that have nothing but short names are not parsed: they are long, and TOML takes its time.
    Raises: InvalidArgument.
    """
    conf = RegistriesConf()
    for path in _conf_paths(settings):
        data = read_optional(path)
        if _matters(data, names=names):
            conf = _merge(conf, _parse_conf(data, path))
    return conf


def _matters(data: bytes, *, names: bool) -> bool:
    """Whether a file says anything, or, without ``names``, anything about registries."""
    lines = [line.lstrip() for line in data.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    return bool(lines) if names else any(line.startswith((b"[[", b"[registries")) for line in lines)


def _conf_paths(settings: Settings) -> Iterator[str]:
    environ = settings.environ
    if only := environ.get("CONTAINERS_REGISTRIES_CONF"):
        yield only
        return
    home = config_home(environ)
    if home and os.path.exists(f"{home}/containers/registries.conf"):
        yield f"{home}/containers/registries.conf"
    elif settings.etc:
        yield f"{settings.etc}/containers/registries.conf"
    for directory in (settings.etc, home):
        parts = f"{directory}/containers/registries.conf.d"
        if directory and os.path.isdir(parts):
            yield from (f"{parts}/{name}" for name in sorted(os.listdir(parts)) if name.endswith(".conf"))
    if path := _aliases_path(environ):  # what users chose when they, or podman's, were asked
        yield path


def _aliases_path(environ: Mapping[str, str]) -> str:
    cache = environ.get("XDG_CACHE_HOME") or (environ.get("HOME") and f"{environ['HOME']}/.cache")
    return f"{cache}/containers/short-name-aliases.conf" if cache else ""


def remember_alias(name: str, target: str, *, settings: Settings) -> None:
    """Put what a user chose where podman puts it, too. A file that cannot be read or written stays as it is."""
    from cloison.store.atomic import write_file

    path = _aliases_path(settings.environ)
    try:
        aliases = {**_parse_conf(read_optional(path), path).aliases, name: target} if path else {}
        # names of images have no letter that TOML would take for its own
        lines = "".join(f'  "{key}" = "{value}"\n' for key, value in sorted(aliases.items()))
        if path:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            write_file(path, f"[aliases]\n{lines}", durable=False, mode=0o600)
    except (CloisonError, OSError):
        pass  # asked again next time


def config_home(environ: Mapping[str, str]) -> str:
    """``$XDG_CONFIG_HOME``, or ``~/.config``; "" without a home."""
    home = environ.get("HOME", "")
    return environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else "")


def read_optional(path: str) -> bytes:
    """A configuration file, b"" when there is none. Raises: InvalidArgument."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as err:
        raise InvalidArgument(f"cannot read {path}", why=os.strerror(err.errno or 0).lower()) from err
    if len(data) > _MAX_BYTES:
        raise InvalidArgument(f"cannot read {path}", why=f"more than {_MAX_BYTES} bytes")
    return data


def parse_toml(data: bytes, path: str) -> Fields:
    """Raises: InvalidArgument that names the file."""
    import tomllib

    from cloison.oci.fields import Fields

    try:
        return Fields(tomllib.loads(data.decode()), document=path)
    except ValueError as err:
        raise InvalidArgument(f"invalid {path}", why=str(err)) from None


def _parse_conf(data: bytes, path: str) -> RegistriesConf:
    fields = parse_toml(data, path)
    search = fields.texts("unqualified-search-registries") if fields.has("unqualified-search-registries") else None
    rules = list(fields.objects("registry", _parse_rule, limit=_MAX_ENTRIES))
    if fields.has("registries"):  # version 1
        old = fields.inner("registries")
        search = old.inner("search").texts("registries") if old.has("search") else search
        rules += [Rule(prefix=host, insecure=True) for host in old.inner("insecure").texts("registries")]
        rules += [Rule(prefix=host, blocked=True) for host in old.inner("block").texts("registries")]
    return RegistriesConf(
        search=search, mode=fields.choice("short-name-mode", _MODES, default=""), aliases=fields.text_map("aliases"),
        rules=tuple(rules),
    )  # fmt: skip


def _parse_rule(fields: Fields) -> Rule:
    location = fields.text("location", default="").rstrip("/")
    prefix = fields.text("prefix", default="").rstrip("/") or location
    if not prefix:
        raise fields.invalid("", "has neither prefix nor location")
    digests_only = fields.flag("mirror-by-digest-only")
    mirrors = fields.objects("mirror", lambda mirror: _parse_mirror(mirror, digests_only), limit=100)
    return Rule(
        prefix=prefix, location=location, insecure=fields.flag("insecure"), blocked=fields.flag("blocked"),
        mirrors=mirrors,
    )  # fmt: skip


def _parse_mirror(fields: Fields, digests_only: bool) -> Mirror:
    pull_from = fields.choice("pull-from-mirror", _PULL_FROM, default="digest-only" if digests_only else "all")
    return Mirror(
        location=fields.text("location").rstrip("/"), insecure=fields.flag("insecure"), pull_from=pull_from
    )  # fmt: skip


def _merge(first: RegistriesConf, second: RegistriesConf) -> RegistriesConf:
    """A drop-in's registry replaces the earlier one of its prefix; an empty alias takes one away."""
    rules = {rule.prefix: rule for rule in (*first.rules, *second.rules)}
    return RegistriesConf(
        search=second.search if second.search is not None else first.search, mode=second.mode or first.mode,
        aliases={**first.aliases, **second.aliases}, rules=tuple(rules.values()),
    )  # fmt: skip


# --- Docker and containerd ------------------------------------------------------------------------------------------


class DockerConf(Record):
    """The two keys of ``daemon.json`` that are about registries."""

    mirrors: tuple[str, ...] = ()  # URLs, for docker.io alone
    insecure: tuple[str, ...] = ()  # host[:port], or networks like 10.0.0.0/8


def load_docker_conf(settings: Settings) -> DockerConf:
    """Raises: InvalidArgument."""
    from cloison.oci.strict import parse_document

    path = f"{settings.etc}/docker/daemon.json"
    data = read_optional(path) if settings.etc else b""
    if not data.strip():
        return DockerConf()
    fields = parse_document(data, document=path)
    return DockerConf(mirrors=fields.texts("registry-mirrors"), insecure=fields.texts("insecure-registries"))


def is_listed(domain: str, insecure: Sequence[str]) -> bool:
    """Whether Docker's list names this host[:port], by itself or by its network."""
    import ipaddress

    host = domain.rpartition(":")[0] if domain.rpartition(":")[2].isdigit() and ":" in domain else domain
    for entry in insecure:
        if entry in (domain, host):
            return True
        try:
            if "/" in entry and ipaddress.ip_address(host.strip("[]")) in ipaddress.ip_network(entry):
                return True
        except ValueError:
            continue
    return False


class Host(Record):
    """One ``[host."URL"]`` of a hosts.toml, or its ``server``."""

    url: str
    can_pull: bool = True
    override_path: bool = False
    verify: bool = True
    authorities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = {}


class HostsToml(Record):
    """containerd's file for one registry: hosts to try in order, then the server ("" is the registry itself)."""

    hosts: tuple[Host, ...] = ()
    server: Host | None = None


def load_hosts_toml(settings: Settings, domain: str) -> HostsToml:
    """``/etc/containerd/certs.d/HOST/hosts.toml``, else that of ``_default``. Raises: InvalidArgument."""
    if not settings.etc:
        return HostsToml()
    # a port may be written host_port_, as systems without colons in names need it
    for name in dict.fromkeys((domain, f"{domain.replace(':', '_')}_" if ":" in domain else domain, "_default")):
        directory = f"{settings.etc}/containerd/certs.d/{name}"
        path = f"{directory}/hosts.toml"
        if data := read_optional(path):
            return _parse_hosts(parse_toml(data, path), directory)
    return HostsToml()


def _parse_hosts(fields: Fields, directory: str) -> HostsToml:
    hosts = fields.inner("host")
    server = fields.text("server", default="")
    return HostsToml(
        hosts=tuple(_parse_host(url, hosts.inner(url), directory) for url in hosts.keys("")),
        server=_parse_host(server, fields, directory) if server else None,
    )  # fmt: skip


def _parse_host(url: str, fields: Fields, directory: str) -> Host:
    capabilities = fields.texts("capabilities") if fields.has("capabilities") else ("pull", "resolve")
    return Host(
        url=url if "://" in url else f"https://{url}", can_pull={"pull", "resolve"} <= set(capabilities),
        override_path=fields.flag("override_path"), verify=not fields.flag("skip_verify"),
        authorities=tuple(os.path.join(directory, path) for path in _one_or_more(fields, "ca")),
        pairs=tuple(_pairs(fields, directory)), headers=_headers(fields),
    )  # fmt: skip


def _one_or_more(fields: Fields, name: str) -> Sequence[str]:
    return (fields.text(name),) if isinstance(fields.raw(name), str) else fields.texts(name)


def _pairs(fields: Fields, directory: str) -> Iterator[tuple[str, str]]:
    """``client = "file"``, ``["file", …]`` or ``[["certificate", "key"], …]``."""
    raw = fields.raw("client")
    for entry in raw if isinstance(raw, list) else [raw] if raw else []:
        files = [file for file in (entry if isinstance(entry, list) else [entry]) if isinstance(file, str)]
        if not 1 <= len(files) <= 2:
            raise fields.invalid("client", "is no list of certificates and keys")
        certificate, key = (os.path.join(directory, file) for file in (files[0], files[-1]))
        yield certificate, key


def _headers(fields: Fields) -> dict[str, str]:
    values = fields.inner("header")
    return {name: ", ".join(_one_or_more(values, name)) for name in values.keys("")}
