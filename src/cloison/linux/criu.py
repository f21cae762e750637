"""CRIU, spoken to by its own protocol (criu.org/RPC): one ``criu swrk`` a request, on a socket that it inherits.

Not its command line: a terminal's master, and the moment when the namespaces exist, are told on the socket alone.
"""

from __future__ import annotations

import _socket
import os
import sys

from cloison.errors import Unavailable, Unsupported
from cloison.linux import protobuf
from cloison.linux.command import find, spawn
from cloison.model.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self, TypeAlias

    from cloison.linux.protobuf import Value

    Options: TypeAlias = "Mapping[str, object]"

DUMP, RESTORE, SINGLE_PRE_DUMP = 1, 2, 13  # rpc.proto, enum criu_req_type
_NOTIFY = 6
IGNORE, SOFT, FULL, STRICT = 0, 3, 4, 5  # enum criu_cg_mode
NFTABLES = 2  # enum criu_network_lock_method
_SOCKET = 3  # its number inside; what it is given besides follows
_MAX_MESSAGE = 1 << 20

# rpc.proto, message criu_opts
_OPTIONS = {
    "images_dir_fd": 1, "pid": 2, "leave_running": 3, "ext_unix_sk": 4, "tcp_established": 5, "evasive_devices": 6,
    "shell_job": 7, "file_locks": 8, "log_level": 9, "log_file": 10, "ps": 11, "notify_scripts": 12, "root": 13,
    "parent_img": 14, "track_mem": 15, "auto_dedup": 16, "work_dir_fd": 17, "link_remap": 18, "ext_mnt": 23,
    "manage_cgroups": 24, "cg_root": 25, "rst_sibling": 26, "inherit_fd": 27, "manage_cgroups_mode": 34,
    "external": 37, "empty_ns": 38, "join_ns": 39, "freeze_cgroup": 44, "tcp_skip_in_flight": 46, "lazy_pages": 48,
    "orphan_pts_master": 50, "config_file": 51, "lsm_profile": 53, "cgroup_yard": 60, "lsm_mount_context": 63,
    "network_lock": 64,
}  # fmt: skip
# The messages inside: those of two fields, which are 1 and 2
_PAIRS = {
    "ps": ("address", "port"), "ext_mnt": ("key", "val"), "cg_root": ("ctrl", "path"), "inherit_fd": ("key", "fd"),
    "join_ns": ("ns", "ns_file"),
}  # fmt: skip


class Notice(Record):
    """What it says: that it has come somewhere (``script``), or that it is through ("")."""

    script: str = ""
    pid: int = 0  # of the restored first process, as its parent sees it, where it is known
    fd: int = -1  # what came with it, the receiver's to close
    success: bool = True
    error: str = ""  # the first line of its log that is one


class Lost(Unavailable):
    """It is not there any more."""


def installed(program: str = "") -> str:
    """The program's path. Raises: Unsupported."""
    path = find(program or "criu")
    if not path:
        why = f"{program or 'criu'} is not installed (Debian's package criu)"
        raise Unsupported("checkpoint and restore need criu", why=why)
    return path


def _setpriv() -> str:
    path = find("setpriv")
    if not path:
        why = "setpriv is not installed (Debian's package util-linux)"
        raise Unsupported("cannot restore a process without new privileges", why=why)
    return path


