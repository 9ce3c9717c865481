#include <config.h>

#include "rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/must.h"

struct echo {
	struct rig *rig;
	struct buf bytes;
};

static void echo_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct echo *echo = user;
	(void)call;
	echo->rig->done++;
	echo->rig->last_done = *result;
	echo->rig->last_done.message = SPAN("");
	if (echo->rig->last == call)
		echo->rig->last = NULL;
	buf_release(&echo->bytes);
	mem_free(echo);
}

static void collect_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct echo *echo = user;
	(void)call;
	must(buf_append_span(&echo->bytes, message) == ERR_OK);
}

static void collect_on_half_close(struct grpc_call *call, void *user)
{
	struct echo *echo = user;
	grpc_call_reply(call, buf_span(&echo->bytes));
}

static void expand_on_message(struct grpc_call *call, struct span message, void *user)
{
	(void)user;
	for (size_t i = 0; i < message.n; i++)
		grpc_call_send(call, span_of(message.p + i, 1));
	grpc_call_finish(call, GRPC_OK, SPAN(""), NULL);
}

static void chat_on_message(struct grpc_call *call, struct span message, void *user)
{
	(void)user;
	grpc_call_send(call, message);
}

static void chat_on_half_close(struct grpc_call *call, void *user)
{
	struct header h = {SPAN("x-trailer"), SPAN("bye")};
	struct headers trailers = {&h, 1};
	(void)user;
	grpc_call_finish(call, GRPC_OK, SPAN(""), &trailers);
}

static const struct grpc_call_ops collect_ops = {
	.on_message = collect_on_message, .on_half_close = collect_on_half_close, .on_done = echo_on_done};
static const struct grpc_call_ops expand_ops = {.on_message = expand_on_message, .on_done = echo_on_done};
static const struct grpc_call_ops chat_ops = {
	.on_message = chat_on_message, .on_half_close = chat_on_half_close, .on_done = echo_on_done};
static const struct grpc_call_ops never_ops = {.on_done = echo_on_done};

static void echo_open(struct grpc_call *call, struct rig *rig, const struct grpc_call_ops *ops)
{
	struct echo *echo = mem_xalloc(sizeof(*echo));
	echo->rig = rig;
	buf_init(&echo->bytes, 64 * MIB);
	rig->opened++;
	rig->last = call;
	grpc_call_bind(call, ops, echo);
}

static void open_collect(struct grpc_call *call, void *arg)
{
	echo_open(call, arg, &collect_ops);
}

static void open_expand(struct grpc_call *call, void *arg)
{
	echo_open(call, arg, &expand_ops);
}

static void open_chat(struct grpc_call *call, void *arg)
{
	echo_open(call, arg, &chat_ops);
	struct header h = {SPAN("x-header"), headers_get(grpc_call_metadata(call), "x-ask")};
	struct headers headers = {&h, 1};
	if (h.value.n)
		grpc_call_send_headers(call, &headers);
}

static void open_never(struct grpc_call *call, void *arg)
{
	echo_open(call, arg, &never_ops);
}

static void unary_echo(struct grpc_call *call, struct span request, void *arg)
{
	(void)arg;
	grpc_call_reply(call, request);
}

static void unary_fail(struct grpc_call *call, struct span request, void *arg)
{
	(void)arg;
	grpc_call_finish(call, GRPC_FAILED_PRECONDITION, request, NULL);
}

static struct grpc_method methods[] = {
	{.path = "/test.Echo/Unary", .unary = unary_echo},
	{.path = "/test.Echo/Fail", .unary = unary_fail},
	{.path = "/test.Echo/Collect", .open = open_collect},
	{.path = "/test.Echo/Expand", .open = open_expand},
	{.path = "/test.Echo/Chat", .open = open_chat},
	{.path = "/test.Echo/Never", .open = open_never},
};

/* ---- the HTTP service ---------------------------------------------------------------------------- */

struct http_echo {
	struct rig *rig;
	struct buf body;
	bool streams;
};

static void http_on_body(struct http_exchange *x, struct span piece, void *user)
{
	struct http_echo *echo = user;
	if (echo->streams)
		http_write(x, piece);
	else
		must(buf_append_span(&echo->body, piece) == ERR_OK);
}

