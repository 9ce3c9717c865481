/* One partition of a group, as its consumer has it: see consume.h. What is in hand is group.h's; here is what is read,
 * sent, and written down. Offsets and parked records are fenced by the partition's grant. */
#include <config.h>

#include "journal/consume.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/plant.h"
#include "journal/group_load.h"

#define PART_WRITE_MS 5000
#define PART_WINDOW 100
#define EVENTS (UINT32_C(1) << RECORD_EVENT)

static bool part_is_on(const struct consume_part *part)
{
	return part->state == PART_ACTIVE || part->state == PART_LEAVING;
}

/* ---- what is written down ----------------------------------------------------------------------- */

static void part_count(struct consume_part *part)
{
	size_t waiting = part->hand ? group_waiting_count(part->hand) : 0;
	size_t parked = part->hand ? group_parked_count(part->hand) : 0;

	metric_add(METRIC_GROUP_WAITING, (int64_t)waiting - (int64_t)part->told_waiting);
	metric_add(METRIC_GROUP_PARKED, (int64_t)parked - (int64_t)part->told_parked);
	if (part->hand)
		group_meter_set(&part->place, group_below(part->hand));
	part->told_waiting = waiting;
	part->told_parked = parked;
}

static void part_on_written(struct consume_call *cc, struct consume_part *part, const struct append *append,
			    uint64_t position)
{
	const struct append_answer *answer = append_answer(append);

	(void)position;
	if (answer->code == ERR_CONFLICT)
		consume_lost(cc);
	else if (answer->code)
		part->rewrite = true; /* at the next time */
}

static void part_write(struct consume_part *part)
{
	struct consume_call *cc = part->call;
	size_t n = group_waiting_count(part->hand);
	struct group_mark *marks = mem_xalloc((n + 1) * sizeof(*marks));
	struct journal_group_offset offset = {.group = cc->group,
					      .partition = part->index,
					      .partitions = cc->part_count,
					      .position = group_below(part->hand),
					      .acts_below = part->acts_below,
					      .marks = marks,
					      .mark_count = n};
	struct append_refusal refusal;
	struct append *append = NULL;

	for (size_t i = 0; i < n; i++)
		group_waiting(part->hand, i, &marks[i]);
	group_written(part->hand);
	part->rewrite = false;
	if (!journal_group_offset_new(cc->service->journal, &offset, &part->fence, &append, &refusal))
		consume_act(cc, append, part_on_written, part, 0);
	else if (cc->state != CONSUME_CLOSED)
		consume_fail(cc, &refusal.err);
	mem_free(marks);
}

static void part_on_write_timer(void *arg)
{
	struct consume_part *part = OBJ_CAST(struct consume_part, arg, CONSUME_PART_MAGIC);

	part->write_set = false;
	if (!part_is_on(part) || !(group_moved(part->hand) || part->rewrite))
		return;
	part_write(part);
	if (part_is_on(part)) {
		part->write_set = true;
		loop_timer_set(part->write, PART_WRITE_MS);
	}
}

/* At most once in a while, and only when it has moved. */
static void part_will_write(struct consume_part *part)
{
	part_count(part);
	if (part->write_set || !group_moved(part->hand))
		return;
	part->write_set = true;
	loop_timer_set(part->write, PART_WRITE_MS);
}

/* Whatever is under way is let go. */
static void part_stop(struct consume_part *part)
{
	loop_timer_cancel(part->due);
	loop_timer_cancel(part->write);
	part->write_set = false;
	journal_read_close(part->records);
	journal_read_close(part->acts);
	journal_read_close(part->behind);
	journal_page_free(part->page);
	part->records = part->acts = part->behind = NULL;
	part->page = NULL;
	part->asked = false;
	if (part_is_on(part) && (group_moved(part->hand) || part->rewrite))
		part_write(part);
	if (part_is_on(part))
		metric_add(METRIC_GROUP_PARTITIONS, -1);
	group_meter_remove(&part->call->service->groups, &part->place);
	group_free(part->hand);
	part->hand = NULL;
	part_count(part);
}

void part_close(struct consume_part *part)
{
	part_stop(part);
	part->state = PART_IDLE;
}

/* ---- records ------------------------------------------------------------------------------------ */

