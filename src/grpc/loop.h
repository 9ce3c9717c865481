/* Inside of an event loop, for the files of this folder: what is put off to the end of the turn, and the
 * buffer that all of a loop's connections read into.
 *
 * One turn is: events of the kernel (sockets, timers, mailbox), then once each thing that was put off
 * before or during them. What these put off waits for the next turn, so none can starve the sockets. */
#ifndef CAIRN_GRPC_LOOP_H
#define CAIRN_GRPC_LOOP_H

#include "base/list.h"
#include "grpc/grpc.h"

#define LOOP_READ_BYTES ((size_t)65536)

/* Embedded in whatever is put off; on the loop's list from loop_defer() until run() is called. */
struct loop_task {
	struct list_node node;
	void (*run)(struct loop_task *task);
};
void loop_defer(struct loop *loop, struct loop_task *task); /* again is harmless */
void loop_undefer(struct loop_task *task);

struct event_base;
struct event_base *loop_base(struct loop *loop);
uint8_t *loop_read_buffer(struct loop *loop); /* LOOP_READ_BYTES, for one read at a time */
void loop_count(struct loop *loop);           /* something ran in this turn */

#endif
