/* One plain HTTP exchange, over an HTTP/2 stream or an HTTP/1 connection. */
#ifndef CAIRN_GRPC_EXCHANGE_H
#define CAIRN_GRPC_EXCHANGE_H

#include "grpc/loop.h"
#include "grpc/session.h"

#define EXCHANGE_MAGIC 0x65786368u
#define EXCHANGE_DATE_BYTES 40

struct http1;

struct http_exchange {
	uint32_t magic;
	unsigned refs; /* one is its own until on_done has returned */
	struct loop *loop;
	struct stream *stream; /* HTTP/2: one reference; else NULL */
	struct http1 *http1;   /* HTTP/1: NULL once the connection or its turn on it is over */
	const struct http_exchange_ops *ops;
	void *user;
	struct loop_task end_task;
	size_t body_max_bytes, body_bytes;
	bool head;      /* answers have no body */
	bool started;   /* the status is out */
	bool ended;     /* so is the last byte */
	bool body_done; /* the request's */
	bool done;
};

typedef void exchange_handle_fn(struct http_exchange *x, const struct http_request *request, void *arg);

struct http_exchange *exchange_new(struct loop *loop, struct span method, size_t body_max_bytes);
/* HTTP/2: makes an exchange of the request and hands it on. */
void exchange_accept(struct loop *loop, struct stream *s, size_t body_max_bytes, exchange_handle_fn *handle,
		     void *arg);
void exchange_on_body(struct http_exchange *x, struct span piece); /* counts; 413 over the limit */
void exchange_on_body_end(struct http_exchange *x);
void exchange_done(struct http_exchange *x); /* now: from the loop, or from the connection's end */
void exchange_done_later(struct http_exchange *x);
/* An error of the library's own: text/plain, one line. */
void exchange_refuse(struct http_exchange *x, int status, const char *text);

/* Headers that describe the connection or the length: the library's business, never the user's. */
bool exchange_header_is_ours(struct span name);
/* May it be sent, or does it break the lines of HTTP/1, on this connection or behind the next proxy? Of names,
 * those that two servers could read in two ways are not taken either. */
bool exchange_name_is_legal(struct span name);
bool exchange_header_is_legal(struct span name, struct span value);
void exchange_date(char buf[EXCHANGE_DATE_BYTES]); /* RFC 9110's form of now */

#endif
