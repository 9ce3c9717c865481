#include <config.h>

#include "proxy/eventing.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"
#include "journal/client_group.h"
#include "proxy/event_source.h"
#include "proxy/spec_eventing.h"

#define EVENTING_MAGIC 0x4576656eu
#define SUBSCRIPTION_MAGIC 0x53756273u
/* Until the journal is asked again: that could not be reached, and that refused. */
#define AGAIN_MS 500
#define REFUSED_AGAIN_MS 5000
#define RETRY_GROWTH_MAX 10
#define TRIES_MAX 16
#define PARK_REASON_BYTES ((size_t)500)

struct eventing {
	uint32_t magic;
	struct eventing_config config;
	struct list subscriptions;
	bool draining;
	void (*drained)(void *arg);
	void *drained_arg;
};

/* One source of one service. */
struct subscription {
	uint32_t magic;
	struct list_node node;
	struct eventing *eventing;
	struct spec *spec; /* a reference; service and source are its */
	const struct spec_service *service;
	const struct spec_source *source;
	const struct event_source *from; /* what it is in the journal */
	struct service_stats *stats;
	char *group, *category;

	struct client_consumer *consumer; /* NULL: there is none */
	bool active;			  /* it is this consumer's turn */
	bool finished;			  /* it was told that no more acknowledgements come */
	bool ending;			  /* it is to go, and another spec's or nobody's is to come */
	struct loop_timer *again;

	struct list lanes;
	struct map by_stream; /* -> lane */
	size_t running;	      /* deliveries under way */
	size_t bytes;	      /* of the events in hand */
	bool held;
	struct map failed; /* stream -> struct tries */
};

/* The events of one stream that are in hand: one is under way, the others wait. */
struct lane {
	struct list_node node;
	struct subscription *subscription;
	struct event *running;
	struct list waiting;
	struct span stream; /* behind it */
};

struct event {
	struct list_node node;
	struct lane *lane;
	struct record_view record; /* its bytes are behind it */
	const struct spec_method *method; /* under way: that it calls; NULL: there is none for it */
	size_t bytes;		   /* of all this */
};

/* A stream one of whose events was given back. */
struct tries {
	uint64_t position; /* how often this one has failed: */
	unsigned count;
	bool expecting;	   /* that it comes again: what comes before this one does was sent before the journal knew */
	uint64_t expected; /* that, or a later one */
};

static void run_next(struct lane *lane);
static void subscription_settle(struct subscription *s);

/* --- events in hand --------------------------------------------------------------------------------------- */

/* More of them than this proxy wants to keep in memory: the journal waits. */
static void update_hold(struct subscription *s)
{
	bool hold = s->bytes > LIMIT_EVENTS_IN_HAND_BYTES;
	if (hold == s->held || !s->consumer)
		return;
	s->held = hold;
	client_consumer_hold(s->consumer, hold);
}

static void event_free(struct event *e)
{
	struct subscription *s = e->lane->subscription;
	s->bytes -= e->bytes;
	s->stats->delivering--;
	mem_free(e);
}

/* The part of a record, copied to *at, which moves on. */
static struct span keep(struct span part, uint8_t **at)
{
	struct span kept = span_of(*at, part.n);
	if (part.n)
		memcpy(*at, part.p, part.n);
	*at += part.n;
	return kept;
}

static struct event *event_new(struct lane *lane, const struct record_view *record)
{
	size_t bytes = record->id.n + record->type.n + record->content_type.n + record->metadata_fields.n +
		       record->data.n;
	struct event *e = mem_xalloc(sizeof *e + bytes);
	uint8_t *at = (uint8_t *)(e + 1);
	e->record = (struct record_view){.position = record->position,
					 .sequence = record->sequence,
					 .commit_time = record->commit_time,
					 .kind = record->kind,
					 .content = record->content,
					 .stream = lane->stream};
	e->record.id = keep(record->id, &at);
	e->record.type = keep(record->type, &at);
	e->record.content_type = keep(record->content_type, &at);
	e->record.metadata_fields = keep(record->metadata_fields, &at);
	e->record.data = keep(record->data, &at);
	e->lane = lane;
	e->bytes = sizeof *e + bytes;
	lane->subscription->bytes += e->bytes;
	lane->subscription->stats->delivering++;
	return e;
}

