/* JSON where the comparison with Python (json_oracle) does not reach: order and form of the text, error
 * texts, limits, single fields, failing allocations. */
#include <config.h>

#include "helper.h"

#include <math.h>

static struct pb_msg *read_json(struct fixture *f, const char *type, const char *json)
{
	struct pb_msg *msg = NULL;
	err_clear(&f->err);
	cr_assert_eq(pb_json_parse(type_of(f, type), span_str(json), &f->arena, &msg, &f->err), ERR_OK,
		     "%s: %s", json, f->err.text);
	return msg;
}

static void expect_text(struct fixture *f, const char *type, const char *json, const char *want)
{
	struct pb_msg *msg = read_json(f, type, json);
	buf_clear(&f->out);
	cr_assert_eq(pb_json_print(msg, &f->out, &f->err), ERR_OK, "%s", f->err.text);
	cr_assert_str_eq(buf_cstr(&f->out), want);
}

static void expect_error(struct fixture *f, const char *type, const char *json, const char *want)
{
	struct pb_msg *msg = NULL;
	err_clear(&f->err);
	cr_assert_eq(pb_json_parse(type_of(f, type), span_str(json), &f->arena, &msg, &f->err), ERR_INVALID,
		     "%s", json);
	cr_assert_str_eq(f->err.text, want);
	cr_assert_null(msg);
}

Test(json, prints_compactly_in_order_of_number_with_defaults)
{
	struct fixture f;
	fixture_init(&f);
	expect_text(
		&f, "shop.Item", "{}",
		"{\"name\":\"\",\"number\":0,\"cart\":\"\",\"kind\":\"KIND_NONE\",\"codes\":[],\"blob\":\"\","
		"\"price\":0,\"open\":false,\"weight\":0,\"big\":\"0\"}");
	expect_text(&f, "kinds.Optionals", "{\"aBool\":false,\"aDouble\":0}",
		    "{\"aDouble\":0,\"aBool\":false}");
	expect_text(&f, "kinds.Choices", "{\"aUint32\":0,\"nothing\":null}",
		    "{\"nothing\":null,\"aUint32\":0,\"plain\":0}");
	expect_text(&f, "kinds.Tree", "{\"only\":{},\"name\":\"x\"}",
		    "{\"name\":\"x\",\"children\":[],\"only\":{\"name\":\"\",\"children\":[]}}");
	fixture_release(&f);
}

Test(json, prints_map_entries_as_they_came_with_keys_in_quotes)
{
	struct fixture f;
	fixture_init(&f);
	struct pb_msg *m = read_json(&f, "kinds.Maps",
				     "{\"int32s\":{\"9\":1,\"-3\":2,\"5\":3},\"bools\":{\"true\":\"x\"}}");
	cr_assert_eq(pb_json_print_field(m, field_of(&f, "kinds.Maps.int32s"), &f.out, &f.err), ERR_OK);
	cr_assert_eq(pb_json_print_field(m, field_of(&f, "kinds.Maps.bools"), &f.out, &f.err), ERR_OK);
	cr_assert_eq(pb_json_print_field(m, field_of(&f, "kinds.Maps.strings"), &f.out, &f.err), ERR_OK);
	cr_assert_str_eq(buf_cstr(&f.out), "{\"9\":1,\"-3\":2,\"5\":3}{\"true\":\"x\"}{}");
	fixture_release(&f);
}

Test(json, escapes_what_json_demands_and_nothing_else)
{
	struct buf out;
	buf_init(&out, KIB);
	cr_assert_eq(pb_json_quote(&out, SPAN("a\"b\\c/<>&\x01\x1f\b\t\n\v\f\r\x7f ä\xe2\x80\xa8")), ERR_OK);
	cr_assert_str_eq(buf_cstr(&out),
			 "\"a\\\"b\\\\c/<>&\\u0001\\u001f\\b\\t\\n\\u000b\\f\\r\x7f ä\xe2\x80\xa8\"");
	buf_release(&out);
}

