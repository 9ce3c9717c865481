/* What an entity kind is: a state machine without I/O behind one table of functions (struct entity_ops).
 *
 * A machine is told of commands, messages of the function, completions of the journal and the time, and
 * asks its host for what it wants done (struct entity_host). The host never calls back inside such a
 * request, but for command() inside answer() and end() (a forward or effect to the same entity), and the
 * machine is not freed inside its own call. A new kind is one file with one table, and one line in kinds.c.
 *
 * A stateful kind has one machine for each active entity. Of a kind without state (actions) there is one for
 * each command: it gets command() once, and is gone when that command is over.
 *
 * Streams. Answers to a command whose output streams: answer() with `more` any number of times, at any time,
 * also unasked; then answer() without, or end(). A failure in an answer, and a client that leaves, end it
 * for the client; the router tells the machine by withdraw(). What the machine then still answers (the
 * effects of a cancellation) is worked off without a client.
 *
 * Who uses it: entities.c is the host with sockets and timers, the unit tests are another one. */
#ifndef CAIRN_PROXY_ENTITY_H
#define CAIRN_PROXY_ENTITY_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/list.h"
#include "base/span.h"
#include "journal/client.h"
#include "proxy/router.h"

struct Cloudstate__ClientAction;
struct Cloudstate__SideEffect;

/* A command as a machine sees it: embedded in the router's. The spans live as long as the command. */
struct entity_command {
	struct list_node node; /* the machine's, from command() until it is the host's again */
	struct span name;
	struct any payload;		 /* none where the input streams: then input() brings each message */
	bool streams_in, streams_out;	 /* as the method does */
	const struct metadata *metadata; /* NULL: none; only where the kind takes it */
	bool metadata_of_input;		 /* it is the first input's, not the stream's */
	int64_t deadline_ms;		 /* that the client has left, when it is given; < 0: none */
	/* The machine's own. */
	bool repeated; /* its events were refused once because the entity was stale */
	int64_t id;
	unsigned phase;
};

/* What the function answered, once its events are durable. The arena holds it all and moves along. An answer
 * without an action sends nothing to the client of a stream, and an empty message to another one. */
struct entity_answer {
	struct arena arena;
	const struct Cloudstate__ClientAction *action; /* NULL: none */
	struct Cloudstate__SideEffect *const *effects;
	size_t effect_count;
	size_t bytes; /* about, of what waits with it */
	bool more;    /* the command stays the machine's: further answers, or its end, follow */
};

/* One atomic append to the entity's stream; borrowed until on_appended(). */
struct entity_append {
	enum client_expect expect;
	uint64_t expected_sequence; /* CLIENT_EXACTLY */
	const struct client_record *events;
	size_t event_count;
	const struct client_record *snapshot; /* or NULL */
	bool fenced; /* by the session of this process, which must be alive */
};

/* Those who serve the same service on the same journal, by their sessions. It belongs to the host, which changes
 * it and then says so by on_peers(). */
struct entity_peer {
	uint8_t session[RECORD_ID_BYTES];
	uint64_t applied; /* all before this position has come to it */
};
struct entity_peers {
	bool known;	   /* the journal has said who there is, at least once */
	bool alive;	   /* this process has a session, as far as it knows */
	uint64_t version;  /* another one with every change but of how far others are */
	uint64_t position; /* who came or went before it is counted, and some who did after it */
	const struct entity_peer *others;
	size_t count;
};

/* What a machine asks for. */
struct entity_host {
	/* The function's call: one at a time, path being its gRPC method and deadline_ms < 0 none. After reset()
	 * it is not heard of again. send(): true while more is welcome; after false on_writable() follows. While
	 * reading is held, flow control lets a bounded number of messages come. */
	void (*open)(void *host, const char *path, int64_t deadline_ms);
	bool (*send)(void *host, struct span message);
	void (*half_close)(void *host);
	void (*hold_read)(void *host, bool hold);
	void (*reset)(void *host);
	/* The journal: on_record() for each, then on_loaded() or on_failed(), unless cancelled. */
	void (*load)(void *host);
	void (*load_cancel)(void *host);
	void (*append)(void *host, const struct entity_append *append);
	/* An answer: its effects, then its action are worked off in the order in which answers came. Unless
	 * there is more the command is the host's again. */
	void (*answer)(void *host, struct entity_command *command, struct entity_answer *answer);
	/* The command's end after what was answered: refused, or with GRPC_OK the end of its answers. It is the
	 * host's again. */
	void (*end)(void *host, struct entity_command *command, const struct outcome *outcome);
	/* input() said false: now there is room. */
	void (*input_wanted)(void *host, struct entity_command *command);
	/* on_time() at or after this moment; replaces an earlier wish. */
	void (*wake_at)(void *host, struct mono_time at);
	/* on_peers() also when a peer has got further, or no more. Not asked where there are no peers. */
	void (*await_peers)(void *host, bool wanted);
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
	const uint8_t *session; /* 16 bytes: this process, in the records of those kinds that say who wrote them. It
				 * changes when the session has ended and another was begun */
	const struct entity_peers *peers; /* NULL: this process is alone, and its appends are not fenced */
	int64_t passivation_ms, command_timeout_ms, close_grace_ms;
	size_t reply_max_bytes; /* of one message of the function */
};

