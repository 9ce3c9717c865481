/* Any bytes as what a segment of the file backend begins with, and as its fixed parts. */
#include <config.h>

#include "base/must.h"
#include "storage/file/format.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t journal_id[16] = {1};
	struct span bytes = span_of(data, size);
	struct segment_header header;
	struct clean_mark clean;
	uint64_t offset;
	size_t at = 0;
	if (size >= SEGMENT_HEADER_BYTES) {
		const char *wrong = file_segment_header_get(data, &header, &at);
		must(at < SEGMENT_HEADER_BYTES);
		must(!wrong || wrong[0]);
		file_clean_get(data, &clean);
	}
	if (size >= TRAILER_BYTES)
		file_trailer_get(data + size - TRAILER_BYTES, &offset);
	for (size_t i = 0; i < size; i++) {
		struct frame_header frame;
		const struct frame_at here = {journal_id, 1, i};
		struct span rest = span_skip(bytes, i);
		if (!file_frame_check(rest, &here, &frame))
			must(frame.n <= rest.n - FRAME_HEADER_BYTES);
	}
	char name[64] = {0};
	uint64_t number, first;
	memcpy(name, data, size < sizeof(name) - 1 ? size : sizeof(name) - 1);
	if (file_segment_name_parse(name, &number, &first)) {
		char again[SEGMENT_NAME_BYTES];
		file_segment_name(again, number, first);
		must(strcmp(name, again) == 0);
	}
	return 0;
}
