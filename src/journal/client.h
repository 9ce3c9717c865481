/* A client of the journal service (proto/cairn/journal/v1/journal.proto), for the proxy, the command
 * line and tests. It knows no storage.
 *
 * Appends travel on one AppendStream; they are sent in the order in which they were given but complete
 * in any: what must come after another waits for that one's answer. They are repeated by their ids, with
 * the same bytes, whenever the connection breaks or the server answers UNAVAILABLE, until
 * their deadline: an unknown outcome is settled by the repetition. So every record needs an id of its
 * own, made once by the caller (uuid_v7()). Reads and subscriptions are one call each; they are not
 * repeated, for the caller knows best where to go on. A read with a deadline waits for a connection as
 * long; one without fails at once when none can be had.
 *
 * Threads: a client belongs to its loop; functions are called and callbacks come on its thread. No
 * callback runs inside the call that caused it, but for those that client_free() ends. Everything
 * borrowed is copied before a function returns; what callbacks are given is valid during them only.
 *
 *	struct client *c = client_new(loop, &(struct client_config){.target = "127.0.0.1:7117"});
 *	client_append(c, &append, 5000, on_appended, arg);
 *	client_load(c, &(struct client_load){.stream = name}, &ops, arg);
 */
#ifndef CAIRN_JOURNAL_CLIENT_H
#define CAIRN_JOURNAL_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "grpc/grpc.h"
#include "record/record.h"

struct client;

struct client_config {
	const char *target;  /* "host:port" */
	const char *journal; /* NULL: the only one */
	const char *advice;  /* errors: what to do where it cannot be reached; NULL: they say no more than why */
	/* Of every change of the connection, with the reason of a failure; may be NULL. */
	void (*on_state)(struct client *c, enum grpc_channel_state state, const struct err *why,
			 void *arg);
	void *arg;
};

struct client *client_new(struct loop *loop, const struct client_config *config);
/* Ends what is open with CANCELLED (callbacks run before it returns), then frees. Not from a callback.
 * NULL is fine. */
void client_free(struct client *c);
enum grpc_channel_state client_state(const struct client *c);

/* Of an append: what must still be so. As found, of a refusal: the slot's newest grant and who has it (epoch 0:
 * none), or the session that has ended. */
struct client_fence {
	bool by_session;
	struct span service; /* of a grant, with slot and epoch */
	uint32_t slot;
	uint64_t epoch;
	uint8_t session[RECORD_ID_BYTES];
};

/* Why something failed. code is GRPC_OK when it did not. */
struct client_error {
	enum grpc_code code;
	struct span text;
	struct span stream;	    /* a refused append: the stream it is about; or empty */
	bool has_sequence_found;    /* an expectation did not hold: */
	uint64_t sequence_found;    /* the stream's newest sequence */
	bool has_fence_found;	    /* a fence did not hold: */
	struct client_fence fence_found;
	bool unknown;		    /* an append whose outcome is unknown: it may still happen */
	bool unreachable;	    /* there was no connection, or it broke */
};
/* As a struct err: CONFLICT for FAILED_PRECONDITION and so on, the text with the code's name. */
enum err_code client_error_to_err(const struct client_error *e, struct err *err);

struct client_cursor {
	uint8_t journal_id[16];
	uint64_t incarnation; /* 0: no cursor */
	uint64_t position;
};

/* ---- append ----------------------------------------------------------------------------------------- */

enum client_expect { CLIENT_ANY, CLIENT_NONE, CLIENT_EXISTS, CLIENT_EXACTLY };

struct client_record {
	uint8_t id[RECORD_ID_BYTES];
	struct span type, content_type, data;
	const struct record_metadata *metadata;
	size_t metadata_count;
};
struct client_stream {
	struct span stream;
	enum client_expect expect;
	uint64_t sequence; /* CLIENT_EXACTLY */
	const struct client_record *events;
	size_t event_count;
	const struct client_record *snapshot; /* or NULL; of the state after the events */
};
struct client_condition {
	struct span stream;
	enum client_expect expect;
	uint64_t sequence;
};
struct client_append {
	const struct client_stream *streams;
	size_t stream_count;
	const struct client_condition *conditions;
	size_t condition_count;
	const struct client_fence *fences;
	size_t fence_count;
};

struct client_appended {
	const uint64_t *sequences; /* the newest sequence of each stream, in the request's order */
	size_t stream_count;
	uint64_t first_position;
	size_t record_count;
	struct wall_time commit_time;
	bool repeated;
	struct client_cursor cursor; /* as not_before of a read: sees this append */
};
/* Exactly once: an answer (error->code is GRPC_OK), or an error (answer is NULL). */
typedef void client_append_fn(const struct client_appended *answer, const struct client_error *error,
			      void *arg);
void client_append(struct client *c, const struct client_append *append, int64_t deadline_ms,
		   client_append_fn *done, void *arg);
/* Appends that wait for an answer. */
size_t client_appends_open(const struct client *c);

/* ---- reading ---------------------------------------------------------------------------------------- */

struct client_read;

/* What one response said besides its records. */
struct client_page {
	struct client_cursor cursor;
	bool end;	   /* read, load: the last one */
	bool caught_up;	   /* subscribe */
	uint64_t sequence; /* load, at its end: the stream's newest sequence, to expect exactly */
	size_t records;	   /* that it carried */
};

