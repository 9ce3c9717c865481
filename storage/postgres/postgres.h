/* The Postgres backend, inside: connections, values on the wire, the state by thread. Private to
 * storage/postgres, and the only place that knows libpq. What is in the database is in sql/.
 *
 * A batch is one call of cairn.append(), autocommitted: it takes the journal's row, compares the head with
 * the expected one and inserts, in one round trip. What became of a batch whose answer was lost is settled on
 * a new connection that takes the row first, so that the old one is done, and compares bytes.
 *
 * Threads: the writer's connection, the facts and what is below them are the sequencer's; each reader has
 * its own connection; `known` is under the lock. */
#ifndef CAIRN_STORAGE_POSTGRES_H
#define CAIRN_STORAGE_POSTGRES_H

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/limits.h"
#include "base/map.h"
#include "storage/storage.h"

/* Bounds of what is waited for; nothing hangs. */
#define PG_CONNECT_S 3		    /* for one host, unless the URI says otherwise */
#define PG_ANSWER_MS 5000 	    /* for the answer to one statement */
#define PG_BATCH_MS 10000	    /* for the answer to a batch, which may be large */
#define PG_AGAIN_MS 3000	    /* for a new connection after one was lost */
#define PG_LOCK_TIMEOUT_MS 4000	    /* for the journal's row, in a transaction of several statements */
#define PG_IDLE_TIMEOUT_MS 2000	    /* the server ends ours if we stop in the middle of one */
#define PG_MOVED_IN_A_ROW 3	    /* then the row is taken first */
#define PG_SETTLE_MS 10000	    /* until it is known what became of a batch */
#define PG_FACTS_MAX 32768	    /* streams whose facts are kept */
#define PG_BACKOFF_MIN_MS 20
#define PG_BACKOFF_MAX_MS 1000

/* ---- migrations (sql/, embedded) ------------------------------------------------------------- */

struct pg_migration {
	int number;
	const char *name, *sql;
};
extern const struct pg_migration pg_migrations[];
extern const size_t pg_migration_count;

/* ---- values on the wire (wire.c) ------------------------------------------------------------- */

enum { PG_TYPE_BOOL = 16, PG_TYPE_BYTEA = 17, PG_TYPE_INT8 = 20, PG_TYPE_INT4 = 23, PG_TYPE_TEXT = 25,
       PG_TYPE_UUID = 2950 };

#define PG_PARAMS_MAX 32
/* The parameters of one statement, in binary, in one buffer that is used again and again. */
struct pg_params {
	struct buf bytes;
	size_t count;
	size_t at[PG_PARAMS_MAX + 1]; /* offsets */
	bool null[PG_PARAMS_MAX];
	bool failed;		      /* no room: params_ok() tells */
	size_t elements_at;	      /* of the array that is being written: where its count is */
	int32_t elements;
};
void pg_params_init(struct pg_params *p);
void pg_params_release(struct pg_params *p);
void pg_params_clear(struct pg_params *p);
void pg_param_bool(struct pg_params *p, bool v);
void pg_param_int8(struct pg_params *p, int64_t v);
void pg_param_bytes(struct pg_params *p, struct span s); /* text, bytea, uuid */
void pg_param_null(struct pg_params *p);
/* One array: begin, its elements, end. */
void pg_array_begin(struct pg_params *p, uint32_t element_type);
void pg_array_bool(struct pg_params *p, bool v);
void pg_array_int4(struct pg_params *p, int32_t v);
void pg_array_int8(struct pg_params *p, int64_t v);
void pg_array_bytes(struct pg_params *p, struct span s);
void pg_array_end(struct pg_params *p);

/* A field of a binary result; the result owns the bytes. Wrong sizes are the database's fault: false. */
struct span pg_field(const PGresult *r, int row, int column); /* p NULL: null */
bool pg_field_int8(const PGresult *r, int row, int column, int64_t *ret);
bool pg_field_bool(const PGresult *r, int row, int column, bool *ret);

/* A one-dimensional array as it comes; NULL is an empty one. */
struct pg_array {
	struct span rest;
	size_t count;
};
bool pg_array_of(const PGresult *r, int row, int column, struct pg_array *ret);
bool pg_array_next(struct pg_array *a, struct span *ret); /* p NULL: a null element */
bool pg_array_next_int8(struct pg_array *a, int64_t *ret, bool *ret_null);

