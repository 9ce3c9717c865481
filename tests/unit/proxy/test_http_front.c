/* Server streaming over HTTP (contract, section 2): what a client of HTTP/1.1 reads, byte for byte. The router is the
 * test's own: it keeps the command it is given, and the test answers it. */
#include <config.h>

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "proxy/entity.h"
#include "proxy/http_front.h"
#include "spec_rig.h"

/* --- the fake kind and router ---------------------------------------------------------------------------- */

static const struct entity_ops streams = {
	.type = "cloudstate.eventsourced.EventSourced", .name = "streams", .stateful = true, .streamed_out = true};
const struct entity_ops *const entity_kinds[] = {&streams};
const size_t entity_kind_count = 1;

const struct entity_ops *entity_kind_find(struct span type)
{
	return span_eq_str(type, streams.type) ? &streams : NULL;
}

const struct entity_ops *entity_kind_of_record(const struct record_view *record, struct span *ret_mark)
{
	(void)record;
	(void)ret_mark;
	return &streams;
}

static struct {
	struct loop *loop;
	struct grpc_server *server;
	struct http_front *front;
	struct spec *spec;
	int fd;
	struct buf got;
	bool eof;

	const struct reply_sink *sink; /* of the command under way, or NULL */
	void *arg;
	unsigned commands, cancelled, held, let_go;
} t;

struct spec *router_spec(const struct router *router)
{
	(void)router;
	return t.spec;
}

struct command *router_call(struct router *router, const struct spec_method *method, struct span payload,
			    const struct metadata *metadata, const struct reply_sink *sink, void *arg)
{
	(void)router;
	(void)metadata;
	cr_assert(method->pb->server_streaming);
	cr_assert(span_eq(payload, SPAN("\x0a\3ada")));
	t.commands++;
	t.sink = sink;
	t.arg = arg;
	return (struct command *)(void *)&t;
}

void command_cancel(struct command *command)
{
	cr_assert_eq((void *)command, (void *)&t);
	t.sink = NULL;
	t.cancelled++;
}

void command_hold(struct command *command, bool hold)
{
	cr_assert_eq((void *)command, (void *)&t);
	if (hold)
		t.held++;
	else
		t.let_go++;
}

/* --- one client ------------------------------------------------------------------------------------------ */

static void tick(void *arg)
{
	(void)arg;
}