static struct lane *lane_of(struct subscription *s, struct span stream)
{
	struct lane *lane = map_get(&s->by_stream, stream);
	if (lane && !plant("event-overtakes-its-entitys"))
		return lane;
	lane = mem_xalloc(sizeof *lane + stream.n);
	memcpy(lane + 1, stream.p, stream.n);
	lane->stream = span_of(lane + 1, stream.n);
	lane->subscription = s;
	list_init(&lane->waiting);
	list_push_back(&s->lanes, &lane->node);
	map_put(&s->by_stream, lane->stream, lane);
	return lane;
}

static void lane_drop_waiting(struct lane *lane)
{
	struct list_node *n;
	while ((n = list_pop_front(&lane->waiting)))
		event_free(CONTAINER_OF(n, struct event, node));
}

static void lane_free_if_empty(struct lane *lane)
{
	if (lane->running || !list_empty(&lane->waiting))
		return;
	map_remove(&lane->subscription->by_stream, lane->stream);
	list_remove(&lane->node);
	mem_free(lane);
}

/* What waits comes again, to the next consumer. */
static void drop_waiting(struct subscription *s)
{
	struct list_node *n = list_first(&s->lanes);
	while (n) {
		struct lane *lane = CONTAINER_OF(n, struct lane, node);
		n = list_next(&s->lanes, n);
		lane_drop_waiting(lane);
		lane_free_if_empty(lane);
	}
}

static void acknowledge(struct subscription *s, uint64_t position)
{
	if (s->consumer && !s->finished)
		client_consumer_ack(s->consumer, position);
}

/* --- failures --------------------------------------------------------------------------------------------- */

static struct tries *count_failure(struct subscription *s, const struct event *e)
{
	struct tries *t = map_get(&s->failed, e->lane->stream);
	if (!t) {
		t = mem_xalloc(sizeof *t);
		map_put(&s->failed, e->lane->stream, t);
	}
	if (t->position != e->record.position)
		*t = (struct tries){.position = e->record.position};
	t->count++;
	t->expected = e->record.position;
	t->expecting = true;
	return t;
}

/* Was it sent before the journal knew that one before it is given back? Then it goes back, too. It is expected from
 * then on, for the one before it may be gone for good: a stream can be truncated while it waits. */
static bool is_early(struct subscription *s, const struct record_view *record)
{
	struct tries *t = map_get(&s->failed, record->stream);
	if (!t || !t->expecting)
		return false;
	if (record->position <= t->expected) {
		t->expecting = false;
		return false;
	}
	t->expected = record->position;
	client_consumer_nack(s->consumer, record->position, (uint32_t)s->eventing->config.retry_ms);
	return true;
}

static int64_t retry_after_ms(const struct subscription *s, unsigned tries)
{
	int64_t base_ms = s->eventing->config.retry_ms, most_ms = RETRY_GROWTH_MAX * base_ms, ms = base_ms;
	for (unsigned i = 1; i < tries && ms < most_ms; i++)
		ms *= 2;
	if (ms > most_ms)
		ms = most_ms;
	ms = ms * (80 + (int64_t)(random_u64() % 41)) / 100;
	return ms < INT32_MAX ? ms : INT32_MAX;
}

/* Enough is enough: it is put aside, and its entity's later ones wait behind it in the journal. */
static void park(struct event *e, struct tries *t, const struct outcome *outcome)
{
	struct lane *lane = e->lane;
	struct subscription *s = lane->subscription;
	size_t n = outcome->message.n < PARK_REASON_BYTES ? outcome->message.n : PARK_REASON_BYTES;
	while (n > 0 && n < outcome->message.n && (outcome->message.p[n] & 0xc0) == 0x80)
		n--; /* no part of a character */
	char *reason = mem_xprintf("%u tries, %s: %.*s", t->count, grpc_code_name(outcome->code), (int)n,
				   (const char *)outcome->message.p);
	char *replay = mem_xprintf("cairn group replay '%s' --position %llu --reason TEXT", s->group,
				   (unsigned long long)e->record.position);
	s->stats->parked++;
	log_error("event parked: its entity's later ones wait behind it", LOG_SPAN("service", s->service->name),
		  LOG_SPAN("method", e->method ? e->method->pb->name : SPAN("none takes it")),
		  LOG_SPAN("entity", lane->stream), LOG_STR("group", s->group), LOG_U64("position", e->record.position),
		  LOG_SPAN("type", e->record.type), LOG_STR("reason", reason), LOG_STR("replay", replay));
	t->count = 0; /* replayed, it has all its tries again */
	if (s->consumer && !s->finished)
		client_consumer_park(s->consumer, e->record.position, span_str(reason),
				     plant("entity-goes-on-behind-a-parked-event"));
	mem_free(reason);
	mem_free(replay);
}

