/* cairn-proxy: configuration, wiring, run, drain. */
#include <config.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/settings.h"
#include "base/text.h"
#include "grpc/grpc.h"
#include "proxy/proxy.h"

#define EXIT_FINDING 1
#define EXIT_USAGE 2
#define NAMESPACE_MAX_BYTES 200 /* leaves 300 for persistence id and entity id */

struct conf {
	const char *host, *function_host, *journal, *name_space, *metrics_host, *protocol_check,
		*event_failure, *cors_origins, *log_level, *log_format;
	int64_t port, function_port, metrics_port, management_port;
	int64_t passivation_timeout, command_timeout, load_timeout, append_timeout, close_grace,
		drain_timeout, event_retry, session_ttl;
	int64_t entity_memory, max_waiting, function_message_max;
};

static enum err_code check_host(const char *text, struct err *err)
{
	char *address = mem_xprintf("%s:0", text);
	enum err_code code = grpc_address_check(address, err);
	mem_free(address);
	return code;
}

/* It begins the names of journal streams, whose category ends at the first '|'. */
static enum err_code check_namespace(const char *text, struct err *err)
{
	struct span s = span_str(text);
	if (s.n <= NAMESPACE_MAX_BYTES && utf8_valid_no_controls(s) && span_find(s, '|') == s.n &&
	    !span_starts(s, SPAN("$")))
		return ERR_OK;
	return err_set(err, ERR_INVALID,
		       "\"%s\" cannot begin the names of journal streams: it must be UTF-8 of at most %d bytes "
		       "without control characters and |, and not begin with $",
		       text, NAMESPACE_MAX_BYTES);
}

