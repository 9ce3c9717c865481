/* cairnd: the journal as a server. Configuration, wiring, run, drain; everything else is elsewhere.
 *
 *	main thread: worker 0, signals          threads: workers 1..n-1, sequencer, readers, storage's own
 *
 * On SIGTERM or SIGINT it stops accepting, ends subscriptions, answers what it has accepted and ends; a
 * second signal ends it at once (which loses nothing that was acknowledged). */
#include <config.h>

#include <arpa/inet.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/random.h"
#include "base/settings.h"
#include "grpc/grpc.h"
#include "journal/journal.h"
#include "journal/reflection.h"
#include "journal/service.h"

#define WORKERS_MAX 64
#define METRICS_TEXT_MAX (4 * MIB)
#define WATCH_MS 500
#define LARGE_BUFFER_BYTES (5 << 18) /* a response and its buffer's slack */

enum exit_code { EXIT_RUN = 0, EXIT_TROUBLE = 1, EXIT_USAGE = 2 };

struct conf {
	const char *listen;
	const char *storage;
	int64_t workers;
	int64_t readers;
	int64_t not_before_wait_ms;
	int64_t drain_ms;
	int64_t compact_min_age_ms, compact_every_ms, compact_rate;
	const char *signing_key;
	bool insecure;
	const char *log_level;
	const char *log_format;
};

static const struct setting rows[] = {
	{.name = "listen", .type = SETTING_STRING, .offset = offsetof(struct conf, listen),
	 .fallback = "127.0.0.1:7117", .value_name = "HOST:PORT", .check = grpc_address_check,
	 .help = "Address and port to serve gRPC, /metrics, /healthz and /readyz on; port 0 takes any."},
	{.name = "storage", .type = SETTING_STRING, .offset = offsetof(struct conf, storage),
	 .fallback = "file:./cairn-data", .value_name = "memory|file:DIR|postgres://...",
	 .check = storage_uri_check,
	 .help = "Where the journal is kept: in memory until the end of the process, in files, or in a Postgres "
		 "database (any libpq URI; \"postgres:\" alone takes PGHOST, PGDATABASE and so on)."},
	{.name = "workers", .type = SETTING_INT, .offset = offsetof(struct conf, workers), .fallback = "0",
	 .min = 0, .max = WORKERS_MAX, .help = "Threads that serve connections; 0: one for each processor."},
	{.name = "readers", .type = SETTING_INT, .offset = offsetof(struct conf, readers), .fallback = "2",
	 .min = 1, .max = WORKERS_MAX, .help = "Threads that read storage."},
	{.name = "not-before-wait", .type = SETTING_TIME, .offset = offsetof(struct conf, not_before_wait_ms),
	 .fallback = "5s", .min = 1, .max = 3600000,
	 .help = "How long a read waits for the position it must not be before."},
	{.name = "drain", .type = SETTING_TIME, .offset = offsetof(struct conf, drain_ms), .fallback = "10s",
	 .min = 1, .max = 3600000, .help = "How long open calls may go on after SIGTERM."},
	{.name = "compact-min-age", .type = SETTING_TIME, .offset = offsetof(struct conf, compact_min_age_ms),
	 .fallback = "1h", .min = 0, .max = 31536000000, .help = "Compaction leaves alone what is younger."},
	{.name = "compact-every", .type = SETTING_TIME, .offset = offsetof(struct conf, compact_every_ms),
	 .fallback = "1h", .min = 0, .max = 31536000000,
	 .help = "How often the journal looks for what compaction can take away; 0: only when asked."},
	{.name = "compact-rate", .type = SETTING_SIZE, .offset = offsetof(struct conf, compact_rate),
	 .fallback = "64MiB", .min = 0, .max = 1LL << 40,
	 .help = "Bytes that compaction may read and write a second; 0: as many as it can."},
	{.name = "signing-key", .type = SETTING_SECRET, .offset = offsetof(struct conf, signing_key),
	 .help = "The key that signs checkpoints, Ed25519 in PEM (openssl genpkey -algorithm ed25519). By default one "
		 "is made and kept in the journal's directory; on Postgres there is none."},
	{.name = "insecure", .type = SETTING_BOOL, .offset = offsetof(struct conf, insecure),
	 .help = "Serve without authentication on an address beyond loopback."},
	{.name = "log-level", .type = SETTING_CHOICE, .offset = offsetof(struct conf, log_level),
	 .fallback = "info", .choices = "debug|info|warn|error|off",
	 .help = "The least level that is logged."},
	{.name = "log-format", .type = SETTING_CHOICE, .offset = offsetof(struct conf, log_format),
	 .fallback = "logfmt", .choices = "logfmt|json", .help = "How log lines are written, to stderr."},
};

