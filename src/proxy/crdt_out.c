/* What a CRDT's function writes (contract, section 7, rules 3 to 8). */
#include <config.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "proxy/crdt.h"

#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME
#define STATE(NAME) CLOUDSTATE__CRDT__CRDT_STATE_ACTION__ACTION_##NAME
/* What an encoded record has besides its data: type, stream, metadata, fixed fields. */
#define RECORD_OVERHEAD_BYTES (LIMIT_STREAM_NAME_BYTES + 1 * KIB)

static void finish(struct crdt *c);

void crdt_out_drop(struct crdt *c)
{
	arena_release(&c->arena);
	mem_free(c->wait);
	c->wait = NULL;
	c->out = NULL;
	c->flight = NULL;
	c->change = NULL;
}

static bool is_failure(const Cloudstate__ClientAction *action)
{
	return action && action->action_case == ACTION(FAILURE);
}

/* --- state actions ---------------------------------------------------------------------------------------- */

/* May this own change, of a function that knew everything, come out differently? Only then is it worth looking
 * for what to put right. */
static bool may_differ(const struct Cloudstate__Crdt__CrdtDelta *d)
{
	switch ((enum crdt_type)d->delta_case) {
	case CRDT_LWWREGISTER:
	case CRDT_VOTE:
		return true;
	case CRDT_ORMAP:
		for (size_t i = 0; i < d->ormap->n_updated; i++)
			if (d->ormap->updated[i]->delta && may_differ(d->ormap->updated[i]->delta))
				return true;
		for (size_t i = 0; i < d->ormap->n_added; i++)
			if (d->ormap->added[i]->delta && may_differ(d->ormap->added[i]->delta))
				return true;
		return false;
	default:
		return false;
	}
}

static const Cloudstate__Crdt__CrdtStateAction *action_of(const crdt_out *out)
{
	return out->message_case == CRDT_OUT(REPLY) ? out->reply->state_action
						    : out->stream_cancelled_response->state_action;
}

/* Nobody waits for the answer to a cancellation. */
static void append(struct crdt *c, bool delete, struct span bytes)
{
	struct crdt_text text;
	struct client_record record;
	if (!crdt_peers_alive(c)) {
		crdt_await_session(c);
		return;
	}
	memcpy(c->session, c->config.session, sizeof c->session);
	c->change_bytes = bytes.n;
	mem_free(c->wait);
	c->wait = c->out->message_case == CRDT_OUT(REPLY) ? crdt_wait_new(c, action_of(c->out)->write_consistency)
							  : NULL;
	crdt_record_make(c, delete, bytes, !c->wait ? NULL : c->wait->all ? "all" : "majority", &text, &record);
	c->work = CRDT_APPENDING;
	c->config.host->append(
		c->config.host_arg,
		&(struct entity_append){.expect = crdt_fold_type(c->fold) ? CLIENT_ANY : CLIENT_NONE,
					.events = &record,
					.event_count = 1,
					.fenced = c->config.peers && !plant("crdt-not-fenced")});
}

static void fault_of(struct crdt *c, const char *why)
{
	crdt_report(c, "%s", why);
	crdt_fault(c);
	crdt_out_drop(c);
}

/* The change cannot be kept though the function did nothing wrong: as an append that failed. */
void crdt_give_up(struct crdt *c, enum grpc_code code, struct span text)
{
	LOG_AT(code == GRPC_UNAVAILABLE ? LOG_DEBUG : LOG_WARN, "a CRDT's change was not kept",
	       LOG_SPAN("stream", c->config.stream), LOG_STR("code", grpc_code_name(code)),
	       LOG_SPAN("error", text));
	c->work = CRDT_IDLE;
	if (c->flight)
		crdt_flight_end(c, c->flight, code, text, false);
	crdt_out_drop(c);
	crdt_close(c, true);
}

