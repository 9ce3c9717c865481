/* Where events come from, an event log or a topic: what it is called in the journal, which of its records count, and
 * what they are to the method that they call (contract, section 8). A kind of source is one table. No I/O. Private to
 * src/proxy. */
#ifndef CAIRN_PROXY_EVENT_SOURCE_H
#define CAIRN_PROXY_EVENT_SOURCE_H

#include "base/arena.h"
#include "proxy/router.h"
#include "proxy/spec.h"
#include "record/record.h"

/* The streams of the topic T are "$topic-[NS/]T|KEY". */
#define TOPIC_PREFIX "$topic-"

struct event_source {
	const char *what;    /* in words: "event log", "topic" */
	const char *prefix;  /* its category is PREFIX [NS/] NAME, its group [NS/] GROUP | PREFIX NAME */
	bool (*wanted)(const struct record_view *record);
	/* The record as a command's payload and metadata, in the arena (of LIMIT_CLOUD_EVENT_BYTES) or borrowed.
	 * name: as the spec has it. ERR_NOMEM. */
	enum err_code (*read)(const struct record_view *record, struct span name, struct arena *a, struct any *ret,
			      struct metadata *ret_metadata);
};

/* kind: not SPEC_SOURCE_NONE. */
const struct event_source *event_source_of(enum spec_source_kind kind);

#endif
