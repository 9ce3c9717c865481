/* What a consumer group has in hand: see group.h. */
#include <config.h>

#include "journal/group.h"

#include "base/limits.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"

#define NOT_PARKED UINT64_MAX

enum waiter_state { WAITER_DUE, WAITER_READING, WAITER_SENT, WAITER_PARKED };

struct waiter {
	struct span stream; /* owned */
	uint64_t position;  /* at or after it is its next record; SENT, PARKED: that one */
	uint64_t park_at;   /* the stream waits there, once it has come so far; or NOT_PARKED */
	bool skip;	    /* but passes that one over */
	bool alone;	    /* of the record at the position alone: its stream goes on */
	int64_t due_us;
	enum waiter_state state;
	bool sleeps; /* DUE, but nothing is to be read before the main path passes one of its records */
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
	struct map by_stream; /* -> waiter of the stream */
	struct map by_position; /* -> waiter of one record alone; keys are 8 bytes */
	struct waiter **waiters;
	size_t waiter_count, waiter_cap;
	struct waiter *reading; /* or NULL */
	uint64_t reading_below;
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
	map_init(&g->by_position);
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
	map_release(&g->by_position);
	mem_free((void *)g->waiters);
	mem_free(g->flights);
	mem_free(g);
}

/* ---- streams that wait ----------------------------------------------------------------------- */

static struct span position_key(const uint64_t *position)
{
	return span_of(position, sizeof(*position));
}

static struct waiter *alone_at(const struct group *g, uint64_t position)
{
	return map_get(&g->by_position, position_key(&position));
}

static struct waiter *waiter_add(struct group *g, struct span stream, uint64_t position, bool alone)
{
	struct waiter *w = mem_xalloc(sizeof(*w));
	if (g->waiter_count == g->waiter_cap) {
		g->waiter_cap = g->waiter_cap ? 2 * g->waiter_cap : 16;
		g->waiters = mem_xrealloc((void *)g->waiters, g->waiter_cap * sizeof(struct waiter *));
	}
	*w = (struct waiter){.stream = span_keep(stream),
			     .position = position,
			     .park_at = NOT_PARKED,
			     .alone = alone,
			     .due_us = INT64_MIN,
			     .index = g->waiter_count};
	g->waiters[g->waiter_count++] = w;
	if (alone)
		map_put(&g->by_position, position_key(&position), w);
	else
		map_put(&g->by_stream, w->stream, w);
	g->moved = true;
	return w;
}

static void waiter_remove(struct group *g, struct waiter *w)
{
	struct waiter *last = g->waiters[--g->waiter_count];
	g->waiters[w->index] = last;
	last->index = w->index;
	if (alone_at(g, w->position) == w)
		map_remove(&g->by_position, position_key(&w->position));
	if (map_get(&g->by_stream, w->stream) == w)
		map_remove(&g->by_stream, w->stream);
	span_free(w->stream);
	mem_free(w);
	g->moved = true;
}

static void waiter_wake(struct group *g, struct waiter *w)
{
	w->state = WAITER_DUE;
	w->sleeps = false;
	w->due_us = INT64_MIN;
	g->moved = true;
}

void group_restore(struct group *g, uint64_t below)
{
	g->cursor = g->written_below = below;
}

bool group_restore_waiting(struct group *g, const struct group_mark *mark)
{
	if (mark->alone ? alone_at(g, mark->position) : map_get(&g->by_stream, mark->stream))
		return false;
	struct waiter *w = waiter_add(g, mark->stream, mark->position, mark->alone);
	if (mark->parked) {
		w->park_at = mark->parked_at;
		w->skip = mark->skip;
		if (w->park_at == w->position && (!w->skip || w->alone))
			w->state = WAITER_PARKED;
	}
	g->moved = false;
	return true;
}

/* ---- records that are with the consumer ------------------------------------------------------ */

bool group_is_busy(const struct group *g)
{
	return g->flight_count > 0 || g->reading;
}

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

/* The record was put aside alone: its stream goes on without it. */
static bool is_aside(struct group *g, uint64_t position)
{
	struct waiter *alone = alone_at(g, position);
	if (alone && alone->skip)
		waiter_remove(g, alone);
	return alone != NULL;
}

