#include <config.h>

#include "grpc/http1.h"

#include <stdio.h>

#include <http_parser.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/conn.h"

#define HTTP1_MAGIC 0x68747031u
#define HTTP1_HIGH_BYTES (256 * KIB)
#define HTTP1_LOW_BYTES (64 * KIB)
/* What a client sent ahead: above the mark the connection is not read; one read more may come. */
#define HTTP1_AHEAD_BYTES (16 * KIB)
#define HTTP1_AHEAD_MAX_BYTES (HTTP1_AHEAD_BYTES + LOOP_READ_BYTES + 64)
/* The rest of a body that nobody wants is read and dropped up to this size; beyond it the connection goes. */
#define HTTP1_DROP_BYTES (64 * KIB)
#define HTTP1_ARENA_BYTES (8 * LIMIT_HEADER_BYTES)

struct http1 {
	uint32_t magic;
	struct conn *conn;
	struct http1_config config;
	http_parser parser;
	struct buf ahead;        /* input that waits for the exchange to end */
	struct http_exchange *x; /* under way: one reference */
	bool held, want_writable;
	bool draining, drain_over; /* the client is told that it is the last; no more than that is waited for */
	bool eof;   /* the client has shut down its half */
	bool begun; /* a request's first byte has come, not its last */
	struct loop_timer *silence; /* NULL until a request comes in pieces */
	bool silence_runs;

	/* The request's head, gathered: each header is name and value by length. */
	struct arena arena;
	struct buf head; /* target, then names and values */
	size_t target_n;
	struct {
		size_t name_n, value_n;
	} items[LIMIT_HEADERS];
	size_t item_n;
	bool in_value;
	/* A value may come in two pieces where the input was cut, and only there: else its line is folded. */
	const char *input, *input_end;
	bool value_at_end, value_goes_on;
	int refuse; /* the status to refuse it with, or 0 */

	/* The request and its answer. */
	bool message_done; /* the request is whole */
	bool keep_alive, chunked, broken;
	bool awaits_continue; /* the client may never send the body if it does not hear 100 */
};

/* ---- the head of a request ----------------------------------------------------------------------------- */

static struct http1 *http1_of(http_parser *parser)
{
	return OBJ_CAST(struct http1, parser->data, HTTP1_MAGIC);
}

static int http1_on_begin(http_parser *parser)
{
	struct http1 *h = http1_of(parser);
	buf_clear(&h->head);
	arena_release(&h->arena);
	h->target_n = h->item_n = 0;
	h->in_value = false;
	h->refuse = 0;
	h->begun = true;
	h->message_done = false;
	return 0;
}

/* Past the limit nothing is kept; the refusal is said once the head is over. */
static void http1_gather(struct http1 *h, const char *p, size_t n)
{
	if (h->refuse == 0 && buf_append(&h->head, p, n))
		h->refuse = 431;
}

static int http1_on_url(http_parser *parser, const char *p, size_t n)
{
	struct http1 *h = http1_of(parser);
	http1_gather(h, p, n);
	h->target_n += n;
	return 0;
}

static int http1_on_field(http_parser *parser, const char *p, size_t n)
{
	struct http1 *h = http1_of(parser);
	if (h->item_n == 0 || h->in_value) {
		if (h->item_n == LIMIT_HEADERS)
			h->refuse = 431;
		else
			h->item_n++;
		h->items[h->item_n - 1].name_n = h->items[h->item_n - 1].value_n = 0;
		h->in_value = false;
	}
	http1_gather(h, p, n);
	h->items[h->item_n - 1].name_n += n;
	return 0;
}

static int http1_on_value(http_parser *parser, const char *p, size_t n)
{
	struct http1 *h = http1_of(parser);
	/* RFC 9112, 5.2. The parser would join the lines without a space. */
	if (h->in_value && !(h->value_goes_on && p == h->input) && h->refuse == 0)
		h->refuse = 400;
	h->value_at_end = p + n == h->input_end;
	http1_gather(h, p, n);
	h->items[h->item_n - 1].value_n += n;
	h->in_value = true;
	return 0;
}

static void span_lower(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] >= 'A' && p[i] <= 'Z')
			p[i] = (uint8_t)(p[i] + ('a' - 'A'));
}

