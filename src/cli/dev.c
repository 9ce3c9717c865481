/* cairn dev: journal, proxy and function together on one machine, with one command.
 *
 * cairnd starts first; when it listens, the function (with HOST and PORT in its environment) and the proxy
 * follow. What the proxy and cairnd have to say that matters (warnings and errors: a refused discovery,
 * what was reported to the function) is shown in words; the function's own output goes through. */
#include <config.h>

#include "cli/cli.h"

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/must.h"
#include "base/settings.h"
#include "cli/supervisor.h"

#define LAST_LINES 10
#define SERVICES_MAX 64
#define JOURNAL_PORT 7117

struct dev_conf {
	int64_t http_port;
	const char *data;
	bool verbose;
};

extern char **environ;

static const struct setting rows[] = {
	{"http", SETTING_INT, offsetof(struct dev_conf, http_port), .fallback = "9000", .min = 1,
	 .max = 65535, .value_name = "PORT", .help = "port of the function's own gRPC and HTTP API"},
	{"data", SETTING_STRING, offsetof(struct dev_conf, data), .fallback = "./cairn-data",
	 .value_name = "DIR",
	 .help = "folder of the journal; what is in it is there again at the next start"},
	{"verbose", SETTING_BOOL, offsetof(struct dev_conf, verbose),
	 .help = "show every log line of cairnd and cairn-proxy"},
};

/* What the proxy says of one service it serves. */
struct service {
	char *name, *curl, *grpcurl;
};

struct dev {
	struct dev_conf conf;
	struct supervisor *supervisor;
	size_t journal, function, proxy; /* children */
	int journal_port, function_port, management_port, metrics_port;
	bool journal_up, discovered, announced;
	char *last[LAST_LINES]; /* the function's, oldest first */
	size_t last_n;
	struct service services[SERVICES_MAX];
	size_t service_count;
	bool failed; /* a program could not be started */
};

/* --- ports --------------------------------------------------------------------------------------------- */

static int socket_on(int port, bool connect_it)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	int on = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	struct timeval patience = {.tv_usec = 200 * 1000};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	int r = connect_it ? connect(fd, (struct sockaddr *)&a, sizeof(a))
			   : bind(fd, (struct sockaddr *)&a, sizeof(a));
	if (r == 0)
		return fd;
	int why = errno;
	close(fd);
	errno = why;
	return -1;
}

/* A port that is free now; 0 if there is none. */
static int free_port(void)
{
	struct sockaddr_in a;
	socklen_t n = sizeof(a);
	int fd = socket_on(0, false);
	if (fd < 0)
		return 0;
	int port = getsockname(fd, (struct sockaddr *)&a, &n) ? 0 : ntohs(a.sin_port);
	close(fd);
	return port;
}

static bool port_answers(int port)
{
	int fd = socket_on(port, true);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* The journal's usual port, so that `cairn read` finds it without a flag, unless that is taken. */
static int choose_journal_port(void)
{
	int fd = port_answers(JOURNAL_PORT) ? -1 : socket_on(JOURNAL_PORT, false);
	if (fd < 0)
		return free_port();
	close(fd);
	return JOURNAL_PORT;
}

/* The proxy takes the port only once it has found the function: say now what would fail then. */
static enum err_code check_http_port(int port, struct err *err)
{
	int fd = socket_on(port, false);
	if (fd < 0)
		return err_set(err, ERR_INVALID, "port %d cannot be had (%s): choose another with --http PORT",
			       port, strerror(errno));
	close(fd);
	return ERR_OK;
}

/* Does GET /ready of the proxy's management port say 200? */
static bool proxy_is_ready(int port)
{
	static const char request[] = "GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
	char answer[16] = "";
	int fd = socket_on(port, true);
	if (fd < 0)
		return false;
	bool sent = write(fd, request, sizeof(request) - 1) == (ssize_t)(sizeof(request) - 1);
	ssize_t n = sent ? recv(fd, answer, sizeof(answer) - 1, MSG_WAITALL) : -1;
	close(fd);
	return n > 12 && strncmp(answer + 8, " 200", 4) == 0;
}

/* --- what the children say --------------------------------------------------------------------------------
 */

static void say(const char *who, const char *text)
{
	fprintf(stderr, "%-9s| %s\n", who, text);
}

static void keep_last(struct dev *dev, struct span line)
{
	if (dev->last_n == LAST_LINES) {
		mem_free(dev->last[0]);
		memmove(dev->last, dev->last + 1, (LAST_LINES - 1) * sizeof(dev->last[0]));
		dev->last_n--;
	}
	dev->last[dev->last_n++] = mem_xdup(line.p, line.n);
}

static char *json_text(json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));
	return mem_xstrdup(text ? text : "");
}

