/* One socket: sniffs which HTTP it is, and carries bytes between it and a session or HTTP/1 parser. The
 * only file that knows both a descriptor and a protocol is conn.c.
 *
 *	SNIFF --24 bytes of preface--> HTTP2 --done--> LINGER --peer's end, 1 s--> gone
 *	  \----anything else---------> HTTP1 --------/
 *
 * A connection frees itself once it is closed and no callback of it is on the stack; before that it
 * calls on_closed, once, after which its owner must not use it. */
#ifndef CAIRN_GRPC_CONN_H
#define CAIRN_GRPC_CONN_H

#include <event2/event_struct.h>

#include "base/list.h"
#include "grpc/loop.h"
#include "grpc/session.h"

#define CONN_MAGIC 0x636f6e6eu
#define CONN_PEER_BYTES 64

struct conn;
struct http1;

struct conn_ops {
	void (*on_request)(struct conn *conn, struct stream *s); /* server, HTTP/2 */
	struct http1 *(*on_http1)(struct conn *conn); /* server: makes what takes an HTTP/1 connection over */
	void (*on_settings)(struct conn *conn);       /* client: the peer's, first or changed */
	void (*on_room)(struct conn *conn);           /* a stream has ended, or a GOAWAY has come */
	void (*on_closed)(struct conn *conn, const struct err *why); /* why->code ERR_OK: orderly */
};

enum conn_state { CONN_SNIFF, CONN_HTTP2, CONN_HTTP1, CONN_LINGER, CONN_DEAD };

struct conn {
	uint32_t magic;
	enum conn_state state;
	struct loop *loop;
	int fd;
	char peer[CONN_PEER_BYTES];
	struct event readable, writable;
	struct loop_task flush_task;
	struct session_config config;
	struct session *session;
	struct http1 *http1;
	struct outq out;
	unsigned busy;    /* callbacks of this connection on the stack */
	bool closing;     /* as soon as out has been written */
	bool draining;    /* when no call is left */
	bool goaway_sent; /* the one that names the last stream */
	bool told;        /* on_closed was called */
	bool read_paused;
	bool in_ended; /* the peer has shut down its half */
	uint8_t sniffed[24];
	size_t sniffed_n;
	unsigned idle_ticks; /* of the server's clock since it was last used */
	struct err why;

	/* The owner's. */
	const struct conn_ops *ops;
	void *owner;
	struct list_node node;
	size_t calls; /* client: streams started on it */
};

/* Takes fd, connected. config.server says which side this is. */
struct conn *conn_new(struct loop *loop, int fd, const struct session_config *config,
		      const struct conn_ops *ops, void *owner);
void conn_flush_later(struct conn *conn);
/* Now: streams are lost, on_closed is called (why NULL: orderly), nothing more is sent. */
void conn_abort(struct conn *conn, const struct err *why);
/* The same, but what can be written at once still is. */
void conn_finish(struct conn *conn);
/* No more calls; closed when those under way have ended and all is sent. */
void conn_drain(struct conn *conn);
/* While draining, a server: no longer waits for the peer to have heard of it, or to send what may be on its way. */
void conn_drain_now(struct conn *conn);
/* After what is in out has been written. */
void conn_close_after_flush(struct conn *conn);
void conn_touch(struct conn *conn); /* a request has come */
bool conn_idle(const struct conn *conn);
void conn_pause_read(struct conn *conn, bool pause); /* HTTP/1: back-pressure */

#endif
