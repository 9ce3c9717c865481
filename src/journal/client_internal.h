/* What the files of the client share; see client.h. */
#ifndef CAIRN_JOURNAL_CLIENT_INTERNAL_H
#define CAIRN_JOURNAL_CLIENT_INTERNAL_H

#include "base/arena.h"
#include "base/list.h"
#include "journal/client.h"
#include "journal/wire.h"

/* Appends that wait, by number: a ring that grows when the slot of a number is taken. */
struct append_ring {
	struct append **slots;
	size_t cap; /* a power of two, or 0 */
};

#define CLIENT_MAGIC 0xc11e27ab
struct client {
	uint32_t magic;
	struct loop *loop;
	struct grpc_channel *channel;
	char *journal, *target;
	void (*on_state)(struct client *c, enum grpc_channel_state state, const struct err *why, void *arg);
	void *arg;
	char *trouble; /* why the connection last failed; NULL while it is well */
	bool closing;

	/* Appends. One is either unsent, sent (on this stream), or failed (on_done is due). */
	struct grpc_call *stream; /* the AppendStream, or NULL */
	struct list unsent, sent, failed;
	struct append_ring ring; /* all but the failed */
	size_t open_count;
	uint64_t next_number;
	int64_t retry_ms; /* the next pause before trying again */
	bool pausing;	  /* until the retry timer */
	struct loop_timer *retry, *deadline, *failing;
	int64_t deadline_us; /* for which that timer is set; INT64_MAX: not set */

	struct list reads;
};

struct client_read {
	struct client *client;
	struct list_node node;
	struct grpc_call *call;
	struct client_read_ops ops;
	void *arg;
	enum client_response { CLIENT_READ, CLIENT_LOAD, CLIENT_SUBSCRIBE } response;
	struct err fault; /* what was wrong with a response; unset: nothing */
};

/* client.c */
void client_error_of_result(const struct client *c, const struct grpc_result *result,
			    struct client_error *ret);
PB(Cursor) *client_pack_cursor(struct arena *a, const struct client_cursor *cursor);
void client_unpack_cursor(const PB(Cursor) *cursor, struct client_cursor *ret);
/* mem_free() it; NULL: no memory. */
uint8_t *client_pack(const ProtobufCMessage *message, size_t *ret_n);
void *client_zalloc(struct arena *a, size_t n); /* aborts without memory: our own small things */

/* client_append.c */
void client_appends_init(struct client *c);
void client_appends_release(struct client *c);
void client_appends_on_ready(struct client *c);

#endif
