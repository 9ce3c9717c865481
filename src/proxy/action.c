/* Actions (contract, section 5): stateless, one call of the function for each command, of the method's streaming
 * kind. A machine lives as long as its one command:
 *
 *	command() ─▶ call open, first message sent ─▶ input(), answers ─▶ the function's end ─▶ gone
 *	                                               └─ failure of a stream, garbage, withdraw() ─▶ reset ─▶ gone
 *
 * An answer that does not stream is given when the function has ended its call well, for its status counts. */
#include <config.h>

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

#define MAGIC 0x4163746eu
#define REPLY_ARENA_FACTOR 4

typedef Cloudstate__Action__ActionCommand action_command;
typedef Cloudstate__Action__ActionResponse action_response;
#define RESPONSE(NAME) CLOUDSTATE__ACTION__ACTION_RESPONSE__RESPONSE_##NAME
#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME

struct action {
	struct entity base;
	struct entity_config config;
	struct entity_command *command;
	bool opened;
	bool has_answer; /* of a method that does not stream out, until the function's end */
	struct entity_answer answer;
};

static struct action *machine(struct entity *e)
{
	return OBJ_CAST(struct action, e, MAGIC);
}

/* --- to the function -------------------------------------------------------------------------------- */

static bool send(struct action *a, const action_command *message, bool *ret_more)
{
	struct buf out;
	buf_init(&out, SIZE_MAX / 2); /* what it holds has passed the limits of a front or of the function */
	bool packed = wire_pack(&message->base, &out);
	if (packed)
		*ret_more = a->config.host->send(a->config.host_arg, buf_span(&out));
	buf_release(&out);
	return packed;
}

static Cloudstate__Metadata *make_metadata(struct arena *arena, const struct metadata *from)
{
	Cloudstate__Metadata *m = arena_alloc(arena, sizeof *m);
	Cloudstate__MetadataEntry *entries = arena_alloc(arena, from->n * sizeof *entries);
	Cloudstate__MetadataEntry **list = arena_alloc(arena, from->n * sizeof *list);
	if (!m || !entries || !list)
		return NULL;
	cloudstate__metadata__init(m);
	m->n_entries = from->n;
	m->entries = list;
	for (size_t i = 0; i < from->n; i++) {
		const struct metadata_entry *e = &from->items[i];
		cloudstate__metadata_entry__init(&entries[i]);
		entries[i].key = wire_bytes(e->key);
		if (e->bytes) {
			entries[i].value_case = CLOUDSTATE__METADATA_ENTRY__VALUE_BYTES_VALUE;
			entries[i].bytes_value = wire_bytes(e->value);
		} else {
			entries[i].value_case = CLOUDSTATE__METADATA_ENTRY__VALUE_STRING_VALUE;
			entries[i].string_value = wire_bytes(e->value);
		}
		list[i] = &entries[i];
	}
	return m;
}

/* False: no memory. */
static bool set_metadata(struct arena *arena, const struct metadata *metadata, action_command *message)
{
	if (!metadata || !metadata->n)
		return true;
	message->metadata = make_metadata(arena, metadata);
	return message->metadata != NULL;
}

/* The first message: what is called, and all of the request where its input does not stream. */
static bool send_first(struct action *a)
{
	const struct entity_command *c = a->command;
	action_command first = CLOUDSTATE__ACTION__ACTION_COMMAND__INIT;
	Google__Protobuf__Any payload;
	struct arena arena;
	bool more, sent = true;
	arena_init(&arena, 16 * LIMIT_HEADER_BYTES);
	first.service_name = wire_bytes(a->config.service);
	first.name = wire_bytes(c->name);
	if (!c->metadata_of_input)
		sent = set_metadata(&arena, c->metadata, &first);
	if (!c->streams_in) {
		wire_any_set(&payload, c->payload);
		first.payload = &payload;
	}
	sent = sent && send(a, &first, &more);
	arena_release(&arena);
	return sent;
}

