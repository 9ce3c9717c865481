#include <config.h>

#include "proxy/http_front.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "proxy/headers.h"
#include "proxy/http_binding.h"
#include "proxy/http_body.h"
#include "proxy/http_stream.h"
#include "proxy/transcode.h"

#define CALL_MAGIC 0x48545043u /* "HTPC" */

struct http_front {
	struct router *router;
	int64_t quiet_ms;
};

enum call_state {
	CALL_BODY,    /* the request's body is coming */
	CALL_RUNNING, /* the command is with the router */
	CALL_ANSWERED /* the answer is on its way; waits for on_done */
};

/* One request that has found its method. Freed in on_done. */
struct http_call {
	uint32_t magic;
	enum call_state state;
	struct http_front *front;
	struct http_exchange *x; /* held */
	struct spec *spec;       /* held: the match points into it */
	struct arena arena;      /* what lives as long as the call */
	struct http_match match;
	struct span query, content_type;
	struct metadata metadata; /* of the request, for the kinds that take it */
	struct buf body;
	struct command *command; /* CALL_RUNNING */
	struct http_stream stream; /* where the method's replies stream */
	/* the reply, until on_end */
	bool replied;
	struct buf answer;
	struct span answer_type;
	struct headers answer_headers;
};

int http_status_of(enum grpc_code code)
{
	switch (code) {
	case GRPC_OK: return 200;
	case GRPC_CANCELLED: return 499;
	case GRPC_INVALID_ARGUMENT: return 400;
	case GRPC_FAILED_PRECONDITION: return 400;
	case GRPC_OUT_OF_RANGE: return 400;
	case GRPC_UNAUTHENTICATED: return 401;
	case GRPC_PERMISSION_DENIED: return 403;
	case GRPC_NOT_FOUND: return 404;
	case GRPC_ALREADY_EXISTS: return 409;
	case GRPC_ABORTED: return 409;
	case GRPC_RESOURCE_EXHAUSTED: return 429;
	case GRPC_UNIMPLEMENTED: return 501;
	case GRPC_UNAVAILABLE: return 503;
	case GRPC_DEADLINE_EXCEEDED: return 504;
	case GRPC_UNKNOWN: return 500;
	case GRPC_INTERNAL: return 500;
	case GRPC_DATA_LOSS: return 500;
	}
	return 500; /* a code of the function's own */
}

static void respond_text(struct http_exchange *x, int status, struct span text)
{
	struct header type = {SPAN("content-type"), SPAN("text/plain; charset=UTF-8")};
	http_respond(x, status, &(struct headers){&type, 1}, text);
}

/* --- the answer -------------------------------------------------------------------------------------------
 */

static void call_answer_error(struct http_call *call, int status, struct span text)
{
	must(call->state != CALL_ANSWERED);
	call->state = CALL_ANSWERED;
	respond_text(call->x, status, text);
}

static void call_answer(struct http_call *call)
{
	struct header *items = arena_alloc(&call->arena, (call->answer_headers.n + 1) * sizeof(items[0]));
	if (!items) {
		call_answer_error(call, 500, SPAN("the reply's metadata is too large"));
		return;
	}
	items[0] = (struct header){SPAN("content-type"), call->answer_type};
	for (size_t i = 0; i < call->answer_headers.n; i++)
		items[i + 1] = call->answer_headers.items[i];
	call->state = CALL_ANSWERED;
	http_respond(call->x, 200, &(struct headers){items, call->answer_headers.n + 1},
		     buf_span(&call->answer));
}

/* Turns a reply's bytes into the answer that on_end sends; a reply that cannot be is kept as the error. */
static enum err_code call_take_reply(struct http_call *call, struct span reply, struct err *err)
{
	struct span type;
	enum err_code code =
		transcode_out(call->match.binding, reply, &call->arena, &call->answer, &type, err);
	if (!code)
		call->answer_type = type;
	return code;
}

static bool call_streams(const struct http_call *call)
{
	return call->match.binding->method->server_streaming;
}

