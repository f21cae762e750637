"""A web server inside, clients outside and beside it."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from harness import Cloison, until

# busybox's own wget cannot resolve names in a static build and falls over; an HTTP request is one line
GET = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {}"
SERVE = "mkdir -p /www; echo from inside >/www/index.html; exec httpd -f -p 80 -h /www"


def fetch(url: str) -> str:
    # no proxy: the address is on this machine
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=5) as answer:
        return str(answer.read().decode().strip())


def answers(url: str) -> bool:
    try:
        return fetch(url) == "from inside"
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def host_port(cloison: Cloison, name: str, container_port: str = "80/tcp") -> int:
    return int(cloison.inspect(name)["NetworkSettings"]["Ports"][container_port][0]["HostPort"])


def address_of(cloison: Cloison, name: str) -> str:
    return cloison.ok("exec", name, "sh", "-c", "ip -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1")


@pytest.fixture
def web(cloison: Cloison, busybox_image: str) -> Iterator[str]:
    cloison.ok("run", "-d", "--name", "web", "-p", "80", "-m", "64m", "--cpus", "0.5", busybox_image, "sh", "-c", SERVE)
    yield "web"
    cloison.ok("rm", "-f", "web")


def test_a_published_port_answers_on_every_address_of_the_host(cloison: Cloison, web: str) -> None:
    port = host_port(cloison, web)
    until(lambda: answers(f"http://127.0.0.1:{port}/"), what="the published port on loopback")
    gateway = cloison.ok("exec", web, "sh", "-c", "ip route | awk '/^default/ {print $3}'")
    assert answers(f"http://{gateway}:{port}/")
    assert str(port) in cloison.ok("ps")


def test_another_container_reaches_it_by_address_and_through_the_host(
    cloison: Cloison, web: str, busybox_image: str
) -> None:
    port = host_port(cloison, web)
    until(lambda: answers(f"http://127.0.0.1:{port}/"))
    address = address_of(cloison, web)
    gateway = cloison.ok("exec", web, "sh", "-c", "ip route | awk '/^default/ {print $3}'")
    for target in (f"{address} 80", f"{gateway} {port}"):
        answer = cloison.ok("run", "--rm", busybox_image, "sh", "-c", GET.format(target))
        assert answer.endswith("from inside")


def test_it_reaches_its_own_published_port(cloison: Cloison, web: str) -> None:
    port = host_port(cloison, web)
    until(lambda: answers(f"http://127.0.0.1:{port}/"))
    gateway = cloison.ok("exec", web, "sh", "-c", "ip route | awk '/^default/ {print $3}'")
    assert cloison.ok("exec", web, "sh", "-c", GET.format(f"{gateway} {port}")).endswith("from inside")


def test_a_port_is_closed_again_after_the_container(cloison: Cloison, busybox_image: str) -> None:
    port = free_port()
    publish = ["-p", f"127.0.0.1:{port}:80"]
    cloison.ok("run", "-d", "--name", "brief", *publish, busybox_image, "sh", "-c", SERVE)
    until(lambda: answers(f"http://127.0.0.1:{port}/"))
    cloison.ok("stop", "-t", "1", "brief")
    assert not answers(f"http://127.0.0.1:{port}/")
    cloison.ok("start", "brief")
    until(lambda: answers(f"http://127.0.0.1:{port}/"), what="the port after a second start")
    cloison.ok("rm", "-f", "brief")
    assert not answers(f"http://127.0.0.1:{port}/")


def test_a_port_is_published_once(cloison: Cloison, busybox_image: str) -> None:
    port = str(free_port())
    cloison.ok("run", "-d", "--name", "first", "-p", f"{port}:80", busybox_image, "sleep", "300")
    second = cloison("run", "-d", "--name", "second", "-p", f"{port}:80", busybox_image, "sleep", "300")
    assert second.returncode == 125
    assert "port is already allocated" in second.stderr
    cloison("rm", "-f", "second")
    cloison.ok("rm", "-f", "first")


def test_a_range_of_ports_is_published_and_udp_apart_from_tcp(cloison: Cloison, busybox_image: str) -> None:
    start = free_port() // 10 * 10
    flags = ["-p", f"127.0.0.1:{start}-{start + 2}:7000-7002", "-p", f"127.0.0.1:{start}:53/udp"]
    script = "exec nc -ll -p 7001 -e echo seven"
    cloison.ok("run", "-d", "--name", "many", *flags, busybox_image, "sh", "-c", script)
    try:
        ports = cloison.inspect("many")["NetworkSettings"]["Ports"]
        assert {"7000/tcp", "7001/tcp", "7002/tcp", "53/udp"} <= set(ports)
        assert host_port(cloison, "many", "7002/tcp") == start + 2

        def says_seven() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", start + 1), timeout=2) as link:
                    return link.recv(16) == b"seven\n"
            except OSError:
                return False

        until(says_seven, what="the middle of the range")
    finally:
        cloison.ok("rm", "-f", "many")


def test_hosts_resolv_conf_and_hostname_are_managed(cloison: Cloison, busybox_image: str) -> None:
    flags = ["--hostname", "named", "--add-host", "db:10.1.2.3", "--dns", "192.0.2.53", "--dns-search", "example.test"]
    script = "cat /etc/hosts /etc/resolv.conf /etc/hostname"
    text = cloison.ok("run", "--rm", *flags, busybox_image, "sh", "-c", script)
    words = [line.split() for line in text.splitlines()]
    assert ["10.1.2.3", "db"] in words
    assert ["nameserver", "192.0.2.53"] in words
    assert ["search", "example.test"] in words
    assert words[-1] == ["named"]
    assert any(line[0] == "127.0.0.1" and "localhost" in line for line in words if line)
    assert any(line[-1] == "named" and line[0].startswith("10.") for line in words if len(line) > 1)
