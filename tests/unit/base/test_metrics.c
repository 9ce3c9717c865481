#include <config.h>

/* The code under test, with rows of every kind instead of the program's. */
#define METRICS_DEF "tests/unit/base/metrics_test.def"
#include "base/metrics.c"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "base/mem.h"

static struct buf text;

static const char *render(const char *prefix)
{
	buf_release(&text);
	buf_init(&text, 1 << 20);
	cr_assert(metrics_render(&text, prefix) == ERR_OK);
	return buf_cstr(&text);
}

static int count_of(const char *all, const char *part)
{
	int n = 0;
	for (; (all = strstr(all, part)); all++)
		n++;
	return n;
}

Test(metrics, counters_and_gauges)
{
	metric_add(METRIC_OK, 3);
	metric_add(METRIC_OK, 0);
	metric_add(METRIC_OPEN, 5);
	metric_add(METRIC_OPEN, -2);
	cr_assert(metric_get(METRIC_OK) == 3);
	cr_assert(metric_get(METRIC_BAD) == 0);
	cr_assert(metric_get(METRIC_OPEN) == 3);
	metric_set(METRIC_OPEN, -7);
	cr_assert_str_eq(render("t_o"), "# HELP t_open What is open.\n# TYPE t_open gauge\nt_open -7\n");
	cr_assert_str_eq(render("t_c"), "# HELP t_calls_total Calls by code.\n# TYPE t_calls_total counter\n"
					"t_calls_total{code=\"ok\"} 3\nt_calls_total{code=\"bad\"} 0\n");
	cr_assert(strstr(render(""), "t_build_info{version=\"1\"} 1\n"));
	cr_assert_str_eq(render("zzz"), "");
}

Test(metrics, histogram_is_cumulative_and_in_seconds)
{
	static const int64_t observed[] = {-5, 0, 100, 101, 2500, 9999999, 10000000, 10000001, 3600000000};
	for (size_t i = 0; i < ARRAY_LEN(observed); i++)
		metric_observe_us(METRIC_WAIT, observed[i]);
	cr_assert(metric_get(METRIC_WAIT) == 9);
	const char *all = render("t_wait");
	cr_assert(count_of(all, "t_wait_seconds_bucket{le=\"") == 17);
	cr_assert(count_of(all, "# TYPE t_wait_seconds histogram\n") == 1);
	cr_assert(strstr(all, "_bucket{le=\"0.0001\"} 3\n"), "%s", all);
	cr_assert(strstr(all, "_bucket{le=\"0.00025\"} 4\n"), "%s", all);
	cr_assert(strstr(all, "_bucket{le=\"0.001\"} 4\n"), "%s", all);
	cr_assert(strstr(all, "_bucket{le=\"0.0025\"} 5\n"), "%s", all);
	cr_assert(strstr(all, "_bucket{le=\"5\"} 5\n"), "%s", all);
	cr_assert(strstr(all, "_bucket{le=\"10\"} 7\n"), "%s", all);
	cr_assert(strstr(all, "_bucket{le=\"+Inf\"} 9\n"), "%s", all);
	cr_assert(strstr(all, "t_wait_seconds_sum 3630.002701\n"), "%s", all);
	cr_assert(strstr(all, "t_wait_seconds_count 9\n"), "%s", all);
	metric_observe_us(METRIC_SYNC, 1500000);
	all = render("u_");
	cr_assert(strstr(all, "u_sync_seconds_bucket{disk=\"a\",le=\"2.5\"} 1\n"), "%s", all);
	cr_assert(strstr(all, "u_sync_seconds_sum{disk=\"a\"} 1.500000\n"), "%s", all);
	cr_assert(strstr(all, "u_sync_seconds_count{disk=\"a\"} 1\n"), "%s", all);
}

static void *count_many(void *arg)
{
	(void)arg;
	for (int i = 0; i < 10000; i++) {
		metric_add(METRIC_OK, 1);
		metric_observe_us(METRIC_WAIT, i);
	}
	return NULL;
}

Test(metrics, threads_lose_no_count)
{
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, count_many, NULL);
	for (int i = 0; i < 20; i++)
		render("");
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	cr_assert(metric_get(METRIC_OK) == 40000);
	cr_assert(metric_get(METRIC_WAIT) == 40000);
}

Test(metrics, a_full_buffer_is_said)
{
	size_t whole = strlen(render(""));
	for (size_t max = 1; max < whole; max++) {
		struct buf small;
		buf_init(&small, max);
		cr_assert(metrics_render(&small, "") == ERR_LIMIT);
		buf_release(&small);
	}
	mem_test_fail_at(1);
	struct buf b;
	buf_init(&b, 1000);
	cr_assert(metrics_render(&b, "") == ERR_NOMEM);
	mem_test_fail_at(0);
}

Test(metrics, a_counter_never_falls, .signal = SIGABRT)
{
	metric_add(METRIC_OK, -1);
}
Test(metrics, a_counter_is_never_set, .signal = SIGABRT)
{
	metric_set(METRIC_OK, 1);
}
Test(metrics, a_gauge_is_not_observed, .signal = SIGABRT)
{
	metric_observe_us(METRIC_OPEN, 1);
}
Test(metrics, a_histogram_is_not_added_to, .signal = SIGABRT)
{
	metric_add(METRIC_WAIT, 1);
}

/* The program's own rows. */
static const struct row real_rows[] = {
#define COUNTER(id, name, labels, help) {KIND_COUNTER, name, labels, "" help},
#define GAUGE(id, name, labels, help) {KIND_GAUGE, name, labels, "" help},
#define HISTOGRAM(id, name, labels, help) {KIND_HISTOGRAM, name, labels, "" help},
#include "base/metrics.def"
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

static bool ends_with(const char *name, const char *end)
{
	return strlen(name) > strlen(end) && strcmp(name + strlen(name) - strlen(end), end) == 0;
}

Test(metrics, rows_follow_the_naming_of_prometheus)
{
	for (size_t i = 0; i < ARRAY_LEN(real_rows); i++) {
		const struct row *row = &real_rows[i];
		cr_assert(strncmp(row->name, "cairn_", 6) == 0, "%s", row->name);
		cr_assert(row->name[strspn(row->name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == 0, "%s",
			  row->name);
		cr_assert(strlen(row->help) > 10, "%s: the help says nothing", row->name);
		cr_assert(!strpbrk(row->help, "\\\n"), "%s: the help would need escapes", row->name);
		cr_assert((row->kind == KIND_COUNTER) == ends_with(row->name, "_total"), "%s", row->name);
		if (row->kind == KIND_HISTOGRAM)
			cr_assert(ends_with(row->name, "_seconds"), "%s", row->name);
	}
}

Test(metrics, rows_that_share_a_name_stand_together_and_differ_in_labels)
{
	for (size_t i = 0; i < ARRAY_LEN(real_rows); i++)
		for (size_t k = 0; k < i; k++) {
			const struct row *a = &real_rows[k], *b = &real_rows[i];
			if (strcmp(a->name, b->name) != 0)
				continue;
			cr_assert(strcmp(a->name, real_rows[i - 1].name) == 0, "%s", a->name);
			cr_assert(strcmp(a->labels, b->labels) != 0, "%s{%s} is there twice", a->name,
				  a->labels);
			cr_assert(a->kind == b->kind && strcmp(a->help, b->help) == 0, "%s", a->name);
		}
}
