#include <config.h>

#include "base/arena.h"

#include <criterion/criterion.h>
#include <stdint.h>

#include "base/mem.h"

Test(arena, memory_is_aligned_apart_and_writable)
{
	struct arena a;
	arena_init(&a, 1 << 20);
	uint8_t *last = NULL;
	size_t last_n = 0;
	for (size_t n = 0; n < 300; n++) {
		uint8_t *p = arena_alloc(&a, n);
		cr_assert(p);
		cr_assert((uintptr_t)p % 16 == 0);
		memset(p, (int)n, n);
		for (size_t i = 0; i < last_n; i++)
			cr_assert(last[i] == (uint8_t)last_n);
		last = p;
		last_n = n;
	}
	arena_release(&a);
	cr_assert(a.used_bytes == 0);
	cr_assert(arena_alloc(&a, 5), "an arena may be used again after its release");
	arena_release(&a);
}

Test(arena, maximum_is_hard)
{
	struct arena a;
	arena_init(&a, 64);
	cr_assert(arena_alloc(&a, 65) == NULL);
	cr_assert(arena_alloc(&a, SIZE_MAX) == NULL);
	cr_assert(arena_alloc(&a, 32));
	cr_assert(arena_alloc(&a, 32));
	cr_assert(arena_alloc(&a, 1) == NULL);
	cr_assert(a.used_bytes == 64);
	arena_release(&a);
}

Test(arena, one_allocation_may_be_larger_than_a_block)
{
	struct arena a;
	arena_init(&a, SIZE_MAX);
	uint8_t *p = arena_zalloc(&a, 300000);
	cr_assert(p);
	for (size_t i = 0; i < 300000; i++)
		cr_assert(p[i] == 0);
	cr_assert(arena_alloc(&a, SIZE_MAX - 8) == NULL);
	arena_release(&a);
}

Test(arena, dup_is_terminated_and_empty_is_not_failure)
{
	struct arena a;
	arena_init(&a, 100);
	struct span s = arena_dup(&a, SPAN("journal"));
	cr_assert(span_eq_str(s, "journal"));
	cr_assert(s.p[s.n] == 0);
	struct span empty = arena_dup(&a, span_of(NULL, 0));
	cr_assert(empty.p && empty.n == 0 && empty.p[0] == 0);
	uint8_t big[200] = {0};
	cr_assert(arena_dup(&a, span_of(big, sizeof(big))).p == NULL);
	arena_release(&a);
}

Test(arena, printf_formats)
{
	struct arena a;
	arena_init(&a, 32);
	cr_assert_str_eq(arena_printf(&a, "%s|%d", "cart", 7), "cart|7");
	cr_assert(arena_printf(&a, "%100d", 1) == NULL);
	arena_release(&a);
}

static bool scenario(void)
{
	struct arena a;
	arena_init(&a, 1 << 20);
	bool ok = true;
	for (int i = 0; i < 50 && ok; i++)
		ok = arena_alloc(&a, 1000) && arena_dup(&a, SPAN("x")).p && arena_printf(&a, "%d", i);
	arena_release(&a);
	return ok;
}

Test(arena, every_failing_allocation_is_reported)
{
	mem_test_fail_at(0);
	cr_assert(scenario());
	unsigned long count = mem_test_fail_at(0);
	cr_assert(count > 3);
	for (unsigned long n = 1; n <= count; n++) {
		mem_test_fail_at(n);
		cr_assert_not(scenario(), "allocation %lu of %lu failed and nobody said so", n, count);
	}
	mem_test_fail_at(0);
}
