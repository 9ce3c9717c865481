/* proto3 JSON into messages. The types with a JSON form of their own are in json_wkt.c. */
#include <config.h>

#include "pbdyn/json.h"

static bool takes_null(const struct pb_field *field)
{
	if (field->sub)
		return field->sub->wkt == PB_WKT_VALUE;
	return field->enum_type && field->enum_type->null_value;
}

enum err_code pbjson_scalar(struct json_reader *r, const struct pb_field *field, union pb_value *ret)
{
	union pb_value v = {.u64 = 0};
	struct span text = r->raw;
	enum err_code code = ERR_OK;
	bool is_string = r->token == JSON_STRING;
	if (field->kind == PB_BOOL) {
		if (r->token != JSON_TRUE && r->token != JSON_FALSE)
			return pbjson_expected(r, "true or false");
		v.b = r->token == JSON_TRUE;
	} else if (field->kind == PB_STRING) {
		if (!is_string)
			return pbjson_expected(r, "a string");
		code = pbjson_string_dup(r, &v.bytes);
	} else if (r->token == JSON_NULL && takes_null(field)) {
		v.i32 = 0;
	} else {
		if (!is_string && (r->token != JSON_NUMBER || field->kind == PB_BYTES))
			return pbjson_expected(r, field->kind == PB_BYTES ? "a string of base64"
						: field->kind == PB_ENUM
							? "the name or number of an enum value"
							: "a number");
		if (is_string && (code = pbjson_string(r, &text)))
			return code;
		if ((code = scalar_parse(field, text, r->arena, &v, r->err)))
			return pbjson_locate(r, code);
	}
	if (code || (code = pbjson_advance(r)))
		return code;
	*ret = v;
	return ERR_OK;
}

/* One item of a list, or a map entry's value: null is no item. */
static enum err_code refuse_null(const struct json_reader *r, const struct pb_field *field)
{
	return r->token == JSON_NULL && !takes_null(field) ? pbjson_expected(r, "a value") : ERR_OK;
}

enum err_code pbjson_list(struct json_reader *r, struct pb_msg *msg, const struct pb_field *field,
			unsigned depth)
{
	struct json_place here = {.up = r->place};
	bool first = true, done = false;
	enum err_code code;
	if (r->token != JSON_ARRAY)
		return pbjson_expected(r, "an array");
	r->place = &here;
	for (;; here.index++) {
		union pb_value v = {.msg = NULL};
		if ((code = pbjson_array_next(r, &first, &done)) || done)
			break;
		if ((code = refuse_null(r, field)))
			break;
		if (field->sub) {
			v.msg = pb_msg_new(field->sub, r->arena);
			code = v.msg ? pbjson_message(r, v.msg, depth + 1) : arena_exhausted(r->err);
		} else {
			code = pbjson_scalar(r, field, &v);
		}
		if (code)
			break;
		if (pb_msg_add(msg, field, v)) {
			code = arena_exhausted(r->err);
			break;
		}
	}
	r->place = here.up;
	return code;
}

static enum err_code map_key(const struct json_reader *r, const struct pb_field *key, struct span text,
			     struct pb_msg *entry)
{
	union pb_value v;
	enum err_code code = scalar_parse(key, text, r->arena, &v, r->err);
	if (code)
		return pbjson_locate(r, code);
	pb_msg_set(entry, key, v);
	return ERR_OK;
}

static enum err_code map_value(struct json_reader *r, const struct pb_field *value, struct pb_msg *entry,
			       unsigned depth)
{
	union pb_value v;
	enum err_code code = refuse_null(r, value);
	if (code)
		return code;
	if (value->sub) {
		struct pb_msg *sub = pb_msg_sub(entry, value);
		return sub ? pbjson_message(r, sub, depth + 1) : arena_exhausted(r->err);
	}
	if (!(code = pbjson_scalar(r, value, &v)))
		pb_msg_set(entry, value, v);
	return code;
}

enum err_code pbjson_map(struct json_reader *r, struct pb_msg *msg, const struct pb_field *field,
		       unsigned depth)
{
	const struct pb_field *key = field->sub->by_number[0], *value = field->sub->by_number[1];
	struct json_place here = {.up = r->place};
	bool first = true, done = false, replaced = false;
	enum err_code code;
	if (r->token != JSON_OBJECT)
		return pbjson_expected(r, "an object");
	while (!(code = pbjson_object_next(r, &first, &here.name, &done)) && !done) {
		struct pb_msg *entry = pb_msg_new(field->sub, r->arena);
		r->place = &here;
		if (!entry)
			code = arena_exhausted(r->err);
		else if (!(code = map_key(r, key, here.name, entry)) &&
			 !(code = map_value(r, value, entry, depth + 1)) &&
			 map_put_entry(msg, field, entry, &replaced))
			code = arena_exhausted(r->err);
		if (!code && replaced)
			code = pbjson_fail(r, "this key is given twice");
		r->place = here.up;
		if (code)
			break;
	}
	return code;
}

