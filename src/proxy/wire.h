/* The messages that go over a function's stream, packed and unpacked. No I/O. */
#ifndef CAIRN_PROXY_WIRE_H
#define CAIRN_PROXY_WIRE_H

#include <protobuf-c/protobuf-c.h>

#include "base/buf.h"
#include "cloudstate/action.pb-c.h"
#include "cloudstate/entity.pb-c.h"
#include "cloudstate/event_sourced.pb-c.h"
#include "cloudstate/value_entity.pb-c.h"
#include "proxy/router.h"

/* protobuf-c's bytes and our spans. */
static inline struct span wire_span(ProtobufCBinaryData b)
{
	return span_of(b.data, b.len);
}
ProtobufCBinaryData wire_bytes(struct span s);

/* A protobuf Any as ours (unset: empty), and back. */
struct any wire_any(const Google__Protobuf__Any *any);
void wire_any_set(Google__Protobuf__Any *ret, struct any any);

/* Are no more than `max` messages of the type nested in one another? protobuf-c recurses for each: to be asked
 * before messages whose type holds itself are unpacked. False also for bytes that are no message. */
bool wire_nesting_fits(const ProtobufCMessageDescriptor *type, struct span bytes, unsigned max);

/* Appends the message's bytes; false when they do not fit into the buffer. */
bool wire_pack(const ProtobufCMessage *message, struct buf *out);

#endif
