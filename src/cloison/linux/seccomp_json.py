"""Reading seccomp profiles: Docker's JSON format, and the ``linux.seccomp`` object of an OCI config.json.

Sources: docker's profiles/seccomp (``names``, ``includes``, ``excludes``, ``archMap``), runtime-spec config-linux.md,
"Seccomp". What ``architectures`` names is granted where the compiler has its table (i386 and x32 beside x86_64);
Docker's ``archMap`` is not: there our filters admit native calls alone.
"""

from __future__ import annotations

from cloison.errors import InvalidArgument, Unsupported
from cloison.linux.capabilities import mask_of
from cloison.linux.seccomp import (
    ALLOW,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NOTIFY,
    TRACE,
    TRAP,
    Condition,
    Profile,
    Rule,
    errno_action,
)
from cloison.linux.seccomp_flags import NOTIFY_WORD
from cloison.linux.syscalls import ARCHITECTURES, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_EPERM = 1
_ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_LOG": LOG,
    NOTIFY_WORD: NOTIFY,
    "SCMP_ACT_ALLOW": ALLOW,
}
_OPERATORS = {
    "SCMP_CMP_NE": "!=",
    "SCMP_CMP_LT": "<",
    "SCMP_CMP_LE": "<=",
    "SCMP_CMP_EQ": "==",
    "SCMP_CMP_GE": ">=",
    "SCMP_CMP_GT": ">",
    "SCMP_CMP_MASKED_EQ": "==",
}
_FOREIGN = {"SCMP_ARCH_X86": "i386", "SCMP_ARCH_X32": "x32"}
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # as Docker says it -> as uname(2) does


def parse_docker_profile(text: str) -> Profile:
    """A profile in either format.

    Raises: InvalidArgument saying where it is wrong; Unsupported for SCMP_ACT_NOTIFY without an agent.
    """
    import json

    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise _invalid(f"it is not JSON: {err}") from err
    if not isinstance(document, dict):
        raise _invalid("it is not a JSON object")
    default = _action(document.get("defaultAction"), document.get("defaultErrnoRet"), where="defaultAction")
    entries = document.get("syscalls") or []
    if not isinstance(entries, list):
        raise _invalid("syscalls is not a list")
    rules = tuple(rule for at, entry in enumerate(entries) for rule in _rules(entry, f"syscalls[{at}]"))
    if NOTIFY in (default, *(rule.action for rule in rules)) and not document.get("listenerPath"):
        why = f"it asks for {NOTIFY_WORD}, which needs an agent outside"
        raise Unsupported("cannot use this seccomp profile", why=why, hint="use SCMP_ACT_ERRNO there")
    return Profile(default=default, rules=rules, foreign=_foreign(document))


def _rules(entry: Any, where: str) -> tuple[Rule, ...]:
    if not isinstance(entry, dict):
        raise _invalid(f"{where} is not an object")
    names = entry.get("names") or ([entry["name"]] if entry.get("name") else [])
    if not names or not all(isinstance(name, str) for name in names):
        raise _invalid(f"{where} names no system call")
    action = _action(entry.get("action"), entry.get("errnoRet"), where=where)
    arguments = entry.get("args") or []
    if not isinstance(arguments, list):
        raise _invalid(f"{where}.args is not a list")
    conditions = tuple(_condition(argument, f"{where}.args[{at}]") for at, argument in enumerate(arguments))
    rule = _restrict(Rule(names=tuple(names), action=action), entry, where=where)
    indexes = [condition.argument for condition in conditions]
    if len(set(indexes)) < len(indexes):
        # Two conditions on one argument are alternatives, as in runc (libseccomp cannot express both at once).
        return tuple(rule.replace(conditions=(condition,)) for condition in conditions)
    return (rule.replace(conditions=conditions),)


def _restrict(rule: Rule, entry: Mapping[str, Any], *, where: str) -> Rule:
    """Docker's ``includes`` (all must hold) and ``excludes`` (none may)."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if not isinstance(includes, dict) or not isinstance(excludes, dict):
        raise _invalid(f"{where} has includes or excludes that are not objects")
    machines = [_MACHINES.get(name, name) for name in includes.get("arches") or ARCHITECTURES]
    without = [_MACHINES.get(name, name) for name in excludes.get("arches") or ()]
    changes: dict[str, Any] = {
        "requires": mask_of(includes.get("caps") or ()),
        "unless": mask_of(excludes.get("caps") or ()),
        "architectures": tuple(name for name in machines if name not in without),
    }
    if includes.get("minKernel"):
        changes["min_kernel"] = _version(includes["minKernel"], where=where)
    if excludes.get("minKernel"):
        changes["below_kernel"] = _version(excludes["minKernel"], where=where)
    return rule.replace(**changes)


def _action(name: object, errno: object, *, where: str) -> int:
    number = _EPERM if errno is None else errno
    if not isinstance(number, int) or not 0 <= number <= 4095:
        raise _invalid(f"{where} has an errno that is not a number from 0 to 4095")
    if name == "SCMP_ACT_ERRNO":
        return errno_action(number)
    if name == "SCMP_ACT_TRACE":
        return TRACE | number
    if not isinstance(name, str) or name not in _ACTIONS:
        raise _invalid(f"{where} has no known action: {name!r}")
    if errno is not None:
        # config-linux.md: "When the action doesn't support an errno, the runtime MUST print and error and fail"
        raise _invalid(f"{where} has an errno, and {name} returns none")
    return _ACTIONS[name]


def _condition(argument: Any, where: str) -> Condition:
    if not isinstance(argument, dict) or argument.get("op") not in _OPERATORS:
        raise _invalid(f"{where} has no known operator")
    index, value, second = (argument.get(key) or 0 for key in ("index", "value", "valueTwo"))
    if not all(isinstance(number, int) for number in (index, value, second)) or not 0 <= index <= 5:
        raise _invalid(f"{where} is not made of numbers, or its index is not 0 to 5")
    operator = _OPERATORS[argument["op"]]
    if argument["op"] == "SCMP_CMP_MASKED_EQ":
        return Condition(argument=index, operator=operator, value=second, mask=value)
    return Condition(argument=index, operator=operator, value=value)


def _version(text: object, *, where: str) -> tuple[int, int]:
    major, _, minor = str(text).partition(".")
    if not (major.isdigit() and minor.isdigit()):
        raise _invalid(f"{where} has a kernel version that is not like 4.8")
    return int(major), int(minor)


def _foreign(document: Mapping[str, Any]) -> tuple[str, ...]:
    names = document.get("architectures") or []
    if not isinstance(names, list) or not all(
        isinstance(name, str) and name.startswith("SCMP_ARCH_") for name in names
    ):
        raise _invalid("architectures is not a list of names like SCMP_ARCH_X86")
    return tuple(_FOREIGN[name] for name in dict.fromkeys(names) if name in _FOREIGN)


def _invalid(why: str) -> InvalidArgument:
    return InvalidArgument("invalid seccomp profile", why=why, hint="the format is that of docker's default.json")


def unknown_names(profile: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of calls that no machine has, of a profile that was read."""
    known = {name for machine in (*ARCHITECTURES, "i386", "x32") for name in numbers(machine)}
    entries = profile.get("syscalls") or ()
    return tuple(name for entry in entries for name in entry.get("names") or () if name not in known)
