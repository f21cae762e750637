"""``explain``: the launch plan of a ``run``, each operation with what it is for."""

from __future__ import annotations

from cloison.cli import output
from cloison.cli.container_spec import container_spec
from cloison.cli.parser import Verb
from cloison.cli.run_flags import CREATE_FLAGS, LATER, RUN_ONLY_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloison.cli.call import Call

# verb of the plan (docs/launch-plan.md) -> what it does for the container
MEANINGS: Mapping[str, str] = {
    "detach": "let the caller go on: nobody waits for this container",
    "legacy-mounts": "use mount(2), this kernel has no newer calls",
    "new-namespaces": "a view of its own on these parts of the system",
    "time-namespace": "clocks of its own",
    "join-pid-namespace": "see the processes of that namespace",
    "enter-namespace": "enter a namespace before the process is born",
    "cgroup-fd": "be born inside the control group that holds the limits",
    "stdio": "where standard input, output and error go",
    "setgroups-deny": "nobody inside may drop groups to gain rights",
    "uid-map": "which users inside are which users outside",
    "gid-map": "which groups inside are which groups outside",
    "cgroup-join": "enter a control group that holds limits",
    "await-client": "until the limits are set",
    "new-network": "make a network of its own, beside the child",
    "join-network": "enter the network that was made meanwhile",
    "await-parent": "wait until maps and limits are in force",
    "join-namespaces": "enter the namespaces of a running container",
    "join-namespace": "enter a namespace that exists",
    "unshare": "a view of its own on these, after the limits are in force",
    "become": "be root of the user namespace",
    "loopback-up": "switch on 127.0.0.1",
    "send-netlink": "let the caller put an address on the container's own link",
    "keyring": "a session keyring of its own",
    "propagation": "keep mounts from spreading to the host",
    "root-overlay": "the root: read-only image layers under a writable one",
    "root-bind": "the root: a directory of the host",
    "mount": "mount a file system",
    "bind": "show a file or directory of the host inside",
    "bind-fd": "show an open file of the host inside",
    "unmount": "take off what is mounted there",
    "directory": "make a directory",
    "symlink": "make a symbolic link",
    "device": "make a device node",
    "console": "the terminal as /dev/console",
    "mask": "hide what would tell about the host",
    "readonly-path": "forbid writing to settings of the kernel",
    "readonly-root": "forbid writing to the root",
    "change-root": "see that root alone, by chroot",
    "pivot-root": "leave the host's file system behind",
    "hostname": "a host name of its own",
    "domainname": "a domain name of its own",
    "sysctl": "a kernel setting of the new namespaces",
    "rlimit": "a limit of the process",
    "oom-score-adj": "how soon the kernel kills it when memory runs out",
    "terminal": "a pseudo-terminal",
    "umask": "what new files do not allow",
    "bounding": "capabilities that can never be gained",
    "user": "the user and groups of the command",
    "capabilities": "the privileges that are left",
    "no-new-privs": "setuid programs give nothing",
    "seccomp": "the system calls that are allowed",
    "cwd": "the working directory, proven to be inside",
    "parent-death-signal": "die when the monitor dies",
    "await-start": "wait for the word to start",
    "init": "a small init reaps and forwards signals",
    "env": "the whole environment",
    "exec": "the command",
    "client": "the caller's end of the conversation",
    "listen": "where attach, resize and start come in",
    "keep": "hold this open until the end: a lock",
    "log": "keep the output here",
    "relay": "copy the output to the caller's descriptors",
    "exit-file": "write down how it ended",
    "exit-stat": "write down this figure at the end",
    "reap": "clean up with this command when nobody waits",
}
_WIDTH = 100


def explain(call: Call) -> int:
    """The plan, one operation a line, each kind introduced once."""
    lines: list[str] = []
    before = ""
    for line in call.engine.containers.dry_run(container_spec(call)).splitlines():
        verb = line.split(None, 1)[0] if line.split() else ""
        if verb in MEANINGS and verb != before:
            lines.append(f"# {MEANINGS[verb]}")
        before = verb
        lines.append(line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…")
    output.say("\n".join(lines))
    return 0


EXPLAIN = Verb(
    "explain", explain, summary="Explain what a run would do, step by step", usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
    flags=CREATE_FLAGS + RUN_ONLY_FLAGS, least=1, interspersed=False, later=LATER,
    details="Takes the words of 'cloison run' and shows the launch plan with each operation's reason. Nothing is run.",
)  # fmt: skip
