/* An event's delivery: see delivery.h. */
#include <config.h>

#include "proxy/delivery.h"

#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"

struct delivery {
	const struct reply_sink *sink;
	void *arg;
	size_t under_way;
	bool ended;
	struct outcome outcome; /* its message is owned */
};

struct delivery *delivery_new(const struct reply_sink *sink, void *arg)
{
	struct delivery *d = mem_xalloc(sizeof *d);
	*d = (struct delivery){.sink = sink, .arg = arg};
	return d;
}

static void tell_if_done(struct delivery *d)
{
	if (!d->ended || (d->under_way && !plant("delivery-does-not-wait-for-effects")))
		return;
	if (d->sink)
		d->sink->on_end(d->arg, &d->outcome);
	d->sink = NULL;
	if (d->under_way)
		return;
	mem_free((void *)(uintptr_t)d->outcome.message.p);
	mem_free(d);
}

static void command_on_end(void *arg, const struct outcome *outcome)
{
	struct delivery *d = arg;
	must(!d->ended);
	d->ended = true;
	d->outcome = *outcome;
	d->outcome.message = span_of(mem_xdup(outcome->message.p, outcome->message.n), outcome->message.n);
	tell_if_done(d);
}

const struct reply_sink delivery_command_sink = {.on_end = command_on_end};

void delivery_effect_begins(struct delivery *d)
{
	d->under_way++;
}

void delivery_effect_ends(struct delivery *d)
{
	must(d->under_way > 0);
	d->under_way--;
	tell_if_done(d);
}
