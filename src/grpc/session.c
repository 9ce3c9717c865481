#include <config.h>

#include "grpc/reset_filter.h"
#include "grpc/session.h"

#include <stdio.h>

#include <nghttp2/nghttp2.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"

#define SESSION_MAGIC 0x73657373u
/* A stream's output waits here; above it the producer is asked to stop, below the lower mark to go on. */
#define STREAM_HIGH_BYTES (256 * KIB)
#define STREAM_LOW_BYTES (64 * KIB)
#define STREAM_BLOCK_BYTES ((size_t)512)
/* Headers, trailers, their arrays, and what a call keeps about itself. */
#define STREAM_ARENA_BYTES (16 * LIMIT_HEADER_BYTES)
#define HEADERS_ON_STACK 32
#define HEADERS_OF_BLOCK ((size_t)10) /* a usual request has them all in its first array */
/* Stream resets a peer may send: a burst, then so many a second (CVE-2023-44487). Calls that are cancelled
 * or time out are resets too, so these are far above nghttp2's defaults (1000 and 33). */
#define RESET_BURST 10000
#define RESET_PER_SECOND 1000
#define DETAIL_BYTES 200

struct session {
	uint32_t magic;
	nghttp2_session *ng;
	struct session_config config;
	const struct session_ops *ops;
	void *user;
	struct list streams, ready;
	size_t stream_count;
	size_t charged_bytes; /* of all streams */
	bool goaway_received;
	int32_t last_id, skipped_from,
		skipped_to;         /* server: the peer's newest stream; ids it has passed over */
	struct reset_filter resets; /* server */
	char detail[DETAIL_BYTES];  /* what nghttp2 last said was wrong */

	/* While session_send() runs. */
	struct outq *out;
	size_t out_limit;
};

/* ---- headers --------------------------------------------------------------------------------------- */

static nghttp2_nv *headers_to_nv(const struct headers *h, nghttp2_nv stack[HEADERS_ON_STACK])
{
	nghttp2_nv *nv = stack;
	if (h->n > HEADERS_ON_STACK)
		nv = mem_try_alloc(h->n * sizeof(*nv));
	for (size_t i = 0; nv && i < h->n; i++) {
		/* nghttp2 copies them; its struct has no const. */
		const struct span name = h->items[i].name, value = h->items[i].value;
		nv[i] = (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n, 0};
	}
	return nv;
}

/* ---- streams --------------------------------------------------------------------------------------- */

struct stream *stream_new(const struct stream_ops *ops, void *user)
{
	struct stream *s = mem_try_alloc(sizeof(*s));
	if (!s)
		return NULL;
	*s = (struct stream){.magic = STREAM_MAGIC, .refs = 1, .id = -1, .ops = ops, .user = user};
	s->headers.first = HEADERS_OF_BLOCK;
	arena_init(&s->arena, STREAM_ARENA_BYTES);
	outq_init(&s->out, STREAM_BLOCK_BYTES);
	return s;
}

struct stream *stream_ref(struct stream *s)
{
	must(s->magic == STREAM_MAGIC);
	s->refs++;
	return s;
}

void stream_unref(struct stream *s)
{
	must(s->magic == STREAM_MAGIC);
	must(s->refs > 0);
	if (--s->refs)
		return;
	must(!s->session);
	outq_release(&s->out);
	arena_release(&s->arena);
	s->magic = 0;
	mem_free(s);
}

void stream_detach(struct stream *s)
{
	s->ops = NULL;
	s->user = NULL;
	list_remove(&s->ready_node);
	stream_unref(s);
}

void stream_reopen(struct stream *s)
{
	must(s->magic == STREAM_MAGIC);
	must(!s->session);
	list_remove(&s->ready_node);
	outq_release(&s->out);
	s->id = -1;
	s->headers.h.n = s->trailers.h.n = s->end_trailers.h.n = 0;
	s->header_bytes = s->charged_bytes = s->held_bytes = 0;
	s->headers_too_large = s->got_headers = s->in_ended = false;
	s->out_started = s->out_ended = s->out_flushed = s->out_deferred = false;
	s->want_writable = s->reset_sent = s->never_sent = false;
}

