"""Hooks that run on the host: one after the other, the container's state on their standard input (config.md)."""

from __future__ import annotations

import os

from cloison.errors import LaunchFailed
from cloison.linux.command import Outcome, run_exactly
from cloison.oci_runtime.containers import Container, state_document
from cloison.store.json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloison.oci.runtime import Hook
    from cloison.oci_runtime.log import Log

_LAST_WORDS = 2048
# For those that bring none of their own; never the caller's, which is whoever's
_ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)


def run_hooks(kind: str, hooks: Iterable[Hook], *, container: Container, status: str) -> None:
    """In order; the first that fails ends it. Raises: LaunchFailed."""
    for index, hook in enumerate(hooks):
        state = dumps(state_document(container, status)).encode()
        try:
            outcome = run_exactly(
                hook.path, argv=hook.args, environ=hook.env or _ENVIRONMENT, input=state, timeout_s=hook.timeout_s
            )
        except OSError as err:
            raise _failure(kind, index, hook, f"cannot be executed: {os.strerror(err.errno or 0).lower()}") from err
        if outcome.code or not outcome.in_time:
            raise _failure(kind, index, hook, _ending(outcome, hook))


def run_poststop(hooks: Iterable[Hook], *, container: Container, log: Log) -> None:
    """All of them: config.md, "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and
    lifecycle continue as if the hook had succeeded"."""
    for hook in hooks:
        try:
            run_hooks("poststop", (hook,), container=container, status="stopped")
        except LaunchFailed as error:
            log.warning(str(error))


def _failure(kind: str, index: int, hook: Hook, how: str) -> LaunchFailed:
    return LaunchFailed(f"{kind} hook {how}", why=f"hook #{index}, {hook.path}")


def _ending(outcome: Outcome, hook: Hook) -> str:
    if not outcome.in_time:
        return f"ran past its timeout of {hook.timeout_s} s"
    ending = f"failed with exit code {outcome.code}" if outcome.code > 0 else f"was killed by signal {-outcome.code}"
    said = (outcome.stderr or outcome.stdout)[-_LAST_WORDS:].decode(errors="replace").strip()
    return f"{ending} ({said})" if said else ending
