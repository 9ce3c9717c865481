/* A command's way: to its entity, then through what the function answered: its side effects in their order,
 * then its forward or its reply. Each forward and effect is a command of its own, whose hops remember where
 * it came from.
 *
 *	router_call ─▶ entity ─▶ answered ─▶ effects, one after another ─▶ reply / failure / forward ─▶ end
 *	                  └────▶ refused ────────────────────────────────────────────────────────────▶ end */
#include <config.h>

#include "proxy/router_core.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/entities.h"
#include "proxy/wire.h"

#define ROUTER_MAGIC 0x526f7574u
#define COMMAND_MAGIC 0x436f6d6du
#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME

struct watcher {
	struct watcher *next;
	void (*fn)(void *arg, struct spec *spec);
	void *arg;
};

struct router {
	uint32_t magic;
	struct router_config config;
	struct entities *entities;
	struct stats stats;
	struct spec *spec;
	struct watcher *watchers;
	struct list deadlines; /* of commands that wait for the function, the oldest first */
	struct loop_timer *timer;
	bool timer_armed;
};

static void advance(struct command *c);

/* --- hops -------------------------------------------------------------------------------------------- */

static struct hop *hop_ref(struct hop *h)
{
	if (h)
		h->refs++;
	return h;
}

static void hop_unref(struct hop *h)
{
	while (h && --h->refs == 0) {
		struct hop *before = h->before;
		spec_unref(h->spec);
		mem_free(h);
		h = before;
	}
}

static struct hop *hop_new(struct command *from, bool effect)
{
	struct hop *h = mem_xalloc(sizeof *h);
	h->refs = 1;
	h->effect = effect;
	h->spec = spec_ref(from->spec);
	h->from = from->method;
	h->before = hop_ref(from->hops);
	return h;
}

/* --- a command's beginning and end ----------------------------------------------------------------- */

static void command_free(struct command *c)
{
	must(!c->slot);
	list_remove(&c->deadline);
	c->stats->waiting--;
	if (c->answered)
		arena_release(&c->answer.arena);
	hop_unref(c->hops);
	spec_unref(c->spec);
	mem_free(c->payload);
	mem_free(c->failure_text);
	c->magic = 0;
	mem_free(c);
}

/* Tells whoever listens, and nobody later. */
static void tell_end(struct command *c, const struct outcome *outcome)
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

static void end(struct command *c, enum grpc_code code, struct span text, bool failure)
{
	tell_end(c, &(struct outcome){.code = code, .message = text, .failure = failure});
	command_free(c);
}

static void run_failed(struct task *task)
{
	struct command *c = CONTAINER_OF(task, struct command, failed);
	end(c, c->failure_code, span_str(c->failure_text), c->failure_of_function);
}

/* Ends a command that could not be begun, outside of the call that began it. */
static void end_later(struct command *c, const struct outcome *outcome)
{
	c->failure_code = outcome->code;
	c->failure_text = mem_xdup(outcome->message.p, outcome->message.n);
	c->failure_of_function = outcome->failure;
	c->failed.run = run_failed;
	mailbox_post(loop_mailbox(c->router->config.loop), &c->failed);
}

static struct command *command_new(struct router *r, const struct spec_method *method,
				   const struct any *payload, const struct reply_sink *sink, void *sink_arg)
{
	struct command *c = mem_xalloc(sizeof *c);
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
	c->payload = mem_try_alloc(payload->value.n + payload->type_url.n + 1);
	if (!c->payload) /* begin() tells */
		return c;
	if (payload->value.n)
		memcpy(c->payload, payload->value.p, payload->value.n);
	if (payload->type_url.n)
		memcpy(c->payload + payload->value.n, payload->type_url.p, payload->type_url.n);
	c->entity.payload.value = span_of(c->payload, payload->value.n);
	c->entity.payload.type_url = span_of(c->payload + payload->value.n, payload->type_url.n);
	return c;
}

static void arm_timer(struct router *r)
{
	struct list_node *n = list_first(&r->deadlines);
	if (r->timer_armed || !n)
		return;
	struct command *c = CONTAINER_OF(n, struct command, deadline);
	int64_t waited_ms = mono_since_us(clock_mono(r->config.clock), c->began) / 1000;
	int64_t left_ms = r->config.entities.command_timeout_ms - waited_ms;
	r->timer_armed = true;
	loop_timer_set(r->timer, left_ms > 0 ? left_ms : 0);
}

static void begin(struct command *c)
{
	struct router *r = c->router;
	struct err err = {0};
	if (!c->payload) {
		end_later(c, &(struct outcome){.code = GRPC_RESOURCE_EXHAUSTED,
					       .message = SPAN("out of memory for the command")});
		return;
	}
	c->beginning = true;
	enum err_code code = entities_command(r->entities, c, &err);
	c->beginning = false;
	if (code) {
		enum grpc_code told = code == ERR_LIMIT ? GRPC_RESOURCE_EXHAUSTED : grpc_code_of(code);
		end_later(c, &(struct outcome){.code = told, .message = span_str(err.text)});
		return;
	}
	if (!c->slot) /* refused at once */
		return;
	list_push_back(&r->deadlines, &c->deadline);
	arm_timer(r);
}

