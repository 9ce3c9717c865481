#include <config.h>

#include "proxy/entities_core.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/plant.h"
#include "proxy/feed.h"
#include "proxy/members.h"

/* What nobody here sees of an active entity: its stream with nghttp2, its timer, its places in tables, what malloc
 * adds to all of that. Measured (tests/system/test_width.py). */
#define UNSEEN_BYTES ((size_t)4096)

/* --- a slot's end, and calls into its machine ---------------------------------------------------------- */

static void slot_leave_map(struct slot *s)
{
	if (s->in_map)
		map_remove(&s->table->by_name, span_str(s->key));
	s->in_map = false;
}

static void slot_free(struct slot *s)
{
	struct entities *t = s->table;
	must(!s->depth && !s->appending);
	slot_leave_map(s);
	slot_drop_call(s);
	slot_drop_load(s);
	if (s->machine->ops->on_follow)
		feeds_leave(t->feeds, span_str(s->stream), s);
	s->machine->ops->free(s->machine);
	must(list_empty(&s->deferred));
	list_remove(&s->all);
	list_remove(&s->awaiting);
	residence_leave(&t->residence, &s->resident);
	t->count--;
	s->stats->active -= s->service->kind->stateful;
	s->stats->bytes -= s->bytes;
	loop_timer_free(s->timer);
	spec_unref(s->spec);
	mem_free(s->key);
	mem_free(s->stream);
	s->magic = 0;
	mem_free(s);
}

static void drain_check(struct entities *t)
{
	if (!t->draining || t->count || !t->drained)
		return;
	void (*done)(void *arg) = t->drained;
	t->drained = NULL;
	members_end(t->members, done, t->drained_arg);
}

void slot_enter(struct slot *s)
{
	s->depth++;
}

static size_t bytes_of_command(const struct command *c)
{
	return sizeof *c + c->entity.payload.value.n + c->entity.payload.type_url.n;
}

static void command_joins(struct command *c, struct slot *s)
{
	c->slot = s;
	s->command_bytes += bytes_of_command(c);
	if (!s->service->kind->stateful)
		s->only = c;
}

static void command_leaves(struct command *c)
{
	must(c->slot->command_bytes >= bytes_of_command(c));
	c->slot->command_bytes -= bytes_of_command(c);
	c->slot->only = NULL;
	c->slot = NULL;
}

/* What could not be told to the machine inside its own call. */
static void tell_deferred(struct slot *s)
{
	const struct entity_ops *ops = s->machine->ops;
	struct list_node *n;
	while (s->depth == 1 && !s->gone && (n = list_pop_front(&s->deferred))) {
		struct command *c = CONTAINER_OF(n, struct command, deferred);
		if (!c->withdrawing) {
			ops->hold(s->machine, &c->entity, c->holding);
		} else if (ops->withdraw(s->machine, &c->entity)) {
			command_leaves(c);
			command_withdrawn(c);
		}
	}
}

/* Counts what the entity holds now. Who is too much is passivated later, for whoever calls may be going through
 * all of them. */
static void settle(struct slot *s)
{
	struct entities *t = s->table;
	if (!s->service->kind->stateful)
		return;
	size_t bytes = UNSEEN_BYTES + sizeof *s + 2 * s->id.n + s->command_bytes +
		       s->machine->ops->bytes(s->machine) + (s->call ? grpc_call_memory_bytes(s->call) : 0);
	s->stats->bytes += bytes - s->bytes;
	s->bytes = bytes;
	if (!s->retiring)
		residence_settle(&t->residence, &s->resident, bytes, s->machine->ops->idle(s->machine));
	if (t->relieving || !residence_surplus(&t->residence))
		return;
	t->relieving = true;
	mailbox_post(loop_mailbox(t->config.loop), &t->relief);
}

void slot_leave(struct slot *s)
{
	must(s->depth > 0);
	tell_deferred(s);
	if (--s->depth)
		return;
	if (!s->gone) {
		settle(s);
		return;
	}
	struct entities *t = s->table;
	slot_free(s);
	drain_check(t);
}

/* --- answers, time ---------------------------------------------------------------------------------- */

static struct command *command_of(struct entity_command *c, bool over)
{
	struct command *command = CONTAINER_OF(c, struct command, entity);
	if (over) {
		command_leaves(command);
		list_remove(&command->deferred);
	}
	return command;
}

static void host_answer(void *host, struct entity_command *c, struct entity_answer *answer)
{
	(void)host;
	command_answered(command_of(c, !answer->more), answer);
}

static void host_end(void *host, struct entity_command *c, const struct outcome *outcome)
{
	(void)host;
	command_ended(command_of(c, true), outcome);
}

static void host_input_wanted(void *host, struct entity_command *c)
{
	(void)host;
	command_input_wanted(command_of(c, false));
}

