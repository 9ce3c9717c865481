/* Reads: opening, asking, closing, delivering. See read.h for the states. */
#include <config.h>

#include "journal/read.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/text.h"

#define READ_MAGIC 0x72656164u

/* ---- pages ----------------------------------------------------------------------------------- */

struct journal_page *read_page_new(const struct journal_read *r)
{
	struct journal_page *page = mem_xalloc(sizeof(*page));
	buf_init(&page->body, LIMIT_RESPONSE_BYTES + LIMIT_RECORD_BYTES + JOURNAL_PAGE_SPARE);
	page->next = journal_cursor_at(r->journal, 0);
	return page;
}

void journal_page_free(struct journal_page *page)
{
	if (!page)
		return;
	buf_release(&page->body);
	mem_free(page);
}

/* ---- filters --------------------------------------------------------------------------------- */

bool read_has_filter(const struct journal_read *r)
{
	const struct read_filter *f = &r->filter;
	return f->type_count || f->prefix_count || f->min_position || f->min_sequence || f->max_sequence ||
	       f->skip_to_sequence || f->min_time_us;
}

static bool any_is(const struct span *list, size_t count, struct span s)
{
	for (size_t i = 0; i < count; i++)
		if (span_eq(list[i], s))
			return true;
	return count == 0;
}

static bool any_starts(const struct span *prefixes, size_t count, struct span s)
{
	for (size_t i = 0; i < count; i++)
		if (span_starts(s, prefixes[i]))
			return true;
	return count == 0;
}

enum read_verdict read_wants(struct journal_read *r, const struct record_view *v)
{
	struct read_filter *f = &r->filter;
	bool counts = record_kind_takes_sequence(v->kind);
	if (r->backward && (v->position < f->min_position || v->sequence < f->min_sequence))
		return READ_STOP;
	/* What was taken after the last event in bounds, and before the next, belongs to it. */
	if (!r->backward && f->max_sequence && v->sequence > f->max_sequence)
		return READ_STOP;
	if (f->min_time_us) {
		if ((uint64_t)v->commit_time.us < f->min_time_us)
			return READ_SKIP;
		f->min_time_us = 0; /* none goes back */
	}
	if (f->skip_to_sequence) {
		if (!counts || v->sequence < f->skip_to_sequence)
			return READ_SKIP;
		f->skip_to_sequence = 0;
	}
	return any_is(f->types, f->type_count, v->type) && any_starts(f->prefixes, f->prefix_count, v->stream)
		       ? READ_TAKE
		       : READ_SKIP;
}

bool read_source_has(const struct journal_read *r, uint32_t kind, struct span stream)
{
	if (r->kinds && (kind > 31 || !(r->kinds & 1u << kind)))
		return false;
	switch (r->source) {
	case STORAGE_STREAM: return span_eq(stream, r->name);
	case STORAGE_CATEGORY: return span_eq(record_category(stream), r->name);
	case STORAGE_ALL: return r->include_system || !record_stream_is_system(stream);
	default: unreachable_state("storage_source");
	}
}

/* ---- opening --------------------------------------------------------------------------------- */

static enum err_code check_source(const struct journal_query *q, struct err *err)
{
	if (q->source != STORAGE_ALL && q->name.n == 0)
		return err_set(err, ERR_INVALID, "the %s to read has no name",
			       q->source == STORAGE_STREAM ? "stream" : "category");
	if (q->source == STORAGE_STREAM)
		return record_check_stream(q->name, err);
	if (!utf8_valid_no_controls(q->name))
		return err_set(err, ERR_INVALID,
			       "the category's name is not valid UTF-8 without control characters");
	if (q->source == STORAGE_CATEGORY && span_find(q->name, '|') < q->name.n)
		return err_set(
			err, ERR_INVALID,
			"category \"%.*s\" has a '|': a category is the part of a stream's name before it",
			SPAN_ARG(q->name));
	if (q->name.n > LIMIT_STREAM_NAME_BYTES)
		return err_set(err, ERR_INVALID, "the category's name has more than %zu bytes",
			       LIMIT_STREAM_NAME_BYTES);
	return ERR_OK;
}

