#include <config.h>

#include "es_rig.h"

#include <stdarg.h>
#include <stdio.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/must.h"
#include "base/mem.h"
#include "record/record.h"

#define IN(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__MESSAGE_##NAME
#define OUT(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_OUT__MESSAGE_##NAME
#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME

static void say(struct rig *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct rig *r, const char *fmt, ...)
{
	char line[2048];
	va_list args;
	va_start(args, fmt);
	vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	cr_assert(!buf_printf(&r->log, "%s%s", r->log.n ? "; " : "", line));
}

/* --- the host ------------------------------------------------------------------------------------------- */

static void host_open(void *host, const char *path, int64_t deadline_ms)
{
	cr_assert_str_eq(path, "/cloudstate.eventsourced.EventSourced/handle");
	cr_assert_lt(deadline_ms, 0);
	say(host, "open");
}

static void say_in(struct rig *r, const Cloudstate__Eventsourced__EventSourcedStreamIn *in)
{
	const Cloudstate__Eventsourced__EventSourcedSnapshot *s;
	switch (in->message_case) {
	case IN(INIT):
		cr_assert(span_eq_str(wire_span(in->init->service_name), "shop.Cart"));
		cr_assert(span_eq_str(wire_span(in->init->entity_id), "one"));
		s = in->init->snapshot;
		if (s)
			say(r, "init %lld:%.*s", (long long)s->snapshot_sequence,
			    SPAN_ARG(wire_span(s->snapshot->value)));
		else
			say(r, "init");
		break;
	case IN(EVENT):
		cr_assert(span_eq_str(wire_span(in->event->payload->type_url), "T"));
		say(r, "event %lld:%.*s", (long long)in->event->sequence,
		    SPAN_ARG(wire_span(in->event->payload->value)));
		break;
	case IN(COMMAND):
		cr_assert(span_eq_str(wire_span(in->command->entity_id), "one"));
		cr_assert(span_eq(wire_span(in->command->name), wire_span(in->command->payload->value)));
		cr_assert(span_eq_str(wire_span(in->command->payload->type_url), "Payload"));
		cr_assert(!in->command->streamed && !in->command->metadata);
		say(r, "command %lld:%.*s", (long long)in->command->id,
		    SPAN_ARG(wire_span(in->command->name)));
		break;
	default: cr_assert_fail("an empty message was sent");
	}
}

static bool host_send(void *host, struct span message)
{
	struct arena a;
	arena_init(&a, MIB);
	void *in = grpc_unpack(&cloudstate__eventsourced__event_sourced_stream_in__descriptor, &a, message);
	cr_assert(in);
	say_in(host, in);
	arena_release(&a);
	return true;
}

static void host_half_close(void *host)
{
	say(host, "half-close");
}

static void host_reset(void *host)
{
	say(host, "reset");
}

static void host_load(void *host)
{
	say(host, "load");
}

static void host_load_cancel(void *host)
{
	say(host, "load-cancel");
}

static void host_append(void *host, const struct entity_append *append)
{
	struct rig *r = host;
	static const uint8_t zero[RECORD_ID_BYTES];
	cr_assert_eq(append->expect, CLIENT_EXACTLY);
	say(r, "append at %llu", (unsigned long long)append->expected_sequence);
	for (size_t i = 0; i < append->event_count; i++) {
		cr_assert(span_eq_str(append->events[i].type, "T"));
		cr_assert(memcmp(append->events[i].id, zero, sizeof zero) != 0);
		buf_printf(&r->log, " %.*s", SPAN_ARG(append->events[i].data));
	}
	if (append->snapshot)
		buf_printf(&r->log, " snapshot %.*s", SPAN_ARG(append->snapshot->data));
}