#define APP_MAGIC 0xca1a4d00
struct app {
	uint32_t magic;
	struct conf conf;
	struct loop *loops[WORKERS_MAX];
	size_t loop_count;
	struct journal *journal;
	struct grpc_server *server;
	struct journal_service *service;
	struct journal_reflection *reflection;
	struct grpc_health *health;
	struct loop_timer *watch; /* looks after the storage */
	bool draining;
};

/* ---- what the service manager is told ----------------------------------------------------------- */

/* systemd's notification: a datagram to $NOTIFY_SOCKET, if there is one. Trouble with it is no trouble. */
static void manager_notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (n < 2 || n >= sizeof(to.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(to.sun_path, path, n);
	if (path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to,
		   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
		log_warn("the service manager was not told", LOG_STR("state", state));
	close(fd);
}

/* ---- is all well? ------------------------------------------------------------------------------- */

static bool app_takes_appends(const struct app *app)
{
	struct journal_info info;

	journal_info(app->journal, &info);
	return info.takes_appends;
}

/* A storage that has failed serves reads on, but is no journal to send clients to. */
static void app_on_watch(void *arg)
{
	struct app *app = OBJ_CAST(struct app, arg, APP_MAGIC);

	bool ready = app_takes_appends(app) && !app->draining;

	grpc_health_set(app->health, "", ready);
	grpc_health_set(app->health, JOURNAL_SERVICE_NAME, ready);
	loop_timer_set(app->watch, WATCH_MS);
}

/* ---- plain HTTP --------------------------------------------------------------------------------- */

static void http_text(struct http_exchange *x, int status, const char *type, struct span body)
{
	struct header header = {SPAN("content-type"), span_str(type)};

	http_respond(x, status, &(struct headers){&header, 1}, body);
}

static void http_metrics(struct app *app, struct http_exchange *x)
{
	struct buf text;

	journal_measure(app->journal);
	buf_init(&text, METRICS_TEXT_MAX);
	if (metrics_render(&text, "") || journal_service_metrics(app->service, &text))
		http_text(x, 500, "text/plain; charset=utf-8", SPAN("out of memory\n"));
	else
		http_text(x, 200, "text/plain; version=0.0.4; charset=utf-8", buf_span(&text));
	buf_release(&text);
}

static void http_handle(struct http_exchange *x, const struct http_request *request, void *arg)
{
	struct app *app = OBJ_CAST(struct app, arg, APP_MAGIC);
	struct span path = span_first(request->target, span_find(request->target, '?'));
	bool known = span_eq_str(path, "/metrics") || span_eq_str(path, "/healthz") ||
		     span_eq_str(path, "/readyz");

	if (!known)
		http_text(x, 404, "text/plain; charset=utf-8",
			  SPAN("not found: there are /metrics, /healthz and /readyz; all else is gRPC\n"));
	else if (!span_eq_str(request->method, "GET") && !span_eq_str(request->method, "HEAD"))
		http_text(x, 405, "text/plain; charset=utf-8", SPAN("only GET and HEAD\n"));
	else if (span_eq_str(path, "/metrics"))
		http_metrics(app, x);
	else if (span_eq_str(path, "/readyz") && __atomic_load_n(&app->draining, __ATOMIC_RELAXED))
		http_text(x, 503, "text/plain; charset=utf-8", SPAN("shutting down\n"));
	else if (span_eq_str(path, "/readyz") && !app_takes_appends(app))
		http_text(x, 503, "text/plain; charset=utf-8",
			  SPAN("no appends now: the storage has failed or cannot be reached; the log says why\n"));
	else
		http_text(x, 200, "text/plain; charset=utf-8", SPAN("ok\n"));
}

/* ---- the end ------------------------------------------------------------------------------------ */

static void app_on_drained(void *arg)
{
	struct app *app = OBJ_CAST(struct app, arg, APP_MAGIC);

	loop_stop(app->loops[0]);
}

static void app_on_stop_signal(int signo, void *arg)
{
	struct app *app = OBJ_CAST(struct app, arg, APP_MAGIC);

	if (app->draining) {
		log_warn("asked twice to end: ending at once", LOG_STR("signal", strsignal(signo)));
		_exit(EXIT_TROUBLE);
	}
	log_info("shutting down", LOG_STR("signal", strsignal(signo)),
		 LOG_I64("drain_ms", app->conf.drain_ms));
	__atomic_store_n(&app->draining, true, __ATOMIC_RELAXED);
	manager_notify("STOPPING=1");
	grpc_health_set(app->health, "", false);
	grpc_health_set(app->health, JOURNAL_SERVICE_NAME, false);
	journal_service_drain(app->service);
	grpc_server_drain(app->server, app->conf.drain_ms, app_on_drained, app);
}

static void app_on_hangup(int signo, void *arg)
{
	(void)signo;
	(void)arg;
	log_info("SIGHUP: there is nothing to read again; settings are read at the start");
}

/* ---- the beginning ------------------------------------------------------------------------------ */

/* "127.0.0.0/8", "[::1]" and "localhost", each with a port. */
static bool is_loopback(const char *listen)
{
	struct in_addr address;
	char host[sizeof "255.255.255.255"];
	size_t n = strcspn(listen, ":");

	if (strncmp(listen, "[::1]:", 6) == 0 || strncmp(listen, "localhost:", 10) == 0)
		return true;
	if (n >= sizeof(host))
		return false;
	memcpy(host, listen, n);
	host[n] = 0;
	return inet_pton(AF_INET, host, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

static bool port_is_any(const char *listen)
{
	size_t n = strlen(listen);

	return n >= 2 && strcmp(listen + n - 2, ":0") == 0;
}

static void log_setup_from(const struct conf *conf)
{
	static const char *const levels[] = {
		[LOG_DEBUG] = "debug", [LOG_INFO] = "info", [LOG_WARN] = "warn", [LOG_ERROR] = "error",
		[LOG_OFF] = "off",
	};
	enum log_level level = LOG_INFO;

	for (size_t i = 0; i < ARRAY_LEN(levels); i++)
		if (strcmp(levels[i], conf->log_level) == 0)
			level = (enum log_level)i;
	log_setup(level, strcmp(conf->log_format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
}

static size_t worker_count(const struct conf *conf)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	if (conf->workers > 0)
		return (size_t)conf->workers;
	return processors < 1 ? 1 : processors > WORKERS_MAX ? WORKERS_MAX : (size_t)processors;
}

/* Somebody else has the address. If it is the one who has the directory too, that says more. */
static void app_explain_taken(const struct app *app, struct err *err)
{
	struct storage_config config = {.clock = &clock_system, .read_only = true};
	struct storage *storage;
	struct err why = {0};

	if (storage_open(app->conf.storage, &config, &storage, &why) == ERR_OK)
		storage_close(storage);
	else if (why.code == ERR_CONFLICT)
		*err = why;
}

static enum err_code app_open(struct app *app, struct err *err)
{
	struct journal_config journal = {
		.storage_uri = app->conf.storage,
		/* A port that is not known yet would only mislead whoever reads it in the lock file. */
		.address = port_is_any(app->conf.listen) ? NULL : app->conf.listen,
		.reader_threads = (unsigned)app->conf.readers,
		.not_before_wait_ms = app->conf.not_before_wait_ms,
		.compact_min_age_ms = app->conf.compact_min_age_ms,
		.compact_every_ms = app->conf.compact_every_ms,
		.compact_rate_bytes = app->conf.compact_rate,
		.signing_key = app->conf.signing_key,
		.threads = true,
	};
	struct grpc_server_config server = {.listen = app->conf.listen};

	app->loop_count = worker_count(&app->conf);
	for (size_t i = 0; i < app->loop_count; i++)
		app->loops[i] = loop_new();
	app->server = grpc_server_new(&server, app->loops, app->loop_count);
	/* Before anything is made on the disk for a server that will not run. */
	if (grpc_server_bind(app->server, err)) {
		app_explain_taken(app, err);
		return err->code;
	}
	if (journal_open(&journal, &app->journal, err))
		return err->code;
	app->service = journal_service_new(app->journal, app->server, app->loops, app->loop_count);
	app->health = grpc_health_new(app->server);
	grpc_health_set(app->health, "", true);
	grpc_health_set(app->health, JOURNAL_SERVICE_NAME, true);
	app->reflection = journal_reflection_new(app->server);
	grpc_server_set_http(app->server, http_handle, app);
	return grpc_server_listen(app->server, err);
}

/* The one line that says what is served, and from where. */
static void app_say(const struct app *app)
{
	struct journal_info info;
	char id[UUID_TEXT_BYTES], storage[512];
	size_t host = strlen(app->conf.listen);

	while (host > 0 && app->conf.listen[host - 1] != ':')
		host--;
	journal_info(app->journal, &info);
	storage_uri_show(app->conf.storage, storage, sizeof(storage));
	uuid_format(info.head.journal_id, id);
	if (strcmp(app->conf.log_format, "json") == 0) { /* whoever reads JSON reads every line as JSON */
		log_info("serving", LOG_STR("version", PACKAGE_VERSION), LOG_STR("journal_id", id),
			 LOG_STR("listen", app->conf.listen), LOG_I64("port", grpc_server_port(app->server)),
			 LOG_STR("storage", storage), LOG_U64("records", info.head.position));
		return;
	}
	printf("cairnd %s serves journal %s on %.*s%d from %s (%llu records)\n", PACKAGE_VERSION, id,
	       (int)host, app->conf.listen, grpc_server_port(app->server), storage,
	       (unsigned long long)info.head.position);
	fflush(stdout);
}

static void app_run(struct app *app)
{
	loop_on_signal(app->loops[0], SIGTERM, app_on_stop_signal, app);
	loop_on_signal(app->loops[0], SIGINT, app_on_stop_signal, app);
	loop_on_signal(app->loops[0], SIGHUP, app_on_hangup, app);
	for (size_t i = 1; i < app->loop_count; i++) {
		char name[32];

		snprintf(name, sizeof(name), "worker %u", (unsigned)i % WORKERS_MAX);
		loop_thread_start(app->loops[i], name);
	}
	app->watch = loop_timer_new(app->loops[0], app_on_watch, app);
	loop_timer_set(app->watch, WATCH_MS);
	app_say(app);
	manager_notify("READY=1");
	loop_run(app->loops[0]);
	loop_timer_free(app->watch);
	/* Nothing is open any more, or the grace is over. What the sequencer still has is decided, and
	 * its answers go to mailboxes that nobody but us looks into. */
	journal_stop(app->journal);
	for (size_t i = 1; i < app->loop_count; i++)
		loop_thread_join(app->loops[i]);
}

static void app_close(struct app *app)
{
	for (size_t i = 0; i < app->loop_count; i++)
		while (mailbox_drain(loop_mailbox(app->loops[i])))
			;
	grpc_server_free(app->server);
	for (size_t i = 0; i < app->loop_count; i++)
		while (mailbox_drain(loop_mailbox(app->loops[i])))
			;
	journal_reflection_free(app->reflection);
	grpc_health_free(app->health);
	journal_service_free(app->service);
	journal_close(app->journal);
	for (size_t i = 0; i < app->loop_count; i++)
		loop_free(app->loops[i]);
	app->magic = 0;
}

/* ---- cairnd migrate ------------------------------------------------------------------------------- */

/* "cairnd migrate up --storage URI": takes the words out of the arguments, so that flags are left. False: they are
 * none of ours. */
static bool migrate_words(int *argc, char **argv, bool *ret_is, enum storage_migrate *ret_what)
{
	int kept = 1;
	bool dry = false, up = false, status = false, right = true;

	*ret_is = *argc > 1 && strcmp(argv[1], "migrate") == 0;
	if (!*ret_is)
		return true;
	for (int i = 2; i < *argc; i++) {
		bool value = argv[i - 1][0] == '-' && !strchr(argv[i - 1], '=') && strcmp(argv[i - 1], "--dry-run");

		if (strcmp(argv[i], "--dry-run") == 0)
			dry = true;
		else if (strcmp(argv[i], "up") == 0)
			up = true;
		else if (strcmp(argv[i], "status") == 0)
			status = true;
		else if (argv[i][0] == '-' || (value && i > 2))
			argv[kept++] = argv[i];
		else
			right = false;
	}
	*argc = kept;
	*ret_what = dry ? STORAGE_MIGRATE_DRY_RUN : up ? STORAGE_MIGRATE_UP : STORAGE_MIGRATE_STATUS;
	return right && (dry || up != status);
}

static enum exit_code migrate_run(const struct conf *conf, enum storage_migrate what)
{
	struct err err = {0};
	struct buf out;

	buf_init(&out, MIB);
	if (storage_migrate(conf->storage, what, &out, &err))
		fprintf(stderr, "cairnd: %s\n", err.text);
	fwrite(out.p, 1, out.n, stdout);
	buf_release(&out);
	return err.code ? EXIT_TROUBLE : EXIT_RUN;
}

int main(int argc, char **argv)
{
	struct app app = {.magic = APP_MAGIC};
	struct settings *settings = NULL;
	struct err err = {0};
	bool exit_now = false, migrates = false;
	enum storage_migrate what = STORAGE_MIGRATE_STATUS;
	enum exit_code code = EXIT_RUN;
	int rest = 0;

	if (!migrate_words(&argc, argv, &migrates, &what)) {
		fprintf(stderr, "cairnd: write cairnd migrate status, up or --dry-run, and --storage URI\n");
		return EXIT_USAGE;
	}
	if (settings_load("cairnd", "The journal server: appends and replays events over gRPC. "
			  "\"cairnd migrate status|up|--dry-run\" is about the schema of a Postgres storage.", rows,
			  ARRAY_LEN(rows), argc, argv, environ, &app.conf, &settings, &rest, &exit_now,
			  &err)) {
		fprintf(stderr, "cairnd: %s\n", err.text);
		return EXIT_USAGE;
	}
	if (!exit_now && migrates) {
		log_setup_from(&app.conf);
		exit_now = true;
		code = migrate_run(&app.conf, what);
	} else if (!exit_now && rest < argc) {
		fprintf(stderr, "cairnd: \"%s\" is one word too many; see cairnd --help\n", argv[rest]);
		exit_now = true;
		code = EXIT_USAGE;
	} else if (!exit_now && !app.conf.insecure && !is_loopback(app.conf.listen)) {
		fprintf(stderr,
			"cairnd: --listen %s can be reached from other machines, and whoever reaches it may "
			"write: listen on 127.0.0.1, or say --insecure\n",
			app.conf.listen);
		exit_now = true;
		code = EXIT_USAGE;
	}
	if (!exit_now) {
		signal(SIGPIPE, SIG_IGN);
		/* Buffers of a response or less are used again; larger ones, of large records, go back to
		 * the system at once. By itself malloc would keep the largest that each thread ever had. */
		mallopt(M_MMAP_THRESHOLD, LARGE_BUFFER_BYTES);
		log_setup_from(&app.conf);
		metric_set(METRIC_BUILD_INFO, 1);
		if (app_open(&app, &err)) {
			fprintf(stderr, "cairnd: %s\n", err.text);
			code = EXIT_TROUBLE;
		} else {
			app_run(&app);
			log_info("ended");
		}
		app_close(&app);
	}
	settings_free(settings);
	return (int)code;
}
