"""The file systems of a container as operations: root, mounts in order, devices, links, masks.

Every target is a path inside the new root; the launcher resolves it there, whatever symlinks the image has.
"""

from __future__ import annotations

from cloison.errors import InvalidArgument, Unsupported
from cloison.runtime.options import split_options
from cloison.runtime.plan import Op, op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloison.model.mount import Mount
    from cloison.oci.runtime import Device, Linux, Root

# What every container finds in its /dev (runtime-spec config-linux.md, "Default Devices" and runtime-linux.md, "Dev
# symbolic links"); /dev/core is Docker's.
_LINKS = (
    op("symlink", "pts/ptmx", "/dev/ptmx"),
    op("symlink", "/proc/self/fd", "/dev/fd"),
    op("symlink", "/proc/self/fd/0", "/dev/stdin"),
    op("symlink", "/proc/self/fd/1", "/dev/stdout"),
    op("symlink", "/proc/self/fd/2", "/dev/stderr"),
    op("symlink", "/proc/kcore", "/dev/core"),
)
_APART = ("", "private", "rprivate", "slave", "rslave")  # without a master all the same
_LINKED = frozenset(str(link.words[1]) for link in _LINKS)


def plan_propagation(mounts: Iterable[Mount]) -> Op:
    """Cut our copy of the host's mounts off before anything is mounted in it.

    ``rslave`` alone lets a later mount of the host arrive below a bind that asked for it. ``shared`` binds would need a
    mount namespace that is still joined to the host's: what goes wrong in there would go wrong outside too. A tree that
    was opened outside of it has its own ties, whatever is done to ours; a new file system has none (`plan_peers`).
    """
    binds = (mount for mount in mounts if mount.tree < 0 and _is_bind(mount))
    wanted = {split_options(mount).propagation.removeprefix("r") for mount in binds}
    if "shared" in wanted:
        raise Unsupported(
            "bind propagation 'shared' is not supported",
            why="mounts made inside the container would appear on the host",
            hint="use rslave to see the host's later mounts inside",
        )
    return op("propagation", "/", "rslave" if "slave" in wanted else "rprivate")


def plan_root(root: Root, *, staging: str) -> Op:
    """The root file system on the host directory ``staging``. Raises: Unsupported for anything but overlay and bind."""
    if root.mount.type == "bind":
        return op("root-bind", staging, root.mount.source)
    if root.mount.type != "overlay":
        raise Unsupported(f"a root file system of type {root.mount.type!r} is not supported")
    layers: list[str] = []
    places = {"upperdir": "", "workdir": ""}
    rest: list[str] = []
    for word in root.mount.options:
        key, _, value = word.partition("=")
        if key == "lowerdir+":
            layers.append(value)
        elif key == "lowerdir":
            layers += _split_layers(value)
        elif key in places:
            places[key] = value
        else:
            rest.append(word)
    if not layers:
        raise InvalidArgument("the overlay root has no layers")
    return op("root-overlay", staging, places["upperdir"], places["workdir"], ",".join(rest), *layers)


