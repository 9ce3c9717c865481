/* An event of a topic, between its record in the journal and what the protocol makes of it (contract, section 8,
 * "Topic payloads" and "Metadata"). No I/O.
 *
 * The record is the event in CloudEvents' binary mode: its content type and data are the event's, its type is
 * `ce-type`, and what else is known of it is metadata under its own name, "ce-id", "ce-source" and so on. What a
 * record does not say is what the journal knows: its id, its topic, its stream's key and its time.
 *
 *	content type                payload's type_url            record's data
 *	application/protobuf        type.googleapis.com/TYPE      the payload's value
 *	application/json, +json     json.cloudstate.io/TYPE       field 1 of the payload's value
 *	text/...                    p.cloudstate.io/string        the same
 *	anything else               p.cloudstate.io/bytes         the same
 *
 * Private to src/proxy. */
#ifndef CAIRN_PROXY_CLOUD_EVENT_H
#define CAIRN_PROXY_CLOUD_EVENT_H

#include "base/arena.h"
#include "base/clock.h"
#include "journal/client.h"
#include "proxy/router.h"

/* The record as payload and metadata of a command, in the arena or borrowed from the record. ERR_NOMEM: the arena is
 * too small, LIMIT_CLOUD_EVENT_BYTES are enough. */
enum err_code cloud_event_read(const struct record_view *record, struct span topic, struct arena *a, struct any *ret,
			       struct metadata *ret_metadata);

/* A reply to be published. What its metadata does not say is the rest's. All borrowed. */
struct cloud_event_reply {
	const struct any *payload;
	const struct metadata *metadata;
	struct span service;
	uint8_t id[RECORD_ID_BYTES];
	struct wall_time now;
};
/* The reply as a record with this id, in the arena or borrowed, and its subject (empty: none). ERR_INVALID: the payload
 * is not what its type says. ERR_NOMEM as above. */
enum err_code cloud_event_write(const struct cloud_event_reply *reply, struct arena *a, struct client_record *ret,
				struct span *ret_subject, struct err *err);

#endif
