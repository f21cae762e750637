"""The seccomp profile that every container gets unless told otherwise, as data.

An allow-list: what is known and harmless passes, what is known and harmful is forbidden (EPERM), what is not known does
not exist (ENOSYS, so that the C library falls back). It is Docker's default profile and stricter in five places: socket
families by name, native calls alone, no pushing of characters into a terminal, no vmsplice and modify_ldt, and every
int argument compared as the kernel reads it, in 32 bits.
"""

from __future__ import annotations

from cloison.linux.capabilities import mask_of
from cloison.linux.seccomp import ALLOW, ENOSYS, Condition, Profile, Rule, errno_action

_EPERM = errno_action(1)
_EPROTONOSUPPORT = errno_action(93)
_EAFNOSUPPORT = errno_action(97)

_HARMLESS = (
    "accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_adjtime "
    "clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 "
    "epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit "
    "exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown "
    "fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate "
    "futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area getcpu getcwd "
    "getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid getpgrp getpid getppid "
    "getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday "
    "getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy "
    "io_getevents io_pgetevents io_setup io_submit ioprio_get ioprio_set kill landlock_add_rule "
    "landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount listxattr "
    "listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create "
    "memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify "
    "mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall "
    "munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 "
    "pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease "
    "process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat "
    "readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2 "
    "restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
    "rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr "
    "sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam "
    "sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto "
    "set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority "
    "setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat shmctl shmdt "
    "shmget shutdown sigaltstack signalfd signalfd4 splice stat statfs statmount statx symlink symlinkat sync "
    "sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime "
    "timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat "
    "uretprobe utime utimensat utimes vfork wait4 waitid write writev"
)

# Forbidden to everybody: kernel memory and keys that have no namespace, interfaces that are mostly attack surface.
_NEVER = (
    "add_key io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load keyctl migrate_pages "
    "modify_ldt move_pages request_key swapoff swapon sysfs uselib userfaultfd ustat vmsplice"
)

# Answered as by a kernel without them. clone3 passes its flags in memory, where no filter can look, and the C library
# falls back to clone; the rest is dead, or too new for programs to count on.
_ABSENT = (
    "_sysctl afs_syscall clone3 create_module epoll_ctl_old epoll_wait_old file_getattr file_setattr get_kernel_syms "
    "getpmsg lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr nfsservctl putpmsg query_module "
    "security tuxcall uprobe vserver"
)

# Forbidden unless the container was given the capability that the kernel itself asks for.
_GRANTED = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick mount mount_setattr move_mount "
        "open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname "
        "setns syslog umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime settimeofday",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

# clone(2): CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NAMESPACE_FLAGS = 0x7E020000
# personality(2): PER_LINUX, PER_LINUX32, UNAME26 with either, and "tell me"
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
# ioctl(2): TIOCSTI types into the terminal, TIOCLINUX pastes into the console: commands for whoever reads it next
_TYPING_IOCTLS = (0x5412, 0x541C)

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK, _AF_PACKET = 1, 2, 10, 16, 17
# netlink(7): ROUTE, SOCK_DIAG, KOBJECT_UEVENT, GENERIC. XFRM and CRYPTO to nobody.
_NETLINK_PROTOCOLS = (0, 4, 15, 16)
_NETLINK_GRANTED = ((9, "CAP_AUDIT_WRITE"), (9, "CAP_AUDIT_CONTROL"), (9, "CAP_AUDIT_READ"), (12, "CAP_NET_ADMIN"))


def default_profile() -> Profile:
    """The profile; the capabilities that open parts of it are in its rules."""
    return Profile(
        default=ENOSYS,
        rules=(
            Rule(names=tuple(_HARMLESS.split()), action=ALLOW),
            *(
                Rule(names=tuple(names.split()), action=ALLOW, requires=mask_of((cap,)))
                for cap, names in _GRANTED.items()
            ),
            *_clone_rules(),
            *_socket_rules(),
            *(Rule(names=("personality",), action=ALLOW, conditions=(_equals(0, value),)) for value in _PERSONALITIES),
            *(Rule(names=("ioctl",), action=_EPERM, conditions=(_equals(1, value),)) for value in _TYPING_IOCTLS),
            Rule(names=("ioctl",), action=ALLOW),
            Rule(names=tuple(_ABSENT.split()), action=ENOSYS),
            Rule(names=("personality", *_NEVER.split()), action=_EPERM),
            Rule(names=tuple(" ".join(_GRANTED.values()).split()), action=_EPERM),
        ),
    )


def _equals(argument: int, value: int) -> Condition:
    return Condition(argument=argument, operator="==", value=value)


def _clone_rules() -> tuple[Rule, ...]:
    """Threads and processes for everybody, namespaces for those who may make them anyhow (the grant comes first)."""
    plain = Condition(argument=0, operator="==", value=0, mask=_NAMESPACE_FLAGS)
    return (Rule(names=("clone",), action=ALLOW, conditions=(plain,)),)


def _socket_rules() -> tuple[Rule, ...]:
    """Families by name: each odd one is a kernel module that loads itself and was written for few (AF_ALG, AF_RXRPC …).

    socketpair(2) too: the kernel makes a socket of the family before it finds that the family has no pairs.
    """
    both = ("socket", "socketpair")
    netlink = _equals(0, _AF_NETLINK)
    raw = mask_of(("CAP_NET_RAW",))
    families = (_AF_INET, _AF_INET6)
    return (
        Rule(names=both, action=ALLOW, conditions=(_equals(0, _AF_UNIX),)),
        *(Rule(names=("socket",), action=ALLOW, conditions=(_equals(0, family),)) for family in families),
        *(Rule(names=("socket",), action=ALLOW, conditions=(netlink, _equals(2, p))) for p in _NETLINK_PROTOCOLS),
        *(
            Rule(names=("socket",), action=ALLOW, conditions=(netlink, _equals(2, p)), requires=mask_of((cap,)))
            for p, cap in _NETLINK_GRANTED
        ),
        Rule(names=("socket",), action=_EPROTONOSUPPORT, conditions=(netlink,)),
        Rule(names=("socket",), action=ALLOW, conditions=(_equals(0, _AF_PACKET),), requires=raw),
        Rule(names=("socket",), action=_EPERM, conditions=(_equals(0, _AF_PACKET),)),
        Rule(names=both, action=_EAFNOSUPPORT),
    )
