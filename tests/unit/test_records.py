"""Records: frozen values that survive the way to disk and back."""

from __future__ import annotations

import pytest

from cloison.model.container import ContainerRecord, ContainerSpec, PortMapping, Resources
from cloison.model.record import Record, from_plain, to_plain
from cloison.store import json


class Point(Record):
    x: int
    y: int = 0


def test_a_record_refuses_unknown_and_missing_fields() -> None:
    with pytest.raises(TypeError, match="no field z"):
        Point(x=1, z=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="needs 'x'"):
        Point()  # type: ignore[call-arg]


def test_a_record_is_frozen_and_comparable() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError):
        point.x = 2  # type: ignore[misc]
    assert point == Point(x=1, y=0)
    assert point.replace(y=3) == Point(x=1, y=3)
    assert {point, Point(x=1)} == {point}
    assert repr(point) == "Point(x=1)"


def test_a_container_record_survives_json() -> None:
    spec = ContainerSpec(
        image="a",
        ports=(PortMapping(container_port=80, host_port=8080),),
        resources=Resources(memory_bytes=1 << 20),
        labels={"k": "ä\n"},
        entrypoint=(),
    )
    record = ContainerRecord(
        id="0" * 64, name="x", created_ns=1, spec=spec, image_id="sha256:0", argv=("sh",), env=("A=b",), workdir="/",
        user="", stop_signal="TERM", layers=("sha256:1",),
    )  # fmt: skip
    assert from_plain(ContainerRecord, json.loads(json.dumps(to_plain(record)))) == record


@pytest.mark.parametrize("text", ["", "{", "NaN", "[1] 2", "[" * 100_000, '{"a":}', "Infinity"])
def test_broken_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        json.loads(text)
