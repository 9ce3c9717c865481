/* The CRDT kind's machine, as its files share it: crdt.c its life, crdt_send.c what its function
 * is sent, crdt_out.c what it writes, crdt_journal.c its records, crdt_peers.c what others do. Private to them.
 *
 *	COLD ──command──▶ LOADING ──loaded──▶ READY ──passivation, failed append──▶ CLOSING ──ended──▶ COLD
 *	                     │                  └──deleted, here or elsewhere──▶ DELETING ──ended──▶ COLD
 *	                     └──it is deleted: refused──▶ COLD
 *
 * A command's flight, from when it was sent: SENT ─reply─▶ over, or OPEN ─end_stream, failure─▶ over. Its client
 * leaves: SENT ─▶ LEFT ─streamed reply─▶ CANCELLING; OPEN ─▶ CANCELLING ─response, end, 5 s─▶ over. A reply whose
 * change others must have, too, is CONFIRMING until they have: then it goes on as if it had come then.
 *
 * What the function writes takes effect in its order: while one message's change is made durable (`work`), the
 * others wait in `inbox`, the stream's end behind them. What others have changed is told only while no flight is
 * SENT, LEFT or CANCELLING and nothing waits there. A cancellation goes out at once, but behind the inbox: the
 * function may have ended the stream in it, and one that it does not know kills a function of the Go SDK. */
#ifndef CAIRN_PROXY_CRDT_H
#define CAIRN_PROXY_CRDT_H

#include "base/map.h"
#include "proxy/crdt_fold.h"
#include "proxy/crdt_text.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

#include "cloudstate/crdt.pb-c.h"

typedef Cloudstate__Crdt__CrdtStreamIn crdt_in;
typedef Cloudstate__Crdt__CrdtStreamOut crdt_out;
#define CRDT_IN(NAME) CLOUDSTATE__CRDT__CRDT_STREAM_IN__MESSAGE_##NAME
#define CRDT_OUT(NAME) CLOUDSTATE__CRDT__CRDT_STREAM_OUT__MESSAGE_##NAME

#define CRDT_SESSIONLESS \
	SPAN("this proxy has no session with the journal: see whether the journal can be reached")
/* The contract's words. */
#define CRDT_UNCONFIRMED SPAN("Failed to update CRDT at requested write consistency")

enum crdt_state { CRDT_COLD, CRDT_LOADING, CRDT_READY, CRDT_CLOSING, CRDT_DELETING };

/* A command that the function was sent. */
enum crdt_phase { CRDT_SENT, CRDT_LEFT, CRDT_OPEN, CRDT_CANCELLING, CRDT_CONFIRMING };
struct crdt_flight {
	struct list_node node; /* crdt.sent (SENT, LEFT), .streams, .cancelling or .confirming */
	struct entity_command *command;
	int64_t id;
	enum crdt_phase phase;
	bool left; /* OPEN: to be cancelled, unless it ends in what waits in the inbox */
	struct mono_time deadline; /* SENT, LEFT: of the reply; CANCELLING, CONFIRMING */
	struct crdt_wait *wait;	   /* CONFIRMING */
};

/* Who must have a change before it is answered. */
struct crdt_wait {
	bool all;  /* or a majority */
	bool left; /* the client of a streamed command is gone */
	uint64_t position;
	struct arena arena; /* of out */
	const crdt_out *out;
	size_t count; /* of others that lived when the change was sent, and still do */
	uint8_t sessions[][CRDT_SESSION_BYTES];
};

/* A message of the function that waits. */
struct crdt_inbound {
	struct list_node node;
	struct span bytes; /* behind it */
};

/* What is under way with the journal. */
enum crdt_work {
	CRDT_IDLE,
	CRDT_APPENDING,	 /* the change of `out` */
	CRDT_RELOADING,	 /* somebody else made the first delta: then the change again */
	CRDT_CATCHING,	 /* it is durable; what others wrote before it is being loaded */
	CRDT_SNAPSHOTTING,
	CRDT_UNFENCED, /* there is no session to write the change of `out` under */
	CRDT_HELD      /* `out` is a message for `flight`, which is CONFIRMING */
};

