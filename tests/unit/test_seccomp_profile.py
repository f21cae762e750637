"""What the default profile allows, asked of its compiled program."""

from __future__ import annotations

import errno
import socket

import pytest

import classic_bpf as bpf
from cloison.linux import seccomp
from cloison.linux.capabilities import CAPABILITIES, mask_of
from cloison.linux.seccomp import compile_profile, errno_action
from cloison.linux.syscalls import numbers
from cloison.runtime.seccomp_profile import default_profile

DEFAULT_CAPS = mask_of(
    ("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "SETGID", "SETUID", "SETFCAP", "SETPCAP", "NET_BIND_SERVICE",
     "SYS_CHROOT", "KILL")
)  # fmt: skip
DIRT = (0, 1 << 32, 1 << 63, 0xDEADBEEF << 32)
TABLE = numbers("x86_64")
EPERM, ENOSYS = errno_action(errno.EPERM), seccomp.ENOSYS

# security notes, "what Docker's profile blocks on x86-64", and the five additions of ours
BLOCKED = (
    "syslog uselib ustat sysfs vhangup pivot_root _sysctl acct settimeofday clock_settime mount umount2 swapon "
    "swapoff reboot sethostname setdomainname iopl ioperm create_module init_module finit_module delete_module "
    "get_kernel_syms query_module quotactl quotactl_fd nfsservctl kexec_load kexec_file_load lookup_dcookie "
    "getpmsg putpmsg afs_syscall tuxcall security vserver mbind set_mempolicy get_mempolicy migrate_pages "
    "move_pages set_mempolicy_home_node add_key request_key keyctl unshare setns clone3 open_tree move_mount "
    "fsopen fsconfig fsmount fspick mount_setattr open_tree_attr perf_event_open kcmp bpf fanotify_init "
    "open_by_handle_at pidfd_getfd process_madvise userfaultfd io_uring_setup io_uring_enter io_uring_register "
    "uprobe lsm_get_self_attr lsm_set_self_attr lsm_list_modules file_getattr file_setattr vmsplice modify_ldt "
    "epoll_ctl_old epoll_wait_old"
).split()
ARGUMENTS_MATTER = ["clone", "personality", "socket", "socketpair", "ioctl"]


def program(*caps: str, base: int = DEFAULT_CAPS, architecture: str = "x86_64") -> list[tuple[int, int, int, int]]:
    mask = base | mask_of(caps)
    return bpf.parse(compile_profile(default_profile(), architecture=architecture, capabilities=mask))


def ask(filter: list[tuple[int, int, int, int]], name: str, *args: int) -> int:
    """The answer, which must not depend on the upper halves of the registers that hold int arguments."""
    answers = {bpf.run(filter, TABLE[name], args=[arg | dirt for arg in args]) for dirt in DIRT}
    assert len(answers) == 1, f"{name}{args} depends on dirty bits: {answers}"
    return answers.pop()


def test_exactly_the_listed_calls_are_blocked() -> None:
    filter = program()
    refused = {name for name in TABLE if bpf.run(filter, TABLE[name]) != seccomp.ALLOW}
    assert refused - set(ARGUMENTS_MATTER) == set(BLOCKED)
    assert {bpf.run(filter, TABLE[name]) for name in BLOCKED} == {EPERM, ENOSYS}


def test_nothing_that_has_no_name_exists() -> None:
    filter = program(base=mask_of(CAPABILITIES))
    known = set(TABLE.values())
    for number in [*range(2048), *(n | 1 << 30 for n in range(1024)), 1 << 31, 0xFFFFFFFF]:
        if number not in known:
            assert bpf.run(filter, number) == ENOSYS, number


@pytest.mark.parametrize("foreign", [bpf.I386, bpf.AARCH64, bpf.ARM, 0, 0xFFFFFFFF])
def test_no_foreign_abi_gets_a_single_call(foreign: int) -> None:
    filter = program(base=mask_of(CAPABILITIES))
    assert {bpf.run(filter, number, arch=foreign) for number in range(600)} == {seccomp.KILL_PROCESS}


def test_both_machines_decide_alike_by_name() -> None:
    x86, arm = program(), program(architecture="aarch64")
    for name, number in numbers("aarch64").items():
        assert bpf.run(arm, number, arch=bpf.AARCH64) == bpf.run(x86, TABLE[name]), name


def test_socket_families_are_an_allow_list() -> None:
    filter = program()
    allowed = {family for family in range(256) if ask(filter, "socket", family, 1, 0) == seccomp.ALLOW}
    assert allowed == {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK}
    assert ask(filter, "socket", 38, 5, 0) == errno_action(errno.EAFNOSUPPORT)  # AF_ALG
    assert ask(filter, "socket", 40, 1, 0) == errno_action(errno.EAFNOSUPPORT)  # AF_VSOCK
    assert ask(filter, "socket", socket.AF_PACKET, 3, 0) == EPERM
    assert ask(program("NET_RAW"), "socket", socket.AF_PACKET, 3, 0) == seccomp.ALLOW