/* It goes back, and all of its entity that comes after it with it. */
static void give_back(struct event *e, const struct outcome *outcome)
{
	struct lane *lane = e->lane;
	struct subscription *s = lane->subscription;
	struct tries *t = count_failure(s, e);
	if (t->count >= TRIES_MAX) {
		s->stats->delivery_failures++;
		lane_drop_waiting(lane);
		park(e, t, outcome);
		return;
	}
	int64_t ms = retry_after_ms(s, t->count);
	s->stats->delivery_failures++;
	log_warn("event not delivered: it comes again", LOG_SPAN("service", s->service->name),
		 LOG_SPAN("stream", lane->stream), LOG_U64("position", e->record.position),
		 LOG_SPAN("type", e->record.type), LOG_U64("tries", t->count), LOG_I64("again_ms", ms),
		 LOG_STR("code", grpc_code_name(outcome->code)), LOG_SPAN("message", outcome->message));
	lane_drop_waiting(lane);
	if (s->consumer && !s->finished)
		client_consumer_nack(s->consumer, e->record.position, (uint32_t)ms);
}

static void forget_failure(struct subscription *s, struct span stream)
{
	mem_free(map_remove(&s->failed, stream));
}

static void free_tries(struct span key, void *value, void *arg)
{
	(void)key;
	(void)arg;
	mem_free(value);
}

static void forget_failures(struct subscription *s)
{
	map_each(&s->failed, free_tries, NULL);
	map_release(&s->failed);
	map_init(&s->failed);
}

/* --- one delivery ------------------------------------------------------------------------------------------ */

static void finish_event(struct event *e, const struct outcome *outcome)
{
	struct lane *lane = e->lane;
	struct subscription *s = lane->subscription;
	bool done = outcome->code == GRPC_OK || (outcome->failure && s->eventing->config.failure_is_done);
	if (done) {
		s->stats->delivered++;
		int64_t lag_us = clock_wall(s->eventing->config.clock).us - e->record.commit_time.us;
		s->stats->delivery_lag_us = lag_us > 0 ? (uint64_t)lag_us : 0;
		forget_failure(s, lane->stream);
		acknowledge(s, e->record.position);
	} else {
		give_back(e, outcome);
	}
	lane->running = NULL;
	event_free(e);
}

static void delivery_on_end(void *arg, const struct outcome *outcome)
{
	struct event *e = arg;
	struct lane *lane = e->lane;
	struct subscription *s = OBJ_CAST(struct subscription, lane->subscription, SUBSCRIPTION_MAGIC);
	must(lane->running == e && s->running > 0);
	s->running--;
	finish_event(e, outcome);
	run_next(lane);
	update_hold(s);
	subscription_settle(s);
}

static const struct reply_sink delivery_sink = {.on_end = delivery_on_end};

static void deliver(struct event *e, const struct spec_method *method, const struct any *payload,
		    const struct metadata *metadata)
{
	struct subscription *s = e->lane->subscription;
	if (plant("event-acknowledged-before-its-answer"))
		acknowledge(s, e->record.position);
	s->running++;
	router_deliver(s->eventing->config.router, method, payload, metadata, &delivery_sink, e);
}

/* Nothing is passed over: an event that no method takes stands in the way of its entity's others. */
static void refuse_unknown(struct event *e, struct span type_url)
{
	struct subscription *s = e->lane->subscription;
	char text[ERR_TEXT_MAX];
	snprintf(text, sizeof text, "no method of %.*s takes events of type %.*s from the %s \"%.*s\"",
		 SPAN_ARG(s->service->name), SPAN_ARG(type_url), s->from->what, SPAN_ARG(s->source->name));
	finish_event(e, &(struct outcome){.code = GRPC_UNIMPLEMENTED, .message = span_str(text)});
}

