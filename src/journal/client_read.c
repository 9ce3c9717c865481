/* Reads, loads and subscriptions of the client: one call each. A response is a run of records, as
 * stored, and a few fields behind it. */
#include <config.h>

#include "journal/client_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"

#define FIELD_1_BYTES 0x0a /* the tag of an entry */

/* ---- requests ----------------------------------------------------------------------------------- */

static ProtobufCBinaryData *pack_spans(struct arena *a, const struct span *spans, size_t n)
{
	ProtobufCBinaryData *list = client_zalloc(a, (n + 1) * sizeof(*list));

	for (size_t i = 0; i < n; i++)
		list[i] = pb_bytes(spans[i]);
	return list;
}

static PB(Kind) *pack_kinds(struct arena *a, uint32_t kinds, size_t *ret_n)
{
	PB(Kind) *list = client_zalloc(a, 32 * sizeof(*list));

	*ret_n = 0;
	for (unsigned k = 0; k < 32; k++)
		if (kinds & (UINT32_C(1) << k))
			list[(*ret_n)++] = (PB(Kind))k;
	return list;
}

static uint8_t *pack_read(const struct client *c, const struct client_query *q, size_t *ret_n)
{
	PB(ReadRequest) r;
	struct arena a;
	uint8_t *bytes;

	cairn__journal__v1__read_request__init(&r);
	arena_init(&a, SIZE_MAX);
	r.journal = pb_bytes(span_str(c->journal));
	if (q->stream.n) {
		r.source_case = CAIRN__JOURNAL__V1__READ_REQUEST__SOURCE_STREAM;
		r.stream = pb_bytes(q->stream);
	} else if (q->category.n) {
		r.source_case = CAIRN__JOURNAL__V1__READ_REQUEST__SOURCE_CATEGORY;
		r.category = pb_bytes(q->category);
	}
	r.include_system = q->include_system;
	r.backward = q->backward;
	if (q->from == CLIENT_FROM_SEQUENCE) {
		r.from_case = CAIRN__JOURNAL__V1__READ_REQUEST__FROM_FROM_SEQUENCE;
		r.from_sequence = q->from_value;
	} else if (q->from == CLIENT_FROM_POSITION) {
		r.from_case = CAIRN__JOURNAL__V1__READ_REQUEST__FROM_FROM_POSITION;
		r.from_position = q->from_value;
	} else if (q->from == CLIENT_FROM_CURSOR) {
		r.from_case = CAIRN__JOURNAL__V1__READ_REQUEST__FROM_FROM_CURSOR;
		r.from_cursor = client_pack_cursor(&a, &q->from_cursor);
	} else if (q->from == CLIENT_FROM_TIME) {
		r.from_case = CAIRN__JOURNAL__V1__READ_REQUEST__FROM_FROM_TIME_US;
		r.from_time_us = q->from_value;
	}
	if (q->to == CLIENT_TO_SEQUENCE) {
		r.to_case = CAIRN__JOURNAL__V1__READ_REQUEST__TO_TO_SEQUENCE;
		r.to_sequence = q->to_value;
	} else if (q->to == CLIENT_TO_POSITION) {
		r.to_case = CAIRN__JOURNAL__V1__READ_REQUEST__TO_TO_POSITION;
		r.to_position = q->to_value;
	} else if (q->to == CLIENT_TO_TIME) {
		r.to_case = CAIRN__JOURNAL__V1__READ_REQUEST__TO_TO_TIME_US;
		r.to_time_us = q->to_value;
	}
	r.types = pack_spans(&a, q->types, r.n_types = q->type_count);
	r.stream_prefixes = pack_spans(&a, q->stream_prefixes, r.n_stream_prefixes = q->stream_prefix_count);
	r.kinds = pack_kinds(&a, q->kinds, &r.n_kinds);
	r.max_records = q->max_records;
	r.not_before = client_pack_cursor(&a, &q->not_before);
	bytes = client_pack(&r.base, ret_n);
	arena_release(&a);
	return bytes;
}

