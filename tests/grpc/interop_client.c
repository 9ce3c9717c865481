/* gRPC's interop cases from our client: grpc_interop_client PORT CASE; exit 0 when the case holds, else 1
 * with the reason. What each case means is gRPC's doc/interop-test-descriptions. */
#include <config.h>

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/grpc.h"
#include "tests/grpc/interop.pb-c.h"

#define SERVICE "/grpc.testing.TestService/"
#define PATIENCE_MS 30000

static const size_t request_sizes[] = {27182, 8, 1828, 45904};
static const size_t response_sizes[] = {31415, 9, 2653, 58979};

struct client {
	struct loop *loop;
	struct grpc_channel *channel;
	const char *name; /* the case */
};

/* What a call got. */
struct got {
	struct client *client;
	struct buf last;
	unsigned messages, done;
	size_t sizes[8];
	bool headers;
	enum grpc_code code;
	char message[256], initial[64];
	uint8_t trailing[64];
	size_t trailing_n;
};

static _Noreturn void fail(const struct client *c, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
static void fail(const struct client *c, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	fprintf(stderr, "%s: ", c->name);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	exit(1);
}

static void expect(const struct got *got, enum grpc_code code)
{
	if (got->code != code)
		fail(got->client, "ended with %s (%s), expected is %s", grpc_code_name(got->code),
		     got->message, grpc_code_name(code));
}

static void tick(void *arg)
{
	(void)arg;
}

static void wait_for(struct got *got, const unsigned *count, unsigned n)
{
	int64_t end = clock_mono(&clock_system).us + PATIENCE_MS * 1000;
	struct loop_timer *timer = loop_timer_new(got->client->loop, tick, NULL);
	while (*count < n && !got->done) {
		loop_timer_set(timer, 100);
		loop_run_once(got->client->loop, true);
		if (clock_mono(&clock_system).us > end)
			fail(got->client, "nothing more came within 30 s");
	}
	loop_timer_free(timer);
}

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
	got->headers = true;
	copy_text(got->initial, sizeof(got->initial), headers_get(metadata, "x-grpc-test-echo-initial"));
}

static void got_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct got *got = user;
	(void)call;
	buf_clear(&got->last);
	must(buf_append_span(&got->last, message) == ERR_OK);
	Grpc__Testing__StreamingOutputCallResponse *response =
		grpc__testing__streaming_output_call_response__unpack(NULL, message.n, message.p);
	/* Not of StreamingInputCall, whose case reads `last`. */
	if (response && got->messages < ARRAY_LEN(got->sizes))
		got->sizes[got->messages] = response->payload ? response->payload->body.len : 0;
	got->messages++;
	if (response)
		grpc__testing__streaming_output_call_response__free_unpacked(response, NULL);
}

static void got_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct got *got = user;
	(void)call;
	got->done++;
	got->code = result->code;
	copy_text(got->message, sizeof(got->message), result->message);
	struct span trailing = headers_get(&result->trailers, "x-grpc-test-echo-trailing-bin");
	got->trailing_n = trailing.n < sizeof(got->trailing) ? trailing.n : sizeof(got->trailing);
	if (trailing.n)
		memcpy(got->trailing, trailing.p, got->trailing_n);
}

static const struct grpc_call_ops got_ops = {
	.on_headers = got_on_headers, .on_message = got_on_message, .on_done = got_on_done};

static struct grpc_call *start(struct client *c, struct got *got, const char *path,
			       const struct headers *metadata, int64_t deadline_ms)
{
	*got = (struct got){.client = c};
	buf_init(&got->last, 64 * MIB);
	return grpc_channel_call(c->channel, path, metadata, deadline_ms, true, &got_ops, got);
}

static void finish(struct got *got, enum grpc_code code)
{
	wait_for(got, &got->done, 1);
	expect(got, code);
	buf_release(&got->last);
}

static void send_simple(struct grpc_call *call, size_t request_bytes, size_t response_bytes, int code,
			const char *text)
{
	Grpc__Testing__SimpleRequest request = GRPC__TESTING__SIMPLE_REQUEST__INIT;
	Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
	Grpc__Testing__EchoStatus status;
	grpc__testing__echo_status__init(&status);
	payload.body = (ProtobufCBinaryData){request_bytes, mem_xalloc(request_bytes + 1)};
	request.payload = &payload;
	request.response_size = (int32_t)response_bytes;
	status.code = code;
	status.message = (char *)(uintptr_t)text;
	if (code)
		request.response_status = &status;
	grpc_call_send_pb(call, &request.base);
	grpc_call_half_close(call);
	mem_free(payload.body.data);
}

