"""``restore``: a container out of a checkpoint; from then on it is one as every other."""

from __future__ import annotations

from cloison.linux import criu, proc
from cloison.oci_runtime.containers import Containers
from cloison.oci_runtime.criu_verbs import OPTIONS, Directories, check_namespaces, check_rights
from cloison.oci_runtime.options import Call, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci_runtime.bundle import Bundle
    from cloison.oci_runtime.containers import Container


def _restore(call: Call) -> int:
    from cloison.oci_runtime.foreground import Foreground
    from cloison.oci_runtime.lifecycle import read_bundle_of
    from cloison.oci_runtime.streams import check_terminal, connect_console

    check_rights("restore")
    program = criu.installed(call.criu)
    with Directories(call, make=False) as directories:  # as seen from the caller's working directory
        bundle = read_bundle_of(call)
        console, terminal = call.text("console-socket"), bundle.config.spec.process.terminal
        check_terminal(terminal=terminal, console=console, detached=call.switch("detach"))
        check_namespaces(bundle.config.spec, "restore")
        if call.switch("detach"):
            socket = connect_console(console) if console else None
            fd = socket.fileno() if socket else -1
            _restore_one(call, bundle, console=fd, program=program, directories=directories)
            return 0
        proc.become_subreaper()  # of what CRIU makes
        with Foreground(terminal=terminal) as foreground:
            container = _restore_one(call, bundle, console=foreground.console, program=program, directories=directories)
            code = foreground.wait(container.pid, container.pid_started)
    if not call.switch("keep"):
        from cloison.oci_runtime.ending import delete

        delete(Containers(call.root), call.id, force=True, log=call.log)
    return code


def _restore_one(call: Call, bundle: Bundle, *, console: int, program: str, directories: Directories) -> Container:
    from cloison.oci_runtime.lifecycle import wishes_of
    from cloison.oci_runtime.restoring import restore

    return restore(call, bundle=bundle, wishes=wishes_of(call, console), program=program, directories=directories)


RESTORE = Verb(
    "restore", _restore, usage="CONTAINER",
    options={
        **OPTIONS, "bundle": "text", "console-socket": "text", "pid-file": "text", "detach": "switch",
        "keep": "switch", "no-subreaper": "switch", "no-pivot": "switch", "preserve-fds": "text",
        "lsm-profile": "text", "lsm-mount-context": "text",
    },
    short={"b": "bundle", "d": "detach"},
)  # fmt: skip
