/* Restoring a backup into an empty database: the journal's id is given, a mark in cairn.meta keeps everybody else out
 * until the end, and records of which only the leaf hash is left have rows, too. Needs the schema's owner. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include "base/random.h"

enum err_code pg_begin_restoring(struct pg *pg, const uint8_t journal_id[16], struct err *err)
{
	PGresult *r;
	if (pg->known.head > 0)
		return err_set(err, ERR_CONFLICT,
			       "the database has a journal of %llu records: a backup is restored into an empty store "
			       "only",
			       (unsigned long long)pg->known.head);
	if (pg_connected(&pg->writer, PG_AGAIN_MS, err) ||
	    pg_run(&pg->writer, "UPDATE cairn.meta SET restoring = true", err) != PG_DONE)
		return err->code;
	pg_params_clear(&pg->params);
	pg_param_bytes(&pg->params, span_of(journal_id, UUID_BYTES));
	if (pg_exec(&pg->writer, "UPDATE cairn.journal SET id = $1::uuid", &pg->params, PG_ANSWER_MS, &r, NULL, err) !=
	    PG_DONE)
		return err->code;
	PQclear(r);
	memcpy(pg->journal_id, journal_id, UUID_BYTES);
	return ERR_OK;
}

enum storage_outcome pg_append_removed(struct pg *pg, const struct storage_record *records, size_t count,
				       struct err *err)
{
	struct pg_params *p = &pg->params;
	PGresult *r;
	pg_params_clear(p);
	pg_param_int8(p, (int64_t)records[0].position);
	pg_param_int8(p, pg->facts.last_commit.us);
	pg_array_begin(p, PG_TYPE_BYTEA);
	for (size_t i = 0; i < count; i++)
		pg_array_bytes(p, records[i].bytes);
	pg_array_end(p);
	if (pg_connected(&pg->writer, PG_AGAIN_MS, err) ||
	    pg_exec(&pg->writer,
		    "INSERT INTO cairn.record (position, stream_no, category_no, sequence, number, commit_time, id, "
		    "kind, last_of_append, system, content, removed, bytes) "
		    "SELECT $1::bigint + b.nth - 1, -1, -1, 0, 0, $2::bigint, gen_random_uuid(), 0, true, true, false, "
		    "true, b.bytes FROM unnest($3::bytea[]) WITH ORDINALITY AS b(bytes, nth)",
		    p, PG_BATCH_MS, &r, NULL, err) != PG_DONE)
		return STORAGE_FAILED; /* whoever restores begins anew */
	PQclear(r);
	pg->facts.head = records[count - 1].position + 1;
	pg_known_move(pg, pg->facts.head, pg->facts.last_commit, (struct span){0});
	return STORAGE_OK;
}

enum err_code pg_restored(struct storage *s, struct err *err)
{
	struct pg *pg = pg_of(s);
	if (pg_connected(&pg->writer, PG_AGAIN_MS, err) ||
	    pg_run(&pg->writer, "UPDATE cairn.meta SET restoring = false, lost_from = NULL", err) != PG_DONE)
		return err->code;
	return ERR_OK;
}
