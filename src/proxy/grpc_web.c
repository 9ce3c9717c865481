#include <config.h>

#include "proxy/grpc_web.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/header_text.h"
#include "proxy/grpc_web_frame.h"
#include "proxy/headers.h"
#include "proxy/http_body.h"

#define CALL_MAGIC 0x57656243u
/* "-text" is four bytes for three. */
#define BODY_MAX_BYTES (LIMIT_HTTP_BODY_BYTES / 3 * 4 + 64 * KIB)
#define WEB_TYPE "application/grpc-web"
#define TEXT_TYPE "application/grpc-web-text"

struct grpc_web {
	struct router *router;
	char *origins;
};

enum call_state {
	CALL_BODY,    /* the request's body is coming */
	CALL_RUNNING, /* the command is with the router */
	CALL_ANSWERED /* the last frame is out; waits for on_done */
};

/* One call. Freed in on_done. */
struct web_call {
	uint32_t magic;
	enum call_state state;
	struct grpc_web *web;
	struct http_exchange *x; /* held */
	struct spec *spec;       /* held; NULL before the discovery */
	const struct spec_method *method; /* NULL: there is none of that path */
	struct arena arena;
	struct metadata metadata;
	bool text_in, text_out;
	struct span content_type; /* of the answer */
	struct headers cors;
	struct buf body;
	struct command *command; /* CALL_RUNNING */
	int64_t deadline_ms;	 /* < 0: none */
	struct loop_timer *deadline;
	bool started, replied;
};

/* --- origins ------------------------------------------------------------------------------------------- */

static bool origin_is_allowed(const struct grpc_web *web, struct span origin)
{
	struct span rest = span_str(web->origins);
	while (origin.n && rest.n) {
		struct span one = span_first(rest, span_find(rest, ','));
		if (span_eq_str(one, "*") || span_eq(one, origin))
			return true;
		rest = span_skip(rest, one.n < rest.n ? one.n + 1 : one.n);
	}
	return false;
}

/* What the browser must be told before it shows a page the answer; none where the page may not have it. */
static bool add_cors(const struct grpc_web *web, const struct http_request *request, struct arena *a,
		     struct headers *ret)
{
	struct span origin = headers_get(&request->headers, "origin");
	*ret = (struct headers){0};
	if (!origin_is_allowed(web, origin) || !headers_value_legal(origin))
		return true;
	struct header *items = arena_alloc(a, 3 * sizeof items[0]);
	struct span copy = arena_dup(a, origin);
	if (!items || !copy.p)
		return false;
	items[0] = (struct header){SPAN("access-control-allow-origin"), copy};
	items[1] = (struct header){SPAN("access-control-expose-headers"), SPAN("grpc-status, grpc-message")};
	items[2] = (struct header){SPAN("vary"), SPAN("origin")};
	*ret = (struct headers){items, 3};
	return true;
}

static void on_done_nothing(struct http_exchange *x, void *arg)
{
	(void)x;
	(void)arg;
}

/* A browser asks whether a page may call: it may send whatever headers it has, which are the function's to read. */
static void answer_preflight(struct http_exchange *x, const struct http_request *request, struct span origin)
{
	static const struct http_exchange_ops ops = {.on_done = on_done_nothing};
	struct span wanted = headers_get(&request->headers, "access-control-request-headers");
	if (!wanted.n || !headers_value_legal(wanted))
		wanted = SPAN("content-type, x-grpc-web, x-user-agent, grpc-timeout, authorization");
	struct header items[] = {{SPAN("access-control-allow-origin"), origin},
				 {SPAN("access-control-allow-methods"), SPAN("POST")},
				 {SPAN("access-control-allow-headers"), wanted},
				 {SPAN("access-control-max-age"), SPAN("86400")},
				 {SPAN("vary"), SPAN("origin")}};
	http_exchange_bind(x, &ops, NULL);
	http_respond(x, 200, &(struct headers){items, ARRAY_LEN(items)}, SPAN(""));
}

/* --- the answer ------------------------------------------------------------------------------------------ */

/* Without memory for it the answer is broken off, which is an error for every client. True: more is welcome. */
static bool write_frame(struct web_call *call, uint8_t flags, struct span bytes)
{
	struct buf frame;
	bool room = true;
	buf_init(&frame, SIZE_MAX / 2); /* what it holds has passed the limits of a front or of the function */
	if (grpc_web_put_frame(&frame, flags, bytes, call->text_out))
		http_reset(call->x);
	else
		room = http_write(call->x, buf_span(&frame));
	buf_release(&frame);
	return room;
}

