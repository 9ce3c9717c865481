#include <config.h>

#include "base/err.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "base/span.h"
#include "base/text.h"

Test(err, first_cause_wins)
{
	struct err err = {0};
	cr_assert(err_set(&err, ERR_INVALID, "field %d is %s", 3, "empty") == ERR_INVALID);
	cr_assert(err_set(&err, ERR_IO, "later") == ERR_IO, "the caller's code is returned all the same");
	cr_assert(err_set_errno(&err, ERR_IO, EPERM, "later") == ERR_IO);
	cr_assert(err.code == ERR_INVALID);
	cr_assert(err.sys_errno == 0);
	cr_assert_str_eq(err.text, "field 3 is empty");
}

Test(err, errno_is_kept_and_spelt_out)
{
	struct err err = {0};
	cr_assert(err_set_errno(&err, ERR_IO, ENOENT, "open %s", "/x") == ERR_IO);
	cr_assert(err.sys_errno == ENOENT);
	cr_assert_str_eq(err.text, "open /x: No such file or directory");
}

Test(err, wrap_puts_context_before_the_cause)
{
	struct err err = {0};
	err_set(&err, ERR_CORRUPT, "frame at 512");
	cr_assert(err_wrap(&err, "segment %u", 7u) == ERR_CORRUPT);
	cr_assert(err_wrap(&err, "journal") == ERR_CORRUPT);
	cr_assert_str_eq(err.text, "journal: segment 7: frame at 512");
}

Test(err, null_is_nobody_reads_it)
{
	cr_assert(err_set(NULL, ERR_FULL, "x") == ERR_FULL);
	cr_assert(err_set_errno(NULL, ERR_IO, EIO, "x") == ERR_IO);
	cr_assert(err_wrap(NULL, "x") == ERR_INTERNAL);
}

Test(err, text_has_nothing_that_a_terminal_would_act_on)
{
	struct err err = {0};
	err_set(&err, ERR_INVALID, "bad name \"a\x1b[31mb\x7f\t\xc2\x9b%s\"", "\xc3\xa9\xc2\xa0");
	cr_expect_str_eq(err.text, "bad name \"a [31mb    \xc3\xa9\xc2\xa0\"");
}

Test(err, text_is_one_line)
{
	struct err err = {0};
	err_set(&err, ERR_INVALID, "bad name \"a\nb\r\"");
	cr_assert_str_eq(err.text, "bad name \"a b \"");
}

Test(err, long_text_is_cut_visibly_between_characters)
{
	char long_text[3 * ERR_TEXT_MAX];
	for (size_t shift = 0; shift < 3; shift++) {
		memset(long_text, 'a', sizeof(long_text));
		for (size_t i = shift; i + 3 < sizeof(long_text); i += 3)
			memcpy(long_text + i, "\xE2\x82\xAC", 3);
		long_text[sizeof(long_text) - 1] = 0;
		struct err err = {0};
		err_set(&err, ERR_INVALID, "%s", long_text);
		size_t n = strlen(err.text);
		cr_assert(n < ERR_TEXT_MAX);
		cr_assert(n > ERR_TEXT_MAX - 8);
		cr_assert_str_eq(err.text + n - 3, "...");
		cr_assert(utf8_valid(span_str(err.text)));
		err_wrap(&err, "context");
		cr_assert(strncmp(err.text, "context: ", 9) == 0);
		cr_assert_str_eq(err.text + strlen(err.text) - 3, "...");
		cr_assert(utf8_valid(span_str(err.text)));
		struct err io = {0};
		err_set_errno(&io, ERR_IO, EIO, "%s", long_text);
		cr_assert_str_eq(io.text + strlen(io.text) - 3, "...");
	}
}

Test(err, every_code_has_a_name_of_its_own)
{
	for (int i = 0; i < ERR_CODE_COUNT; i++) {
		cr_assert(err_name((enum err_code)i));
		cr_assert_str_neq(err_name((enum err_code)i), "unknown");
		for (int k = 0; k < i; k++)
			cr_assert_str_neq(err_name((enum err_code)i), err_name((enum err_code)k));
	}
	cr_assert_str_eq(err_name((enum err_code)ERR_CODE_COUNT), "unknown");
	cr_assert_str_eq(err_name(ERR_OK), "ok");
}

Test(err, clear_makes_it_new)
{
	struct err err = {0};
	err_set_errno(&err, ERR_IO, EIO, "x");
	err_clear(&err);
	cr_assert(err.code == ERR_OK && err.sys_errno == 0 && err.text[0] == 0);
	err_set(&err, ERR_LIMIT, "y");
	cr_assert_str_eq(err.text, "y");
}

Test(err, success_is_no_error, .signal = SIGABRT)
{
	struct err err = {0};
	err_set(&err, ERR_OK, "x");
}

Test(err, wrapping_nothing_is_a_bug, .signal = SIGABRT)
{
	struct err err = {0};
	err_wrap(&err, "x");
}
