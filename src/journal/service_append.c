/* Append and AppendStream: requests to the sequencer, its answers back.
 *
 *	message ──unpack, check, encode──▶ journal_append() ──▶ ... ──▶ op_on_done() ──▶ answer
 *	              └── refused ──────────────────────────────────────────────────────▶ answer
 *
 * Reading stops (HOLD_*) while the sequencer's queue is full, and while the client does not take its
 * answers. A call object lives until the call is over and nothing of it is under way any more. */
#include <config.h>

#include "journal/service_internal.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "journal/acts.h"

#define ACTOR_PREFIX "ip:"

#define APPEND_CALL_MAGIC 0xa99eca11
struct append_call {
	uint32_t magic;
	struct journal_service *service;
	struct service_loop *loop;
	struct grpc_call *call; /* a reference */
	struct list_node node;	/* AppendStream: in loop->appends while the call is open */
	bool unary, got_request, half_closed;
	bool over;	/* on_done has been, or the end is sent: nothing more goes out */
	size_t refs;	/* the call itself, every append under way, the wait for room */
	size_t under_way;
	enum { HOLD_ROOM = 1, HOLD_OUTPUT = 2 } holds;
	struct journal_room room;
	char actor[SERVICE_ACTOR_BYTES];
};

struct append_op {
	struct append_call *ac;
	uint64_t request;
};

static void append_call_unref(struct append_call *ac)
{
	if (--ac->refs)
		return;
	must(!ac->under_way);
	grpc_call_unref(ac->call);
	ac->magic = 0;
	mem_free(ac);
}

/* ---- holding back ------------------------------------------------------------------------------- */

static void append_call_hold(struct append_call *ac, unsigned reason, bool on)
{
	unsigned holds = on ? ac->holds | reason : ac->holds & ~reason;

	if (!ac->over && !holds != !ac->holds)
		grpc_call_hold_read(ac->call, holds != 0);
	ac->holds = holds;
}

static void append_call_on_room(void *arg)
{
	struct append_call *ac = OBJ_CAST(struct append_call, arg, APPEND_CALL_MAGIC);

	append_call_hold(ac, HOLD_ROOM, false);
	append_call_unref(ac);
}

static void append_call_check_room(struct append_call *ac)
{
	if ((ac->holds & HOLD_ROOM) || journal_has_room(ac->service->journal))
		return;
	append_call_hold(ac, HOLD_ROOM, true);
	metric_add(METRIC_JOURNAL_APPEND_HELD, 1);
	ac->refs++;
	ac->room = (struct journal_room){
		.mailbox = loop_mailbox(ac->loop->loop),
		.fn = append_call_on_room,
		.arg = ac,
	};
	journal_when_room(ac->service->journal, &ac->room);
}

/* ---- answers ------------------------------------------------------------------------------------ */

static void append_call_end(struct append_call *ac, enum grpc_code code, struct span text,
			    const struct headers *trailers)
{
	if (ac->over)
		return;
	ac->over = true;
	grpc_call_finish(ac->call, code, text, trailers);
}

/* An AppendStream ends when the client has, or the server drains, and all is answered. */
static void append_call_end_if_idle(struct append_call *ac)
{
	if (ac->unary || ac->under_way)
		return;
	if (ac->half_closed)
		append_call_end(ac, GRPC_OK, SPAN(""), NULL);
	else if (ac->loop->draining)
		append_call_end(ac, GRPC_UNAVAILABLE, SPAN("the server is shutting down"), NULL);
}

static void append_call_send(struct append_call *ac, const PB(AppendResponse) *pb)
{
	if (ac->over)
		return;
	if (ac->unary) {
		ac->over = true;
		grpc_call_reply_pb(ac->call, &pb->base);
	} else if (!grpc_call_send_pb(ac->call, &pb->base)) {
		append_call_hold(ac, HOLD_OUTPUT, true);
	}
}

