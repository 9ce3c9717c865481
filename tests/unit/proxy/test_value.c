/* What the value kind has of its own (contract, section 4); how it lives is tested with event sourced. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "pbdyn/pbdyn.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

#define IN(NAME) CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_STREAM_IN__MESSAGE_##NAME
#define OUT(NAME) CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_STREAM_OUT__MESSAGE_##NAME
#define STATE(NAME) CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_ACTION__ACTION_##NAME

static struct entity *e;
static struct buf log_text;
static struct entity_command command;
static uint64_t sequence;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char line[512];
	va_list args;
	va_start(args, fmt);
	vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	cr_assert(!buf_printf(&log_text, "%s%s", log_text.n ? "; " : "", line));
}

static void host_open(void *host, const char *path, int64_t deadline_ms)
{
	(void)host;
	cr_assert_str_eq(path, "/cloudstate.valueentity.ValueEntity/handle");
	cr_assert_lt(deadline_ms, 0);
	say("open");
}

static bool host_send(void *host, struct span message)
{
	struct arena a;
	(void)host;
	arena_init(&a, MIB);
	const Cloudstate__Valueentity__ValueEntityStreamIn *in = (const void *)grpc_unpack(
		&cloudstate__valueentity__value_entity_stream_in__descriptor, &a, message);
	cr_assert(in);
	if (in->message_case == IN(INIT)) {
		cr_assert(in->init->state, "the state is always there");
		struct any v = wire_any(in->init->state->value);
		say("init%s%.*s", in->init->state->value ? " " : "", SPAN_ARG(v.value));
	} else {
		say("command %lld", (long long)in->command->id);
	}
	arena_release(&a);
	return true;
}

static void host_nothing(void *host)
{
	(void)host;
}

static void host_half_close(void *host)
{
	(void)host;
	say("half-close");
}

static void host_reset(void *host)
{
	(void)host;
	say("reset");
}

static void host_load(void *host)
{
	(void)host;
	say("load");
}

static void host_append(void *host, const struct entity_append *append)
{
	(void)host;
	cr_assert_eq(append->expect, CLIENT_EXACTLY);
	cr_assert_eq(append->expected_sequence, sequence);
	cr_assert_eq(append->event_count, 1u);
	const struct client_record *r = &append->events[0];
	cr_assert(span_eq_str(r->metadata[0].key, ENTITY_MARK_KEY) && span_eq_str(r->metadata[0].value, "value"));
	say("append %.*s%s%.*s%s", SPAN_ARG(r->type), r->data.n ? ":" : "", SPAN_ARG(r->data),
	    append->snapshot ? " with snapshot" : "");
	if (append->snapshot) {
		cr_assert(span_eq(append->snapshot->data, r->data) && span_eq(append->snapshot->type, r->type));
		cr_assert_eq(append->snapshot->metadata_count, r->metadata_count);
		cr_assert(memcmp(append->snapshot->id, r->id, sizeof r->id) != 0);
	}
}

static void host_answer(void *host, struct entity_command *c, struct entity_answer *answer)
{
	(void)host;
	cr_assert_eq(c, &command);
	say("answer%s%s", answer->effect_count ? " with effects" : "", answer->more ? " and more" : "");
	arena_release(&answer->arena);
}

static void host_end(void *host, struct entity_command *c, const struct outcome *outcome)
{
	(void)host;
	cr_assert_eq(c, &command);
	say("end %s %.*s", grpc_code_name(outcome->code), SPAN_ARG(outcome->message));
}

static void host_wake_at(void *host, struct mono_time at)
{
	(void)host;
	(void)at;
}

static void host_report(void *host, struct span text)
{
	(void)host;
	(void)text;
	say("report");
}

static const struct entity_host host_ops = {
	.open = host_open,
	.send = host_send,
	.half_close = host_half_close,
	.reset = host_reset,
	.load = host_load,
	.load_cancel = host_nothing,
	.append = host_append,
	.answer = host_answer,
	.end = host_end,
	.wake_at = host_wake_at,
	.report = host_report,
	.gone = host_nothing,
};

static void begin(void)
{
	log_setup(LOG_OFF, LOG_LOGFMT);
	buf_init(&log_text, MIB);
	sequence = 0;
	memset(&command, 0, sizeof command);
	command.name = SPAN("Set");
	command.payload = (struct any){SPAN("T"), SPAN("p")};
	e = entity_value.create(&(struct entity_config){.host = &host_ops,
							.clock = &clock_system,
							.service = SPAN("shop.Wallet"),
							.entity_id = SPAN("one"),
							.stream = SPAN("wallet|one"),
							.passivation_ms = 30000,
							.command_timeout_ms = 60000,
							.close_grace_ms = 5000,
							.reply_max_bytes = MIB});
}

static void end(void)
{
	cr_assert_eq(log_text.n, 0u, "left: %s", buf_cstr(&log_text));
	e->ops->free(e);
	buf_release(&log_text);
}

TestSuite(value, .init = begin, .fini = end);

static void expect_at(const char *text, int line)
{
	const char *got = buf_cstr(&log_text);
	cr_assert(strcmp(got, text) == 0, "line %d:\n  expected: %s\n  got:      %s", line, text, got);
	buf_clear(&log_text);
}
#define expect(text) expect_at((text), __LINE__)

static void give_record(uint32_t kind, uint64_t at, const char *data, bool deleted)
{
	struct buf metadata, entry;
	buf_init(&metadata, KIB);
	buf_init(&entry, KIB);
	for (int i = 0; i < (deleted ? 2 : 1); i++) {
		buf_clear(&entry);
		cr_assert(!pb_put_bytes(&entry, 1, i ? SPAN("cairn-deleted") : SPAN(ENTITY_MARK_KEY)) &&
			  !pb_put_bytes(&entry, 2, i ? SPAN("true") : SPAN("value")));
		cr_assert(!pb_put_bytes(&metadata, 3, buf_span(&entry)));
	}
	struct record_view v = {.kind = kind,
				.sequence = at,
				.type = SPAN("T"),
				.content = RECORD_BODY,
				.data = span_str(data),
				.metadata_fields = buf_span(&metadata)};
	e->ops->on_record(e, &v);
	buf_release(&metadata);
	buf_release(&entry);
}

static void activate(void)
{
	e->ops->command(e, &command);
	e->ops->on_loaded(e, sequence);
}

static void send_reply(int64_t id, int state, const char *value, bool effect)
{
	Cloudstate__Valueentity__ValueEntityStreamOut out = CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_STREAM_OUT__INIT;
	Cloudstate__Valueentity__ValueEntityReply reply = CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_REPLY__INIT;
	Cloudstate__Valueentity__ValueEntityAction action = CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_ACTION__INIT;
	Cloudstate__Valueentity__ValueEntityUpdate update = CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_UPDATE__INIT;
	Cloudstate__Valueentity__ValueEntityDelete del = CLOUDSTATE__VALUEENTITY__VALUE_ENTITY_DELETE__INIT;
	Cloudstate__SideEffect side = CLOUDSTATE__SIDE_EFFECT__INIT, *sides[] = {&side};
	Google__Protobuf__Any any;
	struct buf bytes;
	reply.command_id = id;
	if (effect) {
		reply.side_effects = sides;
		reply.n_side_effects = 1;
	}
	if (state) {
		action.action_case = (unsigned)state;
		if (state == (int)STATE(DELETE)) {
			action.delete_ = &del;
		} else {
			action.update = &update;
			if (value) {
				wire_any_set(&any, (struct any){SPAN("T"), span_str(value)});
				update.value = &any;
			}
		}
		reply.state_action = &action;
	}
	out.message_case = OUT(REPLY);
	out.reply = &reply;
	buf_init(&bytes, MIB);
	cr_assert(wire_pack(&out.base, &bytes));
	e->ops->on_message(e, buf_span(&bytes));
	buf_release(&bytes);
}

static void appended(void)
{
	e->ops->on_appended(e, &(struct client_error){.code = GRPC_OK}, ++sequence, 0);
}

Test(value, begins_with_the_newest_value_alone)
{
	e->ops->command(e, &command);
	give_record(RECORD_SNAPSHOT, 4, "four", false);
	give_record(RECORD_EVENT, 5, "five", false);
	give_record(RECORD_EVENT, 6, "six", false);
	expect("load");
	sequence = 6;
	e->ops->on_loaded(e, 6);
	expect("open; init six; command 1");
	send_reply(1, STATE(UPDATE), "seven", false);
	expect("append T:seven");
	appended();
	expect("answer");
}

Test(value, begins_empty_after_a_delete_and_with_what_came_after_it)
{
	e->ops->command(e, &command);
	give_record(RECORD_EVENT, 1, "one", false);
	give_record(RECORD_EVENT, 2, "", true);
	sequence = 2;
	e->ops->on_loaded(e, 2);
	expect("load; open; init; command 1");
	send_reply(1, 0, NULL, false);
	expect("answer");
	e->ops->passivate(e);
	e->ops->on_end(e, &(struct entity_end){.code = GRPC_OK});
	expect("half-close");
	e->ops->command(e, &command);
	give_record(RECORD_SNAPSHOT, 2, "", true);
	give_record(RECORD_EVENT, 3, "three", false);
	e->ops->on_loaded(e, 3);
	expect("load; open; init three; command 1");
}

Test(value, keeps_an_update_before_its_effects_and_its_answer)
{
	activate();
	expect("load; open; init; command 1");
	send_reply(1, STATE(UPDATE), "x", true);
	expect("append T:x");
	appended();
	expect("answer with effects");
}

Test(value, a_delete_is_a_record_of_its_own)
{
	activate();
	send_reply(1, STATE(DELETE), NULL, false);
	expect("load; open; init; command 1; append cairn.value.Deleted");
	appended();
	expect("answer");
	e->ops->command(e, &command);
	expect("command 2");
}

Test(value, drops_an_update_without_a_value)
{
	activate();
	send_reply(1, STATE(UPDATE), NULL, false);
	expect("load; open; init; command 1; report; answer");
}

Test(value, writes_a_snapshot_once_in_a_while)
{
	activate();
	expect("load; open; init; command 1");
	for (int i = 1; i <= 70; i++) {
		send_reply(i, STATE(UPDATE), "x", false);
		expect(i % 32 == 0 ? "append T:x with snapshot" : "append T:x");
		appended();
		e->ops->command(e, &command);
		buf_clear(&log_text);
	}
}

Test(value, has_texts_of_its_own_for_the_functions_faults)
{
	activate();
	e->ops->on_message(e, SPAN(""));
	expect("load; open; init; command 1; report; end UNKNOWN Unexpected Value entity failure; reset");
	activate();
	send_reply(9, 0, NULL, false);
	expect("load; open; init; command 1; report; end UNKNOWN Unexpected Value entity reply; reset");
	activate();
	e->ops->on_end(e, &(struct entity_end){.code = GRPC_OK});
	expect("load; open; init; command 1; end UNKNOWN Unexpected Value entity termination");
}