static void start(struct web_call *call, const struct metadata *metadata)
{
	struct headers own = {0};
	if (call->started)
		return;
	call->started = true;
	if (metadata && headers_from_metadata(metadata, HEADERS_HTTP, &call->arena, &own)) {
		log_warn("a reply's metadata is dropped: too large for headers",
			 LOG_SPAN("path", call->method->pb->full_name), LOG_U64("entries", metadata->n));
		own.n = 0;
	}
	size_t n = 1 + call->cors.n;
	struct header first[4] = {{SPAN("content-type"), call->content_type}};
	must(n <= ARRAY_LEN(first));
	for (size_t i = 0; i < call->cors.n; i++)
		first[1 + i] = call->cors.items[i];
	struct header *items = arena_alloc(&call->arena, (n + own.n) * sizeof items[0]);
	if (!items) {
		http_start(call->x, 200, &(struct headers){first, n});
		return;
	}
	memcpy(items, first, n * sizeof items[0]);
	for (size_t i = 0; i < own.n; i++)
		items[n + i] = own.items[i];
	http_start(call->x, 200, &(struct headers){items, n + own.n});
}

/* The status, as the last frame, and the end. */
static void finish(struct web_call *call, enum grpc_code code, struct span message)
{
	struct buf trailers;
	must(call->state != CALL_ANSWERED);
	call->state = CALL_ANSWERED;
	loop_timer_free(call->deadline);
	call->deadline = NULL;
	start(call, NULL);
	buf_init(&trailers, 2 * LIMIT_HEADER_BYTES);
	struct span said = grpc_message_encode(message, LIMIT_STATUS_BYTES, &call->arena);
	enum err_code err = buf_printf(&trailers, "grpc-status: %d\r\n", (int)code);
	if (!err && said.n)
		err = buf_printf(&trailers, "grpc-message: %.*s\r\n", SPAN_ARG(said));
	if (err) {
		http_reset(call->x);
	} else {
		write_frame(call, GRPC_WEB_TRAILERS, buf_span(&trailers));
		http_end(call->x);
	}
	buf_release(&trailers);
}

static void refuse(struct web_call *call, enum grpc_code code, const char *text)
{
	finish(call, code, span_str(text));
}

static void on_reply(void *arg, const struct any *payload, const struct metadata *metadata)
{
	struct web_call *call = OBJ_CAST(struct web_call, arg, CALL_MAGIC);
	if (call->state == CALL_ANSWERED)
		return;
	start(call, metadata);
	call->replied = true;
	if (!write_frame(call, 0, payload->value) && call->method->pb->server_streaming)
		command_hold(call->command, true);
}

static void on_end(void *arg, const struct outcome *outcome)
{
	struct web_call *call = OBJ_CAST(struct web_call, arg, CALL_MAGIC);
	call->command = NULL;
	if (call->state == CALL_ANSWERED)
		return;
	if (outcome->code == GRPC_OK && !call->replied && !call->method->pb->server_streaming) {
		start(call, NULL);
		write_frame(call, 0, SPAN(""));
	}
	finish(call, outcome->code, outcome->message);
}

static const struct reply_sink sink = {.on_reply = on_reply, .on_end = on_end};

static void on_deadline(void *arg)
{
	struct web_call *call = OBJ_CAST(struct web_call, arg, CALL_MAGIC);
	struct command *command = call->command;
	call->command = NULL;
	refuse(call, GRPC_DEADLINE_EXCEEDED, "the client's deadline has passed");
	if (command)
		command_cancel(command);
}

/* --- the request ------------------------------------------------------------------------------------------- */

/* Is the body messages, and as many as the method takes? Otherwise the call is answered. */
static bool check_body(struct web_call *call, struct span body)
{
	enum grpc_code code;
	struct span message;
	size_t count = 0;
	while (grpc_web_next_message(&body, &message, &code))
		count++;
	if (code == GRPC_UNIMPLEMENTED)
		refuse(call, code, "a message with flags: this server takes none that are compressed");
	else if (code)
		refuse(call, code, "the request's body ends inside a message");
	else if (count != 1 && !call->method->pb->client_streaming)
		refuse(call, GRPC_INVALID_ARGUMENT, count ? "a unary method takes one message, several came"
							  : "a unary method takes one message, none came");
	return call->state != CALL_ANSWERED;
}

static void run(struct web_call *call, struct span body)
{
	enum grpc_code code;
	struct span message = SPAN("");
	struct router_request request = {
		.method = call->method, .metadata = &call->metadata, .deadline_ms = call->deadline_ms};
	if (!check_body(call, body))
		return;
	if (!call->method->pb->client_streaming) {
		grpc_web_next_message(&body, &message, &code);
		request.payload = message;
	}
	call->state = CALL_RUNNING;
	call->command = router_open(call->web->router, &request, &sink, call);
	if (!call->method->pb->client_streaming)
		return;
	while (grpc_web_next_message(&body, &message, &code))
		command_send(call->command, message);
	command_half_close(call->command);
}

static void call_on_body(struct http_exchange *x, struct span piece, void *arg)
{
	struct web_call *call = OBJ_CAST(struct web_call, arg, CALL_MAGIC);
	(void)x;
	if (call->state != CALL_BODY)
		return;
	enum err_code code = http_body_take(call->x, &call->body, piece);
	if (code)
		refuse(call, GRPC_RESOURCE_EXHAUSTED,
		       code == ERR_UNAVAILABLE ? "too many unfinished requests on this connection"
					       : "the request's body is too large");
}

