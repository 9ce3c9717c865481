/* Reading: pages by key, cut to size by the server, so that a page costs a page's memory on both sides. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include "base/must.h"

#define CANNOT_BE_READ "the database's answer to a read cannot be read"

/* ---- records --------------------------------------------------------------------------------- */

/* What all reads share. $1 from, $2 below, $3 kinds (0: all), $4 most bytes, $5 most records, $6 the name or
 * whether system streams are wanted. Rows that come after the page has one without bytes: where to go on. */
/* The hash that stands for an erased body may be longer than it. */
#define SIZE "octet_length(bytes) + 40 * erased::int"
#define PAGE(from_where, order) \
	"SELECT position, CASE WHEN nth = 1 OR (total <= $4::bigint AND nth <= $5::bigint) THEN bytes END, erased " \
	"FROM (SELECT position, bytes, erased, " SIZE " AS size, row_number() OVER w AS nth, " \
	"sum(" SIZE ") OVER w AS total FROM (" \
	"SELECT r.position, r.bytes, " ERASED " AS erased FROM " from_where \
	" AND ($3::bigint = 0 OR (r.kind < 32 AND ($3::bigint >> r.kind) & 1 = 1)) " \
	"ORDER BY r.position " order " LIMIT $5::bigint + 1) p WINDOW w AS (ORDER BY position " order ")) q " \
	"WHERE nth <= 2 OR total - size <= $4::bigint"
/* Is the record given at all? And is its body? Most journals have nothing that is withheld, and ask once. It does not
 * say NOT removed: that would be what the partial indexes say, and the planner likes to read all of one for it. */
#define GIVEN(r) \
	r ".removed IS NOT TRUE AND (NOT " r ".content OR (SELECT NOT EXISTS (SELECT 1 FROM cairn.withheld)) OR " \
	"NOT EXISTS (SELECT 1 FROM cairn.withheld h WHERE h.stream_no = " r ".stream_no AND " r ".position < h.below))"
#define ERASED \
	"((SELECT EXISTS (SELECT 1 FROM cairn.erasure)) AND r.content AND EXISTS (SELECT 1 FROM cairn.erasure e " \
	"WHERE e.stream_no = r.stream_no AND r.position < e.position AND CASE r.kind " \
	"WHEN 2 THEN e.snapshots AND r.sequence >= e.first WHEN 1 THEN r.sequence BETWEEN e.first AND e.last " \
	"ELSE e.whole END))"
#define FORWARD "r.position >= $1::bigint AND r.position < $2::bigint"
#define BACKWARD "r.position <= $1::bigint AND r.position < $2::bigint"
#define RAW "cairn.record r WHERE ($6::boolean OR NOT r.system) AND "
#define ALL RAW GIVEN("r") " AND "
#define IN_STREAM "cairn.record r WHERE r.stream_no = (SELECT no FROM cairn.stream WHERE name = $6) AND "
#define IN_CATEGORY "cairn.record r WHERE r.category_no = (SELECT no FROM cairn.category WHERE name = $6) AND "
#define STREAM IN_STREAM GIVEN("r") " AND "
#define CATEGORY IN_CATEGORY GIVEN("r") " AND "
/* The position that a sequence stands for: see storage.h. */
#define FROM_SEQUENCE(than) \
	"(SELECT e.position FROM cairn.record e WHERE e.stream_no = (SELECT no FROM cairn.stream WHERE name = $6) " \
	"AND e.sequence " than " $1::bigint AND e.kind IN (1, 3, 5) AND NOT e.removed AND " GIVEN("e") \
	" ORDER BY e.sequence LIMIT 1)"

static const char *const page_sql[3][2] = {
	[STORAGE_ALL] = {PAGE(ALL FORWARD, ""), PAGE(ALL BACKWARD, "DESC")},
	[STORAGE_STREAM] = {PAGE(STREAM FORWARD, ""), PAGE(STREAM BACKWARD, "DESC")},
	[STORAGE_CATEGORY] = {PAGE(CATEGORY FORWARD, ""), PAGE(CATEGORY BACKWARD, "DESC")},
};
static const char raw_sql[] = PAGE(RAW FORWARD, "");
static const char *const sequence_sql[2] = {
	PAGE(STREAM "r.position < $2::bigint AND r.position >= " FROM_SEQUENCE(">="), ""),
	PAGE(STREAM "r.position < least($2::bigint, coalesce(" FROM_SEQUENCE(">") ", $2::bigint))", "DESC"),
};

