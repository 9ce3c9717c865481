/* The journal as a whole, by hand: appends, reads, loads, subscriptions, lists, cursors. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "journal/tail.h"

static void append_ok(struct bench *b, struct append *a)
{
	struct done d = {0};
	bench_append(b, a, &d);
	cr_assert(d.code == ERR_OK);
	done_release(&d);
}

static struct journal_read *open_read(struct bench *b, const struct journal_query *q, struct got *g)
{
	struct journal_read *read = NULL;
	struct err err = {0};
	cr_assert(journal_read_open(b->journal, q, &b->mailbox, on_page, g, &read, &err) == ERR_OK, "%s",
		  err.text);
	return read;
}

/* Everything that a read gives, up to its end, as positions. */
static const char *read_all(struct bench *b, const struct journal_query *q)
{
	static char text[4096];
	struct got g = {0};
	size_t n = 0;
	bool end = false;
	struct journal_read *read = open_read(b, q, &g);
	text[0] = 0;
	while (!end) {
		bench_next(b, read, &g);
		cr_assert(g.page, "%s", g.err.text);
		if (g.page->records)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? " " : "",
					      got_positions(&g));
		end = g.page->end;
	}
	journal_read_close(read);
	got_clear(&g);
	return text;
}

/* a|1: 0 1 3(snapshot) 4; a|2: 2; b|1: 5; $topic-t: 6. Appends: {0 1} {2 3... } and so on. */
static void fill(struct bench *b)
{
	append_ok(b, APPEND({.stream = "a|1", .ids = {1, 2}}));
	append_ok(b, APPEND({.stream = "a|2", .ids = {3}}, {.stream = "a|1", .snapshot = 4}));
	append_ok(b, APPEND({.stream = "a|1", .ids = {5}}));
	append_ok(b, APPEND({.stream = "b|1", .ids = {6}}));
	append_ok(b, APPEND({.stream = "$topic-t", .ids = {7}}));
}

Test(journal, appends_and_says_where)
{
	struct bench b;
	struct done d = {0};
	uint64_t sequence;
	bench_open(&b);
	append_ok(&b, APPEND({.stream = "x", .ids = {1}}));
	b.clock.wall_us += 5;
	bench_append(&b, APPEND({.stream = "x", .ids = {2, 3}, .snapshot = 4}, {.stream = "y", .ids = {5}}),
		     &d);
	const struct append_answer *answer = append_answer(d.append);
	cr_assert(answer->code == ERR_OK);
	cr_assert(!answer->repeated);
	cr_assert(answer->first_position == 1);
	cr_assert(answer->record_count == 4);
	cr_assert(answer->cursor_position == 5);
	cr_assert(answer->commit_time.us == b.clock.wall_us);
	cr_assert(answer->stream_count == 2);
	cr_assert(span_eq_str(append_answer_stream(d.append, 0, &sequence), "x"));
	cr_assert(sequence == 3);
	cr_assert(span_eq_str(append_answer_stream(d.append, 1, &sequence), "y"));
	cr_assert(sequence == 1);
	cr_assert(journal_head(b.journal) == 5);
	struct journal_info info;
	journal_info(b.journal, &info);
	cr_assert(info.head.position == 5);
	cr_assert(info.head.incarnation == 1);
	cr_assert(info.last_commit.us == b.clock.wall_us);
	done_release(&d);
	bench_close(&b);
}

Test(journal, commit_time_never_goes_back)
{
	struct bench b;
	struct done d = {0};
	bench_open(&b);
	append_ok(&b, APPEND({.stream = "x", .ids = {1}}));
	int64_t first = b.clock.wall_us;
	b.clock.wall_us -= 1000;
	bench_append(&b, APPEND({.stream = "x", .ids = {2}}), &d);
	cr_assert(append_answer(d.append)->commit_time.us == first);
	done_release(&d);
	bench_close(&b);
}

