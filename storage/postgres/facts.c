/* Facts: what the sequencer must know of streams and ids, all as of one head. Those of streams stay in
 * memory for as long as nobody else moves the head. */
#include <config.h>

#include "storage/postgres/postgres.h"

#include "base/mem.h"
#include "base/must.h"

#define TRY_TO_READ "the database's answer to a look-up cannot be read"

void pg_facts_init(struct pg_facts *f)
{
	*f = (struct pg_facts){0};
	map_init(&f->streams);
	map_init(&f->categories);
}

static void free_value(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	mem_free(value);
}

void pg_facts_release(struct pg_facts *f)
{
	map_each(&f->streams, free_value, NULL);
	map_each(&f->categories, free_value, NULL);
	map_release(&f->streams);
	map_release(&f->categories);
}

void pg_facts_forget(struct pg_facts *f)
{
	if (f->streams.count == 0 && f->categories.count == 0)
		return;
	pg_facts_release(f);
	map_init(&f->streams);
	map_init(&f->categories);
}

void pg_roll_back(struct pg *pg)
{
	struct err ignored = {0};
	if (!pg->in_transaction)
		return;
	pg->in_transaction = false;
	if (pg->writer.c && pg_run(&pg->writer, "ROLLBACK", &ignored) != PG_DONE)
		pg_disconnect(&pg->writer);
}

/* After MOVED again and again: nobody else moves it now, until we have appended. */
static enum pg_status take_row(struct pg *pg, struct err *err)
{
	char sql[240];
	snprintf(sql, sizeof(sql),
		 "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = %d; "
		 "SET LOCAL idle_in_transaction_session_timeout = %d; SELECT cairn.lock()",
		 PG_LOCK_TIMEOUT_MS, PG_IDLE_TIMEOUT_MS);
	enum pg_status status = pg_run(&pg->writer, sql, err);
	pg->in_transaction = true;
	if (status != PG_DONE)
		pg_roll_back(pg);
	return status;
}

static void ask_for(struct pg *pg, const struct span *names, size_t name_count,
		    const struct storage_id_fact *ids, size_t id_count, bool all)
{
	struct pg_params *p = &pg->params;
	pg_params_clear(p);
	pg_array_begin(p, PG_TYPE_TEXT);
	for (size_t i = 0; i < name_count; i++)
		if (all || !map_get(&pg->facts.streams, names[i]))
			pg_array_bytes(p, names[i]);
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_TEXT);
	for (size_t i = 0; i < name_count; i++)
		if (all || !map_get(&pg->facts.streams, names[i]))
			pg_array_bytes(p, record_category(names[i]));
	pg_array_end(p);
	pg_array_begin(p, PG_TYPE_UUID);
	for (size_t i = 0; i < id_count; i++)
		pg_array_bytes(p, span_of(ids[i].id, RECORD_ID_BYTES));
	pg_array_end(p);
}

static void learn_category(struct pg_facts *f, struct span name, bool exists, uint64_t no)
{
	struct pg_category *c = map_get(&f->categories, name);
	if (!c) {
		c = mem_xalloc(sizeof(*c));
		map_put(&f->categories, name, c);
	}
	c->exists = exists;
	c->no = no;
}

/* The streams' columns of the answer. Skips the names that were not asked for. */
static bool learn_streams(struct pg *pg, const PGresult *r, const struct span *names, size_t name_count,
			  bool all)
{
	struct pg_array columns[5];
	for (int i = 0; i < 5; i++)
		if (!pg_array_of(r, 0, 2 + i, &columns[i]))
			return false;
	for (size_t i = 0; i < name_count; i++) {
		int64_t v[5];
		bool null[5];
		if (!all && map_get(&pg->facts.streams, names[i]))
			continue;
		for (int k = 0; k < 5; k++)
			if (!pg_array_next_int8(&columns[k], &v[k], &null[k]))
				return false;
		struct pg_stream *s = mem_xalloc(sizeof(*s));
		*s = (struct pg_stream){.exists = !null[0],
					.no = (uint64_t)v[0],
					.category_no = (uint64_t)v[1],
					.sequence = (uint64_t)v[2],
					.number = (uint64_t)v[3],
					.live = (uint64_t)v[4]};
		mem_free(map_put(&pg->facts.streams, names[i], s));
		learn_category(&pg->facts, record_category(names[i]), !null[1], (uint64_t)v[1]);
	}
	return true;
}

