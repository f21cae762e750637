/* Directories, links, device nodes, masks. */

#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "launcher.h"
#include "sys.h"

int op_directory(struct launch *l, const struct op *op)
{
	int fd = make_directory(l, op->arg[0], (unsigned)strtoul(op->arg[1], NULL, 8));

	if (fd < 0)
		return fail(l, "mkdirat", op->arg[0]);
	close(fd);
	return 0;
}

int op_symlink(struct launch *l, const struct op *op)
{
	char name[256], present[PATH_MAX];
	int parent = make_parent(l, op->arg[1], name), result = 0;

	if (parent < 0)
		return fail(l, "openat2", op->arg[1]);
	if (symlinkat(op->arg[0], parent, name) < 0) {
		ssize_t n = errno == EEXIST ? readlinkat(parent, name, present, sizeof present - 1) : -1;

		if (n < 0 || (size_t)n != strlen(op->arg[0]) || memcmp(present, op->arg[0], (size_t)n))
			result = refuse(l, n < 0 ? errno : EEXIST, "symlinkat", op->arg[1]);
	}
	close(parent);
	return result;
}

static bool is_node(int fd, mode_t type, dev_t number)
{
	struct stat st;

	return fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == type && (type == S_IFIFO || st.st_rdev == number);
}

/* Without the right to make nodes (a user namespace) the host's own node is bound, if it is the one that was asked for. */
static int bind_node(struct launch *l, const char *path, mode_t type, dev_t number)
{
	struct mount_attributes a = { .set = ATTRIBUTE_NOSUID | ATTRIBUTE_NOEXEC };
	char other[64];
	int source, target, tree = -1;

	snprintf(other, sizeof other, "/dev/%s/%u:%u", type == S_IFBLK ? "block" : "char", major(number), minor(number));
	source = open(path, O_PATH | O_CLOEXEC);
	if (source < 0 || !is_node(source, type, number)) {
		if (source >= 0)
			close(source);
		source = open(other, O_PATH | O_CLOEXEC);
	}
	if (source < 0 || !is_node(source, type, number))
		return refuse(l, EPERM, "mknodat", path);
	target = make_file(l, path);
	if (target < 0)
		return fail(l, "openat2", path);
	if (!l->legacy)
		tree = clone_tree(source, "", false);
	if (tree >= 0)
		sys_mount_setattr(tree, 0, &a); /* without it (before Linux 5.12) it is a node all the same */
	if (tree >= 0 ? sys_move_mount(tree, target) < 0 : (tree = legacy_bind(l, source, target, path, false)) < 0)
		return fail(l, "move_mount", path);
	close(source);
	close(target);
	close(tree);
	return 0;
}

