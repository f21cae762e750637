/* The launcher executes a plan that Python made (docs/launch-plan.md), then watches over the process it started.
 *
 * One `struct launch` holds everything; nothing is allocated after the clone. Functions return 0 (or a descriptor),
 * or -1 after `fail` has noted which call failed on what. */
#ifndef CLOISON_LAUNCHER_H
#define CLOISON_LAUNCHER_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

enum {
	PLAN_BYTES = 4 << 20,
	PLAN_OPERATIONS = 4096,
	PLAN_WORDS = 16384,
	CLIENTS = 16,
	KEPT = 16,
	STATS = 16,
	OWN_MOUNTS = 64,
	PRESERVED = 256,
	REPORT_BYTES = 4096, /* of who waits on a socket of its own: the outcome, then the words of a failure */
	FEEDS = 1, /* in a client's bits: it gives, or gave, bytes for stdin */
	OUTPUT_BYTES = 32 << 10,
	INPUT_BYTES = 64 << 10,
};

#define AT_LEAST(n) (-1 - (n)) /* in a verb's argument count */
#define NO_OPERATION UINT32_MAX

struct launch;
struct op;

typedef int operation(struct launch *, const struct op *);

struct verb {
	const char *name;
	int arguments;     /* exact, or AT_LEAST(n) */
	char side;         /* B before the clone, P parent, C child, M monitor */
	const char *types; /* one letter an argument, the last one repeats: t text, n decimal, u id, o octal, h hex, f descriptor */
	operation *run;
};

struct op {
	const struct verb *verb;
	char **arg;      /* NULL at the end, so it serves as argv or envp */
	uint32_t count;
	uint32_t length; /* bytes in arg[0]: the one word that may be binary is the filter of `seccomp` */
};

struct fault {
	uint32_t op;
	int32_t error;
	char call[24];
	char path[1024];
	char reason[512];
};

/* What becomes of the child, in memory that it shares with the launcher: a filter of the command's may forbid any call by
 * which it could be said, but no store. */
enum outcome { UNKNOWN = 0, EXECUTES = 'x', FAILS = 'f' };

struct shared {
	volatile uint32_t at; /* the operation the child is at */
	char outcome;
	struct fault fault; /* whole when the outcome is FAILS */
};

struct client {
	int fd;
	uint8_t bits; /* what it is attached to: 1 stdin, 2 stdout, 4 stderr; 8: its end is the end of stdin */
	bool attached;
};

struct output { /* one of stdout, stderr, on its way from the pipe to log, relay and clients */
	int from, relay;
	bool relay_blocks; /* the relay's description is not ours to make non-blocking */
	uint8_t stream;    /* 1 or 2 */
	uint32_t length, relayed, owed; /* owed: bit n is client n */
	uint64_t budget;   /* bytes still to read once the command has ended */
	char data[OUTPUT_BYTES];
};

struct input {
	int to, relay;
	bool closing, terminal;
	uint32_t length, offset;
	char data[INPUT_BYTES];
};

struct log {
	int fd;
	const char *path;
	uint64_t size, limit, files;
};

enum state { SETTING_UP, WAITING, STARTING, RUNNING, PARKED, FAILED, ENDED, BROKEN, STATES };
enum event { CHILD_WAITS, CHILD_PARKS, CHILD_EXECUTES, CHILD_FAILED, START_ASKED, CLIENT_GONE, CHILD_EXITED, EVENTS };

struct monitor {
	enum state state;
	bool start_asked, go_asked, cancelled;
	bool told; /* client 0 has got the last word and cleans up */
	int listen;
	struct client clients[CLIENTS];
	struct input in;
	struct output out[2];
	struct log log;
	const char *exit_file;
	char **reap;
	const struct op *stats[STATS];
	uint32_t stat_count;
	int kept[KEPT];
	uint32_t kept_count;
	int terminal, terminal_slave;
	uint16_t rows, columns;
	int status;
	uint64_t started_ns, finished_ns;
	struct rusage usage;
};

struct launch {
	struct op *ops;
	uint32_t count;
	int first, last; /* the plan's descriptors */
	char *title;     /* what ps shows of us */
	size_t title_size;

	/* noted while the plan is read */
	uint32_t namespaces_op, cgroup_op; /* to blame when the clone fails */
	bool awaits_parent, has_keyring, groups_denied, dies_with_client, unmonitored;
	bool sibling; /* the child is our parent's: it waits for it, we cannot */
	bool entered_users; /* in another user namespace, from which nobody comes back */
	bool released; /* the caller has noted the pid: the child may outlive us */

	/* before the clone */
	bool detach, legacy, terminal;
	uint64_t namespaces;
	int cgroup, own_pid_namespace, own_time_namespace, host_proc;
	int child_io[3];

	/* both */
	int wire; /* SEQPACKET: our end towards the other side */
	int child_wire;
	pid_t pid;
	int pidfd;
	struct shared *shared;

