#include <config.h>

#include "proxy/function.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "proxy/discovery.h"
#include "proxy/wire.h"

#define FUNCTION_MAGIC 0x46756e63u
#define REPORT_DEADLINE_MS 10000
#define REPORTS_MAX 64 /* under way at a time; what comes beyond is logged alone */
#define WINDOW_BYTES (4 * MIB)
#define MISSING_US 5000000	  /* a function may take its time to come up */
#define STILL_MISSING_US 60000000 /* until the next warning */

struct function {
	uint32_t magic;
	struct function_config config;
	struct grpc_channel *channel;
	struct discovery *discovery;
	struct loop_timer *timer;
	struct loop_timer *again;  /* connects anew after a connection was lost */
	int64_t pause_ms;          /* how long after it */
	struct question *question; /* the discover under way */
	struct task drop;          /* renews the channel outside of its callbacks */
	bool drop_posted, quiet, accepted, connected;
	struct mono_time missing_since; /* while it is not connected; moved on by each warning */
	bool missed;			/* warned since then */
	unsigned reports;
};

/* A discover call; it may outlive the interest in its answer. */
struct question {
	struct function *function; /* NULL: forgotten */
};

static void on_state(struct grpc_channel *ch, enum grpc_channel_state state, const struct err *why,
		     void *arg);

static void open_channel(struct function *f)
{
	struct grpc_channel_config config = {.target = f->config.target,
					     .message_max_bytes = f->config.message_max_bytes,
					     .window_bytes = WINDOW_BYTES,
					     .backoff_min_ms = DISCOVERY_PAUSE_MIN_MS,
					     .backoff_max_ms = DISCOVERY_PAUSE_MAX_MS,
					     .connect_timeout_ms = DISCOVERY_ANSWER_MS,
					     .peer = "the function",
					     .advice = "start it there, or name another address with "
						       "USER_FUNCTION_HOST and USER_FUNCTION_PORT"};
	f->channel = grpc_channel_new(f->config.loop, &config, on_state, f);
	grpc_channel_connect(f->channel);
}

static void connect_again(void *arg)
{
	struct function *f = OBJ_CAST(struct function, arg, FUNCTION_MAGIC);
	if (!f->quiet)
		grpc_channel_connect(f->channel);
}

/* A function that takes connections and loses them again is not asked without a pause either. */
static void connect_later(struct function *f)
{
	loop_timer_set(f->again, f->pause_ms);
	f->pause_ms = f->pause_ms * 2 < DISCOVERY_PAUSE_MAX_MS ? f->pause_ms * 2 : DISCOVERY_PAUSE_MAX_MS;
}

static void begin_missing(struct function *f)
{
	f->missing_since = clock_mono(&clock_system);
	f->missed = false;
}

static void warn_missing(struct function *f, const struct err *why)
{
	struct mono_time now = clock_mono(&clock_system);
	if (mono_since_us(now, f->missing_since) < (f->missed ? STILL_MISSING_US : MISSING_US))
		return;
	f->missing_since = now;
	f->missed = true;
	log_warn("function not reached, trying again", LOG_STR("target", f->config.target),
		 LOG_STR("error", why ? why->text : ""));
}

/* A connection that broke, and one that is needed before anything is in force, is made again by itself; one
 * that the function closed in good order is made on need. */
static void on_state(struct grpc_channel *ch, enum grpc_channel_state state, const struct err *why, void *arg)
{
	struct function *f = OBJ_CAST(struct function, arg, FUNCTION_MAGIC);
	must(ch == f->channel);
	if (f->quiet)
		return;
	if (state == GRPC_CHANNEL_READY && !f->connected) {
		f->connected = true;
		log_info("function connected", LOG_STR("target", f->config.target));
		discovery_connected(f->discovery);
	} else if (state != GRPC_CHANNEL_READY && f->connected) {
		f->connected = false;
		begin_missing(f);
		log_info("function's connection lost or closed", LOG_STR("target", f->config.target),
			 LOG_STR("error", why ? why->text : ""));
		discovery_lost(f->discovery);
	} else if (state == GRPC_CHANNEL_FAILED) {
		warn_missing(f, why);
	}
	if (state == GRPC_CHANNEL_IDLE && (!f->accepted || (why && why->code)))
		connect_later(f);
}

/* --- discovery's requests ----------------------------------------------------------------------------- */

static void on_answer(const struct grpc_result *result, struct span reply, void *arg)
{
	struct question *q = arg;
	struct function *f = q->function;
	mem_free(q);
	if (!f)
		return;
	f->question = NULL;
	if (result->code != GRPC_OK) {
		discovery_no_answer(f->discovery, result->code, result->message);
		return;
	}
	f->pause_ms = DISCOVERY_PAUSE_MIN_MS;
	discovery_answer(f->discovery, reply);
}

static void host_ask(void *host, struct span proxy_info)
{
	struct function *f = OBJ_CAST(struct function, host, FUNCTION_MAGIC);
	must(!f->question);
	f->question = mem_xalloc(sizeof *f->question);
	f->question->function = f;
	/* A little longer than discovery waits: its own time decides. */
	grpc_channel_unary(f->channel, "/cloudstate.EntityDiscovery/discover", proxy_info,
			   DISCOVERY_ANSWER_MS + 1000, false, on_answer, f->question);
}

