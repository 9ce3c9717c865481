#include <config.h>

#include "proxy/entities.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/feed.h"
#include "proxy/load.h"
#include "proxy/members.h"

#define TABLE_MAGIC 0x456e5462u
#define SLOT_MAGIC 0x456e536cu
#define LOOK_FOR_IDLE_MAX 256u /* entities looked at to find one that may go */

struct entities {
	uint32_t magic;
	struct entities_config config;
	struct map by_name; /* "service/id" -> slot; only those that take new commands */
	struct feeds *feeds;
	struct members *members;
	uint8_t session[RECORD_ID_BYTES]; /* this process's, kept by members */
	struct list awaiting; /* slot.awaiting: those that want to know how far their peers are */
	struct list all;    /* slot.all, the least recently used first */
	size_t count;
	size_t stateless; /* of them, machines of one command */
	size_t retiring;  /* of them, those that were told to passivate */
	bool draining;
	void (*drained)(void *arg);
	void *drained_arg;
};

/* One active entity: a machine and what it was given. */
struct slot {
	uint32_t magic;
	struct entities *table;
	struct list_node all, awaiting;
	struct entity *machine;
	struct spec *spec;
	const struct spec_service *service;
	struct service_stats *stats;
	char *key;      /* "service/id" */
	struct span id; /* in key */
	char *stream;   /* the journal's stream */
	bool in_map, retiring, gone;
	unsigned depth;       /* calls of the machine on the stack */
	struct list deferred; /* command.deferred: to be told when there are none */

	struct grpc_call *call; /* the function's stream */
	struct load *load;
	bool appending, append_snapshot;
	size_t append_events;
	uint8_t append_session[RECORD_ID_BYTES]; /* that it is fenced by */

	struct loop_timer *timer;
	int64_t armed_us; /* 0: not armed */
};

static struct slot *slot_of(void *arg)
{
	return OBJ_CAST(struct slot, arg, SLOT_MAGIC);
}

/* --- a slot's end, and calls into its machine ---------------------------------------------------------- */

static void ignore_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	(void)call;
	(void)result;
	(void)user;
}
static const struct grpc_call_ops ignored_call = {.on_done = ignore_done};

static void slot_drop_call(struct slot *s)
{
	struct grpc_call *call = s->call;
	s->call = NULL;
	if (!call)
		return;
	grpc_call_bind(call, &ignored_call, NULL);
	grpc_call_cancel(call);
}

static void slot_drop_load(struct slot *s)
{
	load_cancel(s->load);
	s->load = NULL;
}

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
	t->count--;
	t->retiring -= s->retiring;
	if (s->service->kind->stateful)
		s->stats->active--;
	else
		t->stateless--;
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

static void enter(struct slot *s)
{
	s->depth++;
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
			c->slot = NULL;
			command_withdrawn(c);
		}
	}
}

static void leave(struct slot *s)
{
	must(s->depth > 0);
	tell_deferred(s);
	if (--s->depth || !s->gone)
		return;
	struct entities *t = s->table;
	slot_free(s);
	drain_check(t);
}

/* --- the function's stream ----------------------------------------------------------------------------- */

static void call_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct slot *s = slot_of(user);
	(void)call;
	enter(s);
	s->machine->ops->on_message(s->machine, message);
	leave(s);
}

static void call_on_writable(struct grpc_call *call, void *user)
{
	struct slot *s = slot_of(user);
	(void)call;
	if (s->load)
		load_hold(s->load, false);
	if (!s->machine->ops->on_writable)
		return;
	enter(s);
	s->machine->ops->on_writable(s->machine);
	leave(s);
}

