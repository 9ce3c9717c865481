/* A command's way through effects, forwards and reply (contract, section 6). The table of entities is the
 * test's own: it keeps what it is given, and the test answers for it. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/router_core.h"
#include "spec_rig.h"

#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME
#define TIMEOUT_MS 50

/* --- the fake table ------------------------------------------------------------------------------------ */

struct slot {
	int unused;
};
static struct slot the_slot;

static struct table {
	struct command *waiting[64]; /* not sent */
	size_t count;
	enum err_code refuse;
	bool full; /* input() says so */
	bool refuse_at_once; /* by command_ended(), inside the call */
	struct buf log;
	int64_t now_us;
	struct router *router;
	struct spec *spec;
	struct loop *loop;
} t;

__attribute__((format(printf, 1, 2))) static void say(const char *fmt, ...)
{
	char line[4096];
	va_list args;
	va_start(args, fmt);
	vsnprintf(line, sizeof line, fmt, args);
	va_end(args);
	cr_assert(!buf_printf(&t.log, "%s%s", t.log.n ? "; " : "", line));
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
	if (t.refuse)
		return err_set(err, t.refuse, "refused by the test");
	say("run %.*s.%.*s(%.*s)", SPAN_ARG(c->method->service->name), SPAN_ARG(c->entity.name),
	    SPAN_ARG(c->entity.payload.value));
	if (t.refuse_at_once) {
		command_ended(c,
				&(struct outcome){.code = GRPC_RESOURCE_EXHAUSTED, .message = SPAN("full")});
		return ERR_OK;
	}
	cr_assert_lt(t.count, ARRAY_LEN(t.waiting));
	t.waiting[t.count++] = c;
	c->slot = &the_slot;
	return ERR_OK;
}

bool entities_withdraw(struct command *c)
{
	say("withdraw %.*s", SPAN_ARG(c->entity.payload.value));
	for (size_t i = 0; i < t.count; i++)
		if (t.waiting[i] == c) {
			t.waiting[i] = NULL;
			c->slot = NULL;
			return true;
		}
	return false;
}

bool entities_input(struct command *c, const struct any *payload)
{
	say("input %.*s to %.*s", SPAN_ARG(payload->value), SPAN_ARG(c->entity.name));
	return !t.full;
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

/* --- the fake publisher: what it is given waits for the test -------------------------------------------------- */

static struct publication {
	void (*done)(void *arg, const struct outcome *outcome);
	void *arg;
} publishing;
static enum err_code publisher_refuses;

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
	if (publisher_refuses)
		return err_set(err, publisher_refuses, "not that");
	cr_assert(!publishing.done);
	publishing = (struct publication){done, arg};
	return ERR_OK;
}

static void published(enum grpc_code code)
{
	struct publication p = publishing;
	cr_assert(p.done);
	publishing.done = NULL;
	p.done(p.arg, &(struct outcome){.code = code, .message = code ? SPAN("not published") : SPAN("")});
}

/* --- the rig ---------------------------------------------------------------------------------------------
 */

static struct mono_time mono_now(void *arg)
{
	(void)arg;
	return (struct mono_time){t.now_us};
}

static struct wall_time wall_now(void *arg)
{
	(void)arg;
	return (struct wall_time){t.now_us};
}

static const struct clock test_clock = {mono_now, wall_now, NULL};

static void on_report(void *arg, struct span text)
{
	(void)arg;
	say("report %.*s", SPAN_ARG(text));
}

static void on_spec(void *arg, struct spec *spec)
{
	(void)arg;
	say("spec of %zu", spec->service_count);
}

static void begin(void)
{
	log_setup(LOG_OFF, LOG_LOGFMT);
	buf_init(&t.log, MIB);
	t.now_us = 1;
	t.loop = loop_new();
	t.router = router_new(&(struct router_config){.loop = t.loop,
						      .clock = &test_clock,
						      .entities = {.command_timeout_ms = TIMEOUT_MS},
						      .report = on_report});
	cr_assert_eq(spec_rig_build(&spec_rig_shop, &t.spec, NULL), ERR_OK);
	router_take_over(t.router, t.spec);
	cr_assert_str_eq(buf_cstr(&t.log), "entities taken over");
	buf_clear(&t.log);
}