def test_socket_pairs_are_of_the_unix_family() -> None:
    filter = program("NET_RAW")
    allowed = {family for family in range(256) if ask(filter, "socketpair", family, 1, 0) == seccomp.ALLOW}
    assert allowed == {socket.AF_UNIX}


@pytest.mark.parametrize(
    ("caps", "allowed"),
    [((), {0, 4, 15, 16}), (("AUDIT_WRITE",), {0, 4, 9, 15, 16}), (("NET_ADMIN",), {0, 4, 12, 15, 16})],
)
def test_netlink_protocols_are_an_allow_list(caps: tuple[str, ...], allowed: set[int]) -> None:
    filter = program(*caps)
    found = {p for p in range(64) if ask(filter, "socket", socket.AF_NETLINK, 3, p) == seccomp.ALLOW}
    assert found == allowed
    assert ask(filter, "socket", socket.AF_NETLINK, 3, 6) == errno_action(errno.EPROTONOSUPPORT)  # XFRM


def test_clone_makes_no_namespace_and_every_thread() -> None:
    filter = program()
    for bit in (17, 25, 26, 27, 28, 29, 30):
        assert ask(filter, "clone", 1 << bit | 17) == EPERM
        assert ask(filter, "clone", 1 << bit) == EPERM
    assert ask(filter, "clone", 0x3D0F00) == seccomp.ALLOW  # pthread_create
    assert ask(filter, "clone", 0x1200011) == seccomp.ALLOW  # fork
    assert ask(program("SYS_ADMIN"), "clone", 1 << 28) == seccomp.ALLOW


def test_personalities_are_an_allow_list() -> None:
    filter = program()
    for value in (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert ask(filter, "personality", value) == seccomp.ALLOW
    for value in (0x1, 0x40000, 0x400000, 0x20001, 0xFFFFFFFE):  # ADDR_NO_RANDOMIZE and READ_IMPLIES_EXEC among them
        assert ask(filter, "personality", value) == EPERM


def test_nothing_can_be_typed_into_a_terminal() -> None:
    filter = program("SYS_ADMIN", "SYS_TTY_CONFIG")
    assert ask(filter, "ioctl", 0, 0x5412, 0) == EPERM
    assert ask(filter, "ioctl", 0, 0x541C, 0) == EPERM
    assert ask(filter, "ioctl", 0, 0x5413, 0) == seccomp.ALLOW  # TIOCGWINSZ


@pytest.mark.parametrize(
    ("cap", "opened"),
    [
        ("BPF", {"bpf"}), ("DAC_READ_SEARCH", {"open_by_handle_at"}), ("PERFMON", {"perf_event_open"}),
        ("SYSLOG", {"syslog"}), ("SYS_BOOT", {"reboot"}),
        ("SYS_MODULE", {"init_module", "finit_module", "delete_module"}),
        ("SYS_NICE", {"mbind", "get_mempolicy", "set_mempolicy", "set_mempolicy_home_node"}), ("SYS_PACCT", {"acct"}),
        ("SYS_PTRACE", {"kcmp", "pidfd_getfd", "process_madvise"}), ("SYS_RAWIO", {"iopl", "ioperm"}),
        ("SYS_TIME", {"settimeofday", "clock_settime"}), ("SYS_TTY_CONFIG", {"vhangup"}), ("CHOWN", set()),
    ],
)  # fmt: skip
def test_a_capability_opens_its_calls_and_no_other(cap: str, opened: set[str]) -> None:
    without, with_it = program(), program(cap)
    differing = {name for name, n in TABLE.items() if bpf.run(without, n) != bpf.run(with_it, n)}
    assert differing == opened
    assert {bpf.run(with_it, TABLE[name]) for name in opened} <= {seccomp.ALLOW}


def test_chroot_needs_its_capability() -> None:
    assert ask(program(), "chroot") == seccomp.ALLOW
    assert ask(program(base=0), "chroot") == EPERM


def test_every_capability_together_still_opens_no_keyring_and_no_io_uring() -> None:
    filter = program(base=mask_of(CAPABILITIES))
    for name in ("keyctl", "add_key", "request_key", "io_uring_setup", "userfaultfd", "kexec_load", "vmsplice"):
        assert ask(filter, name) == EPERM


def test_the_program_is_small() -> None:
    assert len(program(base=mask_of(CAPABILITIES))) < 400
