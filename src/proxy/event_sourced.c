/* The event sourced kind (contract, section 3): its messages and records. How it lives is serial.c's. */
#include <config.h>

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/plant.h"
#include "pbdyn/pbdyn.h"
#include "proxy/serial.h"

typedef Cloudstate__Eventsourced__EventSourcedStreamIn stream_in;
typedef Cloudstate__Eventsourced__EventSourcedStreamOut stream_out;
typedef Cloudstate__Eventsourced__EventSourcedReply es_reply;
#define IN(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__MESSAGE_##NAME
#define EVENTS_MAX (LIMIT_APPEND_RECORDS - 1) /* besides a snapshot */
#define EVENT_MIN_BYTES 2u /* on the wire: tag and length */
#define REPLY_EVENTS 4u	   /* EventSourcedReply's field */
#define TOO_MANY_EVENTS "the reply has %zu events, the journal takes at most %zu at once"
#define OUT(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_OUT__MESSAGE_##NAME

/* --- messages to the function -------------------------------------------------------------------- */

static bool send_init(struct serial *m, const struct record_view *snapshot)
{
	stream_in in = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__INIT;
	Cloudstate__Eventsourced__EventSourcedInit init = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_INIT__INIT;
	Cloudstate__Eventsourced__EventSourcedSnapshot snap =
		CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_SNAPSHOT__INIT;
	Google__Protobuf__Any state;

	serial_open(m);
	init.service_name = wire_bytes(m->config.service);
	init.entity_id = wire_bytes(m->config.entity_id);
	if (snapshot) {
		wire_any_set(&state, (struct any){snapshot->type, snapshot->data});
		snap.snapshot_sequence = (int64_t)snapshot->sequence;
		if (plant("sequence-off-by-one-after-snapshot"))
			snap.snapshot_sequence++;
		snap.snapshot = &state;
		init.snapshot = &snap;
	}
	in.message_case = IN(INIT);
	in.init = &init;
	return serial_send(m, &in.base);
}

static bool send_event(struct serial *m, const struct record_view *record)
{
	stream_in in = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__INIT;
	Cloudstate__Eventsourced__EventSourcedEvent event =
		CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_EVENT__INIT;
	Google__Protobuf__Any payload;

	wire_any_set(&payload, (struct any){record->type, record->data});
	event.sequence = (int64_t)record->sequence;
	event.payload = &payload;
	in.message_case = IN(EVENT);
	in.event = &event;
	return serial_send(m, &in.base);
}

static bool send_command(struct serial *m, Cloudstate__Command *command)
{
	stream_in in = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__INIT;
	in.message_case = IN(COMMAND);
	in.command = command;
	return serial_send(m, &in.base);
}

static bool on_record(struct serial *m, const struct record_view *record)
{
	bool snapshot = record->kind == RECORD_SNAPSHOT;
	bool sent = m->init_sent || send_init(m, snapshot ? record : NULL);
	if (sent && !snapshot && !plant("restart-without-replay"))
		sent = send_event(m, record);
	return sent;
}

static bool begin(struct serial *m)
{
	return send_init(m, NULL);
}

/* --- the function's answers --------------------------------------------------------------------------- */

/* So many events would fill the arena many times over: they are counted before they are unpacked. */
static bool has_too_many_events(struct span message, struct arena *a, struct serial_out *ret)
{
	struct pb_wire_field out, field;
	size_t count = 0;
	if (message.n / EVENT_MIN_BYTES <= EVENTS_MAX)
		return false;
	while (pb_wire_next(&message, &out) == 1)
		while (out.number == OUT(REPLY) && out.wire == PB_BYTES_FIELD && pb_wire_next(&out.bytes, &field) == 1)
			count += field.number == REPLY_EVENTS;
	if (count > EVENTS_MAX)
		ret->refused = arena_printf(a, TOO_MANY_EVENTS, count, EVENTS_MAX);
	return ret->refused != NULL;
}

static bool unpack(struct span message, struct arena *a, struct serial_out *ret)
{
	if (has_too_many_events(message, a, ret))
		return false;
	const stream_out *out = (const stream_out *)(const void *)grpc_unpack(
		&cloudstate__eventsourced__event_sourced_stream_out__descriptor, a, message);
	if (!out)
		return false;
	if (out->message_case == OUT(FAILURE))
		ret->failure = out->failure;
	if (out->message_case != OUT(REPLY))
		return true;
	const es_reply *r = out->reply;
	ret->is_reply = true;
	ret->reply = (struct serial_reply){.command_id = r->command_id,
					   .action = r->client_action,
					   .effects = r->side_effects,
					   .effect_count = r->n_side_effects,
					   .changes = r->n_events || r->snapshot,
					   .own = r};
	return true;
}

