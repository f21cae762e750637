/* The last step, and why it failed: the kernel says ENOENT for three different things and ENOEXEC for two. */

#include <elf.h>
#include <endian.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "launcher.h"
#include "sys.h"

#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#elif defined(__riscv)
#define OWN_MACHINE EM_RISCV
#else
#define OWN_MACHINE EM_NONE
#endif

enum { NESTING = 4 };

static void reason(struct launch *l, const char *kind, const char *what)
{
	snprintf(l->fault.reason, sizeof l->fault.reason, "%s%s%s", kind, *what ? ":" : "", what);
}

int op_env(struct launch *l, const struct op *op)
{
	l->environment = op->arg;
	return 0;
}

/* The program interpreter of an ELF file of either class, "" when it has none. All offsets are the file's: each is used for
 * one bounded read only. */
static void read_loader(int fd, const unsigned char *head, char loader[static 256])
{
	const Elf64_Ehdr *e64 = (const void *)head;
	const Elf32_Ehdr *e32 = (const void *)head;
	bool wide = head[EI_CLASS] == ELFCLASS64;
	uint64_t table = wide ? e64->e_phoff : e32->e_phoff;
	unsigned count = wide ? e64->e_phnum : e32->e_phnum, size = wide ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr);

	*loader = 0;
	for (unsigned i = 0; i < count && i < 256; i++) {
		union {
			Elf64_Phdr p64;
			Elf32_Phdr p32;
		} p;
		ssize_t n;

		if (pread(fd, &p, size, (off_t)(table + i * size)) != (ssize_t)size)
			return;
		if ((wide ? p.p64.p_type : p.p32.p_type) != PT_INTERP)
			continue;
		n = pread(fd, loader, 255, (off_t)(wide ? p.p64.p_offset : p.p32.p_offset));
		loader[n > 0 ? n : 0] = 0;
		return;
	}
}

/* The word after "#!"; false when the file starts otherwise. */
static bool read_interpreter(const char *head, size_t length, char interpreter[static 256])
{
	size_t start = 2, end;

	if (length < 3 || head[0] != '#' || head[1] != '!')
		return false;
	while (start < length && (head[start] == ' ' || head[start] == '\t'))
		start++;
	for (end = start; end < length && !strchr(" \t\n", head[end]); end++)
		;
	if (end == start || end - start > 255)
		return false;
	memcpy(interpreter, head + start, end - start);
	interpreter[end - start] = 0;
	return true;
}

static void explain_elf(struct launch *l, int fd, const unsigned char *head, int error)
{
	const Elf64_Ehdr *e = (const void *)head; /* e_machine is at the same place in both classes */
	char loader[256];

	if (error == ENOEXEC) {
		reason(l, e->e_machine != OWN_MACHINE && OWN_MACHINE != EM_NONE ? "architecture" : "format", "");
		return;
	}
	read_loader(fd, head, loader);
	if (*loader && access(loader, F_OK) < 0)
		reason(l, "loader", loader);
}

