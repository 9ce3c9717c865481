/* Reads from storage, on a reader thread: one page a job. A page without a filter is what storage gave,
 * verbatim; with one, the unwanted records are taken out of it in place. */
#include <config.h>

#include "journal/read.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"

/* ---- where an append ends
 * ------------------------------------------------------------------------------------- A subscriber is not
 * given half an append. Records tell by a flag that they end one, but of a stream or a category that record
 * may not be seen: then the log is asked. */

/* What an append has behind a record of it. */
struct append_rest {
	bool has_more; /* of what is read */
	uint64_t last; /* the position that was looked at last */
};

/* Looks at the records behind the one at `position`, up to the end of its append or to one that is read. */
static enum err_code look_behind(struct journal_read *r, struct storage_reader *reader, uint64_t position,
				 uint64_t below, bool to_the_end, struct append_rest *ret, struct err *err)
{
	struct storage_query q = {.source = STORAGE_ALL,
				  .include_system = true,
				  .from = position + 1,
				  .below_position = below,
				  .max_bytes = READ_PAGE_BYTES,
				  .max_records = 16};
	struct storage_page page = {0};
	struct buf buf;
	enum err_code code = ERR_OK;
	bool known = false;
	*ret = (struct append_rest){.has_more = false, .last = position};
	buf_init(&buf, LIMIT_RESPONSE_BYTES + LIMIT_RECORD_BYTES);
	while (!known && !page.end && !code) {
		buf_clear(&buf);
		code = storage_read(reader, &q, &buf, &page, err);
		struct span run = buf_span(&buf), entry;
		while (!code && !known && run.n > 0) {
			struct record_view v;
			code = record_next(&run, &entry, NULL, err);
			if (!code)
				code = record_decode_trusted(entry, &v, err);
			if (code)
				break;
			ret->last = v.position;
			ret->has_more = ret->has_more || read_source_has(r, v.kind, v.stream);
			known = v.last_of_append || (ret->has_more && !to_the_end);
		}
		q.from = page.next;
	}
	buf_release(&buf);
	return code;
}

/* The last record of a run. */
static enum err_code run_last(struct span run, struct record_view *ret, struct err *err)
{
	struct span entry = {0};
	while (run.n > 0) {
		enum err_code code = record_next(&run, &entry, NULL, err);
		if (code)
			return code;
	}
	return record_decode_trusted(entry, ret, err);
}

static struct storage_query query_of(const struct journal_read *r, uint64_t below, size_t used_bytes,
				     size_t scan_bytes);

/* A page that ended because enough was looked through, in the middle of the one append that it has something
 * of: the rest is read, as far as there is room. */
static enum err_code finish_append(struct journal_read *r, struct storage_reader *reader, struct buf *body,
				   uint64_t position, uint64_t below, struct storage_page *sp,
				   struct err *err)
{
	struct append_rest rest;
	struct storage_page more;
	size_t before = body->n;
	enum err_code code = look_behind(r, reader, position, below, true, &rest, err);
	if (code)
		return code;
	struct storage_query q = query_of(r, rest.last + 1, before, 0);
	q.by_sequence = false;
	q.from = sp->next;
	code = storage_read(reader, &q, body, &more, err);
	if (code)
		return code;
	if (body->n > READ_PAGE_BYTES) { /* one record that has no room: it is larger than a page */
		body->n = before;
		buf_shrink(body);
		return ERR_OK;
	}
	sp->records += more.records;
	sp->next = more.next;
	return ERR_OK;
}

/* Cuts a live page back to where an append ends, if it has the end of one. */
static enum err_code cut_to_append(struct journal_read *r, struct storage_reader *reader, struct buf *body,
				   size_t start, uint64_t below, bool scanned_enough, struct storage_page *sp,
				   bool *ret_whole, struct err *err)
{
	struct span run = span_skip(buf_span(body), start);
	struct record_view v;
	enum err_code code = run_last(run, &v, err);
	*ret_whole = true;
	if (code || v.last_of_append)
		return code;
	size_t *ends = mem_try_alloc(sp->records * sizeof(*ends)); /* of each record, in the run */
	if (!ends)
		return err_set(err, ERR_NOMEM, "no memory for a page of %zu records", sp->records);
	struct span rest = run, entry;
	for (size_t i = 0; i < sp->records && !code; i++) {
		code = record_next(&rest, &entry, NULL, err);
		ends[i] = run.n - rest.n;
	}
	const uint64_t newest = v.position;
	uint64_t after = UINT64_MAX; /* position of the record after the one that is looked at */
	size_t kept = sp->records;
	bool whole = false;
	for (; kept > 0 && !code; kept--) {
		rest = span_skip(run, kept > 1 ? ends[kept - 2] : 0);
		code = record_next(&rest, &entry, NULL, err);
		if (!code)
			code = record_decode_trusted(entry, &v, err);
		if (code)
			break;
		whole = v.last_of_append;
		if (!whole && after != v.position + 1) {
			struct append_rest behind;
			code = look_behind(r, reader, v.position, below, false, &behind, err);
			whole = !behind.has_more;
		}
		if (whole)
			break;
		after = v.position;
	}
	/* Nothing whole: the append is larger than a page, and goes out in parts. */
	if (!code && whole && kept < sp->records) {
		sp->next = v.position + 1;
		sp->records = kept;
		body->n = start + ends[kept - 1];
	}
	mem_free(ends);
	*ret_whole = whole;
	return !code && !whole && scanned_enough ? finish_append(r, reader, body, newest, below, sp, err)
						 : code;
}

