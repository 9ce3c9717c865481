#include <config.h>

#include "base/mem.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

Test(mem, xalloc_is_zeroed)
{
	uint8_t *p = mem_xalloc(1000);
	for (int i = 0; i < 1000; i++)
		cr_assert(p[i] == 0);
	p = mem_xrealloc(p, 2000);
	cr_assert(p);
	mem_free(p);
	p = mem_xalloc(0);
	cr_assert(p);
	mem_free(p);
	mem_free(NULL);
}

Test(mem, copies_are_terminated)
{
	char *p = mem_xdup("a\0b", 3);
	cr_assert(memcmp(p, "a\0b", 4) == 0);
	mem_free(p);
	p = mem_xdup(NULL, 0);
	cr_assert_str_eq(p, "");
	mem_free(p);
	p = mem_xstrdup("text");
	cr_assert_str_eq(p, "text");
	mem_free(p);
	p = mem_xprintf("%s-%d", "n", 7);
	cr_assert_str_eq(p, "n-7");
	mem_free(p);
}

Test(mem, hook_fails_exactly_the_nth_and_counts)
{
	mem_test_fail_at(2);
	void *a = mem_try_alloc(1), *b = mem_try_alloc(1), *c = mem_try_alloc(1);
	cr_assert(a && !b && c);
	cr_assert(mem_test_fail_at(1) == 3);
	cr_assert(mem_try_realloc(a, 100) == NULL);
	void *d = mem_try_realloc(a, 100);
	cr_assert(d, "the old memory is kept by a failure, and only one fails");
	cr_assert(mem_test_fail_at(0) == 2);
	mem_free(c);
	mem_free(d);
}

Test(mem, try_says_no_to_what_cannot_be)
{
	volatile size_t huge = SIZE_MAX / 2; /* hidden from the compiler's own check */
	cr_assert(mem_try_alloc(huge) == NULL);
}

Test(mem, xalloc_aborts_when_out_of_memory, .signal = SIGABRT)
{
	volatile size_t huge = SIZE_MAX / 2;
	mem_xalloc(huge);
}
