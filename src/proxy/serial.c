/* What event sourced and value entities have in common (contract, sections 3 and 4): the state is replayed, then
 * one command at a time, and what its reply changes is durable before the client hears of it. A state machine:
 * no I/O, no clock of its own. What a kind's messages and records are is the kind's (struct serial_kind).
 *
 *	COLD ──command──▶ LOADING ──loaded──▶ READY ──a command waits──▶ BUSY ──reply, changes─▶ APPENDING
 *	  ▲   (journal's load)  (init and events   ▲ ▲                     │ reply, none           │ durable
 *	  │                      go out as they    │ └─────────────────────┘                       │
 *	  │                      come)             └──────────────────────────────────────────────┘
 *	  │
 *	  └──stream ended, nobody waits── CLOSING ◀── passivation (READY), restart (BUSY), failed or stale
 *	                                     │        append (APPENDING), the function's top-level failure
 *	                                     └─stream ended, restart or somebody waits─▶ LOADING
 *
 * CLOSING is half-close, then the function's end, or after the grace a reset. Faults of the function and a
 * command that it does not answer in time reset at once.
 *
 * Invariants: the function has a stream in READY and BUSY; `current` is set in BUSY and APPENDING alone;
 * `sequence` is the journal's as far as this entity knows, and is what the next append expects. */
#include <config.h>

#include "proxy/serial.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"

#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME
/* What unpacking a reply may need, in times its own bytes: many small events have many small structs. */
#define REPLY_ARENA_FACTOR 4
/* What an encoded record has besides its data, type and stream name (fixed fields, metadata, salt, CRC, tags). */
#define RECORD_OVERHEAD_BYTES ((size_t)256)

static void go_on(struct serial *m);

static struct serial *machine(struct entity *e)
{
	struct serial *m = (struct serial *)(void *)e;
	must(e->magic == SERIAL_MAGIC);
	return m;
}

static const struct serial *machine_const(const struct entity *e)
{
	must(e->magic == SERIAL_MAGIC);
	return (const struct serial *)(const void *)e;
}

/* --- answers, reports, time ---------------------------------------------------------------------- */

static void refuse(struct serial *m, struct entity_command *c, enum grpc_code code, struct span text,
		   bool failure)
{
	m->config.host->end(m->config.host_arg, c,
			     &(struct outcome){.code = code, .message = text, .failure = failure});
}

static void refuse_waiting(struct serial *m, enum grpc_code code, struct span text, bool failure)
{
	struct list_node *n;
	while ((n = list_pop_front(&m->waiting))) {
		m->waiting_count--;
		refuse(m, CONTAINER_OF(n, struct entity_command, node), code, text, failure);
	}
}

static void refuse_current(struct serial *m, enum grpc_code code, struct span text, bool failure)
{
	struct entity_command *c = m->current;
	m->current = NULL;
	if (c)
		refuse(m, c, code, text, failure);
}

void serial_report(struct serial *m, const char *fmt, ...)
{
	struct buf text;
	va_list args;
	char detail[ERR_TEXT_MAX];
	buf_init(&text, 4 * KIB);
	va_start(args, fmt);
	vsnprintf(detail, sizeof detail, fmt, args);
	va_end(args);
	if (!buf_printf(&text, "%.*s entity [%.*s]: %s", SPAN_ARG(m->config.service),
			SPAN_ARG(m->config.entity_id), detail))
		m->config.host->report(m->config.host_arg, buf_span(&text));
	buf_release(&text);
}

static void set_deadline(struct serial *m, int64_t after_ms)
{
	m->deadline = clock_mono(m->config.clock);
	m->deadline.us += after_ms * 1000;
	m->config.host->wake_at(m->config.host_arg, m->deadline);
}

static void drop_reply(struct serial *m)
{
	arena_release(&m->arena);
	m->reply = (struct serial_reply){0};
}

/* --- messages to the function -------------------------------------------------------------------- */

bool serial_send(struct serial *m, const ProtobufCMessage *message)
{
	struct buf out;
	buf_init(&out, SIZE_MAX / 2); /* what it holds has passed the limits of the journal or of a front */
	bool packed = wire_pack(message, &out);
	if (packed)
		m->config.host->send(m->config.host_arg, buf_span(&out));
	buf_release(&out);
	return packed;
}

