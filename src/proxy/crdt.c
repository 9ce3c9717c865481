/* The CRDT kind (contract, section 7): its life, its commands and what others have changed. The states are in
 * crdt.h. A state machine: no I/O, no clock of its own.
 *
 * Every function of the table does its own part, then goes on as far as it can (step()). One that is called
 * inside another (a forward to the same entity) leaves the going on to that. */
#include <config.h>

#include "proxy/crdt.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"

#define MAGIC 0x43724474u
/* How long others' changes wait for commands to be answered before new ones wait for them. */
#define UNTOLD_MS 1000
/* How long a command waits for this process to have a session with the journal. */
#define PEERS_WAIT_MS 5000

struct crdt *crdt_machine(struct entity *e)
{
	return OBJ_CAST(struct crdt, e, MAGIC);
}

static const struct crdt *machine_const(const struct entity *e)
{
	must(e->magic == MAGIC);
	return (const struct crdt *)(const void *)e;
}

/* --- answers, reports, time ------------------------------------------------------------------------------- */

static struct mono_time now(const struct crdt *c)
{
	return clock_mono(c->config.clock);
}

struct mono_time crdt_after_ms(const struct crdt *c, int64_t ms)
{
	struct mono_time t = now(c);
	t.us += ms * 1000;
	return t;
}

void crdt_report(struct crdt *c, const char *fmt, ...)
{
	struct buf text;
	va_list args;
	char detail[ERR_TEXT_MAX];
	buf_init(&text, 4 * KIB);
	va_start(args, fmt);
	vsnprintf(detail, sizeof detail, fmt, args);
	va_end(args);
	if (!buf_printf(&text, "%.*s CRDT [%.*s]: %s", SPAN_ARG(c->config.service),
			SPAN_ARG(c->config.entity_id), detail))
		c->config.host->report(c->config.host_arg, buf_span(&text));
	buf_release(&text);
}

void crdt_end(struct crdt *c, struct entity_command *command, enum grpc_code code, struct span text, bool failure)
{
	c->config.host->end(c->config.host_arg, command,
			    &(struct outcome){.code = code, .message = text, .failure = failure});
}

void crdt_end_waiting(struct crdt *c, enum grpc_code code, struct span text, bool failure)
{
	struct list_node *n;
	while ((n = list_pop_front(&c->waiting))) {
		c->waiting_count--;
		crdt_end(c, CONTAINER_OF(n, struct entity_command, node), code, text, failure);
	}
}

/* --- the stream's life --------------------------------------------------------------------------------------- */

static void drop_inbox(struct crdt *c)
{
	struct list_node *n;
	while ((n = list_pop_front(&c->inbox)))
		mem_free(CONTAINER_OF(n, struct crdt_inbound, node));
	c->inbox_bytes = 0;
}

static void drop_value(struct crdt *c)
{
	crdt_fold_free(c->fold);
	crdt_fold_free(c->fresh);
	crdt_told_free(c->told);
	c->fold = c->fresh = NULL;
	c->told = NULL;
	c->unsure = false;
	c->untold_since.us = 0;
	crdt_measure(c);
}

void crdt_reload(struct crdt *c)
{
	must(!c->loading);
	c->loading = true;
	c->behind = false;
	c->seen = 0;
	c->fresh = crdt_fold_new();
	c->config.host->load(c->config.host_arg);
}

static void activate(struct crdt *c)
{
	must(!c->stream && c->flights.count == 0);
	c->state = CRDT_LOADING;
	c->reopen = false;
	c->peers_wait = crdt_after_ms(c, PEERS_WAIT_MS);
	if (crdt_peers_known(c))
		crdt_reload(c);
}