bool group_offer(struct group *g, uint64_t position, struct span stream)
{
	struct waiter *w = map_get(&g->by_stream, stream);
	must(position >= g->cursor);
	g->cursor = position + 1;
	bool is_behind = w && position >= w->position; /* it comes to this record, too */
	if (!is_behind && is_aside(g, position))
		return false;
	if (w && !(w->state == WAITER_PARKED && plant("stream-goes-on-behind-a-parked-record"))) {
		w->passed = true;
		w->sleeps = false;
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
	if (w && w->alone) {
		waiter_remove(g, w);
	} else if (w) { /* on with what comes after it in its stream */
		must(w->state == WAITER_SENT);
		w->position = position + 1;
		waiter_wake(g, w);
	}
	return true;
}

/* What was sent of the stream from the position on counts as not sent. */
static void take_back(struct group *g, struct span stream, uint64_t position)
{
	for (size_t i = g->flight_count; i-- > 0;)
		if (g->flights[i].position >= position && span_eq(g->flights[i].stream, stream) &&
		    !(g->flights[i].waiter && g->flights[i].waiter->alone))
			flight_remove(g, i);
}

/* It waits from the position on, if it had come so far. */
static void waiter_set_back(struct waiter *w, uint64_t position)
{
	w->stale = true;
	w->sleeps = false;
	if (w->state == WAITER_PARKED && position < w->position)
		w->state = WAITER_DUE;
	if (w->state == WAITER_SENT && position <= w->position)
		w->state = WAITER_DUE;
	if (position < w->position)
		w->position = position;
}

enum group_nack group_nack(struct group *g, uint64_t position, int64_t due_us)
{
	size_t i = flight_find(g, position);
	if (i == g->flight_count)
		return GROUP_NOT_THERE;
	struct waiter *w = g->flights[i].waiter;
	if (w && w->alone) { /* its stream does not wait for it */
		flight_remove(g, i);
		waiter_wake(g, w);
		w->due_us = due_us;
		return GROUP_NACKED;
	}
	w = map_get(&g->by_stream, g->flights[i].stream);
	if (!w && g->waiter_count == LIMIT_GROUP_WAITING)
		return GROUP_TOO_MANY_WAIT;
	if (!w)
		w = waiter_add(g, g->flights[i].stream, position, false);
	waiter_set_back(w, position);
	take_back(g, w->stream, position);
	w->due_us = due_us;
	g->moved = true;
	return GROUP_NACKED;
}

/* ---- parked records -------------------------------------------------------------------------- */

static enum group_nack park_alone(struct group *g, struct span stream, uint64_t position)
{
	struct waiter *w = alone_at(g, position);
	size_t i = flight_find(g, position);
	if (!w && g->waiter_count == LIMIT_GROUP_WAITING)
		return GROUP_TOO_MANY_WAIT;
	if (!w)
		w = waiter_add(g, stream, position, true);
	if (i < g->flight_count && g->flights[i].waiter == w)
		flight_remove(g, i);
	else
		group_ack(g, position); /* its stream goes on */
	w->state = WAITER_PARKED;
	w->park_at = position;
	w->stale = true; /* if it is being read */
	g->moved = true;
	return GROUP_NACKED;
}

static enum group_nack park_stream(struct group *g, struct span stream, uint64_t position)
{
	struct waiter *w = map_get(&g->by_stream, stream);
	if (!w && g->waiter_count == LIMIT_GROUP_WAITING)
		return GROUP_TOO_MANY_WAIT;
	if (!w) /* the main path may not have come so far: then what is before it comes by the waiter, too */
		w = waiter_add(g, stream, position < g->cursor ? position : g->cursor, false);
	waiter_set_back(w, position);
	take_back(g, w->stream, position);
	if (position < w->park_at) {
		w->park_at = position;
		w->skip = false;
	}
	if (w->park_at == w->position && w->state == WAITER_DUE && !w->skip)
		w->state = WAITER_PARKED;
	g->moved = true;
	return GROUP_NACKED;
}

enum group_nack group_park(struct group *g, struct span stream, uint64_t position, bool goes_on)
{
	struct waiter *w = map_get(&g->by_stream, stream), *alone = alone_at(g, position);
	bool sent = flight_find(g, position) < g->flight_count;
	if (!sent && !alone && position < (w ? w->position : g->cursor))
		return GROUP_NOT_THERE;
	struct span kept = span_keep(stream); /* it may be a flight's */
	enum group_nack result =
		goes_on || alone ? park_alone(g, kept, position) : park_stream(g, kept, position);
	span_free(kept);
	return result;
}

static bool is_chosen(const struct waiter *w, const struct group_choice *choice)
{
	if (w->park_at == NOT_PARKED || w->skip || (choice->by_position && w->park_at != choice->position))
		return false;
	return !choice->stream.n || span_eq(w->stream, choice->stream);
}

size_t group_unpark(struct group *g, const struct group_choice *choice)
{
	size_t n = 0;
	for (size_t i = g->waiter_count; i-- > 0;) {
		struct waiter *w = g->waiters[i];
		if (!is_chosen(w, choice))
			continue;
		n++;
		g->moved = true;
		if (choice->skip && w->alone && w->position < g->cursor) {
			waiter_remove(g, w);
			continue;
		}
		if (choice->skip)
			w->skip = true; /* passed over when it comes there */
		else
			w->park_at = NOT_PARKED;
		if (!choice->skip && plant("replay-loses-what-waited"))
			w->alone = true;
		if (w->state == WAITER_PARKED && !(w->alone && w->skip))
			waiter_wake(g, w);
	}
	return n;
}

/* ---- catching up ----------------------------------------------------------------------------- */

/* To be read on, sooner or later. */
static bool is_due(const struct group *g, const struct waiter *w)
{
	return w->state == WAITER_DUE && !w->sleeps && !(w->alone && w->position >= g->cursor);
}

bool group_catch_up(struct group *g, int64_t now_us, struct span *ret_stream, uint64_t *ret_from,
		    uint64_t *ret_below)
{
	if (g->reading || !group_has_room(g))
		return false;
	for (size_t i = 0; i < g->waiter_count; i++) {
		struct waiter *w = g->waiters[i];
		if (!is_due(g, w) || w->due_us > now_us)
			continue;
		w->state = WAITER_READING;
		w->passed = w->stale = false;
		g->reading = w;
		*ret_stream = w->stream;
		*ret_from = w->position;
		*ret_below = g->reading_below = g->cursor;
		return true;
	}
	return false;
}

static void caught_record(struct group *g, struct waiter *w, uint64_t position)
{
	bool is_parked = position == w->park_at;
	w->position = position;
	if (position >= w->park_at && !(is_parked && !w->skip))
		w->park_at = NOT_PARKED; /* to be skipped, or gone */
	if (is_parked && !w->skip) {
		w->state = WAITER_PARKED;
	} else if ((!w->alone && is_aside(g, position)) || (is_parked && w->skip)) {
		w->position = position + 1;
		g->moved = true;
	} else {
		w->state = WAITER_SENT;
		flight_add(g, position, w->stream, w);
	}
	if (w->park_at == NOT_PARKED)
		w->skip = false;
}

/* It is yet to come, or gone. */
static void caught_none_before_parked(struct group *g, struct waiter *w)
{
	if (g->reading_below > w->position)
		w->position = g->reading_below;
	g->moved = true;
	if (w->park_at >= g->reading_below) {
		w->sleeps = !w->passed;
		return;
	}
	w->park_at = NOT_PARKED;
	w->skip = false;
}

void group_caught(struct group *g, bool found, uint64_t position)
{
	struct waiter *w = g->reading;
	must(w);
	g->reading = NULL;
	w->state = WAITER_DUE;
	if (w->stale) { /* it is read again, from what was given back, when that is due */
		if (w->park_at == w->position && !w->skip)
			w->state = WAITER_PARKED;
		return;
	}
	if (w->alone && (!found || position != w->position))
		waiter_remove(g, w); /* it is gone */
	else if (found)
		caught_record(g, w, position);
	else if (w->park_at != NOT_PARKED)
		caught_none_before_parked(g, w);
	else if (!w->passed)
		waiter_remove(g, w);
}

bool group_due(const struct group *g, int64_t *ret_us)
{
	bool any = false;
	for (size_t i = 0; i < g->waiter_count; i++) {
		const struct waiter *w = g->waiters[i];
		if (!is_due(g, w) || (any && w->due_us >= *ret_us))
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

void group_waiting(const struct group *g, size_t i, struct group_mark *ret)
{
	must(i < g->waiter_count);
	const struct waiter *w = g->waiters[i];
	*ret = (struct group_mark){.stream = w->stream,
				   .position = w->position,
				   .parked = w->park_at != NOT_PARKED,
				   .parked_at = w->park_at,
				   .skip = w->skip,
				   .alone = w->alone};
	/* What was sent before the stream came to wait is open yet: who goes on from here gets it too. */
	for (size_t k = 0; k < g->flight_count && !w->alone; k++)
		if (!g->flights[k].waiter && span_eq(g->flights[k].stream, w->stream)) {
			ret->position = g->flights[k].position;
			break;
		}
}

size_t group_parked_count(const struct group *g)
{
	size_t n = 0;
	for (size_t i = 0; i < g->waiter_count; i++)
		n += g->waiters[i]->park_at != NOT_PARKED && !g->waiters[i]->skip;
	return n;
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
