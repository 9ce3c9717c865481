/* The rows of sessions: see watch.h. */
#include <config.h>

#include "journal/watch.h"

#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/act.h"
#include "journal/session.h"

#define LOOK_MIN_US ((int64_t)20000)
#define LOOK_MAX_US ((int64_t)1000000)

struct watch {
	struct storage *storage;
	struct ledger *ledger;
	const struct clock *clock;
	uint64_t seed[2];

	struct mono_time looked; /* when last */
	uint32_t min_ttl_ms;     /* of those that lived then */
	bool failing;            /* the rows cannot be read, and that has been said */

	/* The rows of one call. */
	struct storage_session *rows;
	size_t count, cap;
	struct map index; /* id -> index in rows + 1 */
	bool indexed;
};

/* ---- a list of rows -------------------------------------------------------------------------- */

static void rows_clear(struct watch *w)
{
	w->count = 0;
	if (w->indexed)
		map_release(&w->index);
	map_init(&w->index);
	w->indexed = true;
}

static size_t rows_add(struct watch *w, const uint8_t *id, uint32_t ttl_ms)
{
	struct span key = span_of(id, RECORD_ID_BYTES);
	size_t at = (size_t)(uintptr_t)map_get(&w->index, key);
	if (at)
		return at - 1;
	if (w->count == w->cap) {
		w->cap = w->cap ? 2 * w->cap : 16;
		w->rows = mem_xrealloc(w->rows, w->cap * sizeof(*w->rows));
	}
	w->rows[w->count] = (struct storage_session){.ttl_ms = ttl_ms};
	memcpy(w->rows[w->count].id, id, RECORD_ID_BYTES);
	map_put(&w->index, key, (void *)(uintptr_t)(w->count + 1));
	return w->count++;
}

static const struct storage_session *rows_find(const struct watch *w, const uint8_t *id)
{
	size_t at = (size_t)(uintptr_t)map_get(&w->index, span_of(id, RECORD_ID_BYTES));
	must(at > 0);
	return &w->rows[at - 1];
}

static void add_session(struct ledger_session *s, void *arg)
{
	rows_add(arg, s->id, s->ttl_ms);
}

enum err_code watch_new(struct storage *storage, struct ledger *ledger, const struct clock *clock,
			const uint64_t seed[2], struct watch **ret, struct err *err)
{
	struct watch *w = mem_xalloc(sizeof(*w));
	w->storage = storage;
	w->ledger = ledger;
	w->clock = clock;
	memcpy(w->seed, seed, sizeof(w->seed));
	w->looked = clock_mono(clock);
	rows_clear(w);
	ledger_each_session(ledger, add_session, w);
	enum err_code code = storage_session_beat(storage, STORAGE_BEAT_MAKE, w->rows, w->count, err);
	if (code) {
		watch_free(w);
		return code;
	}
	*ret = w;
	return ERR_OK;
}

void watch_free(struct watch *w)
{
	if (!w)
		return;
	map_release(&w->index);
	mem_free(w->rows);
	mem_free(w);
}

/* ---- for acts -------------------------------------------------------------------------------- */

enum err_code watch_read(struct watch *w, struct append **appends, size_t count, struct err *err)
{
	bool any = false;
	for (size_t i = 0; i < count; i++) {
		struct act *act = appends[i]->act;
		if (!act || !act->session)
			continue;
		if (!any)
			rows_clear(w);
		any = true;
		rows_add(w, act->session, 0);
	}
	if (!any)
		return ERR_OK;
	enum err_code code = storage_session_beat(w->storage, STORAGE_BEAT_READ, w->rows, w->count, err);
	for (size_t i = 0; i < count && !code; i++)
		if (appends[i]->act && appends[i]->act->session)
			appends[i]->act->row = *rows_find(w, appends[i]->act->session);
	return code;
}

static bool beats(const struct append *a)
{
	return a->act && a->act->beats && a->answer.code == ERR_OK;
}

