/* What health and reflection need of a server besides its public functions. */
#ifndef CAIRN_GRPC_SERVER_H
#define CAIRN_GRPC_SERVER_H

#include "grpc/grpc.h"

size_t server_loop_count(const struct grpc_server *server);
struct loop *server_loop_at(const struct grpc_server *server, size_t i);
/* fn is called on each loop when it begins to drain: for calls that would never end by themselves. One
 * listener a server; before listening. */
void server_set_drain_listener(struct grpc_server *server, void (*fn)(struct loop *loop, void *arg),
			       void *arg);
/* free_fn(arg) is called when the server is freed, after its last connection. */
void server_own(struct grpc_server *server, void (*free_fn)(void *arg), void *arg);

#endif
