"""The only place that runs a command of the host."""

from __future__ import annotations

from cloison.errors import CloisonError, Unavailable, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Never the caller's environment: LD_PRELOAD, locale and PATH of a user must not steer what root runs.
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def run(argv: Sequence[str], *, input: bytes = b"", timeout_s: float = 30.0) -> bytes:
    """Run a command to its end and give back its standard output. No shell.

    Raises: Unsupported when it is not installed; Unavailable when it fails (the last line of its standard error is the
    reason) or does not end in ``timeout_s`` seconds, in which case it was killed.
    """
    import subprocess

    try:
        done = subprocess.run(
            list(argv), input=input, capture_output=True, timeout=timeout_s, env=_ENVIRONMENT, cwd="/", check=False
        )
    except FileNotFoundError as err:
        raise Unsupported(
            f"cannot run {argv[0]}", why="it is not installed", hint=f"install the package that brings {argv[0]}"
        ) from err
    except OSError as err:
        raise Unsupported(f"cannot run {argv[0]}", why=(err.strerror or str(err)).lower()) from err
    except subprocess.TimeoutExpired as err:
        raise Unavailable(f"{argv[0]} was killed", why=f"it did not end within {timeout_s:g} s") from err
    if done.returncode:
        raise _failure(argv[0], done.returncode, stderr=done.stderr)
    return done.stdout


def _failure(name: str, status: int, *, stderr: bytes) -> CloisonError:
    ending = f"signal {-status}" if status < 0 else f"exit status {status}"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return Unavailable(f"{name} failed with {ending}", why=lines[-1].strip() if lines else "it did not say why")
