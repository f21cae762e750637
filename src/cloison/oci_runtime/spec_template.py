"""``spec``: a config.json to begin with, the container of which runs a shell in ``rootfs``."""

from __future__ import annotations

import os
from errno import EEXIST

from cloison.errors import Conflict
from cloison.oci_runtime.main import SPEC_VERSION
from cloison.oci_runtime.options import Call, Verb
from cloison.runtime import defaults
from cloison.store.atomic import disk_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cloison.model.mount import Mount

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _spec(call: Call) -> int:
    import json  # for people: indented

    path = f"{os.path.abspath(call.text('bundle', '.'))}/config.json"
    text = json.dumps(template(rootless=call.switch("rootless")), indent="\t") + "\n"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as err:
        if err.errno == EEXIST:
            raise Conflict(f"file {path} exists", why="remove it first") from err
        raise disk_error(path, err) from err
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
    return 0


def template(*, rootless: bool) -> dict[str, Any]:
    """The document. ``rootless``: the caller alone, as root inside, without what takes rights on the host."""
    sets = {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")}
    kinds = ["pid", "ipc", "uts", "mount", "cgroup", "user" if rootless else "network"]
    linux: dict[str, Any] = {
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": list(defaults.MASKED_PATHS),
        "readonlyPaths": list(defaults.READONLY_PATHS),
    }
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    else:
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [_PATH, "TERM=xterm"],
            "cwd": "/",
            "capabilities": sets,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "cloison",
        "mounts": [_mount(mount, rootless=rootless) for mount in defaults.mounts() if _is_for(mount, rootless)],
        "linux": linux,
    }


def _is_for(mount: Mount, rootless: bool) -> bool:
    return not (rootless and mount.type == "cgroup")


def _mount(mount: Mount, *, rootless: bool) -> dict[str, Any]:
    if rootless and mount.type == "sysfs":  # a new one shows a network namespace, and that is the host's
        options = ["rbind", *mount.options]
        return {"destination": mount.target, "type": "bind", "source": "/sys", "options": options}
    # one id alone is mapped: there is no group 5
    options = [word for word in mount.options if not (rootless and word == "gid=5")]
    return {"destination": mount.target, "type": mount.type, "source": mount.source, "options": options}


SPEC = Verb(
    "spec", _spec, usage="", options={"bundle": "text", "rootless": "switch"},
    short={"b": "bundle"}, least=0, most=0,
)  # fmt: skip
