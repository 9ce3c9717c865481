#include <config.h>

#include "crdt_rig.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/random.h"
#include "proxy/wire.h"

typedef Cloudstate__Crdt__CrdtStreamIn in_t;
typedef Cloudstate__Crdt__CrdtStreamOut out_t;
#define IN(NAME) CLOUDSTATE__CRDT__CRDT_STREAM_IN__MESSAGE_##NAME
#define OUT(NAME) CLOUDSTATE__CRDT__CRDT_STREAM_OUT__MESSAGE_##NAME
#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME

static const uint8_t self[16] = {0xaa};

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

static void say_delta(struct rig *r, const char *what, const delta_t *d)
{
	char *text = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&text, &n);
	if (d)
		model_delta_print(d, out);
	fclose(out);
	say(r, "%s%s%s", what, n ? " " : "", text);
	free(text);
}

/* --- the host ---------------------------------------------------------------------------------------------- */

static void host_open(void *host, const char *path, int64_t deadline_ms)
{
	cr_assert_str_eq(path, "/cloudstate.crdt.Crdt/handle");
	cr_assert_lt(deadline_ms, 0);
	say(host, "open");
}

static bool host_send(void *host, struct span message)
{
	struct rig *r = host;
	const in_t *in = (const void *)crdt_unpack(&cloudstate__crdt__crdt_stream_in__descriptor, &r->arena, message);
	cr_assert(in);
	switch (in->message_case) {
	case IN(INIT):
		cr_assert(span_eq_str(wire_span(in->init->service_name), "chat.Room"));
		cr_assert(span_eq_str(wire_span(in->init->entity_id), "one"));
		say_delta(r, "init", in->init->delta);
		break;
	case IN(DELTA):
		say_delta(r, "delta", in->delta);
		break;
	case IN(DELETE):
		say(r, "delete");
		break;
	case IN(COMMAND):
		cr_assert(span_eq_str(wire_span(in->command->entity_id), "one"));
		cr_assert(span_eq_str(wire_span(in->command->payload->type_url), "Payload"));
		cr_assert(!in->command->metadata);
		say(r, "command %lld:%.*s%s", (long long)in->command->id, SPAN_ARG(wire_span(in->command->name)),
		    in->command->streamed ? " streamed" : "");
		break;
	case IN(STREAM_CANCELLED):
		cr_assert(span_eq_str(wire_span(in->stream_cancelled->entity_id), "one"));
		say(r, "cancel %lld", (long long)in->stream_cancelled->id);
		break;
	default:
		cr_assert_fail("an empty message was sent");
	}
	return !r->full;
}

static void host_half_close(void *host)
{
	say(host, "half-close");
}

