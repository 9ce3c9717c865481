/* The least function there can be, to measure what stands before it: shop.Cart (tests/unit/proxy/spec_test.proto) as
 * an event sourced entity, and called directly beside it. GetCart answers a fixed list, AddItem keeps one event.
 *
 *	bench_function PORT */
#include <config.h>

#include <signal.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/grpc.h"
#include "proxy/wire.h"

#define EVENT_BYTES 256
#define ARENA_BYTES (64 * KIB)
#define ITEMS_URL "type.googleapis.com/shop.Items"

extern const unsigned char spec_test_set[];
extern const size_t spec_test_set_bytes;

static const struct span items = {(const uint8_t *)"\x0a\x06" "apples" "\x0a\x05" "pears", 15};
static uint8_t event_bytes[EVENT_BYTES];

static void reply_with(struct grpc_call *call, const ProtobufCMessage *message)
{
	grpc_call_reply_pb(call, message);
}

static void discover(struct grpc_call *call, struct span request, void *arg)
{
	Cloudstate__EntitySpec spec = CLOUDSTATE__ENTITY_SPEC__INIT;
	Cloudstate__ServiceInfo info = CLOUDSTATE__SERVICE_INFO__INIT;
	Cloudstate__Entity cart = CLOUDSTATE__ENTITY__INIT, *entities[] = {&cart};
	(void)request;
	(void)arg;
	cart.service_name = wire_bytes(SPAN("shop.Cart"));
	cart.persistence_id = wire_bytes(SPAN("cart"));
	cart.entity_type = wire_bytes(SPAN("cloudstate.eventsourced.EventSourced"));
	info.protocol_minor_version = 2;
	spec.service_info = &info;
	spec.entities = entities;
	spec.n_entities = 1;
	spec.proto = wire_bytes(span_of(spec_test_set, spec_test_set_bytes));
	reply_with(call, &spec.base);
}

static void report_error(struct grpc_call *call, struct span request, void *arg)
{
	(void)arg;
	fprintf(stderr, "reported: %.*s\n", SPAN_ARG(request));
	grpc_call_reply(call, SPAN(""));
}

static void get_cart(struct grpc_call *call, struct span request, void *arg)
{
	(void)request;
	(void)arg;
	grpc_call_reply(call, items);
}

static void answer(struct grpc_call *call, const Cloudstate__Command *command)
{
	Cloudstate__Eventsourced__EventSourcedStreamOut out = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_OUT__INIT;
	Cloudstate__Eventsourced__EventSourcedReply reply = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_REPLY__INIT;
	Cloudstate__ClientAction action = CLOUDSTATE__CLIENT_ACTION__INIT;
	Cloudstate__Reply answer_reply = CLOUDSTATE__REPLY__INIT;
	Google__Protobuf__Any payload, event, *events[] = {&event};
	bool adds = span_eq(wire_span(command->name), SPAN("AddItem"));
	wire_any_set(&payload, (struct any){adds ? SPAN("type.googleapis.com/google.protobuf.Empty") : SPAN(ITEMS_URL),
					    adds ? SPAN("") : items});
	wire_any_set(&event, (struct any){SPAN("type.googleapis.com/shop.Added"),
					  span_of(event_bytes, sizeof event_bytes)});
	answer_reply.payload = &payload;
	action.action_case = CLOUDSTATE__CLIENT_ACTION__ACTION_REPLY;
	action.reply = &answer_reply;
	reply.command_id = command->id;
	reply.client_action = &action;
	reply.events = events;
	reply.n_events = adds;
	out.message_case = CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_OUT__MESSAGE_REPLY;
	out.reply = &reply;
	grpc_call_send_pb(call, &out.base);
}

static void on_message(struct grpc_call *call, struct span message, void *user)
{
	struct arena a;
	(void)user;
	arena_init(&a, ARENA_BYTES);
	Cloudstate__Eventsourced__EventSourcedStreamIn *in = (void *)grpc_unpack(
		&cloudstate__eventsourced__event_sourced_stream_in__descriptor, &a, message);
	must(in);
	if (in->message_case == CLOUDSTATE__EVENTSOURCED__EVENT_SOURCED_STREAM_IN__MESSAGE_COMMAND)
		answer(call, in->command);
	arena_release(&a);
}

static void on_half_close(struct grpc_call *call, void *user)
{
	(void)user;
	grpc_call_finish(call, GRPC_OK, SPAN(""), NULL);
}

static void on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	(void)call;
	(void)result;
	(void)user;
}

static const struct grpc_call_ops entity_ops = {
	.on_message = on_message, .on_half_close = on_half_close, .on_done = on_done};

static void handle(struct grpc_call *call, void *arg)
{
	grpc_call_bind(call, &entity_ops, arg);
}

static const struct grpc_method methods[] = {
	{.path = "/cloudstate.EntityDiscovery/discover", .unary = discover},
	{.path = "/cloudstate.EntityDiscovery/reportError", .unary = report_error},
	{.path = "/cloudstate.eventsourced.EventSourced/handle", .open = handle},
	{.path = "/shop.Cart/GetCart", .unary = get_cart},
};

static void on_term(int signo, void *arg)
{
	(void)signo;
	loop_stop(arg);
}

int main(int argc, char **argv)
{
	struct err err = {0};
	char listen[32];
	if (argc != 2)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	memset(event_bytes, 'e', sizeof event_bytes);
	snprintf(listen, sizeof listen, "127.0.0.1:%s", argv[1]);
	struct loop *loop = loop_new();
	struct grpc_server *server = grpc_server_new(&(struct grpc_server_config){.listen = listen}, &loop, 1);
	grpc_server_add(server, methods, ARRAY_LEN(methods));
	if (grpc_server_listen(server, &err)) {
		fprintf(stderr, "bench_function: %s\n", err.text);
		return 1;
	}
	loop_on_signal(loop, SIGTERM, on_term, loop);
	loop_run(loop);
	grpc_server_free(server);
	loop_free(loop);
	return 0;
}