/* The update as this proxy sees it, then its record. */
static void update(struct crdt *c, const struct Cloudstate__Crdt__CrdtDelta *delta)
{
	struct err err = {0};
	struct buf bytes;
	enum err_code code = crdt_resolve(c->fold, delta, clock_wall(c->config.clock).us / 1000, &c->arena,
					  &c->change, &err);
	c->unsure = c->unsure || (!code && (!c->change || may_differ(c->change)));
	if (code == ERR_INVALID) {
		fault_of(c, err.text);
	} else if (code) {
		crdt_give_up(c, GRPC_RESOURCE_EXHAUSTED, span_str(err.text));
	} else if (!c->change) {
		finish(c);
	} else {
		buf_init(&bytes, LIMIT_RECORD_BYTES - RECORD_OVERHEAD_BYTES);
		if (wire_pack(&c->change->base, &bytes))
			append(c, false, buf_span(&bytes));
		else
			crdt_give_up(c, GRPC_RESOURCE_EXHAUSTED,
				SPAN("the delta is larger than a record of the journal may be (3 MiB)"));
		buf_release(&bytes);
	}
}

/* Carries out the state action of c->out, then finish(). */
static void change(struct crdt *c, const Cloudstate__Crdt__CrdtStateAction *action)
{
	struct err err = {0};
	bool deleted = c->state == CRDT_DELETING || crdt_fold_deleted(c->fold);
	if (!action || action->action_case == STATE(_NOT_SET) || deleted) {
		finish(c);
	} else if (action->action_case == STATE(DELETE)) {
		c->change = NULL;
		append(c, true, SPAN(""));
	} else if (crdt_told_own(c->told, action->update, &err)) {
		fault_of(c, err.text);
	} else {
		update(c, action->update);
	}
}

void crdt_change_again(struct crdt *c)
{
	const Cloudstate__Crdt__CrdtStateAction *action = action_of(c->out);
	c->work = CRDT_IDLE;
	if (crdt_fold_deleted(c->fold))
		finish(c);
	else if (action->action_case == STATE(DELETE))
		append(c, true, SPAN(""));
	else
		update(c, action->update);
}

static bool apply_own(struct crdt *c, uint64_t sequence, uint64_t position)
{
	struct crdt_record record = {
		.sequence = sequence, .position = position, .observed = c->told_sequence, .delta = c->change};
	memcpy(record.session, c->session, sizeof record.session);
	if (crdt_fold_apply(c->fold, &record, NULL))
		return false;
	crdt_applied(c, true);
	crdt_grew(c, c->change_bytes);
	return true;
}

