/* Namespaces, their maps, the cgroup, and the small settings that live in a namespace. */

#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "launcher.h"
#include "sys.h"

static int parse_namespace(const char *word)
{
	static const struct {
		const char *word;
		int flag;
	} kinds[] = { { "mnt", CLONE_NEWNS }, { "pid", CLONE_NEWPID }, { "net", CLONE_NEWNET }, { "ipc", CLONE_NEWIPC },
		{ "uts", CLONE_NEWUTS }, { "cgroup", CLONE_NEWCGROUP }, { "user", CLONE_NEWUSER }, { "time", NAMESPACE_TIME } };

	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(kinds[i].word, word))
			return kinds[i].flag;
	return 0;
}

static int parse_namespaces(struct launch *l, char **words, int *flags)
{
	for (*flags = 0; *words; words++) {
		int flag = parse_namespace(*words);

		if (!flag)
			return refuse(l, EINVAL, "namespace", *words);
		*flags |= flag;
	}
	return 0;
}

int op_new_namespaces(struct launch *l, const struct op *op)
{
	int flags;

	if (parse_namespaces(l, op->arg, &flags) < 0)
		return -1;
	l->namespaces |= (uint64_t)(unsigned)flags;
	/* Files of an undumpable process below /proc belong to root: an ordinary user could not write its own child's id
	 * maps. The child hides again in `await-parent`, before it enters anything that others are in. */
	if (flags & CLONE_NEWUSER && geteuid() != 0 && prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_SET_DUMPABLE");
	return 0;
}

int op_time_namespace(struct launch *l, const struct op *op)
{
	char text[160];

	l->own_time_namespace = open("/proc/self/ns/time", O_RDONLY | O_CLOEXEC);
	if (l->own_time_namespace < 0)
		return fail(l, "open", "/proc/self/ns/time");
	if (unshare((int)NAMESPACE_TIME) < 0)
		return fail(l, "unshare", "time");
	snprintf(text, sizeof text, "monotonic %s %s\nboottime %s %s\n", op->arg[0], op->arg[1], op->arg[2], op->arg[3]);
	return write_proc(l, l->host_proc, "self/timens_offsets", text);
}

int op_join_pid_namespace(struct launch *l, const struct op *op)
{
	l->own_pid_namespace = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	if (l->own_pid_namespace < 0)
		return fail(l, "open", "/proc/self/ns/pid");
	if (setns((int)number(op->arg[0]), CLONE_NEWPID) < 0)
		return fail(l, "setns", "pid");
	return 0;
}

int op_cgroup_fd(struct launch *l, const struct op *op)
{
	l->cgroup = (int)number(op->arg[0]);
	return 0;
}

/* The launcher itself goes in, for good, and its child is born there: for namespaces that the child has no rights to, or
 * that its own new ones shall belong to. */
int op_enter_namespace(struct launch *l, const struct op *op)
{
	char text[8] = "";
	int flag, fd;

	if (parse_namespaces(l, op->arg + 1, &flag) < 0)
		return -1;
	if (setns((int)number(op->arg[0]), flag) < 0)
		return fail(l, "setns", op->arg[1]);
	l->entered_users |= (flag & CLONE_NEWUSER) != 0;
	fd = openat(l->host_proc, "self/setgroups", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && read(fd, text, sizeof text - 1) > 0)
		l->groups_denied |= !strncmp(text, "deny", 4);
	if (fd >= 0)
		close(fd);
	return 0;
}

static int write_beside(struct launch *l, const char *file, const char *text)
{
	char path[48];

	snprintf(path, sizeof path, "%d/%s", (int)l->pid, file);
	return write_proc(l, l->host_proc, path, text);
}

int op_setgroups_deny(struct launch *l, const struct op *op)
{
	(void)op;
	return write_beside(l, "setgroups", "deny");
}

int op_uid_map(struct launch *l, const struct op *op)
{
	return write_beside(l, "uid_map", op->arg[0]);
}

int op_gid_map(struct launch *l, const struct op *op)
{
	return write_beside(l, "gid_map", op->arg[0]);
}

/* A process that is put into a group of version 1 by another, or by `cgroup.procs`, waits for an RCU grace period, 10 ms on an
 * idle machine; a thread that puts itself there alone does not (cgroup_procs_write_start), and we are one. Version 2 has no
 * `tasks`. */
int op_cgroup_join(struct launch *l, const struct op *op)
{
	static const char *const files[] = { "tasks", "cgroup.procs" };
	char path[PATH_MAX];
	int fd = -1;

	for (int i = 0; i < 2 && fd < 0; i++) {
		int n = snprintf(path, sizeof path, "%s/%s", op->arg[0], files[i]);

		if (n < 0 || n >= PATH_MAX)
			return refuse(l, ENAMETOOLONG, "open", op->arg[0]);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 && errno != ENOENT)
			return fail(l, "open", path);
	}
	if (fd < 0)
		return fail(l, "open", path);
	if (write(fd, "0", 1) != 1) {
		fail(l, "write", path);
		return close(fd), -1;
	}
	return close(fd);
}

int op_await_parent(struct launch *l, const struct op *op)
{
	char byte = 0;
	ssize_t n;

	(void)op;
	while ((n = recv(l->wire, &byte, 1, 0)) < 0 && errno == EINTR)
		;
	if (n != 1 || byte != 'P')
		return refuse(l, ESRCH, "recv", "the launcher is gone");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_SET_DUMPABLE");
	return 0;
}

