/* Shorthand for the generated messages of cairn.journal.v1, for service and client. Strings of these
 * messages are bytes in C (proto/proto.am says why). */
#ifndef CAIRN_JOURNAL_WIRE_H
#define CAIRN_JOURNAL_WIRE_H

#include "base/span.h"
#include "cairn/journal/v1/journal.pb-c.h"

#define PB(name) Cairn__Journal__V1__##name
#define PB_TYPE(name) (&cairn__journal__v1__##name##__descriptor)

#define JOURNAL_SERVICE "cairn.journal.v1.Journal"
#define JOURNAL_METHOD(name) "/" JOURNAL_SERVICE "/" name
#define JOURNAL_REFUSAL_TRAILER "cairn-refusal-bin"

static inline struct span pb_span(ProtobufCBinaryData b)
{
	return span_of(b.data, b.len);
}
/* Packing only reads: the const is cast away for protobuf-c's sake. */
static inline ProtobufCBinaryData pb_bytes(struct span s)
{
	return (ProtobufCBinaryData){s.n, (uint8_t *)(uintptr_t)s.p};
}

#endif
