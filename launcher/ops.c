/* The verb table and the small operations. docs/launch-plan.md describes each verb; a test compares Python's list. */

#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>

#include "launcher.h"
#include "sys.h"

static int op_detach(struct launch *l, const struct op *op)
{
	pid_t pid = fork();

	(void)op;
	if (pid < 0)
		return fail(l, "fork", "detach");
	if (pid > 0)
		_exit(0);
	l->detach = true;
	return 0;
}

static int op_legacy_mounts(struct launch *l, const struct op *op)
{
	(void)op;
	l->legacy = true;
	return 0;
}

int parse_namespace(const char *word)
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

static int op_new_namespaces(struct launch *l, const struct op *op)
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

static int op_time_namespace(struct launch *l, const struct op *op)
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

static int op_join_pid_namespace(struct launch *l, const struct op *op)
{
	l->own_pid_namespace = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
	if (l->own_pid_namespace < 0)
		return fail(l, "open", "/proc/self/ns/pid");
	if (setns((int)number(op->arg[0]), CLONE_NEWPID) < 0)
		return fail(l, "setns", "pid");
	return 0;
}

static int op_cgroup_fd(struct launch *l, const struct op *op)
{
	l->cgroup = (int)number(op->arg[0]);
	return 0;
}

static int open_null(struct launch *l)
{
	struct stat st;
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return fail(l, "open", "/dev/null");
	if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return refuse(l, ENODEV, "fstat", "/dev/null");
	return fd;
}

static int one_stream(struct launch *l, int i, const char *word)
{
	struct monitor *m = &l->monitor;
	int ends[2];

	if (!strcmp(word, "null")) {
		l->child_io[i] = open_null(l);
		return l->child_io[i] < 0 ? -1 : 0;
	}
	if (!strncmp(word, "fd:", 3) && word[3] >= '0' && word[3] <= '9' && strlen(word) < 11 &&
	    owns_descriptor(l, (int)number(word + 3))) {
		l->child_io[i] = fcntl((int)number(word + 3), F_DUPFD_CLOEXEC, 3);
		return l->child_io[i] < 0 ? fail(l, "fcntl", word) : 0;
	}
	if (strcmp(word, "pipe"))
		return refuse(l, EINVAL, "stdio", word);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return fail(l, "pipe2", "");
	l->child_io[i] = ends[i ? 1 : 0];
	*(i ? &m->out[i - 1].from : &m->in.to) = ends[i ? 0 : 1];
	fcntl(ends[i ? 0 : 1], F_SETFL, O_NONBLOCK); /* our end only: each end is a description of its own */
	return 0;
}

static int op_stdio(struct launch *l, const struct op *op)
{
	if (!strcmp(op->arg[0], "pty")) {
		l->terminal = true;
		return 0;
	}
	for (int i = 0; i < 3; i++)
		if (one_stream(l, i, op->arg[i]) < 0)
			return -1;
	return 0;
}

static int write_beside(struct launch *l, const char *file, const char *text)
{
	char path[48];

	snprintf(path, sizeof path, "%d/%s", (int)l->pid, file);
	return write_proc(l, l->host_proc, path, text);
}

static int op_setgroups_deny(struct launch *l, const struct op *op)
{
	(void)op;
	return write_beside(l, "setgroups", "deny");
}

static int op_uid_map(struct launch *l, const struct op *op)
{
	return write_beside(l, "uid_map", op->arg[0]);
}

static int op_gid_map(struct launch *l, const struct op *op)
{
	return write_beside(l, "gid_map", op->arg[0]);
}

static int op_cgroup_join(struct launch *l, const struct op *op)
{
	char path[PATH_MAX], text[16];
	int n = snprintf(path, sizeof path, "%s/cgroup.procs", op->arg[0]), fd;

	if (n < 0 || n >= PATH_MAX)
		return refuse(l, ENAMETOOLONG, "open", op->arg[0]);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(l, "open", path);
	n = snprintf(text, sizeof text, "%d", (int)l->pid);
	if (write(fd, text, (size_t)n) != n) {
		fail(l, "write", path);
		return close(fd), -1;
	}
	return close(fd);
}

static int op_await_parent(struct launch *l, const struct op *op)
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

static int op_join_namespaces(struct launch *l, const struct op *op)
{
	int flags;

	if (parse_namespaces(l, op->arg + 1, &flags) < 0)
		return -1;
	if (flags && setns((int)number(op->arg[0]), flags) < 0)
		return fail(l, "setns", op->arg[1]);
	return entered(l, flags);
}