/* The same for a read that looks through much that it does not want, and is to stop after a while: it looks at
 * $8 rows at most, and stops when $7 bytes of the unwanted are counted ($10 each, or what they are if 0). $9: the
 * page has records already. Of the rows that it looked at, those that are wanted come, the one at which it
 * stops, and the last. */
#define SCAN(from_where, order, wanted) \
	"SELECT position, CASE WHEN wanted AND NOT stops THEN bytes END, wanted, stops, scan::bigint, nr, erased " \
	"FROM (" \
	"SELECT *, max(stops::int) OVER (ORDER BY position " order \
	" ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS stopped FROM (" \
	"SELECT *, CASE WHEN wanted THEN (nth > 1 OR $9::boolean) AND (total > $4::bigint OR nth > $5::bigint) " \
	"ELSE scan >= $7::bigint END AS stops FROM (" \
	"SELECT position, bytes, wanted, erased, row_number() OVER w AS nr, lead(position) OVER w IS NULL AS last, " \
	"count(*) FILTER (WHERE wanted) OVER w AS nth, " \
	"coalesce(sum(" SIZE ") FILTER (WHERE wanted) OVER w, 0) AS total, " \
	"coalesce(sum(CASE WHEN $10::bigint = 0 THEN octet_length(bytes) ELSE $10::bigint END) " \
	"FILTER (WHERE NOT wanted) OVER w, 0) AS scan FROM (" \
	"SELECT r.position, r.bytes, " ERASED " AS erased, " wanted " AND ($3::bigint = 0 OR (r.kind < 32 AND " \
	"($3::bigint >> r.kind) & 1 = 1)) AS wanted FROM " from_where " ORDER BY r.position " order \
	" LIMIT $8::bigint) p WINDOW w AS (ORDER BY position " order ")) a) b) c " \
	"WHERE coalesce(stopped, 0) = 0 AND (wanted OR stops OR last)"
#define ANY "cairn.record r WHERE "

#define ALL_WANTED "($6::boolean OR NOT r.system) AND " GIVEN("r")

static const char *const scan_sql[3][2] = {
	[STORAGE_ALL] = {SCAN(ANY FORWARD, "", ALL_WANTED), SCAN(ANY BACKWARD, "DESC", ALL_WANTED)},
	[STORAGE_STREAM] = {SCAN(IN_STREAM FORWARD, "", GIVEN("r")), SCAN(IN_STREAM BACKWARD, "DESC", GIVEN("r"))},
	[STORAGE_CATEGORY] = {SCAN(IN_CATEGORY FORWARD, "", GIVEN("r")),
			      SCAN(IN_CATEGORY BACKWARD, "DESC", GIVEN("r"))},
};
static const char *const scan_sequence_sql[2] = {
	SCAN(IN_STREAM "r.position < $2::bigint AND r.position >= " FROM_SEQUENCE(">="), "", GIVEN("r")),
	SCAN(IN_STREAM "r.position < least($2::bigint, coalesce(" FROM_SEQUENCE(">") ", $2::bigint))", "DESC",
	     GIVEN("r")),
};
#define SCAN_ROWS_MAX 20000

