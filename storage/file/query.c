/* Reading: which positions, from index and tables; then the records, from the log. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "base/must.h"
#include "storage/file/file.h"

#define PLAN_ENTRIES ((size_t)512)
/* Records that begin within one stretch between places; the smallest has 50 bytes. */
#define STRETCH_RECORDS (PLACE_EVERY_BYTES / 50 + 2)

/* A read under way. */
struct query {
	struct file_reader *reader;
	const struct storage_query *q;
	uint64_t below; /* bound on positions, at most the head */
	struct buf *out;
	size_t begun_at; /* out->n before */
	struct storage_page page;
};

enum err_code file_fetch(struct window *w, uint64_t position, struct window_record *ret, struct err *err)
{
	struct err why = {0};
	enum err_code code = file_window_seek(w, position, err);
	if (!code)
		code = file_window_next(w, ret, err);
	if (!code && record_check_crc(ret->entry, &why))
		code = file_segment_corrupt(w->segments, w->segment, ret->offset, why.text, err);
	return code;
}

/* Is there no room for the record in this page? */
static bool page_is_full(const struct query *query, size_t bytes)
{
	const struct storage_query *q = query->q;
	if (query->page.records == 0)
		return false;
	return (q->max_records && query->page.records >= q->max_records) ||
	       query->out->n - query->begun_at + bytes > q->max_bytes;
}

/* Counts what was looked at and is not wanted; is it enough? */
static bool scan_is_over(struct query *query, size_t bytes)
{
	query->page.scanned_bytes += bytes;
	return query->q->max_scan_bytes && query->page.scanned_bytes >= query->q->max_scan_bytes;
}

/* Appends an erased record, with its body's hash, or ends the page in front of it. */
static enum err_code put_erased(struct query *query, const struct window_record *record, bool *ret_full,
				struct err *err)
{
	struct record_view view;
	struct span run, entry;
	struct buf stored;
	size_t before = query->out->n;
	buf_init(&stored, LIMIT_RECORD_BYTES);
	enum err_code code = file_window_copy(&query->reader->window, record, &stored, err);
	run = buf_span(&stored);
	if (!code)
		code = record_next(&run, &entry, NULL, err);
	if (!code)
		code = record_decode_trusted(entry, &view, err);
	if (!code && record_put_erased(query->out, &view))
		code = err_set(err, ERR_LIMIT, "no room for a record in a page");
	buf_release(&stored);
	if (code)
		return code;
	size_t bytes = query->out->n - before;
	query->out->n = before;
	*ret_full = page_is_full(query, bytes);
	if (*ret_full) {
		query->page.next = record->position;
		return ERR_OK;
	}
	query->out->n += bytes;
	query->page.records++;
	return ERR_OK;
}

/* Appends a record, or ends the page in front of it; one that is hidden or removed is passed over. */
static enum err_code put(struct query *query, const struct window_record *record, bool *ret_full,
			 struct err *err)
{
	*ret_full = false;
	if (!query->q->raw) {
		enum mark mark = marks_look(query->reader->store->marks, record->entry);
		if (mark == MARK_HIDDEN || record_is_removed(record->entry)) {
			bool all = query->q->source == STORAGE_ALL;
			scan_is_over(query, all ? record->bytes : STORAGE_ENTRY_BYTES);
			return ERR_OK;
		}
		if (mark == MARK_ERASED)
			return put_erased(query, record, ret_full, err);
	}
	*ret_full = page_is_full(query, record->bytes);
	if (*ret_full) {
		query->page.next = record->position;
		return ERR_OK;
	}
	enum err_code code = file_window_copy(&query->reader->window, record, query->out, err);
	if (!code)
		query->page.records++;
	return code;
}

/* --- everything ----------------------------------------------------------------------------------------- */

static bool all_wants(const struct storage_query *q, struct span entry)
{
	uint32_t kind;
	struct span stream;
	if (record_is_removed(entry))
		return q->raw;
	if (q->include_system && q->kinds == 0)
		return true;
	if (!record_peek(entry, &kind, &stream))
		return true; /* damaged: the checksum will say so */
	if (!q->include_system && record_stream_is_system(stream))
		return false;
	return q->kinds == 0 || (kind < 32 && (q->kinds >> kind & 1));
}

static enum err_code read_all_forward(struct query *query, struct err *err)
{
	struct window *w = &query->reader->window;
	uint64_t position = query->q->from;
	bool full = false, over = false;
	enum err_code code = ERR_OK;
	if (position < query->below)
		code = file_window_seek(w, position, err);
	for (; position < query->below && !code && !full && !over; position++) {
		struct window_record record;
		code = file_window_next_head(w, &record, err);
		if (!code && all_wants(query->q, record.entry))
			code = put(query, &record, &full, err);
		else if (!code)
			scan_is_over(query, record.bytes);
		over = scan_is_over(query, 0);
	}
	query->page.end = !full && (!over || position >= query->below);
	if (!full)
		query->page.next = position;
	return code;
}

