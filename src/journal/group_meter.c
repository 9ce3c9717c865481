/* How far the groups that are consumed here are: see group_meter.h. */
#include <config.h>

#include "journal/group_meter.h"

#include "base/limits.h"
#include "base/must.h"

#define NAME "cairn_group_lag_records"
#define LINES_MAX 100

void group_meter_init(struct group_meter *m)
{
	must(pthread_mutex_init(&m->lock, NULL) == 0);
	list_init(&m->places);
}

void group_meter_release(struct group_meter *m)
{
	must(list_empty(&m->places));
	pthread_mutex_destroy(&m->lock);
}

void group_meter_add(struct group_meter *m, struct group_place *place)
{
	pthread_mutex_lock(&m->lock);
	list_push_back(&m->places, &place->node);
	pthread_mutex_unlock(&m->lock);
}

void group_meter_set(struct group_place *place, uint64_t below)
{
	atomic_store_explicit(&place->below, below, memory_order_relaxed);
}

void group_meter_remove(struct group_meter *m, struct group_place *place)
{
	pthread_mutex_lock(&m->lock);
	if (list_linked(&place->node))
		list_remove(&place->node);
	pthread_mutex_unlock(&m->lock);
}

/* A name is anything: Prometheus escapes these. */
static enum err_code render_name(struct span name, struct buf *out)
{
	enum err_code code = ERR_OK;

	for (size_t i = 0; i < name.n && !code; i++) {
		if (name.p[i] == '"' || name.p[i] == '\\')
			code = buf_append(out, "\\", 1);
		if (!code)
			code = buf_append(out, &name.p[i], 1);
	}
	return code;
}

static enum err_code render_place(const struct group_place *place, uint64_t lag, struct buf *out)
{
	enum err_code code = buf_printf(out, NAME "{group=\"");

	if (!code)
		code = render_name(place->group, out);
	if (!code)
		code = buf_printf(out, "\",partition=\"%u\"} %llu\n", place->partition, (unsigned long long)lag);
	return code;
}

enum err_code group_meter_render(struct group_meter *m, uint64_t head, struct buf *out)
{
	enum err_code code =
		buf_printf(out, "# HELP " NAME " Records of the journal, of whatever stream, that come after the place "
				"of a group that is consumed here; without labels, the most of those that have no line "
				"of their own.\n# TYPE " NAME " gauge\n");
	uint64_t others = 0;
	size_t n = 0;

	pthread_mutex_lock(&m->lock);
	for (struct list_node *at = list_first(&m->places); at && !code; at = list_next(&m->places, at)) {
		const struct group_place *place = CONTAINER_OF(at, struct group_place, node);
		uint64_t below = atomic_load_explicit(&place->below, memory_order_relaxed);
		uint64_t lag = head > below ? head - below : 0;

		if (n++ < LINES_MAX)
			code = render_place(place, lag, out);
		else
			others = lag > others ? lag : others;
	}
	pthread_mutex_unlock(&m->lock);
	if (!code && n > LINES_MAX)
		code = buf_printf(out, NAME " %llu\n", (unsigned long long)others);
	return code;
}
