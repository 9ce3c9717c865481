/* The memory backend: lists of streams, removing records, tiles. */
#include <config.h>

#include "storage/memory/internal.h"

#include <stdlib.h>

#include "base/limits.h"
#include "base/mem.h"

#define UNIT_RECORDS ((uint64_t)1024)

/* ---- lists ----------------------------------------------------------------------------------- */

static int by_name_compare(const void *a, const void *b)
{
	return span_cmp((*(struct stream *const *)a)->name, (*(struct stream *const *)b)->name);
}

/* Under the write lock. */
static void by_name_sort(struct memory *m)
{
	if (m->sorted == m->by_name_count)
		return;
	qsort(m->by_name, m->by_name_count, sizeof(*m->by_name), by_name_compare);
	m->sorted = m->by_name_count;
}

static bool info_of(const struct memory *m, const struct stream *s, struct arena *a, struct storage_stream_info *ret)
{
	*ret = (struct storage_stream_info){.name = arena_dup(a, s->name),
					    .sequence = s->sequence,
					    .records = s->live,
					    .first_position = s->all.p[0],
					    .last_position = s->all.p[s->all.n - 1],
					    .erased_below = marks_erased_below(m->marks, s->name)};
	return ret->name.p != NULL;
}

/* Index of the first name that is not below prefix and is above `after`. */
static size_t list_start(const struct memory *m, struct span prefix, struct span after)
{
	size_t low = 0, high = m->by_name_count;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		struct span name = m->by_name[mid]->name;
		bool below = span_cmp(name, prefix) < 0 || (after.n > 0 && span_cmp(name, after) <= 0);
		if (below)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

enum err_code memory_list(struct storage_reader *r, struct span prefix, struct span after, size_t max,
				 struct arena *a, struct storage_stream_info *ret, size_t *ret_count,
				 struct err *err)
{
	struct memory *m = memory_of_reader(r);
	size_t count = 0;
	enum err_code code = ERR_OK;
	lock_write(m);
	by_name_sort(m);
	for (size_t i = list_start(m, prefix, after); i < m->by_name_count && count < max && !code; i++) {
		const struct stream *s = m->by_name[i];
		if (!span_starts(s->name, prefix))
			break;
		if (s->all.n == 0) /* only ever in a batch that did not fit */
			continue;
		if (info_of(m, s, a, &ret[count]))
			count++;
		else
			code = ERR_NOMEM;
	}
	unlock(m);
	if (code)
		return err_set(err, code, "no memory for a list of %zu streams", max);
	*ret_count = count;
	return ERR_OK;
}

enum err_code memory_stat(struct storage_reader *r, struct span stream, struct arena *a,
				 struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	struct memory *m = memory_of_reader(r);
	bool ok = true;
	lock_read(m);
	const struct stream *s = map_get(&m->streams, stream);
	bool exists = s && s->all.n > 0;
	if (exists)
		ok = info_of(m, s, a, ret);
	unlock(m);
	if (!ok)
		return err_set(err, ERR_NOMEM, "no memory for a stream's name");
	*ret_exists = exists;
	return ERR_OK;
}

/* ---- removing -------------------------------------------------------------------------------- */

enum err_code memory_unit(struct storage_reader *r, uint64_t position, struct storage_unit *ret,
				 struct err *err)
{
	struct memory *m = memory_of_reader(r);
	(void)err;
	lock_read(m);
	must(position < m->count);
	struct storage_unit unit = {.first = position - position % UNIT_RECORDS, .removable = true};
	unit.end = unit.first + UNIT_RECORDS < m->count ? unit.first + UNIT_RECORDS : m->count;
	for (uint64_t i = unit.first; i < unit.end; i++)
		unit.bytes += m->records[i].bytes.n;
	unlock(m);
	*ret = unit;
	return ERR_OK;
}

void memory_close_unit(struct storage *s)
{
	memory_of(s); /* no unit is ever open */
}

void memory_bytes_drop(struct record *r)
{
	uint8_t *p = (uint8_t *)(uintptr_t)r->bytes.p;
	if (!r->block)
		mem_free(p);
	else if (--r->block->used == 0)
		mem_free(r->block);
	r->block = NULL;
}

static enum err_code remove_one(struct memory *m, const struct storage_removal *removal, struct err *err)
{
	struct record *r = &m->records[removal->position];
	struct span run = r->bytes, entry;
	struct record_view view;
	struct buf out;
	enum err_code code = record_next(&run, &entry, NULL, err);
	if (!code)
		code = record_decode_trusted(entry, &view, err);
	if (code || r->removed)
		return code;
	buf_init(&out, LIMIT_RECORD_BYTES);
	code = removal->body_only ? record_put_erased(&out, &view) : record_put_removed(&out, &view);
	if (code) {
		buf_release(&out);
		return err_set(err, code, "no memory to remove a record");
	}
	/* Memory is given back as a batch, when nothing of it is used; what was there is gone now. */
	memset((uint8_t *)(uintptr_t)r->bytes.p, 0, r->bytes.n);
	memory_bytes_drop(r);
	size_t n;
	uint8_t *p = buf_detach(&out, &n);
	r->bytes = span_of(p, n);
	if (!removal->body_only) {
		r->stream->live -= memory_is_live(r->stream, r, removal->position);
		r->removed = true;
	}
	return ERR_OK;
}

enum err_code memory_remove(struct storage_reader *reader, const struct storage_removal *list,
				   size_t count, struct err *err)
{
	struct memory *m = memory_of_reader(reader);
	enum err_code code = ERR_OK;
	lock_write(m);
	must(list[count - 1].position < m->count);
	for (size_t i = 0; i < count && !code; i++)
		code = remove_one(m, &list[i], err);
	unlock(m);
	return code;
}

/* ---- tiles ----------------------------------------------------------------------------------- */

struct tile_key {
	uint64_t level, index;
};

enum err_code memory_tile_put(struct storage_reader *reader, unsigned level, uint64_t index, const uint8_t *tile,
			      struct err *err)
{
	struct memory *m = memory_of_reader(reader);
	struct tile_key key = {level, index};
	uint8_t *copy = mem_try_alloc(STORAGE_TILE_BYTES);
	if (!copy)
		return err_set(err, ERR_NOMEM, "no memory for a tile");
	memcpy(copy, tile, STORAGE_TILE_BYTES);
	lock_write(m);
	mem_free(map_put(&m->tiles, span_of(&key, sizeof(key)), copy));
	unlock(m);
	return ERR_OK;
}

enum err_code memory_tile_get(struct storage_reader *reader, unsigned level, uint64_t index, uint8_t *ret,
			      struct err *err)
{
	struct memory *m = memory_of_reader(reader);
	struct tile_key key = {level, index};
	(void)err;
	lock_read(m);
	const uint8_t *tile = map_get(&m->tiles, span_of(&key, sizeof(key)));
	if (tile)
		memcpy(ret, tile, STORAGE_TILE_BYTES);
	unlock(m);
	return tile ? ERR_OK : ERR_NOT_FOUND;
}

static void tile_free(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	mem_free(value);
}

void memory_tiles_free(struct memory *m)
{
	map_each(&m->tiles, tile_free, NULL);
	map_release(&m->tiles);
}
