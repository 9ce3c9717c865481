/* Storage: the contract of a journal's backend, and the wrappers through which it is used.
 *
 * A backend keeps one log of records and finds records in it. It decides nothing: expectations,
 * idempotency and fences are the journal's (src/journal/decide.c), which looks facts up here and then
 * appends records that are already encoded, numbered and sealed with their CRC.
 *
 * Backends are plain blocking code. Threads: lookup, append and session_beat are called from one thread, the
 * sequencer's; reads come from reader threads, each with a struct storage_reader of its own, at the same
 * time as appends; open and close from one thread with nothing else going on.
 *
 * Records of acts (RECORD_DELETE, _TRUNCATE, _ERASE; record_act_get() says what is in them) are facts for a
 * backend, from the append on that brings them: what a stream's content below an act's hide_below was is not
 * given any more, whatever is asked for, and erased bodies are given as their hash. The acts themselves stay.
 * storage/marks.h has this for backends that keep it in memory. What is withheld, and what retention has no
 * more use for, is taken off the disk by storage_remove(), which leaves leaf hashes in place.
 *
 * A backend is one exported `const struct storage_ops storage_<name>` and one line in storage.c; it is
 * done when it passes the contract suite (tests/contract), bare and under the wrappers of storage/wrap. */
#ifndef CAIRN_STORAGE_H
#define CAIRN_STORAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "record/record.h"
#include "storage/shared.h"
#include "storage/tile.h"

struct storage;
struct storage_reader;

/* What a journal is and how far it goes. Positions below head are durable and readable. */
struct storage_head {
	uint8_t journal_id[16];
	uint64_t head;		      /* number of records; the position of the next one */
	struct wall_time last_commit; /* of the newest record; 0 if there is none */
};

/* Facts about one stream, as of the head that lookup returned. */
struct storage_stream_fact {
	struct span name;      /* in: the key */
	bool exists;	       /* out: there has been a record */
	uint64_t sequence;     /* out: newest sequence taken; 0 if none */
	uint64_t live_records; /* out: content not deleted, truncated or removed (0: `none` holds) */
};

/* Facts about one record id. */
struct storage_id_fact {
	uint8_t id[RECORD_ID_BYTES]; /* in: the key */
	bool exists;		     /* out; the rest only if it does */
	uint64_t position, sequence;
	struct wall_time commit_time;
	uint32_t kind;
	struct span stream; /* in the arena of the call */
	bool last_of_append;
};

/* A session's row, beside the log: how often its process has beaten. It is no history. */
struct storage_session {
	uint8_t id[RECORD_ID_BYTES]; /* in */
	uint32_t ttl_ms;	     /* in, MAKE: for whoever looks at the rows */
	bool exists;		     /* out: false: the session has ended, or never began */
	uint64_t beats;		     /* out */
};
enum storage_beat {
	STORAGE_BEAT_READ, /* only looks */
	STORAGE_BEAT,	   /* raises the counts of those that exist by one */
	/* After opening: makes the rows that the backend has not kept since it was closed; one that keeps
	 * them makes none, for they may have been taken away meanwhile by another process. */
	STORAGE_BEAT_MAKE
};
/* What a record does to a row, in the same transaction: begins it with the count 0, or takes it away if its
 * count is still this one (a row that is missing is as one with this count). A count that has changed is
 * STORAGE_MOVED: nothing is written. */
struct storage_session_change {
	uint8_t id[RECORD_ID_BYTES];
	bool ends;
	uint64_t beats;	 /* ends: as expected */
	uint32_t ttl_ms; /* begins */
};

/* One record of a batch: its bytes, and what the index needs of it. */
struct storage_record {
	struct span bytes; /* with tag and length, patched */
	uint64_t position, sequence;
	uint32_t kind;
	struct span stream;
	const uint8_t *id; /* RECORD_ID_BYTES */
	struct wall_time commit_time;
	bool last_of_append;
	const struct storage_session_change *session; /* or NULL */
	bool removed; /* restoring only: of it and all of its batch nothing but position and leaf hash is known */
};

enum storage_outcome {
	STORAGE_OK = 0,	 /* durable, and visible to readers */
	STORAGE_MOVED,	 /* another writer has appended: nothing was written, read on and decide again */
	STORAGE_FULL,	 /* no room: known not written, later appends may succeed (err says where) */
	STORAGE_REFUSED, /* a record was refused: known not written (a fault of ours or of the backend) */
	STORAGE_UNKNOWN, /* the outcome is unknown to the caller; appends go on or fail as err says */
	STORAGE_FAILED	 /* outcome unknown, and this store takes no more appends until it is reopened */
};