static int make_node(struct launch *l, const struct op *op, int parent, const char *name, mode_t type, dev_t number)
{
	mode_t mode = (mode_t)strtoul(op->arg[4], NULL, 8);
	uid_t uid = (uid_t)strtoul(op->arg[5], NULL, 10);
	gid_t gid = (gid_t)strtoul(op->arg[6], NULL, 10);
	int made;

	umask(0);
	made = mknodat(parent, name, type | mode, number);
	umask(022);
	if (made < 0 && errno == EEXIST) {
		int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		bool same = fd >= 0 && is_node(fd, type, number);

		if (fd >= 0)
			close(fd);
		return same ? 0 : refuse(l, EEXIST, "mknodat", op->arg[0]);
	}
	if (made < 0)
		return errno == EPERM ? 1 : fail(l, "mknodat", op->arg[0]);
	if ((uid || gid) && fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(l, "fchownat", op->arg[0]);
	return 0;
}

/* Only on a file system that this plan has mounted: a bound host directory must not get nodes (nor must whatever a link
 * in the image leads to). */
int op_device(struct launch *l, const struct op *op)
{
	char kind = *op->arg[1], name[256];
	mode_t type = kind == 'b' ? S_IFBLK : kind == 'p' ? S_IFIFO : S_IFCHR;
	dev_t node = type == S_IFIFO ? 0 : makedev((unsigned)number(op->arg[2]), (unsigned)number(op->arg[3]));
	int parent = make_parent(l, op->arg[0], name), result;

	if (parent < 0)
		return fail(l, "openat2", op->arg[0]);
	if (!on_own_mount(l, parent)) {
		close(parent);
		return refuse(l, EXDEV, "mknodat", op->arg[0]);
	}
	result = make_node(l, op, parent, name, type, node);
	close(parent);
	return result == 1 ? bind_node(l, op->arg[0], type, node) : result;
}

int op_console(struct launch *l, const struct op *op)
{
	static const char path[] = "/dev/console";
	char name[256];
	int parent, target, tree, result = 0;

	(void)op;
	if (l->pty_slave < 0 && op_terminal(l, NULL) < 0)
		return -1;
	parent = make_parent(l, path, name);
	if (parent < 0 || !on_own_mount(l, parent))
		return refuse(l, parent < 0 ? errno : EXDEV, "openat2", path);
	target = make_file(l, path);
	if (target < 0)
		return fail(l, "openat2", path);
	tree = l->legacy ? -1 : clone_tree(l->pty_slave, "", false);
	if (tree >= 0 && sys_move_mount(tree, target) < 0)
		result = fail(l, "move_mount", path);
	else if (tree < 0)
		result = (tree = legacy_bind(l, l->pty_slave, target, path, false)) < 0 ? -1 : 0;
	close(parent);
	close(target);
	if (tree >= 0)
		close(tree);
	return result;
}

/* The empty directory that all masks of directories share: one file system, mounted in many places. */
static int empty_tmpfs(void)
{
	int fs = sys_fsopen("tmpfs"), tree = -1;

	if (fs < 0)
		return -1;
	if (sys_fsconfig(fs, CONFIG_STRING, "nr_inodes", "2") == 0 && sys_fsconfig(fs, CONFIG_STRING, "size", "4k") == 0 &&
	    sys_fsconfig(fs, CONFIG_STRING, "mode", "755") == 0 && sys_fsconfig(fs, CONFIG_CREATE, NULL, NULL) == 0)
		tree = sys_fsmount(fs, ATTRIBUTE_RDONLY | ATTRIBUTE_NOSUID | ATTRIBUTE_NODEV | ATTRIBUTE_NOEXEC);
	close(fs);
	return tree;
}

static int readonly_null(struct launch *l)
{
	struct mount_attributes a = { .set = ATTRIBUTE_RDONLY | ATTRIBUTE_NOSUID | ATTRIBUTE_NOEXEC, .propagation = MS_PRIVATE };
	int tree = clone_tree(l->host_null, "", false);

	if (tree >= 0)
		sys_mount_setattr(tree, 0, &a); /* without it (before Linux 5.12) a device node still stores nothing */
	return tree;
}

/* The first mask attaches the tree itself; later ones are clones of that, since a tree that is attached nowhere cannot be
 * cloned before Linux 6.15. */
static int attach_mask(struct launch *l, int *shared, int target, const char *path, bool directory)
{
	int tree = *shared;

	if (tree >= 0) {
		tree = clone_tree(tree, "", false);
		if (tree < 0)
			return fail(l, "open_tree", path);
	} else {
		tree = directory ? empty_tmpfs() : readonly_null(l);
		if (tree < 0)
			return fail(l, directory ? "fsopen" : "open_tree", path);
		*shared = tree;
	}
	if (sys_move_mount(tree, target) < 0)
		return fail(l, "move_mount", path);
	return tree == *shared ? 0 : close(tree);
}

static int legacy_mask(struct launch *l, int target, const char *path, bool directory)
{
	char to[40];
	int fd;

	if (!directory) {
		fd = legacy_bind(l, l->host_null, target, path, false);
		return fd < 0 ? -1 : close(fd);
	}
	if (mount("tmpfs", fd_path(to, target), "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "nr_inodes=2,size=4k") < 0)
		return fail(l, "mount", path);
	return 0;
}

/* An existing name; -2 when there is none, which is as good as masked. */
static int existing(struct launch *l, const char *path)
{
	int fd = find_inside(l, path, 0);

	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return -2;
	return fd < 0 ? fail(l, "openat2", path) : fd;
}

int op_mask(struct launch *l, const struct op *op)
{
	int target = existing(l, op->arg[0]), result;
	struct stat st;
	bool directory;

	if (target < 0)
		return target == -2 ? 0 : -1;
	if (fstat(target, &st) < 0)
		return fail(l, "fstat", op->arg[0]);
	directory = S_ISDIR(st.st_mode);
	if (l->legacy)
		result = legacy_mask(l, target, op->arg[0], directory);
	else
		result = attach_mask(l, directory ? &l->mask_tmpfs : &l->mask_null, target, op->arg[0], directory);
	close(target);
	return result;
}

int op_readonly_path(struct launch *l, const struct op *op)
{
	struct mount_attributes private = { .propagation = MS_PRIVATE, .set = ATTRIBUTE_RDONLY };
	const struct attributes readonly = { .deep_set = ATTRIBUTE_RDONLY };
	int target = existing(l, op->arg[0]), tree = -1, result = 0;

	if (target < 0)
		return target == -2 ? 0 : -1;
	if (!l->legacy)
		tree = clone_tree(target, "", true);
	if (tree >= 0 && sys_mount_setattr(tree, TREE_RECURSIVE, &private) == 0) {
		if (sys_move_mount(tree, target) < 0)
			result = fail(l, "move_mount", op->arg[0]);
	} else {
		if (tree >= 0)
			close(tree);
		tree = legacy_bind(l, target, target, op->arg[0], true);
		result = tree < 0 ? -1 : set_attributes(l, tree, &readonly);
	}
	close(target);
	if (tree >= 0)
		close(tree);
	return result;
}
