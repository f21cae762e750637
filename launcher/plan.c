/* Reads and checks the plan. What passes here has known verbs, right argument counts, numbers that are numbers and
 * descriptors that are ours; nothing has been done yet when it does not. */

#include <sys/mman.h>

#include <stdio.h>
#include <string.h>

#include "launcher.h"

enum { HEADER = 16 };

struct reader {
	const uint8_t *at, *end;
	char **words; /* free slots */
};

static char message[160];

const char *plan_error(void)
{
	return message;
}

static int bad(const char *what, uint32_t op)
{
	snprintf(message, sizeof message, "operation %u: %s", op, what);
	return -1;
}

static bool take_u32(struct reader *r, uint32_t *value)
{
	if (r->end - r->at < 4)
		return false;
	*value = r->at[0] | (uint32_t)r->at[1] << 8 | (uint32_t)r->at[2] << 16 | (uint32_t)r->at[3] << 24;
	r->at += 4;
	return true;
}

/* One word; `length` counts no NUL. Returns NULL when it leaves the plan or does not end in NUL. */
static char *take_word(struct reader *r, uint32_t *length)
{
	const uint8_t *start;

	if (!take_u32(r, length) || (uint64_t)(r->end - r->at) < (uint64_t)*length + 1)
		return NULL;
	start = r->at;
	r->at += *length;
	if (*r->at++ != 0)
		return NULL;
	return (char *)start;
}

static bool all_digits(const char *text, int base)
{
	size_t n = 0;

	for (; text[n]; n++) {
		char c = text[n];
		bool digit = c >= '0' && c <= (base == 8 ? '7' : '9');

		if (!digit && !(base == 16 && c >= 'a' && c <= 'f'))
			return false;
	}
	return n > 0 && n <= (base == 10 ? 18 : 16);
}

/* Decimal with an optional minus; the caller has checked it (`check_type`). */
int64_t number(const char *text)
{
	bool minus = *text == '-';
	int64_t value = 0;

	for (text += minus; *text; text++)
		value = value * 10 + (*text - '0');
	return minus ? -value : value;
}

static bool check_type(const struct launch *l, char type, const char *word)
{
	switch (type) {
	case 'n': return all_digits(word + (*word == '-'), 10);
	case 'u': return all_digits(word, 10) && number(word) < UINT32_MAX; /* an id; the last one means "unchanged" */
	case 'o': return all_digits(word, 8) && strlen(word) <= 4;
	case 'h': return all_digits(word, 16);
	case 'f': return all_digits(word + (*word == '-'), 10) && owns_descriptor(l, (int)number(word));
	default: return true;
	}
}

static const struct verb *find_verb(const char *name)
{
	for (const struct verb *v = verbs; v->name; v++)
		if (!strcmp(v->name, name))
			return v;
	return NULL;
}

static int check_arguments(const struct launch *l, const struct op *op, uint32_t index)
{
	const struct verb *v = op->verb;
	const char *type = v->types;

	if (v->arguments >= 0 ? op->count != (uint32_t)v->arguments : op->count < (uint32_t)AT_LEAST(v->arguments))
		return bad("wrong number of arguments", index);
	for (uint32_t i = 0; i < op->count; i++) {
		if (!check_type(l, *type, op->arg[i]))
			return bad("an argument has the wrong form", index);
		if (type[1])
			type++;
	}
	return 0;
}

static int read_operation(struct launch *l, struct reader *r, uint32_t index)
{
	struct op *op = &l->ops[index];
	uint32_t words, length;
	char *word;

	if (!take_u32(r, &words) || words < 1 || words > PLAN_WORDS)
		return bad("bad word count", index);
	if (!(word = take_word(r, &length)) || strlen(word) != length || !(op->verb = find_verb(word)))
		return bad("unknown verb", index);
	op->arg = r->words;
	op->count = words - 1;
	for (uint32_t i = 0; i < op->count; i++) {
		bool binary = i == 0 && !strcmp(op->verb->name, "seccomp");

		if (!(word = take_word(r, &length)))
			return bad("a word leaves the plan", index);
		if (binary ? length == 0 || length % 8 || length > 4096 * 8 : strlen(word) != length)
			return bad(binary ? "not a filter program" : "a text holds a NUL", index);
		if (i == 0)
			op->length = length;
		*r->words++ = word;
	}
	*r->words++ = NULL;
	return check_arguments(l, op, index);
}

/* What later steps must know early, and the one rule of order: `exec` ends the child's side. */
static int note_operations(struct launch *l)
{
	bool exec = false;

	for (uint32_t i = 0; i < l->count; i++) {
		const char *name = l->ops[i].verb->name;

		if (exec && l->ops[i].verb->side == 'C')
			return bad("nothing of the child may follow exec", i);
		exec = exec || !strcmp(name, "exec");
		l->namespaces_op = strcmp(name, "new-namespaces") ? l->namespaces_op : i;
		l->cgroup_op = strcmp(name, "cgroup-fd") ? l->cgroup_op : i;
		l->awaits_parent |= !strcmp(name, "await-parent");
		l->has_keyring |= !strcmp(name, "keyring");
		l->groups_denied |= !strcmp(name, "setgroups-deny");
		l->dies_with_client |= !strcmp(name, "await-start") && !strcmp(l->ops[i].arg[0], "client");
	}
	return exec ? 0 : bad("exec is missing", l->count);
}

static void *anonymous(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

/* A private copy: the caller could still change the memfd. -1 when it is too large or cannot be read. */
static ssize_t read_all(int fd, uint8_t *buffer)
{
	size_t have = 0;
	bool seekable = lseek(fd, 0, SEEK_CUR) >= 0;

	while (have < PLAN_BYTES + 1) {
		ssize_t n = seekable ? pread(fd, buffer + have, PLAN_BYTES + 1 - have, (off_t)have)
		                     : read(fd, buffer + have, PLAN_BYTES + 1 - have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			return (ssize_t)have;
		have += (size_t)n;
	}
	return -1;
}

int read_plan(struct launch *l, int fd)
{
	uint8_t *buffer = anonymous(PLAN_BYTES + 1);
	ssize_t size = buffer ? read_all(fd, buffer) : -1;
	struct reader r = { .at = buffer };
	uint32_t version, total;

	if (size < HEADER || memcmp(buffer, "clsn", 4))
		return bad("this is no plan", 0);
	r.at += 4;
	r.end = buffer + size;
	take_u32(&r, &version);
	take_u32(&r, &total);
	take_u32(&r, &l->count);
	if (version != 1)
		return bad("unknown version", 0);
	if (total != (size_t)size)
		return bad("the plan's length is not what it says", 0);
	if (l->count > PLAN_OPERATIONS)
		return bad("too many operations", 0);
	/* A word takes five bytes at least, an operation four more: so many pointers suffice, a NULL an operation included. */
	l->ops = anonymous((l->count + 1) * sizeof *l->ops);
	r.words = anonymous(((size_t)size / 5 + l->count + 1) * sizeof *r.words);
	if (!l->ops || !r.words)
		return bad("no memory", 0);
	for (uint32_t i = 0; i < l->count; i++)
		if (read_operation(l, &r, i) < 0)
			return -1;
	if (r.at != r.end)
		return bad("bytes after the last operation", l->count);
	return note_operations(l);
}
