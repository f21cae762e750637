/* System calls and constants that musl or an older glibc lacks, under our own names (both libcs must compile this). */
#ifndef CLOISON_SYS_H
#define CLOISON_SYS_H

#include <linux/openat2.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

#define TREE_CLONE 1u                  /* OPEN_TREE_CLONE */
#define TREE_RECURSIVE 0x8000u         /* AT_RECURSIVE */
#define TREE_EMPTY_PATH 0x1000u        /* AT_EMPTY_PATH */
#define TREE_CLOEXEC 02000000u         /* OPEN_TREE_CLOEXEC */
#define MOVE_FROM_AND_TO_FDS 0x44u     /* MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH */
#define CONFIG_FLAG 0u                 /* FSCONFIG_SET_FLAG */
#define CONFIG_STRING 1u               /* FSCONFIG_SET_STRING */
#define CONFIG_CREATE 6u               /* FSCONFIG_CMD_CREATE */
#define ATTRIBUTE_RDONLY 0x1u          /* MOUNT_ATTR_… */
#define ATTRIBUTE_NOSUID 0x2u
#define ATTRIBUTE_NODEV 0x4u
#define ATTRIBUTE_NOEXEC 0x8u
#define ATTRIBUTE_ATIME_FIELD 0x70u
#define ATTRIBUTE_NOATIME 0x10u
#define ATTRIBUTE_STRICTATIME 0x20u
#define ATTRIBUTE_NODIRATIME 0x80u
#define ATTRIBUTE_NOSYMFOLLOW 0x200000u
#define NAMESPACE_TIME 0x80u           /* CLONE_NEWTIME */
#define CLONE_WITH_PIDFD 0x1000u
#define CLONE_TO_CGROUP 0x200000000ull
#define RANGE_CLOEXEC 4u               /* CLOSE_RANGE_CLOEXEC, Linux 5.11 */

struct mount_attributes {
	uint64_t set, clear, propagation, userns_fd;
};

struct clone_arguments { /* struct clone_args, version 2 (Linux 5.7) */
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static inline int sys_openat2(int at, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = { .flags = flags, .resolve = resolve };

	return (int)syscall(SYS_openat2, at, path, &how, sizeof how);
}

static inline int sys_open_tree(int at, const char *path, unsigned flags)
{
	return (int)syscall(SYS_open_tree, at, path, flags);
}

static inline int sys_move_mount(int tree, int target)
{
	return (int)syscall(SYS_move_mount, tree, "", target, "", MOVE_FROM_AND_TO_FDS);
}

static inline int sys_mount_setattr(int fd, unsigned flags, struct mount_attributes *attributes)
{
	return (int)syscall(SYS_mount_setattr, fd, "", TREE_EMPTY_PATH | flags, attributes, sizeof *attributes);
}

static inline int sys_fsopen(const char *type)
{
	return (int)syscall(SYS_fsopen, type, 1 /* FSOPEN_CLOEXEC */);
}

static inline int sys_fsconfig(int fs, unsigned command, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fs, command, key, value, 0);
}

static inline int sys_fsmount(int fs, unsigned attributes)
{
	return (int)syscall(SYS_fsmount, fs, 1 /* FSMOUNT_CLOEXEC */, attributes);
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
	return (int)syscall(SYS_close_range, first, last, flags);
}

static inline int sys_pidfd_kill(int pidfd, int signal)
{
	return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, 0, 0);
}

#endif
