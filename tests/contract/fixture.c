#include <config.h>

#include "fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/log.h"
#include "storage/file/file.h"
#include "storage/wrap/wrap.h"
#include "postgres.h"

/* --- the table ------------------------------------------------------------------------------------------ */

static enum err_code open_memory(const struct storage_config *config, struct storage **ret, struct err *err)
{
	return storage_open("memory", config, ret, err);
}

static enum err_code open_file(const struct storage_config *config, struct storage **ret, struct err *err)
{
	char uri[256];
	snprintf(uri, sizeof(uri), "file:%.*s", SPAN_ARG(config->location));
	return storage_open(uri, config, ret, err);
}

/* Small segments and tables, so that a test's log has many of both. */
static enum err_code open_file_small(const struct storage_config *config, struct storage **ret,
				     struct err *err)
{
	struct file_options options = file_options_default;
	options.segment_bytes = 16 * KIB;
	options.recent_records = 40;
	return file_open_with(config, &options, ret, err);
}

/* Nothing in the index but what a start puts there. */
static enum err_code open_file_unindexed(const struct storage_config *config, struct storage **ret,
					 struct err *err)
{
	struct file_options options = file_options_default;
	options.index_by_hand = true;
	return file_open_with(config, &options, ret, err);
}

/* A database of its own for every test: the folder's name is the database's. */
static struct span database_of(struct span dir)
{
	for (size_t at; (at = span_find(dir, '/')) < dir.n;)
		dir = span_skip(dir, at + 1);
	return dir;
}

static enum err_code open_postgres(const struct storage_config *config, struct storage **ret, struct err *err)
{
	char uri[512];
	postgres_uri(database_of(config->location), uri, sizeof(uri));
	return storage_open(uri, config, ret, err);
}

static struct storage *wrap_faulty(struct storage *inner)
{
	return storage_faulty_new(inner, 1); /* no rule: it changes nothing */
}

const struct contract_row contract_rows[] = {
	{"memory", false, open_memory, NULL, false},
	{"memory, traced", false, open_memory, storage_trace_new, false},
	{"memory under faulty", false, open_memory, wrap_faulty, false},
	{"file", true, open_file, NULL, false},
	{"file, traced", true, open_file, storage_trace_new, false},
	{"file under faulty", true, open_file, wrap_faulty, false},
	{"file, small segments", true, open_file_small, NULL, false},
	{"file, index at start only", true, open_file_unindexed, NULL, false},
	{"postgres", true, open_postgres, NULL, true},
	{"postgres, traced", true, open_postgres, storage_trace_new, true},
	{"postgres under faulty", true, open_postgres, wrap_faulty, true},
};
const size_t contract_row_count = ARRAY_LEN(contract_rows);

struct criterion_test_params contract_params(bool durable_only)
{
	static size_t all[ARRAY_LEN(contract_rows)], durable[ARRAY_LEN(contract_rows)];
	size_t n = 0;
	for (size_t i = 0; i < contract_row_count; i++) {
		all[i] = i;
		if (contract_rows[i].durable)
			durable[n++] = i;
	}
	return durable_only ? cr_make_param_array(size_t, durable, n)
			    : cr_make_param_array(size_t, all, contract_row_count);
}

/* --- opening -------------------------------------------------------------------------------------------- */

static void fixture_open(struct fixture *f)
{
	struct storage_config config = {.location = span_str(f->dir), .clock = &clock_system};
	enum err_code code = f->row->open(&config, &f->s, &f->err);
	cr_assert_eq(code, ERR_OK, "%s: %s", f->row->name, f->err.text);
	if (f->row->wrap)
		f->s = f->row->wrap(f->s);
	cr_assert_eq(storage_reader_open(f->s, &f->r, &f->err), ERR_OK, "%s", f->err.text);
}

void fixture_init(struct fixture *f, size_t row)
{
	*f = (struct fixture){.row = &contract_rows[row], .seed = 88172645463325252u};
	if (f->row->postgres)
		postgres_needed();
	log_setup(LOG_WARN, LOG_LOGFMT);
	const char *tmp = getenv("TMPDIR");
	snprintf(f->dir, sizeof(f->dir), "%.32s/contract.XXXXXX", tmp ? tmp : "/tmp");
	cr_assert(mkdtemp(f->dir), "cannot make %s", f->dir);
	arena_init(&f->arena, 64 * MIB);
	fixture_open(f);
}