#define AT(member) offsetof(struct conf, member)
#define TIME_MIN 1
#define TIME_MAX (7LL * 24 * 3600 * 1000)
static const struct setting rows[] = {
	{.name = "host",
	 .type = SETTING_STRING,
	 .offset = AT(host),
	 .fallback = "",
	 .value_name = "ADDRESS",
	 .check = check_host,
	 .help = "Address to serve the function on; empty: all interfaces."},
	{.name = "port",
	 .type = SETTING_INT,
	 .offset = AT(port),
	 .fallback = "9000",
	 .min = 0,
	 .max = 65535,
	 .env_alias = "HTTP_PORT",
	 .help = "Port to serve the function on, by gRPC and HTTP; 0: any."},
	{.name = "function-host",
	 .type = SETTING_STRING,
	 .offset = AT(function_host),
	 .fallback = "127.0.0.1",
	 .env_alias = "USER_FUNCTION_HOST",
	 .value_name = "HOST",
	 .check = check_host,
	 .help = "Host of the function."},
	{.name = "function-port",
	 .type = SETTING_INT,
	 .offset = AT(function_port),
	 .fallback = "8080",
	 .min = 1,
	 .max = 65535,
	 .env_alias = "USER_FUNCTION_PORT",
	 .help = "Port of the function."},
	{.name = "journal",
	 .type = SETTING_STRING,
	 .offset = AT(journal),
	 .fallback = "127.0.0.1:7117",
	 .value_name = "HOST:PORT",
	 .check = grpc_address_check,
	 .help = "The journal server, a cairnd."},
	{.name = "namespace",
	 .type = SETTING_STRING,
	 .offset = AT(name_space),
	 .fallback = "",
	 .value_name = "NAME",
	 .check = check_namespace,
	 .help = "Prefix of every journal stream, with a slash between; empty: none."},
	{.name = "protocol-check",
	 .type = SETTING_CHOICE,
	 .offset = AT(protocol_check),
	 .fallback = "strict",
	 .choices = "strict|off",
	 .help = "off: takes functions that announce another protocol version."},
	{.name = "cors-origins",
	 .type = SETTING_STRING,
	 .offset = AT(cors_origins),
	 .fallback = "",
	 .value_name = "ORIGINS",
	 .help = "Origins whose pages may call by gRPC-Web, with commas between; *: any; empty: none."},
	{.name = "metrics-host",
	 .type = SETTING_STRING,
	 .offset = AT(metrics_host),
	 .fallback = "",
	 .env_alias = "METRICS_HOST",
	 .value_name = "ADDRESS",
	 .check = check_host,
	 .help = "Address to serve metrics on; empty: all interfaces."},
	{.name = "metrics-port",
	 .type = SETTING_INT,
	 .offset = AT(metrics_port),
	 .fallback = "9090",
	 .min = 0,
	 .max = 65535,
	 .env_alias = "METRICS_PORT",
	 .help = "Port of /metrics, /readyz, /healthz; 0: none."},
	{.name = "management-port",
	 .type = SETTING_INT,
	 .offset = AT(management_port),
	 .fallback = "0",
	 .min = 0,
	 .max = 65535,
	 .env_alias = "MANAGEMENT_PORT",
	 .help = "Port of /ready and /alive; 0: none."},
	{.name = "passivation-timeout",
	 .type = SETTING_TIME,
	 .offset = AT(passivation_timeout),
	 .fallback = "30s",
	 .min = TIME_MIN,
	 .max = TIME_MAX,
	 .help = "When an idle entity leaves memory, where the function does not say."},
	{.name = "command-timeout",
	 .type = SETTING_TIME,
	 .offset = AT(command_timeout),
	 .fallback = "60s",
	 .min = TIME_MIN,
	 .max = TIME_MAX,
	 .help = "How long the function may take to answer a command."},
	{.name = "load-timeout",
	 .type = SETTING_TIME,
	 .offset = AT(load_timeout),
	 .fallback = "5s",
	 .min = TIME_MIN,
	 .max = TIME_MAX,
	 .help = "How long the journal may be silent while an entity is replayed."},
	{.name = "append-timeout",
	 .type = SETTING_TIME,
	 .offset = AT(append_timeout),
	 .fallback = "20s",
	 .min = TIME_MIN,
	 .max = TIME_MAX,
	 .help = "How long an append is repeated while its outcome is unknown."},
	{.name = "close-grace",
	 .type = SETTING_TIME,
	 .offset = AT(close_grace),
	 .fallback = "5s",
	 .min = TIME_MIN,
	 .max = TIME_MAX,
	 .help = "How long the function may take to end a stream that was half-closed."},
	{.name = "drain-timeout",
	 .type = SETTING_TIME,
	 .offset = AT(drain_timeout),
	 .fallback = "30s",
	 .min = TIME_MIN,
	 .max = TIME_MAX,
	 .help = "How long calls under way may take after SIGTERM; streamed calls to actions three quarters of it."},
	{.name = "event-failure",
	 .type = SETTING_CHOICE,
	 .offset = AT(event_failure),
	 .fallback = "retry",
	 .choices = "retry|ack",
	 .help = "An event whose method answers with a failure: retry delivers it again, ack takes it as done."},
	{.name = "event-retry",
	 .type = SETTING_TIME,
	 .offset = AT(event_retry),
	 .fallback = "3s",
	 .min = TIME_MIN,
	 .max = TIME_MAX,
	 .help = "When an event that could not be delivered comes again at first; doubles up to ten times as much."},
	{.name = "session-ttl",
	 .type = SETTING_TIME,
	 .offset = AT(session_ttl),
	 .fallback = "10s",
	 .min = LIMIT_SESSION_TTL_MIN_MS,
	 .max = LIMIT_SESSION_TTL_MAX_MS,
	 .help = "Where there are CRDTs: how long the other proxies count a silent one, with its votes."},
	{.name = "entity-memory",
	 .type = SETTING_SIZE,
	 .offset = AT(entity_memory),
	 .fallback = "256MiB",
	 .min = 4096,
	 .max = 1LL << 40,
	 .help = "What the entities in memory may hold, about; beyond it the least recently used idle ones leave."},
	{.name = "max-waiting",
	 .type = SETTING_INT,
	 .offset = AT(max_waiting),
	 .fallback = "1000",
	 .min = 1,
	 .max = 1 << 30,
	 .help = "Commands that may wait for one entity."},
	{.name = "function-message-max",
	 .type = SETTING_SIZE,
	 .offset = AT(function_message_max),
	 .fallback = "12MiB",
	 .min = 4096,
	 .max = 1 << 30,
	 .help = "The largest message taken from the function."},
	{.name = "log-level",
	 .type = SETTING_CHOICE,
	 .offset = AT(log_level),
	 .fallback = "info",
	 .choices = "debug|info|warn|error|off",
	 .help = "Lines below this level are left out."},
	{.name = "log-format",
	 .type = SETTING_CHOICE,
	 .offset = AT(log_format),
	 .fallback = "logfmt",
	 .choices = "logfmt|json",
	 .help = "How log lines are written."},
};

struct app {
	struct conf conf;
	struct loop *loop;
	struct proxy *proxy;
	bool draining, clean;
	int exit_code;
};

