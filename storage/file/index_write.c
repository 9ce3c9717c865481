/* Moving a table of newest records into the index, in one transaction. Keys are written in their order,
 * so that neighbours share pages. */
#define _GNU_SOURCE /* qsort_r */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/index_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/statvfs.h>

#include "base/mem.h"
#include "base/must.h"

/* With less than this a disk is full. */
#define LEAST_ROOM_BYTES (1 * MIB)

/* One list of the table and its number in the index. */
struct item {
	const struct recent_list *list;
	uint64_t number;
	bool is_new;
};

static int item_cmp(const void *a, const void *b)
{
	const struct item *x = a, *y = b;
	return (x->number > y->number) - (x->number < y->number);
}

static int put(MDB_txn *txn, MDB_dbi db, struct span key, struct span value)
{
	MDB_val k = val_span(key), v = val_span(value);
	return mdb_put(txn, db, &k, &v, 0);
}

static int resolve(MDB_txn *txn, MDB_dbi names, struct item *item)
{
	struct span name = name_key(item->list->name);
	MDB_val key = val_span(name), value;
	int r = mdb_get(txn, names, &key, &value);
	item->is_new = r == MDB_NOTFOUND;
	if (r == 0) {
		if (value.mv_size < 8)
			return MDB_CORRUPTED;
		item->number = get_le64(value.mv_data);
		return 0;
	}
	if (r != MDB_NOTFOUND)
		return r;
	uint8_t number[8];
	item->number = entry_position(item->list->entries[0]);
	put_le64(number, item->number);
	return put(txn, names, name, span_of(number, sizeof(number)));
}

/* A chunk being filled. */
struct chunk {
	uint64_t first; /* position, its key */
	uint64_t base_sequence, base_count, sequence;
	size_t n;
	bool first_of_list;
	uint8_t bytes[CHUNK_BYTES(CATEGORY_CHUNK_ENTRIES)];
};

static int chunk_load(MDB_cursor *cursor, uint64_t number, size_t max, struct chunk *c)
{
	uint8_t bound[16];
	key_put(bound, number + 1, 0);
	MDB_val key = val_of(bound, sizeof(bound)), value;
	int r = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	if (r == 0 || r == MDB_NOTFOUND)
		r = mdb_cursor_get(cursor, &key, &value, r == 0 ? MDB_PREV : MDB_LAST);
	if (r)
		return r == MDB_NOTFOUND ? MDB_CORRUPTED : r;
	if (!key_is(key, number) || chunk_count(value) == 0 || chunk_count(value) > max)
		return MDB_CORRUPTED;
	c->n = chunk_count(value);
	c->first = key_position(key);
	c->first_of_list = c->first == number;
	memcpy(c->bytes, value.mv_data, CHUNK_BYTES(c->n));
	c->base_sequence = c->sequence = get_le64(c->bytes);
	c->base_count = get_le64(c->bytes + 8);
	for (size_t i = 0; i < c->n; i++)
		c->sequence += entry_takes_sequence(chunk_entry(value, i));
	return 0;
}

static int chunk_store(MDB_txn *txn, const struct index *index, enum index_list list, MDB_cursor *cursor,
		       uint64_t number, struct chunk *c)
{
	uint8_t key[16], value[8];
	put_le64(c->bytes, c->base_sequence);
	put_le64(c->bytes + 8, c->base_count);
	key_put(key, number, c->first);
	MDB_val k = val_of(key, sizeof(key)), v = val_of(c->bytes, CHUNK_BYTES(c->n));
	int r = mdb_cursor_put(cursor, &k, &v, 0);
	if (r || c->first_of_list || list != INDEX_STREAM)
		return r;
	key_put(key, number, c->base_sequence);
	put_le64(value, c->first);
	return put(txn, index->sequences, span_of(key, sizeof(key)), span_of(value, sizeof(value)));
}

static void chunk_begin(struct chunk *c, uint64_t sequence, uint64_t first)
{
	c->base_count += c->n;
	c->base_sequence = c->sequence = sequence;
	c->n = 0;
	c->first = first;
	c->first_of_list = false;
}

static int live_load(MDB_txn *txn, const struct index *index, uint64_t number, struct live_row *ret)
{
	uint8_t key[8];
	put_be64(key, number);
	MDB_val k = val_of(key, sizeof(key)), v;
	int r = mdb_get(txn, index->live, &k, &v);
	*ret = r ? (struct live_row){0} : live_get(v);
	return r == MDB_NOTFOUND ? 0 : r;
}