/* The records of one stretch up to a position, last one first. */
static enum err_code read_stretch_backward(struct query *query, uint64_t position, uint64_t *ret_first,
					   bool *ret_full, struct err *err)
{
	struct window *w = &query->reader->window;
	struct window_record records[STRETCH_RECORDS];
	size_t n = 0;
	enum err_code code = file_window_seek_place(w, position, err);
	*ret_first = w->position;
	if (!code)
		code = file_window_hold_stretch(w, err);
	while (!code && w->position <= position) {
		if (n == STRETCH_RECORDS)
			return file_segment_corrupt(w->segments, w->segment, w->offset,
						    "records are too small", err);
		code = file_window_next_head(w, &records[n], err);
		if (!code && all_wants(query->q, records[n].entry))
			n++;
		else if (!code)
			scan_is_over(query, records[n].bytes);
	}
	while (n > 0 && !code && !*ret_full)
		code = put(query, &records[--n], ret_full, err);
	return code;
}

static enum err_code read_all_backward(struct query *query, struct err *err)
{
	bool full = false, over = false, more = query->below > 0;
	uint64_t position = query->q->from < query->below ? query->q->from : query->below - 1;
	enum err_code code = ERR_OK;
	while (more && !full && !over && !code) {
		uint64_t first = 0;
		code = read_stretch_backward(query, position, &first, &full, err);
		more = first > 0;
		position = first - 1;
		over = scan_is_over(query, 0);
	}
	query->page.end = !full && !more;
	if (!full)
		query->page.next = more ? position : 0;
	return code;
}

/* --- a stream or a category ----------------------------------------------------------------------------- */

static const struct recent_list *table_list(const struct recent *table, const struct storage_query *q)
{
	if (!table)
		return NULL;
	return q->source == STORAGE_STREAM ? file_recent_stream(table, q->name)
					   : file_recent_category(table, q->name);
}

/* What the tables have of the list, in the direction of the read. */
struct table_part {
	uint64_t first; /* of the table; UINT64_MAX if there is none */
	bool cut;       /* there was more than room */
	size_t n;
	uint64_t entries[PLAN_ENTRIES];
};

static void take_table(const struct recent *table, const struct query *query, uint64_t from,
		       struct table_part *ret)
{
	const struct recent_list *list = table_list(table, query->q);
	bool backward = query->q->backward;
	ret->first = table ? table->first : UINT64_MAX;
	ret->n = 0;
	ret->cut = false;
	if (!list)
		return;
	size_t i = file_recent_list_find(list, backward ? from + (from < UINT64_MAX) : from);
	for (; backward ? i > 0 : i < list->n; i = backward ? i - 1 : i + 1) {
		uint64_t entry = list->entries[backward ? i - 1 : i];
		if (entry_position(entry) >= query->below)
			continue;
		ret->cut = ret->n == PLAN_ENTRIES;
		if (ret->cut)
			return;
		ret->entries[ret->n++] = entry;
	}
}

/* The next positions, in order. */
struct plan {
	size_t n;
	bool end; /* nothing behind them */
	uint64_t entries[PLAN_ENTRIES];
	struct table_part parts[2];
};

static enum err_code plan_index(struct query *query, uint64_t from, uint64_t below, struct plan *plan,
				struct err *err)
{
	struct index_view *view = query->reader->view;
	const struct storage_query *q = query->q;
	enum index_list list = q->source == STORAGE_STREAM ? INDEX_STREAM : INDEX_CATEGORY;
	uint64_t number;
	size_t n = PLAN_ENTRIES - plan->n;
	if (n == 0) { /* the tables have filled it: the next plan asks the index */
		plan->end = false;
		return ERR_OK;
	}
	enum err_code code = file_index_number(view, list, q->name, &number, err);
	if (code == ERR_NOT_FOUND)
		return ERR_OK;
	bool end = true;
	if (!code)
		code = file_index_entries(view, list, number, from, q->backward, below,
					  plan->entries + plan->n, &n, &end, err);
	if (code)
		return code;
	plan->n += n;
	plan->end = plan->end && end;
	return ERR_OK;
}

static void plan_table(struct plan *plan, const struct table_part *part)
{
	size_t room = PLAN_ENTRIES - plan->n, n = part->n < room ? part->n : room;
	memcpy(plan->entries + plan->n, part->entries, n * sizeof(*plan->entries));
	plan->n += n;
	if (part->cut || n < part->n)
		plan->end = false;
}