static void append_call_refuse(struct append_call *ac, uint64_t request, const struct append_refusal *refusal)
{
	PB(AppendResponse) pb = CAIRN__JOURNAL__V1__APPEND_RESPONSE__INIT;
	PB(Refusal) detail = CAIRN__JOURNAL__V1__REFUSAL__INIT;
	PB(Fence) fence = CAIRN__JOURNAL__V1__FENCE__INIT;
	enum grpc_code code = grpc_code_of(refusal->err.code);
	struct span text = span_str(refusal->err.text);

	detail.code = (uint32_t)code;
	detail.text = pb_bytes(text);
	detail.stream = pb_bytes(refusal->stream);
	if (refusal->has_sequence_found) {
		detail.has_sequence_found_case =
			CAIRN__JOURNAL__V1__REFUSAL__HAS_SEQUENCE_FOUND_SEQUENCE_FOUND;
		detail.sequence_found = refusal->sequence_found;
	}
	if (refusal->fence_found) {
		const struct journal_fence *f = refusal->fence_found;

		fence.service = pb_bytes(f->service);
		fence.slot = f->slot;
		fence.epoch = f->epoch;
		if (f->by_session || f->epoch)
			fence.session = pb_bytes(span_of(f->session, sizeof(f->session)));
		detail.fence_found = &fence;
	}
	if (ac->unary) {
		/* The text is at most ERR_TEXT_MAX, the stream's name may be as long as the client liked:
		 * it is the client's own, and left out where it is no legal name. */
		uint8_t packed[ERR_TEXT_MAX + LIMIT_STREAM_NAME_BYTES + LIMIT_SERVICE_NAME_BYTES + 128];
		struct header trailer = {.name = SPAN(JOURNAL_REFUSAL_TRAILER)};

		if (detail.stream.len > LIMIT_STREAM_NAME_BYTES)
			detail.stream.len = 0;
		trailer.value = span_of(packed, protobuf_c_message_pack(&detail.base, packed));
		append_call_end(ac, code, text, &(struct headers){&trailer, 1});
		return;
	}
	pb.request = request;
	pb.refusal = &detail;
	append_call_send(ac, &pb);
}

static void append_call_answer(struct append_call *ac, uint64_t request, const struct append *append)
{
	const struct append_answer *answer = append_answer(append);
	PB(AppendResponse) pb = CAIRN__JOURNAL__V1__APPEND_RESPONSE__INIT;
	PB(Cursor) cursor;
	PB(StreamAppended) few[4], *streams = few;
	PB(StreamAppended) *few_pointers[4], **pointers = few_pointers;
	struct journal_cursor at = journal_cursor_at(ac->service->journal, answer->cursor_position);

	if (answer->stream_count > ARRAY_LEN(few)) {
		streams = mem_xalloc(answer->stream_count * sizeof(*streams));
		pointers = mem_xalloc(answer->stream_count * sizeof(*pointers));
	}
	for (size_t i = 0; i < answer->stream_count; i++) {
		pointers[i] = &streams[i];
		cairn__journal__v1__stream_appended__init(&streams[i]);
		streams[i].stream = pb_bytes(append_answer_stream(append, i, &streams[i].sequence));
	}
	service_cursor_to(&at, &cursor);
	pb.request = request;
	pb.n_streams = answer->stream_count;
	pb.streams = pointers;
	pb.first_position = answer->first_position;
	pb.count = (uint32_t)answer->record_count;
	pb.commit_time_us = (uint64_t)answer->commit_time.us;
	pb.repeated = answer->repeated;
	pb.cursor = &cursor;
	append_call_send(ac, &pb);
	if (streams != few) {
		mem_free(streams);
		mem_free(pointers);
	}
}

static void op_on_done(struct append *append, void *arg)
{
	struct append_op *op = arg;
	struct append_call *ac = OBJ_CAST(struct append_call, op->ac, APPEND_CALL_MAGIC);
	const struct append_answer *answer = append_answer(append);

	must(ac->under_way > 0);
	ac->under_way--;
	if (!ac->over && answer->code == ERR_OK)
		append_call_answer(ac, op->request, append);
	else if (!ac->over)
		append_call_refuse(ac, op->request, answer->refusal);
	append_call_end_if_idle(ac);
	append_unref(append);
	mem_free(op);
	append_call_unref(ac);
}

/* ---- requests ----------------------------------------------------------------------------------- */

static enum err_code expectation_of(const PB(Expectation) *pb, struct span stream, enum append_expect *ret,
				    uint64_t *ret_sequence, struct append_refusal *refusal)
{
	*ret = APPEND_ANY;
	*ret_sequence = 0;
	if (!pb)
		return ERR_OK;
	switch (pb->kind) {
	case CAIRN__JOURNAL__V1__EXPECTATION__KIND__ANY: *ret = APPEND_ANY; break;
	case CAIRN__JOURNAL__V1__EXPECTATION__KIND__NONE: *ret = APPEND_NONE; break;
	case CAIRN__JOURNAL__V1__EXPECTATION__KIND__EXISTS: *ret = APPEND_EXISTS; break;
	case CAIRN__JOURNAL__V1__EXPECTATION__KIND__EXACTLY: *ret = APPEND_EXACTLY; break;
	default:
		refusal->stream = stream;
		return err_set(&refusal->err, ERR_INVALID, "expectation kind %d is unknown: ANY, NONE, "
			       "EXISTS and EXACTLY are known", (int)pb->kind);
	}
	if (pb->sequence && *ret != APPEND_EXACTLY) {
		refusal->stream = stream;
		return err_set(&refusal->err, ERR_INVALID, "an expectation has a sequence, %llu, but is not "
			       "EXACTLY", (unsigned long long)pb->sequence);
	}
	*ret_sequence = pb->sequence;
	return ERR_OK;
}