/* Wishes only ever move the timer nearer; a machine that is woken early says so again. So a busy entity
 * does not touch its timer with every command. */
static void host_wake_at(void *host, struct mono_time at)
{
	struct slot *s = slot_of(host);
	int64_t now_us = clock_mono(s->table->config.clock).us;
	if (s->armed_us && s->armed_us <= at.us)
		return;
	s->armed_us = at.us;
	loop_timer_set(s->timer, at.us > now_us ? (at.us - now_us + 999) / 1000 : 0);
}

static void on_timer(void *arg)
{
	struct slot *s = slot_of(arg);
	s->armed_us = 0;
	slot_enter(s);
	s->machine->ops->on_time(s->machine);
	slot_leave(s);
}

static void host_await_peers(void *host, bool wanted)
{
	struct slot *s = slot_of(host);
	list_remove(&s->awaiting);
	if (wanted)
		list_push_back(&s->table->awaiting, &s->awaiting);
}

static void host_report(void *host, struct span text)
{
	struct slot *s = slot_of(host);
	s->table->config.report(s->table->config.arg, text);
}

static void host_gone(void *host)
{
	struct slot *s = slot_of(host);
	s->gone = true;
	slot_leave_map(s);
}

static const struct entity_host host_ops = {
	.open = slot_open,
	.send = slot_send,
	.half_close = slot_half_close,
	.hold_read = slot_hold_read,
	.reset = slot_reset,
	.load = slot_load,
	.load_cancel = slot_load_cancel,
	.append = slot_append,
	.answer = host_answer,
	.end = host_end,
	.input_wanted = host_input_wanted,
	.wake_at = host_wake_at,
	.await_peers = host_await_peers,
	.report = host_report,
	.gone = host_gone,
};

/* --- the table ---------------------------------------------------------------------------------------- */

static void follow(void *follower, const struct record_view *record)
{
	struct slot *s = slot_of(follower);
	slot_enter(s);
	s->machine->ops->on_follow(s->machine, record);
	slot_leave(s);
}

static void heard(void *arg, const struct record_view *record)
{
	members_heard(OBJ_CAST(struct entities, arg, TABLE_MAGIC)->members, record);
}

static void feed_is_live(void *arg, struct span category, uint64_t position)
{
	members_live(OBJ_CAST(struct entities, arg, TABLE_MAGIC)->members, category, position);
}

static void follow_category(void *arg, struct span category)
{
	feeds_begin(OBJ_CAST(struct entities, arg, TABLE_MAGIC)->feeds, category);
}

static void tell_peers(struct slot *s, struct span service)
{
	if (!s->machine->ops->on_peers || !span_eq(s->service->name, service))
		return;
	slot_enter(s);
	s->machine->ops->on_peers(s->machine);
	slot_leave(s);
}

/* By turns of the list, for what is told may let other machines go. */
static void peers_changed(void *arg, struct span service, bool who)
{
	struct entities *t = OBJ_CAST(struct entities, arg, TABLE_MAGIC);
	struct list_node *n;
	struct list told;
	if (who) {
		for (size_t left = t->count; left && (n = list_pop_front(&t->all)); left--) {
			list_push_back(&t->all, n);
			tell_peers(CONTAINER_OF(n, struct slot, all), service);
		}
		return;
	}
	list_init(&told);
	while ((n = list_pop_front(&t->awaiting)))
		list_push_back(&told, n);
	while ((n = list_pop_front(&told))) {
		list_push_back(&t->awaiting, n);
		tell_peers(CONTAINER_OF(n, struct slot, awaiting), service);
	}
}

static void slot_retire(struct slot *s)
{
	if (!s->service->kind->stateful) /* gone with its command */
		return;
	if (!s->retiring) {
		s->retiring = true;
		residence_leave(&s->table->residence, &s->resident);
	}
	slot_enter(s);
	s->machine->ops->passivate(s->machine);
	slot_leave(s);
}

/* While all are busy the bound is exceeded by what the commands under way need. */
static void relieve(struct task *task)
{
	struct entities *t = CONTAINER_OF(task, struct entities, relief);
	struct resident *one;
	t->relieving = false;
	while ((one = residence_surplus(&t->residence)) && !plant("memory-limit-ignored"))
		slot_retire(CONTAINER_OF(one, struct slot, resident));
}

