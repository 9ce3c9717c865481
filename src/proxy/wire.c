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
