/* The well-known types that have a JSON form of their own, read. Their shape was checked when the pool
 * was built, so their fields are taken by number. */
#include <config.h>

#include "pbdyn/json.h"

static const struct pb_field *field_of(const struct pb_msg *msg, uint32_t number)
{
	return pb_field_by_number(msg->type, number);
}

static void set(struct pb_msg *msg, uint32_t number, union pb_value value)
{
	pb_msg_set(msg, field_of(msg, number), value);
}

/* --- Any --- */

/* Finds "@type" in the object at the token without moving the reader. Where it comes last its
 * predecessors are read twice, in nested Anys more often, hence the allowance. */
static enum err_code find_type(struct json_reader *r, struct span *ret_url, bool *ret_empty)
{
	struct json_reader ahead = *r;
	struct span key;
	bool first = true, done = false, found = false;
	enum err_code code;
	*ret_empty = true;
	while (!(code = pbjson_object_next(&ahead, &first, &key, &done)) && !done) {
		*ret_empty = false;
		found = span_eq_str(key, "@type");
		if (found) {
			if (ahead.token != JSON_STRING)
				return pbjson_expected(&ahead, "a type URL in quotes");
			code = pbjson_string_dup(&ahead, ret_url);
			break;
		}
		if ((code = pbjson_skip(&ahead)))
			return code;
	}
	if (code)
		return code;
	if (!found && !*ret_empty)
		return pbjson_fail(r, "a google.protobuf.Any needs \"@type\"");
	if (ahead.at - r->at > r->lookahead_left) {
		err_set(r->err, ERR_LIMIT, "too many nested Anys that do not begin with \"@type\"");
		return pbjson_locate(r, ERR_LIMIT);
	}
	r->lookahead_left -= ahead.at - r->at;
	return ERR_OK;
}

/* {"@type": ..., "value": <JSON of the type>} */
static enum err_code parse_any_value(struct json_reader *r, struct pb_msg *inner, unsigned depth)
{
	struct json_place here = {.up = r->place};
	bool first = true, done = false, had_type = false, had_value = false;
	enum err_code code;
	while (!(code = pbjson_object_next(r, &first, &here.name, &done)) && !done) {
		bool is_type = span_eq_str(here.name, "@type"), is_value = span_eq_str(here.name, "value");
		r->place = &here;
		if (!is_type && !is_value)
			code = pbjson_fail(r, "an Any of %.*s has \"@type\" and \"value\" only",
					 SPAN_ARG(inner->type->full_name));
		else if (is_type ? had_type : had_value)
			code = pbjson_fail(r, "this field is given twice");
		else
			code = is_type ? pbjson_advance(r) : pbjson_message(r, inner, depth);
		had_type = had_type || is_type;
		had_value = had_value || is_value;
		r->place = here.up;
		if (code)
			return code;
	}
	if (!code && !had_value)
		code = pbjson_fail(r, "an Any of %.*s needs \"value\"", SPAN_ARG(inner->type->full_name));
	return code;
}

static enum err_code parse_any(struct json_reader *r, struct pb_msg *msg, unsigned depth)
{
	struct span url = {0}, bytes;
	bool empty;
	if (r->token != JSON_OBJECT)
		return pbjson_expected(r, "an object");
	enum err_code code = find_type(r, &url, &empty);
	if (code || empty)
		return code ? code : pbjson_skip(r);
	const struct pb_type *type = pb_find_type_by_url(msg->type->file->pool, url);
	if (!type)
		return pbjson_fail(r, "\"%.*s\" names no message type that is known here", SPAN_ARG(url));
	struct pb_msg *inner = pb_msg_new(type, r->arena);
	if (!inner)
		return arena_exhausted(r->err);
	if (depth >= LIMIT_NESTING)
		return pbjson_message(r, inner, depth + 1); /* says so */
	code = type->wkt == PB_WKT_NONE ? pbjson_fields(r, inner, depth + 1, true)
					: parse_any_value(r, inner, depth + 1);
	if (code || (code = msg_to_arena(inner, &bytes, r->err)))
		return code;
	set(msg, 1, (union pb_value){.bytes = url});
	set(msg, 2, (union pb_value){.bytes = bytes});
	return ERR_OK;
}

