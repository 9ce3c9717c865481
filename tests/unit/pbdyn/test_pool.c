/* The pool: linking in any order, what is missing, what clashes, options, reflection. */
#include <config.h>

#include "helper.h"

#include <stdio.h>

/* --- building descriptor sets by hand --- */

static struct span nest(struct arena *a, const char *fmt, ...);

/* fmt: pairs of "number kind" where kind is s (C string), m (struct span *), v (int). */
static struct span nest(struct arena *a, const char *fmt, ...)
{
	struct buf b;
	va_list ap;
	buf_init(&b, MIB);
	va_start(ap, fmt);
	for (const char *p = fmt; *p;) {
		unsigned number = 0;
		while (*p >= '0' && *p <= '9')
			number = number * 10 + (unsigned)(*p++ - '0');
		if (*p == 's') {
			cr_assert_eq(pb_put_bytes(&b, number, span_str(va_arg(ap, const char *))), ERR_OK);
		} else if (*p == 'm') {
			cr_assert_eq(pb_put_bytes(&b, number, *va_arg(ap, const struct span *)), ERR_OK);
		} else {
			cr_assert_eq(pb_put_tag(&b, number, PB_VARINT), ERR_OK);
			cr_assert_eq(pb_put_varint(&b, (uint64_t)(int64_t)va_arg(ap, int)), ERR_OK);
		}
		p++;
		while (*p == ' ')
			p++;
	}
	va_end(ap);
	struct span copy = arena_dup(a, buf_span(&b));
	buf_release(&b);
	return copy;
}

/* A file "NAME" of package p with one message "M" that has one field "f" of type_name. */
static struct span user_file(struct arena *a, const char *name, const char *import, const char *type_name)
{
	struct span field = nest(a, "1s 3v 4v 5v 6s", "f", 1, 1, PB_MESSAGE, type_name);
	struct span message = nest(a, "1s 2m", "M", &field);
	return nest(a, "1s 2s 3s 4m 12s", name, "p", import, &message, "proto3");
}

static struct span empty_type_file(struct arena *a, const char *name, const char *package, const char *type)
{
	struct span message = nest(a, "1s", type);
	return nest(a, "1s 2s 4m 12s", name, package, &message, "proto3");
}

struct by_hand {
	struct arena arena;
	struct pb_pool *pool;
	struct err err;
	enum err_code code;
};

static void link_files(struct by_hand *h, struct span set)
{
	h->code = pb_pool_new(&set, 1, &h->pool, &h->err);
}

static void by_hand_init(struct by_hand *h)
{
	*h = (struct by_hand){0};
	arena_init(&h->arena, MIB);
}

static void by_hand_release(struct by_hand *h)
{
	pb_pool_unref(h->pool);
	arena_release(&h->arena);
}

/* --- the pool of the test's files --- */

Test(pool, describes_messages_fields_enums_and_services)
{
	struct fixture f;
	fixture_init(&f);
	const struct pb_type *item = type_of(&f, "shop.Item");
	cr_assert_eq(item->field_count, 13);
	cr_assert(span_eq_str(item->fields[2].name, "cart"));
	cr_assert_eq(item->fields[5].repeated, true);
	cr_assert_eq(item->fields[5].packed, true);
	cr_assert_eq(item->fields[3].presence, true);
	cr_assert_eq(item->fields[0].presence, false);
	cr_assert_eq(item->fields[11].oneof, &item->oneofs[0]);
	cr_assert_eq(item->fields[3].sub, type_of(&f, "shop.Address"));
	cr_assert_eq(item->fields[4].enum_type, pb_find_enum(f.pool, SPAN("shop.Kind")));
	cr_assert_null(pb_find_type(f.pool, SPAN("shop.Kind")));
	cr_assert_null(pb_find_type(f.pool, SPAN("shop.Nothing")));
	cr_assert_null(pb_find_enum(f.pool, SPAN("")));

	const struct pb_method *m = pb_find_method(f.pool, SPAN("shop.Cart.Upload"));
	cr_assert_not_null(m);
	cr_assert(m->client_streaming && !m->server_streaming);
	cr_assert_eq(m->input, item);
	m = pb_find_method(f.pool, SPAN("shop.Cart.Watch"));
	cr_assert(!m->client_streaming && m->server_streaming);
	cr_assert(span_eq_str(m->output->full_name, "google.api.HttpBody"));
	fixture_release(&f);
}

