/* The event sourced kind (contract, section 3): replay, then one command at a time, whose events are durable
 * before the client hears of them. A state machine: no I/O, no clock of its own.
 *
 *	COLD ──command──▶ LOADING ──loaded──▶ READY ──a command waits──▶ BUSY ──reply, events──▶ APPENDING
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

#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

#define MAGIC 0x45765372u
/* What unpacking a reply may need, in times its own bytes: many small events have many small structs. */
#define REPLY_ARENA_FACTOR 4
/* What an encoded record has besides its data, type and stream name (fixed fields, salt, CRC, tags). */
#define RECORD_OVERHEAD_BYTES ((size_t)256)

typedef Cloudstate__Eventsourced__EventSourcedStreamIn stream_in;
typedef Cloudstate__Eventsourced__EventSourcedStreamOut stream_out;
typedef Cloudstate__Eventsourced__EventSourcedReply es_reply;
#define IN(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__MESSAGE_##NAME
#define OUT(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_OUT__MESSAGE_##NAME
#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME

enum state { COLD, LOADING, READY, BUSY, APPENDING, CLOSING };

struct event_sourced {
	struct entity base;
	enum state state;
	struct entity_config config;
	struct list waiting; /* entity_command.node */
	size_t waiting_count;

	/* the function's stream */
	bool open; /* there is one, and our side of it is open */
	bool init_sent;
	bool reopen;    /* CLOSING: activate again at its end, even if nobody waits */
	bool restarted; /* LOADING: it was, so nobody need wait for it */
	bool retire;    /* passivate as soon as idle */
	int64_t next_id;

	uint64_t sequence;
	struct mono_time deadline; /* of BUSY, READY (passivation) and CLOSING (grace) */

	/* BUSY, APPENDING */
	struct entity_command *current;
	struct arena arena; /* of the reply */
	const es_reply *reply;
};

static void go_on(struct event_sourced *es);

static struct event_sourced *machine(struct entity *e)
{
	return OBJ_CAST(struct event_sourced, e, MAGIC);
}

static const struct event_sourced *machine_const(const struct entity *e)
{
	must(e->magic == MAGIC);
	return (const struct event_sourced *)(const void *)e;
}

/* --- answers, reports, time ---------------------------------------------------------------------- */

static void refuse(struct event_sourced *es, struct entity_command *c, enum grpc_code code, struct span text,
		   bool failure)
{
	es->config.host->end(es->config.host_arg, c,
			     &(struct outcome){.code = code, .message = text, .failure = failure});
}

static void refuse_waiting(struct event_sourced *es, enum grpc_code code, struct span text, bool failure)
{
	struct list_node *n;
	while ((n = list_pop_front(&es->waiting))) {
		es->waiting_count--;
		refuse(es, CONTAINER_OF(n, struct entity_command, node), code, text, failure);
	}
}

static void refuse_current(struct event_sourced *es, enum grpc_code code, struct span text, bool failure)
{
	struct entity_command *c = es->current;
	es->current = NULL;
	if (c)
		refuse(es, c, code, text, failure);
}

__attribute__((format(printf, 2, 3))) static void report(struct event_sourced *es, const char *fmt, ...)
{
	struct buf text;
	va_list args;
	char detail[ERR_TEXT_MAX];
	buf_init(&text, 4 * KIB);
	va_start(args, fmt);
	vsnprintf(detail, sizeof detail, fmt, args);
	va_end(args);
	if (!buf_printf(&text, "%.*s entity [%.*s]: %s", SPAN_ARG(es->config.service),
			SPAN_ARG(es->config.entity_id), detail))
		es->config.host->report(es->config.host_arg, buf_span(&text));
	buf_release(&text);
}

static void set_deadline(struct event_sourced *es, int64_t after_ms)
{
	es->deadline = clock_mono(es->config.clock);
	es->deadline.us += after_ms * 1000;
	es->config.host->wake_at(es->config.host_arg, es->deadline);
}

static void drop_reply(struct event_sourced *es)
{
	arena_release(&es->arena);
	es->reply = NULL;
}

/* --- messages to the function; false: out of memory ------------------------------------- */

