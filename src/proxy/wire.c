#include <config.h>

#include "proxy/wire.h"

ProtobufCBinaryData wire_bytes(struct span s)
{
	/* protobuf-c's type is not const; packing only reads. */
	union {
		const uint8_t *in;
		uint8_t *out;
	} p = {.in = s.p};
	return (ProtobufCBinaryData){.len = s.n, .data = p.out};
}

struct any wire_any(const Google__Protobuf__Any *any)
{
	if (!any)
		return (struct any){0};
	return (struct any){wire_span(any->type_url), wire_span(any->value)};
}

void wire_any_set(Google__Protobuf__Any *ret, struct any any)
{
	google__protobuf__any__init(ret);
	ret->type_url = wire_bytes(any.type_url);
	ret->value = wire_bytes(any.value);
}

bool wire_pack(const ProtobufCMessage *message, struct buf *out)
{
	size_t n = protobuf_c_message_get_packed_size(message);
	if (buf_reserve(out, n))
		return false;
	protobuf_c_message_pack(message, out->p + out->n);
	out->n += n;
	return true;
}

static bool take_varint(struct span *s, uint64_t *ret)
{
	uint64_t v = 0;
	for (unsigned i = 0; i < 10 && i < s->n; i++) {
		v |= (uint64_t)(s->p[i] & 0x7f) << (7 * i);
		if (s->p[i] < 0x80) {
			*s = span_skip(*s, i + 1);
			*ret = v;
			return true;
		}
	}
	return false;
}

/* The field's bytes, for a length-delimited one its contents; false when there is none. */
static bool take_field(struct span *s, uint64_t *ret_tag, struct span *ret)
{
	uint64_t n = 0;
	if (!take_varint(s, ret_tag))
		return false;
	switch (*ret_tag & 7) {
	case PROTOBUF_C_WIRE_TYPE_VARINT:
		*ret = span_first(*s, 0);
		return take_varint(s, &n);
	case PROTOBUF_C_WIRE_TYPE_64BIT:
		n = 8;
		break;
	case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
		if (!take_varint(s, &n))
			return false;
		break;
	case PROTOBUF_C_WIRE_TYPE_32BIT:
		n = 4;
		break;
	default:
		return false;
	}
	if (n > s->n)
		return false;
	*ret = span_first(*s, (size_t)n);
	*s = span_skip(*s, (size_t)n);
	return true;
}

bool wire_nesting_fits(const ProtobufCMessageDescriptor *type, struct span bytes, unsigned max)
{
	uint64_t tag;
	struct span value;
	if (!max)
		return false;
	while (bytes.n) {
		if (!take_field(&bytes, &tag, &value))
			return false;
		const ProtobufCFieldDescriptor *f =
			tag >> 3 > INT32_MAX ? NULL
					     : protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
		if (f && f->type == PROTOBUF_C_TYPE_MESSAGE && (tag & 7) == 2 &&
		    !wire_nesting_fits(f->descriptor, value, max - 1))
			return false;
	}
	return true;
}