Test(pool, lists_services_in_declaration_order)
{
	struct fixture f;
	size_t n;
	fixture_init(&f);
	const struct pb_service *const *services = pb_pool_services(f.pool, &n);
	cr_assert_eq(n, 2);
	cr_assert(span_eq_str(services[0]->full_name, "shop.Cart"));
	cr_assert(span_eq_str(services[1]->full_name, "shop.Another"));
	cr_assert_eq(services[0]->method_count, 3);
	cr_assert(span_eq_str(services[0]->methods[1].name, "Watch"));
	cr_assert_eq(services[0]->file->set_index, 0);
	fixture_release(&f);
}

Test(pool, derives_json_names_where_none_is_given)
{
	struct fixture f;
	static const char *const want[] = {"plain",     "snakeCaseName", "Leading",
					   "trailing",  "withTwo",       "digit12x",
					   "CamelCase", "UPPERCASE",     "my-own \"name\""};
	fixture_init(&f);
	const struct pb_type *names = type_of(&f, "kinds.Names");
	for (size_t i = 0; i < 9; i++) {
		cr_assert(span_eq_str(names->fields[i].json_name, want[i]), "%.*s",
			  SPAN_ARG(names->fields[i].json_name));
		cr_assert_eq(pb_field_by_name(names, span_str(want[i])), &names->fields[i]);
		cr_assert_eq(pb_field_by_name(names, names->fields[i].name), &names->fields[i]);
	}
	fixture_release(&f);
}

Test(pool, reads_options_by_number)
{
	struct fixture f;
	bool value;
	struct span bytes, rule;
	fixture_init(&f);
	const struct pb_type *item = type_of(&f, "shop.Item");
	cr_assert(pb_option_bool(item->fields[1].options, 1080, &value) && value);
	cr_assert(pb_option_bool(item->fields[2].options, 50002, &value) && value);
	cr_assert(pb_option_bool(item->fields[4].options, 1080, &value) && !value);
	cr_assert(!pb_option_bool(item->fields[0].options, 1080, &value) && !value);
	const struct pb_method *add = pb_find_method(f.pool, SPAN("shop.Cart.AddItem"));
	cr_assert(pb_option_message(add->options, 72295728, &f.arena, &rule));
	struct pb_wire_field field;
	size_t bindings = 0;
	for (struct span rest = rule; pb_wire_next(&rest, &field) > 0;)
		bindings += field.number == 11;
	cr_assert_eq(bindings, 1);
	cr_assert(!pb_option_message(add->options, 1081, &f.arena, &bytes));
	/* The pool knows the options' types too. */
	struct pb_msg *msg;
	cr_assert_eq(pb_msg_parse(type_of(&f, "google.api.HttpRule"), rule, &f.arena, &msg, &f.err), ERR_OK);
	cr_assert_eq(pb_json_print(msg, &f.out, &f.err), ERR_OK);
	cr_assert(strstr(buf_cstr(&f.out), "\"post\":\"/cart/{cart}/items\""), "%s", buf_cstr(&f.out));
	fixture_release(&f);
}

Test(pool, puts_occurrences_of_an_option_together)
{
	struct arena a;
	struct span bytes;
	bool value;
	arena_init(&a, MIB);
	struct span options = nest(&a, "9s 1080v 7s 1080v 9s", "ab", 1, "x", 0, "cd");
	cr_assert(pb_option_message(options, 9, &a, &bytes) && span_eq_str(bytes, "abcd"));
	cr_assert(pb_option_message(options, 7, &a, &bytes) && span_eq_str(bytes, "x"));
	cr_assert(pb_option_bool(options, 1080, &value) && !value);
	arena_release(&a);
}