Test(json, prints_floating_point_in_its_shortest_form)
{
	static const struct {
		double value;
		const char *want;
	} doubles[] = {
		{0, "0"},
		{-0.0, "-0"},
		{1, "1"},
		{0.1, "0.1"},
		{1e21, "1e+21"},
		{1.0 / 3, "0.3333333333333333"},
		{123456789012345680.0, "1.2345678901234568e+17"},
		{5e-324, "5e-324"},
		{2.2250738585072014e-308, "2.2250738585072014e-308"},
		{1.7976931348623157e308, "1.7976931348623157e+308"},
		{9007199254740993.0, "9007199254740992"},
		{(double)NAN, "NaN"},
		{(double)INFINITY, "Infinity"},
		{-(double)INFINITY, "-Infinity"},
	};
	static const struct {
		float value;
		const char *want;
	} floats[] = {{0.1F, "0.1"},
		      {16777216.0F, "16777216"},
		      {1e-45F, "1e-45"},
		      {3.4028235e38F, "3.4028235e+38"},
		      {1.0F / 3, "0.33333334"}};
	struct fixture f;
	fixture_init(&f);
	for (size_t i = 0; i < sizeof(doubles) / sizeof(doubles[0]); i++) {
		buf_clear(&f.out);
		cr_assert_eq(pb_scalar_print(field_of(&f, "kinds.Scalars.a_double"),
					     (union pb_value){.d = doubles[i].value}, &f.out, &f.err),
			     ERR_OK);
		cr_assert_str_eq(buf_cstr(&f.out), doubles[i].want);
	}
	for (size_t i = 0; i < sizeof(floats) / sizeof(floats[0]); i++) {
		buf_clear(&f.out);
		cr_assert_eq(pb_scalar_print(field_of(&f, "kinds.Scalars.a_float"),
					     (union pb_value){.f = floats[i].value}, &f.out, &f.err),
			     ERR_OK);
		cr_assert_str_eq(buf_cstr(&f.out), floats[i].want);
	}
	fixture_release(&f);
}

Test(json, says_where_and_what_is_wrong)
{
	struct fixture f;
	fixture_init(&f);
	expect_error(&f, "shop.Item", "", "line 1, column 1: expected an object, found the end of the text");
	expect_error(&f, "shop.Item", "{} {}",
		     "line 1, column 4: expected the end of the text, found an object");
	expect_error(&f, "shop.Item", "{\n \"number\": \"x\"}",
		     "line 2, column 12, at number: \"x\" is not an int32");
	expect_error(&f, "shop.Item", "{\"address\":{\"lines\":[\"a\",5]}}",
		     "line 1, column 26, at address.lines[1]: expected a string, found a number");
	expect_error(&f, "shop.Item", "{\"nmae\":1}",
		     "line 1, column 9, at nmae: shop.Item has no such field");
	expect_error(&f, "shop.Item", "{\"name\":\"a\",\"name\":\"b\"}",
		     "line 1, column 20, at name: this field is given twice");
	expect_error(&f, "shop.Item", "{\"one\":1,\"other\":\"b\"}",
		     "line 1, column 18, at other: only one of oneof either may be given, and one is");
	expect_error(&f, "shop.Item", "{\"kind\":\"PINK\"}",
		     "line 1, column 9, at kind: \"PINK\" is not a name or number of shop.Kind");
	expect_error(&f, "shop.Item", "{\"name\":\"\xff\"}", "line 1, column 1: the text is not UTF-8");
	expect_error(&f, "kinds.Maps", "{\"int32s\":{\"1\":1,\"1\":2}}",
		     "line 1, column 23, at int32s.1: this key is given twice");
	expect_error(&f, "kinds.Known", "{\"any\":{\"@type\":\"x/y\"}}",
		     "line 1, column 8, at any: \"x/y\" names no message type that is known here");
	expect_error(&f, "kinds.Known", "{\"any\":{\"@type\":\"t/kinds.Tree\",\"only\":{\"only\":5}}}",
		     "line 1, column 47, at any.only.only: expected an object, found a number");
	fixture_release(&f);
}

Test(json, reads_and_prints_one_field)
{
	struct fixture f;
	fixture_init(&f);
	struct pb_msg *m = pb_msg_new(type_of(&f, "shop.Item"), &f.arena);
	const struct pb_field *address = field_of(&f, "shop.Item.address"),
			      *codes = field_of(&f, "shop.Item.codes");
	const struct pb_field *name = field_of(&f, "shop.Item.name");
	cr_assert_eq(pb_json_print_field(m, address, &f.out, &f.err), ERR_OK);
	cr_assert_eq(pb_json_parse_field(m, address, SPAN("{\"street\":\"x\"}"), &f.err), ERR_OK, "%s",
		     f.err.text);
	cr_assert_eq(pb_json_parse_field(m, codes, SPAN("[1,2]"), &f.err), ERR_OK, "%s", f.err.text);
	cr_assert_eq(pb_json_parse_field(m, codes, SPAN("[3]"), &f.err), ERR_OK, "%s", f.err.text);
	cr_assert_eq(pb_json_parse_field(m, name, SPAN(" \"n\" "), &f.err), ERR_OK, "%s", f.err.text);
	cr_assert_eq(pb_json_print_field(m, address, &f.out, &f.err), ERR_OK);
	cr_assert_eq(pb_json_print_field(m, codes, &f.out, &f.err), ERR_OK);
	cr_assert_eq(pb_json_print_field(m, name, &f.out, &f.err), ERR_OK);
	cr_assert_str_eq(buf_cstr(&f.out), "null{\"street\":\"x\",\"lines\":[]}[\"3\"]\"n\"");
	cr_assert_eq(pb_json_parse_field(m, address, SPAN("null"), &f.err), ERR_OK);
	cr_assert(!pb_msg_has(m, address));
	cr_assert_eq(pb_json_parse_field(m, name, SPAN("\"n\" 1"), &f.err), ERR_INVALID);
	fixture_release(&f);
}