static void call_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct slot *s = slot_of(user);
	struct entity_end end = {
		.code = result->code,
		.message = result->message,
		.unreached = result->not_sent,
		.too_large = result->local && result->code == GRPC_RESOURCE_EXHAUSTED};
	(void)call;
	/* A connection that broke takes many streams with it and is logged once, by function.c. */
	if (result->code != GRPC_OK)
		LOG_AT((result->reset && !result->http2_error) || result->not_sent ? LOG_DEBUG : LOG_WARN,
		       end.too_large ? "an entity's stream is broken off" : "function ended an entity's stream",
		       LOG_STR("entity", s->key),
		       LOG_STR("code", grpc_code_name(result->code)), LOG_SPAN("message", result->message));
	s->call = NULL;
	enter(s);
	s->machine->ops->on_end(s->machine, &end);
	leave(s);
}

static const struct grpc_call_ops call_ops = {
	.on_message = call_on_message,
	.on_writable = call_on_writable,
	.on_done = call_on_done,
};

static void host_open(void *host, const char *path, int64_t deadline_ms)
{
	struct slot *s = slot_of(host);
	must(!s->call);
	s->stats->activations += s->service->kind->stateful;
	s->call = s->table->config.call(s->table->config.arg, path, deadline_ms, &call_ops, s);
}

static bool host_send(void *host, struct span message)
{
	struct slot *s = slot_of(host);
	must(s->call);
	bool more = grpc_call_send(s->call, message);
	if (!more && s->load)
		load_hold(s->load, true);
	return more;
}

static void host_half_close(void *host)
{
	struct slot *s = slot_of(host);
	s->stats->passivations += s->service->kind->stateful;
	grpc_call_half_close(s->call);
}

static void host_hold_read(void *host, bool hold)
{
	struct slot *s = slot_of(host);
	must(s->call);
	grpc_call_hold_read(s->call, hold);
}

static void host_reset(void *host)
{
	struct slot *s = slot_of(host);
	s->stats->restarts += s->service->kind->stateful;
	slot_drop_call(s);
}

/* --- the journal -------------------------------------------------------------------------------------- */

static void on_record(void *arg, const struct record_view *record)
{
	struct slot *s = slot_of(arg);
	enter(s);
	s->machine->ops->on_record(s->machine, record);
	leave(s);
}

static void on_loaded(void *arg, const struct client_error *error, uint64_t sequence)
{
	struct slot *s = slot_of(arg);
	s->load = NULL;
	enter(s);
	if (error->code == GRPC_OK)
		s->machine->ops->on_loaded(s->machine, sequence);
	else
		s->machine->ops->on_load_failed(s->machine, error);
	leave(s);
}

static void host_load(void *host)
{
	struct slot *s = slot_of(host);
	const struct entities_config *config = &s->table->config;
	must(!s->load);
	s->load = load_begin(&(struct load_config){.loop = config->loop,
						   .clock = config->clock,
						   .journal = config->journal,
						   .stream = span_str(s->stream),
						   .timeout_ms = config->load_timeout_ms,
						   .on_record = on_record,
						   .on_done = on_loaded,
						   .arg = s});
}

static void host_load_cancel(void *host)
{
	slot_drop_load(slot_of(host));
}

static void append_done(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	struct slot *s = slot_of(arg);
	struct client_error e = load_journal_error(error);
	must(s->appending);
	s->appending = false;
	if (answer) {
		s->stats->events += s->append_events;
		s->stats->snapshots += s->append_snapshot;
	}
	if (e.has_fence_found)
		members_fenced(s->table->members, s->append_session);
	enter(s);
	s->machine->ops->on_appended(s->machine, &e, answer ? answer->sequences[0] : 0,
				     answer ? answer->first_position : 0);
	leave(s);
}

static void host_append(void *host, const struct entity_append *append)
{
	struct slot *s = slot_of(host);
	struct client_stream stream = {.stream = span_str(s->stream), .expect = append->expect,
				       .sequence = append->expected_sequence, .events = append->events,
				       .event_count = append->event_count, .snapshot = append->snapshot};
	struct client_append request = {.streams = &stream, .stream_count = 1};
	struct client_fence fence = {.by_session = true};
	must(!s->appending);
	memcpy(s->append_session, s->table->session, sizeof s->append_session);
	memcpy(fence.session, s->table->session, sizeof fence.session);
	if (append->fenced) {
		request.fences = &fence;
		request.fence_count = 1;
	}
	s->appending = true;
	s->append_events = append->event_count;
	s->append_snapshot = append->snapshot != NULL;
	client_append(s->table->config.journal, &request, s->table->config.append_timeout_ms, append_done, s);
}