/* All optional but on_done. A record whose CRC is wrong ends the call with DATA_LOSS. */
struct client_read_ops {
	void (*on_record)(struct client_read *r, const struct record_view *record, void *arg);
	/* The same, with its bytes as they came, tag and length before them. */
	void (*on_entry)(struct client_read *r, const struct record_view *record, struct span entry, void *arg);
	void (*on_page)(struct client_read *r, const struct client_page *page, void *arg);
	/* Exactly once, and last; r is gone afterwards. GRPC_OK: complete. */
	void (*on_done)(struct client_read *r, const struct client_error *error, void *arg);
};

enum client_from { CLIENT_FROM_START, CLIENT_FROM_SEQUENCE, CLIENT_FROM_POSITION, CLIENT_FROM_CURSOR, CLIENT_FROM_TIME,
		   CLIENT_FROM_END /* subscribe only */ };
enum client_to { CLIENT_TO_END, CLIENT_TO_SEQUENCE, CLIENT_TO_POSITION, CLIENT_TO_TIME };

struct client_query {
	struct span stream, category; /* at most one of them; none: everything */
	bool include_system, backward;
	enum client_from from; /* CLIENT_FROM_START backwards: at the last record */
	uint64_t from_value;   /* a sequence, a position or a time (us since 1970), inclusive */
	struct client_cursor from_cursor;
	enum client_to to; /* read only */
	uint64_t to_value; /* inclusive */
	const struct span *types, *stream_prefixes;
	size_t type_count, stream_prefix_count;
	uint32_t kinds; /* bit 1 << kind; 0: all */
	uint64_t max_records;
	struct client_cursor not_before;
	int64_t deadline_ms; /* for the whole call; 0: none */
};
struct client_load {
	struct span stream;
	bool has_at_sequence;
	uint64_t at_sequence;
	struct client_cursor not_before;
	int64_t deadline_ms; /* 0: none */
};

struct client_read *client_read(struct client *c, const struct client_query *query,
				const struct client_read_ops *ops, void *arg);
struct client_read *client_subscribe(struct client *c, const struct client_query *query,
				     const struct client_read_ops *ops, void *arg);
struct client_read *client_load(struct client *c, const struct client_load *load,
				const struct client_read_ops *ops, void *arg);
/* All there is, as it is stored: for a backup (journal/backup.h). */
struct client_read *client_backup(struct client *c, const struct client_read_ops *ops, void *arg);
/* on_done follows with CANCELLED. */
void client_read_cancel(struct client_read *r);
/* While held, no more than the HTTP/2 window arrives; the server's producer waits. */
void client_read_hold(struct client_read *r, bool hold);

/* ---- stat, lists ------------------------------------------------------------------------------------ */

struct client_stream_info {
	struct span name;
	uint64_t sequence, records, first_position, last_position;
};
struct client_stat {
	struct client_cursor head;
	struct wall_time last_commit; /* 0: none */
	struct span storage, version;
	const struct span *features;
	size_t feature_count;
	const struct span *limit_names;
	const uint64_t *limit_values;
	size_t limit_count;
	bool has_stream;
	struct client_stream_info stream;
};
/* stream: whose numbers to add, or empty. The answer is NULL when error->code is not GRPC_OK. */
void client_stat(struct client *c, struct span stream, int64_t deadline_ms,
		 void (*done)(const struct client_stat *answer, const struct client_error *error,
			      void *arg),
		 void *arg);

struct client_page_of_streams {
	const struct client_stream_info *streams;
	size_t count;
	struct span next_page_token; /* empty: the last page */
};
void client_list_streams(struct client *c, struct span prefix, bool include_system,
			 struct span page_token, size_t page_size, int64_t deadline_ms,
			 void (*done)(const struct client_page_of_streams *answer,
				      const struct client_error *error, void *arg),
			 void *arg);

/* ---- acts ------------------------------------------------------------------------------------------- */

struct client_withheld {
	uint64_t stream_count; /* that were touched */
	bool nothing;	       /* it was so already: nothing was written */
	uint64_t sequence;     /* of the one stream, after it; 0 if there are more */
	struct client_cursor cursor;
};
/* Exactly once; acted is NULL when error->code is not GRPC_OK. A lost connection leaves the outcome unknown:
 * asking again does no harm. */
typedef void client_withhold_fn(const struct client_withheld *acted, const struct client_error *error, void *arg);
void client_delete(struct client *c, struct span stream, struct span reason, int64_t deadline_ms,
		   client_withhold_fn *done, void *arg);
void client_truncate(struct client *c, struct span stream, uint64_t before_sequence, struct span reason,
		     int64_t deadline_ms, client_withhold_fn *done, void *arg);
struct client_erasure {
	struct span stream, prefix; /* one of them */
	struct span reason;
	uint64_t from_sequence, to_sequence; /* of a stream; both 0: all, to 0: from alone */
	bool keep_snapshots;
};
void client_erase(struct client *c, const struct client_erasure *erasure, int64_t deadline_ms,
		  client_withhold_fn *done, void *arg);

struct client_retention {
	struct span stream, category; /* one of them */
	struct span reason;
	uint64_t max_count, max_age_ms, before_sequence; /* all 0: no rule any more */
};
void client_set_retention(struct client *c, const struct client_retention *rule, int64_t deadline_ms,
			  client_withhold_fn *done, void *arg);
struct client_compacted {
	uint64_t units, rewritten, removed, erased, bytes_before, bytes_after;
};
typedef void client_compact_fn(const struct client_compacted *result, const struct client_error *error,
			       void *arg);
/* deadline_ms 0: none. */
void client_compact(struct client *c, int64_t deadline_ms, client_compact_fn *done, void *arg);

#endif