/* Without a stream: activates again where somebody waits for it. */
static void rest(struct crdt *c)
{
	must(!c->stream);
	if (c->work == CRDT_APPENDING || c->work == CRDT_SNAPSHOTTING) {
		c->state = CRDT_CLOSING; /* the append cannot be taken back: on_appended() goes on */
		return;
	}
	if (c->loading)
		c->config.host->load_cancel(c->config.host_arg);
	c->loading = false;
	c->work = CRDT_IDLE;
	crdt_out_drop(c); /* what waited for others */
	c->ended = c->held = false;
	drop_inbox(c);
	drop_value(c);
	c->state = CRDT_COLD;
	if (c->waiting_count || c->reopen)
		activate(c);
	else
		c->config.host->gone(c->config.host_arg);
}

static void reset_stream(struct crdt *c)
{
	if (c->stream)
		c->config.host->reset(c->config.host_arg);
	c->stream = c->open = false;
	c->reopen = false;
	rest(c);
}

/* The orderly end: half-close, wait for the function's side. What it still writes is not taken. */
void crdt_close(struct crdt *c, bool reopen)
{
	crdt_flights_end(c, &c->sent, GRPC_UNKNOWN, SPAN("Entity terminating"), true);
	crdt_flights_end(c, &c->streams, GRPC_UNKNOWN, SPAN("Entity terminating"), true);
	crdt_end_unconfirmed(c);
	crdt_end_cancelled(c);
	c->state = CRDT_CLOSING;
	c->reopen = reopen;
	c->grace = crdt_after_ms(c, c->config.close_grace_ms);
	drop_inbox(c);
	if (c->open)
		c->config.host->half_close(c->config.host_arg);
	c->open = false;
	if (!c->stream) /* it has ended meanwhile */
		rest(c);
}

void crdt_fault(struct crdt *c)
{
	crdt_flights_end(c, &c->sent, GRPC_UNKNOWN, SPAN("Entity terminating"), true);
	crdt_flights_end(c, &c->streams, GRPC_UNKNOWN, SPAN("Entity terminating"), true);
	crdt_end_unconfirmed(c);
	crdt_end_cancelled(c);
	crdt_end_waiting(c, GRPC_UNKNOWN, SPAN("Entity terminating"), true);
	reset_stream(c);
}

void crdt_deleted(struct crdt *c, bool tell)
{
	crdt_end_waiting(c, GRPC_UNKNOWN, SPAN("Entity deleted"), true);
	crdt_flights_end(c, &c->streams, GRPC_OK, SPAN(""), false);
	crdt_end_cancelled(c);
	c->state = CRDT_DELETING;
	c->grace = crdt_after_ms(c, c->config.close_grace_ms);
	if (c->open && tell)
		crdt_send_delete(c);
	if (c->open)
		c->config.host->half_close(c->config.host_arg);
	c->open = false;
}

/* What the function wrote before its end has taken effect. */
static void on_stream_over(struct crdt *c)
{
	struct span text = span_str(c->end_text);
	if (c->state == CRDT_DELETING) {
		crdt_flights_end(c, &c->sent, GRPC_UNKNOWN, SPAN("Entity deleted"), true);
		rest(c);
	} else if (c->end_unreached) {
		crdt_flights_end(c, &c->sent, GRPC_UNAVAILABLE, text, false);
		crdt_flights_end(c, &c->streams, GRPC_UNAVAILABLE, text, false);
		crdt_end_unconfirmed(c);
		crdt_end_cancelled(c);
		crdt_end_waiting(c, GRPC_UNAVAILABLE, text, false);
		rest(c);
	} else if (c->end_too_large) {
		crdt_too_large(c);
		crdt_fault(c);
	} else {
		crdt_report(c, "the function ended the stream: %s%s%.*s", grpc_code_name(c->end_code),
			    text.n ? ": " : "", SPAN_ARG(text));
		crdt_fault(c);
	}
}

/* --- going on -------------------------------------------------------------------------------------------------- */

static void take_next(struct crdt *c)
{
	struct list_node *n = list_pop_front(&c->inbox);
	must(n);
	struct crdt_inbound *i = CONTAINER_OF(n, struct crdt_inbound, node);
	c->inbox_bytes -= i->bytes.n;
	crdt_take(c, i->bytes);
	crdt_grew(c, i->bytes.n);
	mem_free(i);
}

