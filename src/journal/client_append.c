/* Appends of the client: one AppendStream, repetition by id, deadlines.
 *
 *	client_append() ─▶ unsent ──pump──▶ sent ──answer──▶ done
 *	                     ▲                │
 *	                     └── stream broke, or UNAVAILABLE: after a pause ◀┘
 *	deadline or end: failed ─▶ done, from a timer
 *
 * The stream is opened only on a connection that is ready, so what is unsent has certainly not
 * happened. Pauses double from 20 ms to 1 s and start anew with every answer. */
#include <config.h>

#include "journal/client_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"

#define RETRY_MIN_MS 20
#define RETRY_MAX_MS 1000

struct append {
	struct list_node node;
	uint64_t number;
	uint8_t *bytes; /* the request, the same at every attempt */
	size_t n;
	size_t stream_count;
	struct mono_time deadline;
	bool maybe_sent;      /* on an earlier stream */
	enum grpc_code code;  /* failed: how; otherwise of the last attempt, with text */
	char *text;
	client_append_fn *done;
	void *arg;
};

static void appends_kick(struct client *c);

/* ---- the ring ----------------------------------------------------------------------------------- */

static void ring_put(struct append_ring *ring, struct append *a)
{
	while (!ring->cap || ring->slots[a->number & (ring->cap - 1)]) {
		size_t cap = ring->cap ? ring->cap * 2 : 64;
		struct append **slots = mem_xalloc(cap * sizeof(struct append *));

		for (size_t i = 0; i < ring->cap; i++)
			if (ring->slots[i])
				slots[ring->slots[i]->number & (cap - 1)] = ring->slots[i];
		mem_free(ring->slots);
		ring->slots = slots;
		ring->cap = cap;
	}
	ring->slots[a->number & (ring->cap - 1)] = a;
}

static struct append *ring_get(const struct append_ring *ring, uint64_t number)
{
	struct append *a = ring->cap ? ring->slots[number & (ring->cap - 1)] : NULL;

	return a && a->number == number ? a : NULL;
}

static void ring_remove(struct append_ring *ring, const struct append *a)
{
	must(ring_get(ring, a->number) == a);
	ring->slots[a->number & (ring->cap - 1)] = NULL;
}

/* ---- ends --------------------------------------------------------------------------------------- */

static void append_free(struct append *a)
{
	mem_free(a->bytes);
	mem_free(a->text);
	mem_free(a);
}

static void append_note(struct append *a, enum grpc_code code, struct span text)
{
	a->code = code;
	mem_free(a->text);
	a->text = mem_xprintf("%.*s", SPAN_ARG(text));
}

/* Takes it off wherever it waits for an answer. */
static void append_unlink(struct client *c, struct append *a)
{
	list_remove(&a->node);
	ring_remove(&c->ring, a);
	c->open_count--;
}

static void append_fail(struct client *c, struct append *a)
{
	bool unreachable = client_state(c) != GRPC_CHANNEL_READY;
	struct client_error error = {
		.code = a->code,
		.text = span_str(a->text),
		.unknown = a->maybe_sent,
		.unreachable = unreachable,
	};

	a->done(NULL, &error, a->arg);
	append_free(a);
}

static void appends_on_failing(void *arg)
{
	struct client *c = OBJ_CAST(struct client, arg, CLIENT_MAGIC);
	struct list_node *node;

	while ((node = list_pop_front(&c->failed)))
		append_fail(c, CONTAINER_OF(node, struct append, node));
}

/* ---- deadlines ---------------------------------------------------------------------------------- */

static void deadline_watch(struct client *c, struct mono_time deadline)
{
	int64_t left_us;

	if (deadline.us >= c->deadline_us)
		return;
	c->deadline_us = deadline.us;
	left_us = mono_since_us(deadline, clock_mono(&clock_system));
	loop_timer_set(c->deadline, left_us > 0 ? (left_us + 999) / 1000 : 0);
}

