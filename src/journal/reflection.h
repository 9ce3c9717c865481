/* What cairnd tells about its services by gRPC server reflection: the descriptors of the journal's own
 * .proto files, embedded at build time. */
#ifndef CAIRN_JOURNAL_REFLECTION_H
#define CAIRN_JOURNAL_REFLECTION_H

#include "grpc/grpc.h"

struct journal_reflection;
struct journal_reflection *journal_reflection_new(struct grpc_server *server); /* before it listens */
void journal_reflection_free(struct journal_reflection *r); /* after the server; NULL is fine */

#endif