/* Streams whose clients have left. */
static bool cancel_next(struct crdt *c)
{
	struct list_node *n = c->left_count ? list_first(&c->streams) : NULL;
	while (n && !CONTAINER_OF(n, struct crdt_flight, node)->left)
		n = list_next(&c->streams, n);
	if (!n)
		return false;
	crdt_flight_cancel(c, CONTAINER_OF(n, struct crdt_flight, node));
	return true;
}

static bool waits_for_answers(const struct crdt *c)
{
	return c->untold_since.us && mono_since_us(now(c), c->untold_since) >= (int64_t)UNTOLD_MS * 1000 &&
	       crdt_outstanding(c);
}

static bool send_next(struct crdt *c)
{
	bool full = c->full && !plant("crdt-sends-to-who-does-not-read");
	if (!c->open || c->ended || full || !c->waiting_count || waits_for_answers(c))
		return false;
	struct list_node *n = list_pop_front(&c->waiting);
	must(n);
	c->waiting_count--;
	crdt_send_command(c, CONTAINER_OF(n, struct entity_command, node));
	return true;
}

/* Does one thing; false when there is none. */
static bool step(struct crdt *c)
{
	if (c->state != CRDT_READY && c->state != CRDT_DELETING)
		return false;
	if (c->work == CRDT_CATCHING && crdt_fold_sequence(c->fold) >= c->own_sequence)
		c->work = CRDT_IDLE;
	if (c->work == CRDT_IDLE && !list_empty(&c->inbox)) {
		take_next(c);
		return true;
	}
	bool answers_first = c->state == CRDT_DELETING && !list_empty(&c->confirming);
	if (c->work == CRDT_IDLE && c->ended && !answers_first) {
		on_stream_over(c);
		return true;
	}
	if (c->state != CRDT_READY)
		return false;
	if (list_empty(&c->inbox) && !c->ended && cancel_next(c))
		return true;
	if (c->work == CRDT_IDLE && !crdt_outstanding(c) && crdt_untold(c) && !c->ended && !c->full) {
		crdt_tell(c);
		return true;
	}
	if (c->work == CRDT_IDLE && crdt_snapshot_due(c)) {
		crdt_snapshot_append(c);
		return true;
	}
	return send_next(c);
}

static bool is_idle(const struct crdt *c)
{
	return c->state == CRDT_READY && c->flights.count == 0 && !c->waiting_count && !c->ended &&
	       list_empty(&c->inbox) && c->work == CRDT_IDLE;
}

static void earlier(struct mono_time *at, struct mono_time other)
{
	if (!at->us || other.us < at->us)
		at->us = other.us;
}

static struct crdt_flight *first(const struct list *of)
{
	struct list_node *n = list_first(of);
	return n ? CONTAINER_OF(n, struct crdt_flight, node) : NULL;
}

static void set_timer(struct crdt *c)
{
	struct mono_time at = {0}, idle = c->idle_since, told = c->untold_since;
	idle.us += c->config.passivation_ms * 1000;
	told.us += (int64_t)UNTOLD_MS * 1000;
	if (c->state == CRDT_CLOSING || c->state == CRDT_DELETING)
		at = c->grace;
	if (is_idle(c))
		earlier(&at, idle);
	if (c->state == CRDT_READY && c->untold_since.us && mono_since_us(now(c), told) < 0)
		earlier(&at, told);
	if (c->state == CRDT_READY && first(&c->sent))
		earlier(&at, first(&c->sent)->deadline);
	if (c->state == CRDT_READY && first(&c->cancelling))
		earlier(&at, first(&c->cancelling)->deadline);
	if (first(&c->confirming))
		earlier(&at, first(&c->confirming)->deadline);
	if (c->work == CRDT_UNFENCED || (c->state == CRDT_LOADING && !c->loading))
		earlier(&at, c->peers_wait);
	if (at.us)
		c->config.host->wake_at(c->config.host_arg, at);
}