	/* the child */
	int root, procfs, host_null, mask_null, mask_tmpfs, pty, pty_slave;
	uint64_t own_mounts[OWN_MOUNTS];
	uint32_t own_mount_count;
	int death_signal;
	bool filtered; /* the command's filter is on: no call that it may not know */
	char **environment;
	const struct op *preserved[PRESERVED];
	uint32_t preserved_count;
	char *parked; /* it waits, or waited, on a socket of its own: here it reports, nobody of ours listens on the wire */

	struct fault fault;
	struct monitor monitor;
};

/* plan.c */
int read_plan(struct launch *l, int fd);
const char *plan_error(void);
int64_t number(const char *text);

/* ops.c: the verb table */
extern const struct verb verbs[];
int run_side(struct launch *l, char side);
bool owns_descriptor(const struct launch *l, int fd);

/* main.c */
int fail(struct launch *l, const char *call, const char *path);
int refuse(struct launch *l, int error, const char *call, const char *path);
void copy_text(char *to, size_t size, const char *from);
void mark_close_on_exec(unsigned first);
void set_signals(uint64_t handler);

/* paths.c: names inside the root, resolved by the kernel, never by us */
int root_of(struct launch *l);
int find_inside(struct launch *l, const char *path, int flags);
int find_link(struct launch *l, const char *path);
int make_directory(struct launch *l, const char *path, unsigned mode);
int make_file(struct launch *l, const char *path);
int make_parent(struct launch *l, const char *path, char name[static 256]);
uint64_t mount_id(int fd);
bool on_own_mount(const struct launch *l, int fd);
int write_proc(struct launch *l, int proc, const char *path, const char *text);

/* mounts.c: the primitives, new calls or old */
struct attributes {
	uint64_t set, clear, deep_set, deep_clear;
};
int parse_attribute(const char *word, size_t length, struct attributes *out);
int parse_attributes(const char *words, struct attributes *out);
int set_attributes(struct launch *l, int fd, const struct attributes *attributes);
int parse_propagation(const char *word, uint64_t *flag, bool *recursive);
int set_propagation(struct launch *l, int fd, const char *word);
int clone_tree(int at, const char *path, bool recursive);
int private_procfs(struct launch *l);
int legacy_bind(struct launch *l, int source, int target, const char *path, bool recursive);
int legacy_mount(struct launch *l, const struct op *op, int target);
int legacy_overlay(struct launch *l, const struct op *op);
char *fd_path(char path[static 40], int fd);

/* ops_*.c: each function carries out the verb of its name */
operation op_new_namespaces, op_time_namespace, op_join_pid_namespace, op_enter_namespace, op_cgroup_fd, op_stdio,
	op_setgroups_deny, op_uid_map, op_gid_map, op_cgroup_join, op_await_client, op_new_network, op_join_network,
	op_await_parent, op_join_namespaces, op_join_namespace, op_unshare,
	op_loopback_up, op_send_netlink, op_hostname, op_domainname, op_sysctl, op_oom_score_adj, op_client, op_listen,
	op_exec_label, op_keep, op_log, op_relay, op_exit_file, op_exit_stat, op_reap, op_root_overlay, op_root_bind, op_mount, op_bind,
	op_bind_fd, op_unmount, op_change_root, op_propagation, op_readonly_root, op_pivot_root, op_directory, op_symlink, op_device, op_console,
	op_mask, op_readonly_path, op_terminal, op_umask, op_bounding, op_user, op_become, op_capabilities,
	op_no_new_privs, op_seccomp, op_rlimit, op_keyring, op_cwd, op_death_signal, op_await_start, op_await_start_on,
	op_init, op_find_command, op_preserve_fd, op_env, op_exec, op_no_monitor, op_sibling,
	op_scheduler, op_io_priority, op_affinity, op_memory_policy, op_personality;

/* ops_mount.c, for ops_bind.c */
bool missing_call(struct launch *l);
int keep_or_close(struct launch *l, int tree, const char *path);

/* child.c */
int start_child(struct launch *l);
int send_descriptors(int socket, char kind, const int *fds, unsigned count);
int new_keyring(struct launch *l, const char *name);
void announce(struct launch *l, enum outcome outcome);

/* monitor.c */
int monitor_main(struct launch *l);
void kill_and_report(struct launch *l);
void happen(struct launch *l, enum event event);

/* clients.c */
bool tell(struct launch *l, char kind, const char *text, size_t length);
bool tell_fault(struct launch *l);
size_t write_fault(const struct launch *l, char *text, size_t size);
void client_readable(struct launch *l, unsigned index);
void client_gone(struct launch *l, unsigned index);
void client_arrives(struct launch *l);
void dismiss_clients(struct launch *l);
bool tell_exit(struct launch *l, const char *text, size_t length);

/* streams.c */
void prepare_streams(struct launch *l);
void read_output(struct launch *l, struct output *out);
void push_output(struct launch *l, struct output *out);
void settle_output(struct output *out);
void push_input(struct monitor *m);
void read_relay(struct monitor *m);
void take_terminal(struct launch *l, int master, int slave);
void set_window(struct monitor *m);

/* record.c: the log and the exit file */
int open_log(struct launch *l);
void write_log(struct log *log, uint8_t stream, const char *data, uint32_t length);
uint64_t now_ns(void);
size_t write_exit(struct launch *l, char *text, size_t size);

#endif
