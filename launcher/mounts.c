/* Mount primitives: the calls of Linux 5.2 (and mount_setattr of 5.12), or mount(2) where they are missing. */

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "launcher.h"
#include "sys.h"

static const struct {
	const char *word;
	uint32_t attribute;
	bool clear;
	unsigned long flag; /* of mount(2) */
} words[] = {
	{ "ro", ATTRIBUTE_RDONLY, false, MS_RDONLY },
	{ "rw", ATTRIBUTE_RDONLY, true, MS_RDONLY },
	{ "nosuid", ATTRIBUTE_NOSUID, false, MS_NOSUID },
	{ "suid", ATTRIBUTE_NOSUID, true, MS_NOSUID },
	{ "nodev", ATTRIBUTE_NODEV, false, MS_NODEV },
	{ "dev", ATTRIBUTE_NODEV, true, MS_NODEV },
	{ "noexec", ATTRIBUTE_NOEXEC, false, MS_NOEXEC },
	{ "exec", ATTRIBUTE_NOEXEC, true, MS_NOEXEC },
	{ "nodiratime", ATTRIBUTE_NODIRATIME, false, MS_NODIRATIME },
	{ "diratime", ATTRIBUTE_NODIRATIME, true, MS_NODIRATIME },
	{ "nosymfollow", ATTRIBUTE_NOSYMFOLLOW, false, 256 },
	{ "symfollow", ATTRIBUTE_NOSYMFOLLOW, true, 256 },
	{ "noatime", ATTRIBUTE_NOATIME, false, MS_NOATIME },
	{ "strictatime", ATTRIBUTE_STRICTATIME, false, MS_STRICTATIME },
	{ "relatime", 0, false, MS_RELATIME },
};
enum { WORDS = sizeof words / sizeof *words };

char *fd_path(char path[static 40], int fd)
{
	snprintf(path, 40, "/proc/self/fd/%d", fd);
	return path;
}

static int find_word(const char *word, size_t length)
{
	for (int i = 0; i < WORDS; i++)
		if (strlen(words[i].word) == length && !memcmp(words[i].word, word, length))
			return i;
	return -1;
}

/* One fstab word; with an `r` in front (rro, rnosuid …) it goes for the mounts below too. -1: not an attribute. */
int parse_attribute(const char *word, size_t length, struct attributes *out)
{
	int i = find_word(word, length);
	bool deep = false;
	uint64_t set, clear;

	if (i < 0 && length > 1 && *word == 'r') {
		i = find_word(word + 1, length - 1);
		deep = true;
	}
	if (i < 0)
		return -1;
	set = words[i].clear ? 0 : words[i].attribute;
	clear = words[i].clear ? words[i].attribute : 0;
	if (i >= WORDS - 3)
		clear = ATTRIBUTE_ATIME_FIELD; /* the access time rule is one field: clear it, then set its value */
	*(deep ? &out->deep_set : &out->set) |= set;
	*(deep ? &out->deep_clear : &out->clear) |= clear;
	return 0;
}

int parse_attributes(const char *list, struct attributes *out)
{
	*out = (struct attributes){ 0 };
	while (*list) {
		size_t n = strcspn(list, ",");

		if (n && parse_attribute(list, n, out) < 0)
			return errno = EINVAL, -1;
		list += n + (list[n] == ',');
	}
	return 0;
}

static unsigned long mount_flags(uint64_t attributes)
{
	unsigned long flags = 0;

	for (int i = 0; i < WORDS; i++)
		if (!words[i].clear && words[i].attribute & attributes)
			flags |= words[i].flag;
	return flags;
}

/* mount(2) replaces all flags of a mount, so the present ones must be given again. */
static int remount(struct launch *l, int fd, uint64_t set, uint64_t clear)
{
	struct statfs fs;
	char path[40];
	unsigned long flags;

	if (fstatfs(fd, &fs) < 0)
		return fail(l, "fstatfs", "");
	flags = (unsigned long)fs.f_flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME);
	flags = (flags & ~mount_flags(clear)) | mount_flags(set);
	if (mount(NULL, fd_path(path, fd), NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0)
		return fail(l, "mount", "remount");
	return 0;
}