/* The proxy tells of each service it serves, with examples. A service told of again replaces itself. */
static void keep_service(struct dev *dev, json_t *line)
{
	char *name = json_text(line, "name");
	size_t i = 0;
	while (i < dev->service_count && strcmp(dev->services[i].name, name) != 0)
		i++;
	if (i == SERVICES_MAX) {
		mem_free(name);
		return;
	}
	if (i < dev->service_count) {
		mem_free(dev->services[i].name);
		mem_free(dev->services[i].curl);
		mem_free(dev->services[i].grpcurl);
	} else {
		dev->service_count++;
	}
	dev->services[i] = (struct service){name, json_text(line, "curl"), json_text(line, "grpcurl")};
}

/* "message: error (key=value, ...)" from a line of the log. */
static void say_in_words(const char *who, json_t *line)
{
	const char *key, *error = json_string_value(json_object_get(line, "error"));
	const char *msg = json_string_value(json_object_get(line, "msg"));
	const char *separator = " (";
	json_t *value;
	fprintf(stderr, "%-9s| %s", who, msg ? msg : "");
	if (error)
		fprintf(stderr, ": %s", error);
	json_object_foreach(line, key, value)
	{
		if (!strcmp(key, "time") || !strcmp(key, "level") || !strcmp(key, "msg") ||
		    !strcmp(key, "error"))
			continue;
		if (json_is_string(value))
			fprintf(stderr, "%s%s=%s", separator, key, json_string_value(value));
		else if (json_is_integer(value))
			fprintf(stderr, "%s%s=%" JSON_INTEGER_FORMAT, separator, key,
				json_integer_value(value));
		else
			continue;
		separator = ", ";
	}
	fprintf(stderr, "%s\n", strcmp(separator, ", ") == 0 ? ")" : "");
}

static void on_log_line(struct dev *dev, const char *who, struct span text)
{
	json_t *line = json_loadb((const char *)text.p, text.n, 0, NULL);
	const char *level = json_string_value(json_object_get(line, "level"));
	const char *msg = json_string_value(json_object_get(line, "msg"));
	if (!json_is_object(line) || !level || !msg) {
		fprintf(stderr, "%-9s| %.*s\n", who, SPAN_ARG(text));
	} else {
		if (!strcmp(msg, "service"))
			keep_service(dev, line);
		if (!strcmp(msg, "function discovered"))
			dev->discovered = true; /* its services have been told of, all of them */
		if (dev->conf.verbose || !strcmp(level, "warn") || !strcmp(level, "error"))
			say_in_words(who, line);
	}
	json_decref(line);
}

static void dev_on_line(size_t child, struct span line, void *arg)
{
	struct dev *dev = arg;
	if (child == dev->function) {
		keep_last(dev, line);
		fprintf(stderr, "function | %.*s\n", SPAN_ARG(line));
	} else {
		on_log_line(dev, child == dev->journal ? "journal" : "proxy", line);
	}
}

static void dev_on_exit(size_t child, int status, int64_t restart_in_ms, void *arg)
{
	struct dev *dev = arg;
	const char *who = child == dev->function ? "function" : child == dev->journal ? "journal" : "proxy";
	char how[128];
	if (WIFSIGNALED(status))
		snprintf(how, sizeof(how), "was killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(how, sizeof(how), "ended with exit status %d", WEXITSTATUS(status));
	fprintf(stderr, "%-9s| %s; starting it again in %.1f s\n", who, how, (double)restart_in_ms / 1000);
	if (child != dev->function || dev->last_n == 0)
		return;
	say(who, "its last lines were:");
	for (size_t i = 0; i < dev->last_n; i++) {
		fprintf(stderr, "%-9s|   %s\n", who, dev->last[i]);
		mem_free(dev->last[i]);
	}
	dev->last_n = 0;
}

/* --- getting up -------------------------------------------------------------------------------------------
 */

static void announce(const struct dev *dev)
{
	printf("\nThe function is served on http://127.0.0.1:%d (gRPC, gRPC reflection and HTTP/JSON).\n",
	       (int)dev->conf.http_port);
	for (size_t i = 0; i < dev->service_count; i++) {
		printf("\n  %s\n", dev->services[i].name);
		if (dev->services[i].curl[0])
			printf("    %s\n", dev->services[i].curl);
		if (dev->services[i].grpcurl[0])
			printf("    %s\n", dev->services[i].grpcurl);
	}
	printf("\nThe journal is on 127.0.0.1:%d, its data in %s. See what is in it:\n"
	       "    %s read --journal 127.0.0.1:%d\n\nCtrl-C stops it all.\n\n",
	       dev->journal_port, dev->conf.data, program_invocation_name, dev->journal_port);
	fflush(stdout);
}

static void start_or_fail(struct dev *dev, size_t child)
{
	struct err err = {0};
	if (!supervisor_start(dev->supervisor, child, &err))
		return;
	fprintf(stderr, "cairn dev: %s\n", err.text);
	dev->failed = true;
	supervisor_stop(dev->supervisor);
}

static void dev_on_tick(void *arg)
{
	struct dev *dev = arg;
	if (!dev->journal_up) {
		if (!port_answers(dev->journal_port))
			return;
		dev->journal_up = true;
		start_or_fail(dev, dev->function);
		if (!dev->failed)
			start_or_fail(dev, dev->proxy);
	} else if (dev->discovered && !dev->announced && proxy_is_ready(dev->management_port)) {
		dev->announced = true;
		announce(dev);
	}
}

/* The program beside this one, or else the one on PATH. */
static char *program_path(const char *name)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (n > 0) {
		self[n] = 0;
		char *slash = strrchr(self, '/');
		if (slash) {
			*slash = 0;
			char *path = mem_xprintf("%s/%s", self, name);
			if (access(path, X_OK) == 0)
				return path;
			mem_free(path);
		}
	}
	return mem_xstrdup(name);
}