static void host_forget(void *host)
{
	struct function *f = OBJ_CAST(struct function, host, FUNCTION_MAGIC);
	if (f->question)
		f->question->function = NULL;
	f->question = NULL;
}

static void run_drop(struct task *task)
{
	struct function *f = CONTAINER_OF(task, struct function, drop);
	f->drop_posted = false;
	f->connected = false;
	grpc_channel_free(f->channel);
	open_channel(f);
}

static void host_drop(void *host)
{
	struct function *f = OBJ_CAST(struct function, host, FUNCTION_MAGIC);
	if (f->drop_posted)
		return;
	f->drop_posted = true;
	f->drop.run = run_drop;
	mailbox_post(loop_mailbox(f->config.loop), &f->drop);
}

static void host_take_over(void *host, struct spec *spec)
{
	struct function *f = OBJ_CAST(struct function, host, FUNCTION_MAGIC);
	f->accepted = true;
	f->config.take_over(f->config.arg, spec);
}

static void host_report(void *host, struct span text)
{
	function_report(OBJ_CAST(struct function, host, FUNCTION_MAGIC), text);
}

static void host_wake_in(void *host, int64_t after_ms)
{
	struct function *f = OBJ_CAST(struct function, host, FUNCTION_MAGIC);
	loop_timer_set(f->timer, after_ms);
}

static void on_timer(void *arg)
{
	struct function *f = OBJ_CAST(struct function, arg, FUNCTION_MAGIC);
	if (!f->quiet)
		discovery_on_time(f->discovery);
}

static const struct discovery_host discovery_ops = {
	.ask = host_ask,
	.forget = host_forget,
	.drop = host_drop,
	.take_over = host_take_over,
	.report = host_report,
	.wake_in = host_wake_in,
};

/* --- reports ------------------------------------------------------------------------------------------ */

static void on_reported(const struct grpc_result *result, struct span reply, void *arg)
{
	struct function *f = OBJ_CAST(struct function, arg, FUNCTION_MAGIC);
	(void)reply;
	f->reports--;
	if (result->code != GRPC_OK && result->code != GRPC_CANCELLED)
		log_warn("reportError was not taken", LOG_STR("code", grpc_code_name(result->code)),
			 LOG_SPAN("message", result->message));
}

/* The message is a protobuf string, and may quote what the function or a client wrote, or end in the middle
 * of a character: what is no UTF-8 in it becomes question marks. */
static bool append_legible(struct buf *out, struct span text)
{
	while (text.n) {
		uint32_t c;
		size_t n = utf8_char(text, &c);
		if (n ? buf_append_span(out, span_first(text, n)) : buf_append_byte(out, '?'))
			return false;
		text = span_skip(text, n ? n : 1);
	}
	return true;
}

void function_report(struct function *f, struct span text)
{
	Cloudstate__UserFunctionError message = CLOUDSTATE__USER_FUNCTION_ERROR__INIT;
	struct buf legible, out;
	log_warn("reported to the function", LOG_SPAN("message", text));
	if (f->quiet || f->reports >= REPORTS_MAX)
		return;
	buf_init(&legible, LIMIT_FUNCTION_MESSAGE_BYTES);
	buf_init(&out, LIMIT_FUNCTION_MESSAGE_BYTES + KIB);
	bool fits = append_legible(&legible, text);
	message.message = wire_bytes(buf_span(&legible));
	if (fits && wire_pack(&message.base, &out)) {
		f->reports++;
		grpc_channel_unary(f->channel, "/cloudstate.EntityDiscovery/reportError", buf_span(&out),
				   REPORT_DEADLINE_MS, true, on_reported, f);
	}
	buf_release(&legible);
	buf_release(&out);
}

/* --- life --------------------------------------------------------------------------------------------- */

struct grpc_call *function_call(struct function *f, const char *path, int64_t deadline_ms,
				const struct grpc_call_ops *ops, void *user)
{
	return grpc_channel_call(f->channel, path, NULL, deadline_ms, false, ops, user);
}

struct function *function_new(const struct function_config *config)
{
	struct function *f = mem_xalloc(sizeof *f);
	f->magic = FUNCTION_MAGIC;
	f->config = *config;
	f->discovery = discovery_new(&discovery_ops, f, &config->rules);
	f->timer = loop_timer_new(config->loop, on_timer, f);
	f->again = loop_timer_new(config->loop, connect_again, f);
	f->pause_ms = DISCOVERY_PAUSE_MIN_MS;
	return f;
}

void function_start(struct function *f)
{
	must(!f->channel);
	log_info("looking for the function", LOG_STR("target", f->config.target));
	begin_missing(f);
	open_channel(f);
}

void function_quiet(struct function *f)
{
	f->quiet = true;
}

void function_free(struct function *f)
{
	if (!f)
		return;
	must(!f->drop_posted);
	f->quiet = true;
	host_forget(f);
	if (f->channel)
		grpc_channel_free(f->channel);
	loop_timer_free(f->timer);
	loop_timer_free(f->again);
	discovery_free(f->discovery);
	f->magic = 0;
	mem_free(f);
}
