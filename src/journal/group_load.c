/* A partition of a consumer group as the log says it is: see group_load.h. */
#include <config.h>

#include "journal/group_load.h"

#include <stdio.h>

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/act.h"
#include "journal/internal.h"
#include "journal/wire.h"

#define PAGE_BYTES (1 * MIB)
#define OFFSET_ARENA_BYTES (16 * LIMIT_RECORD_BYTES)
#define ACT_ARENA_BYTES (64 * KIB)

struct loading {
	struct job job;
	struct journal *journal;
	struct group_load what; /* the name is behind it */
	group_load_fn *done;
	void *arg;
	struct group_loaded loaded;
	struct err err;
};

static enum err_code understood(bool ok, struct err *err)
{
	return ok ? ERR_OK : err_set(err, ERR_CORRUPT, "the group's newest offset cannot be understood");
}

static enum err_code take_offset(struct loading *l, struct span data, struct err *err)
{
	struct group_loaded *to = &l->loaded;
	struct arena a;
	arena_init(&a, OFFSET_ARENA_BYTES);
	const PB(GroupOffset) *pb = act_unpack(PB_TYPE(group_offset), &a, data);
	bool ok = pb && pb->n_waiting <= LIMIT_GROUP_WAITING && pb->partitions <= LIMIT_GROUP_PARTITIONS;
	if (ok) {
		to->hand = group_new(l->what.window);
		to->acts_below = pb->acts_below;
		to->partitions = pb->partitions ? pb->partitions : 1;
		group_restore(to->hand, pb->position);
	}
	for (size_t i = 0; ok && i < pb->n_waiting; i++) {
		const PB(GroupWaiting) *w = pb->waiting[i];
		group_restore_waiting(to->hand, &(struct group_mark){.stream = pb_span(w->stream),
								     .position = w->position,
								     .parked = w->has_parked_at_case != 0,
								     .parked_at = w->parked_at,
								     .skip = w->skip,
								     .alone = w->alone});
	}
	arena_release(&a);
	return understood(ok, err);
}

static enum err_code load_offset(struct loading *l, struct storage_reader *reader, uint64_t head)
{
	char name[GROUP_STREAM_BYTES];
	struct storage_query q = {.source = STORAGE_STREAM,
				  .name = journal_group_stream(l->what.group, l->what.partition, name),
				  .backward = true,
				  .from = head - 1,
				  .kinds = UINT32_C(1) << RECORD_GROUP_OFFSET,
				  .below_position = head,
				  .max_bytes = PAGE_BYTES,
				  .max_records = 1};
	struct storage_page page = {0};
	struct span entry;
	struct record_view v;
	struct buf buf;
	buf_init(&buf, PAGE_BYTES + LIMIT_RECORD_BYTES);
	enum err_code code = storage_read(reader, &q, &buf, &page, &l->err);
	struct span run = buf_span(&buf);
	if (!code && run.n > 0) {
		code = record_next(&run, &entry, NULL, &l->err);
		if (!code)
			code = record_decode(entry, &v, &l->err);
		if (!code)
			code = take_offset(l, v.data, &l->err);
	}
	buf_release(&buf);
	return code;
}

static void take_parked(struct group *g, struct span data, struct arena *a, uint32_t partition, uint32_t partitions)
{
	const PB(Parked) *pb = act_unpack(PB_TYPE(parked), a, data);
	if (pb && journal_group_partition_of(pb_span(pb->stream), partitions) == partition)
		group_park(g, pb_span(pb->stream), pb->position, pb->goes_on);
}

