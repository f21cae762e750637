"""The registry room's pure parts: challenges, origins, the guard, platforms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloison.errors import CloisonError, Denied, InvalidArgument, NotFound
from cloison.oci.image import Descriptor, Platform
from cloison.registry.auth import Challenge, Credentials, parse_challenges, parse_token
from cloison.registry.origin import Guard, kind_of_address, origin_of, printable, registry_origin, resolve
from cloison.registry.platforms import choose, parse_platform, render_platform, runs_on

# --- challenges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ('Bearer realm="https://a/t",service="s"', [("bearer", {"realm": "https://a/t", "service": "s"})]),
        ("BEARER Realm=https", [("bearer", {"realm": "https"})]),
        ('Bearer realm = "x" , scope="a,b:c"', [("bearer", {"realm": "x", "scope": "a,b:c"})]),
        ('Basic realm="a", Bearer realm="b"', [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        ('Negotiate, Basic realm="q\\"q"', [("negotiate", {}), ("basic", {"realm": 'q"q'})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ("", []),
        (" , ,", []),
    ],
)
def test_a_challenge_is_read_as_rfc_9110_writes_it(text: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(text) == tuple(Challenge(scheme=scheme, parameters=p) for scheme, p in expected)


@pytest.mark.parametrize(
    "text", ['Bearer realm="open', "realm=x", 'Bearer realm="x\\', "Bearer realm=", '"', "B" * 9000]
)
def test_a_malformed_challenge_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="challenge is malformed"):
        parse_challenges(text)


@given(st.text(max_size=200))
def test_no_challenge_makes_anything_but_a_clean_error(text: str) -> None:
    try:
        parse_challenges(text)
    except InvalidArgument:
        pass


@given(st.binary(max_size=200))
def test_no_token_answer_makes_anything_but_a_clean_error(body: bytes) -> None:
    try:
        parse_token(body)
    except CloisonError:
        pass


@pytest.mark.parametrize(
    "body, expected",
    [
        (b'{"token": "t"}', ("t", 60.0)),
        (b'{"access_token": "t", "expires_in": 300}', ("t", 300.0)),
        (b'{"token": "t", "access_token": "u", "expires_in": 999999999}', ("t", 3600.0)),
        (b'{"token": "t", "expires_in": 0, "issued_at": "2020-01-01T00:00:00Z"}', ("t", 60.0)),
    ],
)
def test_a_token_comes_with_a_bounded_life(body: bytes, expected: tuple[str, float]) -> None:
    token = parse_token(body)
    assert (token.bearer, token.life_s) == expected


def test_credentials_never_show_their_password() -> None:
    assert "sesame" not in repr(Credentials(username="ali", password="sesame"))


# --- origins ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "domain, insecure, expected",
    [
        ("docker.io", (), "https://registry-1.docker.io"),
        ("registry.example", (), "https://registry.example"),
        ("registry.example:5000", (), "https://registry.example:5000"),
        ("registry.example:443", (), "https://registry.example"),
        ("localhost:5000", (), "http://localhost:5000"),
        ("localhost", (), "http://localhost"),
        ("127.0.0.1:5000", (), "http://127.0.0.1:5000"),
        ("127.9.9.9:5000", (), "http://127.9.9.9:5000"),
        ("[::1]:5000", (), "http://[::1]:5000"),
        ("localhost:443", (), "https://localhost"),
        ("localhost.example:5000", (), "https://localhost.example:5000"),
        ("127.0.0.1.example:5000", (), "https://127.0.0.1.example:5000"),
        ("10.0.0.1:5000", (), "https://10.0.0.1:5000"),
        ("10.0.0.1:5000", ("10.0.0.1:5000",), "http://10.0.0.1:5000"),
        ("10.0.0.1:5000", ("10.0.0.1",), "http://10.0.0.1:5000"),
        ("10.0.0.1:5001", ("10.0.0.1:5000",), "https://10.0.0.1:5001"),
        ("xregistry.example", ("registry.example",), "https://xregistry.example"),
    ],
)
def test_plain_http_is_for_loopback_and_listed_registries_alone(
    domain: str, insecure: tuple[str, ...], expected: str
) -> None:
    assert registry_origin(domain, insecure).url == expected


@pytest.mark.parametrize(
    "address, kind",
    [
        ("8.8.8.8", "public"), ("2606:4700::1", "public"), ("10.0.0.1", "private"), ("192.168.1.1", "private"),
        ("100.64.0.1", "private"), ("fd00::1", "private"), ("198.51.100.7", "private"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"), ("224.0.0.1", "link-local"), ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"), ("0.0.0.0", "loopback"), ("::", "loopback"), ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"), ("64:ff9b::a9fe:a9fe", "link-local"), ("2002:7f00:1::", "loopback"),
    ],
)  # fmt: skip
def test_an_address_has_one_kind_however_it_is_written(address: str, kind: str) -> None:
    assert kind_of_address(address) == kind


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/", "host/path", "http://", "https://a b/", "https://a\n/", "https://u@host/", "https://u:p@host/",
        "https://host:0x50/", "https://host:70000/", "https://[::1/", "https://host\\@evil/", "https://häst/",
        "x" * 20_000,
    ],
)  # fmt: skip
def test_an_address_that_two_parsers_could_read_differently_is_refused(url: str) -> None:
    with pytest.raises(InvalidArgument):
        origin_of(url)


@pytest.mark.parametrize("location", ["/a\nb", "https://evil\t.example/", "//x y", "https://[x/", "\\\\evil/x"])
def test_a_location_is_checked_before_it_is_joined(location: str) -> None:
    with pytest.raises(InvalidArgument):
        resolve("https://registry.example/v2/", location)


@given(st.text(max_size=60))
def test_no_location_makes_anything_but_a_clean_error(text: str) -> None:
    try:
        origin_of(resolve("https://registry.example/v2/app", text))
    except InvalidArgument:
        pass


def test_a_public_registry_may_lead_to_public_addresses_alone() -> None:
    home = origin_of("https://registry.example")
    guard = Guard(home)
    guard.check_address(home, "8.8.8.8")
    storage = origin_of("https://storage.example")
    guard.check_lead(home, storage, what="redirect")
    guard.check_address(storage, "9.9.9.9")
    for inside in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "fd00::1", "::1", "0.0.0.0"):
        with pytest.raises(Denied, match="address"):
            guard.check_address(storage, inside)
    for url in (
        "https://127.0.0.1",
        "https://localhost",
        "https://10.1.1.1",
        "https://[::1]",
        "http://storage.example",
    ):
        with pytest.raises(Denied, match="refused the redirect"):
            guard.check_lead(home, origin_of(url), what="redirect")


def test_a_registry_on_a_private_address_may_lead_to_its_neighbours_but_not_to_us() -> None:
    home = origin_of("https://registry.internal")
    guard = Guard(home)
    guard.check_address(home, "10.0.0.5")
    storage = origin_of("https://storage.internal")
    guard.check_address(storage, "10.0.0.6")
    for inside in ("127.0.0.1", "169.254.169.254"):
        with pytest.raises(Denied):
            guard.check_address(storage, inside)


def test_localhost_that_resolves_to_another_machine_is_refused() -> None:
    home = origin_of("http://localhost:5000")
    with pytest.raises(Denied, match="is not this machine"):
        Guard(home).check_address(home, "192.0.2.1")


@given(st.text(max_size=500))
def test_a_strangers_text_is_printable_and_short(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) <= 201


# --- platforms --------------------------------------------------------------------------------------------------------


def offer(*texts: str) -> list[Descriptor]:
    """One manifest a platform; its size tells which it is."""
    platforms = [
        Platform(**dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))) for text in texts
    ]
    return [Descriptor(media_type="m", digest="d", size=n, platform=p) for n, p in enumerate(platforms)]


@pytest.mark.parametrize(
    "text, machine, expected",
    [
        ("", "x86_64", "linux/amd64"), ("", "aarch64", "linux/arm64/v8"), ("", "armv7l", "linux/arm/v7"),
        ("linux/amd64", "aarch64", "linux/amd64"), ("arm64", "x86_64", "linux/arm64"),
        ("linux/arm64/v8", "x86_64", "linux/arm64/v8"),
        ("LINUX/X86_64", "aarch64", "linux/amd64"), ("linux", "aarch64", "linux/arm64/v8"),
        ("windows", "x86_64", "windows/amd64"),
        ("armhf", "x86_64", "linux/arm/v7"),
    ],
)  # fmt: skip
def test_a_platform_is_read_as_docker_reads_it(text: str, machine: str, expected: str) -> None:
    assert render_platform(parse_platform(text, machine=machine)) == expected


@pytest.mark.parametrize(
    "text", ["linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux//v8", "\x1b[2J", "linux/amd64\n"]
)
def test_a_malformed_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid platform"):
        parse_platform(text)


@pytest.mark.parametrize(
    "offered, wanted, expected",
    [
        (("linux/amd64", "linux/arm64/v8"), "linux/arm64", 1),
        (("linux/arm64", "linux/arm64/v8"), "linux/arm64/v8", 0),
        (("linux/arm/v5", "linux/arm/v6", "linux/arm/v7"), "linux/arm/v7", 2),
        (("linux/arm/v5", "linux/arm/v6", "linux/arm/v8"), "linux/arm/v7", 1),
        (("linux/amd64/v3", "linux/amd64"), "linux/amd64", 1),
        (("linux/amd64", "linux/amd64/v3"), "linux/amd64/v3", 1),
        (("unknown/unknown", "linux/amd64"), "linux/amd64", 1),
        (("windows/amd64", "linux/amd64"), "linux/amd64", 1),
        (("linux/amd64", "linux/amd64"), "linux/amd64", 0),
    ],
)
def test_the_best_manifest_that_runs_is_chosen(offered: tuple[str, ...], wanted: str, expected: int) -> None:
    assert choose(offer(*offered), parse_platform(wanted), name="app").size == expected


def test_a_single_manifest_without_a_platform_is_taken() -> None:
    only = Descriptor(media_type="m", digest="d", size=7)
    assert choose([only], parse_platform("linux/amd64"), name="app") is only


@pytest.mark.parametrize("offered", [(), ("linux/arm/v8",), ("linux/amd64/v3", "unknown/unknown")])
def test_a_platform_that_is_missing_is_not_found(offered: tuple[str, ...]) -> None:
    for wanted in ("linux/arm/v7", "linux/amd64"):
        with pytest.raises(NotFound, match=f"no image for platform {wanted}") as caught:
            choose(offer(*offered), parse_platform(wanted), name="app")
        assert "unknown" not in str(caught.value)


@pytest.mark.parametrize(
    ("has", "wanted", "expected"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm64", "linux/amd64", False),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_programs_run_on_their_own_platform_and_on_newer_variants(has: str, wanted: str, expected: bool) -> None:
    assert runs_on(parse_platform(has), parse_platform(wanted)) is expected


def test_an_image_that_does_not_say_its_platform_is_believed_to_run() -> None:
    assert runs_on(Platform(os="linux", architecture=""), parse_platform("linux/arm64"))