static enum err_code http1_headers(struct http1 *h, struct header_list *ret)
{
	uint8_t *p = h->head.p + h->target_n;
	for (size_t i = 0; i < h->item_n; i++) {
		struct span name = span_of(p, h->items[i].name_n);
		/* The parser takes spaces in names, with which two servers can be made to disagree. */
		if (!exchange_name_is_legal(name))
			return ERR_INVALID;
		span_lower(p, name.n);
		p += name.n;
		struct span value = span_of(p, h->items[i].value_n);
		p += value.n;
		while (value.n && (value.p[value.n - 1] == ' ' || value.p[value.n - 1] == '\t'))
			value.n--;
		enum err_code rc = header_list_add(ret, &h->arena, name, value);
		if (rc)
			return rc;
	}
	return ERR_OK;
}

/* One Host, or from HTTP/1.0 none (RFC 9112, 3.2): of two, another server may believe the other. */
static bool host_is_legal(const struct headers *headers, const http_parser *parser)
{
	size_t n = 0;
	for (size_t i = 0; i < headers->n; i++)
		n += span_eq(headers->items[i].name, SPAN("host"));
	return n == 1 || (n == 0 && parser->http_minor < 1);
}

/* The target's path, and authority where it names one: "http://host/path" is what a client says to a proxy, and
 * a server must understand it (RFC 9112, 3.2.2). False: it is neither that nor a path. */
static bool http1_target(struct http_request *request, struct span target, unsigned method)
{
	request->target = target;
	if (method == HTTP_CONNECT || span_starts(target, SPAN("/")) || span_eq(target, SPAN("*")))
		return true;
	struct http_parser_url url;
	http_parser_url_init(&url);
	if (http_parser_parse_url((const char *)target.p, target.n, false, &url) ||
	    !(url.field_set & (1 << UF_HOST)))
		return false;
	struct span rest = span_skip(target, url.field_data[UF_SCHEMA].len + strlen("://"));
	size_t n = 0;
	while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?')
		n++;
	request->authority = span_first(rest, n);
	request->target = n == rest.n ? SPAN("/") : span_skip(rest, n);
	return true;
}

static bool body_is_expected(const http_parser *parser)
{
	bool length = parser->content_length != 0 && parser->content_length != UINT64_MAX;
	return length || (parser->flags & F_CHUNKED);
}

static void http1_continue(struct http1 *h)
{
	if (outq_append(&h->conn->out, "HTTP/1.1 100 Continue\r\n\r\n", 25))
		http1_break(h);
	conn_flush_later(h->conn);
}

static void http1_hand_on(struct http1 *h, const struct http_request *request)
{
	http_parser *parser = &h->parser;
	struct http_exchange *x = h->x;
	bool length = parser->content_length != UINT64_MAX && !(parser->flags & F_CHUNKED);
	struct span expect = headers_get(&request->headers, "expect");
	h->awaits_continue = body_is_expected(parser) && parser->http_minor >= 1 &&
			     span_eq_nocase(expect, SPAN("100-continue"));
	if (h->refuse == 431)
		exchange_refuse(x, 431, "the request's headers are larger than 16 KiB\n");
	else if (h->refuse)
		exchange_refuse(x, h->refuse, "the request is malformed\n");
	else if (length && parser->content_length > h->config.body_max_bytes)
		exchange_refuse(x, 413, "the request's body is larger than this server takes\n");
	else if (h->config.handle)
		h->config.handle(x, request, h->config.arg);
	else
		exchange_refuse(x, 404, "not found\n");
	if (h->awaits_continue && !x->started && !h->broken) {
		h->awaits_continue = false;
		http1_continue(h);
	}
}