static void take_group_act(struct group *g, struct span data, struct arena *a, uint32_t partition,
			   uint32_t partitions)
{
	const PB(GroupAct) *pb = act_unpack(PB_TYPE(group_act), a, data);
	if (!pb)
		return;
	if (pb->act == CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_PARK) {
		if (journal_group_partition_of(pb_span(pb->stream), partitions) == partition)
			group_park(g, pb_span(pb->stream), pb->position, pb->goes_on);
		return;
	}
	if (pb->act != CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_REPLAY &&
	    pb->act != CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_SKIP)
		return;
	group_unpark(g, &(struct group_choice){.stream = pb_span(pb->stream),
					       .by_position = pb->has_position_case != 0,
					       .position = pb->position,
					       .skip = pb->act == CAIRN__JOURNAL__V1__GROUP_ACT__ACT__ACT_SKIP});
}

void group_take_act(struct group *g, const struct record_view *record, uint32_t partition, uint32_t partitions,
		    uint64_t since)
{
	struct arena a;
	if (record->content != RECORD_BODY)
		return;
	arena_init(&a, ACT_ARENA_BYTES);
	if (record->kind == RECORD_PARKED && record->position < since)
		take_parked(g, record->data, &a, partition, partitions);
	else if (record->kind == RECORD_GROUP_ACT)
		take_group_act(g, record->data, &a, partition, partitions);
	arena_release(&a);
}

static enum err_code load_acts(struct loading *l, struct storage_reader *reader, uint64_t head)
{
	char name[GROUP_STREAM_BYTES];
	struct storage_query q = {.source = STORAGE_STREAM,
				  .name = journal_parked_stream(l->what.group, name),
				  .from = l->loaded.acts_below,
				  .kinds = PARKED_STREAM_KINDS,
				  .below_position = head,
				  .max_bytes = PAGE_BYTES};
	struct storage_page page = {0};
	struct buf buf;
	enum err_code code = ERR_OK;
	buf_init(&buf, PAGE_BYTES + LIMIT_RECORD_BYTES);
	while (!code && !page.end && q.from < head) {
		buf_clear(&buf);
		code = storage_read(reader, &q, &buf, &page, &l->err);
		struct span run = buf_span(&buf), entry;
		while (!code && run.n > 0) {
			struct record_view v;
			code = record_next(&run, &entry, NULL, &l->err);
			if (!code)
				code = record_decode(entry, &v, &l->err);
			if (!code)
				group_take_act(l->loaded.hand, &v, l->what.partition, l->loaded.partitions,
					       UINT64_MAX);
		}
		q.from = page.next;
	}
	buf_release(&buf);
	l->loaded.acts_below = head;
	return code;
}

static void loading_run(struct job *job, struct storage_reader *reader, bool in_time)
{
	struct loading *l = CONTAINER_OF(job, struct loading, job);
	uint64_t head = journal_head(l->journal);
	if (!in_time) {
		err_set(&l->err, ERR_UNAVAILABLE, "position %llu was not reached in time: try again",
			(unsigned long long)l->what.not_before);
		return;
	}
	if (head == 0 || load_offset(l, reader, head) || !l->loaded.hand)
		return;
	load_acts(l, reader, head);
}

static void loading_done(struct job *job)
{
	struct loading *l = CONTAINER_OF(job, struct loading, job);
	if (job->refused)
		err_set(&l->err, ERR_UNAVAILABLE, "the journal is stopping");
	l->done(&l->loaded, l->err.code ? &l->err : NULL, l->arg);
	group_free(l->loaded.hand);
	mem_free(l);
}

void group_load(struct journal *j, const struct group_load *what, struct mailbox *mailbox, group_load_fn *done,
		void *arg)
{
	struct loading *l = mem_xalloc(sizeof(*l) + what->group.n);
	must(what->window > 0);
	l->journal = j;
	l->what = *what;
	l->what.group = span_of(l + 1, what->group.n);
	memcpy(l + 1, what->group.p, what->group.n);
	l->done = done;
	l->arg = arg;
	l->job.run = loading_run;
	l->job.done = loading_done;
	l->job.mailbox = mailbox;
	pool_submit(j->pool, &l->job, what->not_before, j->not_before_wait_us);
}