static bool send(struct event_sourced *es, const stream_in *message)
{
	struct buf out;
	buf_init(&out, SIZE_MAX / 2); /* what it holds has passed the limits of the journal or of a front */
	bool packed = wire_pack(&message->base, &out);
	if (packed)
		es->config.host->send(es->config.host_arg, buf_span(&out));
	buf_release(&out);
	return packed;
}

static bool send_init(struct event_sourced *es, const struct record_view *snapshot)
{
	stream_in in = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__INIT;
	Cloudstate__Eventsourced__EventSourcedInit init = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_INIT__INIT;
	Cloudstate__Eventsourced__EventSourcedSnapshot snap =
		CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_SNAPSHOT__INIT;
	Google__Protobuf__Any state;

	es->config.host->open(es->config.host_arg, "/cloudstate.eventsourced.EventSourced/handle", -1);
	es->open = true;
	es->init_sent = true;
	if (!plant("id-not-restarted-on-new-stream") || !es->next_id)
		es->next_id = 1;
	init.service_name = wire_bytes(es->config.service);
	init.entity_id = wire_bytes(es->config.entity_id);
	if (snapshot) {
		wire_any_set(&state, (struct any){snapshot->type, snapshot->data});
		snap.snapshot_sequence = (int64_t)snapshot->sequence;
		if (plant("sequence-off-by-one-after-snapshot"))
			snap.snapshot_sequence++;
		snap.snapshot = &state;
		init.snapshot = &snap;
	}
	in.message_case = IN(INIT);
	in.init = &init;
	return send(es, &in);
}

static bool send_event(struct event_sourced *es, const struct record_view *record)
{
	stream_in in = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__INIT;
	Cloudstate__Eventsourced__EventSourcedEvent event =
		CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_EVENT__INIT;
	Google__Protobuf__Any payload;

	wire_any_set(&payload, (struct any){record->type, record->data});
	event.sequence = (int64_t)record->sequence;
	event.payload = &payload;
	in.message_case = IN(EVENT);
	in.event = &event;
	return send(es, &in);
}

static bool send_command(struct event_sourced *es)
{
	stream_in in = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__INIT;
	Cloudstate__Command command = CLOUDSTATE__COMMAND__INIT;
	Google__Protobuf__Any payload;

	wire_any_set(&payload, es->current->payload);
	command.entity_id = wire_bytes(es->config.entity_id);
	command.id = es->next_id++;
	command.name = wire_bytes(es->current->name);
	command.payload = &payload;
	in.message_case = IN(COMMAND);
	in.command = &command;
	return send(es, &in);
}

/* --- the stream's life --------------------------------------------------------------------------- */

static void activate(struct event_sourced *es)
{
	must(!es->open && !es->current);
	es->state = LOADING;
	es->init_sent = false;
	es->restarted = es->reopen;
	es->reopen = false;
	es->config.host->load(es->config.host_arg);
}

/* Without a stream and a load: activates again where somebody waits for it. */
static void rest(struct event_sourced *es)
{
	must(!es->open && !es->current);
	es->state = COLD;
	if (es->waiting_count || es->reopen)
		activate(es);
	else
		es->config.host->gone(es->config.host_arg);
}

/* The orderly end: half-close, wait for the function's side. */
static void close_stream(struct event_sourced *es, bool reopen)
{
	drop_reply(es);
	es->reopen = reopen;
	if (!es->open) { /* it ended while the append was under way */
		rest(es);
		return;
	}
	es->open = false;
	es->state = CLOSING;
	if (plant("reset-instead-of-half-close")) {
		es->config.host->reset(es->config.host_arg);
		rest(es);
		return;
	}
	es->config.host->half_close(es->config.host_arg);
	set_deadline(es, es->config.close_grace_ms);
}

static void reset_stream(struct event_sourced *es)
{
	drop_reply(es);
	es->reopen = false;
	if (es->open)
		es->config.host->reset(es->config.host_arg);
	es->open = false;
	rest(es);
}

/* The function broke the protocol. What it had answered before is still kept and answered: with an append
 * under way only the stream goes. */