/* Under way, or finished by a failure. */
static void begin(struct event *e)
{
	struct subscription *s = e->lane->subscription;
	struct metadata metadata;
	struct arena arena;
	struct any payload;
	arena_init(&arena, LIMIT_CLOUD_EVENT_BYTES);
	if (s->from->read(&e->record, s->source->name, &arena, &payload, &metadata)) {
		finish_event(e, &(struct outcome){.code = GRPC_RESOURCE_EXHAUSTED,
						  .message = SPAN("out of memory for the event")});
	} else {
		e->method = spec_method_of_event(s->service, s->source, payload.type_url);
		if (e->method)
			deliver(e, e->method, &payload, &metadata);
		else
			refuse_unknown(e, payload.type_url);
	}
	arena_release(&arena);
}

/* The lane may be gone afterwards. */
static void run_next(struct lane *lane)
{
	struct list_node *n;
	while (!lane->running && (n = list_pop_front(&lane->waiting))) {
		lane->running = CONTAINER_OF(n, struct event, node);
		begin(lane->running);
	}
	lane_free_if_empty(lane);
}

/* --- the consumer -------------------------------------------------------------------------------------------- */

static void consumer_on_record(struct client_consumer *k, const struct record_view *record, void *arg)
{
	struct subscription *s = OBJ_CAST(struct subscription, arg, SUBSCRIPTION_MAGIC);
	(void)k;
	if (s->ending)
		return; /* it comes again, to whoever consumes next */
	if (is_early(s, record))
		return;
	if (!s->from->wanted(record)) {
		acknowledge(s, record->position);
		return;
	}
	struct lane *lane = lane_of(s, record->stream);
	list_push_back(&lane->waiting, &event_new(lane, record)->node);
	run_next(lane);
	update_hold(s);
}

static void consumer_on_active(struct client_consumer *k, uint64_t position, void *arg)
{
	struct subscription *s = OBJ_CAST(struct subscription, arg, SUBSCRIPTION_MAGIC);
	(void)k;
	s->active = true;
	log_info("events consumed", LOG_SPAN("service", s->service->name), LOG_STR("from", s->from->what),
		 LOG_SPAN("name", s->source->name), LOG_STR("group", s->group), LOG_U64("position", position));
}

static void consumer_on_done(struct client_consumer *k, const struct client_error *error, void *arg)
{
	struct subscription *s = OBJ_CAST(struct subscription, arg, SUBSCRIPTION_MAGIC);
	bool away = error->unreachable || error->code == GRPC_UNAVAILABLE;
	(void)k;
	s->consumer = NULL;
	s->active = s->finished = s->held = false;
	drop_waiting(s);
	forget_failures(s); /* the next consumer is sent everything in its order */
	if (s->ending) {
		subscription_settle(s);
		return;
	}
	if (error->code == GRPC_CANCELLED)
		return; /* the client goes */
	if (!away)
		log_warn("events not consumed", LOG_SPAN("service", s->service->name), LOG_STR("from", s->from->what),
			 LOG_SPAN("name", s->source->name), LOG_STR("group", s->group),
			 LOG_STR("code", grpc_code_name(error->code)), LOG_SPAN("error", error->text));
	loop_timer_set(s->again, away ? AGAIN_MS : REFUSED_AGAIN_MS);
}

static const struct client_consumer_ops consumer_ops = {
	.on_active = consumer_on_active, .on_record = consumer_on_record, .on_done = consumer_on_done};

/* Not while deliveries of the consumer before are under way: they would be overtaken by themselves. */
static void consume(void *arg)
{
	struct subscription *s = OBJ_CAST(struct subscription, arg, SUBSCRIPTION_MAGIC);
	if (s->ending || s->consumer)
		return;
	if (s->running) {
		loop_timer_set(s->again, AGAIN_MS);
		return;
	}
	s->consumer = client_consume(
		s->eventing->config.journal,
		&(struct client_consume){.group = span_str(s->group), .category = span_str(s->category)},
		&consumer_ops, s);
}