struct entities *entities_new(const struct entities_config *config)
{
	struct entities *t = mem_xalloc(sizeof *t);
	t->magic = TABLE_MAGIC;
	t->config = *config;
	t->feeds = feeds_new(&(struct feeds_config){.loop = config->loop,
						    .journal = config->journal,
						    .on_record = follow,
						    .on_heard = heard,
						    .on_live = feed_is_live,
						    .arg = t});
	t->members = members_new(&(struct members_config){.loop = config->loop,
							  .clock = config->clock,
							  .journal = config->journal,
							  .name_space = config->name_space,
							  .ttl_ms = config->session_ttl_ms,
							  .session = t->session,
							  .follow = follow_category,
							  .on_change = peers_changed,
							  .arg = t});
	map_init(&t->by_name);
	residence_init(&t->residence, config->entity_memory_bytes);
	t->relief.run = relieve;
	list_init(&t->all);
	list_init(&t->awaiting);
	return t;
}

void entities_free(struct entities *t)
{
	if (!t)
		return;
	must(t->magic == TABLE_MAGIC && !t->count && !t->relieving);
	members_free(t->members);
	feeds_free(t->feeds);
	map_release(&t->by_name);
	t->magic = 0;
	mem_free(t);
}

static void slot_end_streams(struct slot *s)
{
	if (!s->machine->ops->end_streams)
		return;
	slot_enter(s);
	s->machine->ops->end_streams(s->machine);
	slot_leave(s);
}

static struct slot *slot_new(struct entities *t, struct command *c, struct span key, struct span id,
			     struct span stream)
{
	const struct spec_service *service = c->method->service;
	struct slot *s = mem_xalloc(sizeof *s);
	s->magic = SLOT_MAGIC;
	s->table = t;
	s->spec = spec_ref(service->spec);
	s->service = service;
	s->stats = c->stats;
	list_push_back(&t->all, &s->all);
	list_init(&s->deferred);
	s->key = mem_xdup(key.p, key.n);
	s->id = span_of(s->key + (key.n - id.n), id.n);
	s->stream = mem_xdup(stream.p, stream.n);
	s->timer = loop_timer_new(t->config.loop, on_timer, s);
	struct entity_config config = {.host = &host_ops, .host_arg = s, .clock = t->config.clock,
				       .service = service->name, .entity_id = s->id, .stream = span_str(s->stream),
				       .session = t->session,
				       .peers = members_peers(t->members, service->name),
				       .passivation_ms = service->passivation_ms,
				       .command_timeout_ms = t->config.command_timeout_ms,
				       .close_grace_ms = t->config.close_grace_ms,
				       .reply_max_bytes = t->config.reply_max_bytes};
	s->machine = service->kind->create(&config);
	if (service->kind->on_follow)
		feeds_follow(t->feeds, stream, s);
	t->count++;
	if (service->kind->stateful) {
		map_put(&t->by_name, key, s);
		s->in_map = true;
		s->stats->active++;
	}
	if (t->ending_streams)
		slot_end_streams(s);
	return s;
}

/* The entity's id by the method's key fields, behind "service/" in *key. */
static enum err_code command_key(const struct command *c, struct buf *key, struct span *ret_id, struct err *err)
{
	const struct spec_service *service = c->method->service;
	if (buf_append_span(key, service->name) || buf_append_byte(key, '/'))
		return err_set(err, ERR_NOMEM, "out of memory");
	enum err_code code = pb_key_print(c->method->keys, c->method->key_count, c->entity.payload.value, key, err);
	if (code)
		return err_wrap(err, "entity id of %.*s.%.*s", SPAN_ARG(service->name),
				SPAN_ARG(c->method->pb->name));
	*ret_id = span_skip(buf_span(key), service->name.n + 1);
	return ERR_OK;
}

/* The entity that takes the service's commands. One that was made for another persistence id or kind (the
 * command, or the entity, is of an older spec) takes no more. */
static struct slot *slot_get(struct entities *t, struct span key, const struct spec_service *service)
{
	struct slot *s = map_get(&t->by_name, key);
	if (!s || s->service == service || (s->service->kind == service->kind &&
	     span_eq(s->service->persistence_id, service->persistence_id)))
		return s;
	slot_leave_map(s);
	slot_retire(s);
	return NULL;
}

static enum err_code slot_find(struct entities *t, struct command *c, struct slot **ret, struct err *err)
{
	const struct spec_service *service = c->method->service;
	struct buf key, stream;
	struct span id;
	if (!service->kind->stateful) {
		*ret = slot_new(t, c, service->name, SPAN(""), SPAN(""));
		return ERR_OK;
	}
	buf_init(&key, LIMIT_FUNCTION_MESSAGE_BYTES);
	buf_init(&stream, LIMIT_FUNCTION_MESSAGE_BYTES);
	enum err_code code = command_key(c, &key, &id, err);
	if (!code && (*ret = slot_get(t, buf_span(&key), service)) != NULL)
		goto out;
	if (!code && (buf_append_span(&stream, t->config.name_space) ||
		      buf_append_span(&stream, service->persistence_id) || buf_append_byte(&stream, '|') ||
		      buf_append_span(&stream, id)))
		code = err_set(err, ERR_NOMEM, "out of memory");
	if (!code && record_check_stream(buf_span(&stream), err)) {
		err_wrap(err, "journal stream of an entity of %.*s", SPAN_ARG(service->name));
		code = err->code = ERR_INVALID;
	}
	if (!code)
		*ret = slot_new(t, c, buf_span(&key), id, buf_span(&stream));
out:
	buf_release(&key);
	buf_release(&stream);
	return code;
}

