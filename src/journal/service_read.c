/* Read, Load, Subscribe and Backup: pages of the journal, sent as they are.
 *
 *	request ──▶ handle ──next──▶ page ──▶ sent ──▶ writable? ──next──▶ ...
 *
 * One page is under way at a time, and none is asked for before the client has taken nearly all of what was
 * sent, or all of it if that was a record larger than a response. So a client that stops reading costs two
 * responses, or a response and a record, and nothing else. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/plant.h"

#define READ_CALL_MAGIC 0x4ead0ca1
struct read_call {
	uint32_t magic;
	enum read_kind { READ_READ, READ_LOAD, READ_SUBSCRIBE, READ_BACKUP } kind;
	struct journal_service *service;
	struct service_loop *loop;
	struct grpc_call *call; /* the call outlives its on_done by this reference */
	struct list_node node;	/* a subscription: in loop->reads */
	struct journal_read *read; /* NULL before the request and after the end */
	struct sent_page *large; /* a page above a response that is not gone yet */
	bool over;		/* the end has been sent or has come */
	bool asked;		/* a page is under way */
	/* That the request gave; incarnation 0: none. */
	struct journal_cursor from, not_before;
};

static void read_call_end_with(struct read_call *rc, enum grpc_code code, struct span text,
			       const struct headers *trailers)
{
	if (rc->over)
		return;
	rc->over = true;
	grpc_call_finish(rc->call, code, text, trailers);
	journal_read_close(rc->read); /* after it: the text may be the read's own */
	rc->read = NULL;
}

static void read_call_end(struct read_call *rc, enum grpc_code code, struct span text)
{
	read_call_end_with(rc, code, text, NULL);
}

/* A cursor that lies beyond a cut of history is refused with where both are the same. */
static void read_call_refuse(struct read_call *rc, const struct err *err)
{
	const struct journal *j = rc->service->journal;
	uint64_t fork;
	bool cut = (rc->from.incarnation && journal_cursor_check(j, &rc->from, false, &fork, NULL)) ||
		   (rc->not_before.incarnation && journal_cursor_check(j, &rc->not_before, true, &fork, NULL));
	PB(Refusal) detail = CAIRN__JOURNAL__V1__REFUSAL__INIT;
	struct header trailer = {.name = SPAN(JOURNAL_REFUSAL_TRAILER)};
	uint8_t packed[ERR_TEXT_MAX + 128];
	struct journal_cursor at;
	PB(Cursor) cursor;
	if (!cut || err->code != ERR_CONFLICT) {
		read_call_end(rc, grpc_code_of(err->code), span_str(err->text));
		return;
	}
	at = journal_cursor_at(j, fork);
	service_cursor_to(&at, &cursor);
	detail.code = grpc_code_of(err->code);
	detail.text = pb_bytes(span_str(err->text));
	detail.fork = &cursor;
	trailer.value = span_of(packed, protobuf_c_message_pack(&detail.base, packed));
	read_call_end_with(rc, grpc_code_of(err->code), span_str(err->text), &(struct headers){&trailer, 1});
}

static void read_call_fail(struct read_call *rc, const struct err *err)
{
	read_call_end(rc, grpc_code_of(err->code), span_str(err->text));
}

static void read_call_next(struct read_call *rc)
{
	bool may_send = grpc_call_writable(rc->call) && !rc->large;

	/* Red under it: test_cairnd, a_reader_that_stops_reading_costs_little. */
	if (rc->over || rc->asked || (!may_send && !plant("reader-is-not-waited-for")))
		return;
	rc->asked = true;
	journal_read_next(rc->read);
}

/* ---- pages -------------------------------------------------------------------------------------- */

/* Packs the fields that stand behind the entries. */
static size_t pack_fields(const struct read_call *rc, const struct journal_page *page, uint8_t *out)
{
	PB(ReadResponse) read = CAIRN__JOURNAL__V1__READ_RESPONSE__INIT;
	PB(LoadResponse) load = CAIRN__JOURNAL__V1__LOAD_RESPONSE__INIT;
	PB(SubscribeResponse) subscribe = CAIRN__JOURNAL__V1__SUBSCRIBE_RESPONSE__INIT;
	PB(Cursor) cursor;

	service_cursor_to(&page->next, &cursor);
	switch (rc->kind) {
	case READ_READ:
	case READ_BACKUP:
		read.cursor = &cursor;
		read.end = page->end;
		return protobuf_c_message_pack(&read.base, out);
	case READ_LOAD:
		load.cursor = page->end ? &cursor : NULL;
		load.end = page->end;
		load.sequence = page->end ? page->sequence : 0;
		return protobuf_c_message_pack(&load.base, out);
	case READ_SUBSCRIBE:
		subscribe.cursor = &cursor;
		subscribe.caught_up = page->caught_up;
		return protobuf_c_message_pack(&subscribe.base, out);
	default:
		unreachable_state("read_kind");
	}
}

