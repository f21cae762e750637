"""``create``, ``run``, ``start``, ``state``, ``kill``, ``delete``, ``pause``, ``resume``."""

from __future__ import annotations

import os

from cloison.errors import Conflict, InvalidArgument, NotFound
from cloison.linux import cgroup_processes, proc
from cloison.linux.cgroup_layout import read_layout
from cloison.oci_runtime.containers import Containers, state_document
from cloison.oci_runtime.log import say
from cloison.oci_runtime.options import Call, Verb
from cloison.store.json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci_runtime.bundle import Bundle
    from cloison.oci_runtime.containers import Container
    from cloison.oci_runtime.creating import Wishes

_CREATE_OPTIONS = {
    "bundle": "text", "config": "text", "console-socket": "text", "pid-file": "text", "no-pivot": "switch",
    "no-new-keyring": "switch", "preserve-fds": "text",
}  # fmt: skip
_RUN_OPTIONS = {**_CREATE_OPTIONS, "detach": "switch", "keep": "switch", "no-subreaper": "switch"}
_SIGTERM, _SIGKILL = 15, 9


def _create(call: Call) -> int:
    from cloison.oci_runtime.creating import create
    from cloison.oci_runtime.streams import check_terminal, connect_console

    bundle = read_bundle_of(call)
    console = call.text("console-socket")
    check_terminal(terminal=bundle.config.spec.process.terminal, console=console, detached=True)
    socket = connect_console(console) if console else None
    create(
        Containers(call.root),
        call.id,
        bundle=bundle,
        wishes=wishes_of(call, socket.fileno() if socket else -1),
        log=call.log,
    )
    return 0


def _run(call: Call) -> int:
    from cloison.oci_runtime.foreground import Foreground
    from cloison.oci_runtime.streams import check_terminal, connect_console

    bundle = read_bundle_of(call)
    console, terminal = call.text("console-socket"), bundle.config.spec.process.terminal
    check_terminal(terminal=terminal, console=console, detached=call.switch("detach"))
    if call.switch("detach"):
        socket = connect_console(console) if console else None
        _create_and_start(call, bundle, console=socket.fileno() if socket else -1)
        return 0
    with Foreground(terminal=terminal) as foreground:
        container = _create_and_start(call, bundle, console=foreground.console, waits=True)
        code = foreground.wait(container.pid, container.pid_started)
    if not call.switch("keep"):
        from cloison.oci_runtime.ending import delete

        delete(Containers(call.root), call.id, force=True, log=call.log)
    return code


def _create_and_start(call: Call, bundle: Bundle, *, console: int, waits: bool = False) -> Container:
    from cloison.oci_runtime.creating import create
    from cloison.oci_runtime.ending import delete
    from cloison.oci_runtime.starting import start

    containers = Containers(call.root)
    wishes = wishes_of(call, console, waits=waits)
    container = create(containers, call.id, bundle=bundle, wishes=wishes, log=call.log)
    try:
        start(containers, call.id, log=call.log, cache=call.cache)
    except BaseException:
        delete(containers, call.id, force=True, log=call.log)
        raise
    return container


def read_bundle_of(call: Call) -> Bundle:
    from cloison.oci_runtime.bundle import read_bundle
    from cloison.oci_runtime.containers import check_id

    check_id(call.id)
    bundle = os.path.abspath(call.text("bundle", "."))
    for path in ("pid-file", "console-socket", "config"):
        if call.text(path):  # as seen from the caller's working directory
            call.set(path, os.path.abspath(call.text(path)))
    try:
        os.chdir(bundle)  # hooks run there, as with other runtimes
    except OSError as err:
        raise NotFound(f"cannot use bundle {bundle}", why=os.strerror(err.errno or 0).lower()) from err
    return read_bundle(bundle, config_path=call.text("config"))


def wishes_of(call: Call, console: int, *, waits: bool = False) -> Wishes:
    from cloison.oci_runtime.creating import Wishes
    from cloison.oci_runtime.descriptors import inherited

    return Wishes(
        pid_file=call.text("pid-file"),
        console=console,
        waits=waits,
        keyring=not call.switch("no-new-keyring"),
        cgroup=call.cgroups,
        systemd=call.systemd,
        runtime_directory=call.environ.get("XDG_RUNTIME_DIR", ""),
        inherited=inherited(call),
        cache=call.cache,
    )


