#include <config.h>

#include "base/metrics.h"

#include <stdatomic.h>
#include <string.h>

#include "base/must.h"

/* Upper bounds of the buckets in microseconds, 1-2.5-5 a decade; the last bucket takes the rest. */
static const int64_t bounds_us[] = {100,   250,	   500,	   1000,   2500,    5000,    10000,   25000,
				    50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};
#define BUCKETS (ARRAY_LEN(bounds_us) + 1)

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM };
static const char *const kind_names[] = {"counter", "gauge", "histogram"};

struct row {
	enum kind kind;
	const char *name, *labels, *help;
};

static const struct row rows[METRIC_COUNT] = {
#define COUNTER(id, name, labels, help) {KIND_COUNTER, name, labels, "" help},
#define GAUGE(id, name, labels, help) {KIND_GAUGE, name, labels, "" help},
#define HISTOGRAM(id, name, labels, help) {KIND_HISTOGRAM, name, labels, "" help},
#include METRICS_DEF
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

/* Histograms are numbered among themselves, so that counters do not pay for buckets. */
enum histogram {
#define COUNTER(id, name, labels, help)
#define GAUGE(id, name, labels, help)
#define HISTOGRAM(id, name, labels, help) HISTOGRAM_##id,
#include METRICS_DEF
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
	HISTOGRAM_COUNT
};

static const int histogram_of[METRIC_COUNT] = {
#define COUNTER(id, name, labels, help) HISTOGRAM_COUNT,
#define GAUGE(id, name, labels, help) HISTOGRAM_COUNT,
#define HISTOGRAM(id, name, labels, help) HISTOGRAM_##id,
#include METRICS_DEF
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
};

/* The one metrics table of the process. A histogram's value is the sum of what it observed. */
static _Atomic int64_t values[METRIC_COUNT] = {[METRIC_BUILD_INFO] = 1};
static _Atomic int64_t buckets[HISTOGRAM_COUNT + 1][BUCKETS]; /* the last row is nobody's */

static const struct row *row_of(enum metric m)
{
	must((unsigned int)m < METRIC_COUNT);
	return &rows[m];
}

void metric_add(enum metric m, int64_t n)
{
	enum kind kind = row_of(m)->kind;
	must(kind != KIND_HISTOGRAM);
	must(kind == KIND_GAUGE || n >= 0);
	atomic_fetch_add_explicit(&values[m], n, memory_order_relaxed);
}

void metric_set(enum metric m, int64_t value)
{
	must(row_of(m)->kind == KIND_GAUGE);
	atomic_store_explicit(&values[m], value, memory_order_relaxed);
}

void metric_observe_us(enum metric m, int64_t us)
{
	must(row_of(m)->kind == KIND_HISTOGRAM);
	if (us < 0) /* clocks may step; a duration does not */
		us = 0;
	size_t i = 0;
	while (i < ARRAY_LEN(bounds_us) && us > bounds_us[i])
		i++;
	atomic_fetch_add_explicit(&buckets[histogram_of[m]][i], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&values[m], us, memory_order_relaxed);
}

static int64_t bucket_get(enum metric m, size_t i)
{
	return atomic_load_explicit(&buckets[histogram_of[m]][i], memory_order_relaxed);
}

int64_t metric_get(enum metric m)
{
	int64_t count = 0;
	if (row_of(m)->kind != KIND_HISTOGRAM)
		return atomic_load_explicit(&values[m], memory_order_relaxed);
	for (size_t i = 0; i < BUCKETS; i++)
		count += bucket_get(m, i);
	return count;
}

static enum err_code render_histogram(struct buf *out, enum metric m)
{
	const struct row *row = &rows[m];
	const char *comma = row->labels[0] ? "," : "";
	const char *open = row->labels[0] ? "{" : "", *close = row->labels[0] ? "}" : "";
	int64_t count = 0, sum_us = atomic_load_explicit(&values[m], memory_order_relaxed);
	enum err_code e = ERR_OK;
	for (size_t i = 0; i < ARRAY_LEN(bounds_us) && !e; i++) {
		count += bucket_get(m, i);
		e = buf_printf(out, "%s_bucket{%s%sle=\"%g\"} %lld\n", row->name, row->labels, comma,
			       (double)bounds_us[i] / 1e6, (long long)count);
	}
	count += bucket_get(m, BUCKETS - 1); /* read once: the text agrees with itself while others count */
	if (!e)
		e = buf_printf(out, "%s_bucket{%s%sle=\"+Inf\"} %lld\n", row->name, row->labels, comma,
			       (long long)count);
	if (!e)
		e = buf_printf(out, "%s_sum%s%s%s %lld.%06d\n", row->name, open, row->labels, close,
			       (long long)(sum_us / 1000000), (int)(sum_us % 1000000));
	if (!e)
		e = buf_printf(out, "%s_count%s%s%s %lld\n", row->name, open, row->labels, close,
			       (long long)count);
	return e;
}

enum err_code metrics_render(struct buf *out, const char *prefix)
{
	const char *last = "";
	for (int m = 0; m < METRIC_COUNT; m++) {
		const struct row *row = &rows[m];
		enum err_code e = ERR_OK;
		if (!span_starts(span_str(row->name), span_str(prefix)))
			continue;
		if (strcmp(last, row->name) != 0)
			e = buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", row->name, row->help, row->name,
				       kind_names[row->kind]);
		last = row->name;
		if (!e && row->kind == KIND_HISTOGRAM)
			e = render_histogram(out, (enum metric)m);
		else if (!e)
			e = buf_printf(out, row->labels[0] ? "%s{%s} %lld\n" : "%s%s %lld\n", row->name,
				       row->labels, (long long)metric_get((enum metric)m));
		if (e)
			return e;
	}
	return ERR_OK;
}
