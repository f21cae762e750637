"""``features``: what this runtime can, for callers that ask before they try (runtime-spec, features.md)."""

from __future__ import annotations

import os

from cloison.linux.capabilities import CAPABILITIES
from cloison.linux.command import find
from cloison.linux.seccomp_flags import FLAGS
from cloison.oci.config_scheduling import MEMORY_FLAGS, MEMORY_MODES
from cloison.oci_runtime.log import say
from cloison.oci_runtime.main import SPEC_VERSION
from cloison.oci_runtime.options import Call, Verb
from cloison.store.json import dumps

_MOUNT_OPTIONS = (
    "async atime bind copy-symlink defaults dest-nofollow dev diratime dirsync exec idmap iversion lazytime loud "
    "mand noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow "
    "private ratime rbind rdev rdiratime relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec "
    "rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime "
    "rsuid rsymfollow runbindable rw shared silent slave src-nofollow strictatime suid symfollow sync tmpcopyup "
    "unbindable"
).split()
_NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")
_ACTIONS = ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "NOTIFY", "TRACE", "TRAP")
_OPERATORS = ("EQ", "GE", "GT", "LE", "LT", "MASKED_EQ", "NE")
_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "aarch64": ["SCMP_ARCH_AARCH64"],
}  # fmt: skip


def _features(call: Call) -> int:
    from cloison import __version__

    say(dumps({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": _MOUNT_OPTIONS,
        "linux": {
            "namespaces": list(_NAMESPACES),
            "capabilities": list(CAPABILITIES),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": [f"SCMP_ACT_{word}" for word in _ACTIONS],
                "operators": [f"SCMP_CMP_{word}" for word in _OPERATORS],
                "archs": _ARCHITECTURES.get(os.uname().machine, []),
                "knownFlags": list(FLAGS),
                "supportedFlags": list(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {"modes": list(MEMORY_MODES), "flags": list(MEMORY_FLAGS)},
            "netDevices": {"enabled": True},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {
            "org.cloison.version": __version__,
            # The name that callers know: podman and containerd look for runc's
            "org.opencontainers.runc.checkpoint.enabled": "true" if find(call.criu or "criu") else "false",
        },
        "potentiallyUnsafeConfigAnnotations": ["run.oci."],
    }) + "\n")  # fmt: skip
    return 0


FEATURES = Verb("features", _features, usage="", least=0, most=0)
