"""A user namespace that nobody lives in: what mount_setattr(2) takes the mappings of an id-mapped mount from."""

from __future__ import annotations

import os

from cloison.errors import Internal
from cloison.runtime import launch
from cloison.runtime.compile import id_map
from cloison.runtime.plan import op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.model.mount import IdMapping


def user_namespace(uids: Sequence[IdMapping], gids: Sequence[IdMapping]) -> int:
    """A descriptor that keeps it, the caller's to close.

    The launcher makes it as it makes a container's, and its child waits in it until we have opened it: no process of
    ours changes its own. Raises: LaunchFailed (a mapping that the kernel refuses), NotFound, Denied.
    """
    plan = (
        op("new-namespaces", "user"),
        op("uid-map", id_map(uids)),
        op("gid-map", id_map(gids)),
        op("await-parent"),
        op("await-start", "client"),
        op("exec", "/", "/"),  # never: we hang up
    )
    with launch.launch(plan) as session:
        while True:
            message = session.receive()
            if message.error is not None:
                raise message.error
            if message.kind == "waiting":
                return os.open(f"/proc/{session.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            if message.kind in ("closed", "exited"):
                raise Internal("cannot make a user namespace", why="its process ended without a word")
