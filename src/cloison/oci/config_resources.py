"""``linux.resources`` of the runtime specification: limits and device rules, of a config.json or of an update.

Callers write 0 for "leave it alone" (Docker and containerd do so for every number), so 0 is absent wherever the kernel
has no use for it.
"""

from __future__ import annotations

from cloison.model.container import ControlValue, DeviceRate, Resources
from cloison.oci.runtime import DeviceRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cloison.oci.fields import Fields

_ENTRIES = 4096
_U32 = (1 << 32) - 1
_INT = (1 << 63) - 1


def parse_resources(fields: Fields) -> Resources:
    """Raises: InvalidArgument with the path of the field."""
    memory, cpu, block = fields.inner("memory"), fields.inner("cpu"), fields.inner("blockIO")
    rates: dict[str, Any] = {
        name: block.objects(f"throttle{word}Device", _rate, limit=_ENTRIES)
        for name, word in (
            ("read_bps", "ReadBps"), ("write_bps", "WriteBps"), ("read_iops", "ReadIOPS"), ("write_iops", "WriteIOPS"),
        )
    }  # fmt: skip
    return Resources(
        memory_bytes=memory.whole("limit", least=-1, most=_INT) or None,
        memory_swap_bytes=memory.whole("swap", least=-1, most=_INT) or None,
        memory_reservation_bytes=memory.whole("reservation", least=-1, most=_INT) or None,
        cpu_shares=cpu.whole("shares", least=0) or None,
        cpu_quota_us=cpu.whole("quota", least=-1, most=_INT) or None,
        cpu_period_us=cpu.whole("period", least=0) or None,
        cpuset_cpus=cpu.text("cpus", default=""),
        cpuset_mems=cpu.text("mems", default=""),
        pids_limit=fields.inner("pids").whole("limit", least=-1, most=_INT) or None,
        blkio_weight=block.whole("weight", least=0, most=1000) or None,
        values=(
            *_memory_values(memory), *_cpu_values(cpu), *_weights(block), *_huge_pages(fields), *_network(fields),
            *_rdma(fields), *_unified(fields),
        ),
        **rates,
    )  # fmt: skip


def parse_device_rules(fields: Fields) -> tuple[DeviceRule, ...]:
    """``resources.devices``, in order. Raises: InvalidArgument."""
    return fields.objects("devices", _device_rule, limit=_ENTRIES)


def _device_rule(fields: Fields) -> DeviceRule:
    access = fields.text("access", default="") or "rwm"
    if not set("rwm").issuperset(access):
        raise fields.invalid("access", f"is {access[:16]!r}, not made of r, w and m")
    major, minor = (fields.whole(name, least=-1, most=_U32) for name in ("major", "minor"))
    return DeviceRule(
        allow=fields.flag("allow"),
        type=fields.choice("type", ("a", "b", "c", "u", "p"), default="") or "a",
        major=None if major == -1 else major,
        minor=None if minor == -1 else minor,
        access=access,
    )


def _rate(fields: Fields) -> DeviceRate:
    return DeviceRate(path=_device_number(fields), rate=fields.number("rate"))


def _device_number(fields: Fields) -> str:
    return f"{fields.number('major')}:{fields.number('minor')}"


def _memory_values(memory: Fields) -> Iterable[ControlValue]:
    # limits of the kernel's own memory (``kernel``, ``kernelTCP``) went with Linux 6.1: passed over, as by runc
    swappiness = memory.whole("swappiness", least=0)
    if swappiness is not None and swappiness <= 100:
        yield ControlValue(controller="memory", v1="memory.swappiness", value=str(swappiness))
    elif swappiness is not None and swappiness != (1 << 64) - 1:  # -1 of older callers
        raise memory.invalid("swappiness", "is not a number from 0 to 100")
    if memory.flag("disableOOMKiller"):
        yield ControlValue(controller="memory", v1="memory.oom_control", value="1")


def _cpu_values(cpu: Fields) -> Iterable[ControlValue]:
    for field, v1, v2 in (
        ("burst", "cpu.cfs_burst_us", "cpu.max.burst"),
        ("realtimePeriod", "cpu.rt_period_us", ""),
        ("realtimeRuntime", "cpu.rt_runtime_us", ""),
        ("idle", "cpu.idle", "cpu.idle"),
    ):
        value = cpu.whole(field, most=_INT)
        if value:
            yield ControlValue(controller="cpu", v1=v1, v2=v2, value=str(value))


def _weights(block: Fields) -> tuple[ControlValue, ...]:
    def weight(fields: Fields) -> ControlValue:
        value = fields.whole("weight", least=10, most=1000) or 0
        text = f"{_device_number(fields)} {value}"
        return ControlValue(controller="blkio", v1="blkio.bfq.weight_device", v2="io.bfq.weight", value=text)

    return block.objects("weightDevice", weight, limit=_ENTRIES)


def _huge_pages(resources: Fields) -> tuple[ControlValue, ...]:
    def limit(fields: Fields) -> ControlValue:
        size = fields.text("pageSize")
        number, unit = size[:-2], size[-2:]
        if unit not in ("KB", "MB", "GB") or not (number.isascii() and number.isdigit()):
            raise fields.invalid("pageSize", f"is {size[:32]!r}, not a size as 2MB or 1GB")
        value = str(fields.number("limit"))
        return ControlValue(
            controller="hugetlb", v1=f"hugetlb.{size}.limit_in_bytes", v2=f"hugetlb.{size}.max", value=value
        )

    return resources.objects("hugepageLimits", limit, limit=_ENTRIES)


def _network(resources: Fields) -> Iterable[ControlValue]:
    network = resources.inner("network")
    if class_id := network.whole("classID", least=0, most=_U32):
        yield ControlValue(controller="net_cls", v1="net_cls.classid", value=str(class_id))

    def priority(fields: Fields) -> ControlValue:
        name = fields.text("name")
        if not name or " " in name or "\n" in name or len(name) > 15:
            raise fields.invalid("name", "is not the name of a network interface")
        return ControlValue(controller="net_prio", v1="net_prio.ifpriomap", value=f"{name} {fields.number('priority')}")

    yield from network.objects("priorities", priority, limit=_ENTRIES)


def _rdma(resources: Fields) -> Iterable[ControlValue]:
    devices = resources.inner("rdma")
    for name in devices.keys(""):
        limits = devices.inner(name)
        words = [
            f"{word}={value}"
            for word, field in (("hca_handle", "hcaHandles"), ("hca_object", "hcaObjects"))
            if (value := limits.whole(field, least=0, most=_U32)) is not None
        ]
        if words:
            yield ControlValue(controller="rdma", v1="rdma.max", v2="rdma.max", value=f"{name} {' '.join(words)}")


def _unified(resources: Fields) -> Iterable[ControlValue]:
    for file, value in resources.text_map("unified").items():
        controller, dot, _rest = file.partition(".")
        if not dot or "/" in file or not file.isascii():
            raise resources.invalid("unified", f"has {file[:64]!r}, not the name of a control file")
        yield ControlValue(controller=controller, v2=file, value=value)
