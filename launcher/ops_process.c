/* What the command is allowed and who it is: limits, identity, capabilities, terminal, start. */

#include <grp.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "launcher.h"
#include "sys.h"

#define PEER_TERMINAL 0x5441 /* TIOCGPTPEER */

int op_umask(struct launch *l, const struct op *op)
{
	(void)l;
	umask((mode_t)strtoul(op->arg[0], NULL, 8));
	return 0;
}

int op_rlimit(struct launch *l, const struct op *op)
{
	struct rlimit limit = { (rlim_t)number(op->arg[1]), (rlim_t)number(op->arg[2]) };

	/* The raw call: libc's names for infinity differ, -1 is the kernel's */
	if (syscall(SYS_prlimit64, 0, (int)number(op->arg[0]), &limit, NULL) < 0)
		return fail(l, "prlimit", op->arg[0]);
	return 0;
}

/* What a security module makes of the next execve (apparmor, selinux). The host's procfs: a container's may be anything. */
int op_exec_label(struct launch *l, const struct op *op)
{
	char path[64];

	if ((size_t)snprintf(path, sizeof path, "self/attr/%s", op->arg[0]) >= sizeof path)
		return refuse(l, ENAMETOOLONG, "write", op->arg[0]);
	return write_proc(l, l->host_proc, path, op->arg[1]);
}

int op_keyring(struct launch *l, const struct op *op)
{
	return new_keyring(l, op->arg[0]);
}

static int stay_private(struct launch *l)
{
	/* Every change of identity sets this to fs.suid_dumpable; between here and execve nobody may look into us */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_SET_DUMPABLE");
	return 0;
}

static int set_ids(struct launch *l, uid_t uid, gid_t gid)
{
	char text[32];

	snprintf(text, sizeof text, "%u:%u", uid, gid);
	if (syscall(SYS_setresgid, gid, gid, gid) < 0)
		return fail(l, "setresgid", text);
	if (syscall(SYS_setresuid, uid, uid, uid) < 0)
		return fail(l, "setresuid", text);
	return stay_private(l);
}

