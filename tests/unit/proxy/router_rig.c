/* See router_rig.h. */
#include <config.h>

#include "router_rig.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "spec_rig.h"

#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME

/* --- the table of entities ------------------------------------------------------------------------------- */

struct slot {
	int unused;
};
static struct slot the_slot;

struct router_rig rig;

void say(const char *fmt, ...)
{
	char line[4096];
	va_list args;
	va_start(args, fmt);
	vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	cr_assert(!buf_printf(&rig.log, "%s%s", rig.log.n ? "; " : "", line));
}

struct entities *entities_new(const struct entities_config *config)
{
	(void)config;
	return mem_xalloc(1);
}

void entities_free(struct entities *e)
{
	mem_free(e);
}

enum err_code entities_command(struct entities *e, struct command *c, struct err *err)
{
	(void)e;
	if (rig.refuse)
		return err_set(err, rig.refuse, "refused by the test");
	say("run %.*s.%.*s(%.*s)", SPAN_ARG(c->method->service->name), SPAN_ARG(c->entity.name),
	    SPAN_ARG(c->entity.payload.value));
	if (rig.refuse_at_once) {
		command_ended(c,
				&(struct outcome){.code = GRPC_RESOURCE_EXHAUSTED, .message = SPAN("full")});
		return ERR_OK;
	}
	cr_assert_lt(rig.count, ARRAY_LEN(rig.waiting));
	rig.waiting[rig.count++] = c;
	c->slot = &the_slot;
	return ERR_OK;
}

bool entities_withdraw(struct command *c)
{
	say("withdraw %.*s", SPAN_ARG(c->entity.payload.value));
	for (size_t i = 0; i < rig.count; i++)
		if (rig.waiting[i] == c) {
			rig.waiting[i] = NULL;
			c->slot = NULL;
			return true;
		}
	return false;
}

bool entities_input(struct command *c, const struct any *payload)
{
	say("input %.*s to %.*s", SPAN_ARG(payload->value), SPAN_ARG(c->entity.name));
	return !rig.full;
}

void entities_half_close(struct command *c)
{
	say("half-close %.*s", SPAN_ARG(c->entity.name));
}

void entities_hold(struct command *c)
{
	say("%s %.*s", c->holding ? "hold" : "unhold", SPAN_ARG(c->entity.name));
}

void entities_break_off_streams(struct entities *e, const struct outcome *outcome)
{
	(void)e;
	(void)outcome;
}

void entities_end_streams(struct entities *e)
{
	(void)e;
	say("streams ended");
}

void entities_take_over(struct entities *e, const struct spec *spec)
{
	(void)e;
	(void)spec;
	say("entities taken over");
}

/* --- the publisher: what it is given waits for the test ---------------------------------------------------- */

static struct publication {
	void (*done)(void *arg, const struct outcome *outcome);
	void *arg;
} publishing;

struct publisher *publisher_new(const struct publisher_config *config)
{
	(void)config;
	return mem_xalloc(1);
}

void publisher_free(struct publisher *p)
{
	cr_assert(!publishing.done);
	mem_free(p);
}

enum err_code publisher_publish(struct publisher *p, const struct spec_method *method, const struct any *payload,
				const struct metadata *metadata,
				void (*done)(void *arg, const struct outcome *outcome), void *arg, struct err *err)
{
	(void)p;
	say("publish %.*s to %.*s%s", SPAN_ARG(payload->value), SPAN_ARG(method->out_topic),
	    metadata->n ? " with metadata" : "");
	if (rig.publisher_refuses)
		return err_set(err, rig.publisher_refuses, "not that");
	cr_assert(!publishing.done);
	publishing = (struct publication){done, arg};
	return ERR_OK;
}

void published(enum grpc_code code)
{
	struct publication p = publishing;
	cr_assert(p.done);
	publishing.done = NULL;
	p.done(p.arg, &(struct outcome){.code = code, .message = code ? SPAN("not published") : SPAN("")});
}

/* --- the rig --------------------------------------------------------------------------------------------- */

static struct mono_time mono_now(void *arg)
{
	(void)arg;
	return (struct mono_time){rig.now_us};
}

static struct wall_time wall_now(void *arg)
{
	(void)arg;
	return (struct wall_time){rig.now_us};
}

static const struct clock test_clock = {mono_now, wall_now, NULL};