void consume_query(const struct consume_call *cc, struct journal_query *q, struct span **ret_spans)
{
	const PB(ConsumeRequest) *pb = cc->open;
	struct span *spans = mem_xalloc((pb->n_types + pb->n_stream_prefixes + 1) * sizeof(*spans));

	*q = (struct journal_query){.kinds = EVENTS, .types = spans, .type_count = pb->n_types};
	if (pb->source_case == CAIRN__JOURNAL__V1__CONSUME_REQUEST__SOURCE_STREAM) {
		q->source = STORAGE_STREAM;
		q->name = pb_span(pb->stream);
	} else if (pb->source_case == CAIRN__JOURNAL__V1__CONSUME_REQUEST__SOURCE_CATEGORY) {
		q->source = STORAGE_CATEGORY;
		q->name = pb_span(pb->category);
	}
	for (size_t i = 0; i < pb->n_types; i++)
		spans[i] = pb_span(pb->types[i]);
	for (size_t i = 0; i < pb->n_stream_prefixes; i++)
		spans[pb->n_types + i] = pb_span(pb->stream_prefixes[i]);
	q->stream_prefixes = spans + pb->n_types;
	q->stream_prefix_count = pb->n_stream_prefixes;
	*ret_spans = spans;
}

static void part_on_page(struct journal_read *read, struct journal_page *page, const struct err *err, void *arg)
{
	struct consume_part *part = OBJ_CAST(struct consume_part, arg, CONSUME_PART_MAGIC);

	must(read == part->records);
	part->asked = false;
	if (!page) {
		consume_fail(part->call, err);
		return;
	}
	must(!part->page);
	part->page = page;
	part->run = buf_span(&page->body);
	part_pump(part);
}

static void part_on_behind(struct journal_read *read, struct journal_page *page, const struct err *err, void *arg)
{
	struct consume_part *part = OBJ_CAST(struct consume_part, arg, CONSUME_PART_MAGIC);
	struct span run, entry, stream;
	struct record_view v;
	struct err why = {0};

	must(read == part->behind);
	if (!page) {
		consume_fail(part->call, err);
		return;
	}
	run = buf_span(&page->body);
	if (page->records == 0 && !page->end) {
		journal_page_free(page);
		journal_read_next(read);
		return;
	}
	part->behind = NULL;
	if (page->records == 0) {
		group_caught(part->hand, false, 0);
	} else if (record_next(&run, &entry, NULL, &why) || record_decode_trusted(entry, &v, &why)) {
		consume_fail(part->call, &why);
	} else {
		group_caught(part->hand, true, v.position);
		/* Unless an earlier record was given back meanwhile. */
		if (group_has(part->hand, v.position, &stream))
			grpc_call_send(part->call->call, buf_span(&page->body));
	}
	journal_page_free(page);
	journal_read_close(read);
	part_pump(part);
}

/* Streams that wait, when they are due: one at a time. */
static void part_catch_up(struct consume_part *part)
{
	struct consume_call *cc = part->call;
	struct span stream, *spans;
	uint64_t from, below;
	struct journal_query q;
	struct err err = {0};

	while (!part->behind && group_catch_up(part->hand, clock_mono(&clock_system).us, &stream, &from, &below)) {
		if (from >= below) {
			group_caught(part->hand, false, 0);
			continue;
		}
		consume_query(cc, &q, &spans);
		q.source = STORAGE_STREAM;
		q.name = stream;
		q.from = FROM_POSITION;
		q.from_value = from;
		q.to = TO_POSITION;
		q.to_value = below - 1;
		q.max_records = 1;
		journal_read_open(cc->service->journal, &q, loop_mailbox(cc->loop->loop), part_on_behind, part,
				  &part->behind, &err);
		mem_free(spans);
		if (err.code) {
			consume_fail(cc, &err);
			return;
		}
		journal_read_next(part->behind);
	}
}

/* Hands out what is there of the page, as far as there is room; false if it is not over. */
static bool part_page(struct consume_part *part)
{
	struct consume_call *cc = part->call;
	struct buf out;
	struct err err = {0};

	buf_init(&out, LIMIT_RESPONSE_BYTES + 2 * LIMIT_RECORD_BYTES);
	while (part->run.n > 0 && group_has_room(part->hand) && !err.code) {
		struct span entry, whole;
		struct record_view v;

		if (record_next(&part->run, &entry, &whole, &err) || record_decode_trusted(entry, &v, &err))
			break;
		if (journal_group_partition_of(v.stream, cc->part_count) != part->index && !plant("partition-ignored"))
			group_passed(part->hand, v.position + 1);
		else if (group_offer(part->hand, v.position, v.stream) && buf_append_span(&out, whole))
			err_set(&err, ERR_NOMEM, "no memory for a response");
	}
	if (!err.code && out.n > 0)
		grpc_call_send(cc->call, buf_span(&out));
	buf_release(&out);
	if (err.code)
		consume_fail(cc, &err);
	return !err.code && part->run.n == 0;
}

