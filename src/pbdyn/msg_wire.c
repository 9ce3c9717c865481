/* Messages from and to wire bytes. Parsing borrows; writing measures first and then fills exactly the
 * room it reserved. */
#include <config.h>

#include "pbdyn/internal.h"

#include "base/endian.h"
#include "base/plant.h"
#include "base/text.h"

static enum err_code malformed(struct err *err, const struct pb_msg *msg, const char *what)
{
	return err_set(err, ERR_INVALID, "malformed %.*s: %s", SPAN_ARG(msg->type->full_name), what);
}

/* --- parsing --- */

static enum err_code keep_unknown(struct pb_msg *msg, struct span raw, struct err *err)
{
	struct unknown *last = msg->unknown_last;
	if (last && last->raw.p + last->raw.n == raw.p) { /* its neighbour in the input */
		last->raw.n += raw.n;
		return ERR_OK;
	}
	struct unknown *u = arena_zalloc(msg->arena, sizeof(*u));
	if (!u)
		return arena_exhausted(err);
	u->raw = raw;
	if (last)
		last->next = u;
	else
		msg->unknown_first = u;
	msg->unknown_last = u;
	return ERR_OK;
}

static size_t packed_count(enum pb_wire wire, struct span bytes)
{
	size_t n = 0;
	if (wire == PB_FIXED_64)
		return bytes.n / 8;
	if (wire == PB_FIXED_32)
		return bytes.n / 4;
	for (size_t i = 0; i < bytes.n; i++)
		n += bytes.p[i] < 0x80;
	return n;
}

static enum err_code parse_packed(struct pb_msg *msg, const struct pb_field *field, struct span bytes,
				  struct err *err)
{
	enum pb_wire wire = kind_wire(field->kind);
	size_t count = packed_count(wire, bytes);
	if (bytes.n == 0)
		return ERR_OK;
	if (!list_reserve(msg, field, count))
		return arena_exhausted(err);
	struct pb_list *list = msg->values[field->index].list;
	while (bytes.n) {
		uint64_t raw;
		if (wire == PB_VARINT) {
			if (!wire_take_varint(&bytes, &raw))
				return malformed(err, msg, "a packed field ends in the middle of a value");
		} else {
			size_t width = wire == PB_FIXED_64 ? 8 : 4;
			if (bytes.n < width)
				return malformed(err, msg, "a packed field ends in the middle of a value");
			raw = width == 8 ? get_le64(bytes.p) : get_le32(bytes.p);
			bytes = span_skip(bytes, width);
		}
		list->items[list->count++] = wire_to_value(field->kind, raw);
	}
	return ERR_OK;
}

static enum err_code parse_sub(struct pb_msg *msg, const struct pb_field *field, struct span bytes,
			       unsigned depth, struct err *err)
{
	bool replaced;
	struct pb_msg *sub = field->repeated ? pb_msg_new(field->sub, msg->arena) : pb_msg_sub(msg, field);
	if (!sub)
		return arena_exhausted(err);
	enum err_code code = msg_merge(sub, bytes, depth + 1, err);
	if (code || !field->repeated)
		return code;
	code = field->map ? map_put_entry(msg, field, sub, &replaced)
			  : pb_msg_add(msg, field, (union pb_value){.msg = sub});
	return code ? arena_exhausted(err) : ERR_OK;
}

static enum err_code parse_field(struct pb_msg *msg, const struct pb_field *field,
				 const struct pb_wire_field *in, unsigned depth, struct err *err)
{
	union pb_value value;
	if (in->wire != kind_wire(field->kind)) {
		if (in->wire == PB_BYTES_FIELD && field->repeated && kind_packable(field->kind))
			return parse_packed(msg, field, in->bytes, err);
		return keep_unknown(msg, in->raw, err);
	}
	if (field->kind == PB_MESSAGE || field->kind == PB_GROUP)
		return parse_sub(msg, field, in->bytes, depth, err);
	if (field->kind == PB_STRING && field->file->proto3 && !utf8_valid(in->bytes))
		return err_set(err, ERR_INVALID, "malformed %.*s: field %.*s is not UTF-8",
			       SPAN_ARG(msg->type->full_name), SPAN_ARG(field->name));
	if (field->kind == PB_STRING || field->kind == PB_BYTES)
		value = (union pb_value){.bytes = in->bytes};
	else
		value = wire_to_value(field->kind, in->value);
	if (field->repeated)
		return pb_msg_add(msg, field, value) ? arena_exhausted(err) : ERR_OK;
	pb_msg_set(msg, field, value);
	return ERR_OK;
}

