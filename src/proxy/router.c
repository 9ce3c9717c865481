/* A command's way: to its entity, then through what the function answered: its side effects in their order,
 * then its forward or its reply. Each forward and effect is a command of its own, whose hops remember where
 * it came from.
 *
 *	router_open ─▶ entity ─▶ answered ─▶ effects, one after another ─▶ reply / failure / forward ─▶ end
 *	                │  ▲        ▲                                        │ more
 *	                │  └────────┴────────────────────────────────────────┘
 *	                └──▶ ended ─────────────────────────────────────────────────────────────────▶ end
 *
 * Of a stream's answers one is worked off at a time (`answered`), the others wait in `later`, and what has
 * ended it (`over`) behind them. While answers wait, or the caller takes none, the machine holds its function
 * back. A command is freed when its machine is done with it and nothing of it is left to be worked off. */
#include <config.h>

#include "proxy/router_core.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/delivery.h"
#include "proxy/entities.h"
#include "proxy/wire.h"

#define ROUTER_MAGIC 0x526f7574u

struct watcher {
	struct watcher *next;
	void (*fn)(void *arg, struct spec *spec);
	void *arg;
};

struct router {
	uint32_t magic;
	struct router_config config;
	struct entities *entities;
	struct publisher *publisher;
	struct stats stats;
	struct spec *spec;
	struct watcher *watchers;
	struct list deadlines; /* of commands that wait for the function, the oldest first */
	int64_t timeout_ms;
	struct loop_timer *timer;
	bool timer_armed;
};

/* --- a command's beginning and end ----------------------------------------------------------------- */

void command_free(struct command *c)
{
	must(!c->slot && !c->child && !c->publishing && !c->freed);
	list_remove(&c->deadline);
	c->stats->waiting--;
	if (c->answered)
		arena_release(&c->answer.arena);
	command_drop_later(c);
	hop_unref(c->hops);
	spec_unref(c->spec);
	arena_release(&c->arena);
	mem_free(c->payload);
	mem_free(c->end_text);
	c->magic = 0;
	c->freed = true;
	if (!c->posted)
		mem_free(c);
}

/* Tells whoever listens, and nobody later. */
void command_tell_end(struct command *c, const struct outcome *outcome)
{
	const struct reply_sink *sink = c->sink;
	if (!sink)
		return;
	if (outcome->code == GRPC_OK)
		c->stats->ok++;
	else if (outcome->failure)
		c->stats->failures++;
	else
		c->stats->errors++;
	c->stats->time_us += (uint64_t)mono_since_us(clock_mono(c->router->config.clock), c->began);
	c->sink = NULL;
	sink->on_end(c->sink_arg, outcome);
}

static void run_task(struct task *task)
{
	struct command *c = CONTAINER_OF(task, struct command, task);
	c->posted = false;
	if (c->freed)
		mem_free(c);
	else if (!c->answered)
		command_go_on(c);
}

/* command_go_on(), outside of the call that makes it possible. */
void command_go_on_later(struct command *c)
{
	if (c->posted)
		return;
	c->posted = true;
	c->task.run = run_task;
	mailbox_post(loop_mailbox(c->router->config.loop), &c->task);
}

void command_set_outcome(struct command *c, const struct outcome *outcome)
{
	c->over = true;
	c->end_code = outcome->code;
	c->end_text = mem_xdup(outcome->message.p, outcome->message.n);
	c->end_failure = outcome->failure;
}

/* Ends a command that could not be begun, outside of the call that began it. */
void command_end_later(struct command *c, const struct outcome *outcome)
{
	command_set_outcome(c, outcome);
	command_go_on_later(c);
}

static void withdrawn(struct command *c)
{
	command_drop_later(c);
	if (!c->over)
		command_set_outcome(c, &(struct outcome){.code = GRPC_CANCELLED});
	if (!c->answered)
		command_free(c);
}

/* Nobody waits for it any more: its machine is told, once. The command may be gone afterwards. */
void command_withdraw(struct command *c)
{
	list_remove(&c->deadline);
	if (!c->slot || c->withdrawn)
		return;
	c->withdrawn = true;
	if (entities_withdraw(c))
		withdrawn(c);
}