static int op_join_namespace(struct launch *l, const struct op *op)
{
	int flag;

	if (parse_namespaces(l, op->arg + 1, &flag) < 0)
		return -1;
	if (setns((int)number(op->arg[0]), flag) < 0)
		return fail(l, "setns", op->arg[1]);
	return entered(l, flag);
}

static int op_unshare(struct launch *l, const struct op *op)
{
	int flags;

	if (parse_namespaces(l, op->arg, &flags) < 0)
		return -1;
	if (flags && unshare(flags) < 0)
		return fail(l, "unshare", op->arg[0]);
	return entered(l, flags);
}

static int op_loopback_up(struct launch *l, const struct op *op)
{
	struct ifreq lo = { .ifr_name = "lo" };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* any family takes interface ioctls (netdevice(7)) */

	(void)op;
	if (fd < 0)
		return fail(l, "socket", "AF_UNIX");
	if (ioctl(fd, SIOCGIFFLAGS, &lo) < 0)
		return fail(l, "ioctl", "SIOCGIFFLAGS");
	lo.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		return fail(l, "ioctl", "SIOCSIFFLAGS");
	return close(fd);
}

static int op_send_netlink(struct launch *l, const struct op *op)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	(void)op;
	if (fd < 0)
		return fail(l, "socket", "AF_NETLINK");
	if (send_descriptors(l->wire, 'n', &fd, 1) < 0)
		return fail(l, "sendmsg", "netlink");
	return close(fd);
}

static int op_hostname(struct launch *l, const struct op *op)
{
	return sethostname(op->arg[0], strlen(op->arg[0])) < 0 ? fail(l, "sethostname", op->arg[0]) : 0;
}

static int op_domainname(struct launch *l, const struct op *op)
{
	return setdomainname(op->arg[0], strlen(op->arg[0])) < 0 ? fail(l, "setdomainname", op->arg[0]) : 0;
}

/* As sysctl(8): dots part the names, a slash in the key is a dot of a name (net.ipv4.conf.eth0/1.forwarding). */
static int op_sysctl(struct launch *l, const struct op *op)
{
	char path[512] = "sys/";
	size_t n = strlen(op->arg[0]);

	if (n >= sizeof path - 4)
		return refuse(l, ENAMETOOLONG, "sysctl", op->arg[0]);
	for (size_t i = 0; i <= n; i++) {
		char c = op->arg[0][i];

		path[4 + i] = c == '.' ? '/' : c == '/' ? '.' : c;
	}
	return write_proc(l, private_procfs(l), path, op->arg[1]);
}

static int op_oom_score_adj(struct launch *l, const struct op *op)
{
	return write_proc(l, l->host_proc, "self/oom_score_adj", op->arg[0]);
}

static int op_client(struct launch *l, const struct op *op)
{
	l->monitor.clients[0].fd = (int)number(op->arg[0]);
	return 0;
}

static int op_listen(struct launch *l, const struct op *op)
{
	l->monitor.listen = (int)number(op->arg[0]);
	return 0;
}

static int op_keep(struct launch *l, const struct op *op)
{
	if (l->monitor.kept_count == KEPT)
		return refuse(l, E2BIG, "keep", op->arg[0]);
	l->monitor.kept[l->monitor.kept_count++] = (int)number(op->arg[0]);
	return 0;
}

static int op_log(struct launch *l, const struct op *op)
{
	struct log *log = &l->monitor.log;

	log->path = op->arg[0];
	log->limit = (uint64_t)number(op->arg[1]);
	log->files = (uint64_t)number(op->arg[2]);
	return open_log(l);
}

