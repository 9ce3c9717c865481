/* The client: connection, errors, cursors, and the unary calls. */
#include <config.h>

#include "journal/client_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"

/* ---- connection --------------------------------------------------------------------------------- */

static void client_on_state(struct grpc_channel *ch, enum grpc_channel_state state, const struct err *why,
			    void *arg)
{
	struct client *c = OBJ_CAST(struct client, arg, CLIENT_MAGIC);

	(void)ch;
	if (state == GRPC_CHANNEL_READY || (why && why->code)) {
		mem_free(c->trouble);
		c->trouble = state == GRPC_CHANNEL_READY ? NULL : mem_xstrdup(why->text);
	}
	if (c->closing)
		return;
	if (state == GRPC_CHANNEL_READY)
		client_appends_on_ready(c);
	if (c->on_state)
		c->on_state(c, state, why, c->arg);
}

struct client *client_new(struct loop *loop, const struct client_config *config)
{
	struct client *c = mem_xalloc(sizeof(*c));
	struct grpc_channel_config channel = {
		.target = config->target,
		.backoff_min_ms = 50,
		.backoff_max_ms = 1000,
		.peer = config->advice ? "the journal" : NULL,
		.advice = config->advice,
	};

	must(config->target);
	c->magic = CLIENT_MAGIC;
	c->loop = loop;
	c->journal = mem_xstrdup(config->journal ? config->journal : "");
	c->target = mem_xstrdup(config->target);
	c->on_state = config->on_state;
	c->arg = config->arg;
	list_init(&c->reads);
	client_appends_init(c);
	c->channel = grpc_channel_new(loop, &channel, client_on_state, c);
	return c;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	must(c->magic == CLIENT_MAGIC);
	c->closing = true;
	client_appends_release(c);
	grpc_channel_free(c->channel);
	must(list_empty(&c->reads));
	mem_free(c->journal);
	mem_free(c->target);
	mem_free(c->trouble);
	c->magic = 0;
	mem_free(c);
}

enum grpc_channel_state client_state(const struct client *c)
{
	return grpc_channel_state(c->channel);
}

/* ---- errors ------------------------------------------------------------------------------------- */

static const enum err_code err_of_grpc[] = {
	[GRPC_OK] = ERR_OK,
	[GRPC_CANCELLED] = ERR_CANCELLED,
	[GRPC_UNKNOWN] = ERR_INTERNAL,
	[GRPC_INVALID_ARGUMENT] = ERR_INVALID,
	[GRPC_DEADLINE_EXCEEDED] = ERR_TIMEOUT,
	[GRPC_NOT_FOUND] = ERR_NOT_FOUND,
	[GRPC_ALREADY_EXISTS] = ERR_EXISTS,
	[GRPC_PERMISSION_DENIED] = ERR_INVALID,
	[GRPC_RESOURCE_EXHAUSTED] = ERR_FULL,
	[GRPC_FAILED_PRECONDITION] = ERR_CONFLICT,
	[GRPC_ABORTED] = ERR_CONFLICT,
	[GRPC_OUT_OF_RANGE] = ERR_INVALID,
	[GRPC_UNIMPLEMENTED] = ERR_UNSUPPORTED,
	[GRPC_INTERNAL] = ERR_INTERNAL,
	[GRPC_UNAVAILABLE] = ERR_UNAVAILABLE,
	[GRPC_DATA_LOSS] = ERR_CORRUPT,
	[GRPC_UNAUTHENTICATED] = ERR_INVALID,
};

enum err_code client_error_to_err(const struct client_error *e, struct err *err)
{
	enum err_code code = (size_t)e->code < ARRAY_LEN(err_of_grpc) ? err_of_grpc[e->code] : ERR_INTERNAL;

	if (code == ERR_OK)
		return ERR_OK;
	return err_set(err, code, "%s: %.*s", grpc_code_name(e->code), SPAN_ARG(e->text));
}