static enum err_code parse_field(struct json_reader *r, struct pb_msg *msg, const struct pb_field *field,
				 unsigned depth)
{
	union pb_value v;
	enum err_code code;
	if (r->token == JSON_NULL && (field->repeated || !takes_null(field)))
		return pbjson_advance(r);
	if (field->oneof && pb_msg_which(msg, field->oneof)) {
		const struct pb_field *other = pb_msg_which(msg, field->oneof);
		return pbjson_fail(r, "only one of oneof %.*s may be given, and %.*s is",
				 SPAN_ARG(field->oneof->name), SPAN_ARG(other->json_name));
	}
	if (field->map)
		return pbjson_map(r, msg, field, depth);
	if (field->repeated)
		return pbjson_list(r, msg, field, depth);
	if (field->sub) {
		struct pb_msg *sub = pb_msg_sub(msg, field);
		return sub ? pbjson_message(r, sub, depth + 1) : arena_exhausted(r->err);
	}
	if (!(code = pbjson_scalar(r, field, &v)))
		pb_msg_set(msg, field, v);
	return code;
}

/* A bit a field, and one more for "@type". */
static bool seen_before(uint32_t *seen, size_t index)
{
	uint32_t bit = 1U << (index % 32);
	bool before = seen[index / 32] & bit;
	seen[index / 32] |= bit;
	return before;
}

enum err_code pbjson_fields(struct json_reader *r, struct pb_msg *msg, unsigned depth, bool with_type)
{
	uint32_t few[4] = {0}, *seen = few;
	size_t n = msg->type->field_count;
	struct json_place here = {.up = r->place};
	bool first = true, done = false;
	enum err_code code;
	if (r->token != JSON_OBJECT)
		return pbjson_expected(r, "an object");
	if (n >= 32 * ARRAY_LEN(few) && !(seen = arena_zalloc(r->arena, (n / 32 + 1) * sizeof(*seen))))
		return arena_exhausted(r->err);
	while (!(code = pbjson_object_next(r, &first, &here.name, &done)) && !done) {
		bool is_type = with_type && span_eq_str(here.name, "@type");
		const struct pb_field *field = is_type ? NULL : pb_field_by_name(msg->type, here.name);
		r->place = &here;
		if (!field && !is_type)
			code = pbjson_fail(r, "%.*s has no such field", SPAN_ARG(msg->type->full_name));
		else if (seen_before(seen, is_type ? n : field->index))
			code = pbjson_fail(r, "this field is given twice");
		else
			code = is_type ? pbjson_advance(r) : parse_field(r, msg, field, depth);
		r->place = here.up;
		if (code)
			break;
	}
	return code;
}

enum err_code pbjson_message(struct json_reader *r, struct pb_msg *msg, unsigned depth)
{
	if (depth > LIMIT_NESTING) {
		err_set(r->err, ERR_LIMIT, "messages nested more than %d deep", LIMIT_NESTING);
		return pbjson_locate(r, ERR_LIMIT);
	}
	if (msg->type->wkt != PB_WKT_NONE)
		return pbjson_known_type(r, msg, depth);
	return pbjson_fields(r, msg, depth, false);
}

static enum err_code expect_end(const struct json_reader *r)
{
	return r->token == JSON_END ? ERR_OK : pbjson_expected(r, "the end of the text");
}

enum err_code pb_json_parse(const struct pb_type *type, struct span json, struct arena *arena,
			    struct pb_msg **ret, struct err *err)
{
	struct json_reader r;
	struct pb_msg *msg = pb_msg_new(type, arena);
	if (!msg)
		return arena_exhausted(err);
	enum err_code code = pbjson_begin(&r, json, arena, err);
	if (code || (code = pbjson_message(&r, msg, 0)) || (code = expect_end(&r)))
		return code;
	*ret = msg;
	return ERR_OK;
}

enum err_code pb_json_parse_field(struct pb_msg *msg, const struct pb_field *field, struct span json,
				  struct err *err)
{
	struct json_reader r;
	enum err_code code = pbjson_begin(&r, json, msg->arena, err);
	if (code)
		return code;
	pb_msg_clear(msg, field);
	code = parse_field(&r, msg, field, 0);
	return code ? code : expect_end(&r);
}