static void append_expire(struct client *c, struct append *a, bool sent)
{
	char *why = a->text ? mem_xprintf("; the last attempt: %s", a->text)
			    : mem_xprintf("%s%s", c->trouble ? ": " : "", c->trouble ? c->trouble : "");
	char *text;

	a->maybe_sent |= sent;
	text = mem_xprintf("the journal at %s has not answered in time%s%s", c->target,
			   a->maybe_sent ? " (the outcome is unknown: it may have happened)"
					 : " (it has not happened)", why);
	append_note(a, GRPC_DEADLINE_EXCEEDED, span_str(text));
	mem_free(text);
	mem_free(why);
	append_unlink(c, a);
	list_push_back(&c->failed, &a->node);
}

static void deadlines_scan(struct client *c, struct list *from, bool sent, struct mono_time now,
			   int64_t *next_us)
{
	struct list_node *node = list_first(from);

	while (node) {
		struct append *a = CONTAINER_OF(node, struct append, node);

		node = list_next(from, node);
		if (a->deadline.us <= now.us)
			append_expire(c, a, sent);
		else if (a->deadline.us < *next_us)
			*next_us = a->deadline.us;
	}
}

static void appends_on_deadline(void *arg)
{
	struct client *c = OBJ_CAST(struct client, arg, CLIENT_MAGIC);
	struct mono_time now = clock_mono(&clock_system);
	int64_t next_us = INT64_MAX;

	deadlines_scan(c, &c->sent, true, now, &next_us);
	deadlines_scan(c, &c->unsent, false, now, &next_us);
	c->deadline_us = INT64_MAX;
	if (next_us != INT64_MAX)
		deadline_watch(c, (struct mono_time){next_us});
	appends_on_failing(c);
}

/* ---- answers ------------------------------------------------------------------------------------ */

static void pause_then_kick(struct client *c)
{
	if (c->pausing)
		return;
	c->pausing = true;
	loop_timer_set(c->retry, c->retry_ms);
	c->retry_ms = c->retry_ms * 2 > RETRY_MAX_MS ? RETRY_MAX_MS : c->retry_ms * 2;
}

static void fence_found(const PB(Fence) *pb, struct client_error *error)
{
	struct client_fence *f = &error->fence_found;

	error->has_fence_found = true;
	*f = (struct client_fence){
		.service = pb_span(pb->service), .slot = pb->slot, .epoch = pb->epoch};
	f->by_session = pb->service.len == 0;
	if (pb->session.len == sizeof(f->session))
		memcpy(f->session, pb->session.data, sizeof(f->session));
}

static void append_refused(struct client *c, struct append *a, const PB(Refusal) *refusal)
{
	struct client_error error = {
		.code = (enum grpc_code)refusal->code,
		.text = pb_span(refusal->text),
		.stream = pb_span(refusal->stream),
		.has_sequence_found = refusal->has_sequence_found_case != 0,
	};

	if (error.code == GRPC_UNAVAILABLE) {
		a->maybe_sent = true;
		append_note(a, error.code, error.text);
		list_remove(&a->node);
		list_push_back(&c->unsent, &a->node);
		pause_then_kick(c);
		return;
	}
	if (error.has_sequence_found)
		error.sequence_found = refusal->sequence_found;
	if (refusal->fence_found)
		fence_found(refusal->fence_found, &error);
	append_unlink(c, a);
	a->done(NULL, &error, a->arg);
	append_free(a);
}

static bool append_answered(struct client *c, struct append *a, const PB(AppendResponse) *pb,
			    struct arena *arena)
{
	static const struct client_error ok = {.code = GRPC_OK};
	uint64_t *sequences;
	struct client_appended answer = {
		.stream_count = pb->n_streams,
		.first_position = pb->first_position,
		.record_count = pb->count,
		.commit_time = {(int64_t)pb->commit_time_us},
		.repeated = pb->repeated,
	};

