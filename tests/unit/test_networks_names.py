"""/etc/hosts and /etc/resolv.conf as containers see them, and words that must not get in."""

from __future__ import annotations

import pytest

from cloison.errors import InvalidArgument
from cloison.networks import names

LOCAL = "127.0.0.1\tlocalhost\n"


def test_hosts_has_loopback_then_extra_hosts_then_the_container() -> None:
    text = names.render_hosts("web", "10.210.0.2", extra_hosts=["db:10.0.0.9", "six:[fd00::9]"], gateway="10.210.0.1")
    assert text.startswith(LOCAL)
    assert text.endswith("10.0.0.9\tdb\nfd00::9\tsix\n10.210.0.2\tweb\n")


def test_a_name_with_a_domain_is_followed_by_the_short_one() -> None:
    assert names.render_hosts("web.example.org", "10.210.0.2").endswith("10.210.0.2\tweb.example.org web\n")


def test_without_a_network_the_container_still_knows_its_own_name() -> None:
    assert names.render_hosts("web", "").endswith("127.0.0.1\tweb\n")


def test_host_gateway_stands_for_the_gateway_and_nothing_is_added_unasked() -> None:
    text = names.render_hosts(
        "web", "10.210.0.2", extra_hosts=["host.docker.internal:host-gateway"], gateway="10.210.0.1"
    )
    assert "10.210.0.1\thost.docker.internal\n" in text
    assert "host.docker.internal" not in names.render_hosts("web", "10.210.0.2", gateway="10.210.0.1")
    with pytest.raises(InvalidArgument, match="no gateway"):
        names.render_hosts("web", "", extra_hosts=["host.docker.internal:host-gateway"])


@pytest.mark.parametrize(
    ("entry", "parsed"),
    [
        ("db:10.0.0.9", ("db", "10.0.0.9")),
        ("db=10.0.0.9", ("db", "10.0.0.9")),
        ("db:::1", ("db", "::1")),
        ("db=[::1]", ("db", "::1")),
        ("my_db.local:host-gateway", ("my_db.local", "host-gateway")),
    ],
)
def test_an_extra_host_is_a_name_and_an_address(entry: str, parsed: tuple[str, str]) -> None:
    assert names.parse_extra_host(entry) == parsed


EVIL = ["a\nb", "a b", "a#b", "a\tb", "a\0b", "", "-a", "a-", ".a", "a..b", "a" * 64 + ".b", "ä", "a/b", "a;b", "a:b"]


@pytest.mark.parametrize("name", [*EVIL, "a" * 65])
def test_a_hostname_that_could_write_lines_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid hostname"):
        names.check_hostname(name)


@pytest.mark.parametrize("name", [name for name in EVIL if ":" not in name])
def test_an_extra_host_that_could_write_lines_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid extra host"):
        names.parse_extra_host(f"{name}:10.0.0.9")


@pytest.mark.parametrize("target", ["", "10.0.0", "10.0.0.9\n", "10.0.0.9 x", "fe80::1%eth0", "name", "10.0.0.9\0"])
def test_an_extra_host_without_an_address_is_refused(target: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid extra host"):
        names.parse_extra_host(f"db:{target}")


def test_the_hosts_resolvers_are_taken_over() -> None:
    text = names.render_resolv_conf(
        "# made by somebody\nnameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2\n"
    )
    assert text == "nameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2\n"


def test_the_old_domain_line_becomes_a_search_list() -> None:
    assert names.render_resolv_conf("domain a.example\nnameserver 192.0.2.53\n").endswith("search a.example\n")


def test_resolvers_on_the_hosts_loopback_are_dropped_and_none_is_invented() -> None:
    text = names.render_resolv_conf("nameserver 127.0.0.53\nnameserver ::1\noptions edns0\nsearch .\n")
    assert "nameserver" not in text
    assert text == "# no name server of the host can be reached from here: name one with --dns\noptions edns0\n"


def test_the_real_servers_behind_a_local_resolver_are_used_where_they_are_known() -> None:
    text = names.render_resolv_conf(
        "nameserver 127.0.0.53\n", upstream_text="nameserver 192.0.2.53\nnameserver fd00::53\n"
    )
    assert text == "nameserver 192.0.2.53\n"


def test_with_the_hosts_network_its_loopback_resolvers_stay() -> None:
    assert names.render_resolv_conf("nameserver 127.0.0.53\n", keep_loopback=True) == "nameserver 127.0.0.53\n"


def test_what_the_user_names_takes_the_place_of_what_the_host_says() -> None:
    host = "nameserver 192.0.2.53\nsearch a.example\noptions ndots:2\n"
    text = names.render_resolv_conf(host, dns=["127.0.0.1", "fd00::1"], search=["b.example"], options=["timeout:1"])
    assert text == "nameserver 127.0.0.1\nnameserver fd00::1\nsearch b.example\noptions timeout:1\n"
    assert names.render_resolv_conf(host, search=["."]) == "nameserver 192.0.2.53\noptions ndots:2\n"


@pytest.mark.parametrize("word", ["", "a\nb", "a b", "a#b", "a;b", "a\0"])
def test_words_that_could_write_lines_of_their_own_are_refused(word: str) -> None:
    with pytest.raises(InvalidArgument):
        names.render_resolv_conf("", dns=[word])
    with pytest.raises(InvalidArgument):
        names.render_resolv_conf("", search=[word])
    with pytest.raises(InvalidArgument):
        names.render_resolv_conf("", options=[word])
