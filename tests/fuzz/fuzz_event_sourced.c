/* One event sourced entity under a function, a journal and clients that do anything in any order. The input
 * is a list of steps; a step's first byte says what happens, and messages of the function are bytes of the
 * input. The host checks what must hold whatever the function does:
 *
 *	a stream begins with init, then events, then commands with ids from 1; nothing is sent after
 *half-close one command is outstanding at a time, and each is answered or refused exactly once, or withdrawn
 *	a reply that has events is answered only after they were appended
 *	when all is over the machine says so, and has nothing left */
#include <config.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/must.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

#define COMMANDS 32
#define IN(NAME) CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__MESSAGE_##NAME

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum fate { UNUSED, GIVEN, OVER };

struct world {
	struct entity *e;
	int64_t now_us, wake_us;
	bool gone;
	bool stream, closed, init, commanded; /* the function's stream: there is one; our side is closed */
	int64_t next_id;
	bool loading, appending;
	uint64_t head; /* newest sequence in the journal */
	uint64_t next_event;
	struct entity_command commands[COMMANDS];
	enum fate fates[COMMANDS];
	size_t used;
	int outstanding; /* index, or -1 */
};

static void host_open(void *host, const char *path, int64_t deadline_ms)
{
	struct world *w = host;
	must(!w->stream && path && deadline_ms < 0);
	w->stream = true;
	w->closed = w->init = w->commanded = false;
	w->next_id = 1;
}

static int find_named(struct world *w, struct span name)
{
	must(name.n == 1);
	int i = name.p[0] - 'A';
	must(i >= 0 && (size_t)i < w->used && w->fates[i] == GIVEN);
	return i;
}

static bool host_send(void *host, struct span message)
{
	struct world *w = host;
	struct arena a;
	arena_init(&a, MIB);
	must(w->stream && !w->closed);
	const Cloudstate__Eventsourced__EventSourcedStreamIn *in = (const void *)grpc_unpack(
		&cloudstate__eventsourced__event_sourced_stream_in__descriptor, &a, message);
	must(in);
	if (in->message_case == IN(INIT)) {
		must(!w->init);
		w->init = true;
	} else if (in->message_case == IN(EVENT)) {
		must(w->init && !w->commanded && w->loading);
	} else {
		must(in->message_case == IN(COMMAND));
		must(w->init && !w->loading && !w->appending && w->outstanding < 0);
		must(in->command->id == w->next_id);
		w->commanded = true;
		w->next_id++;
		w->outstanding = find_named(w, wire_span(in->command->name));
	}
	arena_release(&a);
	return true;
}

static void host_half_close(void *host)
{
	struct world *w = host;
	must(w->stream && !w->closed);
	w->closed = true;
	w->outstanding = -1; /* one that is to be repeated goes on waiting */
}

static void host_reset(void *host)
{
	struct world *w = host;
	must(w->stream);
	w->stream = false;
	if (!w->appending)
		w->outstanding = -1;
}

static void host_load(void *host)
{
	struct world *w = host;
	must(!w->loading && !w->appending && !w->stream);
	w->loading = true;
	w->outstanding = -1; /* one that is to be repeated waits again */
	w->next_event = 1;
}

static void host_load_cancel(void *host)
{
	struct world *w = host;
	must(w->loading);
	w->loading = false;
}

static void host_append(void *host, const struct entity_append *append)
{
	struct world *w = host;
	must(!w->appending && w->outstanding >= 0 && append->event_count > 0);
	w->appending = true;
	for (size_t i = 0; i < append->event_count; i++)
		must(append->events[i].type.n > 0);
}

static void finish(struct world *w, struct entity_command *c)
{
	int i = find_named(w, c->name);
	w->fates[i] = OVER;
	if (w->outstanding == i)
		w->outstanding = -1;
}

static void host_answer(void *host, struct entity_command *c, struct entity_answer *answer)
{
	struct world *w = host;
	must(!w->appending);
	must(w->outstanding == find_named(w, c->name));
	finish(w, c);
	arena_release(&answer->arena);
}

static void host_end(void *host, struct entity_command *c, const struct outcome *outcome)
{
	must(outcome->code != GRPC_OK);
	finish(host, c);
}

static void host_wake_at(void *host, struct mono_time at)
{
	((struct world *)host)->wake_us = at.us;
}

static void host_report(void *host, struct span text)
{
	(void)host;
	must(text.n > 0);
}

static void host_gone(void *host)
{
	struct world *w = host;
	must(!w->gone && !w->stream && !w->loading && !w->appending);
	for (size_t i = 0; i < w->used; i++)
		must(w->fates[i] != GIVEN);
	w->gone = true;
}

static const struct entity_host host_ops = {
	.open = host_open,
	.send = host_send,
	.half_close = host_half_close,
	.reset = host_reset,
	.load = host_load,
	.load_cancel = host_load_cancel,
	.append = host_append,
	.answer = host_answer,
	.end = host_end,
	.wake_at = host_wake_at,
	.report = host_report,
	.gone = host_gone,
};

