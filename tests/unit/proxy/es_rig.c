#include <config.h>

#include "es_rig.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "record/record.h"

#define OUT(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_OUT__MESSAGE_##NAME
#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME

static struct mono_time mono_now(void *arg)
{
	return (struct mono_time){((struct rig *)arg)->now_us};
}

static struct wall_time wall_now(void *arg)
{
	return (struct wall_time){((struct rig *)arg)->now_us};
}

void rig_wake_at(void *host, struct mono_time at)
{
	((struct rig *)host)->wake_us = at.us;
}

void rig_init_with(struct rig *r, const struct entity_ops *kind, const struct entity_host *ops, void *host)
{
	memset(r, 0, sizeof *r);
	r->now_us = 1000000;
	r->clock = (struct clock){mono_now, wall_now, r};
	r->e = kind->create(
		&(struct entity_config){.host = ops,
					.host_arg = host,
					.clock = &r->clock,
					.service = SPAN("shop.Cart"),
					.entity_id = SPAN("one"),
					.stream = SPAN("cart|one"),
					.passivation_ms = RIG_PASSIVATION_MS,
					.command_timeout_ms = RIG_TIMEOUT_MS,
					.close_grace_ms = RIG_GRACE_MS,
					.reply_max_bytes = LIMIT_FUNCTION_MESSAGE_BYTES});
}

struct entity_command *rig_command(struct rig *r, const char *name)
{
	must(r->command_count < ARRAY_LEN(r->commands));
	char *kept = r->names[r->command_count];
	struct entity_command *c = &r->commands[r->command_count++];
	snprintf(kept, sizeof r->names[0], "%s", name);
	c->name = span_str(kept);
	c->payload = (struct any){SPAN("Payload"), span_str(kept)};
	r->gone = false;
	r->e->ops->command(r->e, c);
	return c;
}

void rig_record(struct rig *r, uint32_t kind, uint64_t sequence, const char *data,
		struct span metadata_fields)
{
	struct record_view v = {.kind = kind,
				.sequence = sequence,
				.type = SPAN("T"),
				.stream = SPAN("cart|one"),
				.content = RECORD_BODY,
				.data = span_str(data),
				.metadata_fields = metadata_fields};
	r->e->ops->on_record(r->e, &v);
}

void rig_event(struct rig *r, uint64_t sequence, const char *data)
{
	rig_record(r, RECORD_EVENT, sequence, data, SPAN(""));
}

void rig_snapshot(struct rig *r, uint64_t sequence, const char *data)
{
	rig_record(r, RECORD_SNAPSHOT, sequence, data, SPAN(""));
}

void rig_loaded(struct rig *r, uint64_t sequence)
{
	r->e->ops->on_loaded(r->e, sequence);
}

void rig_load_failed(struct rig *r, enum grpc_code code, const char *text)
{
	r->e->ops->on_load_failed(r->e, &(struct client_error){.code = code, .text = span_str(text)});
}

void rig_appended(struct rig *r, uint64_t sequence)
{
	r->e->ops->on_appended(r->e, &(struct client_error){.code = GRPC_OK}, sequence, sequence);
}

void rig_append_failed(struct rig *r, enum grpc_code code, const char *text, bool stale)
{
	r->e->ops->on_appended(
		r->e,
		&(struct client_error){.code = code, .text = span_str(text), .has_sequence_found = stale}, 0, 0);
}

void rig_end(struct rig *r, enum grpc_code code, bool unreached)
{
	r->e->ops->on_end(
		r->e,
		&(struct entity_end){.code = code, .message = SPAN("no function"), .unreached = unreached});
}

void rig_end_too_large(struct rig *r, const char *text)
{
	r->e->ops->on_end(r->e, &(struct entity_end){.code = GRPC_RESOURCE_EXHAUSTED,
						     .message = span_str(text),
						     .too_large = true});
}

void rig_message(struct rig *r, struct span message)
{
	r->e->ops->on_message(r->e, message);
}

void rig_pass(struct rig *r, int64_t ms)
{
	r->now_us += ms * 1000;
	if (!r->wake_us || r->wake_us > r->now_us)
		return;
	r->wake_us = 0;
	r->e->ops->on_time(r->e);
}

static void send_out(struct rig *r, const ProtobufCMessage *message)
{
	struct buf out;
	buf_init(&out, 64 * MIB);
	must(wire_pack(message, &out));
	rig_message(r, buf_span(&out));
	buf_release(&out);
}

static void send_reply(struct rig *r, int64_t id, Cloudstate__ClientAction *action, const char *const *events,
		       const char *snapshot)
{
	Cloudstate__Eventsourced__EventSourcedStreamOut out =
		CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_OUT__INIT;
	Cloudstate__Eventsourced__EventSourcedReply reply =
		CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_REPLY__INIT;
	Google__Protobuf__Any anys[8], *list[8], snap;
	size_t n = 0;
	for (; events && events[n]; n++) {
		wire_any_set(&anys[n], (struct any){SPAN("T"), span_str(events[n])});
		list[n] = &anys[n];
	}
	reply.command_id = id;
	reply.client_action = action;
	reply.n_events = n;
	reply.events = list;
	if (snapshot) {
		wire_any_set(&snap, (struct any){SPAN("T"), span_str(snapshot)});
		reply.snapshot = &snap;
	}
	out.message_case = OUT(REPLY);
	out.reply = &reply;
	send_out(r, &out.base);
}

void rig_reply(struct rig *r, int64_t id, const char *text, const char *const *events, const char *snapshot)
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Reply reply = CLOUDSTATE__REPLY__INIT;
	Google__Protobuf__Any payload;
	wire_any_set(&payload, (struct any){SPAN("R"), span_str(text)});
	reply.payload = &payload;
	action.action_case = ACTION(REPLY);
	action.reply = &reply;
	send_reply(r, id, &action, events, snapshot);
}

void rig_failure_reply(struct rig *r, int64_t id, const char *text, bool restart, const char *const *events)
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Failure failure = CLOUDSTATE__FAILURE__INIT;
	failure.command_id = id;
	failure.description = wire_bytes(span_str(text));
	failure.restart = restart;
	action.action_case = ACTION(FAILURE);
	action.failure = &failure;
	send_reply(r, id, &action, events, NULL);
}

void rig_no_action(struct rig *r, int64_t id)
{
	send_reply(r, id, NULL, NULL, NULL);
}

void rig_failure(struct rig *r, int64_t id, const char *text)
{
	Cloudstate__Eventsourced__EventSourcedStreamOut out =
		CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_OUT__INIT;
	Cloudstate__Failure failure = CLOUDSTATE__FAILURE__INIT;
	failure.command_id = id;
	failure.description = wire_bytes(span_str(text));
	out.message_case = OUT(FAILURE);
	out.failure = &failure;
	send_out(r, &out.base);
}