def _split_layers(value: str) -> list[str]:
    # overlayfs: layers are separated by colons, a colon or backslash inside one has a backslash before it
    layers = [""]
    escaped = False
    for character in value:
        if escaped or character not in "\\:":
            layers[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            layers.append("")
    return [layer for layer in layers if layer]


def plan_mount(mount: Mount) -> Op:
    """One mount of any type but ``cgroup``."""
    if "copy-symlink" in mount.options:  # by now its source is what the link holds
        return op("symlink", mount.source, mount.target)
    options = split_options(mount)
    if mount.tree >= 0:
        words = (options.attributes, options.propagation or "rprivate", int(options.follow))
        return op("bind-fd", mount.tree, mount.target, *words)
    if _is_bind(mount):
        propagation = options.propagation or "rprivate"
        return op("bind", mount.source, mount.target, int(options.recursive), options.attributes, propagation)
    return op("mount", mount.type, mount.source or mount.type, mount.target, options.attributes, *options.data)


def _is_bind(mount: Mount) -> bool:
    return mount.type == "bind" or not {"bind", "rbind"}.isdisjoint(mount.options)


def plan_peers(mounts: Iterable[Mount]) -> tuple[Op, ...]:
    """New file systems that share their mounts, or cannot be bound: said at last, so that nobody outside is a peer."""
    new = (mount for mount in mounts if mount.tree < 0 and not _is_bind(mount))
    wanted = ((mount.target, split_options(mount).propagation) for mount in new)
    return tuple(op("propagation", target, word) for target, word in wanted if word not in _APART)


def split_at_cgroup(mounts: Sequence[Mount]) -> tuple[tuple[Mount, ...], tuple[Mount, ...]]:
    """Mounts that can be made at once, and those that wait for the cgroup namespace; order is kept in each.

    A mount waits when it is a cgroup mount, or lies above or below one that waits and comes before it: later mounts
    cover earlier ones, so these two must not change places.
    """
    early: list[Mount] = []
    late: list[Mount] = []
    for mount in mounts:
        waits = mount.type in ("cgroup", "cgroup2") or any(_related(mount.target, other.target) for other in late)
        (late if waits else early).append(mount)
    return tuple(early), tuple(late)


def _related(one: str, other: str) -> bool:
    one, other = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return one.startswith(other) or other.startswith(one)


def plan_cgroup_mount(
    mount: Mount, *, hierarchies: Sequence[tuple[str, str]], groups: Sequence[str] = ()
) -> tuple[Op, ...]:
    """The container's view of its cgroups: what its cgroup namespace makes the root of each hierarchy.

    ``hierarchies``: (mount point on the host, v1 controllers or ``name=…``, "" for v2) of those the container is
    placed in; the others stay out, their root would be the host's. ``groups``: its directories, to be bound where a
    container without a cgroup namespace would see the host's root in a mount of its own.
    """
    attributes = split_options(mount).attributes
    if not hierarchies:
        return ()
    if len(hierarchies) == 1 and not hierarchies[0][1]:
        return (_view(hierarchies[0], mount.target, attributes=attributes, groups=groups),)
    writable = ",".join(word for word in attributes.split(",") if word != "ro")
    ops = [op("mount", "tmpfs", "tmpfs", mount.target, writable, "mode=755", "size=64k", "nr_inodes=64")]
    views = []
    for mountpoint, controllers in hierarchies:
        name = mountpoint.rsplit("/", 1)[1]
        directory = f"{mount.target}/{name}"
        ops.append(op("directory", directory, "755"))
        if "," in controllers and name == controllers:
            ops += [op("symlink", name, f"{mount.target}/{alias}") for alias in controllers.split(",")]
        views.append(_view((mountpoint, controllers), directory, attributes=attributes, groups=groups))
    if writable != attributes:
        ops.append(op("readonly-path", mount.target))  # before the views, or it would copy each of them
    return (*ops, *views)


def _view(hierarchy: tuple[str, str], target: str, *, attributes: str, groups: Sequence[str]) -> Op:
    mountpoint, controllers = hierarchy
    group = next((directory for directory in groups if directory.startswith(f"{mountpoint}/")), "")
    if group:
        return op("bind", group, target, 0, attributes, "rprivate")
    kind, data = ("cgroup", (controllers,)) if controllers else ("cgroup2", ())
    return op("mount", kind, "cgroup", target, attributes, *data)


def is_populated(root: Root, mounts: Iterable[Mount]) -> bool:
    """Whether /dev is the container's own: a temporary file system, or the root's if told so. Others are left alone."""
    last = [mount.type for mount in mounts if mount.target.rstrip("/") == "/dev"][-1:]
    return last == ["tmpfs"] or (not last and root.dev_names is not None)


def plan_devices(devices: Iterable[Device], *, root: Root, mounts: Iterable[Mount]) -> tuple[Op, ...]:
    """Device nodes and links; in the root's own /dev the links that are there stay."""
    if not is_populated(root, mounts):
        return ()
    # who asks for all of the host's devices names the links, too
    nodes = [_device(device) for device in devices if device.path not in _LINKED]
    links = [link for link in _LINKS if str(link.words[1]) not in (root.dev_names or ())]
    return (*nodes, *links)


def _device(device: Device) -> Op:
    if device.tree >= 0:
        return op("bind-fd", device.tree, device.path, "nosuid,noexec,dev", "rprivate", 1)
    numbers = (device.major, device.minor, f"{device.mode:o}", device.uid, device.gid)
    return op("device", device.path, device.type, *numbers)


def plan_paths(linux: Linux) -> tuple[Op, ...]:
    """Masks, then read-only paths: in /proc and /sys, which exist by now."""
    masks = [op("mask", path) for path in linux.masked_paths]
    return (*masks, *(op("readonly-path", path) for path in linux.readonly_paths))
