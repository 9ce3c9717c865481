#include <config.h>

#include "proxy/management.h"

#include "base/limits.h"
#include "base/metrics.h"

#define METRICS_MAX_BYTES (4 * MIB)

static void answer(struct http_exchange *x, int status, const char *type, struct span body)
{
	struct header header = {SPAN("content-type"), span_str(type)};
	http_respond(x, status, &(struct headers){&header, 1}, body);
}

static void answer_text(struct http_exchange *x, int status, const char *text)
{
	answer(x, status, "text/plain; charset=UTF-8", span_str(text));
}

static struct span path_of(const struct http_request *request)
{
	return span_first(request->target, span_find(request->target, '?'));
}

/* True: it was answered, for it is neither GET nor HEAD. */
static bool refuse_method(struct http_exchange *x, const struct http_request *request)
{
	if (span_eq(request->method, SPAN("GET")) || span_eq(request->method, SPAN("HEAD")))
		return false;
	answer_text(x, 405, "only GET is known here\n");
	return true;
}

static void answer_ready(struct http_exchange *x, const struct management *m)
{
	const char *why_not = "";
	bool ready = m->ready(m->arg, &why_not);
	answer_text(x, ready ? 200 : 503, ready ? "ready\n" : why_not);
}

void management_handle(struct http_exchange *x, const struct http_request *request, void *arg)
{
	const struct management *m = arg;
	struct span path = path_of(request);
	if (refuse_method(x, request))
		return;
	if (span_eq(path, SPAN("/ready")))
		answer_ready(x, m);
	else if (span_eq(path, SPAN("/alive")))
		answer_text(x, 200, "alive\n");
	else
		answer_text(x, 404, "unknown path: this port has /ready and /alive\n");
}

static void answer_metrics(struct http_exchange *x, const struct management *m)
{
	struct buf out;
	buf_init(&out, METRICS_MAX_BYTES);
	if (metrics_render(&out, "cairn_build_info") || metrics_render(&out, "cairn_grpc_") ||
	    stats_render(m->stats(m->arg), &out))
		answer_text(x, 500, "the metrics are too large\n");
	else
		answer(x, 200, "text/plain; version=0.0.4; charset=utf-8", buf_span(&out));
	buf_release(&out);
}

void management_handle_metrics(struct http_exchange *x, const struct http_request *request, void *arg)
{
	const struct management *m = arg;
	struct span path = path_of(request);
	if (refuse_method(x, request))
		return;
	if (span_eq(path, SPAN("/metrics")))
		answer_metrics(x, m);
	else if (span_eq(path, SPAN("/readyz")))
		answer_ready(x, m);
	else if (span_eq(path, SPAN("/healthz")))
		answer_text(x, 200, "alive\n");
	else
		answer_text(x, 404, "unknown path: this port has /metrics, /readyz and /healthz\n");
}

bool management_probe(struct http_exchange *x, const struct http_request *request)
{
	struct span value = headers_get(&request->headers, "k-network-probe");
	struct buf text;
	if (!value.p)
		return false;
	if (span_eq(value, SPAN("queue"))) {
		answer_text(x, 200, "queue");
		return true;
	}
	buf_init(&text, 2 * LIMIT_HEADER_BYTES);
	buf_append_str(&text, "unexpected probe header value: ");
	buf_append_span(&text, value);
	answer(x, 400, "text/plain; charset=UTF-8", buf_span(&text));
	buf_release(&text);
	return true;
}