/* ---- connections (connect.c) ----------------------------------------------------------------- */

struct pg;

struct pg_conn {
	struct pg *pg;
	PGconn *c;	    /* NULL: none */
	const char *what;   /* "writer", ... for the log */
	bool warned;	    /* the server has sent a warning since the flag was lowered */
	char warning[200];
	unsigned failures;  /* in a row, of connecting */
	struct mono_time not_before; /* to try again */
};

enum pg_status {
	PG_DONE,
	PG_REFUSED, /* the server answered with an error: whatever it was is rolled back */
	PG_LOST	    /* no answer, and the connection is closed: it may have been done */
};

/* The text after "postgres:". ERR_INVALID says what is wrong with it. */
enum err_code pg_target_set(struct pg *pg, struct span location, struct err *err);
/* A connection that may be used: there is one, or a new one is made and checked (the server's settings, the
 * journal's id, that nothing acknowledged is missing), trying again for at most wait_ms. */
enum err_code pg_connected(struct pg_conn *conn, int64_t wait_ms, struct err *err);
/* The same without the checks of the journal: for migrations. */
enum err_code pg_connect_bare(struct pg_conn *conn, struct err *err);
void pg_disconnect(struct pg_conn *conn);
/* One statement. On PG_DONE *ret is the caller's to PQclear(). Errors: ERR_UNAVAILABLE and the server's
 * words; ret_state (may be NULL) gets the SQLSTATE of PG_REFUSED. params may be NULL (then the statement may
 * be several, in text). */
enum pg_status pg_exec(struct pg_conn *conn, const char *sql, const struct pg_params *params,
		       int64_t timeout_ms, PGresult **ret, char ret_state[6], struct err *err);
/* The same for statements whose result is of no interest. */
enum pg_status pg_run(struct pg_conn *conn, const char *sql, struct err *err);

/* Connects if need be, asks, and asks once more on a new connection if this one was lost meanwhile: for what
 * changes nothing. */
enum pg_status pg_ask(struct pg_conn *conn, const char *sql, const struct pg_params *params, PGresult **ret,
		      struct err *err);

/* ---- the store ------------------------------------------------------------------------------- */

/* How far the log is known to go, and the newest record that was acknowledged or seen by its leaf hash,
 * which neither erasure nor compaction changes. */
struct pg_known {
	uint64_t head;
	struct wall_time last_commit;
	bool marked;
	uint64_t mark_position;
	uint8_t mark_leaf[RECORD_HASH_BYTES];
};

/* The last record of a batch that was acknowledged. */
#define PG_MARKS ((size_t)512)
struct pg_mark {
	uint64_t position;
	uint8_t leaf[RECORD_HASH_BYTES];
};

/* What is known of a stream, as of the facts' head. */
struct pg_stream {
	bool exists;
	uint64_t no, category_no, sequence, number, live;
};
struct pg_category {
	bool exists;
	uint64_t no;
};
struct pg_facts {
	struct map streams, categories; /* name -> struct pg_stream, struct pg_category */
	uint64_t head;			/* what is in them is true of this head */
	struct wall_time last_commit;
};

/* The watching thread's. */
struct pg_watch {
	struct pg_conn conn;
	struct pg_params params;
	int event;	   /* wakes it */
	atomic_bool tell;  /* others are to be notified: something was committed */
	int64_t told_us;   /* when they were last */
	int64_t polled_us; /* when the head was looked at last */
	bool hears;	   /* notices come through */
};

struct pg {
	struct storage base;
	uint32_t magic;
	char *conninfo; /* a URI or key words; empty: the environment's */
	uint8_t journal_id[16];
	bool mending; /* a backup is restored into it, or a loss accepted: what nobody else may open */
	atomic_bool closing;

	pthread_mutex_t lock; /* guards known, marks and lost_text */
	struct pg_known known;
	struct pg_mark marks[PG_MARKS]; /* a ring of the newest */
	size_t mark_count;		/* that there have been */
	atomic_bool removed; /* records were: the facts are old */
	atomic_bool lost; /* acknowledged history is missing: nothing is served */
	char lost_text[300];
	bool loss_recorded; /* in the database; the watching thread's, as what follows */
	int64_t loss_again_us; /* not before is it tried to record it; on the monotonic clock */

	atomic_bool reachable; /* by the watching thread, last time */
	struct pg_watch watch;

