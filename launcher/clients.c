/* Messages: one datagram each, its first byte the kind (docs/launch-plan.md). Client 0 is the caller. */

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "launcher.h"
#include "sys.h"

static ssize_t send_message(int fd, char kind, const char *text, size_t length)
{
	struct iovec parts[] = { { &kind, 1 }, { (void *)text, length } };
	struct msghdr m = { .msg_iov = parts, .msg_iovlen = 2 };

	return sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* A short notice to client 0 and to all that are attached; whether client 0 got it. */
bool tell(struct launch *l, char kind, const char *text, size_t length)
{
	bool told = false;

	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct client *client = &l->monitor.clients[i];

		if (client->fd >= 0 && (i == 0 || client->attached) && send_message(client->fd, kind, text, length) >= 0)
			told |= i == 0;
	}
	return told;
}

/* The six words; their length with the last NUL, 0 when there is no room for them. */
size_t write_fault(const struct launch *l, char *text, size_t size)
{
	const struct fault *f = &l->fault;
	bool known = f->op < l->count;
	int n = snprintf(text, size, "%d%c%s%c%s%c%d%c%s%c%s", known ? (int)f->op : -1, 0,
			 known ? l->ops[f->op].verb->name : "launch", 0, f->call, 0, f->error, 0, f->path, 0, f->reason);

	return n > 0 && (size_t)n < size ? (size_t)n + 1 : 0;
}

bool tell_fault(struct launch *l)
{
	char text[2048];
	size_t length = write_fault(l, text, sizeof text);

	return length && tell(l, 'f', text, length);
}

/* A socket closed with unread messages in it would make the peer's next read fail (ECONNRESET) and hide our last words. */
static void close_client(struct client *client)
{
	char byte;

	shutdown(client->fd, SHUT_RD);
	while (recv(client->fd, &byte, 1, MSG_DONTWAIT) > 0)
		;
	close(client->fd);
	*client = (struct client){ .fd = -1 };
}

void dismiss_clients(struct launch *l)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (l->monitor.clients[i].fd >= 0)
			close_client(&l->monitor.clients[i]);
}

/* What was still to be sent to it need not be. */
static void forgive(struct monitor *m, unsigned index)
{
	for (int i = 0; i < 2; i++) {
		m->out[i].owed &= ~(1u << index);
		settle_output(&m->out[i]);
	}
}

void client_gone(struct launch *l, unsigned index)
{
	struct monitor *m = &l->monitor;
	bool ends_input = m->clients[index].bits & 8;

	close_client(&m->clients[index]);
	forgive(m, index);
	if (ends_input) {
		m->in.closing = true;
		push_input(m);
	}
	if (index == 0)
		happen(l, CLIENT_GONE);
}

static void attach(struct launch *l, struct client *client, uint8_t bits)
{
	char pid[16];
	int n = snprintf(pid, sizeof pid, "%d", (int)l->pid);

	if (client != &l->monitor.clients[0] && !client->attached) {
		send_message(client->fd, 'c', pid, (size_t)n);
		if (l->monitor.started_ns)
			send_message(client->fd, 's', "", 0);
	}
	client->attached = true;
	client->bits = bits;
}

static void obey(struct launch *l, struct client *client, const char *message, size_t length)
{
	struct monitor *m = &l->monitor;
	const uint8_t *bytes = (const uint8_t *)message;

	switch (*message) {
	case 'S': m->start_asked = true; happen(l, START_ASKED); break;
	case 'G': m->go_asked = true; break;
	case 'C': m->cancelled = true; break;
	case 'A': attach(l, client, length > 1 ? bytes[1] : 0); break;
	case 'D':
		client->attached = false;
		client->bits = 0;
		l->released |= client == &m->clients[0];
		forgive(m, (unsigned)(client - m->clients));
		break;
	case 'E': m->in.closing = true; push_input(m); break;
	case 'W':
		if (length < 5)
			break;
		m->rows = (uint16_t)(bytes[1] | bytes[2] << 8);
		m->columns = (uint16_t)(bytes[3] | bytes[4] << 8);
		set_window(m);
		break;
	case 'I':
		client->bits |= FEEDS;
		memcpy(m->in.data, message + 1, length - 1);
		m->in.length = (uint32_t)(length - 1);
		m->in.offset = 0;
		push_input(m);
		break;
	}
}

/* One message. Bytes for stdin stay in the socket while others wait for the command to read: then the loop leaves out
 * the clients that feed stdin. A message that is too long ends its client. */
void client_readable(struct launch *l, unsigned index)
{
	static char message[INPUT_BYTES + 1];
	struct client *client = &l->monitor.clients[index];
	char kind = 0;
	ssize_t n;

	if (client->fd < 0 || (l->monitor.in.length && client->bits & FEEDS))
		return;
	if (l->monitor.in.length && recv(client->fd, &kind, 1, MSG_DONTWAIT | MSG_PEEK) == 1 && kind == 'I') {
		client->bits |= FEEDS;
		return;
	}
	n = recv(client->fd, message, sizeof message, MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0 || (size_t)n > sizeof message)
		client_gone(l, index);
	else
		obey(l, client, message, (size_t)n);
}

void client_arrives(struct launch *l)
{
	int fd = accept4(l->monitor.listen, NULL, NULL, SOCK_CLOEXEC);

	for (unsigned i = 1; fd >= 0 && i < CLIENTS; i++) {
		if (l->monitor.clients[i].fd < 0) {
			l->monitor.clients[i] = (struct client){ .fd = fd };
			return;
		}
	}
	if (fd >= 0)
		close(fd);
}

static bool send_exit(int fd, const char *text, size_t length)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	while (send_message(fd, 'x', text, length) < 0) {
		if (errno == EAGAIN || errno == ENOBUFS)
			poll(&p, 1, errno == EAGAIN ? -1 : 10);
		else if (errno != EINTR)
			return false;
	}
	return true;
}

/* The last message, after all output; waits for those who read slowly. Whether client 0 got it: then the rest is its. */
bool tell_exit(struct launch *l, const char *text, size_t length)
{
	bool told = false;

	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *client = &l->monitor.clients[i];

		if (client->fd < 0)
			continue;
		if ((i == 0 || client->attached) && send_exit(client->fd, text, length))
			told |= i == 0;
		close_client(client);
	}
	return told;
}