Test(journal, reads_streams_categories_and_all_both_ways)
{
	struct bench b;
	bench_open(&b);
	fill(&b);
	const struct {
		struct journal_query q;
		const char *positions;
	} table[] = {
		{{.source = STORAGE_ALL}, "0 1 2 3 4 5"},
		{{.source = STORAGE_ALL, .include_system = true}, "0 1 2 3 4 5 6"},
		{{.source = STORAGE_ALL, .backward = true}, "5 4 3 2 1 0"},
		{{.source = STORAGE_STREAM, .name = SPAN("a|1")}, "0 1 3 4"},
		{{.source = STORAGE_STREAM, .name = SPAN("a|1"), .backward = true}, "4 3 1 0"},
		{{.source = STORAGE_STREAM, .name = SPAN("$topic-t")}, "6"},
		{{.source = STORAGE_STREAM, .name = SPAN("nobody")}, ""},
		{{.source = STORAGE_CATEGORY, .name = SPAN("a")}, "0 1 2 3 4"},
		{{.source = STORAGE_CATEGORY, .name = SPAN("b"), .backward = true}, "5"},
		{{.source = STORAGE_CATEGORY, .name = SPAN("nobody")}, ""},
		{{.source = STORAGE_ALL, .from = FROM_POSITION, .from_value = 2}, "2 3 4 5"},
		{{.source = STORAGE_ALL, .from = FROM_POSITION, .from_value = 2, .backward = true}, "2 1 0"},
		{{.source = STORAGE_ALL, .from = FROM_POSITION, .from_value = 99}, ""},
		{{.source = STORAGE_ALL, .to = TO_POSITION, .to_value = 2}, "0 1 2"},
		{{.source = STORAGE_ALL, .to = TO_POSITION, .to_value = 3, .backward = true}, "5 4 3"},
		{{.source = STORAGE_ALL,
		  .from = FROM_POSITION,
		  .from_value = 1,
		  .to = TO_POSITION,
		  .to_value = 3},
		 "1 2 3"},
		{{.source = STORAGE_STREAM, .name = SPAN("a|1"), .from = FROM_SEQUENCE, .from_value = 2},
		 "1 3 4"},
		{{.source = STORAGE_STREAM, .name = SPAN("a|1"), .from = FROM_SEQUENCE, .from_value = 9}, ""},
		{{.source = STORAGE_STREAM,
		  .name = SPAN("a|1"),
		  .from = FROM_SEQUENCE,
		  .from_value = 2,
		  .backward = true},
		 "3 1 0"},
		{{.source = STORAGE_STREAM, .name = SPAN("a|1"), .to = TO_SEQUENCE, .to_value = 2}, "0 1 3"},
		{{.source = STORAGE_STREAM, .name = SPAN("a|1"), .to = TO_SEQUENCE, .to_value = 0}, ""},
		{{.source = STORAGE_STREAM,
		  .name = SPAN("a|1"),
		  .to = TO_SEQUENCE,
		  .to_value = 2,
		  .backward = true},
		 "4 3 1"},
		{{.source = STORAGE_ALL, .max_records = 2}, "0 1"},
		{{.source = STORAGE_ALL, .max_records = 2, .backward = true}, "5 4"},
		{{.source = STORAGE_ALL, .kinds = 1u << RECORD_SNAPSHOT}, "3"},
		{{.source = STORAGE_ALL,
		  .stream_prefixes = (struct span[]){SPAN("a|2"), SPAN("b")},
		  .stream_prefix_count = 2},
		 "2 5"},
		{{.source = STORAGE_ALL,
		  .stream_prefixes = (struct span[]){SPAN("a")},
		  .stream_prefix_count = 1,
		  .max_records = 3,
		  .backward = true},
		 "4 3 2"},
		{{.source = STORAGE_ALL,
		  .types = (struct span[]){SPAN("type")},
		  .type_count = 1,
		  .kinds = 1u << RECORD_EVENT},
		 "0 1 2 4 5"},
		{{.source = STORAGE_ALL, .types = (struct span[]){SPAN("other")}, .type_count = 1}, ""},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		cr_expect_str_eq(read_all(&b, &table[i].q), table[i].positions, "row %zu: %s", i,
				 read_all(&b, &table[i].q));
	bench_close(&b);
}

Test(journal, says_where_to_go_on)
{
	struct bench b;
	struct got g = {0};
	bench_open(&b);
	fill(&b);
	const struct {
		struct journal_query q;
		uint64_t next;
	} table[] = {
		{{.source = STORAGE_ALL, .include_system = true}, 7},
		{{.source = STORAGE_ALL, .from = FROM_POSITION, .from_value = 99}, 7},
		{{.source = STORAGE_ALL, .max_records = 2}, 2},
		{{.source = STORAGE_ALL, .to = TO_POSITION, .to_value = 2}, 3},
		{{.source = STORAGE_ALL, .backward = true, .max_records = 2}, 3},
		{{.source = STORAGE_ALL,
		  .stream_prefixes = (struct span[]){SPAN("a")},
		  .stream_prefix_count = 1,
		  .max_records = 2},
		 2},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct journal_read *read = open_read(&b, &table[i].q, &g);
		bench_next(&b, read, &g);
		cr_assert(g.page->end);
		cr_expect(g.page->next.position == table[i].next, "row %zu: %llu", i,
			  (unsigned long long)g.page->next.position);
		journal_read_close(read);
	}
	got_clear(&g);
	bench_close(&b);
}

Test(journal, refuses_queries_that_make_no_sense)
{
	struct bench b;
	struct journal_read *read = NULL;
	bench_open(&b);
	const struct journal_query table[] = {
		{.source = STORAGE_STREAM},
		{.source = STORAGE_CATEGORY},
		{.source = STORAGE_CATEGORY, .name = SPAN("a|1")},
		{.source = STORAGE_STREAM, .name = SPAN("\x01")},
		{.source = STORAGE_ALL, .from = FROM_SEQUENCE, .from_value = 1},
		{.source = STORAGE_ALL, .to = TO_SEQUENCE, .to_value = 1},
		{.source = STORAGE_ALL, .live = true, .backward = true},
		{.source = STORAGE_ALL, .live = true, .max_records = 1},
		{.source = STORAGE_ALL, .live = true, .to = TO_POSITION},
		{.source = STORAGE_ALL, .from = FROM_END},
		{.source = STORAGE_ALL, .type_count = LIMIT_READ_FILTERS + 1},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		struct err err = {0};
		cr_expect(journal_read_open(b.journal, &table[i], &b.mailbox, on_page, NULL, &read, &err) ==
				  ERR_INVALID,
			  "row %zu", i);
		cr_expect(err.text[0] != 0);
	}
	bench_close(&b);
}

static const char *load(struct bench *b, const char *stream, bool at, uint64_t at_sequence,
			uint64_t *ret_sequence)
{
	static char text[4096];
	struct got g = {0};
	struct journal_read *read;
	struct journal_load l = {
		.stream = span_str(stream), .has_at_sequence = at, .at_sequence = at_sequence};
	size_t n = 0;
	bool end = false;
	cr_assert(journal_load_open(b->journal, &l, &b->mailbox, on_page, &g, &read, NULL) == ERR_OK);
	text[0] = 0;
	while (!end) {
		bench_next(b, read, &g);
		cr_assert(g.page, "%s", g.err.text);
		if (g.page->records)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? " " : "",
					      got_positions(&g));
		*ret_sequence = g.page->sequence;
		end = g.page->end;
	}
	journal_read_close(read);
	got_clear(&g);
	return text;
}