/* A page on its way, whose memory the connection has. */
struct sent_page {
	struct journal_page *page;
	struct read_call *rc; /* NULL unless the next page waits for this one, or when the call is over */
};

static void sent_page_free(void *arg)
{
	struct sent_page *sent = arg;
	struct read_call *rc = sent->rc;

	journal_page_free(sent->page);
	mem_free(sent);
	if (!rc)
		return;
	rc->large = NULL;
	if (rc->read)
		read_call_next(rc);
}

static void page_send(struct read_call *rc, struct journal_page *page)
{
	struct sent_page *sent = mem_xalloc(sizeof(*sent));

	*sent = (struct sent_page){.page = page};
	if (page->body.n > LIMIT_RESPONSE_BYTES) {
		must(!rc->large || plant("reader-is-not-waited-for"));
		sent->rc = rc;
		rc->large = sent;
	}
	grpc_call_send_ref(rc->call, buf_span(&page->body), sent_page_free, sent);
}

static void read_on_page(struct journal_read *read, struct journal_page *page, const struct err *err,
			 void *arg)
{
	struct read_call *rc = OBJ_CAST(struct read_call, arg, READ_CALL_MAGIC);
	uint8_t fields[128];
	bool end;

	must(read == rc->read);
	rc->asked = false;
	if (!page) {
		read_call_fail(rc, err);
		return;
	}
	if (buf_append(&page->body, fields, pack_fields(rc, page, fields))) {
		journal_page_free(page);
		read_call_end(rc, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory"));
		return;
	}
	metric_add(METRIC_JOURNAL_BYTES_SENT, (int64_t)page->body.n);
	end = page->end && rc->kind != READ_SUBSCRIBE;
	page_send(rc, page);
	if (end)
		read_call_end(rc, GRPC_OK, SPAN(""));
	else
		read_call_next(rc);
}

/* ---- requests ----------------------------------------------------------------------------------- */

static struct span *spans_of(const ProtobufCBinaryData *items, size_t n, struct arena *a)
{
	struct span *spans = arena_alloc(a, (n + 1) * sizeof(*spans));

	for (size_t i = 0; spans && i < n; i++)
		spans[i] = pb_span(items[i]);
	return spans;
}

static enum err_code kinds_of(const PB(Kind) *kinds, size_t n, uint32_t *ret, struct err *err)
{
	for (size_t i = 0; i < n; i++) {
		if ((int)kinds[i] < 1 || (int)kinds[i] > 31)
			return err_set(err, ERR_INVALID, "kinds: %d is no kind of record", (int)kinds[i]);
		*ret |= UINT32_C(1) << kinds[i];
	}
	return ERR_OK;
}

static enum err_code filter_of(const ProtobufCBinaryData *types, size_t type_count,
			       const ProtobufCBinaryData *prefixes, size_t prefix_count, struct arena *a,
			       struct journal_query *q, struct err *err)
{
	q->types = spans_of(types, type_count, a);
	q->type_count = type_count;
	q->stream_prefixes = spans_of(prefixes, prefix_count, a);
	q->stream_prefix_count = prefix_count;
	if (!q->types || !q->stream_prefixes)
		return err_set(err, ERR_LIMIT, "the request has too many types or prefixes");
	return ERR_OK;
}

static enum err_code query_of_read(const PB(ReadRequest) *pb, struct arena *a, struct journal_query *q,
				   struct err *err)
{
	if (pb->source_case == CAIRN__JOURNAL__V1__READ_REQUEST__SOURCE_STREAM) {
		q->source = STORAGE_STREAM;
		q->name = pb_span(pb->stream);
	} else if (pb->source_case == CAIRN__JOURNAL__V1__READ_REQUEST__SOURCE_CATEGORY) {
		q->source = STORAGE_CATEGORY;
		q->name = pb_span(pb->category);
	}
	q->include_system = pb->include_system;
	q->backward = pb->backward;
	q->max_records = pb->max_records;
	if (pb->from_case == CAIRN__JOURNAL__V1__READ_REQUEST__FROM_FROM_SEQUENCE) {
		q->from = FROM_SEQUENCE;
		q->from_value = pb->from_sequence;
	} else if (pb->from_case == CAIRN__JOURNAL__V1__READ_REQUEST__FROM_FROM_POSITION) {
		q->from = FROM_POSITION;
		q->from_value = pb->from_position;
	} else if (pb->from_case == CAIRN__JOURNAL__V1__READ_REQUEST__FROM_FROM_CURSOR) {
		q->from = FROM_CURSOR;
		if (service_cursor_of(pb->from_cursor, "from_cursor", &q->from_cursor, err))
			return err->code;
	} else if (pb->from_case == CAIRN__JOURNAL__V1__READ_REQUEST__FROM_FROM_TIME_US) {
		q->from = FROM_TIME;
		q->from_value = pb->from_time_us;
	}
	if (pb->to_case == CAIRN__JOURNAL__V1__READ_REQUEST__TO_TO_SEQUENCE) {
		q->to = TO_SEQUENCE;
		q->to_value = pb->to_sequence;
	} else if (pb->to_case == CAIRN__JOURNAL__V1__READ_REQUEST__TO_TO_POSITION) {
		q->to = TO_POSITION;
		q->to_value = pb->to_position;
	} else if (pb->to_case == CAIRN__JOURNAL__V1__READ_REQUEST__TO_TO_TIME_US) {
		q->to = TO_TIME;
		q->to_value = pb->to_time_us;
	}
	if (kinds_of(pb->kinds, pb->n_kinds, &q->kinds, err) ||
	    filter_of(pb->types, pb->n_types, pb->stream_prefixes, pb->n_stream_prefixes, a, q, err))
		return err->code;
	return service_cursor_of(pb->not_before, "not_before", &q->not_before, err);
}

static enum err_code query_of_subscribe(const PB(SubscribeRequest) *pb, struct arena *a,
					struct journal_query *q, struct err *err)
{
	q->live = true;
	if (pb->source_case == CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__SOURCE_STREAM) {
		q->source = STORAGE_STREAM;
		q->name = pb_span(pb->stream);
	} else if (pb->source_case == CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__SOURCE_CATEGORY) {
		q->source = STORAGE_CATEGORY;
		q->name = pb_span(pb->category);
	}
	q->include_system = pb->include_system;
	if (pb->from_case == CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_SEQUENCE) {
		q->from = FROM_SEQUENCE;
		q->from_value = pb->from_sequence;
	} else if (pb->from_case == CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_POSITION) {
		q->from = FROM_POSITION;
		q->from_value = pb->from_position;
	} else if (pb->from_case == CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_CURSOR) {
		q->from = FROM_CURSOR;
		if (service_cursor_of(pb->from_cursor, "from_cursor", &q->from_cursor, err))
			return err->code;
	} else if (pb->from_case == CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_TIME_US) {
		q->from = FROM_TIME;
		q->from_value = pb->from_time_us;
	} else if (pb->from_case == CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_END && pb->from_end) {
		q->from = FROM_END;
	}
	if (kinds_of(pb->kinds, pb->n_kinds, &q->kinds, err) ||
	    filter_of(pb->types, pb->n_types, pb->stream_prefixes, pb->n_stream_prefixes, a, q, err))
		return err->code;
	return service_cursor_of(pb->not_before, "not_before", &q->not_before, err);
}

static enum err_code read_call_start_query(struct read_call *rc, struct span message, struct arena *a,
					   struct err *err)
{
	struct journal_query query = {.source = STORAGE_ALL};

	if (rc->kind == READ_READ) {
		PB(ReadRequest) *pb = (void *)grpc_unpack(PB_TYPE(read_request), a, message);

		if (!pb)
			return err_set(err, ERR_INVALID, "the request is no ReadRequest");
		if (service_check_journal(pb->journal, err) || query_of_read(pb, a, &query, err))
			return err->code;
	} else if (rc->kind == READ_BACKUP) {
		PB(BackupRequest) *pb = (void *)grpc_unpack(PB_TYPE(backup_request), a, message);

		if (!pb)
			return err_set(err, ERR_INVALID, "the request is no BackupRequest");
		if (service_check_journal(pb->journal, err))
			return err->code;
		query.raw = query.include_system = true;
	} else {
		PB(SubscribeRequest) *pb = (void *)grpc_unpack(PB_TYPE(subscribe_request), a, message);

		if (!pb)
			return err_set(err, ERR_INVALID, "the request is no SubscribeRequest");
		if (service_check_journal(pb->journal, err) || query_of_subscribe(pb, a, &query, err))
			return err->code;
	}
	rc->from = query.from == FROM_CURSOR ? query.from_cursor : (struct journal_cursor){0};
	rc->not_before = query.not_before;
	return journal_read_open(rc->service->journal, &query, loop_mailbox(rc->loop->loop), read_on_page, rc,
				 &rc->read, err);
}

static enum err_code read_call_start_load(struct read_call *rc, struct span message, struct arena *a,
					  struct err *err)
{
	PB(LoadRequest) *pb = (void *)grpc_unpack(PB_TYPE(load_request), a, message);
	struct journal_load load = {0};

	if (!pb)
		return err_set(err, ERR_INVALID, "the request is no LoadRequest");
	if (service_check_journal(pb->journal, err) ||
	    service_cursor_of(pb->not_before, "not_before", &load.not_before, err))
		return err->code;
	rc->not_before = load.not_before;
	load.stream = pb_span(pb->stream);
	if (pb->erased > CAIRN__JOURNAL__V1__LOAD_REQUEST__ERASED__SKIP)
		return err_set(err, ERR_INVALID, "erased: %d is unknown: FAIL and SKIP are known", (int)pb->erased);
	load.skip_erased = pb->erased == CAIRN__JOURNAL__V1__LOAD_REQUEST__ERASED__SKIP;
	if (pb->has_at_sequence_case == CAIRN__JOURNAL__V1__LOAD_REQUEST__HAS_AT_SEQUENCE_AT_SEQUENCE) {
		load.has_at_sequence = true;
		load.at_sequence = pb->at_sequence;
	}
	return journal_load_open(rc->service->journal, &load, loop_mailbox(rc->loop->loop), read_on_page, rc,
				 &rc->read, err);
}

static void read_call_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct read_call *rc = OBJ_CAST(struct read_call, user, READ_CALL_MAGIC);
	struct err err = {0};
	struct arena a;

	(void)call;
	if (rc->over)
		return;
	if (rc->read) {
		read_call_end(rc, GRPC_INVALID_ARGUMENT, SPAN("this operation takes one request"));
		return;
	}
	arena_init(&a, SERVICE_ARENA_BYTES);
	if (rc->kind == READ_LOAD)
		read_call_start_load(rc, message, &a, &err);
	else
		read_call_start_query(rc, message, &a, &err);
	arena_release(&a);
	if (err.code)
		read_call_refuse(rc, &err);
	else
		read_call_next(rc);
}