struct command *router_call(struct router *router, const struct spec_method *method, struct span payload,
			    const struct metadata *metadata, const struct reply_sink *sink, void *arg)
{
	must(router->magic == ROUTER_MAGIC && method && sink && sink->on_end);
	(void)metadata; /* entities take none (contract, section 2) */
	struct command *c = command_new(
		router, method, &(struct any){.type_url = method->input_url, .value = payload}, sink, arg);
	c->asked = method;
	begin(c);
	return c;
}

void command_cancel(struct command *c)
{
	must(c->magic == COMMAND_MAGIC && c->sink);
	c->sink = NULL;
	if (c->slot && entities_withdraw(c))
		command_free(c);
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
		if (mono_since_us(now, c->began) < r->config.entities.command_timeout_ms * 1000)
			break;
		list_remove(n);
		tell_end(c, &(struct outcome){.code = GRPC_DEADLINE_EXCEEDED,
					      .message = SPAN("the function has not answered in time")});
		if (entities_withdraw(c))
			command_free(c);
	}
	arm_timer(r);
}

/* --- targets of forwards and effects -------------------------------------------------------------------- */

/* The method, or NULL; then *text says what is unknown, a line a hop behind it. The first line alone is
 * what a client gets. */
static const struct spec_method *find_target(struct command *c, ProtobufCBinaryData service_name,
					     ProtobufCBinaryData command_name, bool effect, struct buf *text,
					     size_t *ret_line)
{
	struct span service = wire_span(service_name), name = wire_span(command_name);
	const struct spec_service *s = spec_find_service(c->spec, service);
	const struct spec_method *m = s ? spec_find_method(s, name) : NULL;
	if (m)
		return m;
	if (!s)
		buf_printf(text, "Service [%.*s] unknown", SPAN_ARG(service));
	else
		buf_printf(text, "Service [%.*s] does not have a command named: [%.*s]", SPAN_ARG(service),
			   SPAN_ARG(name));
	*ret_line = text->n;
	buf_printf(text, "\n  %s %.*s.%.*s", effect ? "side-effect of" : "forwarded from",
		   SPAN_ARG(c->method->service->name), SPAN_ARG(c->method->pb->name));
	for (const struct hop *h = c->hops; h; h = h->before)
		buf_printf(text, "\n  %s %.*s.%.*s", h->effect ? "side-effect of" : "forwarded from",
			   SPAN_ARG(h->from->service->name), SPAN_ARG(h->from->pb->name));
	router_report(c->router, buf_span(text));
	return NULL;
}

static struct command *run_child(struct command *c, const struct spec_method *target,
				 const Google__Protobuf__Any *payload, bool effect,
				 const struct reply_sink *sink, void *sink_arg)
{
	struct any any = wire_any(payload);
	if (!payload)
		any.type_url = target->input_url;
	struct command *child = command_new(c->router, target, &any, sink, sink_arg);
	child->depth = c->depth + 1;
	child->hops = hop_new(c, effect);
	if (child->depth > LIMIT_FORWARD_DEPTH) {
		char text[256];
		snprintf(text, sizeof text, "more than %d forwards and side effects follow from one command",
			 LIMIT_FORWARD_DEPTH);
		router_report(c->router, span_str(text));
		end_later(child, &(struct outcome){.code = GRPC_INTERNAL, .message = span_str(text)});
	} else {
		begin(child);
	}
	return child;
}

/* --- side effects --------------------------------------------------------------------------------------- */

/* What logs an effect's failure; an asynchronous one may outlive its cause. */
static void log_effect(const struct outcome *outcome)
{
	if (outcome->code != GRPC_OK)
		log_warn("side effect failed", LOG_STR("code", grpc_code_name(outcome->code)),
			 LOG_SPAN("message", outcome->message));
}

static void started_effect_end(void *arg, const struct outcome *outcome)
{
	(void)arg;
	log_effect(outcome);
}

static void awaited_effect_end(void *arg, const struct outcome *outcome)
{
	log_effect(outcome);
	advance(OBJ_CAST(struct command, arg, COMMAND_MAGIC));
}

static const struct reply_sink started_effect = {.on_end = started_effect_end};
static const struct reply_sink awaited_effect = {.on_end = awaited_effect_end};

/* True: it is waited for. */
static bool run_effect(struct command *c, const Cloudstate__SideEffect *effect)
{
	struct buf text;
	size_t line;
	buf_init(&text, LIMIT_FUNCTION_MESSAGE_BYTES);
	const struct spec_method *target =
		find_target(c, effect->service_name, effect->command_name, true, &text, &line);
	buf_release(&text);
	c->stats->effects++;
	if (!target)
		return false;
	run_child(c, target, effect->payload, true, effect->synchronous ? &awaited_effect : &started_effect,
		  c);
	return effect->synchronous;
}

/* --- replies and forwards ----------------------------------------------------------------------------- */