/* --- subscriptions --------------------------------------------------------------------------------------------- */

static void subscription_free(struct subscription *s)
{
	must(!s->consumer && !s->running && list_empty(&s->lanes));
	list_remove(&s->node);
	loop_timer_free(s->again);
	forget_failures(s);
	map_release(&s->by_stream);
	spec_unref(s->spec);
	mem_free(s->group);
	mem_free(s->category);
	s->magic = 0;
	mem_free(s);
}

/* One that is to end goes on to its end, as soon as nothing is under way: what was done is acknowledged first. */
static void subscription_settle(struct subscription *s)
{
	struct eventing *e = s->eventing;
	if (!s->ending || s->running)
		return;
	if (s->consumer && !s->finished) {
		s->finished = true;
		if (s->active)
			client_consumer_finish(s->consumer);
		else
			client_consumer_cancel(s->consumer);
	}
	if (s->consumer)
		return;
	subscription_free(s);
	if (e->draining && list_empty(&e->subscriptions) && e->drained) {
		void (*done)(void *arg) = e->drained;
		e->drained = NULL;
		done(e->drained_arg);
	}
}

static void end_all(struct eventing *e)
{
	struct list_node *n = list_first(&e->subscriptions);
	while (n) {
		struct subscription *s = CONTAINER_OF(n, struct subscription, node);
		n = list_next(&e->subscriptions, n);
		if (s->ending)
			continue;
		s->ending = true;
		drop_waiting(s);
		subscription_settle(s);
	}
}

static void subscribe(struct eventing *e, struct spec *spec, const struct spec_method *method)
{
	struct subscription *s = mem_xalloc(sizeof *s);
	struct span ns = e->config.name_space, source = method->source.name, group = method->source.group;
	s->magic = SUBSCRIPTION_MAGIC;
	s->eventing = e;
	s->spec = spec_ref(spec);
	s->service = method->service;
	s->source = &method->source;
	s->from = event_source_of(method->source.kind);
	s->stats = router_stats_of(e->config.router, method->service->name);
	s->category = mem_xprintf("%s%.*s%.*s", s->from->prefix, SPAN_ARG(ns), SPAN_ARG(source));
	s->group = mem_xprintf("%.*s%.*s|%s%.*s", SPAN_ARG(ns), SPAN_ARG(group), s->from->prefix, SPAN_ARG(source));
	s->again = loop_timer_new(e->config.loop, consume, s);
	list_init(&s->lanes);
	map_init(&s->by_stream);
	map_init(&s->failed);
	list_push_back(&e->subscriptions, &s->node);
	consume(s);
}

/* A spec has come into force: the methods of the one before are not called by events any more. */
static void take_over(void *arg, struct spec *spec)
{
	struct eventing *e = OBJ_CAST(struct eventing, arg, EVENTING_MAGIC);
	end_all(e);
	if (e->draining)
		return;
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct spec_service *service = &spec->services[i];
		for (size_t k = 0; k < service->method_count; k++) {
			const struct spec_method *m = &service->methods[k];
			if (spec_source_is_first(m))
				subscribe(e, spec, m);
		}
	}
}

struct eventing *eventing_new(const struct eventing_config *config)
{
	struct eventing *e = mem_xalloc(sizeof *e);
	e->magic = EVENTING_MAGIC;
	e->config = *config;
	list_init(&e->subscriptions);
	router_watch(config->router, take_over, e);
	return e;
}

void eventing_drain(struct eventing *e, void (*done)(void *arg), void *arg)
{
	must(e->magic == EVENTING_MAGIC && !e->draining);
	e->draining = true;
	if (list_empty(&e->subscriptions)) {
		done(arg);
		return;
	}
	e->drained = done;
	e->drained_arg = arg;
	end_all(e);
}

void eventing_free(struct eventing *e)
{
	struct list_node *n;
	if (!e)
		return;
	must(e->magic == EVENTING_MAGIC);
	while ((n = list_first(&e->subscriptions)))
		subscription_free(CONTAINER_OF(n, struct subscription, node));
	e->magic = 0;
	mem_free(e);
}