static void remove_dir(const char *dir)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", dir);
	cr_assert_eq(system(command), 0);
}

void fixture_release(struct fixture *f)
{
	storage_reader_close(f->r);
	storage_close(f->s);
	for (size_t i = 0; i < f->n; i++) {
		mem_free((void *)(uintptr_t)f->records[i].stream.p);
		mem_free((void *)(uintptr_t)f->records[i].bytes.p);
	}
	mem_free(f->records);
	arena_release(&f->arena);
	if (f->row->postgres)
		postgres_drop(database_of(span_str(f->dir)));
	remove_dir(f->dir);
}

void fixture_reopen_unindexed(struct fixture *f)
{
	char index[80];
	snprintf(index, sizeof(index), "%s/index", f->dir);
	storage_reader_close(f->r);
	storage_close(f->s);
	remove_dir(index);
	fixture_open(f);
}

void fixture_reopen(struct fixture *f)
{
	storage_reader_close(f->r);
	storage_close(f->s);
	fixture_open(f);
}

uint64_t fixture_random(struct fixture *f, uint64_t below)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return f->seed % below;
}

/* --- making records ------------------------------------------------------------------------------------- */

uint64_t model_sequence(const struct fixture *f, struct span stream, size_t below)
{
	for (size_t i = below; i > 0; i--) {
		const struct model_record *m = &f->records[i - 1];
		if (record_kind_takes_sequence(m->kind) && span_eq(m->stream, stream))
			return m->sequence;
	}
	return 0;
}

static void add(struct fixture *f, const char *stream, uint32_t kind, struct span data, uint64_t sequence)
{
	struct model_record m = {.kind = kind, .time_us = 1000000 + (int64_t)f->n};
	m.stream = span_of(mem_xstrdup(stream), strlen(stream));
	uint64_t newest = model_sequence(f, m.stream, f->n);
	m.sequence = sequence ? sequence : record_kind_takes_sequence(kind) ? newest + 1 : newest;
	put_be64(m.id, 0x0190000000000000u + f->next_id / 7); /* nearly in order, as UUIDv7 */
	put_be64(m.id + 8, f->next_id * 0x9e3779b97f4a7c15u);
	f->next_id++;
	if (f->n == f->cap) {
		f->cap = f->cap ? 2 * f->cap : 64;
		f->records = mem_xrealloc(f->records, f->cap * sizeof(*f->records));
	}
	struct record_new fresh = {.kind = kind, .stream = m.stream, .type = SPAN("test"), .data = data};
	memcpy(fresh.id, m.id, sizeof(m.id));
	/* The bytes are encoded when the batch goes, for only then it is known which is the last. */
	struct buf bytes;
	struct record_place place;
	buf_init(&bytes, LIMIT_RECORD_BYTES);
	cr_assert_eq(record_check(&fresh, &f->err), ERR_OK, "%s", f->err.text);
	fresh.last_of_append = true;
	cr_assert_eq(record_encode(&bytes, &fresh, &place, &f->err), ERR_OK, "%s", f->err.text);
	record_patch(bytes.p, &place, f->n, m.sequence, (struct wall_time){m.time_us});
	m.last_of_append = true;
	size_t n;
	uint8_t *p = buf_detach(&bytes, &n);
	m.bytes = span_of(p, n);
	f->records[f->n++] = m;
}

void batch_session(struct fixture *f, const struct storage_session_change *change)
{
	must(f->n > f->batch_at);
	f->records[f->n - 1].session = *change;
	f->records[f->n - 1].has_session = true;
}

void batch_add(struct fixture *f, const char *stream, uint32_t kind, size_t data_bytes, uint64_t sequence)
{
	uint8_t *data = mem_xalloc(data_bytes + 1);
	memset(data, 'd', data_bytes);
	add(f, stream, kind, span_of(data, data_bytes), sequence);
	mem_free(data);
}

