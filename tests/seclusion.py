"""A network of its own for the process that runs tests: two of them may use the same addresses, ports and names.

What several test runs on one machine would otherwise share and change under each other's feet is in there: links,
routes, firewall, forwarding, ports of the loopback. The machine's own network is never touched, and what it is like (a
firewall of Docker's, no default route) makes no difference.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000

# A machine on a network (RFC 5737, TEST-NET-1) with nobody else on it
_LINK = """\
ip link set lo up
ip link add eth0 type veth peer name world
ip link set world up
ip link set eth0 up
ip address add 192.0.2.2/24 dev eth0
ip route add default via 192.0.2.1 dev eth0
sysctl -qw net.ipv4.ip_forward=0
"""


def seclude() -> None:
    """Move this process and all its children to come into new network and mount namespaces.

    Raises: PermissionError where that is not allowed, CalledProcessError.
    """
    shared = _is_shared("/")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    _run("mount --make-rprivate /")
    _show_own_links()
    if shared:
        _run("mount --make-rshared /")
    for line in _LINK.splitlines():
        _run(line)


def outside(*argv: str) -> list[str]:
    """The command line for a program that needs the world: the network of whoever started the tests."""
    return ["nsenter", f"--net=/proc/{os.getppid()}/ns/net", *argv]


def _show_own_links() -> None:
    """A sysfs shows the links of the namespace it was mounted in: a new one, with all that is mounted in the old."""
    inside = [target.removeprefix("/sys/") for target in _targets() if target.startswith("/sys/")]
    tops = [path for path in dict.fromkeys(inside) if not any(path.startswith(f"{other}/") for other in inside)]
    with tempfile.TemporaryDirectory(dir="/run") as old:
        _run(f"mount --rbind /sys {old}")
        _run("umount --recursive --lazy /sys")
        _run("mount -t sysfs -o nosuid,nodev,noexec sysfs /sys")
        for path in tops:
            _run(f"mount --rbind {old}/{path} /sys/{path}")
        _run(f"umount --recursive --lazy {old}")


def _targets() -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _is_shared(target: str) -> bool:
    rows = [line.split(" - ")[0].split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return any(row[4] == target and any(word.startswith("shared:") for word in row[6:]) for row in rows)


def _run(line: str) -> None:
    subprocess.run(line.split(), check=True)
