/* HTTP/1.1 on a connection: requests parsed one after the other, answers written. The only user of
 * http_parser is http1.c.
 *
 * One exchange at a time: what a client sends ahead (pipelining) waits, and beyond a little of it the
 * connection is not read. A client that shuts down its half is answered what it has asked in whole; one that
 * falls silent in the middle of a request is answered 408. */
#ifndef CAIRN_GRPC_HTTP1_H
#define CAIRN_GRPC_HTTP1_H

#include "grpc/exchange.h"

struct conn;
struct http1;

struct http1_config {
	size_t body_max_bytes;
	int64_t silence_ms; /* in the middle of a request */
	exchange_handle_fn *handle; /* NULL: 404 */
	void *arg;
};

struct http1 *http1_new(struct conn *conn, const struct http1_config *config);
void http1_free(struct http1 *h); /* an exchange under way ends */

/* Called by the connection. */
void http1_recv(struct http1 *h, struct span bytes);
/* The client will send no more. False: there is nothing left to tell it either. */
bool http1_on_eof(struct http1 *h);
void http1_on_output(struct http1 *h); /* some has been written */
/* The next answer is the last, and says so; later: closes as soon as none is under way. */
void http1_drain(struct http1 *h);
void http1_drain_now(struct http1 *h);
bool http1_idle(const struct http1 *h);

/* Called by the exchange. */
void http1_start(struct http1 *h, int status, const struct headers *headers, int64_t content_length);
bool http1_write(struct http1 *h, struct span piece);
void http1_end(struct http1 *h);
void http1_break(struct http1 *h);
void http1_hold(struct http1 *h, bool hold);
void http1_on_done(struct http1 *h);

#endif