static uint8_t *put_number(uint8_t *p, unsigned field, uint64_t v)
{
	*p++ = (uint8_t)(field << 3);
	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	return p;
}

void batch_add_act(struct fixture *f, const char *stream, uint32_t kind, uint64_t from, uint64_t to,
		   bool keep_snapshots)
{
	uint8_t data[64] = {0x0a, 2, 'n', 'o'}, *p = data + 4; /* a reason */
	struct record_act act = {0};
	if (kind == RECORD_TRUNCATE) {
		p = put_number(p, 2, 1);
		p = put_number(p, 3, from);
		act.hide_below = from;
	} else if (kind == RECORD_DELETE) {
		act.hide_below = f->n;
	} else {
		if (from || to) {
			p = put_number(p, 2, from);
			p = put_number(p, 3, to);
		}
		if (keep_snapshots)
			p = put_number(p, 4, 1);
		act.erases = true;
		act.erase_all = !from && !to;
		act.erase_from = from;
		act.erase_to = act.erase_all ? UINT64_MAX : to;
		act.erase_snapshots = !keep_snapshots;
	}
	add(f, stream, kind, span_of(data, (size_t)(p - data)), 0);
	f->records[f->n - 1].act = act;
}

static bool is_content(const struct model_record *m)
{
	return m->kind != RECORD_DELETE && m->kind != RECORD_TRUNCATE && m->kind != RECORD_ERASE;
}

/* What the act at this position does to those before it. */
static void model_act(struct fixture *f, size_t position)
{
	const struct model_record *a = &f->records[position];
	for (size_t i = 0; i < position; i++) {
		struct model_record *m = &f->records[i];
		if (!is_content(m) || !span_eq(m->stream, a->stream))
			continue;
		m->hidden = m->hidden || i < a->act.hide_below;
		if (!a->act.erases)
			continue;
		if (m->kind == RECORD_SNAPSHOT)
			m->erased = m->erased ||
				    (a->act.erase_snapshots && m->sequence >= a->act.erase_from);
		else if (m->kind == RECORD_EVENT)
			m->erased = m->erased || (m->sequence >= a->act.erase_from &&
						  m->sequence <= a->act.erase_to);
		else
			m->erased = m->erased || a->act.erase_all;
	}
}

static void model_rewrite(struct model_record *m, bool body_only)
{
	struct span run = m->bytes, entry;
	struct record_view view;
	struct buf out;
	size_t n;
	cr_assert_eq(record_next(&run, &entry, NULL, NULL), ERR_OK);
	cr_assert_eq(record_decode(entry, &view, NULL), ERR_OK);
	buf_init(&out, LIMIT_RECORD_BYTES);
	cr_assert_eq(body_only ? record_put_erased(&out, &view) : record_put_removed(&out, &view), ERR_OK);
	uint8_t *p = buf_detach(&out, &n);
	mem_free((void *)(uintptr_t)m->bytes.p);
	m->bytes = span_of(p, n);
	m->erased = m->erased || body_only;
	m->removed = m->removed || !body_only;
}

void fixture_remove(struct fixture *f, size_t position, fixture_pick *pick)
{
	struct storage_unit unit;
	size_t n = 0;
	cr_assert_eq(storage_unit(f->r, position, &unit, &f->err), ERR_OK, "%s", f->err.text);
	cr_assert_leq(unit.end, f->n);
	if (unit.open)
		return;
	struct storage_removal *list = mem_xalloc((unit.end - unit.first) * sizeof(*list));
	for (size_t i = unit.first; i < unit.end; i++) {
		const struct model_record *m = &f->records[i];
		int what = pick(f, i);
		bool newest = i + 1 == f->n || (record_kind_takes_sequence(m->kind) &&
						m->sequence == model_sequence(f, m->stream, f->n));
		if (what && is_content(m) && !newest && !m->removed)
			list[n++] = (struct storage_removal){i, what == 1};
	}
	if (n > 0)
		cr_assert_eq(storage_remove(f->r, list, n, &f->err), ERR_OK, "%s: %s", f->row->name,
			     f->err.text);
	for (size_t i = 0; i < n; i++)
		model_rewrite(&f->records[list[i].position], list[i].body_only);
	mem_free(list);
}

