/* What a consumer group has in hand: see group.h. */
#include <config.h>

#include "journal/group.h"

#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"

enum waiter_state { WAITER_DUE, WAITER_READING, WAITER_SENT };

struct waiter {
	struct span stream; /* owned */
	uint64_t position;  /* at or after it is its next record; SENT: that one */
	int64_t due_us;
	enum waiter_state state;
	bool stale;  /* one of its records was given back since its reading began */
	bool passed; /* the main path has passed one of its records since its reading began */
	size_t index;
};

struct flight { /* a record that is with the consumer */
	uint64_t position;
	struct span stream; /* owned */
	struct waiter *waiter; /* NULL: of the main path */
};

struct group {
	size_t window;
	uint64_t cursor; /* of the main path */
	struct flight *flights;
	size_t flight_count;
	struct map by_stream; /* -> waiter */
	struct waiter **waiters;
	size_t waiter_count, waiter_cap;
	struct waiter *reading; /* or NULL */
	bool moved;
	uint64_t written_below;
};

struct group *group_new(size_t window)
{
	struct group *g = mem_xalloc(sizeof(*g));
	must(window > 0);
	g->window = window;
	g->flights = mem_xalloc(window * sizeof(*g->flights));
	map_init(&g->by_stream);
	return g;
}

static void span_free(struct span s)
{
	mem_free((void *)(uintptr_t)s.p);
}

static struct span span_keep(struct span s)
{
	return span_of(mem_xdup(s.p, s.n), s.n);
}

void group_free(struct group *g)
{
	if (!g)
		return;
	for (size_t i = 0; i < g->flight_count; i++)
		span_free(g->flights[i].stream);
	for (size_t i = 0; i < g->waiter_count; i++) {
		span_free(g->waiters[i]->stream);
		mem_free(g->waiters[i]);
	}
	map_release(&g->by_stream);
	mem_free((void *)g->waiters);
	mem_free(g->flights);
	mem_free(g);
}

/* ---- streams that wait ----------------------------------------------------------------------- */

static struct waiter *waiter_add(struct group *g, struct span stream, uint64_t position, int64_t due_us)
{
	struct waiter *w = mem_xalloc(sizeof(*w));
	if (g->waiter_count == g->waiter_cap) {
		g->waiter_cap = g->waiter_cap ? 2 * g->waiter_cap : 16;
		g->waiters = mem_xrealloc((void *)g->waiters, g->waiter_cap * sizeof(struct waiter *));
	}
	*w = (struct waiter){.stream = span_keep(stream),
			     .position = position,
			     .due_us = due_us,
			     .index = g->waiter_count};
	g->waiters[g->waiter_count++] = w;
	map_put(&g->by_stream, w->stream, w);
	g->moved = true;
	return w;
}

static void waiter_remove(struct group *g, struct waiter *w)
{
	struct waiter *last = g->waiters[--g->waiter_count];
	g->waiters[w->index] = last;
	last->index = w->index;
	map_remove(&g->by_stream, w->stream);
	span_free(w->stream);
	mem_free(w);
	g->moved = true;
}

void group_restore(struct group *g, uint64_t below)
{
	g->cursor = g->written_below = below;
}

bool group_restore_waiting(struct group *g, struct span stream, uint64_t position)
{
	if (map_get(&g->by_stream, stream))
		return false;
	waiter_add(g, stream, position, INT64_MIN);
	g->moved = false;
	return true;
}

/* ---- records that are with the consumer ------------------------------------------------------ */

bool group_has_room(const struct group *g)
{
	return g->flight_count + (g->reading != NULL) < g->window;
}

static void flight_add(struct group *g, uint64_t position, struct span stream, struct waiter *w)
{
	must(g->flight_count < g->window);
	g->flights[g->flight_count++] = (struct flight){position, span_keep(stream), w};
}

/* Order is kept: the first of the main path is the lowest. */
static void flight_remove(struct group *g, size_t i)
{
	span_free(g->flights[i].stream);
	g->flight_count--;
	memmove(&g->flights[i], &g->flights[i + 1], (g->flight_count - i) * sizeof(*g->flights));
}

static size_t flight_find(const struct group *g, uint64_t position)
{
	size_t i = 0;
	while (i < g->flight_count && g->flights[i].position != position)
		i++;
	return i;
}

bool group_offer(struct group *g, uint64_t position, struct span stream)
{
	struct waiter *w = map_get(&g->by_stream, stream);
	must(position >= g->cursor);
	g->cursor = position + 1;
	if (w) {
		w->passed = true;
		return false;
	}
	flight_add(g, position, stream, NULL);
	return true;
}

