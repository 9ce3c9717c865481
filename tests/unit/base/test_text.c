#include <config.h>

#include "base/text.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/mem.h"

Test(text, utf8_well_formed)
{
	static const struct span good[] = {
		SPAN(""),
		SPAN("ascii"),
		SPAN("\xC2\x80"),
		SPAN("\xDF\xBF"),
		SPAN("\xE0\xA0\x80"),
		SPAN("\xED\x9F\xBF"),
		SPAN("\xEE\x80\x80"),
		SPAN("\xEF\xBF\xBF"),
		SPAN("\xF0\x90\x80\x80"),
		SPAN("\xF4\x8F\xBF\xBF"),
		SPAN("a\0b\n"),
	};
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert(utf8_valid(good[i]), "case %zu", i);
}

Test(text, utf8_malformed)
{
	static const struct span bad[] = {
		SPAN("\x80"),
		SPAN("\xBF"),
		SPAN("\xC0\x80"),
		SPAN("\xC1\xBF"),
		SPAN("\xC2"),
		SPAN("\xC2\x41"),
		SPAN("\xE0\x80\x80"),
		SPAN("\xE0\x9F\xBF"),
		SPAN("\xED\xA0\x80"),
		SPAN("\xED\xBF\xBF"),
		SPAN("\xE2\x82"),
		SPAN("\xF0\x80\x80\x80"),
		SPAN("\xF0\x8F\xBF\xBF"),
		SPAN("\xF4\x90\x80\x80"),
		SPAN("\xF5\x80\x80\x80"),
		SPAN("\xF8\x88\x80\x80\x80"),
		SPAN("\xFF"),
		SPAN("ok\xE2\x82x"),
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_not(utf8_valid(bad[i]), "case %zu", i);
		cr_assert_not(utf8_valid_no_controls(bad[i]), "case %zu", i);
	}
}

Test(text, utf8_agrees_with_the_table_on_all_pairs_of_bytes)
{
	for (unsigned int a = 0; a < 256; a++)
		for (unsigned int b = 0; b < 256; b++) {
			uint8_t p[2] = {(uint8_t)a, (uint8_t)b};
			bool want =
				(a < 0x80 && b < 0x80) || (a >= 0xC2 && a <= 0xDF && b >= 0x80 && b <= 0xBF);
			cr_assert(utf8_valid(span_of(p, 2)) == want, "%02x %02x", a, b);
		}
}

Test(text, utf8_looks_at_every_byte_wherever_it_stands)
{
	for (size_t at = 0; at < 20; at++)
		for (unsigned int b = 0; b < 256; b++) {
			uint8_t p[20];
			memset(p, at % 2 ? ' ' : '~', sizeof(p)); /* the ends of what is printable */
			p[at] = (uint8_t)b;
			cr_assert(utf8_valid(span_of(p, sizeof(p))) == (b < 0x80), "%02x at %zu", b, at);
			cr_assert(utf8_valid_no_controls(span_of(p, sizeof(p))) == (b >= 0x20 && b < 0x7F),
				  "%02x at %zu", b, at);
		}
}

Test(text, utf8_char_gives_code_point_and_length)
{
	uint32_t c;
	cr_assert(utf8_char(SPAN("A"), &c) == 1 && c == 'A');
	cr_assert(utf8_char(SPAN("\xE2\x82\xAC!"), &c) == 3 && c == 0x20AC);
	cr_assert(utf8_char(SPAN("\xF0\x9F\x98\x80"), &c) == 4 && c == 0x1F600);
	cr_assert(utf8_char(SPAN("\xE2\x82"), &c) == 0);
}

Test(text, controls_are_refused_where_asked)
{
	cr_assert(utf8_valid_no_controls(SPAN("caf\xC3\xA9 \xC2\xA0")));
	cr_assert_not(utf8_valid_no_controls(SPAN("a\0")));
	cr_assert_not(utf8_valid_no_controls(SPAN("a\n")));
	cr_assert_not(utf8_valid_no_controls(SPAN("\x1F")));
	cr_assert_not(utf8_valid_no_controls(SPAN("\x7F")));
	cr_assert_not(utf8_valid_no_controls(SPAN("\xC2\x80")));
	cr_assert_not(utf8_valid_no_controls(SPAN("\xC2\x9F")));
}

static void check(enum err_code (*fn)(struct buf *, struct span), struct span in, const char *want)
{
	struct buf b;
	buf_init(&b, 200);
	buf_append_byte(&b, '>');
	enum err_code e = fn(&b, in);
	if (want) {
		cr_assert(e == ERR_OK, "%.*s", SPAN_ARG(in));
		cr_assert(span_eq_str(span_skip(buf_span(&b), 1), want), "%.*s -> %s", SPAN_ARG(in),
			  buf_cstr(&b));
	} else {
		cr_assert(e == ERR_INVALID, "%.*s", SPAN_ARG(in));
		cr_assert(b.n == 1, "nothing is added on failure");
	}
	buf_release(&b);
}

