#include <config.h>

#include <protobuf-c/protobuf-c.h>

#include "base/mem.h"
#include "base/must.h"
#include "grpc/grpc.h"

/* Messages up to this size are packed on the stack and copied; larger ones are sent from the heap. */
#define PB_STACK_BYTES ((size_t)2048)

static void *pb_alloc(void *arg, size_t n)
{
	return arena_alloc(arg, n);
}

static void pb_free(void *arg, void *p)
{
	(void)arg; /* dies with the arena */
	(void)p;
}

struct ProtobufCMessage *grpc_unpack(const struct ProtobufCMessageDescriptor *type, struct arena *a,
				     struct span bytes)
{
	ProtobufCAllocator allocator = {.alloc = pb_alloc, .free = pb_free, .allocator_data = a};
	return protobuf_c_message_unpack(type, &allocator, bytes.n, bytes.p);
}

bool grpc_call_send_pb(struct grpc_call *call, const struct ProtobufCMessage *message)
{
	size_t n = protobuf_c_message_get_packed_size(message);
	if (n <= PB_STACK_BYTES) {
		uint8_t bytes[PB_STACK_BYTES];
		must(protobuf_c_message_pack(message, bytes) == n);
		return grpc_call_send(call, span_of(bytes, n));
	}
	uint8_t *bytes = mem_try_alloc(n);
	if (!bytes) {
		grpc_call_cancel(call);
		return false;
	}
	must(protobuf_c_message_pack(message, bytes) == n);
	return grpc_call_send_ref(call, span_of(bytes, n), mem_free, bytes);
}

void grpc_call_reply_pb(struct grpc_call *call, const struct ProtobufCMessage *message)
{
	grpc_call_send_pb(call, message);
	grpc_call_finish(call, GRPC_OK, SPAN(""), NULL);
}