static bool record_of(const PB(NewRecord) *pb, struct arena *a, struct append_record *ret)
{
	struct record_metadata *metadata = NULL;

	if (pb->n_metadata) {
		metadata = arena_alloc(a, pb->n_metadata * sizeof(*metadata));
		if (!metadata)
			return false;
	}
	for (size_t i = 0; i < pb->n_metadata; i++)
		metadata[i] = (struct record_metadata){pb_span(pb->metadata[i]->key),
						       pb_span(pb->metadata[i]->value)};
	*ret = (struct append_record){
		.id = pb_span(pb->id),
		.type = pb_span(pb->type),
		.content_type = pb_span(pb->content_type),
		.data = pb_span(pb->data),
		.metadata = metadata,
		.metadata_count = pb->n_metadata,
	};
	return true;
}

static enum err_code stream_of(const PB(StreamAppend) *pb, struct arena *a, struct append_stream *ret,
			       struct append_refusal *refusal)
{
	struct append_record *records = arena_alloc(a, (pb->n_events + 1) * sizeof(*records));
	bool ok = records != NULL;

	*ret = (struct append_stream){.name = pb_span(pb->stream), .events = records,
				      .event_count = pb->n_events};
	if (expectation_of(pb->expect, ret->name, &ret->expect, &ret->sequence, refusal))
		return refusal->err.code;
	for (size_t i = 0; ok && i < pb->n_events; i++)
		ok = record_of(pb->events[i], a, &records[i]);
	if (ok && pb->snapshot) {
		ok = record_of(pb->snapshot, a, &records[pb->n_events]);
		ret->snapshot = &records[pb->n_events];
	}
	return ok ? ERR_OK : err_set(&refusal->err, ERR_LIMIT, "the append has too many parts");
}

static enum err_code fence_of(const PB(Fence) *pb, struct journal_fence *ret, struct err *err)
{
	*ret = (struct journal_fence){
		.service = pb_span(pb->service), .slot = pb->slot, .epoch = pb->epoch};
	if (!pb->session.len)
		return ERR_OK;
	if (pb->service.len || pb->slot || pb->epoch)
		return err_set(err, ERR_INVALID, "fence: it has a grant and a session: put them into two");
	if (pb->session.len != sizeof(ret->session))
		return err_set(err, ERR_INVALID, "fence: its session has %zu bytes, not %zu", pb->session.len,
			       sizeof(ret->session));
	ret->by_session = true;
	memcpy(ret->session, pb->session.data, sizeof(ret->session));
	return ERR_OK;
}

static enum err_code request_of(const PB(AppendRequest) *pb, struct arena *a, struct append_request *ret,
				struct append_refusal *refusal)
{
	struct append_stream *streams = arena_alloc(a, (pb->n_streams + 1) * sizeof(*streams));
	struct append_condition *conditions = arena_alloc(a, (pb->n_conditions + 1) * sizeof(*conditions));
	struct journal_fence *fences = arena_alloc(a, (pb->n_fences + 1) * sizeof(*fences));

	if (service_check_journal(pb->journal, &refusal->err))
		return refusal->err.code;
	if (!streams || !conditions || !fences)
		return err_set(&refusal->err, ERR_LIMIT, "the append has too many parts");
	for (size_t i = 0; i < pb->n_streams; i++)
		if (stream_of(pb->streams[i], a, &streams[i], refusal))
			return refusal->err.code;
	for (size_t i = 0; i < pb->n_conditions; i++) {
		conditions[i].name = pb_span(pb->conditions[i]->stream);
		if (expectation_of(pb->conditions[i]->expect, conditions[i].name, &conditions[i].expect,
				   &conditions[i].sequence, refusal))
			return refusal->err.code;
	}
	for (size_t i = 0; i < pb->n_fences; i++)
		if (fence_of(pb->fences[i], &fences[i], &refusal->err))
			return refusal->err.code;
	ret->fences = fences;
	ret->fence_count = pb->n_fences;
	ret->streams = streams;
	ret->stream_count = pb->n_streams;
	ret->conditions = conditions;
	ret->condition_count = pb->n_conditions;
	return ERR_OK;
}

/* From an unpacked request to the sequencer. */
static enum err_code append_call_take(struct append_call *ac, const PB(AppendRequest) *pb, struct arena *a,
				      struct append_refusal *refusal)
{
	struct append_request request = {.actor = span_str(ac->actor)};
	struct append *append = NULL;
	struct append_op *op;

