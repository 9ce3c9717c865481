/* An active entity's stream to the function, and its journal: the I/O that its machine asks for. */
#include <config.h>

#include "base/log.h"
#include "base/must.h"
#include "proxy/entities_core.h"
#include "proxy/load.h"
#include "proxy/members.h"

static void ignore_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	(void)call;
	(void)result;
	(void)user;
}
static const struct grpc_call_ops ignored_call = {.on_done = ignore_done};

void slot_drop_call(struct slot *s)
{
	struct grpc_call *call = s->call;
	s->call = NULL;
	if (!call)
		return;
	grpc_call_bind(call, &ignored_call, NULL);
	grpc_call_cancel(call);
}

void slot_drop_load(struct slot *s)
{
	load_cancel(s->load);
	s->load = NULL;
}

/* --- the function's stream ----------------------------------------------------------------------------- */

static void call_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct slot *s = slot_of(user);
	(void)call;
	slot_enter(s);
	s->machine->ops->on_message(s->machine, message);
	slot_leave(s);
}

static void call_on_writable(struct grpc_call *call, void *user)
{
	struct slot *s = slot_of(user);
	(void)call;
	if (s->load)
		load_hold(s->load, false);
	if (!s->machine->ops->on_writable)
		return;
	slot_enter(s);
	s->machine->ops->on_writable(s->machine);
	slot_leave(s);
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
	slot_enter(s);
	s->machine->ops->on_end(s->machine, &end);
	slot_leave(s);
}

static const struct grpc_call_ops call_ops = {
	.on_message = call_on_message,
	.on_writable = call_on_writable,
	.on_done = call_on_done,
};

void slot_open(void *host, const char *path, int64_t deadline_ms)
{
	struct slot *s = slot_of(host);
	must(!s->call);
	s->stats->activations += s->service->kind->stateful;
	s->call = s->table->config.call(s->table->config.arg, path, deadline_ms, &call_ops, s);
}

bool slot_send(void *host, struct span message)
{
	struct slot *s = slot_of(host);
	must(s->call);
	bool more = grpc_call_send(s->call, message);
	if (!more && s->load)
		load_hold(s->load, true);
	return more;
}

void slot_half_close(void *host)
{
	struct slot *s = slot_of(host);
	s->stats->passivations += s->service->kind->stateful;
	grpc_call_half_close(s->call);
}

void slot_hold_read(void *host, bool hold)
{
	struct slot *s = slot_of(host);
	must(s->call);
	grpc_call_hold_read(s->call, hold);
}

void slot_reset(void *host)
{
	struct slot *s = slot_of(host);
	s->stats->restarts += s->service->kind->stateful;
	slot_drop_call(s);
}

/* --- the journal -------------------------------------------------------------------------------------- */

static void on_record(void *arg, const struct record_view *record)
{
	struct slot *s = slot_of(arg);
	slot_enter(s);
	s->machine->ops->on_record(s->machine, record);
	slot_leave(s);
}

static void on_loaded(void *arg, const struct client_error *error, uint64_t sequence)
{
	struct slot *s = slot_of(arg);
	s->load = NULL;
	slot_enter(s);
	if (error->code == GRPC_OK)
		s->machine->ops->on_loaded(s->machine, sequence);
	else
		s->machine->ops->on_load_failed(s->machine, error);
	slot_leave(s);
}

void slot_load(void *host)
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

void slot_load_cancel(void *host)
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
	slot_enter(s);
	s->machine->ops->on_appended(s->machine, &e, answer ? answer->sequences[0] : 0,
				     answer ? answer->first_position : 0);
	slot_leave(s);
}

void slot_append(void *host, const struct entity_append *append)
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
