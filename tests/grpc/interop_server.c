/* A server for clients that no one here wrote: gRPC's interop service, an echo of bytes
 * (/cairn.test.Echo/Unary), health, reflection, and over HTTP `GET /` and `POST /echo`.
 *
 *	grpc_interop_server [port [loops]]	prints "listening PORT"; SIGTERM drains it */
#include <config.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "grpc/grpc.h"
#include "pbdyn/pbdyn.h"
#include "tests/grpc/interop.pb-c.h"

#define LOOPS_MAX 8
#define REQUEST_BYTES (32 * MIB)

struct app {
	struct loop *loops[LOOPS_MAX];
	size_t loop_count;
	struct grpc_server *server;
	struct grpc_health *health;
	struct pb_pool *pool;
};

/* ---- the interop service ------------------------------------------------------------------------------- */

struct pending { /* one answer that is due */
	struct list_node node;
	size_t size_bytes;
	int64_t interval_ms;
};

enum interop_kind { COLLECT, OUTPUT, DUPLEX, HALF_DUPLEX };

struct interop {
	enum interop_kind kind;
	struct grpc_call *call;
	struct list answers;
	struct loop_timer *timer;
	bool waited; /* for the first answer's interval */
	bool half_closed;
	uint64_t sum;
	struct header trailer; /* to echo; p NULL: none */
};

static void *parse(const ProtobufCMessageDescriptor *type, struct arena *a, struct span bytes)
{
	return grpc_unpack(type, a, bytes);
}

/* Metadata that the test cases want back. */
static void echo_metadata(struct grpc_call *call, struct header *ret_trailer)
{
	const struct headers *metadata = grpc_call_metadata(call);
	struct header h = {SPAN("x-grpc-test-echo-initial"),
			   headers_get(metadata, "x-grpc-test-echo-initial")};
	struct headers headers = {&h, 1};
	if (h.value.p)
		grpc_call_send_headers(call, &headers);
	*ret_trailer = (struct header){SPAN("x-grpc-test-echo-trailing-bin"),
				       headers_get(metadata, "x-grpc-test-echo-trailing-bin")};
}

static void finish_ok(struct grpc_call *call, const struct header *trailer)
{
	struct headers trailers = {trailer, trailer->value.p ? 1 : 0};
	grpc_call_finish(call, GRPC_OK, SPAN(""), &trailers);
}

static void on_empty_call(struct grpc_call *call, struct span request, void *arg)
{
	(void)request;
	(void)arg;
	grpc_call_reply(call, SPAN(""));
}

static void on_unary_call(struct grpc_call *call, struct span bytes, void *arg)
{
	struct arena a;
	(void)arg;
	arena_init(&a, REQUEST_BYTES);
	const Grpc__Testing__SimpleRequest *request =
		parse(&grpc__testing__simple_request__descriptor, &a, bytes);
	struct header trailer;
	echo_metadata(call, &trailer);
	if (!request) {
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, SPAN("malformed request"), NULL);
	} else if (request->response_status && request->response_status->code) {
		grpc_call_finish(call, (enum grpc_code)request->response_status->code,
				 span_str(request->response_status->message), NULL);
	} else {
		static char server_id[] = "cairn";
		Grpc__Testing__SimpleResponse response;
		Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
		grpc__testing__simple_response__init(&response);
		if (request->fill_server_id)
			response.server_id = server_id;
		size_t n = request->response_size > 0 ? (size_t)request->response_size : 0;
		payload.body = (ProtobufCBinaryData){n, arena_zalloc(&a, n)};
		response.payload = &payload;
		grpc_call_send_pb(call, &response.base);
		finish_ok(call, &trailer);
	}
	arena_release(&a);
}

