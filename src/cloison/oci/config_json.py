"""``config.json`` of a bundle -> `Spec` (runtime-spec 1.2, config.md). Pure: nothing of the machine is looked at.

A field of the wrong type, out of its bounds, or missing where the specification says REQUIRED is an error that names
its place; unknown fields pass ("Extensibility").
"""

from __future__ import annotations

from cloison.errors import Unsupported
from cloison.model.mount import Mount
from cloison.model.record import Record
from cloison.oci.config_linux import parse_linux
from cloison.oci.config_mounts import absolute, parse_mount
from cloison.oci.fields import Fields
from cloison.oci.runtime import Capabilities, Hook, Hooks, Process, Rlimit, Root, Spec, User

DOCUMENT = "config.json"
_ENTRIES = 4096
_UNLIMITED = (1 << 64) - 1
_ID = (1 << 32) - 2
_HOOKS = {
    "prestart": "prestart", "createRuntime": "create_runtime", "createContainer": "create_container",
    "startContainer": "start_container", "poststart": "poststart", "poststop": "poststop",
}  # fmt: skip
_SCHEDULING = ("scheduler", "ioPriority", "execCPUAffinity")


class Labels(Record):
    """What security modules are told; the machine decides whether it has them."""

    apparmor_profile: str = ""
    selinux_label: str = ""
    mount_label: str = ""


class Config(Record):
    """A bundle's configuration: the spec, and what stands beside it."""

    oci_version: str
    spec: Spec
    has_process: bool = True  # a container without one can be made, and not be started
    seccomp: object = None  # linux.seccomp as it stands
    labels: Labels = Labels()


def parse_config(value: object, *, bundle: str) -> Config:
    """Raises: InvalidArgument with the place of the fault; Unsupported."""
    fields = Fields(value, document=DOCUMENT)
    version = fields.text("ociVersion")
    if version.partition(".")[0] != "1":
        raise Unsupported(f"ociVersion {version[:32]!r} is not supported", why="this is a runtime for version 1")
    has_process = fields.has("process")
    process = fields.inner("process")
    linux_fields = fields.inner("linux")
    linux = parse_linux(linux_fields)
    spec = Spec(
        process=parse_process(process) if has_process else Process(args=("/",)),
        root=_root(fields, bundle),
        hostname=fields.text("hostname", default=""),
        domainname=fields.text("domainname", default=""),
        mounts=fields.objects("mounts", lambda mount: parse_mount(mount, bundle=bundle, linux=linux), limit=_ENTRIES),
        linux=linux,
        annotations=_annotations(fields),
        hooks=_hooks(fields.inner("hooks")),
    )
    labels = Labels(
        apparmor_profile=process.text("apparmorProfile", default=""),
        selinux_label=process.text("selinuxLabel", default=""),
        mount_label=linux_fields.text("mountLabel", default=""),
    )
    seccomp = linux_fields.raw("seccomp")
    return Config(oci_version=version, spec=spec, has_process=has_process, seccomp=seccomp, labels=labels)


def parse_process(fields: Fields) -> Process:
    """``process``, or the whole of an exec's process file. Raises: InvalidArgument, Unsupported."""
    args = fields.texts("args")
    if not args:
        raise fields.invalid("args", "is empty: a process needs a command")
    cwd = fields.text("cwd")
    if not cwd.startswith("/"):
        raise fields.invalid("cwd", "is not an absolute path")
    size = fields.inner("consoleSize")
    adjustment = fields.whole("oomScoreAdj", least=-1000, most=1000)
    process = Process(
        args=args,
        env=fields.texts("env"),
        cwd=cwd,
        terminal=fields.flag("terminal"),
        console_size=(size.whole("height", least=0, most=65535) or 0, size.whole("width", least=0, most=65535) or 0),
        user=_user(fields.inner("user")),
        capabilities=_capabilities(fields.inner("capabilities")),
        rlimits=_rlimits(fields),
        no_new_privileges=fields.flag("noNewPrivileges"),
        oom_score_adj=adjustment,
    )
    return _scheduled(process, fields) if any(map(fields.has, _SCHEDULING)) else process


def _scheduled(process: Process, fields: Fields) -> Process:
    from cloison.oci.config_scheduling import parse_exec_cpus, parse_io_priority, parse_scheduler

    return process.replace(
        scheduler=parse_scheduler(fields.inner("scheduler")) if fields.has("scheduler") else None,
        io_priority=parse_io_priority(fields.inner("ioPriority")) if fields.has("ioPriority") else None,
        exec_cpus=parse_exec_cpus(fields.inner("execCPUAffinity")),
    )


def _user(fields: Fields) -> User:
    umask = fields.whole("umask", least=0, most=0o777)
    return User(
        uid=fields.whole("uid", least=0, most=_ID) or 0,
        gid=fields.whole("gid", least=0, most=_ID) or 0,
        umask=0o022 if umask is None else umask,
        additional_gids=fields.wholes("additionalGids", most=_ID),
    )


def _capabilities(fields: Fields) -> Capabilities:
    sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
    return Capabilities(**{name: fields.texts(name) for name in sets})


def _rlimits(fields: Fields) -> tuple[Rlimit, ...]:
    limits = fields.objects("rlimits", _rlimit, limit=_ENTRIES)
    # config.md: "If rlimits contains duplicated entries with same type, the runtime MUST generate an error."
    if len({limit.type for limit in limits}) < len(limits):
        raise fields.invalid("rlimits", "has two entries of one type")
    return limits


def _rlimit(fields: Fields) -> Rlimit:
    soft, hard = (fields.whole(name, least=0) for name in ("soft", "hard"))
    if soft is None or hard is None:
        raise fields.invalid("soft" if soft is None else "hard", "is missing")
    return Rlimit(type=fields.text("type"), soft=_limit(soft), hard=_limit(hard))


def _limit(value: int) -> int:
    return -1 if value == _UNLIMITED else value


def _root(fields: Fields, bundle: str) -> Root:
    if not fields.has("root"):
        raise fields.invalid("root", "is missing")
    root = fields.inner("root")
    path = root.text("path")
    if not path:
        raise root.invalid("path", "is empty")
    mount = Mount(type="bind", source=absolute(path, bundle), target="/")
    return Root(mount=mount, readonly=root.flag("readonly"))


def _annotations(fields: Fields) -> dict[str, str]:
    annotations = fields.text_map("annotations")
    if "" in annotations:
        raise fields.invalid("annotations", "has an empty key")  # config.md: "Keys MUST NOT be an empty string"
    return annotations


def _hooks(fields: Fields) -> Hooks:
    return Hooks(**{name: fields.objects(word, _hook, limit=_ENTRIES) for word, name in _HOOKS.items()})


def _hook(fields: Fields) -> Hook:
    path = fields.text("path")
    if not path.startswith("/"):
        raise fields.invalid("path", "is not an absolute path")
    timeout_s = fields.whole("timeout", most=1 << 31)
    if timeout_s is not None and timeout_s <= 0:
        raise fields.invalid("timeout", "is not greater than zero")
    return Hook(path=path, args=fields.texts("args"), env=fields.texts("env"), timeout_s=timeout_s or 0)