Test(journal, loads_the_newest_snapshot_and_what_follows)
{
	struct bench b;
	uint64_t sequence;
	bench_open(&b);
	fill(&b);
	cr_expect_str_eq(load(&b, "a|1", false, 0, &sequence), "3 4");
	cr_expect(sequence == 3);
	cr_expect_str_eq(load(&b, "a|1", true, 3, &sequence), "3 4");
	cr_expect_str_eq(load(&b, "a|1", true, 2, &sequence), "3");
	cr_expect(sequence == 3);
	cr_expect_str_eq(load(&b, "a|1", true, 1, &sequence), "0");
	cr_expect_str_eq(load(&b, "a|1", true, 0, &sequence), "");
	cr_expect(sequence == 3);
	cr_expect_str_eq(load(&b, "a|2", false, 0, &sequence), "2");
	cr_expect(sequence == 1);
	cr_expect_str_eq(load(&b, "nobody", false, 0, &sequence), "");
	cr_expect(sequence == 0);
	bench_close(&b);
}

/* ---- cursors and not_before ------------------------------------------------------------------- */

Test(journal, checks_cursors)
{
	struct bench b;
	uint64_t fork = 77;
	struct err err = {0};
	bench_open(&b);
	fill(&b);
	struct journal_cursor c = journal_cursor_at(b.journal, 7);
	cr_assert(journal_cursor_check(b.journal, &c, false, &fork, &err) == ERR_OK);
	cr_assert(fork == 77);
	c.position = 8;
	cr_assert(journal_cursor_check(b.journal, &c, true, &fork, &err) == ERR_OK);
	cr_assert(journal_cursor_check(b.journal, &c, false, &fork, &err) == ERR_CONFLICT);
	cr_assert(fork == 7);
	cr_assert(strstr(err.text, "position 7"));
	c = journal_cursor_at(b.journal, 3);
	c.incarnation = 2;
	cr_assert(journal_cursor_check(b.journal, &c, true, &fork, NULL) == ERR_CONFLICT);
	c = journal_cursor_at(b.journal, 3);
	c.journal_id[0] ^= 1;
	cr_assert(journal_cursor_check(b.journal, &c, true, NULL, NULL) == ERR_INVALID);
	/* And reads use it. */
	struct journal_read *read;
	struct journal_query q = {
		.source = STORAGE_ALL, .from = FROM_CURSOR, .from_cursor = journal_cursor_at(b.journal, 9)};
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, NULL, &read, NULL) == ERR_CONFLICT);
	q.from_cursor = journal_cursor_at(b.journal, 4);
	cr_assert_str_eq(read_all(&b, &q), "4 5");
	bench_close(&b);
}