static struct stream *stream_of(nghttp2_session *ng, int32_t id)
{
	return nghttp2_session_get_stream_user_data(ng, id);
}

static void session_poke(struct session *session)
{
	if (session->ops->on_output)
		session->ops->on_output(session, session->user);
}

static void session_add(struct session *session, struct stream *s, int32_t id)
{
	s->session = session;
	s->id = id;
	list_push_back(&session->streams, &s->node);
	session->stream_count++;
}

/* Takes the stream out of the session and tells its owner; drops the session's reference. */
static void stream_close(struct stream *s, uint32_t http2_error, bool lost)
{
	struct session *session = s->session;
	list_remove(&s->node);
	list_remove(&s->ready_node);
	s->session = NULL;
	must(session->stream_count > 0);
	session->stream_count--;
	session->charged_bytes -= s->charged_bytes;
	outq_release(&s->out);
	if (s->ops)
		s->ops->on_close(s, http2_error, lost);
	stream_unref(s);
	if (!lost && session->ops->on_stream_closed)
		session->ops->on_stream_closed(session, session->user);
}

bool stream_writable(struct stream *s)
{
	if (s->out.n < STREAM_HIGH_BYTES)
		return true;
	s->want_writable = true;
	return false;
}

void stream_written(struct stream *s)
{
	if (!s->out_deferred || !s->session)
		return;
	s->out_deferred = false;
	int r = nghttp2_session_resume_data(s->session->ng, s->id);
	/* INVALID_ARGUMENT: the stream is closing and its data item is gone; on_close is on its way. */
	if (r == NGHTTP2_ERR_NOMEM)
		stream_reset(s, HTTP2_INTERNAL_ERROR);
	session_poke(s->session);
}

static bool stream_takes_output(const struct stream *s)
{
	return !s->out_ended && !s->reset_sent && (s->session || s->id < 0);
}

enum err_code stream_write(struct stream *s, struct span piece)
{
	if (!stream_takes_output(s))
		return ERR_OK;
	enum err_code rc = outq_append(&s->out, piece.p, piece.n);
	if (rc)
		stream_reset(s, HTTP2_INTERNAL_ERROR);
	return rc;
}

enum err_code stream_write_ref(struct stream *s, struct span piece, void (*free_fn)(void *arg),
			       void *free_arg)
{
	if (!stream_takes_output(s)) {
		if (free_fn)
			free_fn(free_arg);
		return ERR_OK;
	}
	enum err_code rc = outq_append_ref(&s->out, piece, free_fn, free_arg);
	if (rc)
		stream_reset(s, HTTP2_INTERNAL_ERROR);
	return rc;
}

void stream_end(struct stream *s, const struct headers *trailers)
{
	if (!stream_takes_output(s))
		return;
	for (size_t i = 0; trailers && i < trailers->n; i++) {
		const struct header *h = &trailers->items[i];
		if (header_list_add(&s->end_trailers, &s->arena, h->name, h->value)) {
			stream_reset(s, HTTP2_INTERNAL_ERROR);
			return;
		}
	}
	/* Red under it: session, half_close_is_no_reset; and the recorder's passivation test. */
	if (s->session && !s->session->config.server && plant("reset-instead-of-half-close")) {
		stream_reset(s, HTTP2_CANCEL);
		return;
	}
	s->out_ended = true;
	stream_written(s);
}

void stream_reset(struct stream *s, uint32_t http2_error)
{
	if (s->reset_sent || (!s->session && s->id >= 0))
		return;
	s->reset_sent = true;
	outq_release(&s->out);
	/* NOMEM leaves the stream to end with its connection. */
	if (!s->session)
		return;
	nghttp2_submit_rst_stream(s->session->ng, NGHTTP2_FLAG_NONE, s->id, http2_error);
	session_poke(s->session);
}