/* A read: one stream, one category or everything, from somewhere, in one direction. */
enum storage_source { STORAGE_ALL, STORAGE_STREAM, STORAGE_CATEGORY };
struct storage_query {
	enum storage_source source;
	struct span name;	/* stream or category */
	bool include_system;	/* ALL: streams that begin with '$' too */
	bool backward;
	uint32_t kinds;		/* bit 1 << kind of those wanted; 0: all */
	/* Where to begin, inclusive. Forward: the first record at or after; backward: at or before.
	 * ALL and CATEGORY: a position. STREAM: a sequence when by_sequence, else a position. A sequence
	 * stands for a position: forward that of the first event whose sequence is `from` or above;
	 * backward the one just before the first event whose sequence is above `from` (so a snapshot that
	 * was taken after the event with sequence `from` and before the next comes with it). Order is
	 * by position, always. */
	bool by_sequence;
	uint64_t from;
	/* Exclusive bound on positions: nothing at or above it is returned (at most the head). */
	uint64_t below_position;
	/* ALL, forward, include_system, no kinds: everything as it is stored, what is withheld too, and of what
	 * has been removed the leaf hash. For compaction, verification and the tree. */
	bool raw;
	size_t max_bytes;	/* stop before exceeding it, but return at least one record */
	size_t max_records;	/* 0: no limit */
	/* 0: no limit. Else it stops once so many bytes were looked through that are not wanted: the bytes of
	 * records, or STORAGE_ENTRY_BYTES for one that an index tells enough of. The page, empty perhaps, is
	 * not at its end then, and says in `next` how far it got. At least one record is looked at. */
	size_t max_scan_bytes;
};
#define STORAGE_ENTRY_BYTES ((size_t)16)

/* What a read gave: *out holds a run of whole records, verbatim, in the order asked for. */
struct storage_page {
	size_t records;
	size_t scanned_bytes; /* of what was not wanted; max_scan_bytes or more: that is why it stopped */
	bool end;	      /* nothing more in this direction (below below_position) */
	/* Where to go on, a position (query.by_sequence = false). At the end of a forward read: the bound it
	 * went up to, or from where it began if that is above. */
	uint64_t next;
};

struct storage_stream_info {
	struct span name; /* in the arena of the call */
	uint64_t sequence, records; /* the newest taken; live records */
	uint64_t first_position;    /* not above that of its first live record */
	uint64_t last_position;     /* of its last record, acts included */
	uint64_t erased_below;	    /* position of the newest erasure of all of it; 0 if there is none */
};

/* What is rewritten as one when records are removed (file: a segment). */
struct storage_unit {
	uint64_t first, end; /* positions [first, end) */
	uint64_t bytes;	     /* that it takes up */
	bool open;	     /* still appended to: nothing can be removed from it */
	bool removable;	     /* the backend can remove records at all */
};

/* A record to be removed: nothing but position and leaf hash stays; or its body alone, whose hash stays. */
struct storage_removal {
	uint64_t position;
	bool body_only;
};

/* The text after "file:" and so on, and what every backend may need. */
struct storage_config {
	struct span location;
	const struct clock *clock;
	const char *address; /* of this server, for the lock file's message; or NULL */
	bool read_only, accept_loss; /* tools: no appends, no recovery writes; see storage_lost_from() */
	const uint8_t *restore; /* or NULL: the id of the journal to restore into it: see storage_restored() */
};

/* --- the operations ---------------------------------------------------------------------------------- */

/* Opens or creates the store, recovers it and fills *ret. Errors name path and byte, and the command
 * that tells more. ERR_CONFLICT: another process has it (err names process and address). */
typedef enum err_code storage_open_fn(const struct storage_config *config, struct storage **ret,
				      struct err *err);
/* Flushes, marks the store as cleanly closed, frees it. */
typedef void storage_close_fn(struct storage *s);
typedef void storage_head_fn(struct storage *s, struct storage_head *ret);
/* Fills in the facts, all as of *ret_head (the head they hold for). Spans returned live in `a`. */
typedef enum err_code storage_lookup_fn(struct storage *s, struct storage_stream_fact *streams,
					size_t stream_count, struct storage_id_fact *ids,
					size_t id_count, struct arena *a, uint64_t *ret_head,
					struct err *err);
/* Makes the batch durable as one: all of it or nothing. records[i].position is expected_head + i. An
 * empty batch checks that the head is still the expected one (what was read is still true). */
typedef enum storage_outcome storage_append_fn(struct storage *s, uint64_t expected_head,
					       const struct storage_record *records, size_t count,
					       struct err *err);
/* Reads, raises or makes the rows of sessions, each once in the list; called from the sequencer's thread.
 * Rows need not be durable when it returns; a beat that is lost is as one that never came. */
typedef enum err_code storage_session_beat_fn(struct storage *s, enum storage_beat beat,
					      struct storage_session *sessions, size_t count,
					      struct err *err);
