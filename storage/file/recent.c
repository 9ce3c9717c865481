#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/recent.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"

#define FIRST_SLOTS ((size_t)1024)

struct recent *file_recent_new(uint64_t first)
{
	struct recent *r = mem_xalloc(sizeof(*r));
	r->first = first;
	r->seed[0] = random_u64();
	r->seed[1] = random_u64();
	map_init(&r->streams);
	map_init(&r->categories);
	atomic_init(&r->refs, 1);
	must(pthread_mutex_init(&r->order_lock, NULL) == 0);
	return r;
}

static void lists_free(struct recent_list *list)
{
	while (list) {
		struct recent_list *next = list->next;
		mem_free(list->entries);
		mem_free(list->snapshots);
		mem_free(list->gaps);
		mem_free((void *)(uintptr_t)list->name.p);
		mem_free(list);
		list = next;
	}
}

struct recent *file_recent_ref(struct recent *r)
{
	if (r)
		atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
	return r;
}

void file_recent_unref(struct recent *r)
{
	if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) > 1)
		return;
	lists_free(r->stream_list);
	lists_free(r->category_list);
	map_release(&r->streams);
	map_release(&r->categories);
	mem_free(r->acts);
	mem_free(r->ids);
	mem_free(r->slots);
	mem_free(r->order);
	pthread_mutex_destroy(&r->order_lock);
	mem_free(r);
}

bool file_recent_id_is_none(const uint8_t id[RECORD_ID_BYTES])
{
	static const uint8_t none[RECORD_ID_BYTES];
	return memcmp(id, none, sizeof(none)) == 0;
}

static size_t slot_of(const struct recent *r, const uint8_t *id)
{
	return (size_t)hash_bytes(r->seed, span_of(id, RECORD_ID_BYTES)) & (r->slot_cap - 1);
}

static void slot_put(struct recent *r, size_t index)
{
	size_t at = slot_of(r, r->ids[index]);
	while (r->slots[at])
		at = (at + 1) & (r->slot_cap - 1);
	r->slots[at] = (uint32_t)index + 1;
}

static void id_room(struct recent *r)
{
	must(r->n < UINT32_MAX);
	if (r->n < r->id_cap)
		return;
	r->id_cap = r->id_cap ? 2 * r->id_cap : FIRST_SLOTS / 2;
	r->ids = mem_xrealloc(r->ids, r->id_cap * sizeof(*r->ids));
}

static void id_add(struct recent *r, const uint8_t *id)
{
	id_room(r);
	memcpy(r->ids[r->n], id, RECORD_ID_BYTES);
	if (2 * (r->n + 1) > r->slot_cap) {
		mem_free(r->slots);
		r->slot_cap = r->slot_cap ? 2 * r->slot_cap : FIRST_SLOTS;
		r->slots = mem_xalloc(r->slot_cap * sizeof(*r->slots));
		for (size_t i = 0; i < r->n; i++)
			if (!file_recent_id_is_none(r->ids[i]))
				slot_put(r, i);
	}
	slot_put(r, r->n);
}

static struct recent_list *list_get(struct map *map, struct recent_list **all, struct span name)
{
	struct recent_list *list = map_get(map, name);
	if (list)
		return list;
	list = mem_xalloc(sizeof(*list));
	list->name = span_of(mem_xdup(name.p, name.n), name.n);
	list->next = *all;
	*all = list;
	map_put(map, name, list);
	return list;
}

static void list_add(struct recent_list *list, uint64_t entry)
{
	if (list->n == list->cap) {
		list->cap = list->cap ? 2 * list->cap : 4;
		list->entries = mem_xrealloc(list->entries, list->cap * sizeof(*list->entries));
	}
	list->entries[list->n++] = entry;
}

static void list_add_snapshot(struct recent_list *list, uint64_t sequence, uint64_t position)
{
	if (list->snapshot_n == list->snapshot_cap) {
		list->snapshot_cap = list->snapshot_cap ? 2 * list->snapshot_cap : 2;
		list->snapshots =
			mem_xrealloc(list->snapshots, list->snapshot_cap * sizeof(*list->snapshots));
	}
	list->snapshots[list->snapshot_n++] = (struct recent_snapshot){sequence, position};
}

static void list_add_gap(struct recent_list *list, uint64_t before)
{
	if (list->gap_n == list->gap_cap) {
		list->gap_cap = list->gap_cap ? 2 * list->gap_cap : 2;
		list->gaps = mem_xrealloc(list->gaps, list->gap_cap * sizeof(*list->gaps));
	}
	list->gaps[list->gap_n++] = (struct recent_gap){list->n - 1, before};
}

static void add_act(struct recent *r, struct recent_list *stream, uint64_t position,
		    const struct record_act *act)
{
	if (r->act_n == r->act_cap) {
		r->act_cap = r->act_cap ? 2 * r->act_cap : 2;
		r->acts = mem_xrealloc(r->acts, r->act_cap * sizeof(*r->acts));
	}
	r->acts[r->act_n++] = (struct recent_act){stream->name, position, *act};
	if (act->hide_below > stream->hidden_below)
		stream->hidden_below = act->hide_below;
}

void file_recent_add_removed(struct recent *r, size_t bytes)
{
	id_room(r);
	memset(r->ids[r->n], 0, RECORD_ID_BYTES);
	r->log_bytes += bytes;
	r->n++;
}