static int stream_give_back(struct stream *s)
{
	size_t n = s->held_bytes;
	if (s->held || n == 0 || !s->session)
		return 0;
	s->held_bytes = 0;
	/* Red under it: session, large_message_needs_window_updates. */
	if (plant("window-update-forgotten"))
		return 0;
	return nghttp2_session_consume_stream(s->session->ng, s->id, n);
}

void stream_hold(struct stream *s, bool hold)
{
	s->held = hold;
	if (hold || !s->session)
		return;
	if (stream_give_back(s) == NGHTTP2_ERR_NOMEM)
		stream_reset(s, HTTP2_INTERNAL_ERROR);
	session_poke(s->session);
}

bool stream_charge(struct stream *s, size_t held_bytes)
{
	struct session *session = s->session;
	if (!session)
		return true;
	session->charged_bytes = session->charged_bytes - s->charged_bytes + held_bytes;
	s->charged_bytes = held_bytes;
	return held_bytes == 0 || session->charged_bytes <= LIMIT_CONNECTION_BUFFER_BYTES;
}

/* ---- output ---------------------------------------------------------------------------------------- */

/* Says how much of a stream's output goes into the next DATA frame; session_on_send_data() moves it. */
static ssize_t session_on_read(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
			       nghttp2_data_source *source, void *user)
{
	struct stream *s = OBJ_CAST(struct stream, source->ptr, STREAM_MAGIC);
	(void)buf;
	(void)user;
	if (s->reset_sent || (s->out.n == 0 && !s->out_ended)) {
		s->out_deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	*flags |= NGHTTP2_DATA_FLAG_NO_COPY;
	if (length < s->out.n || !s->out_ended)
		return (ssize_t)(length < s->out.n ? length : s->out.n);
	*flags |= NGHTTP2_DATA_FLAG_EOF;
	if (s->end_trailers.h.n) {
		*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
		nghttp2_nv stack[HEADERS_ON_STACK];
		nghttp2_nv *nv = headers_to_nv(&s->end_trailers.h, stack);
		int r = nv ? nghttp2_submit_trailer(ng, id, nv, s->end_trailers.h.n) : NGHTTP2_ERR_NOMEM;
		if (nv != stack)
			mem_free(nv);
		if (r)
			return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* resets the stream */
	}
	return (ssize_t)s->out.n;
}

static int session_on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *frame_head,
				size_t length, nghttp2_data_source *source, void *user)
{
	struct session *session = OBJ_CAST(struct session, user, SESSION_MAGIC);
	struct stream *s = OBJ_CAST(struct stream, source->ptr, STREAM_MAGIC);
	(void)ng;
	(void)frame;
	if (session->out->n >= session->out_limit)
		return NGHTTP2_ERR_WOULDBLOCK;
	if (outq_append(session->out, frame_head, 9) || outq_move(session->out, &s->out, length))
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	if (s->want_writable && s->out.n <= STREAM_LOW_BYTES && !list_linked(&s->ready_node)) {
		s->want_writable = false;
		list_push_back(&session->ready, &s->ready_node);
	}
	return 0;
}

static nghttp2_data_provider stream_provider(struct stream *s)
{
	return (nghttp2_data_provider){.source.ptr = s, .read_callback = session_on_read};
}

void stream_respond(struct stream *s, const struct headers *response, bool end)
{
	must(!s->out_started);
	s->out_started = true;
	if (!s->session || s->reset_sent)
		return;
	nghttp2_nv stack[HEADERS_ON_STACK];
	nghttp2_nv *nv = headers_to_nv(response, stack);
	nghttp2_data_provider provider = stream_provider(s);
	int r = nv ? nghttp2_submit_response(s->session->ng, s->id, nv, response->n, end ? NULL : &provider)
		   : NGHTTP2_ERR_NOMEM;
	if (nv != stack)
		mem_free(nv);
	if (r)
		stream_reset(s, HTTP2_INTERNAL_ERROR);
	else if (end)
		s->out_ended = true;
	session_poke(s->session);
}