/* A reader's own handle; any thread may open one, then one thread at a time uses it. */
typedef enum err_code storage_reader_open_fn(struct storage *s, struct storage_reader **ret, struct err *err);
typedef void storage_reader_close_fn(struct storage_reader *r);
/* Appends to *out; out's maximum must allow max_bytes and one record more. ERR_CORRUPT names the place. */
typedef enum err_code storage_read_fn(struct storage_reader *r, const struct storage_query *q,
				      struct buf *out, struct storage_page *ret, struct err *err);
/* The newest snapshot of the stream with sequence <= at_sequence (each names a sequence that is not less
 * than that of the one before), below the position, appended to *out.
 * ERR_NOT_FOUND (err untouched) if there is none. */
typedef enum err_code storage_snapshot_fn(struct storage_reader *r, struct span stream,
					  uint64_t at_sequence, uint64_t below_position,
					  struct buf *out, struct err *err);
/* Streams whose name begins with prefix, by bytes, from `after` (exclusive; empty: the first) on; both are valid
 * UTF-8. Sets *ret_count <= max. */
typedef enum err_code storage_list_fn(struct storage_reader *r, struct span prefix, struct span after, size_t max,
				      struct arena *a, struct storage_stream_info *ret, size_t *ret_count,
				      struct err *err);
/* One stream's facts for a reader (below_position bounds nothing here: as of now). */
typedef enum err_code storage_stat_fn(struct storage_reader *r, struct span stream, struct arena *a,
				      struct storage_stream_info *ret, bool *ret_exists, struct err *err);

/* The unit that holds the position, which is below the head. */
typedef enum err_code storage_unit_fn(struct storage_reader *r, uint64_t position, struct storage_unit *ret,
				      struct err *err);
/* The unit that is open is closed by the next append. Any thread. */
typedef void storage_close_unit_fn(struct storage *s);
/* Removes records of one unit that is not open, in the order of their positions, each once; durably, and as
 * one where the backend can (a crash leaves some or all of them, whole). Goes on beside appends and reads; one
 * thread at a time. Who removes keeps the rules: acts stay, and so does of each stream the newest record that
 * took a sequence, with its header at least, and the newest record of the log. */
typedef enum err_code storage_remove_fn(struct storage_reader *r, const struct storage_removal *list,
					size_t count, struct err *err);

struct storage_ops {
	const char *name; /* "memory", "file", ... */
	storage_open_fn *open;
	storage_close_fn *close;
	storage_head_fn *head;
	storage_lookup_fn *lookup;
	storage_append_fn *append;
	storage_session_beat_fn *session_beat;
	storage_reader_open_fn *reader_open;
	storage_reader_close_fn *reader_close;
	storage_read_fn *read;
	storage_snapshot_fn *snapshot;
	storage_list_fn *list;
	storage_stat_fn *stat;
	storage_unit_fn *unit;
	storage_close_unit_fn *close_unit;
	storage_remove_fn *remove;
	storage_tile_put_fn *tile_put;
	storage_tile_get_fn *tile_get;
	storage_watch_fn *watch; /* or NULL, as all that follow */
	storage_watch_end_fn *watch_end;
	storage_ready_fn *ready;
	storage_migrate_fn *migrate;
	storage_directory_fn *directory;
	storage_is_shared_fn *is_shared;
	storage_restored_fn *restored;
	storage_lost_from_fn *lost_from;
};

/* Backends embed these first; the wrappers below reach the table through them. */
struct storage {
	const struct storage_ops *ops;
};
struct storage_reader {
	struct storage *storage;
};

/* Is there a backend of that name? */
enum err_code storage_uri_check(const char *uri, struct err *err);

/* The URI without the password that may be in it, for people to read. Cut with "..." if it is longer. */
void storage_uri_show(const char *uri, char *ret, size_t size);

/* "memory", "file:DIR", "postgres://..."; a bare "DIR" is an error that says so. ERR_INVALID lists the backends. */
enum err_code storage_open(const char *uri, const struct storage_config *config, struct storage **ret, struct err *err);

/* Callers use these, never the table: they assert the contract on the way in and out, count and time. */
void storage_close(struct storage *s); /* NULL is fine */
storage_head_fn storage_head;
storage_lookup_fn storage_lookup;
storage_append_fn storage_append;
/* To a store opened with config.restore: also of removed records, also of a part of an append. */
storage_append_fn storage_restore;
storage_session_beat_fn storage_session_beat;
storage_reader_open_fn storage_reader_open;
void storage_reader_close(struct storage_reader *r); /* NULL is fine */
storage_read_fn storage_read;
storage_snapshot_fn storage_snapshot;
storage_list_fn storage_list;
storage_stat_fn storage_stat;
storage_unit_fn storage_unit;
storage_close_unit_fn storage_close_unit;
storage_remove_fn storage_remove;

#endif