static enum err_code encode_padded(struct buf *b, struct span s)
{
	return base64_encode(b, s, true);
}
static enum err_code encode_bare(struct buf *b, struct span s)
{
	return base64_encode(b, s, false);
}

Test(text, hex)
{
	check(hex_encode, SPAN(""), "");
	check(hex_encode, SPAN("\x00\x9F\xff"), "009fff");
	for (int c = 0; c < 256; c++) {
		const char *at = c ? strchr("0123456789abcdef", c) : NULL;
		const char *upper = c ? strchr("ABCDEF", c) : NULL;
		int want = at ? (int)(at - strchr("0123456789abcdef", '0')) : upper ? c - 'A' + 10 : -1;
		if (at)
			want = c <= '9' ? c - '0' : c - 'a' + 10;
		cr_assert(hex_value((uint8_t)c) == want);
	}
}

Test(text, base64_of_rfc_4648)
{
	static const struct {
		const char *plain, *padded, *bare;
	} cases[] = {
		{"", "", ""},		     {"f", "Zg==", "Zg"},	     {"fo", "Zm8=", "Zm8"},
		{"foo", "Zm9v", "Zm9v"},     {"foob", "Zm9vYg==", "Zm9vYg"}, {"fooba", "Zm9vYmE=", "Zm9vYmE"},
		{"foobar", "Zm9vYmFy", "Zm9vYmFy"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		check(encode_padded, span_str(cases[i].plain), cases[i].padded);
		check(encode_bare, span_str(cases[i].plain), cases[i].bare);
		check(base64_decode, span_str(cases[i].padded), cases[i].plain);
		check(base64_decode, span_str(cases[i].bare), cases[i].plain);
	}
	check(encode_padded, SPAN("\xFB\xFF\xBF"), "+/+/");
	check(base64_decode, SPAN("+/+/"), "\xFB\xFF\xBF");
	check(base64_decode, SPAN("-_-_"), "\xFB\xFF\xBF");
}

Test(text, base64_refuses_what_is_none)
{
	static const char *const bad[] = {"Z", "Zm9vY", "Zg=", "Zg===", "=", "==", "====", "Z===", "Zg==Zg==",
					  "Zm 9", "Zm9\n", "Zm9v=", "Z*==", "\xC3\xA9zz"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		check(base64_decode, span_str(bad[i]), NULL);
}

Test(text, percent)
{
	check(percent_decode, SPAN("a%20b+c%2F%c3%A9"), "a b+c/\xC3\xA9");
	check(percent_decode, SPAN(""), "");
	check(percent_decode, SPAN("%"), NULL);
	check(percent_decode, SPAN("a%2"), NULL);
	check(percent_decode, SPAN("%zz"), NULL);
	check(percent_decode, SPAN("%2g"), NULL);
}

Test(text, a_full_buffer_or_no_memory_is_said)
{
	struct buf b;
	buf_init(&b, 3);
	cr_assert(hex_encode(&b, SPAN("ab")) == ERR_LIMIT);
	cr_assert(base64_encode(&b, SPAN("a"), true) == ERR_LIMIT);
	cr_assert(base64_decode(&b, SPAN("Zm9vYg==")) == ERR_LIMIT);
	cr_assert(percent_decode(&b, SPAN("abcd")) == ERR_LIMIT);
	cr_assert(b.n == 0);
	mem_test_fail_at(1);
	cr_assert(hex_encode(&b, SPAN("a")) == ERR_NOMEM);
	mem_test_fail_at(0);
	buf_release(&b);
}

Test(text, u64)
{
	uint64_t v = 99;
	cr_assert(parse_u64(SPAN("0"), &v) && v == 0);
	cr_assert(parse_u64(SPAN("007"), &v) && v == 7);
	cr_assert(parse_u64(SPAN("18446744073709551615"), &v) && v == UINT64_MAX);
	cr_assert_not(parse_u64(SPAN("18446744073709551616"), &v));
	cr_assert_not(parse_u64(SPAN("99999999999999999999"), &v));
	cr_assert_not(parse_u64(SPAN(""), &v));
	cr_assert_not(parse_u64(SPAN("-1"), &v));
	cr_assert_not(parse_u64(SPAN("+1"), &v));
	cr_assert_not(parse_u64(SPAN(" 1"), &v));
	cr_assert_not(parse_u64(SPAN("1 "), &v));
	cr_assert(v == UINT64_MAX, "the output is written only on success");
}

Test(text, i64)
{
	int64_t v = 99;
	cr_assert(parse_i64(SPAN("-0"), &v) && v == 0);
	cr_assert(parse_i64(SPAN("9223372036854775807"), &v) && v == INT64_MAX);
	cr_assert_not(parse_i64(SPAN("9223372036854775808"), &v));
	cr_assert(parse_i64(SPAN("-9223372036854775808"), &v) && v == INT64_MIN);
	cr_assert_not(parse_i64(SPAN("-9223372036854775809"), &v));
	cr_assert_not(parse_i64(SPAN("-"), &v));
	cr_assert_not(parse_i64(SPAN("--1"), &v));
	cr_assert_not(parse_i64(SPAN(""), &v));
}