static void expect_at(const char *text, int line)
{
	const char *got = buf_cstr(&t.log);
	cr_assert(strcmp(got, text) == 0, "line %d:\n  expected: %s\n  got:      %s", line, text, got);
	buf_clear(&t.log);
}
#define expect(text) expect_at((text), __LINE__)

static void end(void)
{
	expect("");
	router_free(t.router);
	spec_unref(t.spec);
	loop_free(t.loop);
	buf_release(&t.log);
}

TestSuite(router, .init = begin, .fini = end);

static void on_reply(void *arg, const struct any *payload, const struct metadata *metadata)
{
	say("%s gets %.*s", (const char *)arg, SPAN_ARG(payload->value));
	for (size_t i = 0; metadata && i < metadata->n; i++)
		say("with %.*s=%.*s", SPAN_ARG(metadata->items[i].key), SPAN_ARG(metadata->items[i].value));
}

static void on_end(void *arg, const struct outcome *outcome)
{
	say("%s ends %s%s%s%.*s", (const char *)arg, grpc_code_name(outcome->code),
	    outcome->failure ? " failure" : "", outcome->message.n ? " " : "", SPAN_ARG(outcome->message));
}

static const struct reply_sink sink = {.on_reply = on_reply, .on_end = on_end};

static struct command *call(const char *path, const char *payload, const char *who)
{
	char *arg;
	memcpy(&arg, &who, sizeof arg);
	return router_call(t.router, spec_find_path(t.spec, span_str(path)), span_str(payload), NULL, &sink,
			   arg);
}

/* --- answers of the function -------------------------------------------------------------------------------
 */

struct effect {
	const char *service, *name, *payload; /* service NULL: the end */
	bool synchronous;
};

static struct command *take(const char *payload)
{
	for (size_t i = 0; i < t.count; i++) {
		struct command *c = t.waiting[i];
		if (!c || !span_eq_str(c->entity.payload.value, payload))
			continue;
		t.waiting[i] = NULL;
		c->slot = NULL;
		return c;
	}
	cr_assert_fail("no command %s", payload);
	return NULL;
}

static size_t more_bytes; /* of the next answer that is followed by more */

static struct command *find(const char *payload)
{
	for (size_t i = 0; i < t.count; i++)
		if (t.waiting[i] && span_eq_str(t.waiting[i]->entity.payload.value, payload))
			return t.waiting[i];
	cr_assert_fail("no command %s", payload);
	return NULL;
}

static void give(struct command *c, Cloudstate__ClientAction *action, const struct effect *effects, bool more)
{
	Cloudstate__SideEffect list[8], *at[8];
	Google__Protobuf__Any anys[8];
	struct entity_answer a = {.action = action, .effects = at, .more = more, .bytes = more_bytes};
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

static void answer(const char *payload, Cloudstate__ClientAction *action, const struct effect *effects)
{
	give(take(payload), action, effects, false);
}

static void answer_reply(const char *payload, const char *type, const char *text,
			 const struct effect *effects)
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

static struct metadata_entry echoed = {{(const uint8_t *)"k", 1}, {(const uint8_t *)"v", 1}, false};

/* A reply that is followed by more. */
static void stream_reply(const char *payload, const char *text, const struct effect *effects, bool echo)
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

static void stream_forward(const char *payload, const char *service, const char *name, const char *to)
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Forward forward = CLOUDSTATE__FORWARD__INIT;
	Google__Protobuf__Any any;
	wire_any_set(&any, (struct any){SPAN("T"), span_str(to)});
	forward.service_name = wire_bytes(span_str(service));
	forward.command_name = wire_bytes(span_str(name));
	forward.payload = &any;
	action.action_case = ACTION(FORWARD);
	action.forward = &forward;
	give(find(payload), &action, NULL, true);
}