struct crdt {
	struct entity base;
	struct entity_config config;
	enum crdt_state state;
	bool running; /* one of its functions is on the stack */
	bool retire;  /* passivate as soon as idle */
	bool stopping; /* the proxy is: a reply opens no stream any more */
	bool reopen;  /* CLOSING: activate again at its end, even if nobody waits */

	struct list waiting; /* entity_command.node */
	size_t waiting_count;
	struct map flights; /* by id */
	struct list sent, streams, cancelling, confirming;
	size_t left_count; /* of streams, those that are to be cancelled */
	size_t streaming_count; /* of flights, those that are answered: OPEN, CANCELLING */
	int64_t next_id;
	struct mono_time idle_since;

	/* the function's stream */
	bool stream, open; /* there is one; our side of it is open */
	bool full;	   /* the function does not read: nothing but what must be is sent until on_writable() */
	bool ended;	   /* by the function: after what is in the inbox */
	enum grpc_code end_code;
	char *end_text;
	bool end_unreached, end_too_large;
	struct list inbox; /* crdt_inbound.node */
	size_t inbox_bytes;
	bool held;
	struct mono_time grace; /* CLOSING, DELETING: until it is reset */

	/* the value */
	struct crdt_fold *fold;	 /* READY, DELETING */
	struct crdt_fold *fresh; /* being loaded */
	bool loading;
	uint64_t seen;		/* while loading: the newest record that came by the way */
	bool behind;		/* some may have been missed: once more */
	struct crdt_told *told; /* READY */
	uint64_t told_sequence; /* the function was told of the stream up to here: `observed` */
	bool unsure;		/* the function's own change may not be what came of it */
	struct mono_time untold_since; /* what others changed waits to be told; us 0: nothing does */
	uint64_t snapshot_sequence;
	bool no_snapshot; /* it has become too large */
	uint8_t (*ending)[CRDT_SESSION_BYTES]; /* SNAPSHOTTING: that are ended sessions in the snapshot */
	size_t ending_count;

	/* what the value holds */
	size_t value_bytes; /* when it was measured last */
	size_t grown_bytes; /* that have come since */

	/* others */
	uint8_t session[CRDT_SESSION_BYTES];	  /* that the newest change was sent under */
	uint8_t told_session[CRDT_SESSION_BYTES]; /* and who else there was: when the function was told */
	uint64_t told_peers;
	struct mono_time peers_wait; /* LOADING without loading, UNFENCED */

	/* work */
	enum crdt_work work;
	struct arena arena; /* of out */
	const crdt_out *out;
	struct crdt_flight *flight; /* that out is about */
	const struct Cloudstate__Crdt__CrdtDelta *change; /* its record's; NULL: deletes */
	size_t change_bytes;
	uint64_t own_sequence;
	struct crdt_wait *wait; /* of out; NULL: nobody is asked */
};

/* crdt_send.c */
void crdt_send_init(struct crdt *c, const struct Cloudstate__Crdt__CrdtDelta *delta); /* opens the stream */
void crdt_send_delta(struct crdt *c, const struct Cloudstate__Crdt__CrdtDelta *delta);
void crdt_send_delete(struct crdt *c);
void crdt_send_command(struct crdt *c, struct entity_command *command);
void crdt_flights_end(struct crdt *c, struct list *of, enum grpc_code code, struct span text, bool failure);
void crdt_end_cancelled(struct crdt *c); /* whose client has left: nobody hears how they end */
struct crdt_flight *crdt_flight_find(struct crdt *c, int64_t id);
void crdt_flight_open(struct crdt *c, struct crdt_flight *f); /* its reply opens its stream */
/* The command stays whose it is. */
void crdt_flight_drop(struct crdt *c, struct crdt_flight *f);
void crdt_flight_end(struct crdt *c, struct crdt_flight *f, enum grpc_code code, struct span text, bool failure);
void crdt_flight_cancel(struct crdt *c, struct crdt_flight *f); /* stream_cancelled is sent */

