/* Deleting, truncating and erasing: what is decided, and what readers are given afterwards, from storage and from
 * the tail. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>

#include "fixture.h"
#include "journal/acts.h"

#include "base/limits.h"

/* Does it and returns how it ended. */
static enum err_code act(struct bench *b, const struct journal_withhold *q, uint64_t *ret_records)
{
	struct append_refusal refusal = {0};
	struct append *a = NULL;
	struct done d = {0};
	enum err_code code = journal_withhold_new(b->journal, q, &a, &refusal);
	if (code)
		return code;
	bench_append(b, a, &d);
	cr_assert_eq(d.calls, 1u);
	if (ret_records)
		*ret_records = d.code ? 0 : append_answer(d.append)->record_count;
	code = d.code;
	done_release(&d);
	return code;
}

static struct journal_withhold upon(uint32_t kind, const struct span *stream)
{
	return (struct journal_withhold){
		.kind = kind, .streams = stream, .stream_count = 1, .reason = SPAN("asked to"), .actor = SPAN("me")};
}

static void append(struct bench *b, struct append *a, enum err_code code)
{
	struct done d = {0};
	bench_append(b, a, &d);
	cr_assert_eq(d.code, code);
	done_release(&d);
}

/* Three events and a snapshot each in "a|1" and "a|2": positions 0 to 7. */
static void fill(struct bench *b)
{
	bench_open(b);
	append(b, APPEND({.stream = "a|1", .ids = {1, 2, 3}, .snapshot = 4}), ERR_OK);
	append(b, APPEND({.stream = "a|2", .ids = {5, 6, 7}, .snapshot = 8}), ERR_OK);
}

/* Positions that a load gives; the error's text if it fails. */
static const char *load(struct bench *b, const char *stream, bool skip, uint64_t *ret_sequence, struct got *got)
{
	struct journal_load q = {.stream = span_str(stream), .skip_erased = skip};
	struct journal_read *read;
	struct err err = {0};
	cr_assert_eq(journal_load_open(b->journal, &q, &b->mailbox, on_page, got, &read, &err), ERR_OK, "%s",
		     err.text);
	bench_next(b, read, got);
	if (ret_sequence && got->page)
		*ret_sequence = got->page->sequence;
	const char *text = got->page ? got_positions(got) : got->err.text;
	journal_read_close(read);
	return text;
}

static const char *read_all(struct bench *b, struct got *got, size_t *ret_bodies)
{
	struct journal_query q = {.source = STORAGE_ALL, .include_system = true};
	struct journal_read *read;
	struct err err = {0};
	cr_assert_eq(journal_read_open(b->journal, &q, &b->mailbox, on_page, got, &read, &err), ERR_OK);
	bench_next(b, read, got);
	cr_assert(got->page, "%s", got->err.text);
	struct span run = buf_span(&got->page->body), entry;
	*ret_bodies = 0;
	while (record_next(&run, &entry, NULL, NULL) == ERR_OK)
		*ret_bodies += record_has_body(entry);
	journal_read_close(read);
	return got_positions(got);
}

Test(withhold, a_deleted_stream_is_empty_and_goes_on)
{
	struct bench b;
	struct got got = {0};
	struct span stream = SPAN("a|1");
	struct journal_withhold q = upon(RECORD_DELETE, &stream);
	uint64_t sequence = 0, records;
	size_t bodies;
	fill(&b);
	cr_assert_eq(act(&b, &q, &records), ERR_OK);
	cr_assert_eq(records, 1u);
	cr_assert_str_eq(read_all(&b, &got, &bodies), "4 5 6 7 8");
	cr_assert_str_eq(load(&b, "a|1", false, &sequence, &got), "");
	cr_assert_eq(sequence, 4u);
	cr_assert_eq(act(&b, &q, &records), ERR_OK);
	cr_assert_eq(records, 0u); /* it was so already */
	/* A warm owner that expects what it saw conflicts; a new one may begin with `none`. */
	append(&b, APPEND({.stream = "a|1", .expect = APPEND_EXACTLY, .sequence = 3, .ids = {9}}), ERR_CONFLICT);
	append(&b, APPEND({.stream = "a|1", .expect = APPEND_NONE, .ids = {10}}), ERR_OK);
	append(&b, APPEND({.stream = "a|1", .expect = APPEND_NONE, .ids = {11}}), ERR_CONFLICT);
	cr_assert_str_eq(load(&b, "a|1", false, &sequence, &got), "9");
	cr_assert_eq(sequence, 5u);
	struct span missing = SPAN("a|3");
	q.streams = &missing;
	cr_assert_eq(act(&b, &q, NULL), ERR_NOT_FOUND);
	got_clear(&got);
	bench_close(&b);
}

