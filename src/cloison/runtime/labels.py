"""Security modules: which this machine has, and what they are told of a container (runtime-spec config.md, "Process").

A machine without the module has nothing to enforce: then labels are passed over, as callers count on.
"""

from __future__ import annotations

import os

from cloison.model.record import Record
from cloison.store.atomic import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloison.model.mount import Mount
    from cloison.oci.config_json import Labels

_LABELLED = ("tmpfs", "devpts", "mqueue", "ramfs")  # file systems of the container's own, which take a context


class Modules(Record):
    """File below /proc/self/attr for the label of the next execve; "" where there is no such module."""

    apparmor: str = ""
    selinux: str = ""


def read_modules(*, sys: str = "/sys", proc: str = "/proc") -> Modules:
    """What the kernel says it has."""
    modules = Modules()
    if _text(f"{sys}/module/apparmor/parameters/enabled").startswith("Y"):
        # The common file belongs to the first module alone; AppArmor has its own since Linux 5.8
        own = "apparmor/exec"
        modules = modules.replace(apparmor=own if os.path.exists(f"{proc}/self/attr/{own}") else "exec")
    if os.path.exists(f"{sys}/fs/selinux/enforce"):
        modules = modules.replace(selinux="exec")
    return modules


def exec_labels(labels: Labels, modules: Modules) -> tuple[tuple[str, str], ...]:
    """(file, what is written to it) before the command is executed."""
    found = [*apparmor_label(labels.apparmor_profile, modules)]
    if modules.selinux and labels.selinux_label:
        found.append((modules.selinux, labels.selinux_label))
    return tuple(found)


def apparmor_label(profile: str, modules: Modules) -> tuple[tuple[str, str], ...]:
    """The same for AppArmor alone; "" is no profile."""
    return ((modules.apparmor, f"exec {profile}"),) if modules.apparmor and profile else ()


def labelled(mounts: tuple[Mount, ...], *, label: str, modules: Modules) -> tuple[Mount, ...]:
    """The mounts with linux.mountLabel as the context of everything on them."""
    if not (modules.selinux and label):
        return mounts
    return tuple(
        mount.replace(options=(*mount.options, f"context={label}")) if mount.type in _LABELLED else mount
        for mount in mounts
    )


def _text(path: str) -> str:
    try:
        return read_file(path).decode()
    except OSError:
        return ""
