/* The root and what is mounted in it. Every mount comes before `pivot-root`. */

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "launcher.h"
#include "sys.h"

static void remember_mount(struct launch *l, int fd)
{
	uint64_t id = mount_id(fd);

	if (id && l->own_mount_count < OWN_MOUNTS)
		l->own_mounts[l->own_mount_count++] = id;
}

static int adopt_root(struct launch *l, int fd)
{
	if (l->root >= 0)
		close(l->root);
	l->root = fd;
	remember_mount(l, fd);
	return 0;
}

bool missing_call(struct launch *l)
{
	if (errno == ENOSYS)
		l->legacy = true; /* a kernel, or a sandbox around us, without the new calls */
	return errno == ENOSYS;
}

/* Before the root exists TARGET is the host's name in our copy of its mounts, afterwards a name inside. */
int op_propagation(struct launch *l, const struct op *op)
{
	int fd = l->root < 0 ? open(op->arg[0], O_PATH | O_CLOEXEC) : find_inside(l, op->arg[0], 0);
	int result;

	if (fd < 0)
		return fail(l, "open", op->arg[0]);
	result = set_propagation(l, fd, op->arg[1]);
	close(fd);
	return result;
}

static int set_option(struct launch *l, int fs, const char *option, size_t length)
{
	char text[4352];
	char *value;

	if (length >= sizeof text)
		return refuse(l, E2BIG, "fsconfig", option);
	memcpy(text, option, length);
	text[length] = 0;
	value = strchr(text, '=');
	if (value)
		*value++ = 0;
	if (sys_fsconfig(fs, value ? CONFIG_STRING : CONFIG_FLAG, text, value) < 0)
		return fail(l, "fsconfig", option);
	return 0;
}

/* A directory of overlayfs. Names that are long (the kernel takes 255 bytes) or hold what overlayfs reads as syntax go by
 * descriptor; it stays open until execve. */
static int set_directory(struct launch *l, int fs, const char *key, const char *path)
{
	char name[40];
	int fd;

	if (strlen(path) < 250 && !strpbrk(path, "\\:,")) {
		if (sys_fsconfig(fs, CONFIG_STRING, key, path) == 0)
			return 0;
		return fail(l, "fsconfig", path);
	}
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return fail(l, "open", path);
	if (sys_fsconfig(fs, CONFIG_STRING, key, fd_path(name, fd)) < 0)
		return fail(l, "fsconfig", path);
	return 0;
}

static int configure_overlay(struct launch *l, const struct op *op, int fs, struct attributes *a)
{
	const char *option = op->arg[3];

	if (sys_fsconfig(fs, CONFIG_STRING, "source", "overlay") < 0)
		return fail(l, "fsconfig", "source");
	for (uint32_t i = 4; i < op->count; i++)
		if (set_directory(l, fs, "lowerdir+", op->arg[i]) < 0)
			return -1;
	if (*op->arg[1] && set_directory(l, fs, "upperdir", op->arg[1]) < 0)
		return -1;
	if (*op->arg[2] && set_directory(l, fs, "workdir", op->arg[2]) < 0)
		return -1;
	while (*option) {
		size_t n = strcspn(option, ",");

		if (n && parse_attribute(option, n, a) < 0 && set_option(l, fs, option, n) < 0)
			return -1;
		option += n + (option[n] == ',');
	}
	if (sys_fsconfig(fs, CONFIG_CREATE, NULL, NULL) < 0)
		return fail(l, "fsconfig", "create");
	return 0;
}

