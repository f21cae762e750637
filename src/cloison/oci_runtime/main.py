"""``cloison-oci``: global options, the one module of the verb that was typed, and every error's last stop."""

from __future__ import annotations

import gc
import os
import sys

from cloison.errors import CloisonError, InvalidArgument, Unsupported
from cloison.oci_runtime.log import FORMATS, Log, say
from cloison.oci_runtime.options import Call, HelpWanted, Verb, check_words, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_ROOT = "/run/cloison-oci"
_STOOD_IN_FOR = ("crun", "runc")
SPEC_VERSION = "1.3.0"

# verb -> "module attribute"
VERBS: Mapping[str, str] = {
    "create": "lifecycle CREATE",
    "run": "lifecycle RUN",
    "start": "lifecycle START",
    "state": "lifecycle STATE",
    "kill": "lifecycle KILL",
    "delete": "lifecycle DELETE",
    "exec": "exec_verb EXEC",
    "list": "listing LIST",
    "ps": "listing PS",
    "pause": "lifecycle PAUSE",
    "resume": "lifecycle RESUME",
    "update": "update UPDATE",
    "events": "events EVENTS",
    "checkpoint": "checkpoint CHECKPOINT",
    "restore": "restore RESTORE",
    "mounts": "mounts_verb MOUNTS",
    "spec": "spec_template SPEC",
    "features": "features FEATURES",
    "script": "script SCRIPT",
}


def _nothing(_call: Call) -> int:
    return 0


TOP = Verb(
    "cloison-oci", _nothing, usage="COMMAND [OPTIONS] [ARGUMENTS]", least=0, most=-1,
    interspersed=False,
    options={
        "root": "text", "log": "text", "log-format": "text", "debug": "switch", "systemd-cgroup": "switch",
        "rootless": "text", "cgroup-manager": "text", "criu": "text", "version": "switch",
    },
    short={"v": "version"},
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line: the given words, or the process's own. Gives the exit status."""
    if argv is not None:
        return run_command_line(argv)
    gc.set_threshold(100_000)
    status = run_command_line(sys.argv[1:])
    os._exit(status)  # taking the interpreter down costs 2 ms and frees what the kernel frees anyway


def run_command_line(argv: Sequence[str]) -> int:
    log = Log("")
    failure = 1
    try:
        values, words = parse(TOP, argv)
        environ = dict(os.environ)
        own = _default_root(environ)
        root = os.path.abspath(str(values.get("root") or own))
        top = Call(values, words, root=root, log=log, environ=environ, cache=f"{own}/.seccomp")
        log = Log(top.text("log"), form=top.text("log-format", "text"), debug=top.switch("debug"))
        if top.switch("version"):
            return _version()
        _check_global(top)
        if not words:
            return _help()
        verb = load_verb(words[0])
        failure = verb.failure
        return _act(verb, words[1:], top=top, log=log)
    except HelpWanted:
        return _help()
    except CloisonError as error:
        log.error(_one_line(str(error)))
        return failure
    except BrokenPipeError:
        return failure
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        log.error(f"internal error: {type(error).__name__}: {_one_line(str(error))}")
        return failure


def _act(verb: Verb, argv: Sequence[str], *, top: Call, log: Log) -> int:
    try:
        values, words = parse(verb, argv)
    except HelpWanted:
        options = " ".join(f"[--{name}]" for name in verb.options)
        usage = f"{verb.name} {verb.usage}".rstrip()
        say(f"Usage: {_program()} [OPTION...] {usage}\n\nOptions: {options}\n")
        return 0
    check_words(verb, words)
    return verb.action(
        Call(
            values, words, root=top.root, log=log, environ=top.environ, cache=top.cache, systemd=_wants_systemd(top),
            cgroups=top.text("cgroup-manager") != "disabled", criu=top.text("criu"),
        )
    )  # fmt: skip


def load_verb(name: str) -> Verb:
    """Import the one module that defines a verb. Raises: InvalidArgument."""
    if name not in VERBS:
        raise InvalidArgument(
            f"unknown command: {_one_line(name)[:64]}", hint="'cloison-oci --help' lists the commands"
        )
    module, attribute = VERBS[name].split()
    verb = getattr(__import__(f"cloison.oci_runtime.{module}", fromlist=[attribute]), attribute)
    assert isinstance(verb, Verb)
    return verb


def _default_root(environ: Mapping[str, str]) -> str:
    """Independent of the working directory: later calls must find what this one writes."""
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return f"{runtime}/cloison-oci" if os.geteuid() and runtime.startswith("/") else DEFAULT_ROOT


def _check_global(top: Call) -> None:
    if top.text("log-format", "text") not in FORMATS:
        raise InvalidArgument(f"invalid log-format {top.text('log-format')!r}", hint="use text or json")
    manager = top.text("cgroup-manager", "cgroupfs")
    if _wants_systemd(top) and not os.path.isdir("/run/systemd/system"):  # sd_booted(3)
        why = "systemd is not running on this machine"
        raise Unsupported("cannot use the systemd cgroup driver", why=why, hint="use the cgroupfs driver")
    if manager not in ("cgroupfs", "systemd", "disabled"):
        raise InvalidArgument(f"invalid cgroup-manager {manager!r}", hint="use cgroupfs or systemd")


def _wants_systemd(top: Call) -> bool:
    return top.switch("systemd-cgroup") or top.text("cgroup-manager") == "systemd"


def _program() -> str:
    """Our name; or another runtime's, when it is installed in its place: callers look for it in what is printed."""
    name = os.path.basename(sys.argv[0])
    return name if name in _STOOD_IN_FOR else TOP.name


def _version() -> int:
    from cloison import __version__

    say(f"{_program()} version {__version__}\ncommit: {__version__}\nspec: {SPEC_VERSION}\n")
    return 0


def _help() -> int:
    say(f"Usage: {_program()} [OPTION...] {TOP.usage}\n\nCommands: {' '.join(VERBS)}\n\n")
    say(f"Global options: {' '.join(f'--{name}' for name in TOP.options)}\n")
    return 0


def _one_line(text: str) -> str:
    """What a config.json says must not steer a terminal or forge a line of the log."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else c.encode("unicode_escape").decode("ascii") for c in text
    )