enum err_code msg_merge(struct pb_msg *msg, struct span wire, unsigned depth, struct err *err)
{
	struct pb_wire_field in;
	int got;
	if (depth > LIMIT_NESTING)
		return err_set(err, ERR_LIMIT, "messages nested more than %d deep", LIMIT_NESTING);
	while ((got = pb_wire_next(&wire, &in)) > 0) {
		const struct pb_field *field = pb_field_by_number(msg->type, in.number);
		enum err_code code =
			field ? parse_field(msg, field, &in, depth, err) : keep_unknown(msg, in.raw, err);
		if (code)
			return code;
	}
	return got < 0 ? malformed(err, msg, "a field is cut off or has no legal tag") : ERR_OK;
}

enum err_code pb_msg_parse(const struct pb_type *type, struct span wire, struct arena *arena,
			   struct pb_msg **ret, struct err *err)
{
	struct pb_msg *msg = pb_msg_new(type, arena);
	if (!msg)
		return arena_exhausted(err);
	enum err_code code = msg_merge(msg, wire, 0, err);
	if (!code)
		*ret = msg;
	return code;
}

/* --- writing --- */

/* Messages that are parsed or made by paths are never deeper; this guards the stack. */
#define WRITE_NESTING (4 * LIMIT_NESTING)

static size_t measure(struct pb_msg *msg, unsigned depth);

static size_t scalar_size(enum pb_kind kind, union pb_value v)
{
	switch (kind_wire(kind)) {
	case PB_VARINT: return varint_size(wire_from_value(kind, v));
	case PB_FIXED_64: return 8;
	case PB_FIXED_32: return 4;
	case PB_BYTES_FIELD:
	case PB_GROUP_START:
	case PB_GROUP_END: break;
	}
	return varint_size(v.bytes.n) + v.bytes.n; /* string, bytes */
}

static size_t value_size(const struct pb_field *field, union pb_value v, unsigned depth)
{
	size_t tag = varint_size((uint64_t)field->number << 3);
	if (field->kind == PB_MESSAGE) {
		size_t n = measure(v.msg, depth + 1);
		return tag + varint_size(n) + n;
	}
	if (field->kind == PB_GROUP)
		return 2 * tag + measure(v.msg, depth + 1);
	return tag + scalar_size(field->kind, v);
}

/* The bytes of a packed list without tag and length. */
static size_t packed_size(const struct pb_field *field, const struct pb_list *list)
{
	size_t n = 0;
	for (size_t i = 0; i < list->count; i++)
		n += scalar_size(field->kind, list->items[i]);
	return n;
}

/* The bug of a JSON that loses what is set but empty. */
static bool is_dropped(const struct pb_msg *msg, const struct pb_field *field)
{
	if (!plant("empty-oneof-member-dropped") || !field->oneof || field->kind != PB_MESSAGE)
		return false;
	const struct pb_msg *sub = msg->values[field->index].msg;
	for (uint32_t i = 0; i < sub->type->field_count; i++)
		if (msg_has_bit(sub, i))
			return false;
	return true;
}

/* A map entry always shows key and value (a value message is there unless somebody made an entry by
 * itself, say in an Any); elsewhere an implicit-presence default is left out. */
static bool is_written(const struct pb_msg *msg, const struct pb_field *field)
{
	if (msg->type->map_entry && !field->sub)
		return true;
	return msg_has_bit(msg, field->index) && !is_dropped(msg, field) &&
	       (field->presence || !value_is_zero(field->kind, msg->values[field->index]));
}