Test(journal, refuses_cursors_from_before_a_cut_and_beyond_it)
{
	struct bench b;
	struct journal_incarnation cut = {.fork = 3, .reason = SPAN("a backup was restored"), .actor = SPAN("me")};
	struct append_refusal refusal = {0};
	struct append *append;
	uint64_t fork = 0;
	struct err err = {0};
	bench_open(&b);
	fill(&b);
	struct journal_cursor before = journal_cursor_at(b.journal, 3), beyond = journal_cursor_at(b.journal, 4);
	cr_assert(journal_incarnation_new(b.journal, &cut, &append, &refusal) == ERR_OK);
	struct done d = {0};
	bench_append(&b, append, &d);
	cr_assert(d.code == ERR_OK);
	done_release(&d);
	struct journal_cursor now = journal_cursor_at(b.journal, 8);
	cr_assert(now.incarnation == 2);
	cr_assert(journal_cursor_check(b.journal, &now, false, &fork, &err) == ERR_OK);
	cr_assert(journal_cursor_check(b.journal, &before, false, &fork, &err) == ERR_OK);
	cr_assert(journal_cursor_check(b.journal, &beyond, true, &fork, &err) == ERR_CONFLICT);
	cr_assert(fork == 3);
	cr_assert(strstr(err.text, "position 3"));
	struct journal_query q = {.source = STORAGE_ALL, .from = FROM_CURSOR, .from_cursor = before};
	cr_assert_str_eq(read_all(&b, &q), "3 4 5");
	/* It is in the log: the next start knows of it. */
	bench_restart(&b);
	cr_assert(journal_cursor_at(b.journal, 0).incarnation == 2);
	cr_assert(journal_cursor_check(b.journal, &beyond, true, &fork, &err) == ERR_CONFLICT);
	cut.reason = SPAN("");
	cr_assert(journal_incarnation_new(b.journal, &cut, &append, &refusal) == ERR_INVALID);
	bench_close(&b);
}

