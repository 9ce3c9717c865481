#include <config.h>

#include "grpc/call.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "grpc/conn.h"
#include "grpc/gzip.h"
#include "grpc/wire.h"

/* Messages below this are sent as they are, whatever the peer accepts. */
#define CALL_GZIP_MIN_BYTES (1 * KIB)

static const struct stream_ops call_server_stream_ops, call_client_stream_ops;

/* ---- life -------------------------------------------------------------------------------------------- */

struct grpc_call *grpc_call_ref(struct grpc_call *call)
{
	must(call->magic == CALL_MAGIC);
	call->refs++;
	return call;
}

void grpc_call_unref(struct grpc_call *call)
{
	if (!call)
		return;
	must(call->magic == CALL_MAGIC);
	must(call->refs > 0);
	if (--call->refs)
		return;
	must(call->state == CALL_DONE);
	loop_timer_free(call->timer);
	deframer_release(&call->in);
	buf_release(&call->request);
	buf_release(&call->sent);
	stream_detach(call->stream);
	call->magic = 0;
	mem_free(call);
}

void grpc_call_bind(struct grpc_call *call, const struct grpc_call_ops *ops, void *user)
{
	must(call->magic == CALL_MAGIC);
	call->ops = ops;
	call->user = user;
}

/* The one place where on_done is called. */
static void call_done(struct grpc_call *call)
{
	if (call->state == CALL_DONE)
		return;
	call->state = CALL_DONE;
	call->stream->ops = NULL;
	list_remove(&call->node);
	loop_undefer(&call->end_task);
	if (call->timer)
		loop_timer_cancel(call->timer);
	stream_charge(call->stream, 0);
	if (call->ops && call->ops->on_done)
		call->ops->on_done(call, &call->result, call->user);
	grpc_call_unref(call);
}

static void call_run_end(struct loop_task *task)
{
	call_done(CONTAINER_OF(task, struct grpc_call, end_task));
}

static void call_set_result(struct grpc_call *call, enum grpc_code code, const char *message, bool not_sent)
{
	call->result = (struct grpc_result){.code = code,
					    .message = arena_dup(&call->stream->arena, span_str(message)),
					    .not_sent = not_sent};
}

static void call_stop(struct grpc_call *call)
{
	call->stream->ops = NULL;
	stream_reset(call->stream, HTTP2_CANCEL);
}

void call_end(struct grpc_call *call, enum grpc_code code, const char *message, bool not_sent)
{
	if (call->state == CALL_DONE)
		return;
	call_set_result(call, code, message, not_sent);
	call->result.local = true;
	call_stop(call);
	call_done(call);
}

void call_end_later(struct grpc_call *call, enum grpc_code code, const char *message, bool not_sent)
{
	if (call->state == CALL_DONE || list_linked(&call->end_task.node))
		return;
	call_set_result(call, code, message, not_sent);
	call->result.local = true;
	call_stop(call);
	call->state = CALL_ENDING;
	list_remove(&call->node);
	loop_defer(call->loop, &call->end_task);
}

void grpc_call_cancel(struct grpc_call *call)
{
	must(call->magic == CALL_MAGIC);
	call_end_later(call, GRPC_CANCELLED, "cancelled by this side", call->state == CALL_WAITING);
}

static void call_init(struct grpc_call *call, struct loop *loop, struct stream *s, size_t message_max_bytes)
{
	call->magic = CALL_MAGIC;
	call->refs = 1;
	call->loop = loop;
	call->stream = s;
	call->deadline_us = -1;
	call->end_task.run = call_run_end;
	deframer_init(&call->in, message_max_bytes);
	buf_init(&call->request, message_max_bytes);
	buf_init(&call->sent, LIMIT_RESEND_BYTES);
}

/* ---- deadlines --------------------------------------------------------------------------------------- */