enum err_code session_start(struct session *session, struct stream *s, const struct headers *request,
			    bool end)
{
	must(s->id < 0);
	nghttp2_nv stack[HEADERS_ON_STACK];
	nghttp2_nv *nv = headers_to_nv(request, stack);
	if (!nv)
		return ERR_NOMEM;
	nghttp2_data_provider provider = stream_provider(s);
	int32_t id = nghttp2_submit_request(session->ng, NULL, nv, request->n, end ? NULL : &provider, s);
	if (nv != stack)
		mem_free(nv);
	if (id < 0)
		return id == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_UNAVAILABLE;
	stream_ref(s);
	session_add(session, s, id);
	s->out_started = true;
	if (end)
		s->out_ended = true;
	session_poke(session);
	return ERR_OK;
}

static int session_on_frame_send(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
	struct session *session = OBJ_CAST(struct session, user, SESSION_MAGIC);
	bool ends = (frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS) &&
		    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
	struct stream *s = ends ? stream_of(ng, frame->hd.stream_id) : NULL;
	if (!s)
		return 0;
	s->out_flushed = true;
	/* The answer is whole and the client still sends: it may stop, and nothing is wrong. */
	if (session->config.server && !s->in_ended && !s->reset_sent)
		stream_reset(s, HTTP2_NO_ERROR);
	return 0;
}

/* Headers that cannot be sent, above all because they are too large: nothing that follows makes sense. */
static int session_on_frame_not_send(nghttp2_session *ng, const nghttp2_frame *frame, int code, void *user)
{
	struct stream *s = frame->hd.type == NGHTTP2_HEADERS ? stream_of(ng, frame->hd.stream_id) : NULL;
	(void)user;
	/* A GOAWAY came before them. */
	if (s && code == NGHTTP2_ERR_START_STREAM_NOT_ALLOWED)
		s->never_sent = true;
	else if (s)
		stream_reset(s, HTTP2_INTERNAL_ERROR);
	return 0;
}

static void session_run_ready(struct session *session)
{
	struct list now;
	list_init(&now);
	struct list_node *node;
	while ((node = list_pop_front(&session->ready)))
		list_push_back(&now, node);
	while ((node = list_pop_front(&now))) {
		struct stream *s = CONTAINER_OF(node, struct stream, ready_node);
		if (s->ops && s->ops->on_writable)
			s->ops->on_writable(s);
	}
}

enum err_code session_send(struct session *session, struct outq *out, size_t limit, struct err *err)
{
	must(session->magic == SESSION_MAGIC);
	session->out = out;
	session->out_limit = limit;
	enum err_code rc = ERR_OK;
	while (out->n < limit) {
		const uint8_t *p;
		ssize_t n = nghttp2_session_mem_send(session->ng, &p);
		if (n == 0)
			break;
		if (n < 0) {
			rc = err_set(err, ERR_UNAVAILABLE, "HTTP/2 output: %s", nghttp2_strerror((int)n));
			break;
		}
		if (outq_append(out, p, (size_t)n)) {
			rc = err_set(err, ERR_NOMEM, "HTTP/2 output: out of memory");
			break;
		}
	}
	session->out = NULL;
	session_run_ready(session);
	return rc;
}

/* ---- input ------------------------------------------------------------------------------------------ */

/* A stream that the peer passed over may not be opened later (RFC 9113, 5.1.1). nghttp2 ignores such a
 * frame, so it is seen here; the newest gap is remembered, real clients leave none. */
static int session_on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user)
{
	struct session *session = OBJ_CAST(struct session, user, SESSION_MAGIC);
	if (hd->type == NGHTTP2_HEADERS && hd->stream_id >= session->skipped_from &&
	    hd->stream_id <= session->skipped_to)
		return nghttp2_session_terminate_session(ng, NGHTTP2_PROTOCOL_ERROR);
	return 0;
}

