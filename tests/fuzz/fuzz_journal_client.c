/* Any bytes as what a journal answers to its client: the first byte picks what the client had asked. Each
 * request ends, once, and what is handed over are whole records. Over the loopback, with a server that knows
 * nothing but the bytes; server and client are kept from input to input. */
#include <config.h>

#include <stdio.h>

#include "base/must.h"
#include "grpc/grpc.h"
#include "journal/client.h"
#include "journal/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct target {
	struct loop *loop;
	struct grpc_server *server;
	struct client *client;
	struct span answer;
	size_t waiting;
} target;

static void unary(struct grpc_call *call, struct span request, void *arg)
{
	(void)request;
	(void)arg;
	grpc_call_reply(call, target.answer);
}

static void on_message(struct grpc_call *call, struct span message, void *user)
{
	(void)message;
	(void)user;
	grpc_call_send(call, target.answer);
}

static void on_half_close(struct grpc_call *call, void *user)
{
	(void)user;
	grpc_call_finish(call, GRPC_OK, SPAN(""), NULL);
}

static void on_call_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	(void)call;
	(void)result;
	(void)user;
}

static const struct grpc_call_ops server_ops = {
	.on_message = on_message, .on_half_close = on_half_close, .on_done = on_call_done};

static void open_call(struct grpc_call *call, void *arg)
{
	(void)arg;
	grpc_call_bind(call, &server_ops, NULL);
}

static void target_start(struct target *t)
{
	static const struct grpc_method methods[] = {
		{.path = JOURNAL_METHOD("AppendStream"), .open = open_call},
		{.path = JOURNAL_METHOD("Read"), .unary = unary},
		{.path = JOURNAL_METHOD("Load"), .unary = unary},
		{.path = JOURNAL_METHOD("Subscribe"), .unary = unary},
		{.path = JOURNAL_METHOD("Stat"), .unary = unary},
		{.path = JOURNAL_METHOD("ListStreams"), .unary = unary},
	};
	static char name[32];

	t->loop = loop_new();
	t->server = grpc_server_new(&(struct grpc_server_config){.listen = "127.0.0.1:0"}, &t->loop, 1);
	grpc_server_add(t->server, methods, ARRAY_LEN(methods));
	must(!grpc_server_listen(t->server, NULL));
	snprintf(name, sizeof(name), "127.0.0.1:%d", grpc_server_port(t->server));
	t->client = client_new(t->loop, &(struct client_config){.target = name});
}

static void ended(void)
{
	must(target.waiting > 0);
	target.waiting--;
}

static void on_appended(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	(void)arg;
	must(!answer == (error->code != GRPC_OK));
	ended();
}

static void on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	(void)r;
	(void)arg;
	must(record->header.n > 0 || record->content == RECORD_LEAF_HASH);
}

static void on_read_done(struct client_read *r, const struct client_error *error, void *arg)
{
	(void)r;
	(void)error;
	(void)arg;
	ended();
}

static void on_stat(const struct client_stat *answer, const struct client_error *error, void *arg)
{
	(void)arg;
	must(!answer == (error->code != GRPC_OK));
	ended();
}

static void on_list(const struct client_page_of_streams *answer, const struct client_error *error, void *arg)
{
	(void)arg;
	must(!answer == (error->code != GRPC_OK));
	ended();
}

static const struct client_read_ops read_ops = {.on_record = on_record, .on_done = on_read_done};

static void ask(struct client *c, unsigned what)
{
	static const struct client_query query;
	struct client_record event = {.type = SPAN("t")};
	struct client_stream stream = {.stream = SPAN("s"), .events = &event, .event_count = 1};

	switch (what) {
	case 0: client_read(c, &query, &read_ops, NULL); break;
	case 1: client_load(c, &(struct client_load){.stream = SPAN("s")}, &read_ops, NULL); break;
	case 2: client_subscribe(c, &query, &read_ops, NULL); break;
	case 3: client_stat(c, SPAN(""), 10000, on_stat, NULL); break;
	case 4: client_list_streams(c, SPAN(""), false, SPAN(""), 0, 10000, on_list, NULL); break;
	default:
		/* An answer that means nothing is repeated until the deadline, which is near. */
		client_append(c, &(struct client_append){.streams = &stream, .stream_count = 1}, 2,
			      on_appended, NULL);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!target.loop)
		target_start(&target);
	if (size == 0)
		return 0;
	target.answer = span_of(data + 1, size - 1);
	target.waiting = 1;
	ask(target.client, data[0] % 6);
	while (target.waiting)
		loop_run_once(target.loop, true);
	return 0;
}