/* Tables first, then the index as of now: see facts.c. Parts are in the order of the log. */
static enum err_code make_plan(struct query *query, uint64_t from, struct plan *plan, struct err *err)
{
	struct file_store *s = query->reader->store;
	struct index_view *view = query->reader->view;
	bool backward = query->q->backward;
	enum err_code code = ERR_OK;
	uint64_t below = 0;
	plan->n = 0;
	plan->end = true;
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	take_table(s->moving, query, from, &plan->parts[0]);
	take_table(s->filling, query, from, &plan->parts[1]);
	must(pthread_rwlock_unlock(&s->lock) == 0);
	if (view) {
		code = file_index_view_begin(view, err);
		if (code)
			return code;
		below = file_index_view_below(view);
		if (!backward)
			code = plan_index(query, from, query->below < below ? query->below : below, plan,
					  err);
	}
	for (size_t i = 0; i < 2 && !code; i++) {
		const struct table_part *part = &plan->parts[backward ? 1 - i : i];
		if (part->first != UINT64_MAX && part->first >= below && plan->end)
			plan_table(plan, part);
	}
	if (view) {
		if (backward && !code && plan->end)
			code = plan_index(query, from, query->below < below ? query->below : below, plan,
					  err);
		file_index_view_end(view);
	}
	return code;
}

/* The position that a sequence stands for: see storage_query. False when no record has it or a later. */
static enum err_code position_of(struct file_reader *r, struct span stream, uint64_t sequence,
				 bool *ret_found, uint64_t *ret_position, struct err *err)
{
	struct file_store *s = r->store;
	uint64_t hidden_below = marks_hidden_below(s->marks, stream);
	bool found = false;
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	const struct recent *tables[2] = {s->moving, s->filling};
	for (size_t i = 0; i < ARRAY_LEN(tables) && !found; i++) {
		const struct recent_list *list = tables[i] ? file_recent_stream(tables[i], stream) : NULL;
		found = list && file_recent_list_sequence(list, sequence, hidden_below, ret_position);
	}
	must(pthread_rwlock_unlock(&s->lock) == 0);
	enum err_code code = ERR_OK;
	if (r->view) {
		uint64_t number;
		code = file_index_view_begin(r->view, err);
		if (code)
			return code;
		code = file_index_number(r->view, INDEX_STREAM, stream, &number, err);
		if (!code)
			code = file_index_sequence(r->view, number, sequence, hidden_below, ret_position,
						   err);
		file_index_view_end(r->view);
		found = found || code == ERR_OK;
		if (code == ERR_NOT_FOUND)
			code = ERR_OK;
	}
	*ret_found = found;
	return code;
}

static enum err_code begin_at(struct query *query, uint64_t *ret_from, bool *ret_none, struct err *err)
{
	const struct storage_query *q = query->q;
	bool found;
	*ret_none = false;
	*ret_from = q->from;
	if (q->source != STORAGE_STREAM || !q->by_sequence)
		return ERR_OK;
	if (q->backward && q->from == UINT64_MAX)
		return ERR_OK;
	enum err_code code = position_of(query->reader, q->name, q->backward ? q->from + 1 : q->from, &found,
					 ret_from, err);
	if (code)
		return code;
	if (!q->backward) {
		*ret_none = !found;
	} else if (!found) {
		*ret_from = UINT64_MAX;
	} else {
		*ret_none = *ret_from == 0;
		*ret_from -= 1;
	}
	return ERR_OK;
}

/* One planned record, or, passed over by what the index says of it, nothing. */
static enum err_code read_entry(struct query *query, uint64_t entry, uint64_t hidden_below, bool *ret_full,
				bool *ret_over, struct err *err)
{
	struct window *w = &query->reader->window;
	struct window_record record;
	if (!entry_wanted(entry, query->q->kinds) || !entry_is_given(entry, hidden_below)) {
		*ret_over = scan_is_over(query, STORAGE_ENTRY_BYTES);
		return ERR_OK;
	}
	enum err_code code = file_window_seek(w, entry_position(entry), err);
	if (!code)
		code = file_window_next_head(w, &record, err);
	if (!code)
		code = put(query, &record, ret_full, err);
	*ret_over = scan_is_over(query, 0);
	return code;
}