Test(pool, answers_reflection)
{
	struct fixture f;
	size_t n;
	fixture_init(&f);
	const struct pb_file *shop = pb_find_file(f.pool, SPAN("shop.proto"));
	cr_assert_not_null(shop);
	cr_assert_eq(shop->dep_count, 6);
	cr_assert(span_eq_str(shop->deps[0]->name, "cloudstate/entity_key.proto"));
	cr_assert_eq(shop->deps[0]->placeholder, false);
	cr_assert_eq(pb_find_symbol_file(f.pool, SPAN("shop.Cart.AddItem")), shop);
	cr_assert_eq(pb_find_symbol_file(f.pool, SPAN("shop.Item.name")), shop);
	cr_assert_eq(pb_find_symbol_file(f.pool, SPAN("shop.Item.either")), shop);
	cr_assert_eq(pb_find_symbol_file(f.pool, SPAN("shop.Kind")), shop);
	cr_assert_eq(pb_find_symbol_file(f.pool, SPAN("cloudstate.entity_key")), shop->deps[0]);
	cr_assert_null(pb_find_symbol_file(f.pool, SPAN("shop")));
	cr_assert_null(pb_find_file(f.pool, SPAN("shop")));
	const struct pb_field *const *e =
		pb_find_extensions(f.pool, SPAN("google.protobuf.FieldOptions"), &n);
	cr_assert_eq(n, 2);
	cr_assert(e[0]->number == 1080 && e[1]->number == 50002);
	cr_assert_eq(pb_find_extension(f.pool, SPAN("kinds2.Old"), 150), field_of(&f, "kinds2.extras"));
	cr_assert_null(pb_find_extension(f.pool, SPAN("kinds2.Old"), 101));
	cr_assert_null(pb_find_extensions(f.pool, SPAN("shop.Item"), &n));
	cr_assert_eq(n, 0);
	/* The raw bytes link again by themselves. */
	struct span again = shop->raw;
	cr_assert_gt(again.n, 500);
	fixture_release(&f);
}

Test(pool, knows_the_well_known_types_without_being_told)
{
	struct pb_pool *pool;
	cr_assert_eq(pb_pool_new(NULL, 0, &pool, NULL), ERR_OK);
	cr_assert_eq(pb_find_type(pool, SPAN("google.protobuf.Any"))->wkt, PB_WKT_ANY);
	cr_assert_eq(pb_find_type(pool, SPAN("google.protobuf.BytesValue"))->wkt, PB_WKT_WRAPPER);
	cr_assert_eq(pb_find_type(pool, SPAN("google.protobuf.Empty"))->wkt, PB_WKT_NONE);
	cr_assert_not_null(pb_find_type(pool, SPAN("google.protobuf.FileDescriptorSet")));
	cr_assert_not_null(pb_find_type(pool, SPAN("google.api.HttpBody")));
	cr_assert_eq(pb_find_type_by_url(pool, SPAN("type.googleapis.com/google.protobuf.Api")),
		     pb_find_type(pool, SPAN("google.protobuf.Api")));
	cr_assert_null(pb_find_type_by_url(pool, SPAN("google.protobuf.Api")));
	cr_assert_null(pb_find_type_by_url(pool, SPAN("json.cloudstate.io/a/google.protobuf.Api")));
	cr_assert_eq(pb_pool_ref(pool), pool);
	pb_pool_unref(pool);
	pb_pool_unref(pool);
	pb_pool_unref(NULL);
}

/* --- what sets may look like --- */

