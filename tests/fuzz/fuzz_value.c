/* Value entities: fuzz_serial.c says how. */
#include <config.h>

#include "base/must.h"
#include "fuzz_serial.h"

#define IN(NAME) CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_STREAM_IN__MESSAGE_##NAME
/* Metadata as records have it: entries of field 3, of key and value. */
#define MARK "\x1a\x13\x0a\x0a" "cairn-kind" "\x12\x05" "value"
#define DELETED "\x1a\x15\x0a\x0d" "cairn-deleted" "\x12\x04" "true"

static enum fuzz_message read_message(struct span message, struct arena *a, const Cloudstate__Command **ret_command)
{
	const Cloudstate__Valueentity__ValueEntityStreamIn *in = (const void *)grpc_unpack(
		&cloudstate__valueentity__value_entity_stream_in__descriptor, a, message);
	must(in && in->message_case);
	if (in->message_case == IN(INIT)) {
		must(in->init->state);
		return FUZZ_INIT;
	}
	*ret_command = in->command;
	return FUZZ_COMMAND;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_serial(&(struct fuzz_serial_kind){.ops = &entity_value,
					       .marked = SPAN(MARK),
					       .deleted = SPAN(MARK DELETED),
					       .read = read_message},
		    data, size);
	return 0;
}
