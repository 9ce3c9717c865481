#include <config.h>

#include "grpc/exchange.h"

#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/text.h"
#include "grpc/http1.h"

static const struct stream_ops exchange_stream_ops;

/* ---- life -------------------------------------------------------------------------------------------- */

static void exchange_run_end(struct loop_task *task)
{
	exchange_done(CONTAINER_OF(task, struct http_exchange, end_task));
}

struct http_exchange *exchange_new(struct loop *loop, struct span method, size_t body_max_bytes)
{
	struct http_exchange *x = mem_xalloc(sizeof(*x));
	metric_add(METRIC_HTTP_REQUESTS, 1);
	x->magic = EXCHANGE_MAGIC;
	x->refs = 1;
	x->loop = loop;
	x->body_max_bytes = body_max_bytes;
	x->head = span_eq(method, SPAN("HEAD"));
	x->end_task.run = exchange_run_end;
	return x;
}

struct http_exchange *http_exchange_ref(struct http_exchange *x)
{
	must(x->magic == EXCHANGE_MAGIC);
	x->refs++;
	return x;
}

void http_exchange_unref(struct http_exchange *x)
{
	if (!x)
		return;
	must(x->magic == EXCHANGE_MAGIC);
	must(x->refs > 0);
	if (--x->refs)
		return;
	must(x->done);
	if (x->stream)
		stream_detach(x->stream);
	x->magic = 0;
	mem_free(x);
}

void http_exchange_bind(struct http_exchange *x, const struct http_exchange_ops *ops, void *user)
{
	must(x->magic == EXCHANGE_MAGIC);
	x->ops = ops;
	x->user = user;
}

struct loop *http_exchange_loop(const struct http_exchange *x)
{
	return x->loop;
}

void exchange_done(struct http_exchange *x)
{
	if (x->done)
		return;
	x->done = true;
	loop_undefer(&x->end_task);
	if (x->stream)
		x->stream->ops = NULL;
	struct http1 *http1 = x->http1;
	x->http1 = NULL;
	if (x->ops && x->ops->on_done)
		x->ops->on_done(x, x->user);
	if (http1)
		http1_on_done(http1);
	http_exchange_unref(x);
}

void exchange_done_later(struct http_exchange *x)
{
	if (!x->done)
		loop_defer(x->loop, &x->end_task);
}

/* ---- the answer -------------------------------------------------------------------------------------- */

bool exchange_header_is_ours(struct span name)
{
	static const char *const ours[] = {
		"connection",        "content-length", "keep-alive", "proxy-connection",
		"transfer-encoding", "upgrade",        "date"};
	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		if (span_eq_str(name, ours[i]))
			return true;
	return name.n == 0 || name.p[0] == ':';
}

bool exchange_name_is_legal(struct span name)
{
	for (size_t i = 0; i < name.n; i++)
		if (name.p[i] <= 0x20 || name.p[i] >= 0x7f || name.p[i] == ':')
			return false;
	return name.n > 0;
}

bool exchange_header_is_legal(struct span name, struct span value)
{
	for (size_t i = 0; i < value.n; i++)
		if ((value.p[i] < 0x20 && value.p[i] != '\t') || value.p[i] == 0x7f)
			return false;
	return exchange_name_is_legal(name);
}