/* crdt.c */
struct mono_time crdt_after_ms(const struct crdt *c, int64_t ms);
void crdt_end(struct crdt *c, struct entity_command *command, enum grpc_code code, struct span text, bool failure);
struct crdt *crdt_machine(struct entity *e);
void crdt_report(struct crdt *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The function broke the protocol: waiting clients and open streams are told, the stream is reset. */
void crdt_fault(struct crdt *c);
void crdt_close(struct crdt *c, bool reopen);
/* It is deleted: tells the function, unless it asked for that, half-closes, ends what waits. */
void crdt_deleted(struct crdt *c, bool tell);
void crdt_reload(struct crdt *c);
void crdt_end_waiting(struct crdt *c, enum grpc_code code, struct span text, bool failure);

/* crdt_memory.c */
void crdt_grew(struct crdt *c, size_t bytes); /* so many have come, of deltas or to be told */
void crdt_measure(struct crdt *c);
size_t crdt_bytes(const struct entity *e);

/* crdt_peers.c: what others have changed, who they are, and what they have confirmed. */
/* The function may be changing its value, or what it wrote is not worked off. */
bool crdt_outstanding(const struct crdt *c);
bool crdt_untold(const struct crdt *c);
/* A record of the stream, next in sequence, is in the fold. */
void crdt_applied(struct crdt *c, bool own);
/* What the function has to be told, init or delta. False: it cannot be, and the reason is told to who waits. */
bool crdt_make_told(struct crdt *c, struct arena *a, const struct Cloudstate__Crdt__CrdtDelta **ret);
void crdt_tell(struct crdt *c);
/* The caller frees ret->live. */
void crdt_nodes_make(const struct crdt *c, struct crdt_nodes *ret);
bool crdt_peers_known(const struct crdt *c);
bool crdt_peers_alive(const struct crdt *c); /* there is a session to write under, or none is needed */
void crdt_peers_changed(struct crdt *c);
void crdt_peers_on_time(struct crdt *c);
/* c->out's change waits until there is a session. */
void crdt_await_session(struct crdt *c);
/* Who is to confirm the change that is about to be sent: NULL if nobody is. */
struct crdt_wait *crdt_wait_new(const struct crdt *c, Cloudstate__Crdt__CrdtWriteConsistency consistency);
/* The change is durable at c->wait->position: c->out waits in its flight, or not if all have it already. */
bool crdt_confirm(struct crdt *c);
/* Those that are not confirmed end with the contract's text. */
void crdt_end_unconfirmed(struct crdt *c);

/* crdt_out.c */
void crdt_take(struct crdt *c, struct span message); /* the next message of the function */
/* The stream ended at a message over the limit: whoever it may have been for is told so, and the function. */
void crdt_too_large(struct crdt *c);
void crdt_change_again(struct crdt *c);		     /* after RELOADING, UNFENCED */
void crdt_change_appended(struct crdt *c, const struct client_error *error, uint64_t sequence, uint64_t position);
void crdt_out_drop(struct crdt *c);
/* The flight's answer was waited for by others' leave: it goes on. Its wait is taken. */
void crdt_out_confirmed(struct crdt *c, struct crdt_flight *f);
/* The change of c->out cannot be kept though the function did nothing wrong. */
void crdt_give_up(struct crdt *c, enum grpc_code code, struct span text);
void crdt_out_held(struct crdt *c); /* HELD, and the flight is not CONFIRMING any more */
void crdt_out_refused(struct crdt *c, struct crdt_flight *f); /* they have not confirmed it in time */

/* crdt_journal.c: records. */
/* Fills a record of a delta's bytes (empty: of a delete). confirm: "majority", "all" or NULL. */
void crdt_record_make(const struct crdt *c, bool delete, struct span delta, const char *confirm,
		      struct crdt_text *text, struct client_record *ret);
/* Reads one into the fold; ret_own (may be NULL) says whether this proxy wrote it. ERR_CORRUPT says why not. */
enum err_code crdt_record_read(struct crdt_fold *f, const struct record_view *record, const uint8_t *session,
			       bool *ret_own, const struct Cloudstate__Crdt__CrdtDelta **ret_delta,
			       struct arena *a, struct err *err);
void crdt_snapshot_append(struct crdt *c);
void crdt_snapshot_appended(struct crdt *c, const struct client_error *error);
bool crdt_snapshot_due(const struct crdt *c);

#endif
