/* Event sourced entities: fuzz_serial.c says how. */
#include <config.h>

#include "base/must.h"
#include "fuzz_serial.h"

#define IN(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__MESSAGE_##NAME

static enum fuzz_message read_message(struct span message, struct arena *a, const Cloudstate__Command **ret_command)
{
	const Cloudstate__Eventsourced__EventSourcedStreamIn *in = (const void *)grpc_unpack(
		&cloudstate__eventsourced__event_sourced_stream_in__descriptor, a, message);
	must(in && in->message_case);
	if (in->message_case == IN(COMMAND))
		*ret_command = in->command;
	return in->message_case == IN(INIT) ? FUZZ_INIT : in->message_case == IN(EVENT) ? FUZZ_EVENT : FUZZ_COMMAND;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	fuzz_serial(&(struct fuzz_serial_kind){.ops = &entity_event_sourced, .read = read_message}, data, size);
	return 0;
}