static void end(struct action *a, enum grpc_code code, struct span text)
{
	struct entity_command *c = a->command;
	a->command = NULL;
	a->config.host->end(a->config.host_arg, c, &(struct outcome){.code = code, .message = text});
	a->config.host->gone(a->config.host_arg);
}

static void break_off(struct action *a, enum grpc_code code, struct span text)
{
	a->config.host->reset(a->config.host_arg);
	end(a, code, text);
}

static void open_call(struct action *a)
{
	const struct entity_command *c = a->command;
	const char *path = c->streams_in ? c->streams_out ? "/cloudstate.action.ActionProtocol/handleStreamed"
							  : "/cloudstate.action.ActionProtocol/handleStreamedIn"
			   : c->streams_out ? "/cloudstate.action.ActionProtocol/handleStreamedOut"
					    : "/cloudstate.action.ActionProtocol/handleUnary";
	a->opened = true;
	a->config.host->open(a->config.host_arg, path, c->streams_in ? -1 : c->deadline_ms);
	if (!send_first(a))
		break_off(a, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory for the command"));
	else if (!c->streams_in)
		a->config.host->half_close(a->config.host_arg);
}

static void command(struct entity *e, struct entity_command *c)
{
	struct action *a = machine(e);
	must(!a->command);
	a->command = c;
	if (c->streams_in && plant("action-opened-at-first-message"))
		return;
	open_call(a);
}

static bool input(struct entity *e, struct entity_command *c, const struct any *payload)
{
	struct action *a = machine(e);
	action_command message = CLOUDSTATE__ACTION__ACTION_COMMAND__INIT;
	Google__Protobuf__Any any;
	struct arena arena;
	bool more = true;
	must(a->command == c && c->streams_in);
	if (!a->opened)
		open_call(a);
	if (!a->command)
		return true;
	arena_init(&arena, 16 * LIMIT_HEADER_BYTES);
	wire_any_set(&any, *payload);
	message.payload = &any;
	if ((c->metadata_of_input && !set_metadata(&arena, c->metadata, &message)) || !send(a, &message, &more))
		break_off(a, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory for a message"));
	arena_release(&arena);
	return more;
}

static void half_close(struct entity *e, struct entity_command *c)
{
	struct action *a = machine(e);
	must(a->command == c && c->streams_in);
	if (!a->opened)
		open_call(a);
	if (a->command)
		a->config.host->half_close(a->config.host_arg);
}

static void hold(struct entity *e, struct entity_command *c, bool hold)
{
	struct action *a = machine(e);
	must(a->command == c);
	if (a->opened)
		a->config.host->hold_read(a->config.host_arg, hold);
}

static bool withdraw(struct entity *e, struct entity_command *c)
{
	struct action *a = machine(e);
	must(a->command == c);
	a->command = NULL;
	if (a->opened)
		a->config.host->reset(a->config.host_arg);
	a->config.host->gone(a->config.host_arg);
	return true;
}

/* --- from the function ---------------------------------------------------------------------------------- */

/* What the function did wrong, for its author and for the client. */
static void fault(struct action *a, const char *what)
{
	char text[ERR_TEXT_MAX];
	snprintf(text, sizeof text, "action %.*s.%.*s: %s", SPAN_ARG(a->config.service),
		 SPAN_ARG(a->command->name), what);
	a->config.host->report(a->config.host_arg, span_str(text));
	break_off(a, GRPC_INTERNAL, span_str(text));
}

/* A response as an answer of any kind; false: malformed, or too large. */
static bool make_answer(struct action *a, struct span message, struct entity_answer *ret)
{
	*ret = (struct entity_answer){.bytes = message.n};
	arena_init(&ret->arena, a->config.reply_max_bytes * REPLY_ARENA_FACTOR);
	action_response *r = (action_response *)(void *)grpc_unpack(
		&cloudstate__action__action_response__descriptor, &ret->arena, message);
	Cloudstate__ClientAction *action = arena_alloc(&ret->arena, sizeof *action);
	if (!r || !action) {
		arena_release(&ret->arena);
		return false;
	}
	cloudstate__client_action__init(action);
	ret->action = action;
	ret->effects = r->side_effects;
	ret->effect_count = r->n_side_effects;
	switch (r->response_case) {
	case RESPONSE(REPLY):
		action->action_case = ACTION(REPLY);
		action->reply = r->reply;
		break;
	case RESPONSE(FAILURE):
		action->action_case = ACTION(FAILURE);
		action->failure = r->failure;
		break;
	case RESPONSE(FORWARD):
		action->action_case = ACTION(FORWARD);
		action->forward = r->forward;
		break;
	default: ret->action = NULL; break;
	}
	return true;
}

static void give_last(struct action *a, struct entity_answer *answer)
{
	struct entity_command *c = a->command;
	a->command = NULL;
	answer->more = false;
	a->config.host->answer(a->config.host_arg, c, answer);
	a->config.host->gone(a->config.host_arg);
}

static void on_message(struct entity *e, struct span message)
{
	struct action *a = machine(e);
	struct entity_answer answer;
	if (a->has_answer) {
		fault(a, "a second response in a call that has one");
		return;
	}
	if (!make_answer(a, message, &answer)) {
		fault(a, "malformed response, or too large to be unpacked");
		return;
	}
	bool failed = answer.action && answer.action->action_case == ACTION(FAILURE);
	if (failed && (a->command->streams_in || a->command->streams_out)) {
		a->config.host->reset(a->config.host_arg);
		give_last(a, &answer);
	} else if (a->command->streams_out) {
		answer.more = true;
		a->config.host->answer(a->config.host_arg, a->command, &answer);
	} else {
		a->has_answer = true;
		a->answer = answer;
	}
}

static void on_end(struct entity *e, const struct entity_end *how)
{
	struct action *a = machine(e);
	if (how->too_large) {
		struct buf text;
		entity_report_too_large(&a->config, a->command->name, how, &text);
		end(a, GRPC_RESOURCE_EXHAUSTED, buf_span(&text));
		buf_release(&text);
		return;
	}
	if (how->code != GRPC_OK || a->command->streams_out) {
		end(a, how->code, how->message);
		return;
	}
	struct entity_answer answer = {0};
	if (a->has_answer)
		answer = a->answer;
	else
		arena_init(&answer.arena, 0);
	a->has_answer = false;
	give_last(a, &answer);
}

static void on_writable(struct entity *e)
{
	struct action *a = machine(e);
	if (a->command && a->command->streams_in)
		a->config.host->input_wanted(a->config.host_arg, a->command);
}

/* --- life ------------------------------------------------------------------------------------------------ */

static size_t waiting(const struct entity *e)
{
	(void)e;
	return 0;
}

static bool idle(const struct entity *e)
{
	(void)e;
	return false;
}

static void nothing(struct entity *e)
{
	(void)e;
}

static struct entity *create(const struct entity_config *config)
{
	struct action *a = mem_xalloc(sizeof *a);
	a->base.ops = &entity_action;
	a->base.magic = MAGIC;
	a->config = *config;
	return &a->base;
}

static void destroy(struct entity *e)
{
	struct action *a = machine(e);
	if (a->has_answer)
		arena_release(&a->answer.arena);
	a->base.magic = 0;
	mem_free(a);
}

const struct entity_ops entity_action = {
	.type = "cloudstate.action.ActionProtocol",
	.name = "action",
	.takes_metadata = true,
	.streamed_in = true,
	.streamed_out = true,
	.create = create,
	.free = destroy,
	.command = command,
	.withdraw = withdraw,
	.input = input,
	.half_close = half_close,
	.hold = hold,
	.waiting = waiting,
	.idle = idle,
	.passivate = nothing,
	.on_message = on_message,
	.on_end = on_end,
	.on_writable = on_writable,
	.on_time = nothing,
};
