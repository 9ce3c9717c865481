/* The part that event sourced and value entities share: replay, then one command at a time, whose changes are
 * durable before its answer. A kind embeds `struct serial` as its first member, fills a struct serial_kind, and
 * puts SERIAL_ENTITY_OPS into its table. Private to src/proxy. */
#ifndef CAIRN_PROXY_SERIAL_H
#define CAIRN_PROXY_SERIAL_H

#include "proxy/entity.h"
#include "proxy/wire.h"

#define SERIAL_MAGIC 0x53657269u

enum serial_state {
	SERIAL_COLD,
	SERIAL_LOADING,
	SERIAL_READY,
	SERIAL_BUSY,
	SERIAL_APPENDING,
	SERIAL_CLOSING
};

struct serial;

/* A reply of the function, as far as all kinds have it; `own` is the kind's message. */
struct serial_reply {
	int64_t command_id;
	const Cloudstate__ClientAction *action;
	Cloudstate__SideEffect *const *effects;
	size_t effect_count;
	bool changes; /* it would change the state */
	const void *own;
};
struct serial_out {
	bool is_reply;
	struct serial_reply reply;
	const Cloudstate__Failure *failure;
	const char *refused; /* what was not unpacked: a reply whose changes cannot be kept, and why (in the arena) */
};

/* What a reply changes: nothing; the append that says so; or it cannot be kept, and text says why. */
enum serial_keep { SERIAL_NOTHING, SERIAL_APPEND, SERIAL_REFUSED };

struct serial_kind {
	const char *path; /* the gRPC method of the function's stream */
	/* The contract's texts for the faults of the function, and for those who wait then. */
	const char *failure, *reply, *message, *termination, *terminated;
	const char *changes; /* what a reply changes, in words */
	bool restarts;	     /* a failure may ask for it */

	void (*reload)(struct serial *m); /* an activation begins; may be NULL */
	/* Messages to the function; false: out of memory. on_record() may send at once, or keep it for begin(),
	 * which is called when all is loaded unless serial_open() has been. */
	bool (*on_record)(struct serial *m, const struct record_view *record);
	bool (*begin)(struct serial *m);
	bool (*send_command)(struct serial *m, Cloudstate__Command *command);

	/* False: malformed, too large for the arena, or ret->refused. */
	bool (*unpack)(struct span message, struct arena *a, struct serial_out *ret);
	/* Of a reply that is no failure: fills *append, or says why not. */
	enum serial_keep (*keep)(struct serial *m, struct entity_append *append, char why[ERR_TEXT_MAX]);
	void (*kept)(struct serial *m); /* it is durable now; may be NULL */
};

struct serial {
	struct entity base;
	const struct serial_kind *kind;
	enum serial_state state;
	struct entity_config config;
	struct list waiting; /* entity_command.node */
	size_t waiting_count;

	/* the function's stream */
	bool open; /* there is one, and our side of it is open */
	bool init_sent;
	bool reopen;	/* CLOSING: activate again at its end, even if nobody waits */
	bool restarted; /* LOADING: it was, so nobody need wait for it */
	bool retire;	/* passivate as soon as idle */
	int64_t next_id;

	uint64_t sequence;
	struct mono_time deadline; /* of BUSY, READY (passivation) and CLOSING (grace) */

	/* BUSY, APPENDING */
	struct entity_command *current;
	struct arena arena; /* of the reply */
	struct serial_reply reply;
};

void serial_init(struct serial *m, const struct serial_kind *kind, const struct entity_ops *ops,
		 const struct entity_config *config);
void serial_release(struct serial *m);

/* Opens the function's stream: init is to be sent at once. */
void serial_open(struct serial *m);
bool serial_send(struct serial *m, const ProtobufCMessage *message); /* false: out of memory */
/* A fault of the function, with the entity named before it. */
void serial_report(struct serial *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Would the Any be a record that the journal takes? */
bool serial_fits_record(const struct serial *m, const Google__Protobuf__Any *any, size_t *ret_bytes);
/* A record with an id of its own, of the Any (or NULL: without type and data). */
void serial_set_record(struct serial *m, struct client_record *r, const Google__Protobuf__Any *any);

void serial_command(struct entity *e, struct entity_command *c);
bool serial_withdraw(struct entity *e, struct entity_command *c);
size_t serial_waiting(const struct entity *e);
bool serial_idle(const struct entity *e);
size_t serial_bytes(const struct entity *e); /* without what the kind adds */
void serial_passivate(struct entity *e);
void serial_on_message(struct entity *e, struct span message);
void serial_on_end(struct entity *e, const struct entity_end *end);
void serial_on_record(struct entity *e, const struct record_view *record);
void serial_on_loaded(struct entity *e, uint64_t sequence);
void serial_on_load_failed(struct entity *e, const struct client_error *error);
void serial_on_appended(struct entity *e, const struct client_error *error, uint64_t sequence, uint64_t position);
void serial_on_time(struct entity *e);

#define SERIAL_ENTITY_OPS                                                                                      \
	.stateful = true, .command = serial_command, .withdraw = serial_withdraw, .waiting = serial_waiting,   \
	.idle = serial_idle, .passivate = serial_passivate, .on_message = serial_on_message,                   \
	.on_end = serial_on_end, .on_record = serial_on_record, .on_loaded = serial_on_loaded,                 \
	.on_load_failed = serial_on_load_failed, .on_appended = serial_on_appended, .on_time = serial_on_time

#endif
