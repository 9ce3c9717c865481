#include <config.h>

#include "proxy/entities.h"

#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/feed.h"

#define TABLE_MAGIC 0x456e5462u
#define SLOT_MAGIC 0x456e536cu
#define LOAD_AGAIN_MS 100
#define LOOK_FOR_IDLE_MAX 256u /* entities looked at to find one that may go */

struct entities {
	uint32_t magic;
	struct entities_config config;
	struct map by_name; /* "service/id" -> slot; only those that take new commands */
	struct feeds *feeds;
	struct list all;    /* slot.all, the least recently used first */
	size_t count;
	size_t stateless; /* of them, machines of one command */
	size_t retiring;  /* of them, those that were told to passivate */
	bool draining;
	void (*drained)(void *arg);
	void *drained_arg;
};

/* A load that is under way. The client's read may outlive the interest in it. */
struct slot_load {
	struct slot *slot;        /* NULL: cancelled */
	struct client_read *read; /* NULL: it is to be tried again */
	struct loop_timer *timer;
	struct mono_time began;
	uint64_t sequence;
	bool held;       /* the function's stream is full */
	bool progressed; /* something came since the timer was set */
	bool any;        /* a record has come: it cannot begin anew */
	bool given_up;   /* the journal stopped in the middle */
};

/* One active entity: a machine and what it was given. */
struct slot {
	uint32_t magic;
	struct entities *table;
	struct list_node all;
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
	struct slot_load *load;
	bool appending;
	size_t append_events;
	bool append_snapshot;

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

static void load_free(struct slot_load *load)
{
	loop_timer_free(load->timer);
	mem_free(load);
}

static void slot_drop_load(struct slot *s)
{
	struct slot_load *load = s->load;
	s->load = NULL;
	if (!load)
		return;
	load->slot = NULL;
	if (load->read)
		client_read_cancel(load->read); /* load_on_done() follows and frees */
	else
		load_free(load);
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
	done(t->drained_arg);
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
	if (s->load && s->load->held) {
		s->load->held = false;
		client_read_hold(s->load->read, false);
	}
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
	if (!more && s->load && !s->load->held) {
		s->load->held = true;
		client_read_hold(s->load->read, true);
	}
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

static void load_on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	struct slot_load *load = arg;
	struct slot *s = load->slot;
	(void)r;
	if (!s)
		return;
	load->progressed = load->any = true;
	enter(s);
	s->machine->ops->on_record(s->machine, record);
	leave(s);
}

static void load_on_page(struct client_read *r, const struct client_page *page, void *arg)
{
	struct slot_load *load = arg;
	(void)r;
	load->progressed = true;
	if (page->end)
		load->sequence = page->sequence;
}

/* A journal that cannot be reached is UNAVAILABLE, however that was found out. */
static struct client_error journal_error(const struct client_error *error)
{
	struct client_error e = *error;
	if (e.unreachable)
		e.code = GRPC_UNAVAILABLE;
	return e;
}

static void load_on_done(struct client_read *r, const struct client_error *error, void *arg);
static const struct client_read_ops load_ops = {
	.on_record = load_on_record,
	.on_page = load_on_page,
	.on_done = load_on_done,
};

static void load_begin(struct slot_load *load)
{
	struct slot *s = load->slot;
	load->progressed = false;
	load->read = client_load(s->table->config.journal,
				 &(struct client_load){.stream = span_str(s->stream)}, &load_ops, load);
	loop_timer_set(load->timer, s->table->config.load_timeout_ms);
}

/* While nothing was replayed yet, a journal that is away for a moment (a restart) is tried again. */
static bool load_again(struct slot_load *load, const struct client_error *error)
{
	struct entities *t = load->slot->table;
	int64_t waited_us = mono_since_us(clock_mono(t->config.clock), load->began);
	if (!error->unreachable || load->any || load->given_up || waited_us >= t->config.load_timeout_ms * 1000)
		return false;
	load->read = NULL;
	loop_timer_set(load->timer, LOAD_AGAIN_MS);
	return true;
}

static void load_on_done(struct client_read *r, const struct client_error *error, void *arg)
{
	struct slot_load *load = arg;
	struct slot *s = load->slot;
	struct client_error e = journal_error(error);
	(void)r;
	if (s && load_again(load, error))
		return;
	uint64_t sequence = load->sequence;
	if (load->given_up)
		e = (struct client_error){.code = GRPC_UNAVAILABLE,
					  .text = SPAN("the journal does not answer: see whether it is "
						       "overloaded, then try again"),
					  .unreachable = true};
	load_free(load);
	if (!s)
		return;
	s->load = NULL;
	enter(s);
	if (e.code == GRPC_OK)
		s->machine->ops->on_loaded(s->machine, sequence);
	else
		s->machine->ops->on_load_failed(s->machine, &e);
	leave(s);
}

/* Either it is time to try again, or to see whether the journal still sends. */
static void load_on_timer(void *arg)
{
	struct slot_load *load = arg;
	if (!load->slot)
		return;
	if (!load->read) {
		load_begin(load);
	} else if (load->progressed || load->held) {
		load->progressed = false;
		loop_timer_set(load->timer, load->slot->table->config.load_timeout_ms);
	} else {
		load->given_up = true;
		client_read_cancel(load->read);
	}
}

static void host_load(void *host)
{
	struct slot *s = slot_of(host);
	must(!s->load);
	s->load = mem_xalloc(sizeof *s->load);
	s->load->slot = s;
	s->load->began = clock_mono(s->table->config.clock);
	s->load->timer = loop_timer_new(s->table->config.loop, load_on_timer, s->load);
	load_begin(s->load);
}

static void host_load_cancel(void *host)
{
	slot_drop_load(slot_of(host));
}

static void append_done(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	struct slot *s = slot_of(arg);
	struct client_error e = journal_error(error);
	must(s->appending);
	s->appending = false;
	if (answer) {
		s->stats->events += s->append_events;
		s->stats->snapshots += s->append_snapshot;
	}
	enter(s);
	s->machine->ops->on_appended(s->machine, &e, answer ? answer->sequences[0] : 0);
	leave(s);
}

static void host_append(void *host, const struct entity_append *append)
{
	struct slot *s = slot_of(host);
	struct client_stream stream = {.stream = span_str(s->stream), .expect = append->expect,
				       .sequence = append->expected_sequence, .events = append->events,
				       .event_count = append->event_count, .snapshot = append->snapshot};
	must(!s->appending);
	s->appending = true;
	s->append_events = append->event_count;
	s->append_snapshot = append->snapshot != NULL;
	client_append(s->table->config.journal, &(struct client_append){.streams = &stream, .stream_count = 1},
		      s->table->config.append_timeout_ms, append_done, s);
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

struct entities *entities_new(const struct entities_config *config)
{
	struct entities *t = mem_xalloc(sizeof *t);
	t->magic = TABLE_MAGIC;
	t->config = *config;
	t->feeds = feeds_new(&(struct feeds_config){config->loop, config->journal, follow});
	map_init(&t->by_name);
	list_init(&t->all);
	return t;
}

void entities_free(struct entities *t)
{
	if (!t)
		return;
	must(t->magic == TABLE_MAGIC && !t->count);
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
				       .session = t->config.session, .passivation_ms = service->passivation_ms,
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
