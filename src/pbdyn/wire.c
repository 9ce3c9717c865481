/* The wire format: fields one by one, varints, and options read by number. */
#include <config.h>

#include "pbdyn/internal.h"

#include "base/endian.h"

#define FIELD_NUMBER_MAX 536870911U

bool wire_take_varint(struct span *rest, uint64_t *ret)
{
	uint64_t v = 0;
	for (size_t i = 0; i < rest->n && i < 10; i++) {
		uint8_t byte = rest->p[i];
		if (i == 9 && byte > 1)
			return false;
		v |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte < 0x80) {
			*rest = span_skip(*rest, i + 1);
			*ret = v;
			return true;
		}
	}
	return false;
}

static bool take_bytes(struct span *rest, size_t n, struct span *ret)
{
	if (rest->n < n)
		return false;
	*ret = span_first(*rest, n);
	*rest = span_skip(*rest, n);
	return true;
}

static bool take_tag(struct span *rest, uint32_t *ret_number, unsigned *ret_wire)
{
	uint64_t tag;
	const uint8_t *begin = rest->p;
	/* Five bytes hold 32 bits; other parsers refuse longer ones, whatever their value. */
	if (!wire_take_varint(rest, &tag) || rest->p - begin > 5 || tag >> 3 == 0 ||
	    tag >> 3 > FIELD_NUMBER_MAX || (tag & 7) > 5)
		return false;
	*ret_number = (uint32_t)(tag >> 3);
	*ret_wire = (unsigned)(tag & 7);
	return true;
}

/* The payload of a field that is no group. */
static bool take_payload(struct span *rest, unsigned wire, uint64_t *ret_value, struct span *ret_bytes)
{
	uint64_t n;
	struct span fixed;
	switch (wire) {
	case PB_VARINT: return wire_take_varint(rest, ret_value);
	case PB_FIXED_64:
		if (!take_bytes(rest, 8, &fixed))
			return false;
		*ret_value = get_le64(fixed.p);
		return true;
	case PB_FIXED_32:
		if (!take_bytes(rest, 4, &fixed))
			return false;
		*ret_value = get_le32(fixed.p);
		return true;
	case PB_BYTES_FIELD:
		return wire_take_varint(rest, &n) && n <= rest->n && take_bytes(rest, (size_t)n, ret_bytes);
	default: return false;
	}
}

/* The inside of a group whose start tag was just read; groups within are walked, not recursed into. */
static bool take_group(struct span *rest, uint32_t number, struct span *ret_inside)
{
	uint32_t open[LIMIT_NESTING];
	size_t depth = 1;
	const uint8_t *inside = rest->p;
	open[0] = number;
	for (;;) {
		const uint8_t *before = rest->p;
		uint32_t inner;
		unsigned wire;
		uint64_t value;
		struct span bytes;
		if (!take_tag(rest, &inner, &wire))
			return false;
		if (wire == PB_GROUP_START) {
			if (depth == LIMIT_NESTING)
				return false;
			open[depth++] = inner;
		} else if (wire == PB_GROUP_END) {
			if (open[--depth] != inner)
				return false;
			if (depth == 0) {
				*ret_inside = span_of(inside, (size_t)(before - inside));
				return true;
			}
		} else if (!take_payload(rest, wire, &value, &bytes)) {
			return false;
		}
	}
}

int pb_wire_next(struct span *rest, struct pb_wire_field *ret)
{
	struct span at = *rest;
	struct pb_wire_field f = {0};
	unsigned wire;
	if (at.n == 0)
		return 0;
	if (!take_tag(&at, &f.number, &wire))
		return -1;
	f.wire = (enum pb_wire)wire;
	if (wire == PB_GROUP_START ? !take_group(&at, f.number, &f.bytes)
				   : !take_payload(&at, wire, &f.value, &f.bytes))
		return -1;
	f.raw = span_first(*rest, rest->n - at.n);
	*rest = at;
	*ret = f;
	return 1;
}

bool wire_valid(struct span bytes)
{
	struct pb_wire_field f;
	int got;
	while ((got = pb_wire_next(&bytes, &f)) > 0)
		;
	return got == 0;
}

size_t varint_size(uint64_t value)
{
	return (size_t)(63 - __builtin_clzll(value | 1)) / 7 + 1;
}

