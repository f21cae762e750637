/* Bytes on their way: from the command's pipes (or terminal) to the log, the relay and the clients, and back to stdin.
 * Nothing is lost: a pipe is read again only when everybody has taken what was read before. */

#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "launcher.h"
#include "sys.h"

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static bool ready(int fd, short event)
{
	struct pollfd p = { .fd = fd, .events = event };

	return poll(&p, 1, 0) == 1;
}

/* A relay that is not non-blocking gets a page at a time: so much a pipe takes when poll says that it takes anything. The
 * flag is the caller's to set, since it is shared with the caller's own terminal. */
static void push_relay(struct output *out)
{
	while (out->relay >= 0 && out->relayed < out->length) {
		size_t n = out->length - out->relayed;
		ssize_t written;

		if (out->relay_blocks && !ready(out->relay, POLLOUT))
			return;
		if (out->relay_blocks && n > 4096)
			n = 4096;
		written = write(out->relay, out->data + out->relayed, n);
		if (written >= 0)
			out->relayed += (uint32_t)written;
		else if (errno == EAGAIN)
			return;
		else if (errno != EINTR)
			close_fd(&out->relay); /* nobody reads any more; the log still does */
	}
}

static void push_clients(struct launch *l, struct output *out)
{
	char kind = out->stream == 1 ? 'o' : 'e';

	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *client = &l->monitor.clients[i];
		struct iovec parts[] = { { &kind, 1 }, { out->data, out->length } };
		struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };

		if (!(out->owed >> i & 1) || client->fd < 0)
			continue;
		if (sendmsg(client->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			out->owed &= ~(1u << i);
		else if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
			client_gone(l, i);
	}
}

/* Everybody has it: the pipe may be read again. */
void settle_output(struct output *out)
{
	if (out->owed == 0 && (out->relay < 0 || out->relayed == out->length))
		out->length = 0;
}

void push_output(struct launch *l, struct output *out)
{
	push_relay(out);
	push_clients(l, out);
	settle_output(out);
}

static uint32_t listeners(const struct monitor *m, uint8_t stream)
{
	uint32_t mask = 0;

	for (unsigned i = 0; i < CLIENTS; i++)
		if (m->clients[i].fd >= 0 && m->clients[i].bits & (stream == 1 ? 2 : 4))
			mask |= 1u << i;
	return mask;
}

/* Once the command has ended, an empty pipe is a finished one, and no more is read than it held then: a process outside
 * that inherited the pipe may go on writing for ever. */
void read_output(struct launch *l, struct output *out)
{
	struct monitor *m = &l->monitor;
	bool ended = m->state == ENDED;
	size_t want = ended && out->budget < sizeof out->data ? (size_t)out->budget : sizeof out->data;
	ssize_t n = want ? read(out->from, out->data, want) : 0;

	if (n < 0 && (errno == EINTR || (errno == EAGAIN && !ended)))
		return;
	if (n <= 0) {
		close_fd(&out->from);
		return;
	}
	if (ended)
		out->budget -= (uint64_t)n;
	out->length = (uint32_t)n;
	out->relayed = 0;
	out->owed = listeners(m, out->stream);
	write_log(&m->log, out->stream, out->data, out->length);
	push_output(l, out);
}

/* How much is to be drained. Of a terminal everything: what the kernel still moves comes with the read, and its last holder
 * was hung up. */
void prepare_streams(struct launch *l)
{
	for (int i = 0; i < 2; i++) {
		struct output *out = &l->monitor.out[i];
		int held = 0;

		out->budget = UINT64_MAX;
		if (out->from >= 0 && !l->terminal && ioctl(out->from, FIONREAD, &held) == 0)
			out->budget = (uint64_t)held;
	}
	close_fd(&l->monitor.in.to);
	l->monitor.in.length = 0;
}

void push_input(struct monitor *m)
{
	struct input *in = &m->in;

	if (in->terminal && m->terminal < 0 && m->state == SETTING_UP)
		return; /* typed ahead: the terminal is not made yet */
	while (in->to >= 0 && in->offset < in->length) {
		ssize_t n = write(in->to, in->data + in->offset, in->length - in->offset);

		if (n >= 0)
			in->offset += (uint32_t)n;
		else if (errno == EAGAIN)
			return;
		else if (errno != EINTR)
			close_fd(&in->to); /* nobody reads it any more */
	}
	in->length = in->offset = 0;
	if (in->closing && !in->terminal)
		close_fd(&in->to);
}

void read_relay(struct monitor *m)
{
	struct input *in = &m->in;
	ssize_t n = read(in->relay, in->data, sizeof in->data);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		close_fd(&in->relay);
		in->closing = true;
	}
	in->length = n > 0 ? (uint32_t)n : 0;
	in->offset = 0;
	push_input(m);
}

/* The pair's slave end is kept open: so a command that closes its terminal and opens it again later is not cut off. */
void take_terminal(struct launch *l, int master, int slave)
{
	struct monitor *m = &l->monitor;

	fcntl(master, F_SETFL, O_NONBLOCK);
	m->terminal = master;
	m->terminal_slave = slave;
	m->out[0].from = fcntl(master, F_DUPFD_CLOEXEC, 3);
	m->in.to = fcntl(master, F_DUPFD_CLOEXEC, 3);
	set_window(m);
	push_input(m);
}

void set_window(struct monitor *m)
{
	struct winsize size = { .ws_row = m->rows, .ws_col = m->columns };

	if (m->terminal >= 0 && (m->rows || m->columns))
		ioctl(m->terminal, TIOCSWINSZ, &size);
}
