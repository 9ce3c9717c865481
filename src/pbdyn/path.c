/* Fields reached by a dotted path, and entity keys read straight from wire bytes. */
#include <config.h>

#include "pbdyn/internal.h"

#include "base/text.h"

enum err_code pb_path_find(const struct pb_type *type, struct span dotted, struct pb_path *ret,
			   struct err *err)
{
	struct pb_path path = {0};
	struct span rest = dotted;
	for (;;) {
		size_t dot = span_find(rest, '.');
		struct span name = span_first(rest, dot);
		if (path.n == PB_PATH_MAX)
			return err_set(err, ERR_LIMIT, "\"%.*s\" has more than %d parts", SPAN_ARG(dotted),
				       PB_PATH_MAX);
		if (!type)
			return err_set(err, ERR_INVALID,
				       "\"%.*s\": %.*s is no singular message, so it has no field",
				       SPAN_ARG(dotted), SPAN_ARG(path.at[path.n - 1]->name));
		const struct pb_field *field = pb_field_by_name(type, name);
		if (!field)
			return err_set(err, ERR_INVALID, "\"%.*s\": %.*s has no field \"%.*s\"",
				       SPAN_ARG(dotted), SPAN_ARG(type->full_name), SPAN_ARG(name));
		path.at[path.n++] = field;
		if (dot == rest.n)
			break;
		type = field->repeated ? NULL : field->sub;
		rest = span_skip(rest, dot + 1);
	}
	*ret = path;
	return ERR_OK;
}

enum err_code pb_path_set_text(struct pb_msg *msg, const struct pb_path *path, struct span text,
			       struct err *err)
{
	union pb_value value;
	const struct pb_field *last = path->at[path->n - 1];
	for (size_t i = 0; i + 1 < path->n; i++) {
		msg = pb_msg_sub(msg, path->at[i]);
		if (!msg)
			return arena_exhausted(err);
	}
	if (last->kind == PB_MESSAGE || last->kind == PB_GROUP)
		return err_set(err, ERR_INVALID, "%.*s is no scalar", SPAN_ARG(last->name));
	if (scalar_parse(last, text, msg->arena, &value, err)) {
		enum err_code code = err ? err->code : ERR_INVALID;
		err_wrap(err, "%.*s", SPAN_ARG(last->name));
		return code;
	}
	if (last->repeated)
		return pb_msg_add(msg, last, value) ? arena_exhausted(err) : ERR_OK;
	pb_msg_set(msg, last, value);
	return ERR_OK;
}

/* The value of one singular scalar field as protobuf reads it: the last occurrence, unless another
 * member of its oneof came after it. */
static enum err_code read_key(const struct pb_field *key, struct span wire, union pb_value *ret,
			      struct err *err)
{
	struct pb_wire_field in;
	int got;
	*ret = key->fallback;
	while ((got = pb_wire_next(&wire, &in)) > 0) {
		if (in.number == key->number) {
			if (in.wire != kind_wire(key->kind))
				continue;
			if (in.wire == PB_BYTES_FIELD)
				ret->bytes = in.bytes;
			else
				*ret = wire_to_value(key->kind, in.value);
		} else if (key->oneof) {
			const struct pb_field *other = pb_field_by_number(key->parent, in.number);
			if (other && other->oneof == key->oneof && in.wire == kind_wire(other->kind))
				*ret = key->fallback;
		}
	}
	if (got < 0)
		return err_set(err, ERR_INVALID, "malformed %.*s", SPAN_ARG(key->parent->full_name));
	if (key->kind == PB_STRING && !utf8_valid(ret->bytes))
		return err_set(err, ERR_INVALID, "malformed %.*s: field %.*s is not UTF-8",
			       SPAN_ARG(key->parent->full_name), SPAN_ARG(key->name));
	return ERR_OK;
}

enum err_code pb_key_print(const struct pb_field *const *keys, size_t key_count, struct span wire,
			   struct buf *out, struct err *err)
{
	for (size_t i = 0; i < key_count; i++) {
		union pb_value value;
		if (keys[i]->repeated || keys[i]->sub)
			return err_set(err, ERR_INVALID, "entity key %.*s is no singular scalar",
				       SPAN_ARG(keys[i]->full_name));
		enum err_code code = i ? buf_append_byte(out, '-') : ERR_OK;
		if (code)
			return err_set(err, code, "the entity key does not fit");
		if ((code = read_key(keys[i], wire, &value, err)) ||
		    (code = pb_scalar_print(keys[i], value, out, err)))
			return code;
	}
	return ERR_OK;
}