static void session_note_id(struct session *session, int32_t id)
{
	if (id > session->last_id + 2) {
		session->skipped_from = session->last_id + 1;
		session->skipped_to = id - 1;
	}
	session->last_id = id;
}

static int session_on_begin_headers(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
	struct session *session = OBJ_CAST(struct session, user, SESSION_MAGIC);
	if (!session->config.server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	session_note_id(session, frame->hd.stream_id);
	struct stream *s = stream_new(NULL, NULL);
	if (!s)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	session_add(session, s, frame->hd.stream_id);
	return nghttp2_session_set_stream_user_data(ng, frame->hd.stream_id, s);
}

static int session_on_header(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name,
			     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
	struct stream *s = stream_of(ng, frame->hd.stream_id);
	(void)flags;
	(void)user;
	if (!s)
		return 0;
	s->header_bytes += name_n + value_n + 32; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
	if (s->header_bytes > LIMIT_HEADER_BYTES)
		s->headers_too_large = true;
	/* Past the limit the pseudo-headers alone are kept: something must be answered. */
	if (s->headers_too_large && (name_n == 0 || name[0] != ':'))
		return 0;
	struct header_list *list = s->got_headers ? &s->trailers : &s->headers;
	if (header_list_add(list, &s->arena, span_of(name, name_n), span_of(value, value_n)))
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	return 0;
}

/* An interim response (100, 103): forgotten, the real one follows. */
static bool headers_are_interim(const struct stream *s)
{
	struct span status = headers_get(&s->headers.h, ":status");
	return status.n == 3 && status.p[0] == '1';
}

static void session_on_header_block(struct session *session, struct stream *s)
{
	if (!s->got_headers) {
		if (!session->config.server && headers_are_interim(s)) {
			s->headers.h.n = 0;
			return;
		}
		s->got_headers = true;
		s->header_bytes = 0;
		if (session->config.server)
			session->ops->on_request(s, session->user);
		else if (s->ops && s->ops->on_headers)
			s->ops->on_headers(s);
	}
}

static void session_on_end_stream(struct session *session, struct stream *s)
{
	s->in_ended = true;
	if (s->ops && s->ops->on_end)
		s->ops->on_end(s);
	/* The server has answered whatever we still have to say: stop saying it. */
	if (!session->config.server && !s->out_flushed)
		stream_reset(s, HTTP2_NO_ERROR);
}

static int session_on_frame_recv(nghttp2_session *ng, const nghttp2_frame *frame, void *user)
{
	struct session *session = OBJ_CAST(struct session, user, SESSION_MAGIC);
	const nghttp2_frame_hd *hd = &frame->hd;
	if (hd->type == NGHTTP2_SETTINGS && !(hd->flags & NGHTTP2_FLAG_ACK) && session->ops->on_settings)
		session->ops->on_settings(session, session->user);
	if (hd->type == NGHTTP2_PING && (hd->flags & NGHTTP2_FLAG_ACK) && session->ops->on_ping_ack)
		session->ops->on_ping_ack(session, session->user);
	if (hd->type == NGHTTP2_GOAWAY) {
		session->goaway_received = true;
		if (session->ops->on_goaway)
			session->ops->on_goaway(session, frame->goaway.error_code, session->user);
	}
	if (hd->type != NGHTTP2_HEADERS && hd->type != NGHTTP2_DATA)
		return 0;
	struct stream *s = stream_of(ng, hd->stream_id);
	if (!s)
		return 0;
	stream_ref(s);
	if (hd->type == NGHTTP2_HEADERS)
		session_on_header_block(session, s);
	if ((hd->flags & NGHTTP2_FLAG_END_STREAM) && !s->in_ended)
		session_on_end_stream(session, s);
	stream_unref(s);
	return 0;
}

static int session_on_data(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
			   void *user)
{
	(void)flags;
	(void)user;
	/* The connection's window is given back at once: one held stream must not hold the others. */
	int r = nghttp2_session_consume_connection(ng, n);
	if (r)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	struct stream *s = stream_of(ng, id);
	if (!s || !s->ops || s->reset_sent)
		return 0;
	stream_ref(s);
	s->held_bytes += n;
	if (s->ops->on_data)
		s->ops->on_data(s, span_of(data, n));
	r = s->ops ? stream_give_back(s) : 0;
	stream_unref(s);
	return r == NGHTTP2_ERR_NOMEM ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int session_on_stream_close(nghttp2_session *ng, int32_t id, uint32_t error_code, void *user)
{
	struct stream *s = stream_of(ng, id);
	(void)user;
	if (s)
		stream_close(s, s->never_sent ? HTTP2_REFUSED_STREAM : error_code, false);
	return 0;
}

static int session_on_error(nghttp2_session *ng, int code, const char *text, size_t n, void *user)
{
	struct session *session = OBJ_CAST(struct session, user, SESSION_MAGIC);
	(void)ng;
	(void)code;
	snprintf(session->detail, sizeof(session->detail), "%.*s",
		 (int)(n < DETAIL_BYTES ? n : DETAIL_BYTES - 1), text);
	return 0;
}

static enum err_code session_feed(struct session *session, struct span bytes, struct err *err)
{
	ssize_t n = nghttp2_session_mem_recv(session->ng, bytes.p, bytes.n);
	if (n >= 0)
		return ERR_OK;
	const char *what = nghttp2_strerror((int)n);
	return err_set(err, ERR_UNAVAILABLE, "HTTP/2 input: %s%s%s", what, session->detail[0] ? ": " : "",
		       session->detail);
}

/* A stream that this client, which has opened some, has not opened. */
static bool session_is_idle(const struct session *session, uint32_t id)
{
	return session->last_id > 0 && id % 2 && id > (uint32_t)session->last_id;
}

enum err_code session_recv(struct session *session, struct span bytes, struct err *err)
{
	must(session->magic == SESSION_MAGIC);
	if (!session->config.server)
		return session_feed(session, bytes, err);
	while (bytes.n) {
		uint32_t reset;
		struct span some = reset_filter_next(&session->resets, &bytes, &reset);
		if (reset && session_is_idle(session, reset))
			reset_filter_drop(&session->resets);
		else if (some.n && session_feed(session, some, err))
			return err->code;
	}
	return ERR_OK;
}

/* ---- the session ------------------------------------------------------------------------------------ */

static void *ng_malloc(size_t n, void *user)
{
	(void)user;
	return mem_try_alloc(n);
}

static void ng_free(void *p, void *user)
{
	(void)user;
	mem_free(p);
}

static void *ng_calloc(size_t count, size_t n, void *user)
{
	(void)user;
	if (n && count > SIZE_MAX / n)
		return NULL;
	void *p = mem_try_alloc(count * n);
	if (p)
		memset(p, 0, count * n);
	return p;
}

static void *ng_realloc(void *p, size_t n, void *user)
{
	(void)user;
	return mem_try_realloc(p, n);
}

static int session_new_ng(struct session *session)
{
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *option;
	if (nghttp2_session_callbacks_new(&callbacks))
		return NGHTTP2_ERR_NOMEM;
	if (nghttp2_option_new(&option)) {
		nghttp2_session_callbacks_del(callbacks);
		return NGHTTP2_ERR_NOMEM;
	}
	nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, session_on_begin_frame);
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, session_on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, session_on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, session_on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, session_on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, session_on_stream_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, session_on_frame_send);
	nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, session_on_frame_not_send);
	nghttp2_session_callbacks_set_send_data_callback(callbacks, session_on_send_data);
	nghttp2_session_callbacks_set_error_callback2(callbacks, session_on_error);
	nghttp2_option_set_no_auto_window_update(option, 1);
	nghttp2_option_set_stream_reset_rate_limit(option, RESET_BURST, RESET_PER_SECOND);
	nghttp2_mem mem = {NULL, ng_malloc, ng_free, ng_calloc, ng_realloc};
	int r = session->config.server
			? nghttp2_session_server_new3(&session->ng, callbacks, session, option, &mem)
			: nghttp2_session_client_new3(&session->ng, callbacks, session, option, &mem);
	nghttp2_option_del(option);
	nghttp2_session_callbacks_del(callbacks);
	return r;
}

