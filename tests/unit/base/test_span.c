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