/* Undoes the octal escapes of proc(5), in place. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text == '\\' && text[1] && text[2] && text[3]) {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = 0;
}

/* One line of mountinfo: its mount point is the fifth word. What a link would lead to, or is no mount, is an error. */
static int remount_if_below(struct launch *l, char *line, const char *base, const struct attributes *a)
{
	size_t length = strlen(base);
	int fd, result;

	for (int i = 0; i < 4; i++) {
		line = strchr(line, ' ');
		if (!line)
			return refuse(l, EINVAL, "read", "/proc/self/mountinfo");
		line++;
	}
	line[strcspn(line, " ")] = 0;
	unescape(line);
	if (strncmp(line, base, length) || line[length] != '/')
		return 0;
	fd = sys_openat2(AT_FDCWD, line, O_PATH | O_CLOEXEC, RESOLVE_NO_SYMLINKS);
	if (fd < 0)
		return fail(l, "openat2", line);
	result = remount(l, fd, a->deep_set, a->deep_clear);
	close(fd);
	return result;
}

/* mount(2) cannot go deep: every mount below the attached one at `fd`, by its name. */
static int remount_below(struct launch *l, int fd, const struct attributes *a)
{
	static char text[65536];
	char path[40], base[PATH_MAX];
	ssize_t n = readlink(fd_path(path, fd), base, sizeof base - 1);
	int table = n < 0 ? -1 : open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC), result = 0;
	size_t used = 0;

	if (table < 0)
		return fail(l, "open", "/proc/self/mountinfo");
	base[n] = 0;
	while (!result && (n = read(table, text + used, sizeof text - 1 - used)) > 0) {
		char *line = text, *end;

		used += (size_t)n;
		text[used] = 0;
		while (!result && (end = strchr(line, '\n'))) {
			*end = 0;
			result = remount_if_below(l, line, base, a);
			line = end + 1;
		}
		used -= (size_t)(line - text);
		memmove(text, line, used);
	}
	close(table);
	if (!result && (n < 0 || used)) /* a line that is longer than the buffer must not pass for the end */
		return refuse(l, n < 0 ? errno : E2BIG, "read", "/proc/self/mountinfo");
	return result;
}

static int legacy_attributes(struct launch *l, int fd, const struct attributes *a)
{
	if ((a->deep_set || a->deep_clear) &&
		(remount(l, fd, a->deep_set, a->deep_clear) < 0 || remount_below(l, fd, a) < 0))
		return -1;
	return a->set || a->clear ? remount(l, fd, a->set, a->clear) : 0;
}

/* On a mount by its root's descriptor; when mount_setattr is missing the mount must be attached already. */
int set_attributes(struct launch *l, int fd, const struct attributes *a)
{
	struct mount_attributes shallow = { .set = a->set, .clear = a->clear };
	struct mount_attributes deep = { .set = a->deep_set, .clear = a->deep_clear };

	if (l->legacy)
		return legacy_attributes(l, fd, a);
	if ((a->deep_set || a->deep_clear) && sys_mount_setattr(fd, TREE_RECURSIVE, &deep) < 0)
		return errno == ENOSYS ? legacy_attributes(l, fd, a) : fail(l, "mount_setattr", "recursive");
	if ((a->set || a->clear) && sys_mount_setattr(fd, 0, &shallow) < 0)
		return errno == ENOSYS ? legacy_attributes(l, fd, a) : fail(l, "mount_setattr", "");
	return 0;
}

int parse_propagation(const char *word, uint64_t *flag, bool *recursive)
{
	static const struct {
		const char *word;
		uint64_t flag;
	} kinds[] = { { "private", MS_PRIVATE }, { "slave", MS_SLAVE }, { "shared", MS_SHARED }, { "unbindable", MS_UNBINDABLE } };

	*recursive = *word == 'r';
	for (size_t i = 0; i < 4; i++) {
		if (!strcmp(kinds[i].word, word + *recursive)) {
			*flag = kinds[i].flag;
			return 0;
		}
	}
	return errno = EINVAL, -1;
}

int set_propagation(struct launch *l, int fd, const char *word)
{
	struct mount_attributes a = { 0 };
	bool recursive;
	char path[40];

	if (parse_propagation(word, &a.propagation, &recursive) < 0)
		return fail(l, "propagation", word);
	if (!l->legacy && sys_mount_setattr(fd, recursive ? TREE_RECURSIVE : 0, &a) == 0)
		return 0;
	if (!l->legacy && errno != ENOSYS)
		return fail(l, "mount_setattr", word);
	if (mount(NULL, fd_path(path, fd), NULL, (unsigned long)a.propagation | (recursive ? MS_REC : 0), NULL) < 0)
		return fail(l, "mount", word);
	return 0;
}

