/* The reader pool: jobs, positions that are waited for, taking back. And pages: sizes, whole appends. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "journal/reader.h"

struct work {
	struct job job;
	unsigned runs, dones;
	bool in_time;
};

static void work_run(struct job *job, struct storage_reader *reader, bool in_time)
{
	struct work *w = CONTAINER_OF(job, struct work, job);
	cr_assert(reader);
	w->runs++;
	w->in_time = in_time;
}

static void work_done(struct job *job)
{
	CONTAINER_OF(job, struct work, job)->dones++;
}

struct pool_bench {
	struct hand_clock clock;
	struct storage *storage;
	struct pool *pool;
	struct mailbox mailbox;
};

static void pool_bench_open(struct pool_bench *b, unsigned threads)
{
	struct storage_config config = {0};
	*b = (struct pool_bench){0};
	hand_clock_init(&b->clock);
	mailbox_init(&b->mailbox, NULL, NULL);
	cr_assert(storage_open("memory", &config, &b->storage, NULL) == ERR_OK);
	struct pool_config pool = {.storage = b->storage,
				   .clock = threads ? &clock_system : &b->clock.clock,
				   .thread_count = threads};
	cr_assert(pool_new(&pool, &b->pool, NULL) == ERR_OK);
}

static void pool_bench_close(struct pool_bench *b)
{
	pool_stop(b->pool);
	mailbox_drain(&b->mailbox);
	pool_free(b->pool);
	storage_close(b->storage);
	mailbox_release(&b->mailbox);
}

static struct work work_new(struct pool_bench *b)
{
	return (struct work){.job = {.run = work_run, .done = work_done, .mailbox = &b->mailbox}};
}

Test(reader, runs_a_job_and_answers_on_its_mailbox)
{
	struct pool_bench b;
	pool_bench_open(&b, 0);
	struct work w = work_new(&b);
	pool_submit(b.pool, &w.job, 0, 0);
	cr_assert(w.runs == 0);
	cr_assert(pool_step(b.pool));
	cr_assert(w.runs == 1);
	cr_assert(w.in_time);
	cr_assert(w.dones == 0);
	mailbox_drain(&b.mailbox);
	cr_assert(w.dones == 1);
	cr_assert(!pool_step(b.pool));
	pool_bench_close(&b);
}

Test(reader, waits_for_the_head_or_gives_up)
{
	struct pool_bench b;
	pool_bench_open(&b, 0);
	struct work reached = work_new(&b), late = work_new(&b);
	pool_submit(b.pool, &reached.job, 5, 1000);
	pool_submit(b.pool, &late.job, 6, 2000);
	cr_assert(!pool_step(b.pool));
	pool_head_moved(b.pool, 4);
	cr_assert(!pool_step(b.pool));
	pool_head_moved(b.pool, 5);
	cr_assert(pool_step(b.pool));
	cr_assert(reached.runs == 1);
	cr_assert(reached.in_time);
	b.clock.mono_us += 1999;
	cr_assert(!pool_step(b.pool));
	b.clock.mono_us += 1;
	cr_assert(pool_step(b.pool));
	cr_assert(late.runs == 1);
	cr_assert(!late.in_time);
	mailbox_drain(&b.mailbox);
	pool_bench_close(&b);
}

Test(reader, gives_back_what_has_not_begun)
{
	struct pool_bench b;
	pool_bench_open(&b, 0);
	struct work parked = work_new(&b), queued = work_new(&b), run = work_new(&b);
	pool_submit(b.pool, &parked.job, 9, 1000);
	pool_submit(b.pool, &queued.job, 0, 0);
	cr_assert(pool_withdraw(b.pool, &parked.job));
	cr_assert(pool_withdraw(b.pool, &queued.job));
	pool_submit(b.pool, &run.job, 0, 0);
	pool_step(b.pool);
	cr_assert(!pool_withdraw(b.pool, &run.job));
	mailbox_drain(&b.mailbox);
	cr_assert(parked.runs + queued.runs == 0);
	cr_assert(run.dones == 1);
	pool_bench_close(&b);
}

Test(reader, stopping_ends_what_waits)
{
	struct pool_bench b;
	pool_bench_open(&b, 0);
	struct work w = work_new(&b);
	pool_submit(b.pool, &w.job, 9, 1000000);
	pool_stop(b.pool);
	mailbox_drain(&b.mailbox);
	cr_assert(w.dones == 1);
	cr_assert(!w.in_time);
	pool_bench_close(&b);
}

static struct mono_time counting_mono(void *arg)
{
	++*(unsigned *)arg;
	return (struct mono_time){1000};
}

/* Whoever moves the head has nothing to do (and asks no clock) unless someone waits for a position. */
Test(reader, a_head_that_moves_disturbs_nobody_without_need)
{
	struct pool_bench b;
	unsigned asked = 0;
	pool_bench_open(&b, 0);
	b.clock.clock = (struct clock){counting_mono, b.clock.clock.wall_now, &asked};
	struct work w = work_new(&b), waits = work_new(&b);
	pool_submit(b.pool, &w.job, 0, 0);
	pool_head_moved(b.pool, 1);
	cr_assert(asked == 0);
	pool_submit(b.pool, &waits.job, 3, 1000000);
	asked = 0;
	pool_head_moved(b.pool, 2);
	cr_assert(asked == 0);
	pool_head_moved(b.pool, 3);
	cr_assert(asked == 1);
	pool_step(b.pool);
	mailbox_drain(&b.mailbox);
	cr_assert(w.dones == 1);
	cr_assert(waits.dones == 1 && waits.in_time);
	pool_bench_close(&b);
}