static enum err_code read_list(struct query *query, struct err *err)
{
	struct plan plan;
	uint64_t from, hidden_below = 0;
	bool none, full = false, over = false, backward = query->q->backward;
	if (query->q->source == STORAGE_STREAM)
		hidden_below = marks_hidden_below(query->reader->store->marks, query->q->name);
	enum err_code code = begin_at(query, &from, &none, err);
	uint64_t begun = none ? 0 : from;
	bool more = !none;
	while (!code && more && !full && !over) {
		size_t i = 0;
		code = make_plan(query, from, &plan, err);
		for (; i < plan.n && !code && !full && !over; i++)
			code = read_entry(query, plan.entries[i], hidden_below, &full, &over, err);
		if (code || full)
			break;
		more = i < plan.n || !plan.end;
		if (!more)
			break;
		must(i > 0);
		from = entry_position(plan.entries[i - 1]);
		more = !backward || from > 0;
		from = backward ? from - 1 : from + 1;
	}
	query->page.end = !full && !more;
	if (!full && more)
		query->page.next = from;
	else if (!full)
		query->page.next = backward ? 0 : begun > query->below ? begun : query->below;
	return code;
}

enum err_code file_read(struct storage_reader *r, const struct storage_query *q, struct buf *out,
			struct storage_page *ret, struct err *err)
{
	struct file_reader *reader = (struct file_reader *)r;
	must(reader->magic == FILE_READER_MAGIC);
	uint64_t head = atomic_load_explicit(&reader->store->head, memory_order_acquire);
	struct query query = {.reader = reader,
			      .q = q,
			      .below = q->below_position < head ? q->below_position : head,
			      .out = out,
			      .begun_at = out->n};
	enum err_code code;
	if (q->source != STORAGE_ALL)
		code = read_list(&query, err);
	else if (q->backward)
		code = read_all_backward(&query, err);
	else
		code = read_all_forward(&query, err);
	if (code)
		out->n = query.begun_at;
	else
		*ret = query.page;
	return code;
}

/* --- snapshots -------------------------------------------------------------------------------------------
 */

static void best_in_table(const struct recent *table, struct span stream, uint64_t at_sequence,
			  uint64_t below, bool *found, struct recent_snapshot *best)
{
	const struct recent_list *list = table ? file_recent_stream(table, stream) : NULL;
	for (size_t i = 0; list && i < list->snapshot_n; i++) {
		struct recent_snapshot it = list->snapshots[i];
		if (it.sequence > at_sequence || it.position >= below)
			continue;
		if (!*found || it.sequence >= best->sequence)
			*best = it;
		*found = true;
	}
}

/* The newest below the position, given or not. */
static enum err_code find_snapshot(struct file_reader *reader, struct span stream, uint64_t at_sequence,
				   uint64_t below, struct recent_snapshot *ret, struct err *err)
{
	struct file_store *s = reader->store;
	struct recent_snapshot best = {0}, old;
	bool found = false;
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	best_in_table(s->moving, stream, at_sequence, below, &found, &best);
	best_in_table(s->filling, stream, at_sequence, below, &found, &best);
	must(pthread_rwlock_unlock(&s->lock) == 0);
	if (reader->view) {
		uint64_t number;
		enum err_code code = file_index_view_begin(reader->view, err);
		if (code)
			return code;
		code = file_index_number(reader->view, INDEX_STREAM, stream, &number, err);
		if (!code)
			code = file_index_snapshot(reader->view, number, at_sequence, below, &old, err);
		file_index_view_end(reader->view);
		if (code && code != ERR_NOT_FOUND)
			return code;
		if (!code && (!found || old.sequence > best.sequence ||
			      (old.sequence == best.sequence && old.position > best.position)))
			best = old;
		found = found || !code;
	}
	*ret = best;
	return found ? ERR_OK : ERR_NOT_FOUND;
}

enum err_code file_snapshot(struct storage_reader *r, struct span stream, uint64_t at_sequence,
			    uint64_t below_position, struct buf *out, struct err *err)
{
	struct file_reader *reader = (struct file_reader *)r;
	must(reader->magic == FILE_READER_MAGIC);
	struct recent_snapshot best;
	struct window_record record;
	struct window *w = &reader->window;
	enum err_code code;
	for (;;) {
		code = find_snapshot(reader, stream, at_sequence, below_position, &best, err);
		if (!code && best.position < marks_hidden_below(reader->store->marks, stream))
			return ERR_NOT_FOUND; /* and so are all before it */
		if (!code)
			code = file_window_seek(w, best.position, err);
		if (!code)
			code = file_window_next_head(w, &record, err);
		if (code)
			return code;
		if (record_has_body(record.entry) &&
		    marks_look(reader->store->marks, record.entry) == MARK_NONE)
			break;
		below_position = best.position; /* one that is withheld: an older one will do */
	}
	if (buf_reserve(out, record.bytes))
		code = err_set(err, ERR_LIMIT, "no room for a snapshot of %zu bytes", record.bytes);
	return code ? code : file_window_copy(w, &record, out, err);
}