static struct mono_time mono_now(void *arg)
{
	return (struct mono_time){((struct world *)arg)->now_us};
}

static struct wall_time wall_now(void *arg)
{
	return (struct wall_time){((struct world *)arg)->now_us};
}

static void give_command(struct world *w)
{
	static const char names[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`";
	if (w->used == COMMANDS)
		return;
	struct entity_command *c = &w->commands[w->used];
	c->name = span_of(&names[w->used], 1);
	c->payload = (struct any){SPAN("T"), SPAN("p")};
	w->fates[w->used++] = GIVEN;
	w->gone = false;
	w->e->ops->command(w->e, c);
}

static void withdraw(struct world *w, size_t i)
{
	if (i >= w->used || w->fates[i] != GIVEN)
		return;
	w->fates[i] = OVER;
	if (w->e->ops->withdraw(w->e, &w->commands[i]))
		must(w->outstanding != (int)i);
	else
		w->fates[i] = GIVEN;
}

static void give_record(struct world *w, bool snapshot)
{
	struct record_view v = {.kind = snapshot ? RECORD_SNAPSHOT : RECORD_EVENT,
				.sequence = w->next_event,
				.type = SPAN("T"),
				.content = RECORD_BODY,
				.data = SPAN("d")};
	if (!w->loading || (snapshot && w->init && w->stream))
		return;
	w->next_event++;
	w->e->ops->on_record(w->e, &v);
}

static void end_append(struct world *w, uint8_t how)
{
	struct client_error error = {.code = how & 1 ? GRPC_OK : GRPC_ABORTED,
				     .text = SPAN("refused"),
				     .has_sequence_found = (how & 2) != 0};
	if (!w->appending)
		return;
	w->appending = false;
	w->e->ops->on_appended(w->e, &error, ++w->head);
}

static void end_load(struct world *w, bool well)
{
	if (!w->loading)
		return;
	w->loading = false;
	if (well)
		w->e->ops->on_loaded(w->e, w->head);
	else
		w->e->ops->on_load_failed(
			w->e, &(struct client_error){.code = GRPC_UNAVAILABLE, .text = SPAN("away")});
}

static void end_stream(struct world *w, uint8_t how)
{
	struct entity_end end = {.code = how & 1 ? GRPC_OK : GRPC_UNKNOWN,
				 .message = SPAN("over"),
				 .unreached = (how & 2) != 0};
	if (!w->stream)
		return;
	w->stream = false;
	w->e->ops->on_end(w->e, &end);
}

static void pass_time(struct world *w, uint8_t seconds)
{
	w->now_us += (int64_t)seconds * 1000000;
	if (!w->wake_us || w->wake_us > w->now_us)
		return;
	w->wake_us = 0;
	w->e->ops->on_time(w->e);
}

/* A step: what happens, and an argument. Step 2 has that many bytes of message behind it. */
static struct span step(struct world *w, struct span in)
{
	uint8_t what = in.p[0] % 10, how = in.n > 1 ? in.p[1] : 0;
	in = span_skip(in, in.n > 1 ? 2 : 1);
	switch (what) {
	case 0:
	case 1: give_command(w); break;
	case 2: {
		struct span message = span_first(in, how < in.n ? how : in.n);
		in = span_skip(in, message.n);
		if (w->stream)
			w->e->ops->on_message(w->e, message);
		break;
	}
	case 3: end_load(w, how % 4 != 0); break;
	case 4: give_record(w, how & 1); break;
	case 5: end_append(w, how); break;
	case 6: end_stream(w, how); break;
	case 7: pass_time(w, how); break;
	case 8: withdraw(w, how % COMMANDS); break;
	default:
		if (!w->gone)
			w->e->ops->passivate(w->e);
	}
	return in;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = {.now_us = 1000000, .outstanding = -1, .gone = true};
	struct clock clock = {mono_now, wall_now, &w};
	struct span in = span_of(data, size);
	log_setup(LOG_OFF, LOG_LOGFMT);
	w.e = entity_event_sourced.create(&(struct entity_config){.host = &host_ops,
								  .host_arg = &w,
								  .clock = &clock,
								  .service = SPAN("s.S"),
								  .entity_id = SPAN("e"),
								  .stream = SPAN("p|e"),
								  .passivation_ms = 30000,
								  .command_timeout_ms = 60000,
								  .close_grace_ms = 5000,
								  .reply_max_bytes = MIB});
	while (in.n)
		in = step(&w, in);
	/* The journal and the function come to an end: so must the machine, with every command over. */
	for (int i = 0; i < 3 * COMMANDS && !w.gone; i++) {
		end_load(&w, false);
		end_append(&w, 0);
		end_stream(&w, 1);
		pass_time(&w, 255);
	}
	must(w.gone);
	w.e->ops->free(w.e);
	return 0;
}
