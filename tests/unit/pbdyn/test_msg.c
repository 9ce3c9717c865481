/* Messages by hand: presence, oneofs, lists, limits, paths, keys, broken bytes. */
#include <config.h>

#include "helper.h"

static struct pb_msg *parse(struct fixture *f, const char *type, struct span wire)
{
	struct pb_msg *msg = NULL;
	cr_assert_eq(pb_msg_parse(type_of(f, type), wire, &f->arena, &msg, &f->err), ERR_OK, "%s",
		     f->err.text);
	return msg;
}

static void expect_wire(struct fixture *f, struct pb_msg *msg, struct span want)
{
	buf_clear(&f->out);
	cr_assert_eq(pb_msg_write(msg, &f->out, &f->err), ERR_OK, "%s", f->err.text);
	cr_assert(span_eq(buf_span(&f->out), want), "%zu bytes, not %zu", f->out.n, want.n);
}

Test(msg, writes_implicit_defaults_never_and_presence_always)
{
	struct fixture f;
	fixture_init(&f);
	struct pb_msg *m = pb_msg_new(type_of(&f, "kinds.Scalars"), &f.arena);
	const struct pb_field *i = field_of(&f, "kinds.Scalars.an_int32");
	const struct pb_field *d = field_of(&f, "kinds.Scalars.a_double");
	cr_assert(!pb_msg_has(m, i));
	cr_assert_eq(pb_msg_get(m, i).i32, 0);
	pb_msg_set(m, i, (union pb_value){.i32 = 0});
	expect_wire(&f, m, SPAN(""));
	pb_msg_set(m, d, (union pb_value){.d = -0.0}); /* not the default */
	expect_wire(&f, m, SPAN("\x09\0\0\0\0\0\0\0\x80"));
	pb_msg_clear(m, d);
	expect_wire(&f, m, SPAN(""));

	m = pb_msg_new(type_of(&f, "kinds.Optionals"), &f.arena);
	pb_msg_set(m, field_of(&f, "kinds.Optionals.an_int32"), (union pb_value){.i32 = 0});
	cr_assert_not_null(pb_msg_sub(m, field_of(&f, "kinds.Optionals.scalars")));
	expect_wire(&f, m, SPAN("\x28\x00\x5a\x00"));
	fixture_release(&f);
}

Test(msg, keeps_one_member_of_a_oneof)
{
	struct fixture f;
	fixture_init(&f);
	const struct pb_type *t = type_of(&f, "kinds.Choices");
	const struct pb_field *text = field_of(&f, "kinds.Choices.a_string");
	const struct pb_field *sub = field_of(&f, "kinds.Choices.scalars");
	struct pb_msg *m = pb_msg_new(t, &f.arena);
	cr_assert_null(pb_msg_which(m, text->oneof));
	pb_msg_set(m, text, (union pb_value){.bytes = SPAN("x")});
	cr_assert_eq(pb_msg_which(m, text->oneof), text);
	pb_msg_sub(m, sub);
	cr_assert_eq(pb_msg_which(m, text->oneof), sub);
	cr_assert(!pb_msg_has(m, text));
	expect_wire(&f, m, SPAN("\x3a\x00"));
	pb_msg_clear(m, text); /* which is not the one that is set */
	cr_assert_eq(pb_msg_which(m, text->oneof), sub);
	pb_msg_clear(m, sub);
	cr_assert_null(pb_msg_which(m, text->oneof));
	/* On the wire the last one wins. */
	m = parse(&f, "kinds.Choices", SPAN("\x3a\x02\x28\x05\x12\x01x\x20\x01"));
	cr_assert(span_eq_str(pb_msg_which(m, text->oneof)->name, "a_bool"));
	expect_wire(&f, m, SPAN("\x20\x01"));
	fixture_release(&f);
}

Test(msg, merges_a_message_that_comes_twice)
{
	struct fixture f;
	fixture_init(&f);
	struct pb_msg *m = parse(&f, "kinds.Optionals", SPAN("\x5a\x02\x28\x05\x5a\x04\x4a\x02hi"));
	expect_wire(&f, m, SPAN("\x5a\x06\x28\x05\x4a\x02hi"));
	fixture_release(&f);
}