static int live_store(MDB_txn *txn, const struct index *index, uint64_t number, const struct live_row *row)
{
	uint8_t key[8], value[LIVE_BYTES];
	put_be64(key, number);
	put_le64(value, row->live);
	put_le64(value + 8, row->hidden_below);
	return put(txn, index->live, span_of(key, sizeof(key)), span_of(value, sizeof(value)));
}

/* How many entries of the stream in [from, to) are content. */
static int count_content(MDB_cursor *cursor, uint64_t number, uint64_t from, uint64_t to, uint64_t *ret)
{
	uint8_t start[16];
	key_put(start, number, 0);
	MDB_val key = val_of(start, sizeof(start)), value;
	*ret = 0;
	int r = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	for (; r == 0 && key_is(key, number) && key_position(key) < to;
	     r = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
		for (size_t i = 0; i < chunk_count(value); i++) {
			uint64_t position = entry_position(chunk_entry(value, i));
			*ret += entry_is_content(chunk_entry(value, i)) && position >= from && position < to;
		}
	}
	return r == MDB_NOTFOUND ? 0 : r;
}

/* What the table changes of a stream whose records are not all live. `last` is the chunk before it. */
static int update_live(MDB_txn *txn, const struct index *index, MDB_cursor *cursor, const struct item *item,
		       const struct chunk *last)
{
	const struct recent_list *from = item->list;
	struct live_row row;
	uint64_t gone = 0;
	int r = live_load(txn, index, item->number, &row);
	if (r || (!row.there && !from->has_acts))
		return r;
	if (!row.there)
		row.live = item->is_new ? 0 : last->base_count + last->n;
	if (from->hidden_below > row.hidden_below) {
		if (!item->is_new)
			r = count_content(cursor, item->number, row.hidden_below, from->hidden_below, &gone);
		must(gone <= row.live);
		row.live -= gone;
		row.hidden_below = from->hidden_below;
	}
	row.live += file_recent_list_live(from, row.hidden_below);
	return r ? r : live_store(txn, index, item->number, &row);
}

static int write_acts(MDB_txn *txn, const struct index *index, const struct recent *recent)
{
	uint8_t key[8], value[ACT_BYTES + LIMIT_STREAM_NAME_BYTES];
	int r = 0;
	for (size_t i = 0; i < recent->act_n && !r; i++) {
		const struct recent_act *it = &recent->acts[i];
		put_be64(key, it->position);
		value[0] = (uint8_t)(it->act.erases | it->act.erase_snapshots << 1 | it->act.erase_all << 2);
		put_le64(value + 1, it->act.hide_below);
		put_le64(value + 9, it->act.erase_from);
		put_le64(value + 17, it->act.erase_to);
		must(it->stream.n <= LIMIT_STREAM_NAME_BYTES);
		memcpy(value + ACT_BYTES, it->stream.p, it->stream.n);
		r = put(txn, index->acts, span_of(key, sizeof(key)),
			span_of(value, ACT_BYTES + it->stream.n));
	}
	return r;
}

static int write_list(MDB_txn *txn, const struct index *index, enum index_list list, MDB_cursor *cursor,
		      const struct item *item)
{
	size_t max = list == INDEX_STREAM ? STREAM_CHUNK_ENTRIES : CATEGORY_CHUNK_ENTRIES;
	const struct recent_list *from = item->list;
	uint64_t before = from->first_sequence ? from->first_sequence - 1 : 0;
	struct chunk c = {.first = item->number, .first_of_list = true};
	size_t gap = 0;
	int r = 0;
	if (!item->is_new)
		r = chunk_load(cursor, item->number, max, &c);
	if (!r && list == INDEX_STREAM)
		r = update_live(txn, index, cursor, item, &c);
	/* Sequences are counted within a chunk: where some are missing (removed by compaction before the
	 * index was made anew), another chunk begins. */
	if (!r && list == INDEX_STREAM && from->first_sequence && before != c.sequence) {
		if (c.n > 0)
			chunk_begin(&c, before, entry_position(from->entries[0]));
		c.base_sequence = c.sequence = before;
	}
	for (size_t i = 0; i < from->n && !r; i++) {
		if (gap < from->gap_n && from->gaps[gap].index == i) {
			r = c.n ? chunk_store(txn, index, list, cursor, item->number, &c) : 0;
			if (c.n)
				chunk_begin(&c, 0, entry_position(from->entries[i]));
			c.base_sequence = c.sequence = from->gaps[gap++].before;
		} else if (c.n == max) {
			r = chunk_store(txn, index, list, cursor, item->number, &c);
			chunk_begin(&c, c.sequence, entry_position(from->entries[i]));
		}
		put_le64(c.bytes + CHUNK_BYTES(c.n), from->entries[i]);
		c.n++;
		c.sequence += list == INDEX_STREAM && entry_takes_sequence(from->entries[i]);
	}
	if (!r)
		r = chunk_store(txn, index, list, cursor, item->number, &c);
	for (size_t i = 0; i < from->snapshot_n && !r; i++) {
		uint8_t key[24];
		key_put(key, item->number, from->snapshots[i].sequence);
		put_be64(key + 16, from->snapshots[i].position);
		r = put(txn, index->snapshots, span_of(key, sizeof(key)), SPAN(""));
	}
	return r;
}

