"""Network namespaces for tests: made by a child process, entered with nsenter, gone when the child ends.

A `Space` stands for a container, or for a machine on the host's LAN. Its process opens a netlink socket inside and
sends it out, just as the launcher's child does.
"""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloison.linux import nftables
from cloison.model.container import PortMapping
from cloison.model.settings import Settings
from cloison.networks import bridge, ipam, ports
from harness import SOURCE, Roots

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")

_CHILD = """
import array, socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
channel.sendmsg([b"n"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [netlink.fileno()]))])
netlink.close()
channel.recv(1)
"""

# Answers every client with the address it came from, as this side sees it.
_SERVER = """
import socket, sys
kind, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
import selectors
selector = selectors.DefaultSelector()
for port in ports:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("0.0.0.0", port))
    if kind == "tcp":
        server.listen(64)
    selector.register(server, selectors.EVENT_READ, port)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        if kind == "tcp":
            client, peer = key.fileobj.accept()
            client.sendall(f"{peer[0]} {key.data}".encode())
            client.close()
        else:
            data, peer = key.fileobj.recvfrom(2048)
            key.fileobj.sendto(f"{peer[0]} {key.data}".encode(), peer)
"""

_CLIENT = """
import socket, sys
kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
client.settimeout(float(sys.argv[4]))
try:
    client.connect((address, port))
    if kind == "udp":
        client.send(b"?")
    print(client.recv(2048).decode())
except OSError as err:
    print("!" + type(err).__name__)
"""


class Space:
    """One network namespace; ``netlink`` is the descriptor of a socket inside it."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = ["unshare", "--net", sys.executable, "-I", "-S", "-c", _CHILD, str(theirs.fileno())]
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        self._channel.settimeout(20)
        _data, ancillary, _flags, _address = self._channel.recvmsg(1, socket.CMSG_SPACE(4))
        descriptors = array.array("i")
        descriptors.frombytes(ancillary[0][2])
        self.netlink = descriptors[0]
        self._servers: list[subprocess.Popen[str]] = []
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        return self._process.pid

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *argv]

    def run(self, *argv: str) -> str:
        """What a command prints inside. Raises: CalledProcessError."""
        return subprocess.run(self.inside(*argv), check=True, capture_output=True, text=True, timeout=30).stdout

    def serve(self, kind: str, *ports: int) -> None:
        """Start an echo server of addresses on these ports; it ends with the namespace's owner."""
        argv = self.inside(sys.executable, "-I", "-S", "-c", _SERVER, kind, *map(str, ports))
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._servers.append(server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

    def ask(self, kind: str, address: str, *, port: int, timeout_s: float = 3.0) -> str:
        """``<our address as the server saw it> <its port>``, or ``!`` and the name of an error."""
        argv = [sys.executable, "-I", "-S", "-c", _CLIENT, kind, address, str(port), str(timeout_s)]
        return self.run(*argv).strip()

    def close(self) -> None:
        """End everything in the namespace, by process id; the kernel clears it away afterwards."""
        for server in self._servers:
            server.kill()
            server.wait()
            if server.stdout is not None:
                server.stdout.close()
        self._servers.clear()
        if self.netlink >= 0:
            os.close(self.netlink)
            self.netlink = -1
        self._channel.close()
        self._process.wait(timeout=20)


@contextmanager
def space() -> Iterator[Space]:
    own = Space()
    try:
        yield own
    finally:
        own.close()


def ask(kind: str, address: str, *, port: int, timeout_s: float = 3.0) -> str:
    """The same question from the host's own namespace."""
    argv = [sys.executable, "-I", "-S", "-c", _CLIENT, kind, address, str(port), str(timeout_s)]
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def link_names() -> set[str]:
    """Every network interface of the host."""
    return {name for _index, name in socket.if_nameindex()}


@contextmanager
def network_roots() -> Iterator[Roots]:
    """Roots of one test, with everything that networks put there and into the kernel removed at its end."""
    own = Roots()
    try:
        yield own
        bridge.remove_all(own.settings)
    finally:
        own.remove()


def identifier(number: int) -> str:
    return f"{number:012x}".ljust(64, "0")


def publish(host_port: int, *, address: str = "", protocol: str = "tcp") -> PortMapping:
    return PortMapping(container_port=80, host_port=host_port, host_address=address, protocol=protocol)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def leftovers(settings: Settings) -> list[str]:
    """Claims on disk, elements and ports of the bridge."""
    found = [f"lease {address}" for address in ipam.list_leases(settings)]
    found += [f"claim {claim.host_port}" for claim in ports.list_claims(settings)]
    if nftables.table_exists(settings.nft_table):
        for name in ("ports", "ports_at"):
            found += [f"element of {name}" for _ in nftables.list_elements(settings.nft_table, name)]
    members = Path(f"/sys/class/net/{settings.bridge}/brif")
    found += [f"link {name}" for name in (os.listdir(members) if members.exists() else ())]
    return found


ENVIRON = {**os.environ, "PYTHONPATH": str(SOURCE)}


def program(code: str, settings: Settings, *words: str) -> list[str]:
    """The command line of a process that uses the same roots; it has ``settings`` and the room's names."""
    head = (
        "import os, sys, signal\n"
        "from cloison.model.settings import Settings\n"
        "from cloison.model.container import PortMapping\n"
        "from cloison.networks import bridge, ipam, ports\n"
        f"settings = Settings(data_root={settings.data_root!r}, run_root={settings.run_root!r},"
        f" instance={settings.instance!r}, subnet={settings.subnet!r})\n"
    )
    return [sys.executable, "-c", head + code, *words]


def child(code: str, settings: Settings, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(program(code, settings, *words), stdout=subprocess.PIPE, text=True, env=ENVIRON)


def outputs(children: list[subprocess.Popen[str]]) -> list[str]:
    return [one.communicate(timeout=60)[0].strip() for one in children]