Test(journal, waits_for_not_before)
{
	struct bench b;
	struct got g = {0};
	bench_open(&b);
	append_ok(&b, APPEND({.stream = "x", .ids = {1}}));
	struct journal_query q = {.source = STORAGE_ALL, .not_before = journal_cursor_at(b.journal, 2)};
	struct journal_read *read = open_read(&b, &q, &g);
	journal_read_next(read);
	bench_run(&b);
	cr_assert(g.calls == 0);
	append_ok(&b, APPEND({.stream = "x", .ids = {2}}));
	bench_run(&b);
	cr_assert(g.calls == 1);
	cr_assert_str_eq(got_positions(&g), "0 1");
	journal_read_close(read);
	got_clear(&g);
	bench_close(&b);
}

Test(journal, gives_up_waiting_for_not_before)
{
	struct bench b;
	struct got g = {0};
	bench_open(&b);
	struct journal_query q = {.source = STORAGE_ALL, .not_before = journal_cursor_at(b.journal, 2)};
	struct journal_read *read = open_read(&b, &q, &g);
	journal_read_next(read);
	bench_run(&b);
	b.clock.mono_us += 4999999;
	bench_run(&b);
	cr_assert(g.calls == 0);
	b.clock.mono_us += 1;
	bench_run(&b);
	cr_assert(g.calls == 1);
	cr_assert(g.err.code == ERR_UNAVAILABLE);
	cr_assert(strstr(g.err.text, "not_before position 2"));
	journal_read_close(read);
	/* One that waits can be closed. */
	read = open_read(&b, &q, &g);
	journal_read_next(read);
	journal_read_close(read);
	got_clear(&g);
	bench_close(&b);
}

/* ---- completion, cancelling, closing ------------------------------------------------------------ */

Test(journal, done_comes_once_and_never_before_the_call_returns)
{
	struct bench b;
	struct done d = {0};
	bench_open(&b);
	struct append *a = APPEND({.stream = "x", .ids = {1}});
	cr_assert(journal_append(b.journal, &a, &b.mailbox, on_done, &d, NULL) == ERR_OK);
	cr_assert(d.calls == 0);
	journal_step(b.journal);
	cr_assert(d.calls == 0); /* only on its mailbox */
	mailbox_drain(&b.mailbox);
	cr_assert(d.calls == 1);
	bench_run(&b);
	cr_assert(d.calls == 1);
	done_release(&d);
	bench_close(&b);
}

Test(journal, an_error_means_that_done_will_not_be_called)
{
	struct bench b;
	struct done d = {0};
	struct err err = {0};
	bench_open(&b);
	struct append *a = APPEND({.stream = "x", .ids = {1}});
	journal_stop(b.journal);
	cr_assert(journal_append(b.journal, &a, &b.mailbox, on_done, &d, &err) == ERR_UNAVAILABLE);
	cr_assert(a != NULL);
	append_unref(a);
	cr_assert(mailbox_drain(&b.mailbox) == 0);
	cr_assert(d.calls == 0);
	bench_close(&b);
}

Test(journal, cancelling_still_calls_done)
{
	struct bench b;
	struct done first = {0}, second = {0};
	bench_open(&b);
	struct append *a = APPEND({.stream = "x", .ids = {1}}), *handle = a;
	struct append *c = APPEND({.stream = "x", .ids = {2}});
	journal_append(b.journal, &a, &b.mailbox, on_done, &first, NULL);
	journal_append(b.journal, &c, &b.mailbox, on_done, &second, NULL);
	cr_assert(journal_append_cancel(b.journal, handle));
	cr_assert(!journal_append_cancel(b.journal, handle));
	cr_assert(first.calls == 0);
	bench_run(&b);
	cr_assert(first.calls == 1);
	cr_assert(first.code == ERR_CANCELLED);
	cr_assert(second.calls == 1);
	cr_assert(second.code == ERR_OK);
	cr_assert(journal_head(b.journal) == 1);
	done_release(&first);
	/* Too late. */
	cr_assert(!journal_append_cancel(b.journal, second.append));
	done_release(&second);
	bench_close(&b);
}