static int http1_on_head(http_parser *parser)
{
	struct http1 *h = http1_of(parser);
	struct header_list headers = {0};
	/* Upgrades are not offered: an Upgrade header means nothing here, and CONNECT is a method like
	 * others. */
	parser->upgrade = 0;
	h->keep_alive = http_should_keep_alive(parser) && !h->draining && parser->method != HTTP_CONNECT;
	h->chunked = false;
	struct http_request request = {.method = span_str(http_method_str((enum http_method)parser->method))};
	if (h->refuse == 0) {
		enum err_code rc = http1_headers(h, &headers);
		h->refuse = rc == ERR_OK ? 0 : rc == ERR_INVALID ? 400 : 431;
	}
	if (h->refuse == 0) {
		request.headers = headers.h;
		request.authority = headers_get(&headers.h, "host");
		if (!host_is_legal(&headers.h, parser) ||
		    !http1_target(&request, span_of(h->head.p, h->target_n), parser->method))
			h->refuse = 400;
	}
	/* Where the next request begins cannot be known for sure: the headers say whether a body comes, and whether
	 * the client waits to be asked for it. */
	if (h->refuse)
		h->keep_alive = false;
	h->x = http_exchange_ref(exchange_new(h->conn->loop, request.method, h->config.body_max_bytes));
	h->x->http1 = h;
	conn_touch(h->conn);
	http1_hand_on(h, &request);
	return 0;
}

/* ---- its body ------------------------------------------------------------------------------------------ */

static int http1_on_body(http_parser *parser, const char *p, size_t n)
{
	struct http1 *h = http1_of(parser);
	if (h->x)
		exchange_on_body(h->x, span_of(p, n));
	return 0;
}

static int http1_on_complete(http_parser *parser)
{
	struct http1 *h = http1_of(parser);
	h->begun = false;
	h->message_done = true;
	if (h->x) {
		exchange_on_body_end(h->x);
		if (h->x->ended)
			exchange_done_later(h->x);
	}
	/* The next one waits until this one's answer is over. */
	http_parser_pause(parser, 1);
	return 0;
}

static const http_parser_settings http1_settings = {
	.on_message_begin = http1_on_begin,
	.on_url = http1_on_url,
	.on_header_field = http1_on_field,
	.on_header_value = http1_on_value,
	.on_headers_complete = http1_on_head,
	.on_body = http1_on_body,
	.on_message_complete = http1_on_complete,
};

/* ---- input --------------------------------------------------------------------------------------------- */

/* The client has begun a request and sends no more of it. */
static void http1_on_silence(void *arg)
{
	struct http1 *h = OBJ_CAST(struct http1, arg, HTTP1_MAGIC);
	struct http_exchange *x = h->x;
	static const char late[] = "the request's rest has not come in time\n";
	h->silence_runs = false;
	h->keep_alive = false;
	if (x && !x->started) {
		exchange_refuse(x, 408, late);
		return;
	}
	if (!x) {
		char head[160];
		int n = snprintf(head, sizeof(head),
				 "HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=UTF-8\r\n"
				 "content-length: %zu\r\nconnection: close\r\n\r\n%s",
				 sizeof(late) - 1, late);
		must(n > 0 && (size_t)n < sizeof(head));
		outq_append(&h->conn->out, head, (size_t)n);
	}
	http1_break(h);
	if (x)
		exchange_done_later(x);
}

static void http1_watch(struct http1 *h, bool paused)
{
	bool due = h->begun && !h->broken && !paused;
	if (!due && h->silence_runs)
		loop_timer_cancel(h->silence);
	h->silence_runs = due;
	if (!due)
		return;
	if (!h->silence)
		h->silence = loop_timer_new(h->conn->loop, http1_on_silence, h);
	loop_timer_set(h->silence, h->config.silence_ms);
}

/* While the client is not read its silence is not its fault. */
static void http1_pace(struct http1 *h)
{
	bool pause = h->held || h->ahead.n > HTTP1_AHEAD_BYTES;
	conn_pause_read(h->conn, pause);
	http1_watch(h, pause);
}

static void http1_bad_request(struct http1 *h, enum http_errno code)
{
	static const char malformed[] =
		"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=UTF-8\r\n"
		"content-length: 19\r\nconnection: close\r\n\r\nthis is no request\n";
	static const char large[] = "HTTP/1.1 431 Request Header Fields Too Large\r\n"
				    "content-length: 0\r\nconnection: close\r\n\r\n";
	/* In the middle of an answer the only thing to say is the end; what does not even begin as HTTP does
	 * is not answered in it. */
	if ((h->x && h->x->started) || h->target_n == 0)
		;
	else if (code == HPE_HEADER_OVERFLOW)
		outq_append(&h->conn->out, large, sizeof(large) - 1);
	else
		outq_append(&h->conn->out, malformed, sizeof(malformed) - 1);
	http1_break(h);
	if (h->x)
		exchange_done_later(h->x);
}