class Worker:
    """One ``criu swrk`` with our standard streams; a context manager that ends it."""

    def __init__(
        self, program: str, *, descriptors: Sequence[int] = (), no_new_privileges: bool = False
    ) -> None:  # fmt: skip
        """``descriptors`` of ours are `number` of their index inside.

        ``no_new_privileges``: it starts with that, and so does all that it makes; of itself 3.17 does not restore it.
        Raises: Unsupported.
        """
        words: tuple[str, ...] = (program, "swrk", str(_SOCKET))
        if no_new_privileges:
            words = (_setpriv(), "--no-new-privs", "--", *words)
        self._socket, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        try:
            fds = (theirs.fileno(), *descriptors)
            self.pid = spawn(words, descriptors=dict(enumerate(fds, _SOCKET)))
        except BaseException:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._status: int | None = None

    @staticmethod
    def number(index: int) -> int:
        """What the descriptor of this index is called inside."""
        return _SOCKET + 1 + index

    def ask(self, kind: int, options: Options) -> None:
        """Raises: Lost."""
        self._send({1: kind, 2: encode_options(options)})

    def go_on(self) -> None:
        """The answer to a notice with a script. Raises: Lost."""
        self._send({1: _NOTIFY, 3: 1})

    def receive(self) -> Notice:
        """The next notice; the last has no script. Raises: Lost when it died."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_MAX_MESSAGE, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        except OSError as err:
            raise self._gone(os.strerror(err.errno or 0).lower()) from err
        if not data:
            raise self._gone("it ended without an answer")
        return read_notice(data).replace(fd=_descriptor(ancillary))

    def close(self) -> None:
        """Hang up, on which it undoes what is not finished, and wait for its end."""
        self._socket.close()
        if self._status is None:
            self._status = os.waitpid(self.pid, 0)[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()

    def _send(self, message: Mapping[int, Value]) -> None:
        try:
            self._socket.sendall(protobuf.encode(message))
        except OSError as err:
            raise self._gone(os.strerror(err.errno or 0).lower()) from err

    def _gone(self, why: str) -> Lost:
        return Lost("criu cannot be talked to", why=why)


def encode_options(options: Options) -> dict[int, Value]:
    """By rpc.proto's names. Lists are repeated; a pair is a message of two fields, and None in it is left out."""
    return {_OPTIONS[name]: _encode(name, value) for name, value in options.items()}


def _encode(name: str, value: object) -> Value:
    if isinstance(value, list):
        return [_encode_one(name, one) for one in value]
    return _encode_one(name, value)


def _encode_one(name: str, value: object) -> int | bytes | dict[int, Value]:
    if isinstance(value, tuple):
        assert len(value) == len(_PAIRS[name])
        return {place: _encode_one(name, part) for place, part in enumerate(value, 1) if part is not None}
    if isinstance(value, int):
        return int(value)
    assert isinstance(value, str)
    return os.fsencode(value)


def read_notice(data: bytes) -> Notice:
    """message criu_resp. Raises: Internal."""
    answer = protobuf.decode(data)
    kind, success = _number(answer, 1), bool(_number(answer, 2))
    if kind == _NOTIFY:
        inner = protobuf.decode(_bytes(answer, 5))
        return Notice(script=_bytes(inner, 1).decode(errors="replace"), pid=_number(inner, 2), success=success)
    restored = protobuf.decode(_bytes(answer, 4))
    error = _bytes(answer, 9).decode(errors="replace").strip()
    return Notice(pid=max(0, _number(restored, 1)), success=success, error=error)


def last_errors(log: str, *, most: int = 3) -> list[str]:
    """The last lines of a log that say what went wrong, without time and place in the source; none without a log."""
    try:
        with open(log, encoding="utf-8", errors="replace") as lines:
            found = [line.partition("Error (")[2].partition("): ")[2].strip() for line in lines if "Error (" in line]
    except OSError:
        return []
    return [text for text in found if text][-most:]


def _number(message: protobuf.Decoded, field: int) -> int:
    values = message.get(field, [0])
    return protobuf.signed(values[-1]) if isinstance(values[-1], int) else 0


def _bytes(message: protobuf.Decoded, field: int) -> bytes:
    values = message.get(field, [b""])
    return values[-1] if isinstance(values[-1], bytes) else b""


def _descriptor(ancillary: list[tuple[int, int, bytes]]) -> int:
    """The one that came along, or -1."""
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            return int.from_bytes(data[:4], sys.byteorder)
    return -1
