/* Appending: one call a batch, and what became of it when its answer is lost. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/plant.h"

static const char append_sql[] =
	"SELECT cairn.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, "
	"$20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30)";

/* ---- what is sent ---------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
	return span_cmp(*(const struct span *)a, *(const struct span *)b);
}

/* Makes the batch's streams known, as of the facts' head. */
static enum err_code learn(struct pg *pg, const struct storage_record *records, size_t count, struct err *err)
{
	struct arena none;
	size_t n = 0, distinct = 0;
	struct span *names = mem_try_alloc((count + 1) * sizeof(*names));
	if (!names)
		return err_set(err, ERR_NOMEM, "no memory for %zu streams' names", count);
	for (size_t i = 0; i < count; i++)
		if (!map_get(&pg->facts.streams, records[i].stream))
			names[n++] = records[i].stream;
	qsort(names, n, sizeof(*names), compare_names);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || !span_eq(names[i], names[distinct - 1]))
			names[distinct++] = names[i];
	arena_init(&none, 1);
	enum err_code code =
		distinct ? pg_facts_learn(pg, names, distinct, NULL, 0, &none, err) : ERR_OK;
	arena_release(&none);
	mem_free(names);
	return code;
}

static struct pg_stream *stream_of(struct pg *pg, const struct storage_record *r)
{
	struct pg_stream *s = map_get(&pg->facts.streams, r->stream);
	must(s);
	return s;
}

/* Which records bring a new name: a stream's and a category's number is the position of its first record. */
struct fresh {
	size_t *categories, *streams; /* indexes of records */
	size_t category_count, stream_count;
};

static bool fresh_find(struct pg *pg, const struct storage_record *records, size_t count, struct fresh *ret)
{
	ret->categories = mem_try_alloc((count + 1) * sizeof(size_t));
	ret->streams = mem_try_alloc((count + 1) * sizeof(size_t));
	ret->category_count = ret->stream_count = 0;
	if (!ret->categories || !ret->streams)
		return false;
	for (size_t i = 0; i < count; i++) {
		struct pg_stream *s = stream_of(pg, &records[i]);
		struct pg_category *c = map_get(&pg->facts.categories, record_category(records[i].stream));
		must(c);
		if (!c->exists) {
			*c = (struct pg_category){.exists = true, .no = records[i].position};
			ret->categories[ret->category_count++] = i;
		}
		if (!s->exists) {
			*s = (struct pg_stream){
				.exists = true, .no = records[i].position, .category_no = c->no};
			ret->streams[ret->stream_count++] = i;
		}
	}
	return true;
}

static void put_fresh(struct pg *pg, const struct storage_record *records, const struct fresh *f)
{
	struct pg_params *p = &pg->params;
	pg_array_begin(p, PG_TYPE_TEXT);
	for (size_t i = 0; i < f->category_count; i++)
		pg_array_bytes(p, record_category(records[f->categories[i]].stream));
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_INT8);
	for (size_t i = 0; i < f->category_count; i++)
		pg_array_int8(p, (int64_t)records[f->categories[i]].position);
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_TEXT);
	for (size_t i = 0; i < f->stream_count; i++)
		pg_array_bytes(p, records[f->streams[i]].stream);
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_INT8);
	for (size_t i = 0; i < f->stream_count; i++)
		pg_array_int8(p, (int64_t)records[f->streams[i]].position);
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_INT8);
	for (size_t i = 0; i < f->stream_count; i++)
		pg_array_int8(p, (int64_t)stream_of(pg, &records[f->streams[i]])->category_no);
	pg_array_end(p);
}

#define PUT_ARRAY(p, type, count, put) \
	do { \
		pg_array_begin((p), (type)); \
		for (size_t i = 0; i < (count); i++) \
			put; \
		pg_array_end(p); \
	} while (0)