static void call_on_deadline(void *arg)
{
	struct grpc_call *call = OBJ_CAST(struct grpc_call, arg, CALL_MAGIC);
	struct stream *s = call->stream;
	if (call->server && call->state == CALL_OPEN && s->out.n == 0) {
		/* The client may still hear it; he may be waiting a little longer than he said. */
		grpc_call_finish(call, GRPC_DEADLINE_EXCEEDED, SPAN("deadline exceeded"), NULL);
		call->result.code = GRPC_DEADLINE_EXCEEDED;
		call->result.message = SPAN("deadline exceeded");
		call_done(call);
		return;
	}
	call_end(call, GRPC_DEADLINE_EXCEEDED, "deadline exceeded", call->state == CALL_WAITING);
}

void call_set_deadline(struct grpc_call *call, int64_t timeout_ms)
{
	const int64_t most = INT64_MAX / 4000;
	if (timeout_ms > most)
		timeout_ms = most;
	call->deadline_us = clock_mono(&clock_system).us + timeout_ms * 1000;
	call->timer = loop_timer_new(call->loop, call_on_deadline, call);
	loop_timer_set(call->timer, timeout_ms);
}

int64_t grpc_call_remaining_ms(const struct grpc_call *call)
{
	if (call->deadline_us < 0)
		return -1;
	int64_t left = call->deadline_us - clock_mono(&clock_system).us;
	return left > 0 ? (left + 999) / 1000 : 0;
}

/* ---- output ------------------------------------------------------------------------------------------ */

static bool call_can_send(const struct grpc_call *call)
{
	return (call->state == CALL_OPEN || call->state == CALL_WAITING) && !call->stream->out_ended &&
	       !call->stream->reset_sent;
}

/* The spans need only live until the headers are handed on. */
static void call_add_header(struct header_list *list, struct arena *a, enum err_code *rc, struct span name,
			    struct span value)
{
	if (*rc == ERR_OK)
		*rc = header_list_put(list, a, name, value);
}

/* The server's first headers; with end, the status is among them and nothing follows (trailers-only). */
static void call_respond(struct grpc_call *call, const struct headers *metadata, const struct headers *status)
{
	struct arena *a = &call->stream->arena;
	struct header first[8];
	struct header_list list = HEADER_LIST_ON(first);
	enum err_code rc = ERR_OK;
	call->headers_sent = true;
	call_add_header(&list, a, &rc, SPAN(":status"), SPAN("200"));
	call_add_header(&list, a, &rc, SPAN("content-type"), SPAN("application/grpc"));
	call_add_header(&list, a, &rc, SPAN("grpc-accept-encoding"), SPAN("identity,gzip"));
	if (call->gzip_out && !status)
		call_add_header(&list, a, &rc, SPAN("grpc-encoding"), SPAN("gzip"));
	if (rc == ERR_OK)
		rc = wire_metadata_write(metadata, a, &list);
	for (size_t i = 0; status && i < status->n; i++)
		call_add_header(&list, a, &rc, status->items[i].name, status->items[i].value);
	if (rc)
		stream_reset(call->stream, HTTP2_INTERNAL_ERROR);
	else
		stream_respond(call->stream, &list.h, status != NULL);
}

void grpc_call_send_headers(struct grpc_call *call, const struct headers *metadata)
{
	must(call->magic == CALL_MAGIC);
	must(call->server);
	if (call->state == CALL_OPEN && !call->headers_sent)
		call_respond(call, metadata, NULL);
}

/* Says how the message goes out: as it is, or compressed into packed (then true). */
static bool call_compress(const struct grpc_call *call, struct span message, struct buf *packed)
{
	if (!call->gzip_out || message.n < CALL_GZIP_MIN_BYTES)
		return false;
	buf_init(packed, message.n); /* it must become smaller, or it is not worth it */
	if (gzip_deflate(packed, message) == ERR_OK)
		return true;
	buf_release(packed);
	return false;
}

/* A message's compressed bytes on their way, and what the sender wants to be told when they are gone. */
struct packed {
	uint8_t *bytes;
	void (*free_fn)(void *arg);
	void *free_arg;
};

