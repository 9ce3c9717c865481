#include <config.h>

#include "storage/marks.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"

struct erasure {
	uint64_t position;
	struct record_act act;
};

struct mark_stream {
	uint64_t hide_below;
	uint64_t erased_below; /* by the newest erasure of all of it */
	struct erasure *erasures;
	size_t n, cap;
};

struct marks {
	pthread_rwlock_t lock;
	struct map streams;
	atomic_bool any; /* most journals have none, and pay nothing */
};

struct marks *marks_new(void)
{
	struct marks *m = mem_xalloc(sizeof(*m));
	must(pthread_rwlock_init(&m->lock, NULL) == 0);
	map_init(&m->streams);
	return m;
}

static void stream_free(struct span key, void *value, void *arg)
{
	struct mark_stream *s = value;
	(void)key;
	(void)arg;
	mem_free(s->erasures);
	mem_free(s);
}

void marks_free(struct marks *m)
{
	if (!m)
		return;
	map_each(&m->streams, stream_free, NULL);
	map_release(&m->streams);
	pthread_rwlock_destroy(&m->lock);
	mem_free(m);
}

static void add_erasure(struct mark_stream *s, uint64_t position, const struct record_act *act)
{
	size_t kept = 0;
	for (size_t i = 0; i < s->n; i++) {
		const struct erasure *e = &s->erasures[i];
		if (e->position == position)
			return;
		/* One of all of it, snapshots too, leaves nothing to those before it. */
		if (!(act->erase_all && act->erase_snapshots && e->position < position))
			s->erasures[kept++] = *e;
	}
	s->n = kept;
	if (s->n == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 1;
		s->erasures = mem_xrealloc(s->erasures, s->cap * sizeof(*s->erasures));
	}
	s->erasures[s->n++] = (struct erasure){position, *act};
	if (act->erase_all && position > s->erased_below)
		s->erased_below = position;
}

void marks_apply(struct marks *m, struct span stream, uint64_t position, const struct record_act *act)
{
	must(pthread_rwlock_wrlock(&m->lock) == 0);
	struct mark_stream *s = map_get(&m->streams, stream);
	if (!s) {
		s = mem_xalloc(sizeof(*s));
		map_put(&m->streams, stream, s);
	}
	if (act->hide_below > s->hide_below)
		s->hide_below = act->hide_below;
	if (act->erases)
		add_erasure(s, position, act);
	atomic_store(&m->any, true);
	must(pthread_rwlock_unlock(&m->lock) == 0);
}

uint64_t marks_hidden_below(struct marks *m, struct span stream)
{
	if (!atomic_load(&m->any))
		return 0;
	must(pthread_rwlock_rdlock(&m->lock) == 0);
	const struct mark_stream *s = map_get(&m->streams, stream);
	uint64_t below = s ? s->hide_below : 0;
	must(pthread_rwlock_unlock(&m->lock) == 0);
	return below;
}

uint64_t marks_erased_below(struct marks *m, struct span stream)
{
	if (!atomic_load(&m->any))
		return 0;
	must(pthread_rwlock_rdlock(&m->lock) == 0);
	const struct mark_stream *s = map_get(&m->streams, stream);
	uint64_t below = s ? s->erased_below : 0;
	must(pthread_rwlock_unlock(&m->lock) == 0);
	return below;
}

static enum mark look(const struct mark_stream *s, struct span entry)
{
	struct record_view v;
	if (!record_decode_header(entry, &v) || !record_kind_is_content(v.kind))
		return MARK_NONE;
	if (v.position < s->hide_below)
		return MARK_HIDDEN;
	for (size_t i = 0; i < s->n; i++)
		if (record_act_erases(&s->erasures[i].act, s->erasures[i].position, &v))
			return MARK_ERASED;
	return MARK_NONE;
}

enum mark marks_look(struct marks *m, struct span entry)
{
	uint32_t kind;
	struct span stream;
	if (!atomic_load_explicit(&m->any, memory_order_acquire) || !record_peek(entry, &kind, &stream))
		return MARK_NONE;
	must(pthread_rwlock_rdlock(&m->lock) == 0);
	const struct mark_stream *s = map_get(&m->streams, stream);
	enum mark mark = s ? look(s, entry) : MARK_NONE;
	must(pthread_rwlock_unlock(&m->lock) == 0);
	return mark;
}