/* ---- filtering ------------------------------------------------------------------------------- */

/* Keeps of the run from `start` on what is wanted, and sets r->at behind the last record looked at.
 * *ret_stop: what follows is out of bounds, or enough was taken. */
static enum err_code filter_run(struct journal_read *r, struct journal_page *page, size_t start,
				uint64_t next, bool *ret_stop, struct err *err)
{
	struct span run = span_skip(buf_span(&page->body), start);
	uint8_t *to = page->body.p + start;
	uint64_t stopped_at = next;
	while (run.n > 0) {
		struct span entry, whole;
		struct record_view v;
		enum err_code code = record_next(&run, &entry, &whole, err);
		if (!code)
			code = record_decode_trusted(entry, &v, err);
		if (code)
			return code;
		enum read_verdict verdict = read_wants(r, &v);
		if (verdict == READ_STOP || (verdict == READ_TAKE && r->records_left == 0)) {
			stopped_at = v.position;
			*ret_stop = true;
			break;
		}
		if (verdict == READ_SKIP)
			continue;
		uint64_t position = v.position;
		memmove(to, whole.p, whole.n); /* may overwrite what the view points to */
		to += whole.n;
		page->records++;
		if (--r->records_left == 0) {
			if (run.n > 0)
				stopped_at = r->backward ? (position ? position - 1 : 0) : position + 1;
			*ret_stop = true;
			break;
		}
	}
	page->body.n = (size_t)(to - page->body.p);
	r->at = stopped_at;
	return ERR_OK;
}

/* ---- a page ---------------------------------------------------------------------------------- */

static struct storage_query query_of(const struct journal_read *r, uint64_t below, size_t used_bytes,
				     size_t scan_bytes)
{
	struct storage_query q = {.source = r->source,
				  .name = r->name,
				  .include_system = r->include_system,
				  .backward = r->backward,
				  .raw = r->raw,
				  .kinds = r->kinds,
				  .by_sequence = r->by_sequence,
				  .from = r->at,
				  .below_position = below,
				  .max_bytes = READ_PAGE_BYTES - used_bytes,
				  .max_scan_bytes = scan_bytes};
	if (!read_has_filter(r) && r->records_left < SIZE_MAX)
		q.max_records = (size_t)r->records_left;
	return q;
}

/* Load: leaves out or refuses what has been erased, of the run from `start` on. */
static enum err_code check_erased(struct journal_read *r, struct journal_page *page, size_t start,
				  struct err *err)
{
	struct span run = span_skip(buf_span(&page->body), start);
	uint8_t *to = page->body.p + start;
	while (run.n > 0) {
		struct span entry, whole;
		enum err_code code = record_next(&run, &entry, &whole, err);
		if (code)
			return code;
		if (record_has_body(entry)) {
			memmove(to, whole.p, whole.n);
			to += whole.n;
			continue;
		}
		struct record_view v;
		if (!r->skip_erased && record_position(entry) >= r->erased_below) {
			code = record_decode_trusted(entry, &v, err);
			return code ? code
				    : err_set(err, ERR_CONFLICT,
					      "erased: event %llu of stream \"%.*s\" has been erased: load with "
					      "erased = SKIP to go on without it",
					      (unsigned long long)v.sequence, SPAN_ARG(r->name));
		}
		page->records--;
	}
	page->body.n = (size_t)(to - page->body.p);
	return ERR_OK;
}

/* Where an erasure of the stream as a whole stands, if there is one. */
static enum err_code load_erased(struct journal_read *r, struct storage_reader *reader, struct err *err)
{
	struct storage_stream_info info = {0};
	struct arena arena;
	bool exists = false;
	arena_init(&arena, 4 * KIB);
	enum err_code code = storage_stat(reader, r->name, &arena, &info, &exists, err);
	r->erased_below = exists ? info.erased_below : 0;
	arena_release(&arena);
	return code;
}