static int64_t as_int8(uint64_t v)
{
	return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

/* How many rows a page is likely to have: the server looks no further. */
static int64_t row_limit(const struct pg_reader *reader, const struct storage_query *q)
{
	size_t rows = q->max_bytes / reader->record_bytes;
	rows += rows / 4 + 16;
	if (rows > 100000)
		rows = 100000;
	if (q->max_records && q->max_records < rows)
		rows = q->max_records;
	return (int64_t)rows;
}

static void put_query(struct pg_reader *reader, const struct storage_query *q, uint64_t below)
{
	struct pg_params *p = &reader->params;
	pg_params_clear(p);
	pg_param_int8(p, as_int8(q->from));
	pg_param_int8(p, as_int8(below));
	pg_param_int8(p, q->kinds);
	pg_param_int8(p, as_int8(q->max_bytes));
	pg_param_int8(p, row_limit(reader, q));
	if (q->source == STORAGE_ALL)
		pg_param_bool(p, q->include_system);
	else
		pg_param_bytes(p, q->name);
}

/* A record on its way out: without its body, if that is erased. */
static enum err_code put_record(struct buf *out, struct span bytes, bool erased, struct err *err)
{
	struct span run = bytes, entry;
	struct record_view view;
	enum err_code code = ERR_OK;
	if (erased) {
		code = record_next(&run, &entry, NULL, err);
		if (!code)
			code = record_decode_trusted(entry, &view, err);
		if (code)
			return code;
		erased = view.content == RECORD_BODY;
	}
	code = erased ? record_put_erased(out, &view) : buf_append_span(out, bytes);
	return code ? err_set(err, code, "no room for a record of %zu bytes", bytes.n) : ERR_OK;
}

static enum err_code take_rows(const PGresult *r, bool raw, struct buf *out, struct storage_page *page, struct err *err)
{
	int rows = PQntuples(r);
	page->end = true;
	for (int i = 0; i < rows; i++) {
		int64_t position;
		struct span bytes = pg_field(r, i, 1);
		bool erased;
		if (!pg_field_int8(r, i, 0, &position) || !pg_field_bool(r, i, 2, &erased))
			return err_set(err, ERR_CORRUPT, CANNOT_BE_READ);
		if (!bytes.p) {
			page->end = false;
			page->next = (uint64_t)position;
			return ERR_OK;
		}
		enum err_code code = put_record(out, bytes, erased && !raw, err);
		if (code)
			return code;
		page->records++;
	}
	return ERR_OK;
}

static bool passes_over(const struct storage_query *q)
{
	return q->max_scan_bytes && !q->raw && (q->kinds || (q->source == STORAGE_ALL && !q->include_system));
}

/* Where one round of looking ended. */
struct round {
	bool over;     /* the page is done: page->end or page->next says how */
	uint64_t next; /* else where to look on */
};

static bool take_row(const PGresult *r, int i, bool backward, int64_t limit, struct buf *out,
		     struct storage_page *page, struct round *round, size_t scanned_before)
{
	int64_t position, scan, row;
	bool wanted, stops, erased;
	if (!pg_field_int8(r, i, 0, &position) || !pg_field_bool(r, i, 2, &wanted) ||
	    !pg_field_bool(r, i, 3, &stops) || !pg_field_int8(r, i, 4, &scan) || !pg_field_int8(r, i, 5, &row) ||
	    !pg_field_bool(r, i, 6, &erased))
		return false;
	struct span bytes = pg_field(r, i, 1);
	uint64_t at = (uint64_t)position, after = backward ? at - 1 : at + 1;
	page->scanned_bytes = scanned_before + (size_t)scan;
	if (bytes.p) {
		if (put_record(out, bytes, erased, NULL))
			return false;
		page->records++;
	}
	round->next = stops && wanted ? at : after;
	page->end = backward && at == 0 && !(stops && wanted);
	round->over = stops || page->end;
	if (i + 1 == PQntuples(r) && !stops && row < limit)
		round->over = page->end = true;
	return true;
}

/* Looks on, a bounded number of rows at a time, until the page is full or enough was looked at. */
static enum err_code read_scanning(struct pg_reader *reader, const struct storage_query *query, uint64_t below,
				   struct buf *out, struct storage_page *page, struct err *err)
{
	struct storage_query q = *query;
	struct round round = {0};
	size_t start = out->n;
	while (!round.over) {
		struct pg_params *p = &reader->params;
		PGresult *result;
		size_t before = page->scanned_bytes;
		size_t each = q.source == STORAGE_ALL ? reader->record_bytes : STORAGE_ENTRY_BYTES;
		int64_t limit = row_limit(reader, &q) + as_int8((q.max_scan_bytes - before) / each) + 2;
		limit = limit > SCAN_ROWS_MAX ? SCAN_ROWS_MAX : limit;
		put_query(reader, &q, below);
		/* Of put_query()'s, the fourth and fifth are what is left of the page. */
		pg_param_int8(p, as_int8(q.max_scan_bytes - before));
		pg_param_int8(p, limit);
		pg_param_bool(p, page->records > 0);
		pg_param_int8(p, q.source == STORAGE_ALL ? 0 : (int64_t)STORAGE_ENTRY_BYTES);
		const char *sql = q.by_sequence ? scan_sequence_sql[q.backward] : scan_sql[q.source][q.backward];
		if (pg_ask(&reader->conn, sql, p, &result, err) != PG_DONE)
			return err->code;
		bool read = true;
		if (PQntuples(result) == 0)
			round.over = page->end = true;
		for (int i = 0; i < PQntuples(result) && read; i++)
			read = take_row(result, i, q.backward, limit, out, page, &round, before);
		PQclear(result);
		if (!read)
			return err_set(err, ERR_CORRUPT, CANNOT_BE_READ);
		q.by_sequence = false;
		q.from = page->next = round.next;
		size_t used = out->n - start;
		q.max_bytes = used < query->max_bytes ? query->max_bytes - used : 0;
		q.max_records = query->max_records ? query->max_records - page->records : 0;
		if (query->max_records && q.max_records == 0)
			q.max_bytes = 0; /* only whether there are more is to be found out */
	}
	return ERR_OK;
}

enum err_code pg_read(struct storage_reader *r, const struct storage_query *q, struct buf *out,
		      struct storage_page *ret, struct err *err)
{
	struct pg_reader *reader = pg_of_reader(r);
	struct storage_page page = {0};
	struct pg_known known;
	PGresult *result;
	size_t start = out->n;
	pg_known_get(reader->pg, &known);
	uint64_t below = q->below_position < known.head ? q->below_position : known.head;
	enum err_code code;
	if (passes_over(q)) {
		code = read_scanning(reader, q, below, out, &page, err);
	} else {
		put_query(reader, q, below);
		const char *sql = q->by_sequence ? sequence_sql[q->backward] : page_sql[q->source][q->backward];
		if (q->raw)
			sql = raw_sql;
		if (pg_ask(&reader->conn, sql, &reader->params, &result, err) != PG_DONE)
			return err->code;
		code = take_rows(result, q->raw, out, &page, err);
		PQclear(result);
	}
	if (code) {
		out->n = start;
		return code;
	}
	if (page.records > 0)
		reader->record_bytes = (out->n - start) / page.records;
	if (page.end) {
		bool beyond = !q->by_sequence && q->from > below;
		page.next = q->backward ? 0 : beyond ? q->from : below;
	}
	*ret = page;
	return ERR_OK;
}

/* The newest one below a position; ERR_NOT_FOUND. */
static enum err_code snapshot_below(struct pg_reader *reader, struct span stream, uint64_t at_sequence,
				    uint64_t *below, struct buf *out, bool *ret_has_body, struct err *err)
{
	struct pg_params *p = &reader->params;
	PGresult *result;
	int64_t position;
	pg_params_clear(p);
	pg_param_bytes(p, stream);
	pg_param_int8(p, as_int8(at_sequence));
	pg_param_int8(p, as_int8(*below));
	if (pg_ask(&reader->conn,
		   "SELECT r.bytes, r.position FROM cairn.record r "
		   "WHERE r.stream_no = (SELECT no FROM cairn.stream WHERE name = $1) AND r.kind = 2 "
		   "AND r.sequence <= $2::bigint AND r.position < $3::bigint AND NOT r.removed AND " GIVEN("r")
		   " AND NOT " ERASED
		   " ORDER BY r.sequence DESC, r.position DESC LIMIT 1",
		   p, &result, err) != PG_DONE)
		return err->code;
	enum err_code code = ERR_NOT_FOUND;
	struct span bytes = PQntuples(result) == 1 ? pg_field(result, 0, 0) : (struct span){0}, run = bytes, entry;
	if (bytes.p && (!pg_field_int8(result, 0, 1, &position) || record_next(&run, &entry, NULL, NULL))) {
		code = err_set(err, ERR_CORRUPT, CANNOT_BE_READ);
	} else if (bytes.p) {
		*below = (uint64_t)position;
		*ret_has_body = record_has_body(entry);
		code = *ret_has_body ? buf_append_span(out, bytes) : ERR_OK;
		if (code)
			err_set(err, code, "no room for a snapshot of %zu bytes", bytes.n);
	}
	PQclear(result);
	return code;
}

enum err_code pg_snapshot(struct storage_reader *r, struct span stream, uint64_t at_sequence,
			  uint64_t below_position, struct buf *out, struct err *err)
{
	struct pg_reader *reader = pg_of_reader(r);
	enum err_code code = ERR_OK;
	for (bool has_body = false; !has_body && !code;)
		code = snapshot_below(reader, stream, at_sequence, &below_position, out, &has_body, err);
	return code;
}

/* ---- streams --------------------------------------------------------------------------------- */

#define INFO(source) \
	"SELECT s.name, s.no, coalesce(l.position, s.no), coalesce(n.number, 0) - coalesce(w.base + w.removed, 0), " \
	"coalesce(q.sequence, 0), coalesce(e.position, 0) FROM " source " s " \
	"LEFT JOIN cairn.withheld w ON w.stream_no = s.no " \
	"LEFT JOIN LATERAL (SELECT r.number FROM cairn.record r WHERE r.stream_no = s.no " \
	"ORDER BY r.position DESC LIMIT 1) n ON true " \
	"LEFT JOIN LATERAL (SELECT r.position FROM cairn.record r WHERE r.stream_no = s.no AND NOT r.removed " \
	"ORDER BY r.position DESC LIMIT 1) l ON true " \
	"LEFT JOIN LATERAL (SELECT max(f.position) AS position FROM cairn.erasure f " \
	"WHERE f.stream_no = s.no AND f.whole) e ON true " \
	"LEFT JOIN LATERAL (SELECT r.sequence FROM cairn.record r WHERE r.stream_no = s.no " \
	"AND r.kind IN (1, 3, 5) AND NOT r.removed ORDER BY r.sequence DESC LIMIT 1) q ON true"

static enum err_code take_info(const PGresult *r, int row, struct arena *a, struct storage_stream_info *ret,
			       struct err *err)
{
	int64_t v[5];
	for (int i = 0; i < 5; i++)
		if (!pg_field_int8(r, row, 1 + i, &v[i]))
			return err_set(err, ERR_CORRUPT, CANNOT_BE_READ);
	*ret = (struct storage_stream_info){.name = arena_dup(a, pg_field(r, row, 0)),
					    .first_position = (uint64_t)v[0],
					    .last_position = (uint64_t)v[1],
					    .records = (uint64_t)v[2],
					    .sequence = (uint64_t)v[3],
					    .erased_below = (uint64_t)v[4]};
	return ret->name.p ? ERR_OK : err_set(err, ERR_NOMEM, "no memory for streams' names");
}

enum err_code pg_list(struct storage_reader *r, struct span prefix, struct span after, size_t max,
		      struct arena *a, struct storage_stream_info *ret, size_t *ret_count, struct err *err)
{
	struct pg_reader *reader = pg_of_reader(r);
	struct pg_params *p = &reader->params;
	PGresult *result;
	pg_params_clear(p);
	pg_param_bytes(p, prefix);
	pg_param_bytes(p, after);
	pg_param_int8(p, (int64_t)max);
	/* By bytes, as the names' collation is: from the prefix on, as long as it holds. */
	if (pg_ask(&reader->conn,
		   INFO("(SELECT * FROM cairn.stream WHERE name >= $1 AND name > $2 AND starts_with(name, $1) "
			"ORDER BY name LIMIT $3::bigint)") " ORDER BY s.name",
		   p, &result, err) != PG_DONE)
		return err->code;
	enum err_code code = ERR_OK;
	size_t count = (size_t)PQntuples(result);
	for (size_t i = 0; i < count && !code; i++)
		code = take_info(result, (int)i, a, &ret[i], err);
	PQclear(result);
	if (!code)
		*ret_count = count;
	return code;
}

enum err_code pg_stat(struct storage_reader *r, struct span stream, struct arena *a,
		      struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	struct pg_reader *reader = pg_of_reader(r);
	PGresult *result;
	pg_params_clear(&reader->params);
	pg_param_bytes(&reader->params, stream);
	if (pg_ask(&reader->conn, INFO("(SELECT * FROM cairn.stream WHERE name = $1)"), &reader->params, &result,
		   err) != PG_DONE)
		return err->code;
	enum err_code code = ERR_OK;
	*ret_exists = PQntuples(result) == 1;
	if (*ret_exists)
		code = take_info(result, 0, a, ret, err);
	PQclear(result);
	return code;
}