/* -2: this kernel's overlayfs must be asked in the old way. */
static int new_overlay(struct launch *l, const struct op *op)
{
	struct attributes a = { 0 };
	int fs = sys_fsopen("overlay"), tree = -1, staging;

	if (fs < 0)
		return missing_call(l) ? -2 : fail(l, "fsopen", "overlay");
	if (sys_fsconfig(fs, CONFIG_FLAG, "lowerdir+", NULL) == 0) { /* before Linux 6.5 any word is taken, until the end */
		close(fs);
		return -2;
	}
	if (configure_overlay(l, op, fs, &a) < 0) {
		bool old = l->fault.error == EINVAL && !strcmp(l->fault.call, "fsconfig") && op->count > 4 &&
			   !strcmp(l->fault.path, op->arg[4]);

		close(fs);
		return old ? -2 : -1;
	}
	tree = sys_fsmount(fs, (unsigned)a.set);
	close(fs);
	if (tree < 0)
		return fail(l, "fsmount", "overlay");
	staging = open(op->arg[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (staging < 0)
		return fail(l, "open", op->arg[0]);
	if (sys_move_mount(tree, staging) < 0)
		return fail(l, "move_mount", op->arg[0]);
	close(staging);
	return tree;
}

static int bind_root(struct launch *l, const char *staging, const char *source, const char *attributes)
{
	int from = open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int to = from < 0 ? -1 : open(staging, O_PATH | O_DIRECTORY | O_CLOEXEC), tree = -1;
	struct attributes a;

	if (to < 0)
		return fail(l, "open", from < 0 ? source : staging);
	if (parse_attributes(attributes, &a) < 0)
		return fail(l, "attributes", attributes);
	if (!l->legacy && (tree = clone_tree(from, "", true)) < 0 && !missing_call(l))
		return fail(l, "open_tree", source);
	if (tree >= 0) {
		if (sys_move_mount(tree, to) < 0)
			return fail(l, "move_mount", staging);
	} else {
		char path[40], name[40];

		if (mount(fd_path(path, from), fd_path(name, to), NULL, MS_BIND | MS_REC, NULL) < 0)
			return fail(l, "mount", source);
		tree = open(staging, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (tree < 0)
			return fail(l, "open", staging);
	}
	close(from);
	close(to);
	if (set_propagation(l, tree, "rprivate") < 0 || set_attributes(l, tree, &a) < 0)
		return -1;
	return adopt_root(l, tree);
}

int op_root_bind(struct launch *l, const struct op *op)
{
	return bind_root(l, op->arg[0], op->arg[1], "");
}

int op_root_overlay(struct launch *l, const struct op *op)
{
	int tree;

	if (op->count == 4)
		return refuse(l, EINVAL, "overlay", "no layer");
	if (!*op->arg[1] && op->count == 5) /* overlayfs refuses one layer alone; read-only it is that layer */
		return bind_root(l, op->arg[0], op->arg[4], "ro");
	tree = l->legacy ? -2 : new_overlay(l, op);
	if (tree == -2) {
		if (legacy_overlay(l, op) < 0)
			return -1;
		tree = open(op->arg[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (tree < 0)
			return fail(l, "open", op->arg[0]);
		if (set_propagation(l, tree, "private") < 0)
			return -1;
	}
	return tree < 0 ? -1 : adopt_root(l, tree);
}

/* -2: fall back to mount(2). */
static int new_mount(struct launch *l, const struct op *op, int target)
{
	struct attributes a;
	int fs, tree;

	if (parse_attributes(op->arg[3], &a) < 0)
		return fail(l, "attributes", op->arg[3]);
	fs = sys_fsopen(op->arg[0]);
	if (fs < 0)
		return missing_call(l) ? -2 : fail(l, "fsopen", op->arg[0]);
	if (*op->arg[1] && sys_fsconfig(fs, CONFIG_STRING, "source", op->arg[1]) < 0)
		return fail(l, "fsconfig", op->arg[1]);
	for (uint32_t i = 4; i < op->count; i++)
		if (set_option(l, fs, op->arg[i], strlen(op->arg[i])) < 0)
			return -1;
	if (sys_fsconfig(fs, CONFIG_CREATE, NULL, NULL) < 0)
		return fail(l, "fsconfig", op->arg[2]);
	tree = sys_fsmount(fs, (unsigned)(a.set | a.deep_set));
	close(fs);
	if (tree < 0)
		return fail(l, "fsmount", op->arg[2]);
	if (sys_move_mount(tree, target) < 0)
		return fail(l, "move_mount", op->arg[2]);
	return tree;
}

/* What is mounted over the root is the root from then on. */
int keep_or_close(struct launch *l, int tree, const char *path)
{
	return path[strspn(path, "/")] ? close(tree) : adopt_root(l, tree);
}

int op_mount(struct launch *l, const struct op *op)
{
	int target = make_directory(l, op->arg[2], 0755), tree;

	if (target < 0)
		return fail(l, "openat2", op->arg[2]);
	tree = l->legacy ? -2 : new_mount(l, op, target);
	if (tree == -2)
		tree = legacy_mount(l, op, target);
	close(target);
	if (tree < 0)
		return -1;
	remember_mount(l, tree);
	if (l->legacy && set_propagation(l, tree, "private") < 0)
		return -1;
	return keep_or_close(l, tree, op->arg[2]);
}

/* By its name in the directory that it is in: /proc inside may be anybody's, and a link is not followed. */
int op_unmount(struct launch *l, const struct op *op)
{
	char name[256];
	int parent = make_parent(l, op->arg[0], name);

	if (parent < 0)
		return fail(l, "openat2", op->arg[0]);
	if (fchdir(parent) < 0)
		return fail(l, "fchdir", op->arg[0]);
	close(parent);
	return umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 ? fail(l, "umount2", op->arg[0]) : 0;
}

int op_readonly_root(struct launch *l, const struct op *op)
{
	static const struct attributes readonly = { .set = ATTRIBUTE_RDONLY };

	(void)op;
	return set_attributes(l, root_of(l), &readonly);
}

/* In a mount namespace that others live in, whose root must stay where it is. */
int op_change_root(struct launch *l, const struct op *op)
{
	int fd = (int)number(op->arg[0]);

	if (fd < 0 && (fd = l->root) < 0)
		return refuse(l, EINVAL, "chroot", "no root was mounted");
	if (fchdir(fd) < 0 || chroot(".") < 0 || chdir("/") < 0)
		return fail(l, "chroot", "");
	return 0;
}

/* In a chroot pivot_root would replace the chroot's mount alone and leave the namespace's root to whoever climbs there, or
 * enters by setns. Entering our own namespace moves root and working directory to its very root (setns(2)). */
static int leave_chroot(struct launch *l)
{
	int own = openat(l->host_proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);

	if (own < 0)
		return fail(l, "open", "/proc/self/ns/mnt");
	if (setns(own, CLONE_NEWNS) < 0)
		return fail(l, "setns", "mnt");
	return close(own);
}

/* pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the new one and taken off, no directory needed. */
int op_pivot_root(struct launch *l, const struct op *op)
{
	(void)op;
	if (l->root < 0)
		return refuse(l, EINVAL, "pivot_root", "no root was mounted");
	if (leave_chroot(l) < 0)
		return -1;
	if (fchdir(l->root) < 0)
		return fail(l, "fchdir", "root");
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return fail(l, "pivot_root", "");
	if (umount2(".", MNT_DETACH) < 0)
		return fail(l, "umount2", "old root");
	if (chdir("/") < 0)
		return fail(l, "chdir", "/");
	return 0;
}
