/* Actions (contract, section 5): what one machine asks for, step by step. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME
#define RESPONSE(NAME) CLOUDSTATE__ACTION__ACTION_RESPONSE__RESPONSE_##NAME

static struct entity *e;
static struct buf log_text;
static struct entity_command command;
static bool full, gone;

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
	const char *name = strrchr(path, '/');
	say("open %s %lld", name + 1, (long long)deadline_ms);
}

static bool host_send(void *host, struct span message)
{
	struct arena a;
	(void)host;
	arena_init(&a, MIB);
	const Cloudstate__Action__ActionCommand *c =
		(const void *)grpc_unpack(&cloudstate__action__action_command__descriptor, &a, message);
	cr_assert(c);
	say("send %.*s.%.*s %s%.*s", SPAN_ARG(wire_span(c->service_name)), SPAN_ARG(wire_span(c->name)),
	    c->payload ? "with " : "alone", SPAN_ARG(wire_any(c->payload).value));
	for (size_t i = 0; c->metadata && i < c->metadata->n_entries; i++)
		say("entry %.*s%s", SPAN_ARG(wire_span(c->metadata->entries[i]->key)),
		    c->metadata->entries[i]->value_case == CLOUDSTATE__METADATA_ENTRY__VALUE_BYTES_VALUE ? " bytes"
													  : "");
	arena_release(&a);
	return !full;
}

static void host_half_close(void *host)
{
	(void)host;
	say("half-close");
}

static void host_hold_read(void *host, bool hold)
{
	(void)host;
	say(hold ? "hold" : "unhold");
}

static void host_reset(void *host)
{
	(void)host;
	say("reset");
}

static void host_answer(void *host, struct entity_command *c, struct entity_answer *answer)
{
	const Cloudstate__ClientAction *a = answer->action;
	(void)host;
	cr_assert_eq(c, &command);
	say("answer %s%s%s",
	    !a				    ? "nothing"
	    : a->action_case == ACTION(REPLY)   ? "reply"
	    : a->action_case == ACTION(FAILURE) ? "failure"
						: "forward",
	    answer->effect_count ? " with effects" : "", answer->more ? " and more" : "");
	arena_release(&answer->arena);
}

static void host_end(void *host, struct entity_command *c, const struct outcome *outcome)
{
	(void)host;
	cr_assert_eq(c, &command);
	cr_assert(!outcome->failure);
	say("end %s%s%.*s", grpc_code_name(outcome->code), outcome->message.n ? " " : "",
	    SPAN_ARG(outcome->message));
}

static void host_input_wanted(void *host, struct entity_command *c)
{
	(void)host;
	cr_assert_eq(c, &command);
	say("input wanted");
}

static void host_report(void *host, struct span text)
{
	(void)host;
	(void)text;
	say("report");
}

static void host_gone(void *host)
{
	(void)host;
	cr_assert(!gone);
	gone = true;
	say("gone");
}

static const struct entity_host host_ops = {
	.open = host_open,
	.send = host_send,
	.half_close = host_half_close,
	.hold_read = host_hold_read,
	.reset = host_reset,
	.answer = host_answer,
	.end = host_end,
	.input_wanted = host_input_wanted,
	.report = host_report,
	.gone = host_gone,
};

static void begin(void)
{
	log_setup(LOG_OFF, LOG_LOGFMT);
	buf_init(&log_text, MIB);
	full = gone = false;
	memset(&command, 0, sizeof command);
	command.name = SPAN("Do");
	command.payload = (struct any){SPAN("T"), SPAN("p")};
	command.deadline_ms = 700;
	e = entity_action.create(&(struct entity_config){
		.host = &host_ops, .clock = &clock_system, .service = SPAN("s.A"), .reply_max_bytes = MIB});
}

static void end(void)
{
	cr_assert_eq(log_text.n, 0u, "left: %s", buf_cstr(&log_text));
	e->ops->free(e);
	buf_release(&log_text);
}

TestSuite(action, .init = begin, .fini = end);

static void expect_at(const char *text, int line)
{
	const char *got = buf_cstr(&log_text);
	cr_assert(strcmp(got, text) == 0, "line %d:\n  expected: %s\n  got:      %s", line, text, got);
	buf_clear(&log_text);
}
#define expect(text) expect_at((text), __LINE__)

static void run(bool in, bool out)
{
	command.streams_in = in;
	command.streams_out = out;
	if (in)
		command.payload = (struct any){0};
	e->ops->command(e, &command);
}

static void respond(int what, bool effect)
{
	Cloudstate__Action__ActionResponse r = CLOUDSTATE__ACTION__ACTION_RESPONSE__INIT;
	Cloudstate__Failure failure = CLOUDSTATE__FAILURE__INIT;
	Cloudstate__Reply reply = CLOUDSTATE__REPLY__INIT;
	Cloudstate__Forward forward = CLOUDSTATE__FORWARD__INIT;
	Cloudstate__SideEffect side = CLOUDSTATE__SIDE_EFFECT__INIT, *sides[] = {&side};
	struct buf bytes;
	r.response_case = (unsigned)what;
	if (what == (int)RESPONSE(FAILURE))
		r.failure = &failure;
	else if (what == (int)RESPONSE(REPLY))
		r.reply = &reply;
	else if (what == (int)RESPONSE(FORWARD))
		r.forward = &forward;
	if (effect) {
		r.side_effects = sides;
		r.n_side_effects = 1;
	}
	buf_init(&bytes, MIB);
	cr_assert(wire_pack(&r.base, &bytes));
	e->ops->on_message(e, buf_span(&bytes));
	buf_release(&bytes);
}

static void function_ends(enum grpc_code code)
{
	e->ops->on_end(e, &(struct entity_end){.code = code, .message = code ? SPAN("why") : SPAN("")});
}

Test(action, unary_is_answered_at_the_functions_end)
{
	run(false, false);
	expect("open handleUnary 700; send s.A.Do with p; half-close");
	respond(RESPONSE(REPLY), true);
	expect("");
	function_ends(GRPC_OK);
	expect("answer reply with effects; gone");
}

Test(action, a_status_counts_more_than_the_message_before_it)
{
	run(false, false);
	respond(RESPONSE(REPLY), false);
	buf_clear(&log_text);
	function_ends(GRPC_ABORTED);
	expect("end ABORTED why; gone");
}

Test(action, an_end_without_a_message_is_an_empty_answer)
{
	run(true, false);
	expect("open handleStreamedIn -1; send s.A.Do alone");
	e->ops->half_close(e, &command);
	function_ends(GRPC_OK);
	expect("half-close; answer nothing; gone");
}

Test(action, opens_before_the_first_message)
{
	run(true, true);
	expect("open handleStreamed -1; send s.A.Do alone");
	cr_assert(e->ops->input(e, &command, &(struct any){SPAN("T"), SPAN("1")}));
	expect("send . with 1");
	cr_assert(e->ops->withdraw(e, &command));
	expect("reset; gone");
}

Test(action, passes_metadata_on)
{
	struct metadata_entry entries[] = {{SPAN("a"), SPAN("1"), false}, {SPAN("b"), SPAN("\0"), true}};
	struct metadata metadata = {entries, 2};
	command.metadata = &metadata;
	run(false, true);
	expect("open handleStreamedOut 700; send s.A.Do with p; entry a; entry b bytes; half-close");
	function_ends(GRPC_OK);
	expect("end OK; gone");
}

Test(action, streams_answers_until_a_failure)
{
	run(false, true);
	buf_clear(&log_text);
	respond(RESPONSE(REPLY), false);
	respond(0, true);
	respond(RESPONSE(FORWARD), false);
	expect("answer reply and more; answer nothing with effects and more; answer forward and more");
	respond(RESPONSE(FAILURE), true);
	expect("reset; answer failure with effects; gone");
}

Test(action, lets_input_wait_while_the_function_is_full)
{
	run(true, false);
	buf_clear(&log_text);
	full = true;
	cr_assert(!e->ops->input(e, &command, &(struct any){SPAN("T"), SPAN("1")}));
	e->ops->on_writable(e);
	expect("send . with 1; input wanted");
	e->ops->hold(e, &command, true);
	e->ops->hold(e, &command, false);
	expect("hold; unhold");
	cr_assert(e->ops->withdraw(e, &command));
	expect("reset; gone");
}

Test(action, breaks_off_what_is_no_response)
{
	run(false, true);
	buf_clear(&log_text);
	e->ops->on_message(e, SPAN("\xff\xff"));
	expect("report; reset; end INTERNAL action s.A.Do: malformed response, or too large to be unpacked; gone");
}

Test(action, breaks_off_a_second_response)
{
	run(false, false);
	respond(RESPONSE(REPLY), false);
	buf_clear(&log_text);
	respond(RESPONSE(REPLY), false);
	expect("report; reset; end INTERNAL action s.A.Do: a second response in a call that has one; gone");
}

Test(action, a_function_that_is_not_there_ends_it)
{
	run(true, true);
	buf_clear(&log_text);
	e->ops->on_end(e, &(struct entity_end){
				  .code = GRPC_UNAVAILABLE, .message = SPAN("no function"), .unreached = true});
	expect("end UNAVAILABLE no function; gone");
}
