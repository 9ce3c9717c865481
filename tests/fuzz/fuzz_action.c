/* One call of an action under a client and a function that do anything in any order. The input's first byte is the
 * method's streaming kind; then come steps, whose first byte says what happens. The host checks what must hold:
 *
 *	one call is opened, once and at once; nothing is sent after half-close or reset, nor after the end
 *	the command is answered for good, ended or withdrawn exactly once, and then the machine is gone
 *	only a method that streams out has answers with more to come */
#include <config.h>

#include <stdint.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/must.h"
#include "proxy/entity.h"
#include "proxy/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct world {
	struct entity *e;
	struct entity_command command;
	bool opened, stream, closed, over, gone, half_closed;
};

static void host_open(void *host, const char *path, int64_t deadline_ms)
{
	struct world *w = host;
	must(!w->opened && path && (deadline_ms < 0 || !w->command.streams_in));
	w->opened = w->stream = true;
}

static bool host_send(void *host, struct span message)
{
	struct world *w = host;
	must(w->stream && !w->closed && !w->over);
	return message.n % 2 == 0;
}

static void host_half_close(void *host)
{
	struct world *w = host;
	must(w->stream && !w->closed);
	w->closed = true;
}

static void host_hold_read(void *host, bool hold)
{
	(void)hold;
	must(((struct world *)host)->stream);
}

static void host_reset(void *host)
{
	struct world *w = host;
	must(w->stream);
	w->stream = false;
}

static void host_answer(void *host, struct entity_command *c, struct entity_answer *answer)
{
	struct world *w = host;
	must(c == &w->command && !w->over);
	must(!answer->more || w->command.streams_out);
	w->over = !answer->more;
	arena_release(&answer->arena);
}

static void host_end(void *host, struct entity_command *c, const struct outcome *outcome)
{
	struct world *w = host;
	must(c == &w->command && !w->over && !outcome->failure);
	must(outcome->code != GRPC_OK || w->command.streams_out);
	w->over = true;
}

static void host_input_wanted(void *host, struct entity_command *c)
{
	struct world *w = host;
	must(c == &w->command && w->command.streams_in && !w->over);
}

static void host_report(void *host, struct span text)
{
	(void)host;
	must(text.n > 0);
}

static void host_gone(void *host)
{
	struct world *w = host;
	must(!w->gone && !w->stream);
	w->gone = true;
}

static const struct entity_host host_ops = {
	.open = host_open,
	.send = host_send,
	.half_close = host_half_close,
	.hold_read = host_hold_read,
	.reset = host_reset,
	.answer = host_answer,
	.end = host_end,
	.input_wanted = host_input_wanted,
	.report = host_report,
	.gone = host_gone,
};

static void end_stream(struct world *w, uint8_t how)
{
	struct entity_end end = {.code = how & 1 ? GRPC_OK : GRPC_ABORTED,
				 .message = SPAN("over"),
				 .unreached = (how & 2) != 0,
				 .too_large = (how & 4) != 0};
	w->stream = false;
	w->e->ops->on_end(w->e, &end);
}

static struct span step(struct world *w, struct span in)
{
	uint8_t what = in.p[0] % 7, how = in.n > 1 ? in.p[1] : 0;
	in = span_skip(in, in.n > 1 ? 2 : 1);
	struct span message = span_first(in, how < in.n ? how : in.n);
	switch (what) {
	case 0:
	case 1:
		in = span_skip(in, message.n);
		w->e->ops->on_message(w->e, message);
		break;
	case 2:
		in = span_skip(in, message.n);
		if (w->command.streams_in && !w->half_closed)
			w->e->ops->input(w->e, &w->command, &(struct any){SPAN("T"), message});
		break;
	case 3:
		if (w->command.streams_in && !w->half_closed)
			w->e->ops->half_close(w->e, &w->command);
		w->half_closed = true;
		break;
	case 4: w->e->ops->hold(w->e, &w->command, how & 1); break;
	case 5:
		if (how % 4 == 0) {
			must(w->e->ops->withdraw(w->e, &w->command));
			w->over = true;
		} else {
			w->e->ops->on_writable(w->e);
		}
		break;
	default: end_stream(w, how);
	}
	return in;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world w = {.command = {.name = SPAN("Do"), .deadline_ms = 5}};
	struct span in = span_of(data, size);
	if (!size)
		return 0;
	log_setup(LOG_OFF, LOG_LOGFMT);
	w.command.streams_in = in.p[0] & 1;
	w.command.streams_out = in.p[0] & 2;
	in = span_skip(in, 1);
	w.e = entity_action.create(&(struct entity_config){.host = &host_ops,
							   .host_arg = &w,
							   .clock = &clock_system,
							   .service = SPAN("s.S"),
							   .reply_max_bytes = MIB});
	w.e->ops->command(w.e, &w.command);
	must(w.opened);
	while (in.n && !w.gone)
		in = step(&w, in);
	if (!w.gone)
		end_stream(&w, 1);
	must(w.gone && w.over);
	w.e->ops->free(w.e);
	return 0;
}
