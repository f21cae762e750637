"""The seccomp agent: whoever answers system calls from outside (runtime-spec config-linux.md, "Seccomp").

The launcher hands us the filter's descriptor; it goes on to the agent's socket, with the container process state.
"""

from __future__ import annotations

import _socket
import os
import struct

from cloison.errors import Unavailable
from cloison.linux.seccomp_flags import NEW_LISTENER, filter_flags
from cloison.oci_runtime.containers import Container, state_document
from cloison.store.json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.config_json import Config

_FD_NAME = "seccompFd"


class Agent:
    """One connection, for one descriptor. Made before there is anything to answer, so that an absent agent is found."""

    def __init__(self, path: str, *, metadata: str) -> None:
        """Raises: Unavailable when nobody listens there."""
        self._path = path
        self._metadata = metadata
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._socket.connect(path)
        except OSError as err:
            self._socket.close()
            raise self._error(err) from err

    def hand_over(self, fd: int, *, container: Container, pid: int, status: str) -> None:
        """Send the descriptor, then close it and the connection: the specification allows one state for each.

        ``pid``: the process that is filtered, as we see it. Raises: Unavailable.
        """
        document = {
            "ociVersion": container.oci_version, "fds": [_FD_NAME], "pid": pid, "metadata": self._metadata,
            "state": state_document(container, status),
        }  # fmt: skip
        text = dumps(document).encode()
        try:
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))]
            sent = self._socket.sendmsg([text], rights)
            self._socket.sendall(text[sent:])
        except OSError as err:
            raise self._error(err) from err
        finally:
            os.close(fd)
            self._socket.close()

    def _error(self, err: OSError) -> Unavailable:
        why = os.strerror(err.errno or 0).lower()
        return Unavailable(f"cannot reach the seccomp agent at {self._path}", why=why)


def agent_of(config: Config) -> Agent | None:
    """The agent that this container's filter asks, None when it asks nobody. Raises: Unavailable, InvalidArgument."""
    profile = config.seccomp
    if not isinstance(profile, dict) or not filter_flags(profile) & NEW_LISTENER:
        return None
    return Agent(profile["listenerPath"], metadata=str(profile.get("listenerMetadata") or ""))
