/* The journal, in the process that owns its storage: appends, reads, subscriptions, facts.
 *
 * One sequencer thread decides and commits appends in batches (decide.c, sequencer.c); a pool of reader
 * threads reads storage (reader.c); what was committed last is read from memory (tail.c). Callers are
 * event-loop workers, which must never block: everything that can take time is asked for with a mailbox
 * (the worker's own) and answered there.
 *
 * The rule of every callback here: it runs on the thread that drains the mailbox, exactly once for
 * what was accepted, never before the asking function has returned. A function that returns an error
 * has accepted nothing and calls nothing. Cancelling an append still calls its callback, with
 * ERR_CANCELLED if it was withdrawn in time; closing a read ends its callbacks at once. With
 * config.threads = false nothing runs by itself: journal_step() does what the threads would, and tests
 * drain their mailboxes by hand.
 *
 *	journal_open(&config, &journal, &err);
 *	append_new(journal, &request, &append, &refusal);		// checks form, encodes; any thread
 *	journal_append(journal, &append, mailbox, on_appended, arg, &err);	// takes it
 *	journal_read_open(journal, &query, mailbox, on_page, arg, &read, &err);
 *	journal_read_next(read);					// one page, when there is one
 */
#ifndef CAIRN_JOURNAL_H
#define CAIRN_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/mailbox.h"
#include "base/span.h"
#include "record/record.h"
#include "storage/storage.h"

struct journal;
struct append;
struct journal_read;
struct journal_fence;

/* ---- opening --------------------------------------------------------------------------------- */

struct journal_config {
	const char *storage_uri;    /* "memory", "file:DIR", "postgres://..." */
	struct storage *storage;    /* instead of the URI: an open store, which the journal then owns */
	const struct clock *clock;  /* NULL: the system's */
	const char *address;        /* of this server, for the lock file's message; or NULL */
	unsigned reader_threads;    /* 0: 2 */
	bool threads;               /* false: tests, with journal_step() */
	int64_t not_before_wait_ms; /* how long a read waits for its not_before; 0: 5000 */
	int64_t slow_append_ms;     /* a batch slower than this is logged; 0: 1000 */
	/* With threads: nothing younger goes; how often it looks by itself (0: never); bytes a second (0: all) */
	int64_t compact_min_age_ms, compact_every_ms, compact_rate_bytes;
	const char *signing_key; /* with threads: of checkpoints, in PEM; NULL: tree.h says which */
};

enum err_code journal_open(const struct journal_config *config, struct journal **ret, struct err *err);
/* Stops the threads; what was accepted is still answered. Then drain all mailboxes, reads closed, and close. */
void journal_stop(struct journal *j);
void journal_close(struct journal *j); /* stops it first, if need be; closes the storage. NULL is fine */
/* threads = false: decides one batch of what waits, serves all reads that wait; false: there was nothing. */
bool journal_step(struct journal *j);

/* A place in one journal's history: `position` is that of the next record to come. */
struct journal_cursor {
	uint8_t journal_id[16];
	uint64_t incarnation; /* from 1; 0: no cursor at all */
	uint64_t position;
};
struct journal_info {
	struct journal_cursor head;   /* id, incarnation, durable head */
	struct wall_time last_commit; /* of the newest record; 0 if there is none */
	const char *storage_name;     /* "memory", "file", "postgres" */
	bool takes_appends; /* false: the storage has failed until it is opened again, or cannot be reached now */
};
void journal_info(const struct journal *j, struct journal_info *ret); /* any thread, never blocks */
uint64_t journal_head(const struct journal *j);                       /* the durable head; any thread */
/* The same journal's cursor for another position. */
struct journal_cursor journal_cursor_at(const struct journal *j, uint64_t position);

/* Is the cursor one of this journal's present history? ERR_INVALID: another journal's. ERR_CONFLICT: it
 * lies beyond a cut of history; *ret_fork (may be NULL) is the position up to which both are the same.
 * A position above the head of the present incarnation is such a one, unless may_wait. */
enum err_code journal_cursor_check(const struct journal *j, const struct journal_cursor *cursor,
				   bool may_wait, uint64_t *ret_fork, struct err *err);

/* ---- appending ------------------------------------------------------------------------------- */

enum append_expect {
	APPEND_ANY,
	APPEND_NONE,   /* no live records */
	APPEND_EXISTS, /* live records */
	APPEND_EXACTLY /* the newest sequence taken is the one given (0: none has been) */
};

