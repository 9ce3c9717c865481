#include <config.h>

#include "base/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/must.h"

/* The test hook; atomics only so that other threads may allocate while a test counts. */
static atomic_bool hook_on;
static atomic_ulong hook_count, hook_fail_at;

static bool hook_fails(void)
{
	if (!atomic_load_explicit(&hook_on, memory_order_relaxed))
		return false;
	unsigned long n = atomic_fetch_add_explicit(&hook_count, 1, memory_order_relaxed) + 1;
	return n == atomic_load_explicit(&hook_fail_at, memory_order_relaxed);
}

unsigned long mem_test_fail_at(unsigned long nth)
{
	atomic_store(&hook_on, true);
	atomic_store(&hook_fail_at, nth);
	return atomic_exchange(&hook_count, 0);
}

static _Noreturn void out_of_memory(void)
{
	fputs("cairn: out of memory\n", stderr);
	abort();
}

void *mem_xalloc(size_t size_bytes)
{
	void *p = calloc(1, size_bytes ? size_bytes : 1);
	if (!p)
		out_of_memory();
	return p;
}

void *mem_xrealloc(void *ptr, size_t size_bytes)
{
	void *p = realloc(ptr, size_bytes ? size_bytes : 1);
	if (!p)
		out_of_memory();
	return p;
}

void *mem_xdup(const void *ptr, size_t size_bytes)
{
	must(size_bytes < SIZE_MAX);
	uint8_t *p = mem_xalloc(size_bytes + 1);
	if (size_bytes)
		memcpy(p, ptr, size_bytes);
	return p;
}

char *mem_xstrdup(const char *text)
{
	return mem_xdup(text, strlen(text));
}

char *mem_xprintf(const char *fmt, ...)
{
	char *text;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		out_of_memory();
	return text;
}

void *mem_try_alloc(size_t size_bytes)
{
	return hook_fails() ? NULL : malloc(size_bytes ? size_bytes : 1);
}

void *mem_try_realloc(void *ptr, size_t size_bytes)
{
	return hook_fails() ? NULL : realloc(ptr, size_bytes ? size_bytes : 1);
}

void mem_free(void *ptr)
{
	free(ptr);
}