static void hold_read(struct crdt *c)
{
	bool hold = !list_empty(&c->inbox);
	if (!c->stream || c->ended || hold == c->held)
		return;
	c->held = hold;
	c->config.host->hold_read(c->config.host_arg, hold);
}

/* True: it is the outermost call, and finish() follows. */
static bool begin(struct crdt *c)
{
	bool outermost = !c->running;
	c->running = true;
	return outermost;
}

static void finish(struct crdt *c, bool outermost)
{
	if (!outermost)
		return;
	while (step(c))
		;
	if (c->retire && is_idle(c))
		crdt_close(c, false);
	c->running = false;
	if (c->state == CRDT_COLD)
		return;
	hold_read(c);
	set_timer(c);
}

/* --- the journal's answers ----------------------------------------------------------------------------------- */

/* Nothing could be loaded. */
static void load_refused(struct crdt *c, enum grpc_code code, struct span text, bool failure)
{
	if (!failure)
		LOG_AT(code == GRPC_UNAVAILABLE ? LOG_DEBUG : LOG_WARN, "entity not activated",
		       LOG_SPAN("service", c->config.service), LOG_SPAN("entity", c->config.entity_id),
		       LOG_STR("code", grpc_code_name(code)), LOG_SPAN("error", text));
	c->loading = false;
	crdt_fold_free(c->fresh);
	c->fresh = NULL;
	crdt_end_waiting(c, code, text, failure);
	if (c->state == CRDT_LOADING) {
		c->reopen = false;
		rest(c);
		return;
	}
	if (c->state != CRDT_READY)
		return;
	if (c->work == CRDT_RELOADING) {
		crdt_flight_end(c, c->flight, code, text, failure);
		crdt_out_drop(c);
		c->work = CRDT_IDLE;
	}
	crdt_close(c, false);
}

static void read_record(struct crdt *c, const struct record_view *record, struct err *err)
{
	struct span mark;
	struct arena a;
	const struct entity_ops *kind = entity_kind_of_record(record, &mark);
	if (kind != &entity_crdt) {
		(void)err_set(err, ERR_CONFLICT,
			      "the journal stream %.*s holds records of another kind of entity, %.*s, and %.*s is a "
			      "%s: give it a persistence id of its own, or start the proxy with another --namespace",
			      SPAN_ARG(c->config.stream), SPAN_ARG(kind ? span_str(kind->name) : mark),
			      SPAN_ARG(c->config.service), entity_crdt.name);
	} else if (record->content != RECORD_BODY) {
		(void)err_set(err, ERR_CORRUPT, "record %" PRIu64 " of stream %.*s was erased: it cannot be replayed",
			      record->sequence, SPAN_ARG(c->config.stream));
	} else if (record->kind == RECORD_SNAPSHOT) {
		struct crdt_fold *f = NULL;
		if (crdt_fold_load(record->data, &f, err))
			return;
		crdt_fold_began_before(f, record->position);
		crdt_fold_free(c->fresh);
		c->fresh = f;
		c->snapshot_sequence = record->sequence;
	} else {
		arena_init(&a, CRDT_ARENA_BYTES(record->data.n));
		(void)crdt_record_read(c->fresh, record, NULL, NULL, NULL, &a, err);
		arena_release(&a);
	}
}

static void on_record(struct entity *e, const struct record_view *record)
{
	struct crdt *c = crdt_machine(e);
	struct err err = {0};
	bool outermost = begin(c);
	must(c->loading);
	if (record->kind == RECORD_EVENT || record->kind == RECORD_SNAPSHOT)
		read_record(c, record, &err);
	crdt_grew(c, record->data.n);
	if (err.code) {
		c->config.host->load_cancel(c->config.host_arg);
		load_refused(c, err.code == ERR_CONFLICT ? GRPC_FAILED_PRECONDITION : GRPC_DATA_LOSS,
			     span_str(err.text), false);
	}
	finish(c, outermost);
}