static void packed_free(void *arg)
{
	struct packed *packed = arg;
	mem_free(packed->bytes);
	if (packed->free_fn)
		packed->free_fn(packed->free_arg);
	mem_free(packed);
}

static void call_write_packed(struct grpc_call *call, struct buf *bytes, void (*free_fn)(void *arg),
			      void *free_arg)
{
	struct packed *packed = mem_xalloc(sizeof(*packed));
	size_t n;
	*packed = (struct packed){buf_detach(bytes, &n), free_fn, free_arg};
	stream_write_ref(call->stream, span_of(packed->bytes, n), packed_free, packed);
}

static void call_forget_sent(struct grpc_call *call)
{
	call->resend = false;
	buf_release(&call->sent);
}

static void call_keep_sent(struct grpc_call *call, struct span piece)
{
	if (call->resend && buf_append_span(&call->sent, piece))
		call_forget_sent(call);
}

static bool call_send(struct grpc_call *call, struct span message, void (*free_fn)(void *arg), void *free_arg)
{
	must(call->magic == CALL_MAGIC);
	if (!call_can_send(call)) {
		if (free_fn)
			free_fn(free_arg);
		return false;
	}
	if (call->server && !call->headers_sent)
		call_respond(call, NULL, NULL);
	struct stream *s = call->stream;
	struct buf packed;
	bool compressed = call_compress(call, message, &packed);
	uint8_t prefix[FRAME_PREFIX_BYTES];
	frame_prefix(prefix, compressed, compressed ? packed.n : message.n);
	call_keep_sent(call, span_of(prefix, sizeof(prefix)));
	call_keep_sent(call, compressed ? buf_span(&packed) : message);
	/* A failed write has reset the stream, and on_done will say so. */
	stream_write(s, span_of(prefix, sizeof(prefix)));
	if (compressed) {
		call_write_packed(call, &packed, free_fn, free_arg);
	} else if (free_fn) {
		stream_write_ref(s, message, free_fn, free_arg);
	} else {
		stream_write(s, message);
	}
	stream_written(s);
	return stream_writable(s);
}

bool grpc_call_send(struct grpc_call *call, struct span message)
{
	return call_send(call, message, NULL, NULL);
}

static void call_free_nothing(void *arg)
{
	(void)arg;
}

bool grpc_call_send_ref(struct grpc_call *call, struct span message, void (*free_fn)(void *arg),
			void *free_arg)
{
	return call_send(call, message, free_fn ? free_fn : call_free_nothing, free_arg);
}

bool grpc_call_writable(const struct grpc_call *call)
{
	return call_can_send(call) && stream_writable(call->stream);
}

size_t grpc_call_memory_bytes(const struct grpc_call *call)
{
	const struct stream *s = call->stream;
	must(call->magic == CALL_MAGIC);
	return sizeof *call + sizeof *s + s->arena.used_bytes + s->out.n + call->in.body.cap_bytes +
	       call->in.inflated.cap_bytes + call->request.cap_bytes + call->sent.cap_bytes;
}

static void call_finish_failed(struct grpc_call *call)
{
	stream_reset(call->stream, HTTP2_INTERNAL_ERROR);
}

void grpc_call_finish(struct grpc_call *call, enum grpc_code code, struct span message,
		      const struct headers *trailers)
{
	must(call->magic == CALL_MAGIC);
	must(call->server);
	if (call->state != CALL_OPEN)
		return;
	struct arena *a = &call->stream->arena;
	struct header first[4];
	struct header_list list = HEADER_LIST_ON(first);
	char number[12];
	int n = snprintf(number, sizeof(number), "%d", (int)code);
	enum err_code rc = header_list_put(&list, a, SPAN("grpc-status"), span_of(number, (size_t)n));
	if (message.n) {
		struct span encoded = wire_message_encode(message, LIMIT_STATUS_BYTES, a);
		call_add_header(&list, a, &rc, SPAN("grpc-message"), encoded);
	}
	if (rc == ERR_OK)
		rc = wire_metadata_write(trailers, a, &list);
	call->state = CALL_ENDING;
	call->result.code = code;
	call->result.message = arena_dup(a, message);
	if (call->timer)
		loop_timer_cancel(call->timer);
	if (rc)
		call_finish_failed(call);
	else if (call->headers_sent)
		stream_end(call->stream, &list.h);
	else
		call_respond(call, NULL, &list.h);
}