void command_withdrawn(struct command *c)
{
	must(c->magic == COMMAND_MAGIC && !c->slot);
	withdrawn(c);
}

static bool copy_metadata(struct command *c, const struct metadata *from)
{
	if (!from || !from->n || !c->method->service->kind->takes_metadata)
		return true;
	struct metadata *to = arena_zalloc(&c->arena, sizeof *to);
	struct metadata_entry *items = arena_zalloc(&c->arena, from->n * sizeof *items);
	if (!to || !items)
		return false;
	for (size_t i = 0; i < from->n; i++) {
		items[i].key = arena_dup(&c->arena, from->items[i].key);
		items[i].value = arena_dup(&c->arena, from->items[i].value);
		items[i].bytes = from->items[i].bytes;
		if (!items[i].key.p || !items[i].value.p)
			return false;
	}
	*to = (struct metadata){items, from->n};
	c->entity.metadata = to;
	return true;
}

/* What a command is made of; of a method whose input streams, payload is that input's only message, or NULL. */
struct command *command_new(struct router *r, const struct spec_method *method,
				   const struct any *payload, const struct metadata *metadata,
				   const struct reply_sink *sink, void *sink_arg)
{
	static const struct any nothing;
	struct command *c = mem_xalloc(sizeof *c);
	struct any *any = method->pb->client_streaming ? &c->input : &c->entity.payload;
	c->magic = COMMAND_MAGIC;
	c->router = r;
	c->spec = spec_ref(method->service->spec);
	c->method = method;
	c->stats = stats_of(&r->stats, method->service->name);
	c->stats->commands++;
	c->stats->waiting++;
	c->began = clock_mono(r->config.clock);
	c->sink = sink;
	c->sink_arg = sink_arg;
	c->entity.name = method->pb->name;
	c->entity.streams_in = method->pb->client_streaming;
	c->entity.streams_out = method->pb->server_streaming;
	c->entity.deadline_ms = -1;
	c->one_input = payload && c->entity.streams_in;
	list_init(&c->later);
	arena_init(&c->arena, 4 * LIMIT_HEADER_BYTES);
	if (!payload)
		payload = &nothing;
	c->payload = mem_try_alloc(payload->value.n + payload->type_url.n + 1);
	if (!c->payload || !copy_metadata(c, metadata)) { /* command_begin() tells */
		mem_free(c->payload);
		c->payload = NULL;
		return c;
	}
	if (payload->value.n)
		memcpy(c->payload, payload->value.p, payload->value.n);
	if (payload->type_url.n)
		memcpy(c->payload + payload->value.n, payload->type_url.p, payload->type_url.n);
	any->value = span_of(c->payload, payload->value.n);
	any->type_url = span_of(c->payload + payload->value.n, payload->type_url.n);
	return c;
}

/* It was called, by a client or an event: its topic is the one that its replies, or its forwards', go to. */
static void set_called(struct command *c)
{
	c->publishes = c->method->out_topic.n ? c->method : NULL;
}

static void arm_timer(struct router *r)
{
	struct list_node *n = list_first(&r->deadlines);
	if (r->timer_armed || !n)
		return;
	struct command *c = CONTAINER_OF(n, struct command, deadline);
	int64_t waited_ms = mono_since_us(clock_mono(r->config.clock), c->due_from) / 1000;
	int64_t left_ms = r->timeout_ms - waited_ms;
	r->timer_armed = true;
	loop_timer_set(r->timer, left_ms > 0 ? left_ms : 0);
}

/* From now on the function has its time to answer. */
static void set_due(struct command *c)
{
	if (!c->slot || list_linked(&c->deadline))
		return;
	c->due_from = clock_mono(c->router->config.clock);
	list_push_back(&c->router->deadlines, &c->deadline);
	arm_timer(c->router);
}

void command_expect_next(struct command *c)
{
	if (!c->asked)
		set_due(c);
}

/* A call to an action that streams lasts as long as its client wants; one whose client only sends streams
 * is due when he has sent all. An effect or an event has no client: it is always due. */
static bool is_due(const struct command *c)
{
	bool streams = c->entity.streams_in || c->entity.streams_out;
	return !streams || c->method->service->kind->stateful || !c->asked;
}

