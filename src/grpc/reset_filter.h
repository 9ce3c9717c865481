/* Finds the RST_STREAM frames in what a client sends, before anything else reads it. gRPC's C core, and with it
 * the clients of Python, Ruby, PHP and C++, resets a call that is cancelled between the choice of its stream's
 * number and its HEADERS. By RFC 9113, 6.4, that ends the connection, and with it every other call of that
 * client; gRPC's own servers pass it over, and so do we. One thread. */
#ifndef CAIRN_GRPC_RESET_FILTER_H
#define CAIRN_GRPC_RESET_FILTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define RESET_FILTER_HEAD_BYTES 9
#define RESET_FILTER_PREFACE_BYTES 24

struct reset_filter {
	uint32_t left; /* of the frame that is passing, or of the client's preface */
	uint32_t head_n;
	uint8_t head[RESET_FILTER_HEAD_BYTES]; /* of a frame whose beginning alone has come, or of a reset */
	bool dropping;
};

/* At the beginning of a client's connection. */
void reset_filter_init(struct reset_filter *filter);

/* Takes some of *bytes, at least one if there is one, and gives what may go on; nothing if more is needed
 * first. Ends before each reset; *ret_stream is then 0. A reset's head comes alone, with its stream in
 * *ret_stream; what came before it has gone on, so its streams are known. What is given lives until the next
 * call and as long as *bytes. */
struct span reset_filter_next(struct reset_filter *filter, struct span *bytes, uint32_t *ret_stream);

/* The reset that was just given does not go on: its head is not used, its payload never given. */
void reset_filter_drop(struct reset_filter *filter);

#endif
