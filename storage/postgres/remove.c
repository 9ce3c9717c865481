/* Removing: what is left of a record takes its place. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include "base/must.h"

#define CANNOT_BE_READ "the database's answer to a read cannot be read"
#define REMOVE_READ_RECORDS 16 /* records of any size at a time */

#define UNIT_RECORDS 4096

enum err_code pg_unit(struct storage_reader *r, uint64_t position, struct storage_unit *ret, struct err *err)
{
	struct pg_reader *reader = pg_of_reader(r);
	struct pg_params *p = &reader->params;
	PGresult *result;
	struct pg_known known;
	int64_t bytes;
	pg_known_get(reader->pg, &known);
	struct storage_unit unit = {.first = position - position % UNIT_RECORDS, .removable = true};
	unit.end = unit.first + UNIT_RECORDS < known.head ? unit.first + UNIT_RECORDS : known.head;
	pg_params_clear(p);
	pg_param_int8(p, (int64_t)unit.first);
	pg_param_int8(p, (int64_t)unit.end);
	if (pg_ask(&reader->conn,
		   "SELECT coalesce(sum(octet_length(bytes)), 0)::bigint FROM cairn.record "
		   "WHERE position >= $1::bigint AND position < $2::bigint",
		   p, &result, err) != PG_DONE)
		return err->code;
	bool read = pg_field_int8(result, 0, 0, &bytes);
	PQclear(result);
	if (!read)
		return err_set(err, ERR_CORRUPT, CANNOT_BE_READ);
	unit.bytes = (uint64_t)bytes;
	*ret = unit;
	return ERR_OK;
}

void pg_close_unit(struct storage *s)
{
	pg_of(s); /* no unit is ever open */
}

/* What will be left of the record. */
static enum err_code put_left(struct pg_params *left, struct span bytes, bool body_only, struct err *err)
{
	struct span run = bytes, entry;
	struct record_view view;
	struct buf out;
	enum err_code code = record_next(&run, &entry, NULL, err);
	if (!code)
		code = record_decode_trusted(entry, &view, err);
	if (code)
		return code;
	buf_init(&out, LIMIT_RECORD_BYTES);
	code = body_only || view.content == RECORD_LEAF_HASH ? ERR_OK : record_put_removed(&out, &view);
	if (body_only && view.content == RECORD_BODY)
		code = record_put_erased(&out, &view);
	if (code)
		code = err_set(err, code, "no memory to remove a record");
	else
		pg_array_bytes(left, out.n ? buf_span(&out) : bytes);
	buf_release(&out);
	return code;
}

/* Reads some of them, and appends what will be left. */
static enum err_code read_some(struct pg_reader *reader, const struct storage_removal *list, size_t count,
			       struct pg_params *left, struct err *err)
{
	struct pg_params *p = &reader->params;
	PGresult *r;
	pg_params_clear(p);
	pg_array_begin(p, PG_TYPE_INT8);
	for (size_t i = 0; i < count; i++)
		pg_array_int8(p, (int64_t)list[i].position);
	pg_array_end(p);
	if (pg_ask(&reader->conn,
		   "SELECT bytes FROM cairn.record WHERE position = ANY ($1::bigint[]) ORDER BY position", p, &r,
		   err) != PG_DONE)
		return err->code;
	enum err_code code = (size_t)PQntuples(r) == count ? ERR_OK : err_set(err, ERR_CORRUPT, CANNOT_BE_READ);
	for (size_t i = 0; i < count && !code; i++)
		code = put_left(left, pg_field(r, (int)i, 0), list[i].body_only, err);
	PQclear(r);
	return code;
}

enum err_code pg_remove(struct storage_reader *r, const struct storage_removal *list, size_t count, struct err *err)
{
	struct pg_reader *reader = pg_of_reader(r);
	struct pg_params left;
	enum err_code code = ERR_OK;
	PGresult *result;
	pg_params_init(&left);
	pg_array_begin(&left, PG_TYPE_INT8);
	for (size_t i = 0; i < count; i++)
		pg_array_int8(&left, (int64_t)list[i].position);
	pg_array_end(&left);
	pg_array_begin(&left, PG_TYPE_BOOL);
	for (size_t i = 0; i < count; i++)
		pg_array_bool(&left, !list[i].body_only);
	pg_array_end(&left);
	pg_array_begin(&left, PG_TYPE_BYTEA);
	for (size_t i = 0; i < count && !code; i += REMOVE_READ_RECORDS) {
		size_t n = count - i < REMOVE_READ_RECORDS ? count - i : REMOVE_READ_RECORDS;
		code = read_some(reader, list + i, n, &left, err);
	}
	pg_array_end(&left);
	if (!code && pg_ask(&reader->conn, "SELECT cairn.remove($1, $2, $3)", &left, &result, err) != PG_DONE)
		code = err->code;
	else if (!code)
		PQclear(result);
	pg_params_release(&left);
	atomic_store(&reader->pg->removed, true);
	return code;
}