void crdt_change_appended(struct crdt *c, const struct client_error *error, uint64_t sequence, uint64_t position)
{
	must(c->work == CRDT_APPENDING && c->out);
	if (error->code != GRPC_OK && error->has_fence_found) { /* it has not happened: again, under another session */
		crdt_await_session(c);
		return;
	}
	if (error->code != GRPC_OK && error->has_sequence_found && !c->flight->command->repeated) {
		c->flight->command->repeated = true;
		c->work = CRDT_RELOADING;
		if (!c->loading)
			crdt_reload(c);
		return;
	}
	if (error->code != GRPC_OK) {
		crdt_give_up(c, error->code, error->text);
		return;
	}
	c->work = CRDT_IDLE;
	c->own_sequence = sequence;
	if (c->wait)
		c->wait->position = position;
	if (!c->change) { /* it is deleted, whatever others wrote before */
		finish(c);
		crdt_deleted(c, plant("delete-sent-to-the-deleter"));
		return;
	}
	if (sequence == crdt_fold_sequence(c->fold) + 1 && !apply_own(c, sequence, position)) {
		crdt_give_up(c, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory for a CRDT"));
		return;
	}
	if (sequence > crdt_fold_sequence(c->fold)) {
		c->work = CRDT_CATCHING;
		if (!c->loading)
			crdt_reload(c);
	}
	finish(c);
}

/* --- the message's end -------------------------------------------------------------------------------------- */

/* Takes the arena of what it answers: c->arena, or that of one that waited. */
static void answer(struct crdt *c, struct crdt_flight *f, struct arena *of, const Cloudstate__ClientAction *action,
		   Cloudstate__SideEffect *const *effects, size_t effect_count, bool more)
{
	struct entity_answer a = {.arena = *of,
				  .action = action,
				  .effects = effects,
				  .effect_count = effect_count,
				  .bytes = of->used_bytes,
				  .more = more};
	struct entity_command *command = f->command;
	arena_init(of, 0);
	if (of == &c->arena)
		crdt_out_drop(c);
	if (!more)
		crdt_flight_drop(c, f);
	c->config.host->answer(c->config.host_arg, command, &a);
}

static void finish_reply(struct crdt *c, struct crdt_flight *f, struct arena *of,
			 const Cloudstate__Crdt__CrdtReply *reply)
{
	/* A failure ends the command for both sides, and so does a delete, whatever the function says. While the
	 * proxy stops, a stream is opened only to be cancelled. */
	bool left = f->phase == CRDT_LEFT;
	bool streamed = reply->streamed && !is_failure(reply->client_action) && c->state == CRDT_READY &&
			(left || !c->stopping);
	if (streamed)
		crdt_flight_open(c, f);
	answer(c, f, of, reply->client_action, reply->side_effects, reply->n_side_effects, streamed);
	if (streamed && left)
		crdt_flight_cancel(c, f);
}

/* The state action, if there was one, is durable. */
static void finish(struct crdt *c)
{
	const crdt_out *out = c->out;
	struct crdt_flight *f = c->flight;
	if (c->wait && crdt_confirm(c))
		return;
	if (out->message_case == CRDT_OUT(REPLY))
		finish_reply(c, f, &c->arena, out->reply);
	else
		answer(c, f, &c->arena, NULL, out->stream_cancelled_response->side_effects,
		       out->stream_cancelled_response->n_side_effects, false);
}

void crdt_out_confirmed(struct crdt *c, struct crdt_flight *f)
{
	struct arena of = f->wait->arena;
	const crdt_out *out = f->wait->out;
	f->phase = f->wait->left ? CRDT_LEFT : CRDT_SENT;
	mem_free(f->wait);
	f->wait = NULL;
	finish_reply(c, f, &of, out->reply);
}

/* A stream is open for the function: its client is given a failure, so that he is gone, and the rest follows. */
void crdt_out_refused(struct crdt *c, struct crdt_flight *f)
{
	const Cloudstate__Crdt__CrdtReply *reply = f->wait->out->reply;
	struct arena of = f->wait->arena;
	Cloudstate__ClientAction *action = arena_zalloc(&of, sizeof *action);
	Cloudstate__Failure *failure = arena_zalloc(&of, sizeof *failure);
	if (!reply->streamed || f->wait->left || c->state != CRDT_READY || !action || !failure) {
		crdt_flight_end(c, f, GRPC_UNKNOWN, CRDT_UNCONFIRMED, true);
		return;
	}
	mem_free(f->wait);
	f->wait = NULL;
	cloudstate__client_action__init(action);
	cloudstate__failure__init(failure);
	failure->command_id = f->id;
	failure->description = wire_bytes(CRDT_UNCONFIRMED);
	action->action_case = ACTION(FAILURE);
	action->failure = failure;
	crdt_flight_open(c, f);
	answer(c, f, &of, action, NULL, 0, true);
}

/* --- messages ----------------------------------------------------------------------------------------------- */

static void on_reply(struct crdt *c, const Cloudstate__Crdt__CrdtReply *reply)
{
	struct crdt_flight *f = crdt_flight_find(c, reply->command_id);
	if (!f || (f->phase != CRDT_SENT && f->phase != CRDT_LEFT)) {
		crdt_report(c, "a reply for command %lld, which nobody waits for", (long long)reply->command_id);
		crdt_fault(c);
		crdt_out_drop(c);
	} else if (reply->streamed && !f->command->streams_out) {
		crdt_report(c, "a streamed reply to command %lld, which is not streamed",
			    (long long)reply->command_id);
		crdt_fault(c);
		crdt_out_drop(c);
	} else {
		c->flight = f;
		change(c, reply->state_action);
	}
}

/* Messages for a command that is over are nothing to speak of; for one that never was they are. */
static void stray(struct crdt *c, const char *what, int64_t id)
{
	if (id <= 0 || id >= c->next_id)
		crdt_report(c, "%s for command %lld, which there never was: it is dropped", what, (long long)id);
	crdt_out_drop(c);
}

static void on_streamed(struct crdt *c, const Cloudstate__Crdt__CrdtStreamedMessage *m)
{
	struct crdt_flight *f = crdt_flight_find(c, m->command_id);
	bool last = m->end_stream || is_failure(m->client_action);
	if (!f) {
		stray(c, "a streamed message", m->command_id);
	} else if (f->phase == CRDT_CANCELLING) {
		crdt_out_drop(c);
		if (last)
			crdt_flight_end(c, f, GRPC_OK, SPAN(""), false);
	} else if (f->phase == CRDT_OPEN) {
		answer(c, f, &c->arena, m->client_action, m->side_effects, m->n_side_effects, !last);
	} else if (f->phase == CRDT_CONFIRMING) { /* behind the reply */
		c->flight = f;
		c->work = CRDT_HELD;
	} else {
		crdt_report(c, "a streamed message for command %lld before its reply: it is dropped",
			    (long long)m->command_id);
		crdt_out_drop(c);
	}
}

void crdt_out_held(struct crdt *c)
{
	must(c->work == CRDT_HELD && c->out);
	c->work = CRDT_IDLE;
	c->flight = NULL;
	on_streamed(c, c->out->streamed_message);
}

static void on_cancelled(struct crdt *c, const Cloudstate__Crdt__CrdtStreamCancelledResponse *r)
{
	struct crdt_flight *f = crdt_flight_find(c, r->command_id);
	if (!f || f->phase != CRDT_CANCELLING) {
		stray(c, "an answer to a cancellation", r->command_id);
		return;
	}
	c->flight = f;
	change(c, r->state_action);
}

/* Of one command it fails that alone; of none, the stream's end will follow. */
static void on_failure(struct crdt *c, const Cloudstate__Failure *failure)
{
	struct span text = wire_span(failure->description);
	struct crdt_flight *f = failure->command_id ? crdt_flight_find(c, failure->command_id) : NULL;
	if (f)
		crdt_flight_end(c, f, GRPC_UNKNOWN, text, true);
	else
		log_warn("function failed an entity", LOG_SPAN("service", c->config.service),
			 LOG_SPAN("entity", c->config.entity_id), LOG_SPAN("description", text));
	crdt_out_drop(c);
}

/* The bug of a proxy that runs side effects before what they follow from is durable. */
static void run_effects_early(struct crdt *c, struct span message, Cloudstate__Crdt__CrdtReply *reply)
{
	struct crdt_flight *f = crdt_flight_find(c, reply->command_id);
	struct entity_answer answer = {.more = true, .effect_count = reply->n_side_effects};
	if (!f || !reply->state_action || !reply->n_side_effects)
		return;
	arena_init(&answer.arena, CRDT_ARENA_BYTES(message.n));
	answer.effects = ((const crdt_out *)(const void *)crdt_unpack(
				  &cloudstate__crdt__crdt_stream_out__descriptor, &answer.arena, message))
				 ->reply->side_effects;
	reply->n_side_effects = 0;
	c->config.host->answer(c->config.host_arg, f->command, &answer);
}

void crdt_too_large(struct crdt *c)
{
	struct buf text;
	struct entity_end end = {.message = span_str(c->end_text)};
	bool one = c->flights.count == 1 && !list_empty(&c->sent);
	struct span name = one ? CONTAINER_OF(list_first(&c->sent), struct crdt_flight, node)->command->name : SPAN("");
	entity_report_too_large(&c->config, name, &end, &text);
	crdt_flights_end(c, &c->sent, GRPC_RESOURCE_EXHAUSTED, buf_span(&text), false);
	crdt_flights_end(c, &c->streams, GRPC_RESOURCE_EXHAUSTED, buf_span(&text), false);
	buf_release(&text);
}

void crdt_take(struct crdt *c, struct span message)
{
	must(!c->out && c->work == CRDT_IDLE);
	arena_init(&c->arena, CRDT_ARENA_BYTES(message.n) * 2); /* the message, and its delta as it is recorded */
	c->out = (const void *)crdt_unpack(&cloudstate__crdt__crdt_stream_out__descriptor, &c->arena, message);
	switch (c->out ? c->out->message_case : CRDT_OUT(_NOT_SET)) {
	case CRDT_OUT(REPLY):
		if (plant("crdt-effect-before-persist"))
			run_effects_early(c, message, c->out->reply);
		on_reply(c, c->out->reply);
		break;
	case CRDT_OUT(STREAMED_MESSAGE):
		on_streamed(c, c->out->streamed_message);
		break;
	case CRDT_OUT(STREAM_CANCELLED_RESPONSE):
		on_cancelled(c, c->out->stream_cancelled_response);
		break;
	case CRDT_OUT(FAILURE):
		on_failure(c, c->out->failure);
		break;
	default:
		fault_of(c, c->out ? "a message that is none of the kinds there are"
				   : "a message that is malformed, or nested or made of parts beyond measure");
	}
}