Test(withhold, a_truncated_stream_begins_with_the_sequence)
{
	struct bench b;
	struct got got = {0};
	struct span stream = SPAN("a|1");
	struct journal_withhold q = upon(RECORD_TRUNCATE, &stream);
	uint64_t sequence = 0, records;
	size_t bodies;
	fill(&b);
	q.before_sequence = 3;
	q.has_before_position = true;
	q.before_position = 2;
	cr_assert_eq(act(&b, &q, NULL), ERR_OK);
	cr_assert_str_eq(read_all(&b, &got, &bodies), "2 3 4 5 6 7 8");
	cr_assert_str_eq(load(&b, "a|1", false, &sequence, &got), "3");
	cr_assert_eq(sequence, 3u);
	q.before_sequence = 5;
	q.has_before_position = false;
	cr_assert_eq(act(&b, &q, NULL), ERR_CONFLICT, "beyond the newest");
	q.before_sequence = 3;
	cr_assert_eq(act(&b, &q, NULL), ERR_CONFLICT, "it has grown since it was looked at");
	q.before_sequence = 4;
	cr_assert_eq(act(&b, &q, &records), ERR_OK);
	cr_assert_eq(records, 1u);
	cr_assert_str_eq(load(&b, "a|1", false, &sequence, &got), "");
	cr_assert_eq(sequence, 3u);
	cr_assert_eq(act(&b, &q, &records), ERR_OK);
	cr_assert_eq(records, 0u);
	append(&b, APPEND({.stream = "a|1", .expect = APPEND_NONE, .ids = {10}}), ERR_OK);
	got_clear(&got);
	bench_close(&b);
}

Test(withhold, an_erased_event_fails_a_load_that_does_not_skip_it)
{
	struct bench b;
	struct got got = {0};
	struct span stream = SPAN("a|1");
	struct journal_withhold q = upon(RECORD_ERASE, &stream);
	uint64_t sequence = 0;
	size_t bodies;
	fill(&b);
	q.from_sequence = q.to_sequence = 2;
	cr_assert_eq(act(&b, &q, NULL), ERR_OK);
	cr_assert_str_eq(read_all(&b, &got, &bodies), "0 1 2 3 4 5 6 7 8");
	cr_assert_eq(bodies, 7u, "the event and the snapshot after it");
	cr_assert_eq(strncmp(load(&b, "a|1", false, NULL, &got), "erased", 6), 0, "%s", got.err.text);
	cr_assert_str_eq(load(&b, "a|1", true, &sequence, &got), "0 2");
	cr_assert_eq(sequence, 4u);
	q.from_sequence = q.to_sequence = 9;
	cr_assert_eq(act(&b, &q, NULL), ERR_CONFLICT);
	/* With its snapshots kept the second stream loads from there. */
	struct span second = SPAN("a|2");
	q.streams = &second;
	q.from_sequence = q.to_sequence = 1;
	q.keep_snapshots = true;
	cr_assert_eq(act(&b, &q, NULL), ERR_OK);
	cr_assert_str_eq(load(&b, "a|2", false, NULL, &got), "7");
	got_clear(&got);
	bench_close(&b);
}

