/* Where the streams go, and the configuration of the monitor: noted here, used after the clone. */

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "launcher.h"
#include "sys.h"

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

int op_stdio(struct launch *l, const struct op *op)
{
	if (!strcmp(op->arg[0], "pty")) {
		l->terminal = l->monitor.in.terminal = true;
		return 0;
	}
	for (int i = 0; i < 3; i++)
		if (one_stream(l, i, op->arg[i]) < 0)
			return -1;
	return 0;
}

int op_client(struct launch *l, const struct op *op)
{
	l->monitor.clients[0].fd = (int)number(op->arg[0]);
	return 0;
}

/* Until the child stands on its own feet nobody but the caller knows of it. */
int op_no_monitor(struct launch *l, const struct op *op)
{
	(void)op;
	l->unmonitored = l->dies_with_client = true;
	return 0;
}

int op_sibling(struct launch *l, const struct op *op)
{
	(void)op;
	l->sibling = true;
	return 0;
}

int op_listen(struct launch *l, const struct op *op)
{
	l->monitor.listen = (int)number(op->arg[0]);
	return 0;
}

int op_keep(struct launch *l, const struct op *op)
{
	if (l->monitor.kept_count == KEPT)
		return refuse(l, E2BIG, "keep", op->arg[0]);
	l->monitor.kept[l->monitor.kept_count++] = (int)number(op->arg[0]);
	return 0;
}

int op_log(struct launch *l, const struct op *op)
{
	struct log *log = &l->monitor.log;

	log->path = op->arg[0];
	log->limit = (uint64_t)number(op->arg[1]);
	log->files = (uint64_t)number(op->arg[2]);
	return open_log(l);
}

int op_relay(struct launch *l, const struct op *op)
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

int op_exit_file(struct launch *l, const struct op *op)
{
	l->monitor.exit_file = op->arg[0];
	return 0;
}

int op_exit_stat(struct launch *l, const struct op *op)
{
	if (l->monitor.stat_count == STATS)
		return refuse(l, E2BIG, "exit-stat", op->arg[0]);
	l->monitor.stats[l->monitor.stat_count++] = op;
	return 0;
}

int op_reap(struct launch *l, const struct op *op)
{
	l->monitor.reap = op->arg;
	return 0;
}

/* The caller makes the control groups while we make the namespaces. */
int op_await_client(struct launch *l, const struct op *op)
{
	struct monitor *m = &l->monitor;

	(void)op;
	while (!m->go_asked) {
		struct pollfd p = { .fd = m->clients[0].fd, .events = POLLIN };

		if (p.fd < 0 || m->cancelled || m->in.length)
			return refuse(l, p.fd < 0 ? ESRCH : m->cancelled ? ECANCELED : EPROTO, "recv", "the caller");
		if (poll(&p, 1, -1) > 0)
			client_readable(l, 0);
	}
	return 0;
}
