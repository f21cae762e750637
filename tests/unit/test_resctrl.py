"""Classes of cache and bandwidth, against a file tree that behaves as resctrl does."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest

from cloison.errors import Conflict, InvalidArgument, NotFound, Unavailable, Unsupported
from cloison.linux import resctrl
from cloison.oci.config_json import parse_config
from cloison.oci.runtime import Rdt
from oci_bundle import CONFIG


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory whose new ones have the kernel's files, and can be removed with them."""
    make, remove = os.mkdir, os.rmdir

    def new(path: str) -> None:
        make(path)
        Path(path, "tasks").touch()
        if Path(path).parent == tmp_path:
            Path(path, "schemata").write_text("    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n")
            make(f"{path}/mon_groups")

    def gone(path: str) -> None:
        for file in Path(path).iterdir():
            file.unlink() if file.is_file() else remove(file)
        remove(path)

    monkeypatch.setattr(os, "mkdir", new)
    monkeypatch.setattr(os, "rmdir", gone)
    return str(tmp_path)


def test_a_class_is_made_with_its_schemata_joined_and_removed(root: str) -> None:
    wanted = Rdt(schemata=("L3:0=f",))
    directory = resctrl.directory_of(wanted, root=root, container_id="c1")
    assert directory == f"{root}/c1"
    assert resctrl.check(wanted, root=root, container_id="c1")
    resctrl.make(directory, wanted.schemata)
    resctrl.join(directory, 42)
    assert Path(directory, "schemata").read_text().startswith("L3:0=f\n")
    assert Path(directory, "tasks").read_text() == "42"
    resctrl.remove(directory)
    resctrl.remove(directory)
    assert os.listdir(root) == []


def test_a_class_that_exists_must_say_what_is_asked_for(root: str) -> None:
    resctrl.make(f"{root}/gold")
    for lines in ((), ("L3:0=0fffff",), ("MB:1=100", "L3:1=FFFFF")):
        assert not resctrl.check(Rdt(id="gold", schemata=lines), root=root, container_id="c1")
    for line in ("L3:0=f", "L3:2=fffff", "L2:0=f"):
        with pytest.raises(Conflict, match="says otherwise"):
            resctrl.check(Rdt(id="gold", schemata=(line,)), root=root, container_id="c1")


def test_a_named_class_without_schemata_must_exist(root: str) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        resctrl.check(Rdt(id="gold"), root=root, container_id="c1")


@pytest.mark.parametrize("name", ["..", "a/b", "info", "mon_groups"])
def test_a_class_is_one_name(root: str, name: str) -> None:
    with pytest.raises(InvalidArgument, match="closID"):
        resctrl.directory_of(Rdt(id=name), root=root, container_id="c1")


def test_a_schema_that_the_kernel_refuses_leaves_no_class(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(Unavailable, match="L3:0=0"):
        resctrl.make(f"{root}/c1", ("L3:0=0",))
    assert os.listdir(root) == []


def test_monitoring_is_a_group_in_the_class(root: str) -> None:
    resctrl.make(f"{root}/gold")
    group = resctrl.monitoring_group(f"{root}/gold", "c1")
    resctrl.make(group)
    resctrl.join(group, 7)
    assert Path(root, "gold", "mon_groups", "c1", "tasks").read_text() == "7"


def test_a_machine_without_resctrl_says_so() -> None:
    if any(" - resctrl " in line for line in Path("/proc/self/mountinfo").read_text().splitlines()):
        pytest.skip("this machine has resctrl")
    with pytest.raises(Unsupported, match="resctrl"):
        resctrl.find_root()


def rdt(value: dict[str, Any]) -> Rdt | None:
    config = copy.deepcopy(CONFIG)
    config["linux"]["intelRdt"] = value
    return parse_config(config, bundle="/b").spec.linux.rdt


def test_old_and_new_fields_say_the_same() -> None:
    old = rdt({"closID": "gold", "l3CacheSchema": "L3:0=f\nL3:1=f", "memBwSchema": "MB:0=50", "enableCMT": True})
    new = rdt({"closID": "gold", "schemata": ["L3:0=f", "L3:1=f", "MB:0=50"], "enableMonitoring": True})
    assert old == new == Rdt(id="gold", schemata=("L3:0=f", "L3:1=f", "MB:0=50"), monitoring=True)
    assert rdt({}) == Rdt()
    with pytest.raises(InvalidArgument, match=r"linux\.intelRdt\.schemata"):
        rdt({"schemata": ["nonsense"]})
