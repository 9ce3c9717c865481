/* Reads bounded by time: against what looking at every record says. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/must.h"

#define RECORDS 40

/* Records of streams a and b in turn; several share a time, and hours pass. */
static void fill(struct bench *b, int64_t *times)
{
	for (unsigned i = 0; i < RECORDS; i++) {
		struct done d = {0};
		if (i % 4 == 0)
			b->clock.wall_us += i % 8 == 0 ? 7 : 3600000000;
		times[i] = b->clock.wall_us;
		bench_append(b, APPEND({.stream = i % 2 ? "b" : "a", .ids = {100 + i}}), &d);
		cr_assert(d.code == ERR_OK);
		done_release(&d);
	}
}

/* What a read gives, "0 2 4", page by page. */
static const char *positions_of(struct bench *b, const struct journal_query *q)
{
	static char text[4096];
	struct got g = {0};
	struct err err = {0};
	struct journal_read *read;
	bool end = false;
	text[0] = 0;
	cr_assert(journal_read_open(b->journal, q, &b->mailbox, on_page, &g, &read, &err) == ERR_OK, "%s", err.text);
	while (!end) {
		bench_next(b, read, &g);
		cr_assert(g.page, "%s", g.err.text);
		size_t n = strlen(text);
		snprintf(text + n, sizeof(text) - n, "%s%s", n && g.page->records ? " " : "", got_positions(&g));
		end = g.page->end;
	}
	got_clear(&g);
	journal_read_close(read);
	return text;
}

static const char *model(const int64_t *times, const struct journal_query *q)
{
	static char text[4096];
	size_t n = 0;
	text[0] = 0;
	for (size_t k = 0; k < RECORDS; k++) {
		size_t i = q->backward ? RECORDS - 1 - k : k;
		uint64_t time = (uint64_t)times[i];
		bool from = q->from != FROM_TIME || (q->backward ? time <= q->from_value : time >= q->from_value);
		bool to = q->to != TO_TIME || (q->backward ? time >= q->to_value : time <= q->to_value);
		if (!from || !to || (q->source == STORAGE_STREAM && i % 2))
			continue;
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%zu", n ? " " : "", i);
	}
	return text;
}

Test(read_time, bounds_are_inclusive_in_both_directions)
{
	struct bench b;
	int64_t times[RECORDS];
	bench_open(&b);
	fill(&b, times);
	uint64_t at[64];
	size_t n = 0;
	at[n++] = 0;
	at[n++] = UINT64_MAX;
	for (size_t i = 0; i < RECORDS; i += 4)
		for (int d = -1; d <= 1; d++)
			at[n++] = (uint64_t)(times[i] + d);
	for (unsigned how = 0; how < 8; how++)
		for (size_t i = 0; i < n; i++)
			for (size_t k = 0; k < n; k++) {
				struct journal_query q = {.source = how & 1 ? STORAGE_STREAM : STORAGE_ALL,
							  .name = how & 1 ? SPAN("a") : SPAN(""),
							  .backward = how & 2,
							  .from = FROM_TIME,
							  .from_value = at[i],
							  .to = how & 4 ? TO_TIME : TO_END,
							  .to_value = at[k]};
				const char *got = positions_of(&b, &q), *want = model(times, &q);
				cr_assert_str_eq(got, want, "how %u, from %llu to %llu: %s, expected %s", how,
						 (unsigned long long)at[i], (unsigned long long)at[k], got, want);
				if (!(how & 4))
					break;
			}
	bench_close(&b);
}

Test(read_time, an_empty_journal_has_no_times)
{
	struct bench b;
	bench_open(&b);
	struct journal_query q = {.from = FROM_TIME, .from_value = 1, .to = TO_TIME, .to_value = 2};
	cr_expect_str_eq(positions_of(&b, &q), "");
	q.backward = true;
	cr_expect_str_eq(positions_of(&b, &q), "");
	bench_close(&b);
}

static void append_at(struct bench *b, int64_t wall_us, unsigned id)
{
	struct done d = {0};
	b->clock.wall_us = wall_us;
	bench_append(b, APPEND({.stream = "a", .ids = {id}}), &d);
	cr_assert(d.code == ERR_OK);
	done_release(&d);
}

Test(read_time, a_subscription_from_a_time_to_come_begins_then)
{
	struct bench b;
	struct got g = {0};
	struct journal_read *read;
	bench_open(&b);
	append_at(&b, 1000, 1);
	struct journal_query q = {.live = true, .from = FROM_TIME, .from_value = 3000};
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	cr_expect(g.page->records == 0 && g.page->caught_up);
	unsigned seen = g.calls;
	journal_read_next(read);
	append_at(&b, 2000, 2);
	append_at(&b, 2999, 3);
	append_at(&b, 3000, 4);
	append_at(&b, 3001, 5);
	char all[64] = "";
	for (int i = 0; i < 100 && !strstr(all, "4"); i++) {
		bench_run(&b);
		if (g.calls == seen)
			continue;
		seen = g.calls;
		size_t n = strlen(all);
		snprintf(all + n, sizeof(all) - n, " %s", got_positions(&g));
		journal_read_next(read);
	}
	cr_expect(strstr(all, "3") && strstr(all, "4") && !strstr(all, "2") && !strstr(all, "1"), "%s", all);
	got_clear(&g);
	journal_read_close(read);
	bench_close(&b);
}

Test(read_time, a_subscription_from_a_time_gone_by_replays_from_it)
{
	struct bench b;
	struct got g = {0};
	struct journal_read *read;
	bench_open(&b);
	append_at(&b, 1000, 1);
	append_at(&b, 2000, 2);
	append_at(&b, 3000, 3);
	struct journal_query q = {.live = true, .from = FROM_TIME, .from_value = 1500};
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	cr_expect_str_eq(got_positions(&g), "1 2");
	got_clear(&g);
	journal_read_close(read);
	bench_close(&b);
}
