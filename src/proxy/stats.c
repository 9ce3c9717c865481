#include <config.h>

#include "proxy/stats.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"

static const struct row {
	const char *name, *type, *help;
	size_t offset;
} rows[] = {
#define ROW(field, name, type, help)                                    \
	{                                                               \
		name, type, help, offsetof(struct service_stats, field) \
	}
	ROW(commands, "cairn_proxy_commands_total", "counter", "Commands of clients, forwards and effects."),
	ROW(ok, "cairn_proxy_commands_ok_total", "counter", "Commands that were answered."),
	ROW(failures, "cairn_proxy_commands_failed_total", "counter", "Commands that the function failed."),
	ROW(errors, "cairn_proxy_commands_error_total", "counter",
	    "Commands that ended in an error of the proxy."),
	ROW(time_us, "cairn_proxy_command_time_us_total", "counter",
	    "Time from arrival to end, in microseconds."),
	ROW(waiting, "cairn_proxy_commands_waiting", "gauge", "Commands that are not answered yet."),
	ROW(forwards, "cairn_proxy_forwards_total", "counter", "Forwards that replies asked for."),
	ROW(effects, "cairn_proxy_side_effects_total", "counter", "Side effects that replies asked for."),
	ROW(events, "cairn_proxy_events_total", "counter", "Events made durable."),
	ROW(snapshots, "cairn_proxy_snapshots_total", "counter", "Snapshots made durable."),
	ROW(active, "cairn_proxy_entities_active", "gauge", "Entities in memory."),
	ROW(bytes, "cairn_proxy_entity_bytes", "gauge", "Bytes that the entities in memory hold, about."),
	ROW(activations, "cairn_proxy_activations_total", "counter", "Entity streams opened."),
	ROW(passivations, "cairn_proxy_closes_total", "counter", "Entity streams closed by the proxy."),
	ROW(restarts, "cairn_proxy_resets_total", "counter", "Entity streams reset by the proxy."),
	ROW(delivered, "cairn_proxy_events_delivered_total", "counter",
	    "Events of logs and topics that were delivered."),
	ROW(delivery_failures, "cairn_proxy_event_failures_total", "counter",
	    "Deliveries of events that failed: each comes again, or is parked."),
	ROW(parked, "cairn_proxy_events_parked_total", "counter",
	    "Events that were parked, after 16 tries: what follows them waits for `cairn group replay` or `skip`."),
	ROW(delivering, "cairn_proxy_events_delivering", "gauge", "Events that are being delivered, or wait for it."),
	ROW(delivery_lag_us, "cairn_proxy_event_lag_us", "gauge",
	    "Time from the commit of the event delivered last to the end of its delivery, in microseconds."),
	ROW(published, "cairn_proxy_published_total", "counter", "Replies that were published to topics."),
	ROW(publish_failures, "cairn_proxy_publish_failures_total", "counter",
	    "Replies that could not be published: their calls failed."),
#undef ROW
};

void stats_init(struct stats *s)
{
	map_init(&s->services);
	map_init(&s->topics);
}

static void free_one(struct span key, void *value, void *arg)
{
	struct service_stats *of = value;
	(void)key;
	(void)arg;
	mem_free(of->service);
	mem_free(of);
}

static void free_count(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	mem_free(value);
}

void stats_release(struct stats *s)
{
	map_each(&s->services, free_one, NULL);
	map_release(&s->services);
	map_each(&s->topics, free_count, NULL);
	map_release(&s->topics);
}

void stats_count_published(struct stats *s, struct span topic)
{
	uint64_t *count = map_get(&s->topics, topic);
	if (!count && s->topics.count < LIMIT_TOPICS_COUNTED) {
		count = mem_xalloc(sizeof *count);
		map_put(&s->topics, topic, count);
	}
	if (count)
		++*count;
}

struct service_stats *stats_of(struct stats *s, struct span service)
{
	struct service_stats *of = map_get(&s->services, service);
	if (!of) {
		of = mem_xalloc(sizeof *of);
		of->service = mem_xdup(service.p, service.n);
		of->kind = "";
		map_put(&s->services, service, of);
	}
	return of;
}

struct render {
	struct buf *out;
	const struct row *row;
	enum err_code code;
};

static void render_one(struct span key, void *value, void *arg)
{
	struct render *r = arg;
	const struct service_stats *of = value;
	uint64_t n;
	memcpy(&n, (const char *)value + r->row->offset, sizeof n);
	if (!r->code)
		r->code = buf_printf(r->out, "%s{service=\"%.*s\",kind=\"%s\"} %llu\n", r->row->name, SPAN_ARG(key),
				     of->kind, (unsigned long long)n);
}

/* A label's value is anything: Prometheus escapes these. */
static enum err_code put_label(struct buf *out, struct span value)
{
	enum err_code code = ERR_OK;
	for (size_t i = 0; i < value.n && !code; i++)
		code = buf_printf(out, value.p[i] == '"' || value.p[i] == '\\' ? "\\%c" : "%c", value.p[i]);
	return code;
}

static void render_topic(struct span topic, void *value, void *arg)
{
	struct render *r = arg;
	const uint64_t *count = value;
	if (!r->code)
		r->code = buf_printf(r->out, "cairn_proxy_topic_published_total{topic=\"");
	if (!r->code)
		r->code = put_label(r->out, topic);
	if (!r->code)
		r->code = buf_printf(r->out, "\"} %llu\n", (unsigned long long)*count);
}

enum err_code stats_render(const struct stats *s, struct buf *out)
{
	struct map topics = s->topics;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct map services = s->services;
		struct render r = {.out = out, .row = &rows[i]};
		r.code = buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", rows[i].name, rows[i].help,
				    rows[i].name, rows[i].type);
		map_each(&services, render_one, &r);
		if (r.code)
			return r.code;
	}
	struct render r = {.out = out};
	r.code = buf_printf(out, "# HELP cairn_proxy_topic_published_total Events published to the topic.\n"
				 "# TYPE cairn_proxy_topic_published_total counter\n");
	map_each(&topics, render_topic, &r);
	return r.code;
}