/* Can the reply's events be one append? If not, text says why. */
static bool check_events(const struct serial *m, const es_reply *reply, char text[ERR_TEXT_MAX])
{
	size_t bytes = 0, record_bytes;
	size_t bytes_max = LIMIT_APPEND_BYTES - LIMIT_RECORD_BYTES; /* the rest may be the snapshot's */
	if (reply->n_events > EVENTS_MAX) {
		snprintf(text, ERR_TEXT_MAX, TOO_MANY_EVENTS, reply->n_events, EVENTS_MAX);
		return false;
	}
	for (size_t i = 0; i < reply->n_events; i++) {
		const Google__Protobuf__Any *event = reply->events[i];
		if (!serial_fits_record(m, event, &record_bytes)) {
			snprintf(text, ERR_TEXT_MAX,
				 "event %zu of the reply has %zu bytes and a type of %zu; the journal takes "
				 "records of at most %zu with a type of 1 to %zu",
				 i + 1, event->value.len, event->type_url.len, LIMIT_RECORD_BYTES,
				 LIMIT_TYPE_BYTES);
			return false;
		}
		bytes += record_bytes;
	}
	if (bytes > bytes_max)
		snprintf(text, ERR_TEXT_MAX,
			 "the reply's events have %zu bytes, the journal takes at most %zu at once", bytes,
			 bytes_max);
	return bytes <= bytes_max;
}

static enum serial_keep keep(struct serial *m, struct entity_append *append, char why[ERR_TEXT_MAX])
{
	const es_reply *reply = m->reply.own;
	const Google__Protobuf__Any *snapshot = reply->snapshot;
	size_t bytes;
	if (!reply->n_events) {
		if (snapshot)
			serial_report(m, "a reply has a snapshot without events: it is ignored");
		return SERIAL_NOTHING;
	}
	struct client_record *records = arena_alloc(&m->arena, (reply->n_events + 1) * sizeof *records);
	if (!records || !check_events(m, reply, why))
		return SERIAL_REFUSED;
	for (size_t i = 0; i < reply->n_events; i++)
		serial_set_record(m, &records[i], reply->events[i]);
	if (plant("events-swapped") && reply->n_events > 1) {
		struct client_record first = records[0];
		records[0] = records[1];
		records[1] = first;
	}
	if (snapshot && !serial_fits_record(m, snapshot, &bytes)) {
		serial_report(m,
			      "the snapshot has %zu bytes, above the journal's limit of %zu for a record, or no "
			      "type_url: it is dropped, the events are kept",
			      snapshot->value.len, LIMIT_RECORD_BYTES);
		snapshot = NULL;
	}
	if (snapshot)
		serial_set_record(m, &records[reply->n_events], snapshot);
	append->events = records;
	append->event_count = reply->n_events;
	append->snapshot = snapshot ? &records[reply->n_events] : NULL;
	return SERIAL_APPEND;
}

static const struct serial_kind kind = {
	.path = "/cloudstate.eventsourced.EventSourced/handle",
	.failure = "Unexpected entity failure",
	.reply = "Unexpected entity reply",
	.message = "Unexpected entity message",
	.termination = "Unexpected entity termination",
	.terminated = "Entity terminated",
	.changes = "events or a snapshot",
	.restarts = true,
	.on_record = on_record,
	.begin = begin,
	.send_command = send_command,
	.unpack = unpack,
	.keep = keep,
};

static struct entity *create(const struct entity_config *config)
{
	struct serial *m = mem_xalloc(sizeof *m);
	serial_init(m, &kind, &entity_event_sourced, config);
	return &m->base;
}

static void destroy(struct entity *e)
{
	struct serial *m = (struct serial *)(void *)e;
	serial_release(m);
	mem_free(m);
}

const struct entity_ops entity_event_sourced = {
	.type = "cloudstate.eventsourced.EventSourced",
	.name = "event sourced",
	.mark = NULL,
	SERIAL_ENTITY_OPS,
	.bytes = serial_bytes,
	.create = create,
	.free = destroy,
};