static void host_answer(void *host, struct entity_command *c, struct entity_answer *answer)
{
	const Cloudstate__ClientAction *action = answer->action;
	if (!action || !action->action_case)
		say(host, "answer %.*s nothing", SPAN_ARG(c->name));
	else if (action->action_case == ACTION(REPLY))
		say(host, "answer %.*s %.*s", SPAN_ARG(c->name),
		    SPAN_ARG(wire_any(action->reply->payload).value));
	else if (action->action_case == ACTION(FAILURE))
		say(host, "answer %.*s failure %.*s", SPAN_ARG(c->name),
		    SPAN_ARG(wire_span(action->failure->description)));
	arena_release(&answer->arena);
}

static void host_end(void *host, struct entity_command *c, const struct outcome *outcome)
{
	say(host, "refuse %.*s %s%s %.*s", SPAN_ARG(c->name), grpc_code_name(outcome->code),
	    outcome->failure ? " failure" : "", SPAN_ARG(outcome->message));
}

static void host_wake_at(void *host, struct mono_time at)
{
	((struct rig *)host)->wake_us = at.us;
}

static void host_report(void *host, struct span text)
{
	struct span first = span_first(text, text.n < 60 ? text.n : 60);
	say(host, "report %.*s", SPAN_ARG(first));
}

static void host_gone(void *host)
{
	struct rig *r = host;
	cr_assert(!r->gone);
	r->gone = true;
	say(r, "gone");
}

static const struct entity_host host_ops = {
	.open = host_open,
	.send = host_send,
	.half_close = host_half_close,
	.reset = host_reset,
	.load = host_load,
	.load_cancel = host_load_cancel,
	.append = host_append,
	.answer = host_answer,
	.end = host_end,
	.wake_at = host_wake_at,
	.report = host_report,
	.gone = host_gone,
};

static struct mono_time mono_now(void *arg)
{
	return (struct mono_time){((struct rig *)arg)->now_us};
}

static struct wall_time wall_now(void *arg)
{
	return (struct wall_time){((struct rig *)arg)->now_us};
}

/* --- the test's side --------------------------------------------------------------------------------- */

void rig_init(struct rig *r)
{
	memset(r, 0, sizeof *r);
	r->now_us = 1000000;
	r->clock = (struct clock){mono_now, wall_now, r};
	buf_init(&r->log, MIB);
	r->e = entity_event_sourced.create(
		&(struct entity_config){.host = &host_ops,
					.host_arg = r,
					.clock = &r->clock,
					.service = SPAN("shop.Cart"),
					.entity_id = SPAN("one"),
					.stream = SPAN("cart|one"),
					.passivation_ms = RIG_PASSIVATION_MS,
					.command_timeout_ms = RIG_TIMEOUT_MS,
					.close_grace_ms = RIG_GRACE_MS,
					.reply_max_bytes = LIMIT_FUNCTION_MESSAGE_BYTES});
}

void rig_release(struct rig *r)
{
	rig_expect(r, "");
	r->e->ops->free(r->e);
	buf_release(&r->log);
}

void rig_expect_at(struct rig *r, const char *text, const char *file, int line)
{
	const char *got = buf_cstr(&r->log);
	cr_assert(strcmp(got, text) == 0, "%s:%d:\n  expected: %s\n  got:      %s", file, line, text, got);
	buf_clear(&r->log);
}

struct entity_command *rig_command(struct rig *r, const char *name)
{
	cr_assert(r->command_count < ARRAY_LEN(r->commands));
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
	r->e->ops->on_appended(r->e, &(struct client_error){.code = GRPC_OK}, sequence);
}

void rig_append_failed(struct rig *r, enum grpc_code code, const char *text, bool stale)
{
	r->e->ops->on_appended(
		r->e,
		&(struct client_error){.code = code, .text = span_str(text), .has_sequence_found = stale}, 0);
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
	cr_assert(wire_pack(message, &out));
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

void rig_start(struct rig *r)
{
	rig_command(r, "a");
	rig_loaded(r, 0);
	rig_expect(r, "load; open; init; command 1:a");
}