static void call_fail(struct http_call *call, int status, enum grpc_code code, struct span text)
{
	if (!call->stream.started) {
		call_answer_error(call, status, text);
		return;
	}
	call->state = CALL_ANSWERED;
	http_stream_fail(&call->stream, code, text);
}

static void call_stream_reply(struct http_call *call, const struct any *payload, const struct metadata *metadata)
{
	struct err err = {0};
	bool room = true;
	if (!http_stream_send(&call->stream, payload->value, metadata, &room, &err)) {
		if (!room)
			command_hold(call->command, true);
		return;
	}
	struct command *command = call->command;
	call->command = NULL;
	call_fail(call, 500, GRPC_INTERNAL, span_str(err.text));
	command_cancel(command);
}

static void call_on_writable(struct http_exchange *x, void *arg)
{
	struct http_call *call = OBJ_CAST(struct http_call, arg, CALL_MAGIC);
	(void)x;
	if (call->command)
		command_hold(call->command, false);
}

static void call_on_reply(void *arg, const struct any *payload, const struct metadata *metadata)
{
	struct http_call *call = OBJ_CAST(struct http_call, arg, CALL_MAGIC);
	must(call->state == CALL_RUNNING || call->state == CALL_ANSWERED);
	if (call->state == CALL_ANSWERED || call->replied)
		return;
	if (call_streams(call)) {
		call_stream_reply(call, payload, metadata);
		return;
	}
	call->replied = true;
	struct err err = {0};
	struct headers headers = {0};
	enum err_code code = call_take_reply(call, payload->value, &err);
	if (!code && metadata)
		code = headers_from_metadata(metadata, HEADERS_HTTP, &call->arena, &headers);
	call->answer_headers = headers;
	if (code) {
		struct command *command = call->command;
		call->command = NULL;
		call_answer_error(call, 500, span_str(err.text));
		command_cancel(command);
	}
}

static void call_on_end(void *arg, const struct outcome *outcome)
{
	struct http_call *call = OBJ_CAST(struct http_call, arg, CALL_MAGIC);
	call->command = NULL;
	if (call->state == CALL_ANSWERED)
		return;
	if (outcome->code != GRPC_OK || outcome->failure) {
		call_fail(call, outcome->failure ? 500 : http_status_of(outcome->code), outcome->code,
			  outcome->message);
		return;
	}
	if (call_streams(call)) {
		call->state = CALL_ANSWERED;
		http_stream_end(&call->stream);
		return;
	}
	struct err err = {0};
	if (!call->replied && call_take_reply(call, SPAN(""), &err)) /* an empty message of that type */
		call_answer_error(call, 500, span_str(err.text));
	else
		call_answer(call);
}

static const struct reply_sink call_sink = {.on_reply = call_on_reply, .on_end = call_on_end};

/* --- the request ------------------------------------------------------------------------------------------
 */

static void call_on_body(struct http_exchange *x, struct span piece, void *arg)
{
	struct http_call *call = OBJ_CAST(struct http_call, arg, CALL_MAGIC);
	(void)x;
	if (call->state != CALL_BODY)
		return;
	enum err_code code = http_body_take(call->x, &call->body, piece);
	if (code == ERR_UNAVAILABLE) {
		call_answer_error(call, 503, SPAN("too many unfinished requests on this connection"));
	} else if (code) {
		char text[128];
		snprintf(text, sizeof(text), "the request's body is larger than %zu bytes",
			 LIMIT_HTTP_BODY_BYTES);
		call_answer_error(call, 413, span_str(text));
	}
}

static int status_of_request_error(enum err_code code)
{
	return code == ERR_INVALID ? 400 : code == ERR_LIMIT ? 413 : 500;
}

