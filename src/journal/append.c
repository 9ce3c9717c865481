/* Building an append: all checks of form and limits, and the encoding, on the worker that asks. */
#include <config.h>

#include "journal/append.h"

#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/act.h"
#include "journal/internal.h"
#include "journal/session.h"

#define APPEND_MAGIC 0x61707064u
/* A guess of what a record needs besides data and names, to reserve at once. */
#define RECORD_OVERHEAD_BYTES 160
/* The same for an act, at most: tags, numbers, the type's name. */
#define ACT_OVERHEAD_BYTES ((size_t)256)

/* A set of 64-bit hashes with an index each, for finding what occurs twice in one append. */
struct seen {
	uint32_t *slots; /* index + 1 */
	size_t cap;
};

static bool seen_init(struct seen *s, size_t count)
{
	s->cap = 16;
	while (s->cap < count * 2)
		s->cap *= 2;
	s->slots = mem_try_alloc(s->cap * sizeof(*s->slots));
	if (s->slots)
		memset(s->slots, 0, s->cap * sizeof(*s->slots));
	return s->slots != NULL;
}

/* Steps through the slots where a hash may be: start with *at = hash. */
static uint32_t *seen_slot(const struct seen *s, uint64_t *at)
{
	return &s->slots[(*at)++ & (s->cap - 1)];
}

struct append_refusal *append_refuse(struct append *a, enum err_code code)
{
	must(code != ERR_OK);
	struct append_refusal *refusal = (struct append_refusal *)(uintptr_t)a->answer.refusal;
	if (!refusal)
		refusal = mem_xalloc(sizeof(*refusal));
	else
		*refusal = (struct append_refusal){0};
	a->answer.refusal = refusal;
	a->answer.code = code;
	a->writes = false;
	return refusal;
}

void append_reset(struct append *a)
{
	mem_free((void *)(uintptr_t)a->answer.refusal);
	a->answer = (struct append_answer){.stream_count = a->target_count};
	a->writes = false;
}

struct append *append_ref(struct append *a)
{
	must(a->magic == APPEND_MAGIC);
	unsigned before = atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed);
	must(before > 0);
	return a;
}

void append_unref(struct append *a)
{
	if (!a)
		return;
	must(a->magic == APPEND_MAGIC);
	if (atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel) > 1)
		return;
	a->magic = 0;
	if (a->act)
		a->act->ops->free(a->act);
	buf_release(&a->act_data);
	buf_release(&a->bytes);
	mem_free((void *)(uintptr_t)a->answer.refusal);
	mem_free(a);
}

size_t append_bytes(const struct append *a)
{
	return a->bytes.n;
}

const struct append_answer *append_answer(const struct append *a)
{
	must(a->state == APPEND_ANSWERED);
	return &a->answer;
}

struct span append_answer_stream(const struct append *a, size_t i, uint64_t *ret_sequence)
{
	must(a->state == APPEND_ANSWERED);
	must(a->answer.code == ERR_OK);
	must(i < a->target_count);
	*ret_sequence = a->targets[i].sequence;
	return a->targets[i].name;
}

/* ---- building -------------------------------------------------------------------------------- */

struct sizes {
	size_t items, targets, checks, fences, names, data;
};

static enum err_code refuse(struct append_refusal *refusal, enum err_code code, struct span stream)
{
	refusal->stream = stream;
	refusal->fence_found = NULL;
	refusal->has_sequence_found = false;
	refusal->sequence_found = 0;
	return code;
}

static enum err_code check_counts(const struct append_request *request, struct sizes *sizes, struct err *err)
{
	size_t data_max = LIMIT_APPEND_BYTES;
	if (request->stream_count == 0 && request->condition_count == 0 && request->fence_count == 0)
		return err_set(err, ERR_INVALID, "append is empty: it has neither streams nor conditions nor fences");
	for (size_t i = 0; i < request->stream_count; i++) {
		const struct append_stream *s = &request->streams[i];
		if (s->event_count > LIMIT_APPEND_RECORDS)
			sizes->items = LIMIT_APPEND_RECORDS + 1;
		else
			sizes->items += s->event_count + (s->snapshot ? 1 : 0);
		if (sizes->items > LIMIT_APPEND_RECORDS)
			return err_set(err, ERR_LIMIT, "append has more than %zu records: split it",
				       LIMIT_APPEND_RECORDS);
		sizes->names += s->name.n;
		for (size_t k = 0; k < s->event_count && sizes->data <= data_max; k++)
			sizes->data += s->events[k].data.n + s->name.n + RECORD_OVERHEAD_BYTES;
		if (s->snapshot)
			sizes->data += s->snapshot->data.n + s->name.n + RECORD_OVERHEAD_BYTES;
	}
	if (request->condition_count > LIMIT_APPEND_RECORDS)
		return err_set(err, ERR_LIMIT, "append has %zu conditions: at most %zu are allowed",
			       request->condition_count, LIMIT_APPEND_RECORDS);
	for (size_t i = 0; i < request->condition_count; i++)
		sizes->names += request->conditions[i].name.n;
	return ERR_OK;
}