static int write_lists(MDB_txn *txn, const struct index *index, enum index_list list,
		       const struct recent_list *lists, size_t count)
{
	struct item *items = mem_xalloc(count * sizeof(*items) + 1);
	MDB_cursor *cursor;
	size_t n = 0;
	int r = mdb_cursor_open(txn, index->chunks[list], &cursor);
	if (r) {
		mem_free(items);
		return r;
	}
	for (const struct recent_list *it = lists; it && !r; it = it->next, n++) {
		must(n < count);
		items[n].list = it;
		r = resolve(txn, index->names[list], &items[n]);
	}
	qsort(items, n, sizeof(*items), item_cmp);
	for (size_t i = 0; i < n && !r; i++)
		r = write_list(txn, index, list, cursor, &items[i]);
	mdb_cursor_close(cursor);
	mem_free(items);
	return r;
}

static int id_cmp(const void *a, const void *b, void *arg)
{
	const struct recent *recent = arg;
	return memcmp(recent->ids[*(const uint32_t *)a], recent->ids[*(const uint32_t *)b], RECORD_ID_BYTES);
}

static int write_ids(MDB_txn *txn, const struct index *index, const struct recent *recent)
{
	MDB_cursor *cursor;
	int r = mdb_cursor_open(txn, index->ids, &cursor);
	if (r)
		return r;
	uint32_t *order = mem_xalloc(recent->n * sizeof(*order));
	size_t n = 0;
	for (size_t i = 0; i < recent->n; i++)
		if (!file_recent_id_is_none(recent->ids[i]))
			order[n++] = (uint32_t)i;
	if (n == 0) {
		mem_free(order);
		mdb_cursor_close(cursor);
		return 0;
	}
	qsort_r(order, n, sizeof(*order), id_cmp, (void *)(uintptr_t)recent);
	/* Ids that rise with time go behind the last one, which is cheaper and fills pages. */
	MDB_val key, value;
	r = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
	bool behind = r == MDB_NOTFOUND ||
		      (r == 0 && span_cmp(val_get(key), span_of(recent->ids[order[0]], RECORD_ID_BYTES)) < 0);
	r = r == MDB_NOTFOUND ? 0 : r;
	for (size_t i = 0; i < n && !r; i++) {
		uint8_t position[8];
		bool twice = i > 0 && id_cmp(&order[i - 1], &order[i], (void *)(uintptr_t)recent) == 0;
		put_le64(position, recent->first + order[i]);
		key = val_of(recent->ids[order[i]], RECORD_ID_BYTES);
		value = val_of(position, sizeof(position));
		r = mdb_cursor_put(cursor, &key, &value, behind && !twice ? MDB_APPEND : 0);
	}
	mem_free(order);
	mdb_cursor_close(cursor);
	return r;
}

static int write_places(MDB_txn *txn, struct index *index, const struct segment *segment, uint64_t below,
			uint32_t *ret_count)
{
	uint32_t i = index->places_count;
	int r = 0;
	if (index->places_segment != segment->number) {
		r = mdb_drop(txn, index->places, 0);
		i = 0;
	}
	uint32_t count = atomic_load_explicit(&segment->place_count, memory_order_acquire);
	for (; i < count && !r && segment->first + segment->places[i].delta < below; i++) {
		uint8_t key[16], offset[8];
		key_put(key, segment->number, segment->places[i].delta);
		put_le64(offset, segment->places[i].offset);
		r = put(txn, index->places, span_of(key, sizeof(key)), span_of(offset, sizeof(offset)));
	}
	*ret_count = i;
	return r;
}

