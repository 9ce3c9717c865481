/* Messages as proto3 JSON: compact, lowerCamelCase, defaults printed. */
#include <config.h>

#include "pbdyn/internal.h"

#include <math.h>

#include "base/text.h"

struct printer {
	struct buf *out;
	struct arena *arena; /* for what Anys hold */
	struct err *err;
};

static enum err_code print_message(const struct printer *p, const struct pb_msg *msg, unsigned depth);

static enum err_code put(const struct printer *p, const char *text)
{
	return buf_append_str(p->out, text);
}

/* --- strings --- */

static enum err_code quote_special(struct buf *out, uint8_t c)
{
	static const char hex[] = "0123456789abcdef", letters[] = "btnvfr";
	char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
	if (c == '"' || c == '\\') {
		text[1] = (char)c;
		return buf_append(out, text, 2);
	}
	if (c >= '\b' && c <= '\r' && c != '\v') {
		text[1] = letters[c - '\b'];
		return buf_append(out, text, 2);
	}
	return buf_append(out, text, 6);
}

enum err_code pb_json_quote(struct buf *out, struct span text)
{
	enum err_code code = buf_append_byte(out, '"');
	size_t plain = 0; /* where the run begins that needs no escape */
	for (size_t i = 0; i < text.n && !code; i++) {
		uint8_t c = text.p[i];
		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		code = buf_append(out, text.p + plain, i - plain);
		if (!code)
			code = quote_special(out, c);
		plain = i + 1;
	}
	if (!code && plain < text.n)
		code = buf_append(out, text.p + plain, text.n - plain);
	return code ? code : buf_append_byte(out, '"');
}

/* --- values --- */

static bool is_quoted(const struct pb_field *field, union pb_value v)
{
	switch (field->kind) {
	case PB_INT64:
	case PB_UINT64:
	case PB_FIXED64:
	case PB_SFIXED64:
	case PB_SINT64:
	case PB_BYTES: return true;
	case PB_DOUBLE: return !isfinite(v.d);
	case PB_FLOAT: return !isfinite(v.f);
	case PB_ENUM: return !field->enum_type->null_value && pb_enum_by_number(field->enum_type, v.i32);
	default: return false;
	}
}

static enum err_code print_value(const struct printer *p, const struct pb_field *field, union pb_value v,
				 unsigned depth)
{
	if (field->sub)
		return print_message(p, v.msg, depth + 1);
	if (field->kind == PB_STRING) {
		if (!utf8_valid(v.bytes))
			return err_set(p->err, ERR_INVALID, "field %.*s is not UTF-8",
				       SPAN_ARG(field->full_name));
		return pb_json_quote(p->out, v.bytes);
	}
	bool quoted = is_quoted(field, v);
	enum err_code code = quoted ? buf_append_byte(p->out, '"') : ERR_OK;
	if (code || (code = pb_scalar_print(field, v, p->out, p->err)))
		return code;
	return quoted ? buf_append_byte(p->out, '"') : ERR_OK;
}

static enum err_code print_list(const struct printer *p, const struct pb_field *field,
				const struct pb_list *list, unsigned depth)
{
	enum err_code code = put(p, "[");
	for (size_t i = 0; list && i < list->count && !code; i++) {
		if (i)
			code = put(p, ",");
		if (!code)
			code = print_value(p, field, list->items[i], depth);
	}
	return code ? code : put(p, "]");
}

static enum err_code print_map(const struct printer *p, const struct pb_field *field,
			       const struct pb_list *list, unsigned depth)
{
	const struct pb_field *key = field->sub->by_number[0], *value = field->sub->by_number[1];
	enum err_code code = put(p, "{");
	for (size_t i = 0; list && i < list->count && !code; i++) {
		const struct pb_msg *entry = list->items[i].msg;
		union pb_value k = pb_msg_get(entry, key);
		if (i)
			code = put(p, ",");
		if (code)
			break;
		if (key->kind == PB_STRING || is_quoted(key, k))
			code = print_value(p, key, k, depth);
		else if (!(code = put(p, "\"")) && !(code = pb_scalar_print(key, k, p->out, p->err)))
			code = put(p, "\"");
		if (!code && !(code = put(p, ":")))
			code = print_value(p, value, pb_msg_get(entry, value), depth + 1);
	}
	return code ? code : put(p, "}");
}

/* Defaults are printed, but for what is unset and could tell: messages and oneof members, proto3
 * optional among these. */
static bool is_printed(const struct pb_msg *msg, const struct pb_field *field)
{
	if (field->repeated || msg_has_bit(msg, field->index))
		return true;
	return !field->sub && !field->oneof && !field->proto3_optional;
}

static enum err_code print_field_value(const struct printer *p, const struct pb_msg *msg,
				       const struct pb_field *field, unsigned depth)
{
	union pb_value v = pb_msg_get(msg, field);
	if (field->map)
		return print_map(p, field, v.list, depth);
	return field->repeated ? print_list(p, field, v.list, depth) : print_value(p, field, v, depth);
}

/* The fields without the braces; first: nothing stands before them. */
static enum err_code print_fields(const struct printer *p, const struct pb_msg *msg, unsigned depth,
				  bool first)
{
	for (size_t i = 0; i < msg->type->field_count; i++) {
		const struct pb_field *field = msg->type->by_number[i];
		enum err_code code = ERR_OK;
		if (!is_printed(msg, field))
			continue;
		if (!first)
			code = put(p, ",");
		first = false;
		if (code || (code = pb_json_quote(p->out, field->json_name)) || (code = put(p, ":")) ||
		    (code = print_field_value(p, msg, field, depth)))
			return code;
	}
	return ERR_OK;
}