/* What is asked for; borrowed during append_new() only. */
struct append_record {
	struct span id; /* RECORD_ID_BYTES, or empty: one is made, and a retry is another append */
	struct span type, content_type, data;
	const struct record_metadata *metadata;
	size_t metadata_count;
};
struct append_stream {
	struct span name;
	enum append_expect expect;
	uint64_t sequence; /* APPEND_EXACTLY */
	const struct append_record *events;
	size_t event_count;
	/* Or NULL. It stands after the events and names the sequence of the last of them, or without
	 * events the stream's newest. */
	const struct append_record *snapshot;
};
struct append_condition { /* on a stream that is not written */
	struct span name;
	enum append_expect expect;
	uint64_t sequence;
};
struct append_request {
	const struct append_stream *streams; /* each with at least one record; a name occurs once */
	size_t stream_count;
	const struct append_condition *conditions;
	size_t condition_count;
	const struct journal_fence *fences; /* acts.h */
	size_t fence_count;
	struct span actor; /* the authenticated peer, or empty */
};

/* Why an append was refused. `stream` lives as long as what it came from: the request (append_new) or
 * the append (the answer). */
struct append_refusal {
	struct err err;
	struct span stream;      /* or empty */
	bool has_sequence_found; /* ERR_CONFLICT: */
	uint64_t sequence_found; /* the stream's newest sequence */
	const struct journal_fence *fence_found; /* ERR_CONFLICT of a fence; else NULL */
};

/* Checks form and limits and encodes the records; any thread. ERR_INVALID or ERR_LIMIT (a request over a
 * form limit: INVALID_ARGUMENT to a client) say which stream and record and which rule. ret_refusal must
 * be given; it is written only on failure. The append is the caller's: append_unref(). */
enum err_code append_new(const struct journal *j, const struct append_request *request, struct append **ret,
			 struct append_refusal *ret_refusal);
size_t append_bytes(const struct append *a); /* of its records, encoded */

struct append_answer {
	enum err_code code; /* ERR_OK: appended, or repeated */
	bool repeated;      /* it had been appended before: this is the first result */
	uint64_t first_position;
	size_t record_count;          /* side by side */
	struct wall_time commit_time; /* 0 when nothing was written */
	uint64_t cursor_position;     /* just after it; after the head, if it wrote nothing */
	size_t stream_count;          /* as in the request: append_answer_stream() */
	/* code != ERR_OK: CONFLICT, EXISTS (a repeat in part), FULL (no room, known not written),
	 * UNAVAILABLE (the outcome may be unknown), CANCELLED (known not written), INTERNAL (the
	 * storage refused it). */
	const struct append_refusal *refusal;
};
/* Valid from the callback on, as long as the append is referenced. */
const struct append_answer *append_answer(const struct append *a);
/* Name and newest sequence of the i-th stream, in the request's order; code ERR_OK only. */
struct span append_answer_stream(const struct append *a, size_t i, uint64_t *ret_sequence);

struct append *append_ref(struct append *a); /* any thread */
void append_unref(struct append *a);         /* any thread; NULL is fine */

/* Called once on the mailbox: append_answer(append) says how it ended. The reference is the callback's
 * to drop: append_unref() at its end or later. */
typedef void append_done_fn(struct append *append, void *arg);

/* Takes the append (*append becomes NULL). ERR_UNAVAILABLE (not taken, nothing written): the journal is
 * stopping, or its storage takes no appends until a restart. Appends given by one thread are decided
 * in that order. */
enum err_code journal_append(struct journal *j, struct append **append, struct mailbox *mailbox,
			     append_done_fn *done, void *arg, struct err *err);
/* From the thread that asked, before done has run: withdraws it if it has not been taken up yet. True:
 * done will come with ERR_CANCELLED, and nothing is written. False: it comes with the outcome. */
bool journal_append_cancel(struct journal *j, struct append *a);

/* Back-pressure: false once LIMIT_SEQUENCER_QUEUE_BYTES wait. What is appended nevertheless is accepted,
 * so callers must stop reading (PAUSE_STORAGE) and ask to be told. Any thread. */
bool journal_has_room(const struct journal *j);
/* Embedded in the caller; on the mailbox fn(arg) runs once when there is room again (at half of the
 * limit; soon, if there is room now). Not to be asked again, nor freed, before that. */
struct journal_room {
	struct task task;
	struct mailbox *mailbox;
	void (*fn)(void *arg);
	void *arg;
	struct journal_room *next;
};
void journal_when_room(struct journal *j, struct journal_room *room);

/* ---- reading --------------------------------------------------------------------------------- */

enum journal_from {
	FROM_START,    /* backward: from the newest record */
	FROM_SEQUENCE, /* of a stream */
	FROM_POSITION,
	FROM_CURSOR,
	FROM_TIME, /* of commit, us: forward the first not before it, backward the last not after it */
	FROM_END /* live only: with what is appended from now on */
};
enum journal_to {
	TO_END /* the head as of the first page; backward: the first record */,
	TO_SEQUENCE,
	TO_POSITION,
	TO_TIME /* forward the last not after it, backward the first not before it */
};

