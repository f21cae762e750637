"""``exec``: one more process in a container that lives."""

from __future__ import annotations

from cloison.errors import Conflict, InvalidArgument
from cloison.linux.capabilities import ALL, CAPABILITIES, normalise
from cloison.oci.config_json import Labels, parse_process
from cloison.oci.fields import Fields
from cloison.oci.runtime import Process, User
from cloison.oci_runtime.containers import Containers
from cloison.oci_runtime.options import Call, Verb
from cloison.runtime.labels import exec_labels, read_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.runtime import Capabilities
    from cloison.oci_runtime.containers import Container

_FAILED = 255  # runc's exit status of an exec that could not be made


def _exec(call: Call) -> int:
    from cloison.oci.config_json import parse_config

    containers = Containers(call.root)
    container = containers.load(call.id)
    _check_status(containers.status(container), call)
    config = parse_config(containers.config(call.id), bundle=container.bundle)
    labels = exec_labels(_labels(call, config.labels), read_modules())
    process = _process(call, config.spec.process).replace(exec_labels=labels)
    from cloison.oci_runtime.bundle import connect_agent, seccomp_filter
    from cloison.oci_runtime.descriptors import inherited
    from cloison.oci_runtime.executing import Wishes, execute
    from cloison.oci_runtime.foreground import Foreground
    from cloison.oci_runtime.streams import check_terminal, connect_console

    detached, console = call.switch("detach"), call.text("console-socket")
    check_terminal(terminal=process.terminal, console=console, detached=detached)
    wishes = Wishes(
        pid_file=call.text("pid-file"),
        seccomp=seccomp_filter(config, cache=call.cache),
        agent=connect_agent(config),
        waits=not detached,
        below=_below(call, container),
        preserve=inherited(call).fds,
        linux=config.spec.linux,
    )
    if detached:
        socket = connect_console(console) if console else None
        execute(container, process, wishes=wishes, console=socket.fileno() if socket else -1)
        return 0
    with Foreground(terminal=process.terminal) as foreground:
        pid, started = execute(container, process, wishes=wishes, console=foreground.console)
        return foreground.wait(pid, started)


def _check_status(status: str, call: Call) -> None:
    if status in ("stopped", "creating"):
        raise Conflict(f"exec failed: cannot exec in a {status} container")
    if status == "paused" and not call.switch("ignore-paused"):
        raise Conflict("exec failed: cannot exec in a paused container (use --ignore-paused to override)")


def _below(call: Call, container: Container) -> str:
    """Of ``--cgroup PATH`` or ``CONTROLLER:PATH``."""
    below = call.text("cgroup").rpartition(":")[2].strip("/")
    if ".." in below.split("/"):
        raise InvalidArgument(f"invalid cgroup {below!r}", why="`..` components are not allowed")
    if below and not container.cgroup:
        raise InvalidArgument(f"cannot exec in cgroup {below!r}", why="the container has none of its own")
    return below


def _process(call: Call, base: Process) -> Process:
    """What ``--process`` says, or the container's own process with another command and the options' changes."""
    path = call.text("process")
    if path:
        return parse_process(_process_fields(path))
    if len(call.words) < 2:
        raise InvalidArgument("process args cannot be empty", hint="name a command, or give --process")
    return base.replace(
        args=tuple(call.words[1:]),
        env=_environment(base.env, call.texts("env")),
        cwd=call.text("cwd", base.cwd),
        terminal=call.switch("tty"),
        console_size=(0, 0),
        user=_user(call, base.user),
        capabilities=_add_capabilities(base.capabilities, call.texts("cap")),
        no_new_privileges=call.switch("no-new-privs") if call.given("no-new-privs") else base.no_new_privileges,
    )


def _environment(base: tuple[str, ...], more: list[str]) -> tuple[str, ...]:
    """A variable that is given again has its last value, in its first place."""
    merged: dict[str, str] = {}
    for variable in (*base, *more):
        merged[variable.partition("=")[0]] = variable
    return tuple(merged.values())


def _labels(call: Call, base: Labels) -> Labels:
    """What ``--process`` says, or the container's own with the options' changes."""
    if call.text("process"):
        fields = _process_fields(call.text("process"))
        profile, label = (fields.text(name, default="") for name in ("apparmorProfile", "selinuxLabel"))
        return Labels(apparmor_profile=profile, selinux_label=label)
    return Labels(
        apparmor_profile=call.text("apparmor", base.apparmor_profile),
        selinux_label=call.text("process-label", base.selinux_label),
    )


def _process_fields(path: str) -> Fields:
    from cloison.oci_runtime.documents import read_document

    return Fields(read_document(path, name="process file")[1], document="process file")


def _user(call: Call, base: User) -> User:
    groups = tuple(_id(text) for text in call.texts("additional-gids"))
    if not call.given("user"):
        return base.replace(additional_gids=(*base.additional_gids, *groups))
    uid, colon, gid = call.text("user").partition(":")
    return base.replace(uid=_id(uid), gid=_id(gid) if colon else base.gid, additional_gids=groups)


def _id(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < (1 << 32) - 1):
        raise InvalidArgument(f"invalid user or group id: {text[:32]!r}", why="it is not a number")
    return int(text)


def _add_capabilities(base: Capabilities, names: list[str]) -> Capabilities:
    if not names:
        return base
    wanted = {normalise(name) for name in names}
    added = CAPABILITIES if ALL in wanted else tuple(name for name in CAPABILITIES if name in wanted)

    def more(have: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*have, *added)))

    return base.replace(bounding=more(base.bounding), effective=more(base.effective), permitted=more(base.permitted))


EXEC = Verb(
    "exec", _exec, usage="CONTAINER cmd [ARG...]", most=-1, interspersed=False, failure=_FAILED,
    options={
        "process": "text", "console-socket": "text", "pid-file": "text", "detach": "switch", "tty": "switch",
        "user": "text", "cwd": "text", "env": "list", "cap": "list", "preserve-fds": "text", "no-new-privs": "switch",
        "cgroup": "text", "ignore-paused": "switch", "additional-gids": "list", "process-label": "text",
        "apparmor": "text",
    },
    short={"p": "process", "d": "detach", "t": "tty", "u": "user", "e": "env", "c": "cap", "g": "additional-gids"},
)  # fmt: skip
