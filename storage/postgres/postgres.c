/* The Postgres backend: opening, closing, and what is known of the log. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "storage/postgres/backend.h"

#define PG_MAGIC 0x70677374u
#define PG_READER_MAGIC 0x70677264u

static storage_open_fn pg_open;
static storage_close_fn pg_close;
static storage_head_fn pg_head;
static storage_reader_open_fn pg_reader_open;
static storage_reader_close_fn pg_reader_close;

const struct storage_ops storage_postgres = {
	.name = "postgres",
	.open = pg_open,
	.close = pg_close,
	.head = pg_head,
	.lookup = pg_lookup,
	.append = pg_append,
	.session_beat = pg_session_beat,
	.reader_open = pg_reader_open,
	.reader_close = pg_reader_close,
	.read = pg_read,
	.snapshot = pg_snapshot,
	.list = pg_list,
	.stat = pg_stat,
	.unit = pg_unit,
	.close_unit = pg_close_unit,
	.remove = pg_remove,
	.tile_put = pg_tile_put,
	.tile_get = pg_tile_get,
	.watch = pg_watch,
	.watch_end = pg_watch_end,
	.ready = pg_ready,
	.migrate = pg_migrate,
	.is_shared = pg_is_shared,
	.restored = pg_restored,
	.lost_from = pg_lost_from,
};

struct pg *pg_of(struct storage *s)
{
	struct pg *pg = CONTAINER_OF(s, struct pg, base);
	must(pg->magic == PG_MAGIC);
	return pg;
}

struct pg_reader *pg_of_reader(struct storage_reader *r)
{
	struct pg_reader *reader = CONTAINER_OF(r, struct pg_reader, base);
	must(reader->magic == PG_READER_MAGIC);
	return reader;
}

/* ---- what is known --------------------------------------------------------------------------- */

void pg_known_get(struct pg *pg, struct pg_known *ret)
{
	pthread_mutex_lock(&pg->lock);
	*ret = pg->known;
	pthread_mutex_unlock(&pg->lock);
}

void pg_known_move(struct pg *pg, uint64_t head, struct wall_time last_commit, struct span last)
{
	struct span entry;
	struct record_view view;
	uint8_t leaf[RECORD_HASH_BYTES];
	bool marks = last.n > 0 && !record_next(&last, &entry, NULL, NULL) &&
		     !record_decode_trusted(entry, &view, NULL);
	if (marks)
		record_leaf(&view, leaf);
	pthread_mutex_lock(&pg->lock);
	struct pg_known *k = &pg->known;
	if (head > k->head) {
		k->head = head;
		k->last_commit = last_commit;
	}
	if (marks && (!k->marked || head - 1 > k->mark_position)) {
		k->marked = true;
		k->mark_position = head - 1;
		memcpy(k->mark_leaf, leaf, sizeof(leaf));
		pg_mark(pg, head - 1, leaf);
	}
	pthread_mutex_unlock(&pg->lock);
}

enum err_code pg_lose(struct pg *pg, uint64_t head, struct err *err)
{
	pthread_mutex_lock(&pg->lock);
	snprintf(pg->lost_text, sizeof(pg->lost_text),
		 "the database has lost acknowledged history: it has %llu records, and %llu were there, or other ones; "
		 "nothing is served. Bring the right database back; or go on with this one: cairn accept-loss "
		 "--storage URI --reason WHY, and restart cairnd",
		 (unsigned long long)head, (unsigned long long)pg->known.head);
	err_set(err, ERR_UNAVAILABLE, "%s", pg->lost_text);
	pthread_mutex_unlock(&pg->lock);
	if (!atomic_exchange(&pg->lost, true)) {
		log_error("acknowledged history is missing: nothing is served", LOG_ERR(err));
		metric_set(METRIC_POSTGRES_HISTORY_LOST, 1);
	}
	return ERR_UNAVAILABLE;
}

enum err_code pg_check_known(struct pg_conn *conn, struct err *err)
{
	struct pg_known known;
	struct pg_params p;
	PGresult *r;
	int64_t head;
	pg_known_get(conn->pg, &known);
	if (known.head == 0)
		return ERR_OK;
	pg_params_init(&p);
	pg_param_int8(&p, (int64_t)known.mark_position);
	enum pg_status status = pg_exec(conn,
					"SELECT (SELECT coalesce(max(position) + 1, 0) FROM cairn.record), "
					"(SELECT bytes FROM cairn.record WHERE position = $1::bigint)",
					&p, PG_ANSWER_MS, &r, NULL, err);
	pg_params_release(&p);
	if (status != PG_DONE)
		return err->code;
	enum err_code code = ERR_OK;
	if (!pg_field_int8(r, 0, 0, &head))
		code = err_set(err, ERR_CORRUPT, "Postgres answers with a head that is no number");
	else if ((uint64_t)head < known.head || (known.marked && !pg_has_leaf(pg_field(r, 0, 1), known.mark_leaf)))
		code = pg_lose(conn->pg, (uint64_t)head, err);
	PQclear(r);
	return code;
}

