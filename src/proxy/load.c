#include <config.h>

#include "proxy/load.h"

#include "base/mem.h"

#define AGAIN_MS 100

struct load {
	struct load_config config;
	struct client_read *read; /* NULL: it is to be tried again. May outlive the interest in it */
	struct loop_timer *timer;
	struct mono_time began;
	uint64_t sequence;
	bool cancelled;
	bool held;       /* the function's stream is full */
	bool progressed; /* something came since the timer was set */
	bool any;        /* a record has come: it cannot begin anew */
	bool given_up;   /* the journal stopped in the middle */
};

static void load_free(struct load *load)
{
	loop_timer_free(load->timer);
	mem_free(load);
}

static void on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	struct load *load = arg;
	(void)r;
	if (load->cancelled)
		return;
	load->progressed = load->any = true;
	load->config.on_record(load->config.arg, record);
}

static void on_page(struct client_read *r, const struct client_page *page, void *arg)
{
	struct load *load = arg;
	(void)r;
	load->progressed = true;
	if (page->end)
		load->sequence = page->sequence;
}

struct client_error load_journal_error(const struct client_error *error)
{
	struct client_error e = *error;
	if (e.unreachable)
		e.code = GRPC_UNAVAILABLE;
	return e;
}

static void on_done(struct client_read *r, const struct client_error *error, void *arg);
static const struct client_read_ops ops = {.on_record = on_record, .on_page = on_page, .on_done = on_done};

static void begin(struct load *load)
{
	load->progressed = false;
	load->read = client_load(load->config.journal, &(struct client_load){.stream = load->config.stream}, &ops,
				 load);
	loop_timer_set(load->timer, load->config.timeout_ms);
}

/* While nothing was replayed yet, a journal that is away for a moment (a restart) is tried again. */
static bool try_again(struct load *load, const struct client_error *error)
{
	int64_t waited_us = mono_since_us(clock_mono(load->config.clock), load->began);
	if (!error->unreachable || load->any || load->given_up || waited_us >= load->config.timeout_ms * 1000)
		return false;
	load->read = NULL;
	loop_timer_set(load->timer, AGAIN_MS);
	return true;
}

static void on_done(struct client_read *r, const struct client_error *error, void *arg)
{
	struct load *load = arg;
	struct client_error e = load_journal_error(error);
	(void)r;
	if (!load->cancelled && try_again(load, error))
		return;
	struct load ended = *load;
	load_free(load);
	if (ended.cancelled)
		return;
	if (ended.given_up)
		e = (struct client_error){.code = GRPC_UNAVAILABLE,
					  .text = SPAN("the journal does not answer: see whether it is "
						       "overloaded, then try again"),
					  .unreachable = true};
	ended.config.on_done(ended.config.arg, &e, ended.sequence);
}

/* Either it is time to try again, or to see whether the journal still sends. */
static void on_timer(void *arg)
{
	struct load *load = arg;
	if (load->cancelled)
		return;
	if (!load->read) {
		begin(load);
	} else if (load->progressed || load->held) {
		load->progressed = false;
		loop_timer_set(load->timer, load->config.timeout_ms);
	} else {
		load->given_up = true;
		client_read_cancel(load->read);
	}
}

struct load *load_begin(const struct load_config *config)
{
	struct load *load = mem_xalloc(sizeof *load);
	load->config = *config;
	load->began = clock_mono(config->clock);
	load->timer = loop_timer_new(config->loop, on_timer, load);
	begin(load);
	return load;
}

void load_cancel(struct load *load)
{
	if (!load)
		return;
	load->cancelled = true;
	if (load->read)
		client_read_cancel(load->read); /* on_done() follows and frees */
	else
		load_free(load);
}

void load_hold(struct load *load, bool hold)
{
	if (load->held == hold || !load->read)
		return;
	load->held = hold;
	client_read_hold(load->read, hold);
}