void file_recent_add(struct recent *r, const struct storage_record *record, const struct record_act *act)
{
	must(record->position == r->first + r->n);
	uint64_t entry = entry_of(record->position, record->kind);
	struct recent_list *stream = list_get(&r->streams, &r->stream_list, record->stream);
	list_add(stream, entry);
	if (entry_takes_sequence(entry)) {
		if (stream->first_sequence == 0)
			stream->first_sequence = record->sequence;
		else if (record->sequence != stream->sequence + 1)
			list_add_gap(stream, record->sequence - 1);
		stream->sequence = record->sequence;
	}
	if (record->kind == RECORD_SNAPSHOT)
		list_add_snapshot(stream, record->sequence, record->position);
	if (entry_is_content(entry))
		stream->content++;
	else
		stream->has_acts = true;
	if (act)
		add_act(r, stream, record->position, act);
	list_add(list_get(&r->categories, &r->category_list, record_category(record->stream)), entry);
	id_add(r, record->id);
	r->log_bytes += record->bytes.n;
	r->last_commit = record->commit_time;
	r->n++;
}

const struct recent_list *file_recent_stream(const struct recent *r, struct span name)
{
	return map_get(&r->streams, name);
}

const struct recent_list *file_recent_category(const struct recent *r, struct span name)
{
	return map_get(&r->categories, name);
}

bool file_recent_id(const struct recent *r, const uint8_t id[RECORD_ID_BYTES], uint64_t *ret_position)
{
	if (r->n == 0)
		return false;
	for (size_t at = slot_of(r, id); r->slots[at]; at = (at + 1) & (r->slot_cap - 1)) {
		size_t index = r->slots[at] - 1;
		if (memcmp(r->ids[index], id, RECORD_ID_BYTES) == 0) {
			*ret_position = r->first + index;
			return true;
		}
	}
	return false;
}

size_t file_recent_list_find(const struct recent_list *list, uint64_t position)
{
	size_t low = 0, high = list->n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (entry_position(list->entries[middle]) < position)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* With gaps, acts or hidden records: one by one. */
static bool search_sequence(const struct recent_list *list, uint64_t sequence, uint64_t hidden_below,
			    uint64_t *ret_position)
{
	uint64_t at = list->first_sequence - 1;
	size_t gap = 0;
	for (size_t i = 0; i < list->n; i++) {
		uint64_t entry = list->entries[i];
		if (!entry_takes_sequence(entry))
			continue;
		if (gap < list->gap_n && list->gaps[gap].index == i)
			at = list->gaps[gap++].before;
		at++;
		if (at >= sequence && entry_is_given(entry, hidden_below)) {
			*ret_position = entry_position(entry);
			return true;
		}
	}
	return false;
}

bool file_recent_list_sequence(const struct recent_list *list, uint64_t sequence, uint64_t hidden_below,
			       uint64_t *ret_position)
{
	if (list->first_sequence == 0 || sequence > list->sequence)
		return false;
	bool dense = list->sequence - list->first_sequence + 1 == list->n;
	if (!dense || list->gap_n || list->has_acts || entry_position(list->entries[0]) < hidden_below)
		return search_sequence(list, sequence, hidden_below, ret_position);
	/* Each entry took the next sequence. */
	uint64_t skip = sequence > list->first_sequence ? sequence - list->first_sequence : 0;
	*ret_position = entry_position(list->entries[skip]);
	return true;
}

size_t file_recent_list_live(const struct recent_list *list, uint64_t hidden_below)
{
	if (list->n == 0 || entry_position(list->entries[0]) >= hidden_below)
		return list->content;
	size_t live = 0;
	for (size_t i = file_recent_list_find(list, hidden_below); i < list->n; i++)
		live += entry_is_content(list->entries[i]);
	return live;
}

/* --- names in order --------------------------------------------------------------------------------------
 */

struct recent_names file_recent_names(struct recent *r)
{
	if (!r)
		return (struct recent_names){0};
	return (struct recent_names){file_recent_ref(r), r->stream_list, r->streams.count};
}

static int by_name(const void *a, const void *b)
{
	const struct recent_list *const *x = a, *const *y = b;
	return span_cmp((*x)->name, (*y)->name);
}

/* Puts those in order that are new since the last time: under order_lock. */
static void order_names(struct recent *r, const struct recent_names *names)
{
	if (names->count <= r->order_n)
		return;
	size_t fresh = names->count - r->order_n, old = r->order_n, to = names->count;
	if (names->count > r->order_cap) {
		r->order_cap = names->count + names->count / 2;
		r->order = mem_xrealloc(r->order, r->order_cap * sizeof(*r->order));
	}
	const struct recent_list **added = mem_xalloc(fresh * sizeof(*added));
	const struct recent_list *it = names->newest;
	for (size_t i = 0; i < fresh; i++, it = it->next)
		added[i] = it;
	qsort(added, fresh, sizeof(*added), by_name);
	/* Merged from the back. */
	while (fresh > 0) {
		bool take_old = old > 0 && by_name(&r->order[old - 1], &added[fresh - 1]) > 0;
		r->order[--to] = take_old ? r->order[--old] : added[--fresh];
	}
	r->order_n = names->count;
	mem_free(added);
}

/* Index of the first name that is at or after the prefix and behind `after`. */
static size_t first_name(const struct recent *r, struct span prefix, struct span after)
{
	size_t low = 0, high = r->order_n;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct span name = r->order[middle]->name;
		if (span_cmp(name, prefix) < 0 || (after.n > 0 && span_cmp(name, after) <= 0))
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void file_recent_each_name(const struct recent_names *names, struct span prefix, struct span after,
			   bool each(const struct recent_list *list, void *arg), void *arg)
{
	struct recent *r = names->table;
	if (!r)
		return;
	must(pthread_mutex_lock(&r->order_lock) == 0);
	order_names(r, names);
	for (size_t i = first_name(r, prefix, after); i < r->order_n; i++)
		if (!span_starts(r->order[i]->name, prefix) || !each(r->order[i], arg))
			break;
	must(pthread_mutex_unlock(&r->order_lock) == 0);
}