/* The code also where nobody wants the text. */
static enum err_code wrap(struct err *err, enum err_code code, const char *what)
{
	if (err)
		err_wrap(err, "%s", what);
	return code;
}

static enum err_code check_query(const struct journal *j, const struct journal_query *q, struct err *err)
{
	enum err_code code = check_source(q, err);
	if (code)
		return code;
	bool stream = q->source == STORAGE_STREAM;
	if (!stream && (q->from == FROM_SEQUENCE || q->to == TO_SEQUENCE))
		return err_set(err, ERR_INVALID, "sequences are of one stream: this read is of many");
	if (q->live && (q->backward || q->to != TO_END || q->max_records))
		return err_set(err, ERR_INVALID, "a subscription goes forward and has no end");
	if (!q->live && q->from == FROM_END)
		return err_set(err, ERR_INVALID, "only a subscription begins at the end");
	must(!q->raw || (q->source == STORAGE_ALL && q->include_system && !q->backward && !q->live && !q->kinds));
	if (q->type_count + q->stream_prefix_count > LIMIT_READ_FILTERS)
		return err_set(err, ERR_INVALID, "more than %zu types and stream prefixes",
			       LIMIT_READ_FILTERS);
	if (q->from == FROM_CURSOR) {
		code = journal_cursor_check(j, &q->from_cursor, false, NULL, err);
		if (code)
			return wrap(err, code, "the cursor to read from");
	}
	if (q->not_before.incarnation) {
		code = journal_cursor_check(j, &q->not_before, true, NULL, err);
		if (code)
			return wrap(err, code, "not_before");
	}
	return ERR_OK;
}

static size_t spans_bytes(const struct span *list, size_t count)
{
	size_t bytes = 0;
	for (size_t i = 0; i < count; i++)
		bytes += list[i].n;
	return bytes;
}

static struct span *spans_keep(const struct span *list, size_t count, uint8_t **at)
{
	struct span *kept = mem_xalloc(count * sizeof(*kept));
	for (size_t i = 0; i < count; i++) {
		kept[i] = span_of(*at, list[i].n);
		if (list[i].n)
			memcpy(*at, list[i].p, list[i].n);
		*at += list[i].n;
	}
	return kept;
}

static enum err_code keep_filters(struct journal_read *r, const struct journal_query *q, struct err *err)
{
	struct read_filter *f = &r->filter;
	size_t bytes = spans_bytes(q->types, q->type_count) +
		       spans_bytes(q->stream_prefixes, q->stream_prefix_count);
	if (q->type_count + q->stream_prefix_count == 0)
		return ERR_OK;
	f->text = mem_try_alloc(bytes);
	if (!f->text)
		return err_set(err, ERR_NOMEM, "no memory for filters of %zu bytes", bytes);
	uint8_t *at = f->text;
	f->types = spans_keep(q->types, q->type_count, &at);
	f->type_count = q->type_count;
	f->prefixes = spans_keep(q->stream_prefixes, q->stream_prefix_count, &at);
	f->prefix_count = q->stream_prefix_count;
	return ERR_OK;
}

static void set_from(struct journal_read *r, const struct journal_query *q)
{
	switch (q->from) {
	case FROM_START: r->at = q->backward ? UINT64_MAX : 0; break;
	case FROM_SEQUENCE:
		r->by_sequence = true;
		r->at = q->from_value;
		break;
	case FROM_POSITION: r->at = q->from_value; break;
	case FROM_CURSOR: r->at = q->from_cursor.position; break;
	case FROM_TIME:
		r->from_by_time = true;
		r->from_time_us = q->from_value;
		break;
	case FROM_END: r->from_end = true; break;
	default: unreachable_state("journal_from");
	}
}

