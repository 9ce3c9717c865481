/* A hash map from bytes to pointers: keys are copied, values are the caller's. Open addressing, seeded
 * SipHash-1-3 (Aumasson and Bernstein), so that a peer cannot choose colliding names. One thread. */
#ifndef CAIRN_BASE_MAP_H
#define CAIRN_BASE_MAP_H

#include <stdbool.h>

#include "base/span.h"

struct map_slot;
struct map {
	struct map_slot *slots;
	size_t count;	  /* live entries */
	size_t used;	  /* live and deleted slots */
	size_t cap;	  /* a power of two, or 0 */
	uint64_t seed[2];
};

void map_init(struct map *m);
void map_release(struct map *m); /* frees the keys; the values are the caller's */
void *map_get(const struct map *m, struct span key);
/* Returns the value that was there before (NULL if none). value must not be NULL. */
void *map_put(struct map *m, struct span key, void *value);
void *map_remove(struct map *m, struct span key); /* the removed value, or NULL */
/* Visits every entry in no order; fn must not change the map but for removing the key it is given. */
void map_each(struct map *m, void (*fn)(struct span key, void *value, void *arg), void *arg);

/* The same hash, for tables of one's own. */
uint64_t hash_bytes(const uint64_t seed[2], struct span key);

#endif
