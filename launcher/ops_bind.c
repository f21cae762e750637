/* Binds: a part of a tree that exists, shown at another place inside. */

#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "launcher.h"
#include "sys.h"

static int target_like(struct launch *l, int source, const char *path)
{
	struct stat st;
	int fd = -1;

	if (fstat(source, &st) == 0)
		fd = S_ISDIR(st.st_mode) ? make_directory(l, path, 0755) : make_file(l, path);
	return fd < 0 ? fail(l, "openat2", path) : fd;
}

/* Attributes before the mount appears where that is possible, so that nobody inside ever sees it without them. */
static int place(struct launch *l, int tree, int target, const char *path, const struct attributes *a)
{
	bool late = l->legacy || (sys_mount_setattr(tree, 0, &(struct mount_attributes){ 0 }) < 0 && errno == ENOSYS);

	if (!late && set_attributes(l, tree, a) < 0)
		return -1;
	if (sys_move_mount(tree, target) < 0)
		return fail(l, "move_mount", path);
	return late ? set_attributes(l, tree, a) : 0;
}

int op_bind(struct launch *l, const struct op *op)
{
	const char *path = op->arg[1], *propagation = *op->arg[4] ? op->arg[4] : "rprivate";
	bool recursive = *op->arg[2] == '1';
	struct attributes a;
	int source = open(op->arg[0], O_PATH | O_CLOEXEC), target, tree = -1, result;

	if (source < 0)
		return fail(l, "open", op->arg[0]);
	if (parse_attributes(op->arg[3], &a) < 0)
		return fail(l, "attributes", op->arg[3]);
	if ((target = target_like(l, source, path)) < 0)
		return -1;
	if (!l->legacy && (tree = clone_tree(source, "", recursive)) < 0 && !missing_call(l))
		return fail(l, "open_tree", op->arg[0]);
	if (tree >= 0)
		result = set_propagation(l, tree, propagation) < 0 ? -1 : place(l, tree, target, path, &a);
	else
		result = (tree = legacy_bind(l, source, target, path, recursive)) < 0 || set_attributes(l, tree, &a) < 0 ||
				 set_propagation(l, tree, propagation) < 0 ? -1 : 0;
	close(source);
	close(target);
	if (result < 0)
		return -1;
	return keep_or_close(l, tree, path);
}

/* Where the path leads to, or with `follow` "0" the very link that it names, if it names one. */
static int target_for(struct launch *l, int source, const char *path, const char *follow)
{
	int fd = *follow == '0' ? find_link(l, path) : -1;

	return fd < 0 ? target_like(l, source, path) : fd;
}

/* The kernel lists mounts by age, callers those of a container in the order of the plan: what was made before all of them
 * gives way to a clone of itself, which may be made now that it is attached in a namespace of ours. */
static int renew(struct launch *l, int tree, int target, const char *path)
{
	int clone = clone_tree(tree, "", true);
	char name[40];

	if (clone < 0)
		return fail(l, "open_tree", path);
	snprintf(name, sizeof name, "self/fd/%d", tree);
	if (set_propagation(l, tree, "rprivate") < 0) /* or what is mounted below would be unmounted on the host as well */
		return -1;
	if (fchdir(l->host_proc) < 0 || umount2(name, MNT_DETACH) < 0)
		return fail(l, "umount2", path);
	if (sys_move_mount(clone, target) < 0 || dup3(clone, tree, O_CLOEXEC) < 0)
		return fail(l, "move_mount", path);
	return close(clone);
}

/* The descriptor is a detached tree of the caller's (open_tree with OPEN_TREE_CLONE), or a file of our own namespace. The
 * clone is tried first: moving what is attached would take it away from the host. */
int op_bind_fd(struct launch *l, const struct op *op)
{
	const char *path = op->arg[1], *propagation = *op->arg[3] ? op->arg[3] : "rprivate";
	int fd = (int)number(op->arg[0]), target = target_for(l, fd, path, op->arg[4]), tree;
	struct attributes a;
	bool detached;

	if (target < 0)
		return -1;
	if (parse_attributes(op->arg[2], &a) < 0)
		return fail(l, "attributes", op->arg[2]);
	tree = clone_tree(fd, "", true);
	if (tree < 0 && errno != EINVAL)
		return fail(l, "open_tree", path);
	detached = tree < 0;
	if (detached && (tree = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0)
		return fail(l, "fcntl", path);
	if (set_propagation(l, tree, propagation) < 0 || place(l, tree, target, path, &a) < 0)
		return -1;
	if (detached && strstr(propagation, "shared") && renew(l, tree, target, path) < 0)
		return -1;
	close(target);
	return keep_or_close(l, tree, path);
}