static void host_hold_read(void *host, bool hold)
{
	(void)host; /* how much of it waits where is not what these tests are about */
	(void)hold;
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

static void host_append(void *host, const struct entity_append *a)
{
	struct rig *r = host;
	char what[64];
	snprintf(what, sizeof what, "append %s",
		 a->expect == CLIENT_NONE  ? "first"
		 : a->expect == CLIENT_ANY ? "any"
					   : "exactly");
	if (a->snapshot) {
		struct crdt_fold *f = NULL;
		cr_assert_eq(a->event_count, 0);
		cr_assert_eq(crdt_fold_load(a->snapshot->data, &f, NULL), ERR_OK);
		r->snapshot_sessions = crdt_fold_session_count(f);
		crdt_fold_free(f);
		say(r, "%s %llu snapshot", what, (unsigned long long)a->expected_sequence);
		return;
	}
	cr_assert_eq(a->event_count, 1);
	const struct client_record *e = a->events;
	char session[UUID_TEXT_BYTES];
	uuid_format(r->session, session);
	cr_assert_eq(a->fenced, r->e && r->peers.version > 0);
	cr_assert(e->metadata_count == 3 || e->metadata_count == 4);
	cr_assert(span_eq_str(e->metadata[0].key, "cairn-kind"));
	cr_assert(span_eq_str(e->metadata[0].value, "crdt"));
	cr_assert(span_eq_str(e->metadata[1].key, "cairn-session"));
	cr_assert(span_eq_str(e->metadata[1].value, session));
	cr_assert(span_eq_str(e->metadata[2].key, "cairn-observed"));
	buf_clear(&r->appended);
	cr_assert(!buf_append_span(&r->appended, e->data));
	if (span_eq_str(e->type, "type.googleapis.com/cloudstate.crdt.CrdtDelete")) {
		say(r, "%s delete", what);
		return;
	}
	cr_assert(span_eq_str(e->type, "type.googleapis.com/cloudstate.crdt.CrdtDelta"));
	say_delta(r, what,
		  (const void *)crdt_unpack(&cloudstate__crdt__crdt_delta__descriptor, &r->arena, e->data));
	buf_printf(&r->log, " seen %.*s", SPAN_ARG(e->metadata[2].value));
	if (e->metadata_count == 4) {
		cr_assert(span_eq_str(e->metadata[3].key, "cairn-confirm"));
		buf_printf(&r->log, " confirm %.*s", SPAN_ARG(e->metadata[3].value));
	}
}

static const char *name_of(struct rig *r, struct entity_command *c)
{
	return r->names[c - r->commands];
}

static void host_answer(void *host, struct entity_command *c, struct entity_answer *a)
{
	struct rig *r = host;
	const Cloudstate__ClientAction *action = a->action;
	struct span text = SPAN("nothing");
	if (action && action->action_case == ACTION(REPLY))
		text = wire_span(action->reply->payload->value);
	else if (action && action->action_case == ACTION(FAILURE))
		text = wire_span(action->failure->description);
	say(r, "%s %s %.*s%s%s", a->more ? "more" : "answer", name_of(r, c), SPAN_ARG(text),
	    action && action->action_case == ACTION(FAILURE) ? " failed" : "", a->effect_count ? " effect" : "");
	arena_release(&a->arena);
}

static void host_end(void *host, struct entity_command *c, const struct outcome *o)
{
	struct rig *r = host;
	say(r, "end %s %s%s%.*s%s", name_of(r, c), grpc_code_name(o->code), o->message.n ? " " : "",
	    SPAN_ARG(o->message), o->failure ? " failed" : "");
}

static void host_wake_at(void *host, struct mono_time at)
{
	struct rig *r = host;
	r->wake_us = at.us;
}

static void host_await_peers(void *host, bool wanted)
{
	struct rig *r = host;
	r->awaiting = wanted;
}

static void host_report(void *host, struct span text)
{
	say(host, "report %.*s", SPAN_ARG(text));
}

static void host_gone(void *host)
{
	struct rig *r = host;
	r->gone = true;
	say(r, "gone");
}

static const struct entity_host host_ops = {
	.open = host_open,
	.send = host_send,
	.half_close = host_half_close,
	.hold_read = host_hold_read,
	.reset = host_reset,
	.load = host_load,
	.load_cancel = host_load_cancel,
	.append = host_append,
	.answer = host_answer,
	.end = host_end,
	.wake_at = host_wake_at,
	.await_peers = host_await_peers,
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

static void init(struct rig *r, bool peers, size_t others)
{
	memset(r, 0, sizeof *r);
	memcpy(r->session, self, sizeof r->session);
	for (size_t i = 0; i < others; i++)
		r->others[i].session[0] = (uint8_t)(i + 1);
	r->peers = (struct entity_peers){.others = r->others, .count = others, .version = peers};
	buf_init(&r->log, MIB);
	buf_init(&r->appended, MIB);
	arena_init(&r->arena, 64 * MIB);
	r->now_us = 1000000;
	r->clock = (struct clock){mono_now, wall_now, r};
	r->e = entity_crdt.create(&(struct entity_config){.host = &host_ops,
							  .host_arg = r,
							  .clock = &r->clock,
							  .service = SPAN("chat.Room"),
							  .entity_id = SPAN("one"),
							  .stream = SPAN("room|one"),
							  .session = r->session,
							  .peers = peers ? &r->peers : NULL,
							  .passivation_ms = RIG_PASSIVATION_MS,
							  .command_timeout_ms = RIG_TIMEOUT_MS,
							  .close_grace_ms = RIG_GRACE_MS,
							  .reply_max_bytes = LIMIT_FUNCTION_MESSAGE_BYTES});
}

void rig_init(struct rig *r)
{
	init(r, false, 0);
}

void rig_init_peers(struct rig *r, size_t others)
{
	init(r, true, others);
}

static void tell_peers(struct rig *r)
{
	r->peers.version++;
	entity_crdt.on_peers(r->e);
}

void rig_peers(struct rig *r, bool known, bool alive)
{
	r->peers.known = known;
	r->peers.alive = alive;
	tell_peers(r);
}

void rig_peer_has(struct rig *r, unsigned session, uint64_t position)
{
	for (size_t i = 0; i < r->peers.count; i++)
		if (r->others[i].session[0] == session)
			r->others[i].applied = position;
	entity_crdt.on_peers(r->e);
}

void rig_peer_ends(struct rig *r, unsigned session)
{
	for (size_t i = r->peers.count; i-- > 0;)
		if (r->others[i].session[0] == session)
			r->others[i] = r->others[--r->peers.count];
	tell_peers(r);
}

void rig_session(struct rig *r, uint8_t first_byte)
{
	r->session[0] = first_byte;
}

void rig_release(struct rig *r)
{
	entity_crdt.free(r->e);
	buf_release(&r->log);
	buf_release(&r->appended);
	arena_release(&r->arena);
}

void rig_expect_at(struct rig *r, const char *text, const char *file, int line)
{
	const char *got = buf_cstr(&r->log);
	cr_assert_str_eq(got, text, "%s:%d:\n  got      %s\n  expected %s", file, line, got, text);
	buf_clear(&r->log);
}

/* --- what it is told ----------------------------------------------------------------------------------------- */

struct entity_command *rig_command(struct rig *r, const char *name, bool streamed)
{
	struct entity_command *c = &r->commands[r->command_count];
	char *copy = r->names[r->command_count++];
	snprintf(copy, sizeof r->names[0], "%s", name);
	c->name = span_str(copy);
	c->payload = (struct any){SPAN("Payload"), span_str(copy)};
	c->streams_out = streamed;
	entity_crdt.command(r->e, c);
	return c;
}

void rig_withdraw(struct rig *r, struct entity_command *c)
{
	if (entity_crdt.withdraw(r->e, c))
		say(r, "back %s", name_of(r, c));
}

void rig_loaded(struct rig *r, uint64_t sequence)
{
	entity_crdt.on_loaded(r->e, sequence);
}

void rig_appended(struct rig *r, uint64_t sequence)
{
	entity_crdt.on_appended(r->e, &(struct client_error){.code = GRPC_OK}, sequence, sequence);
}

void rig_refused(struct rig *r, enum grpc_code code, bool stale)
{
	entity_crdt.on_appended(r->e,
				&(struct client_error){.code = code,
						       .text = SPAN("not kept"),
						       .has_sequence_found = stale,
						       .sequence_found = 9},
				0, 0);
}

void rig_fenced(struct rig *r)
{
	entity_crdt.on_appended(r->e,
				&(struct client_error){.code = GRPC_FAILED_PRECONDITION,
						       .text = SPAN("fence"),
						       .has_fence_found = true},
				0, 0);
}

void rig_end(struct rig *r)
{
	entity_crdt.on_end(r->e, &(struct entity_end){.code = GRPC_OK});
}

void rig_end_too_large(struct rig *r)
{
	entity_crdt.on_end(r->e, &(struct entity_end){.code = GRPC_RESOURCE_EXHAUSTED,
						      .message = SPAN("20 bytes, above 10"),
						      .too_large = true});
}

void rig_pass(struct rig *r, int64_t ms)
{
	r->now_us += ms * 1000;
	entity_crdt.on_time(r->e);
}

static void put_text(struct buf *b, unsigned field, const char *text)
{
	cr_assert(!buf_append_byte(b, (uint8_t)(field << 3 | 2)));
	cr_assert(!buf_append_byte(b, (uint8_t)strlen(text)));
	cr_assert(!buf_append_str(b, text));
}

/* A record's metadata field: Body's field 3 is a map entry (record.proto). */
static void put_metadata(struct buf *b, const char *key, const char *value)
{
	struct buf entry;
	buf_init(&entry, KIB);
	put_text(&entry, 1, key);
	put_text(&entry, 2, value);
	cr_assert(!buf_append_byte(b, 3 << 3 | 2));
	cr_assert(!buf_append_byte(b, (uint8_t)entry.n));
	cr_assert(!buf_append_span(b, buf_span(&entry)));
	buf_release(&entry);
}

void rig_record(struct rig *r, bool follow, unsigned session, uint64_t sequence, uint64_t observed,
		const delta_t *delta)
{
	struct buf metadata, data;
	char id[UUID_TEXT_BYTES], number[24];
	uint8_t uuid[16] = {session ? (uint8_t)session : self[0]};
	struct record_view view = {
		.kind = RECORD_EVENT, .sequence = sequence, .position = sequence, .stream = SPAN("room|one")};
	buf_init(&metadata, KIB);
	buf_init(&data, MIB);
	uuid_format(uuid, id);
	snprintf(number, sizeof number, "%llu", (unsigned long long)observed);
	put_metadata(&metadata, "cairn-kind", "crdt");
	put_metadata(&metadata, "cairn-session", id);
	put_metadata(&metadata, "cairn-observed", number);
	view.type = delta ? SPAN("type.googleapis.com/cloudstate.crdt.CrdtDelta")
			  : SPAN("type.googleapis.com/cloudstate.crdt.CrdtDelete");
	if (delta)
		cr_assert(wire_pack(&delta->base, &data));
	view.data = buf_span(&data);
	view.metadata_fields = buf_span(&metadata);
	if (follow)
		entity_crdt.on_follow(r->e, &view);
	else
		entity_crdt.on_record(r->e, &view);
	buf_release(&metadata);
	buf_release(&data);
}

void rig_record_as(struct rig *r, const char *kind, const char *type)
{
	struct buf metadata;
	buf_init(&metadata, KIB);
	if (kind)
		put_metadata(&metadata, "cairn-kind", kind);
	entity_crdt.on_record(r->e, &(struct record_view){.kind = RECORD_EVENT,
							  .sequence = 1,
							  .stream = SPAN("room|one"),
							  .type = span_str(type),
							  .metadata_fields = buf_span(&metadata)});
	buf_release(&metadata);
}

/* --- messages of the function -------------------------------------------------------------------------------- */

void rig_bytes(struct rig *r, struct span bytes)
{
	entity_crdt.on_message(r->e, bytes);
}

static void put(struct rig *r, out_t *out)
{
	struct buf bytes;
	buf_init(&bytes, MIB);
	cr_assert(wire_pack(&out->base, &bytes));
	rig_bytes(r, buf_span(&bytes));
	buf_release(&bytes);
}

struct action {
	Cloudstate__ClientAction action;
	Cloudstate__Reply reply;
	Cloudstate__Failure failure;
	Google__Protobuf__Any payload;
};

static Cloudstate__ClientAction *action_of(struct action *a, const char *text, bool failure)
{
	cloudstate__client_action__init(&a->action);
	cloudstate__reply__init(&a->reply);
	cloudstate__failure__init(&a->failure);
	if (!text)
		return NULL;
	wire_any_set(&a->payload, (struct any){SPAN("Reply"), span_str(text)});
	a->reply.payload = &a->payload;
	a->failure.description = wire_bytes(span_str(text));
	a->action.action_case = failure ? ACTION(FAILURE) : ACTION(REPLY);
	if (failure)
		a->action.failure = &a->failure;
	else
		a->action.reply = &a->reply;
	return &a->action;
}

static void put_reply(struct rig *r, int64_t id, const char *text, bool failure, bool streamed, delta_t *change,
		      bool delete)
{
	out_t out = CLOUDSTATE__CRDT__CRDT_STREAM_OUT__INIT;
	Cloudstate__Crdt__CrdtReply reply = CLOUDSTATE__CRDT__CRDT_REPLY__INIT;
	Cloudstate__Crdt__CrdtStateAction state = CLOUDSTATE__CRDT__CRDT_STATE_ACTION__INIT;
	Cloudstate__Crdt__CrdtDelete deleted = CLOUDSTATE__CRDT__CRDT_DELETE__INIT;
	Cloudstate__SideEffect effect = CLOUDSTATE__SIDE_EFFECT__INIT, *effects = &effect;
	struct action a;
	reply.command_id = id;
	reply.client_action = action_of(&a, text, failure);
	reply.streamed = streamed;
	reply.n_side_effects = r->effect;
	reply.side_effects = &effects;
	if (change) {
		state.action_case = CLOUDSTATE__CRDT__CRDT_STATE_ACTION__ACTION_UPDATE;
		state.update = change;
	} else if (delete) {
		state.action_case = CLOUDSTATE__CRDT__CRDT_STATE_ACTION__ACTION_DELETE;
		state.delete_ = &deleted;
	}
	state.write_consistency = r->consistency;
	if (change || delete)
		reply.state_action = &state;
	out.message_case = OUT(REPLY);
	out.reply = &reply;
	put(r, &out);
}

void rig_reply(struct rig *r, int64_t id, const char *text, delta_t *change)
{
	put_reply(r, id, text, false, false, change, false);
}

void rig_streamed_reply(struct rig *r, int64_t id, const char *text, delta_t *change)
{
	put_reply(r, id, text, false, true, change, false);
}

void rig_failing_reply(struct rig *r, int64_t id, const char *text, bool streamed)
{
	put_reply(r, id, text, true, streamed, NULL, false);
}

void rig_deleting_reply(struct rig *r, int64_t id, const char *text)
{
	put_reply(r, id, text, false, false, NULL, true);
}

static void put_streamed(struct rig *r, int64_t id, const char *text, bool failure, bool end)
{
	out_t out = CLOUDSTATE__CRDT__CRDT_STREAM_OUT__INIT;
	Cloudstate__Crdt__CrdtStreamedMessage m = CLOUDSTATE__CRDT__CRDT_STREAMED_MESSAGE__INIT;
	struct action a;
	m.command_id = id;
	m.client_action = action_of(&a, text, failure);
	m.end_stream = end;
	out.message_case = OUT(STREAMED_MESSAGE);
	out.streamed_message = &m;
	put(r, &out);
}

void rig_streamed(struct rig *r, int64_t id, const char *text, bool end)
{
	put_streamed(r, id, text, false, end);
}

void rig_streamed_failure(struct rig *r, int64_t id, const char *text)
{
	put_streamed(r, id, text, true, false);
}

void rig_cancel_response(struct rig *r, int64_t id, delta_t *change)
{
	out_t out = CLOUDSTATE__CRDT__CRDT_STREAM_OUT__INIT;
	Cloudstate__Crdt__CrdtStreamCancelledResponse m = CLOUDSTATE__CRDT__CRDT_STREAM_CANCELLED_RESPONSE__INIT;
	Cloudstate__Crdt__CrdtStateAction state = CLOUDSTATE__CRDT__CRDT_STATE_ACTION__INIT;
	m.command_id = id;
	if (change) {
		state.action_case = CLOUDSTATE__CRDT__CRDT_STATE_ACTION__ACTION_UPDATE;
		state.update = change;
		m.state_action = &state;
	}
	out.message_case = OUT(STREAM_CANCELLED_RESPONSE);
	out.stream_cancelled_response = &m;
	put(r, &out);
}

void rig_failure(struct rig *r, int64_t id, const char *text)
{
	out_t out = CLOUDSTATE__CRDT__CRDT_STREAM_OUT__INIT;
	Cloudstate__Failure f = CLOUDSTATE__FAILURE__INIT;
	f.command_id = id;
	f.description = wire_bytes(span_str(text));
	out.message_case = OUT(FAILURE);
	out.failure = &f;
	put(r, &out);
}

/* --- deltas ---------------------------------------------------------------------------------------------------- */

delta_t *rig_counter(struct rig *r, uint64_t increment)
{
	delta_t *d = model_delta(&r->arena, CRDT_GCOUNTER);
	d->gcounter->increment = increment;
	return d;
}

delta_t *rig_register(struct rig *r, unsigned value, int64_t clock)
{
	delta_t *d = model_delta(&r->arena, CRDT_LWWREGISTER);
	d->lwwregister->value = model_key(&r->arena, value);
	d->lwwregister->clock = CLOUDSTATE__CRDT__CRDT_CLOCK__CUSTOM;
	d->lwwregister->custom_clock_value = clock;
	return d;
}

delta_t *rig_vote(struct rig *r, bool yes)
{
	delta_t *d = model_delta(&r->arena, CRDT_VOTE);
	d->vote->self_vote = yes;
	return d;
}
