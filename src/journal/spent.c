/* What of sessions, grants and groups is not needed any more: see spent.h. */
#include <config.h>

#include "journal/spent.h"

#include <stdlib.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "journal/incarnation.h"

/* Of one look: what is beyond goes with the next. */
#define SPENT_MAX ((size_t)1 << 20)
#define PAGE_BYTES (1 * MIB)
#define STREAMS_A_LOOK ((size_t)100)

static void on_spent(void *arg, uint64_t position, uint64_t after, struct wall_time since)
{
	struct spent *s = arg;
	if (since.us > s->until.us) {
		s->later++;
		return;
	}
	if (s->n == SPENT_MAX)
		return;
	if (s->n == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 1024;
		s->list = mem_xrealloc(s->list, s->cap * sizeof(*s->list));
	}
	s->list[s->n++] = (struct spent_record){.position = position, .after = after};
}

static int by_position(const void *a, const void *b)
{
	const struct spent_record *x = a, *y = b;
	return x->position < y->position ? -1 : x->position > y->position;
}

/* Of a group's offsets the newest is needed alone; what comes after each is when it became needless. */
static enum err_code offsets_of(struct spent *s, struct storage_reader *reader, uint64_t head, struct span stream,
				struct err *err)
{
	struct storage_query q = {.source = STORAGE_STREAM,
				  .name = stream,
				  .kinds = UINT32_C(1) << RECORD_GROUP_OFFSET,
				  .below_position = head,
				  .max_bytes = PAGE_BYTES};
	struct storage_page page = {0};
	uint64_t before = SPENT_NONE;
	enum err_code code = ERR_OK;
	struct buf buf;
	buf_init(&buf, PAGE_BYTES + LIMIT_RECORD_BYTES);
	while (!code && !page.end) {
		buf_clear(&buf);
		code = storage_read(reader, &q, &buf, &page, err);
		struct span run = buf_span(&buf), entry;
		while (!code && run.n > 0) {
			struct record_view v;
			code = record_next(&run, &entry, NULL, err);
			if (code || !record_decode_header(entry, &v))
				break;
			if (before != SPENT_NONE)
				on_spent(s, before, SPENT_NONE, v.commit_time);
			before = v.position;
		}
		q.from = page.next;
	}
	if (before != SPENT_NONE && plant("newest-offset-goes"))
		on_spent(s, before, SPENT_NONE, (struct wall_time){0});
	buf_release(&buf);
	return code;
}

/* Streams whose name begins so: "$group-", and "$group." of the partitions above 0. */
static enum err_code load_offsets(struct spent *s, struct storage_reader *reader, uint64_t head, struct err *err)
{
	struct storage_stream_info infos[STREAMS_A_LOOK];
	char last[LIMIT_STREAM_NAME_BYTES];
	struct span after = {0};
	enum err_code code = ERR_OK;
	for (size_t count = STREAMS_A_LOOK; !code && count == STREAMS_A_LOOK;) {
		struct arena arena;
		arena_init(&arena, STREAMS_A_LOOK * 4 * (LIMIT_STREAM_NAME_BYTES + 64));
		count = 0;
		code = storage_list(reader, SPAN("$group"), after, STREAMS_A_LOOK, &arena, infos, &count, err);
		for (size_t i = 0; !code && i < count; i++)
			if (infos[i].first_position < infos[i].last_position)
				code = offsets_of(s, reader, head, infos[i].name, err);
		if (count > 0) {
			memcpy(last, infos[count - 1].name.p, infos[count - 1].name.n);
			after = span_of(last, infos[count - 1].name.n);
		}
		arena_release(&arena);
	}
	return code;
}

enum err_code spent_load(struct storage_reader *reader, uint64_t head, struct wall_time until, struct spent *ret,
			 struct err *err)
{
	struct cuts *cuts = cuts_new();
	struct ledger *ledger = ledger_new(cuts);
	*ret = (struct spent){.until = until};
	ledger_on_spent(ledger, on_spent, ret);
	enum err_code code = ledger_load(ledger, reader, head, err);
	if (!code)
		code = load_offsets(ret, reader, head, err);
	ledger_free(ledger);
	cuts_free(cuts);
	if (code)
		spent_release(ret);
	else if (ret->n > 0)
		qsort(ret->list, ret->n, sizeof(*ret->list), by_position);
	return code;
}

void spent_release(struct spent *s)
{
	mem_free(s->list);
	*s = (struct spent){0};
}

/* Of the first at or after the position. */
static size_t index_of(const struct spent *s, uint64_t position)
{
	size_t low = 0, high = s->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (s->list[middle].position < position)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

size_t spent_between(const struct spent *s, uint64_t first, uint64_t end, uint64_t *ret_first)
{
	size_t from = index_of(s, first), to = index_of(s, end);
	*ret_first = from < to ? s->list[from].position : SPENT_NONE;
	return to - from;
}

bool spent_take(struct spent *s, uint64_t position)
{
	size_t i = index_of(s, position);
	if (i == s->n || s->list[i].position != position)
		return false;
	struct spent_record *r = &s->list[i];
	size_t before = r->after == SPENT_NONE ? s->n : index_of(s, r->after);
	bool beginning_is_left = r->after != SPENT_NONE && (before == s->n || s->list[before].position != r->after ||
							    !s->list[before].goes);
	if (beginning_is_left && !plant("end-goes-before-beginning"))
		return false;
	r->goes = true;
	return true;
}

void spent_give_back(struct spent *s, uint64_t first, uint64_t end)
{
	for (size_t i = index_of(s, first); i < s->n && s->list[i].position < end; i++)
		s->list[i].goes = false;
}