void watch_beat(struct watch *w, struct append **appends, size_t count)
{
	struct err err = {0};
	bool any = false;
	for (size_t i = 0; i < count; i++) {
		if (!beats(appends[i]))
			continue;
		/* One that comes after it in the batch may have ended it. */
		if (!ledger_session(w->ledger, appends[i]->act->beats)) {
			session_refuse_ended(appends[i], appends[i]->act->beats);
			continue;
		}
		if (!any)
			rows_clear(w);
		any = true;
		rows_add(w, appends[i]->act->beats, 0);
	}
	if (!any)
		return;
	enum err_code code = storage_session_beat(w->storage, STORAGE_BEAT, w->rows, w->count, &err);
	for (size_t i = 0; i < count; i++) {
		if (!beats(appends[i]))
			continue;
		struct act *act = appends[i]->act;
		if (code) {
			struct append_refusal *r = append_refuse(appends[i], ERR_UNAVAILABLE);
			err_set(&r->err, ERR_UNAVAILABLE, "the beat may not have been counted, send another: %s",
				err.text);
			continue;
		}
		act->row = *rows_find(w, act->beats);
		if (!act->row.exists)
			session_refuse_ended(appends[i], act->beats);
	}
}

/* ---- looking --------------------------------------------------------------------------------- */

bool watch_due(const struct watch *w, struct mono_time *ret)
{
	if (ledger_session_count(w->ledger) == 0)
		return false;
	int64_t us = (int64_t)w->min_ttl_ms * 1000 / 4;
	us = us < LOOK_MIN_US ? LOOK_MIN_US : us > LOOK_MAX_US ? LOOK_MAX_US : us;
	*ret = (struct mono_time){w->looked.us + us};
	return true;
}

struct look {
	struct watch *w;
	struct mono_time before, after;
	uint32_t min_ttl_ms;
	struct append *ends;
};

static void end_session(struct look *look, const struct ledger_session *s)
{
	struct append_refusal refusal = {0};
	struct append *a;
	char id[UUID_TEXT_BYTES];
	uuid_format(s->id, id);
	log_info("session is over: its process has not beaten for its ttl", LOG_STR("session", id),
		 LOG_U64("ttl_ms", s->ttl_ms), LOG_SPAN("address", s->address));
	if (session_expire_build(s->id, s->seen_beats, look->w->seed, look->w->clock, &a, &refusal)) {
		log_warn("a session cannot be ended now", LOG_ERR(&refusal.err));
		return;
	}
	a->next = look->ends;
	look->ends = a;
}

static void look_at(struct ledger_session *s, void *arg)
{
	struct look *look = arg;
	const struct storage_session *row = rows_find(look->w, s->id);
	int64_t ttl_us = (int64_t)s->ttl_ms * 1000;
	/* Who looks so seldom has been asleep, and may not have read the beats that wait for him. */
	bool asleep = mono_since_us(look->before, look->w->looked) > ttl_us / 2 + LOOK_MIN_US;
	if (!look->min_ttl_ms || s->ttl_ms < look->min_ttl_ms)
		look->min_ttl_ms = s->ttl_ms;
	if (!s->seen || asleep || s->seen_beats != row->beats) {
		s->seen = true;
		s->seen_beats = row->beats;
		s->seen_at = look->after;
	} else if (mono_since_us(look->before, s->seen_at) >= ttl_us) {
		end_session(look, s);
	}
}

struct append *watch_look(struct watch *w)
{
	struct err err = {0};
	struct look look = {.w = w, .before = clock_mono(w->clock)};
	rows_clear(w);
	ledger_each_session(w->ledger, add_session, w);
	enum err_code code = storage_session_beat(w->storage, STORAGE_BEAT_READ, w->rows, w->count, &err);
	if (code && !w->failing)
		log_warn("the sessions' beats cannot be read, none is ended meanwhile", LOG_ERR(&err));
	w->failing = code != ERR_OK;
	look.after = clock_mono(w->clock);
	if (!code) {
		ledger_each_session(w->ledger, look_at, &look);
		w->min_ttl_ms = look.min_ttl_ms;
	}
	w->looked = look.after;
	return look.ends;
}
