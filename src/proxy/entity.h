/* What an entity kind is: a state machine without I/O behind one table of functions (struct entity_ops).
 *
 * A machine is told of commands, messages of the function, completions of the journal and the time, and
 * asks its host for what it wants done (struct entity_host). The host never calls back inside such a
 * request, and the machine is not freed inside its own call. A new kind is one file with one table, and
 * one line in kinds.c.
 *
 * Who uses it: entities.c is the host with sockets and timers, the unit tests are another one. */
#ifndef CAIRN_PROXY_ENTITY_H
#define CAIRN_PROXY_ENTITY_H

#include "base/arena.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/span.h"
#include "journal/client.h"
#include "proxy/router.h"

struct Cloudstate__ClientAction;
struct Cloudstate__SideEffect;

/* A command as a machine sees it: embedded in the router's. The spans live as long as the command. */
struct entity_command {
	struct list_node node; /* the machine's, from command() until it is answered or withdrawn */
	struct span name;
	struct any payload;
	bool repeated; /* the machine's: its events were refused once because the entity was stale */
};

/* What the function answered, once its events are durable. The arena holds it all and moves along. */
struct entity_answer {
	struct arena arena;
	const struct Cloudstate__ClientAction *action; /* NULL: none */
	struct Cloudstate__SideEffect *const *effects;
	size_t effect_count;
};

/* One atomic append to the entity's stream; borrowed until on_appended(). */
struct entity_append {
	uint64_t expected_sequence;
	const struct client_record *events;
	size_t event_count;
	const struct client_record *snapshot; /* or NULL */
};

/* What a machine asks for. */
struct entity_host {
	/* The function's stream: one at a time. After reset() it is not heard of again. */
	void (*open)(void *host);
	void (*send)(void *host, struct span message);
	void (*half_close)(void *host);
	void (*reset)(void *host);
	/* The journal: on_record() for each, then on_loaded() or on_failed(), unless cancelled. */
	void (*load)(void *host);
	void (*load_cancel)(void *host);
	void (*append)(void *host, const struct entity_append *append);
	/* The command is the host's again. */
	void (*answer)(void *host, struct entity_command *command, struct entity_answer *answer);
	void (*refuse)(void *host, struct entity_command *command, const struct outcome *outcome);
	/* on_time() at or after this moment; replaces an earlier wish. */
	void (*wake_at)(void *host, struct mono_time at);
	/* A fault of the function, in words for its author. */
	void (*report)(void *host, struct span text);
	/* There is no stream and no command left: the host frees the machine after this call. */
	void (*gone)(void *host);
};

struct entity_config {
	const struct entity_host *host;
	void *host_arg;
	const struct clock *clock;
	struct span service, entity_id, stream; /* copied by the machine's creator: live as long as it */
	int64_t passivation_ms, command_timeout_ms, close_grace_ms;
	size_t reply_max_bytes; /* of one message of the function */
};

/* How the function's stream ended. */
struct entity_end {
	enum grpc_code code;
	struct span message;
	bool unreached; /* nothing was sent: there was no connection to be had */
};

struct entity { /* the first member of every machine */
	uint32_t magic; /* the kind's own */
	const struct entity_ops *ops;
};
struct entity_ops {
	const char *type;	 /* as entities announce it: "cloudstate.eventsourced.EventSourced" */
	const char *stream_path; /* the gRPC method of the function's stream */
	const char *name;	 /* in words: "event sourced" */
	const char *mark;	 /* how its records say whose they are; NULL: they have no mark */
	bool stateful;		 /* has a journal stream: keys and a persistence id are required */
	bool streamed_in, streamed_out; /* takes methods that stream so */

	struct entity *(*create)(const struct entity_config *config);
	void (*free)(struct entity *e); /* commands that it still has are the host's */
	void (*command)(struct entity *e, struct entity_command *command);
	/* The client has left. True: it had not been sent, the command is the host's again. */
	bool (*withdraw)(struct entity *e, struct entity_command *command);
	size_t (*waiting)(const struct entity *e); /* commands not yet sent */
	bool (*idle)(const struct entity *e);	   /* could be passivated now */
	void (*passivate)(struct entity *e);	   /* now if idle, otherwise as soon as it is */

	void (*on_message)(struct entity *e, struct span message);
	void (*on_end)(struct entity *e, const struct entity_end *end);
	void (*on_record)(struct entity *e, const struct record_view *record);
	void (*on_loaded)(struct entity *e, uint64_t sequence); /* the stream's newest, to be expected */
	void (*on_load_failed)(struct entity *e, const struct client_error *error);
	/* error->code GRPC_OK: durable, and sequence is the stream's newest. */
	void (*on_appended)(struct entity *e, const struct client_error *error, uint64_t sequence);
	void (*on_time)(struct entity *e);
};

extern const struct entity_ops entity_event_sourced;

/* The kinds that are built (kinds.c). NULL when there is none of that type. */
extern const struct entity_ops *const entity_kinds[];
extern const size_t entity_kind_count;
const struct entity_ops *entity_kind_find(struct span type);
/* The kind that wrote a record, by its mark: an unmarked one is event sourced. NULL and the mark's text if
 * it is of a kind that is not built. */
const struct entity_ops *entity_kind_of_record(const struct record_view *record, struct span *ret_mark);

/* The metadata key of the mark. */
#define ENTITY_MARK_KEY "cairn-kind"

#endif
