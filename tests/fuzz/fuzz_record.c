/* Any bytes as a run of records. */
#include <config.h>

#include "base/must.h"
#include "record/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_lie_in(struct span inner, struct span outer)
{
	if (inner.n == 0)
		return;
	must(inner.p >= outer.p);
	must(inner.p + inner.n <= outer.p + outer.n);
}

static void one_record(struct span entry)
{
	struct record_view view, checked;
	struct record_metadata metadata;
	struct err err = {0};
	uint8_t leaf[RECORD_HASH_BYTES];
	uint32_t kind;
	struct span stream;
	size_t state = 0, bytes = 0;
	bool peeked = record_peek(entry, &kind, &stream);
	enum err_code code = record_decode_trusted(entry, &view, &err);
	must(code == ERR_OK || code == ERR_CORRUPT);
	must((code == ERR_OK) == (err.code == ERR_OK));
	/* With the checksum as well it is the same or refused. */
	must(record_decode(entry, &checked, NULL) == ERR_CORRUPT || code == ERR_OK);
	if (code)
		return;
	must(view.position == record_position(entry));
	must_lie_in(view.header, entry);
	must_lie_in(view.body, entry);
	must_lie_in(view.hash, entry);
	if (view.content != RECORD_LEAF_HASH) {
		must(view.id.n == RECORD_ID_BYTES);
		must(view.stream.n > 0);
		must_lie_in(view.stream, view.header);
		must_lie_in(view.type, view.header);
	}
	must_lie_in(view.data, view.body);
	must_lie_in(view.salt, view.body);
	if (peeked)
		must_lie_in(stream, entry);
	while (record_metadata_next(&view, &state, &metadata)) {
		must_lie_in(metadata.key, view.body);
		must_lie_in(metadata.value, view.body);
		must(++bytes <= entry.n);
	}
	record_leaf(&view, leaf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span run = span_of(data, size), entry, whole;
	size_t before = run.n;
	while (record_next(&run, &entry, &whole, NULL) == ERR_OK) {
		must(run.n < before);
		must(before - run.n == whole.n);
		before = run.n;
		one_record(entry);
	}
	if (size >= 14)
		one_record(span_of(data, size));
	return 0;
}
