/* The system call filter, and the descriptor of one that asks somebody outside. */

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdlib.h>

#include "launcher.h"
#include "sys.h"

#ifndef SECCOMP_FILTER_FLAG_NEW_LISTENER
#define SECCOMP_FILTER_FLAG_NEW_LISTENER (1ul << 3)
#endif

enum { NOT_YET = -1, NONE = -2 };

struct courier {
	int socket;
	int listener; /* NOT_YET, NONE, or the descriptor */
	int error;    /* NOT_YET until all is done; errno of what failed */
};

static int carry(void *argument)
{
	struct courier *c = argument;
	int fd, error = 0;

	while ((fd = __atomic_load_n(&c->listener, __ATOMIC_ACQUIRE)) == NOT_YET)
		syscall(SYS_sched_yield);
	if (fd >= 0 && send_descriptors(c->socket, 'y', &fd, 1) < 0)
		error = errno;
	if (fd >= 0)
		close(fd); /* who held it here would wait for itself */
	__atomic_store_n(&c->error, error, __ATOMIC_RELEASE);
	return 0;
}

/* Once the filter is on, every call may be one that waits for the answer of somebody who has no descriptor to answer on
 * yet. So a thread, made before and therefore without a filter, hands it over, while we make no call at all. */
static int load_with_listener(struct launch *l, unsigned flags, const struct sock_fprog *program)
{
	static char stack[16384] __attribute__((aligned(16)));
	static struct courier courier; /* the thread's end may come after our return */
	int fd, error;

	courier = (struct courier){ l->parked ? l->monitor.clients[0].fd : l->wire, NOT_YET, NOT_YET };
	if (clone(carry, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
	          &courier) < 0)
		return fail(l, "clone", "seccomp listener");
	fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, program);
	error = errno;
	__atomic_store_n(&courier.listener, fd < 0 ? NONE : fd, __ATOMIC_RELEASE);
	while (__atomic_load_n(&courier.error, __ATOMIC_ACQUIRE) == NOT_YET)
		;
	if (fd < 0)
		return refuse(l, error, "seccomp", "");
	return courier.error ? refuse(l, courier.error, "sendmsg", "seccomp listener") : 0;
}

int op_seccomp(struct launch *l, const struct op *op)
{
	struct sock_fprog program = { (unsigned short)(op->length / 8), (struct sock_filter *)op->arg[0] };
	unsigned flags = (unsigned)number(op->arg[1]);

	mark_close_on_exec(3);
	if (flags & SECCOMP_FILTER_FLAG_NEW_LISTENER) {
		if (load_with_listener(l, flags, &program) < 0)
			return -1;
	} else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) < 0) {
		return fail(l, "seccomp", "");
	}
	l->filtered = true;
	return 0;
}