void exchange_date(char buf[EXCHANGE_DATE_BYTES])
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	time_t now = (time_t)(clock_wall(&clock_system).us / 1000000);
	struct tm tm;
	must(gmtime_r(&now, &tm));
	snprintf(buf, EXCHANGE_DATE_BYTES, "%.3s, %02d %.3s %d %02d:%02d:%02d GMT", days + 3 * tm.tm_wday,
		 tm.tm_mday, months + 3 * tm.tm_mon, tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

/* content_length < 0: not known. */
static void exchange_start_http2(struct http_exchange *x, int status, const struct headers *headers,
				 int64_t content_length, bool end)
{
	struct arena *a = &x->stream->arena;
	struct header_list list = {0};
	char code[12], length[24], date[EXCHANGE_DATE_BYTES];
	int n = snprintf(code, sizeof(code), "%d", status);
	enum err_code rc = header_list_put(&list, a, SPAN(":status"), span_of(code, (size_t)n));
	for (size_t i = 0; rc == ERR_OK && headers && i < headers->n; i++)
		if (!exchange_header_is_ours(headers->items[i].name) &&
		    exchange_header_is_legal(headers->items[i].name, headers->items[i].value))
			rc = header_list_put(&list, a, headers->items[i].name, headers->items[i].value);
	if (rc == ERR_OK && content_length >= 0) {
		n = snprintf(length, sizeof(length), "%lld", (long long)content_length);
		rc = header_list_put(&list, a, SPAN("content-length"), span_of(length, (size_t)n));
	}
	exchange_date(date);
	if (rc == ERR_OK)
		rc = header_list_put(&list, a, SPAN("date"), span_str(date));
	if (rc)
		stream_reset(x->stream, HTTP2_INTERNAL_ERROR);
	else
		stream_respond(x->stream, &list.h, end);
}

static bool status_has_body(int status)
{
	return status >= 200 && status != 204 && status != 304;
}

void http_respond(struct http_exchange *x, int status, const struct headers *headers, struct span body)
{
	must(x->magic == EXCHANGE_MAGIC);
	if (x->started || x->done)
		return;
	x->started = x->ended = true;
	int64_t length = status_has_body(status) ? (int64_t)body.n : -1;
	bool empty = x->head || length <= 0;
	if (x->stream) {
		exchange_start_http2(x, status, headers, length, empty);
		if (empty)
			return;
		stream_write(x->stream, body);
		stream_end(x->stream, NULL);
		return;
	}
	if (!x->http1)
		return;
	http1_start(x->http1, status, headers, length);
	if (!empty)
		http1_write(x->http1, body);
	http1_end(x->http1);
}

void http_start(struct http_exchange *x, int status, const struct headers *headers)
{
	must(x->magic == EXCHANGE_MAGIC);
	if (x->started || x->done)
		return;
	x->started = true;
	if (x->stream) {
		exchange_start_http2(x, status, headers, -1, x->head);
		x->ended = x->head;
	} else if (x->http1) {
		http1_start(x->http1, status, headers, -1);
	}
}

bool http_write(struct http_exchange *x, struct span piece)
{
	must(x->magic == EXCHANGE_MAGIC);
	must(x->started);
	if (x->ended || x->done)
		return false;
	if (x->stream) {
		stream_write(x->stream, piece);
		stream_written(x->stream);
		return stream_writable(x->stream);
	}
	return x->http1 && http1_write(x->http1, piece);
}

void http_end(struct http_exchange *x)
{
	must(x->magic == EXCHANGE_MAGIC);
	must(x->started);
	if (x->ended || x->done)
		return;
	x->ended = true;
	if (x->stream)
		stream_end(x->stream, NULL);
	else if (x->http1)
		http1_end(x->http1);
}

void http_reset(struct http_exchange *x)
{
	must(x->magic == EXCHANGE_MAGIC);
	if (x->done)
		return;
	x->started = x->ended = true;
	if (x->stream) {
		x->stream->ops = NULL;
		stream_reset(x->stream, HTTP2_INTERNAL_ERROR);
	} else if (x->http1) {
		http1_break(x->http1);
	}
	exchange_done_later(x);
}

void http_hold_read(struct http_exchange *x, bool hold)
{
	must(x->magic == EXCHANGE_MAGIC);
	if (x->done)
		return;
	if (x->stream)
		stream_hold(x->stream, hold);
	else if (x->http1)
		http1_hold(x->http1, hold);
}

bool http_charge(struct http_exchange *x, size_t held_bytes)
{
	must(x->magic == EXCHANGE_MAGIC);
	/* On HTTP/1 there is one request at a time, and its own limit is enough. */
	return x->done || !x->stream || stream_charge(x->stream, held_bytes);
}

void exchange_refuse(struct http_exchange *x, int status, const char *text)
{
	struct header h = {SPAN("content-type"), SPAN("text/plain; charset=UTF-8")};
	struct headers headers = {&h, 1};
	http_respond(x, status, &headers, span_str(text));
}

/* ---- the request ------------------------------------------------------------------------------------- */

void exchange_on_body(struct http_exchange *x, struct span piece)
{
	if (x->done)
		return;
	x->body_bytes += piece.n;
	if (x->body_bytes <= x->body_max_bytes) {
		if (x->ops && x->ops->on_body)
			x->ops->on_body(x, piece, x->user);
		return;
	}
	if (x->body_bytes - piece.n > x->body_max_bytes)
		return; /* was said before */
	if (x->started && !x->ended)
		http_reset(x);
	else
		exchange_refuse(x, 413, "the request's body is larger than this server takes\n");
}

void exchange_on_body_end(struct http_exchange *x)
{
	x->body_done = true;
	if (!x->done && x->body_bytes <= x->body_max_bytes && x->ops && x->ops->on_body_end)
		x->ops->on_body_end(x, x->user);
}

static void exchange_stream_on_data(struct stream *s, struct span piece)
{
	struct http_exchange *x = OBJ_CAST(struct http_exchange, s->user, EXCHANGE_MAGIC);
	http_exchange_ref(x);
	exchange_on_body(x, piece);
	http_exchange_unref(x);
}

static void exchange_stream_on_end(struct stream *s)
{
	struct http_exchange *x = OBJ_CAST(struct http_exchange, s->user, EXCHANGE_MAGIC);
	http_exchange_ref(x);
	exchange_on_body_end(x);
	http_exchange_unref(x);
}

static void exchange_stream_on_writable(struct stream *s)
{
	struct http_exchange *x = OBJ_CAST(struct http_exchange, s->user, EXCHANGE_MAGIC);
	if (!x->ended && x->ops && x->ops->on_writable)
		x->ops->on_writable(x, x->user);
}

static void exchange_stream_on_close(struct stream *s, uint32_t http2_error, bool lost)
{
	(void)http2_error;
	(void)lost;
	exchange_done(OBJ_CAST(struct http_exchange, s->user, EXCHANGE_MAGIC));
}

static const struct stream_ops exchange_stream_ops = {
	.on_data = exchange_stream_on_data,
	.on_end = exchange_stream_on_end,
	.on_writable = exchange_stream_on_writable,
	.on_close = exchange_stream_on_close,
};

/* What a handler sees: no pseudo-headers, cookie crumbs as they came. */
static struct http_request exchange_request(const struct headers *h)
{
	struct http_request request = {.method = headers_get(h, ":method"),
				       .target = headers_get(h, ":path"),
				       .authority = headers_get(h, ":authority"),
				       .http2 = true};
	size_t first = 0;
	while (first < h->n && h->items[first].name.n && h->items[first].name.p[0] == ':')
		first++;
	request.headers = (struct headers){h->items + first, h->n - first};
	if (!request.authority.p)
		request.authority = headers_get(&request.headers, "host");
	return request;
}

void exchange_accept(struct loop *loop, struct stream *s, size_t body_max_bytes, exchange_handle_fn *handle,
		     void *arg)
{
	struct http_request request = exchange_request(&s->headers.h);
	struct http_exchange *x = exchange_new(loop, request.method, body_max_bytes);
	x->stream = stream_ref(s);
	s->ops = &exchange_stream_ops;
	s->user = x;
	int64_t length = -1;
	struct span length_text = headers_get(&request.headers, "content-length");
	uint64_t parsed;
	if (length_text.n && parse_u64(length_text, &parsed) && parsed <= INT64_MAX)
		length = (int64_t)parsed;
	if (s->headers_too_large)
		exchange_refuse(x, 431, "the request's headers are larger than 16 KiB\n");
	else if (length > 0 && (uint64_t)length > body_max_bytes)
		exchange_refuse(x, 413, "the request's body is larger than this server takes\n");
	else if (handle)
		handle(x, &request, arg);
	else
		exchange_refuse(x, 404, "not found\n");
}
