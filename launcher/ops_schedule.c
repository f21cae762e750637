/* How the command shares the machine: scheduler, I/O priority, CPUs, memory nodes; and which machine it believes to be on. */

#include <stdlib.h>
#include <sys/personality.h>

#include "launcher.h"
#include "sys.h"

enum { CPUS = 8192, NODES = 1024, WORD = 8 * sizeof(unsigned long) };

struct scheduling { /* struct sched_attr, as of Linux 3.14 */
	uint32_t size, policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime, deadline, period;
};

static int set_bit(struct launch *l, unsigned long *bits, int64_t bound, const char *word)
{
	int64_t bit = number(word);

	if (bit < 0 || bit >= bound)
		return refuse(l, EINVAL, "number", word);
	bits[(size_t)bit / WORD] |= 1ul << (size_t)bit % WORD;
	return 0;
}

int op_scheduler(struct launch *l, const struct op *op)
{
	struct scheduling s = { .size = sizeof s };

	s.policy = (uint32_t)number(op->arg[0]);
	s.nice = (int32_t)number(op->arg[1]);
	s.priority = (uint32_t)number(op->arg[2]);
	s.flags = strtoull(op->arg[3], NULL, 16);
	s.runtime = strtoull(op->arg[4], NULL, 16);
	s.deadline = strtoull(op->arg[5], NULL, 16);
	s.period = strtoull(op->arg[6], NULL, 16);
	return syscall(SYS_sched_setattr, 0, &s, 0) < 0 ? fail(l, "sched_setattr", "") : 0;
}

int op_io_priority(struct launch *l, const struct op *op)
{
	return syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, (int)number(op->arg[0])) < 0 ? fail(l, "ioprio_set", "") : 0;
}

int op_affinity(struct launch *l, const struct op *op)
{
	unsigned long cpus[CPUS / WORD] = { 0 };

	for (uint32_t i = 0; i < op->count; i++)
		if (set_bit(l, cpus, CPUS, op->arg[i]) < 0)
			return -1;
	return syscall(SYS_sched_setaffinity, 0, sizeof cpus, cpus) < 0 ? fail(l, "sched_setaffinity", "") : 0;
}

int op_memory_policy(struct launch *l, const struct op *op)
{
	unsigned long nodes[NODES / WORD] = { 0 };

	for (uint32_t i = 1; i < op->count; i++)
		if (set_bit(l, nodes, NODES, op->arg[i]) < 0)
			return -1;
	/* the last bit that counts is one before the number given (set_mempolicy(2), BUGS) */
	if (syscall(SYS_set_mempolicy, (int)number(op->arg[0]), op->count > 1 ? nodes : NULL, op->count > 1 ? NODES : 0) < 0)
		return fail(l, "set_mempolicy", "");
	return 0;
}

int op_personality(struct launch *l, const struct op *op)
{
	return personality(strtoul(op->arg[0], NULL, 16)) < 0 ? fail(l, "personality", op->arg[0]) : 0;
}