enum err_code entities_command(struct entities *t, struct command *c, struct err *err)
{
	struct slot *s = NULL;
	must(t->magic == TABLE_MAGIC && !c->slot);
	enum err_code code = slot_find(t, c, &s, err);
	if (code)
		return code;
	if (s->machine->ops->waiting(s->machine) >= t->config.max_waiting)
		return err_set(err, ERR_LIMIT, "%zu commands wait for the entity [%.*s] of %.*s already",
			       t->config.max_waiting, SPAN_ARG(s->id), SPAN_ARG(s->service->name));
	command_joins(c, s);
	slot_enter(s);
	s->machine->ops->command(s->machine, &c->entity);
	if (t->draining && !s->retiring)
		slot_retire(s);
	slot_leave(s);
	return ERR_OK;
}

static void defer(struct slot *s, struct command *c)
{
	if (!list_linked(&c->deferred))
		list_push_back(&s->deferred, &c->deferred);
}

bool entities_withdraw(struct command *c)
{
	struct slot *s = c->slot;
	must(s && !c->withdrawing);
	c->withdrawing = true;
	if (s->depth) {
		defer(s, c);
		return false;
	}
	slot_enter(s);
	bool withdrawn = s->machine->ops->withdraw(s->machine, &c->entity);
	if (withdrawn)
		command_leaves(c);
	slot_leave(s);
	return withdrawn;
}

void entities_hold(struct command *c)
{
	struct slot *s = c->slot;
	must(s);
	if (!s->machine->ops->hold || c->withdrawing)
		return;
	if (s->depth) {
		defer(s, c);
		return;
	}
	slot_enter(s);
	s->machine->ops->hold(s->machine, &c->entity, c->holding);
	slot_leave(s);
}

bool entities_input(struct command *c, const struct any *payload)
{
	struct slot *s = c->slot;
	must(s);
	slot_enter(s);
	bool more = s->machine->ops->input(s->machine, &c->entity, payload);
	slot_leave(s);
	return more;
}

void entities_half_close(struct command *c)
{
	struct slot *s = c->slot;
	must(s);
	slot_enter(s);
	s->machine->ops->half_close(s->machine, &c->entity);
	slot_leave(s);
}

static bool same_service(const struct spec_service *a, const struct spec_service *b)
{
	return b && a->kind == b->kind && span_eq(a->persistence_id, b->persistence_id) &&
	       a->passivation_ms == b->passivation_ms && span_eq(a->pb->file->raw, b->pb->file->raw);
}

void entities_take_over(struct entities *t, const struct spec *spec)
{
	struct list_node *next;
	members_serve(t->members, spec);
	for (struct list_node *n = list_first(&t->all); n; n = next) {
		struct slot *s = CONTAINER_OF(n, struct slot, all);
		next = list_next(&t->all, n);
		if (same_service(s->service, spec_find_service(spec, s->service->name)))
			continue;
		slot_leave_map(s);
		slot_retire(s);
	}
}

void entities_drain(struct entities *t, void (*done)(void *arg), void *arg)
{
	struct list_node *next;
	must(!t->draining);
	t->draining = true;
	t->drained = done;
	t->drained_arg = arg;
	for (struct list_node *n = list_first(&t->all); n; n = next) {
		next = list_next(&t->all, n);
		slot_retire(CONTAINER_OF(n, struct slot, all));
	}
	drain_check(t);
}

/* By turns of the list, for a call's end may let other machines go. */
void entities_break_off_streams(struct entities *t, const struct outcome *outcome)
{
	for (size_t left = t->count; left && !list_empty(&t->all); left--) {
		struct slot *s = CONTAINER_OF(list_first(&t->all), struct slot, all);
		struct command *c = s->only;
		list_remove(&s->all);
		list_push_back(&t->all, &s->all);
		if (c && c->asked && (c->entity.streams_in || c->entity.streams_out))
			command_fail(c, outcome);
	}
}

/* By turns of the list, for a stream's end may let other machines go. */
void entities_end_streams(struct entities *t)
{
	t->ending_streams = true;
	for (size_t left = t->count; left && !list_empty(&t->all); left--) {
		struct slot *s = CONTAINER_OF(list_first(&t->all), struct slot, all);
		list_remove(&s->all);
		list_push_back(&t->all, &s->all);
		slot_end_streams(s);
	}
}

size_t entities_active(const struct entities *t)
{
	return t->count;
}