Test(pool, links_files_in_any_order_and_under_any_name)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span user = user_file(&h.arena, "a.proto", "whatever.proto", ".q.Thing");
	struct span used = empty_type_file(&h.arena, "z.proto", "q", "Thing");
	link_files(&h, nest(&h.arena, "1m 1m", &user, &used));
	cr_assert_eq(h.code, ERR_OK, "%s", h.err.text);
	const struct pb_type *m = pb_find_type(h.pool, SPAN("p.M"));
	cr_assert_eq(m->fields[0].sub, pb_find_type(h.pool, SPAN("q.Thing")));
	/* The import that is nowhere has become a placeholder with a name and nothing else. */
	cr_assert(m->file->deps[0]->placeholder);
	cr_assert(span_eq_str(m->file->deps[0]->name, "whatever.proto"));
	cr_assert_eq(pb_find_file(h.pool, SPAN("whatever.proto")), m->file->deps[0]);
	struct span raw = m->file->deps[0]->raw;
	struct pb_wire_field f;
	cr_assert_eq(pb_wire_next(&raw, &f), 1);
	cr_assert(f.number == 1 && span_eq_str(f.bytes, "whatever.proto") && raw.n == 0);
	by_hand_release(&h);
}

Test(pool, resolves_relative_names_from_the_inside_out)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span field = nest(&h.arena, "1s 3v 6s", "f", 1, "Inner"); /* no type: found out by name */
	struct span inner = nest(&h.arena, "1s", "Inner");
	struct span message = nest(&h.arena, "1s 2m 3m", "M", &field, &inner);
	struct span outer = nest(&h.arena, "1s", "Inner");
	struct span file = nest(&h.arena, "1s 2s 4m 4m", "x.proto", "p", &message, &outer);
	link_files(&h, nest(&h.arena, "1m", &file));
	cr_assert_eq(h.code, ERR_OK, "%s", h.err.text);
	cr_assert_eq(pb_find_type(h.pool, SPAN("p.M"))->fields[0].sub,
		     pb_find_type(h.pool, SPAN("p.M.Inner")));
	by_hand_release(&h);
}

Test(pool, names_file_and_symbol_of_a_type_that_is_nowhere)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span user = user_file(&h.arena, "a.proto", "gone.proto", ".q.Gone");
	link_files(&h, nest(&h.arena, "1m", &user));
	cr_assert_eq(h.code, ERR_INVALID);
	cr_assert(says(&h.err, "a.proto") && says(&h.err, "p.M.f") && says(&h.err, "q.Gone"), "%s",
		  h.err.text);
	by_hand_release(&h);
}

Test(pool, names_a_method_whose_input_is_nowhere)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span method = nest(&h.arena, "1s 2s 3s", "Do", ".q.Gone", ".google.protobuf.Empty");
	struct span service = nest(&h.arena, "1s 2m", "S", &method);
	struct span file = nest(&h.arena, "1s 2s 6m", "s.proto", "p", &service);
	link_files(&h, nest(&h.arena, "1m", &file));
	cr_assert_eq(h.code, ERR_INVALID);
	cr_assert(says(&h.err, "p.S.Do") && says(&h.err, "input type \"q.Gone\""), "%s", h.err.text);
	by_hand_release(&h);
}

Test(pool, takes_an_option_whose_type_and_target_are_missing)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span extension =
		nest(&h.arena, "1s 2s 3v 5v 6s", "rule", ".q.Options", 99, PB_MESSAGE, ".q.Rule");
	struct span file = nest(&h.arena, "1s 2s 3s 7m", "s.proto", "p", "q.proto", &extension);
	link_files(&h, nest(&h.arena, "1m", &file));
	cr_assert_eq(h.code, ERR_OK, "%s", h.err.text);
	const struct pb_field *e = pb_find_extension(h.pool, SPAN("q.Options"), 99);
	cr_assert_not_null(e);
	cr_assert(e->extension && !e->parent && !e->sub);
	by_hand_release(&h);
}