void client_error_of_result(const struct client *c, const struct grpc_result *result,
			    struct client_error *ret)
{
	*ret = (struct client_error){
		.code = result->code,
		.text = result->message,
		.unreachable = result->not_sent || (result->reset && !result->http2_error),
	};
	/* Waiting for a connection that cannot be had ends as a deadline; say what the matter is. */
	if (result->code != GRPC_OK && result->not_sent && c->trouble)
		ret->text = span_str(c->trouble);
}

/* ---- messages ----------------------------------------------------------------------------------- */

void *client_zalloc(struct arena *a, size_t n)
{
	void *p = arena_zalloc(a, n);

	must(p);
	return p;
}

uint8_t *client_pack(const ProtobufCMessage *message, size_t *ret_n)
{
	size_t n = protobuf_c_message_get_packed_size(message);
	uint8_t *p = mem_try_alloc(n ? n : 1);

	if (p)
		*ret_n = protobuf_c_message_pack(message, p);
	return p;
}

PB(Cursor) *client_pack_cursor(struct arena *a, const struct client_cursor *cursor)
{
	PB(Cursor) *pb;

	if (!cursor->incarnation)
		return NULL;
	pb = client_zalloc(a, sizeof(*pb));
	cairn__journal__v1__cursor__init(pb);
	pb->journal_id = pb_bytes(span_of(cursor->journal_id, sizeof(cursor->journal_id)));
	pb->incarnation = cursor->incarnation;
	pb->position = cursor->position;
	return pb;
}

void client_unpack_cursor(const PB(Cursor) *cursor, struct client_cursor *ret)
{
	*ret = (struct client_cursor){0};
	if (!cursor || cursor->journal_id.len != sizeof(ret->journal_id))
		return;
	memcpy(ret->journal_id, cursor->journal_id.data, sizeof(ret->journal_id));
	ret->incarnation = cursor->incarnation;
	ret->position = cursor->position;
}

/* ---- stat and lists ----------------------------------------------------------------------------- */

typedef void stat_done_fn(const struct client_stat *answer, const struct client_error *error, void *arg);
typedef void list_done_fn(const struct client_page_of_streams *answer, const struct client_error *error,
			  void *arg);

struct unary {
	struct client *client;
	stat_done_fn *stat_done;
	list_done_fn *list_done;
	void *arg;
};

static void unary_start(struct client *c, const char *path, const ProtobufCMessage *message,
			int64_t deadline_ms, struct unary *u,
			void (*done)(const struct grpc_result *result, struct span reply, void *arg))
{
	size_t n = 0;
	uint8_t *bytes = client_pack(message, &n);

	must(bytes); /* a name and some numbers */
	u->client = c;
	grpc_channel_unary(c->channel, path, span_of(bytes, n), deadline_ms > 0 ? deadline_ms : -1,
			   deadline_ms > 0, done, u);
	mem_free(bytes);
}

static const struct client_error malformed_answer = {
	.code = GRPC_INTERNAL,
	.text = {(const uint8_t *)"the server's answer is malformed", 32},
};

static void stream_info_of(const PB(StreamInfo) *pb, struct client_stream_info *ret)
{
	*ret = (struct client_stream_info){
		.name = pb_span(pb->name),
		.sequence = pb->sequence,
		.records = pb->records,
		.first_position = pb->first_position,
		.last_position = pb->last_position,
	};
}

static bool stat_of(const PB(StatResponse) *pb, struct arena *a, struct client_stat *ret)
{
	struct span *features = arena_zalloc(a, (pb->n_features + 1) * sizeof(*features));
	struct span *names = arena_zalloc(a, (pb->n_limits + 1) * sizeof(*names));
	uint64_t *values = arena_zalloc(a, (pb->n_limits + 1) * sizeof(*values));

	if (!features || !names || !values)
		return false;
	for (size_t i = 0; i < pb->n_features; i++)
		features[i] = pb_span(pb->features[i]);
	for (size_t i = 0; i < pb->n_limits; i++) {
		names[i] = pb_span(pb->limits[i]->name);
		values[i] = pb->limits[i]->value;
	}
	*ret = (struct client_stat){
		.last_commit = {(int64_t)pb->last_commit_time_us},
		.storage = pb_span(pb->storage),
		.version = pb_span(pb->version),
		.features = features,
		.feature_count = pb->n_features,
		.limit_names = names,
		.limit_values = values,
		.limit_count = pb->n_limits,
		.has_stream = pb->stream != NULL,
	};
	client_unpack_cursor(pb->head, &ret->head);
	if (pb->stream)
		stream_info_of(pb->stream, &ret->stream);
	return true;
}

