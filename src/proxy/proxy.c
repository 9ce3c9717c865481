/* The proxy's parts put together, its readiness and its drain. */
#include <config.h>

#include "proxy/proxy.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/client.h"
#include "proxy/eventing.h"
#include "proxy/examples.h"
#include "proxy/front.h"
#include "proxy/function.h"
#include "proxy/grpc_web.h"
#include "proxy/http_front.h"
#include "proxy/management.h"
#include "proxy/router_core.h"
#include "proxy/schema.h"

#define PROXY_MAGIC 0x50726f78u
/* How often the journal is asked whether it is there; more often while it is not. */
#define PROBE_MS 2000
#define PROBE_AGAIN_MS 250
#define PROBE_DEADLINE_MS 2000

enum life { STARTING, SERVING, DRAINING_CALLS, DRAINING_ENTITIES, DRAINED };

struct proxy {
	uint32_t magic;
	struct proxy_config config;
	struct loop *loop;
	enum life life;
	char *name_space;
	struct client *journal;
	struct function *function;
	struct router *router;
	struct eventing *eventing;
	struct schema *schema;
	struct grpc_server *server, *metrics, *management;
	struct front *front;
	struct http_front *http;
	struct grpc_web *web;
	struct management managed;
	bool bound;

	struct loop_timer *probe;
	bool probing, journal_there, journal_told;

	bool calls_drained, events_drained;
	struct loop_timer *grace, *patience;
	void (*drained)(void *arg, bool clean);
	void *drained_arg;
};

/* --- the journal's presence --------------------------------------------------------------------------- */

static void set_journal(struct proxy *p, bool there, struct span why)
{
	if (p->journal_told && there == p->journal_there)
		return;
	p->journal_told = true;
	p->journal_there = there;
	if (there)
		log_info("journal reached", LOG_STR("target", p->config.journal));
	else
		log_warn("journal not reached: commands are answered with UNAVAILABLE",
			 LOG_STR("target", p->config.journal), LOG_SPAN("error", why));
}

static void on_probed(const struct client_stat *stat, const struct client_error *error, void *arg)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	p->probing = false;
	if (error->code == GRPC_CANCELLED)
		return;
	set_journal(p, stat != NULL, error->text);
	loop_timer_set(p->probe, stat ? PROBE_MS : PROBE_AGAIN_MS);
}

static void probe(void *arg)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	if (p->probing)
		return;
	p->probing = true;
	client_stat(p->journal, SPAN(""), PROBE_DEADLINE_MS, on_probed, p);
}

static void on_journal_state(struct client *c, enum grpc_channel_state state, const struct err *why,
			     void *arg)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	(void)c;
	if (state == GRPC_CHANNEL_READY)
		loop_timer_set(p->probe, 0);
	else if (state == GRPC_CHANNEL_FAILED)
		set_journal(p, false, span_str(why ? why->text : ""));
}

static bool is_ready(void *arg, const char **ret_why_not)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	*ret_why_not = p->life >= DRAINING_CALLS ? "the proxy is being stopped\n"
		       : !p->bound               ? "the function was not discovered yet\n"
						 : "the journal cannot be reached\n";
	return p->life == SERVING && p->bound && p->journal_there;
}

static const struct stats *get_stats(void *arg)
{
	return router_stats(OBJ_CAST(struct proxy, arg, PROXY_MAGIC)->router);
}

/* --- the function and the front ---------------------------------------------------------------------- */

/* One line a service, with calls to try: `cairn dev` shows these two. */
static void log_service(const struct proxy *p, const struct spec_service *service)
{
	struct buf curl, grpcurl;
	buf_init(&curl, 4 * KIB);
	buf_init(&grpcurl, 4 * KIB);
	const struct spec_method *method = example_method(service);
	if (method && example_curl(method, proxy_port(p), &curl))
		buf_clear(&curl); /* too long to be an example */
	if (method && example_grpcurl(method, proxy_port(p), &grpcurl))
		buf_clear(&grpcurl);
	log_info("service", LOG_SPAN("name", service->name), LOG_STR("kind", service->kind->name),
		 LOG_SPAN("persistence_id", service->persistence_id),
		 LOG_I64("passivation_ms", service->passivation_ms), LOG_SPAN("curl", buf_span(&curl)),
		 LOG_SPAN("grpcurl", buf_span(&grpcurl)));
	buf_release(&curl);
	buf_release(&grpcurl);
}

