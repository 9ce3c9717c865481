/* Decide: see decide.h. */
#include <config.h>

#include "journal/decide.h"

#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"
#include "journal/act.h"
#include "journal/grant.h"

void decide_init(struct decide *d)
{
	*d = (struct decide){0};
}

void decide_release(struct decide *d)
{
	mem_free(d->streams);
	mem_free(d->ids);
	mem_free(d->owners);
	mem_free((void *)d->act_streams);
	mem_free(d->stream_table.slots);
	mem_free(d->id_table.slots);
	*d = (struct decide){0};
}

/* ---- the keys of a batch --------------------------------------------------------------------- */

void decide_begin(struct decide *d)
{
	d->stream_count = d->id_count = 0;
	if (++d->batch == 0) { /* after 2^32 batches: old marks could be taken for this one's */
		mem_free(d->stream_table.slots);
		mem_free(d->id_table.slots);
		d->stream_table = d->id_table = (struct decide_table){0};
		d->batch = 1;
	}
}

/* At most half full, counting one more. */
static void table_room(struct decide *d, struct decide_table *t, size_t count)
{
	if ((count + 1) * 2 <= t->cap)
		return;
	struct decide_table old = *t;
	t->cap = old.cap ? old.cap * 2 : 1024;
	t->slots = mem_xalloc(t->cap * sizeof(*t->slots));
	for (size_t i = 0; i < old.cap; i++) {
		if (old.slots[i].batch != d->batch)
			continue;
		size_t at = old.slots[i].hash & (t->cap - 1);
		while (t->slots[at].batch == d->batch)
			at = (at + 1) & (t->cap - 1);
		t->slots[at] = old.slots[i];
	}
	mem_free(old.slots);
}

static uint32_t stream_key(struct decide *d, uint64_t hash, struct span name)
{
	struct decide_table *t = &d->stream_table;
	table_room(d, t, d->stream_count);
	size_t at = hash & (t->cap - 1);
	for (; t->slots[at].batch == d->batch; at = (at + 1) & (t->cap - 1))
		if (t->slots[at].hash == hash && span_eq(d->streams[t->slots[at].index].name, name))
			return t->slots[at].index;
	if (d->stream_count == d->stream_cap) {
		d->stream_cap = d->stream_cap ? d->stream_cap * 2 : 256;
		d->streams = mem_xrealloc(d->streams, d->stream_cap * sizeof(*d->streams));
	}
	uint32_t index = (uint32_t)d->stream_count++;
	d->streams[index] = (struct storage_stream_fact){.name = name};
	t->slots[at] = (struct decide_slot){.batch = d->batch, .index = index, .hash = hash};
	return index;
}

static uint32_t id_key(struct decide *d, uint64_t hash, const uint8_t *id)
{
	struct decide_table *t = &d->id_table;
	table_room(d, t, d->id_count);
	size_t at = hash & (t->cap - 1);
	for (; t->slots[at].batch == d->batch; at = (at + 1) & (t->cap - 1))
		if (t->slots[at].hash == hash &&
		    memcmp(d->ids[t->slots[at].index].id, id, RECORD_ID_BYTES) == 0)
			return t->slots[at].index;
	if (d->id_count == d->id_cap) {
		d->id_cap = d->id_cap ? d->id_cap * 2 : 256;
		d->ids = mem_xrealloc(d->ids, d->id_cap * sizeof(*d->ids));
		d->owners = mem_xrealloc(d->owners, d->id_cap * sizeof(*d->owners));
	}
	uint32_t index = (uint32_t)d->id_count++;
	d->ids[index] = (struct storage_id_fact){0};
	memcpy(d->ids[index].id, id, RECORD_ID_BYTES);
	t->slots[at] = (struct decide_slot){.batch = d->batch, .index = index, .hash = hash};
	return index;
}

void decide_add(struct decide *d, struct append *a)
{
	for (size_t i = 0; i < a->target_count; i++)
		a->targets[i].stream_key = stream_key(d, a->targets[i].hash, a->targets[i].name);
	for (size_t i = 0; i < a->check_count; i++)
		a->checks[i].stream_key = stream_key(d, a->checks[i].hash, a->checks[i].name);
	for (size_t i = 0; i < a->item_count; i++)
		if (!a->items[i].id_made)
			a->items[i].id_key = id_key(d, a->items[i].id_hash, a->items[i].id);
	a->repeats_whole = true; /* unless the sequencer finds that it is not so */
}

/* ---- idempotency ----------------------------------------------------------------------------- */

bool decide_asks_before(const struct decide *d, const struct append *a, uint64_t *ret_position)
{
	if (a->item_count == 0 || a->items[0].id_made)
		return false;
	const struct storage_id_fact *first = &d->ids[a->items[0].id_key];
	if (!first->exists || first->position == 0)
		return false;
	*ret_position = first->position;
	return true;
}