/* The first time: opens the function's stream. */
static void become_ready(struct crdt *c)
{
	struct arena a;
	const struct Cloudstate__Crdt__CrdtDelta *delta = NULL;
	if (crdt_fold_deleted(c->fold)) {
		load_refused(c, GRPC_UNKNOWN, SPAN("Entity deleted"), true);
		return;
	}
	c->told = crdt_told_new();
	c->state = CRDT_READY;
	c->idle_since = now(c);
	if (crdt_make_told(c, &a, &delta))
		crdt_send_init(c, delta);
	else
		crdt_close(c, false);
	arena_release(&a);
}

static void on_loaded(struct entity *e, uint64_t sequence)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	must(c->loading);
	c->loading = false;
	crdt_fold_skip_to(c->fresh, sequence);
	bool missed = c->work == CRDT_CATCHING && c->own_sequence > sequence;
	if (c->seen > sequence || c->behind || missed) { /* what came by the way meanwhile was not kept */
		crdt_fold_free(c->fresh);
		crdt_reload(c);
		finish(c, outermost);
		return;
	}
	crdt_fold_free(c->fold);
	c->fold = c->fresh;
	c->fresh = NULL;
	crdt_measure(c);
	if (c->state == CRDT_LOADING) {
		become_ready(c);
	} else {
		if (crdt_untold(c) && !c->untold_since.us)
			c->untold_since = now(c);
		if (c->work == CRDT_RELOADING)
			crdt_change_again(c);
	}
	finish(c, outermost);
}

static void on_load_failed(struct entity *e, const struct client_error *error)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	must(c->loading);
	load_refused(c, error->code, error->text, false);
	finish(c, outermost);
}

static void on_appended(struct entity *e, const struct client_error *error, uint64_t sequence, uint64_t position)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	if (c->state == CRDT_CLOSING) { /* whose change it was is over */
		c->work = CRDT_IDLE;
		crdt_out_drop(c);
		if (!c->stream)
			rest(c);
	} else if (c->work == CRDT_SNAPSHOTTING)
		crdt_snapshot_appended(c, error);
	else
		crdt_change_appended(c, error, sequence, position);
	finish(c, outermost);
}

static void follow(struct crdt *c, const struct record_view *record)
{
	struct arena a;
	struct err err = {0};
	const struct Cloudstate__Crdt__CrdtDelta *delta = NULL;
	bool own = false;
	if (record->sequence <= crdt_fold_sequence(c->fold))
		return;
	if (record->sequence > crdt_fold_sequence(c->fold) + 1 || record->kind != RECORD_EVENT) {
		crdt_reload(c);
		c->seen = record->sequence;
		return;
	}
	arena_init(&a, CRDT_ARENA_BYTES(record->data.n));
	if (crdt_record_read(c->fold, record, c->session, &own, &delta, &a, &err))
		load_refused(c, GRPC_DATA_LOSS, span_str(err.text), false);
	else
		crdt_applied(c, own);
	crdt_grew(c, record->data.n);
	arena_release(&a);
}

static void on_follow(struct entity *e, const struct record_view *record)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	if (!record && c->loading)
		c->behind = true;
	else if (!record && c->state == CRDT_READY)
		crdt_reload(c);
	else if (record && record_kind_takes_sequence(record->kind) && c->loading)
		c->seen = record->sequence > c->seen ? record->sequence : c->seen;
	else if (record && record_kind_takes_sequence(record->kind) && c->state == CRDT_READY)
		follow(c, record);
	finish(c, outermost);
}

/* --- the function, commands, time ----------------------------------------------------------------------------- */