/* How the function's stream ended. */
struct entity_end {
	enum grpc_code code;
	struct span message;
	bool unreached; /* nothing was sent: there was no connection to be had */
	bool too_large; /* by this side: a message of the function was over the limit, as `message` says */
};
/* Tells the function's author of the last, and says what the client is told. name: the command's, empty if nobody
 * waited for a reply. */
void entity_report_too_large(const struct entity_config *config, struct span name, const struct entity_end *end,
			     struct buf *ret_text);

struct entity { /* the first member of every machine */
	uint32_t magic; /* the kind's own */
	const struct entity_ops *ops;
};
struct entity_ops {
	const char *type; /* as entities announce it: "cloudstate.eventsourced.EventSourced" */
	const char *name; /* in words: "event sourced" */
	const char *mark; /* how its records say whose they are; NULL: they have no mark */
	bool stateful;	  /* has a journal stream: keys and a persistence id are required */
	bool takes_metadata; /* of commands */
	bool streamed_in, streamed_out; /* takes methods that stream so */

	struct entity *(*create)(const struct entity_config *config);
	void (*free)(struct entity *e); /* commands that it still has are the host's */
	void (*command)(struct entity *e, struct entity_command *command);
	/* The client has left, or its stream is over: nobody waits for answers any more. True: the command is
	 * the host's again (it had not been sent, or its call was broken off). False: it is carried through, and
	 * an answer or end follows. Called at most once a command. */
	bool (*withdraw)(struct entity *e, struct entity_command *command);
	/* The next message of an input that streams (borrowed), and its end. input(): false when the client
	 * is to wait for input_wanted(). Required where streamed_in. */
	bool (*input)(struct entity *e, struct entity_command *command, const struct any *payload);
	void (*half_close)(struct entity *e, struct entity_command *command);
	/* The client takes no more answers for now, or takes them again. May be NULL: a bounded number of them
	 * waits with the router then, beyond it the client's stream is broken off. */
	void (*hold)(struct entity *e, struct entity_command *command, bool hold);
	/* Commands that count against the queue's limit: those not yet sent; where several are outstanding together,
	 * all that are not answered. */
	size_t (*waiting)(const struct entity *e);
	bool (*idle)(const struct entity *e);	   /* could be passivated now */
	size_t (*bytes)(const struct entity *e);   /* that the machine holds, about, in O(1); of stateful kinds */
	void (*passivate)(struct entity *e);	   /* now if idle, otherwise as soon as it is */
	/* The proxy stops: streams that only the client would end come to an end with OK, and those that would be
	 * opened from now on end with what opens them. May be NULL. */
	void (*end_streams)(struct entity *e);

	void (*on_message)(struct entity *e, struct span message);
	void (*on_end)(struct entity *e, const struct entity_end *end);
	void (*on_writable)(struct entity *e); /* may be NULL */
	/* The journal's part: not of kinds without state. */
	void (*on_record)(struct entity *e, const struct record_view *record);
	void (*on_loaded)(struct entity *e, uint64_t sequence); /* the stream's newest, to be expected */
	void (*on_load_failed)(struct entity *e, const struct client_error *error);
	/* A record of the stream as it is written, by anyone, at any time: in order, some come twice. Without one:
	 * some may have been missed. NULL: the kind does not follow its stream. */
	void (*on_follow)(struct entity *e, const struct record_view *record);
	/* error->code GRPC_OK: durable, sequence is the stream's newest, and position the append's first. */
	void (*on_appended)(struct entity *e, const struct client_error *error, uint64_t sequence, uint64_t position);
	void (*on_peers)(struct entity *e); /* NULL: it does not matter to the kind who else there is */
	void (*on_time)(struct entity *e);
};

extern const struct entity_ops entity_action, entity_crdt, entity_event_sourced, entity_value;

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