static void part_on_released(struct consume_call *cc, struct consume_part *part, const struct append *append,
			     uint64_t position)
{
	(void)append; /* whatever it is: if it is still ours, we are granted it again */
	(void)position;
	part->state = PART_IDLE;
	consume_share(cc);
}

static void part_give_back(struct consume_part *part)
{
	struct consume_call *cc = part->call;
	struct journal_claim claim = {
		.service = cc->grants, .slot = part->index, .actor = span_str(cc->actor)};
	struct append_refusal refusal;
	struct append *append = NULL;

	part_stop(part);
	if (cc->state != CONSUME_OPEN)
		return;
	part->state = PART_RELEASING;
	memcpy(claim.session, cc->session, sizeof(claim.session));
	if (journal_grant_release_new(cc->service->journal, &claim, part->fence.epoch, &append, &refusal))
		consume_fail(cc, &refusal.err);
	else
		consume_act(cc, append, part_on_released, part, 0);
}

void part_leave(struct consume_part *part)
{
	must(part->state == PART_ACTIVE);
	part->state = PART_LEAVING;
	part_pump(part);
}

void part_pump(struct consume_part *part)
{
	struct consume_call *cc = part->call;
	int64_t due_us;

	if (part->state == PART_LEAVING &&
	    (!group_is_busy(part->hand) || plant("partition-given-back-while-open")))
		part_give_back(part);
	if (part->state != PART_ACTIVE || cc->half_closed)
		return;
	part_catch_up(part);
	if (part->state == PART_ACTIVE && part->page && grpc_call_writable(cc->call) && part_page(part)) {
		group_passed(part->hand, part->page->next.position);
		journal_page_free(part->page);
		part->page = NULL;
	}
	if (part->state != PART_ACTIVE)
		return;
	if (!part->page && !part->asked && grpc_call_writable(cc->call)) {
		part->asked = true;
		journal_read_next(part->records);
	}
	if (!part->behind && group_due(part->hand, &due_us)) {
		int64_t now_us = clock_mono(&clock_system).us;

		/* One that is due already waits for room, and acknowledgements give that. */
		if (due_us > now_us)
			loop_timer_set(part->due, (due_us - now_us) / 1000 + 1);
	}
	part_will_write(part);
}

static void part_on_due(void *arg)
{
	part_pump(OBJ_CAST(struct consume_part, arg, CONSUME_PART_MAGIC));
}

/* ---- parking, and what operators want -------------------------------------------------------------- */

/* What this consumer parked itself it has parked already. */
static void part_on_acts(struct journal_read *read, struct journal_page *page, const struct err *err, void *arg)
{
	struct consume_part *part = OBJ_CAST(struct consume_part, arg, CONSUME_PART_MAGIC);
	struct span run, entry;
	struct err why = {0};

	must(read == part->acts);
	if (!page) {
		consume_fail(part->call, err);
		return;
	}
	run = buf_span(&page->body);
	while (run.n > 0 && !why.code) {
		struct record_view v;

		if (!record_next(&run, &entry, NULL, &why) && !record_decode(entry, &v, &why))
			group_take_act(part->hand, &v, part->index, part->call->part_count, part->claimed);
	}
	part->acts_below = page->next.position;
	journal_page_free(page);
	if (why.code) {
		consume_fail(part->call, &why);
		return;
	}
	journal_read_next(read);
	part_pump(part);
}

static void part_on_parked(struct consume_call *cc, struct consume_part *part, const struct append *append,
			   uint64_t position)
{
	const struct append_answer *answer = append_answer(append);
	PB(ConsumeResponse) pb = CAIRN__JOURNAL__V1__CONSUME_RESPONSE__INIT;

	(void)part;
	if (answer->code == ERR_CONFLICT) {
		consume_lost(cc);
	} else if (answer->code) {
		consume_fail(cc, &answer->refusal->err);
	} else {
		pb.n_parked = 1;
		pb.parked = &position;
		grpc_call_send_pb(cc->call, &pb.base);
	}
}