Test(journal, stopping_answers_what_was_accepted)
{
	struct bench b;
	struct done d = {0};
	bench_open(&b);
	struct append *a = APPEND({.stream = "x", .ids = {1}});
	journal_append(b.journal, &a, &b.mailbox, on_done, &d, NULL);
	journal_stop(b.journal);
	mailbox_drain(&b.mailbox);
	cr_assert(d.calls == 1);
	cr_assert(d.code == ERR_OK);
	done_release(&d);
	bench_close(&b);
}

Test(journal, a_read_can_be_closed_at_any_time)
{
	struct bench b;
	struct got g = {0};
	struct journal_query q = {.source = STORAGE_ALL}, live = {.source = STORAGE_ALL, .live = true};
	bench_open(&b);
	fill(&b);
	/* Before and after asking, with the job queued, with the page on its way. */
	journal_read_close(open_read(&b, &q, &g));
	struct journal_read *read = open_read(&b, &q, &g);
	journal_read_next(read);
	journal_read_close(read);
	bench_run(&b);
	read = open_read(&b, &q, &g);
	journal_read_next(read);
	journal_step(b.journal);
	journal_read_close(read);
	bench_run(&b);
	cr_assert(g.calls == 0);
	/* Live: hopping, waiting, just woken. */
	read = open_read(&b, &live, &g);
	bench_next(&b, read, &g);
	journal_read_next(read);
	journal_read_close(read);
	bench_run(&b);
	read = open_read(&b, &live, &g);
	bench_next(&b, read, &g);
	bench_next(&b, read, &g);
	cr_assert(g.page->caught_up);
	journal_read_next(read);
	bench_run(&b);
	journal_read_close(read);
	read = open_read(&b, &live, &g);
	bench_next(&b, read, &g);
	bench_next(&b, read, &g);
	journal_read_next(read);
	struct append *a = APPEND({.stream = "x", .ids = {100}});
	struct done d = {0};
	unsigned calls = g.calls;
	journal_append(b.journal, &a, &b.mailbox, on_done, &d, NULL);
	journal_step(b.journal);
	journal_read_close(read);
	bench_run(&b);
	cr_assert(g.calls == calls);
	done_release(&d);
	got_clear(&g);
	bench_close(&b);
}

/* ---- subscriptions --------------------------------------------------------------------------- */

Test(journal, a_subscription_catches_up_and_goes_on)
{
	struct bench b;
	struct got g = {0};
	struct journal_query q = {.source = STORAGE_STREAM, .name = SPAN("a|1"), .live = true};
	bench_open(&b);
	fill(&b);
	struct journal_read *read = open_read(&b, &q, &g);
	bench_next(&b, read, &g);
	cr_assert_str_eq(got_positions(&g), "0 1 3 4");
	cr_assert(g.page->next.position == 7);
	cr_assert(!g.page->caught_up);
	bench_next(&b, read, &g);
	cr_assert_str_eq(got_positions(&g), "");
	cr_assert(g.page->caught_up); /* once */
	unsigned calls = g.calls;
	journal_read_next(read);
	append_ok(&b, APPEND({.stream = "a|2", .ids = {50}}));
	append_ok(&b, APPEND({.stream = "b|1", .ids = {51}}));
	cr_assert(g.calls == calls); /* not touched, not woken */
	append_ok(&b, APPEND({.stream = "a|1", .ids = {52}}));
	cr_assert(g.calls == calls + 1);
	cr_assert_str_eq(got_positions(&g), "9");
	cr_assert(!g.page->caught_up);
	cr_assert(g.page->next.position == 10);
	/* What came while no page was asked for is in the next. */
	append_ok(&b, APPEND({.stream = "a|1", .ids = {53}}));
	append_ok(&b, APPEND({.stream = "a|1", .ids = {54}}));
	bench_next(&b, read, &g);
	cr_assert_str_eq(got_positions(&g), "10 11");
	journal_read_close(read);
	got_clear(&g);
	bench_close(&b);
}