static void pg_head(struct storage *s, struct storage_head *ret)
{
	struct pg *pg = pg_of(s);
	struct pg_known known;
	pg_known_get(pg, &known);
	*ret = (struct storage_head){.head = known.head, .last_commit = known.last_commit};
	memcpy(ret->journal_id, pg->journal_id, sizeof(ret->journal_id));
}

/* ---- opening and closing --------------------------------------------------------------------- */

static void pg_free(struct pg *pg)
{
	pg_disconnect(&pg->writer);
	pg_watch_release(&pg->watch);
	pg_facts_release(&pg->facts);
	pg_params_release(&pg->params);
	pthread_mutex_destroy(&pg->lock);
	mem_free(pg->conninfo);
	pg->magic = 0;
	mem_free(pg);
}

/* The first connection: the schema is made if there is none, and the log's end is read. */
static enum err_code begin(struct pg *pg, struct err *err)
{
	PGresult *r;
	int64_t position, commit_time;
	struct pg_params none;
	enum err_code code = pg_connect_bare(&pg->writer, err);
	if (!code)
		code = pg_make_ready(&pg->writer, true, err);
	pg_disconnect(&pg->writer);
	if (code)
		return code;
	pg_params_init(&none);
	enum pg_status status = pg_ask(&pg->writer,
				       "SELECT position, commit_time, bytes FROM cairn.record "
				       "ORDER BY position DESC LIMIT 1",
				       &none, &r, err);
	pg_params_release(&none);
	if (status != PG_DONE)
		return err->code;
	if (PQntuples(r) == 1) {
		if (pg_field_int8(r, 0, 0, &position) && pg_field_int8(r, 0, 1, &commit_time))
			pg_known_move(pg, (uint64_t)position + 1, (struct wall_time){commit_time},
				      pg_field(r, 0, 2));
		else
			code = err_set(err, ERR_CORRUPT, "the newest record in cairn.record has no position");
	}
	PQclear(r);
	return code;
}

static enum err_code pg_open(const struct storage_config *config, struct storage **ret, struct err *err)
{
	struct pg *pg = mem_xalloc(sizeof(*pg));
	pg->base.ops = &storage_postgres;
	pg->magic = PG_MAGIC;
	pg->writer = (struct pg_conn){.pg = pg, .what = "writer"};
	pg->watch.conn = (struct pg_conn){.pg = pg, .what = "watcher"};
	pg_params_init(&pg->watch.params);
	pg_watch_init(&pg->watch);
	atomic_init(&pg->reachable, true);
	int e = pthread_mutex_init(&pg->lock, NULL);
	must(e == 0);
	pg_params_init(&pg->params);
	pg_facts_init(&pg->facts);
	enum err_code code = pg_target_set(pg, config->location, err);
	pg->mending = config->accept_loss;
	if (!code)
		code = begin(pg, err);
	if (!code && config->restore) {
		pg->mending = true;
		code = pg_begin_restoring(pg, config->restore, err);
	}
	if (code) {
		pg_free(pg);
		return code;
	}
	*ret = &pg->base;
	return ERR_OK;
}

static void pg_close(struct storage *s)
{
	struct pg *pg = pg_of(s);
	atomic_store(&pg->closing, true);
	pg_free(pg);
}

/* A reader connects when it is first asked. */
static enum err_code pg_reader_open(struct storage *s, struct storage_reader **ret, struct err *err)
{
	(void)err;
	struct pg_reader *reader = mem_xalloc(sizeof(*reader));
	reader->base.storage = s;
	reader->magic = PG_READER_MAGIC;
	reader->pg = pg_of(s);
	reader->conn = (struct pg_conn){.pg = reader->pg, .what = "reader"};
	reader->record_bytes = 512;
	pg_params_init(&reader->params);
	*ret = &reader->base;
	return ERR_OK;
}

static void pg_reader_close(struct storage_reader *r)
{
	struct pg_reader *reader = pg_of_reader(r);
	pg_disconnect(&reader->conn);
	pg_params_release(&reader->params);
	reader->magic = 0;
	mem_free(reader);
}