static void call_on_body_end(struct http_exchange *x, void *arg)
{
	struct web_call *call = OBJ_CAST(struct web_call, arg, CALL_MAGIC);
	struct buf decoded;
	(void)x;
	if (call->state != CALL_BODY)
		return;
	buf_init(&decoded, BODY_MAX_BYTES);
	if (!call->text_in)
		run(call, buf_span(&call->body));
	else if (grpc_web_decode_text(buf_span(&call->body), &decoded))
		refuse(call, GRPC_INVALID_ARGUMENT, "the request's body is no base64");
	else
		run(call, buf_span(&decoded));
	buf_release(&decoded);
	http_body_drop(call->x, &call->body);
}

static void call_on_writable(struct http_exchange *x, void *arg)
{
	struct web_call *call = OBJ_CAST(struct web_call, arg, CALL_MAGIC);
	(void)x;
	if (call->command)
		command_hold(call->command, false);
}

static void call_on_done(struct http_exchange *x, void *arg)
{
	struct web_call *call = OBJ_CAST(struct web_call, arg, CALL_MAGIC);
	if (call->command)
		command_cancel(call->command);
	loop_timer_free(call->deadline);
	buf_release(&call->body);
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

/* "application/grpc-web", "-text" or not, "+proto" or not, whatever parameters. */
static bool is_web_type(struct span type, bool *ret_text, bool *ret_proto)
{
	type = span_first(type, span_find(type, ';'));
	while (type.n && type.p[type.n - 1] == ' ')
		type.n--;
	*ret_text = span_starts(type, SPAN(TEXT_TYPE));
	type = span_skip(type, *ret_text ? sizeof TEXT_TYPE - 1
			       : span_starts(type, SPAN(WEB_TYPE)) ? sizeof WEB_TYPE - 1
								   : 0);
	*ret_proto = span_eq_str(type, "+proto");
	return *ret_proto || !type.n;
}

static struct span answer_type(bool text, bool proto)
{
	if (text)
		return proto ? SPAN(TEXT_TYPE "+proto") : SPAN(TEXT_TYPE);
	return proto ? SPAN(WEB_TYPE "+proto") : SPAN(WEB_TYPE);
}

static void begin(struct web_call *call, const struct http_request *request)
{
	struct span timeout = headers_get(&request->headers, "grpc-timeout");
	struct span path = span_first(request->target, span_find(request->target, '?'));
	call->deadline_ms = timeout.n ? grpc_timeout_parse(timeout) : -1;
	if (!add_cors(call->web, request, &call->arena, &call->cors) ||
	    headers_to_metadata(&request->headers, HEADERS_HTTP, &call->arena, &call->metadata)) {
		refuse(call, GRPC_RESOURCE_EXHAUSTED, "the request's headers are too large");
	} else if (!call->spec) {
		refuse(call, GRPC_UNAVAILABLE, "the function has not been discovered yet");
	} else if (!(call->method = spec_find_path(call->spec, path))) {
		refuse(call, GRPC_UNIMPLEMENTED, "there is no such method");
	} else if (call->deadline_ms >= 0) {
		call->deadline = loop_timer_new(http_exchange_loop(call->x), on_deadline, call);
		loop_timer_set(call->deadline, call->deadline_ms);
	}
}

bool grpc_web_handle(struct grpc_web *web, struct http_exchange *x, const struct http_request *request)
{
	struct span origin = headers_get(&request->headers, "origin");
	struct span type = headers_get(&request->headers, "content-type");
	struct spec *spec = router_spec(web->router);
	bool text = false, proto = false;
	if (span_eq_str(request->method, "OPTIONS") && spec && origin_is_allowed(web, origin) &&
	    headers_get(&request->headers, "access-control-request-method").n &&
	    spec_find_path(spec, span_first(request->target, span_find(request->target, '?')))) {
		answer_preflight(x, request, origin);
		return true;
	}
	if (!span_eq_str(request->method, "POST") || !type.n || !is_web_type(type, &text, &proto))
		return false;
	struct web_call *call = mem_xalloc(sizeof *call);
	call->magic = CALL_MAGIC;
	call->web = web;
	call->x = http_exchange_ref(x);
	call->spec = spec ? spec_ref(spec) : NULL;
	call->text_in = text;
	call->text_out = text || span_starts(headers_get(&request->headers, "accept"), SPAN(TEXT_TYPE));
	call->content_type = answer_type(call->text_out, proto);
	arena_init(&call->arena, 16 * LIMIT_HEADER_BYTES);
	buf_init(&call->body, BODY_MAX_BYTES);
	http_exchange_bind(x, &call_ops, call);
	begin(call, request);
	return true;
}

struct grpc_web *grpc_web_new(struct router *router, const char *origins)
{
	struct grpc_web *web = mem_xalloc(sizeof *web);
	web->router = router;
	web->origins = mem_xstrdup(origins ? origins : "");
	return web;
}

void grpc_web_free(struct grpc_web *web)
{
	if (!web)
		return;
	mem_free(web->origins);
	mem_free(web);
}