void grpc_call_finish_err(struct grpc_call *call, const struct err *err)
{
	grpc_call_finish(call, grpc_code_of(err->code), span_str(err->text), NULL);
}

void grpc_call_reply(struct grpc_call *call, struct span message)
{
	call_send(call, message, NULL, NULL);
	grpc_call_finish(call, GRPC_OK, SPAN(""), NULL);
}

void grpc_call_half_close(struct grpc_call *call)
{
	must(call->magic == CALL_MAGIC);
	must(!call->server);
	if (call_can_send(call))
		stream_end(call->stream, NULL);
}

void grpc_call_hold_read(struct grpc_call *call, bool hold)
{
	must(call->magic == CALL_MAGIC);
	if (call->state != CALL_DONE)
		stream_hold(call->stream, hold);
}

/* ---- what it is --------------------------------------------------------------------------------------- */

struct span grpc_call_path(const struct grpc_call *call)
{
	return call->path;
}

const struct headers *grpc_call_metadata(const struct grpc_call *call)
{
	return &call->metadata;
}

struct loop *grpc_call_loop(const struct grpc_call *call)
{
	return call->loop;
}

const char *grpc_call_peer(const struct grpc_call *call)
{
	if (!call->stream->session)
		return "unknown";
	const struct conn *conn = OBJ_CAST(struct conn, session_user(call->stream->session), CONN_MAGIC);
	return conn->peer;
}

/* ---- input, both sides -------------------------------------------------------------------------------- */

/* What a connection's calls hold of messages that are not whole yet is limited in sum. False: too much. */
static bool call_charge(struct grpc_call *call)
{
	const struct deframer *d = &call->in;
	size_t now = d->body.cap_bytes + d->inflated.cap_bytes + call->request.cap_bytes;
	return stream_charge(call->stream, call->state == CALL_DONE ? 0 : now);
}

static bool call_listens(const struct grpc_call *call)
{
	return call->state == CALL_OPEN;
}

static void call_fault(struct grpc_call *call, enum grpc_code code, const char *message)
{
	if (call->server)
		grpc_call_finish(call, code, span_str(message), NULL);
	else
		call_end(call, code, message, false);
}

static void call_deliver(struct grpc_call *call, struct span message)
{
	if (!call->method || !call->method->unary) {
		if (call->ops && call->ops->on_message)
			call->ops->on_message(call, message, call->user);
		return;
	}
	if (call->got_request) {
		call_fault(call, GRPC_UNIMPLEMENTED, "more than one request message for a unary method");
		return;
	}
	call->got_request = true;
	if (buf_append_span(&call->request, message))
		call_fault(call, GRPC_RESOURCE_EXHAUSTED, "out of memory for the request");
}

static void call_on_data(struct stream *s, struct span piece)
{
	struct grpc_call *call = OBJ_CAST(struct grpc_call, s->user, CALL_MAGIC);
	grpc_call_ref(call);
	while (call_listens(call)) {
		struct span message;
		struct err err = {0};
		int r = deframer_next(&call->in, &piece, &message, &err);
		if (r == 0)
			break;
		if (r > 0)
			call_deliver(call, message);
		else
			call_fault(call,
				   err.code == ERR_LIMIT || err.code == ERR_NOMEM ? GRPC_RESOURCE_EXHAUSTED
										  : GRPC_INTERNAL,
				   err.text);
	}
	if (!call_charge(call) && call_listens(call))
		call_fault(call, GRPC_RESOURCE_EXHAUSTED, "too many unfinished messages on this connection");
	grpc_call_unref(call);
}

