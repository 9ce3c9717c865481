/* The journal as a gRPC service (proto/cairn/journal/v1/journal.proto) on a server's event loops.
 *
 * It keeps nothing of its own: requests are checked and encoded on the worker that read them and given
 * to the journal; answers come back by that worker's mailbox. Pages of reads are sent as they are, with
 * a few fields behind the entries; the next page is asked for when the client has taken the last.
 *
 * Threads: made and freed by the main thread while the loops do not run, or before the server listens. */
#ifndef CAIRN_JOURNAL_SERVICE_H
#define CAIRN_JOURNAL_SERVICE_H

#include <stddef.h>

#include "grpc/grpc.h"
#include "journal/journal.h"

#define JOURNAL_SERVICE_NAME "cairn.journal.v1.Journal"

struct journal_service;
struct journal_service *journal_service_new(struct journal *j, struct grpc_server *server,
					    struct loop **loops, size_t loop_count);
/* Ends subscriptions and, once all that they carried is answered, append streams, with UNAVAILABLE, so
 * that a drain does not wait for them. Any thread. */
void journal_service_drain(struct journal_service *s);
/* What the service alone knows, as Prometheus has it, behind what there is. Any thread. */
enum err_code journal_service_metrics(struct journal_service *s, struct buf *out);
void journal_service_free(struct journal_service *s); /* after the server; NULL is fine */

#endif