/* ---- calls -------------------------------------------------------------------------------------- */

static void read_call_on_half_close(struct grpc_call *call, void *user)
{
	struct read_call *rc = OBJ_CAST(struct read_call, user, READ_CALL_MAGIC);

	(void)call;
	if (!rc->read)
		read_call_end(rc, GRPC_INVALID_ARGUMENT, SPAN("a call without a request"));
}

static void read_call_on_writable(struct grpc_call *call, void *user)
{
	struct read_call *rc = OBJ_CAST(struct read_call, user, READ_CALL_MAGIC);

	(void)call;
	if (rc->read)
		read_call_next(rc);
}

static void read_call_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct read_call *rc = OBJ_CAST(struct read_call, user, READ_CALL_MAGIC);

	(void)call;
	(void)result;
	if (rc->kind == READ_SUBSCRIBE) {
		list_remove(&rc->node);
		metric_add(METRIC_JOURNAL_SUBSCRIPTIONS, -1);
	}
	journal_read_close(rc->read);
	if (rc->large)
		rc->large->rc = NULL;
	grpc_call_unref(rc->call);
	rc->magic = 0;
	mem_free(rc);
}

static const struct grpc_call_ops read_call_ops = {
	.on_message = read_call_on_message,
	.on_half_close = read_call_on_half_close,
	.on_writable = read_call_on_writable,
	.on_done = read_call_on_done,
};

