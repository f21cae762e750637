"""From a checkpoint to a running container: the control group and the mount points by us, the processes by CRIU.

The record is on disk before anything is made; after a failure nothing is left.
"""

from __future__ import annotations

import _socket
import os
import struct

from cloison.errors import Denied, InvalidArgument, NotFound
from cloison.linux import cgroups, criu
from cloison.linux.cgroup_processes import write_value
from cloison.linux.private_mounts import PrivateMounts
from cloison.oci_runtime.bundle import Bundle, complete
from cloison.oci_runtime.containers import Container, Containers
from cloison.oci_runtime.creating import Creation, Wishes
from cloison.oci_runtime.criu_verbs import (
    DESCRIPTORS_FILE,
    MOUNTS_FILE,
    NAMESPACE_KEYS,
    Directories,
    check,
    common_options,
    converse,
    group_yard,
    let_users_in,
)
from cloison.oci_runtime.external_mounts import External, find_sources, make_targets, named_in
from cloison.oci_runtime.streams import is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloison.linux.criu import Notice
    from cloison.oci.runtime import Spec
    from cloison.oci_runtime.options import Call

_LOG = "restore.log"
_STANDARD = 3
_JOINED = {"ipc": "ipc", "uts": "uts", "time": "time"}


def restore(
    call: Call, *, bundle: Bundle, wishes: Wishes, program: str, directories: Directories
) -> Container:  # fmt: skip
    """On return it runs. Raises: Conflict, InvalidArgument, NotFound, Denied, Unavailable, LaunchFailed …"""
    spec = complete(bundle.config, container_id=call.id)
    with Containers(call.root).claim(call.id):
        attempt = _Restoration(call, bundle=bundle, spec=spec, wishes=wishes, program=program, directories=directories)
        try:
            return attempt.run()
        except BaseException:
            attempt.undo(call.log)
            raise