static void on_message(struct entity *e, struct span message)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	if (c->state == CRDT_READY || c->state == CRDT_DELETING) {
		struct crdt_inbound *i = mem_try_alloc(sizeof *i + message.n);
		if (i) {
			*i = (struct crdt_inbound){.bytes = span_of(i + 1, message.n)};
			memcpy(i + 1, message.p, message.n);
			list_push_back(&c->inbox, &i->node);
			c->inbox_bytes += message.n;
		} else {
			log_error("out of memory for a message of the function",
				  LOG_SPAN("stream", c->config.stream));
			crdt_close(c, true);
		}
	}
	finish(c, outermost);
}

static void on_end(struct entity *e, const struct entity_end *how)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	must(c->stream);
	c->stream = c->open = false;
	mem_free(c->end_text);
	c->end_text = mem_xdup(how->message.p, how->message.n);
	c->end_code = how->code;
	c->end_unreached = how->unreached;
	c->end_too_large = how->too_large;
	if (c->state == CRDT_CLOSING)
		rest(c);
	else
		c->ended = true;
	finish(c, outermost);
}

static void on_writable(struct entity *e)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	c->full = false;
	finish(c, outermost);
}

static void command(struct entity *e, struct entity_command *command)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	if (c->state == CRDT_DELETING) {
		crdt_end(c, command, GRPC_UNKNOWN, SPAN("Entity deleted"), true);
	} else if (command->streams_out && c->streaming_count >= LIMIT_CRDT_STREAMS) {
		crdt_end(c, command, GRPC_RESOURCE_EXHAUSTED, SPAN("the CRDT has all the open streams it may have"),
			 false);
	} else {
		list_push_back(&c->waiting, &command->node);
		c->waiting_count++;
		if (c->state == CRDT_COLD)
			activate(c);
	}
	finish(c, outermost);
}

static bool withdraw_waiting(struct crdt *c, struct entity_command *command)
{
	list_remove(&command->node);
	c->waiting_count--;
	if (c->state == CRDT_LOADING && !c->waiting_count) {
		c->reopen = false;
		rest(c); /* nobody asks for it any more */
	}
	return true;
}

static bool withdraw(struct entity *e, struct entity_command *command)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c), given_back = false;
	struct crdt_flight *f = list_linked(&command->node) ? NULL : crdt_flight_find(c, command->id);
	if (list_linked(&command->node)) {
		given_back = withdraw_waiting(c, command);
	} else if (f && f->phase == CRDT_OPEN && !f->left) {
		f->left = true;
		c->left_count++;
	} else if (f && f->phase == CRDT_CONFIRMING) {
		f->wait->left = command->streams_out;
	} else if (f && f->phase == CRDT_SENT && command->streams_out) {
		f->phase = CRDT_LEFT; /* the reply will say whether there is something to cancel */
	}
	finish(c, outermost);
	return given_back;
}

static void passivate(struct entity *e)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	c->retire = true;
	finish(c, outermost);
}

static void end_streams(struct entity *e)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	c->stopping = true;
	crdt_flights_end(c, &c->streams, GRPC_OK, SPAN(""), false);
	finish(c, outermost);
}

/* The oldest command, if its time to be answered is over. An answer that waits here is one. */
static struct crdt_flight *unanswered(const struct crdt *c)
{
	struct crdt_flight *f = first(&c->sent);
	bool waits = c->work != CRDT_IDLE || !list_empty(&c->inbox);
	return f && !waits && mono_since_us(now(c), f->deadline) >= 0 ? f : NULL;
}