/* Is the i-th record in the log where it would be if the append were there as a whole? */
static bool item_is_there(const struct decide *d, const struct append *a, size_t i, uint64_t first_position)
{
	const struct append_item *item = &a->items[i];
	const struct storage_id_fact *fact = &d->ids[item->id_key];
	return !item->id_made && fact->exists && fact->position == first_position + i &&
	       fact->kind == item->kind && span_eq(fact->stream, a->targets[item->target].name) &&
	       fact->last_of_append == (i + 1 == a->item_count);
}

static bool repeats_log(const struct decide *d, struct append *a)
{
	if (a->items[0].id_made || !a->repeats_whole)
		return false;
	uint64_t first = d->ids[a->items[0].id_key].position;
	for (size_t i = 0; i < a->item_count; i++)
		if (!item_is_there(d, a, i, first))
			return false;
	for (size_t i = 0; i < a->target_count; i++) {
		const struct append_target *t = &a->targets[i];
		a->targets[i].sequence = d->ids[a->items[t->first + t->count - 1].id_key].sequence;
	}
	a->answer.first_position = first;
	a->answer.commit_time = d->ids[a->items[0].id_key].commit_time;
	return true;
}

/* The same for an append that this batch has accepted already. */
static bool repeats_batch(const struct decide *d, struct append *a)
{
	const struct append *first = a->items[0].id_made ? NULL : d->owners[a->items[0].id_key].append;
	if (!first || first->item_count != a->item_count || first->target_count != a->target_count)
		return false;
	for (size_t i = 0; i < a->item_count; i++) {
		const struct append_item *item = &a->items[i];
		if (item->id_made)
			return false;
		struct decide_owner owner = d->owners[item->id_key];
		if (owner.append != first || owner.item != i || first->items[i].kind != item->kind ||
		    first->targets[first->items[i].target].stream_key != a->targets[item->target].stream_key)
			return false;
	}
	for (size_t i = 0; i < a->target_count; i++)
		a->targets[i].sequence = first->targets[i].sequence;
	a->answer.first_position = first->answer.first_position;
	a->answer.commit_time = first->answer.commit_time;
	return true;
}

static void refuse_partial(struct append *a, const struct append_item *item,
			   const struct storage_id_fact *fact)
{
	char id[UUID_TEXT_BYTES];
	uuid_format(item->id, id);
	struct append_refusal *r = append_refuse(a, ERR_EXISTS);
	r->stream = a->targets[item->target].name;
	if (fact->exists)
		err_set(&r->err, ERR_EXISTS,
			"record %s is in the log already, at position %llu, stream \"%.*s\", but not as this "
			"whole append: a repeat has the same streams, ids and order",
			id, (unsigned long long)fact->position, SPAN_ARG(fact->stream));
	else
		err_set(&r->err, ERR_EXISTS,
			"record %s has just been appended, but not as this whole append: a repeat has the "
			"same streams, ids and order",
			id);
}

/* True if that settles the append: a repeat, whole or in part. */
static bool check_repeat(const struct decide *d, struct append *a)
{
	const struct append_item *match = NULL;
	for (size_t i = 0; i < a->item_count && !match; i++) {
		const struct append_item *item = &a->items[i];
		if (!item->id_made && (d->ids[item->id_key].exists || d->owners[item->id_key].append))
			match = item;
	}
	if (!match || plant("idempotency-forgotten"))
		return false;
	if (repeats_log(d, a) || repeats_batch(d, a)) {
		a->answer.repeated = true;
		a->answer.record_count = a->item_count;
		a->answer.cursor_position = a->answer.first_position + a->item_count;
	} else {
		refuse_partial(a, match, &d->ids[match->id_key]);
	}
	return true;
}

/* ---- conditions and expectations ------------------------------------------------------------- */

static const char *holds(enum append_expect expect, uint64_t sequence, const struct storage_stream_fact *fact)
{
	switch (expect) {
	case APPEND_ANY: return NULL;
	case APPEND_NONE: return fact->live_records == 0 ? NULL : "was expected to have no records";
	case APPEND_EXISTS: return fact->live_records > 0 ? NULL : "was expected to have records";
	case APPEND_EXACTLY:
		return fact->sequence == sequence ? NULL : "was expected to be at sequence";
	default: unreachable_state("append_expect");
	}
}

/* True if it was refused. */
static bool refuse_unless(struct append *a, const char *what, struct span stream, enum append_expect expect,
			  uint64_t sequence, const struct storage_stream_fact *fact)
{
	const char *why = holds(expect, sequence, fact);
	if (!why)
		return false;
	struct append_refusal *r = append_refuse(a, ERR_CONFLICT);
	r->stream = stream;
	r->has_sequence_found = true;
	r->sequence_found = fact->sequence;
	if (expect == APPEND_EXACTLY)
		err_set(&r->err, ERR_CONFLICT, "%s: stream \"%.*s\" %s %llu, and is at %llu: read it again",
			what, SPAN_ARG(stream), why, (unsigned long long)sequence,
			(unsigned long long)fact->sequence);
	else
		err_set(&r->err, ERR_CONFLICT,
			"%s: stream \"%.*s\" %s (it has %llu, and is at sequence %llu)", what,
			SPAN_ARG(stream), why, (unsigned long long)fact->live_records,
			(unsigned long long)fact->sequence);
	return true;
}

