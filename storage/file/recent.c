#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/recent.h"

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
	return r;
}

static void lists_free(struct recent_list *list)
{
	while (list) {
		struct recent_list *next = list->next;
		mem_free(list->entries);
		mem_free(list->snapshots);
		mem_free((void *)(uintptr_t)list->name.p);
		mem_free(list);
		list = next;
	}
}

void file_recent_free(struct recent *r)
{
	if (!r)
		return;
	lists_free(r->stream_list);
	lists_free(r->category_list);
	map_release(&r->streams);
	map_release(&r->categories);
	mem_free(r->ids);
	mem_free(r->slots);
	mem_free(r);
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

static void id_add(struct recent *r, const uint8_t *id)
{
	must(r->n < UINT32_MAX);
	if (r->n == r->id_cap) {
		r->id_cap = r->id_cap ? 2 * r->id_cap : FIRST_SLOTS / 2;
		r->ids = mem_xrealloc(r->ids, r->id_cap * sizeof(*r->ids));
	}
	memcpy(r->ids[r->n], id, RECORD_ID_BYTES);
	if (2 * (r->n + 1) > r->slot_cap) {
		mem_free(r->slots);
		r->slot_cap = r->slot_cap ? 2 * r->slot_cap : FIRST_SLOTS;
		r->slots = mem_xalloc(r->slot_cap * sizeof(*r->slots));
		for (size_t i = 0; i < r->n; i++)
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

void file_recent_add(struct recent *r, const struct storage_record *record)
{
	must(record->position == r->first + r->n);
	uint64_t entry = entry_of(record->position, record->kind);
	struct recent_list *stream = list_get(&r->streams, &r->stream_list, record->stream);
	list_add(stream, entry);
	if (entry_takes_sequence(entry)) {
		if (stream->first_sequence == 0)
			stream->first_sequence = record->sequence;
		stream->sequence = record->sequence;
	}
	if (record->kind == RECORD_SNAPSHOT)
		list_add_snapshot(stream, record->sequence, record->position);
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

bool file_recent_list_sequence(const struct recent_list *list, uint64_t sequence, uint64_t *ret_position)
{
	if (list->first_sequence == 0 || sequence > list->sequence)
		return false;
	/* Of the entries, each that took a sequence took the next one. */
	uint64_t skip = sequence > list->first_sequence ? sequence - list->first_sequence : 0;
	if (list->sequence - list->first_sequence + 1 == list->n) {
		*ret_position = entry_position(list->entries[skip]);
		return true;
	}
	for (size_t i = 0; i < list->n; i++) {
		if (!entry_takes_sequence(list->entries[i]))
			continue;
		if (skip-- == 0) {
			*ret_position = entry_position(list->entries[i]);
			return true;
		}
	}
	return false;
}