static void interop_send(struct interop *it, size_t n)
{
	Grpc__Testing__StreamingOutputCallResponse response =
		GRPC__TESTING__STREAMING_OUTPUT_CALL_RESPONSE__INIT;
	Grpc__Testing__Payload payload = GRPC__TESTING__PAYLOAD__INIT;
	payload.body = (ProtobufCBinaryData){n, mem_xalloc(n + 1)};
	response.payload = &payload;
	grpc_call_send_pb(it->call, &response.base);
	mem_free(payload.body.data);
}

static void interop_advance(struct interop *it)
{
	struct list_node *node;
	if (it->kind == HALF_DUPLEX && !it->half_closed)
		return;
	while ((node = list_first(&it->answers))) {
		struct pending *p = CONTAINER_OF(node, struct pending, node);
		if (!grpc_call_writable(it->call))
			return; /* on_writable goes on */
		if (p->interval_ms && !it->waited) {
			loop_timer_set(it->timer, p->interval_ms);
			return;
		}
		it->waited = false;
		list_remove(node);
		interop_send(it, p->size_bytes);
		mem_free(p);
	}
	if (it->half_closed)
		finish_ok(it->call, &it->trailer);
}

static void interop_on_timer(void *arg)
{
	struct interop *it = arg;
	it->waited = true;
	interop_advance(it);
}

static void interop_take_output(struct interop *it, struct span bytes)
{
	struct arena a;
	arena_init(&a, REQUEST_BYTES);
	const Grpc__Testing__StreamingOutputCallRequest *request =
		parse(&grpc__testing__streaming_output_call_request__descriptor, &a, bytes);
	if (!request) {
		grpc_call_finish(it->call, GRPC_INVALID_ARGUMENT, SPAN("malformed request"), NULL);
	} else if (request->response_status && request->response_status->code) {
		grpc_call_finish(it->call, (enum grpc_code)request->response_status->code,
				 span_str(request->response_status->message), NULL);
	} else {
		for (size_t i = 0; i < request->n_response_parameters; i++) {
			const Grpc__Testing__ResponseParameters *want = request->response_parameters[i];
			struct pending *p = mem_xalloc(sizeof(*p));
			p->size_bytes = want->size > 0 ? (size_t)want->size : 0;
			p->interval_ms = (want->interval_us + 999) / 1000;
			list_push_back(&it->answers, &p->node);
		}
	}
	arena_release(&a);
	interop_advance(it);
}

static void interop_on_message(struct grpc_call *call, struct span bytes, void *user)
{
	struct interop *it = user;
	struct arena a;
	if (it->kind != COLLECT) {
		interop_take_output(it, bytes);
		return;
	}
	arena_init(&a, REQUEST_BYTES);
	const Grpc__Testing__StreamingInputCallRequest *request =
		parse(&grpc__testing__streaming_input_call_request__descriptor, &a, bytes);
	if (!request)
		grpc_call_finish(call, GRPC_INVALID_ARGUMENT, SPAN("malformed request"), NULL);
	else if (request->payload)
		it->sum += request->payload->body.len;
	arena_release(&a);
}

static void interop_on_half_close(struct grpc_call *call, void *user)
{
	struct interop *it = user;
	it->half_closed = true;
	if (it->kind != COLLECT) {
		interop_advance(it);
		return;
	}
	Grpc__Testing__StreamingInputCallResponse response =
		GRPC__TESTING__STREAMING_INPUT_CALL_RESPONSE__INIT;
	response.aggregated_payload_size = (int32_t)it->sum;
	grpc_call_send_pb(call, &response.base);
	finish_ok(call, &it->trailer);
}

static void interop_on_writable(struct grpc_call *call, void *user)
{
	(void)call;
	interop_advance(user);
}

static void interop_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct interop *it = user;
	struct list_node *node;
	(void)call;
	(void)result;
	while ((node = list_pop_front(&it->answers)))
		mem_free(CONTAINER_OF(node, struct pending, node));
	loop_timer_free(it->timer);
	mem_free(it);
}

static const struct grpc_call_ops interop_ops = {.on_message = interop_on_message,
						 .on_half_close = interop_on_half_close,
						 .on_writable = interop_on_writable,
						 .on_done = interop_on_done};