static void function_ends(const char *payload, enum grpc_code code)
{
	command_ended(take(payload), &(struct outcome){.code = code});
}

static void answer_failure(const char *payload, const char *text, const struct effect *effects)
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Failure failure = CLOUDSTATE__FAILURE__INIT;
	failure.description = wire_bytes(span_str(text));
	action.action_case = ACTION(FAILURE);
	action.failure = &failure;
	answer(payload, &action, effects);
}

static void answer_forward(const char *payload, const char *service, const char *name, const char *to,
			   const struct effect *effects)
{
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Forward forward = CLOUDSTATE__FORWARD__INIT;
	Google__Protobuf__Any any;
	wire_any_set(&any, (struct any){SPAN("T"), span_str(to)});
	forward.service_name = wire_bytes(span_str(service));
	forward.command_name = wire_bytes(span_str(name));
	forward.payload = &any;
	action.action_case = ACTION(FORWARD);
	action.forward = &forward;
	answer(payload, &action, effects);
}

#define EFFECTS(...) ((const struct effect[]){__VA_ARGS__, {0}})
#define ITEMS "type.googleapis.com/shop.Items"

/* --- tests
 * --------------------------------------------------------------------------------------------------- */

Test(router, passes_a_reply_on)
{
	call("/shop.Cart/GetCart", "p", "A");
	cr_assert(span_eq_str(t.waiting[0]->entity.payload.type_url, "type.googleapis.com/shop.User"));
	expect("run shop.Cart.GetCart(p)");
	answer_reply("p", ITEMS, "items", NULL);
	expect("A gets items; A ends OK");
}

Test(router, ends_ok_without_a_reply_when_there_is_no_action)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer("p", NULL, NULL);
	expect("run shop.Cart.GetCart(p); A ends OK");
}

Test(router, passes_failures_and_errors_on)
{
	call("/shop.Cart/GetCart", "p", "A");
	call("/shop.Cart/GetCart", "q", "B");
	answer_failure("p", "no", NULL);
	command_ended(take("q"), &(struct outcome){.code = GRPC_UNAVAILABLE, .message = SPAN("gone")});
	expect("run shop.Cart.GetCart(p); run shop.Cart.GetCart(q); A ends UNKNOWN failure no; "
	       "B ends UNAVAILABLE gone");
}

Test(router, tells_what_cannot_be_begun_later)
{
	t.refuse = ERR_LIMIT;
	call("/shop.Cart/GetCart", "p", "A");
	t.refuse = ERR_INVALID;
	call("/shop.Cart/GetCart", "q", "B");
	expect("");
	while (loop_run_once(t.loop, false))
		;
	expect("A ends RESOURCE_EXHAUSTED refused by the test; B ends INVALID_ARGUMENT refused by the test");
}

/* As when there is no memory to send it: nobody is called back inside the call that began it. */
Test(router, tells_later_what_its_entity_refuses_at_once)
{
	t.refuse_at_once = true;
	call("/shop.Cart/GetCart", "p", "A");
	command_cancel(call("/shop.Cart/GetCart", "q", "B"));
	expect("run shop.Cart.GetCart(p); run shop.Cart.GetCart(q)");
	while (loop_run_once(t.loop, false))
		;
	expect("A ends RESOURCE_EXHAUSTED full");
}

Test(router, goes_on_after_an_effect_that_its_entity_refuses_at_once)
{
	call("/shop.Cart/AddItem", "p", "A");
	t.refuse_at_once = true;
	answer_forward("p", "shop.Wishes", "Wish", "f", EFFECTS({"shop.Wishes", "Wish", "w", true}));
	expect("run shop.Cart.AddItem(p); run shop.Wishes.Wish(w)");
	while (loop_run_once(t.loop, false))
		;
	expect("run shop.Wishes.Wish(f); A ends RESOURCE_EXHAUSTED full");
}