Test(pool, prefers_what_the_set_brings_to_what_is_built_in)
{
	struct by_hand h;
	by_hand_init(&h);
	/* The older option: the same symbol under another number; and Empty in a file of another name. */
	struct span key =
		nest(&h.arena, "1s 2s 3v 5v", "entity_key", ".google.protobuf.FieldOptions", 50002, PB_BOOL);
	struct span keys = nest(&h.arena, "1s 2s 7m", "keys.proto", "cloudstate", &key);
	struct span empty = empty_type_file(&h.arena, "empty.proto", "google.protobuf", "Empty");
	link_files(&h, nest(&h.arena, "1m 1m", &keys, &empty));
	cr_assert_eq(h.code, ERR_OK, "%s", h.err.text);
	cr_assert_eq(pb_find_field(h.pool, SPAN("cloudstate.entity_key"))->number, 50002);
	cr_assert(
		span_eq_str(pb_find_symbol_file(h.pool, SPAN("google.protobuf.Empty"))->name, "empty.proto"));
	cr_assert_null(pb_find_file(h.pool, SPAN("google/protobuf/empty.proto")));
	/* The built-in legacy_entity_key has lost its number to it. */
	cr_assert(span_eq_str(pb_find_extension(h.pool, SPAN("google.protobuf.FieldOptions"), 50002)->name,
			      "entity_key"));
	by_hand_release(&h);
}

Test(pool, takes_one_file_twice_but_not_two_of_one_name)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span a = empty_type_file(&h.arena, "a.proto", "p", "A");
	struct span b = empty_type_file(&h.arena, "a.proto", "p", "B");
	link_files(&h, nest(&h.arena, "1m 1m", &a, &a));
	cr_assert_eq(h.code, ERR_OK, "%s", h.err.text);
	pb_pool_unref(h.pool);
	h.pool = NULL;
	link_files(&h, nest(&h.arena, "1m 1m", &a, &b));
	cr_assert_eq(h.code, ERR_INVALID);
	cr_assert(says(&h.err, "a.proto"));
	by_hand_release(&h);
}

Test(pool, refuses_what_does_not_make_sense)
{
	struct by_hand h;
	by_hand_init(&h);
	struct arena *a = &h.arena;
	struct span file, m, f1, f2;
#define REFUSED(part)                                            \
	do {                                                     \
		err_clear(&h.err);                               \
		link_files(&h, nest(a, "1m", &file));            \
		cr_assert_eq(h.code, ERR_INVALID, "%s", part);   \
		cr_assert(says(&h.err, part), "%s", h.err.text); \
	} while (0)
#define FILE_WITH_M (file = nest(a, "1s 2s 4m 12s", "x.proto", "p", &m, "proto3"))
	f1 = nest(a, "1s 3v 5v", "a", 1, PB_INT32);
	f2 = nest(a, "1s 3v 5v", "b", 1, PB_INT32);
	m = nest(a, "1s 2m 2m", "M", &f1, &f2);
	FILE_WITH_M;
	REFUSED("same number 1");
	m = nest(a, "1s 2m 2m", "M", &f1, &f1);
	FILE_WITH_M;
	REFUSED("p.M.a is defined twice");
	f1 = nest(a, "1s 3v 5v", "a", 0, PB_INT32);
	m = nest(a, "1s 2m", "M", &f1);
	FILE_WITH_M;
	REFUSED("field number 0");
	f1 = nest(a, "1s 3v 5v", "a", 1, 19);
	m = nest(a, "1s 2m", "M", &f1);
	FILE_WITH_M;
	REFUSED("unknown type 19");
	f1 = nest(a, "1s 3v", "a", 1);
	m = nest(a, "1s 2m", "M", &f1);
	FILE_WITH_M;
	REFUSED("has no type");
	f1 = nest(a, "1s 3v 5v 9v", "a", 1, PB_INT32, 0);
	m = nest(a, "1s 2m", "M", &f1);
	FILE_WITH_M;
	REFUSED("oneof");
	f1 = nest(a, "1s 3v 5v 6s", "a", 1, PB_ENUM, ".p.M");
	m = nest(a, "1s 2m", "M", &f1);
	FILE_WITH_M;
	REFUSED("not the kind of type");
	f1 = nest(a, "1s 3v 5v 7s", "a", 1, PB_INT32, "2147483648");
	m = nest(a, "1s 2m", "M", &f1);
	FILE_WITH_M;
	REFUSED("not a default");
	f2 = nest(a, "7v", 1);
	m = nest(a, "1s 7m", "M", &f2);
	FILE_WITH_M;
	REFUSED("map entry");
	m = nest(a, "1s", "M-1");
	FILE_WITH_M;
	REFUSED("\"M-1\"");
	m = nest(a, "1s", "M");
	file = nest(a, "1s 2s 4m 12s", "x.proto", "p", &m, "editions");
	REFUSED("syntax is \"editions\"");
	file = nest(a, "1s 2s 4m", "x.proto", "p..q", &m);
	REFUSED("package name");
	m = nest(a, "1s", "Timestamp");
	file = nest(a, "1s 2s 4m", "x.proto", "google.protobuf", &m);
	REFUSED("google.protobuf.Timestamp lacks field 1");
	file = SPAN("\x0a\x7fx");
	REFUSED("malformed");
	m = nest(a, "1s", "E");
	file = nest(a, "1s 5m", "x.proto", &m);
	REFUSED("has no value");
	by_hand_release(&h);
}