Test(withhold, a_stream_erased_as_a_whole_loads_as_empty)
{
	struct bench b;
	struct got got = {0};
	struct span streams[] = {SPAN("a|1"), SPAN("a|2")};
	struct journal_withhold q = upon(RECORD_ERASE, streams);
	uint64_t sequence = 0, records;
	size_t bodies;
	fill(&b);
	q.stream_count = 2;
	q.has_prefix = true;
	q.prefix = SPAN("a|");
	q.prefix_streams = 2;
	cr_assert_eq(act(&b, &q, &records), ERR_OK);
	cr_assert_eq(records, 3u); /* one in $acts */
	cr_assert_str_eq(read_all(&b, &got, &bodies), "0 1 2 3 4 5 6 7 8 9 10");
	cr_assert_eq(bodies, 3u);
	cr_assert_str_eq(load(&b, "a|1", false, &sequence, &got), "");
	cr_assert_eq(sequence, 4u);
	append(&b, APPEND({.stream = "a|1", .expect = APPEND_EXACTLY, .sequence = 4, .ids = {10}}), ERR_OK);
	cr_assert_str_eq(load(&b, "a|1", false, &sequence, &got), "11");
	cr_assert_str_eq(load(&b, "a|2", true, &sequence, &got), "");
	got_clear(&got);
	bench_close(&b);
}

Test(withhold, a_subscriber_that_is_behind_is_not_given_it_from_the_tail)
{
	struct bench b;
	struct got got = {0};
	struct span stream = SPAN("a|1");
	struct journal_withhold q = upon(RECORD_ERASE, &stream);
	struct journal_query live = {.source = STORAGE_ALL, .live = true};
	struct journal_read *read;
	struct err err = {0};
	bench_open(&b);
	append(&b, APPEND({.stream = "a|2", .ids = {5}}), ERR_OK);
	cr_assert_eq(journal_read_open(b.journal, &live, &b.mailbox, on_page, &got, &read, &err), ERR_OK);
	bench_next(&b, read, &got);
	cr_assert_str_eq(got_positions(&got), "0");
	bench_next(&b, read, &got); /* caught up: what comes is in the tail */
	append(&b, APPEND({.stream = "a|1", .ids = {1, 2, 3}}), ERR_OK);
	cr_assert_eq(act(&b, &q, NULL), ERR_OK);
	size_t seen = 0;
	for (int i = 0; i < 10 && seen < 4; i++) {
		bench_next(&b, read, &got);
		cr_assert(got.page, "%s", got.err.text);
		struct span run = buf_span(&got.page->body), entry;
		struct record_view v;
		while (record_next(&run, &entry, NULL, NULL) == ERR_OK) {
			cr_assert_eq(record_decode(entry, &v, &err), ERR_OK, "%s", err.text);
			cr_assert_eq(record_has_body(entry), v.kind == RECORD_ERASE, "an erased body is given");
			seen++;
		}
	}
	cr_assert_eq(seen, 4u);
	journal_read_close(read);
	got_clear(&got);
	bench_close(&b);
}

Test(withhold, what_is_asked_for_is_checked)
{
	struct bench b;
	struct span stream = SPAN("a|1"), own = SPAN("$sessions"), schema = SPAN("$schema-x");
	char long_reason[LIMIT_REASON_BYTES + 2];
	bench_open(&b);
	struct journal_withhold q = upon(RECORD_DELETE, &own);
	cr_assert_eq(act(&b, &q, NULL), ERR_INVALID);
	q.streams = &schema;
	cr_assert_eq(act(&b, &q, NULL), ERR_NOT_FOUND);
	q.streams = &stream;
	q.reason = SPAN("");
	cr_assert_eq(act(&b, &q, NULL), ERR_INVALID);
	memset(long_reason, 'x', sizeof(long_reason));
	q.reason = span_of(long_reason, LIMIT_REASON_BYTES + 1);
	cr_assert_eq(act(&b, &q, NULL), ERR_INVALID);
	q = upon(RECORD_TRUNCATE, &stream);
	q.before_sequence = 1;
	cr_assert_eq(act(&b, &q, NULL), ERR_INVALID);
	q = upon(RECORD_ERASE, &stream);
	q.from_sequence = 3;
	q.to_sequence = 2;
	cr_assert_eq(act(&b, &q, NULL), ERR_INVALID);
	bench_close(&b);
}
