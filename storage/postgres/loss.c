/* Acknowledged history that is missing: how far it is still the same, and saying so in the database, so that a restart
 * does not forget it. What was acknowledged is remembered as leaf hashes, which erasure and compaction leave
 * alone. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include "base/log.h"

void pg_mark(struct pg *pg, uint64_t position, const uint8_t leaf[RECORD_HASH_BYTES])
{
	struct pg_mark *mark = &pg->marks[pg->mark_count++ % PG_MARKS];
	mark->position = position;
	memcpy(mark->leaf, leaf, sizeof(mark->leaf));
}

bool pg_has_leaf(struct span record, const uint8_t leaf[RECORD_HASH_BYTES])
{
	struct span entry;
	struct record_view view;
	uint8_t found[RECORD_HASH_BYTES];
	if (record_next(&record, &entry, NULL, NULL) || record_decode_trusted(entry, &view, NULL))
		return false;
	record_leaf(&view, found);
	return memcmp(found, leaf, sizeof(found)) == 0;
}

/* Is the record of the mark at this position the one that is there? */
static bool is_there(const struct pg *pg, uint64_t position, struct span record)
{
	for (size_t i = 0; i < PG_MARKS && i < pg->mark_count; i++)
		if (pg->marks[i].position == position && pg_has_leaf(record, pg->marks[i].leaf))
			return true;
	return false;
}

/* The newest that is known to be the same, and all before it: the one above is where the fork is, at the latest known.
 * Nothing known: 0. */
static enum err_code find_fork(struct pg *pg, struct pg_conn *conn, struct pg_params *p, uint64_t *ret,
			       struct err *err)
{
	PGresult *r;
	*ret = 0;
	pg_params_clear(p);
	pg_array_begin(p, PG_TYPE_INT8);
	pthread_mutex_lock(&pg->lock);
	for (size_t i = 0; i < PG_MARKS && i < pg->mark_count; i++)
		pg_array_int8(p, (int64_t)pg->marks[i].position);
	pthread_mutex_unlock(&pg->lock);
	pg_array_end(p);
	if (pg_exec(conn,
		    "SELECT position, bytes FROM cairn.record WHERE position = ANY ($1::bigint[]) "
		    "ORDER BY position DESC",
		    p, PG_ANSWER_MS, &r, NULL, err) != PG_DONE)
		return err->code;
	pthread_mutex_lock(&pg->lock);
	for (int row = 0; row < PQntuples(r) && !*ret; row++) {
		int64_t position;
		if (pg_field_int8(r, row, 0, &position) && is_there(pg, (uint64_t)position, pg_field(r, row, 1)))
			*ret = (uint64_t)position + 1;
	}
	pthread_mutex_unlock(&pg->lock);
	PQclear(r);
	return ERR_OK;
}

void pg_record_loss(struct pg *pg, struct pg_conn *conn)
{
	struct pg_params p;
	struct err err = {0};
	PGresult *r;
	uint64_t fork;
	pg_params_init(&p);
	pg_disconnect(conn);
	enum err_code code = pg_connect_bare(conn, &err);
	if (!code)
		code = find_fork(pg, conn, &p, &fork, &err);
	pg_params_clear(&p);
	if (!code)
		pg_param_int8(&p, (int64_t)fork);
	if (!code && pg_exec(conn, "SELECT cairn.lose($1::bigint)", &p, PG_ANSWER_MS, &r, NULL, &err) == PG_DONE) {
		PQclear(r);
		pg->loss_recorded = true;
		log_error("the loss is recorded in the database", LOG_U64("same_up_to", fork));
	} else {
		log_warn("the loss could not be recorded in the database: it is tried again", LOG_ERR(&err));
	}
	pg_disconnect(conn);
	pg_params_release(&p);
}

enum err_code pg_lost_from(struct storage *s, uint64_t *ret, struct err *err)
{
	struct pg *pg = pg_of(s);
	struct pg_params none;
	PGresult *r;
	int64_t from;
	pg_params_init(&none);
	enum pg_status status = pg_ask(&pg->writer, "SELECT lost_from FROM cairn.meta WHERE lost_from IS NOT NULL",
				       &none, &r, err);
	pg_params_release(&none);
	if (status != PG_DONE)
		return err->code;
	enum err_code code = ERR_OK;
	if (PQntuples(r) != 1 || !pg_field_int8(r, 0, 0, &from))
		code = err_set(err, ERR_NOT_FOUND, "no loss is recorded in this database: there is nothing to accept");
	else
		*ret = (uint64_t)from;
	PQclear(r);
	return code;
}