static void http1_parse(struct http1 *h, struct span bytes)
{
	h->input = (const char *)bytes.p;
	h->input_end = h->input + bytes.n;
	h->value_goes_on = h->value_at_end;
	h->value_at_end = false;
	size_t used = http_parser_execute(&h->parser, &http1_settings, (const char *)bytes.p, bytes.n);
	enum http_errno code = HTTP_PARSER_ERRNO(&h->parser);
	if (code == HPE_PAUSED) {
		if (buf_append_span(&h->ahead, span_skip(bytes, used)))
			http1_break(h);
	} else if (code != HPE_OK && !h->broken) {
		http1_bad_request(h, code);
	}
	http1_pace(h);
}

void http1_recv(struct http1 *h, struct span bytes)
{
	must(h->magic == HTTP1_MAGIC);
	if (h->broken)
		return;
	if (!h->x || !h->message_done) {
		http1_parse(h, bytes);
		return;
	}
	if (buf_append_span(&h->ahead, bytes))
		http1_break(h);
	http1_pace(h);
}

bool http1_on_eof(struct http1 *h)
{
	must(h->magic == HTTP1_MAGIC);
	h->eof = true;
	if (h->x && h->message_done) {
		/* Has the client left? What is said to one that has is answered with a reset; one that waits ignores
		 * this (RFC 9110, 15.2.1), but for one of HTTP/1.0. */
		if (!h->x->started && h->parser.http_minor >= 1)
			http1_continue(h);
		return true;
	}
	/* The request under way will never be whole; what was answered before it still goes out. */
	bool answered = !h->x || h->x->ended;
	http1_break(h);
	http1_watch(h, false);
	return answered && h->conn->out.n > 0;
}

/* The exchange is over: closes, or goes on with what was sent ahead. */
void http1_on_done(struct http1 *h)
{
	must(h->magic == HTTP1_MAGIC);
	struct http_exchange *x = h->x;
	h->x = NULL;
	http_exchange_unref(x);
	h->held = h->want_writable = false;
	if (!h->keep_alive || h->drain_over || h->broken || !h->message_done) {
		conn_close_after_flush(h->conn);
		h->broken = true;
		return;
	}
	http_parser_pause(&h->parser, 0);
	if (h->ahead.n) {
		struct buf input = h->ahead;
		buf_init(&h->ahead, HTTP1_AHEAD_MAX_BYTES);
		http1_parse(h, buf_span(&input));
		buf_release(&input);
	}
	if (h->eof && !(h->x && h->message_done))
		http1_break(h);
	if (!h->broken)
		http1_pace(h);
}

/* ---- the answer ---------------------------------------------------------------------------------------- */

static void http1_put(struct buf *out, const struct headers *headers)
{
	for (size_t i = 0; headers && i < headers->n; i++) {
		struct span name = headers->items[i].name, value = headers->items[i].value;
		if (exchange_header_is_ours(name) || !exchange_header_is_legal(name, value))
			continue;
		buf_append_span(out, name);
		buf_append_str(out, ": ");
		buf_append_span(out, value);
		buf_append_str(out, "\r\n");
	}
}

/* The rest of the request's body may be dropped; if it is too much, or without end, the connection goes. */
static void http1_consider_rest(struct http1 *h)
{
	const http_parser *parser = &h->parser;
	if (h->message_done || !body_is_expected(parser))
		return;
	if ((parser->flags & F_CHUNKED) || parser->content_length > HTTP1_DROP_BYTES || h->awaits_continue)
		h->keep_alive = false;
}