static void call_on_body_end(struct http_exchange *x, void *arg)
{
	struct http_call *call = OBJ_CAST(struct http_call, arg, CALL_MAGIC);
	(void)x;
	if (call->state != CALL_BODY)
		return;
	struct transcode_request request = {&call->match, call->query, call->content_type,
					    buf_span(&call->body)};
	struct arena work;
	struct buf payload;
	struct err err = {0};
	arena_init(&work, 8 * LIMIT_HTTP_BODY_BYTES);
	buf_init(&payload, LIMIT_HTTP_BODY_BYTES);
	enum err_code code = transcode_in(&request, &work, &payload, &err);
	const struct pb_method *pb = call->match.binding->method;
	const struct spec_service *service = spec_find_service(call->spec, pb->service->full_name);
	must(code || service);
	if (code) {
		err_set(&err, code, "the request is too large or too deeply nested");
		call_answer_error(call, status_of_request_error(code), span_str(err.text));
	} else {
		call->state = CALL_RUNNING;
		call->command = router_call(call->front->router, spec_find_method(service, pb->name),
					    buf_span(&payload), &call->metadata, &call_sink, call);
	}
	buf_release(&payload);
	http_body_drop(call->x, &call->body);
	arena_release(&work);
}

static void call_on_done(struct http_exchange *x, void *arg)
{
	struct http_call *call = OBJ_CAST(struct http_call, arg, CALL_MAGIC);
	if (call->command)
		command_cancel(call->command);
	http_stream_release(&call->stream);
	buf_release(&call->body);
	buf_release(&call->answer);
	arena_release(&call->arena);
	spec_unref(call->spec);
	http_exchange_unref(x);
	call->magic = 0;
	mem_free(call);
}

static const struct http_exchange_ops call_ops = {
	.on_body = call_on_body,
	.on_body_end = call_on_body_end,
	.on_writable = call_on_writable,
	.on_done = call_on_done,
};

/* Finds the method. What the handler's callback only borrows is copied: the body comes later. */
static enum err_code call_begin(struct http_call *call, const struct http_request *request, struct err *err)
{
	struct span target = arena_dup(&call->arena, request->target);
	call->content_type = arena_dup(&call->arena, headers_get(&request->headers, "content-type"));
	if (!target.p || !call->content_type.p ||
	    headers_to_metadata(&request->headers, HEADERS_HTTP, &call->arena, &call->metadata))
		return err_set(err, ERR_LIMIT, "the request's headers are too large");
	size_t q = span_find(target, '?');
	call->query = span_skip(target, q < target.n ? q + 1 : q);
	enum err_code code = http_bindings_find(call->spec->bindings, request->method, span_first(target, q),
						&call->arena, &call->match, err);
	if (!code && call_streams(call))
		http_stream_init(&call->stream, call->x, call->match.binding, &request->headers,
				 call->front->quiet_ms);
	return code;
}

static void on_done_nothing(struct http_exchange *x, void *arg)
{
	(void)x;
	(void)arg;
}

/* Answers at once, whatever body may come. */
static void answer_now(struct http_exchange *x, int status, struct span text)
{
	static const struct http_exchange_ops ops = {.on_done = on_done_nothing};
	http_exchange_bind(x, &ops, NULL);
	respond_text(x, status, text);
}

void http_front_handle(struct http_exchange *x, const struct http_request *request, void *arg)
{
	struct http_front *front = arg;
	struct spec *spec = router_spec(front->router);
	if (!spec) {
		answer_now(x, 503, SPAN("the function has not been discovered yet"));
		return;
	}
	struct http_call *call = mem_xalloc(sizeof(*call));
	call->magic = CALL_MAGIC;
	call->front = front;
	call->x = http_exchange_ref(x);
	call->spec = spec_ref(spec);
	arena_init(&call->arena, 8 * LIMIT_HTTP_BODY_BYTES);
	buf_init(&call->body, LIMIT_HTTP_BODY_BYTES);
	buf_init(&call->answer, 8 * LIMIT_HTTP_BODY_BYTES);
	http_exchange_bind(x, &call_ops, call);
	struct err err = {0};
	enum err_code code = call_begin(call, request, &err);
	if (code)
		call_answer_error(call, code == ERR_NOT_FOUND ? 404 : status_of_request_error(code),
				  span_str(err.text));
}

struct http_front *http_front_new(struct router *router, int64_t quiet_ms)
{
	struct http_front *front = mem_xalloc(sizeof(*front));
	front->router = router;
	front->quiet_ms = quiet_ms;
	return front;
}

void http_front_free(struct http_front *front)
{
	mem_free(front);
}