static void call_on_writable(struct stream *s)
{
	struct grpc_call *call = OBJ_CAST(struct grpc_call, s->user, CALL_MAGIC);
	if (call_can_send(call) && call->ops && call->ops->on_writable)
		call->ops->on_writable(call, call->user);
}

/* The server has certainly not begun it: begins it anew, once. False: it cannot be. */
static bool call_begin_again(struct grpc_call *call)
{
	struct stream *s = call->stream;
	bool half_closed = s->out_ended;
	/* Red under it: retry, what_was_begun_is_not_begun_again. */
	bool begun = s->got_headers && !plant("begun-call-begun-again");
	if (call->state != CALL_OPEN || !call->resend || call->refused || begun)
		return false;
	stream_reopen(s);
	if (stream_write(s, buf_span(&call->sent)))
		return false;
	if (half_closed)
		stream_end(s, NULL);
	call_forget_sent(call);
	call->refused = true;
	call->state = CALL_WAITING;
	call->on_refused(call);
	return true;
}

static void call_on_close(struct stream *s, uint32_t http2_error, bool lost)
{
	struct grpc_call *call = OBJ_CAST(struct grpc_call, s->user, CALL_MAGIC);
	if (!call->server && !lost && http2_error == HTTP2_REFUSED_STREAM && call_begin_again(call))
		return;
	/* A server's status is on the wire once its END_STREAM is, whatever ended the stream. */
	if (!(call->server && call->state == CALL_ENDING && s->out_flushed)) {
		char text[192] = "connection lost";
		enum grpc_code code = lost ? GRPC_UNAVAILABLE : wire_code_of_reset(http2_error);
		if (!lost)
			snprintf(text, sizeof(text), "stream reset with HTTP/2 error %u", http2_error);
		else if (call->peer)
			snprintf(text, sizeof(text), "%.150s: the connection was lost", call->peer);
		if (lost && call->server)
			code = GRPC_CANCELLED;
		/* The server's clock was ahead of our timer: that is why it gave up. */
		if (code == GRPC_CANCELLED && !call->server && grpc_call_remaining_ms(call) == 0)
			code = GRPC_DEADLINE_EXCEEDED;
		call_set_result(call, code, text,
				!call->server && !lost && http2_error == HTTP2_REFUSED_STREAM);
		call->result.reset = true;
		call->result.http2_error = lost ? 0 : http2_error;
	}
	call_done(call);
}

/* ---- server ------------------------------------------------------------------------------------------- */

static void call_server_on_end(struct stream *s)
{
	struct grpc_call *call = OBJ_CAST(struct grpc_call, s->user, CALL_MAGIC);
	if (!call_listens(call))
		return;
	if (!deframer_empty(&call->in)) {
		call_fault(call, GRPC_INTERNAL, "the request ends within a message");
		return;
	}
	if (!call->method || !call->method->unary) {
		if (call->ops && call->ops->on_half_close)
			call->ops->on_half_close(call, call->user);
		return;
	}
	if (!call->got_request) {
		call_fault(call, GRPC_UNIMPLEMENTED, "no request message for a unary method");
		return;
	}
	grpc_call_ref(call);
	call->method->unary(call, buf_span(&call->request), call->method->arg);
	buf_release(&call->request);
	grpc_call_unref(call);
}

static const struct stream_ops call_server_stream_ops = {
	.on_data = call_on_data,
	.on_end = call_server_on_end,
	.on_writable = call_on_writable,
	.on_close = call_on_close,
};

