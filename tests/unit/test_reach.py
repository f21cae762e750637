"""What the field's files say about registries: mirrors, blocked and insecure ones, short names; and failing over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloison.errors import Denied, InvalidArgument, NotFound, Unavailable
from cloison.images.mirrors import Mirrored
from cloison.images.reach import Reach
from cloison.model.reference import parse_reference
from cloison.model.settings import Access, Settings
from cloison.oci.image import Descriptor
from scripted_registry import DATA, LIMITS, MANIFEST, OCI_MANIFEST, Exchange, ScriptedRegistry

DIGEST = "sha256:" + "1" * 64


class Machine:
    """Files of a machine and its user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {"HOME": f"{root}/home"}

    @property
    def settings(self) -> Settings:
        return Settings(environ=self.environ, etc=f"{self.root}/etc")

    def write(self, name: str, content: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    def conf(self, content: str) -> None:
        self.write("etc/containers/registries.conf", content)

    def endpoints(self, name: str, **access: object) -> list[str]:
        """``domain/path`` of each, a ``?`` behind insecure ones."""
        found = Reach(self.settings, access=Access(**access)).endpoints(parse_reference(name))  # type: ignore[arg-type]
        return [f"{e.domain}/{e.path}" + ("" if e.verify else "?") for e in found]

    def candidates(self, text: str) -> list[str]:
        return [reference.canonical for reference in Reach(self.settings).candidates(text)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# --- names ------------------------------------------------------------------------------------------------------------


def test_short_names_are_of_docker_io_unless_a_file_says_otherwise(machine: Machine) -> None:
    assert machine.candidates("debian") == ["docker.io/library/debian:latest"]
    machine.conf('unqualified-search-registries = ["a.example", "docker.io"]\n[aliases]\n"fedora" = "f.example/fed"\n')
    assert machine.candidates("debian:12") == ["a.example/debian:12", "docker.io/library/debian:12"]
    assert machine.candidates("my/app") == ["a.example/my/app:latest", "docker.io/my/app:latest"]
    assert machine.candidates("fedora:40") == ["f.example/fed:40"]
    assert machine.candidates(f"fedora@{DIGEST}") == [f"f.example/fed@{DIGEST}"]
    assert machine.candidates("b.example/debian") == ["b.example/debian:latest"]
    assert machine.candidates("localhost/debian") == ["localhost/debian:latest"]


def test_an_enforced_choice_is_not_guessed(machine: Machine) -> None:
    machine.conf('unqualified-search-registries = ["a.example", "b.example"]\nshort-name-mode = "enforcing"\n')
    with pytest.raises(InvalidArgument, match="a.example, b.example"):
        machine.candidates("debian")


def test_drop_ins_and_the_users_own_file_win(machine: Machine) -> None:
    machine.conf('[aliases]\n"x" = "etc.example/x"\n')
    machine.write(
        "etc/containers/registries.conf.d/1.conf", '[aliases]\n"x" = "drop.example/x"\n"y" = "drop.example/y"\n'
    )
    assert machine.candidates("x") == ["drop.example/x:latest"]
    machine.write("home/.config/containers/registries.conf", '[aliases]\n"z" = "home.example/z"\n')
    assert machine.candidates("z") == ["home.example/z:latest"]
    machine.write("home/.cache/containers/short-name-aliases.conf", '[aliases]\n"y" = "asked.example/y"\n')
    assert machine.candidates("y") == ["asked.example/y:latest"]
    machine.write("only.conf", '[aliases]\n"x" = "only.example/x"\n')
    machine.environ["CONTAINERS_REGISTRIES_CONF"] = f"{machine.root}/only.conf"
    assert machine.candidates("x") == ["only.example/x:latest"]
    assert machine.candidates("y") == ["docker.io/library/y:latest"]


@pytest.mark.parametrize(
    "content", ["[[registry", "[[registry]]\n", '[[registry]]\nprefix = 7\n', 'short-name-mode = "x"\n', "\xff"]
)  # fmt: skip
def test_a_malformed_file_is_named(machine: Machine, content: str) -> None:
    machine.conf(content)
    with pytest.raises(InvalidArgument, match=r"registries\.conf"):
        machine.candidates("x")


# --- endpoints --------------------------------------------------------------------------------------------------------


def test_mirrors_come_in_their_order_and_the_registry_last(machine: Machine) -> None:
    machine.conf("""
        [[registry]]
        prefix = "a.example/team"
        location = "b.example/moved"
        [[registry.mirror]]
        location = "m1.example:5000/cache"
        insecure = true
        [[registry.mirror]]
        location = "m2.example"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "m3.example"
        pull-from-mirror = "tag-only"
        [[registry]]
        prefix = "a.example"
        insecure = true
    """)
    assert machine.endpoints("a.example/team/app:1") == [
        "m1.example:5000/cache/app?", "m3.example/app", "b.example/moved/app",
    ]  # fmt: skip
    assert machine.endpoints(f"a.example/team/app@{DIGEST}") == [
        "m1.example:5000/cache/app?", "m2.example/app", "b.example/moved/app",
    ]  # fmt: skip
    assert machine.endpoints("a.example/teams/app") == ["a.example/teams/app?"]
    assert machine.endpoints("a.example/teams/app", tls_verify=True) == ["a.example/teams/app"]
    assert machine.endpoints("a.example.org/x", tls_verify=False) == ["a.example.org/x?"]


def test_a_wildcard_covers_hosts_below_it(machine: Machine) -> None:
    machine.conf('[[registry]]\nprefix = "*.example"\n[[registry.mirror]]\nlocation = "cache.test/all"\n')
    assert machine.endpoints("a.b.example/x/y") == ["cache.test/all/x/y", "a.b.example/x/y"]
    assert machine.endpoints("example.org/x") == ["example.org/x"]


def test_a_blocked_registry_is_neither_read_nor_written(machine: Machine) -> None:
    machine.conf('[[registry]]\nprefix = "a.example/bad"\nblocked = true\n')
    reach = Reach(machine.settings)
    for ask in (reach.endpoints, reach.writer):
        with pytest.raises(Denied, match=r"registries\.conf blocks a\.example/bad"):
            ask(parse_reference("a.example/bad/app"))
    assert machine.endpoints("a.example/badly") == ["a.example/badly"]


def test_the_first_version_of_the_file_is_still_read(machine: Machine) -> None:
    machine.conf("""
        [registries.search]
        registries = ["s.example"]
        [registries.insecure]
        registries = ["i.example"]
        [registries.block]
        registries = ["b.example"]
    """)
    assert machine.candidates("x") == ["s.example/x:latest"]
    assert machine.endpoints("i.example/x") == ["i.example/x?"]
    with pytest.raises(Denied):
        machine.endpoints("b.example/x")


def test_dockers_mirrors_are_for_docker_io_and_its_insecure_list_knows_networks(machine: Machine) -> None:
    machine.write(
        "etc/docker/daemon.json",
        json.dumps(
            {"registry-mirrors": ["https://m.example/"], "insecure-registries": ["10.0.0.0/8", "i.example:5000"]}
        ),
    )
    assert machine.endpoints("debian") == ["m.example/library/debian", "docker.io/library/debian"]
    assert machine.endpoints("a.example/x") == ["a.example/x"]
    assert machine.endpoints("10.1.2.3:5000/x") == ["10.1.2.3:5000/x?"]
    assert machine.endpoints("11.1.2.3:5000/x") == ["11.1.2.3:5000/x"]
    assert machine.endpoints("i.example:5000/x") == ["i.example:5000/x?"]


def test_containerds_hosts_are_read_with_their_paths_certificates_and_headers(machine: Machine) -> None:
    machine.write(
        "etc/containerd/certs.d/a.example:5000/hosts.toml",
        """
        server = "https://real.example"
        [host."https://m.example/proxy/v2"]
        capabilities = ["pull", "resolve"]
        override_path = true
        ca = "ca.pem"
        client = [["c.pem", "c.key"]]
        skip_verify = true
        [host."https://m.example/proxy/v2".header]
        x-key = ["a", "b"]
        [host."http://push.example"]
        capabilities = ["push"]
    """,
    )
    machine.write("etc/containerd/certs.d/_default/hosts.toml", '[host."http://d.example:80"]\n')
    first, last = Reach(machine.settings).endpoints(parse_reference("a.example:5000/x"))
    directory = f"{machine.root}/etc/containerd/certs.d/a.example:5000"
    assert (first.domain, first.root, first.verify, first.scheme) == ("m.example", "/proxy/v2", False, "https")
    assert first.files.authorities == (f"{directory}/ca.pem",)
    assert first.files.pairs == ((f"{directory}/c.pem", f"{directory}/c.key"),)
    assert (first.headers, first.is_mirror) == ({"x-key": "a, b"}, True)
    assert (last.domain, last.root, last.is_mirror) == ("real.example", "/v2", False)
    assert machine.endpoints("b.example/x") == ["d.example:80/x", "b.example/x"]


def test_certificates_are_of_the_exact_host_and_port(machine: Machine) -> None:
    machine.write("etc/docker/certs.d/a.example:5000/ca.crt", "x")
    machine.write("home/.config/containers/certs.d/b.example/ca.crt", "x")
    machine.write("etc/containers/certs.d/b.example/other.crt", "x")
    reach = Reach(machine.settings)

    def authorities(name: str) -> list[str]:
        return [
            path.removeprefix(f"{machine.root}/") for path in reach.primary(parse_reference(name)).files.authorities
        ]

    assert authorities("a.example:5000/x") == ["etc/docker/certs.d/a.example:5000/ca.crt"]
    assert authorities("a.example/x") == []
    assert authorities("b.example/x") == ["home/.config/containers/certs.d/b.example/ca.crt"]


# --- failing over -----------------------------------------------------------------------------------------------------


@pytest.fixture
def mirror() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


@pytest.fixture
def server() -> Iterator[ScriptedRegistry]:
    with ScriptedRegistry() as running:
        yield running


@pytest.fixture
def mirrored(machine: Machine, mirror: ScriptedRegistry, server: ScriptedRegistry) -> Machine:
    """The registry of ``server`` with a mirror, whose repository has another name."""
    machine.conf(
        f'[[registry]]\nprefix = "{server.address}"\n[[registry.mirror]]\nlocation = "{mirror.address}/cache"\n'
    )
    return machine


class Reader:
    def __init__(self, machine: Machine, server: ScriptedRegistry, **access: object) -> None:
        self.said: list[str] = []
        reach = Reach(machine.settings, limits=LIMITS, access=Access(**access))  # type: ignore[arg-type]
        self.reference = parse_reference(f"{server.address}/app:latest")
        self.client = Mirrored(reach.readers(self.reference), say=self.said.append)


def test_what_a_mirror_has_the_registry_is_not_asked_for(
    mirrored: Machine, mirror: ScriptedRegistry, server: ScriptedRegistry
) -> None:
    digest = mirror.add_manifest(MANIFEST, name="cache/app")
    reader = Reader(mirrored, server)
    with reader.client as client:
        assert client.manifest(reader.reference).digest == digest
    assert server.requests == []
    assert reader.said == []


@pytest.mark.parametrize("failure", ["absent", 500, 401, "lie", "down", "html"])
def test_a_mirror_that_fails_is_skipped_with_a_word_and_not_asked_again(
    mirrored: Machine, mirror: ScriptedRegistry, server: ScriptedRegistry, failure: str | int
) -> None:
    answers = {
        500: lambda e: e.answer(500), 401: lambda e: e.answer(401),
        "lie": lambda e: e.answer(200, b"{}", docker_content_digest=DIGEST, content_type="text/plain"),
        "html": lambda e: e.answer(200, b"<html>welcome</html>", content_type="text/html"),
    }  # fmt: skip
    if failure in answers:
        mirror.on("/v2/cache/app/manifests/latest", answers[failure])
    if failure == "down":
        mirror.__exit__()
    digest = server.add_manifest(MANIFEST)
    blob = Descriptor(media_type="x", digest=server.add_blob(DATA), size=len(DATA))
    reader = Reader(mirrored, server)
    with reader.client as client:
        assert client.manifest(reader.reference).digest == digest
        asked = len(mirror.requests)
        assert b"".join(client.blob(blob)) == DATA
    assert len(mirror.requests) == asked
    assert len(reader.said) == 1
    assert reader.said[0].startswith(f"Mirror {mirror.address} is skipped: ")


def test_a_blob_goes_on_at_the_registry_where_the_mirror_broke(
    mirrored: Machine, mirror: ScriptedRegistry, server: ScriptedRegistry
) -> None:
    digest = server.add_blob(DATA)
    half = len(DATA) // 2

    def broken(exchange: Exchange) -> None:
        if "range" in exchange.headers:
            exchange.answer(500)
        else:
            exchange.head(200, content_length=str(len(DATA)))
            exchange.send(DATA[:half])

    def rest(exchange: Exchange) -> None:
        begin = int(exchange.headers["range"].removeprefix("bytes=").removesuffix("-"))
        exchange.answer(206, DATA[begin:], content_range=f"bytes {begin}-{len(DATA) - 1}/{len(DATA)}")

    mirror.on(f"/v2/cache/app/blobs/{digest}", broken)
    server.on(f"/v2/app/blobs/{digest}", rest)
    reader = Reader(mirrored, server)
    with reader.client as client:
        got = b"".join(client.blob(Descriptor(media_type="x", digest=digest, size=len(DATA))))
    assert got == DATA
    assert len(server.requests) == 1


def test_the_last_error_is_the_registrys_own(
    mirrored: Machine, mirror: ScriptedRegistry, server: ScriptedRegistry
) -> None:
    mirror.on("/v2/cache/app/manifests/latest", lambda e: e.answer(503))
    reader = Reader(mirrored, server)
    with reader.client as client, pytest.raises(NotFound, match=f"{server.address}/app:latest not found"):
        client.manifest(reader.reference)
    server.on("/v2/app/manifests/latest", lambda e: e.answer(500))
    reader = Reader(mirrored, server)
    with reader.client as client, pytest.raises(Unavailable, match="status 500"):
        client.manifest(reader.reference)


def test_the_users_password_for_a_registry_is_not_for_its_mirrors(
    mirrored: Machine, mirror: ScriptedRegistry, server: ScriptedRegistry
) -> None:
    def basic(exchange: Exchange) -> None:
        exchange.answer(401, www_authenticate='Basic realm="x"')

    mirror.on("/v2/cache/app/manifests/latest", basic)
    server.on("/v2/app/manifests/latest", basic)
    reader = Reader(mirrored, server, username="ali", password="sesame")
    with reader.client as client, pytest.raises(Denied):
        client.manifest(reader.reference)
    assert mirror.headers_seen("authorization") == []
    assert server.headers_seen("authorization") == ["Basic YWxpOnNlc2FtZQ=="]


# --- plain HTTP and TLS -----------------------------------------------------------------------------------------------


def test_an_insecure_registry_without_tls_is_spoken_to_in_plain(
    machine: Machine, server: ScriptedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_here(monkeypatch)
    server.add_manifest(MANIFEST)
    name = parse_reference(f"registry.test:{server.port}/app")
    with Mirrored(Reach(machine.settings, limits=LIMITS).readers(name), say=print) as client:
        with pytest.raises(Unavailable):
            client.manifest(name)
    assert server.requests == []  # never a fallback
    insecure = Reach(machine.settings, limits=LIMITS, access=Access(tls_verify=False))
    with Mirrored(insecure.readers(name), say=print) as client:
        assert client.manifest(name).digest


def resolve_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """``registry.test`` is this machine."""
    import socket

    real = socket.getaddrinfo

    def resolve(host: bytes, *args: object, **options: object) -> object:
        return real("127.0.0.1" if host == b"registry.test" else host, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


# --- rates ------------------------------------------------------------------------------------------------------------


def test_what_is_left_of_a_rate_limit_is_known_and_told_when_it_is_used_up(
    machine: Machine, server: ScriptedRegistry
) -> None:
    left = {"ratelimit_limit": "100;w=21600", "ratelimit_remaining": "76;w=21600"}
    body = json.dumps(MANIFEST).encode()
    server.on("/v2/app/manifests/latest", lambda e: e.answer(200, body, content_type=OCI_MANIFEST, **left))
    reader = Reader(machine, server)
    with reader.client as client:
        client.manifest(reader.reference)
        assert client.rate_limit == "76 of 100 pulls left in 6 h"
    headers = {"ratelimit_limit": "100;w=21600", "ratelimit_remaining": "0;w=21600"}
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}'
    server.on("/v2/app/manifests/latest", lambda e: e.answer(429, body, **headers))
    reader = Reader(machine, server)
    with reader.client as client, pytest.raises(Unavailable) as caught:
        client.manifest(reader.reference)
    assert "limits the rate" in str(caught.value)
    assert "0 of 100 pulls left in 6 h; You have reached your pull rate limit" in str(caught.value)