void command_begin(struct command *c)
{
	struct router *r = c->router;
	struct err err = {0};
	if (!c->payload) {
		command_end_later(c, &(struct outcome){.code = GRPC_RESOURCE_EXHAUSTED,
					       .message = SPAN("out of memory for the command")});
		return;
	}
	c->beginning = true;
	enum err_code code = entities_command(r->entities, c, &err);
	if (!code && c->slot && c->one_input) {
		entities_input(c, &c->input);
		if (c->slot)
			entities_half_close(c);
	}
	c->beginning = false;
	if (code) {
		enum grpc_code told = code == ERR_LIMIT ? GRPC_RESOURCE_EXHAUSTED : grpc_code_of(code);
		command_end_later(c, &(struct outcome){.code = told, .message = span_str(err.text)});
	} else if (is_due(c)) { /* unless it was refused at once */
		set_due(c);
	}
}

struct command *router_open(struct router *router, const struct router_request *request,
			    const struct reply_sink *sink, void *arg)
{
	must(router->magic == ROUTER_MAGIC && request->method && sink && sink->on_end);
	const struct spec_method *method = request->method;
	struct any payload = {.type_url = method->input_url, .value = request->payload};
	struct command *c = command_new(router, method, method->pb->client_streaming ? NULL : &payload,
					request->metadata, sink, arg);
	c->asked = method;
	set_called(c);
	c->entity.deadline_ms = request->deadline_ms;
	command_begin(c);
	return c;
}

struct command *router_call(struct router *router, const struct spec_method *method, struct span payload,
			    const struct metadata *metadata, const struct reply_sink *sink, void *arg)
{
	must(router->magic == ROUTER_MAGIC && method && sink && sink->on_end);
	struct command *c = command_new(
		router, method, &(struct any){.type_url = method->input_url, .value = payload}, metadata, sink,
		arg);
	c->asked = method;
	set_called(c);
	command_begin(c);
	return c;
}

struct command *router_deliver(struct router *router, const struct spec_method *method, const struct any *payload,
			       const struct metadata *metadata, const struct reply_sink *sink, void *arg)
{
	must(router->magic == ROUTER_MAGIC && method && sink && sink->on_end);
	struct delivery *delivery = delivery_new(sink, arg);
	struct command *c = command_new(router, method, payload, metadata, &delivery_command_sink, delivery);
	c->delivery = delivery;
	c->entity.metadata_of_input = c->one_input;
	set_called(c);
	command_begin(c);
	return c;
}

bool command_send(struct command *c, struct span payload)
{
	must(c->magic == COMMAND_MAGIC && c->entity.streams_in && !c->one_input);
	return !c->slot || entities_input(c, &(struct any){.type_url = c->method->input_url, .value = payload});
}

void command_half_close(struct command *c)
{
	must(c->magic == COMMAND_MAGIC && c->entity.streams_in && !c->one_input);
	if (!c->slot)
		return;
	entities_half_close(c);
	if (!c->entity.streams_out)
		set_due(c);
}

void command_input_wanted(struct command *c)
{
	if (c->sink && c->sink->on_writable)
		c->sink->on_writable(c->sink_arg);
}

/* The machine holds its function back while the caller takes no replies, or answers wait. */
void command_update_hold(struct command *c)
{
	bool hold = c->held || !list_empty(&c->later);
	if (!c->slot || c->holding == hold)
		return;
	c->holding = hold;
	entities_hold(c);
}

void command_hold(struct command *c, bool hold)
{
	must(c->magic == COMMAND_MAGIC);
	if (c->held == hold)
		return;
	c->held = hold;
	if (c->child && c->child_forward)
		command_hold(c->child, hold);
	command_update_hold(c);
	if (!hold && !c->answered)
		command_go_on_later(c);
}

int64_t command_deadline_left_ms(const struct command *c)
{
	if (c->entity.deadline_ms < 0)
		return -1;
	int64_t left_ms =
		c->entity.deadline_ms - mono_since_us(clock_mono(c->router->config.clock), c->began) / 1000;
	return left_ms > 0 ? left_ms : 0;
}

/* What the forward of a command is, once its client has left: an entity carries it through. */
static bool ends_with_client(const struct command *c)
{
	return !c->method->service->kind->stateful || c->entity.streams_out;
}