/* What the request's headers ask for; false if that has been answered with an error. */
static bool call_read_headers(struct grpc_call *call)
{
	const struct headers *h = &call->stream->headers.h;
	struct header_list metadata = {0};
	if (call->stream->headers_too_large) {
		call_fault(call, GRPC_RESOURCE_EXHAUSTED, "request headers are larger than 16 KiB");
		return false;
	}
	enum err_code rc = wire_metadata_read(h, &call->stream->arena, &metadata);
	if (rc) {
		call_fault(call, rc == ERR_INVALID ? GRPC_INTERNAL : GRPC_RESOURCE_EXHAUSTED,
			   rc == ERR_INVALID ? "a -bin header is not base64"
					     : "request headers are too large");
		return false;
	}
	call->metadata = metadata.h;
	struct span encoding = headers_get(h, "grpc-encoding");
	bool gzip = span_eq(encoding, SPAN("gzip"));
	if (encoding.n && !gzip && !span_eq(encoding, SPAN("identity"))) {
		call_fault(call, GRPC_UNIMPLEMENTED, "grpc-encoding is neither identity nor gzip");
		return false;
	}
	call->in.may_compress = gzip;
	call->gzip_out = gzip;
	struct span timeout = headers_get(h, "grpc-timeout");
	if (!timeout.p)
		return true;
	int64_t timeout_ms = wire_timeout_parse(timeout);
	if (timeout_ms < 0) {
		call_fault(call, GRPC_INTERNAL, "grpc-timeout is malformed");
		return false;
	}
	call_set_deadline(call, timeout_ms);
	return true;
}

struct grpc_call *call_accept(struct loop *loop, struct stream *s, size_t message_max_bytes)
{
	struct grpc_call *call = mem_try_alloc(sizeof(*call));
	if (!call) {
		stream_reset(s, HTTP2_ENHANCE_YOUR_CALM);
		return NULL;
	}
	memset(call, 0, sizeof(*call));
	call_init(call, loop, stream_ref(s), message_max_bytes);
	call->server = true;
	call->state = CALL_OPEN;
	call->path = headers_get(&s->headers.h, ":path");
	s->ops = &call_server_stream_ops;
	s->user = call;
	return call_read_headers(call) ? call : NULL;
}

void call_begin_method(struct grpc_call *call, const struct grpc_method *method)
{
	call->method = method;
	if (!method->unary)
		method->open(call, method->arg);
}

void call_unimplemented(struct grpc_call *call)
{
	call_fault(call, GRPC_UNIMPLEMENTED, "unknown service or method");
}

/* ---- client ------------------------------------------------------------------------------------------- */

struct grpc_call *call_new_client(struct loop *loop, struct span path, const struct headers *metadata,
				  size_t message_max_bytes, const struct grpc_call_ops *ops, void *user)
{
	struct grpc_call *call = mem_xalloc(sizeof(*call));
	struct stream *s = stream_new(&call_client_stream_ops, call);
	must(s);
	call_init(call, loop, s, message_max_bytes);
	call->state = CALL_WAITING;
	call->ops = ops;
	call->user = user;
	call->resend = true;
	call->path = arena_dup(&s->arena, path);
	if (!call->path.p || wire_metadata_write(metadata, &s->arena, &call->request_headers))
		call_end_later(call, GRPC_RESOURCE_EXHAUSTED, "path or metadata are too large", true);
	return call;
}

enum err_code call_start(struct grpc_call *call, struct session *session, struct span authority,
			 struct span user_agent)
{
	must(call->state == CALL_WAITING);
	struct arena *a = &call->stream->arena;
	struct header_list list = {0};
	enum err_code rc = ERR_OK;
	char timeout[WIRE_TIMEOUT_BYTES]; /* until session_start() has copied it */
	call_add_header(&list, a, &rc, SPAN(":method"), SPAN("POST"));
	call_add_header(&list, a, &rc, SPAN(":scheme"), SPAN("http"));
	call_add_header(&list, a, &rc, SPAN(":path"), call->path);
	call_add_header(&list, a, &rc, SPAN(":authority"), authority);
	call_add_header(&list, a, &rc, SPAN("te"), SPAN("trailers"));
	call_add_header(&list, a, &rc, SPAN("content-type"), SPAN("application/grpc"));
	call_add_header(&list, a, &rc, SPAN("user-agent"), user_agent);
	call_add_header(&list, a, &rc, SPAN("grpc-accept-encoding"), SPAN("identity,gzip"));
	if (call->deadline_us >= 0) {
		wire_timeout_format(grpc_call_remaining_ms(call), timeout);
		call_add_header(&list, a, &rc, SPAN("grpc-timeout"), span_str(timeout));
	}
	for (size_t i = 0; i < call->request_headers.h.n; i++)
		call_add_header(&list, a, &rc, call->request_headers.h.items[i].name,
				call->request_headers.h.items[i].value);
	if (rc == ERR_OK)
		rc = session_start(session, call->stream, &list.h, false);
	if (rc == ERR_OK)
		call->state = CALL_OPEN;
	return rc;
}

