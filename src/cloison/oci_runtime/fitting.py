"""Mounts and mappings of a bundle as this machine, and other runtimes before us, have them."""

from __future__ import annotations

import os

from cloison.errors import InvalidArgument, Unsupported
from cloison.model.mount import IdMapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.model.mount import Mount
    from cloison.oci.runtime import Linux, Spec

COPY = "tmpcopyup"


def with_mappings(linux: Linux) -> Linux:
    """A new user namespace without mappings has one id: root inside is the caller outside, as with crun.

    One that is joined has its own already; they are read for the sake of the mounts and devices to come.
    """
    users = [namespace.path for namespace in linux.namespaces if namespace.type == "user"]
    if not users or linux.uid_mappings or linux.gid_mappings:
        return linux
    if users[0]:
        uids, gids = (_read_mappings(users[0], name) for name in ("uid_map", "gid_map"))
        return linux.replace(uid_mappings=uids, gid_mappings=gids)
    return linux.replace(
        uid_mappings=(IdMapping(container_id=0, host_id=os.geteuid(), size=1),),
        gid_mappings=(IdMapping(container_id=0, host_id=os.getegid(), size=1),),
    )


def _read_mappings(namespace: str, name: str) -> tuple[IdMapping, ...]:
    """Those of ``/proc/PID/ns/user``; what is elsewhere tells nobody."""
    try:
        with open(f"{namespace.removesuffix('ns/user')}{name}", encoding="ascii") as file:
            rows = [tuple(map(int, line.split())) for line in file]
    except OSError:
        return ()
    return tuple(IdMapping(container_id=inside, host_id=outside, size=size) for inside, outside, size in rows)


def fit_mounts(spec: Spec) -> Spec:
    """Raises: Unsupported for what cannot be copied into a temporary file system."""
    kinds = {namespace.type for namespace in spec.linux.namespaces}
    mounts = spec.mounts
    if "user" in kinds and "network" not in kinds:
        mounts = tuple(map(_host_sysfs, mounts))
    if any(mount.type == "tmpfs" for mount in mounts):
        root = os.open(spec.root.mount.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts = tuple(_fit(mount, root, before=mounts[:i]) for i, mount in enumerate(mounts))
        finally:
            os.close(root)
    return spec.replace(mounts=mounts)


def fit_root(spec: Spec) -> Spec:
    """Without a mount on /dev the root's own is filled, and what it has stays. Raises: InvalidArgument for a link.

    Wherever a link led to, the nodes would be made in what somebody else takes for his own.
    """
    if any(mount.target.rstrip("/") == "/dev" for mount in spec.mounts):
        return spec
    path = f"{spec.root.mount.source}/dev"
    if os.path.islink(path):
        raise InvalidArgument("cannot make devices in the container's /dev", why="it is a symbolic link of the root")
    names = os.listdir(path) if os.path.isdir(path) else ()
    return spec.replace(root=spec.root.replace(dev_names=tuple(f"/dev/{name}" for name in names)))


def _host_sysfs(mount: Mount) -> Mount:
    """A sysfs shows a network namespace, and takes rights over it to be mounted: the host's is bound, as by crun."""
    if mount.type != "sysfs":
        return mount
    words = ("ro", "nosuid", "nodev", "noexec")
    options = ["rbind", *(f"r{word}" if word in words else word for word in mount.options)]
    return mount.replace(type="bind", source="/sys", options=tuple(options))


def _fit(mount: Mount, root: int, *, before: Iterable[Mount]) -> Mount:
    """A temporary file system as the directory below has it: runc's rules, which callers count on.

    The mode is that directory's unless another is asked for; ``tmpcopyup`` (begin with what lies below) asks for
    nothing where nothing lies below.
    """
    has_mode = any(word.startswith("mode=") for word in mount.options)
    if mount.type != "tmpfs" or (has_mode and COPY not in mount.options):
        return mount
    from cloison.linux.paths import open_in_root

    if COPY in mount.options:
        _check_copy(mount, before)
    try:
        fd = open_in_root(root, os.fsencode(mount.target), flags=os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return mount.replace(options=tuple(word for word in mount.options if word != COPY))  # nothing there yet
    try:
        mode = os.fstat(fd).st_mode & 0o7777
        is_empty = not os.listdir(fd)
    finally:
        os.close(fd)
    options = tuple(word for word in mount.options if not (is_empty and word == COPY))
    return mount.replace(options=options if has_mode else (*options, f"mode={mode:o}"))


def _check_copy(mount: Mount, before: Iterable[Mount]) -> None:
    """What is copied is the root's: what an earlier mount shows there exists inside alone."""
    target = os.path.normpath(f"//{mount.target}") + "/"
    if target.strip("/") == "":
        raise InvalidArgument("cannot mount a tmpfs on /", why="tmpcopyup would copy the root that it hides")
    for other in before:
        if target.startswith(os.path.normpath(f"//{other.target}").rstrip("/") + "/"):
            raise Unsupported(f"tmpcopyup on {mount.target} is not supported", why=f"{other.target} is a mount itself")
