/* What the fuzz targets of event sourced and value entities share; see fuzz_serial.c. */
#ifndef FUZZ_SERIAL_H
#define FUZZ_SERIAL_H

#include "proxy/entity.h"
#include "proxy/wire.h"

enum fuzz_message { FUZZ_INIT, FUZZ_EVENT, FUZZ_COMMAND };

struct fuzz_serial_kind {
	const struct entity_ops *ops;
	struct span marked, deleted; /* metadata of its records, and of those of a delete */
	/* A message to the function, which must be one of the kind's. */
	enum fuzz_message (*read)(struct span message, struct arena *a, const Cloudstate__Command **ret_command);
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void fuzz_serial(const struct fuzz_serial_kind *kind, const uint8_t *data, size_t size);

#endif