/* One read of storage into the page; *scanned is what the page has looked through. */
static enum err_code read_more(struct journal_read *r, struct storage_reader *reader,
			       struct journal_page *page, uint64_t below, size_t *scanned, bool *ret_full,
			       struct err *err)
{
	size_t start = page->body.n;
	struct storage_query q = query_of(r, below, start, READ_SCAN_BYTES - *scanned);
	struct storage_page sp;
	enum err_code code = storage_read(reader, &q, &page->body, &sp, err);
	if (code)
		return code;
	*scanned += page->body.n - start + sp.scanned_bytes;
	bool fits = start == 0 || page->body.n <= READ_PAGE_BYTES;
	if (fits && r->live && !sp.end && sp.records > 0) {
		bool whole;
		code = cut_to_append(r, reader, &page->body, start, below,
				     sp.scanned_bytes >= q.max_scan_bytes, &sp, &whole, err);
		if (code)
			return code;
		fits = whole || start == 0;
	}
	if (!fits) {
		/* A record, or the part of an append, that is too large to share the page: it will be the
		 * first of the next. */
		page->body.n = start;
		buf_shrink(&page->body);
		*ret_full = true;
		return ERR_OK;
	}
	if (sp.end && !r->backward) {
		bool beyond = !r->by_sequence && r->at > below;
		sp.next = beyond ? r->at : below;
	}
	/* The sequence to begin with is not there yet: what comes before it is not wanted when it comes. */
	if (r->live && r->by_sequence && sp.end && sp.records == 0)
		r->filter.skip_to_sequence = r->at;
	r->by_sequence = false;
	bool stop = false;
	if (read_has_filter(r)) {
		code = filter_run(r, page, start, sp.next, &stop, err);
	} else {
		page->records += sp.records;
		r->at = sp.next;
		if (r->records_left != UINT64_MAX)
			r->records_left -= sp.records;
		stop = r->records_left == 0;
	}
	if (!code && r->load)
		code = check_erased(r, page, start, err);
	r->ended = !r->live && (sp.end || stop);
	r->to_tail = r->live && sp.end && page->records == 0;
	*ret_full = sp.end; /* there is no more to put into it */
	return code;
}

/* Load, first: how far the stream goes, and the newest snapshot. */
static enum err_code load_begin(struct journal_read *r, struct storage_reader *reader,
				struct journal_page *page, struct err *err)
{
	struct storage_query newest = {.source = STORAGE_STREAM,
				       .name = r->name,
				       .backward = true,
				       .from = UINT64_MAX,
				       .below_position = r->below,
				       .max_bytes = 1,
				       .max_records = 1};
	struct storage_page sp;
	struct record_view v;
	enum err_code code = storage_read(reader, &newest, &page->body, &sp, err);
	if (!code && sp.records > 0)
		code = run_last(buf_span(&page->body), &v, err);
	if (code)
		return code;
	r->load_newest = sp.records > 0 ? v.sequence : 0;
	page->body.n = 0;
	code = load_erased(r, reader, err);
	if (code)
		return code;
	uint64_t snapshot_sequence = 0;
	code = storage_snapshot(reader, r->name, r->load_at, r->below, &page->body, err);
	if (code && code != ERR_NOT_FOUND)
		return code;
	if (!code) {
		code = run_last(buf_span(&page->body), &v, err);
		if (code)
			return code;
		snapshot_sequence = v.sequence;
		page->records = 1;
	}
	r->by_sequence = true;
	r->at = snapshot_sequence + 1;
	if (!snapshot_sequence && r->erased_below) { /* nothing before it is given */
		r->by_sequence = false;
		r->at = r->erased_below;
	}
	if (r->has_at_sequence)
		r->filter.max_sequence = r->load_at;
	/* Also with at_sequence 0, which max_sequence could not say. */
	if (snapshot_sequence >= r->load_newest || snapshot_sequence >= r->load_at)
		r->ended = true;
	return ERR_OK;
}

/* ---- times ----------------------------------------------------------------------------------- */

/* The first position whose record was committed at that time or later; `head` if there is none. Times never go
 * back, so it is found by halving. */