/* The end of the call is in these headers: trailers, or the only block there was. */
static void call_end_with(struct grpc_call *call, const struct headers *h)
{
	struct arena *a = &call->stream->arena;
	struct span status = headers_get(h, "grpc-status");
	struct header_list trailers = {0};
	if (!status.p) {
		char text[64];
		bool ok = call->http_status == 200;
		snprintf(text, sizeof(text), ok ? "the answer has no grpc-status" : "HTTP status %d",
			 call->http_status);
		call_set_result(call, ok ? GRPC_UNKNOWN : wire_code_of_http(call->http_status), text, false);
		call_done(call);
		return;
	}
	call->result =
		(struct grpc_result){.code = wire_code_of_status(status),
				     .message = wire_message_decode(headers_get(h, "grpc-message"), a)};
	if (call->result.code == GRPC_OK && !deframer_empty(&call->in))
		call_set_result(call, GRPC_INTERNAL, "the answer ends within a message", false);
	else if (wire_metadata_read(h, a, &trailers) == ERR_OK)
		call->result.trailers = trailers.h;
	call_done(call);
}

static void call_client_on_headers(struct stream *s)
{
	struct grpc_call *call = OBJ_CAST(struct grpc_call, s->user, CALL_MAGIC);
	const struct headers *h = &s->headers.h;
	call->http_status = wire_decimal(headers_get(h, ":status"));
	if (s->headers_too_large) {
		call_end(call, GRPC_RESOURCE_EXHAUSTED, "the answer's headers are larger than 16 KiB", false);
		return;
	}
	if (headers_get(h, "grpc-status").p)
		return; /* trailers-only: on_end comes next */
	if (call->http_status != 200 || !wire_is_grpc(headers_get(h, "content-type"))) {
		char text[96];
		snprintf(text, sizeof(text), "the answer is not gRPC: HTTP status %d", call->http_status);
		call_end(call, wire_code_of_http(call->http_status), text, false);
		return;
	}
	struct header_list metadata = {0};
	if (wire_metadata_read(h, &s->arena, &metadata)) {
		call_end(call, GRPC_INTERNAL, "a -bin header of the answer is not base64", false);
		return;
	}
	call->metadata = metadata.h;
	struct span encoding = headers_get(h, "grpc-encoding");
	call->in.may_compress = span_eq(encoding, SPAN("gzip"));
	if (encoding.n && !call->in.may_compress && !span_eq(encoding, SPAN("identity"))) {
		call_end(call, GRPC_INTERNAL, "the answer's grpc-encoding is neither identity nor gzip",
			 false);
		return;
	}
	call->got_headers = true;
	if (!plant("begun-call-begun-again"))
		call_forget_sent(call);
	if (call->ops->on_headers)
		call->ops->on_headers(call, &call->metadata, call->user);
}

static void call_client_on_end(struct stream *s)
{
	struct grpc_call *call = OBJ_CAST(struct grpc_call, s->user, CALL_MAGIC);
	if (!call_listens(call))
		return;
	if (s->headers_too_large)
		call_end(call, GRPC_RESOURCE_EXHAUSTED, "the answer's trailers are larger than 16 KiB",
			 false);
	else
		call_end_with(call, s->trailers.h.n ? &s->trailers.h : &s->headers.h);
}

static const struct stream_ops call_client_stream_ops = {
	.on_headers = call_client_on_headers,
	.on_data = call_on_data,
	.on_end = call_client_on_end,
	.on_writable = call_on_writable,
	.on_close = call_on_close,
};
