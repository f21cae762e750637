"""``linux`` of a bundle's config.json -> `Linux` (runtime-spec, config-linux.md)."""

from __future__ import annotations

from cloison.oci.config_mounts import parse_mappings
from cloison.oci.config_resources import parse_device_rules, parse_resources
from cloison.oci.runtime import Device, Linux, Namespace, NetDevice, Rdt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.oci.fields import Fields

_ENTRIES = 4096
_ID = (1 << 32) - 1
_NAMESPACES = ("mount", "pid", "network", "ipc", "uts", "cgroup", "user", "time")
_PROPAGATIONS = tuple(f"{r}{kind}" for kind in ("private", "slave", "shared", "unbindable") for r in ("", "r"))
_INTERFACE = 15  # bytes of a name (linux/if.h, IFNAMSIZ)


def parse_linux(fields: Fields) -> Linux:
    """Raises: InvalidArgument with the path of the field; Unsupported."""
    resources = fields.inner("resources")
    linux = Linux(
        namespaces=_namespaces(fields),
        uid_mappings=parse_mappings(fields, "uidMappings"),
        gid_mappings=parse_mappings(fields, "gidMappings"),
        time_offsets=_time_offsets(fields.inner("timeOffsets")),
        devices=fields.objects("devices", _device, limit=_ENTRIES),
        net_devices=_net_devices(fields),
        rdt=_rdt(fields.inner("intelRdt")) if fields.has("intelRdt") else None,
        device_rules=parse_device_rules(resources),
        cgroups_path=fields.text("cgroupsPath", default=""),
        resources=parse_resources(resources),
        rootfs_propagation=fields.choice("rootfsPropagation", _PROPAGATIONS, default=""),
        sysctl=fields.text_map("sysctl"),
        masked_paths=_paths(fields, "maskedPaths"),
        readonly_paths=_paths(fields, "readonlyPaths"),
    )
    return _placed(linux, fields) if fields.has("memoryPolicy") or fields.has("personality") else linux


def _placed(linux: Linux, fields: Fields) -> Linux:
    from cloison.oci.config_scheduling import parse_memory_policy, parse_personality

    return linux.replace(
        memory_policy=parse_memory_policy(fields.inner("memoryPolicy")) if fields.has("memoryPolicy") else None,
        personality=parse_personality(fields.inner("personality")) if fields.has("personality") else None,
    )


def _namespaces(fields: Fields) -> tuple[Namespace, ...]:
    found = fields.objects("namespaces", _namespace, limit=_ENTRIES)
    # config-linux.md: "If a namespaces field contains duplicated namespaces with same type, the runtime MUST generate
    # an error."
    if len({namespace.type for namespace in found}) < len(found):
        raise fields.invalid("namespaces", "has two entries of one type")
    return found


def _namespace(fields: Fields) -> Namespace:
    path = fields.text("path", default="")
    if path and not path.startswith("/"):
        raise fields.invalid("path", "is not an absolute path")
    return Namespace(type=fields.choice("type", _NAMESPACES), path=path)


def _time_offsets(fields: Fields) -> dict[str, tuple[int, int]]:
    offsets = {}
    for clock in ("monotonic", "boottime"):
        if fields.has(clock):
            offset = fields.inner(clock)
            offsets[clock] = (offset.whole("secs") or 0, offset.whole("nanosecs", least=0, most=999_999_999) or 0)
    return offsets


def _device(fields: Fields) -> Device:
    path, kind = fields.text("path"), fields.choice("type", ("c", "b", "u", "p"))
    if not path.startswith("/"):
        raise fields.invalid("path", "is not an absolute path")
    # "major, minor (int64, REQUIRED unless type is p)"
    major, minor = (fields.whole(name, least=0, most=_ID) for name in ("major", "minor"))
    if kind != "p" and (major is None or minor is None):
        raise fields.invalid("major" if major is None else "minor", "is missing")
    mode = fields.whole("fileMode", least=0, most=0o177777)
    return Device(
        path=path, type=kind, major=major or 0, minor=minor or 0, mode=0o666 if mode is None else mode & 0o7777,
        uid=fields.whole("uid", least=0, most=_ID - 1) or 0, gid=fields.whole("gid", least=0, most=_ID - 1) or 0,
    )  # fmt: skip


def _paths(fields: Fields, name: str) -> tuple[str, ...]:
    paths = fields.texts(name)
    for path in paths:
        if not path.startswith("/"):
            raise fields.invalid(name, f"has {path[:64]!r}, not an absolute path")
    return paths


def _net_devices(fields: Fields) -> tuple[NetDevice, ...]:
    devices = fields.inner("netDevices")
    found = []
    for name in devices.keys(""):
        device = NetDevice(name=name, new_name=devices.inner(name).text("name", default="") or name)
        for word in (device.name, device.new_name):
            if word in (".", "..", "") or len(word.encode()) > _INTERFACE or not {"/", ":", " "}.isdisjoint(word):
                raise fields.invalid("netDevices", f"has {word[:64]!r}, which is no name of a network device")
        found.append(device)
    if len({device.new_name for device in found}) < len(found):
        raise fields.invalid("netDevices", "gives one name to two devices")
    # config-linux.md: "The runtime MUST check that there is a network namespace […] and return an error if not"
    if found and not any(namespace.type == "network" for namespace in _namespaces(fields)):
        raise fields.invalid("netDevices", "needs a network namespace")
    return tuple(found)


def _rdt(fields: Fields) -> Rdt:
    texts = (*fields.texts("schemata"), *(fields.text(name, default="") for name in ("l3CacheSchema", "memBwSchema")))
    schemata = tuple(line for text in texts for line in text.splitlines() if line)
    for line in schemata:
        if not line.isascii() or ":" not in line:
            raise fields.invalid("schemata", f"has {line[:64]!r}, which is not RESOURCE:DOMAIN=VALUE")
    watched = [fields.flag(word) for word in ("enableMonitoring", "enableCMT", "enableMBM")]
    return Rdt(id=fields.text("closID", default=""), schemata=schemata, monitoring=any(watched))