/* Each deadline, also one that comes before those that are known. */
Test(reader, deadlines_in_any_order_are_kept)
{
	struct pool_bench b;
	struct work w[8];
	unsigned done = 0;
	pool_bench_open(&b, 2);
	for (size_t i = 0; i < ARRAY_LEN(w); i++)
		w[i] = work_new(&b);
	for (size_t i = 0; i < ARRAY_LEN(w); i++)
		pool_submit(b.pool, &w[i].job, 100, i % 2 ? 60000000 : 40000 - (int64_t)i * 5000);
	for (unsigned i = 0; i < 5000 && done < 4; i++) {
		usleep(1000);
		mailbox_drain(&b.mailbox);
		done = w[0].dones + w[2].dones + w[4].dones + w[6].dones;
	}
	cr_assert(done == 4);
	for (size_t i = 1; i < ARRAY_LEN(w); i += 2)
		cr_assert(w[i].dones == 0);
	pool_bench_close(&b); /* ends those that still wait */
}

Test(reader, threads_wake_for_jobs_heads_and_deadlines)
{
	struct pool_bench b;
	pool_bench_open(&b, 2);
	struct work w[3];
	for (size_t i = 0; i < 3; i++)
		w[i] = work_new(&b);
	pool_submit(b.pool, &w[0].job, 0, 0);
	pool_submit(b.pool, &w[1].job, 3, 60000000);
	pool_submit(b.pool, &w[2].job, 9, 20000);
	pool_head_moved(b.pool, 3);
	for (unsigned i = 0; i < 5000 && w[0].dones + w[1].dones + w[2].dones < 3; i++) {
		usleep(1000);
		mailbox_drain(&b.mailbox);
	}
	cr_assert(w[0].dones == 1);
	cr_assert(w[1].dones == 1);
	cr_assert(w[1].in_time);
	cr_assert(w[2].dones == 1);
	cr_assert(!w[2].in_time);
	pool_bench_close(&b);
}

/* ---- pages ------------------------------------------------------------------------------------------ */

static uint8_t *large_data;

/* An append whose records have so many bytes each, all on one stream of each part. */
static void append_sized(struct bench *b, const struct part *parts, size_t count, size_t bytes)
{
	struct test_request r;
	struct append_refusal refusal;
	struct append *a;
	struct done d = {0};
	if (!large_data)
		large_data = mem_xalloc(LIMIT_RECORD_BYTES);
	request_of(&r, parts, count, NULL, 0);
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < 9; k++)
			r.records[i][k].data = span_of(large_data, bytes);
	cr_assert(append_new(b->journal, &r.request, &a, &refusal) == ERR_OK, "%s", refusal.err.text);
	bench_append(b, a, &d);
	cr_assert(d.code == ERR_OK);
	done_release(&d);
}

