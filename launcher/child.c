/* From clone3 to the child's first operation, and what the launcher does beside it. */

#include <linux/keyctl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "launcher.h"
#include "sys.h"

int send_descriptors(int socket, char kind, const int *fds, unsigned count)
{
	char control[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec data = { &kind, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control };
	struct cmsghdr *c;

	m.msg_controllen = CMSG_SPACE(count * sizeof(int));
	c = CMSG_FIRSTHDR(&m);
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(c), fds, count * sizeof(int));
	return sendmsg(socket, &m, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* Keyrings are in no namespace: whoever keeps the caller's session keyring can read the caller's keys. A kernel or a
 * sandbox without the call has none that could be read. */
int new_keyring(struct launch *l, const char *name)
{
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) < 0 && errno != ENOSYS && errno != EPERM)
		return fail(l, "keyctl", name ? name : "session keyring");
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* The monitor's ends are not the child's: it would hold locks, and pipes that never end. */
static void close_monitor_side(struct launch *l)
{
	struct monitor *m = &l->monitor;

	for (int i = 0; i < CLIENTS; i++)
		close_fd(&m->clients[i].fd);
	close_fd(&m->listen);
	close_fd(&m->in.to);
	close_fd(&m->in.relay);
	for (int i = 0; i < 2; i++) {
		close_fd(&m->out[i].from);
		close_fd(&m->out[i].relay);
	}
	close_fd(&m->log.fd);
	for (uint32_t i = 0; i < m->kept_count; i++)
		close_fd(&m->kept[i]);
}

/* Unset for a new session if somebody logged in further up (proc(5), loginuid); refused without CAP_AUDIT_CONTROL. */
static void forget_login(struct launch *l)
{
	static const char unset[] = "4294967295";
	char text[16] = "";
	int fd = l->host_proc < 0 ? -1 : openat(l->host_proc, "self/loginuid", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return;
	if (read(fd, text, sizeof text - 1) > 0 && strncmp(text, unset, sizeof unset - 1) && write(fd, unset, sizeof unset - 1) < 0)
		text[0] = 0; /* stays as it is */
	close(fd);
}

static int child_prepare(struct launch *l)
{
	struct stat st;

	l->wire = l->child_wire;
	close_monitor_side(l);
	close(l->first);
	mark_close_on_exec(3);
	setsid();
	l->host_null = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (l->host_null < 0 || fstat(l->host_null, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
		return refuse(l, l->host_null < 0 ? errno : ENODEV, "open", "/dev/null");
	for (int i = 0; i < 3; i++) {
		int from = l->child_io[i] >= 0 ? l->child_io[i] : open("/dev/null", O_RDWR | O_CLOEXEC);

		if (dup2(from, i) < 0)
			return fail(l, "dup2", "stdio");
		close(from);
	}
	forget_login(l);
	return l->has_keyring ? 0 : new_keyring(l, NULL);
}

/* Whoever waits learns of it when our end of the socket closes, at the execve or with us. */
void announce(struct launch *l, enum outcome outcome)
{
	__atomic_store_n(l->parked ? l->parked : &l->shared->outcome, (char)outcome, __ATOMIC_RELEASE);
}

static void child_main(struct launch *l)
{
	if (child_prepare(l) == 0)
		run_side(l, 'C'); /* comes back only when something failed */
	if (l->parked)
		write_fault(l, l->parked + 1, REPORT_BYTES - 1);
	else
		l->shared->fault = l->fault;
	announce(l, FAILS);
	_exit(1);
}

/* A sandbox may hide clone3 (ENOSYS) to be able to look at clone's flags. */
static pid_t old_clone(struct launch *l)
{
	unsigned long flags = (unsigned long)l->namespaces | CLONE_WITH_PIDFD | (l->sibling ? CLONE_PARENT : SIGCHLD);
	pid_t pid;

	if (l->namespaces & NAMESPACE_TIME) /* not among clone(2)'s flags */
		return errno = ENOSYS, -1;
#if defined(__s390x__)
	pid = (pid_t)syscall(SYS_clone, 0, flags, &l->pidfd, 0, 0);
#else
	pid = (pid_t)syscall(SYS_clone, flags, 0, &l->pidfd, 0, 0);
#endif
	if (pid > 0 && l->cgroup >= 0) {
		char text[16];
		int fd = openat(l->cgroup, "cgroup.procs", O_WRONLY | O_CLOEXEC);
		int n = snprintf(text, sizeof text, "%d", (int)pid);

		if (fd < 0 || write(fd, text, (size_t)n) != n) {
			fail(l, "write", "cgroup.procs");
			sys_pidfd_kill(l->pidfd, SIGKILL);
		}
		close(fd);
	}
	return pid;
}

static pid_t new_child(struct launch *l)
{
	struct clone_arguments a = { .flags = l->namespaces | CLONE_WITH_PIDFD };
	pid_t pid;

	if (l->sibling)
		a.flags |= CLONE_PARENT; /* its exit signal is ours */
	else
		a.exit_signal = SIGCHLD;
	a.pidfd = (uint64_t)(uintptr_t)&l->pidfd;
	if (l->cgroup >= 0) {
		a.flags |= CLONE_TO_CGROUP;
		a.cgroup = (uint64_t)l->cgroup;
	}
	pid = (pid_t)syscall(SYS_clone3, &a, sizeof a);
	return pid < 0 && errno == ENOSYS ? old_clone(l) : pid;
}

/* `reap` is executed, and children are waited for, in our own namespaces; but for another user namespace, which only plans
 * without a monitor enter. */
static int return_home(struct launch *l)
{
	if (l->entered_users)
		return 0;
	if (l->own_pid_namespace >= 0 && setns(l->own_pid_namespace, CLONE_NEWPID) < 0)
		return fail(l, "setns", "own pid namespace");
	if (l->own_time_namespace >= 0 && setns(l->own_time_namespace, (int)NAMESPACE_TIME) < 0)
		return fail(l, "setns", "own time namespace");
	close_fd(&l->own_pid_namespace);
	close_fd(&l->own_time_namespace);
	return 0;
}

static bool monitor_uses(const struct monitor *m, int fd)
{
	bool used = fd == m->listen || fd == m->clients[0].fd;

	for (uint32_t i = 0; i < m->kept_count; i++)
		used = used || m->kept[i] == fd;
	return used;
}

/* Gives up everything that is the child's, so that its pipes and its caller's end when it does. */
static int leave_to_child(struct launch *l)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	close_fd(&l->child_wire);
	for (int i = 0; i < 3; i++) {
		close_fd(&l->child_io[i]);
		if (dup2(null, i) < 0)
			return fail(l, "dup2", "/dev/null");
	}
	close(null);
	for (int fd = l->first; fd <= l->last; fd++)
		if (!monitor_uses(&l->monitor, fd))
			close(fd);
	return 0;
}

static int make_wire(struct launch *l)
{
	int ends[2];
	void *memory = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return fail(l, "mmap", "shared");
	l->shared = memory;
	l->shared->at = NO_OPERATION;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return fail(l, "socketpair", "");
	l->wire = ends[0];
	l->child_wire = ends[1];
	return 0;
}

int start_child(struct launch *l)
{
	char text[16];
	sigset_t all;
	int n, wire;

	if (make_wire(l) < 0)
		return -1;
	sigfillset(&all); /* the monitor dies by KILL alone; the child opens up right before execve */
	sigprocmask(SIG_SETMASK, &all, NULL);
	wire = l->wire;
	l->pid = new_child(l);
	if (l->pid == 0) {
		close(wire);
		child_main(l);
	}
	if (l->pid < 0) {
		l->pid = 0;
		l->fault.op = l->namespaces_op;
		if (errno == EBADF || errno == EBUSY || errno == EOPNOTSUPP || errno == ENODEV)
			l->fault.op = l->cgroup_op; /* clone(2): these come of CLONE_INTO_CGROUP alone */
		return fail(l, "clone3", "");
	}
	if (return_home(l) < 0 || leave_to_child(l) < 0)
		return -1;
	n = snprintf(text, sizeof text, "%d", (int)l->pid);
	tell(l, 'c', text, (size_t)n);
	if (run_side(l, 'P') < 0)
		return -1;
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* the id maps are written */
	if (l->awaits_parent && send(l->wire, "P", 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		return fail(l, "send", "wire");
	return 0;
}
