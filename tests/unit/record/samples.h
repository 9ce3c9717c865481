/* Records for tests: fixed inputs with a fixed salt, so that their bytes are known for good. */
#ifndef CAIRN_TEST_RECORD_SAMPLES_H
#define CAIRN_TEST_RECORD_SAMPLES_H

#include "record/record.h"

#define SAMPLE_COUNT 5

struct sample {
	struct record_new record;
	uint64_t position, sequence;
	int64_t time_us;
};

void sample_get(size_t i, struct sample *ret);
/* Appends the encoding with salt 00 01 02 ... 0f, patched. Aborts the test on failure. */
struct record_place sample_encode(const struct sample *sample, struct buf *out);

#endif