enum storage_outcome batch_try(struct fixture *f, uint64_t expected_head, struct err *err)
{
	size_t count = f->n - f->batch_at;
	struct storage_record *records = mem_xalloc(count * sizeof(*records) + 1);
	for (size_t i = 0; i < count; i++) {
		const struct model_record *m = &f->records[f->batch_at + i];
		records[i] = (struct storage_record){.bytes = m->bytes,
						     .position = expected_head + i,
						     .sequence = m->sequence,
						     .kind = m->kind,
						     .stream = m->stream,
						     .id = m->id,
						     .commit_time = {m->time_us},
						     .last_of_append = m->last_of_append,
						     .session = m->has_session ? &m->session : NULL};
	}
	enum storage_outcome outcome = storage_append(f->s, expected_head, records, count, err);
	mem_free(records);
	for (size_t i = 0; i < count && outcome == STORAGE_OK; i++)
		if (!is_content(&f->records[f->batch_at + i]))
			model_act(f, f->batch_at + i);
	while (outcome != STORAGE_OK && f->n > f->batch_at) {
		f->n--;
		mem_free((void *)(uintptr_t)f->records[f->n].stream.p);
		mem_free((void *)(uintptr_t)f->records[f->n].bytes.p);
	}
	f->batch_at = f->n;
	return outcome;
}

void batch_append(struct fixture *f)
{
	struct storage_head head;
	enum storage_outcome outcome = batch_try(f, f->batch_at, &f->err);
	cr_assert_eq(outcome, STORAGE_OK, "%s: %s", f->row->name, f->err.text);
	storage_head(f->s, &head);
	cr_assert_eq(head.head, f->n);
}

void append_one(struct fixture *f, const char *stream, uint32_t kind)
{
	batch_add(f, stream, kind, 20, 0);
	batch_append(f);
}

/* --- the model's answers -------------------------------------------------------------------------------- */

static bool model_matches(const struct model_record *m, const struct storage_query *q)
{
	if (q->raw)
		return true;
	if (m->hidden || m->removed)
		return false;
	if (q->kinds && !(m->kind < 32 && q->kinds >> m->kind & 1))
		return false;
	switch (q->source) {
	case STORAGE_ALL: return q->include_system || m->stream.p[0] != '$';
	case STORAGE_STREAM: return span_eq(m->stream, q->name);
	default: return span_eq(record_category(m->stream), q->name);
	}
}

/* Where a read begins; false if nowhere. */
static bool model_from(const struct fixture *f, const struct storage_query *q, uint64_t *ret)
{
	*ret = q->from;
	if (!q->by_sequence)
		return true;
	for (size_t i = 0; i < f->batch_at; i++) {
		const struct model_record *m = &f->records[i];
		if (!record_kind_takes_sequence(m->kind) || !span_eq(m->stream, q->name))
			continue;
		if (m->hidden || m->removed)
			continue;
		if (!q->backward && m->sequence >= q->from) {
			*ret = i;
			return true;
		}
		if (q->backward && m->sequence > q->from) {
			*ret = i - 1;
			return i > 0;
		}
	}
	*ret = UINT64_MAX;
	return q->backward;
}

static size_t model_read(const struct fixture *f, const struct storage_query *q, size_t *positions)
{
	uint64_t from, below = q->below_position < f->batch_at ? q->below_position : f->batch_at;
	size_t n = 0;
	if (!model_from(f, q, &from) || below == 0)
		return 0;
	if (!q->backward) {
		for (uint64_t i = from; i < below; i++)
			if (model_matches(&f->records[i], q))
				positions[n++] = i;
		return n;
	}
	for (uint64_t i = (from < below ? from : below - 1) + 1; i > 0; i--)
		if (model_matches(&f->records[i - 1], q))
			positions[n++] = i - 1;
	return n;
}