class _Restoration(Creation):
    """One try to restore one container: as `Creation`, but that the processes come out of CRIU's hands."""

    def __init__(
        self, call: Call, *, bundle: Bundle, spec: Spec, wishes: Wishes, program: str, directories: Directories
    ) -> None:
        super().__init__(Containers(call.root), call.id, bundle=bundle, spec=spec, wishes=wishes)
        self._call = call
        self._program = program
        self._directories = directories
        self._has_terminal = False

    def _prepare_and_launch(self) -> None:
        layout = cgroups.read_layout()
        placement = self._place(layout)
        if self._group is not None:
            self._make_group(self._group)
        if self._spec.linux.rdt is not None:
            self._allot(self._spec.linux.rdt)
        make_targets(self._spec)
        let_users_in(self._directories, self._spec)
        namespaces = _open_namespaces(self._spec)
        try:
            self._restore(placement, list(namespaces.items()))
        finally:
            for fd in namespaces.values():
                os.close(fd)
        if self._spec.process.terminal and not self._has_terminal:
            raise InvalidArgument(self._what(), why="the checkpoint has no terminal, and config.json asks for one")

    def _restore(self, placement: cgroups.Placement, namespaces: Sequence[tuple[str, int]]) -> None:
        options = self._options()
        inherited = [(key, criu.Worker.number(index)) for index, (key, _) in enumerate(namespaces)]
        descriptors = [fd for _, fd in namespaces]
        for key, fd in self._descriptors():
            if fd >= _STANDARD:
                descriptors.append(fd)
                fd = criu.Worker.number(len(descriptors) - 1)
            inherited.append((key, fd))
        options["inherit_fd"] = inherited
        log = self._directories.log(_LOG)
        with self._start_worker(descriptors, options=options) as worker:
            if options["manage_cgroups_mode"] == criu.IGNORE:  # then they are where CRIU is
                _enter(placement, worker.pid)
            worker.ask(criu.RESTORE, options)
            notice = converse(worker, self._handle)
            check(notice, self._what(), log=log)
            self._note(notice.pid)

    def _start_worker(self, descriptors: Sequence[int], *, options: dict[str, object]) -> criu.Worker:
        """It sees mounts that nobody else sees, and that go with it: the root, and what comes from outside.

        The root it wants on a mount point. All have their options before CRIU mounts them: 3.17 to 4.2 make no root
        read-only, and of two mounts of one file system they restore the first one's options alone, so that the second
        would be writable (mount-v2.c, do_bind_mount_v2).
        """
        root = self._spec.root.mount.source
        sources, yard = self._external_sources(), self._containers.path(self.container.id)
        try:
            with PrivateMounts() as mounts:
                mounts.make_mount_point(root, read_only=self._spec.root.readonly)
                places = {str(index): (path, one.options) for index, (one, path) in enumerate(sources)}
                mounts.gather({**places, **group_yard()}, on=yard)
                options["ext_mnt"] = [(one.name, f"{yard}/{index}") for index, (one, _) in enumerate(sources)]
                options["cgroup_yard"] = yard
                self._directories.open_again()
                no_new = self._spec.process.no_new_privileges
                return criu.Worker(self._program, descriptors=descriptors, no_new_privileges=no_new)
        except OSError as err:
            raise Denied(self._what(), why=f"mount: {os.strerror(err.errno or 0).lower()}") from err

    def _external_sources(self) -> list[tuple[External, str]]:
        rows = self._directories.read_rows(MOUNTS_FILE, width=3)
        if rows is None:  # another runtime's checkpoint
            external = named_in(self._spec)
        else:
            external = [External(name=name, wanted=wanted, options=options) for name, wanted, options in rows]
        return find_sources(external, self._spec, groups=_group_mounts(self._spec, self.container.cgroup))

    def _options(self) -> dict[str, object]:
        call, spec = self._call, self._spec
        options = common_options(call, spec.annotations)
        for name in ("lsm-profile", "lsm-mount-context"):
            if call.given(name):
                options[name.replace("-", "_")] = call.text(name)
        options.update(
            **self._directories.options(),
            log_file=_LOG,
            root=spec.root.mount.source,
            rst_sibling=True,  # our child: who started us, or we, waits for it
            evasive_devices=True,
            join_ns=[
                (_JOINED[namespace.type], namespace.path)
                for namespace in spec.linux.namespaces
                if namespace.path and namespace.type in _JOINED
            ],
        )
        if self.container.cgroup:
            options["cg_root"] = [(name, f"/{self.container.cgroup}") for name in self._hierarchies()]
        else:
            options["manage_cgroups_mode"] = criu.IGNORE
        return options

    def _hierarchies(self) -> list[str]:
        """Each by a controller of it, version 2 by ""."""
        layout = cgroups.read_layout()
        return [*layout.legacy, *([""] if layout.unified else [])]

    def _descriptors(self) -> list[tuple[str, int]]:
        """(name in the checkpoint, our number) of those that led out of the container, as far as we have others."""
        ours = (*range(_STANDARD), *self._wishes.inherited.fds)
        words = self._directories.read_texts(DESCRIPTORS_FILE)
        return [
            # Without its first letter, as a path without its slash, CRIU takes our descriptor itself, and does not open
            # the file anew (files-reg.c, open_path)
            (word.removeprefix("f") if word.startswith("file[") else word, number)
            for number, word in enumerate(words)
            if number in ours and word.startswith(("pipe:", "file[")) and is_open(number)
        ]

    def _handle(self, notice: Notice) -> None:
        if notice.script == "setup-namespaces":
            self._note(notice.pid)
            self._set_up_network(notice.pid)
            self._run_outer_hooks(self._spec.hooks)
        elif notice.script == "orphan-pts-master":
            self._hand_over_terminal(notice.fd)

    def _set_up_network(self, pid: int) -> None:
        """In a network namespace of its own, which is empty: loopback, and the devices that config.json gives it."""
        networks = [namespace.path for namespace in self._spec.linux.namespaces if namespace.type == "network"]
        if networks != [""]:
            return
        from cloison.oci_runtime.joined_mounts import carry_out
        from cloison.runtime.plan import op

        devices = bool(self._spec.linux.net_devices)
        join = op("join-namespace", f"/proc/{pid}/ns/net", "net")
        netlink = carry_out((join, op("loopback-up"), *((op("send-netlink"),) if devices else ())))
        if netlink >= 0:
            self._move_devices(netlink)

    def _hand_over_terminal(self, master: int) -> None:
        if self._wishes.console < 0:
            raise InvalidArgument(self._what(), why="the checkpoint has a terminal, and config.json asks for none")
        console = _socket.socket(fileno=os.dup(self._wishes.console))
        try:
            console.sendmsg([b"/dev/ptmx"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", master))])
        finally:
            console.close()
        self._has_terminal = True

    def _what(self) -> str:
        return f"cannot restore container {self.container.id}"


def _open_namespaces(spec: Spec) -> dict[str, int]:
    """Those by path that CRIU inherits, by their names in the image. Raises: NotFound."""
    opened: dict[str, int] = {}
    for namespace in spec.linux.namespaces:
        if not (namespace.path and namespace.type in NAMESPACE_KEYS):
            continue
        try:
            opened[NAMESPACE_KEYS[namespace.type]] = os.open(namespace.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            for fd in opened.values():
                os.close(fd)
            what = f"cannot join {namespace.type} namespace {namespace.path}"
            raise NotFound(what, why=os.strerror(err.errno or 0).lower()) from err
    return opened


def _group_mounts(spec: Spec, path: str) -> dict[str, str]:
    """Where a container without a cgroup namespace has its groups mounted -> the directory that is shown there."""
    targets = [mount.target for mount in spec.mounts if mount.type in ("cgroup", "cgroup2")]
    layout = cgroups.read_layout()
    if not path:
        return {}
    if not layout.legacy:
        return dict.fromkeys(targets, f"{layout.unified}/{path}")
    roots = layout.all_roots()
    return {f"{target}/{root.rsplit('/', 1)[1]}": f"{root}/{path}" for target in targets for root in roots}


def _enter(placement: cgroups.Placement, pid: int) -> None:
    for directory in (*placement.join, placement.into):
        if directory:
            write_value(f"{directory}/cgroup.procs", str(pid))