/* --- answers, time ---------------------------------------------------------------------------------- */

static struct command *command_of(struct entity_command *c, bool over)
{
	struct command *command = CONTAINER_OF(c, struct command, entity);
	if (over) {
		command->slot = NULL;
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
	enter(s);
	s->machine->ops->on_time(s->machine);
	leave(s);
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
	enter(s);
	s->machine->ops->on_follow(s->machine, record);
	leave(s);
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
	enter(s);
	s->machine->ops->on_peers(s->machine);
	leave(s);
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
	list_init(&t->all);
	list_init(&t->awaiting);
	return t;
}

void entities_free(struct entities *t)
{
	if (!t)
		return;
	must(t->magic == TABLE_MAGIC && !t->count);
	members_free(t->members);
	feeds_free(t->feeds);
	map_release(&t->by_name);
	t->magic = 0;
	mem_free(t);
}

static void slot_retire(struct slot *s)
{
	if (!s->service->kind->stateful) /* gone with its command */
		return;
	if (!s->retiring) {
		s->retiring = true;
		s->table->retiring++;
	}
	enter(s);
	s->machine->ops->passivate(s->machine);
	leave(s);
}

/* Keeps the number of entities in its bound: the idle one that was used longest ago goes. Where all are busy
 * the bound is exceeded by as many as there are commands under way. */
static void make_room(struct entities *t)
{
	unsigned looked = 0;
	if (t->count - t->retiring - t->stateless < t->config.max_entities)
		return;
	for (struct list_node *n = list_first(&t->all); n && looked < LOOK_FOR_IDLE_MAX;
	     n = list_next(&t->all, n), looked++) {
		struct slot *s = CONTAINER_OF(n, struct slot, all);
		if (!s->retiring && s->machine->ops->idle(s->machine)) {
			slot_retire(s);
			return;
		}
	}
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
	} else {
		t->stateless++;
	}
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
	if (!code) {
		make_room(t);
		*ret = slot_new(t, c, buf_span(&key), id, buf_span(&stream));
	}
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
	list_remove(&s->all);
	list_push_back(&t->all, &s->all);
	c->slot = s;
	enter(s);
	s->machine->ops->command(s->machine, &c->entity);
	if (t->draining && !s->retiring)
		slot_retire(s);
	leave(s);
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
	enter(s);
	bool withdrawn = s->machine->ops->withdraw(s->machine, &c->entity);
	if (withdrawn)
		c->slot = NULL;
	leave(s);
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
	enter(s);
	s->machine->ops->hold(s->machine, &c->entity, c->holding);
	leave(s);
}

bool entities_input(struct command *c, const struct any *payload)
{
	struct slot *s = c->slot;
	must(s);
	enter(s);
	bool more = s->machine->ops->input(s->machine, &c->entity, payload);
	leave(s);
	return more;
}

void entities_half_close(struct command *c)
{
	struct slot *s = c->slot;
	must(s);
	enter(s);
	s->machine->ops->half_close(s->machine, &c->entity);
	leave(s);
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

/* By turns of the list, for a stream's end may let other machines go. */
void entities_end_streams(struct entities *t)
{
	for (size_t left = t->count; left && !list_empty(&t->all); left--) {
		struct slot *s = CONTAINER_OF(list_first(&t->all), struct slot, all);
		list_remove(&s->all);
		list_push_back(&t->all, &s->all);
		if (!s->machine->ops->end_streams)
			continue;
		enter(s);
		s->machine->ops->end_streams(s->machine);
		leave(s);
	}
}

size_t entities_active(const struct entities *t)
{
	return t->count;
}