static void set_to(struct journal_read *r, const struct journal_query *q)
{
	r->to_position = UINT64_MAX;
	if (q->to == TO_POSITION && q->backward)
		r->filter.min_position = q->to_value;
	else if (q->to == TO_POSITION)
		r->to_position = q->to_value;
	else if (q->to == TO_SEQUENCE && q->backward)
		r->filter.min_sequence = q->to_value;
	else if (q->to == TO_SEQUENCE)
		r->filter.max_sequence = q->to_value;
	r->to_by_time = q->to == TO_TIME;
	r->to_time_us = q->to_value;
	/* Up to sequence 0 there is nothing but what comes before the first event. */
	if (q->to == TO_SEQUENCE && !q->backward && q->to_value == 0)
		r->records_left = 0;
}

static void read_free(struct journal_read *r)
{
	if (r->live)
		tail_leave(r->journal->tail, &r->waiter);
	journal_page_free(r->page);
	mem_free(r->filter.types);
	mem_free(r->filter.prefixes);
	mem_free(r->filter.text);
	mem_free((void *)(uintptr_t)r->name.p);
	r->magic = 0;
	mem_free(r);
	metric_add(METRIC_READS_OPEN, -1);
}

static void job_run(struct job *job, struct storage_reader *reader, bool in_time)
{
	read_from_storage(CONTAINER_OF(job, struct journal_read, job), reader, in_time);
}

static void job_done(struct job *job)
{
	struct journal_read *r = CONTAINER_OF(job, struct journal_read, job);
	must(r->magic == READ_MAGIC);
	must(r->state == READ_STORAGE);
	if (r->closed) {
		read_free(r);
		return;
	}
	struct journal_page *page = r->page;
	r->page = NULL;
	if (job->refused) {
		r->to_tail = false;
		err_set(&r->err, ERR_UNAVAILABLE, "the journal is stopping");
	}
	if (r->to_tail)
		read_from_tail(r);
	else
		read_deliver(r, page, r->ended);
}

static void hop_run(struct task *task)
{
	struct journal_read *r = CONTAINER_OF(task, struct journal_read, hop);
	must(r->magic == READ_MAGIC);
	must(r->state == READ_HOP);
	if (r->closed)
		read_free(r);
	else
		read_from_tail(r);
}

static void waiter_wake(struct tail_waiter *w)
{
	struct journal_read *r = CONTAINER_OF(w, struct journal_read, waiter);
	must(r->magic == READ_MAGIC);
	must(r->state == READ_WAITING);
	if (w->position > r->at) /* it may have asked for what is beyond the head */
		r->at = w->position;
	read_from_tail(r);
}

static struct journal_read *read_new(struct journal *j, struct mailbox *mailbox, journal_page_fn *on_page,
				     void *arg)
{
	struct journal_read *r = mem_xalloc(sizeof(*r));
	r->magic = READ_MAGIC;
	r->journal = j;
	r->mailbox = mailbox;
	r->on_page = on_page;
	r->arg = arg;
	r->job.run = job_run;
	r->job.done = job_done;
	r->job.mailbox = mailbox;
	r->hop.run = hop_run;
	r->waiter.wake = waiter_wake;
	r->records_left = UINT64_MAX;
	r->to_position = UINT64_MAX;
	metric_add(METRIC_READS_OPEN, 1);
	return r;
}

enum err_code journal_read_open(struct journal *j, const struct journal_query *q, struct mailbox *mailbox,
				journal_page_fn *on_page, void *arg, struct journal_read **ret,
				struct err *err)
{
	must(mailbox);
	must(on_page);
	must(ret);
	enum err_code code = check_query(j, q, err);
	if (code)
		return code;
	struct journal_read *r = read_new(j, mailbox, on_page, arg);
	r->source = q->source;
	r->raw = q->raw;
	r->include_system = q->include_system;
	r->backward = q->backward;
	r->kinds = q->kinds;
	r->not_before = q->not_before;
	if (q->source != STORAGE_ALL)
		r->name = span_of(mem_xdup(q->name.p, q->name.n), q->name.n);
	if (q->max_records)
		r->records_left = q->max_records;
	set_from(r, q);
	set_to(r, q);
	code = keep_filters(r, q, err);
	if (code) {
		read_free(r);
		return code;
	}
	r->live = q->live;
	if (q->live)
		tail_join(j->tail, &r->waiter, mailbox, r->source, r->name);
	*ret = r;
	return ERR_OK;
}

