"""How a user reaches registries: a reference becomes endpoints, mirrors first, with credentials and TLS files."""

from __future__ import annotations

from cloison.errors import Denied, InvalidArgument
from cloison.images.keychain import Keychain
from cloison.images.registries_conf import (
    config_home,
    is_listed,
    load_docker_conf,
    load_hosts_toml,
    load_registries_conf,
    prefix_length,
    remember_alias,
)
from cloison.model.reference import DEFAULT_DOMAIN, is_short, parse_reference
from cloison.model.settings import Access
from cloison.registry.auth import Credentials
from cloison.registry.client import RegistryClient
from cloison.registry.session import Endpoint, Session
from cloison.registry.tls import TlsFiles, find_tls_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloison.images.registries_conf import Host, RegistriesConf
    from cloison.model.reference import Reference
    from cloison.model.settings import Settings
    from cloison.registry.budget import Limits


def short_name(text: str) -> str:
    """``app`` of ``app:1@sha256:…``."""
    name = text.partition("@")[0]
    tag = name.rpartition("/")[2].partition(":")[2]
    return name.removesuffix(f":{tag}") if tag else name


class Reach:
    """The registries as seen by one user at one moment. Files are read when they are first needed."""

    def __init__(
        self, settings: Settings, *, access: Access | None = None, warn: Callable[[str], None] | None = None,
        limits: Limits | None = None, choose: Callable[[str, Sequence[str]], str] | None = None,
    ) -> None:  # fmt: skip
        """``choose`` asks a person which of several names is meant; "" is that there is nobody to ask."""
        self._settings = settings
        self._access = access or Access()
        self._limits = limits
        self._choose = choose
        self._chosen: dict[str, Reference] = {}
        extra = {"warn": warn} if warn else {}
        self.keychain = Keychain(settings, auth_file=self._access.auth_file, **extra)
        self._names: RegistriesConf | None = None
        self._rules: RegistriesConf | None = None

    @property
    def names(self) -> RegistriesConf:
        """What is said about short names."""
        if self._names is None:
            self._names = load_registries_conf(self._settings)
        return self._names

    @property
    def rules(self) -> RegistriesConf:
        """What is said about registries."""
        if self._rules is None:
            self._rules = self._names or load_registries_conf(self._settings, names=False)
        return self._rules

    # -- names

    def candidates(self, text: str) -> Sequence[Reference]:
        """What a user's words mean to a registry, in the order to be tried: one reference, unless nobody can be asked.

        A short name that may mean several is asked about, and enforced names are never guessed (`short-name-mode`).
        Raises: InvalidArgument.
        """
        meanings = self.meanings(text)
        if len(meanings) == 1 or self.names.mode == "disabled":
            return meanings
        if text not in self._chosen:
            options = [reference.canonical for reference in meanings]
            picked = self._choose(f"Which image is meant by {text}?", options) if self._choose else ""
            if not picked and self.names.mode == "enforcing":
                raise InvalidArgument(
                    f"cannot tell which registry the short name {text} means",
                    why=f"there are {', '.join(self.names.search or ())}", hint=f"name it: {options[0]}",
                )  # fmt: skip
            if not picked:
                return meanings
            self._chosen[text] = parse_reference(picked)
        return [self._chosen[text]]

    def meanings(self, text: str) -> Sequence[Reference]:
        """All that a user's words may mean; nobody is asked. Raises: InvalidArgument.

        Without a word in registries.conf a short name is of docker.io, as docker has it.
        """
        reference = parse_reference(text)
        if not is_short(text):
            return [reference]
        name, suffix = short_name(text), reference.suffix
        if alias := self.names.aliases.get(name):
            return [parse_reference(alias + suffix)]
        search = self.names.search
        return [parse_reference(f"{registry}/{name}{suffix}") for registry in search] if search else [reference]

    def remember(self) -> None:
        """Keep what was chosen for short names, so that nobody is asked again."""
        for text, reference in self._chosen.items():
            remember_alias(short_name(text), reference.canonical_name, settings=self._settings)

    # -- endpoints

    def primary(self, reference: Reference) -> Endpoint:
        """The registry itself, where one writes. Raises: Denied when it is blocked."""
        name = reference.canonical_name
        rule = self.rules.rule_for(name)
        if rule is not None and rule.blocked:
            raise Denied(f"registry {reference.domain} is blocked", why=f"registries.conf blocks {rule.prefix}")
        location = name
        if rule is not None and rule.location:
            location = rule.location + name[prefix_length(name, rule.prefix) :]
        return self._endpoint(location, insecure=rule is not None and rule.insecure)

    def endpoints(self, reference: Reference) -> Sequence[Endpoint]:
        """Where to read: mirrors in their order, at last the registry itself. Raises: Denied when it is blocked."""
        primary = self.primary(reference)
        hosts = load_hosts_toml(self._settings, reference.domain)
        found = [*self._mirrors(reference), *(self._of_host(host, reference) for host in hosts.hosts if host.can_pull)]
        if reference.domain == "docker.io":
            for url in load_docker_conf(self._settings).mirrors:
                found.append(self._of_url(url, reference))
        if hosts.server is not None:
            primary = self._of_host(hosts.server, reference).replace(is_mirror=False)
        return [*found, primary]

    def _mirrors(self, reference: Reference) -> Iterator[Endpoint]:
        name = reference.canonical_name
        rule = self.rules.rule_for(name)
        unwanted = "tag-only" if reference.digest else "digest-only"
        for mirror in rule.mirrors if rule else ():
            if rule and mirror.pull_from != unwanted:
                location = mirror.location + name[prefix_length(name, rule.prefix) :]
                yield self._endpoint(location, insecure=mirror.insecure).replace(is_mirror=True)

    def _endpoint(self, location: str, *, insecure: bool) -> Endpoint:
        """An endpoint for ``host[:port]/path``."""
        domain, _, path = location.partition("/")
        wish = self._access.tls_verify
        verify = not (insecure or is_listed(domain, load_docker_conf(self._settings).insecure))
        return Endpoint(
            domain=domain, path=path, verify=verify if wish is None else wish, files=self._tls_files(domain),
            scheme="https" if wish else "",
        )  # fmt: skip

    def _of_host(self, host: Host, reference: Reference) -> Endpoint:
        endpoint = self._of_url(host.url, reference)
        own = endpoint.files
        files = TlsFiles(authorities=own.authorities + host.authorities, pairs=own.pairs + host.pairs)
        root = host.url.partition("://")[2].partition("/")[2].rstrip("/")
        # hosts.md: /v2 is added, unless override_path says that the path is complete
        complete = f"/{root}" if host.override_path else f"/{root}/v2" if root and root != "v2" else "/v2"
        verify = endpoint.verify and host.verify
        return endpoint.replace(files=files, root=complete, verify=verify, headers=host.headers)

    def _of_url(self, url: str, reference: Reference) -> Endpoint:
        scheme, mark, rest = url.partition("://")
        domain = (rest if mark else url).partition("/")[0]
        if mark and scheme not in ("http", "https"):
            raise InvalidArgument(f"cannot use the mirror {url}", why="it is neither http nor https")
        endpoint = self._endpoint(f"{domain}/{reference.path}", insecure=False)
        return endpoint.replace(is_mirror=True, scheme=scheme if mark else "")

    def _tls_files(self, domain: str) -> TlsFiles:
        if self._access.cert_dir:
            return find_tls_files([self._access.cert_dir])
        home, etc = config_home(self._settings.environ), self._settings.etc
        places = [f"{home}/containers/certs.d"] if home else []
        places += [f"{etc}/containers/certs.d", f"{etc}/docker/certs.d"] if etc else []
        return find_tls_files([f"{place}/{domain}" for place in places])

    # -- clients

    def credentials(self, domain: str, path: str = "") -> Credentials | None:
        """Those of this call, else those that the user has."""
        if self._access.username:
            return Credentials(username=self._access.username, password=self._access.password)
        return self.keychain.find(domain, path)

    def writer(self, reference: Reference, *, actions: str = "pull,push", mounts: Sequence[str] = ()) -> RegistryClient:
        """A client of the registry itself. Raises: Denied when it is blocked."""
        return self._client(reference, self.primary(reference), actions=actions, mounts=mounts)

    def readers(self, reference: Reference) -> Sequence[RegistryClient]:
        """One client an endpoint; none has connected yet."""
        return [self._client(reference, endpoint) for endpoint in self.endpoints(reference)]

    def _client(
        self, reference: Reference, endpoint: Endpoint, *, actions: str = "pull", mounts: Sequence[str] = ()
    ) -> RegistryClient:
        # the user and the password of this call are for the registry that it names
        find = self.keychain.find if endpoint.is_mirror else self.credentials
        domain = reference.domain if endpoint.domain == reference.domain else endpoint.domain
        return RegistryClient(
            reference, settings=self._settings, credentials=find(domain, endpoint.path), limits=self._limits,
            endpoint=endpoint, actions=actions, mounts=mounts,
        )  # fmt: skip

    def search_places(self, text: str) -> Sequence[tuple[str, str]]:
        """(registry, term) of what a user searches for: that of the name, else those where short names are looked for.

        Raises: Denied when it is blocked.
        """
        registry, slash, term = text.removeprefix("docker://").partition("/")
        if slash and not is_short(f"{registry}/x"):
            rule = self.rules.rule_for(registry)
            if rule is not None and rule.blocked:
                raise Denied(f"registry {registry} is blocked", why=f"registries.conf blocks {rule.prefix}")
            return [(registry, term)]
        return [(registry, text) for registry in self.names.search or (DEFAULT_DOMAIN,)]

    def session(
        self, domain: str, *, scope: str = "", credentials: Credentials | None = None, root: str = "/v2"
    ) -> Session:
        """With a registry as a whole. ``credentials`` are tried in place of those known, for a login."""
        endpoint = self._endpoint(f"{domain}/", insecure=False).replace(root=root)
        rule = self.rules.rule_for(domain)
        if rule is not None and rule.insecure and self._access.tls_verify is None:
            endpoint = endpoint.replace(verify=False)
        return Session(
            endpoint, settings=self._settings, scope=scope, limits=self._limits,
            credentials=credentials or self.credentials(domain), wants_identity=credentials is not None,
        )  # fmt: skip
