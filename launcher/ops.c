/* The verb table, and how one side of the plan is carried out. docs/launch-plan.md describes each verb; a test compares
 * Python's list. */

#include <stdio.h>

#include "launcher.h"

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

const struct verb verbs[] = {
	{ "detach", 0, 'B', "", op_detach },
	{ "legacy-mounts", 0, 'B', "", op_legacy_mounts },
	{ "new-namespaces", AT_LEAST(0), 'B', "t", op_new_namespaces },
	{ "time-namespace", 4, 'B', "n", op_time_namespace },
	{ "join-pid-namespace", 1, 'B', "f", op_join_pid_namespace },
	{ "enter-namespace", 2, 'B', "ft", op_enter_namespace },
	{ "cgroup-fd", 1, 'B', "f", op_cgroup_fd },
	{ "initial-affinity", AT_LEAST(1), 'B', "n", op_affinity },
	{ "stdio", 3, 'B', "t", op_stdio },
	{ "setgroups-deny", 0, 'P', "", op_setgroups_deny },
	{ "uid-map", 1, 'P', "t", op_uid_map },
	{ "gid-map", 1, 'P', "t", op_gid_map },
	{ "cgroup-join", 1, 'C', "t", op_cgroup_join },
	{ "await-client", 0, 'P', "", op_await_client },
	{ "new-network", 0, 'P', "", op_new_network },
	{ "join-network", 0, 'C', "", op_join_network },
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
	{ "bind-fd", 5, 'C', "ft", op_bind_fd },
	{ "unmount", 1, 'C', "t", op_unmount },
	{ "directory", 2, 'C', "to", op_directory },
	{ "symlink", 2, 'C', "t", op_symlink },
	{ "device", 7, 'C', "ttuuouu", op_device },
	{ "console", 0, 'C', "", op_console },
	{ "mask", 1, 'C', "t", op_mask },
	{ "readonly-path", 1, 'C', "t", op_readonly_path },
	{ "readonly-root", 0, 'C', "", op_readonly_root },
	{ "change-root", 1, 'C', "f", op_change_root },
	{ "pivot-root", 0, 'C', "", op_pivot_root },
	{ "hostname", 1, 'C', "t", op_hostname },
	{ "domainname", 1, 'C', "t", op_domainname },
	{ "sysctl", 2, 'C', "t", op_sysctl },
	{ "rlimit", 3, 'C', "n", op_rlimit },
	{ "oom-score-adj", 1, 'C', "n", op_oom_score_adj },
	{ "personality", 1, 'C', "h", op_personality },
	{ "memory-policy", AT_LEAST(1), 'C', "n", op_memory_policy },
	{ "affinity", AT_LEAST(1), 'C', "n", op_affinity },
	{ "scheduler", 7, 'C', "nnnhhhh", op_scheduler },
	{ "io-priority", 1, 'C', "n", op_io_priority },
	{ "terminal", 3, 'C', "nnf", op_terminal },
	{ "umask", 1, 'C', "o", op_umask },
	{ "exec-label", 2, 'C', "t", op_exec_label },
	{ "bounding", 1, 'C', "h", op_bounding },
	{ "user", AT_LEAST(2), 'C', "u", op_user },
	{ "capabilities", 4, 'C', "h", op_capabilities },
	{ "no-new-privs", 0, 'C', "", op_no_new_privs },
	{ "seccomp", 2, 'C', "tn", op_seccomp },
	{ "cwd", 1, 'C', "t", op_cwd },
	{ "parent-death-signal", 1, 'C', "n", op_death_signal },
	{ "await-start", 1, 'C', "t", op_await_start },
	{ "await-start-on", 2, 'C', "f", op_await_start_on },
	{ "init", 0, 'C', "", op_init },
	{ "preserve-fd", 2, 'C', "fn", op_preserve_fd },
	{ "find-command", 1, 'C', "t", op_find_command },
	{ "env", AT_LEAST(0), 'C', "t", op_env },
	{ "exec", AT_LEAST(2), 'C', "t", op_exec },
	{ "client", 1, 'M', "f", op_client },
	{ "no-monitor", 0, 'M', "", op_no_monitor },
	{ "sibling", 0, 'M', "", op_sibling },
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
			l->shared->at = i;
		if (op->verb->run(l, op) < 0)
			return -1;
	}
	l->fault.op = NO_OPERATION;
	return 0;
}
