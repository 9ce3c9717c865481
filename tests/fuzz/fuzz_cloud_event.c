/* Any text as a topic's event: a line each for content type, type and key, metadata as KEY=VALUE up to an empty line,
 * then the data. What the event is to a method, published as it is, must be that again, and the second record the
 * first one's twin. */
#include <config.h>

#include <string.h>

#include "base/limits.h"
#include "base/must.h"
#include "proxy/cloud_event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define METADATA_MAX 16

static struct span take_line(struct span *rest)
{
	struct span line = span_first(*rest, span_find(*rest, '\n'));
	*rest = span_skip(*rest, line.n < rest->n ? line.n + 1 : line.n);
	return line;
}

/* The record as the journal would give it back; false: it would not take it. */
static bool read_back(const struct client_record *r, struct span key, struct buf *store, struct arena *a,
		      struct any *ret, struct metadata *ret_metadata)
{
	uint8_t stream[LIMIT_STREAM_NAME_BYTES] = "$topic-t|";
	struct record_new new = {.kind = RECORD_EVENT,
				 .type = r->type,
				 .content_type = r->content_type,
				 .data = r->data,
				 .metadata = r->metadata,
				 .metadata_count = r->metadata_count};
	struct record_place place;
	struct record_view view;
	struct span run, entry;
	size_t n = strlen((const char *)stream);
	key.n = key.n > sizeof stream - n ? sizeof stream - n : key.n;
	if (key.n)
		memcpy(stream + n, key.p, key.n);
	new.stream = span_of(stream, n + key.n);
	new.id[0] = 1;
	if (record_check(&new, NULL))
		return false;
	buf_clear(store);
	must(!record_encode(store, &new, &place, NULL));
	record_patch(store->p, &place, 1, 1, (struct wall_time){1});
	run = buf_span(store);
	must(!record_next(&run, &entry, NULL, NULL) && !record_decode(entry, &view, NULL));
	must(!cloud_event_read(&view, SPAN("t"), a, ret, ret_metadata));
	return true;
}

static bool publish(const struct any *payload, const struct metadata *metadata, struct arena *a,
		    struct client_record *ret, struct span *ret_key)
{
	struct cloud_event_reply reply = {.payload = payload, .metadata = metadata, .service = SPAN("s"), .id = {1}};
	struct err err = {0};
	return !cloud_event_write(&reply, a, ret, ret_key, &err);
}

static void try_event(const struct client_record *r, struct span key, struct buf stores[2], struct arena *a)
{
	struct client_record first, second;
	struct metadata metadata, metadata_again;
	struct any payload, again;
	if (!read_back(r, key, &stores[0], a, &payload, &metadata) || !publish(&payload, &metadata, a, &first, &key) ||
	    !read_back(&first, key, &stores[1], a, &again, &metadata_again))
		return;
	must(span_eq(payload.type_url, again.type_url));
	/* A primitive's bytes may have come in any form; they are told in the usual one. */
	if (!span_starts(payload.type_url, SPAN("p.cloudstate.io/")))
		must(span_eq(payload.value, again.value));
	must(publish(&again, &metadata_again, a, &second, &key));
	must(span_eq(first.type, second.type) && span_eq(first.content_type, second.content_type));
	must(span_eq(first.data, second.data) && first.metadata_count == second.metadata_count);
	for (size_t i = 0; i < first.metadata_count; i++)
		must(span_eq(first.metadata[i].key, second.metadata[i].key) &&
		     span_eq(first.metadata[i].value, second.metadata[i].value));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size), line, key;
	struct record_metadata metadata[METADATA_MAX];
	struct client_record r = {.metadata = metadata};
	struct buf stores[2];
	struct arena arena;
	if (size > 64 * KIB)
		return 0;
	r.content_type = take_line(&rest);
	r.type = take_line(&rest);
	key = take_line(&rest);
	while ((line = take_line(&rest)).n && r.metadata_count < METADATA_MAX) {
		size_t equals = span_find(line, '=');
		metadata[r.metadata_count++] = (struct record_metadata){
			span_first(line, equals), span_skip(line, equals < line.n ? equals + 1 : equals)};
	}
	r.data = rest;
	arena_init(&arena, LIMIT_CLOUD_EVENT_BYTES);
	buf_init(&stores[0], MIB);
	buf_init(&stores[1], MIB);
	try_event(&r, key, stores, &arena);
	buf_release(&stores[1]);
	buf_release(&stores[0]);
	arena_release(&arena);
	return 0;
}