static void fault(struct event_sourced *es, const char *text, bool orderly)
{
	if (es->state == LOADING)
		es->config.host->load_cancel(es->config.host_arg);
	if (es->state != APPENDING)
		refuse_current(es, GRPC_UNKNOWN, span_str(text), true);
	refuse_waiting(es, GRPC_UNKNOWN, SPAN("Entity terminated"), true);
	if (es->state == APPENDING) {
		es->config.host->reset(es->config.host_arg);
		es->open = false;
	} else if (orderly) {
		close_stream(es, false);
	} else {
		reset_stream(es);
	}
}

/* READY: sends the next command, or waits for one. */
static void go_on(struct event_sourced *es)
{
	must(es->state == READY && !es->current && es->open);
	struct list_node *n = list_pop_front(&es->waiting);
	if (n) {
		es->waiting_count--;
		es->current = CONTAINER_OF(n, struct entity_command, node);
		es->state = BUSY;
		set_deadline(es, es->config.command_timeout_ms);
		if (!send_command(es)) {
			refuse_current(es, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory for the command"),
				       false);
			reset_stream(es);
		}
	} else if (es->retire) {
		close_stream(es, false);
	} else {
		set_deadline(es, es->config.passivation_ms);
	}
}

/* --- the journal's answers ------------------------------------------------------------------------- */

static void load_refused(struct event_sourced *es, enum grpc_code code, struct span text)
{
	/* A journal that is away is logged once, by whoever watches it. */
	LOG_AT(code == GRPC_UNAVAILABLE ? LOG_DEBUG : LOG_WARN, "entity not activated",
	       LOG_SPAN("service", es->config.service), LOG_SPAN("entity", es->config.entity_id),
	       LOG_STR("code", grpc_code_name(code)), LOG_SPAN("error", text));
	refuse_waiting(es, code, text, false);
	close_stream(es, false);
}

/* A record that this kind did not write stops the activation: the stream is another's. */
static bool check_record(struct event_sourced *es, const struct record_view *record)
{
	struct span mark;
	const struct entity_ops *kind = entity_kind_of_record(record, &mark);
	char text[ERR_TEXT_MAX];
	if (kind == &entity_event_sourced && record->content == RECORD_BODY)
		return true;
	if (kind == &entity_event_sourced)
		snprintf(text, sizeof text, "record %llu of stream %.*s was erased: it cannot be replayed",
			 (unsigned long long)record->sequence, SPAN_ARG(es->config.stream));
	else
		snprintf(text, sizeof text,
			 "the journal stream %.*s holds records of a %.*s entity, and %.*s is %s: give it a "
			 "persistence id of its own, or start the proxy with another --namespace",
			 SPAN_ARG(es->config.stream), SPAN_ARG(kind ? span_str(kind->name) : mark),
			 SPAN_ARG(es->config.service), entity_event_sourced.name);
	es->config.host->load_cancel(es->config.host_arg);
	load_refused(es, GRPC_FAILED_PRECONDITION, span_str(text));
	return false;
}