static uint8_t *pack_subscribe(const struct client *c, const struct client_query *q, size_t *ret_n)
{
	PB(SubscribeRequest) r;
	struct arena a;
	uint8_t *bytes;

	cairn__journal__v1__subscribe_request__init(&r);
	arena_init(&a, SIZE_MAX);
	r.journal = pb_bytes(span_str(c->journal));
	if (q->stream.n) {
		r.source_case = CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__SOURCE_STREAM;
		r.stream = pb_bytes(q->stream);
	} else if (q->category.n) {
		r.source_case = CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__SOURCE_CATEGORY;
		r.category = pb_bytes(q->category);
	}
	r.include_system = q->include_system;
	if (q->from == CLIENT_FROM_SEQUENCE) {
		r.from_case = CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_SEQUENCE;
		r.from_sequence = q->from_value;
	} else if (q->from == CLIENT_FROM_POSITION) {
		r.from_case = CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_POSITION;
		r.from_position = q->from_value;
	} else if (q->from == CLIENT_FROM_CURSOR) {
		r.from_case = CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_CURSOR;
		r.from_cursor = client_pack_cursor(&a, &q->from_cursor);
	} else if (q->from == CLIENT_FROM_TIME) {
		r.from_case = CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_TIME_US;
		r.from_time_us = q->from_value;
	} else if (q->from == CLIENT_FROM_END) {
		r.from_case = CAIRN__JOURNAL__V1__SUBSCRIBE_REQUEST__FROM_FROM_END;
		r.from_end = true;
	}
	r.types = pack_spans(&a, q->types, r.n_types = q->type_count);
	r.stream_prefixes = pack_spans(&a, q->stream_prefixes, r.n_stream_prefixes = q->stream_prefix_count);
	r.kinds = pack_kinds(&a, q->kinds, &r.n_kinds);
	r.not_before = client_pack_cursor(&a, &q->not_before);
	bytes = client_pack(&r.base, ret_n);
	arena_release(&a);
	return bytes;
}

static uint8_t *pack_load(const struct client *c, const struct client_load *l, size_t *ret_n)
{
	PB(LoadRequest) r;
	struct arena a;
	uint8_t *bytes;

	cairn__journal__v1__load_request__init(&r);
	arena_init(&a, SIZE_MAX);
	r.journal = pb_bytes(span_str(c->journal));
	r.stream = pb_bytes(l->stream);
	if (l->has_at_sequence) {
		r.has_at_sequence_case = CAIRN__JOURNAL__V1__LOAD_REQUEST__HAS_AT_SEQUENCE_AT_SEQUENCE;
		r.at_sequence = l->at_sequence;
	}
	r.not_before = client_pack_cursor(&a, &l->not_before);
	bytes = client_pack(&r.base, ret_n);
	arena_release(&a);
	return bytes;
}

/* ---- responses ---------------------------------------------------------------------------------- */

/* Hands the run of records over one by one; *message is left at what is behind it. */
static enum err_code read_records(struct client_read *r, struct span *message, size_t *ret_records)
{
	struct record_view view;
	struct span entry, whole;

	*ret_records = 0;
	while (message->n && message->p[0] == FIELD_1_BYTES) {
		enum err_code code = record_next(message, &entry, &whole, &r->fault);

		if (!code)
			code = record_decode(entry, &view, &r->fault);
		if (code)
			return err_wrap(&r->fault, "a record from the journal");
		++*ret_records;
		if (r->ops.on_record)
			r->ops.on_record(r, &view, r->arg);
		if (r->ops.on_entry)
			r->ops.on_entry(r, &view, whole, r->arg);
	}
	return ERR_OK;
}

/* The fields behind the records. */
static bool page_of(struct client_read *r, struct span rest, struct client_page *ret)
{
	struct arena a;
	bool ok = true;

	arena_init(&a, LIMIT_GRPC_MESSAGE_BYTES);
	if (r->response == CLIENT_READ) {
		PB(ReadResponse) *pb = (void *)grpc_unpack(PB_TYPE(read_response), &a, rest);

		if ((ok = pb != NULL)) {
			client_unpack_cursor(pb->cursor, &ret->cursor);
			ret->end = pb->end;
		}
	} else if (r->response == CLIENT_LOAD) {
		PB(LoadResponse) *pb = (void *)grpc_unpack(PB_TYPE(load_response), &a, rest);

		if ((ok = pb != NULL)) {
			client_unpack_cursor(pb->cursor, &ret->cursor);
			ret->end = pb->end;
			ret->sequence = pb->sequence;
		}
	} else {
		PB(SubscribeResponse) *pb = (void *)grpc_unpack(PB_TYPE(subscribe_response), &a, rest);

		if ((ok = pb != NULL)) {
			client_unpack_cursor(pb->cursor, &ret->cursor);
			ret->caught_up = pb->caught_up;
		}
	}
	arena_release(&a);
	return ok;
}