Test(msg, takes_packed_and_loose_and_writes_as_declared)
{
	struct fixture f;
	fixture_init(&f);
	struct pb_msg *m =
		parse(&f, "kinds.Lists", SPAN("\x28\x01\x2a\x02\x02\x03\x28\x04\x9a\x01\x02\x05\x06"));
	cr_assert_eq(pb_msg_get(m, field_of(&f, "kinds.Lists.int32s")).list->count, 4);
	expect_wire(&f, m, SPAN("\x2a\x04\x01\x02\x03\x04\x98\x01\x05\x98\x01\x06"));
	m = parse(&f, "kinds.Lists", SPAN("\x2a\x00"));
	cr_assert(!pb_msg_has(m, field_of(&f, "kinds.Lists.int32s")));
	expect_wire(&f, m, SPAN(""));
	fixture_release(&f);
}

Test(msg, keeps_unknown_fields_and_wrong_wire_types_behind_the_known)
{
	struct fixture f;
	fixture_init(&f);
	/* field 500 twice, a group 501, field 5 as a string, around field 5 */
	struct span wire = SPAN("\xa0\x1f\x01\xa0\x1f\x02\x28\x07\xab\x1f\x08\x01\xac\x1f\x2a\x00"
				"\x2d\x01\x02\x03\x04");
	struct pb_msg *m = parse(&f, "kinds.Scalars", wire);
	expect_wire(
		&f, m,
		SPAN("\x28\x07\xa0\x1f\x01\xa0\x1f\x02\xab\x1f\x08\x01\xac\x1f\x2a\x00\x2d\x01\x02\x03\x04"));
	fixture_release(&f);
}

Test(msg, reads_and_writes_groups)
{
	struct fixture f;
	fixture_init(&f);
	struct span wire = SPAN("\x6b\x0a\x01x\x10\x01\x6c\x73\x08\x03\x74\x73\x74");
	struct pb_msg *m = parse(&f, "kinds2.Old", wire);
	expect_wire(&f, m, wire);
	cr_assert_eq(pb_json_print(pb_msg_get(m, field_of(&f, "kinds2.Old.inner")).msg, &f.out, &f.err),
		     ERR_OK);
	fixture_release(&f);
}

Test(msg, knows_proto2_defaults)
{
	struct fixture f;
	fixture_init(&f);
	struct pb_msg *m = pb_msg_new(type_of(&f, "kinds2.Old"), &f.arena);
	cr_assert_eq(pb_msg_get(m, field_of(&f, "kinds2.Old.with_default")).i32, -42);
	cr_assert_eq(pb_msg_get(m, field_of(&f, "kinds2.Old.size_default")).i32, 4);
	cr_assert_eq(pb_msg_get(m, field_of(&f, "kinds2.Old.size")).i32, 3);
	cr_assert_eq(pb_msg_get(m, field_of(&f, "kinds2.Old.bool_default")).b, true);
	cr_assert_eq(pb_msg_get(m, field_of(&f, "kinds2.Old.uint64_default")).u64, UINT64_MAX);
	cr_assert(
		span_eq(pb_msg_get(m, field_of(&f, "kinds2.Old.bytes_default")).bytes, SPAN("\x01\xff\\x")));
	cr_assert(span_eq_str(pb_msg_get(m, field_of(&f, "kinds2.Old.text_default")).bytes, "a \"text\" ä"));
	cr_assert(pb_msg_get(m, field_of(&f, "kinds2.Old.double_default")).d < 0);
	fixture_release(&f);
}

Test(msg, keeps_map_entries_in_order_and_the_last_of_one_key)
{
	struct fixture f;
	fixture_init(&f);
	struct pb_msg *m = parse(
		&f, "kinds.Maps",
		SPAN("\x12\x04\x08\x05\x10\x01\x12\x04\x08\x03\x10\x02\x12\x04\x08\x05\x10\x09\x12\x00"));
	expect_wire(&f, m, SPAN("\x12\x04\x08\x05\x10\x09\x12\x04\x08\x03\x10\x02\x12\x04\x08\x00\x10\x00"));
	/* A missing value message is an empty one. */
	m = parse(&f, "kinds.Maps", SPAN("\x42\x05\x0d\x01\x00\x00\x00"));
	expect_wire(&f, m, SPAN("\x42\x07\x0d\x01\x00\x00\x00\x12\x00"));
	/* An entry by itself, as an Any may name it, stays as it is. */
	m = parse(&f, "kinds.Maps.Fixed32sEntry", SPAN("\x0d\x01\x00\x00\x00"));
	expect_wire(&f, m, SPAN("\x0d\x01\x00\x00\x00"));
	fixture_release(&f);
}

