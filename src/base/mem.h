/* Memory for small, fixed-size needs, and the hook by which tests fail the n-th allocation.
 *
 * mem_x*() never return NULL: for a few hundred bytes of our own, running out aborts. What a peer can
 * size goes through buf.h or arena.h, or mem_try_*(), and answers ERR_NOMEM or ERR_LIMIT. All memory is
 * freed with mem_free(). Threads: all functions may be called from any thread; the hook is for
 * single-threaded tests. */
#ifndef CAIRN_BASE_MEM_H
#define CAIRN_BASE_MEM_H

#include <stddef.h>

void *mem_xalloc(size_t size_bytes);		    /* zeroed; aborts when out of memory */
void *mem_xrealloc(void *ptr, size_t size_bytes);   /* aborts when out of memory */
void *mem_xdup(const void *ptr, size_t size_bytes); /* a copy, plus one 0 byte behind it */
char *mem_xstrdup(const char *text);
char *mem_xprintf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void *mem_try_alloc(size_t size_bytes);		     /* not zeroed; NULL when out of memory */
void *mem_try_realloc(void *ptr, size_t size_bytes); /* NULL when out of memory: ptr is kept */

void mem_free(void *ptr); /* NULL is fine */

/* Tests only: the n-th mem_try_*() from now fails once (0: never); returns how many there were since
 * the last call. A scenario is run once with 0 to count them, then once for every n. */
unsigned long mem_test_fail_at(unsigned long nth);

#endif
