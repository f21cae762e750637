/* Names inside the container's root. The kernel resolves them, confined to the root (openat2(2), RESOLVE_IN_ROOT); what is
 * missing is made component by component on held descriptors, so a name that changes under us cannot lead outside. */

#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "launcher.h"
#include "sys.h"

enum { LINKS = 40, RETRIES = 128 };

/* A mountpoint under /proc or /sys must be what it seems: a link there would put the real thing elsewhere and leave a
 * forgery in its place. */
static uint64_t rules(const char *path)
{
	uint64_t confined = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

	path += strspn(path, "/");
	for (size_t i = 0; i < 2; i++) {
		const char *tree = i ? "sys" : "proc";
		size_t n = strlen(tree);

		if (!strncmp(path, tree, n) && (path[n] == '/' || !path[n]))
			return confined | RESOLVE_NO_SYMLINKS;
	}
	return confined;
}

int root_of(struct launch *l)
{
	if (l->root < 0)
		l->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return l->root;
}

static int resolve(struct launch *l, const char *path, int flags, uint64_t how)
{
	int fd = -1;

	/* EAGAIN: somebody renamed or mounted meanwhile, so the kernel cannot vouch for ".."; it asks to try again. */
	for (int i = 0; i < RETRIES; i++) {
		fd = sys_openat2(root_of(l), *path ? path : "/", (uint64_t)flags | O_CLOEXEC, how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return fd;
}

/* An existing name, as an O_PATH descriptor; links are followed inside the root. */
int find_inside(struct launch *l, const char *path, int flags)
{
	return resolve(l, path, O_PATH | flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/* An existing symbolic link itself, not what it leads to; -1 for anything else, and where links are refused. */
int find_link(struct launch *l, const char *path)
{
	struct stat st;
	int fd = rules(path) & RESOLVE_NO_SYMLINKS ? -1 : find_inside(l, path, O_NOFOLLOW);

	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISLNK(st.st_mode))) {
		close(fd);
		return -1;
	}
	return fd;
}

struct walk { /* a path in the making */
	char path[PATH_MAX];
	char *missing; /* first component that does not exist, in `path` */
	int parent;    /* where it is missing */
};

/* Finds the longest existing directory that leads to the path. */
static int find_existing(struct launch *l, struct walk *w, uint64_t how)
{
	char *cut = w->path + strlen(w->path);

	for (;;) {
		char saved;

		while (cut > w->path && cut[-1] == '/')
			cut--;
		while (cut > w->path && cut[-1] != '/')
			cut--;
		saved = *cut;
		*cut = 0;
		w->parent = resolve(l, w->path, O_PATH | O_DIRECTORY, how);
		*cut = saved;
		w->missing = cut;
		if (w->parent >= 0 || errno != ENOENT || cut == w->path)
			return w->parent < 0 ? -1 : 0;
	}
}

static int join(char *to, const char *a, const char *b, const char *c)
{
	char text[PATH_MAX];

	if (snprintf(text, sizeof text, "%s/%s/%s", a, b, c) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(to, text);
	return 0;
}

/* When the missing component is a dangling link, continue at what it names, as the kernel would. 1: yes; 0: no link. */
static int follow_dangling(struct walk *w, const char *name, const char *rest, uint64_t how)
{
	char link[PATH_MAX];
	ssize_t n = readlinkat(w->parent, name, link, sizeof link - 1);

	if (n < 0)
		return 0;
	if (how & RESOLVE_NO_SYMLINKS) {
		errno = ELOOP;
		return -1;
	}
	link[n] = 0;
	*w->missing = 0;
	return join(w->path, link[0] == '/' ? "" : w->path, link, rest) < 0 ? -1 : 1;
}

static int split_component(const char *from, char name[static 256], const char **rest)
{
	size_t n = strcspn(from, "/");

	if (n > 255) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(name, from, n);
	name[n] = 0;
	*rest = from + n + strspn(from + n, "/");
	return 0;
}

/* Makes the missing directories below w->parent, which it closes. */
static int descend(struct walk *w, const char *from, unsigned mode)
{
	char name[256];
	int fd = w->parent;

	while (*from) {
		int next, saved;

		if (split_component(from, name, &from) < 0 || !strcmp(name, "..")) {
			close(fd);
			errno = EINVAL;
			return -1;
		}
		umask(0);
		next = mkdirat(fd, name, *from ? 0755 : mode);
		umask(022);
		next = next < 0 && errno != EEXIST ? -1 : openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		saved = errno;
		close(fd);
		errno = saved;
		if (next < 0)
			return -1;
		fd = next;
	}
	return fd;
}

/* mkdir -p inside the root; an O_PATH descriptor of the directory. Existing ones keep their mode. */
int make_directory(struct launch *l, const char *path, unsigned mode)
{
	struct walk w;
	uint64_t how = rules(path);

	if (strlen(path) >= sizeof w.path)
		return errno = ENAMETOOLONG, -1;
	strcpy(w.path, path);
	for (int links = 0; links < LINKS; links++) {
		char name[256];
		const char *rest;
		int fd = resolve(l, w.path, O_PATH | O_DIRECTORY, how), followed;

		if (fd >= 0 || errno != ENOENT)
			return fd;
		if (find_existing(l, &w, how) < 0)
			return -1;
		if (split_component(w.missing, name, &rest) < 0)
			return close(w.parent), -1;
		followed = follow_dangling(&w, name, rest, how);
		if (followed == 0)
			return descend(&w, w.missing, mode);
		close(w.parent);
		if (followed < 0)
			return -1;
	}
	errno = ELOOP;
	return -1;
}

/* The directory that holds the path's last component, made if need be, and that component. */
int make_parent(struct launch *l, const char *path, char name[static 256])
{
	char parent[PATH_MAX];
	size_t end = strlen(path), start;

	while (end > 1 && path[end - 1] == '/')
		end--;
	for (start = end; start > 0 && path[start - 1] != '/';)
		start--;
	if (end - start > 255 || end == start || start >= sizeof parent)
		return errno = end == start ? EINVAL : ENAMETOOLONG, -1;
	memcpy(parent, path, start);
	parent[start] = 0;
	memcpy(name, path + start, end - start);
	name[end - start] = 0;
	if (!strcmp(name, "..") || !strcmp(name, "."))
		return errno = EINVAL, -1;
	return make_directory(l, *parent ? parent : "/", 0755);
}

/* An existing file or a new empty one, as an O_PATH descriptor. */
int make_file(struct launch *l, const char *path)
{
	char name[256], target[PATH_MAX], link[PATH_MAX];
	int fd = resolve(l, path, O_PATH, rules(path));

	if (fd >= 0 || errno != ENOENT || strlen(path) >= sizeof target)
		return fd;
	strcpy(target, path);
	for (int links = 0; links < LINKS; links++) {
		int parent = make_parent(l, target, name);
		ssize_t n;

		if (parent < 0)
			return -1;
		fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (fd >= 0)
			close(fd);
		n = fd < 0 ? readlinkat(parent, name, link, sizeof link - 1) : -1;
		if (n < 0) {
			fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
			return close(parent), fd;
		}
		close(parent);
		link[n] = 0; /* a dangling link: the file is made where it points, inside */
		target[strlen(target) - strlen(name)] = 0;
		if (join(target, link[0] == '/' ? "" : target, link, "") < 0)
			return -1;
		target[strlen(target) - 1] = 0; /* the slash that `join` put at the end */
		fd = resolve(l, target, O_PATH, rules(target));
		if (fd >= 0 || errno != ENOENT)
			return fd;
	}
	return errno = ELOOP, -1;
}

/* The mount a descriptor is on (statx(2), STATX_MNT_ID, Linux 5.8); 0 when unknown. musl of Debian 12 has no struct statx. */
uint64_t mount_id(int fd)
{
	uint64_t buffer[32] = { 0 };

	if (syscall(SYS_statx, fd, "", TREE_EMPTY_PATH, 0x1000u, buffer) < 0 || !(buffer[0] & 0x1000u))
		return 0;
	return buffer[18]; /* stx_mnt_id, offset 0x90 */
}

bool on_own_mount(const struct launch *l, int fd)
{
	uint64_t id = mount_id(fd);

	for (uint32_t i = 0; id && i < l->own_mount_count; i++)
		if (l->own_mounts[i] == id)
			return true;
	return false;
}

/* Writes to a file of a procfs that we trust, never to something mounted over it. */
int write_proc(struct launch *l, int proc, const char *path, const char *text)
{
	struct statfs fs;
	int fd = sys_openat2(proc, path, O_WRONLY | O_CLOEXEC, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV);
	size_t length = strlen(text);

	if (fd < 0)
		return fail(l, "openat2", path);
	if (fstatfs(fd, &fs) < 0 || fs.f_type != PROC_SUPER_MAGIC)
		return close(fd), refuse(l, EXDEV, "fstatfs", path);
	if (write(fd, text, length) != (ssize_t)length) {
		fail(l, "write", path);
		return close(fd), -1;
	}
	return close(fd), 0;
}