static int write_mark(MDB_txn *txn, const struct index *index, const struct index_mark *mark)
{
	uint8_t p[MARK_BYTES];
	memcpy(p, mark->journal_id, 16);
	put_le64(p + 16, mark->position);
	memcpy(p + 24, mark->leaf, RECORD_HASH_BYTES);
	put_le64(p + 24 + RECORD_HASH_BYTES, mark->segment);
	put_le64(p + 32 + RECORD_HASH_BYTES, mark->frame_offset);
	put_le32(p + MARK_BYTES - 4, INDEX_FORMAT);
	return put(txn, index->meta, SPAN("mark"), span_of(p, sizeof(p)));
}

static size_t list_count(const struct recent_list *lists)
{
	size_t n = 0;
	for (; lists; lists = lists->next)
		n++;
	return n;
}

static int write_all(struct index *index, const struct recent *recent, const struct index_mark *mark,
		     const struct segment *segment)
{
	MDB_txn *txn;
	uint32_t places = 0;
	int r = mdb_txn_begin(index->env, NULL, 0, &txn);
	if (r)
		return r;
	r = write_lists(txn, index, INDEX_STREAM, recent->stream_list, list_count(recent->stream_list));
	if (!r)
		r = write_lists(txn, index, INDEX_CATEGORY, recent->category_list,
				list_count(recent->category_list));
	if (!r)
		r = write_ids(txn, index, recent);
	if (!r)
		r = write_acts(txn, index, recent);
	if (!r && segment)
		r = write_places(txn, index, segment, mark->position + 1, &places);
	if (!r)
		r = write_mark(txn, index, mark);
	if (r) {
		mdb_txn_abort(txn);
		return r;
	}
	r = mdb_txn_commit(txn);
	if (!r && segment) {
		index->places_segment = segment->number;
		index->places_count = places;
	}
	return r;
}

static bool disk_is_full(const struct index *index)
{
	const char *path;
	struct statvfs fs;
	return mdb_env_get_path(index->env, &path) == 0 && statvfs(path, &fs) == 0 &&
	       fs.f_bavail < LEAST_ROOM_BYTES / fs.f_frsize;
}

/* Runs a transaction, again with a larger map when there is no room in it. */
static enum err_code with_room(struct index *index, int (*run)(struct index *index, void *arg), void *arg,
			       struct err *err)
{
	must(pthread_mutex_lock(&index->write_lock) == 0);
	int r = run(index, arg);
	while (r == MDB_MAP_FULL && index->map_bytes < SIZE_MAX / 4) {
		must(pthread_rwlock_wrlock(&index->map_lock) == 0);
		r = mdb_env_set_mapsize(index->env, 2 * index->map_bytes);
		must(pthread_rwlock_unlock(&index->map_lock) == 0);
		if (r)
			break;
		index->map_bytes *= 2;
		r = run(index, arg);
	}
	/* LMDB takes a write that was cut short for want of room for a failure of the disk. */
	if (r == EIO && disk_is_full(index))
		r = ENOSPC;
	must(pthread_mutex_unlock(&index->write_lock) == 0);
	return r ? file_index_fail(err, r, "write") : ERR_OK;
}

struct write_job {
	const struct recent *recent;
	const struct index_mark *mark;
	const struct segment *segment;
};

static int run_write(struct index *index, void *arg)
{
	const struct write_job *job = arg;
	return write_all(index, job->recent, job->mark, job->segment);
}

enum err_code file_index_write(struct index *index, const struct recent *recent,
			       const struct index_mark *mark, const struct segment *segment, struct err *err)
{
	must(recent->n > 0);
	must(mark->position == recent->first + recent->n - 1);
	struct write_job job = {recent, mark, segment};
	return with_room(index, run_write, &job, err);
}

/* ---- removing ------------------------------------------------------------------------------------------ */

static int removed_cmp(const void *a, const void *b)
{
	const struct index_removed *x = a, *y = b;
	int order = span_cmp(x->stream, y->stream);
	return order ? order : (x->position > y->position) - (x->position < y->position);
}