void part_park(struct consume_part *part, uint64_t position, struct span reason, bool goes_on)
{
	struct consume_call *cc = part->call;
	struct journal_park park = {
		.group = cc->group, .reason = reason, .position = position, .goes_on = goes_on};
	struct append_refusal refusal;
	struct append *append = NULL;

	if (!group_has(part->hand, position, &park.stream))
		return;
	if (journal_park_new(cc->service->journal, &park, &part->fence, &append, &refusal)) {
		consume_fail(cc, &refusal.err);
	} else if (group_park(part->hand, park.stream, position, goes_on) == GROUP_TOO_MANY_WAIT) {
		append_unref(append);
		consume_end(cc, GRPC_RESOURCE_EXHAUSTED, span_str(consume_too_many));
	} else {
		consume_act(cc, append, part_on_parked, part, position);
	}
}

/* ---- becoming active ---------------------------------------------------------------------------- */

static void part_open(struct consume_part *part, struct err *err)
{
	struct consume_call *cc = part->call;
	struct mailbox *mailbox = loop_mailbox(cc->loop->loop);
	char name[GROUP_STREAM_BYTES];
	struct journal_query q = {.source = STORAGE_STREAM,
				  .name = journal_parked_stream(cc->group, name),
				  .live = true,
				  .from = FROM_POSITION,
				  .from_value = part->acts_below,
				  .kinds = PARKED_STREAM_KINDS};
	struct span *spans;

	if (journal_read_open(cc->service->journal, &q, mailbox, part_on_acts, part, &part->acts, err))
		return;
	journal_read_next(part->acts);
	consume_query(cc, &q, &spans);
	q.live = true;
	q.from = FROM_POSITION;
	q.from_value = group_below(part->hand);
	journal_read_open(cc->service->journal, &q, mailbox, part_on_page, part, &part->records, err);
	mem_free(spans);
}

static void part_on_loaded(struct group_loaded *loaded, const struct err *err, void *arg)
{
	struct consume_part *part = OBJ_CAST(struct consume_part, arg, CONSUME_PART_MAGIC);
	struct consume_call *cc = part->call;
	PB(ConsumeResponse) pb = CAIRN__JOURNAL__V1__CONSUME_RESPONSE__INIT;
	struct journal_cursor at;
	struct err why = {0};
	PB(Cursor) cursor;

	if (part->state == PART_LOADING && (err || !loaded->hand)) {
		if (!err)
			err_set(&why, ERR_NOT_FOUND, "the group's partition %u is not there any more", part->index);
		consume_fail(cc, err ? err : &why);
	} else if (part->state == PART_LOADING) {
		part->hand = loaded->hand;
		loaded->hand = NULL;
		part->acts_below = loaded->acts_below;
		part->state = PART_ACTIVE;
		metric_add(METRIC_GROUP_PARTITIONS, 1);
		part->place = (struct group_place){.group = cc->group, .partition = part->index};
		group_meter_add(&cc->service->groups, &part->place);
		part_open(part, &why);
		at = journal_cursor_at(cc->service->journal, group_below(part->hand));
		if (why.code) {
			consume_fail(cc, &why);
		} else {
			service_cursor_to(&at, &cursor);
			pb.active = &cursor;
			pb.partition = part->index;
			grpc_call_send_pb(cc->call, &pb.base);
			part_pump(part);
		}
	}
	consume_unref(cc);
}

void part_take(struct consume_part *part)
{
	struct consume_call *cc = part->call;
	size_t window = (cc->open->window ? cc->open->window : PART_WINDOW) / cc->part_count;

	part->state = PART_LOADING;
	cc->refs++;
	group_load(cc->service->journal,
		   &(struct group_load){.group = cc->group,
					.partition = part->index,
					.window = window ? window : 1,
					.not_before = part->claimed},
		   loop_mailbox(cc->loop->loop), part_on_loaded, part);
}

void part_init(struct consume_part *part, struct consume_call *cc, uint32_t index)
{
	*part = (struct consume_part){.magic = CONSUME_PART_MAGIC, .call = cc, .index = index};
	part->due = loop_timer_new(cc->loop->loop, part_on_due, part);
	part->write = loop_timer_new(cc->loop->loop, part_on_write_timer, part);
}

void part_release(struct consume_part *part)
{
	must(!part->hand);
	loop_timer_free(part->due);
	loop_timer_free(part->write);
	part->magic = 0;
}
