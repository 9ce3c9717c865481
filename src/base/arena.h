/* An arena: many small allocations that die together, with a hard maximum in sum. One per call or
 * request; released at its end. Memory is aligned for any type and not zeroed unless said. One thread
 * at a time. */
#ifndef CAIRN_BASE_ARENA_H
#define CAIRN_BASE_ARENA_H

#include "base/span.h"

struct arena_block;
struct arena {
	struct arena_block *blocks; /* newest first */
	size_t used_bytes;
	size_t max_bytes;
};

void arena_init(struct arena *a, size_t max_bytes);
void arena_release(struct arena *a); /* frees everything; a may be used again */

void *arena_alloc(struct arena *a, size_t size_bytes);	/* NULL past the maximum or out of memory */
void *arena_zalloc(struct arena *a, size_t size_bytes); /* zeroed */
/* A copy with one 0 byte behind it (not counted in n); p is NULL on failure, also where s.n is 0. */
struct span arena_dup(struct arena *a, struct span s);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