static void http_on_body_end(struct http_exchange *x, void *user)
{
	struct http_echo *echo = user;
	struct header h = {SPAN("content-type"), SPAN("text/x-echo")};
	struct headers headers = {&h, 1};
	if (echo->streams)
		http_end(x);
	else
		http_respond(x, 200, &headers, buf_span(&echo->body));
}

static void http_on_writable(struct http_exchange *x, void *user)
{
	struct http_echo *echo = user;
	(void)x;
	echo->rig->http_writable++;
}

static void http_on_done(struct http_exchange *x, void *user)
{
	struct http_echo *echo = user;
	(void)x;
	echo->rig->http_done++;
	buf_release(&echo->body);
	mem_free(echo);
}

static const struct http_exchange_ops http_ops = {.on_body = http_on_body,
						  .on_body_end = http_on_body_end,
						  .on_writable = http_on_writable,
						  .on_done = http_on_done};
static const struct http_exchange_ops http_silent_ops = {.on_writable = http_on_writable,
							 .on_done = http_on_done};

static void http_handle(struct http_exchange *x, const struct http_request *request, void *arg)
{
	struct rig *rig = arg;
	struct http_echo *echo = mem_xalloc(sizeof(*echo));
	bool echoes =
		span_starts(request->target, SPAN("/echo")) || span_starts(request->target, SPAN("/stream"));
	echo->rig = rig;
	echo->streams = span_starts(request->target, SPAN("/stream"));
	buf_init(&echo->body, 64 * MIB);
	http_exchange_bind(x, echoes ? &http_ops : &http_silent_ops, echo);
	if (echo->streams)
		http_start(x, 200, NULL);
	else if (span_eq(request->target, SPAN("/hello?a=b")))
		http_respond(x, 200, &request->headers, SPAN("hello"));
	else if (span_eq(request->target, SPAN("/never")))
		rig->held = http_exchange_ref(x);
	else if (span_eq(request->target, SPAN("/reset")))
		http_reset(x);
	else if (!echoes)
		http_respond(x, 404, NULL, SPAN("no such thing\n"));
}

int64_t rig_now_ms(void)
{
	return clock_mono(&clock_system).us / 1000;
}

static void rig_tick(void *arg)
{
	(void)arg;
}

/* One turn that waits for an event, but not for ever. */
void rig_turn(struct rig *rig)
{
	struct loop_timer *timer = loop_timer_new(rig->loop, rig_tick, NULL);
	loop_timer_set(timer, 10);
	loop_run_once(rig->loop, true);
	loop_timer_free(timer);
}

static void rig_on_settled(const struct grpc_result *result, struct span reply, void *arg)
{
	(void)reply;
	must(result->code == GRPC_OK);
	*(bool *)arg = true;
}

void rig_settle(struct rig *rig)
{
	for (int i = 0; i < 3; i++) {
		bool done = false;
		struct grpc_channel_config config = {.target = rig->target};
		struct grpc_channel *ch = grpc_channel_new(rig->loop, &config, NULL, NULL);
		grpc_channel_unary(ch, "/test.Echo/Unary", SPAN("x"), -1, false, rig_on_settled, &done);
		RIG_UNTIL(rig, done);
		grpc_channel_free(ch);
	}
}

static void rig_on_state(struct grpc_channel *ch, enum grpc_channel_state state, const struct err *why,
			 void *arg)
{
	struct rig *rig = arg;
	(void)ch;
	(void)why;
	if (rig->state_n < ARRAY_LEN(rig->states))
		rig->states[rig->state_n++] = state;
}

void rig_add_methods(struct rig *rig)
{
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		methods[i].arg = rig;
	grpc_server_add(rig->server, methods, ARRAY_LEN(methods));
	grpc_server_set_http(rig->server, http_handle, rig);
}