Test(router, reports_a_reply_of_another_type_and_sends_it)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_reply("p", "type.googleapis.com/shop.User", "x", NULL);
	expect("run shop.Cart.GetCart(p); report reply of shop.Cart.GetCart has type "
	       "type.googleapis.com/shop.User, "
	       "which is not type.googleapis.com/shop.Items, the method's output: it is sent nevertheless; "
	       "A gets x; A ends OK");
}

Test(router, withdraws_what_was_not_sent)
{
	command_cancel(call("/shop.Cart/GetCart", "p", "A"));
	expect("run shop.Cart.GetCart(p); withdraw p");
}

Test(router, carries_through_what_was_sent)
{
	struct command *c = call("/shop.Cart/AddItem", "p", "A");
	t.waiting[0] = NULL; /* sent */
	command_cancel(c);
	expect("run shop.Cart.AddItem(p); withdraw p");
	t.waiting[0] = c;
	answer_reply("p", "type.googleapis.com/google.protobuf.Empty", "late",
		     EFFECTS({"shop.Wishes", "Wish", "w", false}));
	expect("run shop.Wishes.Wish(w)");
	answer_reply("w", "x", "y", NULL);
}

Test(router, answers_the_client_in_time)
{
	call("/shop.Cart/GetCart", "p", "A");
	struct command *sent = call("/shop.Cart/GetCart", "q", "B");
	t.waiting[1] = NULL;
	t.now_us += TIMEOUT_MS * 1000 + 1000;
	while (t.log.n < 200 && loop_run_once(t.loop, true))
		;
	expect("run shop.Cart.GetCart(p); run shop.Cart.GetCart(q); "
	       "A ends DEADLINE_EXCEEDED the function has not answered in time; withdraw p; "
	       "B ends DEADLINE_EXCEEDED the function has not answered in time; withdraw q");
	t.waiting[1] = sent;
	answer_reply("q", ITEMS, "late", NULL);
}

Test(router, forwards_with_the_payload_untouched)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(w)");
	cr_assert(span_eq_str(t.waiting[1]->entity.payload.type_url, "T"));
	answer_reply("w", ITEMS, "wished", NULL);
	expect("A gets wished; A ends OK");
}

Test(router, checks_a_forwards_reply_against_the_method_that_was_called)
{
	call("/shop.Cart/AddItem", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	answer_reply("w", ITEMS, "wished", NULL);
	expect("run shop.Cart.AddItem(p); run shop.Wishes.Wish(w); report reply of shop.Cart.AddItem has "
	       "type "
	       "type.googleapis.com/shop.Items, which is not type.googleapis.com/google.protobuf.Empty, the "
	       "method's output: it is sent nevertheless; A gets wished; A ends OK");
}

Test(router, passes_a_forwards_failure_on)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	answer_failure("w", "no wish", NULL);
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(w); A ends UNKNOWN failure no wish");
}

Test(router, waits_for_synchronous_effects_and_only_starts_the_others)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_reply("p", ITEMS, "items",
		     EFFECTS({"shop.Wishes", "Wish", "1", true}, {"shop.Wishes", "Wish", "2", false},
			     {"shop.Wishes", "Wish", "3", true}));
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(1)");
	answer_failure("1", "ignored", NULL);
	expect("run shop.Wishes.Wish(2); run shop.Wishes.Wish(3)");
	answer_reply("3", ITEMS, "x", NULL);
	expect("A gets items; A ends OK");
	answer_reply("2", ITEMS, "x", NULL);
}

Test(router, a_synchronous_effect_includes_its_own_effects_and_forwards)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_reply("p", ITEMS, "items", EFFECTS({"shop.Wishes", "Wish", "1", true}));
	answer_forward("1", "shop.Cart", "GetCart", "2", EFFECTS({"shop.Wishes", "Wish", "3", true}));
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(1); run shop.Wishes.Wish(3)");
	answer_reply("3", ITEMS, "x", NULL);
	expect("run shop.Cart.GetCart(2)");
	answer_reply("2", ITEMS, "x", NULL);
	expect("A gets items; A ends OK");
}