static void check_reply_type(struct command *c, struct span type_url)
{
	char text[ERR_TEXT_MAX];
	if (!c->asked || span_eq(type_url, c->asked->output_url))
		return;
	snprintf(text, sizeof text,
		 "reply of %.*s.%.*s has type %.*s, which is not %.*s, the method's output: "
		 "it is sent nevertheless",
		 SPAN_ARG(c->asked->service->name), SPAN_ARG(c->asked->pb->name), SPAN_ARG(type_url),
		 SPAN_ARG(c->asked->output_url));
	router_report(c->router, span_str(text));
}

static void reply(struct command *c, const Cloudstate__Reply *r)
{
	struct metadata_entry *entries = NULL;
	size_t n = r->metadata ? r->metadata->n_entries : 0;
	if (!r->payload) {
		end(c, GRPC_OK, SPAN(""), false);
		return;
	}
	struct any payload = wire_any(r->payload);
	check_reply_type(c, payload.type_url);
	if (n)
		entries = arena_alloc(&c->answer.arena, n * sizeof *entries);
	for (size_t i = 0; entries && i < n; i++) {
		const Cloudstate__MetadataEntry *e = r->metadata->entries[i];
		entries[i].key = wire_span(e->key);
		entries[i].bytes = e->value_case == CLOUDSTATE__METADATA_ENTRY__VALUE_BYTES_VALUE;
		entries[i].value = entries[i].bytes ? wire_span(e->bytes_value)
				   : e->value_case == CLOUDSTATE__METADATA_ENTRY__VALUE_STRING_VALUE
					   ? wire_span(e->string_value)
					   : SPAN("");
	}
	if (c->sink && c->sink->on_reply)
		c->sink->on_reply(c->sink_arg, &payload, &(struct metadata){entries, entries ? n : 0});
	end(c, GRPC_OK, SPAN(""), false);
}

static void relay_reply(void *arg, const struct any *payload, const struct metadata *metadata)
{
	struct command *c = OBJ_CAST(struct command, arg, COMMAND_MAGIC);
	if (c->sink && c->sink->on_reply)
		c->sink->on_reply(c->sink_arg, payload, metadata);
}

static void relay_end(void *arg, const struct outcome *outcome)
{
	struct command *c = OBJ_CAST(struct command, arg, COMMAND_MAGIC);
	tell_end(c, outcome);
	command_free(c);
}

static const struct reply_sink relay = {.on_reply = relay_reply, .on_end = relay_end};

static void forward(struct command *c, const Cloudstate__Forward *f)
{
	struct buf text;
	size_t line = 0;
	buf_init(&text, LIMIT_FUNCTION_MESSAGE_BYTES);
	const struct spec_method *target =
		find_target(c, f->service_name, f->command_name, false, &text, &line);
	c->stats->forwards++;
	if (target)
		run_child(c, target, f->payload, false, &relay, c)->asked = c->asked;
	else
		end(c, GRPC_INTERNAL, span_first(buf_span(&text), line), false);
	buf_release(&text);
}

/* Goes on with a command that the function has answered: the next effect, then its action. */
static void advance(struct command *c)
{
	must(c->answered && !c->slot);
	while (c->effect_next < c->answer.effect_count)
		if (run_effect(c, c->answer.effects[c->effect_next++]))
			return;
	const Cloudstate__ClientAction *action = c->answer.action;
	if (!action || action->action_case == CLOUDSTATE__CLIENT_ACTION__ACTION__NOT_SET)
		end(c, GRPC_OK, SPAN(""), false);
	else if (action->action_case == ACTION(REPLY))
		reply(c, action->reply);
	else if (action->action_case == ACTION(FAILURE))
		end(c, GRPC_UNKNOWN, wire_span(action->failure->description), true);
	else
		forward(c, action->forward);
}

void command_answered(struct command *c, struct entity_answer *answer)
{
	must(c->magic == COMMAND_MAGIC && !c->answered && !c->slot);
	list_remove(&c->deadline);
	c->answer = *answer;
	c->answered = true;
	advance(c);
}

void command_refused(struct command *c, const struct outcome *outcome)
{
	must(c->magic == COMMAND_MAGIC && !c->slot);
	if (c->beginning) {
		end_later(c, outcome);
		return;
	}
	tell_end(c, outcome);
	command_free(c);
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
	stats_init(&r->stats);
	return r;
}

void router_free(struct router *r)
{
	struct watcher *next;
	if (!r)
		return;
	must(r->magic == ROUTER_MAGIC && list_empty(&r->deadlines));
	entities_free(r->entities);
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
		stats_of(&r->stats, spec->services[i].name);
	if (old)
		entities_take_over(r->entities, spec);
	for (struct watcher *w = r->watchers; w; w = w->next)
		w->fn(w->arg, spec);
	spec_unref(old);
}

void router_report(struct router *r, struct span text)
{
	r->config.report(r->config.report_arg, text);
}

struct entities *router_entities(struct router *r)
{
	return r->entities;
}

const struct stats *router_stats(const struct router *r)
{
	return &r->stats;
}
