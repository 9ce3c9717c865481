#include <config.h>

#include "base/map.h"

#include "base/endian.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"

/* Linear probing; at most three quarters of the slots are live or deleted, so every probe ends. */
struct map_slot {
	uint8_t *key; /* owned; NULL: never used */
	size_t key_bytes;
	uint64_t hash;
	void *value; /* NULL with a key: never; with key == deleted: deleted */
};

static uint8_t deleted_mark;
#define DELETED (&deleted_mark)
#define MAP_FIRST_CAP 16

static inline uint64_t rotl(uint64_t v, unsigned int by)
{
	return v << by | v >> (64 - by);
}

/* Inlined, so that the four words stay in registers: every name and id is hashed a few times. */
static inline __attribute__((always_inline)) void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotl(v[1], 13) ^ v[0];
	v[0] = rotl(v[0], 32);
	v[2] += v[3];
	v[3] = rotl(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotl(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotl(v[1], 17) ^ v[2];
	v[2] = rotl(v[2], 32);
}

uint64_t hash_bytes(const uint64_t seed[2], struct span key)
{
	uint64_t v[4] = {seed[0] ^ 0x736f6d6570736575, seed[1] ^ 0x646f72616e646f6d,
			 seed[0] ^ 0x6c7967656e657261, seed[1] ^ 0x7465646279746573};
	uint64_t last = (uint64_t)key.n << 56;
	size_t whole = key.n / 8 * 8;
	for (size_t i = 0; i < whole; i += 8) {
		uint64_t word = get_le64(key.p + i);
		v[3] ^= word;
		sip_round(v);
		v[0] ^= word;
	}
	for (size_t i = whole; i < key.n; i++)
		last |= (uint64_t)key.p[i] << (8 * (i - whole));
	v[3] ^= last;
	sip_round(v);
	v[0] ^= last;
	v[2] ^= 0xFF;
	for (int i = 0; i < 3; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void map_init(struct map *m)
{
	*m = (struct map){.seed = {random_u64(), random_u64()}};
}

void map_release(struct map *m)
{
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].key != DELETED)
			mem_free(m->slots[i].key);
	mem_free(m->slots);
	m->slots = NULL;
	m->count = m->used = m->cap = 0;
}

static struct map_slot *slot_find(const struct map *m, struct span key, uint64_t hash)
{
	if (m->cap == 0)
		return NULL;
	for (size_t i = hash & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct map_slot *slot = &m->slots[i];
		if (!slot->key)
			return NULL;
		if (slot->key != DELETED && slot->hash == hash &&
		    span_eq(span_of(slot->key, slot->key_bytes), key))
			return slot;
	}
}

static struct map_slot *slot_unused(struct map_slot *slots, size_t cap, uint64_t hash)
{
	size_t i = hash & (cap - 1);
	while (slots[i].key)
		i = (i + 1) & (cap - 1);
	return &slots[i];
}

/* Room for one more: doubles when full of live entries, else only sweeps the deleted ones out. */
static void map_make_room(struct map *m)
{
	if (m->used + 1 <= m->cap / 4 * 3)
		return;
	size_t cap = MAP_FIRST_CAP;
	while (m->count + 1 > cap / 2) {
		must(cap <= SIZE_MAX / 2 / sizeof(struct map_slot));
		cap *= 2;
	}
	struct map_slot *slots = mem_xalloc(cap * sizeof(*slots));
	for (size_t i = 0; i < m->cap; i++)
		if (m->slots[i].key && m->slots[i].key != DELETED)
			*slot_unused(slots, cap, m->slots[i].hash) = m->slots[i];
	mem_free(m->slots);
	m->slots = slots;
	m->cap = cap;
	m->used = m->count;
}

void *map_get(const struct map *m, struct span key)
{
	const struct map_slot *slot = slot_find(m, key, hash_bytes(m->seed, key));
	return slot ? slot->value : NULL;
}

void *map_put(struct map *m, struct span key, void *value)
{
	must(value);
	uint64_t hash = hash_bytes(m->seed, key);
	struct map_slot *slot = slot_find(m, key, hash);
	if (slot) {
		void *old = slot->value;
		slot->value = value;
		return old;
	}
	map_make_room(m);
	*slot_unused(m->slots, m->cap, hash) = (struct map_slot){
		.key = mem_xdup(key.p, key.n), .key_bytes = key.n, .hash = hash, .value = value};
	m->count++;
	m->used++;
	return NULL;
}

void *map_remove(struct map *m, struct span key)
{
	struct map_slot *slot = slot_find(m, key, hash_bytes(m->seed, key));
	if (!slot)
		return NULL;
	void *value = slot->value;
	mem_free(slot->key);
	*slot = (struct map_slot){.key = DELETED};
	m->count--;
	return value;
}

void map_each(struct map *m, void (*fn)(struct span key, void *value, void *arg), void *arg)
{
	size_t cap = m->cap;
	for (size_t i = 0; i < cap; i++) {
		struct map_slot *slot = &m->slots[i];
		if (slot->key && slot->key != DELETED)
			fn(span_of(slot->key, slot->key_bytes), slot->value, arg);
		must(m->cap == cap);
	}
}
