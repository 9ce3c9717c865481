/* What becomes of the function's answers to a command: side effects, forward, reply; and what waits for that. A reply
 * to a method with a topic is published on its way, by whichever command it is the answer of. */
#include <config.h>

#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "proxy/command.h"
#include "proxy/delivery.h"
#include "proxy/router_core.h"
#include "proxy/spec.h"
#include "proxy/wire.h"

#define ACTION(NAME) CLOUDSTATE__CLIENT_ACTION__ACTION_##NAME

/* An answer that came while another one was worked off. */
struct later_answer {
	struct list_node node;
	struct entity_answer answer;
};

/* --- hops -------------------------------------------------------------------------------------------- */

static struct hop *hop_ref(struct hop *h)
{
	if (h)
		h->refs++;
	return h;
}

void hop_unref(struct hop *h)
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

/* The function's metadata as ours, in the answer's arena; NULL where there is none, or no memory for it. */
static const struct metadata *metadata_of(struct command *c, const Cloudstate__Metadata *m)
{
	if (!m || !m->n_entries)
		return NULL;
	struct metadata_entry *entries = arena_alloc(&c->answer.arena, m->n_entries * sizeof *entries);
	struct metadata *metadata = arena_alloc(&c->answer.arena, sizeof *metadata);
	if (!entries || !metadata)
		return NULL;
	for (size_t i = 0; i < m->n_entries; i++) {
		const Cloudstate__MetadataEntry *e = m->entries[i];
		entries[i].key = wire_span(e->key);
		entries[i].bytes = e->value_case == CLOUDSTATE__METADATA_ENTRY__VALUE_BYTES_VALUE;
		entries[i].value = entries[i].bytes ? wire_span(e->bytes_value)
				   : e->value_case == CLOUDSTATE__METADATA_ENTRY__VALUE_STRING_VALUE
					   ? wire_span(e->string_value)
					   : SPAN("");
	}
	*metadata = (struct metadata){entries, m->n_entries};
	return metadata;
}

