/* The gRPC front: the function's services by descriptor, their reflection and health. One thread, the proxy's
 * loop. Private to src/proxy. */
#ifndef CAIRN_PROXY_FRONT_H
#define CAIRN_PROXY_FRONT_H

#include "grpc/grpc.h"
#include "proxy/router.h"

struct front;

/* Attaches to a server that does not listen yet. */
struct front *front_new(struct grpc_server *server, struct router *router);
void front_free(struct front *front); /* after the server */
/* Health answers NOT_SERVING from now on: a drain has begun. */
void front_not_serving(struct front *front);

#endif