def _start(call: Call) -> int:
    from cloison.oci_runtime.starting import start

    start(Containers(call.root), call.id, log=call.log, cache=call.cache)
    return 0


def _state(call: Call) -> int:
    containers = Containers(call.root)
    container = containers.load(call.id)
    status = containers.status(container)
    document = state_document(container, status)
    document["pid"] = container.pid if status != "stopped" else 0
    more = {"rootfs": container.rootfs, "created": container.created, "owner": _owner(container)}
    say(dumps({**document, **more}) + "\n")
    return 0


def _owner(container: Container) -> str:
    return "root" if container.owner == "0" else container.owner


def _kill(call: Call) -> int:
    number = proc.parse_signal(call.words[1]) if len(call.words) > 1 else _SIGTERM
    containers = Containers(call.root)
    container = containers.load(call.id)
    if call.switch("all") and container.cgroup:
        return _kill_all(container, number)
    if containers.status(container) in ("stopped", "creating"):
        raise Conflict(f"cannot kill container {call.id}", why="container not running")
    if not proc.send_signal(container.pid, container.pid_started, number):
        raise Conflict(f"cannot kill container {call.id}", why="os: process already finished")
    if number == _SIGKILL:
        from cloison.oci_runtime.ending import let_die

        let_die(container)
    return 0


def _kill_all(container: Container, number: int) -> int:
    layout = read_layout()
    if number == _SIGKILL:
        cgroup_processes.kill(layout, container.cgroup)
        return 0
    for pid in cgroup_processes.pids(layout, container.cgroup):
        try:
            started = proc.start_time(pid)
        except NotFound:
            continue
        proc.send_signal(pid, started, number)
    return 0


def _delete(call: Call) -> int:
    from cloison.oci_runtime.ending import delete

    containers = Containers(call.root)
    if not call.switch("regex"):
        delete(containers, call.id, force=call.switch("force"), log=call.log)
        return 0
    import re

    try:
        pattern = re.compile(call.id)
    except re.error as err:
        raise InvalidArgument(f"invalid regular expression {call.id!r}", why=str(err)) from err
    for container in containers.load_all():
        if pattern.search(container.id):
            delete(containers, container.id, force=call.switch("force"), log=call.log)
    return 0


def _pause(call: Call) -> int:
    return _freeze(call, frozen=True, allowed=("running", "created"))


def _resume(call: Call) -> int:
    return _freeze(call, frozen=False, allowed=("paused",))


def _freeze(call: Call, *, frozen: bool, allowed: tuple[str, ...]) -> int:
    containers = Containers(call.root)
    with containers.lock(call.id):
        container = containers.load(call.id)
        status = containers.status(container)
        verb = "pause" if frozen else "resume"
        if status not in allowed:
            raise Conflict(f"cannot {verb} container {call.id}", why=f"container not {allowed[0]}")
        if not container.cgroup:
            raise Conflict(f"cannot {verb} container {call.id}", why="it has no control group")
        cgroup_processes.freeze(read_layout(), container.cgroup, frozen=frozen)
    return 0


CREATE = Verb("create", _create, usage="CONTAINER", options=_CREATE_OPTIONS, short={"b": "bundle", "f": "config"})
RUN = Verb("run", _run, usage="CONTAINER", options=_RUN_OPTIONS, short={"b": "bundle", "d": "detach", "f": "config"})
START = Verb("start", _start, usage="CONTAINER")
STATE = Verb("state", _state, usage="CONTAINER")
KILL = Verb("kill", _kill, usage="CONTAINER [SIGNAL]", options={"all": "switch"}, short={"a": "all"}, most=2)
DELETE = Verb(
    "delete", _delete, usage="CONTAINER", options={"force": "switch", "regex": "switch"}, short={"f": "force"}
)
PAUSE = Verb("pause", _pause, usage="CONTAINER")
RESUME = Verb("resume", _resume, usage="CONTAINER")