static void interop_open(struct grpc_call *call, enum interop_kind kind)
{
	struct interop *it = mem_xalloc(sizeof(*it));
	it->kind = kind;
	it->call = call;
	it->timer = loop_timer_new(grpc_call_loop(call), interop_on_timer, it);
	list_init(&it->answers);
	grpc_call_bind(call, &interop_ops, it);
	echo_metadata(call, &it->trailer);
}

static void on_streaming_input(struct grpc_call *call, void *arg)
{
	(void)arg;
	interop_open(call, COLLECT);
}

static void on_streaming_output(struct grpc_call *call, void *arg)
{
	(void)arg;
	interop_open(call, OUTPUT);
}

static void on_full_duplex(struct grpc_call *call, void *arg)
{
	(void)arg;
	interop_open(call, DUPLEX);
}

static void on_half_duplex(struct grpc_call *call, void *arg)
{
	(void)arg;
	interop_open(call, HALF_DUPLEX);
}

static void on_echo(struct grpc_call *call, struct span request, void *arg)
{
	(void)arg;
	grpc_call_reply(call, request);
}

static const struct grpc_method methods[] = {
	{.path = "/grpc.testing.TestService/EmptyCall", .unary = on_empty_call},
	{.path = "/grpc.testing.TestService/UnaryCall", .unary = on_unary_call},
	{.path = "/grpc.testing.TestService/StreamingInputCall", .open = on_streaming_input},
	{.path = "/grpc.testing.TestService/StreamingOutputCall", .open = on_streaming_output},
	{.path = "/grpc.testing.TestService/FullDuplexCall", .open = on_full_duplex},
	{.path = "/grpc.testing.TestService/HalfDuplexCall", .open = on_half_duplex},
	{.path = "/cairn.test.Echo/Unary", .unary = on_echo},
};

/* ---- HTTP ---------------------------------------------------------------------------------------------- */

static void http_on_body(struct http_exchange *x, struct span piece, void *user)
{
	(void)user;
	if (!http_write(x, piece))
		http_hold_read(x, true);
}

static void http_on_writable(struct http_exchange *x, void *user)
{
	(void)user;
	http_hold_read(x, false);
}

static void http_on_body_end(struct http_exchange *x, void *user)
{
	(void)user;
	http_end(x);
}

static const struct http_exchange_ops http_ops = {
	.on_body = http_on_body, .on_body_end = http_on_body_end, .on_writable = http_on_writable};

/* Answers only once the request is whole. */
static void hello_on_body_end(struct http_exchange *x, void *user)
{
	struct header h = {SPAN("content-type"), SPAN("text/plain")};
	struct headers headers = {&h, 1};
	(void)user;
	http_respond(x, 200, &headers, SPAN("hello\n"));
}

static const struct http_exchange_ops hello_ops = {.on_body_end = hello_on_body_end};

static void on_http(struct http_exchange *x, const struct http_request *request, void *arg)
{
	struct header h = {SPAN("content-type"), SPAN("text/plain")};
	struct headers headers = {&h, 1};
	(void)arg;
	if (span_eq(request->target, SPAN("/echo"))) {
		http_exchange_bind(x, &http_ops, NULL);
		http_start(x, 200, &headers);
	} else if (span_eq(request->target, SPAN("/"))) {
		http_exchange_bind(x, &hello_ops, NULL);
	} else {
		http_respond(x, 404, &headers, SPAN("not found\n"));
	}
}

/* ---- reflection ---------------------------------------------------------------------------------------- */

extern const uint8_t interop_set[];
extern const size_t interop_set_bytes;

static void source_services(void *arg, void (*add)(void *to, struct span name), void *to)
{
	(void)arg;
	add(to, SPAN("grpc.testing.TestService"));
	add(to, SPAN("grpc.health.v1.Health"));
}

