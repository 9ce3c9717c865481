/* Values as Postgres has them in binary: parameters on the way out, fields on the way in. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include "base/endian.h"
#include "base/must.h"

/* A batch of the largest append: its records, and some twenty numbers each. */
#define PARAMS_MAX_BYTES (64 * MIB)

void pg_params_init(struct pg_params *p)
{
	*p = (struct pg_params){0};
	buf_init(&p->bytes, PARAMS_MAX_BYTES);
}

void pg_params_release(struct pg_params *p)
{
	buf_release(&p->bytes);
}

void pg_params_clear(struct pg_params *p)
{
	buf_clear(&p->bytes);
	p->count = 0;
	p->failed = false;
}

static void put(struct pg_params *p, const void *bytes, size_t n)
{
	p->failed = p->failed || buf_append(&p->bytes, bytes, n) != ERR_OK;
}

static void put_i32(struct pg_params *p, int32_t v)
{
	uint8_t bytes[4];
	put_be32(bytes, (uint32_t)v);
	put(p, bytes, sizeof(bytes));
}

static void put_i64(struct pg_params *p, int64_t v)
{
	uint8_t bytes[8];
	put_be64(bytes, (uint64_t)v);
	put(p, bytes, sizeof(bytes));
}

static void param_begin(struct pg_params *p)
{
	must(p->count < PG_PARAMS_MAX);
	p->null[p->count] = false;
	p->at[p->count++] = p->bytes.n;
}

static void param_end(struct pg_params *p)
{
	p->at[p->count] = p->bytes.n;
}

void pg_param_bool(struct pg_params *p, bool v)
{
	uint8_t byte = v;
	param_begin(p);
	put(p, &byte, 1);
	param_end(p);
}

void pg_param_int8(struct pg_params *p, int64_t v)
{
	param_begin(p);
	put_i64(p, v);
	param_end(p);
}

void pg_param_bytes(struct pg_params *p, struct span s)
{
	param_begin(p);
	put(p, s.p, s.n);
	param_end(p);
}

void pg_param_null(struct pg_params *p)
{
	param_begin(p);
	p->null[p->count - 1] = true;
	param_end(p);
}

void pg_array_begin(struct pg_params *p, uint32_t element_type)
{
	param_begin(p);
	put_i32(p, 1); /* dimensions */
	put_i32(p, 0); /* no nulls */
	put_i32(p, (int32_t)element_type);
	p->elements_at = p->bytes.n;
	p->elements = 0;
	put_i32(p, 0); /* how many: pg_array_end() */
	put_i32(p, 1); /* the first one's index */
}

void pg_array_bool(struct pg_params *p, bool v)
{
	uint8_t byte = v;
	pg_array_bytes(p, span_of(&byte, 1));
}

void pg_array_int4(struct pg_params *p, int32_t v)
{
	put_i32(p, 4);
	put_i32(p, v);
	p->elements++;
}

void pg_array_int8(struct pg_params *p, int64_t v)
{
	put_i32(p, 8);
	put_i64(p, v);
	p->elements++;
}

void pg_array_bytes(struct pg_params *p, struct span s)
{
	put_i32(p, (int32_t)s.n);
	put(p, s.p, s.n);
	p->elements++;
}

void pg_array_end(struct pg_params *p)
{
	if (!p->failed)
		put_be32(p->bytes.p + p->elements_at, (uint32_t)p->elements);
	param_end(p);
}

/* ---- results --------------------------------------------------------------------------------- */

struct span pg_field(const PGresult *r, int row, int column)
{
	if (PQgetisnull(r, row, column))
		return (struct span){0};
	return span_of(PQgetvalue(r, row, column), (size_t)PQgetlength(r, row, column));
}

bool pg_field_int8(const PGresult *r, int row, int column, int64_t *ret)
{
	struct span s = pg_field(r, row, column);
	if (s.n != 8)
		return false;
	*ret = (int64_t)get_be64(s.p);
	return true;
}

bool pg_field_bool(const PGresult *r, int row, int column, bool *ret)
{
	struct span s = pg_field(r, row, column);
	if (s.n != 1)
		return false;
	*ret = s.p[0] != 0;
	return true;
}

bool pg_array_of(const PGresult *r, int row, int column, struct pg_array *ret)
{
	struct span s = pg_field(r, row, column);
	*ret = (struct pg_array){0};
	if (!s.p)
		return true;
	if (s.n < 12)
		return false;
	if (get_be32(s.p) == 0)
		return true;
	if (get_be32(s.p) != 1 || s.n < 20)
		return false;
	ret->count = get_be32(s.p + 12);
	ret->rest = span_skip(s, 20);
	return true;
}

bool pg_array_next(struct pg_array *a, struct span *ret)
{
	if (a->rest.n < 4)
		return false;
	uint32_t n = get_be32(a->rest.p);
	a->rest = span_skip(a->rest, 4);
	*ret = (struct span){0};
	if (n == UINT32_MAX)
		return true;
	if (n > a->rest.n)
		return false;
	*ret = span_first(a->rest, n);
	a->rest = span_skip(a->rest, n);
	return true;
}

bool pg_array_next_int8(struct pg_array *a, int64_t *ret, bool *ret_null)
{
	struct span s;
	if (!pg_array_next(a, &s))
		return false;
	*ret_null = !s.p;
	*ret = 0;
	if (*ret_null)
		return true;
	if (s.n != 8)
		return false;
	*ret = (int64_t)get_be64(s.p);
	return true;
}
