/* The HTTP/JSON front: plain requests on the proxy's port, HTTP/1.1 and HTTP/2, transcoded to commands of
 * the function and back. Belongs to the proxy's loop.
 *
 *	struct http_front *front = http_front_new(router, LIMIT_EVENTS_SILENCE_MS);
 *	grpc_server_set_http(server, http_front_handle, front); */
#ifndef CAIRN_PROXY_HTTP_FRONT_H
#define CAIRN_PROXY_HTTP_FRONT_H

#include "grpc/grpc.h"
#include "proxy/router.h"

struct http_front;

/* quiet_ms: of silence, after which a stream of events gets a comment. */
struct http_front *http_front_new(struct router *router, int64_t quiet_ms);
void http_front_free(struct http_front *front); /* after the server; NULL is fine */

/* For grpc_server_set_http(). */
void http_front_handle(struct http_exchange *x, const struct http_request *request, void *front);

/* The one table from gRPC's codes to HTTP's (google.rpc.Code). */
int http_status_of(enum grpc_code code);

#endif
