"""Hooks: one after the other, the container's state on their standard input (config.md, "POSIX-platform Hooks").

Where one runs is its `Runner`'s affair: on the host here, in the container by `cloison.oci_runtime.inner_hooks`.
"""

from __future__ import annotations

import os

from cloison.errors import Denied, LaunchFailed
from cloison.linux.command import Outcome, run_exactly
from cloison.oci_runtime.containers import Container, state_document
from cloison.store.json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from cloison.oci.runtime import Hook
    from cloison.oci_runtime.log import Log

    class Runner(Protocol):
        """Runs one hook to its end; ``outputs``: descriptors, -1 keeps what it says for the error."""

        def __call__(self, hook: Hook, state: bytes, *, outputs: tuple[int, int]) -> Outcome: ...


_LAST_WORDS = 2048
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# crun's: files of the host that take what hooks say
_OUTPUTS = ("run.oci.hooks.stdout", "run.oci.hooks.stderr")


def default_environment() -> tuple[str, ...]:
    """For a hook of the host that brings none of its own: the caller's, as with other runtimes; a PATH at least."""
    own = tuple(f"{name}={value}" for name, value in os.environ.items())
    return own if "PATH" in os.environ else (*own, _PATH)


def run_hooks(
    kind: str, hooks: Iterable[Hook], *, container: Container, status: str, runner: Runner | None = None, pid: int = 0
) -> None:
    """In order; the first that fails ends it. ``pid``: as the hook sees it, where that is another number.

    Raises: LaunchFailed; Denied when its output has nowhere to go.
    """
    document = state_document(container, status)
    if pid:
        document["pid"] = pid
    state = dumps(document).encode()
    for index, hook in enumerate(hooks):
        outputs = _outputs(container)
        try:
            outcome = (runner or _on_host)(hook, state, outputs=outputs)
        except OSError as err:
            raise _failure(kind, index, hook, f"cannot be executed: {os.strerror(err.errno or 0).lower()}") from err
        except LaunchFailed as err:
            raise _failure(kind, index, hook, f"cannot be executed: {err.why or err}") from err
        finally:
            for fd in outputs:
                if fd >= 0:
                    os.close(fd)
        if outcome.code or not outcome.in_time:
            raise _failure(kind, index, hook, _ending(outcome, hook))


def _on_host(hook: Hook, state: bytes, *, outputs: tuple[int, int]) -> Outcome:
    environment = hook.env or default_environment()
    return run_exactly(
        hook.path, argv=hook.args, environ=environment, input=state, timeout_s=hook.timeout_s, outputs=outputs
    )


def _outputs(container: Container) -> tuple[int, int]:
    stdout, stderr = (_open(container.annotations.get(name, "")) for name in _OUTPUTS)
    return stdout, stderr


def _open(path: str) -> int:
    if not path:
        return -1
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    except OSError as err:
        raise Denied(f"cannot write the hooks' output to {path}", why=os.strerror(err.errno or 0).lower()) from err


def run_poststop(hooks: Iterable[Hook], *, container: Container, log: Log) -> None:
    """All of them: config.md, "If any poststop hook fails, the runtime MUST log a warning, but the remaining hooks and
    lifecycle continue as if the hook had succeeded"."""
    for hook in hooks:
        try:
            run_hooks("poststop", (hook,), container=container, status="stopped")
        except (Denied, LaunchFailed) as error:
            log.warning(str(error))


def _failure(kind: str, index: int, hook: Hook, how: str) -> LaunchFailed:
    return LaunchFailed(f"{kind} hook {how}", why=f"hook #{index}, {hook.path}")


def _ending(outcome: Outcome, hook: Hook) -> str:
    if not outcome.in_time:
        return f"ran past its timeout of {hook.timeout_s} s"
    ending = f"failed with exit code {outcome.code}" if outcome.code > 0 else f"was killed by signal {-outcome.code}"
    said = (outcome.stderr or outcome.stdout)[-_LAST_WORDS:].decode(errors="replace").strip()
    return f"{ending} ({said})" if said else ending