Test(msg, finds_keys_in_large_maps)
{
	struct fixture f;
	struct buf wire;
	fixture_init(&f);
	buf_init(&wire, MIB);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 20000; i++) {
			uint8_t entry[16] = {0x08};
			size_t n = 1;
			for (unsigned v = i * 7919; v || n == 1; v >>= 7)
				entry[n++] = (uint8_t)((v & 127) | (v >> 7 ? 128 : 0));
			entry[n++] = 0x10;
			entry[n++] = (uint8_t)round;
			cr_assert_eq(pb_put_bytes(&wire, 2, span_of(entry, n)), ERR_OK);
		}
	}
	struct pb_msg *m = parse(&f, "kinds.Maps", buf_span(&wire));
	const struct pb_list *list = pb_msg_get(m, field_of(&f, "kinds.Maps.int32s")).list;
	cr_assert_eq(list->count, 20000);
	const struct pb_field *key = field_of(&f, "kinds.Maps.Int32sEntry.key");
	const struct pb_field *value = field_of(&f, "kinds.Maps.Int32sEntry.value");
	for (unsigned i = 0; i < 20000; i++) {
		cr_assert_eq(pb_msg_get(list->items[i].msg, key).i32, (int32_t)(i * 7919));
		cr_assert_eq(pb_msg_get(list->items[i].msg, value).i32, 1);
	}
	buf_release(&wire);
	fixture_release(&f);
}

Test(msg, refuses_text_that_is_not_utf8)
{
	struct fixture f;
	struct pb_msg *m;
	fixture_init(&f);
	cr_assert_eq(pb_msg_parse(type_of(&f, "kinds.Scalars"), SPAN("\x4a\x01\xff"), &f.arena, &m, &f.err),
		     ERR_INVALID);
	cr_assert(says(&f.err, "a_string is not UTF-8"), "%s", f.err.text);
	fixture_release(&f);
}

