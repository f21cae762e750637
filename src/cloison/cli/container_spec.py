"""Flags of ``run`` and ``create`` to a ContainerSpec: words in, model out; it touches only files that flags name."""

from __future__ import annotations

from cloison.cli.parser import UsageError
from cloison.errors import InvalidArgument, Unsupported
from cloison.model.container import ContainerSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloison.cli.call import Call

# flag -> field, for those that need no thought
_TEXTS = {
    "name": "name", "hostname": "hostname", "domainname": "domainname", "workdir": "workdir", "user": "user",
    "stop-signal": "stop_signal", "platform": "platform",
}  # fmt: skip
_SWITCHES = {
    "tty": "tty", "interactive": "interactive", "rm": "auto_remove", "init": "init", "read-only": "read_only",
    "privileged": "privileged", "publish-all": "publish_all",
}  # fmt: skip
_LISTS = {
    "group-add": "groups", "cap-add": "cap_add", "cap-drop": "cap_drop", "dns": "dns", "dns-search": "dns_search",
    "dns-option": "dns_options",
}  # fmt: skip
_RESOURCE_FLAGS = frozenset((
    "memory", "memory-swap", "memory-reservation", "cpus", "cpu-shares", "cpu-quota", "cpu-period", "cpuset-cpus",
    "cpuset-mems", "pids-limit", "blkio-weight", "device-read-bps", "device-write-bps", "device-read-iops",
    "device-write-iops", "oom-score-adj",
))  # fmt: skip
PULL_POLICIES = ("always", "missing", "never")


def container_spec(call: Call) -> ContainerSpec:
    """What the user asked for. Raises: UsageError, InvalidArgument, Unsupported; ``-e K`` reads the environment."""
    image, *command = call.words
    fields: dict[str, Any] = {"image": image, "command": tuple(command)}
    for flag, field in _TEXTS.items():
        if call.given(flag):
            fields[field] = call.text(flag)
    for flag, field in _SWITCHES.items():
        if call.given(flag):
            fields[field] = call.switch(flag)
    for flag, field in _LISTS.items():
        if call.given(flag):
            fields[field] = tuple(call.texts(flag))
    _check_workdir(call.text("workdir"))
    _add_words(call, fields)
    _add_modes(call, fields)
    if any(call.given(flag) for flag in ("volume", "mount", "tmpfs", "publish", "device", "ulimit", "add-host")):
        _add_attachments(call, fields)
    if any(call.given(flag) for flag in _RESOURCE_FLAGS):
        from cloison.cli.limits import resources

        fields["resources"] = resources(call)
    if call.given("security-opt") or call.given("privileged"):
        from cloison.cli.security import security_fields

        fields.update(security_fields(call))
    if call.given("log-driver") or call.given("log-opt"):
        _add_logging(call, fields)
    _add_numbers(call, fields)
    return ContainerSpec(**fields)


def _check_workdir(path: str) -> None:
    """Raises: InvalidArgument in docker's words."""
    if path and not path.startswith("/"):
        raise InvalidArgument(f"the working directory '{path}' is invalid, it needs to be an absolute path")


def _add_words(call: Call, fields: dict[str, Any]) -> None:
    """Environment, labels, entrypoint, maps."""
    if call.given("env") or call.given("env-file"):
        from cloison.cli.variables import check_variable, read_environment

        words = call.each("env", check_variable)
        fields["env"] = read_environment(files=call.texts("env-file"), words=words, environ=call.environ)
    if call.given("label") or call.given("label-file"):
        from cloison.cli.variables import check_label, read_labels

        fields["labels"] = read_labels(files=call.texts("label-file"), words=call.each("label", check_label))
    if call.given("entrypoint"):
        entrypoint = call.text("entrypoint")
        fields["entrypoint"] = (entrypoint,) if entrypoint else ()
    for flag, field in (("sysctl", "sysctls"), ("annotation", "annotations")):
        if call.given(flag):
            fields[field] = dict(call.each(flag, _pair))
    if "platform" not in fields and call.environ.get("DOCKER_DEFAULT_PLATFORM"):
        fields["platform"] = call.environ["DOCKER_DEFAULT_PLATFORM"]


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"invalid key/value pair format: {text}")
    return key, value


