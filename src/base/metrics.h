/* Metrics, defined once in metrics.def: name, kind, labels, help. Counting is one relaxed atomic add,
 * from any thread; the text is Prometheus' exposition format 0.0.4.
 *
 * Rows (metrics.def):  COUNTER(id, "cairn_name_total", "label=\"value\"" or "", "help")
 *                      GAUGE(id, ...)   HISTOGRAM(id, ...) in seconds, observed in microseconds
 * A row without help does not compile. Rows that share a name stand together and differ in labels. */
#ifndef CAIRN_BASE_METRICS_H
#define CAIRN_BASE_METRICS_H

#include <stdint.h>

#include "base/buf.h"

#ifndef METRICS_DEF /* the unit test has rows of its own */
#define METRICS_DEF "base/metrics.def"
#endif

enum metric {
#define COUNTER(id, name, labels, help) METRIC_##id,
#define GAUGE(id, name, labels, help) METRIC_##id,
#define HISTOGRAM(id, name, labels, help) METRIC_##id,
#include METRICS_DEF
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
	METRIC_COUNT
};

void metric_add(enum metric m, int64_t n);	 /* counters (n >= 0) and gauges */
void metric_set(enum metric m, int64_t value);	 /* gauges */
void metric_observe_us(enum metric m, int64_t us); /* histograms */
int64_t metric_get(enum metric m);		 /* value, or a histogram's count */

/* Appends the text of all metrics whose name starts with prefix ("" for all). */
enum err_code metrics_render(struct buf *out, const char *prefix);

#endif
