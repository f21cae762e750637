"""A bundle's configuration, completed with what the specification lets a runtime add, for this machine."""

from __future__ import annotations

import os

from cloison.errors import InvalidArgument, NotFound
from cloison.linux.capabilities import mask_of
from cloison.model.record import Record
from cloison.oci.config_json import Config, parse_config
from cloison.oci.runtime import Capabilities, DeviceRule, Spec
from cloison.oci_runtime.documents import read_document
from cloison.runtime.process import UNCONFINED, Filter
from cloison.store.atomic import read_file
from cloison.store.json import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloison.oci.runtime import Linux, Process
    from cloison.oci_runtime.agent import Agent

_MAX_PASSWD = 4 << 20
# crun's annotations
_OUR_MOUNTS = "/proc/self/ns/mnt"
_FAIL_UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"
_KEEP_GROUPS = "run.oci.keep_original_groups"
# What a container may do with devices whatever its rules say: make nodes, use the default ones and its terminals
# (runc's list, which callers count on).
_MAKE_NODES = (DeviceRule(allow=True, type="c", access="m"), DeviceRule(allow=True, type="b", access="m"))


class Bundle(Record):
    directory: str  # absolute
    text: bytes  # config.json as it stands
    config: Config


def read_bundle(directory: str, *, config_path: str = "") -> Bundle:
    """Raises: NotFound, InvalidArgument with the place of the fault, Unsupported."""
    path = os.path.abspath(config_path or f"{directory}/config.json")
    directory = os.path.abspath(directory)
    text, document = read_document(path, name="config.json")
    config = parse_config(document, bundle=directory)
    root = config.spec.root.mount.source
    if not os.path.isdir(root):
        why = "not a directory" if os.path.exists(root) else "no such file or directory"
        raise NotFound(f"cannot use root.path {root}", why=why)
    return Bundle(directory=directory, text=text, config=config)


def complete(config: Config, *, container_id: str) -> Spec:
    """The spec with default devices, device rules and a control group. Raises: Unsupported."""
    from cloison.oci_runtime.fitting import fit_mounts, fit_root, with_mappings
    from cloison.runtime import defaults
    from cloison.runtime.labels import exec_labels, labelled, read_modules

    modules = read_modules()
    spec = fit_root(fit_mounts(config.spec.replace(linux=with_mappings(_in_some_mounts(config.spec.linux)))))
    linux = spec.linux
    if spec.domainname and linux.sysctl.get("kernel.domainname", spec.domainname) != spec.domainname:
        raise InvalidArgument("invalid config.json", why="domainname and linux.sysctl's kernel.domainname differ")
    given = {device.path for device in linux.devices}.union(spec.root.dev_names or ())
    devices = (*(device for device in defaults.devices() if device.path not in given), *linux.devices)
    rules = (
        DeviceRule(allow=False), *linux.device_rules, *_MAKE_NODES,
        *(rule for rule in defaults.device_rules() if rule.allow),
    )  # fmt: skip
    process = complete_process(spec.process)
    if spec.annotations.get(_KEEP_GROUPS, "0") not in ("", "0"):
        process = with_groups(process)
    path = linux.cgroups_path.strip("/") or f"cloison-oci-{container_id}"
    return spec.replace(
        mounts=labelled(spec.mounts, label=config.labels.mount_label, modules=modules),
        process=with_home(process, spec.root.mount.source).replace(exec_labels=exec_labels(config.labels, modules)),
        linux=linux.replace(devices=devices, device_rules=rules, cgroups_path=path, sysctl=_sysctls(linux)),
    )


def _in_some_mounts(linux: Linux) -> Linux:
    """Without a mount namespace the container inherits our own (runtime-spec config-linux.md, "Namespaces")."""
    if any(namespace.type == "mount" for namespace in linux.namespaces):
        return linux
    from cloison.oci.runtime import Namespace

    inherited: Linux = linux.replace(namespaces=(*linux.namespaces, Namespace(type="mount", path=_OUR_MOUNTS)))
    return inherited