Test(router, runs_effects_where_the_reply_is_a_failure_or_nothing)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_failure("p", "no", EFFECTS({"shop.Wishes", "Wish", "1", true}));
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(1)");
	answer_reply("1", ITEMS, "x", NULL);
	expect("A ends UNKNOWN failure no");
	call("/shop.Cart/GetCart", "q", "B");
	answer("q", NULL, EFFECTS({"shop.Wishes", "Wish", "2", false}));
	expect("run shop.Cart.GetCart(q); run shop.Wishes.Wish(2); B ends OK");
	answer_reply("2", ITEMS, "x", NULL);
}

Test(router, reports_an_unknown_forward_with_its_trace)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	answer_forward("w", "shop.Nobody", "Wish", "x", NULL);
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(w); report Service [shop.Nobody] unknown\n"
	       "  forwarded from shop.Wishes.Wish\n  forwarded from shop.Cart.GetCart; "
	       "A ends INTERNAL Service [shop.Nobody] unknown");
}

Test(router, reports_an_unknown_effect_and_gives_the_reply)
{
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Wishes", "Wish", "w", NULL);
	answer_reply("w", ITEMS, "items", EFFECTS({"shop.Cart", "Nope", "1", true}));
	expect("run shop.Cart.GetCart(p); run shop.Wishes.Wish(w); report Service [shop.Cart] does not have "
	       "a "
	       "command named: [Nope]\n  side-effect of shop.Wishes.Wish\n  forwarded from "
	       "shop.Cart.GetCart; "
	       "A gets items; A ends OK");
}

Test(router, ends_a_chain_of_forwards_at_its_limit)
{
	call("/shop.Cart/GetCart", "p", "A");
	for (int i = 0; i < LIMIT_FORWARD_DEPTH; i++) {
		buf_clear(&t.log);
		answer_forward("p", "shop.Cart", "GetCart", "p", NULL);
		expect("run shop.Cart.GetCart(p)");
	}
	answer_forward("p", "shop.Cart", "GetCart", "p", NULL);
	while (loop_run_once(t.loop, false))
		;
	expect("report more than 32 forwards and side effects follow from one command; "
	       "A ends INTERNAL more than 32 forwards and side effects follow from one command");
}

Test(router, tells_watchers_of_every_spec)
{
	struct spec *other;
	struct spec_rig rig = {.entities = {{.service = "shop.Cart", .persistence_id = "cart"}}, .minor = 2};
	cr_assert_eq(spec_rig_build(&rig, &other, NULL), ERR_OK);
	router_watch(t.router, on_spec, NULL);
	expect("spec of 2");
	router_take_over(t.router, other);
	expect("entities taken over; spec of 1");
	cr_assert_eq(router_spec(t.router), other);
	spec_unref(other);
}

/* --- streams ----------------------------------------------------------------------------------------------- */

static void take_over_actions(void)
{
	struct spec_rig rig = {
		.entities = {{.service = "shop.Cart", .persistence_id = "cart"},
			     {.service = "shop.Wishes", .persistence_id = "wishes"},
			     {.service = "shop.StreamedOut", .type = "cloudstate.action.ActionProtocol"},
			     {.service = "shop.StreamedIn", .type = "cloudstate.action.ActionProtocol"},
			     {.service = "shop.Published", .type = "cloudstate.action.ActionProtocol"}},
		.minor = 2};
	struct spec *spec;
	for (struct spec_entity *e = rig.entities; e->service; e++)
		e->persistence_id = e->persistence_id ? e->persistence_id : "";
	cr_assert_eq(spec_rig_build(&rig, &spec, NULL), ERR_OK);
	router_take_over(t.router, spec);
	spec_unref(t.spec);
	t.spec = spec;
	expect("entities taken over");
}