/* Names longer than allowed are refused before this, so the sum is bounded by the counts. */
static struct append *append_alloc(const struct sizes *sizes, uint8_t **ret_names)
{
	size_t at_targets = sizeof(struct append) + sizes->items * sizeof(struct append_item);
	size_t at_checks = at_targets + sizes->targets * sizeof(struct append_target);
	size_t at_fences = at_checks + sizes->checks * sizeof(struct append_check);
	size_t at_names = at_fences + sizes->fences * sizeof(struct journal_fence);
	uint8_t *block = mem_try_alloc(at_names + sizes->names);
	if (!block)
		return NULL;
	struct append *a = (void *)block;
	*a = (struct append){.magic = APPEND_MAGIC, .memory_bytes = at_names + sizes->names};
	atomic_init(&a->refs, 1);
	a->items = (void *)(block + sizeof(struct append));
	a->targets = (void *)(block + at_targets);
	a->checks = (void *)(block + at_checks);
	a->fences = (void *)(block + at_fences);
	*ret_names = block + at_names;
	buf_init(&a->bytes, LIMIT_APPEND_BYTES + LIMIT_RECORD_BYTES);
	buf_init(&a->act_data, LIMIT_APPEND_BYTES);
	return a;
}

static struct span name_keep(uint8_t **names, struct span name)
{
	struct span kept = span_of(*names, name.n);
	if (name.n > 0)
		memcpy(*names, name.p, name.n);
	*names += name.n;
	return kept;
}

static enum err_code check_fences(const struct journal_fence *fences, size_t count, struct sizes *sizes,
				  struct err *err)
{
	if (count > LIMIT_APPEND_FENCES)
		return err_set(err, ERR_LIMIT, "append has %zu fences: at most %zu are allowed", count,
			       LIMIT_APPEND_FENCES);
	for (size_t i = 0; i < count; i++) {
		if (fences[i].by_session)
			continue;
		if (fences[i].slot >= LIMIT_SLOTS)
			return err_set(err, ERR_INVALID, "fence: slot is %u: they are below %d",
				       fences[i].slot, LIMIT_SLOTS);
		if (session_check_service(fences[i].service, err))
			return err_wrap(err, "fence");
		sizes->names += fences[i].service.n;
	}
	sizes->fences = count;
	return ERR_OK;
}

static void keep_fences(struct append *a, const struct journal_fence *fences, size_t count, uint8_t **names)
{
	for (size_t i = 0; i < count; i++) {
		a->fences[i] = fences[i];
		a->fences[i].service = (struct span){0};
		if (!fences[i].by_session)
			a->fences[i].service = name_keep(names, fences[i].service);
	}
	a->fence_count = count;
}

/* Streams that clients may not write: the journal's own. */
static enum err_code check_writable(struct span name, struct err *err)
{
	if (!record_stream_is_system(name) || span_starts(name, SPAN("$schema-")) ||
	    span_starts(name, SPAN("$topic-")) || span_starts(name, SPAN("$applied-")))
		return ERR_OK;
	return err_set(err, ERR_INVALID,
		       "names that begin with '$' are the journal's own, but for \"$schema-\", \"$topic-\" and "
		       "\"$applied-\"");
}

static enum err_code check_record(const struct append_record *r, struct err *err)
{
	if (r->id.n != 0 && r->id.n != RECORD_ID_BYTES)
		return err_set(err, ERR_INVALID, "id has %zu bytes: it has %d, or none", r->id.n,
			       RECORD_ID_BYTES);
	if (r->type.n == 0)
		return err_set(err, ERR_INVALID, "type is empty: every record has one");
	for (size_t i = 0; i < r->metadata_count; i++)
		if (span_starts(r->metadata[i].key, SPAN("$")))
			return err_set(err, ERR_INVALID,
				       "metadata key \"%.*s\" begins with '$': those are the server's",
				       SPAN_ARG(r->metadata[i].key));
	return ERR_OK;
}