static void log_spec(const struct proxy *p, const struct spec *spec)
{
	for (size_t i = 0; i < spec->service_count; i++)
		log_service(p, &spec->services[i]);
	log_info("function discovered", LOG_SPAN("library", spec->library), LOG_I64("port", proxy_port(p)));
}

static void on_spec(void *arg, struct spec *spec)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	struct err err = {0};
	router_take_over(p->router, spec);
	if (p->life == STARTING) {
		if (grpc_server_listen(p->server, &err)) {
			err_wrap(&err, "the proxy's own port");
			log_error("cannot serve", LOG_ERR(&err));
			p->config.failed(p->config.arg, &err);
			return;
		}
		p->bound = true;
		p->life = SERVING;
	}
	log_spec(p, spec);
	schema_keep(p->schema, spec);
}

static struct grpc_call *call_function(void *arg, const char *path, int64_t deadline_ms,
				       const struct grpc_call_ops *ops, void *user)
{
	return function_call(OBJ_CAST(struct proxy, arg, PROXY_MAGIC)->function, path, deadline_ms, ops,
			     user);
}

static void report(void *arg, struct span text)
{
	function_report(OBJ_CAST(struct proxy, arg, PROXY_MAGIC)->function, text);
}

static void handle_http(struct http_exchange *x, const struct http_request *request, void *arg)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	if (!management_probe(x, request) && !grpc_web_handle(p->web, x, request))
		http_front_handle(x, request, p->http);
}

/* --- life ---------------------------------------------------------------------------------------------- */

static struct router *new_router(struct proxy *p)
{
	const struct proxy_config *c = &p->config;
	struct router_config config = {.loop = p->loop,
				       .clock = &clock_system,
				       .entities = {.loop = p->loop,
						    .clock = &clock_system,
						    .journal = p->journal,
						    .call = call_function,
						    .report = report,
						    .arg = p,
						    .session_ttl_ms = c->session_ttl_ms,
						    .name_space = span_str(p->name_space),
						    .command_timeout_ms = c->command_timeout_ms,
						    .load_timeout_ms = c->load_timeout_ms,
						    .append_timeout_ms = c->append_timeout_ms,
						    .close_grace_ms = c->close_grace_ms,
						    .entity_memory_bytes = (size_t)c->entity_memory_bytes,
						    .max_waiting = (size_t)c->max_waiting,
						    .reply_max_bytes = (size_t)c->function_message_max_bytes},
				       .report = report,
				       .report_arg = p};
	return router_new(&config);
}

static void on_grace(void *arg);
static void on_patience(void *arg);

struct proxy *proxy_new(struct loop *loop, const struct proxy_config *config)
{
	struct proxy *p = mem_xalloc(sizeof *p);
	struct grpc_server_config front = {.listen = config->listen,
					   .message_max_bytes = (size_t)config->function_message_max_bytes};
	p->magic = PROXY_MAGIC;
	p->config = *config;
	p->loop = loop;
	p->name_space = config->name_space && config->name_space[0] ? mem_xprintf("%s/", config->name_space)
								    : mem_xstrdup("");
	p->probe = loop_timer_new(loop, probe, p);
	p->grace = loop_timer_new(loop, on_grace, p);
	p->patience = loop_timer_new(loop, on_patience, p);
	p->journal = client_new(
		loop,
		&(struct client_config){.target = config->journal,
					.advice = "start cairnd there, or name another one with --journal "
						  "or CAIRN_JOURNAL",
					.on_state = on_journal_state,
					.arg = p});
	p->function = function_new(&(struct function_config){
		.loop = loop,
		.target = config->function,
		.message_max_bytes = (size_t)config->function_message_max_bytes,
		.rules = {.check_protocol = config->check_protocol, .passivation_ms = config->passivation_ms},
		.take_over = on_spec,
		.arg = p});
	p->router = new_router(p);
	p->eventing = eventing_new(&(struct eventing_config){.loop = loop,
							     .clock = &clock_system,
							     .journal = p->journal,
							     .router = p->router,
							     .name_space = span_str(p->name_space),
							     .retry_ms = config->event_retry_ms,
							     .failure_is_done = config->event_failure_is_done});
	p->schema = schema_new(&(struct schema_config){
		.loop = loop, .journal = p->journal, .name_space = span_str(p->name_space)});
	p->server = grpc_server_new(&front, &p->loop, 1);
	p->front = front_new(p->server, p->router);
	p->http = http_front_new(p->router, LIMIT_EVENTS_SILENCE_MS);
	p->web = grpc_web_new(p->router, config->cors_origins);
	grpc_server_set_http(p->server, handle_http, p);
	p->managed = (struct management){.ready = is_ready, .stats = get_stats, .arg = p};
	return p;
}