static void run_loop(void)
{
	while (loop_run_once(t.loop, false))
		;
}

static struct command *watch(void)
{
	take_over_actions();
	struct command *c = call("/shop.StreamedOut/Watch", "p", "A");
	expect("run shop.StreamedOut.Watch(p)");
	return c;
}

Test(router, gives_a_streams_answers_and_then_its_end)
{
	watch();
	stream_reply("p", "1", NULL, false);
	give(find("p"), NULL, NULL, true);
	stream_reply("p", "2", NULL, false);
	expect("A gets 1; A gets 2");
	function_ends("p", GRPC_OK);
	expect("A ends OK");
}

Test(router, works_off_one_answer_of_a_stream_at_a_time)
{
	watch();
	stream_reply("p", "1", EFFECTS({"shop.Wishes", "Wish", "e", true}), false);
	stream_reply("p", "2", EFFECTS({"shop.Wishes", "Wish", "f", false}), false);
	stream_forward("p", "shop.Cart", "GetCart", "g");
	expect("run shop.Wishes.Wish(e); hold Watch");
	function_ends("p", GRPC_ABORTED);
	answer_reply("e", ITEMS, "x", NULL);
	expect("A gets 1; run shop.Wishes.Wish(f); A gets 2; run shop.Cart.GetCart(g)");
	answer_reply("g", ITEMS, "3", NULL);
	expect("A gets 3; A ends ABORTED");
	answer_reply("f", ITEMS, "x", NULL);
}

Test(router, lets_answers_wait_while_their_caller_takes_none)
{
	struct command *c = watch();
	command_hold(c, true);
	stream_reply("p", "1", NULL, false);
	stream_reply("p", "2", NULL, false);
	expect("hold Watch");
	command_hold(c, false);
	expect("");
	run_loop();
	expect("A gets 1; unhold Watch; A gets 2");
	function_ends("p", GRPC_OK);
	expect("A ends OK");
}

Test(router, breaks_off_a_client_that_leaves_too_much_waiting)
{
	struct command *c = watch();
	command_hold(c, true);
	more_bytes = LIMIT_ANSWERS_BYTES / 2;
	stream_reply("p", "1", NULL, false);
	stream_reply("p", "2", NULL, false);
	more_bytes = 0;
	expect("hold Watch; A ends RESOURCE_EXHAUSTED the client does not take its answers; withdraw p");
}

Test(router, a_client_that_leaves_withdraws_its_stream_and_what_it_was_forwarded_to)
{
	struct command *c = watch();
	stream_forward("p", "shop.StreamedOut", "Watch", "q");
	expect("run shop.StreamedOut.Watch(q)");
	stream_reply("q", "1", NULL, false);
	expect("A gets 1");
	command_cancel(c);
	expect("withdraw q; withdraw p");
	run_loop();
}

Test(router, a_forwards_failure_ends_the_stream_that_it_is_part_of)
{
	watch();
	stream_forward("p", "shop.Cart", "GetCart", "g");
	stream_reply("p", "never", NULL, false);
	expect("run shop.Cart.GetCart(g); hold Watch");
	answer_failure("g", "no", NULL);
	expect("A ends UNKNOWN failure no; withdraw p");
}

Test(router, a_stream_has_no_timeout_of_ours)
{
	watch();
	call("/shop.Cart/GetCart", "g", "B");
	t.now_us += TIMEOUT_MS * 1000 + 1000;
	while (t.log.n < 60 && loop_run_once(t.loop, true))
		;
	expect("run shop.Cart.GetCart(g); B ends DEADLINE_EXCEEDED the function has not answered in time; withdraw g");
	stream_reply("p", "1", NULL, false);
	function_ends("p", GRPC_OK);
	expect("A gets 1; A ends OK");
}