void http1_start(struct http1 *h, int status, const struct headers *headers, int64_t content_length)
{
	must(h->magic == HTTP1_MAGIC);
	char date[EXCHANGE_DATE_BYTES];
	struct buf head;
	if (h->broken)
		return;
	bool has_body = status >= 200 && status != 204 && status != 304;
	bool old = h->parser.http_major < 1 || (h->parser.http_major == 1 && h->parser.http_minor == 0);
	if (h->x->ended)
		http1_consider_rest(h);
	if (h->draining)
		h->keep_alive = false;
	h->chunked = has_body && content_length < 0 && !old && !h->x->head;
	if (has_body && content_length < 0 && old)
		h->keep_alive = false; /* the end of the connection is the end of the body */
	buf_init(&head, 16 * LIMIT_HEADER_BYTES);
	buf_printf(&head, "HTTP/1.1 %d %s\r\n", status, http_status_str((enum http_status)status));
	http1_put(&head, headers);
	exchange_date(date);
	buf_printf(&head, "date: %s\r\n", date);
	if (content_length >= 0)
		buf_printf(&head, "content-length: %lld\r\n", (long long)content_length);
	else if (has_body && !old)
		buf_append_str(&head, "transfer-encoding: chunked\r\n");
	if (!h->keep_alive)
		buf_append_str(&head, "connection: close\r\n");
	else if (old)
		buf_append_str(&head, "connection: keep-alive\r\n");
	enum err_code rc = buf_append_str(&head, "\r\n");
	if (rc == ERR_OK)
		rc = outq_append(&h->conn->out, head.p, head.n);
	buf_release(&head);
	if (rc)
		http1_break(h);
	conn_flush_later(h->conn);
}

bool http1_write(struct http1 *h, struct span piece)
{
	must(h->magic == HTTP1_MAGIC);
	struct outq *out = &h->conn->out;
	if (h->broken || h->x->head || piece.n == 0)
		return !h->broken;
	char size[24];
	int n = snprintf(size, sizeof(size), "%zx\r\n", piece.n);
	enum err_code rc = h->chunked ? outq_append(out, size, (size_t)n) : ERR_OK;
	if (rc == ERR_OK)
		rc = outq_append(out, piece.p, piece.n);
	if (rc == ERR_OK && h->chunked)
		rc = outq_append(out, "\r\n", 2);
	if (rc) {
		http1_break(h);
		return false;
	}
	conn_flush_later(h->conn);
	if (out->n < HTTP1_HIGH_BYTES)
		return true;
	h->want_writable = true;
	return false;
}

void http1_end(struct http1 *h)
{
	must(h->magic == HTTP1_MAGIC);
	if (h->chunked && !h->broken && outq_append(&h->conn->out, "0\r\n\r\n", 5))
		http1_break(h);
	h->chunked = false;
	http1_consider_rest(h);
	conn_flush_later(h->conn);
	if (h->message_done || !h->keep_alive)
		exchange_done_later(h->x);
}

void http1_break(struct http1 *h)
{
	h->broken = true;
	h->keep_alive = false;
	conn_close_after_flush(h->conn);
}

void http1_hold(struct http1 *h, bool hold)
{
	h->held = hold;
	http1_pace(h);
}

void http1_on_output(struct http1 *h)
{
	struct http_exchange *x = h->x;
	if (!h->want_writable || h->conn->out.n > HTTP1_LOW_BYTES || !x)
		return;
	h->want_writable = false;
	if (!x->ended && x->ops && x->ops->on_writable)
		x->ops->on_writable(x, x->user);
}

/* ---- life ---------------------------------------------------------------------------------------------- */

bool http1_idle(const struct http1 *h)
{
	return !h->x;
}

void http1_drain(struct http1 *h)
{
	h->draining = true;
}

void http1_drain_now(struct http1 *h)
{
	h->drain_over = true;
	if (!h->x)
		conn_close_after_flush(h->conn);
}

struct http1 *http1_new(struct conn *conn, const struct http1_config *config)
{
	struct http1 *h = mem_xalloc(sizeof(*h));
	h->magic = HTTP1_MAGIC;
	h->conn = conn;
	h->config = *config;
	http_parser_init(&h->parser, HTTP_REQUEST);
	h->parser.data = h;
	arena_init(&h->arena, HTTP1_ARENA_BYTES);
	buf_init(&h->head, LIMIT_HEADER_BYTES);
	buf_init(&h->ahead, HTTP1_AHEAD_MAX_BYTES);
	return h;
}

void http1_free(struct http1 *h)
{
	if (!h)
		return;
	must(h->magic == HTTP1_MAGIC);
	struct http_exchange *x = h->x;
	h->x = NULL;
	if (x) {
		x->http1 = NULL;
		exchange_done(x);
		http_exchange_unref(x);
	}
	loop_timer_free(h->silence);
	buf_release(&h->head);
	buf_release(&h->ahead);
	arena_release(&h->arena);
	h->magic = 0;
	mem_free(h);
}