/* Borrowed during journal_read_open(). */
struct journal_query {
	enum storage_source source;
	struct span name;    /* of the stream or category */
	bool include_system; /* STORAGE_ALL: streams whose name begins with '$' too */
	bool backward;       /* not with live */
	bool live, raw;      /* a subscription: goes on with every new record; all as it is stored: a backup */
	enum journal_from from;
	uint64_t from_value; /* sequence, position or time, inclusive */
	struct journal_cursor from_cursor;
	enum journal_to to;                         /* not with live */
	uint64_t to_value;                          /* inclusive */
	const struct span *types, *stream_prefixes; /* only these; none: all */
	size_t type_count, stream_prefix_count;
	uint32_t kinds;                   /* bit 1 << kind; 0: all */
	uint64_t max_records;             /* 0: no maximum; not with live */
	struct journal_cursor not_before; /* incarnation 0: none */
};

/* One response's worth: a run of entries, each with its tag and length (field 1), so that these bytes
 * *are* the beginning of the response. At most LIMIT_RESPONSE_BYTES, or one record. */
struct journal_page {
	struct buf body; /* the owner may append fields of its own (JOURNAL_PAGE_SPARE bytes at least) */
	size_t records;
	/* Where to go on: forward, everything asked for below it has been given; backward, what comes
	 * is at or before it. */
	struct journal_cursor next;
	bool end;          /* nothing more in this direction; no further page may be asked for */
	bool caught_up;    /* live: nothing more was there; said once, again after having fallen behind */
	uint64_t sequence; /* load, with end: the newest sequence that the stream has taken, as of `next` */
};
#define JOURNAL_PAGE_SPARE ((size_t)4096)
void journal_page_free(struct journal_page *page); /* any thread; NULL is fine */

/* A page (the callee's to free), or NULL and why (err lives as long as the read is open): ERR_UNAVAILABLE
 * (not_before was not reached in time), ERR_CONFLICT (the cursor lies beyond a cut, err names the fork),
 * ERR_CORRUPT, ERR_IO. After an error the read can only be closed. A page may have no records: of a live read
 * when it has caught up, of a filtered one as a checkpoint, so that its position moves, and the last page of
 * any. */
typedef void journal_page_fn(struct journal_read *read, struct journal_page *page, const struct err *err,
			     void *arg);

/* Opens a read; nothing happens before the first journal_read_next(). ERR_INVALID says what is wrong
 * with the query; a cursor is checked here too. The read belongs to the mailbox's thread. */
enum err_code journal_read_open(struct journal *j, const struct journal_query *query, struct mailbox *mailbox,
				journal_page_fn *on_page, void *arg, struct journal_read **ret,
				struct err *err);
/* Newest snapshot at or before the sequence (has_at_sequence; otherwise the newest), then the events
 * after it, up to the sequence: the same handle and pages. */
struct journal_load {
	struct span stream;
	bool has_at_sequence;
	uint64_t at_sequence;
	/* Erased events are left out, else end it (ERR_CONFLICT); those of an erasure as a whole always are. */
	bool skip_erased;
	struct journal_cursor not_before; /* incarnation 0: none */
};
enum err_code journal_load_open(struct journal *j, const struct journal_load *load, struct mailbox *mailbox,
				journal_page_fn *on_page, void *arg, struct journal_read **ret,
				struct err *err);
/* Asks for one page; not again before it has come. A live read answers when there is something. */
void journal_read_next(struct journal_read *read);
/* At any time, also inside on_page; no callback comes afterwards. NULL is fine. */
void journal_read_close(struct journal_read *read);

/* ---- facts ----------------------------------------------------------------------------------- */

struct journal_stream_info {
	struct span name;
	uint64_t sequence, records; /* newest sequence taken; live records */
	uint64_t first_position, last_position;
};
struct journal_list {
	struct span prefix;               /* of the name */
	struct span after;                /* names after this one; empty: from the first */
	size_t max;                       /* 0 or above LIMIT_PAGE_ITEMS: LIMIT_PAGE_ITEMS */
	bool include_system;              /* names that begin with '$', unless the prefix does */
	struct journal_cursor not_before; /* incarnation 0: none */
};
/* err is NULL on success. items are valid during the callback; more: there are further names. */
typedef void journal_list_fn(const struct journal_stream_info *items, size_t count, bool more,
			     const struct err *err, void *arg);
/* Once, on the mailbox; ERR_INVALID (nothing accepted) as for reads. */
enum err_code journal_list_streams(struct journal *j, const struct journal_list *list, struct mailbox *mailbox,
				   journal_list_fn *done, void *arg, struct err *err);
/* One stream's numbers: one item, or ERR_NOT_FOUND. An empty stream name only waits for not_before: no item. */
enum err_code journal_stat(struct journal *j, struct span stream, const struct journal_cursor *not_before,
			   struct mailbox *mailbox, journal_list_fn *done, void *arg, struct err *err);
/* Sets the gauges that are worked out when somebody looks. Any thread. */
void journal_measure(struct journal *j);

#endif