	/* The sequencer's thread alone. */
	struct pg_conn writer;
	struct pg_params params;
	struct pg_facts facts;
	unsigned moved;	     /* in a row */
	bool in_transaction; /* the row is ours: looked up in it, appended in it */
};

struct pg_reader {
	struct storage_reader base;
	uint32_t magic;
	struct pg *pg;
	struct pg_conn conn;
	struct pg_params params;
	size_t record_bytes; /* of the last page, on average */
};

struct pg *pg_of(struct storage *s);
struct pg_reader *pg_of_reader(struct storage_reader *r);

void pg_known_get(struct pg *pg, struct pg_known *ret);
/* The log goes up to here at least; `last` (or empty) is its newest record there. */
void pg_known_move(struct pg *pg, uint64_t head, struct wall_time last_commit, struct span last);
/* The database has only this many records, or other ones than were acknowledged: from now on nothing is served. */
enum err_code pg_lose(struct pg *pg, uint64_t head, struct err *err);
/* Is what is known still in this connection's database? Else the store is lost. */
enum err_code pg_check_known(struct pg_conn *conn, struct err *err);

/* ---- facts (facts.c): the sequencer's thread ------------------------------------------------- */

void pg_facts_init(struct pg_facts *f);
void pg_facts_release(struct pg_facts *f);
void pg_facts_forget(struct pg_facts *f);
/* Looks up what is not known of these streams; on success all are in pg->facts, and true of its head. ids
 * may be NULL; what is known of them is looked up always. */
enum err_code pg_facts_learn(struct pg *pg, const struct span *names, size_t name_count,
			     struct storage_id_fact *ids, size_t id_count, struct arena *a, struct err *err);
/* Ends the transaction in which the row was taken. */
void pg_roll_back(struct pg *pg);

/* ---- acknowledged history that is missing (loss.c) --------------------------------------------- */

void pg_mark(struct pg *pg, uint64_t position, const uint8_t leaf[RECORD_HASH_BYTES]); /* under the lock */
bool pg_has_leaf(struct span record, const uint8_t leaf[RECORD_HASH_BYTES]);
/* Says so in the database, with the position of the fork as far as it is known: every cairnd that starts is told. */
void pg_record_loss(struct pg *pg, struct pg_conn *conn);
storage_lost_from_fn pg_lost_from;

/* ---- restoring a backup (restore.c) ----------------------------------------------------------- */

/* ERR_CONFLICT: there is a journal. */
enum err_code pg_begin_restoring(struct pg *pg, const uint8_t journal_id[16], struct err *err);
/* A batch of records of which nothing but the leaf hash is left. */
enum storage_outcome pg_append_removed(struct pg *pg, const struct storage_record *records, size_t count,
				       struct err *err);
storage_restored_fn pg_restored;

/* ---- other writers (watch.c) ------------------------------------------------------------------ */

void pg_watch_init(struct pg_watch *w);
void pg_watch_release(struct pg_watch *w);
void pg_watch_tell(struct pg *pg); /* something was committed: others will be notified; any thread */
storage_watch_fn pg_watch;
storage_watch_end_fn pg_watch_end;
storage_ready_fn pg_ready;

/* ---- migrations (migrate.c) ------------------------------------------------------------------ */

struct pg_level {
	bool there; /* the schema is */
	int schema, needs;
	bool restoring; /* it holds a restore that has not come to its end */
	bool lost;	/* acknowledged history is missing, and nobody has accepted it */
};
enum err_code pg_level_of(struct pg_conn *conn, struct pg_level *ret, struct err *err);
/* The database is ready for this program: an empty one is made ready, if the role may. */
enum err_code pg_make_ready(struct pg_conn *conn, bool may_create, struct err *err);

storage_migrate_fn pg_migrate;

storage_lookup_fn pg_lookup;
storage_append_fn pg_append;
storage_session_beat_fn pg_session_beat;
storage_read_fn pg_read;
storage_snapshot_fn pg_snapshot;
storage_list_fn pg_list;
storage_stat_fn pg_stat;
storage_unit_fn pg_unit;
storage_close_unit_fn pg_close_unit;
storage_remove_fn pg_remove;
storage_tile_put_fn pg_tile_put;
storage_tile_get_fn pg_tile_get;
storage_is_shared_fn pg_is_shared;

#endif
