/* Tiles of the Merkle tree. Each is a function of the log, so whichever cairnd comes first writes it. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include "base/must.h"

enum err_code pg_tile_put(struct storage_reader *r, unsigned level, uint64_t index, const uint8_t *tile,
			  struct err *err)
{
	struct pg_reader *reader = pg_of_reader(r);
	struct pg_params *p = &reader->params;
	PGresult *result;
	pg_params_clear(p);
	pg_param_int8(p, (int64_t)level);
	pg_param_int8(p, (int64_t)index);
	pg_param_bytes(p, span_of(tile, STORAGE_TILE_BYTES));
	if (pg_ask(&reader->conn, "SELECT cairn.put_tile($1::bigint, $2::bigint, $3::bytea)", p, &result, err) !=
	    PG_DONE)
		return err->code;
	PQclear(result);
	return ERR_OK;
}

enum err_code pg_tile_get(struct storage_reader *r, unsigned level, uint64_t index, uint8_t *ret, struct err *err)
{
	struct pg_reader *reader = pg_of_reader(r);
	struct pg_params *p = &reader->params;
	PGresult *result;
	pg_params_clear(p);
	pg_param_int8(p, (int64_t)level);
	pg_param_int8(p, (int64_t)index);
	if (pg_ask(&reader->conn, "SELECT hashes FROM cairn.tile WHERE level = $1::bigint AND number = $2::bigint",
		   p, &result, err) != PG_DONE)
		return err->code;
	struct span hashes = PQntuples(result) == 1 ? pg_field(result, 0, 0) : (struct span){0};
	bool there = hashes.n == STORAGE_TILE_BYTES;
	if (there)
		memcpy(ret, hashes.p, STORAGE_TILE_BYTES);
	PQclear(result);
	return there ? ERR_OK : ERR_NOT_FOUND;
}

bool pg_is_shared(struct storage *s)
{
	pg_of(s); /* any number of cairnd may use one database */
	return true;
}