static void read_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct client_read *r = user;
	struct client_page page = {0};

	if (r->fault.code)
		return; /* what had arrived before the cancellation took effect */
	if (read_records(r, &message, &page.records)) {
		grpc_call_cancel(call);
		return;
	}
	if (!page_of(r, message, &page)) {
		err_set(&r->fault, ERR_CORRUPT, "the server's answer is malformed");
		grpc_call_cancel(call);
		return;
	}
	if (r->ops.on_page)
		r->ops.on_page(r, &page, r->arg);
}

static void read_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct client_read *r = user;
	struct client_error error;

	(void)call;
	client_error_of_result(r->client, result, &error);
	if (r->fault.code)
		error = (struct client_error){.code = GRPC_DATA_LOSS, .text = span_str(r->fault.text)};
	list_remove(&r->node);
	r->ops.on_done(r, &error, r->arg);
	mem_free(r);
}

static const struct grpc_call_ops read_ops = {
	.on_message = read_on_message,
	.on_done = read_on_done,
};

/* ---- calls -------------------------------------------------------------------------------------- */

static struct client_read *read_start(struct client *c, const char *path, enum client_response response,
				      uint8_t *bytes, size_t n, int64_t deadline_ms,
				      const struct client_read_ops *ops, void *arg)
{
	static const struct headers none = {0};
	struct client_read *r = mem_xalloc(sizeof(*r));

	must(ops->on_done);
	must(!c->closing);
	must(bytes); /* names and numbers */
	r->client = c;
	r->ops = *ops;
	r->arg = arg;
	r->response = response;
	list_push_back(&c->reads, &r->node);
	r->call = grpc_channel_call(c->channel, path, &none, deadline_ms > 0 ? deadline_ms : -1,
				    deadline_ms > 0, &read_ops, r);
	grpc_call_send(r->call, span_of(bytes, n));
	grpc_call_half_close(r->call);
	mem_free(bytes);
	return r;
}

struct client_read *client_read(struct client *c, const struct client_query *query,
				const struct client_read_ops *ops, void *arg)
{
	size_t n = 0;
	uint8_t *bytes = pack_read(c, query, &n);

	must(query->from != CLIENT_FROM_END);
	return read_start(c, JOURNAL_METHOD("Read"), CLIENT_READ, bytes, n, query->deadline_ms, ops, arg);
}

struct client_read *client_subscribe(struct client *c, const struct client_query *query,
				     const struct client_read_ops *ops, void *arg)
{
	size_t n = 0;
	uint8_t *bytes = pack_subscribe(c, query, &n);

	must(!query->backward);
	must(query->to == CLIENT_TO_END);
	return read_start(c, JOURNAL_METHOD("Subscribe"), CLIENT_SUBSCRIBE, bytes, n, query->deadline_ms, ops,
			  arg);
}

struct client_read *client_load(struct client *c, const struct client_load *load,
				const struct client_read_ops *ops, void *arg)
{
	size_t n = 0;
	uint8_t *bytes = pack_load(c, load, &n);

	return read_start(c, JOURNAL_METHOD("Load"), CLIENT_LOAD, bytes, n, load->deadline_ms, ops, arg);
}

struct client_read *client_backup(struct client *c, const struct client_read_ops *ops, void *arg)
{
	PB(BackupRequest) r = CAIRN__JOURNAL__V1__BACKUP_REQUEST__INIT;
	size_t n = 0;

	r.journal = pb_bytes(span_str(c->journal));
	uint8_t *bytes = client_pack(&r.base, &n);
	return read_start(c, JOURNAL_METHOD("Backup"), CLIENT_READ, bytes, n, 0, ops, arg);
}

void client_read_cancel(struct client_read *r)
{
	grpc_call_cancel(r->call);
}

void client_read_hold(struct client_read *r, bool hold)
{
	grpc_call_hold_read(r->call, hold);
}
