/* The body of a plain request that is taken whole, within two limits: its own, and that of all unfinished requests of
 * its connection. Belongs to the proxy's loop. */
#ifndef CAIRN_PROXY_HTTP_BODY_H
#define CAIRN_PROXY_HTTP_BODY_H

#include "base/buf.h"
#include "grpc/grpc.h"

static inline void http_body_drop(struct http_exchange *x, struct buf *body)
{
	buf_release(body);
	http_charge(x, 0);
}

/* Appends a piece. ERR_LIMIT, ERR_NOMEM: more than the buffer takes; ERR_UNAVAILABLE: the connection has too many
 * unfinished requests. On an error the body is dropped. */
static inline enum err_code http_body_take(struct http_exchange *x, struct buf *body, struct span piece)
{
	enum err_code code = buf_append_span(body, piece);
	if (!code && !http_charge(x, body->cap_bytes))
		code = ERR_UNAVAILABLE;
	if (code)
		http_body_drop(x, body);
	return code;
}

#endif