struct building {
	const struct append_request *request;
	const uint64_t *seed;
	const struct clock *clock;
	struct append *a;
	size_t item_total;
};

static enum err_code add_record(struct building *b, const struct append_record *r, uint32_t kind,
				struct err *err)
{
	struct append *a = b->a;
	enum err_code code = check_record(r, err);
	if (code)
		return code;
	struct append_item *item = &a->items[a->item_count];
	*item = (struct append_item){.kind = kind, .target = (uint32_t)a->target_count};
	struct record_new n = {.kind = kind,
			       .stream = a->targets[a->target_count].name,
			       .type = r->type,
			       .content_type = r->content_type,
			       .actor = b->request->actor,
			       .data = r->data,
			       .metadata = r->metadata,
			       .metadata_count = r->metadata_count,
			       .last_of_append = a->item_count + 1 == b->item_total};
	item->id_made = r->id.n == 0;
	if (item->id_made)
		uuid_v7(b->clock, n.id);
	else
		memcpy(n.id, r->id.p, RECORD_ID_BYTES);
	memcpy(item->id, n.id, RECORD_ID_BYTES);
	item->id_hash = hash_bytes(b->seed, span_of(n.id, RECORD_ID_BYTES));
	code = record_check(&n, err);
	if (!code)
		code = record_encode(&a->bytes, &n, &item->place, err);
	if (code)
		return code;
	if (a->bytes.n > LIMIT_APPEND_BYTES)
		return err_set(err, ERR_LIMIT, "append exceeds %zu bytes: split it", LIMIT_APPEND_BYTES);
	a->item_count++;
	return ERR_OK;
}

static enum err_code add_stream(struct building *b, const struct append_stream *s, uint8_t **names,
				struct err *err)
{
	struct append *a = b->a;
	enum err_code code = record_check_stream(s->name, err);
	if (!code)
		code = check_writable(s->name, err);
	if (!code && s->event_count == 0 && !s->snapshot)
		code = err_set(err, ERR_INVALID,
			       "neither events nor a snapshot: what is not written is a condition");
	if (!code && s->expect > APPEND_EXACTLY)
		code = err_set(err, ERR_INVALID, "unknown expectation %d", (int)s->expect);
	if (code)
		return err_wrap(err, "stream \"%.*s\"", SPAN_ARG(s->name));
	struct append_target *t = &a->targets[a->target_count];
	*t = (struct append_target){.name = name_keep(names, s->name),
				    .hash = hash_bytes(b->seed, s->name),
				    .expect = s->expect,
				    .expect_sequence = s->sequence,
				    .first = a->item_count};
	for (size_t i = 0; i < s->event_count; i++) {
		code = add_record(b, &s->events[i], RECORD_EVENT, err);
		if (code)
			return err_wrap(err, "stream \"%.*s\": event %zu", SPAN_ARG(s->name), i);
	}
	if (s->snapshot) {
		code = add_record(b, s->snapshot, RECORD_SNAPSHOT, err);
		if (code)
			return err_wrap(err, "stream \"%.*s\": snapshot", SPAN_ARG(s->name));
	}
	t->count = a->item_count - t->first;
	a->target_count++;
	return ERR_OK;
}

static enum err_code add_condition(struct building *b, const struct append_condition *c, uint8_t **names,
				   struct err *err)
{
	struct append *a = b->a;
	enum err_code code = record_check_stream(c->name, err);
	if (!code && c->expect > APPEND_EXACTLY)
		code = err_set(err, ERR_INVALID, "unknown expectation %d", (int)c->expect);
	if (code)
		return err_wrap(err, "condition on stream \"%.*s\"", SPAN_ARG(c->name));
	a->checks[a->check_count++] = (struct append_check){.name = name_keep(names, c->name),
							    .hash = hash_bytes(b->seed, c->name),
							    .expect = c->expect,
							    .expect_sequence = c->sequence};
	return ERR_OK;
}

/* The target with this name, or NULL; *slot is where it is or belongs. */
static struct append_target *target_seen(const struct append *a, const struct seen *seen, uint64_t hash,
					 struct span name, uint32_t **slot)
{
	for (uint64_t at = hash; *(*slot = seen_slot(seen, &at)) != 0;) {
		struct append_target *t = &a->targets[**slot - 1];
		if (t->hash == hash && span_eq(t->name, name))
			return t;
	}
	return NULL;
}