int op_become(struct launch *l, const struct op *op)
{
	if (!l->groups_denied && syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
		return fail(l, "setgroups", "");
	return set_ids(l, (uid_t)number(op->arg[0]), (gid_t)number(op->arg[1]));
}

int op_bounding(struct launch *l, const struct op *op)
{
	uint64_t keep = strtoull(op->arg[0], NULL, 16);
	char text[24];

	for (int cap = 0; cap < 64; cap++) {
		int present = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (present < 0)
			break; /* EINVAL: this kernel knows no more */
		if (!present || keep >> cap & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
			snprintf(text, sizeof text, "%d", cap);
			return fail(l, "prctl", text);
		}
	}
	return 0;
}

/* A command that is not root must be able to open /dev/stdout: its pipes and its terminal become its own. Only what is
 * anonymous or ours is touched, never a file or terminal of the caller's. */
static void give_streams(struct launch *l, uid_t uid, gid_t gid)
{
	for (int fd = 0; uid && fd < 3; fd++) {
		struct statfs fs = { 0 };
		bool pipe = fstatfs(fd, &fs) == 0 && fs.f_type == PIPEFS_MAGIC;

		if (!pipe && !(l->terminal && fs.f_type == DEVPTS_SUPER_MAGIC))
			continue;
		if (fchown(fd, uid, pipe ? gid : (gid_t)-1) < 0) /* a terminal's group lets others write to it */
			continue; /* not ours to give: it works as it is, only not by name */
	}
}

int op_user(struct launch *l, const struct op *op)
{
	static gid_t groups[PLAN_WORDS];
	uid_t uid = (uid_t)number(op->arg[0]);
	size_t count = 0;

	for (uint32_t i = 2; i < op->count; i++)
		groups[count++] = (gid_t)number(op->arg[i]);
	/* Raw calls: libc's would look for threads, and the child of a raw clone has none */
	if (syscall(SYS_setgroups, count, groups) < 0 && !(l->groups_denied && count == 0))
		return fail(l, "setgroups", "");
	give_streams(l, uid, (gid_t)number(op->arg[1]));
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_SET_KEEPCAPS");
	return set_ids(l, uid, (gid_t)number(op->arg[1]));
}

int op_capabilities(struct launch *l, const struct op *op)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	uint64_t set[4];

	for (int i = 0; i < 4; i++)
		set[i] = strtoull(op->arg[i], NULL, 16);
	for (int half = 0; half < 2; half++) {
		data[half].effective = (uint32_t)(set[0] >> 32 * half);
		data[half].permitted = (uint32_t)(set[1] >> 32 * half);
		data[half].inheritable = (uint32_t)(set[2] >> 32 * half);
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_CAP_AMBIENT");
	if (syscall(SYS_capset, &header, data) < 0)
		return fail(l, "capset", op->arg[1]);
	for (int cap = 0; cap < 64; cap++)
		if (set[3] >> cap & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return fail(l, "prctl", "PR_CAP_AMBIENT_RAISE");
	prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
	return stay_private(l);
}

int op_no_new_privs(struct launch *l, const struct op *op)
{
	(void)op;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_SET_NO_NEW_PRIVS");
	return 0;
}

/* Descriptors lead out of the root where names do not (CVE-2024-21626): no name may go by one, and for the rest there is a
 * proof: the kernel writes a path that starts with "(unreachable)" for a directory outside. */
int op_cwd(struct launch *l, const struct op *op)
{
	char path[PATH_MAX];
	int fd = l->filtered ? -1 : sys_openat2(AT_FDCWD, op->arg[0], O_PATH | O_DIRECTORY | O_CLOEXEC, RESOLVE_NO_MAGICLINKS);

	if (fd < 0 && !l->filtered)
		return fail(l, "chdir", op->arg[0]);
	if (fd >= 0 ? fchdir(fd) < 0 : chdir(op->arg[0]) < 0)
		return fail(l, "chdir", op->arg[0]);
	if (fd >= 0)
		close(fd);
	if (syscall(SYS_getcwd, path, sizeof path) < 0)
		return fail(l, "getcwd", op->arg[0]);
	if (*path != '/')
		return refuse(l, EXDEV, "getcwd", op->arg[0]);
	return 0;
}

int op_death_signal(struct launch *l, const struct op *op)
{
	struct pollfd wire = { .fd = l->wire };

	l->death_signal = (int)number(op->arg[0]);
	if (prctl(PR_SET_PDEATHSIG, l->death_signal, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_SET_PDEATHSIG");
	/* It may have died before: its end of the wire would be closed. getppid() tells nothing across pid namespaces. */
	if (poll(&wire, 1, 0) == 1 && wire.revents & POLLHUP)
		return refuse(l, ESRCH, "poll", "the monitor is gone");
	return 0;
}

int op_await_start(struct launch *l, const struct op *op)
{
	char byte;
	ssize_t n;

	(void)op;
	if (send(l->wire, "w", 1, MSG_NOSIGNAL) < 0)
		return fail(l, "send", "wire");
	while ((n = recv(l->wire, &byte, 1, 0)) < 0 && errno == EINTR)
		;
	if (n != 1 || byte != 'S')
		return refuse(l, ESRCH, "recv", "the monitor is gone");
	return 0;
}

/* The launcher is not needed any more. Who connects to the listening socket and says `S` starts the command. What becomes of it
 * stands in the report when the connection closes. */
int op_await_start_on(struct launch *l, const struct op *op)
{
	int listening = (int)number(op->arg[0]);
	void *report = mmap(NULL, REPORT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, (int)number(op->arg[1]), 0);

	if (report == MAP_FAILED)
		return fail(l, "mmap", "report");
	if (send(l->wire, "p", 1, MSG_NOSIGNAL) < 0)
		return fail(l, "send", "wire");
	close(l->wire);
	l->wire = -1;
	l->parked = report;
	for (;;) {
		int caller = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
		char byte = 0;

		if (caller < 0 && errno != EINTR && errno != ECONNABORTED)
			return fail(l, "accept4", "start");
		if (caller >= 0 && recv(caller, &byte, 1, 0) == 1 && byte == 'S') {
			l->monitor.clients[0].fd = caller;
			return close(listening);
		}
		if (caller >= 0)
			close(caller);
	}
}

/* The slave end is asked for by the master's descriptor, never by a name that the image or a neighbour may have replaced
 * (CVE-2025-52565); the master must come from a devpts. */
static int open_pty(struct launch *l)
{
	static const char path[] = "/dev/pts/ptmx";
	struct statfs fs;
	struct stat st;
	int unlock = 0;

	l->pty = sys_openat2(root_of(l), path, O_RDWR | O_NOCTTY | O_CLOEXEC, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
	if (l->pty < 0)
		return fail(l, "openat2", path);
	if (fstatfs(l->pty, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC || fstat(l->pty, &st) < 0 ||
	    st.st_rdev != makedev(5, 2))
		return refuse(l, EXDEV, "fstatfs", path);
	if (ioctl(l->pty, TIOCSPTLCK, &unlock) < 0)
		return fail(l, "ioctl", "TIOCSPTLCK");
	l->pty_slave = ioctl(l->pty, PEER_TERMINAL, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (l->pty_slave < 0)
		return fail(l, "ioctl", "TIOCGPTPEER");
	return 0;
}

/* An OCI console socket is a stream socket that takes the master with its name (runtime-spec, runc's terminals.md). */
static int send_console(struct launch *l, int socket)
{
	char name[] = "/dev/ptmx", control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { name, sizeof name - 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &l->pty, sizeof(int));
	if (sendmsg(socket, &m, MSG_NOSIGNAL) < 0)
		return fail(l, "sendmsg", "console socket");
	return 0;
}

/* `console` needs the pair earlier and calls this without an operation. */
int op_terminal(struct launch *l, const struct op *op)
{
	struct winsize size = { 0 };
	int socket, ends[2];

	if (l->pty < 0 && open_pty(l) < 0)
		return -1;
	if (!op)
		return 0;
	size.ws_row = (unsigned short)number(op->arg[0]);
	size.ws_col = (unsigned short)number(op->arg[1]);
	if ((size.ws_row || size.ws_col) && ioctl(l->pty_slave, TIOCSWINSZ, &size) < 0)
		return fail(l, "ioctl", "TIOCSWINSZ");
	if (ioctl(l->pty_slave, TIOCSCTTY, 0) < 0)
		return fail(l, "ioctl", "TIOCSCTTY");
	for (int fd = 0; fd < 3; fd++)
		if (dup2(l->pty_slave, fd) < 0)
			return fail(l, "dup2", "terminal");
	socket = (int)number(op->arg[2]);
	if (socket >= 0 && send_console(l, socket) < 0)
		return -1;
	ends[0] = l->pty;
	ends[1] = l->pty_slave;
	if (socket < 0 && send_descriptors(l->wire, 't', ends, 2) < 0)
		return fail(l, "sendmsg", "terminal");
	close(l->pty);
	return 0;
}

static int exit_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Process 1: reaps orphans, hands signals on, ends when the command ends, with its status. Never returns. */
static void reap_forever(pid_t command)
{
	sigset_t all;

	sigfillset(&all);
	sys_close_range(0, ~0u, 0);
	for (;;) {
		siginfo_t info;
		int signal = sigwaitinfo(&all, &info), status;
		pid_t pid;

		if (signal < 0)
			continue;
		if (signal != SIGCHLD && signal != SIGTTIN && signal != SIGTTOU)
			kill(command, signal);
		while (signal == SIGCHLD && (pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == command)
				_exit(exit_code(status));
	}
}

int op_init(struct launch *l, const struct op *op)
{
	pid_t reaper = getpid(), pid;

	(void)op;
	if (reaper != 1)
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	pid = fork();
	if (pid < 0)
		return fail(l, "fork", "init");
	if (pid > 0) {
		munmap(l->shared, sizeof *l->shared);
		if (l->parked)
			munmap(l->parked, REPORT_BYTES);
		prctl(PR_SET_NAME, "init", 0, 0, 0);
		memset(l->title, 0, l->title_size);
		copy_text(l->title, l->title_size, "init");
		reap_forever(pid);
	}
	/* A process group of its own, in the terminal's foreground: so ^C reaches the command once (SIGTTOU is blocked here) */
	setpgid(0, 0);
	if (l->terminal)
		tcsetpgrp(0, getpgrp());
	if (l->death_signal && (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != reaper))
		return refuse(l, ESRCH, "prctl", "init is gone");
	return 0;
}
