/* The two files a monitor writes: the framed log and the exit file. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#include "launcher.h"

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int open_log(struct launch *l)
{
	struct log *log = &l->monitor.log;
	struct stat st;

	log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (log->fd < 0)
		return fail(l, "open", log->path);
	if (fstat(log->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return refuse(l, EINVAL, "fstat", log->path);
	log->size = (uint64_t)st.st_size;
	return 0;
}

/* log -> log.1 -> log.2 …; the oldest goes. Renames are of whole files, so a reader that follows sees a new inode. */
static void rotate(struct log *log)
{
	char from[PATH_MAX], to[PATH_MAX];
	struct stat st;

	for (uint64_t i = log->files < 2 ? 0 : log->files - 1; i > 0; i--) {
		int n = i > 1 ? snprintf(from, sizeof from, "%s.%d", log->path, (int)(i - 1)) : snprintf(from, sizeof from, "%s", log->path);

		if (n < PATH_MAX && snprintf(to, sizeof to, "%s.%d", log->path, (int)i) < PATH_MAX)
			rename(from, to);
	}
	if (log->files < 2)
		unlink(log->path);
	close(log->fd);
	log->fd = open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	log->size = log->fd >= 0 && fstat(log->fd, &st) == 0 ? (uint64_t)st.st_size : 0; /* 0, if the renames went well */
}

/* One record. What does not fit on a full disk is lost whole: half a record would spoil those that follow. */
void write_log(struct log *log, uint8_t stream, const char *data, uint32_t length)
{
	struct {
		uint8_t stream, zero[3];
		uint32_t length;
		uint64_t time;
	} head = { stream, { 0 }, length, now_ns() };
	struct iovec parts[] = { { &head, sizeof head }, { (void *)data, length } };
	ssize_t whole = (ssize_t)(sizeof head + length), n;

	if (log->fd >= 0 && log->limit && log->size && log->size + (uint64_t)whole > log->limit)
		rotate(log);
	if (log->fd < 0)
		return;
	n = writev(log->fd, parts, 2);
	if (n == whole)
		log->size += (uint64_t)whole;
	else if (n > 0 && ftruncate(log->fd, (off_t)log->size) < 0) {
		close(log->fd);
		log->fd = -1;
	}
}

/* The number after `field` at a line's start, or the first number when it is empty; false when there is none. */
static bool find_number(const char *text, const char *field, char number[static 24])
{
	size_t n = strlen(field), digits;

	for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL) {
		const char *at = line + n;

		if (strncmp(line, field, n) || (n && *at != ' ' && *at != ':'))
			continue;
		at += strspn(at, " :");
		digits = strspn(at, "0123456789");
		if (!digits || digits >= 24)
			continue;
		memcpy(number, at, digits);
		number[digits] = 0;
		return true;
	}
	return false;
}

static size_t add_stats(struct monitor *m, char *text, size_t size)
{
	size_t used = 0;

	for (uint32_t i = 0; i < m->stat_count; i++) {
		char **arg = m->stats[i]->arg, content[4096], value[24];
		int fd = open(arg[1], O_RDONLY | O_CLOEXEC), n;
		ssize_t got = fd < 0 ? -1 : read(fd, content, sizeof content - 1);

		if (fd >= 0)
			close(fd);
		if (got < 0)
			continue;
		content[got] = 0;
		if (!find_number(content, arg[2], value))
			continue;
		n = snprintf(text + used, size - used, "%s %s\n", arg[0], value);
		if (n < 0 || (size_t)n >= size - used)
			break;
		used += (size_t)n;
	}
	return used;
}

static unsigned long long microseconds(struct timeval t)
{
	return (unsigned long long)t.tv_sec * 1000000u + (unsigned long long)t.tv_usec;
}

static void store(const char *path, const char *text, size_t length)
{
	char temporary[PATH_MAX];
	int fd;

	if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= PATH_MAX)
		return;
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return;
	if (write(fd, text, length) == (ssize_t)length)
		rename(temporary, path);
	else
		unlink(temporary);
	close(fd);
}

/* Renders the exit file into `text` and stores it when the plan names one; the text's length. */
size_t write_exit(struct launch *l, char *text, size_t size)
{
	struct monitor *m = &l->monitor;
	int n = snprintf(text, size, "status %d\nstarted_ns %llu\nfinished_ns %llu\nuser_us %llu\nsystem_us %llu\nmax_rss_kib %ld\n",
			 m->status, (unsigned long long)m->started_ns, (unsigned long long)m->finished_ns,
			 microseconds(m->usage.ru_utime), microseconds(m->usage.ru_stime), m->usage.ru_maxrss);
	size_t length = (size_t)n;

	length += add_stats(m, text + length, size - length);
	if (m->exit_file)
		store(m->exit_file, text, length);
	return length;
}