void rig_start_with(struct rig *rig, const struct grpc_server_config *config,
		    const struct grpc_channel_config *channel)
{
	*rig = (struct rig){.loop = loop_new()};
	struct grpc_server_config server = *config;
	if (!server.listen)
		server.listen = "127.0.0.1:0";
	rig->server = grpc_server_new(&server, &rig->loop, 1);
	rig_add_methods(rig);
	struct err err = {0};
	enum err_code rc = grpc_server_listen(rig->server, &err);
	must(rc == ERR_OK);
	snprintf(rig->target, sizeof(rig->target), "127.0.0.1:%d", grpc_server_port(rig->server));
	struct grpc_channel_config client = *channel;
	client.target = rig->target;
	rig->channel = grpc_channel_new(rig->loop, &client, rig_on_state, rig);
}

void rig_start(struct rig *rig)
{
	struct grpc_server_config server = {0};
	struct grpc_channel_config channel = {0};
	rig_start_with(rig, &server, &channel);
}

void rig_stop(struct rig *rig)
{
	grpc_channel_free(rig->channel);
	grpc_server_free(rig->server);
	loop_free(rig->loop);
}

/* ---- the client's side --------------------------------------------------------------------------- */

static void copy_text(char *to, size_t room, struct span s)
{
	size_t n = s.n < room ? s.n : room - 1;
	if (n)
		memcpy(to, s.p, n);
	to[n] = 0;
}

static void got_on_headers(struct grpc_call *call, const struct headers *metadata, void *user)
{
	struct got *got = user;
	(void)call;
	got->headers++;
	copy_text(got->header, sizeof(got->header), headers_get(metadata, "x-header"));
}

static void got_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct got *got = user;
	(void)call;
	got->messages++;
	must(buf_append_span(&got->bytes, message) == ERR_OK);
}

static void got_on_writable(struct grpc_call *call, void *user)
{
	struct got *got = user;
	(void)call;
	got->writable = true;
}

static void got_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct got *got = user;
	(void)call;
	got->done++;
	got->code = result->code;
	got->not_sent = result->not_sent;
	got->reset = result->reset;
	got->http2_error = result->http2_error;
	copy_text(got->text, sizeof(got->text), result->message);
	copy_text(got->trailer, sizeof(got->trailer), headers_get(&result->trailers, "x-trailer"));
}

const struct grpc_call_ops got_ops = {.on_headers = got_on_headers,
				      .on_message = got_on_message,
				      .on_writable = got_on_writable,
				      .on_done = got_on_done};

void got_init(struct got *got)
{
	*got = (struct got){0};
	buf_init(&got->bytes, 64 * MIB);
}

void got_release(struct got *got)
{
	buf_release(&got->bytes);
}

struct grpc_call *rig_call(struct rig *rig, const char *method, struct got *got)
{
	char path[64];
	snprintf(path, sizeof(path), "/test.Echo/%s", method);
	return grpc_channel_call(rig->channel, path, NULL, -1, false, &got_ops, got);
}

/* ---- raw clients --------------------------------------------------------------------------------- */

void raw_connect(struct raw *raw, struct rig *rig)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)grpc_server_port(rig->server))};
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	*raw = (struct raw){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	buf_init(&raw->got, 64 * MIB);
	must(connect(raw->fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
}

void raw_send(struct raw *raw, const void *p, size_t n)
{
	must(send(raw->fd, p, n, MSG_NOSIGNAL) == (ssize_t)n);
}

void raw_send_str(struct raw *raw, const char *text)
{
	raw_send(raw, text, strlen(text));
}

void raw_poll(struct raw *raw)
{
	char bytes[65536];
	ssize_t n;
	while ((n = recv(raw->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		must(buf_append(&raw->got, bytes, (size_t)n) == ERR_OK);
	if (n == 0 || errno == ECONNRESET)
		raw->eof = true;
}

bool raw_has(struct raw *raw, const char *text)
{
	return raw_count(raw, text) > 0;
}

unsigned raw_count(struct raw *raw, const char *text)
{
	unsigned count = 0;
	size_t n = strlen(text);
	for (size_t i = 0; i + n <= raw->got.n; i++)
		count += memcmp(raw->got.p + i, text, n) == 0;
	return count;
}

void raw_close(struct raw *raw)
{
	close(raw->fd);
	buf_release(&raw->got);
}