static bool check_expectations(const struct decide *d, struct append *a)
{
	for (size_t i = 0; i < a->check_count; i++) {
		const struct append_check *c = &a->checks[i];
		if (refuse_unless(a, "condition", c->name, c->expect, c->expect_sequence,
				  &d->streams[c->stream_key]))
			return false;
	}
	for (size_t i = 0; i < a->target_count; i++) {
		const struct append_target *t = &a->targets[i];
		if (refuse_unless(a, "expectation", t->name, t->expect, t->expect_sequence,
				  &d->streams[t->stream_key]))
			return false;
	}
	return true;
}

/* ---- deciding -------------------------------------------------------------------------------- */

static enum act_verdict check_act(struct decide *d, struct append *a)
{
	must(d->ledger);
	if (a->item_count > d->act_stream_cap) {
		d->act_stream_cap = a->item_count;
		d->act_streams = mem_xrealloc((void *)d->act_streams,
					      d->act_stream_cap * sizeof(struct storage_stream_fact *));
	}
	for (size_t i = 0; i < a->item_count; i++)
		d->act_streams[i] = &d->streams[a->targets[a->items[i].target].stream_key];
	enum act_verdict verdict =
		act_decide(a, &(struct act_facts){.ledger = d->ledger, .streams = d->act_streams});
	must((verdict == ACT_REFUSED) == (a->answer.code != ERR_OK));
	return verdict;
}

/* What an act writes is a fact for those after it. */
static void tell_ledger(struct decide *d, struct append *a, uint64_t position)
{
	act_encode_data(a);
	for (size_t i = 0; i < a->item_count; i++) {
		const struct append_item *item = &a->items[i];
		const struct append_target *t = &a->targets[item->target];
		const struct act_kind *kind = act_kind_find(item->kind);
		if (kind && kind->touch)
			kind->touch(&d->streams[t->stream_key]);
		ledger_apply(d->ledger, &(struct ledger_record){.kind = item->kind,
								.position = position + i,
								.stream = t->name,
								.data = act_item_data(a, item),
								.id = item->id});
	}
}

/* The append is granted: numbers its records, and makes that a fact for those after it. */
static void grant(struct decide *d, struct append *a, uint64_t position, struct wall_time commit_time)
{
	for (size_t k = 0; k < a->target_count; k++) {
		struct append_target *t = &a->targets[k];
		struct storage_stream_fact *fact = &d->streams[t->stream_key];
		for (size_t i = t->first; i < t->first + t->count; i++) {
			if (record_kind_takes_sequence(a->items[i].kind))
				fact->sequence++;
			a->items[i].sequence = fact->sequence;
			if (!a->items[i].id_made)
				d->owners[a->items[i].id_key] = (struct decide_owner){a, i};
		}
		if (plant("two-events-swapped") && t->count > 1) {
			uint64_t first = a->items[t->first].sequence;
			a->items[t->first].sequence = a->items[t->first + 1].sequence;
			a->items[t->first + 1].sequence = first;
		}
		fact->exists = true;
		fact->live_records += t->count;
		t->sequence = fact->sequence;
	}
	a->writes = a->item_count > 0;
	if (a->writes && a->act)
		tell_ledger(d, a, position);
	a->answer.first_position = position;
	a->answer.record_count = a->item_count;
	a->answer.commit_time = a->writes ? commit_time : (struct wall_time){0};
	a->answer.cursor_position = position + a->item_count;
}

void decide_run(struct decide *d, uint64_t head, struct wall_time now, struct wall_time last_commit,
		struct append **appends, size_t count, struct decide_outcome *ret)
{
	struct decide_outcome outcome = {.commit_time = now.us > last_commit.us ? now : last_commit};
	for (size_t i = 0; i < d->id_count; i++)
		d->owners[i] = (struct decide_owner){0};
	for (size_t i = 0; i < count; i++) {
		struct append *a = appends[i];
		append_reset(a);
		if (check_repeat(d, a))
			continue;
		if (a->fence_count > 0 && !fences_hold(d->ledger, a))
			continue;
		if (!check_expectations(d, a))
			continue;
		enum act_verdict verdict = a->act ? check_act(d, a) : ACT_WRITES;
		if (verdict == ACT_HOLDS)
			a->answer.cursor_position = head + outcome.records;
		if (verdict != ACT_WRITES)
			continue;
		grant(d, a, head + outcome.records, outcome.commit_time);
		if (a->writes)
			outcome.records += a->item_count;
	}
	*ret = outcome;
}