static int session_submit_settings(struct session *session)
{
	nghttp2_settings_entry settings[4];
	size_t n = 0;
	settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
						 (uint32_t)session->config.window_bytes};
	settings[n++] =
		(nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)LIMIT_HEADER_BYTES};
	if (session->config.server)
		settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
							 LIMIT_STREAMS_PER_CONNECTION};
	else
		settings[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
	int r = nghttp2_submit_settings(session->ng, NGHTTP2_FLAG_NONE, settings, n);
	if (r)
		return r;
	return nghttp2_session_set_local_window_size(session->ng, NGHTTP2_FLAG_NONE, 0,
						     (int32_t)session->config.connection_window_bytes);
}

struct session *session_new(const struct session_config *config, const struct session_ops *ops, void *user)
{
	must(config->window_bytes <= INT32_MAX);
	must(config->connection_window_bytes <= INT32_MAX);
	struct session *session = mem_try_alloc(sizeof(*session));
	if (!session)
		return NULL;
	*session = (struct session){
		.magic = SESSION_MAGIC, .config = *config, .ops = ops, .user = user, .last_id = -1};
	list_init(&session->streams);
	list_init(&session->ready);
	reset_filter_init(&session->resets);
	if (session_new_ng(session)) {
		mem_free(session);
		return NULL;
	}
	if (session_submit_settings(session)) {
		session_free(session);
		return NULL;
	}
	return session;
}

