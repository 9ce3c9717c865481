/* A call on either side, over one HTTP/2 stream. See README.md for the states; transitions are in call.c. */
#ifndef CAIRN_GRPC_CALL_H
#define CAIRN_GRPC_CALL_H

#include "grpc/frame.h"
#include "grpc/loop.h"
#include "grpc/session.h"

#define CALL_MAGIC 0x63616c6cu

enum call_state {
	CALL_WAITING, /* client: for a connection */
	CALL_OPEN,
	CALL_ENDING, /* server: the status is on its way; client: ended here, on_done is put off */
	CALL_DONE    /* on_done was called */
};

struct grpc_call {
	uint32_t magic;
	unsigned refs; /* one is the call's own until on_done has returned */
	enum call_state state;
	bool server;
	struct loop *loop;
	struct stream *stream; /* one reference */
	const struct grpc_call_ops *ops;
	void *user;
	struct span path;
	struct headers metadata; /* received */
	struct deframer in;
	int64_t deadline_us; /* on the monotonic clock; -1: none */
	struct loop_timer *timer;
	struct loop_task end_task;
	struct grpc_result result; /* what on_done will say; spans live in the stream's arena */
	bool gzip_out;             /* large messages are compressed */
	bool gzip_accepted;        /* the peer takes it */

	/* Server. */
	bool headers_sent;
	const struct grpc_method *method;
	struct buf request; /* unary: the one message */
	bool got_request;

	/* Client. */
	struct list_node node; /* channel's waiting calls, or calls under way */
	struct header_list request_headers;
	bool wait_for_ready;
	bool got_headers;
	int http_status;
	struct grpc_channel *channel; /* not to be followed from here */
	const char *peer;             /* "the journal at 127.0.0.1:7117", or NULL; the channel's */
	const void *conn;             /* it runs on, or that has refused it: to compare alone */
	bool refused;
	bool resend;     /* `sent` is all that was sent, should the server refuse it unseen */
	struct buf sent;
	void (*on_refused)(struct grpc_call *call); /* it is WAITING again */
};

/* Server: makes a call of a request and looks at its headers. NULL: it has been answered (or memory is
 * out and the stream reset). The call owns a reference to s. */
struct grpc_call *call_accept(struct loop *loop, struct stream *s, size_t message_max_bytes);
/* Binds the call to a method of a table. */
void call_begin_method(struct grpc_call *call, const struct grpc_method *method);
void call_unimplemented(struct grpc_call *call);

/* Client: a call that waits, or one that is ending because its metadata is too large. */
struct grpc_call *call_new_client(struct loop *loop, struct span path, const struct headers *metadata,
				  size_t message_max_bytes, const struct grpc_call_ops *ops, void *user);
void call_set_deadline(struct grpc_call *call, int64_t timeout_ms);
/* Puts its headers on the wire; what was sent before follows. */
enum err_code call_start(struct grpc_call *call, struct session *session, struct span authority,
			 struct span user_agent);
/* Ends it from here: on_done with this, at once or (later) from the loop. The stream is reset if it runs. */
void call_end(struct grpc_call *call, enum grpc_code code, const char *message, bool not_sent);
void call_end_later(struct grpc_call *call, enum grpc_code code, const char *message, bool not_sent);

#endif
