"""Labels of security modules, against a file tree that looks like a kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloison.model.mount import Mount
from cloison.oci.config_json import Labels
from cloison.oci.runtime import Process
from cloison.runtime.facts import HostFacts
from cloison.runtime.labels import Modules, exec_labels, labelled, read_modules
from cloison.runtime.process import Filter, plan_command

LABEL = "system_u:system_r:container_t:s0:c1,c2"
BOTH = Labels(apparmor_profile="web", selinux_label=LABEL, mount_label="system_u:object_r:container_file_t:s0:c1,c2")


def kernel(top: Path, *files: str) -> Modules:
    for file in files:
        name, _, text = file.partition("=")
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_modules(sys=str(top / "sys"), proc=str(top / "proc"))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), Modules()),
        (("sys/module/apparmor/parameters/enabled=N\n",), Modules()),
        (("sys/module/apparmor/parameters/enabled=Y\n",), Modules(apparmor="exec")),
        (
            ("sys/module/apparmor/parameters/enabled=Y\n", "proc/self/attr/apparmor/exec="),
            Modules(apparmor="apparmor/exec"),
        ),
        (("sys/fs/selinux/enforce=0",), Modules(selinux="exec")),
    ],
)
def test_modules_are_those_of_the_kernel(tmp_path: Path, files: tuple[str, ...], expected: Modules) -> None:
    assert kernel(tmp_path, *files) == expected


def test_a_machine_without_modules_passes_labels_over() -> None:
    mounts = (Mount(type="tmpfs", source="tmpfs", target="/run"),)
    assert exec_labels(BOTH, Modules()) == ()
    assert labelled(mounts, label=BOTH.mount_label, modules=Modules()) == mounts


def test_each_module_is_told_its_own() -> None:
    modules = Modules(apparmor="apparmor/exec", selinux="exec")
    assert exec_labels(BOTH, modules) == (("apparmor/exec", "exec web"), ("exec", LABEL))
    assert exec_labels(Labels(), modules) == ()


def test_the_containers_own_file_systems_carry_the_mount_label() -> None:
    mounts = (
        Mount(type="tmpfs", source="tmpfs", target="/run", options=("size=1m",)),
        Mount(type="bind", source="/srv", target="/srv"),
        Mount(type="proc", source="proc", target="/proc"),
    )
    tmpfs, *others = labelled(mounts, label=BOTH.mount_label, modules=Modules(selinux="exec"))
    assert tmpfs.options == ("size=1m", f"context={BOTH.mount_label}")
    assert tuple(others) == mounts[1:]


def test_the_label_is_written_before_rights_are_given_up() -> None:
    process = Process(args=("true",), exec_labels=(("apparmor/exec", "exec web"),))
    verbs = [op.verb for op in plan_command(process, facts=HostFacts(), seccomp=Filter(program=b"x" * 8))]
    assert verbs.index("exec-label") < min(
        verbs.index(verb) for verb in ("bounding", "user", "capabilities", "seccomp")
    )