static struct command *run_child(struct command *c, const struct spec_method *target,
				 const Google__Protobuf__Any *payload, const Cloudstate__Metadata *metadata,
				 bool effect, const struct reply_sink *sink, void *arg)
{
	struct any any = wire_any(payload);
	if (!payload)
		any.type_url = target->input_url;
	struct command *child =
		command_new(c->router, target, &any, metadata_of(c, metadata), sink, arg);
	child->depth = c->depth + 1;
	child->hops = hop_new(c, effect);
	child->delivery = c->delivery;
	child->asked = effect ? NULL : c->asked;
	child->publishes = effect ? NULL : c->publishes;
	if (target->out_topic.n && plant("forward-target-publishes"))
		child->publishes = target;
	child->entity.deadline_ms = effect ? -1 : command_deadline_left_ms(c);
	if (child->depth > LIMIT_FORWARD_DEPTH) {
		char text[256];
		snprintf(text, sizeof text, "more than %d forwards and side effects follow from one command",
			 LIMIT_FORWARD_DEPTH);
		router_report(c->router, span_str(text));
		command_end_later(child, &(struct outcome){.code = GRPC_INTERNAL, .message = span_str(text)});
	} else {
		command_begin(child);
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

/* One that an event's delivery waits for: nothing that follows from an event is lost with this proxy. */
static void delivered_effect_end(void *arg, const struct outcome *outcome)
{
	log_effect(outcome);
	delivery_effect_ends(arg);
}

static void awaited_effect_end(void *arg, const struct outcome *outcome)
{
	struct command *c = OBJ_CAST(struct command, arg, COMMAND_MAGIC);
	log_effect(outcome);
	c->child = NULL;
	command_go_on(c);
}

static const struct reply_sink started_effect = {.on_end = started_effect_end};
static const struct reply_sink delivered_effect = {.on_end = delivered_effect_end};
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
	const struct reply_sink *sink = effect->synchronous ? &awaited_effect : &started_effect;
	void *arg = c;
	if (!effect->synchronous && c->delivery) {
		sink = &delivered_effect;
		arg = c->delivery;
		delivery_effect_begins(c->delivery);
	}
	struct command *child = run_child(c, target, effect->payload, effect->metadata, true, sink, arg);
	if (effect->synchronous)
		c->child = child;
	c->child_forward = false;
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

/* The answer at hand has been worked off. After the last one comes the end. */
void command_finish_answer(struct command *c)
{
	bool more = c->answer.more;
	arena_release(&c->answer.arena);
	c->answered = false;
	if (more)
		command_expect_next(c);
	else if (!c->over)
		command_set_outcome(c, &(struct outcome){.code = GRPC_OK});
}

void command_drop_later(struct command *c)
{
	struct list_node *n;
	while ((n = list_pop_front(&c->later))) {
		struct later_answer *l = CONTAINER_OF(n, struct later_answer, node);
		arena_release(&l->answer.arena);
		mem_free(l);
	}
	c->later_bytes = 0;
}

void command_fail(struct command *c, const struct outcome *outcome)
{
	command_tell_end(c, outcome);
	command_drop_later(c);
	command_withdraw(c);
}

static bool same_metadata(const struct metadata *a, const struct metadata *b)
{
	if (!a || !b || a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!span_eq(a->items[i].key, b->items[i].key) || a->items[i].bytes != b->items[i].bytes ||
		    !span_eq(a->items[i].value, b->items[i].value))
			return false;
	return true;
}

static void pass_on(struct command *c)
{
	if (c->sink && c->sink->on_reply)
		c->sink->on_reply(c->sink_arg, &c->reply, c->reply_metadata);
}

/* The command may be gone afterwards. */
static void published(void *arg, const struct outcome *outcome)
{
	struct command *c = OBJ_CAST(struct command, arg, COMMAND_MAGIC);
	c->publishing = false;
	if (outcome->code != GRPC_OK)
		command_fail(c, outcome);
	else
		pass_on(c);
	command_finish_answer(c);
	command_go_on(c);
}

static void published_unheard(void *arg, const struct outcome *outcome)
{
	(void)arg;
	(void)outcome;
}

/* True: it is waited for. */
static bool publish(struct command *c)
{
	struct err err = {0};
	bool early = plant("answer-before-its-publication");
	enum err_code code = publisher_publish(router_publisher(c->router), c->publishes, &c->reply, c->reply_metadata,
					       early ? published_unheard : published, c, &err);
	c->publishing = !code && !early;
	if (!code && early)
		pass_on(c);
	if (!code)
		return c->publishing;
	if (code != ERR_UNAVAILABLE)
		router_report(c->router, span_str(err.text));
	command_fail(c, &(struct outcome){.code = code == ERR_UNAVAILABLE ? GRPC_UNAVAILABLE
					  : code == ERR_INVALID   ? GRPC_INTERNAL
								  : GRPC_RESOURCE_EXHAUSTED,
				  .message = span_str(err.text)});
	return false;
}

/* Metadata that is the command's own, echoed, counts as none. True: it is waited for. */
static bool reply(struct command *c, const Cloudstate__Reply *r)
{
	static const struct metadata none;
	if (!r->payload)
		return false;
	const struct metadata *metadata = metadata_of(c, r->metadata);
	c->reply = wire_any(r->payload);
	check_reply_type(c, c->reply.type_url);
	if (!metadata || (same_metadata(metadata, c->entity.metadata) && !plant("echoed-metadata-published")))
		metadata = &none;
	c->reply_metadata = metadata;
	if (c->publishes)
		return publish(c);
	pass_on(c);
	return false;
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
	c->child = NULL;
	if (outcome->code != GRPC_OK)
		command_fail(c, outcome);
	command_finish_answer(c);
	command_go_on(c);
}

static const struct reply_sink relay = {.on_reply = relay_reply, .on_end = relay_end};

/* Many answers cannot be one. */
static bool fits_caller(struct command *c, const struct spec_method *target)
{
	char text[ERR_TEXT_MAX];
	if (!c->asked || c->asked->pb->server_streaming || !target->pb->server_streaming)
		return true;
	snprintf(text, sizeof text,
		 "%.*s.%.*s was forwarded to %.*s.%.*s, which streams its replies: the method that was called "
		 "has one",
		 SPAN_ARG(c->asked->service->name), SPAN_ARG(c->asked->pb->name),
		 SPAN_ARG(target->service->name), SPAN_ARG(target->pb->name));
	router_report(c->router, span_str(text));
	command_fail(c, &(struct outcome){.code = GRPC_INTERNAL, .message = span_str(text)});
	return false;
}

/* True: it is waited for. */
static bool forward(struct command *c, const Cloudstate__Forward *f)
{
	struct buf text;
	size_t line = 0;
	buf_init(&text, LIMIT_FUNCTION_MESSAGE_BYTES);
	const struct spec_method *target =
		find_target(c, f->service_name, f->command_name, false, &text, &line);
	c->stats->forwards++;
	bool runs = target && fits_caller(c, target);
	if (runs) {
		c->child = run_child(c, target, f->payload, f->metadata, false, &relay, c);
		c->child_forward = true;
	} else if (!target) {
		command_fail(c, &(struct outcome){.code = GRPC_INTERNAL,
					  .message = span_first(buf_span(&text), line)});
	}
	buf_release(&text);
	return runs;
}

/* Works at the answer at hand: the next effect, then its action. False: it waits for one of them. */
static bool work(struct command *c)
{
	must(c->answered && !c->child);
	while (c->effect_next < c->answer.effect_count)
		if (run_effect(c, c->answer.effects[c->effect_next++]))
			return false;
	const Cloudstate__ClientAction *action = c->answer.action;
	if (action && action->action_case == ACTION(REPLY) && reply(c, action->reply))
		return false;
	if (action && action->action_case == ACTION(FAILURE))
		command_fail(c, &(struct outcome){.code = GRPC_UNKNOWN,
					  .message = wire_span(action->failure->description),
					  .failure = true});
	else if (action && action->action_case == ACTION(FORWARD) && forward(c, action->forward))
		return false;
	command_finish_answer(c);
	return true;
}

static void take(struct command *c, const struct entity_answer *answer)
{
	list_remove(&c->deadline);
	c->answer = *answer;
	c->answered = true;
	c->effect_next = 0;
}

static void end(struct command *c, enum grpc_code code, struct span text, bool failure)
{
	command_tell_end(c, &(struct outcome){.code = code, .message = text, .failure = failure});
	command_free(c);
}

/* Goes on with a command: the answer at hand, those that wait, its end. It may be gone afterwards. */
void command_go_on(struct command *c)
{
	while (!c->answered || work(c)) {
		struct list_node *n = c->held ? NULL : list_pop_front(&c->later);
		if (!n)
			break;
		struct later_answer *l = CONTAINER_OF(n, struct later_answer, node);
		c->later_bytes -= l->answer.bytes + sizeof *l;
		take(c, &l->answer);
		mem_free(l);
		command_update_hold(c);
	}
	if (!c->answered && c->over && list_empty(&c->later))
		end(c, c->end_code, span_str(c->end_text), c->end_failure);
}

/* Behind another one, or until the caller takes it. */
static void keep_for_later(struct command *c, struct entity_answer *answer)
{
	struct later_answer *l = mem_xalloc(sizeof *l);
	l->answer = *answer;
	list_push_back(&c->later, &l->node);
	c->later_bytes += answer->bytes + sizeof *l;
	command_update_hold(c);
	if (c->later_bytes <= LIMIT_ANSWERS_BYTES)
		return;
	c->held = false;
	if (!answer->more) { /* the machine is done with it */
		command_set_outcome(c, &(struct outcome){.code = GRPC_RESOURCE_EXHAUSTED});
		command_go_on_later(c);
	}
	command_fail(c, &(struct outcome){.code = GRPC_RESOURCE_EXHAUSTED,
				  .message = SPAN("the client does not take its answers")});
}

void command_answered(struct command *c, struct entity_answer *answer)
{
	must(c->magic == COMMAND_MAGIC && !c->over && (answer->more || !c->slot));
	list_remove(&c->deadline);
	if (c->answered || c->held || !list_empty(&c->later)) {
		keep_for_later(c, answer);
		return;
	}
	take(c, answer);
	command_go_on(c);
}

void command_ended(struct command *c, const struct outcome *outcome)
{
	must(c->magic == COMMAND_MAGIC && !c->slot && !c->over);
	list_remove(&c->deadline);
	if (c->beginning) {
		command_end_later(c, outcome);
	} else if (c->answered || !list_empty(&c->later)) {
		command_set_outcome(c, outcome);
	} else {
		command_tell_end(c, outcome);
		command_free(c);
	}
}
