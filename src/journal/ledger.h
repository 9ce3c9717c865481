/* The ledger: what the log's acts come to, in memory: live sessions, newest grants. It is derived from the
 * log alone, record by record, by the apply functions of act.c's table: from the system streams when the
 * journal is opened, then from every batch as it is decided, and from what another writer has appended. What was
 * decided is undone when the batch did not become durable.
 *
 * The sequencer's thread changes it. Private to src/journal. */
#ifndef CAIRN_JOURNAL_LEDGER_H
#define CAIRN_JOURNAL_LEDGER_H

#include <pthread.h>

#include "base/map.h"
#include "storage/storage.h"

struct ledger;

/* One record of an act, as the ledger sees it. */
struct ledger_record {
	uint32_t kind;
	uint64_t position;
	struct wall_time commit_time; /* of records that are read */
	struct span stream, data;
	const uint8_t *id; /* RECORD_ID_BYTES */
};
/* Data that cannot be understood (a later version's) is no error: false, and nothing changes. */
typedef bool ledger_apply_fn(struct ledger *l, const struct ledger_record *record);

struct ledger_session {
	uint8_t id[RECORD_ID_BYTES];
	bool live;
	bool confirmed; /* by a second look, while the ledger is loaded */
	uint64_t begun; /* position of the record */
	uint32_t ttl_ms;
	struct span address; /* where its process can be reached, or empty */
	struct span *services;
	size_t service_count;
	struct ledger_session *next_dead;

	/* The watch's (watch.h): no fact of the log. */
	bool seen;
	uint64_t seen_beats;
	struct mono_time seen_at;
};

struct ledger_grant {
	uint32_t slot;
	uint64_t epoch; /* 0: the slot has never been granted */
	bool released;
	uint8_t session[RECORD_ID_BYTES];
	uint64_t position; /* of the record */
};

struct cuts;
struct ledger *ledger_new(struct cuts *cuts); /* to which it adds what the log says; it outlives the ledger */
void ledger_free(struct ledger *l); /* NULL is fine */

/* Reads the system streams; the ledger is then as of `head`. */
enum err_code ledger_load(struct ledger *l, struct storage_reader *reader, uint64_t head, struct err *err);
/* Reads what others have appended between where the ledger is and `head`; or all anew, if their compaction may have
 * taken away some of it. */
enum err_code ledger_catch_up(struct ledger *l, struct storage_reader *reader, uint64_t head,
			      struct err *err);
/* Tells of each record that says nothing any more when those that come after it are known: `since` is when that
 * was. One with `after` says nothing only once the record there is gone (UINT64_MAX: none). For ledger_load(). */
typedef void ledger_spent_fn(void *arg, uint64_t position, uint64_t after, struct wall_time since);
void ledger_on_spent(struct ledger *l, ledger_spent_fn *fn, void *arg);
/* As of which head it is. */
uint64_t ledger_head(const struct ledger *l);

/* Changes between begin and keep or undo are one batch's. */
void ledger_begin(struct ledger *l);
void ledger_apply(struct ledger *l, const struct ledger_record *record);
void ledger_keep(struct ledger *l, uint64_t head);
void ledger_undo(struct ledger *l);

/* For apply functions: keeps the bytes, to put them back if the batch is undone. */
void ledger_save(struct ledger *l, void *at, size_t n);

/* ---- sessions -------------------------------------------------------------------------------- */

/* NULL: there is no such live session. */
const struct ledger_session *ledger_session(const struct ledger *l, const uint8_t id[RECORD_ID_BYTES]);
size_t ledger_session_count(const struct ledger *l); /* live */
void ledger_each_session(const struct ledger *l, void (*fn)(struct ledger_session *s, void *arg), void *arg);
/* For apply functions. */
void ledger_session_begin(struct ledger *l, const struct ledger_session *session);
void ledger_session_end(struct ledger *l, const uint8_t id[RECORD_ID_BYTES]);

/* ---- incarnations ---------------------------------------------------------------------------- */

uint64_t ledger_incarnation(const struct ledger *l); /* as decided */
void ledger_cut(struct ledger *l, uint64_t incarnation, uint64_t fork); /* for apply functions */

/* ---- grants ---------------------------------------------------------------------------------- */

/* The slot's newest grant; NULL: it has never been granted. */
const struct ledger_grant *ledger_grant(const struct ledger *l, struct span service, uint32_t slot);
void ledger_each_grant(const struct ledger *l, struct span service,
		       void (*fn)(const struct ledger_grant *g, void *arg), void *arg);
/* For apply functions: slot below LIMIT_SLOTS, epoch above 0. */
void ledger_grant_set(struct ledger *l, struct span service, const struct ledger_grant *grant);

#endif
