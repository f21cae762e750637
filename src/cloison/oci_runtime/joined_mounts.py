"""A mount namespace that was there before the container, and will be after it: what is to be taken off again."""

from __future__ import annotations

import os

from cloison.errors import Internal, NotFound, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.runtime import Linux, Spec
    from cloison.oci_runtime.containers import Container
    from cloison.runtime.plan import Op

# How mountinfo writes what would part its fields (proc(5)); the backslash first
_ESCAPES = (("\\", "\\134"), (" ", "\\040"), ("\t", "\\011"), ("\n", "\\012"))


def given(linux: Linux) -> str:
    """The path of the mount namespace that the container joins; "" is one of its own."""
    return next((namespace.path for namespace in linux.namespaces if namespace.type == "mount"), "")


def look_at(path: str, spec: Spec) -> dict[str, object]:
    """The namespace's identity and what is there, as fields of the container's record.

    Raises: NotFound; Unsupported with hooks that run inside, as they would find the namespace's root there.
    """
    if spec.hooks.create_container or spec.hooks.start_container:
        raise Unsupported("hooks in the container are not supported in somebody else's mount namespace")
    try:
        status = os.stat(path)
    except OSError as err:
        raise NotFound(f"cannot join mount namespace {path}", why=os.strerror(err.errno or 0).lower()) from err
    depth = _depth(path, spec.root.mount.source)
    return {"mounted_in": path, "mounted_inode": status.st_ino, "mounted_depth": depth}


def take_off(container: Container) -> None:
    """Unmount the container's root there, and everything below. Raises: LaunchFailed and its kinds, Denied."""
    from cloison.runtime.plan import op

    try:
        if os.stat(container.mounted_in).st_ino != container.mounted_inode:
            return
    except OSError:
        return  # it is gone, and the mounts with it
    if _depth(container.mounted_in, container.rootfs) <= container.mounted_depth:
        return  # the launch did not come so far: what is there was there before
    try:
        carry_out((op("join-namespace", container.mounted_in, "mnt"), op("unmount", container.rootfs)))
    except NotFound:
        return


def _depth(namespace: str, path: str) -> int:
    """How many mounts are stacked on this path, as /proc/PID/mountinfo beside /proc/PID/ns/mnt has it; else 0."""
    shown = os.path.realpath(path)
    for character, escape in _ESCAPES:
        shown = shown.replace(character, escape)
    try:
        with open(f"{namespace.removesuffix('ns/mnt')}mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return sum(line.split(" ", 5)[4] == shown for line in file)
    except OSError:
        return 0


def carry_out(ops: tuple[Op, ...]) -> int:
    """Let the launcher's child do this, and end; what `send-netlink` among it sent, else -1.

    Raises: LaunchFailed and its kinds, NotFound, Denied.
    """
    from cloison.runtime import launch
    from cloison.runtime.plan import op

    never = (op("await-start", "client"), op("exec", "/", "/"))  # we hang up
    netlink = -1
    with launch.launch((op("new-namespaces"), *ops, *never)) as session:
        while True:
            message = session.receive()
            if message.error is not None:
                raise message.error
            if message.kind == "netlink":
                netlink = message.fd
            if message.kind == "waiting":
                return netlink
            if message.kind in ("closed", "exited"):
                raise Internal("the launcher ended without a word")