static void stat_on_done(const struct grpc_result *result, struct span reply, void *arg)
{
	struct unary *u = arg;
	struct client_error error;
	struct client_stat stat;
	struct arena a;

	arena_init(&a, 4 * LIMIT_GRPC_MESSAGE_BYTES);
	client_error_of_result(u->client, result, &error);
	if (result->code != GRPC_OK) {
		u->stat_done(NULL, &error, u->arg);
	} else {
		PB(StatResponse) *pb = (void *)grpc_unpack(PB_TYPE(stat_response), &a, reply);
		bool ok = pb && stat_of(pb, &a, &stat);

		u->stat_done(ok ? &stat : NULL, ok ? &error : &malformed_answer, u->arg);
	}
	arena_release(&a);
	mem_free(u);
}

void client_stat(struct client *c, struct span stream, int64_t deadline_ms, stat_done_fn *done, void *arg)
{
	PB(StatRequest) request = CAIRN__JOURNAL__V1__STAT_REQUEST__INIT;
	struct unary *u = mem_xalloc(sizeof(*u));

	request.journal = pb_bytes(span_str(c->journal));
	request.stream = pb_bytes(stream);
	u->stat_done = done;
	u->arg = arg;
	unary_start(c, JOURNAL_METHOD("Stat"), &request.base, deadline_ms, u, stat_on_done);
}

static void list_on_done(const struct grpc_result *result, struct span reply, void *arg)
{
	struct unary *u = arg;
	struct client_error error;
	struct client_page_of_streams page = {0};
	PB(ListStreamsResponse) *pb = NULL;
	struct client_stream_info *streams = NULL;
	struct arena a;

	arena_init(&a, 4 * LIMIT_GRPC_MESSAGE_BYTES);
	client_error_of_result(u->client, result, &error);
	if (result->code == GRPC_OK) {
		pb = (void *)grpc_unpack(PB_TYPE(list_streams_response), &a, reply);
		if (pb)
			streams = arena_zalloc(&a, (pb->n_streams + 1) * sizeof(*streams));
		if (!streams)
			error = malformed_answer;
	}
	if (streams) {
		for (size_t i = 0; i < pb->n_streams; i++)
			stream_info_of(pb->streams[i], &streams[i]);
		page.streams = streams;
		page.count = pb->n_streams;
		page.next_page_token = pb_span(pb->next_page_token);
	}
	u->list_done(streams ? &page : NULL, &error, u->arg);
	arena_release(&a);
	mem_free(u);
}

void client_list_streams(struct client *c, struct span prefix, bool include_system, struct span page_token,
			 size_t page_size, int64_t deadline_ms, list_done_fn *done, void *arg)
{
	PB(ListStreamsRequest) request = CAIRN__JOURNAL__V1__LIST_STREAMS_REQUEST__INIT;
	struct unary *u = mem_xalloc(sizeof(*u));

	request.journal = pb_bytes(span_str(c->journal));
	request.prefix = pb_bytes(prefix);
	request.include_system = include_system;
	request.page_token = pb_bytes(page_token);
	request.page_size = page_size > UINT32_MAX ? UINT32_MAX : (uint32_t)page_size;
	u->list_done = done;
	u->arg = arg;
	unary_start(c, JOURNAL_METHOD("ListStreams"), &request.base, deadline_ms, u, list_on_done);
}