def _sysctls(linux: Linux) -> dict[str, str]:
    from cloison.runtime.sysctls import check_sysctls

    own = {namespace.type for namespace in linux.namespaces if not (namespace.path and _is_ours(namespace.path))}
    return check_sysctls(linux.sysctl, own_network="network" in own, own_ipc="ipc" in own, own_uts="uts" in own)


def _is_ours(path: str) -> bool:
    """Whether this file stands for a namespace of the host: to join it is to share it."""
    try:
        theirs = os.stat(path)
        ours = [os.stat(f"/proc/self/ns/{name}") for name in ("net", "ipc", "uts")]
    except OSError:
        return True  # nothing to join: the launch will say so
    return any(os.path.samestat(theirs, one) for one in ours)


def complete_process(process: Process) -> Process:
    """Ambient capabilities that the kernel would refuse, as not inheritable or permitted, are left out, as by runc."""
    sets = process.capabilities
    held = set(sets.inheritable).intersection(sets.permitted)
    ambient = tuple(name for name in sets.ambient if name in held)
    if ambient == sets.ambient:
        return process
    changed: Capabilities = sets.replace(ambient=ambient)
    return process.replace(capabilities=changed)


def with_groups(process: Process) -> Process:
    """The caller's own groups, too, for files that are theirs."""
    groups = tuple(dict.fromkeys((*process.user.additional_gids, *os.getgroups())))
    return process.replace(user=process.user.replace(additional_gids=groups))


def seccomp_filter(config: Config, *, cache: str) -> Filter:
    """The compiled filter, from its cache. Raises: InvalidArgument, Unsupported."""
    profile = config.seccomp
    if not isinstance(profile, dict) or not profile:
        if profile not in (None, {}):
            raise InvalidArgument("invalid config.json", why="linux.seccomp is not an object")
        return UNCONFINED
    from cloison.linux.seccomp_flags import filter_flags
    from cloison.runtime.seccomp_cache import custom_filter

    flags = filter_flags(profile)
    mask = mask_of(config.spec.process.capabilities.bounding)
    path = custom_filter(cache, profile_text=dumps(profile), capabilities_mask=mask)
    if config.spec.annotations.get(_FAIL_UNKNOWN, "0") not in ("", "0"):
        _check_names(profile)
    return Filter(program=read_file(path), flags=flags)


def connect_agent(config: Config) -> Agent | None:
    """Whoever answers calls that the filter asks about, None when it asks nobody. Raises: Unavailable."""
    if not isinstance(config.seccomp, dict) or not config.seccomp.get("listenerPath"):
        return None
    from cloison.oci_runtime.agent import agent_of

    return agent_of(config)


def _check_names(profile: dict[str, Any]) -> None:
    from cloison.linux.seccomp_json import unknown_names

    if names := unknown_names(profile):
        raise InvalidArgument(
            "invalid seccomp profile", why=f"no machine has a system call {names[0][:64]!r}",
            hint=f"the annotation {_FAIL_UNKNOWN} asks to be told",
        )  # fmt: skip


def with_home(process: Process, root: str) -> Process:
    """HOME as the container's /etc/passwd has it, unless the process brings its own; ``root``: our path of its root."""
    if any(variable.startswith("HOME=") and variable != "HOME=" for variable in process.env):
        return process
    env = tuple(variable for variable in process.env if variable != "HOME=")
    return process.replace(env=(*env, f"HOME={_home(process.user.uid, root)}"))


def _home(uid: int, root: str) -> str:
    from cloison.errors import CloisonError
    from cloison.linux.paths import read_regular

    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        passwd = read_regular(fd, b"/etc/passwd", limit=_MAX_PASSWD)
    except (CloisonError, OSError):
        return "/"
    finally:
        os.close(fd)
    for line in passwd.split(b"\n"):
        fields = line.decode(errors="surrogateescape").split(":")
        if len(fields) > 5 and fields[2] == str(uid) and "\0" not in fields[5]:
            return fields[5] or "/"
    return "/"
