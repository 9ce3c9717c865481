#include <config.h>

#include "samples.h"

#include "base/must.h"

static const struct record_metadata cart_metadata[] = {
	{SPAN("traceparent"), SPAN("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
	{SPAN("empty"), {NULL, 0}},
};

void sample_get(size_t i, struct sample *ret)
{
	static const struct sample samples[SAMPLE_COUNT] = {
		/* The least there can be. */
		{{.kind = RECORD_EVENT, .stream = SPAN("a")}, 0, 1, 1},
		{{.kind = RECORD_EVENT,
		  .stream = SPAN("shopping-cart|user1"),
		  .type = SPAN("type.googleapis.com/com.example.ItemAdded"),
		  .content_type = SPAN("application/protobuf"),
		  .actor = SPAN("proxy"),
		  .key_id = SPAN("key-1"),
		  .data = SPAN("\x0a\x03" "abc\x00\xff"),
		  .metadata = cart_metadata,
		  .metadata_count = ARRAY_LEN(cart_metadata),
		  .last_of_append = true},
		 1, 1, 1795467080000123},
		{{.kind = RECORD_SNAPSHOT,
		  .stream = SPAN("shopping-cart|user1"),
		  .type = SPAN("type.googleapis.com/com.example.Cart"),
		  .data = SPAN("snapshot"),
		  .last_of_append = true},
		 2, 1, 1795467080000123},
		/* A kind of a later program, a name beyond ASCII. */
		{{.kind = 300, .stream = SPAN("zähler|ünï"), .type = SPAN("t"), .last_of_append = true},
		 3, 7, 1795467080000124},
		{{.kind = RECORD_EVENT, .stream = SPAN("$schema-cart"), .last_of_append = true},
		 UINT64_C(0x0102030405060708), UINT64_C(0x1112131415161718), INT64_C(0x2122232425262728)},
	};
	must(i < SAMPLE_COUNT);
	*ret = samples[i];
	for (uint8_t b = 0; b < RECORD_ID_BYTES; b++)
		ret->record.id[b] = (uint8_t)(0x10 * (i + 1) + b);
}

struct record_place sample_encode(const struct sample *sample, struct buf *out)
{
	struct record_place place;
	struct record_view view;
	struct span run, entry;
	must(record_check(&sample->record, NULL) == ERR_OK);
	must(record_encode(out, &sample->record, &place, NULL) == ERR_OK);
	run = span_of(out->p + place.at, place.n);
	must(record_next(&run, &entry, NULL, NULL) == ERR_OK);
	must(record_decode_trusted(entry, &view, NULL) == ERR_OK);
	must(view.salt.n == RECORD_SALT_BYTES);
	for (size_t b = 0; b < RECORD_SALT_BYTES; b++)
		out->p[(size_t)(view.salt.p - out->p) + b] = (uint8_t)b;
	record_patch(out->p, &place, sample->position, sample->sequence,
		     (struct wall_time){sample->time_us});
	return place;
}