Test(journal, subscriptions_by_category_and_to_all)
{
	struct bench b;
	struct got all = {0}, category = {0}, system = {0};
	struct journal_query q = {.source = STORAGE_ALL, .live = true, .from = FROM_END};
	bench_open(&b);
	fill(&b);
	struct journal_read *r1 = open_read(&b, &q, &all);
	q.include_system = true;
	struct journal_read *r2 = open_read(&b, &q, &system);
	q.source = STORAGE_CATEGORY;
	q.name = SPAN("a");
	struct journal_read *r3 = open_read(&b, &q, &category);
	bench_next(&b, r1, &all);
	bench_next(&b, r2, &system);
	bench_next(&b, r3, &category);
	cr_assert(all.page->caught_up);
	cr_assert(category.page->caught_up);
	cr_assert(all.page->next.position == 7);
	journal_read_next(r1);
	journal_read_next(r2);
	journal_read_next(r3);
	append_ok(&b, APPEND({.stream = "b|9", .ids = {60}}, {.stream = "a|9", .ids = {61}}));
	cr_assert_str_eq(got_positions(&all), "7 8");
	cr_assert_str_eq(got_positions(&system), "7 8");
	cr_assert_str_eq(got_positions(&category), "8");
	journal_read_next(r1);
	journal_read_next(r2);
	append_ok(&b, APPEND({.stream = "$topic-x", .ids = {62}}));
	cr_assert(all.calls == 2); /* nothing for it */
	cr_assert_str_eq(got_positions(&system), "9");
	journal_read_close(r1);
	journal_read_close(r2);
	journal_read_close(r3);
	got_clear(&all);
	got_clear(&system);
	got_clear(&category);
	bench_close(&b);
}

Test(journal, a_subscription_from_a_position_to_come_is_told_none_that_is_not_there)
{
	struct bench b;
	struct got g = {0}, stream = {0};
	struct journal_query q = {
		.source = STORAGE_ALL, .live = true, .from = FROM_POSITION, .from_value = 9};
	bench_open(&b);
	fill(&b); /* 0 to 6 */
	struct journal_read *r = open_read(&b, &q, &g);
	q.source = STORAGE_STREAM;
	q.name = SPAN("b|9");
	q.from_value = 1000000;
	struct journal_read *far = open_read(&b, &q, &stream);
	bench_next(&b, r, &g);
	cr_expect(g.page->caught_up);
	cr_expect(g.page->next.position == 7);
	bench_next(&b, far, &stream);
	cr_expect(stream.page->next.position == 7);
	journal_read_next(r);
	journal_read_next(far);
	append_ok(&b, APPEND({.stream = "b|9", .ids = {60}}));
	cr_expect(g.calls == 1); /* position 7 is before the one to begin at */
	append_ok(&b, APPEND({.stream = "b|9", .ids = {61, 62, 63}}));
	cr_expect_str_eq(got_positions(&g), "9 10");
	cr_expect(g.page->next.position == 11);
	/* One that waits far away is told now and then how far the log has come. */
	for (unsigned i = 0; i < TAIL_IDLE_RECORDS / 8; i++)
		append_ok(&b, APPEND({.stream = "c|1", .ids = {100 + 8 * i, 101 + 8 * i, 102 + 8 * i,
							       103 + 8 * i, 104 + 8 * i, 105 + 8 * i,
							       106 + 8 * i, 107 + 8 * i}}));
	cr_expect(stream.calls == 2);
	cr_expect(stream.page->records == 0);
	cr_expect(stream.page->next.position > 7);
	cr_expect(stream.page->next.position <= journal_head(b.journal));
	journal_read_close(r);
	journal_read_close(far);
	/* A read says so, too. */
	q.live = false;
	r = open_read(&b, &q, &g);
	bench_next(&b, r, &g);
	cr_expect(g.page->end);
	cr_expect(g.page->next.position == journal_head(b.journal));
	journal_read_close(r);
	got_clear(&g);
	got_clear(&stream);
	bench_close(&b);
}