/* All pages of a read up to its end (live: until it has caught up): "0 1 | 2". */
static const char *pages(struct bench *b, const struct journal_query *q)
{
	static char text[4096];
	struct got g = {0};
	struct journal_read *read;
	size_t n = 0;
	bool more = true;
	cr_assert(journal_read_open(b->journal, q, &b->mailbox, on_page, &g, &read, NULL) == ERR_OK);
	text[0] = 0;
	while (more) {
		bench_next(b, read, &g);
		cr_assert(g.page, "%s", g.err.text);
		cr_expect(g.page->body.n <= LIMIT_RESPONSE_BYTES || g.page->records == 1);
		if (g.page->records)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? " | " : "",
					      got_positions(&g));
		more = !g.page->end && !g.page->caught_up;
	}
	journal_read_close(read);
	got_clear(&g);
	return text;
}

static void forget_tail(struct bench *b)
{
	/* Another writer's append that was not seen: the tail begins anew, storage is read. */
	fake_write_behind(b->fake, "elsewhere", 999);
	struct done d = {0};
	bench_append(b, append_of(NULL, 0, CONDITIONS({SPAN("x"), APPEND_ANY, 0})), &d);
	done_release(&d);
}

Test(reader, pages_are_a_response_or_one_record)
{
	struct bench b;
	struct journal_query q = {.source = STORAGE_ALL};
	bench_open(&b);
	append_sized(&b, PARTS({.stream = "x", .ids = {1, 2, 3}}), 400 * KIB);
	append_sized(&b, PARTS({.stream = "x", .ids = {4}}), 2 * MIB);
	append_sized(&b, PARTS({.stream = "x", .ids = {5, 6}}), 400 * KIB);
	cr_expect_str_eq(pages(&b, &q), "0 1 | 2 | 3 | 4 5");
	q.backward = true;
	cr_expect_str_eq(pages(&b, &q), "5 4 | 3 | 2 1 | 0");
	/* A snapshot and an event that do not fit into one page. */
	append_sized(&b, PARTS({.stream = "y", .ids = {7}, .snapshot = 8}), 700 * KIB);
	append_sized(&b, PARTS({.stream = "y", .ids = {9}}), 700 * KIB);
	struct got g = {0};
	struct journal_read *read;
	struct journal_load load = {.stream = SPAN("y")};
	cr_assert(journal_load_open(b.journal, &load, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	cr_expect_str_eq(got_positions(&g), "7");
	cr_expect(!g.page->end);
	bench_next(&b, read, &g);
	cr_expect_str_eq(got_positions(&g), "8");
	cr_expect(g.page->end);
	cr_expect(g.page->sequence == 2);
	journal_read_close(read);
	got_clear(&g);
	bench_close(&b);
}

Test(reader, a_snapshot_larger_than_a_page_comes_alone)
{
	struct bench b;
	struct got g = {0};
	struct journal_read *read;
	struct journal_load load = {.stream = SPAN("x")};
	bench_open(&b);
	append_sized(&b, PARTS({.stream = "x", .ids = {1}, .snapshot = 2}), 2 * MIB);
	append_sized(&b, PARTS({.stream = "x", .ids = {3, 4}}), 1);
	cr_assert(journal_load_open(b.journal, &load, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	cr_expect_str_eq(got_positions(&g), "1");
	bench_next(&b, read, &g);
	cr_expect_str_eq(got_positions(&g), "2 3");
	cr_expect(g.page->end);
	cr_expect(g.page->sequence == 3);
	journal_read_close(read);
	got_clear(&g);
	bench_close(&b);
}

Test(reader, a_filtered_page_ends_before_a_record_that_does_not_fit)
{
	struct bench b;
	struct journal_query q = {
		.source = STORAGE_ALL, .types = (struct span[]){SPAN("type")}, .type_count = 1};
	bench_open(&b);
	append_sized(&b, PARTS({.stream = "x", .ids = {1}}), 1000);
	append_sized(&b, PARTS({.stream = "x", .ids = {2}}), 2 * MIB);
	append_sized(&b, PARTS({.stream = "x", .ids = {3, 4}}), 1000);
	cr_expect_str_eq(pages(&b, &q), "0 | 1 | 2 3");
	bench_close(&b);
}

Test(reader, damage_ends_a_read_and_is_named)
{
	struct bench b;
	struct got g = {0};
	struct journal_read *read;
	struct journal_query q = {.source = STORAGE_ALL};
	bench_open(&b);
	append_sized(&b, PARTS({.stream = "x", .ids = {1}}), 1);
	b.fake->reads_fail = true;
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	cr_expect(g.page == NULL);
	cr_expect(g.err.code == ERR_CORRUPT);
	cr_expect(strstr(g.err.text, "fake damage"));
	journal_read_close(read);
	b.fake->reads_fail = false;
	cr_expect_str_eq(pages(&b, &q), "0");
	bench_close(&b);
}

Test(reader, a_stopped_journal_says_so)
{
	struct bench b;
	struct got g = {0};
	struct journal_read *read;
	struct journal_query q = {.source = STORAGE_ALL};
	bench_open(&b);
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	journal_stop(b.journal);
	journal_read_next(read);
	cr_expect(g.calls == 0);
	mailbox_drain(&b.mailbox);
	cr_expect(g.calls == 1);
	cr_expect(g.err.code == ERR_UNAVAILABLE);
	journal_read_close(read);
	got_clear(&g);
	bench_close(&b);
}

Test(reader, survives_every_failing_allocation)
{
	struct bench b;
	struct journal_query q = {.source = STORAGE_ALL, .live = true};
	bench_open(&b);
	append_sized(&b, PARTS({.stream = "x", .ids = {1, 2}}), 1000);
	for (unsigned long n = 1, count = 1; n <= count; n++) {
		struct got g = {0};
		struct journal_read *read;
		cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
		mem_test_fail_at(n);
		bench_next(&b, read, &g); /* from storage */
		count = mem_test_fail_at(0);
		cr_assert(count > 0);
		cr_expect(g.page == NULL && g.err.code == ERR_NOMEM, "allocation %lu of %lu: %s", n, count,
			  g.err.text);
		journal_read_close(read);
		got_clear(&g);
	}
	bench_close(&b);
}

static void append_mixed(struct bench *b)
{
	append_sized(b, PARTS({.stream = "c|x", .ids = {1, 2}}), 300 * KIB); /* 0 1 */
	append_sized(b, PARTS({.stream = "c|x", .ids = {3, 4}}), 300 * KIB); /* 2 3 */
	append_sized(b, PARTS({.stream = "c|x", .ids = {5}}, {.stream = "d", .ids = {6}}), 300 * KIB);
	append_sized(b, PARTS({.stream = "c|x", .ids = {7, 8, 9, 10}}), 300 * KIB); /* 6-9 */
	append_sized(b,
		     PARTS({.stream = "c|x", .ids = {11}}, {.stream = "d", .ids = {12}},
			   {.stream = "c|y", .ids = {13}}),
		     300 * KIB);                                           /* 10-12 */
	append_sized(b, PARTS({.stream = "c|x", .ids = {14}}), 300 * KIB); /* 13 */
	append_sized(b, PARTS({.stream = "c|x", .ids = {15}}), 300 * KIB); /* 14 */
	append_sized(b,
		     PARTS({.stream = "c|x", .ids = {16}}, {.stream = "d", .ids = {17}},
			   {.stream = "c|y", .ids = {18}}),
		     300 * KIB); /* 15-17 */
}

static void append_spread(struct bench *b)
{
	append_sized(b,
		     PARTS({.stream = "c|x", .snapshot = 1}, {.stream = "d", .ids = {2, 3, 4, 5, 6, 7, 8}},
			   {.stream = "e", .ids = {9, 10, 11, 12, 13, 14, 15}},
			   {.stream = "f", .ids = {16, 17, 18, 19, 20, 21, 22}},
			   {.stream = "c|y", .snapshot = 23}),
		     300 * KIB);
}

/* Only what is larger than a page (6 to 9) is divided. */
#define WHOLE_ALL "0 1 | 2 3 | 4 5 | 6 7 8 | 9 | 10 11 12 | 13 14 | 15 16 17"
#define WHOLE_STREAM "0 1 | 2 3 4 | 6 7 8 | 9 10 13 | 14 15"
#define WHOLE_CATEGORY "0 1 | 2 3 4 | 6 7 8 | 9 10 12 | 13 14 | 15 17"

Test(reader, a_subscriber_never_gets_half_an_append_from_storage)
{
	struct bench b;
	bench_open(&b);
	append_mixed(&b);
	forget_tail(&b); /* 18 */
	struct journal_query q = {.source = STORAGE_ALL, .live = true};
	cr_expect_str_eq(pages(&b, &q), WHOLE_ALL " 18");
	q.source = STORAGE_STREAM;
	q.name = SPAN("c|x");
	cr_expect_str_eq(pages(&b, &q), WHOLE_STREAM);
	q.source = STORAGE_CATEGORY;
	q.name = SPAN("c");
	cr_expect_str_eq(pages(&b, &q), WHOLE_CATEGORY);
	bench_close(&b);
}

/* Two events and a snapshot of one stream with 6 MiB of others between them, in one append. */
Test(reader, a_subscriber_gets_an_append_whole_however_much_of_it_is_not_wanted)
{
	struct bench b;
	struct journal_query q = {.source = STORAGE_ALL, .live = true, .kinds = 1u << RECORD_SNAPSHOT};
	bench_open(&b);
	append_spread(&b);
	forget_tail(&b);
	cr_expect_str_eq(pages(&b, &q), "0 22");
	q.source = STORAGE_CATEGORY;
	q.name = SPAN("c");
	cr_expect_str_eq(pages(&b, &q), "0 22");
	bench_close(&b);
}

/* One kind among many: a job looks through a few MiB, then tells how far it is. */
Test(reader, what_one_page_looks_through_is_bounded)
{
	struct bench b;
	struct got g = {0};
	struct journal_read *read;
	bench_open(&b);
	for (unsigned i = 0; i < 20; i++)
		append_sized(&b, PARTS({.stream = i % 2 ? "$schema-x" : "x", .ids = {i + 1}}), MIB);
	for (unsigned i = 0; i < 4; i++) {
		struct journal_query q = {.source = STORAGE_ALL, .backward = i & 1};
		q.kinds = 1u << RECORD_SNAPSHOT;
		q.include_system = i & 2;
		size_t n = 0;
		cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
		do {
			bench_next(&b, read, &g);
			cr_assert(g.page, "%s", g.err.text);
			cr_expect(g.page->records == 0);
			n++;
			if (!g.page->end)
				cr_expect(g.page->next.position == (q.backward ? 19 - 4 * n : 4 * n));
		} while (!g.page->end);
		cr_expect(n == 5);
		journal_read_close(read);
		got_clear(&g);
	}
	bench_close(&b);
}

/* Pages of a live read that has caught up before, up to the head. */
static const char *pages_after(struct bench *b, struct journal_read *read, struct got *g)
{
	static char text[4096];
	size_t n = 0;
	text[0] = 0;
	do {
		bench_next(b, read, g);
		cr_assert(g->page, "%s", g->err.text);
		cr_assert(g->page->records > 0);
		cr_expect(g->page->body.n <= LIMIT_RESPONSE_BYTES || g->page->records == 1);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s", n ? " | " : "", got_positions(g));
	} while (g->page->next.position < journal_head(b->journal));
	return text;
}

Test(reader, a_subscriber_never_gets_half_an_append_from_the_tail)
{
	struct bench b;
	struct got g[3] = {0};
	struct journal_read *read[3];
	const struct journal_query q[3] = {
		{.source = STORAGE_ALL, .live = true, .from = FROM_END},
		{.source = STORAGE_STREAM, .name = SPAN("c|x"), .live = true, .from = FROM_END},
		{.source = STORAGE_CATEGORY, .name = SPAN("c"), .live = true, .from = FROM_END},
	};
	bench_open(&b);
	for (size_t i = 0; i < 3; i++) {
		cr_assert(journal_read_open(b.journal, &q[i], &b.mailbox, on_page, &g[i], &read[i], NULL) ==
			  ERR_OK);
		bench_next(&b, read[i], &g[i]);
		cr_assert(g[i].page->caught_up);
	}
	append_mixed(&b);
	int64_t from_storage = metric_get(METRIC_STORAGE_READ_RECORDS);
	cr_expect_str_eq(pages_after(&b, read[0], &g[0]), WHOLE_ALL);
	cr_expect_str_eq(pages_after(&b, read[1], &g[1]), WHOLE_STREAM);
	cr_expect_str_eq(pages_after(&b, read[2], &g[2]), WHOLE_CATEGORY);
	cr_expect(metric_get(METRIC_STORAGE_READ_RECORDS) == from_storage); /* storage was not asked */
	for (size_t i = 0; i < 3; i++) {
		journal_read_close(read[i]);
		got_clear(&g[i]);
	}
	bench_close(&b);
}

/* ---- lists --------------------------------------------------------------------------------------------- */

struct listed {
	unsigned calls;
	char text[4096];
	bool more;
	struct err err;
};

static void on_list(const struct journal_stream_info *items, size_t count, bool more, const struct err *err,
		    void *arg)
{
	struct listed *l = arg;
	size_t n = 0;
	l->calls++;
	l->more = more;
	if (err)
		l->err = *err;
	for (size_t i = 0; i < count; i++)
		n += (size_t)snprintf(
			l->text + n, sizeof(l->text) - n, "%s%.*s:%llu/%llu@%llu-%llu", i ? " " : "",
			SPAN_ARG(items[i].name), (unsigned long long)items[i].sequence,
			(unsigned long long)items[i].records, (unsigned long long)items[i].first_position,
			(unsigned long long)items[i].last_position);
}

static struct listed list(struct bench *b, const struct journal_list *l)
{
	struct listed listed = {0};
	cr_assert(journal_list_streams(b->journal, l, &b->mailbox, on_list, &listed, NULL) == ERR_OK);
	cr_assert(listed.calls == 0);
	bench_run(b);
	cr_assert(listed.calls == 1);
	return listed;
}

Test(reader, lists_streams_by_name_in_pages)
{
	struct bench b;
	bench_open(&b);
	append_sized(&b, PARTS({.stream = "b", .ids = {1}}, {.stream = "a|2", .ids = {2, 3}, .snapshot = 4}),
		     1);
	append_sized(&b, PARTS({.stream = "$topic-t", .ids = {5}}, {.stream = "!", .ids = {6}}), 1);
	append_sized(&b, PARTS({.stream = "a|1", .ids = {7}}, {.stream = "$topic-u", .ids = {8}}), 1);
	append_sized(&b, PARTS({.stream = "b", .ids = {9}}), 1);
	struct listed l = list(&b, &(struct journal_list){0});
	cr_expect_str_eq(l.text, "!:1/1@5-5 a|1:1/1@6-6 a|2:2/3@1-3 b:2/2@0-8");
	cr_expect(!l.more);
	l = list(&b, &(struct journal_list){.max = 2});
	cr_expect_str_eq(l.text, "!:1/1@5-5 a|1:1/1@6-6");
	cr_expect(l.more);
	l = list(&b, &(struct journal_list){.max = 2, .after = SPAN("a|1")});
	cr_expect_str_eq(l.text, "a|2:2/3@1-3 b:2/2@0-8");
	cr_expect(!l.more);
	l = list(&b, &(struct journal_list){.prefix = SPAN("a|")});
	cr_expect_str_eq(l.text, "a|1:1/1@6-6 a|2:2/3@1-3");
	l = list(&b, &(struct journal_list){.prefix = SPAN("$t"), .max = 1});
	cr_expect_str_eq(l.text, "$topic-t:1/1@4-4");
	cr_expect(l.more);
	l = list(&b, &(struct journal_list){.include_system = true, .max = 3});
	cr_expect_str_eq(l.text, "!:1/1@5-5 $topic-t:1/1@4-4 $topic-u:1/1@7-7");
	cr_expect(l.more);
	bench_close(&b);
}

static struct listed stat_of(struct bench *b, const char *stream, const struct journal_cursor *not_before)
{
	struct listed listed = {0};
	cr_assert(journal_stat(b->journal, span_str(stream), not_before, &b->mailbox, on_list, &listed,
			       NULL) == ERR_OK);
	bench_run(b);
	return listed;
}

Test(reader, tells_one_streams_numbers)
{
	struct bench b;
	bench_open(&b);
	append_sized(&b, PARTS({.stream = "a", .ids = {1, 2}}), 1);
	cr_expect_str_eq(stat_of(&b, "a", NULL).text, "a:2/2@0-1");
	struct listed l = stat_of(&b, "nobody", NULL);
	cr_expect(l.err.code == ERR_NOT_FOUND);
	l = stat_of(&b, "", NULL);
	cr_expect(l.calls == 1);
	cr_expect(l.err.code == ERR_OK);
	/* Waits, and gives up. */
	struct journal_cursor later = journal_cursor_at(b.journal, 3);
	struct listed waits = {0};
	cr_assert(journal_stat(b.journal, SPAN(""), &later, &b.mailbox, on_list, &waits, NULL) == ERR_OK);
	bench_run(&b);
	cr_expect(waits.calls == 0);
	b.clock.mono_us += 6000000;
	bench_run(&b);
	cr_expect(waits.calls == 1);
	cr_expect(waits.err.code == ERR_UNAVAILABLE);
	bench_close(&b);
}
