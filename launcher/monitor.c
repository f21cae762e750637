/* After the clone: one loop over what can happen, and one table of what it means in which state. */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "launcher.h"
#include "sys.h"

/* ---- the life of a container: state x event -> action, next state; what is not in the table does not matter then ---- */

static void act_nothing(struct launch *l)
{
	(void)l;
}

static void act_start(struct launch *l)
{
	l->monitor.start_asked = false; /* each `await-start` takes one */
	if (send(l->wire, "S", 1, MSG_NOSIGNAL) < 0)
		return; /* it is dying: its exit will tell */
}

static void act_wait(struct launch *l)
{
	if (l->monitor.start_asked)
		happen(l, START_ASKED);
	else
		tell(l, 'w', "", 0);
}

static void act_park(struct launch *l)
{
	tell(l, 'w', "", 0);
}

static void act_run(struct launch *l)
{
	l->monitor.started_ns = now_ns();
	tell(l, 's', "", 0);
}

static void act_abandon(struct launch *l)
{
	if (l->dies_with_client && !l->monitor.start_asked)
		sys_pidfd_kill(l->pidfd, SIGKILL);
}

static void act_end(struct launch *l)
{
	l->monitor.finished_ns = now_ns();
	prepare_streams(l);
}

static void act_fail(struct launch *l)
{
	l->monitor.told = tell_fault(l);
}