Test(journal, a_subscription_from_a_sequence_to_come)
{
	struct bench b;
	struct got g = {0};
	struct journal_query q = {.source = STORAGE_STREAM,
				  .name = SPAN("x"),
				  .live = true,
				  .from = FROM_SEQUENCE,
				  .from_value = 3};
	bench_open(&b);
	struct journal_read *read = open_read(&b, &q, &g);
	bench_next(&b, read, &g);
	cr_assert(g.page->caught_up);
	append_ok(&b, APPEND({.stream = "x", .ids = {1, 2}, .snapshot = 3}));
	append_ok(&b, APPEND({.stream = "x", .ids = {4}}));
	bench_next(&b, read, &g);
	cr_assert_str_eq(got_positions(&g), "3");
	journal_read_close(read);
	got_clear(&g);
	bench_close(&b);
}

Test(journal, a_subscription_from_a_position_to_come)
{
	struct bench b;
	struct got all = {0}, stream = {0};
	struct journal_query q = {
		.source = STORAGE_ALL, .live = true, .from = FROM_POSITION, .from_value = 2};
	bench_open(&b);
	struct journal_read *r1 = open_read(&b, &q, &all);
	q.source = STORAGE_STREAM;
	q.name = SPAN("x");
	struct journal_read *r2 = open_read(&b, &q, &stream);
	bench_next(&b, r1, &all);
	bench_next(&b, r2, &stream);
	cr_assert(all.page->caught_up);
	cr_assert(all.page->next.position == 0); /* no cursor is of what is not there */
	journal_read_next(r1);
	journal_read_next(r2);
	append_ok(&b, APPEND({.stream = "x", .ids = {1}}));
	append_ok(&b, APPEND({.stream = "x", .ids = {2}}));
	cr_assert(all.calls == 1);
	cr_assert(stream.calls == 1);
	append_ok(&b, APPEND({.stream = "x", .ids = {3}}));
	cr_assert_str_eq(got_positions(&all), "2");
	cr_assert_str_eq(got_positions(&stream), "2");
	journal_read_close(r1);
	journal_read_close(r2);
	got_clear(&all);
	got_clear(&stream);
	bench_close(&b);
}

Test(journal, a_filtered_subscription_is_told_its_position)
{
	struct bench b;
	struct got g = {0}, quiet = {0};
	struct span types[] = {SPAN("other")};
	struct journal_query q = {.source = STORAGE_ALL, .live = true, .types = types, .type_count = 1};
	struct journal_query stream = {.source = STORAGE_STREAM, .name = SPAN("quiet"), .live = true};
	bench_open(&b);
	struct journal_read *r1 = open_read(&b, &q, &g), *r2 = open_read(&b, &stream, &quiet);
	bench_next(&b, r1, &g);
	bench_next(&b, r2, &quiet);
	cr_assert(g.page->caught_up);
	journal_read_next(r1);
	journal_read_next(r2);
	for (unsigned i = 0; i < 4100; i++)
		append_ok(&b, APPEND({.stream = "x", .ids = {i + 1}}));
	cr_assert(g.calls == 2);
	cr_assert(g.page->records == 0);
	cr_assert(g.page->next.position == 4096);
	/* And so is one that no commit touches. */
	cr_assert(quiet.calls == 2);
	cr_assert(quiet.page->records == 0);
	cr_assert(quiet.page->next.position == 4096);
	journal_read_close(r1);
	journal_read_close(r2);
	got_clear(&g);
	got_clear(&quiet);
	bench_close(&b);
}