static enum cli_exit dev_run(struct dev *dev, char *const function_argv[])
{
	static const struct supervisor_ops ops = {dev_on_line, dev_on_exit, dev_on_tick};
	char *cairnd = program_path("cairnd"), *cairn_proxy = program_path("cairn-proxy");
	char *listen = mem_xprintf("127.0.0.1:%d", dev->journal_port);
	char *storage = mem_xprintf("file:%s", dev->conf.data);
	char *port = mem_xprintf("PORT=%d", dev->function_port);
	char *http_port = mem_xprintf("HTTP_PORT=%d", (int)dev->conf.http_port);
	char *user_port = mem_xprintf("USER_FUNCTION_PORT=%d", dev->function_port);
	char *management = mem_xprintf("MANAGEMENT_PORT=%d", dev->management_port);
	char *metrics = mem_xprintf("METRICS_PORT=%d", dev->metrics_port);
	char *journal = mem_xprintf("CAIRN_JOURNAL=%s", listen);
	char listen_flag[] = "--listen", storage_flag[] = "--storage", format_flag[] = "--log-format",
	     json[] = "json", level_flag[] = "--log-level", info[] = "info";
	char *const cairnd_argv[] = {cairnd,  listen_flag, listen, storage_flag,
				     storage, format_flag, json,   NULL};
	char *const proxy_argv[] = {cairn_proxy, format_flag, json, level_flag, info, NULL};
	const char *const function_env[] = {"HOST=127.0.0.1", port, "PYTHONUNBUFFERED=1", NULL};
	const char *const proxy_env[] = {http_port,  user_port, "USER_FUNCTION_HOST=127.0.0.1",
					 management, metrics,   "METRICS_HOST=127.0.0.1",
					 journal,    "CAIRN_CORS_ORIGINS=*", NULL};
	dev->supervisor = supervisor_new(&ops, dev);
	dev->journal =
		supervisor_add(dev->supervisor, &(struct child_spec){"journal", cairnd_argv, NULL, 10000});
	dev->function = supervisor_add(dev->supervisor,
				       &(struct child_spec){"function", function_argv, function_env, 5000});
	dev->proxy =
		supervisor_add(dev->supervisor, &(struct child_spec){"proxy", proxy_argv, proxy_env, 10000});
	start_or_fail(dev, dev->journal);
	supervisor_run(dev->supervisor);
	supervisor_free(dev->supervisor);
	char *texts[] = {cairnd,    cairn_proxy, listen,     storage, port,
			 http_port, user_port,   management, metrics, journal};
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		mem_free(texts[i]);
	return dev->failed ? CLI_UNREACHABLE : CLI_OK;
}

static void dev_release(struct dev *dev)
{
	for (size_t i = 0; i < dev->last_n; i++)
		mem_free(dev->last[i]);
	for (size_t i = 0; i < dev->service_count; i++) {
		mem_free(dev->services[i].name);
		mem_free(dev->services[i].curl);
		mem_free(dev->services[i].grpcurl);
	}
}

static enum cli_exit dev_main(int argc, char *const argv[])
{
	struct dev dev = {0};
	struct settings *settings = NULL;
	struct err err = {0};
	bool exit_now = false;
	int rest = 0;
	if (settings_load("cairn dev", "Runs journal, proxy and function together: cairn dev -- COMMAND...",
			  rows, ARRAY_LEN(rows), argc, argv, environ, &dev.conf, &settings, &rest, &exit_now,
			  &err))
		return cli_fail(&cli_dev, &err);
	enum cli_exit code = CLI_OK;
	if (rest < argc && !strcmp(argv[rest], "--"))
		rest++;
	if (!exit_now && rest >= argc) {
		err_set(&err, ERR_INVALID,
			"the function's command is missing: cairn dev [OPTION...] -- COMMAND...");
		code = cli_fail(&cli_dev, &err);
	} else if (!exit_now && check_http_port((int)dev.conf.http_port, &err)) {
		code = cli_fail(&cli_dev, &err);
	} else if (!exit_now) {
		dev.journal_port = choose_journal_port();
		dev.function_port = free_port();
		dev.management_port = free_port();
		dev.metrics_port = free_port();
		code = dev_run(&dev, argv + rest);
	}
	dev_release(&dev);
	settings_free(settings);
	return code;
}

const struct cli_command cli_dev = {
	.name = "dev",
	.summary = "run journal, proxy and function together: cairn dev -- COMMAND...",
	.run = dev_main,
};