static void on_report(void *arg, struct span text)
{
	(void)arg;
	say("report %.*s", SPAN_ARG(text));
}

void router_rig_begin(void)
{
	log_setup(LOG_OFF, LOG_LOGFMT);
	buf_init(&rig.log, MIB);
	rig.now_us = 1;
	rig.loop = loop_new();
	rig.router = router_new(&(struct router_config){.loop = rig.loop,
						      .clock = &test_clock,
						      .entities = {.command_timeout_ms = TIMEOUT_MS},
						      .report = on_report});
	cr_assert_eq(spec_rig_build(&spec_rig_shop, &rig.spec, NULL), ERR_OK);
	router_take_over(rig.router, rig.spec);
	cr_assert_str_eq(buf_cstr(&rig.log), "entities taken over");
	buf_clear(&rig.log);
}

void expect_at(const char *text, int line)
{
	const char *got = buf_cstr(&rig.log);
	cr_assert(strcmp(got, text) == 0, "line %d:\n  expected: %s\n  got:      %s", line, text, got);
	buf_clear(&rig.log);
}

void router_rig_end(void)
{
	expect("");
	router_free(rig.router);
	spec_unref(rig.spec);
	loop_free(rig.loop);
	buf_release(&rig.log);
}

static void on_reply(void *arg, const struct any *payload, const struct metadata *metadata)
{
	say("%s gets %.*s", (const char *)arg, SPAN_ARG(payload->value));
	for (size_t i = 0; metadata && i < metadata->n; i++)
		say("with %.*s=%.*s", SPAN_ARG(metadata->items[i].key), SPAN_ARG(metadata->items[i].value));
}

void on_end(void *arg, const struct outcome *outcome)
{
	say("%s ends %s%s%s%.*s", (const char *)arg, grpc_code_name(outcome->code),
	    outcome->failure ? " failure" : "", outcome->message.n ? " " : "", SPAN_ARG(outcome->message));
}

const struct reply_sink sink = {.on_reply = on_reply, .on_end = on_end};

struct command *call(const char *path, const char *payload, const char *who)
{
	char *arg;
	memcpy(&arg, &who, sizeof arg);
	return router_call(rig.router, spec_find_path(rig.spec, span_str(path)), span_str(payload), NULL, &sink,
			   arg);
}

void take_over_actions(void)
{
	struct spec_rig with_actions = {
		.entities = {{.service = "shop.Cart", .persistence_id = "cart"},
			     {.service = "shop.Wishes", .persistence_id = "wishes"},
			     {.service = "shop.StreamedOut", .type = "cloudstate.action.ActionProtocol"},
			     {.service = "shop.StreamedIn", .type = "cloudstate.action.ActionProtocol"},
			     {.service = "shop.Published", .type = "cloudstate.action.ActionProtocol"}},
		.minor = 2};
	struct spec *spec;
	for (struct spec_entity *e = with_actions.entities; e->service; e++)
		e->persistence_id = e->persistence_id ? e->persistence_id : "";
	cr_assert_eq(spec_rig_build(&with_actions, &spec, NULL), ERR_OK);
	router_take_over(rig.router, spec);
	spec_unref(rig.spec);
	rig.spec = spec;
	expect("entities taken over");
}

void run_loop(void)
{
	while (loop_run_once(rig.loop, false))
		;
}

/* --- answers of the function ----------------------------------------------------------------------------- */

struct command *take(const char *payload)
{
	for (size_t i = 0; i < rig.count; i++) {
		struct command *c = rig.waiting[i];
		if (!c || !span_eq_str(c->entity.payload.value, payload))
			continue;
		rig.waiting[i] = NULL;
		c->slot = NULL;
		return c;
	}
	cr_assert_fail("no command %s", payload);
	return NULL;
}

struct command *find(const char *payload)
{
	for (size_t i = 0; i < rig.count; i++)
		if (rig.waiting[i] && span_eq_str(rig.waiting[i]->entity.payload.value, payload))
			return rig.waiting[i];
	cr_assert_fail("no command %s", payload);
	return NULL;
}

