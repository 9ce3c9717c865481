/* The host of es_rig.h that writes down what it is asked for. */
#include <config.h>

#include "es_rig.h"

#include <stdarg.h>
#include <stdio.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"
#include "record/record.h"

#define IN(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__MESSAGE_##NAME
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
	.wake_at = rig_wake_at,
	.report = host_report,
	.gone = host_gone,
};

/* --- the test's side ------------------------------------------------------------------------------------ */

void rig_init(struct rig *r)
{
	rig_init_with(r, &entity_event_sourced, &host_ops, r);
	buf_init(&r->log, MIB);
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

void rig_start(struct rig *r)
{
	rig_command(r, "a");
	rig_loaded(r, 0);
	rig_expect(r, "load; open; init; command 1:a");
}