/* As it is given: its body or what is left of it. */
static void check_bytes(struct fixture *f, const struct storage_query *q, const struct model_record *m,
			struct span entry, struct span whole)
{
	cr_assert_eq(record_check_crc(entry, &f->err), ERR_OK, "%s", f->err.text);
	if (q->raw || !m->erased) {
		cr_assert(span_eq(whole, m->bytes), "%s: other bytes", f->row->name);
		return;
	}
	struct record_view is, was;
	struct span run = m->bytes, old;
	uint8_t is_leaf[RECORD_HASH_BYTES], was_leaf[RECORD_HASH_BYTES];
	cr_assert_eq(record_next(&run, &old, NULL, NULL), ERR_OK);
	cr_assert_eq(record_decode(old, &was, &f->err), ERR_OK);
	cr_assert_eq(record_decode(entry, &is, &f->err), ERR_OK);
	cr_assert_eq(is.content, RECORD_BODY_HASH, "%s: an erased body is given", f->row->name);
	cr_assert(span_eq(is.header, was.header));
	record_leaf(&is, is_leaf);
	record_leaf(&was, was_leaf);
	cr_assert(memcmp(is_leaf, was_leaf, sizeof(is_leaf)) == 0);
}

/* Compares a page; returns how many records of the expected ones it had. */
static size_t check_page(struct fixture *f, const struct storage_query *q, struct span run,
			 const struct storage_page *page, const size_t *expected, size_t left)
{
	size_t n = 0;
	struct span entry, whole;
	cr_assert_leq(page->records, left, "%s: more records than there are", f->row->name);
	while (record_next(&run, &entry, &whole, &f->err) == ERR_OK) {
		cr_assert_lt(n, left);
		cr_assert_eq(record_position(entry), expected[n], "%s: position %llu instead of %zu",
			     f->row->name, (unsigned long long)record_position(entry), expected[n]);
		check_bytes(f, q, &f->records[expected[n]], entry, whole);
		n++;
	}
	cr_assert_eq(f->err.code, ERR_OK, "%s", f->err.text);
	cr_assert_eq(n, page->records);
	bool scanned_enough = q->max_scan_bytes && page->scanned_bytes >= q->max_scan_bytes;
	bool end = n == left && (page->end || !scanned_enough);
	cr_assert_eq(page->end, end, "%s: end is %d, %zu of %zu", f->row->name, page->end, n, left);
	if (q->max_records)
		cr_assert_leq(n, q->max_records);
	return n;
}

/* Of the records from one position to another, how many bytes a read has to look through in vain. A backend
 * may look at some more of them at once. */
static void check_scan(const struct fixture *f, const struct storage_query *q, uint64_t next,
		       const struct storage_page *page)
{
	uint64_t low = q->backward ? next + 1 : q->from, high = q->backward ? q->from + 1 : next;
	size_t bytes = 0, largest = 0;
	if (page->end || q->by_sequence || q->from == UINT64_MAX)
		return;
	cr_assert_lt(low, high, "%s: nothing was looked at", f->row->name);
	if (high > f->batch_at)
		high = f->batch_at;
	if (high > q->below_position)
		high = q->below_position;
	for (uint64_t i = low; i < high; i++) {
		const struct model_record *m = &f->records[i];
		struct storage_query any = *q;
		any.kinds = 0;
		any.include_system = true;
		size_t n = q->source == STORAGE_ALL ? m->bytes.n : STORAGE_ENTRY_BYTES;
		if (m->hidden || m->removed)
			largest = n > largest ? n : largest;
		if (model_matches(m, q) || !model_matches(m, &any))
			continue;
		bytes += n;
		largest = n > largest ? n : largest;
	}
	cr_assert_leq(bytes, page->scanned_bytes + largest, "%s: it looked at %zu bytes and says %zu", f->row->name,
		      bytes, page->scanned_bytes);
	cr_assert_leq(page->scanned_bytes, q->max_scan_bytes + 8 * KIB + largest, "%s", f->row->name);
}

