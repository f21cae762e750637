"""What goes with a filter to seccomp(2): flags, and whether somebody outside answers. Imports nothing dear."""

from __future__ import annotations

from cloison.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# linux/seccomp.h
TSYNC, NEW_LISTENER, WAIT_KILLABLE_RECV = 0x01, 0x08, 0x20
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": TSYNC, "SECCOMP_FILTER_FLAG_LOG": 0x02, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 0x04,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": WAIT_KILLABLE_RECV,
}  # fmt: skip
NOTIFY_WORD = "SCMP_ACT_NOTIFY"


def filter_flags(profile: Mapping[str, Any]) -> int:
    """The flags of a ``linux.seccomp`` object (runtime-spec, config-linux.md). Raises: InvalidArgument.

    With NEW_LISTENER when it has SCMP_ACT_NOTIFY: "If the SCMP_ACT_NOTIFY action is not used this value
    [listenerPath] is ignored". One thread is all there is to synchronise, so TSYNC, which a listener excludes, may go.
    """
    flags = 0
    names = profile.get("flags") or []
    if not isinstance(names, list):
        raise _invalid("flags", "is not a list")
    for name in names:
        if not isinstance(name, str) or name not in FLAGS:
            raise _invalid("flags", f"has {name!r}, not one of {', '.join(FLAGS)}")
        flags |= FLAGS[name]
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise _invalid("listenerMetadata", "is set, and listenerPath is not")
    if _has_notify(profile):
        if not isinstance(profile.get("listenerPath"), str) or not profile["listenerPath"]:
            raise _invalid("listenerPath", f"is missing: {NOTIFY_WORD} needs an agent to ask")
        return flags & ~TSYNC | NEW_LISTENER
    if flags & WAIT_KILLABLE_RECV:
        raise _invalid("flags", f"has SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, which goes with {NOTIFY_WORD} alone")
    return flags


def _has_notify(profile: Mapping[str, Any]) -> bool:
    entries = profile.get("syscalls") or ()
    actions = [entry.get("action") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return NOTIFY_WORD in (profile.get("defaultAction"), *actions)


def _invalid(field: str, problem: str) -> InvalidArgument:
    return InvalidArgument("invalid seccomp profile", why=f"{field} {problem}")