static enum err_code check_names(const struct append *a, struct span *ret_stream, struct err *err)
{
	struct seen seen;
	enum err_code code = ERR_OK;
	uint32_t *slot;
	if (a->target_count + a->check_count < 2)
		return ERR_OK;
	if (!seen_init(&seen, a->target_count))
		return err_set(err, ERR_NOMEM, "no memory to check an append of %zu streams",
			       a->target_count);
	for (size_t i = 0; i < a->target_count && !code; i++) {
		*ret_stream = a->targets[i].name;
		if (target_seen(a, &seen, a->targets[i].hash, a->targets[i].name, &slot))
			code = err_set(err, ERR_INVALID,
				       "stream \"%.*s\" occurs twice: put its events into one",
				       SPAN_ARG(a->targets[i].name));
		else
			*slot = (uint32_t)i + 1;
	}
	for (size_t i = 0; i < a->check_count && !code; i++) {
		*ret_stream = a->checks[i].name;
		if (target_seen(a, &seen, a->checks[i].hash, a->checks[i].name, &slot))
			code = err_set(
				err, ERR_INVALID,
				"condition on stream \"%.*s\", which is written: it is its expectation",
				SPAN_ARG(a->checks[i].name));
	}
	mem_free(seen.slots);
	return code;
}

static enum err_code check_ids(const struct append *a, struct span *ret_stream, struct err *err)
{
	struct seen seen;
	enum err_code code = ERR_OK;
	if (a->item_count < 2)
		return ERR_OK;
	if (!seen_init(&seen, a->item_count))
		return err_set(err, ERR_NOMEM, "no memory to check an append of %zu records", a->item_count);
	for (size_t i = 0; i < a->item_count && !code; i++) {
		const struct append_item *item = &a->items[i];
		uint32_t *slot;
		for (uint64_t at = item->id_hash; *(slot = seen_slot(&seen, &at)) != 0;) {
			if (memcmp(a->items[*slot - 1].id, item->id, RECORD_ID_BYTES) != 0)
				continue;
			char text[UUID_TEXT_BYTES];
			uuid_format(item->id, text);
			*ret_stream = a->targets[item->target].name;
			code = err_set(err, ERR_INVALID, "id %s is used twice in one append", text);
			break;
		}
		*slot = (uint32_t)i + 1;
	}
	mem_free(seen.slots);
	return code;
}

/* The caller's own bytes of a name, for a refusal that outlives the append. */
static struct span name_of_request(const struct append_request *request, struct span name)
{
	for (size_t i = 0; i < request->stream_count; i++)
		if (span_eq(request->streams[i].name, name))
			return request->streams[i].name;
	for (size_t i = 0; i < request->condition_count; i++)
		if (span_eq(request->conditions[i].name, name))
			return request->conditions[i].name;
	return (struct span){0};
}

static enum err_code build_all(struct building *b, uint8_t *names, struct span *ret_stream, struct err *err)
{
	const struct append_request *request = b->request;
	enum err_code code = ERR_OK;
	for (size_t i = 0; i < request->stream_count && !code; i++) {
		*ret_stream = request->streams[i].name;
		code = add_stream(b, &request->streams[i], &names, err);
	}
	for (size_t i = 0; i < request->condition_count && !code; i++) {
		*ret_stream = request->conditions[i].name;
		code = add_condition(b, &request->conditions[i], &names, err);
	}
	if (code)
		return code;
	*ret_stream = (struct span){0};
	code = check_names(b->a, ret_stream, err);
	return code ? code : check_ids(b->a, ret_stream, err);
}