static uint64_t count_record(struct pg_stream *s, const struct storage_record *r)
{
	if (record_kind_is_content(r->kind)) {
		s->number++;
		s->live++;
	}
	return s->number;
}

static void put_records(struct pg *pg, const struct storage_record *r, size_t count)
{
	struct pg_params *p = &pg->params;
	PUT_ARRAY(p, PG_TYPE_INT8, count, pg_array_int8(p, (int64_t)stream_of(pg, &r[i])->no));
	PUT_ARRAY(p, PG_TYPE_INT8, count, pg_array_int8(p, (int64_t)stream_of(pg, &r[i])->category_no));
	PUT_ARRAY(p, PG_TYPE_INT8, count, pg_array_int8(p, (int64_t)r[i].sequence));
	PUT_ARRAY(p, PG_TYPE_INT8, count, pg_array_int8(p, (int64_t)count_record(stream_of(pg, &r[i]), &r[i])));
	PUT_ARRAY(p, PG_TYPE_INT8, count, pg_array_int8(p, r[i].commit_time.us));
	PUT_ARRAY(p, PG_TYPE_UUID, count, pg_array_bytes(p, span_of(r[i].id, RECORD_ID_BYTES)));
	PUT_ARRAY(p, PG_TYPE_INT4, count, pg_array_int4(p, (int32_t)r[i].kind));
	PUT_ARRAY(p, PG_TYPE_BOOL, count, pg_array_bool(p, r[i].last_of_append));
	PUT_ARRAY(p, PG_TYPE_BOOL, count, pg_array_bool(p, record_stream_is_system(r[i].stream)));
	PUT_ARRAY(p, PG_TYPE_BYTEA, count, pg_array_bytes(p, r[i].bytes));
	PUT_ARRAY(p, PG_TYPE_BOOL, count, pg_array_bool(p, record_kind_is_content(r[i].kind)));
	for (size_t i = 0; i < count; i++)
		if (record_kind_takes_sequence(r[i].kind))
			stream_of(pg, &r[i])->sequence = r[i].sequence;
}

static bool begins(const struct storage_record *r)
{
	return r->session && !r->session->ends;
}

static bool ends(const struct storage_record *r)
{
	return r->session && r->session->ends;
}

static void put_sessions(struct pg *pg, const struct storage_record *records, size_t count)
{
	struct pg_params *p = &pg->params;
	pg_array_begin(p, PG_TYPE_UUID);
	for (size_t i = 0; i < count; i++)
		if (begins(&records[i]))
			pg_array_bytes(p, span_of(records[i].session->id, RECORD_ID_BYTES));
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_INT8);
	for (size_t i = 0; i < count; i++)
		if (begins(&records[i]))
			pg_array_int8(p, records[i].session->ttl_ms);
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_UUID);
	for (size_t i = 0; i < count; i++)
		if (ends(&records[i]))
			pg_array_bytes(p, span_of(records[i].session->id, RECORD_ID_BYTES));
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_INT8);
	for (size_t i = 0; i < count; i++)
		if (ends(&records[i]))
			pg_array_int8(p, (int64_t)records[i].session->beats);
	pg_array_end(p);
}

/* An act upon a stream, as the tables have it. */
struct pg_act {
	uint64_t stream_no, position;
	struct record_act act;
};