Test(router, many_replies_cannot_answer_a_call_that_has_one)
{
	take_over_actions();
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.StreamedOut", "Watch", "q", NULL);
	expect("run shop.Cart.GetCart(p); report shop.Cart.GetCart was forwarded to shop.StreamedOut.Watch, which "
	       "streams its replies: the method that was called has one; A ends INTERNAL shop.Cart.GetCart was "
	       "forwarded to shop.StreamedOut.Watch, which streams its replies: the method that was called has one");
}

Test(router, an_input_that_streams_begins_before_it)
{
	take_over_actions();
	char name[] = "A";
	struct command *c = router_open(
		t.router,
		&(struct router_request){.method = spec_find_path(t.spec, SPAN("/shop.StreamedIn/Fill")),
					 .deadline_ms = -1},
		&sink, name);
	expect("run shop.StreamedIn.Fill()");
	cr_assert(command_send(c, SPAN("1")));
	t.full = true;
	cr_assert(!command_send(c, SPAN("2")));
	command_half_close(c);
	expect("input 1 to Fill; input 2 to Fill; half-close Fill");
	answer_reply("", ITEMS, "x", NULL);
	expect("A gets x; A ends OK");
}

Test(router, a_forward_to_an_input_that_streams_is_its_one_message)
{
	take_over_actions();
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.StreamedIn", "Fill", "f", NULL);
	expect("run shop.Cart.GetCart(p); run shop.StreamedIn.Fill(); input f to Fill; half-close Fill");
	answer_reply("", ITEMS, "x", NULL);
	expect("A gets x; A ends OK");
}

Test(router, metadata_that_is_the_requests_own_counts_as_none)
{
	take_over_actions();
	struct metadata metadata = {&echoed, 1};
	char name[] = "A";
	const struct spec_method *m = spec_find_path(t.spec, SPAN("/shop.StreamedOut/Watch"));
	router_call(t.router, m, SPAN("p"), &metadata, &sink, name);
	stream_reply("p", "1", NULL, true);
	function_ends("p", GRPC_OK);
	expect("run shop.StreamedOut.Watch(p); A gets 1; A ends OK");
	router_call(t.router, m, SPAN("p"), NULL, &sink, name);
	stream_reply("p", "1", NULL, true);
	function_ends("p", GRPC_OK);
	expect("run shop.StreamedOut.Watch(p); A gets 1; with k=v; A ends OK");
}

/* --- topics ---------------------------------------------------------------------------------------------------- */

static struct command *say_it(void)
{
	take_over_actions();
	struct command *c = call("/shop.Published/Say", "p", "A");
	expect("run shop.Published.Say(p)");
	return c;
}

Test(router, publishes_a_reply_before_it_passes_it_on)
{
	say_it();
	answer_reply("p", ITEMS, "items", EFFECTS({"shop.Wishes", "Wish", "e", true}));
	expect("run shop.Wishes.Wish(e)");
	answer_reply("e", ITEMS, "x", NULL);
	expect("publish items to said");
	run_loop();
	published(GRPC_OK);
	expect("A gets items; A ends OK");
}

Test(router, fails_a_call_whose_reply_is_not_published)
{
	say_it();
	answer_reply("p", ITEMS, "items", NULL);
	expect("publish items to said");
	published(GRPC_UNAVAILABLE);
	expect("A ends UNAVAILABLE not published");
}

Test(router, reports_a_reply_that_cannot_be_published)
{
	say_it();
	publisher_refuses = ERR_INVALID;
	answer_reply("p", ITEMS, "items", NULL);
	expect("publish items to said; report not that; A ends INTERNAL not that");
	publisher_refuses = ERR_LIMIT;
	call("/shop.Published/Say", "q", "B");
	answer_reply("q", ITEMS, "items", NULL);
	expect("run shop.Published.Say(q); publish items to said; report not that; B ends RESOURCE_EXHAUSTED not that");
	publisher_refuses = ERR_UNAVAILABLE;
	call("/shop.Published/Say", "r", "C");
	answer_reply("r", ITEMS, "items", NULL);
	expect("run shop.Published.Say(r); publish items to said; C ends UNAVAILABLE not that");
}

