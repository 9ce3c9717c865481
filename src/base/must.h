/* Assertions for our own bugs, always compiled in, and the checked cast of typed handles.
 *
 * must(cond)          prints condition, place and a backtrace, then aborts.
 * must_slow(cond)     the same, compiled only with --enable-slow-checks.
 * unreachable_state() for the default branch of a state machine.
 *
 * Anything that a peer, a disk or an operator can cause is an enum err_code, never a must(). Long-lived
 * objects carry `uint32_t magic` as their first member; OBJ_CAST turns a callback's void * back into
 * one, and freeing the object clears the magic. */
#ifndef CAIRN_BASE_MUST_H
#define CAIRN_BASE_MUST_H

#include <stddef.h>
#include <stdint.h>

_Noreturn void must_fail(const char *what, const char *file, int line, const char *func);

#define must(cond) ((cond) ? (void)0 : must_fail(#cond, __FILE__, __LINE__, __func__))
#ifdef CAIRN_SLOW_CHECKS
#define must_slow(cond) must(cond)
#else
#define must_slow(cond) ((void)sizeof((cond) ? 1 : 0))
#endif
#define unreachable_state(name) must_fail("state " name, __FILE__, __LINE__, __func__)

/* struct conn *conn = OBJ_CAST(struct conn, arg, CONN_MAGIC); */
#define OBJ_CAST(type, ptr, expected_magic) \
	((type *)obj_check((ptr), (expected_magic), #type, __FILE__, __LINE__, __func__))

void *obj_check(void *ptr, uint32_t magic, const char *type, const char *file, int line,
		const char *func);

/* The struct of type `type` whose member `member` is at ptr. */
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