void group_passed(struct group *g, uint64_t position)
{
	if (position > g->cursor)
		g->cursor = position;
}

bool group_has(const struct group *g, uint64_t position, struct span *ret_stream)
{
	size_t i = flight_find(g, position);
	if (i == g->flight_count)
		return false;
	*ret_stream = g->flights[i].stream;
	return true;
}

bool group_ack(struct group *g, uint64_t position)
{
	size_t i = flight_find(g, position);
	if (i == g->flight_count)
		return false;
	struct waiter *w = g->flights[i].waiter;
	flight_remove(g, i);
	if (w) { /* on with what comes after it in its stream */
		must(w->state == WAITER_SENT);
		w->state = WAITER_DUE;
		w->position = position + 1;
		w->due_us = INT64_MIN;
		g->moved = true;
	}
	return true;
}

/* What was sent of the stream from the position on counts as not sent. */
static void take_back(struct group *g, struct span stream, uint64_t position)
{
	for (size_t i = g->flight_count; i-- > 0;)
		if (g->flights[i].position >= position && span_eq(g->flights[i].stream, stream))
			flight_remove(g, i);
}

enum group_nack group_nack(struct group *g, uint64_t position, int64_t due_us)
{
	size_t i = flight_find(g, position);
	if (i == g->flight_count)
		return GROUP_NOT_THERE;
	struct span stream = g->flights[i].stream;
	struct waiter *w = map_get(&g->by_stream, stream);
	if (!w && g->waiter_count == LIMIT_GROUP_WAITING)
		return GROUP_TOO_MANY_WAIT;
	if (!w)
		w = waiter_add(g, stream, position, due_us);
	w->due_us = due_us;
	w->stale = true;
	take_back(g, w->stream, position);
	if (w->state == WAITER_SENT || position < w->position) {
		w->position = position;
		if (w->state == WAITER_SENT)
			w->state = WAITER_DUE;
	}
	g->moved = true;
	return GROUP_NACKED;
}

/* ---- catching up ----------------------------------------------------------------------------- */

bool group_catch_up(struct group *g, int64_t now_us, struct span *ret_stream, uint64_t *ret_from,
		    uint64_t *ret_below)
{
	if (g->reading || !group_has_room(g))
		return false;
	for (size_t i = 0; i < g->waiter_count; i++) {
		struct waiter *w = g->waiters[i];
		if (w->state != WAITER_DUE || w->due_us > now_us)
			continue;
		w->state = WAITER_READING;
		w->passed = w->stale = false;
		g->reading = w;
		*ret_stream = w->stream;
		*ret_from = w->position;
		*ret_below = g->cursor;
		return true;
	}
	return false;
}

void group_caught(struct group *g, bool found, uint64_t position)
{
	struct waiter *w = g->reading;
	must(w);
	g->reading = NULL;
	w->state = WAITER_DUE;
	if (w->stale)
		return; /* it is read again, from what was given back, when that is due */
	if (found) {
		w->position = position;
		w->state = WAITER_SENT;
		flight_add(g, position, w->stream, w);
	} else if (!w->passed) {
		waiter_remove(g, w);
	}
}

bool group_due(const struct group *g, int64_t *ret_us)
{
	bool any = false;
	for (size_t i = 0; i < g->waiter_count; i++) {
		const struct waiter *w = g->waiters[i];
		if (w->state != WAITER_DUE || (any && w->due_us >= *ret_us))
			continue;
		*ret_us = w->due_us;
		any = true;
	}
	return any;
}

/* ---- what is written down -------------------------------------------------------------------- */

uint64_t group_below(const struct group *g)
{
	for (size_t i = 0; i < g->flight_count && !plant("open-records-forgotten"); i++)
		if (!g->flights[i].waiter)
			return g->flights[i].position;
	return g->cursor;
}

size_t group_waiting_count(const struct group *g)
{
	return g->waiter_count;
}

struct span group_waiting(const struct group *g, size_t i, uint64_t *ret_position)
{
	must(i < g->waiter_count);
	const struct waiter *w = g->waiters[i];
	*ret_position = w->position;
	/* What was sent before the stream came to wait is open yet: who goes on from here gets it too. */
	for (size_t k = 0; k < g->flight_count; k++)
		if (!g->flights[k].waiter && span_eq(g->flights[k].stream, w->stream)) {
			*ret_position = g->flights[k].position;
			break;
		}
	return w->stream;
}

bool group_moved(const struct group *g)
{
	return g->moved || group_below(g) != g->written_below;
}

void group_written(struct group *g)
{
	g->moved = false;
	g->written_below = group_below(g);
}