enum err_code journal_load_open(struct journal *j, const struct journal_load *load, struct mailbox *mailbox,
				journal_page_fn *on_page, void *arg, struct journal_read **ret,
				struct err *err)
{
	must(mailbox);
	must(on_page);
	must(ret);
	enum err_code code = record_check_stream(load->stream, err);
	if (!code && load->not_before.incarnation) {
		code = journal_cursor_check(j, &load->not_before, true, NULL, err);
		if (code)
			return wrap(err, code, "not_before");
	}
	if (code)
		return code;
	struct journal_read *r = read_new(j, mailbox, on_page, arg);
	r->load = true;
	r->source = STORAGE_STREAM;
	r->name = span_of(mem_xdup(load->stream.p, load->stream.n), load->stream.n);
	r->kinds = 1u << RECORD_EVENT;
	r->has_at_sequence = load->has_at_sequence;
	r->load_at = load->has_at_sequence ? load->at_sequence : UINT64_MAX;
	r->skip_erased = load->skip_erased;
	r->not_before = load->not_before;
	*ret = r;
	return ERR_OK;
}

/* ---- asking, delivering, closing ------------------------------------------------------------- */

void read_submit(struct journal_read *r, uint64_t not_before)
{
	r->state = READ_STORAGE;
	pool_submit(r->journal->pool, &r->job, not_before, r->journal->not_before_wait_us);
}

void journal_read_next(struct journal_read *r)
{
	must(r->magic == READ_MAGIC);
	must(r->state == READ_IDLE);
	if (!r->begun) {
		read_submit(r, r->not_before.incarnation ? r->not_before.position : 0);
		return;
	}
	if (!r->live) {
		read_submit(r, 0);
		return;
	}
	if (r->told_caught_up && tail_wait(r->journal->tail, &r->waiter, r->at, r->told)) {
		r->state = READ_WAITING;
		return;
	}
	r->state = READ_HOP;
	mailbox_post(r->mailbox, &r->hop);
}

uint64_t read_position_known(const struct journal_read *r)
{
	uint64_t head = journal_head(r->journal);
	return r->at < head ? r->at : head;
}

void read_deliver(struct journal_read *r, struct journal_page *page, bool ended)
{
	r->state = !page || ended ? READ_ENDED : READ_IDLE;
	if (!page) {
		must(r->err.code != ERR_OK);
		r->on_page(r, NULL, &r->err, r->arg);
		return;
	}
	page->next.position = r->told = read_position_known(r);
	if (r->live && !r->by_sequence)
		atomic_store_explicit(&r->waiter.reached, r->told, memory_order_relaxed);
	page->end = ended;
	metric_add(METRIC_READ_PAGES, 1);
	metric_add(METRIC_READ_RECORDS, (int64_t)page->records);
	r->on_page(r, page, NULL, r->arg);
}

void journal_read_close(struct journal_read *r)
{
	if (!r)
		return;
	must(r->magic == READ_MAGIC);
	must(!r->closed);
	switch (r->state) {
	case READ_IDLE:
	case READ_ENDED:
	case READ_WAITING: read_free(r); return;
	case READ_STORAGE:
		if (pool_withdraw(r->journal->pool, &r->job)) {
			read_free(r);
			return;
		}
		r->closed = true;
		return;
	case READ_HOP: r->closed = true; return;
	default: unreachable_state("read_state");
	}
}
