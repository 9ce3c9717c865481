/* A server and a channel in one process over loopback, on one loop that the test turns by hand. The
 * service echoes: Unary, Collect (client streaming: the concatenation), Expand (server streaming: each
 * byte of the request as a message), Chat (bidirectional: each message back), Fail (status from the
 * request's text), Never (answers nothing). */
#ifndef CAIRN_TEST_GRPC_RIG_H
#define CAIRN_TEST_GRPC_RIG_H

#include <criterion/criterion.h>

#include "base/buf.h"
#include "base/limits.h"
#include "grpc/grpc.h"

struct rig {
	struct loop *loop;
	struct grpc_server *server;
	struct grpc_channel *channel;
	char target[32];
	unsigned opened, done; /* calls, on the server */
	struct grpc_result last_done;
	struct grpc_call *last; /* the newest one opened; not referenced */
	bool drained;
	enum grpc_channel_state states[32];
	unsigned state_n;

	/* Of the HTTP service: /hello, /echo, /stream, /never, /reset, /head (see rig.c). */
	unsigned http_done;
	struct http_exchange *held; /* of /never: one reference */
	unsigned http_writable;
};

/* What a client's call got. */
struct got {
	unsigned headers, messages, done;
	struct buf bytes; /* of all messages */
	enum grpc_code code;
	char text[256];
	bool not_sent, reset;
	uint32_t http2_error;
	char trailer[64]; /* x-trailer */
	char header[64];  /* x-header */
	bool writable;
};

void rig_start(struct rig *rig);
void rig_start_with(struct rig *rig, const struct grpc_server_config *config,
		    const struct grpc_channel_config *channel);
void rig_add_methods(struct rig *rig); /* to rig->server */
void rig_stop(struct rig *rig);
/* Turns the loop until cond, at most 10 s. */
#define RIG_UNTIL(rig, cond)                                   \
	do {                                                   \
		int64_t rig_end = rig_now_ms() + 10000;        \
		while (!(cond) && rig_now_ms() < rig_end)      \
			rig_turn(rig);                         \
		cr_assert(cond, "not within 10 s: %s", #cond); \
	} while (0)
void rig_turn(struct rig *rig);
/* What was written before has arrived and been acted on: calls have been made and answered since, on
 * connections of their own, by the same loop. */
void rig_settle(struct rig *rig);
int64_t rig_now_ms(void);

void got_init(struct got *got);
void got_release(struct got *got);
extern const struct grpc_call_ops got_ops; /* user: struct got */
struct grpc_call *rig_call(struct rig *rig, const char *method, struct got *got);

/* A bare TCP client: what is sent and what comes back, byte for byte. */
struct raw {
	int fd;
	struct buf got;
	bool eof;
};
void raw_connect(struct raw *raw, struct rig *rig);
void raw_send(struct raw *raw, const void *p, size_t n);
void raw_send_str(struct raw *raw, const char *text);
void raw_poll(struct raw *raw); /* takes what has come */
bool raw_has(struct raw *raw, const char *text);
unsigned raw_count(struct raw *raw, const char *text);
void raw_close(struct raw *raw);
#define RAW_UNTIL(rig, raw, cond) RIG_UNTIL(rig, (raw_poll(raw), (cond)))

#endif