	if (request_of(pb, a, &request, refusal) ||
	    append_new(ac->service->journal, &request, &append, refusal))
		return refusal->err.code;
	op = mem_xalloc(sizeof(*op));
	op->ac = ac;
	op->request = pb->request;
	if (journal_append(ac->service->journal, &append, loop_mailbox(ac->loop->loop), op_on_done, op,
			   &refusal->err)) {
		append_unref(append);
		mem_free(op);
		return refusal->err.code;
	}
	ac->under_way++;
	ac->refs++;
	append_call_check_room(ac);
	return ERR_OK;
}

static void append_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct append_call *ac = OBJ_CAST(struct append_call, user, APPEND_CALL_MAGIC);
	struct append_refusal refusal = {0};
	PB(AppendRequest) *pb;
	struct arena a;

	(void)call;
	if (ac->over)
		return;
	if (ac->unary && ac->got_request) {
		append_call_end(ac, GRPC_INVALID_ARGUMENT,
				SPAN("Append takes one request; the outcome of the first is unknown"), NULL);
		return;
	}
	ac->got_request = true;
	arena_init(&a, SERVICE_ARENA_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(append_request), &a, message);
	if (!pb) {
		append_call_end(ac, GRPC_INVALID_ARGUMENT,
				SPAN("the request is no AppendRequest, or it has too many parts"), NULL);
	} else if (append_call_take(ac, pb, &a, &refusal)) {
		metric_add(METRIC_JOURNAL_APPENDS_INVALID, 1);
		append_call_refuse(ac, pb->request, &refusal);
	}
	arena_release(&a);
}

/* ---- calls -------------------------------------------------------------------------------------- */

static void append_on_half_close(struct grpc_call *call, void *user)
{
	struct append_call *ac = OBJ_CAST(struct append_call, user, APPEND_CALL_MAGIC);

	(void)call;
	ac->half_closed = true;
	if (ac->unary && !ac->got_request)
		append_call_end(ac, GRPC_INVALID_ARGUMENT, SPAN("Append without a request"), NULL);
	append_call_end_if_idle(ac);
}

static void append_on_writable(struct grpc_call *call, void *user)
{
	(void)call;
	append_call_hold(OBJ_CAST(struct append_call, user, APPEND_CALL_MAGIC), HOLD_OUTPUT, false);
}

static void append_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct append_call *ac = OBJ_CAST(struct append_call, user, APPEND_CALL_MAGIC);

	(void)call;
	(void)result; /* what is under way goes on: its outcome is in the log, for whoever repeats it */
	ac->over = true;
	if (!ac->unary) {
		list_remove(&ac->node);
		metric_add(METRIC_JOURNAL_APPEND_STREAMS, -1);
	}
	append_call_unref(ac);
}

static const struct grpc_call_ops append_ops = {
	.on_message = append_on_message,
	.on_half_close = append_on_half_close,
	.on_writable = append_on_writable,
	.on_done = append_on_done,
};

/* "127.0.0.1:4711" and "[::1]:4711" without the port, which says nothing later. */
void service_actor_of(const struct grpc_call *call, char *actor, size_t size)
{
	struct span host = span_str(grpc_call_peer(call));
	size_t n = host.n;

	while (n > 0 && host.p[n - 1] != ':')
		n--;
	if (n > 0)
		host = span_first(host, n - 1);
	if (host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
		host = span_of(host.p + 1, host.n - 2);
	snprintf(actor, size, ACTOR_PREFIX "%.*s", SPAN_ARG(host));
}

static struct append_call *append_call_open(struct grpc_call *call, void *arg, bool unary)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct append_call *ac = mem_xalloc(sizeof(*ac));

	ac->magic = APPEND_CALL_MAGIC;
	ac->service = s;
	ac->loop = service_loop_of(s, grpc_call_loop(call));
	ac->call = grpc_call_ref(call);
	ac->unary = unary;
	ac->refs = 1;
	service_actor_of(call, ac->actor, sizeof(ac->actor));
	grpc_call_bind(call, &append_ops, ac);
	append_call_check_room(ac);
	return ac;
}

void service_append_open(struct grpc_call *call, void *arg)
{
	append_call_open(call, arg, true);
}

void service_append_stream_open(struct grpc_call *call, void *arg)
{
	struct append_call *ac = append_call_open(call, arg, false);

	list_push_back(&ac->loop->appends, &ac->node);
	metric_add(METRIC_JOURNAL_APPEND_STREAMS, 1);
	append_call_end_if_idle(ac);
}

void service_appends_drain(struct service_loop *l)
{
	struct list_node *node = list_first(&l->appends);

	while (node) {
		struct append_call *ac = CONTAINER_OF(node, struct append_call, node);

		node = list_next(&l->appends, node);
		append_call_end_if_idle(ac);
	}
}