/* `path` exists and execve failed with ENOENT or ENOEXEC: look into it. */
static void explain_content(struct launch *l, const char *path, int error)
{
	char current[PATH_MAX], interpreter[256];

	copy_text(current, sizeof current, path);
	for (int depth = 0; depth < NESTING; depth++) {
		unsigned char head[256] __attribute__((aligned(8))) = { 0 };
		int fd = open(current, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
		bool script = n > 0 && read_interpreter((char *)head, (size_t)n, interpreter);

		if (n >= (ssize_t)sizeof(Elf64_Ehdr) && !memcmp(head, ELFMAG, SELFMAG))
			explain_elf(l, fd, head, error);
		else if (!script && error == ENOEXEC && fd >= 0)
			reason(l, "format", "");
		if (fd >= 0)
			close(fd);
		if (!script)
			return;
		if (access(interpreter, F_OK) < 0) {
			reason(l, "interpreter", interpreter);
			return;
		}
		strcpy(current, interpreter);
	}
}

static void explain(struct launch *l, const char *path, int error)
{
	struct stat st;

	l->fault.reason[0] = 0;
	if (error == EACCES)
		reason(l, stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? "directory" : "permission", "");
	else if ((error == ENOENT || error == ENOTDIR) && lstat(path, &st) < 0)
		reason(l, "missing", "");
	else if (error == ENOENT && stat(path, &st) < 0)
		reason(l, "missing", ""); /* a link that leads nowhere */
	else if (error == ENOENT || error == ENOEXEC)
		explain_content(l, path, error);
	else if (error == ELIBBAD || error == EINVAL)
		reason(l, "format", "");
}

static bool may_execute(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return errno = EACCES, false;
	return access(path, X_OK) == 0;
}

/* Runs `path`, or without `argv` looks whether it could; otherwise comes back with -1 and the explained failure. */
static int run(struct launch *l, const char *path, char **argv)
{
	static char *nothing[] = { NULL };
	int error;

	if (!argv && may_execute(path))
		return 0;
	if (argv) {
		announce(l, EXECUTES);
		execve(path, argv, l->environment ? l->environment : nothing);
	}
	error = errno;
	if (argv)
		announce(l, UNKNOWN);
	explain(l, path, error);
	return refuse(l, error, "execve", path);
}

static const char *search_path(struct launch *l)
{
	for (char **e = l->environment; e && *e; e++)
		if (!strncmp(*e, "PATH=", 5))
			return *e + 5;
	return "/usr/local/bin:/usr/bin:/bin";
}

/* As execvp(3), but a file that exists and cannot be run ends the search with its own reason, and an empty element is
 * skipped: the working directory is the image's choice. */
static int search(struct launch *l, const char *file, char **argv)
{
	const char *path = search_path(l);
	char candidate[PATH_MAX];
	struct fault denied = { 0 };

	for (size_t n; *path; path += n + (path[n] == ':')) {
		n = strcspn(path, ":");
		if (!n || snprintf(candidate, sizeof candidate, "%.*s/%s", (int)n, path, file) >= PATH_MAX)
			continue;
		if (run(l, candidate, argv) == 0)
			return 0;
		if (!strcmp(l->fault.reason, "permission") || !strcmp(l->fault.reason, "directory"))
			denied = denied.error ? denied : l->fault;
		else if (strcmp(l->fault.reason, "missing"))
			return -1;
	}
	if (denied.error) {
		l->fault = denied;
		return -1;
	}
	reason(l, "missing", "");
	return refuse(l, ENOENT, "execve", file);
}

/* File names without a slash are looked for in the command's own PATH, in its own root, as its own user. */
static int run_or_search(struct launch *l, const char *file, char **argv)
{
	return strchr(file, '/') || !*file ? run(l, file, argv) : search(l, file, argv);
}

/* Who waits for a start wants to know before that there is something to be started. */
int op_find_command(struct launch *l, const struct op *op)
{
	return run_or_search(l, op->arg[0], NULL);
}

int op_preserve_fd(struct launch *l, const struct op *op)
{
	if (l->preserved_count == PRESERVED || number(op->arg[1]) < 3)
		return refuse(l, E2BIG, "preserve-fd", op->arg[1]);
	l->preserved[l->preserved_count++] = op;
	return 0;
}

static int move_above(struct launch *l, int *fd, int highest)
{
	int moved = *fd < 0 ? -1 : fcntl(*fd, F_DUPFD_CLOEXEC, highest + 1);

	if (moved < 0 && *fd >= 0)
		return fail(l, "fcntl", "F_DUPFD_CLOEXEC");
	*fd = moved;
	return 0;
}

/* Each descriptor to the number that the command expects. What we still need, and those that are to come, are out of the
 * way first; whatever else is there was marked to be closed. */
static int place_descriptors(struct launch *l)
{
	int moved[PRESERVED], highest = 2;

	for (uint32_t i = 0; i < l->preserved_count; i++)
		if (number(l->preserved[i]->arg[1]) > highest)
			highest = (int)number(l->preserved[i]->arg[1]);
	if (move_above(l, &l->wire, highest) < 0 || move_above(l, &l->monitor.clients[0].fd, highest) < 0)
		return -1;
	for (uint32_t i = 0; i < l->preserved_count; i++) {
		moved[i] = (int)number(l->preserved[i]->arg[0]);
		if (move_above(l, &moved[i], highest) < 0)
			return -1;
	}
	for (uint32_t i = 0; i < l->preserved_count; i++)
		if (dup2(moved[i], (int)number(l->preserved[i]->arg[1])) < 0)
			return fail(l, "dup2", l->preserved[i]->arg[1]);
	return 0;
}

int op_exec(struct launch *l, const struct op *op)
{
	sigset_t none;

	if (!l->filtered)
		mark_close_on_exec(3);
	if (l->preserved_count && place_descriptors(l) < 0)
		return -1;
	sigemptyset(&none);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
	return run_or_search(l, op->arg[0], op->arg + 1);
}