static void send_output(struct grpc_call *call, size_t request_bytes, const size_t *responses, size_t n,
			int code, const char *text)
{
	Grpc__Testing__StreamingOutputCallRequest request =
		GRPC__TESTING__STREAMING_OUTPUT_CALL_REQUEST__INIT;
	Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
	Grpc__Testing__EchoStatus status;
	grpc__testing__echo_status__init(&status);
	Grpc__Testing__ResponseParameters items[8], *pointers[8];
	must(n <= ARRAY_LEN(items));
	for (size_t i = 0; i < n; i++) {
		grpc__testing__response_parameters__init(&items[i]);
		items[i].size = (int32_t)responses[i];
		pointers[i] = &items[i];
	}
	request.n_response_parameters = n;
	request.response_parameters = pointers;
	payload.body = (ProtobufCBinaryData){request_bytes, mem_xalloc(request_bytes + 1)};
	request.payload = &payload;
	status.code = code;
	status.message = (char *)(uintptr_t)text;
	if (code)
		request.response_status = &status;
	grpc_call_send_pb(call, &request.base);
	mem_free(payload.body.data);
}

static void check_sizes(const struct got *got, size_t n)
{
	if (got->messages != n)
		fail(got->client, "%u answers, expected are %zu", got->messages, n);
	for (size_t i = 0; i < n; i++)
		if (got->sizes[i] != response_sizes[i])
			fail(got->client, "answer %zu has %zu bytes, expected are %zu", i, got->sizes[i],
			     response_sizes[i]);
}

/* ---- the cases ----------------------------------------------------------------------------------------- */

static void case_empty_unary(struct client *c)
{
	struct got got;
	struct grpc_call *call = start(c, &got, SERVICE "EmptyCall", NULL, -1);
	grpc_call_send(call, SPAN(""));
	grpc_call_half_close(call);
	finish(&got, GRPC_OK);
	if (got.messages != 1)
		fail(c, "%u answers", got.messages);
}

static void large_unary(struct client *c, const struct headers *metadata, struct got *got)
{
	struct grpc_call *call = start(c, got, SERVICE "UnaryCall", metadata, -1);
	send_simple(call, 271828, 314159, 0, NULL);
	finish(got, GRPC_OK);
	if (got->messages != 1 || got->sizes[0] != 314159)
		fail(c, "%u answers, the first of %zu bytes", got->messages, got->sizes[0]);
}

static void case_large_unary(struct client *c)
{
	struct got got;
	large_unary(c, NULL, &got);
}

static void case_client_streaming(struct client *c)
{
	struct got got;
	struct grpc_call *call = start(c, &got, SERVICE "StreamingInputCall", NULL, -1);
	for (size_t i = 0; i < ARRAY_LEN(request_sizes); i++) {
		Grpc__Testing__StreamingInputCallRequest request =
			GRPC__TESTING__STREAMING_INPUT_CALL_REQUEST__INIT;
		Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
		payload.body = (ProtobufCBinaryData){request_sizes[i], mem_xalloc(request_sizes[i])};
		request.payload = &payload;
		grpc_call_send_pb(call, &request.base);
		mem_free(payload.body.data);
	}
	grpc_call_half_close(call);
	/* The sum, 74922, as field 1: read before finish() drops the bytes. */
	wait_for(&got, &got.done, 1);
	Grpc__Testing__StreamingInputCallResponse *response =
		grpc__testing__streaming_input_call_response__unpack(NULL, got.last.n, got.last.p);
	if (!response || response->aggregated_payload_size != 74922)
		fail(c, "the sum is %d", response ? response->aggregated_payload_size : -1);
	grpc__testing__streaming_input_call_response__free_unpacked(response, NULL);
	finish(&got, GRPC_OK);
}

static void case_server_streaming(struct client *c)
{
	struct got got;
	struct grpc_call *call = start(c, &got, SERVICE "StreamingOutputCall", NULL, -1);
	send_output(call, 0, response_sizes, ARRAY_LEN(response_sizes), 0, NULL);
	grpc_call_half_close(call);
	finish(&got, GRPC_OK);
	check_sizes(&got, ARRAY_LEN(response_sizes));
}

static void case_ping_pong(struct client *c)
{
	struct got got;
	struct grpc_call *call = start(c, &got, SERVICE "FullDuplexCall", NULL, -1);
	for (unsigned i = 0; i < ARRAY_LEN(request_sizes); i++) {
		send_output(call, request_sizes[i], &response_sizes[i], 1, 0, NULL);
		wait_for(&got, &got.messages, i + 1);
	}
	grpc_call_half_close(call);
	finish(&got, GRPC_OK);
	check_sizes(&got, ARRAY_LEN(response_sizes));
}

static void case_empty_stream(struct client *c)
{
	struct got got;
	grpc_call_half_close(start(c, &got, SERVICE "FullDuplexCall", NULL, -1));
	finish(&got, GRPC_OK);
	check_sizes(&got, 0);
}

static void case_timeout_on_sleeping_server(struct client *c)
{
	struct got got;
	case_empty_unary(c); /* connected: the time is the call's own */
	struct grpc_call *call = start(c, &got, SERVICE "FullDuplexCall", NULL, 1);
	send_output(call, 27182, NULL, 0, 0, NULL);
	finish(&got, GRPC_DEADLINE_EXCEEDED);
}