static struct read_call *read_call_open(struct grpc_call *call, void *arg, enum read_kind kind)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct read_call *rc = mem_xalloc(sizeof(*rc));

	rc->magic = READ_CALL_MAGIC;
	rc->kind = kind;
	rc->service = s;
	rc->loop = service_loop_of(s, grpc_call_loop(call));
	rc->call = grpc_call_ref(call);
	grpc_call_bind(call, &read_call_ops, rc);
	return rc;
}

void service_read_open(struct grpc_call *call, void *arg)
{
	read_call_open(call, arg, READ_READ);
}

void service_load_open(struct grpc_call *call, void *arg)
{
	read_call_open(call, arg, READ_LOAD);
}

void service_backup_open(struct grpc_call *call, void *arg)
{
	read_call_open(call, arg, READ_BACKUP);
}

static void subscription_end(struct read_call *rc)
{
	read_call_end(rc, GRPC_UNAVAILABLE, SPAN("the server is shutting down: subscribe again from the last "
						 "cursor"));
}

void service_subscribe_open(struct grpc_call *call, void *arg)
{
	struct read_call *rc = read_call_open(call, arg, READ_SUBSCRIBE);

	list_push_back(&rc->loop->reads, &rc->node);
	metric_add(METRIC_JOURNAL_SUBSCRIPTIONS, 1);
	if (rc->loop->draining)
		subscription_end(rc);
}

void service_reads_drain(struct service_loop *l)
{
	struct list_node *node = list_first(&l->reads);

	while (node) {
		struct read_call *rc = CONTAINER_OF(node, struct read_call, node);

		node = list_next(&l->reads, node);
		subscription_end(rc);
	}
}