static size_t field_size(const struct pb_msg *msg, const struct pb_field *field, unsigned depth)
{
	const struct pb_list *list = msg->values[field->index].list;
	size_t n = 0;
	if (!field->repeated)
		return is_written(msg, field) ? value_size(field, pb_msg_get(msg, field), depth) : 0;
	if (!list || list->count == 0)
		return 0;
	if (field->packed) {
		n = packed_size(field, list);
		return varint_size((uint64_t)field->number << 3) + varint_size(n) + n;
	}
	for (size_t i = 0; i < list->count; i++)
		n += value_size(field, list->items[i], depth);
	return n;
}

static size_t measure(struct pb_msg *msg, unsigned depth)
{
	size_t n = 0;
	must(depth <= WRITE_NESTING);
	for (size_t i = 0; i < msg->type->field_count; i++)
		n += field_size(msg, msg->type->by_number[i], depth);
	for (const struct unknown *u = msg->unknown_first; u; u = u->next)
		n += u->raw.n;
	msg->size_bytes = n;
	return n;
}

static uint8_t *put_span(uint8_t *p, struct span bytes)
{
	if (bytes.n)
		memcpy(p, bytes.p, bytes.n);
	return p + bytes.n;
}

static uint8_t *put_scalar(uint8_t *p, enum pb_kind kind, union pb_value v)
{
	switch (kind_wire(kind)) {
	case PB_VARINT: return varint_put(p, wire_from_value(kind, v));
	case PB_FIXED_64: put_le64(p, wire_from_value(kind, v)); return p + 8;
	case PB_FIXED_32: put_le32(p, (uint32_t)wire_from_value(kind, v)); return p + 4;
	case PB_BYTES_FIELD:
	case PB_GROUP_START:
	case PB_GROUP_END: break;
	}
	return put_span(varint_put(p, v.bytes.n), v.bytes);
}

static uint8_t *put_msg(uint8_t *p, const struct pb_msg *msg);

static uint8_t *put_value(uint8_t *p, const struct pb_field *field, union pb_value v)
{
	uint64_t tag = (uint64_t)field->number << 3;
	p = varint_put(p, tag | (uint64_t)kind_wire(field->kind));
	if (field->kind == PB_MESSAGE)
		return put_msg(varint_put(p, v.msg->size_bytes), v.msg);
	if (field->kind == PB_GROUP)
		return varint_put(put_msg(p, v.msg), tag | PB_GROUP_END);
	return put_scalar(p, field->kind, v);
}

static uint8_t *put_field(uint8_t *p, const struct pb_msg *msg, const struct pb_field *field)
{
	const struct pb_list *list = msg->values[field->index].list;
	if (!field->repeated)
		return is_written(msg, field) ? put_value(p, field, pb_msg_get(msg, field)) : p;
	if (!list || list->count == 0)
		return p;
	if (!field->packed) {
		for (size_t i = 0; i < list->count; i++)
			p = put_value(p, field, list->items[i]);
		return p;
	}
	p = varint_put(p, (uint64_t)field->number << 3 | PB_BYTES_FIELD);
	p = varint_put(p, packed_size(field, list));
	for (size_t i = 0; i < list->count; i++)
		p = put_scalar(p, field->kind, list->items[i]);
	return p;
}

static uint8_t *put_msg(uint8_t *p, const struct pb_msg *msg)
{
	const uint8_t *begin = p;
	for (size_t i = 0; i < msg->type->field_count; i++)
		p = put_field(p, msg, msg->type->by_number[i]);
	for (const struct unknown *u = msg->unknown_first; u; u = u->next)
		p = put_span(p, u->raw);
	must((size_t)(p - begin) == msg->size_bytes);
	return p;
}

enum err_code pb_msg_write(struct pb_msg *msg, struct buf *out, struct err *err)
{
	size_t n = measure(msg, 0);
	enum err_code code = buf_reserve(out, n);
	if (code)
		return err_set(err, code, "a %.*s of %zu bytes does not fit", SPAN_ARG(msg->type->full_name),
			       n);
	if (n)
		put_msg(out->p + out->n, msg);
	out->n += n;
	return ERR_OK;
}

enum err_code msg_to_arena(struct pb_msg *msg, struct span *ret, struct err *err)
{
	size_t n = measure(msg, 0);
	uint8_t *p = arena_alloc(msg->arena, n + 1);
	if (!p)
		return arena_exhausted(err);
	put_msg(p, msg);
	*ret = span_of(p, n);
	return ERR_OK;
}