static enum err_code position_at(struct storage_reader *reader, uint64_t head, uint64_t time_us, uint64_t *ret,
				 struct err *err)
{
	uint64_t low = 0, high = head; /* all below low are earlier; that at high is not */
	enum err_code code = ERR_OK;
	struct buf buf;
	buf_init(&buf, LIMIT_RECORD_BYTES + 1);
	while (low < high && !code) {
		uint64_t middle = low + (high - low) / 2;
		struct storage_query q = {.source = STORAGE_ALL,
					  .include_system = true,
					  .from = middle,
					  .below_position = high,
					  .max_bytes = 1,
					  .max_records = 1};
		struct storage_page page;
		struct record_view v;
		buf_clear(&buf);
		code = storage_read(reader, &q, &buf, &page, err);
		if (!code && page.records > 0)
			code = run_last(buf_span(&buf), &v, err);
		if (code)
			break;
		if (page.records == 0) /* what was between has been removed */
			high = middle;
		else if ((uint64_t)v.commit_time.us < time_us)
			low = v.position + 1;
		else
			high = middle;
	}
	buf_release(&buf);
	*ret = low;
	return code;
}

/* From and to a time, as positions. What lies beyond the newest record is for the records to come. */
static enum err_code resolve_times(struct journal_read *r, struct storage_reader *reader, uint64_t head,
				   struct err *err)
{
	uint64_t at = 0;
	enum err_code code = ERR_OK;
	if (r->from_by_time) {
		uint64_t time = r->from_time_us;
		/* Backward: the last one not after it is the one before the first after it. */
		code = position_at(reader, head, r->backward && time < UINT64_MAX ? time + 1 : time, &at, err);
		if (code)
			return code;
		r->at = r->backward ? at - (at > 0) : at;
		if (r->backward && at == 0)
			r->records_left = 0;
		if (r->live && at == head)
			r->filter.min_time_us = time;
	}
	if (r->to_by_time && r->backward) {
		code = position_at(reader, head, r->to_time_us, &r->filter.min_position, err);
	} else if (r->to_by_time && r->to_time_us < UINT64_MAX) {
		code = position_at(reader, head, r->to_time_us + 1, &at, err);
		r->to_position = at > 0 ? at - 1 : 0;
		if (at == 0)
			r->records_left = 0;
	}
	return code;
}

static enum err_code begin(struct journal_read *r, struct storage_reader *reader, struct journal_page *page,
			   struct err *err)
{
	uint64_t head = journal_head(r->journal);
	r->begun = true;
	enum err_code code = resolve_times(r, reader, head, err);
	if (code)
		return code;
	r->below = head;
	if (!r->backward && r->to_position < head)
		r->below = r->to_position + 1;
	if (r->from_end)
		r->at = head;
	r->told = r->by_sequence ? 0 : read_position_known(r);
	if (r->records_left == 0)
		r->ended = true;
	return r->load ? load_begin(r, reader, page, err) : ERR_OK;
}

static enum err_code fill(struct journal_read *r, struct storage_reader *reader, struct journal_page *page,
			  struct err *err)
{
	bool first = !r->begun;
	enum err_code code = first ? begin(r, reader, page, err) : ERR_OK;
	/* A second page means many: room for it at once. */
	if (!first && !code && buf_reserve(&page->body, READ_PAGE_BYTES))
		code = err_set(err, ERR_NOMEM, "no memory for a page");
	if (r->from_end && !code) {
		r->from_end = false;
		r->to_tail = true;
		return ERR_OK;
	}
	uint64_t below = r->live ? journal_head(r->journal) : r->below;
	size_t scanned = 0;
	bool full = false;
	/* Until it is half full, or nothing was wanted for so long that it is time to show how far it is. */
	while (!code && !r->ended && !r->to_tail && !full) {
		if (page->body.n > READ_PAGE_BYTES / 2 || scanned >= READ_SCAN_BYTES)
			break;
		code = read_more(r, reader, page, below, &scanned, &full, err);
		if (!read_has_filter(r) && !r->load)
			break;
	}
	return code;
}

void read_from_storage(struct journal_read *r, struct storage_reader *reader, bool in_time)
{
	must(!r->page);
	r->to_tail = r->ended = false;
	if (!in_time) {
		err_set(&r->err, ERR_UNAVAILABLE,
			"not_before position %llu was not reached in %lld ms: the head is at %llu, try again",
			(unsigned long long)r->not_before.position,
			(long long)(r->journal->not_before_wait_us / 1000),
			(unsigned long long)journal_head(r->journal));
		return;
	}
	struct journal_page *page = read_page_new(r);
	if (fill(r, reader, page, &r->err)) {
		must(r->err.code != ERR_OK);
		r->to_tail = false;
		journal_page_free(page);
		return;
	}
	if (r->to_tail) {
		journal_page_free(page);
		return;
	}
	if (r->ended && r->load)
		page->sequence = r->load_newest;
	r->page = page;
}
