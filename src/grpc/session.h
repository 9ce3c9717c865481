/* One HTTP/2 connection as a state machine: bytes in, bytes out, streams with headers and data between.
 * No socket, no clock, no gRPC. The only file that knows nghttp2 is session.c.
 *
 *	session_recv(s, bytes)		what the socket gave; calls the owner's and the streams' callbacks
 *	session_send(s, &outq, limit)	what the socket shall get, as far as limit; may call them too
 *
 * Everything else may be called from within callbacks and calls none itself, but session_abort().
 *
 * A stream:
 *
 *	            server: on_request            client: session_start()
 *	                      \                      /
 *	   peer's half:   OPEN --on_data*--> on_end (headers in `trailers`)
 *	   our half:      OPEN --stream_write*--> stream_end() ~> flushed
 *	   both over, or reset by either side, or connection lost:  on_close, once and last
 *
 * After a fatal error of session_recv() or session_send() only session_send(), session_abort() and
 * session_free() are left. One thread. */
#ifndef CAIRN_GRPC_SESSION_H
#define CAIRN_GRPC_SESSION_H

#include "base/arena.h"
#include "base/list.h"
#include "grpc/grpc.h"
#include "grpc/header_list.h"
#include "grpc/outq.h"

enum http2_error {
	HTTP2_NO_ERROR = 0,
	HTTP2_PROTOCOL_ERROR = 1,
	HTTP2_INTERNAL_ERROR = 2,
	HTTP2_REFUSED_STREAM = 7,
	HTTP2_CANCEL = 8,
	HTTP2_ENHANCE_YOUR_CALM = 11
};

struct session;
struct stream;

struct stream_ops {
	void (*on_headers)(struct stream *s); /* client: s->headers are whole */
	void (*on_data)(struct stream *s, struct span piece);
	void (*on_end)(struct stream *s);      /* the peer has sent all; s->trailers */
	void (*on_writable)(struct stream *s); /* out has fallen below low water */
	void (*on_close)(struct stream *s, uint32_t http2_error, bool lost); /* last */
};

/* Counted: the session holds a reference until on_close, the owner as long as he likes. */
#define STREAM_MAGIC 0x7374726du
struct stream {
	uint32_t magic;
	unsigned refs;
	struct session *session; /* NULL before start and after close */
	int32_t id;
	const struct stream_ops *ops; /* NULL: nobody listens any more */
	void *user;
	struct arena arena; /* lives as long as the stream: headers, and what its owner puts there */
	struct header_list headers, trailers;
	size_t header_bytes;
	bool headers_too_large;
	bool got_headers; /* the first block is whole */
	bool in_ended;    /* the peer has sent END_STREAM */

	struct outq out;
	bool out_started;  /* our header block was submitted */
	bool out_ended;    /* nothing comes after what is in `out` */
	bool out_flushed;  /* END_STREAM was sent */
	bool out_deferred; /* nghttp2 waits for more */
	bool want_writable;
	bool reset_sent;
	bool never_sent; /* client: its headers were dropped, for no stream may begin any more */
	struct header_list end_trailers; /* sent after the last byte */

	size_t charged_bytes; /* see stream_charge() */
	bool held;
	size_t held_bytes;           /* received and not given back to the peer's window */
	struct list_node node;       /* session's streams */
	struct list_node ready_node; /* session's streams that await on_writable */
};

struct session_config {
	bool server;
	size_t window_bytes; /* of one stream */
	size_t connection_window_bytes;
};

struct session_ops {
	/* Server: a request's headers are whole; binds s->ops (and takes a reference) or leaves it. */
	void (*on_request)(struct stream *s, void *user);
	void (*on_settings)(struct session *session, void *user); /* the peer's, first or changed */
	void (*on_goaway)(struct session *session, uint32_t http2_error, void *user); /* from the peer */
	void (*on_ping_ack)(struct session *session, void *user);
	void (*on_stream_closed)(struct session *session, void *user); /* one less */
	void (*on_output)(struct session *session, void *user);        /* there may be something to send */
};

/* NULL when out of memory. */
struct session *session_new(const struct session_config *config, const struct session_ops *ops, void *user);
/* No streams may be left: session_abort() first. */
void session_free(struct session *session);
void *session_user(const struct session *session);

enum err_code session_recv(struct session *session, struct span bytes, struct err *err);
/* Appends to out until it holds limit bytes or there is no more. */
enum err_code session_send(struct session *session, struct outq *out, size_t limit, struct err *err);
bool session_wants_output(const struct session *session);
bool session_done(const struct session *session); /* neither reads nor writes any more: close it */
/* The connection is lost: every stream gets on_close(lost). */
void session_abort(struct session *session);

size_t session_stream_count(const struct session *session);
size_t session_peer_stream_limit(const struct session *session);
bool session_can_start(const struct session *session); /* client: not over a limit, no GOAWAY */
void session_shutdown_notice(
	struct session *session); /* server: GOAWAY that still takes what is on its way */
void session_ping(struct session *session);
void session_goaway(struct session *session, uint32_t http2_error); /* no more streams */

/* Client: */
struct stream *stream_new(const struct stream_ops *ops, void *user); /* one reference, the caller's */
/* Sends the header block; the session takes its reference. end: nothing follows. */
enum err_code session_start(struct session *session, struct stream *s, const struct headers *request,
			    bool end);

/* Closed by the session: as good as new, with nothing written. What was put into its arena stays. */
void stream_reopen(struct stream *s);

struct stream *stream_ref(struct stream *s);
void stream_unref(struct stream *s);
/* The owner goes: no more callbacks; takes his reference. */
void stream_detach(struct stream *s);

/* Server: the header block. end: nothing follows. */
void stream_respond(struct stream *s, const struct headers *response, bool end);
/* These answer ERR_NOMEM, having reset the stream. False of `more` is a wish, not a limit. */
enum err_code stream_write(struct stream *s, struct span piece);
enum err_code stream_write_ref(struct stream *s, struct span piece, void (*free_fn)(void *arg),
			       void *free_arg);
void stream_written(struct stream *s);  /* after one or more stream_write*(): lets them go */
bool stream_writable(struct stream *s); /* below high water; if not, on_writable is due */
/* Nothing more from us; trailers (may be NULL) are copied. */
void stream_end(struct stream *s, const struct headers *trailers);
void stream_reset(struct stream *s, uint32_t http2_error);
void stream_hold(struct stream *s, bool hold);
/* The owner holds so many received bytes for this stream. False: all streams together hold more than
 * LIMIT_CONNECTION_BUFFER_BYTES, and this one is not without blame. */
bool stream_charge(struct stream *s, size_t held_bytes);

#endif
