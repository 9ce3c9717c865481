/* HTTP/JSON to protobuf and back, for one method call. No I/O: bytes in, bytes out; any thread.
 *
 * Requests become canonical protobuf bytes, replies compact proto3 JSON (pbdyn.h says how both read).
 * google.api.HttpBody goes through raw, as request or reply, whole or as the body field. */
#ifndef CAIRN_PROXY_TRANSCODE_H
#define CAIRN_PROXY_TRANSCODE_H

#include "base/buf.h"
#include "proxy/http_binding.h"

struct transcode_request {
	const struct http_match *match;
	struct span query;	  /* behind '?', as sent; empty if there is none */
	struct span content_type; /* as sent; empty if there is none */
	struct span body;
};

/* The request message's bytes, appended to *payload. ERR_INVALID says what is wrong and where: bad JSON,
 * path or query value, content type; ERR_LIMIT, ERR_NOMEM. */
enum err_code transcode_in(const struct transcode_request *request, struct arena *a, struct buf *payload,
			   struct err *err);

/* Is the answer the data of a google.api.HttpBody, as it is? */
bool transcode_is_raw(const struct http_binding *binding);

/* The answer's body and content type for a reply message's bytes. The content type is static text or lives
 * in the arena. */
enum err_code transcode_out(const struct http_binding *binding, struct span reply, struct arena *a,
			    struct buf *body, struct span *ret_content_type, struct err *err);

#endif