static void setup_log(const struct conf *conf)
{
	static const char *const levels[] = {"debug", "info", "warn", "error", "off"};
	enum log_level level = LOG_INFO;
	for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++)
		if (strcmp(conf->log_level, levels[i]) == 0)
			level = (enum log_level)i;
	log_setup(level, strcmp(conf->log_format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
}

/* Existing deployments set these for the proxy that kept the state itself; here that is cairnd's. */
static void log_ignored(char *const env[])
{
	static const char *const names[] = {
		"REMOTING_PORT=", "SELECTOR_LABEL=", "SELECTOR_LABEL_VALUE=", "REQUIRED_CONTACT_POINT_NR=",
		"POSTGRES_",      "CASSANDRA_"};
	struct buf found;
	buf_init(&found, 16 * KIB);
	for (size_t i = 0; env[i]; i++) {
		struct span entry = span_str(env[i]);
		for (size_t k = 0; k < sizeof names / sizeof names[0]; k++)
			if (span_starts(entry, span_str(names[k])))
				buf_printf(&found, "%s%.*s", found.n ? " " : "",
					   SPAN_ARG(span_first(entry, span_find(entry, '='))));
	}
	if (found.n)
		log_info("these variables have no effect: the state is kept by the journal server",
			 LOG_SPAN("names", buf_span(&found)));
	buf_release(&found);
}

static void on_drained(void *arg, bool clean)
{
	struct app *app = arg;
	app->clean = clean;
	loop_stop(app->loop);
}

static void on_signal(int signo, void *arg)
{
	struct app *app = arg;
	if (app->draining) {
		log_warn("stopped by a second signal", LOG_I64("signal", signo));
		loop_stop(app->loop);
		return;
	}
	app->draining = true;
	log_info("stopping: calls under way are finished", LOG_I64("signal", signo));
	proxy_drain(app->proxy, app->conf.drain_timeout, on_drained, app);
}

static void on_failed(void *arg, const struct err *err)
{
	struct app *app = arg;
	(void)err;
	app->exit_code = EXIT_FINDING;
	loop_stop(app->loop);
}

static struct proxy *make_proxy(struct app *app, char *addresses[4])
{
	const struct conf *c = &app->conf;
	addresses[0] = mem_xprintf("%s:%lld", c->host, (long long)c->port);
	addresses[1] = mem_xprintf("%s:%lld", c->function_host, (long long)c->function_port);
	addresses[2] =
		c->metrics_port ? mem_xprintf("%s:%lld", c->metrics_host, (long long)c->metrics_port) : NULL;
	addresses[3] = c->management_port ? mem_xprintf(":%lld", (long long)c->management_port) : NULL;
	return proxy_new(app->loop,
			 &(struct proxy_config){.listen = addresses[0],
						.function = addresses[1],
						.metrics = addresses[2],
						.management = addresses[3],
						.journal = c->journal,
						.name_space = c->name_space,
						.cors_origins = c->cors_origins,
						.check_protocol = strcmp(c->protocol_check, "strict") == 0,
						.passivation_ms = c->passivation_timeout,
						.command_timeout_ms = c->command_timeout,
						.load_timeout_ms = c->load_timeout,
						.append_timeout_ms = c->append_timeout,
						.close_grace_ms = c->close_grace,
						.event_retry_ms = c->event_retry,
						.event_failure_is_done = strcmp(c->event_failure, "ack") == 0,
						.session_ttl_ms = c->session_ttl,
						.entity_memory_bytes = c->entity_memory,
						.max_waiting = c->max_waiting,
						.function_message_max_bytes = c->function_message_max,
						.failed = on_failed,
						.arg = app});
}

static void run(struct app *app)
{
	char *addresses[4];
	struct err err = {0};
	app->loop = loop_new();
	app->proxy = make_proxy(app, addresses);
	signal(SIGPIPE, SIG_IGN);
	loop_on_signal(app->loop, SIGTERM, on_signal, app);
	loop_on_signal(app->loop, SIGINT, on_signal, app);
	if (proxy_start(app->proxy, &err)) {
		log_error("cannot start", LOG_ERR(&err));
		app->exit_code = EXIT_FINDING;
	} else {
		loop_run(app->loop);
	}
	if (!app->clean) /* calls and entities still run: the process's end is theirs */
		exit(app->exit_code);
	proxy_free(app->proxy);
	loop_free(app->loop);
	for (size_t i = 0; i < 4; i++)
		mem_free(addresses[i]);
}

int main(int argc, char *argv[])
{
	extern char **environ;
	struct app app = {0};
	struct settings *settings = NULL;
	struct err err = {0};
	int rest = argc;
	bool quit = false;
	enum err_code code = settings_load(
		"cairn-proxy", "The sidecar that keeps a stateless function's state.", rows,
		sizeof rows / sizeof rows[0], argc, argv, environ, &app.conf, &settings, &rest, &quit, &err);
	if (code) {
		fprintf(stderr, "cairn-proxy: %s\n", err.text);
		return EXIT_USAGE;
	}
	if (!quit && rest < argc) {
		fprintf(stderr, "cairn-proxy: unexpected word \"%s\": it takes flags alone (see --help)\n",
			argv[rest]);
		settings_free(settings);
		return EXIT_USAGE;
	}
	if (!quit) {
		setup_log(&app.conf);
		log_ignored(environ);
		run(&app);
	}
	settings_free(settings);
	return app.exit_code;
}