void give(struct command *c, Cloudstate__ClientAction *action, const struct effect *effects, bool more)
{
	Cloudstate__SideEffect list[8], *at[8];
	Google__Protobuf__Any anys[8];
	struct entity_answer a = {.action = action, .effects = at, .more = more, .bytes = rig.more_bytes};
	for (; effects && effects->service; effects++, a.effect_count++) {
		Cloudstate__SideEffect *e = at[a.effect_count] = &list[a.effect_count];
		cloudstate__side_effect__init(e);
		e->service_name = wire_bytes(span_str(effects->service));
		e->command_name = wire_bytes(span_str(effects->name));
		wire_any_set(&anys[a.effect_count], (struct any){SPAN("T"), span_str(effects->payload)});
		e->payload = &anys[a.effect_count];
		e->synchronous = effects->synchronous;
	}
	/* As from the wire: all of it in the answer's own arena. */
	Cloudstate__Eventsourced__EventSourcedReply reply =
		CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_REPLY__INIT;
	struct buf bytes;
	buf_init(&bytes, MIB);
	reply.client_action = action;
	reply.side_effects = at;
	reply.n_side_effects = a.effect_count;
	cr_assert(wire_pack(&reply.base, &bytes));
	arena_init(&a.arena, MIB);
	const Cloudstate__Eventsourced__EventSourcedReply *copy = (const void *)grpc_unpack(
		&cloudstate__eventsourced__event_sourced_reply__descriptor, &a.arena, buf_span(&bytes));
	cr_assert(copy);
	a.action = copy->client_action;
	a.effects = copy->side_effects;
	buf_release(&bytes);
	command_answered(c, &a);
}

void answer(const char *payload, Cloudstate__ClientAction *action, const struct effect *effects)
{
	give(take(payload), action, effects, false);
}

void answer_reply(const char *payload, const char *type, const char *text, const struct effect *effects)
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Reply reply = CLOUDSTATE__REPLY__INIT;
	Google__Protobuf__Any any;
	wire_any_set(&any, (struct any){span_str(type), span_str(text)});
	reply.payload = &any;
	action.action_case = ACTION(REPLY);
	action.reply = &reply;
	answer(payload, &action, effects);
}

struct metadata_entry echoed = {{(const uint8_t *)"k", 1}, {(const uint8_t *)"v", 1}, false};

/* A reply that is followed by more. */
void stream_reply(const char *payload, const char *text, const struct effect *effects, bool echo)
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Reply reply = CLOUDSTATE__REPLY__INIT;
	Cloudstate__Metadata metadata = CLOUDSTATE__METADATA__INIT;
	Cloudstate__MetadataEntry entry, *entries[] = {&entry};
	Google__Protobuf__Any any;
	cloudstate__metadata_entry__init(&entry);
	wire_any_set(&any, (struct any){SPAN("type.googleapis.com/shop.Items"), span_str(text)});
	reply.payload = &any;
	if (echo) {
		entry.key = wire_bytes(echoed.key);
		entry.value_case = CLOUDSTATE__METADATA_ENTRY__VALUE_STRING_VALUE;
		entry.string_value = wire_bytes(echoed.value);
		metadata.n_entries = 1;
		metadata.entries = entries;
		reply.metadata = &metadata;
	}
	action.action_case = ACTION(REPLY);
	action.reply = &reply;
	give(find(payload), &action, effects, true);
}

static void give_forward(struct command *c, const struct effect *effects, bool more, const char *const to[3])
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Forward forward = CLOUDSTATE__FORWARD__INIT;
	Google__Protobuf__Any any;
	wire_any_set(&any, (struct any){SPAN("T"), span_str(to[2])});
	forward.service_name = wire_bytes(span_str(to[0]));
	forward.command_name = wire_bytes(span_str(to[1]));
	forward.payload = &any;
	action.action_case = ACTION(FORWARD);
	action.forward = &forward;
	give(c, &action, effects, more);
}

void stream_forward(const char *payload, const char *service, const char *name, const char *to)
{
	give_forward(find(payload), NULL, true, (const char *const[]){service, name, to});
}

void function_ends(const char *payload, enum grpc_code code)
{
	command_ended(take(payload), &(struct outcome){.code = code});
}

void answer_failure(const char *payload, const char *text, const struct effect *effects)
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Failure failure = CLOUDSTATE__FAILURE__INIT;
	failure.description = wire_bytes(span_str(text));
	action.action_case = ACTION(FAILURE);
	action.failure = &failure;
	answer(payload, &action, effects);
}

void answer_forward(const char *payload, const char *service, const char *name, const char *to,
		    const struct effect *effects)
{
	give_forward(take(payload), effects, false, (const char *const[]){service, name, to});
}