void serial_open(struct serial *m)
{
	m->config.host->open(m->config.host_arg, m->kind->path, -1);
	m->open = true;
	m->init_sent = true;
	if (!plant("id-not-restarted-on-new-stream") || !m->next_id)
		m->next_id = 1;
}

static bool send_command(struct serial *m)
{
	Cloudstate__Command command = CLOUDSTATE__COMMAND__INIT;
	Google__Protobuf__Any payload;

	wire_any_set(&payload, m->current->payload);
	command.entity_id = wire_bytes(m->config.entity_id);
	command.id = m->next_id++;
	command.name = wire_bytes(m->current->name);
	command.payload = &payload;
	return m->kind->send_command(m, &command);
}

/* --- the stream's life --------------------------------------------------------------------------- */

static void activate(struct serial *m)
{
	must(!m->open && !m->current);
	m->state = SERIAL_LOADING;
	m->init_sent = false;
	if (m->kind->reload)
		m->kind->reload(m);
	m->restarted = m->reopen;
	m->reopen = false;
	m->config.host->load(m->config.host_arg);
}

/* Without a stream and a load: activates again where somebody waits for it. */
static void rest(struct serial *m)
{
	must(!m->open && !m->current);
	m->state = SERIAL_COLD;
	if (m->waiting_count || m->reopen)
		activate(m);
	else
		m->config.host->gone(m->config.host_arg);
}

/* The orderly end: half-close, wait for the function's side. */
static void close_stream(struct serial *m, bool reopen)
{
	drop_reply(m);
	m->reopen = reopen;
	if (!m->open) { /* it ended while the append was under way */
		rest(m);
		return;
	}
	m->open = false;
	m->state = SERIAL_CLOSING;
	if (plant("reset-instead-of-half-close")) {
		m->config.host->reset(m->config.host_arg);
		rest(m);
		return;
	}
	m->config.host->half_close(m->config.host_arg);
	set_deadline(m, m->config.close_grace_ms);
}

static void reset_stream(struct serial *m)
{
	drop_reply(m);
	m->reopen = false;
	if (m->open)
		m->config.host->reset(m->config.host_arg);
	m->open = false;
	rest(m);
}

/* The function broke the protocol. What it had answered before is still kept and answered: with an append
 * under way only the stream goes. */
static void fault(struct serial *m, const char *text, bool orderly)
{
	if (m->state == SERIAL_LOADING)
		m->config.host->load_cancel(m->config.host_arg);
	if (m->state != SERIAL_APPENDING)
		refuse_current(m, GRPC_UNKNOWN, span_str(text), true);
	refuse_waiting(m, GRPC_UNKNOWN, span_str(m->kind->terminated), true);
	if (m->state == SERIAL_APPENDING) {
		m->config.host->reset(m->config.host_arg);
		m->open = false;
	} else if (orderly) {
		close_stream(m, false);
	} else {
		reset_stream(m);
	}
}

/* READY: sends the next command, or waits for one. */
static void go_on(struct serial *m)
{
	must(m->state == SERIAL_READY && !m->current && m->open);
	struct list_node *n = list_pop_front(&m->waiting);
	if (n) {
		m->waiting_count--;
		m->current = CONTAINER_OF(n, struct entity_command, node);
		m->state = SERIAL_BUSY;
		set_deadline(m, m->config.command_timeout_ms);
		if (!send_command(m)) {
			refuse_current(m, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory for the command"),
				       false);
			reset_stream(m);
		}
	} else if (m->retire) {
		close_stream(m, false);
	} else {
		set_deadline(m, m->config.passivation_ms);
	}
}

/* --- the journal's answers ------------------------------------------------------------------------- */

static void load_refused(struct serial *m, enum grpc_code code, struct span text)
{
	/* A journal that is away is logged once, by whoever watches it. */
	LOG_AT(code == GRPC_UNAVAILABLE ? LOG_DEBUG : LOG_WARN, "entity not activated",
	       LOG_SPAN("service", m->config.service), LOG_SPAN("entity", m->config.entity_id),
	       LOG_STR("code", grpc_code_name(code)), LOG_SPAN("error", text));
	refuse_waiting(m, code, text, false);
	close_stream(m, false);
}

