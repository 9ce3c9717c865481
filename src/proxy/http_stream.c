#include <config.h>

#include "proxy/http_stream.h"


#include "base/buf.h"
#include "base/limits.h"
#include "base/must.h"
#include "base/text.h"
#include "pbdyn/pbdyn.h"
#include "proxy/headers.h"
#include "proxy/transcode.h"

/* --- Accept ---------------------------------------------------------------------------------------------- */

/* What comes before the separator; *rest is what comes behind it. */
static struct span next_part(struct span *rest, uint8_t separator)
{
	struct span part = span_first(*rest, span_find(*rest, separator));
	*rest = span_skip(*rest, part.n < rest->n ? part.n + 1 : part.n);
	return span_trim(part);
}

/* A weight of zero says "not that one" (RFC 9110, 12.4.2). */
static bool is_refused(struct span parameters)
{
	while (parameters.n) {
		struct span value = next_part(&parameters, ';');
		struct span name = next_part(&value, '=');
		if (!span_eq_nocase(name, SPAN("q")))
			continue;
		for (size_t i = 0; i < value.n; i++)
			if (value.p[i] != '0' && value.p[i] != '.')
				return false;
		return value.n > 0;
	}
	return false;
}

static bool value_names(struct span accept, const char *type)
{
	while (accept.n) {
		struct span range = next_part(&accept, ',');
		if (span_eq_nocase(next_part(&range, ';'), span_str(type)) && !is_refused(range))
			return true;
	}
	return false;
}

static bool names(const struct headers *request, const char *type)
{
	for (size_t i = 0; i < request->n; i++)
		if (span_eq_str(request->items[i].name, "accept") && value_names(request->items[i].value, type))
			return true;
	return false;
}

/* --- the answer ------------------------------------------------------------------------------------------- */

static void on_quiet(void *arg)
{
	struct http_stream *s = arg;
	http_write(s->x, SPAN(":\n"));
	loop_timer_set(s->quiet, s->quiet_ms);
}

/* The next comment is due so long after what was just sent. */
static void begin_quiet(struct http_stream *s)
{
	if (s->form != HTTP_STREAM_EVENTS)
		return;
	if (!s->quiet)
		s->quiet = loop_timer_new(http_exchange_loop(s->x), on_quiet, s);
	loop_timer_set(s->quiet, s->quiet_ms);
}

static void end_quiet(struct http_stream *s)
{
	loop_timer_free(s->quiet);
	s->quiet = NULL;
}

void http_stream_init(struct http_stream *s, struct http_exchange *x, const struct http_binding *binding,
		      const struct headers *request, int64_t quiet_ms)
{
	*s = (struct http_stream){
		.x = x, .binding = binding, .quiet_ms = quiet_ms, .content_type = SPAN("application/json")};
	if (transcode_is_raw(binding)) {
		s->form = HTTP_STREAM_RAW;
	} else if (names(request, "text/event-stream")) {
		s->form = HTTP_STREAM_EVENTS;
		s->content_type = SPAN("text/event-stream");
	} else if (names(request, "application/x-ndjson")) {
		s->content_type = SPAN("application/x-ndjson");
	}
}

void http_stream_release(struct http_stream *s)
{
	end_quiet(s);
}

static enum err_code start(struct http_stream *s, struct span content_type, const struct metadata *metadata,
			   struct arena *a, struct err *err)
{
	struct headers headers = {0};
	enum err_code code =
		metadata && metadata->n ? headers_from_metadata(metadata, HEADERS_HTTP, a, &headers) : ERR_OK;
	struct header *items = code ? NULL : arena_alloc(a, (headers.n + 1) * sizeof items[0]);
	if (!items)
		return err_set(err, ERR_NOMEM, "the reply's metadata is too large");
	items[0] = (struct header){SPAN("content-type"), content_type};
	for (size_t i = 0; i < headers.n; i++)
		items[i + 1] = headers.items[i];
	http_start(s->x, 200, &(struct headers){items, headers.n + 1});
	s->started = true;
	return ERR_OK;
}

static enum err_code print(struct http_stream *s, struct span reply, struct arena *a, struct buf *out,
			   struct span *ret_type, struct err *err)
{
	enum err_code code = s->form == HTTP_STREAM_EVENTS ? buf_append_str(out, "data: ") : ERR_OK;
	if (!code)
		code = transcode_out(s->binding, reply, a, out, ret_type, err);
	if (!code && s->form != HTTP_STREAM_RAW)
		code = buf_append_str(out, s->form == HTTP_STREAM_EVENTS ? "\n\n" : "\n");
	if (code)
		err_set(err, code, "the reply is too large");
	if (s->form != HTTP_STREAM_RAW)
		*ret_type = s->content_type;
	return code;
}

enum err_code http_stream_send(struct http_stream *s, struct span reply, const struct metadata *metadata,
			       bool *ret_room, struct err *err)
{
	struct arena a;
	struct buf out;
	struct span type;
	arena_init(&a, 8 * LIMIT_HTTP_BODY_BYTES);
	buf_init(&out, 8 * LIMIT_HTTP_BODY_BYTES);
	enum err_code code = print(s, reply, &a, &out, &type, err);
	if (!code && !s->started)
		code = start(s, type, metadata, &a, err);
	if (!code) {
		*ret_room = out.n == 0 || http_write(s->x, buf_span(&out));
		begin_quiet(s);
	}
	buf_release(&out);
	arena_release(&a);
	return code;
}

void http_stream_end(struct http_stream *s)
{
	end_quiet(s);
	if (s->started) {
		http_end(s->x);
		return;
	}
	struct header type = {SPAN("content-type"), s->form == HTTP_STREAM_RAW ? SPAN("application/octet-stream")
									       : s->content_type};
	http_start(s->x, 200, &(struct headers){&type, 1});
	http_end(s->x);
}

void http_stream_fail(struct http_stream *s, enum grpc_code code, struct span message)
{
	struct buf out;
	must(s->started);
	end_quiet(s);
	if (s->form != HTTP_STREAM_EVENTS) {
		http_reset(s->x);
		return;
	}
	buf_init(&out, 8 * LIMIT_HTTP_BODY_BYTES);
	if (!utf8_valid(message))
		message = SPAN("the description is no UTF-8");
	if (!buf_printf(&out, "event: error\ndata: {\"code\":%d,\"message\":", (int)code) &&
	    !pb_json_quote(&out, message) && !buf_append_str(&out, "}\n\n"))
		http_write(s->x, buf_span(&out));
	http_end(s->x);
	buf_release(&out);
}
