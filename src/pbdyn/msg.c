/* Dynamic messages: one slot a field, by its index in the type; a bit says whether it is set. */
#include <config.h>

#include "pbdyn/internal.h"

#include "base/map.h"

enum err_code arena_exhausted(struct err *err)
{
	return err_set(err, ERR_LIMIT, "the message needs more memory than it may take");
}

struct pb_msg *pb_msg_new(const struct pb_type *type, struct arena *arena)
{
	size_t n = type->field_count, words = (n + 31) / 32;
	size_t values_bytes = n * sizeof(union pb_value);
	struct pb_msg *m = arena_zalloc(arena, sizeof(*m) + values_bytes +
						       (words + type->oneof_count) * sizeof(uint32_t));
	if (!m)
		return NULL;
	m->type = type;
	m->arena = arena;
	m->has = (uint32_t *)(void *)((uint8_t *)m + sizeof(*m) + values_bytes);
	m->cases = m->has + words;
	return m;
}

const struct pb_type *pb_msg_type(const struct pb_msg *msg)
{
	return msg->type;
}

/* The field must be one of this message's type: anything else would be our bug. */
static void check_field(const struct pb_msg *msg, const struct pb_field *field)
{
	must(field->parent == msg->type);
	must(!field->extension);
}

bool pb_msg_has(const struct pb_msg *msg, const struct pb_field *field)
{
	check_field(msg, field);
	if (field->repeated)
		return msg->values[field->index].list && msg->values[field->index].list->count > 0;
	return msg_has_bit(msg, field->index);
}

const struct pb_field *pb_msg_which(const struct pb_msg *msg, const struct pb_oneof *oneof)
{
	must(oneof->parent == msg->type);
	uint32_t which = msg->cases[oneof->index];
	return which ? &msg->type->fields[which - 1] : NULL;
}

union pb_value pb_msg_get(const struct pb_msg *msg, const struct pb_field *field)
{
	check_field(msg, field);
	if (field->repeated || msg_has_bit(msg, field->index))
		return msg->values[field->index];
	return field->fallback;
}

void pb_msg_clear(struct pb_msg *msg, const struct pb_field *field)
{
	check_field(msg, field);
	msg->has[field->index / 32] &= ~(1U << (field->index % 32));
	memset(&msg->values[field->index], 0, sizeof(msg->values[0]));
	if (field->oneof && msg->cases[field->oneof->index] == field->index + 1)
		msg->cases[field->oneof->index] = 0;
}

void pb_msg_set(struct pb_msg *msg, const struct pb_field *field, union pb_value value)
{
	check_field(msg, field);
	must(!field->repeated);
	if (field->oneof) {
		uint32_t before = msg->cases[field->oneof->index];
		if (before && before != field->index + 1)
			pb_msg_clear(msg, &msg->type->fields[before - 1]);
		msg->cases[field->oneof->index] = field->index + 1;
	}
	msg->values[field->index] = value;
	msg->has[field->index / 32] |= 1U << (field->index % 32);
}

struct pb_msg *pb_msg_sub(struct pb_msg *msg, const struct pb_field *field)
{
	check_field(msg, field);
	must(field->sub);
	must(!field->repeated);
	if (msg_has_bit(msg, field->index))
		return msg->values[field->index].msg;
	struct pb_msg *sub = pb_msg_new(field->sub, msg->arena);
	if (sub)
		pb_msg_set(msg, field, (union pb_value){.msg = sub});
	return sub;
}

bool list_reserve(struct pb_msg *msg, const struct pb_field *field, size_t more)
{
	struct pb_list *list = msg->values[field->index].list;
	if (!list) {
		if (!(list = arena_zalloc(msg->arena, sizeof(*list))))
			return false;
		msg->values[field->index].list = list;
	}
	if (more <= list->cap - list->count)
		return true;
	size_t cap = list->cap * 2 > list->count + more ? list->cap * 2 : list->count + more;
	if (cap < 4)
		cap = 4;
	if (cap > SIZE_MAX / sizeof(union pb_value))
		return false;
	union pb_value *items = arena_alloc(msg->arena, cap * sizeof(*items));
	if (!items)
		return false;
	if (list->count)
		memcpy(items, list->items, list->count * sizeof(*items));
	list->items = items;
	list->cap = cap;
	return true;
}