static int op_relay(struct launch *l, const struct op *op)
{
	struct monitor *m = &l->monitor;
	int *slots[] = { &m->in.relay, &m->out[0].relay, &m->out[1].relay };

	for (int i = 0; i < 3; i++) {
		int fd = (int)number(op->arg[i]);

		if (fd < 0)
			continue;
		*slots[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* 0 to 2 will be /dev/null */
		if (*slots[i] < 0)
			return fail(l, "fcntl", op->arg[i]);
		if (i)
			m->out[i - 1].relay_blocks = !(fcntl(fd, F_GETFL) & O_NONBLOCK);
	}
	return 0;
}

static int op_exit_file(struct launch *l, const struct op *op)
{
	l->monitor.exit_file = op->arg[0];
	return 0;
}

static int op_exit_stat(struct launch *l, const struct op *op)
{
	if (l->monitor.stat_count == STATS)
		return refuse(l, E2BIG, "exit-stat", op->arg[0]);
	l->monitor.stats[l->monitor.stat_count++] = op;
	return 0;
}

static int op_reap(struct launch *l, const struct op *op)
{
	l->monitor.reap = op->arg;
	return 0;
}

const struct verb verbs[] = {
	{ "detach", 0, 'B', "", op_detach },
	{ "legacy-mounts", 0, 'B', "", op_legacy_mounts },
	{ "new-namespaces", AT_LEAST(0), 'B', "t", op_new_namespaces },
	{ "time-namespace", 4, 'B', "n", op_time_namespace },
	{ "join-pid-namespace", 1, 'B', "f", op_join_pid_namespace },
	{ "cgroup-fd", 1, 'B', "f", op_cgroup_fd },
	{ "stdio", 3, 'B', "t", op_stdio },
	{ "setgroups-deny", 0, 'P', "", op_setgroups_deny },
	{ "uid-map", 1, 'P', "t", op_uid_map },
	{ "gid-map", 1, 'P', "t", op_gid_map },
	{ "cgroup-join", 1, 'P', "t", op_cgroup_join },
	{ "await-parent", 0, 'C', "", op_await_parent },
	{ "join-namespaces", AT_LEAST(1), 'C', "ft", op_join_namespaces },
	{ "join-namespace", 2, 'C', "ft", op_join_namespace },
	{ "unshare", AT_LEAST(0), 'C', "t", op_unshare },
	{ "become", 2, 'C', "u", op_become },
	{ "loopback-up", 0, 'C', "", op_loopback_up },
	{ "send-netlink", 0, 'C', "", op_send_netlink },
	{ "keyring", 1, 'C', "t", op_keyring },
	{ "propagation", 2, 'C', "t", op_propagation },
	{ "root-overlay", AT_LEAST(4), 'C', "t", op_root_overlay },
	{ "root-bind", 2, 'C', "t", op_root_bind },
	{ "mount", AT_LEAST(4), 'C', "t", op_mount },
	{ "bind", 5, 'C', "ttntt", op_bind },
	{ "bind-fd", 3, 'C', "ft", op_bind_fd },
	{ "directory", 2, 'C', "to", op_directory },
	{ "symlink", 2, 'C', "t", op_symlink },
	{ "device", 7, 'C', "ttuuouu", op_device },
	{ "console", 0, 'C', "", op_console },
	{ "mask", 1, 'C', "t", op_mask },
	{ "readonly-path", 1, 'C', "t", op_readonly_path },
	{ "readonly-root", 0, 'C', "", op_readonly_root },
	{ "pivot-root", 0, 'C', "", op_pivot_root },
	{ "hostname", 1, 'C', "t", op_hostname },
	{ "domainname", 1, 'C', "t", op_domainname },
	{ "sysctl", 2, 'C', "t", op_sysctl },
	{ "rlimit", 3, 'C', "n", op_rlimit },
	{ "oom-score-adj", 1, 'C', "n", op_oom_score_adj },
	{ "terminal", 3, 'C', "nnf", op_terminal },
	{ "umask", 1, 'C', "o", op_umask },
	{ "bounding", 1, 'C', "h", op_bounding },
	{ "user", AT_LEAST(2), 'C', "u", op_user },
	{ "capabilities", 4, 'C', "h", op_capabilities },
	{ "no-new-privs", 0, 'C', "", op_no_new_privs },
	{ "seccomp", 2, 'C', "tn", op_seccomp },
	{ "cwd", 1, 'C', "t", op_cwd },
	{ "parent-death-signal", 1, 'C', "n", op_death_signal },
	{ "await-start", 1, 'C', "t", op_await_start },
	{ "init", 0, 'C', "", op_init },
	{ "env", AT_LEAST(0), 'C', "t", op_env },
	{ "exec", AT_LEAST(2), 'C', "t", op_exec },
	{ "client", 1, 'M', "f", op_client },
	{ "listen", 1, 'M', "f", op_listen },
	{ "keep", 1, 'M', "f", op_keep },
	{ "log", 3, 'M', "tn", op_log },
	{ "relay", 3, 'M', "f", op_relay },
	{ "exit-file", 1, 'M', "t", op_exit_file },
	{ "exit-stat", 3, 'M', "t", op_exit_stat },
	{ "reap", AT_LEAST(1), 'M', "t", op_reap },
	{ NULL, 0, 0, NULL, NULL },
};

/* Carries out one side of the plan, in its order; the index of what fails is in the fault. */
int run_side(struct launch *l, char side)
{
	for (uint32_t i = 0; i < l->count; i++) {
		const struct op *op = &l->ops[i];

		if (op->verb->side != side)
			continue;
		l->fault.op = i;
		if (side == 'C')
			*l->progress = i;
		if (op->verb->run(l, op) < 0)
			return -1;
	}
	l->fault.op = NO_OPERATION;
	return 0;
}
