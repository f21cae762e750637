"""``update``: other limits for a container that lives, from a JSON document or from options."""

from __future__ import annotations

from cloison.errors import Conflict, InvalidArgument
from cloison.linux import cgroups
from cloison.model.container import Resources
from cloison.oci.config_resources import parse_resources
from cloison.oci.fields import Fields
from cloison.oci_runtime.containers import Containers
from cloison.oci_runtime.documents import read_document
from cloison.oci_runtime.options import Call, Verb

# option -> where its value stands in the document
_NUMBERS = {
    "blkio-weight": ("blockIO", "weight"), "cpu-period": ("cpu", "period"), "cpu-quota": ("cpu", "quota"),
    "cpu-burst": ("cpu", "burst"), "cpu-share": ("cpu", "shares"), "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"), "cpu-idle": ("cpu", "idle"), "pids-limit": ("pids", "limit"),
}  # fmt: skip
_SIZES = {
    "memory": ("memory", "limit"), "memory-reservation": ("memory", "reservation"), "memory-swap": ("memory", "swap"),
    "kernel-memory": ("memory", "kernel"), "kernel-memory-tcp": ("memory", "kernelTCP"),
}  # fmt: skip
_TEXTS = {"cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems")}


def _update(call: Call) -> int:
    containers = Containers(call.root)
    with containers.lock(call.id):
        container = containers.load(call.id)
        if containers.status(container) == "stopped":
            raise Conflict(f"cannot update container {call.id}", why="container not running")
        if not container.cgroup:
            raise Conflict(f"cannot update container {call.id}", why="it has no control group")
        resources = _resources(call)
        if container.unit:
            from cloison.oci_runtime import systemd_unit

            systemd_unit.update(container.unit, resources, runtime_directory=container.session)
        cgroups.update(cgroups.read_layout(), container.cgroup, resources=resources)
    return 0


def _resources(call: Call) -> Resources:
    """``--resources`` is the whole of it; options are for those who do without."""
    path = call.text("resources")
    document = read_document(path, name="resources")[1] if path else _from_options(call)
    return parse_resources(Fields(document, document="resources"))


def _from_options(call: Call) -> dict[str, dict[str, object]]:
    document: dict[str, dict[str, object]] = {}

    def put(place: tuple[str, str], value: object) -> None:
        document.setdefault(place[0], {})[place[1]] = value

    for name, place in _NUMBERS.items():
        if call.given(name):
            put(place, call.number(name))
    for name, place in _SIZES.items():
        if call.given(name):
            put(place, _size(name, call.text(name)))
    for name, place in _TEXTS.items():
        if call.given(name):
            put(place, call.text(name))
    return document


def _size(name: str, text: str) -> int:
    if text == "-1":
        return -1
    from cloison.model.units import parse_size

    try:
        return parse_size(text)
    except ValueError as err:
        raise InvalidArgument(f"invalid value for {name}", why=str(err)) from err


UPDATE = Verb(
    "update", _update, usage="CONTAINER",
    options={"resources": "text", **dict.fromkeys((*_NUMBERS, *_SIZES, *_TEXTS), "text")}, short={"r": "resources"},
)  # fmt: skip