/* --- times and masks --- */

static enum err_code parse_time(struct json_reader *r, struct pb_msg *msg)
{
	struct span text;
	int64_t seconds;
	int32_t nanos;
	bool timestamp = msg->type->wkt == PB_WKT_TIMESTAMP;
	if (r->token != JSON_STRING)
		return pbjson_expected(r, timestamp ? "a time in quotes" : "a duration in quotes");
	enum err_code code = pbjson_string(r, &text);
	if (code)
		return code;
	code = timestamp ? timestamp_parse(text, &seconds, &nanos, r->err)
			 : duration_parse(text, &seconds, &nanos, r->err);
	if (code)
		return pbjson_locate(r, code);
	set(msg, 1, (union pb_value){.i64 = seconds});
	set(msg, 2, (union pb_value){.i32 = nanos});
	return pbjson_advance(r);
}

static enum err_code add_mask_path(struct json_reader *r, struct pb_msg *msg, struct span text)
{
	struct buf path;
	buf_init(&path, 2 * text.n + 1);
	enum err_code code = mask_path_parse(&path, text, r->err);
	if (code) {
		pbjson_locate(r, code);
	} else {
		struct span copy = arena_dup(r->arena, buf_span(&path));
		if ((!copy.p && path.n) || pb_msg_add(msg, field_of(msg, 1), (union pb_value){.bytes = copy}))
			code = arena_exhausted(r->err);
	}
	buf_release(&path);
	return code;
}

static enum err_code parse_field_mask(struct json_reader *r, struct pb_msg *msg)
{
	struct span text;
	if (r->token != JSON_STRING)
		return pbjson_expected(r, "field paths in quotes");
	enum err_code code = pbjson_string(r, &text);
	for (bool more = !code && text.n; more;) {
		size_t comma = span_find(text, ',');
		more = comma < text.n;
		code = add_mask_path(r, msg, span_first(text, comma));
		more = more && !code;
		text = more ? span_skip(text, comma + 1) : text;
	}
	return code ? code : pbjson_advance(r);
}

/* --- Struct, Value, ListValue, wrappers --- */

static enum err_code parse_value(struct json_reader *r, struct pb_msg *msg, unsigned depth)
{
	union pb_value v = {.u64 = 0};
	enum err_code code;
	uint32_t number;
	switch (r->token) {
	case JSON_NULL: number = 1; break;
	case JSON_NUMBER: number = 2; break;
	case JSON_STRING: number = 3; break;
	case JSON_TRUE:
	case JSON_FALSE: number = 4; break;
	case JSON_OBJECT: number = 5; break;
	case JSON_ARRAY: number = 6; break;
	default: return pbjson_expected(r, "a value");
	}
	const struct pb_field *field = field_of(msg, number);
	if (field->sub) {
		struct pb_msg *sub = pb_msg_sub(msg, field);
		return sub ? pbjson_message(r, sub, depth + 1) : arena_exhausted(r->err);
	}
	code = number == 1 ? pbjson_advance(r) : pbjson_scalar(r, field, &v);
	if (!code)
		pb_msg_set(msg, field, v);
	return code;
}

enum err_code pbjson_known_type(struct json_reader *r, struct pb_msg *msg, unsigned depth)
{
	union pb_value v;
	enum err_code code;
	switch (msg->type->wkt) {
	case PB_WKT_ANY: return parse_any(r, msg, depth);
	case PB_WKT_TIMESTAMP:
	case PB_WKT_DURATION: return parse_time(r, msg);
	case PB_WKT_FIELD_MASK: return parse_field_mask(r, msg);
	case PB_WKT_STRUCT: return pbjson_map(r, msg, field_of(msg, 1), depth);
	case PB_WKT_VALUE: return parse_value(r, msg, depth);
	case PB_WKT_LIST_VALUE: return pbjson_list(r, msg, field_of(msg, 1), depth);
	case PB_WKT_WRAPPER:
		code = pbjson_scalar(r, field_of(msg, 1), &v);
		if (!code)
			set(msg, 1, v);
		return code;
	case PB_WKT_NONE: break;
	}
	unreachable_state("pbjson_known_type");
}