static void on_record(struct entity *e, const struct record_view *record)
{
	struct event_sourced *es = machine(e);
	must(es->state == LOADING);
	bool snapshot = record->kind == RECORD_SNAPSHOT;
	if ((!snapshot && record->kind != RECORD_EVENT) || !check_record(es, record))
		return;
	bool sent = es->init_sent || send_init(es, snapshot ? record : NULL);
	if (sent && !snapshot && !plant("restart-without-replay"))
		sent = send_event(es, record);
	if (!sent) {
		es->config.host->load_cancel(es->config.host_arg);
		load_refused(es, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory for the replay"));
	}
}

static void on_loaded(struct entity *e, uint64_t sequence)
{
	struct event_sourced *es = machine(e);
	must(es->state == LOADING);
	es->sequence = sequence;
	if (!es->init_sent && !send_init(es, NULL)) {
		load_refused(es, GRPC_RESOURCE_EXHAUSTED, SPAN("out of memory"));
		return;
	}
	es->state = READY;
	go_on(es);
}

static void on_load_failed(struct entity *e, const struct client_error *error)
{
	struct event_sourced *es = machine(e);
	must(es->state == LOADING);
	load_refused(es, error->code, error->text);
}

static void finish_command(struct event_sourced *es)
{
	struct entity_answer answer = {.arena = es->arena,
				       .action = es->reply->client_action,
				       .effects = es->reply->side_effects,
				       .effect_count = es->reply->n_side_effects};
	struct entity_command *c = es->current;
	arena_init(&es->arena, es->config.reply_max_bytes * REPLY_ARENA_FACTOR);
	es->current = NULL;
	es->reply = NULL;
	es->config.host->answer(es->config.host_arg, c, &answer);
}

static void on_appended(struct entity *e, const struct client_error *error, uint64_t sequence)
{
	struct event_sourced *es = machine(e);
	must(es->state == APPENDING && es->current);
	if (error->code == GRPC_OK) {
		es->sequence = sequence;
		finish_command(es);
		if (es->open) {
			es->state = READY;
			go_on(es);
		} else {
			rest(es);
		}
	} else if (error->has_sequence_found && !es->current->repeated) {
		/* Somebody else has written to the stream, so nothing happened: replay, then the command once
		 * more, before those that wait. */
		es->current->repeated = true;
		list_push_front(&es->waiting, &es->current->node);
		es->waiting_count++;
		es->current = NULL;
		close_stream(es, true);
	} else {
		LOG_AT(error->code == GRPC_UNAVAILABLE ? LOG_DEBUG : LOG_WARN, "events not kept",
		       LOG_SPAN("stream", es->config.stream), LOG_STR("code", grpc_code_name(error->code)),
		       LOG_SPAN("error", error->text));
		refuse_current(es, error->code, error->text, false);
		close_stream(es, true);
	}
}

/* --- the function's answers --------------------------------------------------------------------------- */

static bool fits_record(const struct event_sourced *es, const Google__Protobuf__Any *any)
{
	return any->type_url.len > 0 && any->type_url.len <= LIMIT_TYPE_BYTES &&
	       any->value.len + any->type_url.len + es->config.stream.n + RECORD_OVERHEAD_BYTES <=
		       LIMIT_RECORD_BYTES;
}

/* Can the reply's events be one append? If not, text says why. */
static bool check_events(const struct event_sourced *es, const es_reply *reply, char text[ERR_TEXT_MAX])
{
	size_t bytes = 0, events_max = LIMIT_APPEND_RECORDS - 1;
	size_t bytes_max = LIMIT_APPEND_BYTES - LIMIT_RECORD_BYTES; /* the rest may be the snapshot's */
	if (reply->n_events > events_max) {
		snprintf(text, ERR_TEXT_MAX,
			 "the reply has %zu events, the journal takes at most %zu at once", reply->n_events,
			 events_max);
		return false;
	}
	for (size_t i = 0; i < reply->n_events; i++) {
		const Google__Protobuf__Any *event = reply->events[i];
		if (!fits_record(es, event)) {
			snprintf(text, ERR_TEXT_MAX,
				 "event %zu of the reply has %zu bytes and a type of %zu; the journal takes "
				 "records of at most %zu with a type of 1 to %zu",
				 i + 1, event->value.len, event->type_url.len, LIMIT_RECORD_BYTES,
				 LIMIT_TYPE_BYTES);
			return false;
		}
		bytes += event->value.len + event->type_url.len + es->config.stream.n + RECORD_OVERHEAD_BYTES;
	}
	if (bytes > bytes_max)
		snprintf(text, ERR_TEXT_MAX,
			 "the reply's events have %zu bytes, the journal takes at most %zu at once", bytes,
			 bytes_max);
	return bytes <= bytes_max;
}

static void set_record(struct event_sourced *es, struct client_record *r, const Google__Protobuf__Any *any)
{
	memset(r, 0, sizeof *r);
	uuid_v7(es->config.clock, r->id);
	r->type = wire_span(any->type_url);
	r->data = wire_span(any->value);
}

static void append_events(struct event_sourced *es)
{
	const es_reply *reply = es->reply;
	const Google__Protobuf__Any *snapshot = reply->snapshot;
	char why[ERR_TEXT_MAX] = "out of memory for the reply's events";
	struct client_record *records = arena_alloc(&es->arena, (reply->n_events + 1) * sizeof *records);
	if (!records || !check_events(es, reply, why)) {
		log_warn("events not kept", LOG_SPAN("stream", es->config.stream), LOG_STR("error", why));
		refuse_current(es, GRPC_RESOURCE_EXHAUSTED, span_str(why), false);
		close_stream(es, true);
		return;
	}
	for (size_t i = 0; i < reply->n_events; i++)
		set_record(es, &records[i], reply->events[i]);
	if (plant("events-swapped") && reply->n_events > 1) {
		struct client_record first = records[0];
		records[0] = records[1];
		records[1] = first;
	}
	if (snapshot && !fits_record(es, snapshot)) {
		report(es,
		       "the snapshot has %zu bytes, above the journal's limit of %zu for a record, or no "
		       "type_url: it is dropped, the events are kept",
		       snapshot->value.len, LIMIT_RECORD_BYTES);
		snapshot = NULL;
	}
	if (snapshot)
		set_record(es, &records[reply->n_events], snapshot);
	es->state = APPENDING;
	es->config.host->append(
		es->config.host_arg,
		&(struct entity_append){.expect = CLIENT_EXACTLY,
					.expected_sequence = es->sequence,
					.events = records,
					.event_count = reply->n_events,
					.snapshot = snapshot ? &records[reply->n_events] : NULL});
}

static void on_reply(struct event_sourced *es, es_reply *reply)
{
	const Cloudstate__ClientAction *action = reply->client_action;
	if (es->state != BUSY || reply->command_id != es->next_id - 1) {
		report(es, "Unexpected entity reply: for command %lld, %s", (long long)reply->command_id,
		       es->state == BUSY ? "while another one is outstanding" : "that nobody waits for");
		fault(es, "Unexpected entity reply", false);
		return;
	}
	es->reply = reply;
	if (action && action->action_case == ACTION(FAILURE)) {
		bool restart = action->failure->restart;
		if (reply->n_events || reply->snapshot)
			report(es, "a reply that is a failure has events or a snapshot besides: they are "
				   "dropped");
		finish_command(es);
		es->state = READY;
		if (restart)
			close_stream(es, true);
		else
			go_on(es);
	} else if (reply->n_events) {
		append_events(es);
	} else {
		if (reply->snapshot)
			report(es, "a reply has a snapshot without events: it is ignored");
		finish_command(es);
		es->state = READY;
		go_on(es);
	}
}

static void on_message(struct entity *e, struct span message)
{
	struct event_sourced *es = machine(e);
	if (es->state == CLOSING)
		return; /* it was written before the function saw the half-close */
	must(es->open);
	/* In APPENDING the arena holds the reply that is being kept; whatever comes now is a fault. */
	struct arena spare;
	struct arena *a = es->state == APPENDING ? &spare : &es->arena;
	arena_init(a, es->config.reply_max_bytes * REPLY_ARENA_FACTOR);
	stream_out *out = (stream_out *)(void *)grpc_unpack(
		&cloudstate__eventsourced__event_sourced_stream_out__descriptor, a, message);
	if (out && out->message_case == OUT(REPLY)) {
		on_reply(es, out->reply);
	} else if (out && out->message_case == OUT(FAILURE)) {
		log_warn("function failed an entity", LOG_SPAN("service", es->config.service),
			 LOG_SPAN("entity", es->config.entity_id),
			 LOG_SPAN("description", wire_span(out->failure->description)));
		report(es, "Unexpected entity failure: %.*s", SPAN_ARG(wire_span(out->failure->description)));
		fault(es, "Unexpected entity failure", true);
	} else {
		report(es, "Unexpected entity message: %s",
		       out ? "neither a reply nor a failure" : "malformed, or too large to be unpacked");
		fault(es, "Unexpected entity message", false);
	}
	if (a == &spare)
		arena_release(&spare);
}

/* In APPENDING the command has its answer, which stands. */
static void refuse_too_large(struct event_sourced *es, const struct entity_end *end)
{
	struct buf text;
	bool asked = es->current && es->state != APPENDING;
	entity_report_too_large(&es->config, asked ? es->current->name : SPAN(""), end, &text);
	if (asked)
		refuse_current(es, GRPC_RESOURCE_EXHAUSTED, buf_span(&text), false);
	buf_release(&text);
}

static void on_end(struct entity *e, const struct entity_end *end)
{
	struct event_sourced *es = machine(e);
	bool closing = es->state == CLOSING;
	must(closing || es->open);
	es->open = false;
	if (closing) {
		rest(es);
		return;
	}
	if (end->unreached && es->state != APPENDING) {
		refuse_current(es, GRPC_UNAVAILABLE, end->message, false);
		refuse_waiting(es, GRPC_UNAVAILABLE, end->message, false);
	}
	if (end->too_large)
		refuse_too_large(es, end);
	if (es->state == LOADING)
		es->config.host->load_cancel(es->config.host_arg);
	if (es->state != APPENDING)
		refuse_current(es, GRPC_UNKNOWN, SPAN("Unexpected entity termination"), true);
	refuse_waiting(es, GRPC_UNKNOWN, SPAN("Entity terminated"), true);
	if (es->state != APPENDING) {
		drop_reply(es);
		es->reopen = false;
		rest(es);
	}
}

/* --- commands, time --------------------------------------------------------------------------------- */

static void command(struct entity *e, struct entity_command *c)
{
	struct event_sourced *es = machine(e);
	list_push_back(&es->waiting, &c->node);
	es->waiting_count++;
	if (es->state == READY)
		go_on(es);
	else if (es->state == COLD)
		activate(es);
}

static bool withdraw(struct entity *e, struct entity_command *c)
{
	struct event_sourced *es = machine(e);
	if (c == es->current || c->repeated) /* it has been sent */
		return false;
	must(list_linked(&c->node));
	list_remove(&c->node);
	es->waiting_count--;
	if (es->state == LOADING && !es->init_sent && !es->restarted && !es->waiting_count) {
		es->config.host->load_cancel(es->config.host_arg); /* nobody asks for it any more */
		rest(es);
	}
	return true;
}

static void passivate(struct entity *e)
{
	struct event_sourced *es = machine(e);
	es->retire = true;
	if (es->state == READY && !es->waiting_count)
		close_stream(es, false);
}

static void on_time(struct entity *e)
{
	struct event_sourced *es = machine(e);
	bool due = mono_since_us(clock_mono(es->config.clock), es->deadline) >= 0;
	if (es->state != READY && es->state != BUSY && es->state != CLOSING)
		return;
	if (!due) {
		es->config.host->wake_at(es->config.host_arg, es->deadline);
	} else if (es->state == READY) {
		close_stream(es, false);
	} else if (es->state == CLOSING) {
		log_warn("function does not end an entity's stream: reset",
			 LOG_SPAN("service", es->config.service), LOG_SPAN("entity", es->config.entity_id));
		es->config.host->reset(es->config.host_arg);
		rest(es);
	} else {
		refuse_current(es, GRPC_DEADLINE_EXCEEDED, SPAN("the function has not answered in time"),
			       false);
		reset_stream(es);
	}
}

static size_t waiting(const struct entity *e)
{
	return machine_const(e)->waiting_count;
}

static bool idle(const struct entity *e)
{
	const struct event_sourced *es = machine_const(e);
	return es->state == READY && !es->waiting_count;
}

static struct entity *create(const struct entity_config *config)
{
	struct event_sourced *es = mem_xalloc(sizeof *es);
	es->base.ops = &entity_event_sourced;
	es->base.magic = MAGIC;
	es->config = *config;
	list_init(&es->waiting);
	arena_init(&es->arena, es->config.reply_max_bytes * REPLY_ARENA_FACTOR);
	return &es->base;
}

static void destroy(struct entity *e)
{
	struct event_sourced *es = machine(e);
	arena_release(&es->arena);
	es->base.magic = 0;
	mem_free(es);
}

const struct entity_ops entity_event_sourced = {
	.type = "cloudstate.eventsourced.EventSourced",
	.name = "event sourced",
	.mark = NULL,
	.stateful = true,
	.create = create,
	.free = destroy,
	.command = command,
	.withdraw = withdraw,
	.waiting = waiting,
	.idle = idle,
	.passivate = passivate,
	.on_message = on_message,
	.on_end = on_end,
	.on_record = on_record,
	.on_loaded = on_loaded,
	.on_load_failed = on_load_failed,
	.on_appended = on_appended,
	.on_time = on_time,
};
