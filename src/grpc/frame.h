/* gRPC's message framing: a flag, a length of four bytes, the message. Bytes in, whole messages out.
 *
 *	while ((r = deframer_next(&d, &bytes, &message, &err)) > 0)
 *		use(message);	// valid until the next call
 *	// 0: bytes is used up; -1: err
 *
 * The memory of a message grows as its bytes come, not by what its length promises. */
#ifndef CAIRN_GRPC_FRAME_H
#define CAIRN_GRPC_FRAME_H

#include "base/buf.h"

#define FRAME_PREFIX_BYTES 5

struct deframer {
	size_t max_bytes;  /* of one message, also once decompressed */
	bool may_compress; /* grpc-encoding named one that we know */
	uint8_t prefix[FRAME_PREFIX_BYTES];
	unsigned prefix_n;
	bool delivered;      /* body was handed out by the last call */
	size_t want_bytes;   /* of the message under way */
	struct buf body;     /* what has come of it */
	struct buf inflated; /* the last compressed message */
};

void deframer_init(struct deframer *d, size_t max_bytes);
void deframer_release(struct deframer *d);
/* ERR_LIMIT: larger than max_bytes; ERR_INVALID: flags, or compressed data that is none; ERR_NOMEM. */
int deframer_next(struct deframer *d, struct span *input, struct span *ret_message, struct err *err);
bool deframer_empty(const struct deframer *d); /* no message is under way */

void frame_prefix(uint8_t prefix[FRAME_PREFIX_BYTES], bool compressed, size_t message_bytes);

#endif
