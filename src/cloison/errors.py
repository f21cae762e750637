"""What can go wrong, as a tree of types; every door maps a *type* to its own code, never a text.

CloisonError
├── NotFound               the named image, container, network, file … does not exist
├── Conflict               it exists already, or its state forbids this
├── InvalidArgument        the caller's words make no sense
├── Denied                 this user, or this machine, may not
├── Unsupported            this kernel or this release cannot
├── Unavailable            a peer (registry, monitor) did not answer, or a resource ran out
│   └── NoSpace                a disk is full
├── Internal               our fault
└── LaunchFailed           the launcher could not carry out one operation of its plan
    ├── CommandNotFound        the container's command does not exist (exit code 127)
    └── CommandNotInvocable    it exists but cannot be executed (exit code 126)
"""

from __future__ import annotations


class CloisonError(Exception):
    """Base of every error that users may see: what happened, why, and what to do.

    ``str(error)`` is one line: ``what: why``; ``hint`` is printed on a line of its own by the doors.
    """

    code = "internal"

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what


class NotFound(CloisonError):
    code = "not-found"


class Conflict(CloisonError):
    code = "conflict"


class InvalidArgument(CloisonError):
    code = "invalid-argument"


class Denied(CloisonError):
    code = "denied"


class Unsupported(CloisonError):
    code = "unsupported"


class Unavailable(CloisonError):
    code = "unavailable"


class NoSpace(Unavailable):
    """A disk is full, or a quota is used up; doors see an `Unavailable`."""

    def __init__(self, what: str) -> None:
        hint = "free some space, or set --data-root elsewhere"
        super().__init__(what, why="no space left on device", hint=hint)


class Internal(CloisonError):
    code = "internal"


class LaunchFailed(CloisonError):
    """One operation of the launch plan failed; ``operation`` is its line as ``--dry-run`` prints it."""

    code = "launch-failed"

    def __init__(self, what: str, *, why: str = "", hint: str = "", operation: str = "", errno: int = 0) -> None:
        super().__init__(what, why=why, hint=hint)
        self.operation = operation
        self.errno = errno


class CommandNotFound(LaunchFailed):
    code = "command-not-found"


class CommandNotInvocable(LaunchFailed):
    code = "command-not-invocable"