def _add_modes(call: Call, fields: dict[str, Any]) -> None:
    """Flags whose value is one of a few words."""
    if call.given("pull"):
        fields["pull"] = policy = call.text("pull")
        if policy not in PULL_POLICIES:
            raise UsageError(f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"')
    if call.given("network"):
        fields["network"] = _network(call)
    for flag, field in (("pid", "pid_mode"), ("ipc", "ipc_mode")):
        mode = call.text(flag)
        if mode and mode not in ("host", "private") and not mode.startswith("container:"):
            raise UsageError(f"--{flag}: invalid {flag.upper()} mode '{mode}'")
        if mode and mode != "private":
            fields[field] = mode
    if call.given("uts"):
        if call.text("uts") not in ("", "host", "private"):
            raise UsageError("--uts: invalid UTS mode")
        fields["uts_mode"] = call.text("uts").removeprefix("private")
    for flag, accepted in (("restart", ("", "no")), ("userns", ("", "host")), ("cgroupns", ("", "private"))):
        if call.text(flag) not in accepted:
            raise Unsupported(f"--{flag} {call.text(flag)} is not supported yet", hint=f"leave --{flag} out")


def _network(call: Call) -> str:
    names = call.texts("network")
    if len(names) > 1:
        raise Unsupported("more than one --network is not supported yet", hint="name one network")
    name = names[0]
    if "=" in name:
        key, _, name = name.partition("=")
        if key != "name" or "," in name:
            raise Unsupported(f"--network {names[0]} is not supported yet", hint="give the network's name alone")
    return "bridge" if name in ("default", "") else name


def _add_attachments(call: Call, fields: dict[str, Any]) -> None:
    from cloison.cli import limits, mounts, ports

    fields["mounts"] = (
        *call.each("volume", mounts.parse_volume), *call.each("mount", mounts.parse_mount),
        *call.each("tmpfs", mounts.parse_tmpfs),
    )  # fmt: skip
    seen: set[str] = set()
    for mount in fields["mounts"]:
        target = mount.target.rstrip("/")
        if target in seen:
            raise InvalidArgument(f"duplicate mount point: {mount.target}")
        seen.add(target)
    fields["ports"] = tuple(port for group in call.each("publish", ports.parse_publish) for port in group)
    fields["devices"] = call.each("device", limits.parse_device)
    fields["ulimits"] = call.each("ulimit", limits.parse_ulimit)
    fields["extra_hosts"] = call.each("add-host", _extra_host)


def _extra_host(text: str) -> str:
    """``name:address`` or ``name=address``, address bare or in brackets."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    address = address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address
    if not name or not found or not address:
        raise ValueError(f"bad format for add-host: {text!r}")
    if address != "host-gateway" and not _is_address(address):
        raise ValueError(f"invalid IP address in add-host: {address!r}")
    return f"{name}:{address}"


def _is_address(text: str) -> bool:
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
        except (OSError, ValueError):
            continue
        return True
    return False


def _add_logging(call: Call, fields: dict[str, Any]) -> None:
    driver = call.text("log-driver")
    if driver not in ("", "none", "local", "json-file"):
        raise Unsupported(f"log driver '{driver}' is not supported", hint="there are local (the default) and none")
    fields["no_log"] = driver == "none"
    for key, value in call.each("log-opt", _pair):
        if key == "max-size":
            fields["log_max_bytes"] = _log_size(value)
        elif key == "max-file":
            if not (value.isascii() and value.isdigit() and int(value)):
                raise UsageError(f"invalid log option max-file={value}: not a positive number")
            fields["log_max_files"] = int(value)
        elif key not in ("mode", "max-buffer-size", "compress"):
            raise Unsupported(f"log option '{key}' is not supported", hint="there are max-size and max-file")


def _log_size(text: str) -> int:
    from cloison.model.units import parse_size

    try:
        return max(parse_size(text), 0)
    except ValueError as err:
        raise UsageError(f"invalid log option max-size={text}: {err}") from None


def _add_numbers(call: Call, fields: dict[str, Any]) -> None:
    shm = call.number("shm-size")
    if shm is not None:
        if shm <= 0:
            raise InvalidArgument("--shm-size must be more than 0")
        fields["shm_size_bytes"] = shm
    stop = call.number("stop-timeout")
    if stop is not None:
        fields["stop_timeout_s"] = stop
    timeout = call.number("timeout")
    if timeout:
        fields["timeout_s"] = float(timeout)
