/* What gRPC writes into headers, for who carries it otherwise (gRPC-Web). Pure functions; any thread. */
#ifndef CAIRN_GRPC_HEADER_TEXT_H
#define CAIRN_GRPC_HEADER_TEXT_H

#include "base/arena.h"
#include "base/span.h"

/* A grpc-timeout, "100m" and the like, in milliseconds, rounded up; -1 for what is none. */
int64_t grpc_timeout_parse(struct span text);
/* A grpc-message: percent-encoded, in the arena; what would be longer than max_bytes ends in "...". p is NULL: no
 * memory. */
struct span grpc_message_encode(struct span text, size_t max_bytes, struct arena *a);

#endif