Test(router, publishes_no_failure_and_nothing_where_there_is_no_reply)
{
	say_it();
	answer_failure("p", "no", NULL);
	expect("A ends UNKNOWN failure no");
	call("/shop.Published/Say", "q", "B");
	answer("q", NULL, NULL);
	expect("run shop.Published.Say(q); B ends OK");
}

Test(router, what_is_forwarded_to_or_an_effect_publishes_nothing_of_its_own)
{
	take_over_actions();
	call("/shop.Cart/GetCart", "p", "A");
	answer_forward("p", "shop.Published", "Say", "f", EFFECTS({"shop.Published", "Say", "e", true}));
	expect("run shop.Cart.GetCart(p); run shop.Published.Say(e)");
	answer_reply("e", ITEMS, "x", NULL);
	expect("run shop.Published.Say(f)");
	answer_reply("f", ITEMS, "items", NULL);
	expect("A gets items; A ends OK");
}

Test(router, what_a_forward_answers_is_published_for_the_method_that_was_called)
{
	take_over_actions();
	call("/shop.Published/Watch", "p", "A");
	stream_forward("p", "shop.Published", "Say", "f");
	stream_reply("p", "2", NULL, false);
	expect("run shop.Published.Watch(p); run shop.Published.Say(f); hold Watch");
	answer_reply("f", ITEMS, "1", NULL);
	expect("publish 1 to watched");
	published(GRPC_OK);
	expect("A gets 1; unhold Watch; publish 2 to watched");
	function_ends("p", GRPC_OK);
	published(GRPC_OK);
	expect("A gets 2; A ends OK");
}

Test(router, a_forwards_answer_that_is_not_published_fails_the_call)
{
	take_over_actions();
	call("/shop.Published/Watch", "p", "A");
	stream_forward("p", "shop.Cart", "GetCart", "f");
	expect("run shop.Published.Watch(p); run shop.Cart.GetCart(f)");
	answer_reply("f", ITEMS, "1", NULL);
	expect("publish 1 to watched");
	published(GRPC_UNAVAILABLE);
	expect("A ends UNAVAILABLE not published; withdraw p");
}

Test(router, publishes_what_a_stream_answers_one_by_one)
{
	take_over_actions();
	call("/shop.Published/Watch", "p", "A");
	stream_reply("p", "1", NULL, false);
	stream_reply("p", "2", NULL, false);
	expect("run shop.Published.Watch(p); publish 1 to watched; hold Watch");
	published(GRPC_OK);
	expect("A gets 1; unhold Watch; publish 2 to watched");
	published(GRPC_UNAVAILABLE);
	expect("A ends UNAVAILABLE not published; withdraw p");
}

Test(router, a_client_that_leaves_does_not_stop_a_publication)
{
	struct command *c = say_it();
	answer_reply("p", ITEMS, "items", NULL);
	expect("publish items to said");
	command_cancel(c);
	run_loop();
	published(GRPC_OK);
	call("/shop.Published/Watch", "q", "B");
	c = find("q");
	stream_reply("q", "1", NULL, false);
	stream_reply("q", "2", NULL, false);
	expect("run shop.Published.Watch(q); publish 1 to watched; hold Watch");
	command_cancel(c);
	expect("withdraw q");
	run_loop();
	published(GRPC_OK);
	run_loop();
}

Test(router, publishes_what_a_delivery_is_answered)
{
	static const struct reply_sink delivery = {.on_end = on_end};
	take_over_actions();
	struct any event = {SPAN("type.googleapis.com/shop.User"), SPAN("p")};
	char name[] = "event";
	router_deliver(t.router, spec_find_path(t.spec, SPAN("/shop.Published/Say")), &event, NULL, &delivery, name);
	answer_reply("p", ITEMS, "items", NULL);
	expect("run shop.Published.Say(p); publish items to said");
	published(GRPC_OK);
	expect("event ends OK");
}