Test(json, prints_proto2_defaults_and_groups)
{
	struct fixture f;
	fixture_init(&f);
	expect_text(&f, "kinds2.Old", "{\"inner\":{\"a\":\"x\",\"b\":[-1]},\"withDefault\":7}",
		    "{\"withDefault\":7,\"textDefault\":\"a \\\"text\\\" ä\",\"bytesDefault\":\"Af9ceA==\","
		    "\"doubleDefault\":\"-Infinity\",\"floatDefault\":0.0015,\"boolDefault\":true,"
		    "\"sizeDefault\":\"SIZE_LARGE\",\"size\":\"SIZE_SMALL\","
		    "\"uint64Default\":\"18446744073709551615\",\"plain\":\"\",\"unpacked\":[],\"packed\":[],"
		    "\"inner\":{\"a\":\"x\",\"b\":[-1]},\"many\":[]}");
	fixture_release(&f);
}

Test(json, refuses_to_print_what_has_no_json_form)
{
	static const struct {
		const char *type;
		struct span wire;
		const char *want;
	} cases[] = {
		{"google.protobuf.Timestamp",
		 {(const uint8_t *)"\x08\x80\xee\xaa\xb7\xb0\x07", 7},
		 "Timestamp"},
		{"google.protobuf.Timestamp",
		 {(const uint8_t *)"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
		 "Timestamp"},
		{"google.protobuf.Duration",
		 {(const uint8_t *)"\x08\x01\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13},
		 "Duration"},
		{"google.protobuf.FieldMask",
		 {(const uint8_t *)"\x0a\x01"
				   "A",
		  3},
		 "FieldMask"},
		{"google.protobuf.FieldMask",
		 {(const uint8_t *)"\x0a\x02"
				   "a_",
		  4},
		 "FieldMask"},
		{"google.protobuf.Value", {(const uint8_t *)"\x11\0\0\0\0\0\0\xf0\x7f", 9}, "Value"},
		{"kinds2.Old", {(const uint8_t *)"\x12\x01\xff", 3}, "UTF-8"},
		{"google.protobuf.Any",
		 {(const uint8_t *)"\x0a\x0ct/kinds.Tree\x12\x01\x0a", 17},
		 "malformed kinds.Tree"},
	};
	struct fixture f;
	struct pb_msg *m;
	fixture_init(&f);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		err_clear(&f.err);
		cr_assert_eq(pb_msg_parse(type_of(&f, cases[i].type), cases[i].wire, &f.arena, &m, &f.err),
			     ERR_OK, "case %zu: %s", i, f.err.text);
		cr_assert_eq(pb_json_print(m, &f.out, &f.err), ERR_INVALID, "case %zu", i);
		cr_assert(says(&f.err, cases[i].want), "case %zu: %s", i, f.err.text);
	}
	fixture_release(&f);
}

/* {"@type":T,"value":{"@type":T,"value": ... {} }}, or with "@type" last. */
static void nested_anys(struct buf *out, unsigned depth, bool type_last)
{
	static const char type[] = "\"@type\":\"t/google.protobuf.Any\"";
	buf_clear(out);
	for (unsigned i = 0; i < depth; i++)
		cr_assert_eq(buf_printf(out, "{%s%s\"value\":", type_last ? "" : type, type_last ? "" : ","),
			     ERR_OK);
	cr_assert_eq(buf_append_str(out, "{}"), ERR_OK);
	for (unsigned i = 0; i < depth; i++)
		cr_assert_eq(buf_printf(out, "%s%s}", type_last ? "," : "", type_last ? type : ""), ERR_OK);
}

Test(json, nests_anys_to_the_limit)
{
	struct fixture f;
	struct buf json;
	struct pb_msg *m;
	fixture_init(&f);
	buf_init(&json, MIB);
	const struct pb_type *any = type_of(&f, "google.protobuf.Any");
	nested_anys(&json, LIMIT_NESTING, false);
	cr_assert_eq(pb_json_parse(any, buf_span(&json), &f.arena, &m, &f.err), ERR_OK, "%s", f.err.text);
	cr_assert_eq(pb_json_print(m, &f.out, &f.err), ERR_OK, "%s", f.err.text);
	cr_assert(span_eq(buf_span(&f.out), buf_span(&json)));
	nested_anys(&json, LIMIT_NESTING + 1, false);
	cr_assert_eq(pb_json_parse(any, buf_span(&json), &f.arena, &m, &f.err), ERR_LIMIT);
	err_clear(&f.err);
	nested_anys(&json, 10, true);
	cr_assert_eq(pb_json_parse(any, buf_span(&json), &f.arena, &m, &f.err), ERR_OK, "%s", f.err.text);
	nested_anys(&json, 90, true); /* each level would be read again by all above it */
	cr_assert_eq(pb_json_parse(any, buf_span(&json), &f.arena, &m, &f.err), ERR_LIMIT);
	buf_release(&json);
	fixture_release(&f);
}

Test(json, does_not_print_anys_nested_without_end)
{
	struct fixture f;
	struct buf a, b;
	struct pb_msg *m;
	fixture_init(&f);
	buf_init(&a, MIB);
	buf_init(&b, MIB);
	for (unsigned i = 0; i < 2000;
	     i++) { /* on the wire nothing limits them: each is bytes to the other */
		buf_clear(&b);
		cr_assert_eq(pb_put_bytes(&b, 1, SPAN("t/google.protobuf.Any")), ERR_OK);
		cr_assert_eq(pb_put_bytes(&b, 2, buf_span(&a)), ERR_OK);
		buf_clear(&a);
		cr_assert_eq(buf_append_span(&a, buf_span(&b)), ERR_OK);
	}
	cr_assert_eq(pb_msg_parse(type_of(&f, "google.protobuf.Any"), buf_span(&a), &f.arena, &m, &f.err),
		     ERR_OK);
	cr_assert_eq(pb_json_print(m, &f.out, &f.err), ERR_LIMIT);
	buf_release(&a);
	buf_release(&b);
	fixture_release(&f);
}

Test(json, refuses_brackets_without_end)
{
	struct fixture f;
	struct pb_msg *m;
	uint8_t *deep = mem_xalloc(MIB);
	fixture_init(&f);
	memset(deep, '[', MIB);
	cr_assert_eq(
		pb_json_parse(type_of(&f, "google.protobuf.Value"), span_of(deep, MIB), &f.arena, &m, &f.err),
		ERR_LIMIT);
	err_clear(&f.err);
	memcpy(deep, "{\"a\":", 5); /* skipped in search of "@type" */
	cr_assert_eq(
		pb_json_parse(type_of(&f, "google.protobuf.Any"), span_of(deep, MIB), &f.arena, &m, &f.err),
		ERR_INVALID);
	mem_free(deep);
	fixture_release(&f);
}

Test(json, survives_every_failing_allocation)
{
	static const char json[] =
		"{\"scalars\":{\"aString\":\"\\u00e4\",\"someBytes\":\"AQID\",\"aDouble\":"
		"0.10000000000000000000000000000000000000000000000000000000000000000000000001},"
		"\"lists\":{\"strings\":[\"a\",\"b\"],\"int32s\":[1,2,3,4,5,6,7,8,9]},"
		"\"maps\":{\"strings\":{\"a\":\"1\",\"b\":\"2\",\"c\":\"3\",\"d\":\"4\",\"e\":\"5\",\"f\":"
		"\"6\","
		"\"g\":\"7\",\"h\":\"8\",\"i\":\"9\",\"j\":\"0\"}},"
		"\"known\":{\"any\":{\"@type\":\"t/kinds.Tree\",\"name\":\"x\"},\"fieldMask\":\"a,bC\","
		"\"struct\":{\"a\":[1,null,{}]},\"timestamp\":\"2006-01-02T15:04:05Z\"}}";
	struct fixture f;
	fixture_init(&f);
	const struct pb_type *all = type_of(&f, "kinds.All");
	unsigned long count = 1;
	for (unsigned long i = 0; i <= count; i++) { /* 0: nothing fails, they are counted */
		struct arena arena;
		struct buf wire, text;
		struct pb_msg *m = NULL, *back = NULL;
		struct err err = {0};
		arena_init(&arena, MIB);
		buf_init(&wire, MIB);
		buf_init(&text, MIB);
		mem_test_fail_at(i);
		enum err_code code = pb_json_parse(all, span_str(json), &arena, &m, &err);
		if (!code)
			code = pb_msg_write(m, &wire, &err);
		if (!code)
			code = pb_msg_parse(all, buf_span(&wire), &arena, &back, &err);
		if (!code)
			code = pb_json_print(back, &text, &err);
		unsigned long seen = mem_test_fail_at(0);
		count = i == 0 ? seen : count;
		cr_assert(i ? code == ERR_LIMIT || code == ERR_NOMEM : code == ERR_OK,
			  "allocation %lu of %lu: %d %s", i, count, code, err.text);
		cr_assert_eq(err.code, code);
		buf_release(&text);
		buf_release(&wire);
		arena_release(&arena);
	}
	cr_assert_gt(count, 8);
	fixture_release(&f);
}
