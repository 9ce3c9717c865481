/* gRPC-Web: calls of browsers, over HTTP/1.1 or HTTP/2, on the proxy's port (contract, section 2). Messages are framed
 * as in gRPC, the status comes as a last frame; with "-text" all of it is base64. Every kind of method can be called;
 * what a client streams is taken whole. Belongs to the proxy's loop.
 *
 *	struct grpc_web *web = grpc_web_new(router, origins);
 *	... of each plain request: if (!grpc_web_handle(web, x, request)) it is for somebody else */
#ifndef CAIRN_PROXY_GRPC_WEB_H
#define CAIRN_PROXY_GRPC_WEB_H

#include "grpc/grpc.h"
#include "proxy/router.h"

struct grpc_web;

/* origins: whose pages may call (CORS), with commas between; "*": any; "": none but the proxy's own. */
struct grpc_web *grpc_web_new(struct router *router, const char *origins);
void grpc_web_free(struct grpc_web *web); /* after the server; NULL is fine */

/* False: it is no call of gRPC-Web and no browser's question about one; nothing was done. */
bool grpc_web_handle(struct grpc_web *web, struct http_exchange *x, const struct http_request *request);

#endif