void session_free(struct session *session)
{
	if (!session)
		return;
	must(session->magic == SESSION_MAGIC);
	must(list_empty(&session->streams));
	nghttp2_session_del(session->ng);
	session->magic = 0;
	mem_free(session);
}

void *session_user(const struct session *session)
{
	return session->user;
}

void session_abort(struct session *session)
{
	struct list_node *node;
	while ((node = list_first(&session->streams))) {
		struct stream *s = CONTAINER_OF(node, struct stream, node);
		nghttp2_session_set_stream_user_data(session->ng, s->id, NULL);
		stream_close(s, HTTP2_NO_ERROR, true);
	}
}

bool session_wants_output(const struct session *session)
{
	return nghttp2_session_want_write(session->ng) != 0;
}

bool session_done(const struct session *session)
{
	return !nghttp2_session_want_write(session->ng) && !nghttp2_session_want_read(session->ng);
}

size_t session_stream_count(const struct session *session)
{
	return session->stream_count;
}

size_t session_peer_stream_limit(const struct session *session)
{
	return nghttp2_session_get_remote_settings(session->ng, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

bool session_can_start(const struct session *session)
{
	return !session->goaway_received && nghttp2_session_check_request_allowed(session->ng) &&
	       session->stream_count < session_peer_stream_limit(session);
}

void session_shutdown_notice(struct session *session)
{
	nghttp2_submit_shutdown_notice(session->ng);
	session_poke(session);
}

void session_ping(struct session *session)
{
	nghttp2_submit_ping(session->ng, NGHTTP2_FLAG_NONE, NULL);
	session_poke(session);
}

void session_goaway(struct session *session, uint32_t http2_error)
{
	nghttp2_submit_goaway(session->ng, NGHTTP2_FLAG_NONE,
			      nghttp2_session_get_last_proc_stream_id(session->ng), http2_error, NULL, 0);
	session_poke(session);
}
