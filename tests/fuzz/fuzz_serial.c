/* One entity that takes one command at a time (event sourced or value) under a function, a journal and clients
 * that do anything in any order. The input is a list of steps; a step's first byte says what happens, and
 * messages of the function are bytes of the input. The host checks what must hold whatever the function does:
 *
 *	a stream begins with init, then events, then commands with ids from 1; nothing is sent after half-close
 *	one command is outstanding at a time, and each is answered or refused exactly once, or withdrawn
 *	a reply that changes the state is answered only after that was appended
 *	when all is over the machine says so, and has nothing left */
#include <config.h>

#include "fuzz_serial.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/must.h"
#include "record/record.h"
#include "tests/unit/proxy/es_rig.h"

enum fate { UNUSED, GIVEN, OVER };

struct world {
	struct rig rig; /* comes first */
	const struct fuzz_serial_kind *kind;
	bool stream, closed, init, commanded; /* the function's stream: there is one; our side is closed */
	int64_t next_id;
	bool loading, appending;
	uint64_t head; /* newest sequence in the journal */
	uint64_t next_event;
	enum fate fates[RIG_COMMANDS];
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
	must(i >= 0 && (size_t)i < w->rig.command_count && w->fates[i] == GIVEN);
	return i;
}

static bool host_send(void *host, struct span message)
{
	struct world *w = host;
	struct arena a;
	arena_init(&a, MIB);
	must(w->stream && !w->closed);
	const Cloudstate__Command *command = NULL;
	switch (w->kind->read(message, &a, &command)) {
	case FUZZ_INIT:
		must(!w->init);
		w->init = true;
		break;
	case FUZZ_EVENT: must(w->init && !w->commanded && w->loading); break;
	case FUZZ_COMMAND:
		must(w->init && !w->loading && !w->appending && w->outstanding < 0);
		must(command->id == w->next_id);
		w->commanded = true;
		w->next_id++;
		w->outstanding = find_named(w, wire_span(command->name));
		break;
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

static void host_report(void *host, struct span text)
{
	(void)host;
	must(text.n > 0);
}

static void host_gone(void *host)
{
	struct world *w = host;
	must(!w->rig.gone && !w->stream && !w->loading && !w->appending);
	for (size_t i = 0; i < w->rig.command_count; i++)
		must(w->fates[i] != GIVEN);
	w->rig.gone = true;
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
	.wake_at = rig_wake_at,
	.report = host_report,
	.gone = host_gone,
};

static void give_command(struct world *w)
{
	size_t n = w->rig.command_count;
	if (n == RIG_COMMANDS)
		return;
	w->fates[n] = GIVEN;
	rig_command(&w->rig, (char[]){(char)('A' + n), 0});
}

static void withdraw(struct world *w, size_t i)
{
	if (i >= w->rig.command_count || w->fates[i] != GIVEN)
		return;
	w->fates[i] = OVER;
	if (w->rig.e->ops->withdraw(w->rig.e, &w->rig.commands[i]))
		must(w->outstanding != (int)i);
	else
		w->fates[i] = GIVEN;
}

/* A snapshot comes first, if at all. */
static void give_record(struct world *w, uint8_t how)
{
	bool snapshot = how & 1;
	if (w->loading && !(snapshot && w->next_event > 1))
		rig_record(&w->rig, snapshot ? RECORD_SNAPSHOT : RECORD_EVENT, w->next_event++, "d",
			   how & 2 ? w->kind->deleted : w->kind->marked);
}

static void end_append(struct world *w, uint8_t how)
{
	if (!w->appending)
		return;
	w->appending = false;
	if (how & 1)
		rig_appended(&w->rig, ++w->head);
	else
		rig_append_failed(&w->rig, GRPC_ABORTED, "refused", (how & 2) != 0);
}

static void end_load(struct world *w, bool well)
{
	if (!w->loading)
		return;
	w->loading = false;
	if (well)
		rig_loaded(&w->rig, w->head);
	else
		rig_load_failed(&w->rig, GRPC_UNAVAILABLE, "away");
}

static void end_stream(struct world *w, uint8_t how)
{
	if (!w->stream)
		return;
	w->stream = false;
	rig_end(&w->rig, how & 1 ? GRPC_OK : GRPC_UNKNOWN, (how & 2) != 0);
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
			rig_message(&w->rig, message);
		break;
	}
	case 3: end_load(w, how % 4 != 0); break;
	case 4: give_record(w, how); break;
	case 5: end_append(w, how); break;
	case 6: end_stream(w, how); break;
	case 7: rig_pass(&w->rig, how * INT64_C(1000)); break;
	case 8: withdraw(w, how % RIG_COMMANDS); break;
	default:
		if (!w->rig.gone)
			w->rig.e->ops->passivate(w->rig.e);
	}
	return in;
}

void fuzz_serial(const struct fuzz_serial_kind *kind, const uint8_t *data, size_t size)
{
	struct world w = {.kind = kind, .outstanding = -1};
	struct span in = span_of(data, size);
	log_setup(LOG_OFF, LOG_LOGFMT);
	rig_init_with(&w.rig, kind->ops, &host_ops, &w);
	w.rig.gone = true;
	while (in.n)
		in = step(&w, in);
	/* The journal and the function come to an end: so must the machine, with every command over. */
	for (int i = 0; i < 3 * RIG_COMMANDS && !w.rig.gone; i++) {
		end_load(&w, false);
		end_append(&w, 0);
		end_stream(&w, 1);
		rig_pass(&w.rig, 255 * INT64_C(1000));
	}
	must(w.rig.gone);
	w.rig.e->ops->free(w.rig.e);
}