/* A record that this kind did not write stops the activation: the stream is another's. */
static bool check_record(struct serial *m, const struct record_view *record)
{
	struct span mark;
	const struct entity_ops *kind = entity_kind_of_record(record, &mark);
	char text[ERR_TEXT_MAX];
	if (kind == m->base.ops && record->content == RECORD_BODY)
		return true;
	if (kind == m->base.ops)
		snprintf(text, sizeof text, "record %llu of stream %.*s was erased: it cannot be replayed",
			 (unsigned long long)record->sequence, SPAN_ARG(m->config.stream));
	else
		snprintf(text, sizeof text,
			 "the journal stream %.*s holds records of a %.*s entity, and %.*s is %s: give it a "
			 "persistence id of its own, or start the proxy with another --namespace",
			 SPAN_ARG(m->config.stream), SPAN_ARG(kind ? span_str(kind->name) : mark),
			 SPAN_ARG(m->config.service), m->base.ops->name);
	m->config.host->load_cancel(m->config.host_arg);
	load_refused(m, GRPC_FAILED_PRECONDITION, span_str(text));
	return false;
}

void serial_on_record(struct entity *e, const struct record_view *record)
{
	struct serial *m = machine(e);
	must(m->state == SERIAL_LOADING);
	bool snapshot = record->kind == RECORD_SNAPSHOT;
	if ((!snapshot && record->kind != RECORD_EVENT) || !check_record(m, record))
		return;
	if (!m->kind->on_record(m, record)) {
		m->config.host->load_cancel(m->config.host_arg);
		load_refused(m, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory for the replay"));
	}
}

void serial_on_loaded(struct entity *e, uint64_t sequence)
{
	struct serial *m = machine(e);
	must(m->state == SERIAL_LOADING);
	m->sequence = sequence;
	if (!m->init_sent && !m->kind->begin(m)) {
		load_refused(m, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory"));
		return;
	}
	m->state = SERIAL_READY;
	go_on(m);
}

void serial_on_load_failed(struct entity *e, const struct client_error *error)
{
	struct serial *m = machine(e);
	must(m->state == SERIAL_LOADING);
	load_refused(m, error->code, error->text);
}

static void finish_command(struct serial *m)
{
	struct entity_answer answer = {.arena = m->arena,
				       .action = m->reply.action,
				       .effects = m->reply.effects,
				       .effect_count = m->reply.effect_count};
	struct entity_command *c = m->current;
	arena_init(&m->arena, m->config.reply_max_bytes * REPLY_ARENA_FACTOR);
	m->current = NULL;
	m->reply = (struct serial_reply){0};
	m->config.host->answer(m->config.host_arg, c, &answer);
}

void serial_on_appended(struct entity *e, const struct client_error *error, uint64_t sequence, uint64_t position)
{
	struct serial *m = machine(e);
	(void)position;
	must(m->state == SERIAL_APPENDING && m->current);
	if (error->code == GRPC_OK) {
		m->sequence = sequence;
		if (m->kind->kept)
			m->kind->kept(m);
		finish_command(m);
		if (m->open) {
			m->state = SERIAL_READY;
			go_on(m);
		} else {
			rest(m);
		}
	} else if (error->has_sequence_found && !m->current->repeated) {
		/* Somebody else has written to the stream, so nothing happened: replay, then the command once
		 * more, before those that wait. */
		m->current->repeated = true;
		list_push_front(&m->waiting, &m->current->node);
		m->waiting_count++;
		m->current = NULL;
		close_stream(m, true);
	} else {
		LOG_AT(error->code == GRPC_UNAVAILABLE ? LOG_DEBUG : LOG_WARN, "events not kept",
		       LOG_SPAN("stream", m->config.stream), LOG_STR("code", grpc_code_name(error->code)),
		       LOG_SPAN("error", error->text));
		refuse_current(m, error->code, error->text, false);
		close_stream(m, true);
	}
}

/* --- the function's answers --------------------------------------------------------------------------- */

static size_t record_bytes(const struct serial *m, const Google__Protobuf__Any *any)
{
	return any->value.len + any->type_url.len + m->config.stream.n + RECORD_OVERHEAD_BYTES;
}

bool serial_fits_record(const struct serial *m, const Google__Protobuf__Any *any, size_t *ret_bytes)
{
	*ret_bytes = record_bytes(m, any);
	return any->type_url.len > 0 && any->type_url.len <= LIMIT_TYPE_BYTES &&
	       *ret_bytes <= LIMIT_RECORD_BYTES;
}

void serial_set_record(struct serial *m, struct client_record *r, const Google__Protobuf__Any *any)
{
	memset(r, 0, sizeof *r);
	uuid_v7(m->config.clock, r->id);
	if (!any)
		return;
	r->type = wire_span(any->type_url);
	r->data = wire_span(any->value);
}

static void refuse_changes(struct serial *m, const char *why)
{
	log_warn("a reply's changes are not kept", LOG_SPAN("stream", m->config.stream), LOG_STR("error", why));
	refuse_current(m, GRPC_RESOURCE_EXHAUSTED, span_str(why), false);
	close_stream(m, true);
}

/* True: there is something to be kept before the answer, or it failed. */
static bool keep(struct serial *m)
{
	struct entity_append append = {.expect = CLIENT_EXACTLY, .expected_sequence = m->sequence};
	char why[ERR_TEXT_MAX] = "out of memory for what the reply changes";
	switch (m->kind->keep(m, &append, why)) {
	case SERIAL_NOTHING: return false;
	case SERIAL_APPEND:
		m->state = SERIAL_APPENDING;
		m->config.host->append(m->config.host_arg, &append);
		return true;
	case SERIAL_REFUSED: break;
	}
	refuse_changes(m, why);
	return true;
}

static void on_reply(struct serial *m, const struct serial_reply *reply)
{
	const Cloudstate__ClientAction *action = reply->action;
	if (m->state != SERIAL_BUSY || reply->command_id != m->next_id - 1) {
		serial_report(m, "%s: for command %lld, %s", m->kind->reply, (long long)reply->command_id,
			      m->state == SERIAL_BUSY ? "while another one is outstanding"
						      : "that nobody waits for");
		fault(m, m->kind->reply, false);
		return;
	}
	m->reply = *reply;
	if (action && action->action_case == ACTION(FAILURE)) {
		bool restart = action->failure->restart && m->kind->restarts;
		if (reply->changes)
			serial_report(m, "a reply that is a failure has %s besides: dropped",
				      m->kind->changes);
		finish_command(m);
		m->state = SERIAL_READY;
		if (restart)
			close_stream(m, true);
		else
			go_on(m);
	} else if (!keep(m)) {
		finish_command(m);
		m->state = SERIAL_READY;
		go_on(m);
	}
}

/* The bug of a proxy that runs side effects before what they follow from is durable. */
static void run_effects_early(struct serial *m, struct span message)
{
	struct entity_answer answer = {.more = true};
	struct serial_out out = {0};
	arena_init(&answer.arena, m->config.reply_max_bytes * REPLY_ARENA_FACTOR);
	m->kind->unpack(message, &answer.arena, &out);
	answer.effects = out.reply.effects;
	answer.effect_count = out.reply.effect_count;
	m->config.host->answer(m->config.host_arg, m->current, &answer);
}

void serial_on_message(struct entity *e, struct span message)
{
	struct serial *m = machine(e);
	if (m->state == SERIAL_CLOSING)
		return; /* it was written before the function saw the half-close */
	must(m->open);
	/* In APPENDING the arena holds the reply that is being kept; whatever comes now is a fault. */
	struct arena spare;
	struct arena *a = m->state == SERIAL_APPENDING ? &spare : &m->arena;
	struct serial_out out = {0};
	arena_init(a, m->config.reply_max_bytes * REPLY_ARENA_FACTOR);
	bool unpacked = m->kind->unpack(message, a, &out);
	if (unpacked && out.is_reply) {
		if (plant("effect-before-persist") && m->state == SERIAL_BUSY && out.reply.effect_count) {
			run_effects_early(m, message);
			out.reply.effect_count = 0;
		}
		on_reply(m, &out.reply);
	} else if (unpacked && out.failure) {
		struct span text = wire_span(out.failure->description);
		log_warn("function failed an entity", LOG_SPAN("service", m->config.service),
			 LOG_SPAN("entity", m->config.entity_id), LOG_SPAN("description", text));
		serial_report(m, "%s: %.*s", m->kind->failure, SPAN_ARG(text));
		fault(m, m->kind->failure, true);
	} else if (out.refused && m->state == SERIAL_BUSY) {
		refuse_changes(m, out.refused);
	} else {
		serial_report(m, "%s: %s", m->kind->message,
			      unpacked ? "neither a reply nor a failure"
				       : "malformed, or too large to be unpacked");
		fault(m, m->kind->message, false);
	}
	if (a == &spare)
		arena_release(&spare);
}

/* In APPENDING the command has its answer, which stands. */
static void refuse_too_large(struct serial *m, const struct entity_end *end)
{
	struct buf text;
	bool asked = m->current && m->state != SERIAL_APPENDING;
	entity_report_too_large(&m->config, asked ? m->current->name : SPAN(""), end, &text);
	if (asked)
		refuse_current(m, GRPC_RESOURCE_EXHAUSTED, buf_span(&text), false);
	buf_release(&text);
}

void serial_on_end(struct entity *e, const struct entity_end *end)
{
	struct serial *m = machine(e);
	bool closing = m->state == SERIAL_CLOSING;
	must(closing || m->open);
	m->open = false;
	if (closing) {
		rest(m);
		return;
	}
	if (end->unreached && m->state != SERIAL_APPENDING) {
		refuse_current(m, GRPC_UNAVAILABLE, end->message, false);
		refuse_waiting(m, GRPC_UNAVAILABLE, end->message, false);
	}
	if (end->too_large)
		refuse_too_large(m, end);
	if (m->state == SERIAL_LOADING)
		m->config.host->load_cancel(m->config.host_arg);
	if (m->state != SERIAL_APPENDING)
		refuse_current(m, GRPC_UNKNOWN, span_str(m->kind->termination), true);
	refuse_waiting(m, GRPC_UNKNOWN, span_str(m->kind->terminated), true);
	if (m->state != SERIAL_APPENDING) {
		drop_reply(m);
		m->reopen = false;
		rest(m);
	}
}

/* --- commands, time --------------------------------------------------------------------------------- */

void serial_command(struct entity *e, struct entity_command *c)
{
	struct serial *m = machine(e);
	list_push_back(&m->waiting, &c->node);
	m->waiting_count++;
	if (m->state == SERIAL_READY)
		go_on(m);
	else if (m->state == SERIAL_COLD)
		activate(m);
}

bool serial_withdraw(struct entity *e, struct entity_command *c)
{
	struct serial *m = machine(e);
	if (c == m->current || c->repeated) /* it has been sent */
		return false;
	must(list_linked(&c->node));
	list_remove(&c->node);
	m->waiting_count--;
	if (m->state == SERIAL_LOADING && !m->init_sent && !m->restarted && !m->waiting_count) {
		m->config.host->load_cancel(m->config.host_arg); /* nobody asks for it any more */
		rest(m);
	}
	return true;
}

void serial_passivate(struct entity *e)
{
	struct serial *m = machine(e);
	m->retire = true;
	if (m->state == SERIAL_READY && !m->waiting_count)
		close_stream(m, false);
}

void serial_on_time(struct entity *e)
{
	struct serial *m = machine(e);
	bool due = mono_since_us(clock_mono(m->config.clock), m->deadline) >= 0;
	if (m->state != SERIAL_READY && m->state != SERIAL_BUSY && m->state != SERIAL_CLOSING)
		return;
	if (!due) {
		m->config.host->wake_at(m->config.host_arg, m->deadline);
	} else if (m->state == SERIAL_READY) {
		close_stream(m, false);
	} else if (m->state == SERIAL_CLOSING) {
		log_warn("function does not end an entity's stream: reset",
			 LOG_SPAN("service", m->config.service), LOG_SPAN("entity", m->config.entity_id));
		m->config.host->reset(m->config.host_arg);
		rest(m);
	} else {
		refuse_current(m, GRPC_DEADLINE_EXCEEDED, SPAN("the function has not answered in time"),
			       false);
		reset_stream(m);
	}
}

size_t serial_waiting(const struct entity *e)
{
	return machine_const(e)->waiting_count;
}

bool serial_idle(const struct entity *e)
{
	const struct serial *m = machine_const(e);
	return m->state == SERIAL_READY && !m->waiting_count;
}

size_t serial_bytes(const struct entity *e)
{
	const struct serial *m = machine_const(e);
	return sizeof *m + m->arena.used_bytes;
}

void serial_init(struct serial *m, const struct serial_kind *kind, const struct entity_ops *ops,
		 const struct entity_config *config)
{
	m->base.ops = ops;
	m->base.magic = SERIAL_MAGIC;
	m->kind = kind;
	m->config = *config;
	list_init(&m->waiting);
	arena_init(&m->arena, m->config.reply_max_bytes * REPLY_ARENA_FACTOR);
}

void serial_release(struct serial *m)
{
	must(m->base.magic == SERIAL_MAGIC);
	arena_release(&m->arena);
	m->base.magic = 0;
}