	if (pb->n_streams != a->stream_count)
		return false;
	sequences = client_zalloc(arena, (pb->n_streams + 1) * sizeof(*sequences));
	for (size_t i = 0; i < pb->n_streams; i++)
		sequences[i] = pb->streams[i]->sequence;
	answer.sequences = sequences;
	client_unpack_cursor(pb->cursor, &answer.cursor);
	append_unlink(c, a);
	a->done(&answer, &ok, a->arg);
	append_free(a);
	return true;
}

static void stream_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct client *c = OBJ_CAST(struct client, user, CLIENT_MAGIC);
	PB(AppendResponse) *pb;
	struct append *a;
	struct arena arena;
	bool ok;

	arena_init(&arena, 8 * LIMIT_GRPC_MESSAGE_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(append_response), &arena, message);
	ok = pb != NULL;
	if (ok) {
		a = ring_get(&c->ring, pb->request);
		c->retry_ms = pb->refusal && pb->refusal->code == GRPC_UNAVAILABLE ? c->retry_ms
										    : RETRY_MIN_MS;
		if (!a)
			ok = true; /* it has expired meanwhile */
		else if (pb->refusal)
			append_refused(c, a, pb->refusal);
		else
			ok = append_answered(c, a, pb, &arena);
	}
	arena_release(&arena);
	if (!ok)
		grpc_call_cancel(call); /* malformed: as a broken stream */
}

/* ---- the stream --------------------------------------------------------------------------------- */

static void appends_pump(struct client *c)
{
	struct list_node *node;

	while (c->stream && grpc_call_writable(c->stream) && (node = list_pop_front(&c->unsent))) {
		struct append *a = CONTAINER_OF(node, struct append, node);

		list_push_back(&c->sent, node);
		grpc_call_send(c->stream, span_of(a->bytes, a->n));
	}
}

static void stream_on_writable(struct grpc_call *call, void *user)
{
	(void)call;
	appends_pump(OBJ_CAST(struct client, user, CLIENT_MAGIC));
}

static void stream_rejected(struct client *c, const struct grpc_result *result)
{
	struct list_node *node;

	while ((node = list_first(&c->sent))) {
		struct append *a = CONTAINER_OF(node, struct append, node);

		append_note(a, result->code, result->message);
		append_unlink(c, a);
		list_push_back(&c->failed, &a->node);
	}
	if (!c->closing)
		loop_timer_set(c->failing, 0);
}

static void stream_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct client *c = OBJ_CAST(struct client, user, CLIENT_MAGIC);
	struct list_node *node;

	must(call == c->stream);
	c->stream = NULL;
	if (result->code == GRPC_UNIMPLEMENTED || result->code == GRPC_PERMISSION_DENIED ||
	    result->code == GRPC_UNAUTHENTICATED) {
		stream_rejected(c, result); /* trying again would change nothing */
		return;
	}
	/* What was under way goes before what is unsent, in the order it had. */
	while ((node = c->sent.head.prev) != &c->sent.head) {
		struct append *a = CONTAINER_OF(node, struct append, node);

		a->maybe_sent |= !result->not_sent;
		append_note(a, result->code, result->message);
		list_remove(node);
		list_push_front(&c->unsent, node);
	}
	if (!c->closing && c->open_count)
		pause_then_kick(c);
}

static const struct grpc_call_ops stream_ops = {
	.on_message = stream_on_message,
	.on_writable = stream_on_writable,
	.on_done = stream_on_done,
};

static void appends_kick(struct client *c)
{
	static const struct headers none = {0};

	if (c->closing || c->pausing || list_empty(&c->unsent))
		return;
	if (!c->stream) {
		if (client_state(c) != GRPC_CHANNEL_READY) {
			grpc_channel_connect(c->channel); /* client_appends_on_ready() goes on */
			return;
		}
		c->stream = grpc_channel_call(c->channel, JOURNAL_METHOD("AppendStream"), &none, -1, false,
					      &stream_ops, c);
	}
	appends_pump(c);
}