/* --- well-known types --- */

static union pb_value value_of(const struct pb_msg *msg, uint32_t number)
{
	return pb_msg_get(msg, pb_field_by_number(msg->type, number));
}

static enum err_code print_opaque_any(const struct printer *p, struct span bytes)
{
	enum err_code code = put(p, ",\"value\":\"");
	if (code || (code = base64_encode(p->out, bytes, true)))
		return code;
	return put(p, "\"}");
}

static enum err_code print_any(const struct printer *p, const struct pb_msg *msg, unsigned depth)
{
	struct span url = value_of(msg, 1).bytes, bytes = value_of(msg, 2).bytes;
	if (url.n == 0 && bytes.n == 0)
		return put(p, "{}");
	if (!utf8_valid(url))
		return err_set(p->err, ERR_INVALID, "the type URL of an Any is not UTF-8");
	enum err_code code = put(p, "{\"@type\":");
	if (code || (code = pb_json_quote(p->out, url)))
		return code;
	const struct pb_type *type = pb_find_type_by_url(msg->type->file->pool, url);
	if (!type)
		return print_opaque_any(p, bytes);
	struct pb_msg *inner = pb_msg_new(type, p->arena);
	if (!inner)
		return arena_exhausted(p->err);
	/* Depth goes on counting, or Anys in Anys could nest without end. */
	if ((code = msg_merge(inner, bytes, depth + 1, p->err)))
		return code;
	if (type->wkt != PB_WKT_NONE) {
		if (!(code = put(p, ",\"value\":")))
			code = print_message(p, inner, depth + 1);
	} else {
		code = print_fields(p, inner, depth + 1, false);
	}
	return code ? code : put(p, "}");
}

static enum err_code print_time(const struct printer *p, const struct pb_msg *msg)
{
	int64_t seconds = value_of(msg, 1).i64;
	int32_t nanos = value_of(msg, 2).i32;
	enum err_code code = put(p, "\"");
	if (!code)
		code = msg->type->wkt == PB_WKT_TIMESTAMP ? timestamp_print(p->out, seconds, nanos, p->err)
							  : duration_print(p->out, seconds, nanos, p->err);
	return code ? code : put(p, "\"");
}

static enum err_code print_field_mask(const struct printer *p, const struct pb_msg *msg)
{
	const struct pb_list *paths = value_of(msg, 1).list;
	struct buf text;
	enum err_code code = ERR_OK;
	buf_init(&text, p->out->max_bytes);
	for (size_t i = 0; paths && i < paths->count && !code; i++) {
		struct span path = paths->items[i].bytes;
		if (i)
			code = buf_append_byte(&text, ',');
		if (!code && !utf8_valid(path))
			code = err_set(p->err, ERR_INVALID, "a FieldMask path is not UTF-8");
		if (!code)
			code = mask_path_print(&text, path, p->err);
	}
	if (!code)
		code = pb_json_quote(p->out, buf_span(&text));
	buf_release(&text);
	return code;
}

static enum err_code print_any_json(const struct printer *p, const struct pb_msg *msg, unsigned depth)
{
	const struct pb_field *set = pb_msg_which(msg, &msg->type->oneofs[0]);
	if (!set || set->number == 1)
		return put(p, "null");
	union pb_value v = pb_msg_get(msg, set);
	if (set->number == 2 && !isfinite(v.d))
		return err_set(p->err, ERR_INVALID,
			       "a google.protobuf.Value holds a number that JSON does not have");
	return print_value(p, set, v, depth);
}

static enum err_code print_message(const struct printer *p, const struct pb_msg *msg, unsigned depth)
{
	enum err_code code;
	switch (msg->type->wkt) {
	case PB_WKT_ANY: return print_any(p, msg, depth);
	case PB_WKT_TIMESTAMP:
	case PB_WKT_DURATION: return print_time(p, msg);
	case PB_WKT_FIELD_MASK: return print_field_mask(p, msg);
	case PB_WKT_STRUCT: return print_map(p, msg->type->by_number[0], value_of(msg, 1).list, depth);
	case PB_WKT_VALUE: return print_any_json(p, msg, depth);
	case PB_WKT_LIST_VALUE: return print_list(p, msg->type->by_number[0], value_of(msg, 1).list, depth);
	case PB_WKT_WRAPPER: return print_value(p, msg->type->by_number[0], value_of(msg, 1), depth);
	case PB_WKT_NONE: break;
	}
	if ((code = put(p, "{")) || (code = print_fields(p, msg, depth, true)))
		return code;
	return put(p, "}");
}

/* A buffer that is full has set no error yet. */
static enum err_code finish(const struct printer *p, enum err_code code)
{
	return code ? err_set(p->err, code, "the JSON text does not fit in %zu bytes", p->out->max_bytes)
		    : ERR_OK;
}

enum err_code pb_json_print(const struct pb_msg *msg, struct buf *out, struct err *err)
{
	struct printer p = {out, msg->arena, err};
	return finish(&p, print_message(&p, msg, 0));
}

enum err_code pb_json_print_field(const struct pb_msg *msg, const struct pb_field *field, struct buf *out,
				  struct err *err)
{
	struct printer p = {out, msg->arena, err};
	if (field->sub && !pb_msg_has(msg, field) && !field->repeated)
		return finish(&p, put(&p, "null"));
	return finish(&p, print_field_value(&p, msg, field, 0));
}