static int64_t as_int8(uint64_t v)
{
	return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

static size_t find_acts(struct pg *pg, const struct storage_record *records, size_t count, struct pg_act *ret)
{
	size_t n = 0;
	for (size_t i = 0; i < count; i++) {
		struct span run = records[i].bytes, entry;
		struct record_view view;
		if (record_kind_is_content(records[i].kind) || record_next(&run, &entry, NULL, NULL) ||
		    record_decode_trusted(entry, &view, NULL) || !record_act_get(&view, &ret[n].act))
			continue;
		ret[n].stream_no = stream_of(pg, &records[i])->no;
		ret[n++].position = records[i].position;
	}
	return n;
}

#define PUT_ACTS(p, type, which, put) \
	do { \
		pg_array_begin((p), (type)); \
		for (size_t i = 0; i < n; i++) \
			if (acts[i].act.which) \
				put; \
		pg_array_end(p); \
	} while (0)

static bool put_acts(struct pg *pg, const struct storage_record *records, size_t count, bool *ret_any)
{
	struct pg_params *p = &pg->params;
	struct pg_act *acts = mem_try_alloc((count + 1) * sizeof(*acts));
	if (!acts)
		return false;
	size_t n = find_acts(pg, records, count, acts);
	*ret_any = n > 0;
	PUT_ACTS(p, PG_TYPE_INT8, hide_below, pg_array_int8(p, (int64_t)acts[i].stream_no));
	PUT_ACTS(p, PG_TYPE_INT8, hide_below, pg_array_int8(p, as_int8(acts[i].act.hide_below)));
	PUT_ACTS(p, PG_TYPE_INT8, erases, pg_array_int8(p, (int64_t)acts[i].stream_no));
	PUT_ACTS(p, PG_TYPE_INT8, erases, pg_array_int8(p, (int64_t)acts[i].position));
	PUT_ACTS(p, PG_TYPE_INT8, erases, pg_array_int8(p, as_int8(acts[i].act.erase_from)));
	PUT_ACTS(p, PG_TYPE_INT8, erases, pg_array_int8(p, as_int8(acts[i].act.erase_to)));
	PUT_ACTS(p, PG_TYPE_BOOL, erases, pg_array_bool(p, acts[i].act.erase_snapshots));
	PUT_ACTS(p, PG_TYPE_BOOL, erases, pg_array_bool(p, acts[i].act.erase_all));
	mem_free(acts);
	return true;
}

/* Fills the parameters, and carries the facts forward to what is true once this is written. */
static bool put_batch(struct pg *pg, const struct storage_record *records, size_t count, bool *ret_acts)
{
	struct fresh fresh;
	pg_params_clear(&pg->params);
	pg_param_int8(&pg->params, (int64_t)pg->facts.head);
	pg_param_bool(&pg->params, pg->in_transaction || plant("postgres-lock-not-taken"));
	bool ok = fresh_find(pg, records, count, &fresh);
	if (ok) {
		put_fresh(pg, records, &fresh);
		put_records(pg, records, count);
		put_sessions(pg, records, count);
		ok = put_acts(pg, records, count, ret_acts);
	}
	mem_free(fresh.categories);
	mem_free(fresh.streams);
	return ok && !pg->params.failed;
}

/* ---- what became of it ----------------------------------------------------------------------- */

static enum storage_outcome is_written(struct pg *pg, const struct storage_record *records, size_t count)
{
	const struct storage_record *last = &records[count - 1];
	pg->facts.head = last->position + 1;
	pg->facts.last_commit = last->commit_time;
	pg->moved = 0;
	pg_known_move(pg, pg->facts.head, last->commit_time, last->bytes);
	pg_watch_tell(pg);
	return STORAGE_OK;
}

static enum storage_outcome has_moved(struct pg *pg)
{
	pg_roll_back(pg);
	pg_facts_forget(&pg->facts);
	pg->moved++;
	return STORAGE_MOVED;
}

/* The server's error: the batch is rolled back, and known not to be written. */
static enum storage_outcome is_refused(struct pg *pg, const char *state, const struct err *why, struct err *err)
{
	pg_roll_back(pg);
	pg_facts_forget(&pg->facts);
	if (strcmp(state, "53100") == 0) {
		err_set(err, ERR_FULL, "%s", why->text);
		return STORAGE_FULL;
	}
	bool ours = memcmp(state, "22", 2) == 0 || memcmp(state, "23", 2) == 0 || memcmp(state, "54", 2) == 0;
	if (ours) {
		err_set(err, ERR_INTERNAL, "%s", why->text);
		return STORAGE_REFUSED;
	}
	/* The primary has become a standby: the next connection finds the new one. */
	if (strcmp(state, "25006") == 0)
		pg_disconnect(&pg->writer);
	err_set(err, ERR_UNAVAILABLE, "%s", why->text);
	return STORAGE_UNKNOWN;
}

enum settled { SETTLED_WRITTEN, SETTLED_NOT, SETTLED_AGAIN };

/* On a new connection: the row first, so that the old connection's transaction is over; then what is there.
 * It counts once this transaction itself has been committed without a warning. */
static enum settled settle_once(struct pg *pg, const struct storage_record *first, struct err *err)
{
	struct pg_conn *w = &pg->writer;
	PGresult *r;
	char sql[240];
	snprintf(sql, sizeof(sql),
		 "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = %d; "
		 "SET LOCAL idle_in_transaction_session_timeout = %d; SELECT cairn.lock()",
		 PG_LOCK_TIMEOUT_MS, PG_IDLE_TIMEOUT_MS);
	w->warned = false;
	if (pg_run(w, sql, err) != PG_DONE) {
		pg_disconnect(w);
		return SETTLED_AGAIN;
	}
	pg_params_clear(&pg->params);
	pg_param_int8(&pg->params, (int64_t)first->position);
	if (pg_exec(w, "SELECT bytes FROM cairn.record WHERE position = $1::bigint", &pg->params,
		    PG_ANSWER_MS, &r, NULL, err) != PG_DONE) {
		pg_disconnect(w);
		return SETTLED_AGAIN;
	}
	struct span there = PQntuples(r) == 1 ? pg_field(r, 0, 0) : (struct span){0};
	bool same = plant("postgres-settle-by-position") ? there.n > 0 : span_eq(there, first->bytes);
	PQclear(r);
	if (pg_run(w, "COMMIT", err) != PG_DONE || w->warned) {
		if (w->warned)
			err_set(err, ERR_UNAVAILABLE, "a commit was not confirmed: %s", w->warning);
		pg_disconnect(w);
		return SETTLED_AGAIN;
	}
	return same ? SETTLED_WRITTEN : SETTLED_NOT;
}

static enum storage_outcome settle(struct pg *pg, const struct storage_record *records, size_t count,
				   const struct err *why, struct err *err)
{
	struct mono_time begun = clock_mono(&clock_system);
	struct err last = *why;
	metric_add(METRIC_POSTGRES_SETTLED, 1);
	log_warn("the outcome of a batch is unknown: settling", LOG_ERR(why), LOG_U64("position", records[0].position),
		 LOG_U64("records", count));
	pg->in_transaction = false;
	pg_disconnect(&pg->writer);
	if (plant("postgres-settle-skipped"))
		return is_written(pg, records, count);
	for (;;) {
		int64_t left_ms = PG_SETTLE_MS - mono_since_us(clock_mono(&clock_system), begun) / 1000;
		if (left_ms <= 0)
			break;
		struct err now = {0};
		if (pg_connected(&pg->writer, left_ms, &now)) {
			last = now;
			break;
		}
		enum settled settled = settle_once(pg, &records[0], &now);
		if (settled == SETTLED_AGAIN) {
			last = now;
			continue;
		}
		log_info("settled", LOG_STR("batch", settled == SETTLED_WRITTEN ? "is written" : "is not written"),
			 LOG_U64("position", records[0].position));
		return settled == SETTLED_WRITTEN ? is_written(pg, records, count) : has_moved(pg);
	}
	pg_facts_forget(&pg->facts);
	err_set(err, ERR_UNAVAILABLE, "%s", last.text);
	return STORAGE_UNKNOWN;
}

/* ---- a batch --------------------------------------------------------------------------------- */

/* Sends it, and commits the transaction in which the row was taken first. */
static enum pg_status send_batch(struct pg *pg, bool *ret_written, char state[6], struct err *err)
{
	PGresult *r;
	bool early = plant("postgres-answer-before-commit") && !pg->in_transaction;
	if (early && pg_run(&pg->writer, "BEGIN", err) == PG_DONE)
		pg->in_transaction = true;
	enum pg_status status = pg_exec(&pg->writer, append_sql, &pg->params, PG_BATCH_MS, &r, state, err);
	if (status != PG_DONE)
		return status;
	bool read = pg_field_bool(r, 0, 0, ret_written);
	PQclear(r);
	if (!read) {
		err_set(err, ERR_CORRUPT, "the database's answer to a batch cannot be read");
		return PG_LOST;
	}
	if (pg->in_transaction && !early && *ret_written) {
		pg->in_transaction = false;
		status = pg_exec(&pg->writer, "COMMIT", NULL, PG_ANSWER_MS, &r, state, err);
		if (status == PG_DONE)
			PQclear(r);
	}
	return status;
}

/* A batch without records asks whether the head is still where it was. It takes the row like any other, so
 * that a primary that has been cut off from its standbys does not answer by itself. */
static enum storage_outcome append_nothing(struct pg *pg, struct err *err)
{
	struct err why = {0};
	char state[6] = "";
	bool still = false;
	if (pg_connected(&pg->writer, PG_AGAIN_MS, err))
		return STORAGE_UNKNOWN;
	pg->writer.warned = false;
	enum pg_status status = send_batch(pg, &still, state, &why);
	if (status == PG_REFUSED)
		return is_refused(pg, state, &why, err);
	if (status == PG_LOST || pg->writer.warned) {
		pg->in_transaction = false;
		pg_facts_forget(&pg->facts);
		err_set(err, ERR_UNAVAILABLE, "%s", status == PG_LOST ? why.text : pg->writer.warning);
		pg_disconnect(&pg->writer);
		return STORAGE_UNKNOWN;
	}
	if (!still)
		return has_moved(pg);
	pg->moved = 0;
	return STORAGE_OK;
}

enum storage_outcome pg_append(struct storage *s, uint64_t expected_head, const struct storage_record *records,
			       size_t count, struct err *err)
{
	struct pg *pg = pg_of(s);
	struct err why = {0};
	char state[6] = "";
	bool written = false, acts = false;
	if (count > 0 && records[0].removed)
		return pg_append_removed(pg, records, count, err);
	/* Usually all is known, from the look-up before. */
	if (pg->facts.head != expected_head) {
		pg_facts_forget(&pg->facts);
		pg->facts.head = expected_head;
	}
	if (learn(pg, records, count, err)) {
		pg_roll_back(pg);
		pg_facts_forget(&pg->facts);
		return STORAGE_UNKNOWN;
	}
	if (pg->facts.head != expected_head)
		return has_moved(pg);
	if (!put_batch(pg, records, count, &acts)) {
		pg_roll_back(pg);
		pg_facts_forget(&pg->facts);
		err_set(err, ERR_FULL, "no memory for a batch of %zu records", count);
		return STORAGE_FULL;
	}
	if (count == 0)
		return append_nothing(pg, err);
	if (pg_connected(&pg->writer, PG_AGAIN_MS, err)) {
		pg_facts_forget(&pg->facts);
		return STORAGE_UNKNOWN;
	}
	pg->writer.warned = false;
	if (acts)
		atomic_store(&pg->removed, true); /* what the streams still have is counted by the database */
	enum pg_status status = send_batch(pg, &written, state, &why);
	if (status == PG_REFUSED)
		return is_refused(pg, state, &why, err);
	if (status == PG_DONE && pg->writer.warned)
		err_set(&why, ERR_UNAVAILABLE, "the commit was not confirmed: %s", pg->writer.warning);
	if (status == PG_LOST || (written && pg->writer.warned))
		return settle(pg, records, count, &why, err);
	return written ? is_written(pg, records, count) : has_moved(pg);
}