static void turn(void)
{
	char bytes[65536];
	ssize_t n;
	struct loop_timer *timer = loop_timer_new(t.loop, tick, NULL);
	loop_timer_set(timer, 5);
	loop_run_once(t.loop, true);
	loop_timer_free(timer);
	while ((n = recv(t.fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
		must(buf_append(&t.got, bytes, (size_t)n) == ERR_OK);
	t.eof = t.eof || n == 0 || (n < 0 && errno == ECONNRESET);
}

#define UNTIL(cond)                                                                                  \
	do {                                                                                         \
		struct mono_time begun = clock_mono(&clock_system);                                  \
		while (!(cond) && mono_since_us(clock_mono(&clock_system), begun) < 10 * 1000 * 1000) \
			turn();                                                                      \
		cr_assert(cond, "not within 10 s: %s; got: %s", #cond, buf_cstr(&t.got));            \
	} while (0)

static void ask(const char *method, const char *headers)
{
	char text[1024];
	int n = snprintf(text, sizeof text,
			 "POST /shop.Streams/%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
			 "Content-Length: 14\r\n%s\r\n{\"user\":\"ada\"}",
			 method, headers);
	must(n > 0 && (size_t)n < sizeof text);
	must(send(t.fd, text, (size_t)n, MSG_NOSIGNAL) == n);
	unsigned before = t.commands;
	UNTIL(t.commands == before + 1);
}

static void start(void)
{
	struct err err = {0};
	struct spec_rig rig = {.entities = {{.service = "shop.Streams", .persistence_id = "s"}}, .minor = 2};
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	cr_assert_eq(spec_rig_build(&rig, &t.spec, &err), ERR_OK, "%s", err.text);
	buf_init(&t.got, 64 * MIB);
	t.loop = loop_new();
	t.server = grpc_server_new(&(struct grpc_server_config){.listen = "127.0.0.1:0"}, &t.loop, 1);
	t.front = http_front_new(NULL, 40);
	grpc_server_set_http(t.server, http_front_handle, t.front);
	cr_assert_eq(grpc_server_listen(t.server, &err), ERR_OK, "%s", err.text);
	addr.sin_port = htons((uint16_t)grpc_server_port(t.server));
	t.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(connect(t.fd, (struct sockaddr *)&addr, sizeof addr) == 0);
}

static void stop(void)
{
	close(t.fd);
	grpc_server_free(t.server);
	http_front_free(t.front);
	loop_free(t.loop);
	spec_unref(t.spec);
	buf_release(&t.got);
	t.sink = NULL;
}

TestSuite(http_front, .init = start, .fini = stop, .timeout = 60);

static void reply(struct span value, const struct metadata *metadata)
{
	t.sink->on_reply(t.arg, &(struct any){.value = value}, metadata);
}

static void end(enum grpc_code code, const char *message, bool failure)
{
	const struct reply_sink *sink = t.sink;
	t.sink = NULL;
	sink->on_end(t.arg, &(struct outcome){.code = code, .message = span_str(message), .failure = failure});
}

static bool has(const char *text)
{
	return strstr(buf_cstr(&t.got), text) != NULL;
}

/* --- tests ----------------------------------------------------------------------------------------------- */

Test(http_front, each_message_is_a_line_sent_as_it_comes)
{
	static const struct metadata_entry entry = {SPAN("x-first"), SPAN("yes"), false};
	static const struct metadata_entry late = {SPAN("x-second"), SPAN("yes"), false};
	ask("Watch", "");
	turn();
	cr_assert_eq(t.got.n, 0, "headers before the first message: %s", buf_cstr(&t.got));
	reply(SPAN("\x0a\1a\x0a\1b"), &(struct metadata){&entry, 1});
	UNTIL(has("14\r\n{\"items\":[\"a\",\"b\"]}\n\r\n"));
	cr_assert(has("HTTP/1.1 200 OK\r\n"));
	cr_assert(has("content-type: application/json\r\n"));
	cr_assert(has("x-first: yes\r\n"));
	reply(SPAN(""), &(struct metadata){&late, 1});
	end(GRPC_OK, "", false);
	UNTIL(has("d\r\n{\"items\":[]}\n\r\n0\r\n\r\n"));
	cr_assert_not(has("x-second"));
	/* The connection goes on. */
	buf_clear(&t.got);
	ask("Watch", "Accept: application/x-ndjson\r\n");
	reply(SPAN(""), NULL);
	end(GRPC_OK, "", false);
	UNTIL(has("\r\n0\r\n\r\n"));
	cr_assert(has("content-type: application/x-ndjson\r\n"));
	cr_assert_eq(t.cancelled, 0);
}

Test(http_front, no_message_is_an_empty_answer)
{
	ask("Watch", "");
	end(GRPC_OK, "", false);
	UNTIL(has("\r\n\r\n0\r\n\r\n"));
	cr_assert(has("HTTP/1.1 200 OK\r\n"));
	cr_assert(has("content-type: application/json\r\n"));
}

Test(http_front, a_failure_before_the_first_message_is_an_ordinary_error)
{
	ask("Watch", "Accept: text/event-stream\r\n");
	end(GRPC_UNKNOWN, "no such thing", true);
	UNTIL(has("\r\n\r\nno such thing"));
	cr_assert(has("HTTP/1.1 500 "));
	cr_assert(has("content-type: text/plain; charset=UTF-8\r\n"));
	buf_clear(&t.got);
	ask("Watch", "");
	end(GRPC_UNAVAILABLE, "the function is away", false);
	UNTIL(has("\r\n\r\nthe function is away"));
	cr_assert(has("HTTP/1.1 503 "));
}

Test(http_front, a_later_failure_cuts_lines_off)
{
	ask("Watch", "");
	reply(SPAN(""), NULL);
	end(GRPC_UNKNOWN, "it broke", true);
	UNTIL(t.eof);
	cr_assert(has("{\"items\":[]}\n"));
	cr_assert_not(has("\r\n0\r\n\r\n"));
	cr_assert_not(has("it broke"));
}

Test(http_front, events_are_framed_and_a_failure_is_one)
{
	static const char *const accepts[] = {
		"Accept: text/event-stream\r\n", "Accept: text/html, TEXT/Event-Stream ; q=0.5\r\n",
		"Accept: text/html\r\nAccept: application/json;q=0.9 ,text/event-stream;q=1.0\r\n"};
	for (size_t i = 0; i < ARRAY_LEN(accepts); i++) {
		buf_clear(&t.got);
		ask("Watch", accepts[i]);
		reply(SPAN("\x0a\1a"), NULL);
		UNTIL(has("data: {\"items\":[\"a\"]}\n\n\r\n"));
		cr_assert(has("content-type: text/event-stream\r\n"));
		end(GRPC_UNKNOWN, "say \"no\"\n", true);
		UNTIL(has("event: error\ndata: {\"code\":2,\"message\":\"say \\\"no\\\"\\n\"}\n\n\r\n0\r\n\r\n"));
	}
	cr_assert_not(t.eof);
}

Test(http_front, silence_between_events_is_filled_with_comments)
{
	ask("Watch", "Accept: text/event-stream\r\n");
	for (int i = 0; i < 30; i++)
		turn();
	cr_assert_eq(t.got.n, 0, "headers before the first message: %s", buf_cstr(&t.got));
	reply(SPAN(""), NULL);
	UNTIL(has("data: {\"items\":[]}\n\n\r\n2\r\n:\n\r\n2\r\n:\n\r\n"));
	reply(SPAN(""), NULL);
	end(GRPC_OK, "", false);
	UNTIL(has("\r\n0\r\n\r\n"));
	buf_clear(&t.got);
	ask("Watch", "");
	reply(SPAN(""), NULL);
	for (int i = 0; i < 30; i++)
		turn();
	end(GRPC_OK, "", false);
	UNTIL(has("\r\n0\r\n\r\n"));
	cr_assert_not(has(":\n"));
}

Test(http_front, what_is_not_wanted_is_not_sent)
{
	static const char *const accepts[] = {"Accept: text/event-stream;q=0\r\n", "Accept: text/event-streams\r\n",
					      "Accept: */*\r\n", "Accept: text/event-stream;v=1;q=0.0, */*\r\n"};
	for (size_t i = 0; i < ARRAY_LEN(accepts); i++) {
		buf_clear(&t.got);
		ask("Watch", accepts[i]);
		reply(SPAN(""), NULL);
		end(GRPC_OK, "", false);
		UNTIL(has("\r\n0\r\n\r\n"));
		cr_assert(has("content-type: application/json\r\n"), "%s", accepts[i]);
	}
}

/* google.api.HttpBody: the first message's type, then the data of each. */
Test(http_front, raw_data_goes_through_as_it_is)
{
	ask("Raw", "Accept: text/event-stream\r\n");
	reply(SPAN("\x0a\x09text/html\x12\3<p>"), NULL);
	reply(SPAN("\x0a\x09image/png\x12\4</p>"), NULL);
	end(GRPC_OK, "", false);
	UNTIL(has("\r\n\r\n3\r\n<p>\r\n4\r\n</p>\r\n0\r\n\r\n"));
	cr_assert(has("content-type: text/html\r\n"));
	cr_assert_not(has("image/png"));
}

Test(http_front, a_message_that_cannot_be_said_ends_the_command)
{
	ask("Watch", "");
	reply(SPAN("\x0a\xff"), NULL);
	UNTIL(has("HTTP/1.1 500 "));
	cr_assert_eq(t.cancelled, 1);
	buf_clear(&t.got);
	ask("Watch", "Accept: text/event-stream\r\n");
	reply(SPAN(""), NULL);
	reply(SPAN("\x0a\xff"), NULL);
	UNTIL(has("event: error\ndata: {\"code\":13,"));
	cr_assert_eq(t.cancelled, 2);
}

Test(http_front, a_client_that_reads_slowly_holds_the_command)
{
	ask("Watch", "");
	uint8_t *message = mem_xalloc(64 * KIB);
	memset(message, 'x', 64 * KIB);
	memcpy(message, "\x0a\x80\x80\x02", 4); /* one item of 32 KiB */
	while (!t.held && t.got.n < 32 * MIB) {
		reply(span_of(message, 4 + 32 * KIB), NULL);
		loop_run_once(t.loop, false);
	}
	cr_assert_eq(t.held, 1);
	cr_assert_eq(t.let_go, 0);
	UNTIL(t.let_go == 1);
	end(GRPC_OK, "", false);
	UNTIL(has("\r\n0\r\n\r\n"));
	mem_free(message);
}

Test(http_front, a_client_that_leaves_ends_the_command)
{
	struct linger reset = {.l_onoff = 1};
	ask("Watch", "");
	reply(SPAN(""), NULL);
	UNTIL(has("{\"items\":[]}"));
	must(setsockopt(t.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
	must(shutdown(t.fd, SHUT_RD) == 0);
	close(t.fd);
	t.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	UNTIL(t.cancelled == 1);
}
