#include <config.h>

#include "base/buf.h"

#include <criterion/criterion.h>
#include <signal.h>

#include "base/mem.h"

Test(buf, collects_in_order)
{
	struct buf b;
	buf_init(&b, 1000);
	cr_assert(buf_append(&b, "ab", 2) == ERR_OK);
	cr_assert(buf_append_span(&b, SPAN("cd")) == ERR_OK);
	cr_assert(buf_append_byte(&b, 'e') == ERR_OK);
	cr_assert(buf_append_str(&b, "fg") == ERR_OK);
	cr_assert(buf_printf(&b, "-%d-%s", 42, "h") == ERR_OK);
	cr_assert(buf_append(&b, NULL, 0) == ERR_OK);
	cr_assert(span_eq_str(buf_span(&b), "abcdefg-42-h"));
	buf_release(&b);
	cr_assert(b.p == NULL && b.n == 0);
}

Test(buf, maximum_is_hard_and_leaves_the_contents)
{
	struct buf b;
	buf_init(&b, 8);
	cr_assert(buf_append_str(&b, "12345678") == ERR_OK, "exactly the maximum fits");
	cr_assert(buf_append_byte(&b, 'x') == ERR_LIMIT);
	cr_assert(buf_printf(&b, "%d", 1) == ERR_LIMIT);
	cr_assert(buf_reserve(&b, SIZE_MAX) == ERR_LIMIT);
	cr_assert(span_eq_str(buf_span(&b), "12345678"));
	cr_assert_str_eq(buf_cstr(&b), "12345678", "a full buffer can still be read as a string");
	buf_consume(&b, 3);
	cr_assert(buf_append_str(&b, "9ab") == ERR_OK);
	cr_assert_str_eq(buf_cstr(&b), "456789ab");
	buf_release(&b);
}

Test(buf, shrinks_to_what_is_in_it)
{
	struct buf b;
	buf_init(&b, 1000);
	buf_shrink(&b);
	cr_assert(buf_reserve(&b, 1000) == ERR_OK);
	buf_append_str(&b, "abc");
	buf_shrink(&b);
	cr_assert_eq(b.cap_bytes, 3u);
	cr_assert_str_eq(buf_cstr(&b), "abc");
	buf_append_str(&b, "d");
	cr_assert_str_eq(buf_cstr(&b), "abcd");
	buf_release(&b);
}

Test(buf, printf_fills_to_the_last_byte)
{
	struct buf b;
	buf_init(&b, 5);
	cr_assert(buf_printf(&b, "%s", "") == ERR_OK);
	cr_assert(buf_printf(&b, "%05d", 12) == ERR_OK);
	cr_assert(span_eq_str(buf_span(&b), "00012"));
	buf_release(&b);
}

Test(buf, grows_by_doubling_up_to_the_maximum)
{
	struct buf b;
	buf_init(&b, 100);
	cr_assert(buf_append_byte(&b, 1) == ERR_OK);
	cr_assert(b.cap_bytes == 64);
	cr_assert(buf_reserve(&b, 64) == ERR_OK);
	cr_assert(b.cap_bytes == 100);
	buf_release(&b);
}

Test(buf, consume_all_and_clear)
{
	struct buf b;
	buf_init(&b, 100);
	buf_consume(&b, 0);
	buf_append_str(&b, "abc");
	buf_consume(&b, 3);
	cr_assert(b.n == 0);
	buf_append_str(&b, "abc");
	buf_clear(&b);
	cr_assert(b.n == 0);
	cr_assert_str_eq(buf_cstr(&b), "");
	buf_release(&b);
}

Test(buf, empty_buffer_is_an_empty_string)
{
	struct buf b;
	buf_init(&b, 10);
	cr_assert_str_eq(buf_cstr(&b), "");
	buf_release(&b);
}

Test(buf, detach_hands_the_memory_over)
{
	struct buf b;
	size_t n;
	buf_init(&b, 10);
	buf_append_str(&b, "abc");
	uint8_t *p = buf_detach(&b, &n);
	cr_assert(n == 3 && memcmp(p, "abc", 3) == 0);
	cr_assert(b.p == NULL && b.n == 0 && b.max_bytes == 10);
	mem_free(p);
}

static enum err_code scenario(void)
{
	struct buf b;
	buf_init(&b, 100000);
	enum err_code e = ERR_OK;
	for (int i = 0; i < 2000 && !e; i++) {
		size_t before = b.n;
		e = i % 2 ? buf_append_str(&b, "0123456789") : buf_printf(&b, "%010d", i);
		cr_assert(b.n == before + (e ? 0 : 10), "a failed append must leave the buffer as it was");
	}
	buf_release(&b);
	return e;
}

Test(buf, every_failing_allocation_is_reported)
{
	mem_test_fail_at(0);
	cr_assert(scenario() == ERR_OK);
	unsigned long count = mem_test_fail_at(0);
	cr_assert(count > 5);
	for (unsigned long n = 1; n <= count; n++) {
		mem_test_fail_at(n);
		cr_assert(scenario() == ERR_NOMEM);
	}
	mem_test_fail_at(1);
	struct buf b;
	buf_init(&b, 10);
	cr_assert(buf_cstr(&b) == NULL);
	mem_test_fail_at(0);
}

Test(buf, consuming_more_than_there_is_aborts, .signal = SIGABRT)
{
	struct buf b;
	buf_init(&b, 10);
	buf_consume(&b, 1);
}