static void appends_on_retry(void *arg)
{
	struct client *c = OBJ_CAST(struct client, arg, CLIENT_MAGIC);

	c->pausing = false;
	appends_kick(c);
}

void client_appends_on_ready(struct client *c)
{
	if (c->pausing) {
		c->pausing = false;
		loop_timer_cancel(c->retry);
	}
	appends_kick(c);
}

/* ---- requests ----------------------------------------------------------------------------------- */

static PB(Expectation) *pack_expectation(struct arena *a, enum client_expect expect, uint64_t sequence)
{
	PB(Expectation) *pb;

	if (expect == CLIENT_ANY)
		return NULL;
	_Static_assert((int)CLIENT_EXACTLY == (int)CAIRN__JOURNAL__V1__EXPECTATION__KIND__EXACTLY,
		       "the two enums are the same");
	pb = client_zalloc(a, sizeof(*pb));
	cairn__journal__v1__expectation__init(pb);
	pb->kind = (PB(Expectation__Kind))expect;
	pb->sequence = expect == CLIENT_EXACTLY ? sequence : 0;
	return pb;
}

static PB(NewRecord) *pack_record(struct arena *a, const struct client_record *r)
{
	PB(NewRecord) *pb = client_zalloc(a, sizeof(*pb));

	cairn__journal__v1__new_record__init(pb);
	pb->id = pb_bytes(span_of(r->id, sizeof(r->id)));
	pb->type = pb_bytes(r->type);
	pb->content_type = pb_bytes(r->content_type);
	pb->data = pb_bytes(r->data);
	pb->n_metadata = r->metadata_count;
	pb->metadata = client_zalloc(a, (r->metadata_count + 1) * sizeof(*pb->metadata));
	for (size_t i = 0; i < r->metadata_count; i++) {
		PB(Metadata) *m = client_zalloc(a, sizeof(*m));

		cairn__journal__v1__metadata__init(m);
		m->key = pb_bytes(r->metadata[i].key);
		m->value = pb_bytes(r->metadata[i].value);
		pb->metadata[i] = m;
	}
	return pb;
}

static PB(StreamAppend) *pack_stream(struct arena *a, const struct client_stream *s)
{
	PB(StreamAppend) *pb = client_zalloc(a, sizeof(*pb));

	cairn__journal__v1__stream_append__init(pb);
	pb->stream = pb_bytes(s->stream);
	pb->expect = pack_expectation(a, s->expect, s->sequence);
	pb->n_events = s->event_count;
	pb->events = client_zalloc(a, (s->event_count + 1) * sizeof(*pb->events));
	for (size_t i = 0; i < s->event_count; i++)
		pb->events[i] = pack_record(a, &s->events[i]);
	if (s->snapshot)
		pb->snapshot = pack_record(a, s->snapshot);
	return pb;
}

static PB(Fence) *pack_fence(struct arena *a, const struct client_fence *fence)
{
	PB(Fence) *pb = client_zalloc(a, sizeof(*pb));

	cairn__journal__v1__fence__init(pb);
	if (fence->by_session) {
		pb->session = pb_bytes(span_of(fence->session, sizeof(fence->session)));
		return pb;
	}
	pb->service = pb_bytes(fence->service);
	pb->slot = fence->slot;
	pb->epoch = fence->epoch;
	return pb;
}

