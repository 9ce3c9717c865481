#include <config.h>

#include "base/span.h"

#include <criterion/criterion.h>

Test(span, compares_as_bytes_shorter_first)
{
	cr_assert(span_cmp(SPAN("a"), SPAN("b")) < 0);
	cr_assert(span_cmp(SPAN("b"), SPAN("a")) > 0);
	cr_assert(span_cmp(SPAN("a"), SPAN("ab")) < 0);
	cr_assert(span_cmp(SPAN("ab"), SPAN("a")) > 0);
	cr_assert(span_cmp(SPAN("ab"), SPAN("ab")) == 0);
	cr_assert(span_cmp(SPAN("\xFF"), SPAN("a")) > 0, "bytes are unsigned");
	cr_assert(span_cmp(span_str(NULL), SPAN("")) == 0);
	cr_assert(span_eq(SPAN("a\0b"), SPAN("a\0b")));
	cr_assert_not(span_eq(SPAN("a\0b"), SPAN("a\0c")));
	cr_assert(span_eq(span_of(NULL, 0), SPAN("")));
	cr_assert(span_eq_str(SPAN("x"), "x"));
}

Test(span, parts)
{
	cr_assert(span_starts(SPAN("cart|1"), SPAN("cart|")));
	cr_assert(span_starts(SPAN("cart|1"), SPAN("")));
	cr_assert_not(span_starts(SPAN("ca"), SPAN("cart")));
	cr_assert(span_eq_str(span_skip(SPAN("cart|1"), 5), "1"));
	cr_assert(span_eq_str(span_first(SPAN("cart|1"), 4), "cart"));
	cr_assert(span_find(SPAN("cart|1"), '|') == 4);
	cr_assert(span_find(SPAN("cart"), '|') == 4);
	cr_assert(span_find(span_of(NULL, 0), '|') == 0);
}

Test(span, letters_are_compared_in_either_case)
{
	cr_assert(span_eq_nocase(SPAN("Text/Plain"), SPAN("tEXT/pLAIN")));
	cr_assert(span_eq_nocase(SPAN(""), (struct span){0}));
	cr_assert(!span_eq_nocase(SPAN("ab"), SPAN("abc")));
	cr_assert(!span_eq_nocase(SPAN("a["), SPAN("a{"))); /* 32 apart, and no letters */
}

Test(span, is_trimmed_at_both_ends)
{
	cr_assert(span_eq_str(span_trim(SPAN(" \t a b\t ")), "a b"));
	cr_assert(span_eq_str(span_trim(SPAN(" \t")), ""));
	cr_assert(span_eq_str(span_trim(SPAN("\na")), "\na"));
}
