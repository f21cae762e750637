/* cloison-launcher FIRST COUNT: carries out the plan on descriptor FIRST, then monitors the process it started.
 * --operations lists the verbs; --check-plan [FD] reads a plan and does nothing else. */

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "launcher.h"
#include "sys.h"

static struct launch launch; /* too large for the stack; used by main alone, the rest get a pointer */

void copy_text(char *to, size_t size, const char *from)
{
	size_t n = strnlen(from, size - 1);

	memcpy(to, from, n);
	to[n] = 0;
}

/* Notes errno, the call and its object for the one report; always -1. */
int fail(struct launch *l, const char *call, const char *path)
{
	return refuse(l, errno, call, path);
}

int refuse(struct launch *l, int error, const char *call, const char *path)
{
	l->fault.error = error;
	copy_text(l->fault.call, sizeof l->fault.call, call);
	copy_text(l->fault.path, sizeof l->fault.path, path ? path : "");
	return -1;
}

bool owns_descriptor(const struct launch *l, int fd)
{
	return fd >= -1 && (fd <= 2 || (fd >= l->first && fd <= l->last));
}

/* Everything from `first` on disappears at execve. CLOSE_RANGE_CLOEXEC came with Linux 5.11; a sandbox may refuse it. */
void mark_close_on_exec(unsigned first)
{
	struct rlimit limit;
	unsigned last = 1024;

	if (sys_close_range(first, ~0u, RANGE_CLOEXEC) == 0)
		return;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536)
		last = (unsigned)limit.rlim_cur;
	for (unsigned fd = first; fd < last; fd++)
		fcntl((int)fd, F_SETFD, FD_CLOEXEC);
}

static void close_all_but(int first, int last)
{
	if (first > 3)
		sys_close_range(3, (unsigned)first - 1, 0);
	sys_close_range((unsigned)last + 1, ~0u, 0);
	mark_close_on_exec(3);
}

/* One disposition for all signals. Raw, because libc refuses its own two real-time signals, and a caller may have ignored
 * them; the handler is the first field of the kernel's structure. KILL and STOP refuse, which is as well. */
void set_signals(uint64_t handler)
{
	const uint64_t action[8] = { handler };

	for (int signal = 1; signal <= 64; signal++)
		syscall(SYS_rt_sigaction, signal, action, NULL, 8);
}

/* Attributes that fork and exec hand down (security: a command must not learn or keep what its caller had). What the
 * kernel refuses for want of rights is skipped: raising niceness, real-time policies and securebits may need some. */
static void reset_attributes(void)
{
	const uint64_t none = 0;
	struct sched_param normal = { 0 };
	static uint64_t every_cpu[16];

	set_signals(0 /* SIG_DFL */);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
	umask(022);
	setsid();
	setpriority(PRIO_PROCESS, 0, 0);
	syscall(SYS_sched_setscheduler, 0, SCHED_OTHER, &normal);
	syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, 0);
	memset(every_cpu, 0xff, sizeof every_cpu);
	syscall(SYS_sched_setaffinity, 0, sizeof every_cpu, every_cpu);
	syscall(SYS_set_mempolicy, 0 /* MPOL_DEFAULT */, NULL, 0);
	prctl(PR_SET_TIMERSLACK, 50000, 0, 0, 0); /* 0 would bring back the parent's, not the kernel's default */
	prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
	prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
	prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0);
	prctl(PR_MCE_KILL, PR_MCE_KILL_CLEAR, 0, 0, 0);
	if (prctl(PR_GET_SECUREBITS, 0, 0, 0, 0) > 0)
		prctl(PR_SET_SECUREBITS, 0, 0, 0, 0);
}

static int reset(struct launch *l)
{
	reset_attributes();
	prctl(PR_SET_NAME, "cloison", 0, 0, 0); /* executed from a descriptor, it would be called by that one's number */
	if (chdir("/") < 0)
		return fail(l, "chdir", "/");
	if (personality(PER_LINUX) < 0)
		return fail(l, "personality", "");
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return fail(l, "prctl", "PR_SET_DUMPABLE");
	for (int fd = open("/dev/null", O_RDWR | O_CLOEXEC); fd >= 0 && fd <= 2; fd = open("/dev/null", O_RDWR))
		; /* a caller may have closed some of 0, 1, 2: no descriptor of ours shall land there */
	close_all_but(l->first, l->last);
	l->host_proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return 0;
}

static int list_operations(void)
{
	for (const struct verb *v = verbs; v->name; v++)
		printf("%s %d %c\n", v->name, v->arguments, v->side);
	return fflush(stdout) ? 1 : 0;
}

static void initialise(struct launch *l)
{
	struct monitor *m = &l->monitor;
	int *none[] = { &l->cgroup, &l->own_pid_namespace, &l->own_time_namespace, &l->host_proc, &l->wire, &l->child_wire,
		&l->pidfd, &l->root, &l->procfs, &l->host_null, &l->mask_null, &l->mask_tmpfs, &l->pty, &l->pty_slave,
		&m->listen, &m->in.to, &m->in.relay, &m->log.fd, &m->terminal, &m->terminal_slave };

	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		*none[i] = -1;
	for (int i = 0; i < CLIENTS; i++)
		m->clients[i].fd = -1;
	for (int i = 0; i < 3; i++)
		l->child_io[i] = -1;
	for (int i = 0; i < 2; i++) {
		m->out[i].from = m->out[i].relay = -1;
		m->out[i].stream = (uint8_t)(i + 1);
	}
	l->fault.op = l->namespaces_op = l->cgroup_op = NO_OPERATION;
	l->first = 3;
	l->last = 2;
}

static int check_only(struct launch *l, int fd)
{
	l->last = 1 << 20; /* any descriptor will do: none is used */
	if (read_plan(l, fd) == 0)
		return 0;
	fprintf(stderr, "cloison-launcher: %s\n", plan_error());
	return 2;
}

static int execute(struct launch *l)
{
	if (reset(l) < 0 || run_side(l, 'M') < 0 || run_side(l, 'B') < 0 || start_child(l) < 0) {
		kill_and_report(l);
		return 1;
	}
	return monitor_main(l);
}

int main(int argc, char **argv)
{
	struct launch *l = &launch;
	int count;

	initialise(l);
	if (argc == 2 && !strcmp(argv[1], "--operations"))
		return list_operations();
	if (argc >= 2 && !strcmp(argv[1], "--check-plan"))
		return check_only(l, argc > 2 ? atoi(argv[2]) : 0);
	if (argc != 3 || (l->first = atoi(argv[1])) < 3 || (count = atoi(argv[2])) < 1 || count > 1 << 16 || l->first > 1 << 20) {
		fputs("usage: cloison-launcher FIRST COUNT | --operations | --check-plan [FD]\n", stderr);
		return 2;
	}
	l->last = l->first + count - 1;
	for (int fd = l->first; fd <= l->last; fd++) {
		if (fcntl(fd, F_GETFD) < 0) { /* what we open later would land there */
			fprintf(stderr, "cloison-launcher: descriptor %d is not open\n", fd);
			return 2;
		}
	}
	l->title = argv[0];
	l->title_size = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) - argv[0]);
	if (read_plan(l, l->first) < 0) {
		fprintf(stderr, "cloison-launcher: plan refused: %s\n", plan_error());
		return 2;
	}
	return execute(l);
}
