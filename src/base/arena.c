#include <config.h>

#include "base/arena.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/must.h"

/* Blocks double from the first size to the last, so that small calls cost one small block and large
 * ones few. What is larger than a block gets one of its own. The first one is, with its own head, still
 * of a size that glibc keeps for each thread (1032 bytes), for every call of a server takes one. */
#define BLOCK_FIRST_BYTES ((size_t)992)
#define BLOCK_LAST_BYTES ((size_t)65536)
#define ALIGN_BYTES (sizeof(max_align_t) > 16 ? 16 : sizeof(max_align_t))

struct arena_block {
	struct arena_block *next;
	size_t used_bytes, size_bytes; /* of data */
	_Alignas(max_align_t) uint8_t data[];
};

void arena_init(struct arena *a, size_t max_bytes)
{
	*a = (struct arena){.max_bytes = max_bytes};
}

void arena_release(struct arena *a)
{
	while (a->blocks) {
		struct arena_block *block = a->blocks;
		a->blocks = block->next;
		mem_free(block);
	}
	a->used_bytes = 0;
}

static size_t block_size(const struct arena *a, size_t need)
{
	size_t size = a->blocks ? a->blocks->size_bytes * 2 : BLOCK_FIRST_BYTES;
	size_t left = a->max_bytes - a->used_bytes;
	if (size > BLOCK_LAST_BYTES)
		size = BLOCK_LAST_BYTES;
	if (size > left)
		size = left;
	return size < need ? need : size;
}

void *arena_alloc(struct arena *a, size_t size_bytes)
{
	if (size_bytes == 0)
		size_bytes = 1;
	if (size_bytes > a->max_bytes - a->used_bytes)
		return NULL;
	size_t need = (size_bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
	if (need < size_bytes || need > a->max_bytes - a->used_bytes)
		return NULL;
	struct arena_block *block = a->blocks;
	if (!block || block->size_bytes - block->used_bytes < need) {
		size_t size = block_size(a, need);
		if (size > SIZE_MAX - sizeof(*block))
			return NULL;
		block = mem_try_alloc(sizeof(*block) + size);
		if (!block)
			return NULL;
		block->next = a->blocks;
		block->used_bytes = 0;
		block->size_bytes = size;
		a->blocks = block;
	}
	void *p = block->data + block->used_bytes;
	block->used_bytes += need;
	a->used_bytes += need;
	return p;
}

void *arena_zalloc(struct arena *a, size_t size_bytes)
{
	void *p = arena_alloc(a, size_bytes);
	if (p)
		memset(p, 0, size_bytes);
	return p;
}

struct span arena_dup(struct arena *a, struct span s)
{
	uint8_t *p = s.n < SIZE_MAX ? arena_alloc(a, s.n + 1) : NULL;
	if (!p)
		return (struct span){NULL, 0};
	if (s.n)
		memcpy(p, s.p, s.n);
	p[s.n] = 0;
	return span_of(p, s.n);
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	must(len >= 0);
	char *text = arena_alloc(a, (size_t)len + 1);
	if (!text)
		return NULL;
	va_start(ap, fmt);
	int again = vsnprintf(text, (size_t)len + 1, fmt, ap);
	va_end(ap);
	must(again == len);
	return text;
}