static uint8_t *pack_append(const struct client *c, const struct client_append *append, uint64_t number,
			    size_t *ret_n)
{
	PB(AppendRequest) request = CAIRN__JOURNAL__V1__APPEND_REQUEST__INIT;
	struct arena a;
	uint8_t *bytes;

	arena_init(&a, SIZE_MAX);
	request.journal = pb_bytes(span_str(c->journal));
	request.request = number;
	request.n_streams = append->stream_count;
	request.streams = client_zalloc(&a, (append->stream_count + 1) * sizeof(*request.streams));
	for (size_t i = 0; i < append->stream_count; i++)
		request.streams[i] = pack_stream(&a, &append->streams[i]);
	request.n_conditions = append->condition_count;
	request.conditions = client_zalloc(&a, (append->condition_count + 1) * sizeof(*request.conditions));
	for (size_t i = 0; i < append->condition_count; i++) {
		PB(Condition) *pb = client_zalloc(&a, sizeof(*pb));

		cairn__journal__v1__condition__init(pb);
		pb->stream = pb_bytes(append->conditions[i].stream);
		pb->expect = pack_expectation(&a, append->conditions[i].expect,
					      append->conditions[i].sequence);
		request.conditions[i] = pb;
	}
	request.n_fences = append->fence_count;
	request.fences = client_zalloc(&a, (append->fence_count + 1) * sizeof(*request.fences));
	for (size_t i = 0; i < append->fence_count; i++)
		request.fences[i] = pack_fence(&a, &append->fences[i]);
	bytes = client_pack(&request.base, ret_n);
	arena_release(&a);
	return bytes;
}

void client_append(struct client *c, const struct client_append *append, int64_t deadline_ms,
		   client_append_fn *done, void *arg)
{
	struct append *a = mem_xalloc(sizeof(*a));

	must(c->magic == CLIENT_MAGIC);
	must(!c->closing);
	must(deadline_ms > 0); /* without an end, an unreachable journal would collect memory */
	a->number = c->next_number++;
	a->stream_count = append->stream_count;
	a->done = done;
	a->arg = arg;
	a->deadline.us = clock_mono(&clock_system).us + deadline_ms * 1000;
	a->bytes = pack_append(c, append, a->number, &a->n);
	if (!a->bytes || a->n > LIMIT_GRPC_MESSAGE_BYTES) {
		append_note(a, a->bytes ? GRPC_INVALID_ARGUMENT : GRPC_RESOURCE_EXHAUSTED,
			    a->bytes ? SPAN("the append is larger than a request can be: append less at once")
				     : SPAN("out of memory"));
		list_push_back(&c->failed, &a->node);
		loop_timer_set(c->failing, 0);
		return;
	}
	ring_put(&c->ring, a);
	c->open_count++;
	list_push_back(&c->unsent, &a->node);
	deadline_watch(c, a->deadline);
	appends_kick(c);
}

size_t client_appends_open(const struct client *c)
{
	return c->open_count;
}

/* ---- life --------------------------------------------------------------------------------------- */

void client_appends_init(struct client *c)
{
	list_init(&c->unsent);
	list_init(&c->sent);
	list_init(&c->failed);
	c->next_number = 1;
	c->retry_ms = RETRY_MIN_MS;
	c->deadline_us = INT64_MAX;
	c->retry = loop_timer_new(c->loop, appends_on_retry, c);
	c->deadline = loop_timer_new(c->loop, appends_on_deadline, c);
	c->failing = loop_timer_new(c->loop, appends_on_failing, c);
}

static void appends_end(struct client *c, struct list *from, bool sent)
{
	struct list_node *node;

	while ((node = list_first(from))) {
		struct append *a = CONTAINER_OF(node, struct append, node);

		a->maybe_sent |= sent;
		append_note(a, GRPC_CANCELLED, SPAN("the client was closed"));
		append_unlink(c, a);
		list_push_back(&c->failed, &a->node);
	}
}

/* The stream itself ends with the channel. */
void client_appends_release(struct client *c)
{
	appends_end(c, &c->sent, true);
	appends_end(c, &c->unsent, false);
	appends_on_failing(c);
	loop_timer_free(c->retry);
	loop_timer_free(c->deadline);
	loop_timer_free(c->failing);
	mem_free(c->ring.slots);
	c->ring = (struct append_ring){0};
}