/* It died during set-up without a word: killed from outside, or by the kernel for want of memory. */
static void act_lose(struct launch *l)
{
	int status = l->monitor.status;

	l->fault.op = l->shared->at;
	refuse(l, 0, "child", "");
	if (!l->sibling)
		snprintf(l->fault.reason, sizeof l->fault.reason, "%s:%d", WIFSIGNALED(status) ? "killed" : "exited",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	l->monitor.told = tell_fault(l);
}

static const struct step {
	enum state next;
	void (*act)(struct launch *);
} steps[STATES][EVENTS] = {
	[SETTING_UP] = {
		[CHILD_WAITS] = { WAITING, act_wait },
		[CHILD_PARKS] = { PARKED, act_park },
		[CHILD_EXECUTES] = { RUNNING, act_run },
		[CHILD_FAILED] = { FAILED, act_nothing },
		[CLIENT_GONE] = { SETTING_UP, act_abandon },
		[CHILD_EXITED] = { BROKEN, act_lose },
	},
	[WAITING] = {
		[START_ASKED] = { STARTING, act_start },
		[CHILD_FAILED] = { FAILED, act_nothing },
		[CLIENT_GONE] = { WAITING, act_abandon },
		[CHILD_EXITED] = { ENDED, act_end },
	},
	[STARTING] = {
		[CHILD_WAITS] = { WAITING, act_wait },
		[CHILD_PARKS] = { PARKED, act_park },
		[CHILD_EXECUTES] = { RUNNING, act_run },
		[CHILD_FAILED] = { FAILED, act_nothing },
		[CHILD_EXITED] = { ENDED, act_end },
	},
	[RUNNING] = {
		[CHILD_EXITED] = { ENDED, act_end },
	},
	[FAILED] = {
		[CHILD_EXITED] = { BROKEN, act_fail },
	},
};

void happen(struct launch *l, enum event event)
{
	const struct step *step = &steps[l->monitor.state][event];

	if (!step->act)
		return;
	l->monitor.state = step->next;
	step->act(l);
}

/* ---- where events come from ---- */

static int take_descriptors(struct msghdr *m, int fds[static 2])
{
	struct cmsghdr *c = CMSG_FIRSTHDR(m);
	size_t n = c && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

	fds[0] = fds[1] = -1;
	if (n > 0 && n <= 2)
		memcpy(fds, CMSG_DATA(c), n * sizeof(int));
	return (int)n;
}

/* One message of the child's. 0: the other end is closed, -1: nothing there now. */
static int child_message(struct launch *l)
{
	char kind, control[CMSG_SPACE(2 * sizeof(int))];
	struct iovec data = { &kind, 1 };
	struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	ssize_t n = recvmsg(l->wire, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	int fds[2];

	if (n < 0)
		return errno == ECONNRESET ? 1 : -1; /* it left something of ours unread; what it sent comes next */
	if (n == 0)
		return 0;
	take_descriptors(&m, fds);
	switch (kind) {
	case 'w': happen(l, CHILD_WAITS); break;
	case 'p': happen(l, CHILD_PARKS); break;
	case 't': take_terminal(l, fds[0], fds[1]); break;
	case 'n':
	case 'y':
		if (l->monitor.clients[0].fd >= 0)
			send_descriptors(l->monitor.clients[0].fd, kind, fds, 1);
		close(fds[0]);
		break;
	}
	return 1;
}

static bool child_failed(struct launch *l)
{
	if (__atomic_load_n(&l->shared->outcome, __ATOMIC_ACQUIRE) != FAILS)
		return false;
	l->fault = l->shared->fault;
	return true;
}

/* The child's end is closed: by the execve, or with the child. */
static void wire_closed(struct launch *l)
{
	close(l->wire);
	l->wire = -1;
	if (child_failed(l))
		happen(l, CHILD_FAILED);
	else if (l->shared->outcome == EXECUTES)
		happen(l, CHILD_EXECUTES);
}

static void on_wire(struct launch *l, int unused)
{
	int more = 1;

	(void)unused;
	while (l->wire >= 0 && more > 0) {
		more = child_message(l);
		if (more == 0)
			wire_closed(l);
	}
}

/* The child goes its own way: its status is for whoever inherits it, which shall not happen before the caller has noted
 * its pid and hung up. */
static bool is_on_its_own(const struct launch *l)
{
	return l->monitor.state == PARKED || (l->unmonitored && l->monitor.state == RUNNING);
}

static void on_exit_of_child(struct launch *l, int unused)
{
	struct monitor *m = &l->monitor;

	if (l->unmonitored)
		on_wire(l, unused); /* all it has said is there */
	if (is_on_its_own(l)) {
		close(l->pidfd);
		l->pidfd = -1;
		return;
	}
	if (!l->sibling && wait4(l->pid, &m->status, WNOHANG, &m->usage) != l->pid)
		return;
	close(l->pidfd);
	l->pidfd = -1;
	on_wire(l, unused); /* its last words come before its end */
	happen(l, CHILD_EXITED);
}

static void on_listen(struct launch *l, int unused)
{
	(void)unused;
	client_arrives(l);
}

static void on_input(struct launch *l, int unused)
{
	(void)unused;
	push_input(&l->monitor);
}

static void on_relay_in(struct launch *l, int unused)
{
	(void)unused;
	read_relay(&l->monitor);
}

static void on_output(struct launch *l, int i)
{
	if (l->monitor.out[i].from >= 0 && l->monitor.out[i].length == 0)
		read_output(l, &l->monitor.out[i]);
}

static void on_relay_out(struct launch *l, int i)
{
	push_output(l, &l->monitor.out[i]);
}

static void on_client(struct launch *l, int i)
{
	for (int k = 0; k < 2; k++)
		if (l->monitor.out[k].owed >> i & 1)
			push_output(l, &l->monitor.out[k]);
	client_readable(l, (unsigned)i);
}

/* poll(2), not epoll: it takes regular files, and a descriptor that is left out for a while reports no hang-up. */
enum { WIRE, CHILD, LISTEN, INPUT, RELAY_IN, OUTPUT, RELAY_OUT = OUTPUT + 2, FIRST_CLIENT = RELAY_OUT + 2,
	SOURCES = FIRST_CLIENT + CLIENTS };

static void (*const handlers[SOURCES])(struct launch *, int) = {
	[WIRE] = on_wire, [CHILD] = on_exit_of_child, [LISTEN] = on_listen, [INPUT] = on_input, [RELAY_IN] = on_relay_in,
	[OUTPUT] = on_output, [OUTPUT + 1] = on_output, [RELAY_OUT] = on_relay_out, [RELAY_OUT + 1] = on_relay_out,
};

static void want(struct pollfd *p, int fd, bool wanted, short events)
{
	*p = (struct pollfd){ .fd = wanted ? fd : -1, .events = events };
}

static bool has_free_client(const struct monitor *m)
{
	for (int i = 1; i < CLIENTS; i++)
		if (m->clients[i].fd < 0)
			return true;
	return false;
}

static void choose(const struct launch *l, struct pollfd p[static SOURCES])
{
	const struct monitor *m = &l->monitor;
	bool pending = m->in.length > 0, told = m->state == RUNNING || m->state == ENDED; /* `s` comes before any output */

	want(&p[WIRE], l->wire, true, POLLIN);
	want(&p[CHILD], l->pidfd, true, POLLIN);
	want(&p[LISTEN], m->listen, has_free_client(m), POLLIN);
	want(&p[INPUT], m->in.to, pending, POLLOUT);
	want(&p[RELAY_IN], m->in.relay, !pending && m->in.to >= 0, POLLIN);
	for (int i = 0; i < 2; i++) {
		const struct output *out = &m->out[i];

		want(&p[OUTPUT + i], out->from, told && out->length == 0, POLLIN);
		want(&p[RELAY_OUT + i], out->relay, out->relayed < out->length, POLLOUT);
	}
	for (int i = 0; i < CLIENTS; i++) {
		const struct client *client = &m->clients[i];
		bool owed = (m->out[0].owed | m->out[1].owed) >> i & 1, feeds = pending && (client->bits & FEEDS);

		want(&p[FIRST_CLIENT + i], client->fd, owed || !feeds, (short)((owed ? POLLOUT : 0) | (feeds ? 0 : POLLIN)));
	}
}

static void dispatch(struct launch *l, const struct pollfd p[static SOURCES])
{
	for (int i = 0; i < SOURCES; i++) {
		if (p[i].fd < 0 || !p[i].revents)
			continue;
		if (i >= FIRST_CLIENT) {
			if (l->monitor.clients[i - FIRST_CLIENT].fd == p[i].fd)
				on_client(l, i - FIRST_CLIENT);
		} else {
			handlers[i](l, i >= RELAY_OUT ? i - RELAY_OUT : i - OUTPUT);
		}
	}
}

/* Nobody may write to the pipes any more, so poll would not wake us for the last bytes' end. */
static bool drained(struct launch *l)
{
	bool done = true;

	for (int i = 0; i < 2; i++) {
		struct output *out = &l->monitor.out[i];

		while (out->from >= 0 && out->length == 0)
			read_output(l, out);
		done = done && out->length == 0;
	}
	return done;
}

/* Nobody waits for the end, so what is left is cleaned up by a process that knows how. Does not return if it succeeds. */
static void execute_reaper(struct launch *l)
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char *environment[] = { path, NULL };
	sigset_t none;

	if (!l->monitor.reap)
		return;
	mark_close_on_exec(3);
	sigemptyset(&none);
	set_signals(1 /* SIG_IGN */); /* drops what came while we did not listen, a SIGPIPE of a relay for example */
	sigprocmask(SIG_SETMASK, &none, NULL);
	set_signals(0 /* SIG_DFL */);
	execve(l->monitor.reap[0], l->monitor.reap, environment);
}

/* A failure before or beside the child's own: end the child, prefer its own explanation, tell. */
void kill_and_report(struct launch *l)
{
	if (l->pid > 0) {
		struct pollfd end = { .fd = l->pidfd, .events = POLLIN };

		sys_pidfd_kill(l->pidfd, SIGKILL);
		while (poll(&end, 1, -1) < 0 && errno == EINTR)
			;
		waitpid(l->pid, &l->monitor.status, 0);
		child_failed(l);
	}
	l->monitor.told = tell_fault(l);
	dismiss_clients(l);
	if (!l->monitor.told)
		execute_reaper(l);
}

/* A caller that went without a word may have noted nothing: then nobody would ever look for the child. */
static int release(struct launch *l)
{
	if (!l->released && l->pidfd >= 0)
		sys_pidfd_kill(l->pidfd, SIGKILL);
	return l->released ? 0 : 1;
}

int monitor_main(struct launch *l)
{
	struct monitor *m = &l->monitor;
	static char text[2048];
	size_t length;

	if (m->clients[0].fd < 0)
		happen(l, CLIENT_GONE);
	for (;;) {
		struct pollfd sources[SOURCES];

		if (is_on_its_own(l) && m->clients[0].fd < 0)
			return release(l);
		if (m->state == BROKEN || (m->state == ENDED && drained(l)))
			break;
		choose(l, sources);
		if (poll(sources, SOURCES, -1) > 0)
			dispatch(l, sources);
	}
	if (m->state == ENDED) {
		length = write_exit(l, text, sizeof text);
		m->told = tell_exit(l, text, length);
	} else {
		dismiss_clients(l);
	}
	if (!m->told || (l->detach && m->state == ENDED))
		execute_reaper(l);
	return m->state == ENDED ? 0 : 1;
}
