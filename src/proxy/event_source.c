#include <config.h>

#include "proxy/event_source.h"

#include "base/must.h"
#include "base/random.h"
#include "proxy/cloud_event.h"
#include "proxy/entity.h"

#define TIME_TEXT_BYTES 32

/* A record whose content is still there. */
static bool is_event(const struct record_view *record)
{
	return record->kind == RECORD_EVENT && record->content == RECORD_BODY && record->id.n == RECORD_ID_BYTES;
}

/* Events of entities that are kept as events. */
static bool log_wanted(const struct record_view *record)
{
	struct span mark;
	return is_event(record) && entity_kind_of_record(record, &mark) == &entity_event_sourced;
}

/* The event as a CloudEvent, in binary mode; the payload is the event's own. */
static enum err_code log_read(const struct record_view *record, struct span name, struct arena *a, struct any *ret,
			      struct metadata *ret_metadata)
{
	struct span subject = span_skip(record->stream, record_category(record->stream).n);
	struct metadata_entry *items = arena_alloc(a, 7 * sizeof *items);
	char *id = arena_alloc(a, UUID_TEXT_BYTES), *time = arena_alloc(a, TIME_TEXT_BYTES);
	if (!items || !id || !time)
		return ERR_NOMEM;
	uuid_format(record->id.p, id);
	wall_format(record->commit_time, time);
	items[0] = (struct metadata_entry){.key = SPAN("ce-id"), .value = span_str(id)};
	items[1] = (struct metadata_entry){.key = SPAN("ce-source"), .value = name};
	items[2] = (struct metadata_entry){.key = SPAN("ce-specversion"), .value = SPAN("1.0")};
	items[3] = (struct metadata_entry){.key = SPAN("ce-type"), .value = record->type};
	items[4] = (struct metadata_entry){.key = SPAN("Content-Type"),
					   .value = SPAN("application/vnd.cloudstate.protobuf.any")};
	items[5] = (struct metadata_entry){.key = SPAN("ce-subject"),
					   .value = subject.n ? span_skip(subject, 1) : subject};
	items[6] = (struct metadata_entry){.key = SPAN("ce-time"), .value = span_str(time)};
	*ret_metadata = (struct metadata){items, 7};
	*ret = (struct any){.type_url = record->type, .value = record->data};
	return ERR_OK;
}

const struct event_source *event_source_of(enum spec_source_kind kind)
{
	static const struct event_source event_log = {
		.what = "event log", .prefix = "", .wanted = log_wanted, .read = log_read};
	static const struct event_source topic = {
		.what = "topic", .prefix = TOPIC_PREFIX, .wanted = is_event, .read = cloud_event_read};
	must(kind == SPEC_SOURCE_EVENT_LOG || kind == SPEC_SOURCE_TOPIC);
	return kind == SPEC_SOURCE_TOPIC ? &topic : &event_log;
}