enum err_code append_build(const struct append_request *request, const uint64_t seed[2],
			   const struct clock *clock, struct append **ret, struct append_refusal *ret_refusal)
{
	must(request);
	must(ret);
	must(ret_refusal);
	struct sizes sizes = {0};
	struct err *err = &ret_refusal->err;
	err_clear(err);
	enum err_code code = check_counts(request, &sizes, err);
	if (!code)
		code = check_fences(request->fences, request->fence_count, &sizes, err);
	if (code)
		return refuse(ret_refusal, code, (struct span){0});
	sizes.targets = request->stream_count;
	sizes.checks = request->condition_count;
	uint8_t *names;
	struct append *a = append_alloc(&sizes, &names);
	if (!a ||
	    (sizes.data &&
	     buf_reserve(&a->bytes, sizes.data < LIMIT_APPEND_BYTES ? sizes.data : LIMIT_APPEND_BYTES))) {
		append_unref(a);
		code = err_set(err, ERR_NOMEM, "no memory for an append of %zu records", sizes.items);
		return refuse(ret_refusal, code, (struct span){0});
	}
	struct building b = {
		.request = request, .seed = seed, .clock = clock, .a = a, .item_total = sizes.items};
	struct span stream = {0};
	keep_fences(a, request->fences, request->fence_count, &names);
	code = build_all(&b, names, &stream, err);
	if (code) {
		stream = name_of_request(request, stream);
		append_unref(a);
		return refuse(ret_refusal, code, stream);
	}
	/* What it holds while it waits: not its records alone, for one of conditions has none. */
	a->queue_bytes = a->memory_bytes + a->bytes.n;
	a->batch_bytes = a->bytes.n;
	a->memory_bytes += a->bytes.cap_bytes;
	a->answer.stream_count = a->target_count;
	*ret = a;
	return ERR_OK;
}

enum err_code append_new(const struct journal *j, const struct append_request *request, struct append **ret,
			 struct append_refusal *ret_refusal)
{
	return append_build(request, j->seed, j->clock, ret, ret_refusal);
}

/* ---- acts ------------------------------------------------------------------------------------ */

static enum err_code build_act(struct append *a, const struct act_request *request, const uint64_t seed[2],
			       const struct clock *clock, uint8_t *names, struct err *err)
{
	a->actor = name_keep(&names, request->actor);
	keep_fences(a, request->fences, request->fence_count, &names);
	for (size_t i = 0; i < request->record_count; i++) {
		const struct act_record *r = &request->records[i];
		must(act_kind_find(r->kind));
		must(r->id.n == 0 || r->id.n == RECORD_ID_BYTES);
		enum err_code code = record_check_stream(r->stream, err);
		if (code)
			return code;
		struct append_target *t = &a->targets[a->target_count++];
		*t = (struct append_target){.name = name_keep(&names, r->stream),
					    .hash = hash_bytes(seed, r->stream),
					    .first = i,
					    .count = 1};
		struct append_item *item = &a->items[a->item_count++];
		*item = (struct append_item){.kind = r->kind, .target = (uint32_t)i, .id_made = r->id.n == 0};
		if (item->id_made)
			uuid_v7(clock, item->id);
		else
			memcpy(item->id, r->id.p, RECORD_ID_BYTES);
		item->id_hash = hash_bytes(seed, span_of(item->id, RECORD_ID_BYTES));
	}
	struct span stream;
	return check_names(a, &stream, err);
}

enum err_code act_append_build(const struct act_request *request, const uint64_t seed[2],
			       const struct clock *clock, struct append **ret,
			       struct append_refusal *ret_refusal)
{
	struct sizes sizes = {.items = request->record_count,
			      .targets = request->record_count,
			      .names = request->actor.n};
	struct err *err = &ret_refusal->err;
	err_clear(err);
	for (size_t i = 0; i < request->record_count; i++)
		sizes.names += request->records[i].stream.n;
	uint8_t *names;
	struct append *a = NULL;
	enum err_code code = ERR_OK;
	if (request->record_count > LIMIT_APPEND_RECORDS)
		code = err_set(err, ERR_LIMIT, "it touches more than %zu streams", LIMIT_APPEND_RECORDS);
	if (!code)
		code = check_fences(request->fences, request->fence_count, &sizes, err);
	if (!code && !(a = append_alloc(&sizes, &names)))
		code = err_set(err, ERR_NOMEM, "no memory for an act of %zu records", sizes.items);
	if (a)
		a->act = request->act;
	else
		request->act->ops->free(request->act);
	if (!code)
		code = build_act(a, request, seed, clock, names, err);
	if (code) {
		append_unref(a);
		return refuse(ret_refusal, code, (struct span){0});
	}
	a->act_data_max = request->data_max;
	a->batch_bytes = sizes.names + sizes.items * (request->data_max + request->actor.n + ACT_OVERHEAD_BYTES);
	a->queue_bytes = a->memory_bytes + a->batch_bytes;
	a->memory_bytes = a->queue_bytes + sizes.items * request->data_max;
	a->answer.stream_count = a->target_count;
	*ret = a;
	return ERR_OK;
}
