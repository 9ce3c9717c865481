#include <config.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/must.h"
#include "grpc/addr.h"
#include "grpc/wire.h"

TestSuite(wire, .timeout = 60);

Test(wire, timeouts_are_read_in_every_unit)
{
	static const struct {
		const char *text;
		int64_t ms;
	} cases[] = {{"1H", 3600000}, {"2M", 120000}, {"3S", 3000},       {"4m", 4},
		     {"5u", 1},       {"1000u", 1},   {"1n", 1},          {"99999999n", 100},
		     {"0m", 0},       {"", -1},       {"m", -1},          {"5", -1},
		     {"5x", -1},      {"-5m", -1},    {"123456789m", -1}, {"5 m", -1}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		cr_assert_eq(wire_timeout_parse(span_str(cases[i].text)), cases[i].ms, "'%s'", cases[i].text);
}

Test(wire, a_timeout_that_was_written_is_read_back)
{
	static const int64_t times_ms[] = {0, 1, 999, 60000, 99999999};
	char text[WIRE_TIMEOUT_BYTES];
	for (size_t i = 0; i < ARRAY_LEN(times_ms); i++) {
		wire_timeout_format(times_ms[i], text);
		cr_assert_eq(wire_timeout_parse(span_str(text)), times_ms[i], "%s", text);
	}
	/* Too many digits in milliseconds: a coarser unit, never longer than asked. */
	wire_timeout_format(INT64_MAX, text);
	cr_assert_leq(strlen(text), 9);
	cr_assert_gt(wire_timeout_parse(span_str(text)), 0);
	wire_timeout_format(100000001, text);
	cr_assert_eq(wire_timeout_parse(span_str(text)), 100000000);
}

static void expect_encoded(struct arena *a, struct span text, size_t max, const char *encoded)
{
	struct span got = wire_message_encode(text, max, a);
	cr_assert(span_eq_str(got, encoded), "%.*s", SPAN_ARG(got));
}

Test(wire, messages_are_percent_encoded_and_never_cut_within_a_character)
{
	struct arena a;
	arena_init(&a, 1 * MIB);
	expect_encoded(&a, SPAN("plain ~"), 100, "plain ~");
	expect_encoded(&a, SPAN("a%b\n\x7f"), 100, "a%25b%0A%7F");
	expect_encoded(&a, SPAN("\xc3\xa9"), 100, "%C3%A9");
	expect_encoded(&a, SPAN(""), 100, "");
	expect_encoded(&a, SPAN("0123456789"), 10, "0123456789");
	expect_encoded(&a, SPAN("0123456789x"), 10, "0123456...");
	expect_encoded(&a, SPAN("0123\xc3\xa9 and more"), 12, "0123...");
	expect_encoded(&a, SPAN("0123\xc3\xa9 and more"), 13, "0123%C3%A9...");
	cr_assert(span_eq(wire_message_decode(SPAN("a%25b%0a%C3%A9"), &a), SPAN("a%b\n\xc3\xa9")));
	cr_assert(span_eq(wire_message_decode(SPAN("%"), &a), SPAN("%")));
	cr_assert(span_eq(wire_message_decode(SPAN("%4"), &a), SPAN("%4")));
	cr_assert(span_eq(wire_message_decode(SPAN("%zz%41"), &a), SPAN("%zzA")));
	arena_release(&a);
}

Test(wire, metadata_leaves_out_what_is_grpcs_own)
{
	static const struct header items[] = {{SPAN("a"), SPAN("1")},
					      {SPAN("a"), SPAN("2")},
					      {SPAN("b-bin"), SPAN("\0\1")},
					      {SPAN("grpc-status"), SPAN("0")},
					      {SPAN(":path"), SPAN("/x")},
					      {SPAN("te"), SPAN("x")},
					      {SPAN("content-type"), SPAN("x")},
					      {SPAN("Upper"), SPAN("x")},
					      {SPAN("with space"), SPAN("x")},
					      {SPAN(""), SPAN("x")},
					      {SPAN("line"), SPAN("x\r\ny: z")},
					      {SPAN("last"), SPAN("")}};
	struct headers metadata = {items, ARRAY_LEN(items)};
	struct header_list written = {0}, read = {0};
	struct arena a;
	arena_init(&a, 1 * MIB);
	cr_assert_eq(wire_metadata_write(&metadata, &a, &written), ERR_OK);
	cr_assert_eq(written.h.n, 4);
	cr_assert(span_eq(headers_get(&written.h, "b-bin"), SPAN("AAE")));
	cr_assert(span_eq(written.h.items[1].value, SPAN("2")));
	cr_assert_eq(wire_metadata_read(&written.h, &a, &read), ERR_OK);
	cr_assert_eq(read.h.n, 4);
	cr_assert(span_eq(headers_get(&read.h, "b-bin"), SPAN("\0\1")));
	cr_assert_not_null(headers_get(&read.h, "last").p);
	cr_assert_null(headers_get(&read.h, "grpc-status").p);
	arena_release(&a);
}

Test(wire, joined_binary_values_are_split)
{
	static const struct header items[] = {{SPAN("x-bin"), SPAN("AAE=, AAI")},
					      {SPAN(":path"), SPAN("/")},
					      {SPAN("grpc-message"), SPAN("y")}};
	struct headers received = {items, ARRAY_LEN(items)};
	struct header_list read = {0};
	struct arena a;
	arena_init(&a, 1 * MIB);
	cr_assert_eq(wire_metadata_read(&received, &a, &read), ERR_OK);
	cr_assert_eq(read.h.n, 2);
	cr_assert(span_eq(read.h.items[0].value, SPAN("\0\1")));
	cr_assert(span_eq(read.h.items[1].value, SPAN("\0\2")));
	arena_release(&a);
}

Test(wire, content_types_tell_grpc_from_the_rest)
{
	static const char *const yes[] = {"application/grpc", "application/grpc+proto",
					  "application/grpc;a=b", "application/grpc+proto; charset=x"};
	static const char *const no[] = {"",
					 "application/json",
					 "application/grpc-web",
					 "application/grpc-web+proto",
					 "application/grpcx",
					 "application/grpc+json"};
	for (size_t i = 0; i < ARRAY_LEN(yes); i++)
		cr_assert(wire_is_grpc(span_str(yes[i])), "%s", yes[i]);
	for (size_t i = 0; i < ARRAY_LEN(no); i++)
		cr_assert_not(wire_is_grpc(span_str(no[i])), "%s", no[i]);
}

Test(wire, codes_of_errors_resets_and_http)
{
	for (int code = 1; code < ERR_CODE_COUNT; code++)
		cr_assert_neq(grpc_code_of((enum err_code)code), GRPC_OK);
	cr_assert_eq(grpc_code_of(ERR_OK), GRPC_OK);
	cr_assert_eq(grpc_code_of(ERR_FULL), GRPC_RESOURCE_EXHAUSTED);
	cr_assert_eq(wire_code_of_status(SPAN("16")), GRPC_UNAUTHENTICATED);
	cr_assert_eq(wire_code_of_status(SPAN("17")), GRPC_UNKNOWN);
	cr_assert_eq(wire_code_of_status(SPAN("-1")), GRPC_UNKNOWN);
	cr_assert_eq(wire_code_of_http(404), GRPC_UNIMPLEMENTED);
	cr_assert_eq(wire_code_of_http(503), GRPC_UNAVAILABLE);
	cr_assert_eq(wire_code_of_http(500), GRPC_UNKNOWN);
	cr_assert_eq(wire_code_of_reset(HTTP2_CANCEL), GRPC_CANCELLED);
	cr_assert_eq(wire_code_of_reset(HTTP2_REFUSED_STREAM), GRPC_UNAVAILABLE);
	cr_assert_eq(wire_code_of_reset(HTTP2_NO_ERROR), GRPC_INTERNAL);
	cr_assert_str_eq(grpc_code_name(GRPC_DATA_LOSS), "DATA_LOSS");
}

Test(wire, addresses)
{
	char host[ADDR_HOST_BYTES];
	int port;
	struct err err = {0};
	cr_assert_eq(addr_split("127.0.0.1:80", host, &port, NULL), ERR_OK);
	cr_assert(strcmp(host, "127.0.0.1") == 0 && port == 80);
	cr_assert_eq(addr_split("[::1]:9000", host, &port, NULL), ERR_OK);
	cr_assert(strcmp(host, "::1") == 0 && port == 9000);
	cr_assert_eq(addr_split(":0", host, &port, NULL), ERR_OK);
	cr_assert(host[0] == 0 && port == 0);
	cr_assert_eq(addr_split("name", host, &port, NULL), ERR_INVALID);
	cr_assert_eq(addr_split("name:", host, &port, NULL), ERR_INVALID);
	cr_assert_eq(addr_split("name:65536", host, &port, NULL), ERR_INVALID);
	cr_assert_eq(addr_split("::1:80", host, &port, &err), ERR_INVALID);
	cr_assert(strstr(err.text, "brackets"), "%s", err.text);
}
