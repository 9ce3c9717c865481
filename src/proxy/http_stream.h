/* An HTTP answer of many messages (contract, section 2, "Server streaming"): JSON, a line a message; server-sent
 * events; or the raw data of google.api.HttpBody. The status goes out with the first message or the end.
 * One thread, the proxy's loop. Private to src/proxy. */
#ifndef CAIRN_PROXY_HTTP_STREAM_H
#define CAIRN_PROXY_HTTP_STREAM_H

#include "grpc/grpc.h"
#include "proxy/http_binding.h"
#include "proxy/router.h"

enum http_stream_form { HTTP_STREAM_LINES, HTTP_STREAM_EVENTS, HTTP_STREAM_RAW };

struct http_stream {
	struct http_exchange *x;
	const struct http_binding *binding;
	enum http_stream_form form;
	struct span content_type; /* static */
	bool started;		  /* the status is out */
	int64_t quiet_ms;	  /* events: a comment after so much silence */
	struct loop_timer *quiet; /* NULL before the first event */
};

/* Chooses the form by the request's Accept headers. x and binding outlive the stream. */
void http_stream_init(struct http_stream *s, struct http_exchange *x, const struct http_binding *binding,
		      const struct headers *request, int64_t quiet_ms);
void http_stream_release(struct http_stream *s); /* never begun is fine */

/* One message; of the first, the metadata (may be NULL) becomes headers. *ret_room: more is welcome. An error: the
 * message cannot be said so, and nothing of it was sent. */
enum err_code http_stream_send(struct http_stream *s, struct span reply, const struct metadata *metadata,
			       bool *ret_room, struct err *err);
void http_stream_end(struct http_stream *s);
/* Once started: an event that says so and the end, or the answer broken off. */
void http_stream_fail(struct http_stream *s, enum grpc_code code, struct span message);

#endif