static void on_time(struct entity *e)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	struct mono_time idle = c->idle_since;
	idle.us += c->config.passivation_ms * 1000;
	struct crdt_flight *f = c->state == CRDT_READY ? first(&c->cancelling) : NULL;
	for (; f && f != c->flight && mono_since_us(now(c), f->deadline) >= 0; f = first(&c->cancelling))
		crdt_flight_end(c, f, GRPC_CANCELLED, SPAN(""), false);
	crdt_peers_on_time(c);
	f = c->state == CRDT_READY ? unanswered(c) : NULL;
	if (c->state == CRDT_LOADING && !c->loading && mono_since_us(now(c), c->peers_wait) >= 0) {
		load_refused(c, GRPC_UNAVAILABLE, CRDT_SESSIONLESS, false);
	} else if (f) {
		crdt_flight_end(c, f, GRPC_DEADLINE_EXCEEDED, SPAN("the function has not answered in time"),
				false);
		crdt_flights_end(c, &c->sent, GRPC_UNKNOWN, SPAN("Entity terminating"), true);
		crdt_flights_end(c, &c->streams, GRPC_UNKNOWN, SPAN("Entity terminating"), true);
		crdt_end_unconfirmed(c);
		crdt_end_cancelled(c);
		reset_stream(c);
	} else if (is_idle(c) && mono_since_us(now(c), idle) >= 0) {
		crdt_close(c, false);
	} else if ((c->state == CRDT_CLOSING || c->state == CRDT_DELETING) && c->work == CRDT_IDLE &&
		   mono_since_us(now(c), c->grace) >= 0) {
		log_warn("function does not end an entity's stream: reset",
			 LOG_SPAN("service", c->config.service), LOG_SPAN("entity", c->config.entity_id));
		crdt_flights_end(c, &c->sent, GRPC_UNKNOWN, SPAN("Entity deleted"), true);
		crdt_end_unconfirmed(c);
		reset_stream(c);
	}
	finish(c, outermost);
}

static void on_peers(struct entity *e)
{
	struct crdt *c = crdt_machine(e);
	bool outermost = begin(c);
	if (c->state == CRDT_LOADING && !c->loading && crdt_peers_known(c))
		crdt_reload(c);
	crdt_peers_changed(c);
	finish(c, outermost);
}

static size_t waiting(const struct entity *e)
{
	const struct crdt *c = machine_const(e);
	return c->waiting_count + c->flights.count - c->streaming_count;
}

static bool idle(const struct entity *e)
{
	return is_idle(machine_const(e));
}

static struct entity *create(const struct entity_config *config)
{
	struct crdt *c = mem_xalloc(sizeof *c);
	c->base.ops = &entity_crdt;
	c->base.magic = MAGIC;
	c->config = *config;
	c->next_id = 1;
	list_init(&c->waiting);
	list_init(&c->sent);
	list_init(&c->streams);
	list_init(&c->cancelling);
	list_init(&c->confirming);
	list_init(&c->inbox);
	map_init(&c->flights);
	arena_init(&c->arena, 0);
	memcpy(c->session, config->session, sizeof c->session);
	memcpy(c->told_session, config->session, sizeof c->told_session);
	return &c->base;
}

static void free_flights(struct crdt *c, struct list *of)
{
	struct list_node *n;
	while ((n = list_first(of)))
		crdt_flight_drop(c, CONTAINER_OF(n, struct crdt_flight, node));
}

static void destroy(struct entity *e)
{
	struct crdt *c = crdt_machine(e);
	free_flights(c, &c->sent);
	free_flights(c, &c->streams);
	free_flights(c, &c->cancelling);
	free_flights(c, &c->confirming);
	drop_inbox(c);
	drop_value(c);
	map_release(&c->flights);
	crdt_out_drop(c);
	mem_free(c->ending);
	mem_free(c->end_text);
	c->base.magic = 0;
	mem_free(c);
}

const struct entity_ops entity_crdt = {
	.type = "cloudstate.crdt.Crdt",
	.name = "CRDT",
	.mark = "crdt",
	.stateful = true,
	.streamed_out = true,
	.create = create,
	.free = destroy,
	.command = command,
	.withdraw = withdraw,
	.waiting = waiting,
	.idle = idle,
	.bytes = crdt_bytes,
	.passivate = passivate,
	.end_streams = end_streams,
	.on_message = on_message,
	.on_end = on_end,
	.on_writable = on_writable,
	.on_record = on_record,
	.on_loaded = on_loaded,
	.on_load_failed = on_load_failed,
	.on_follow = on_follow,
	.on_appended = on_appended,
	.on_peers = on_peers,
	.on_time = on_time,
};