void command_cancel(struct command *c)
{
	must(c->magic == COMMAND_MAGIC && c->sink);
	c->sink = NULL;
	if (c->child && c->child_forward && ends_with_client(c->child)) {
		struct command *child = c->child;
		c->child = NULL;
		command_cancel(child);
		command_finish_answer(c);
		command_go_on_later(c);
	}
	if (c->held) {
		c->held = false;
		if (!c->answered)
			command_go_on_later(c);
	}
	command_withdraw(c);
}

/* The client gets its answer in time; what the function was sent is carried through, and the entity sees to
 * a function that does not answer at all. */
static void on_timer(void *arg)
{
	struct router *r = arg;
	struct mono_time now = clock_mono(r->config.clock);
	struct list_node *n;
	r->timer_armed = false;
	while ((n = list_first(&r->deadlines))) {
		struct command *c = CONTAINER_OF(n, struct command, deadline);
		if (mono_since_us(now, c->due_from) < r->timeout_ms * 1000)
			break;
		list_remove(n);
		command_tell_end(c, &(struct outcome){.code = GRPC_DEADLINE_EXCEEDED,
					      .message = SPAN("the function has not answered in time")});
		command_withdraw(c);
	}
	arm_timer(r);
}

/* --- the router ------------------------------------------------------------------------------------------
 */

struct router *router_new(const struct router_config *config)
{
	struct router *r = mem_xalloc(sizeof *r);
	r->magic = ROUTER_MAGIC;
	r->config = *config;
	r->entities = entities_new(&config->entities);
	r->timer = loop_timer_new(config->loop, on_timer, r);
	list_init(&r->deadlines);
	r->timeout_ms = config->entities.command_timeout_ms;
	stats_init(&r->stats);
	r->publisher = publisher_new(&(struct publisher_config){.clock = config->clock,
								.journal = config->entities.journal,
								.name_space = config->entities.name_space,
								.timeout_ms = config->entities.append_timeout_ms,
								.stats = &r->stats});
	return r;
}

void router_free(struct router *r)
{
	struct watcher *next;
	if (!r)
		return;
	must(r->magic == ROUTER_MAGIC && list_empty(&r->deadlines));
	entities_free(r->entities);
	publisher_free(r->publisher);
	for (struct watcher *w = r->watchers; w; w = next) {
		next = w->next;
		mem_free(w);
	}
	loop_timer_free(r->timer);
	spec_unref(r->spec);
	stats_release(&r->stats);
	r->magic = 0;
	mem_free(r);
}

struct spec *router_spec(const struct router *r)
{
	return r->spec;
}

void router_watch(struct router *r, void (*fn)(void *arg, struct spec *spec), void *arg)
{
	struct watcher *w = mem_xalloc(sizeof *w), **last = &r->watchers;
	w->fn = fn;
	w->arg = arg;
	while (*last)
		last = &(*last)->next;
	*last = w;
	if (r->spec)
		fn(arg, r->spec);
}

void router_take_over(struct router *r, struct spec *spec)
{
	struct spec *old = r->spec;
	r->spec = spec_ref(spec);
	for (size_t i = 0; i < spec->service_count; i++)
		stats_of(&r->stats, spec->services[i].name)->kind = spec->services[i].kind->name;
	entities_take_over(r->entities, spec);
	for (struct watcher *w = r->watchers; w; w = w->next)
		w->fn(w->arg, spec);
	spec_unref(old);
}

void router_report(struct router *r, struct span text)
{
	r->config.report(r->config.report_arg, text);
}

void router_break_off_streams(struct router *r)
{
	entities_break_off_streams(r->entities, &(struct outcome){.code = GRPC_UNAVAILABLE,
								  .message = SPAN("the proxy is being stopped")});
}

void router_end_streams(struct router *r)
{
	entities_end_streams(r->entities);
}

struct entities *router_entities(struct router *r)
{
	return r->entities;
}

struct publisher *router_publisher(struct router *r)
{
	return r->publisher;
}

struct service_stats *router_stats_of(struct router *r, struct span service)
{
	return stats_of(&r->stats, service);
}

const struct stats *router_stats(const struct router *r)
{
	return &r->stats;
}