static bool learn_id(struct storage_id_fact *fact, struct pg_array columns[7], struct arena *a, bool *ret_full)
{
	int64_t v[3];
	struct span kind, last, stream;
	bool null;
	for (int k = 0; k < 3; k++)
		if (!pg_array_next_int8(&columns[1 + k], &v[k], &null) || null)
			return false;
	if (!pg_array_next(&columns[4], &kind) || !pg_array_next(&columns[5], &last) ||
	    !pg_array_next(&columns[6], &stream) || kind.n != 4 || last.n != 1 || stream.n == 0)
		return false;
	fact->exists = true;
	fact->position = (uint64_t)v[0];
	fact->sequence = (uint64_t)v[1];
	fact->commit_time.us = v[2];
	fact->kind = (uint32_t)kind.p[0] << 24 | (uint32_t)kind.p[1] << 16 | (uint32_t)kind.p[2] << 8 | kind.p[3];
	fact->last_of_append = last.p[0] != 0;
	fact->stream = arena_dup(a, stream);
	*ret_full = !fact->stream.p;
	return true;
}

/* The ids' columns: those that are there, in no order. */
static bool learn_ids(const PGresult *r, struct storage_id_fact *ids, size_t id_count, struct arena *a,
		      bool *ret_full)
{
	struct pg_array columns[7];
	for (size_t i = 0; i < id_count; i++)
		ids[i].exists = false;
	for (int i = 0; i < 7; i++)
		if (!pg_array_of(r, 0, 7 + i, &columns[i]))
			return false;
	*ret_full = false;
	for (size_t n = columns[0].count, at = 0; n > 0 && !*ret_full; n--) {
		struct span id;
		if (!pg_array_next(&columns[0], &id) || id.n != RECORD_ID_BYTES)
			return false;
		/* They mostly come in the order asked for. */
		size_t tried = 0;
		while (tried < id_count && memcmp(ids[at].id, id.p, RECORD_ID_BYTES) != 0) {
			at = at + 1 < id_count ? at + 1 : 0;
			tried++;
		}
		if (tried == id_count || !learn_id(&ids[at], columns, a, ret_full))
			return false;
	}
	return true;
}

static enum pg_status ask(struct pg *pg, PGresult **ret, struct err *err)
{
	static const char sql[] = "SELECT * FROM cairn.lookup($1, $2, $3)";
	if (!pg->in_transaction)
		return pg_ask(&pg->writer, sql, &pg->params, ret, err);
	enum pg_status status = pg_exec(&pg->writer, sql, &pg->params, PG_ANSWER_MS, ret, NULL, err);
	if (status != PG_DONE)
		pg_roll_back(pg);
	return status;
}

enum err_code pg_facts_learn(struct pg *pg, const struct span *names, size_t name_count,
			     struct storage_id_fact *ids, size_t id_count, struct arena *a, struct err *err)
{
	struct pg_facts *f = &pg->facts;
	for (bool all = false;; all = true) {
		PGresult *r;
		int64_t head, last_commit;
		struct pg_known known; /* before it is asked: meanwhile others may go on */
		pg_known_get(pg, &known);
		ask_for(pg, names, name_count, ids, id_count, all);
		if (ask(pg, &r, err) != PG_DONE)
			return err->code;
		if (!pg_field_int8(r, 0, 0, &head) || !pg_field_int8(r, 0, 1, &last_commit)) {
			PQclear(r);
			return err_set(err, ERR_CORRUPT, TRY_TO_READ);
		}
		if ((uint64_t)head < known.head) {
			PQclear(r);
			return pg_lose(pg, (uint64_t)head, err);
		}
		bool moved = (uint64_t)head != f->head;
		if (moved)
			pg_facts_forget(f);
		f->head = (uint64_t)head;
		f->last_commit.us = last_commit;
		if (moved && !all && name_count > 0) {
			PQclear(r);
			continue; /* what was known was not of this head */
		}
		bool full = false;
		bool read = learn_streams(pg, r, names, name_count, all) &&
			    learn_ids(r, ids, id_count, a, &full);
		PQclear(r);
		if (!read || full) {
			pg_facts_forget(f);
			return err_set(err, full ? ERR_NOMEM : ERR_CORRUPT,
				       full ? "no memory for the facts of a batch" : TRY_TO_READ);
		}
		pg_known_move(pg, f->head, f->last_commit, (struct span){0});
		return ERR_OK;
	}
}

