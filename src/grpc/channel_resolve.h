/* Names to addresses without blocking the loop: what is no number is asked for on a thread of its own. */
#ifndef CAIRN_GRPC_CHANNEL_RESOLVE_H
#define CAIRN_GRPC_CHANNEL_RESOLVE_H

#include "grpc/loop.h"

struct addrinfo;
struct resolve;

/* fn is called on the loop, later, with a list that becomes its own, or NULL and the reason. */
struct resolve *resolve_start(struct loop *loop, const char *host, int port,
			      void (*fn)(struct addrinfo *list, const char *why, void *arg), void *arg);
void resolve_cancel(struct resolve *r); /* fn is not called any more; not after it was; NULL is fine */

#endif
