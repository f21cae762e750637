"""Verbs about a container's life: ``stop kill restart pause unpause wait rename rm``, and the monitor's ``_reap``."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.parser import Flag, Verb
from cloison.errors import CloisonError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloison.cli.call import Call

PARALLEL = 50  # as many at once as docker's client


def for_each(names: Sequence[str], act: Callable[[str], str]) -> int:
    """Act on each name, say its line; results come in the order of the names, errors stop nothing. Gives the status."""
    failed = 0
    for outcome in _outcomes(names, act):
        if isinstance(outcome, CloisonError):
            output.report(outcome)
            failed = 1
        else:
            output.say(outcome)
    return failed


def _outcomes(names: Sequence[str], act: Callable[[str], str]) -> Sequence[str | CloisonError]:
    def attempt(name: str) -> str | CloisonError:
        try:
            return act(name)
        except CloisonError as error:
            return error

    if len(names) == 1:
        return [attempt(names[0])]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=min(PARALLEL, len(names))) as pool:
        return list(pool.map(attempt, names))


def stop(call: Call) -> int:
    containers, timeout_s, signal = call.engine.containers, call.number("timeout"), call.text("signal")

    def act(name: str) -> str:
        containers.stop(name, timeout_s=timeout_s, signal=signal)
        return name

    return for_each(call.words, act)


def kill(call: Call) -> int:
    containers, signal = call.engine.containers, call.text("signal") or "KILL"

    def act(name: str) -> str:
        containers.kill(name, signal=signal)
        return name

    return for_each(call.words, act)


def restart(call: Call) -> int:
    containers, timeout_s = call.engine.containers, call.number("timeout")

    def act(name: str) -> str:
        containers.restart(name, timeout_s=timeout_s)
        return name

    return for_each(call.words, act)


def pause(call: Call) -> int:
    containers = call.engine.containers

    def act(name: str) -> str:
        containers.pause(name)
        return name

    return for_each(call.words, act)


def unpause(call: Call) -> int:
    containers = call.engine.containers

    def act(name: str) -> str:
        containers.unpause(name)
        return name

    return for_each(call.words, act)


def wait(call: Call) -> int:
    containers = call.engine.containers
    return for_each(call.words, lambda name: str(containers.wait(name)))


def rename(call: Call) -> int:
    call.engine.containers.rename(call.words[0], call.words[1])
    return 0


def remove(call: Call) -> int:
    """With ``-f`` a missing container is said but is no failure."""
    containers, force, volumes = call.engine.containers, call.switch("force"), call.switch("volumes")
    missing: list[NotFound] = []

    def act(name: str) -> str:
        try:
            containers.remove(name, force=force, volumes=volumes)
        except NotFound as error:
            if not force:
                raise
            missing.append(error)
        return name

    failed = 0
    for name, outcome in zip(call.words, _outcomes(call.words, act), strict=True):
        if isinstance(outcome, CloisonError):
            output.report(outcome)
            failed = 1
        elif not any(error.what.endswith(f": {name}") for error in missing):
            output.say(outcome)
    for error in missing:
        output.report(error)
    return failed


def reap(call: Call) -> int:
    """The monitor calls this when a container has ended and nobody waited for it; there is nobody to tell."""
    call.engine.containers.reap(call.words[0])
    return 0


_CONTAINERS = "[OPTIONS] CONTAINER [CONTAINER...]"
_TIMEOUT = Flag("-t, --timeout, --time", "int", help="Seconds to wait before killing the container (-1: wait for ever)")

STOP = Verb(
    "stop", stop, summary="Stop one or more running containers", usage=_CONTAINERS, least=1,
    flags=(Flag("-s, --signal", "string", help="Signal to send to the container"), _TIMEOUT),
)  # fmt: skip
KILL = Verb(
    "kill", kill, summary="Kill one or more running containers", usage=_CONTAINERS, least=1,
    flags=(Flag("-s, --signal", "string", help="Signal to send to the container", default="KILL"),),
)  # fmt: skip
RESTART = Verb(
    "restart", restart, summary="Restart one or more containers", usage=_CONTAINERS, least=1, flags=(_TIMEOUT,),
    later="s signal",
)  # fmt: skip
PAUSE = Verb(
    "pause",
    pause,
    summary="Pause all processes within one or more containers",
    usage="CONTAINER [CONTAINER...]",
    least=1,
)
UNPAUSE = Verb(
    "unpause", unpause, summary="Unpause all processes within one or more containers", least=1,
    usage="CONTAINER [CONTAINER...]",
)  # fmt: skip
WAIT = Verb(
    "wait", wait, summary="Block until one or more containers stop, then print their exit codes", least=1,
    usage="CONTAINER [CONTAINER...]",
)  # fmt: skip
RENAME = Verb("rename", rename, summary="Rename a container", usage="CONTAINER NEW_NAME", least=2, most=2)
REMOVE = Verb(
    "rm", remove, summary="Remove one or more containers", usage=_CONTAINERS, least=1, later="l link",
    flags=(
        Flag("-f, --force", help="Force the removal of a running container (uses SIGKILL)"),
        Flag("-v, --volumes", help="Remove anonymous volumes associated with the container"),
    ),
)  # fmt: skip
REAP = Verb(
    "_reap", reap, summary="Clean up after a container that has ended", usage="ID", least=1, most=1, hidden=True
)