enum err_code pg_lookup(struct storage *s, struct storage_stream_fact *streams, size_t stream_count,
			struct storage_id_fact *ids, size_t id_count, struct arena *a, uint64_t *ret_head,
			struct err *err)
{
	struct pg *pg = pg_of(s);
	pg_roll_back(pg); /* of a batch that was looked up and never appended */
	if (pg->facts.streams.count > PG_FACTS_MAX || atomic_exchange(&pg->removed, false))
		pg_facts_forget(&pg->facts);
	if (pg->moved >= PG_MOVED_IN_A_ROW) {
		if (pg_connected(&pg->writer, PG_AGAIN_MS, err) || take_row(pg, err) != PG_DONE)
			return err->code;
	}
	struct span *names = mem_try_alloc((stream_count + 1) * sizeof(*names));
	if (!names)
		return err_set(err, ERR_NOMEM, "no memory for %zu streams' names", stream_count);
	for (size_t i = 0; i < stream_count; i++)
		names[i] = streams[i].name;
	enum err_code code = pg_facts_learn(pg, names, stream_count, ids, id_count, a, err);
	mem_free(names);
	if (code)
		return code;
	for (size_t i = 0; i < stream_count; i++) {
		const struct pg_stream *fact = map_get(&pg->facts.streams, streams[i].name);
		must(fact);
		streams[i].exists = fact->exists;
		streams[i].sequence = fact->sequence;
		streams[i].live_records = fact->live;
	}
	*ret_head = pg->facts.head;
	return ERR_OK;
}

enum err_code pg_session_beat(struct storage *s, enum storage_beat beat, struct storage_session *sessions,
			      size_t count, struct err *err)
{
	struct pg *pg = pg_of(s);
	struct pg_params *p = &pg->params;
	PGresult *r;
	pg_roll_back(pg);
	pg_params_clear(p);
	pg_array_begin(p, PG_TYPE_UUID);
	for (size_t i = 0; i < count; i++)
		pg_array_bytes(p, span_of(sessions[i].id, RECORD_ID_BYTES));
	pg_array_end(p);
	pg_param_bool(p, beat == STORAGE_BEAT); /* the rows are kept, so none is to be made */
	if (pg_ask(&pg->writer, "SELECT * FROM cairn.beat($1, $2)", p, &r, err) != PG_DONE)
		return err->code;
	for (size_t i = 0; i < count; i++) {
		sessions[i].exists = false;
		sessions[i].beats = 0;
	}
	enum err_code code = ERR_OK;
	for (int row = 0; row < PQntuples(r) && !code; row++) {
		struct span id = pg_field(r, row, 0);
		int64_t beats;
		size_t i = 0;
		if (id.n != RECORD_ID_BYTES || !pg_field_int8(r, row, 1, &beats))
			code = err_set(err, ERR_CORRUPT, TRY_TO_READ);
		while (!code && i < count && memcmp(sessions[i].id, id.p, RECORD_ID_BYTES) != 0)
			i++;
		if (code || i == count)
			continue;
		sessions[i].exists = true;
		sessions[i].beats = (uint64_t)beats;
	}
	PQclear(r);
	return code;
}
