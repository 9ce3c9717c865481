/* Live reads from the tail: pages are copied from the newest appends on the mailbox's own thread, without
 * storage and without decoding, unless a type is asked for. A page holds whole appends. */
#include <config.h>

#include "journal/read.h"

#include "base/limits.h"
#include "base/metrics.h"
#include "base/must.h"

#define COLLECT_APPENDS 64

/* Takes what it wants of one record; false when memory is out. */
static bool take_item(struct journal_read *r, const struct append *a, const struct append_item *item,
		      uint64_t position, struct journal_page *page)
{
	const struct append_target *t = &a->targets[item->target];
	if (!read_source_has(r, item->kind, t->name))
		return true;
	if (read_has_filter(r)) {
		struct record_view view = {.position = position,
					   .sequence = item->sequence,
					   .commit_time = a->answer.commit_time,
					   .kind = item->kind,
					   .stream = t->name};
		if (r->filter.type_count && record_decode_trusted(append_item_entry(a, item), &view, NULL))
			unreachable_state("a record of our own does not decode");
		enum read_verdict verdict = read_wants(r, &view);
		must(verdict != READ_STOP); /* a live read has no bounds */
		if (verdict == READ_SKIP)
			return true;
	}
	if (buf_append_span(&page->body, append_item_bytes(a, item)))
		return false;
	page->records++;
	return true;
}

/* Takes an append from r->at on. False if the page is full: it goes on at r->at. */
static bool take_append(struct journal_read *r, const struct append *a, struct journal_page *page,
			bool *failed)
{
	size_t bytes = page->body.n, records = page->records;
	uint64_t first = a->answer.first_position, begin = r->at;
	must(r->at >= first);
	for (size_t i = (size_t)(r->at - first); i < a->item_count; i++) {
		size_t before = page->body.n;
		if (!take_item(r, a, &a->items[i], first + i, page)) {
			*failed = true;
			return false;
		}
		if (page->body.n > READ_PAGE_BYTES && page->records > 1) {
			/* Not half an append, unless it is larger than a page. */
			bool whole_fits_later = records > 0;
			page->body.n = whole_fits_later ? bytes : before;
			page->records = whole_fits_later ? records : page->records - 1;
			buf_shrink(&page->body);
			r->at = whole_fits_later ? begin : first + i;
			return false;
		}
	}
	r->at = first + a->item_count;
	return true;
}

enum fill { FILL_FULL, FILL_END, FILL_LEFT_THE_TAIL, FILL_FAILED };

static enum fill fill_page(struct journal_read *r, struct journal_page *page)
{
	struct append *appends[COLLECT_APPENDS];
	bool failed = false;
	for (;;) {
		size_t count;
		if (!tail_collect(r->journal->tail, r->at, appends, COLLECT_APPENDS, &count))
			return FILL_LEFT_THE_TAIL;
		if (count == 0)
			return FILL_END;
		bool more = true;
		for (size_t i = 0; i < count; i++) {
			more = more && take_append(r, appends[i], page, &failed);
			append_unref(appends[i]);
		}
		if (!more)
			return failed ? FILL_FAILED : FILL_FULL;
	}
}

static void deliver(struct journal_read *r, struct journal_page *page, bool at_end)
{
	page->caught_up = at_end && !r->told_caught_up;
	if (at_end)
		r->told_caught_up = true;
	if (page->records > 0 && at_end) {
		struct wall_time now = clock_wall(r->journal->clock);
		int64_t committed_us =
			atomic_load_explicit(&r->journal->last_commit_us, memory_order_relaxed);
		metric_observe_us(METRIC_SUBSCRIPTION_LAG_SECONDS,
				  now.us > committed_us ? now.us - committed_us : 0);
	}
	read_deliver(r, page, false);
}

void read_from_tail(struct journal_read *r)
{
	must(r->live);
	must(!r->by_sequence);
	struct journal_page *page = read_page_new(r);
	for (;;) {
		enum fill fill = fill_page(r, page);
		if (fill == FILL_FAILED) {
			journal_page_free(page);
			err_set(&r->err, ERR_NOMEM, "no memory for a page");
			read_deliver(r, NULL, true);
			return;
		}
		bool at_end = fill == FILL_END;
		if (fill == FILL_LEFT_THE_TAIL && page->records == 0) {
			journal_page_free(page);
			r->told_caught_up = false;
			read_submit(r, 0);
			return;
		}
		if (page->records > 0 || (at_end && !r->told_caught_up) ||
		    read_position_known(r) - r->told >= READ_CHECKPOINT_RECORDS) {
			deliver(r, page, at_end);
			return;
		}
		must(at_end);
		if (tail_wait(r->journal->tail, &r->waiter, r->at, r->told)) {
			journal_page_free(page);
			r->state = READ_WAITING;
			return;
		}
	}
}