uint8_t *varint_put(uint8_t *p, uint64_t value)
{
	while (value >= 0x80) {
		*p++ = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	*p++ = (uint8_t)value;
	return p;
}

enum err_code pb_put_varint(struct buf *out, uint64_t value)
{
	uint8_t bytes[10];
	return buf_append(out, bytes, (size_t)(varint_put(bytes, value) - bytes));
}

enum err_code pb_put_tag(struct buf *out, uint32_t number, enum pb_wire wire)
{
	must(number >= 1 && number <= FIELD_NUMBER_MAX);
	return pb_put_varint(out, (uint64_t)number << 3 | (uint64_t)wire);
}

enum err_code pb_put_bytes(struct buf *out, uint32_t number, struct span bytes)
{
	/* Room first: a failure must not leave half a field behind. */
	enum err_code code =
		buf_reserve(out, varint_size((uint64_t)number << 3) + varint_size(bytes.n) + bytes.n);
	if (code || (code = pb_put_tag(out, number, PB_BYTES_FIELD)) || (code = pb_put_varint(out, bytes.n)))
		return code;
	return buf_append_span(out, bytes);
}

enum pb_wire kind_wire(enum pb_kind kind)
{
	switch (kind) {
	case PB_DOUBLE:
	case PB_FIXED64:
	case PB_SFIXED64: return PB_FIXED_64;
	case PB_FLOAT:
	case PB_FIXED32:
	case PB_SFIXED32: return PB_FIXED_32;
	case PB_STRING:
	case PB_BYTES:
	case PB_MESSAGE: return PB_BYTES_FIELD;
	case PB_GROUP: return PB_GROUP_START;
	case PB_INT64:
	case PB_UINT64:
	case PB_INT32:
	case PB_BOOL:
	case PB_UINT32:
	case PB_ENUM:
	case PB_SINT32:
	case PB_SINT64: return PB_VARINT;
	}
	unreachable_state("kind_wire");
}

union pb_value wire_to_value(enum pb_kind kind, uint64_t raw)
{
	union pb_value v = {.u64 = 0};
	uint32_t low = (uint32_t)raw;
	switch (kind) {
	case PB_DOUBLE: memcpy(&v.d, &raw, sizeof(v.d)); break;
	case PB_FLOAT: memcpy(&v.f, &low, sizeof(v.f)); break;
	case PB_BOOL: v.b = raw != 0; break;
	case PB_FIXED64:
	case PB_UINT64: v.u64 = raw; break;
	case PB_INT64:
	case PB_SFIXED64: v.i64 = (int64_t)raw; break;
	case PB_FIXED32:
	case PB_UINT32: v.u32 = low; break;
	case PB_INT32:
	case PB_ENUM:
	case PB_SFIXED32: v.i32 = (int32_t)low; break;
	case PB_SINT32: v.i32 = (int32_t)(low >> 1 ^ (0U - (low & 1))); break;
	case PB_SINT64: v.i64 = (int64_t)(raw >> 1 ^ (0U - (raw & 1))); break;
	case PB_STRING:
	case PB_BYTES:
	case PB_MESSAGE:
	case PB_GROUP: unreachable_state("wire_to_value");
	}
	return v;
}

uint64_t wire_from_value(enum pb_kind kind, union pb_value v)
{
	uint64_t raw = 0;
	uint32_t low = 0;
	switch (kind) {
	case PB_DOUBLE: memcpy(&raw, &v.d, sizeof(v.d)); return raw;
	case PB_FLOAT: memcpy(&low, &v.f, sizeof(v.f)); return low;
	case PB_BOOL: return v.b;
	case PB_FIXED64:
	case PB_UINT64: return v.u64;
	case PB_INT64:
	case PB_SFIXED64: return (uint64_t)v.i64;
	case PB_FIXED32:
	case PB_UINT32: return v.u32;
	case PB_INT32:
	case PB_ENUM: return (uint64_t)(int64_t)v.i32;
	case PB_SFIXED32: return (uint32_t)v.i32;
	case PB_SINT32: return (uint32_t)v.i32 << 1 ^ (0U - ((uint32_t)v.i32 >> 31));
	case PB_SINT64: return (uint64_t)v.i64 << 1 ^ (0U - ((uint64_t)v.i64 >> 63));
	case PB_STRING:
	case PB_BYTES:
	case PB_MESSAGE:
	case PB_GROUP: break;
	}
	unreachable_state("wire_from_value");
}

bool pb_option_bool(struct span options, uint32_t number, bool *ret_value)
{
	struct pb_wire_field f;
	bool found = false;
	*ret_value = false;
	while (pb_wire_next(&options, &f) > 0) {
		if (f.number == number && f.wire == PB_VARINT) {
			*ret_value = f.value != 0;
			found = true;
		}
	}
	return found;
}

enum err_code wire_merged(struct span message, uint32_t number, struct arena *arena, struct span *ret)
{
	struct pb_wire_field f;
	struct span rest = message, found = {0};
	size_t count = 0, sum = 0;
	while (pb_wire_next(&rest, &f) > 0) {
		if (f.number == number && f.wire == PB_BYTES_FIELD) {
			found = f.bytes;
			sum += f.bytes.n;
			count++;
		}
	}
	if (count > 1) { /* merging messages is putting their bytes one behind the other */
		uint8_t *p = arena_alloc(arena, sum + 1);
		if (!p)
			return ERR_LIMIT;
		found = span_of(p, sum);
		for (rest = message; pb_wire_next(&rest, &f) > 0;) {
			if (f.number == number && f.wire == PB_BYTES_FIELD && f.bytes.n) {
				memcpy(p, f.bytes.p, f.bytes.n);
				p += f.bytes.n;
			}
		}
	}
	*ret = found;
	return count ? ERR_OK : ERR_NOT_FOUND;
}

bool pb_option_message(struct span options, uint32_t number, struct arena *arena, struct span *ret_bytes)
{
	return wire_merged(options, number, arena, ret_bytes) == ERR_OK;
}