Test(msg, refuses_broken_bytes)
{
	static const struct span broken[] = {
		{(const uint8_t *)"\x08", 1},      /* no value */
		{(const uint8_t *)"\x80", 1},      /* half a tag */
		{(const uint8_t *)"\x00\x00", 2},  /* field 0 */
		{(const uint8_t *)"\x0e\x00", 2},  /* wire type 6 */
		{(const uint8_t *)"\x0c", 1},      /* the end of a group that never began */
		{(const uint8_t *)"\x0b", 1},      /* a group without end */
		{(const uint8_t *)"\x0b\x14", 2},  /* another group's end */
		{(const uint8_t *)"\x4a\x05x", 3}, /* longer than the message */
		{(const uint8_t *)"\x4a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11},
		{(const uint8_t *)"\x09\x00", 2},                                      /* a short fixed64 */
		{(const uint8_t *)"\x15\x00", 2},                                      /* a short fixed32 */
		{(const uint8_t *)"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11}, /* 65 bits */
		{(const uint8_t *)"\x28\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12},
		{(const uint8_t *)"\x80\x80\x80\x80\x10\x00", 6},     /* a field number above the maximum */
		{(const uint8_t *)"\xa8\x80\x80\x80\x80\x00\x01", 7}, /* a tag of six bytes */
	};
	struct fixture f;
	struct pb_msg *m;
	fixture_init(&f);
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		err_clear(&f.err);
		cr_assert_eq(pb_msg_parse(type_of(&f, "kinds.Scalars"), broken[i], &f.arena, &m, &f.err),
			     ERR_INVALID, "case %zu", i);
	}
	err_clear(&f.err);
	cr_assert_eq(pb_msg_parse(type_of(&f, "kinds.Lists"), SPAN("\x2a\x02\x01\x80"), &f.arena, &m, &f.err),
		     ERR_INVALID);
	err_clear(&f.err);
	cr_assert_eq(pb_msg_parse(type_of(&f, "kinds.Lists"), SPAN("\x0a\x04\x01\x02\x03\x04"), &f.arena, &m,
				  &f.err),
		     ERR_INVALID);
	fixture_release(&f);
}

/* A tree that goes depth levels down, as wire bytes of kinds.Tree in tail of a buffer. */
static struct span deep_tree(uint8_t *at, size_t cap, unsigned depth)
{
	uint8_t *p = at + cap;
	size_t n = 0;
	for (unsigned i = 0; i < depth; i++) {
		uint8_t len[2];
		size_t len_n = 0;
		for (size_t v = n; v || len_n == 0; v >>= 7)
			len[len_n++] = (uint8_t)((v & 127) | (v >> 7 ? 128 : 0));
		p -= len_n;
		memcpy(p, len, len_n);
		*--p = 3 << 3 | 2;
		n += len_n + 1;
	}
	return span_of(p, n);
}

Test(msg, nests_to_the_limit_and_no_further)
{
	struct fixture f;
	struct pb_msg *m;
	uint8_t bytes[1024];
	fixture_init(&f);
	m = parse(&f, "kinds.Tree", deep_tree(bytes, sizeof(bytes), LIMIT_NESTING));
	expect_wire(&f, m, deep_tree(bytes, sizeof(bytes), LIMIT_NESTING));
	cr_assert_eq(pb_msg_parse(type_of(&f, "kinds.Tree"),
				  deep_tree(bytes, sizeof(bytes), LIMIT_NESTING + 1), &f.arena, &m, &f.err),
		     ERR_LIMIT);
	/* Unknown groups too. */
	memset(bytes, 0xfb, sizeof(bytes));
	for (size_t i = 1; i < sizeof(bytes); i += 2)
		bytes[i] = 0x1f;
	err_clear(&f.err);
	cr_assert_eq(
		pb_msg_parse(type_of(&f, "kinds.Tree"), span_of(bytes, sizeof(bytes)), &f.arena, &m, &f.err),
		ERR_INVALID);
	fixture_release(&f);
}

Test(msg, stops_at_the_end_of_arena_and_buffer)
{
	struct fixture f;
	struct pb_msg *m;
	struct arena small;
	struct buf tight;
	uint8_t many[20000];
	fixture_init(&f);
	for (size_t i = 0; i < sizeof(many); i += 2) { /* 10,000 empty messages of two bytes each */
		many[i] = 0x5a;
		many[i + 1] = 0;
	}
	arena_init(&small, 64 * KIB);
	cr_assert_eq(
		pb_msg_parse(type_of(&f, "kinds.Lists"), span_of(many, sizeof(many)), &small, &m, &f.err),
		ERR_LIMIT);
	arena_release(&small);
	m = parse(&f, "kinds.Lists", span_of(many, sizeof(many)));
	buf_init(&tight, 100);
	err_clear(&f.err);
	cr_assert_eq(pb_msg_write(m, &tight, &f.err), ERR_LIMIT);
	cr_assert_eq(tight.n, 0);
	err_clear(&f.err);
	cr_assert_eq(pb_json_print(m, &tight, &f.err), ERR_LIMIT);
	cr_assert_eq(f.err.code, ERR_LIMIT);
	buf_release(&tight);
	fixture_release(&f);
}

/* --- paths and keys --- */

static enum err_code set_path(struct fixture *f, struct pb_msg *m, const char *path, const char *text)
{
	struct pb_path found;
	err_clear(&f->err);
	enum err_code code = pb_path_find(pb_msg_type(m), span_str(path), &found, &f->err);
	return code ? code : pb_path_set_text(m, &found, span_str(text), &f->err);
}

Test(path, sets_scalars_of_every_kind_from_text)
{
	struct fixture f;
	fixture_init(&f);
	struct pb_msg *m = pb_msg_new(type_of(&f, "shop.Item"), &f.arena);
	static const char *const good[][2] = {
		{"name", "a b+c%20ä"},
		{"number", "-12"},
		{"cart", ""},
		{"address.street", "Main"},
		{"kind", "KIND_GIFT"},
		{"codes", "1"},
		{"codes", "-2"},
		{"address.lines", "x"},
		{"blob", "AQI"},
		{"price", "1e-3"},
		{"open", "true"},
		{"weight", "0.5"},
		{"big", "18446744073709551615"},
	};
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert_eq(set_path(&f, m, good[i][0], good[i][1]), ERR_OK, "%s: %s", good[i][0],
			     f.err.text);
	cr_assert_eq(pb_json_print(m, &f.out, &f.err), ERR_OK);
	cr_assert_str_eq(
		buf_cstr(&f.out),
		"{\"name\":\"a b+c%20ä\",\"number\":-12,\"cart\":\"\",\"address\":{\"street\":\"Main\","
		"\"lines\":[\"x\"]},\"kind\":\"KIND_GIFT\",\"codes\":[\"1\",\"-2\"],\"blob\":\"AQI=\","
		"\"price\":0.001,\"open\":true,\"weight\":0.5,\"big\":\"18446744073709551615\"}");
	static const char *const bad[][2] = {
		{"number", "x"},
		{"number", "2147483648"},
		{"number", ""},
		{"open", "1"},
		{"kind", "KIND_NOTHING"},
		{"price", "abc"},
		{"blob", "*"},
		{"name", "\xff"},
		{"address", "x"},
		{"nothing", "x"},
		{"codes.x", "1"},
		{"name.x", "1"},
		{"address.x", "1"},
		{"address..street", "1"},
		{"", "1"},
		{"address.", "1"},
		{"big", "-1"},
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(set_path(&f, m, bad[i][0], bad[i][1]), ERR_INVALID, "%s", bad[i][0]);
	fixture_release(&f);
}

Test(path, has_at_most_sixteen_parts)
{
	struct fixture f;
	struct pb_path path;
	fixture_init(&f);
	const struct pb_type *tree = type_of(&f, "kinds.Tree");
	cr_assert_eq(pb_path_find(tree,
				  SPAN("only.only.only.only.only.only.only.only.only.only.only.only.only."
				       "only.only.name"),
				  &path, &f.err),
		     ERR_OK);
	cr_assert_eq(path.n, PB_PATH_MAX);
	cr_assert_eq(pb_path_find(tree,
				  SPAN("only.only.only.only.only.only.only.only.only.only.only.only.only."
				       "only.only.only.name"),
				  &path, &f.err),
		     ERR_LIMIT);
	fixture_release(&f);
}

static void expect_key(struct fixture *f, const char *a, const char *b, struct span wire, const char *want)
{
	const struct pb_field *keys[2] = {field_of(f, a), b ? field_of(f, b) : NULL};
	buf_clear(&f->out);
	cr_assert_eq(pb_key_print(keys, b ? 2 : 1, wire, &f->out, &f->err), ERR_OK, "%s", f->err.text);
	cr_assert(span_eq_str(buf_span(&f->out), want), "%s, not %s", buf_cstr(&f->out), want);
}

Test(key, is_the_text_of_the_fields_joined)
{
	struct fixture f;
	fixture_init(&f);
	struct span wire = SPAN("\x10\x05\x1a\x04"
				"cart\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x3a\x01\x01\x48\x01");
	expect_key(&f, "shop.Item.number", "shop.Item.cart", wire, "-1-cart");
	expect_key(&f, "shop.Item.cart", NULL, wire, "cart");
	expect_key(&f, "shop.Item.cart", NULL, SPAN(""), "");
	expect_key(&f, "shop.Item.number", NULL, SPAN(""), "0");
	expect_key(&f, "shop.Item.blob", "shop.Item.open", wire, "AQ==-true");
	expect_key(&f, "shop.Item.kind", "shop.Item.price", SPAN("\x28\x01"), "KIND_GIFT-0");
	expect_key(&f, "shop.Item.kind", NULL, SPAN("\x28\x63"), "99");
	/* Another member of the oneof takes it back; a wrong wire type says nothing. */
	expect_key(&f, "shop.Item.one", NULL, SPAN("\x60\x07"), "7");
	expect_key(&f, "shop.Item.one", NULL, SPAN("\x60\x07\x6a\x01x"), "0");
	expect_key(&f, "shop.Item.one", NULL, SPAN("\x60\x07\x62\x01x"), "7");
	fixture_release(&f);
}

Test(key, refuses_broken_messages_and_impossible_fields)
{
	struct fixture f;
	fixture_init(&f);
	const struct pb_field *cart = field_of(&f, "shop.Item.cart"),
			      *codes = field_of(&f, "shop.Item.codes"),
			      *address = field_of(&f, "shop.Item.address");
	cr_assert_eq(pb_key_print(&cart, 1, SPAN("\x1a\x09x"), &f.out, &f.err), ERR_INVALID);
	cr_assert_eq(pb_key_print(&cart, 1, SPAN("\x1a\x01\xff"), &f.out, NULL), ERR_INVALID);
	cr_assert_eq(pb_key_print(&codes, 1, SPAN(""), &f.out, NULL), ERR_INVALID);
	cr_assert_eq(pb_key_print(&address, 1, SPAN(""), &f.out, NULL), ERR_INVALID);
	fixture_release(&f);
}
