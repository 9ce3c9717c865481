/* The rows of sessions in memory: see sessions.h. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/sessions.h"

#include "base/mem.h"

struct row {
	uint64_t beats;
};

static struct span key_of(const uint8_t *id)
{
	return span_of(id, RECORD_ID_BYTES);
}

void session_rows_init(struct session_rows *rows)
{
	map_init(&rows->rows);
}

static void row_free(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	mem_free(value);
}

void session_rows_release(struct session_rows *rows)
{
	map_each(&rows->rows, row_free, NULL);
	map_release(&rows->rows);
}

bool session_rows_hold(const struct session_rows *rows, const struct storage_record *records, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct storage_session_change *c = records[i].session;
		if (!c || !c->ends)
			continue;
		const struct row *row = map_get(&rows->rows, key_of(c->id));
		if (row && row->beats != c->beats)
			return false;
	}
	return true;
}

static void make(struct session_rows *rows, const uint8_t *id)
{
	if (!map_get(&rows->rows, key_of(id)))
		map_put(&rows->rows, key_of(id), mem_xalloc(sizeof(struct row)));
}

void session_rows_commit(struct session_rows *rows, const struct storage_record *records, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct storage_session_change *c = records[i].session;
		if (c && c->ends)
			mem_free(map_remove(&rows->rows, key_of(c->id)));
		else if (c)
			make(rows, c->id);
	}
}

void session_rows_beat(struct session_rows *rows, enum storage_beat beat, struct storage_session *sessions,
		       size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (beat == STORAGE_BEAT_MAKE)
			make(rows, sessions[i].id);
		struct row *row = map_get(&rows->rows, key_of(sessions[i].id));
		sessions[i].exists = row != NULL;
		if (row && beat == STORAGE_BEAT)
			row->beats++;
		sessions[i].beats = row ? row->beats : 0;
	}
}