static void source_file(const struct pb_file *file, void (*add)(void *to, struct span name, struct span file),
			void *to)
{
	if (!file || file->placeholder)
		return;
	add(to, file->name, file->raw);
	for (size_t i = 0; i < file->dep_count; i++)
		source_file(file->deps[i], add, to);
}

static void source_by_name(void *arg, struct span name,
			   void (*add)(void *to, struct span name, struct span file), void *to)
{
	source_file(pb_find_file(((struct app *)arg)->pool, name), add, to);
}

static void source_by_symbol(void *arg, struct span symbol,
			     void (*add)(void *to, struct span name, struct span file), void *to)
{
	source_file(pb_find_symbol_file(((struct app *)arg)->pool, symbol), add, to);
}

static void source_by_extension(void *arg, struct span type, int32_t number,
				void (*add)(void *to, struct span name, struct span file), void *to)
{
	const struct pb_field *field = pb_find_extension(((struct app *)arg)->pool, type, (uint32_t)number);
	source_file(field ? field->file : NULL, add, to);
}

static bool source_numbers(void *arg, struct span type, void (*add)(void *to, int32_t number), void *to)
{
	struct app *app = arg;
	size_t n;
	const struct pb_field *const *fields = pb_find_extensions(app->pool, type, &n);
	for (size_t i = 0; i < n; i++)
		add(to, (int32_t)fields[i]->number);
	return n > 0;
}

/* ---- the program --------------------------------------------------------------------------------------- */

static void on_drained(void *arg)
{
	struct app *app = arg;
	loop_stop(app->loops[0]);
}

static void on_term(int signo, void *arg)
{
	struct app *app = arg;
	(void)signo;
	grpc_server_drain(app->server, 2000, on_drained, app);
}

static void serve(struct app *app, const char *listen)
{
	struct grpc_server_config config = {.listen = listen};
	struct err err = {0};
	app->server = grpc_server_new(&config, app->loops, app->loop_count);
	app->health = grpc_health_new(app->server);
	grpc_health_set(app->health, "grpc.testing.TestService", true);
	grpc_server_add(app->server, methods, ARRAY_LEN(methods));
	grpc_server_set_http(app->server, on_http, app);
	struct span sets[] = {span_of(interop_set, interop_set_bytes), grpc_own_descriptors()};
	struct grpc_reflection_source source = {.services = source_services,
						.file_by_name = source_by_name,
						.file_by_symbol = source_by_symbol,
						.file_by_extension = source_by_extension,
						.extension_numbers = source_numbers,
						.arg = app};
	if (pb_pool_new(sets, ARRAY_LEN(sets), &app->pool, &err) == ERR_OK)
		grpc_reflection_add(app->server, &source);
	if (err.code || grpc_server_listen(app->server, &err)) {
		fprintf(stderr, "grpc_interop_server: %s\n", err.text);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct app app = {0};
	uint64_t loops = 1;
	char listen[32];
	if (argc > 2 && (!parse_u64(span_str(argv[2]), &loops) || loops < 1 || loops > LOOPS_MAX))
		return 2;
	app.loop_count = (size_t)loops;
	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < app.loop_count; i++)
		app.loops[i] = loop_new();
	snprintf(listen, sizeof(listen), "127.0.0.1:%s", argc > 1 ? argv[1] : "0");
	serve(&app, listen);
	loop_on_signal(app.loops[0], SIGTERM, on_term, &app);
	printf("listening %d\n", grpc_server_port(app.server));
	fflush(stdout);
	for (size_t i = 1; i < app.loop_count; i++)
		loop_thread_start(app.loops[i], "worker");
	loop_run(app.loops[0]);
	for (size_t i = 1; i < app.loop_count; i++)
		loop_thread_join(app.loops[i]);
	grpc_server_free(app.server);
	grpc_health_free(app.health);
	pb_pool_unref(app.pool);
	for (size_t i = 0; i < app.loop_count; i++)
		loop_free(app.loops[i]);
	return 0;
}