/* The world has changed: what was opened in the old one is of no use, and a change of user namespace resets dumpable. */
static int entered(struct launch *l, int flags)
{
	if (flags & CLONE_NEWNS)
		l->root = -1;
	if (flags & CLONE_NEWUSER && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_SET_DUMPABLE");
	return 0;
}

int op_join_namespaces(struct launch *l, const struct op *op)
{
	int flags;

	if (parse_namespaces(l, op->arg + 1, &flags) < 0)
		return -1;
	if (flags && setns((int)number(op->arg[0]), flags) < 0)
		return fail(l, "setns", op->arg[1]);
	return entered(l, flags);
}

int op_join_namespace(struct launch *l, const struct op *op)
{
	int flag;

	if (parse_namespaces(l, op->arg + 1, &flag) < 0)
		return -1;
	if (setns((int)number(op->arg[0]), flag) < 0)
		return fail(l, "setns", op->arg[1]);
	return entered(l, flag);
}

int op_unshare(struct launch *l, const struct op *op)
{
	int flags;

	if (parse_namespaces(l, op->arg, &flags) < 0)
		return -1;
	if (flags && unshare(flags) < 0)
		return fail(l, "unshare", op->arg[0]);
	return entered(l, flags);
}

static int loopback_up(struct launch *l)
{
	struct ifreq lo = { .ifr_name = "lo" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* any family takes interface ioctls (netdevice(7)) */

	if (fd < 0)
		return fail(l, "socket", "AF_UNIX");
	if (ioctl(fd, SIOCGIFFLAGS, &lo) < 0)
		return fail(l, "ioctl", "SIOCGIFFLAGS");
	lo.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		return fail(l, "ioctl", "SIOCSIFFLAGS");
	return close(fd);
}

int op_loopback_up(struct launch *l, const struct op *op)
{
	(void)op;
	return loopback_up(l);
}

/* A network namespace takes the kernel longer than all others together; so it is made while the child mounts, who enters it
 * by the descriptor. */
int op_new_network(struct launch *l, const struct op *op)
{
	int own = openat(l->host_proc, "self/ns/net", O_RDONLY | O_CLOEXEC), made, result;

	(void)op;
	if (own < 0)
		return fail(l, "open", "/proc/self/ns/net");
	if (unshare(CLONE_NEWNET) < 0)
		return fail(l, "unshare", "net");
	made = openat(l->host_proc, "self/ns/net", O_RDONLY | O_CLOEXEC);
	if (made < 0)
		return fail(l, "open", "/proc/self/ns/net");
	result = loopback_up(l);
	if (result == 0 && send_descriptors(l->wire, 'N', &made, 1) < 0 && errno != EPIPE) /* gone: its own last words tell why */
		result = fail(l, "sendmsg", "wire");
	close(made);
	if (setns(own, CLONE_NEWNET) < 0)
		return fail(l, "setns", "own network namespace");
	close(own);
	return result;
}

int op_join_network(struct launch *l, const struct op *op)
{
	char kind = 0, control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { &kind, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	ssize_t n;
	int fd;

	(void)op;
	while ((n = recvmsg(l->wire, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (n != 1 || kind != 'N' || !CMSG_FIRSTHDR(&m))
		return refuse(l, ESRCH, "recv", "the launcher is gone");
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	if (setns(fd, CLONE_NEWNET) < 0)
		return fail(l, "setns", "net");
	return close(fd);
}

int op_send_netlink(struct launch *l, const struct op *op)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	(void)op;
	if (fd < 0)
		return fail(l, "socket", "AF_NETLINK");
	if (send_descriptors(l->wire, 'n', &fd, 1) < 0)
		return fail(l, "sendmsg", "netlink");
	return close(fd);
}

int op_hostname(struct launch *l, const struct op *op)
{
	return sethostname(op->arg[0], strlen(op->arg[0])) < 0 ? fail(l, "sethostname", op->arg[0]) : 0;
}

int op_domainname(struct launch *l, const struct op *op)
{
	return setdomainname(op->arg[0], strlen(op->arg[0])) < 0 ? fail(l, "setdomainname", op->arg[0]) : 0;
}

/* As sysctl(8): dots part the names, a slash in the key is a dot of a name (net.ipv4.conf.eth0/1.forwarding). */
int op_sysctl(struct launch *l, const struct op *op)
{
	char path[512] = "sys/";
	size_t n = strlen(op->arg[0]);

	if (n >= sizeof path - 4)
		return refuse(l, ENAMETOOLONG, "sysctl", op->arg[0]);
	for (size_t i = 0; i <= n; i++) {
		char c = op->arg[0][i];

		path[4 + i] = c == '.' ? '/' : c == '/' ? '.' : c;
		if (path[4 + i] == '/' && path[3 + i] == '/')
			return refuse(l, EINVAL, "sysctl", op->arg[0]);
	}
	return write_proc(l, private_procfs(l), path, op->arg[1]);
}

int op_oom_score_adj(struct launch *l, const struct op *op)
{
	return write_proc(l, l->host_proc, "self/oom_score_adj", op->arg[0]);
}