void check_read(struct fixture *f, const struct storage_query *q)
{
	size_t *expected = mem_xalloc((f->n + 1) * sizeof(*expected)), at = 0;
	size_t n = model_read(f, q, expected);
	struct storage_query next = *q;
	struct storage_page page = {0};
	struct buf out;
	buf_init(&out, q->max_bytes + LIMIT_RECORD_BYTES);
	do {
		buf_clear(&out);
		enum err_code code = storage_read(f->r, &next, &out, &page, &f->err);
		cr_assert_eq(code, ERR_OK, "%s: %s", f->row->name, f->err.text);
		at += check_page(f, q, buf_span(&out), &page, expected + at, n - at);
		if (q->max_scan_bytes)
			check_scan(f, &next, page.next, &page);
		next.by_sequence = false;
		next.from = page.next;
	} while (!page.end);
	cr_assert_eq(at, n);
	if (!q->backward) {
		uint64_t below = q->below_position < f->batch_at ? q->below_position : f->batch_at;
		if (q->by_sequence)
			cr_assert_geq(page.next, below);
		else
			cr_assert_eq(page.next, q->from > below ? q->from : below, "%s: goes on at %llu",
				     f->row->name, (unsigned long long)page.next);
	}
	buf_release(&out);
	mem_free(expected);
}

void check_facts(struct fixture *f, struct span stream)
{
	struct storage_stream_fact fact = {.name = stream};
	struct storage_stream_info info = {0};
	uint64_t head, records = 0, live = 0, first = 0, last = 0;
	bool exists, whole = true;
	for (size_t i = 0; i < f->batch_at; i++) {
		const struct model_record *m = &f->records[i];
		if (!span_eq(m->stream, stream))
			continue;
		records++;
		if (is_content(m) && !m->hidden && !m->removed)
			first = live++ ? first : i;
		whole = whole && is_content(m) && !m->removed;
		last = m->removed ? last : i;
	}
	uint64_t sequence = model_sequence(f, stream, f->batch_at);
	cr_assert_eq(storage_lookup(f->s, &fact, 1, NULL, 0, &f->arena, &head, &f->err), ERR_OK, "%s",
		     f->err.text);
	cr_assert_eq(head, f->batch_at);
	cr_assert_eq(fact.exists, records > 0);
	cr_assert_eq(fact.sequence, sequence);
	cr_assert_eq(fact.live_records, live, "%s: %llu live records of %.*s instead of %llu", f->row->name,
		     (unsigned long long)fact.live_records, SPAN_ARG(stream), (unsigned long long)live);
	cr_assert_eq(storage_stat(f->r, stream, &f->arena, &info, &exists, &f->err), ERR_OK);
	cr_assert_eq(exists, records > 0);
	if (!exists)
		return;
	cr_assert(span_eq(info.name, stream));
	cr_assert_eq(info.sequence, sequence);
	cr_assert_eq(info.records, live);
	if (whole)
		cr_assert_eq(info.first_position, first);
	else
		cr_assert(live == 0 || info.first_position <= first);
	if (whole)
		cr_assert_eq(info.last_position, last);
	else
		cr_assert_geq(info.last_position, last);
}

void check_snapshot(struct fixture *f, struct span stream, uint64_t at_sequence, uint64_t below)
{
	const struct model_record *best = NULL;
	struct buf out;
	for (size_t i = 0; i < f->batch_at && i < below; i++) {
		const struct model_record *m = &f->records[i];
		if (m->hidden || m->erased || m->removed)
			continue;
		if (m->kind == RECORD_SNAPSHOT && span_eq(m->stream, stream) && m->sequence <= at_sequence &&
		    (!best || m->sequence >= best->sequence))
			best = m;
	}
	buf_init(&out, 2 * LIMIT_RECORD_BYTES);
	cr_assert_eq(buf_append_str(&out, "x"), ERR_OK);
	enum err_code code = storage_snapshot(f->r, stream, at_sequence, below, &out, &f->err);
	cr_assert_eq(code, best ? ERR_OK : ERR_NOT_FOUND, "%s: %s", f->row->name, f->err.text);
	cr_assert_eq(f->err.code, ERR_OK);
	if (best)
		cr_assert(span_eq(span_skip(buf_span(&out), 1), best->bytes));
	buf_release(&out);
}
