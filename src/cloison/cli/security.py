"""``--security-opt`` and ``--privileged`` (docker's parseSecurityOpts); ``key=value`` or, as of old, ``key:value``."""

from __future__ import annotations

from cloison.errors import InvalidArgument, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloison.cli.call import Call

_TRUTH = {"": True, "true": True, "1": True, "false": False, "0": False}


def security_fields(call: Call) -> dict[str, Any]:
    """Fields of a ContainerSpec. Raises: InvalidArgument, Unsupported; the file of a seccomp profile is read here."""
    fields: dict[str, Any] = {}
    if call.switch("privileged"):
        # a privileged container is not walled in: setuid programs work as in docker, unless asked otherwise below
        fields["no_new_privileges"] = False
    for option in call.texts("security-opt"):
        separator = "=" if "=" in option else ":"
        key, _, value = option.partition(separator)
        if key == "no-new-privileges" and value in _TRUTH:
            fields["no_new_privileges"] = _TRUTH[value]
        elif key == "seccomp" and value:
            fields["seccomp"] = _profile(value)
        elif key == "apparmor" and value and value.isprintable():
            fields["apparmor"] = value
        elif key == "systempaths" and value == "unconfined":
            fields["unmask"] = True
        elif (key, value) != ("label", "disable"):
            _refuse(option, key)
    return fields


def _refuse(option: str, key: str) -> None:
    if key in ("label", "writable-cgroups"):
        raise Unsupported(f"--security-opt {option} is not supported yet")
    raise InvalidArgument(
        f"invalid --security-opt: {option!r}",
        hint="there are seccomp=FILE|unconfined, apparmor=PROFILE|unconfined, no-new-privileges[=false] and "
        "systempaths=unconfined",
    )


def _profile(value: str) -> str:
    if value == "unconfined":
        return value
    if value in ("builtin", "default"):
        return "default"
    try:
        with open(value, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as err:
        why = err.strerror if isinstance(err, OSError) and err.strerror else str(err)
        raise InvalidArgument(f"opening seccomp profile ({value}) failed", why=why.lower()) from err