enum err_code pb_msg_add(struct pb_msg *msg, const struct pb_field *field, union pb_value value)
{
	check_field(msg, field);
	must(field->repeated);
	must(!field->map);
	if (!list_reserve(msg, field, 1))
		return ERR_LIMIT;
	struct pb_list *list = msg->values[field->index].list;
	list->items[list->count++] = value;
	return ERR_OK;
}

bool value_is_zero(enum pb_kind kind, union pb_value v)
{
	if (kind == PB_STRING || kind == PB_BYTES)
		return v.bytes.n == 0;
	return wire_from_value(kind, v) == 0; /* bits: -0.0 is a value of its own */
}

/* --- maps --- */

/* Finds entries by key once there are more than a few: slots hold item index + 1, 0 is empty. */
struct pb_map_index {
	size_t cap; /* a power of two, more than twice the entries */
	uint32_t slots[];
};
#define MAP_INDEX_FROM 8

static const struct pb_field *key_of(const struct pb_type *entry_type)
{
	return entry_type->by_number[0]; /* 1 and 2 are all there is */
}

static bool same_key(const struct pb_field *key, const struct pb_msg *a, const struct pb_msg *b)
{
	union pb_value x = pb_msg_get(a, key), y = pb_msg_get(b, key);
	if (key->kind == PB_STRING)
		return span_eq(x.bytes, y.bytes);
	return wire_from_value(key->kind, x) == wire_from_value(key->kind, y);
}

static size_t key_slot(const struct pb_msg *entry, size_t cap)
{
	const struct pb_field *key = key_of(entry->type);
	union pb_value v = pb_msg_get(entry, key);
	uint64_t raw;
	struct span bytes = v.bytes;
	if (key->kind != PB_STRING) {
		raw = wire_from_value(key->kind, v);
		bytes = span_of(&raw, sizeof(raw));
	}
	return (size_t)hash_bytes(entry->type->file->pool->seed, bytes) & (cap - 1);
}

static void index_add(struct pb_map_index *index, const struct pb_msg *entry, size_t item)
{
	size_t slot = key_slot(entry, index->cap);
	while (index->slots[slot])
		slot = (slot + 1) & (index->cap - 1);
	index->slots[slot] = (uint32_t)(item + 1);
}

/* Makes the index, or a larger one, when the list has outgrown it. */
static bool index_fit(struct pb_list *list, struct arena *arena)
{
	size_t cap = list->index ? list->index->cap : 0;
	if (list->count < MAP_INDEX_FROM || (list->count + 1) * 2 < cap)
		return true;
	cap = cap ? cap * 2 : 4 * MAP_INDEX_FROM;
	if (cap > UINT32_MAX)
		return false;
	struct pb_map_index *index = arena_zalloc(arena, sizeof(*index) + cap * sizeof(uint32_t));
	if (!index)
		return false;
	index->cap = cap;
	for (size_t i = 0; i < list->count; i++)
		index_add(index, list->items[i].msg, i);
	list->index = index;
	return true;
}

/* Where the key of entry stands in the list, or list->count. */
static size_t map_find(const struct pb_list *list, const struct pb_msg *entry)
{
	const struct pb_field *key = key_of(entry->type);
	if (!list->index) {
		size_t i = 0;
		while (i < list->count && !same_key(key, list->items[i].msg, entry))
			i++;
		return i;
	}
	size_t slot = key_slot(entry, list->index->cap);
	for (uint32_t item; (item = list->index->slots[slot]); slot = (slot + 1) & (list->index->cap - 1)) {
		if (same_key(key, list->items[item - 1].msg, entry))
			return item - 1;
	}
	return list->count;
}

enum err_code map_put_entry(struct pb_msg *msg, const struct pb_field *field, struct pb_msg *entry,
			    bool *ret_replaced)
{
	const struct pb_field *value = entry->type->by_number[1];
	must(field->map);
	entry->unknown_first = entry->unknown_last = NULL; /* protobuf drops them too */
	if (value->kind == PB_MESSAGE && !pb_msg_sub(entry, value))
		return ERR_LIMIT;
	if (!list_reserve(msg, field, 1))
		return ERR_LIMIT;
	struct pb_list *list = msg->values[field->index].list;
	if (!index_fit(list, msg->arena))
		return ERR_LIMIT;
	size_t at = map_find(list, entry);
	*ret_replaced = at < list->count;
	list->items[at].msg = entry;
	if (!*ret_replaced) {
		list->count++;
		if (list->index)
			index_add(list->index, entry, at);
	}
	return ERR_OK;
}