Test(pool, refuses_messages_nested_too_deep)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span m = nest(&h.arena, "1s", "M");
	for (int i = 0; i < LIMIT_NESTING + 1; i++)
		m = nest(&h.arena, "1s 3m", "M", &m);
	struct span file = nest(&h.arena, "1s 4m", "x.proto", &m);
	link_files(&h, nest(&h.arena, "1m", &file));
	cr_assert_eq(h.code, ERR_LIMIT, "%s", h.err.text);
	by_hand_release(&h);
}

Test(pool, gives_fields_that_share_a_json_name_their_own)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span f1 = nest(&h.arena, "1s 3v 5v", "foo_bar", 1, PB_INT32);
	struct span f2 = nest(&h.arena, "1s 3v 5v", "fooBar", 2, PB_INT32);
	struct span f3 = nest(&h.arena, "1s 3v 5v 10s", "third", 3, PB_INT32, "foo_bar");
	struct span m = nest(&h.arena, "1s 2m 2m 2m", "M", &f1, &f2, &f3);
	struct span file = nest(&h.arena, "1s 4m", "x.proto", &m);
	link_files(&h, nest(&h.arena, "1m", &file));
	cr_assert_eq(h.code, ERR_OK, "%s", h.err.text);
	const struct pb_type *t = pb_find_type(h.pool, SPAN("M"));
	cr_assert(span_eq_str(t->fields[0].json_name, "foo_bar"));
	cr_assert(span_eq_str(t->fields[1].json_name, "fooBar"));
	cr_assert(span_eq_str(t->fields[2].json_name, "third"));
	cr_assert_eq(pb_field_by_name(t, SPAN("foo_bar")), &t->fields[0]);
	cr_assert_eq(pb_field_by_name(t, SPAN("fooBar")), &t->fields[1]);
	by_hand_release(&h);
}

/* Each takes the next one's name as its JSON name: all must go by their own in the end. */
Test(pool, settles_a_long_chain_of_json_names)
{
	struct by_hand h;
	struct buf fields;
	char name[16], next[16];
	by_hand_init(&h);
	buf_init(&fields, MIB);
	cr_assert_eq(pb_put_bytes(&fields, 1, SPAN("M")), ERR_OK);
	for (int i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		snprintf(next, sizeof(next), "f%d", i == 39 ? 39 : i + 1);
		struct span f = nest(&h.arena, "1s 3v 5v 10s", name, i + 1, PB_INT32, next);
		cr_assert_eq(pb_put_bytes(&fields, 2, f), ERR_OK);
	}
	struct span m = buf_span(&fields), file = nest(&h.arena, "1s 4m", "x.proto", &m);
	link_files(&h, nest(&h.arena, "1m", &file));
	cr_assert_eq(h.code, ERR_OK, "%s", h.err.text);
	const struct pb_type *t = pb_find_type(h.pool, SPAN("M"));
	for (size_t i = 0; i < 40; i++)
		cr_assert(span_eq(t->fields[i].json_name, t->fields[i].name), "%zu", i);
	buf_release(&fields);
	by_hand_release(&h);
}