/* Marks those of the stream's records that are in one chunk; *i moves behind them. */
static int remove_from_chunk(MDB_cursor *cursor, uint64_t number, const struct index_removed *list,
			     size_t count, size_t *i, struct live_row *row)
{
	uint8_t bound[16], bytes[CHUNK_BYTES(STREAM_CHUNK_ENTRIES)];
	key_put(bound, number, list[*i].position + 1);
	MDB_val key = val_of(bound, sizeof(bound)), value;
	int r = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
	if (r == 0 || r == MDB_NOTFOUND)
		r = mdb_cursor_get(cursor, &key, &value, r == 0 ? MDB_PREV : MDB_LAST);
	if (r)
		return r;
	size_t n = chunk_count(value), before = *i;
	if (!key_is(key, number) || n == 0 || n > STREAM_CHUNK_ENTRIES)
		return MDB_CORRUPTED;
	memcpy(bytes, value.mv_data, CHUNK_BYTES(n));
	for (size_t k = 0; k < n && *i < count; k++) {
		uint64_t entry = chunk_entry(value, k);
		if (entry_position(entry) != list[*i].position)
			continue;
		row->live -= row->live > 0 && entry_is_content(entry) &&
			     entry_position(entry) >= row->hidden_below;
		put_le64(bytes + CHUNK_BYTES(k), entry & ENTRY_REMOVED_MASK);
		++*i;
	}
	if (*i == before)
		return MDB_CORRUPTED;
	uint8_t at[16];
	memcpy(at, key.mv_data, sizeof(at));
	MDB_val k = val_of(at, sizeof(at)), v = val_of(bytes, CHUNK_BYTES(n));
	return mdb_cursor_put(cursor, &k, &v, 0);
}

/* How many entries the stream has: what live begins with. */
static int count_entries(MDB_cursor *cursor, uint64_t number, uint64_t *ret)
{
	struct chunk last;
	int r = chunk_load(cursor, number, STREAM_CHUNK_ENTRIES, &last);
	*ret = r ? 0 : last.base_count + last.n;
	return r;
}

/* The records of one stream. */
static int remove_stream(MDB_txn *txn, const struct index *index, MDB_cursor *cursor,
			 const struct index_removed *list, size_t count)
{
	MDB_val key = val_span(name_key(list[0].stream)), value;
	struct live_row row;
	int r = mdb_get(txn, index->names[INDEX_STREAM], &key, &value);
	if (r)
		return r == MDB_NOTFOUND ? MDB_CORRUPTED : r;
	if (value.mv_size < 8)
		return MDB_CORRUPTED;
	uint64_t number = get_le64(value.mv_data);
	r = live_load(txn, index, number, &row);
	if (!r && !row.there)
		r = count_entries(cursor, number, &row.live);
	for (size_t i = 0; i < count && !r;)
		r = remove_from_chunk(cursor, number, list, count, &i, &row);
	for (size_t i = 0; i < count && !r; i++) {
		if (list[i].kind != RECORD_SNAPSHOT)
			continue;
		uint8_t at[24];
		key_put(at, number, list[i].sequence);
		put_be64(at + 16, list[i].position);
		MDB_val k = val_of(at, sizeof(at));
		r = mdb_del(txn, index->snapshots, &k, NULL);
		r = r == MDB_NOTFOUND ? 0 : r;
	}
	return r ? r : live_store(txn, index, number, &row);
}

struct remove_job {
	struct index_removed *list;
	size_t count;
};

static int run_remove(struct index *index, void *arg)
{
	const struct remove_job *job = arg;
	MDB_txn *txn;
	MDB_cursor *cursor;
	int r = mdb_txn_begin(index->env, NULL, 0, &txn);
	if (r)
		return r;
	r = mdb_cursor_open(txn, index->chunks[INDEX_STREAM], &cursor);
	if (r) {
		mdb_txn_abort(txn);
		return r;
	}
	for (size_t i = 0, n; i < job->count && !r; i += n) {
		n = 1;
		while (i + n < job->count && span_eq(job->list[i].stream, job->list[i + n].stream))
			n++;
		r = remove_stream(txn, index, cursor, job->list + i, n);
	}
	mdb_cursor_close(cursor);
	if (r) {
		mdb_txn_abort(txn);
		return r;
	}
	return mdb_txn_commit(txn);
}

enum err_code file_index_remove(struct index *index, struct index_removed *list, size_t count,
				struct err *err)
{
	must(count > 0);
	qsort(list, count, sizeof(*list), removed_cmp);
	struct remove_job job = {list, count};
	return with_room(index, run_remove, &job, err);
}