static void case_cancel_after_begin(struct client *c)
{
	struct got got;
	grpc_call_cancel(start(c, &got, SERVICE "StreamingInputCall", NULL, -1));
	finish(&got, GRPC_CANCELLED);
}

static void case_cancel_after_first_response(struct client *c)
{
	struct got got;
	struct grpc_call *call = start(c, &got, SERVICE "FullDuplexCall", NULL, -1);
	send_output(call, 27182, response_sizes, 1, 0, NULL);
	wait_for(&got, &got.messages, 1);
	grpc_call_cancel(call);
	finish(&got, GRPC_CANCELLED);
	check_sizes(&got, 1);
}

static void expect_status(struct client *c, const char *text)
{
	struct got got;
	struct grpc_call *call = start(c, &got, SERVICE "UnaryCall", NULL, -1);
	send_simple(call, 0, 0, 2, text);
	finish(&got, GRPC_UNKNOWN);
	if (strcmp(got.message, text) != 0)
		fail(c, "unary: the message is '%s'", got.message);
	call = start(c, &got, SERVICE "FullDuplexCall", NULL, -1);
	send_output(call, 0, NULL, 0, 2, text);
	grpc_call_half_close(call);
	finish(&got, GRPC_UNKNOWN);
	if (strcmp(got.message, text) != 0)
		fail(c, "stream: the message is '%s'", got.message);
}

static void case_status_code_and_message(struct client *c)
{
	expect_status(c, "test status message");
}

static void case_special_status_message(struct client *c)
{
	expect_status(
		c,
		"\t\ntest with whitespace\r\nand Unicode BMP \xe2\x98\xba and non-BMP \xf0\x9f\x98\x88\t\n");
}

static void expect_echoed(struct client *c, const struct got *got)
{
	if (strcmp(got->initial, "test_initial_metadata_value") != 0)
		fail(c, "initial metadata is '%s'", got->initial);
	if (got->trailing_n != 3 || memcmp(got->trailing, "\xab\xab\xab", 3) != 0)
		fail(c, "trailing metadata has %zu bytes", got->trailing_n);
}

static void case_custom_metadata(struct client *c)
{
	struct header items[] = {{SPAN("x-grpc-test-echo-initial"), SPAN("test_initial_metadata_value")},
				 {SPAN("x-grpc-test-echo-trailing-bin"), SPAN("\xab\xab\xab")}};
	struct headers metadata = {items, 2};
	struct got got;
	large_unary(c, &metadata, &got);
	expect_echoed(c, &got);
	struct grpc_call *call = start(c, &got, SERVICE "FullDuplexCall", &metadata, -1);
	send_output(call, 271828, response_sizes, 1, 0, NULL);
	grpc_call_half_close(call);
	finish(&got, GRPC_OK);
	expect_echoed(c, &got);
}

static void expect_unimplemented(struct client *c, const char *path)
{
	struct got got;
	struct grpc_call *call = start(c, &got, path, NULL, -1);
	grpc_call_send(call, SPAN(""));
	grpc_call_half_close(call);
	finish(&got, GRPC_UNIMPLEMENTED);
}

static void case_unimplemented_method(struct client *c)
{
	expect_unimplemented(c, SERVICE "UnimplementedCall");
}

static void case_unimplemented_service(struct client *c)
{
	expect_unimplemented(c, "/grpc.testing.UnimplementedService/UnimplementedCall");
}

static const struct {
	const char *name;
	void (*run)(struct client *c);
} cases[] = {
	{"empty_unary", case_empty_unary},
	{"large_unary", case_large_unary},
	{"client_streaming", case_client_streaming},
	{"server_streaming", case_server_streaming},
	{"ping_pong", case_ping_pong},
	{"empty_stream", case_empty_stream},
	{"timeout_on_sleeping_server", case_timeout_on_sleeping_server},
	{"cancel_after_begin", case_cancel_after_begin},
	{"cancel_after_first_response", case_cancel_after_first_response},
	{"status_code_and_message", case_status_code_and_message},
	{"special_status_message", case_special_status_message},
	{"custom_metadata", case_custom_metadata},
	{"unimplemented_method", case_unimplemented_method},
	{"unimplemented_service", case_unimplemented_service},
};

int main(int argc, char **argv)
{
	struct client c = {0};
	char target[64];
	if (argc != 3) {
		fprintf(stderr, "usage: grpc_interop_client PORT CASE\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	snprintf(target, sizeof(target), "127.0.0.1:%s", argv[1]);
	c.loop = loop_new();
	c.name = argv[2];
	struct grpc_channel_config config = {.target = target};
	c.channel = grpc_channel_new(c.loop, &config, NULL, NULL);
	size_t i = 0;
	while (i < ARRAY_LEN(cases) && strcmp(cases[i].name, c.name) != 0)
		i++;
	if (i == ARRAY_LEN(cases))
		fail(&c, "there is no such case");
	cases[i].run(&c);
	grpc_channel_free(c.channel);
	loop_free(c.loop);
	printf("ok %s\n", c.name);
	return 0;
}