int clone_tree(int at, const char *path, bool recursive)
{
	return sys_open_tree(at, path, TREE_CLONE | TREE_CLOEXEC | TREE_EMPTY_PATH | (recursive ? TREE_RECURSIVE : 0));
}

/* Binds `source` (O_PATH) on `target` (O_PATH, named `path` inside the root); the new mount's descriptor. */
int legacy_bind(struct launch *l, int source, int target, const char *path, bool recursive)
{
	char from[40], to[40];
	int fd;

	if (mount(fd_path(from, source), fd_path(to, target), NULL, MS_BIND | (recursive ? MS_REC : 0), NULL) < 0)
		return fail(l, "mount", path);
	/* `target` still names what is now covered: look the name up again to get at the mount. */
	fd = find_inside(l, path, 0);
	return fd < 0 ? fail(l, "openat2", path) : fd;
}

/* A procfs of the current pid namespace that is mounted nowhere, so nobody can mount over parts of it. Where a sandbox
 * around us forbids that, the host's, opened before the clone. */
int private_procfs(struct launch *l)
{
	int fs;

	if (l->procfs >= 0)
		return l->procfs;
	fs = sys_fsopen("proc");
	if (fs >= 0 && sys_fsconfig(fs, CONFIG_CREATE, NULL, NULL) == 0)
		l->procfs = sys_fsmount(fs, ATTRIBUTE_NOSUID | ATTRIBUTE_NODEV | ATTRIBUTE_NOEXEC);
	if (fs >= 0)
		close(fs);
	if (l->procfs < 0)
		l->procfs = l->host_proc;
	return l->procfs;
}

/* `mount` with mount(2); the new mount's descriptor. */
int legacy_mount(struct launch *l, const struct op *op, int target)
{
	static char data[4096]; /* the kernel reads one page */
	struct attributes a;
	char to[40];
	size_t used = 0;
	int fd;

	if (parse_attributes(op->arg[3], &a) < 0)
		return fail(l, "attributes", op->arg[3]);
	for (uint32_t i = 4; i < op->count; i++) {
		int n = snprintf(data + used, sizeof data - used, "%s%s", used ? "," : "", op->arg[i]);

		if (n < 0 || (used += (size_t)n) >= sizeof data)
			return refuse(l, E2BIG, "mount", op->arg[2]);
	}
	data[used] = 0;
	if (mount(op->arg[1], fd_path(to, target), op->arg[0], mount_flags(a.set), data) < 0)
		return fail(l, "mount", op->arg[2]);
	fd = find_inside(l, op->arg[2], 0);
	return fd < 0 ? fail(l, "openat2", op->arg[2]) : fd;
}

static int add(char *page, size_t *used, const char *before, const char *text)
{
	int n = snprintf(page + *used, 4096 - *used, "%s%s", before, text);

	*used += n < 0 ? 4096 : (size_t)n;
	return *used < 4096 ? 0 : -1;
}

/* Names the directory `path` in `text` by a descriptor's number, valid below /proc/self/fd: at most 500 layers fit the
 * page, however long their names are, and no character of a name can be taken for a separator. */
static int short_name(struct launch *l, const char *path, char text[static 40])
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return fail(l, "open", path);
	snprintf(text, 40, "%d", fd);
	return 0;
}

/* Overlay root by mount(2), for kernels without `lowerdir+` (before 6.7). Its descriptors are close-on-exec and few. */
int legacy_overlay(struct launch *l, const struct op *op)
{
	static char page[4096];
	const char *keys[] = { "", "upperdir=", "workdir=" };
	size_t used = 0;
	char name[40];
	int error = 0;

	for (uint32_t i = 4; i < op->count; i++) {
		if (short_name(l, op->arg[i], name) < 0)
			return -1;
		error |= add(page, &used, i == 4 ? "lowerdir=" : ":", name);
	}
	for (int i = 1; i <= 2; i++) {
		if (!*op->arg[i])
			continue;
		if (short_name(l, op->arg[i], name) < 0)
			return -1;
		error |= add(page, &used, ",", keys[i]) | add(page, &used, "", name);
	}
	if (*op->arg[3])
		error |= add(page, &used, ",", op->arg[3]);
	if (error)
		return refuse(l, E2BIG, "mount", "overlay");
	if (chdir("/proc/self/fd") < 0)
		return fail(l, "chdir", "/proc/self/fd");
	if (mount("overlay", op->arg[0], "overlay", 0, page) < 0)
		fail(l, "mount", op->arg[0]), error = -1;
	if (chdir("/") < 0 || error)
		return error ? -1 : fail(l, "chdir", "/");
	return 0;
}
