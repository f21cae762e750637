"""The three files a container gets from us: /etc/hosts, /etc/resolv.conf, /etc/hostname.

They are written into the run directory and bound over the image's, so that no byte of the image is touched.
"""

from __future__ import annotations

import os

from cloison.model.mount import Mount
from cloison.networks import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.container import Attachment, ContainerSpec

_FILES = ("hosts", "resolv.conf", "hostname")
_RESOLVED = "/run/systemd/resolve/resolv.conf"  # what systemd-resolved itself asks, without its stub on loopback


def write_host_files(spec: ContainerSpec, directory: str, *, hostname: str, attachment: Attachment | None) -> None:
    """Raises: InvalidArgument for names or addresses that would inject lines; Unavailable."""
    domain = f".{spec.domainname}" if spec.domainname else ""
    address, gateway = (attachment.address, attachment.gateway) if attachment else ("", "")
    texts = {
        "hosts": names.render_hosts(f"{hostname}{domain}", address, extra_hosts=spec.extra_hosts, gateway=gateway),
        "resolv.conf": _resolv_conf(spec),
        "hostname": f"{hostname}\n",
    }
    for name, text in texts.items():
        _write(f"{directory}/{name}", text)


def host_file_mounts(directory: str) -> tuple[Mount, ...]:
    """Bind mounts of the files in a run directory, our own or (``--network container:X``) another's."""
    return tuple(
        Mount(type="bind", source=f"{directory}/{name}", target=f"/etc/{name}", options=("bind", "rprivate", "rw"))
        for name in _FILES
    )


def _resolv_conf(spec: ContainerSpec) -> str:
    text = _read("/etc/resolv.conf")
    resolved = _read(_RESOLVED) if "127.0.0.53" in text else ""
    shared = spec.network == "host"  # loopback resolvers are reachable there
    return names.render_resolv_conf(
        text if shared or not resolved else resolved,
        dns=spec.dns, search=spec.dns_search, options=spec.dns_options, keep_loopback=shared,
    )  # fmt: skip


def _read(path: str) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # often a link
    except OSError:
        return ""
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "replace")
    finally:
        os.close(fd)


def _write(path: str, text: str) -> None:
    # plain files, readable inside: the directory is ours alone and nobody looks at them before the container starts
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.fchmod(fd, 0o644)  # whatever our caller's umask
        os.write(fd, text.encode())
    finally:
        os.close(fd)
