/* What a CRDT's function is sent, and the flights of its commands. */
#include <config.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "proxy/crdt.h"

/* How long a function may take to answer a cancellation. */
#define CANCEL_MS 5000

/* --- flights ------------------------------------------------------------------------------------------------ */

static struct span id_key(const int64_t *id)
{
	return span_of(id, sizeof *id);
}

struct crdt_flight *crdt_flight_find(struct crdt *c, int64_t id)
{
	return map_get(&c->flights, id_key(&id));
}

void crdt_flight_drop(struct crdt *c, struct crdt_flight *f)
{
	map_remove(&c->flights, id_key(&f->id));
	list_remove(&f->node);
	c->left_count -= f->left;
	c->streaming_count -= f->phase == CRDT_OPEN || f->phase == CRDT_CANCELLING;
	if (c->flight == f)
		c->flight = NULL;
	if (f->wait)
		arena_release(&f->wait->arena);
	mem_free(f->wait);
	mem_free(f);
	c->idle_since = clock_mono(c->config.clock);
}

void crdt_flight_open(struct crdt *c, struct crdt_flight *f)
{
	f->phase = CRDT_OPEN;
	c->streaming_count++;
	list_remove(&f->node);
	list_push_back(&c->streams, &f->node);
}

void crdt_flight_end(struct crdt *c, struct crdt_flight *f, enum grpc_code code, struct span text, bool failure)
{
	struct entity_command *command = f->command;
	crdt_flight_drop(c, f);
	crdt_end(c, command, code, text, failure);
}

void crdt_flights_end(struct crdt *c, struct list *of, enum grpc_code code, struct span text, bool failure)
{
	struct list_node *n;
	while ((n = list_first(of)))
		crdt_flight_end(c, CONTAINER_OF(n, struct crdt_flight, node), code, text, failure);
}

/* Whose client has left: nobody hears how they end. */
void crdt_end_cancelled(struct crdt *c)
{
	crdt_flights_end(c, &c->cancelling, GRPC_CANCELLED, SPAN(""), false);
}

/* --- messages to the function ------------------------------------------------------------------------------- */

static void send(struct crdt *c, const crdt_in *message)
{
	struct buf out;
	must(c->open);
	buf_init(&out, SIZE_MAX / 2); /* what it holds has passed the limits of the journal or of a front */
	if (wire_pack(&message->base, &out))
		c->full = !c->config.host->send(c->config.host_arg, buf_span(&out));
	else
		log_error("out of memory for a message to the function", LOG_SPAN("stream", c->config.stream));
	buf_release(&out);
}

void crdt_send_init(struct crdt *c, const struct Cloudstate__Crdt__CrdtDelta *delta)
{
	crdt_in in = CLOUDSTATE__CRDT__CRDT_STREAM_IN__INIT;
	Cloudstate__Crdt__CrdtInit init = CLOUDSTATE__CRDT__CRDT_INIT__INIT;
	c->config.host->open(c->config.host_arg, "/cloudstate.crdt.Crdt/handle", -1);
	c->stream = c->open = true;
	c->next_id = 1;
	init.service_name = wire_bytes(c->config.service);
	init.entity_id = wire_bytes(c->config.entity_id);
	/* protobuf-c's type is not const; packing only reads. */
	init.delta = (Cloudstate__Crdt__CrdtDelta *)(uintptr_t)delta;
	in.message_case = CRDT_IN(INIT);
	in.init = &init;
	send(c, &in);
}

void crdt_send_delta(struct crdt *c, const struct Cloudstate__Crdt__CrdtDelta *delta)
{
	crdt_in in = CLOUDSTATE__CRDT__CRDT_STREAM_IN__INIT;
	in.message_case = CRDT_IN(DELTA);
	in.delta = (Cloudstate__Crdt__CrdtDelta *)(uintptr_t)delta;
	send(c, &in);
}

void crdt_send_delete(struct crdt *c)
{
	crdt_in in = CLOUDSTATE__CRDT__CRDT_STREAM_IN__INIT;
	Cloudstate__Crdt__CrdtDelete deleted = CLOUDSTATE__CRDT__CRDT_DELETE__INIT;
	in.message_case = CRDT_IN(DELETE);
	in.delete_ = &deleted;
	send(c, &in);
}

void crdt_send_command(struct crdt *c, struct entity_command *command)
{
	crdt_in in = CLOUDSTATE__CRDT__CRDT_STREAM_IN__INIT;
	Cloudstate__Command message = CLOUDSTATE__COMMAND__INIT;
	Google__Protobuf__Any payload;
	struct crdt_flight *f = mem_xalloc(sizeof *f);

	must(command);
	f->command = command;
	f->id = command->id = c->next_id++;
	f->phase = CRDT_SENT;
	f->deadline = crdt_after_ms(c, c->config.command_timeout_ms);
	map_put(&c->flights, id_key(&f->id), f);
	list_push_back(&c->sent, &f->node);

	wire_any_set(&payload, command->payload);
	message.entity_id = wire_bytes(c->config.entity_id);
	message.id = f->id;
	message.name = wire_bytes(command->name);
	message.payload = &payload;
	message.streamed = command->streams_out;
	in.message_case = CRDT_IN(COMMAND);
	in.command = &message;
	send(c, &in);
}

void crdt_flight_cancel(struct crdt *c, struct crdt_flight *f)
{
	crdt_in in = CLOUDSTATE__CRDT__CRDT_STREAM_IN__INIT;
	Cloudstate__StreamCancelled cancelled = CLOUDSTATE__STREAM_CANCELLED__INIT;
	must(f->phase == CRDT_OPEN);
	list_remove(&f->node);
	list_push_back(&c->cancelling, &f->node);
	c->left_count -= f->left;
	f->left = false;
	f->phase = CRDT_CANCELLING;
	f->deadline = crdt_after_ms(c, CANCEL_MS);
	if (!c->open) /* it is ending */
		return;
	cancelled.entity_id = wire_bytes(c->config.entity_id);
	cancelled.id = f->id;
	in.message_case = CRDT_IN(STREAM_CANCELLED);
	in.stream_cancelled = &cancelled;
	send(c, &in);
	if (plant("cancel-sent-twice"))
		send(c, &in);
}