Test(pool, finds_enum_values_both_ways)
{
	struct fixture f;
	fixture_init(&f);
	const struct pb_enum *e = pb_find_enum(f.pool, SPAN("kinds.Color"));
	cr_assert_eq(pb_enum_by_name(e, SPAN("COLOR_CRIMSON"))->number, 1);
	cr_assert_eq(pb_enum_by_name(e, SPAN("COLOR_BELOW"))->number, -3);
	cr_assert_null(pb_enum_by_name(e, SPAN("COLOR")));
	cr_assert_null(pb_enum_by_name(e, SPAN("")));
	cr_assert(span_eq_str(pb_enum_by_number(e, 1)->name, "COLOR_RED")); /* the first of two */
	cr_assert(span_eq_str(pb_enum_by_number(e, -3)->name, "COLOR_BELOW"));
	cr_assert(span_eq_str(pb_enum_by_number(e, 7)->name, "COLOR_BLUE"));
	cr_assert_null(pb_enum_by_number(e, 2));
	cr_assert_null(pb_enum_by_number(e, INT32_MAX));
	cr_assert_null(pb_enum_by_number(e, INT32_MIN));
	fixture_release(&f);
}

Test(pool, takes_a_second_set_behind_the_first)
{
	struct by_hand h;
	by_hand_init(&h);
	struct span a = empty_type_file(&h.arena, "a.proto", "p", "A"),
		    b = empty_type_file(&h.arena, "b.proto", "p", "A"),
		    c = empty_type_file(&h.arena, "c.proto", "p", "C");
	struct span sets[] = {nest(&h.arena, "1m", &a), nest(&h.arena, "1m 1m", &b, &c)};
	cr_assert_eq(pb_pool_new(sets, 2, &h.pool, &h.err), ERR_OK, "%s", h.err.text);
	cr_assert_null(pb_find_file(h.pool, SPAN("b.proto")));
	cr_assert_eq(pb_find_file(h.pool, SPAN("c.proto"))->set_index, 1);
	cr_assert_eq(pb_find_symbol_file(h.pool, SPAN("p.A"))->set_index, 0);
	by_hand_release(&h);
}

/* Every prefix and every flipped byte of a real set: an error or a pool, never a crash. */
Test(pool, survives_broken_bytes)
{
	struct pb_pool *pool;
	uint8_t *copy = mem_xdup(pbdyn_test_set, pbdyn_test_set_bytes);
	for (size_t i = 0; i < pbdyn_test_set_bytes; i += 7) {
		struct span cut = span_of(copy, i);
		if (pb_pool_new(&cut, 1, &pool, NULL) == ERR_OK)
			pb_pool_unref(pool);
		copy[i] ^= (uint8_t)(1 + i % 255);
		struct span bent = span_of(copy, pbdyn_test_set_bytes);
		if (pb_pool_new(&bent, 1, &pool, NULL) == ERR_OK)
			pb_pool_unref(pool);
		copy[i] ^= (uint8_t)(1 + i % 255);
	}
	mem_free(copy);
}

Test(pool, survives_every_failing_allocation)
{
	struct span set = span_of(pbdyn_test_set, pbdyn_test_set_bytes);
	struct pb_pool *pool;
	mem_test_fail_at(0);
	cr_assert_eq(pb_pool_new(&set, 1, &pool, NULL), ERR_OK);
	pb_pool_unref(pool);
	unsigned long count = mem_test_fail_at(0);
	cr_assert_gt(count, 3);
	for (unsigned long i = 1; i <= count; i++) {
		struct err err = {0};
		mem_test_fail_at(i);
		enum err_code code = pb_pool_new(&set, 1, &pool, &err);
		mem_test_fail_at(0);
		cr_assert(code == ERR_LIMIT || code == ERR_NOMEM, "allocation %lu of %lu: %d", i, count,
			  code);
		cr_assert_eq(err.code, code);
	}
}