static enum err_code serve(struct proxy *p, const char *listen, const char *what,
			   void (*handle)(struct http_exchange *x, const struct http_request *request,
					  void *arg),
			   struct grpc_server **ret, struct err *err)
{
	struct grpc_server_config config = {.listen = listen};
	if (!listen)
		return ERR_OK;
	*ret = grpc_server_new(&config, &p->loop, 1);
	grpc_server_set_http(*ret, handle, &p->managed);
	if (!grpc_server_listen(*ret, err))
		return ERR_OK;
	grpc_server_free(*ret);
	*ret = NULL;
	return err_wrap(err, "%s", what);
}

enum err_code proxy_start(struct proxy *p, struct err *err)
{
	struct err metrics_err = {0};
	enum err_code code =
		serve(p, p->config.management, "management port", management_handle, &p->management, err);
	if (code)
		return code;
	/* A function can be served without metrics, and several proxies may share a machine's default port.
	 */
	if (serve(p, p->config.metrics, "metrics port", management_handle_metrics, &p->metrics, &metrics_err))
		log_error("no metrics are served", LOG_ERR(&metrics_err));
	probe(p);
	function_start(p->function);
	return ERR_OK;
}

int proxy_port(const struct proxy *p)
{
	return p->bound ? grpc_server_port(p->server) : 0;
}

static void finish_drain(struct proxy *p, bool clean)
{
	if (p->life == DRAINED)
		return;
	p->life = DRAINED;
	loop_timer_cancel(p->grace);
	loop_timer_cancel(p->patience);
	loop_timer_cancel(p->probe);
	p->drained(p->drained_arg, clean);
}

/* The rest of the time is the entities'. */
static void on_patience(void *arg)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	if (p->life == DRAINING_CALLS && !p->calls_drained)
		router_break_off_streams(p->router);
}

static void on_grace(void *arg)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	log_warn("not all calls and entities ended in time",
		 LOG_U64("entities", entities_active(router_entities(p->router))));
	finish_drain(p, false);
}

static void on_entities_drained(void *arg)
{
	finish_drain(OBJ_CAST(struct proxy, arg, PROXY_MAGIC), true);
}

static void drain_entities(struct proxy *p)
{
	if (p->life != DRAINING_CALLS || !p->calls_drained || !p->events_drained)
		return;
	p->life = DRAINING_ENTITIES;
	entities_drain(router_entities(p->router), on_entities_drained, p);
}

static void on_calls_drained(void *arg)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	p->calls_drained = true;
	drain_entities(p);
}

static void on_events_drained(void *arg)
{
	struct proxy *p = OBJ_CAST(struct proxy, arg, PROXY_MAGIC);
	p->events_drained = true;
	drain_entities(p);
}

void proxy_drain(struct proxy *p, int64_t grace_ms, void (*done)(void *arg, bool clean), void *arg)
{
	must(p->magic == PROXY_MAGIC && p->life < DRAINING_CALLS);
	p->life = DRAINING_CALLS;
	p->drained = done;
	p->drained_arg = arg;
	loop_timer_set(p->grace, grace_ms);
	loop_timer_set(p->patience, grace_ms - grace_ms / 4);
	function_quiet(p->function);
	front_not_serving(p->front);
	router_end_streams(p->router);
	eventing_drain(p->eventing, on_events_drained, p);
	if (p->bound)
		grpc_server_drain(p->server, grace_ms, on_calls_drained, p);
	else
		on_calls_drained(p);
}

void proxy_free(struct proxy *p)
{
	if (!p)
		return;
	must(p->magic == PROXY_MAGIC);
	mailbox_drain(loop_mailbox(p->loop)); /* what was put off to a turn that never came */
	grpc_server_free(p->server);
	if (p->management)
		grpc_server_free(p->management);
	if (p->metrics)
		grpc_server_free(p->metrics);
	front_free(p->front);
	http_front_free(p->http);
	grpc_web_free(p->web);
	client_free(p->journal);
	eventing_free(p->eventing);
	schema_free(p->schema);
	function_free(p->function);
	router_free(p->router);
	loop_timer_free(p->probe);
	loop_timer_free(p->grace);
	loop_timer_free(p->patience);
	mem_free(p->name_space);
	p->magic = 0;
	mem_free(p);
}
