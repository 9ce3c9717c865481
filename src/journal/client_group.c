/* Consumers of the client: one call each. A response is a run of records, as stored, and a few fields behind it. */
#include <config.h>

#include "journal/client_group.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/client_internal.h"

#define FIELD_1_BYTES 0x0a /* the tag of an entry */

struct client_consumer {
	struct client *client;
	struct list_node node; /* in client->reads */
	struct grpc_call *call;
	struct client_consumer_ops ops;
	void *arg;
	struct err fault; /* what was wrong with a response; unset: nothing */
	bool finished;
};

/* ---- responses ---------------------------------------------------------------------------------- */

static enum err_code take_records(struct client_consumer *k, struct span *message)
{
	struct record_view view;
	struct span entry;

	while (message->n && message->p[0] == FIELD_1_BYTES) {
		enum err_code code = record_next(message, &entry, NULL, &k->fault);

		if (!code)
			code = record_decode(entry, &view, &k->fault);
		if (code)
			return err_wrap(&k->fault, "a record from the journal");
		k->ops.on_record(k, &view, k->arg);
	}
	return ERR_OK;
}

/* The fields behind the records. */
static enum err_code take_fields(struct client_consumer *k, struct span rest)
{
	PB(ConsumeResponse) *pb;
	struct client_cursor active;
	struct arena a;

	if (!rest.n)
		return ERR_OK;
	arena_init(&a, LIMIT_GRPC_MESSAGE_BYTES);
	pb = (void *)grpc_unpack(PB_TYPE(consume_response), &a, rest);
	if (!pb)
		err_set(&k->fault, ERR_CORRUPT, "the server's answer is malformed");
	if (pb && pb->active && k->ops.on_active) {
		client_unpack_cursor(pb->active, &active);
		k->ops.on_active(k, active.position, k->arg);
	}
	for (size_t i = 0; pb && k->ops.on_parked && i < pb->n_parked; i++)
		k->ops.on_parked(k, pb->parked[i], k->arg);
	arena_release(&a);
	return k->fault.code;
}

static void consumer_on_message(struct grpc_call *call, struct span message, void *user)
{
	struct client_consumer *k = user;

	if (k->fault.code)
		return; /* what had arrived before the cancellation took effect */
	if (take_records(k, &message) || take_fields(k, message))
		grpc_call_cancel(call);
}

static void consumer_on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct client_consumer *k = user;
	struct client_error error;

	(void)call;
	client_error_of_result(k->client, result, &error);
	if (k->fault.code)
		error = (struct client_error){.code = GRPC_DATA_LOSS, .text = span_str(k->fault.text)};
	list_remove(&k->node);
	k->ops.on_done(k, &error, k->arg);
	mem_free(k);
}

static const struct grpc_call_ops consumer_ops = {
	.on_message = consumer_on_message,
	.on_done = consumer_on_done,
};

/* ---- requests ----------------------------------------------------------------------------------- */

static void consumer_send(struct client_consumer *k, const PB(ConsumeRequest) *pb)
{
	size_t n = 0;
	uint8_t *bytes = client_pack(&pb->base, &n);

	must(bytes); /* names and numbers */
	must(!k->finished);
	grpc_call_send(k->call, span_of(bytes, n));
	mem_free(bytes);
}

static ProtobufCBinaryData *pack_spans(const struct span *spans, size_t n)
{
	ProtobufCBinaryData *list = mem_xalloc((n + 1) * sizeof(*list));

	for (size_t i = 0; i < n; i++)
		list[i] = pb_bytes(spans[i]);
	return list;
}

struct client_consumer *client_consume(struct client *c, const struct client_consume *consume,
				       const struct client_consumer_ops *ops, void *arg)
{
	static const struct headers none = {0};
	PB(ConsumeRequest) pb;
	struct client_consumer *k = mem_xalloc(sizeof(*k));

	must(ops->on_record);
	must(ops->on_done);
	must(!c->closing);
	cairn__journal__v1__consume_request__init(&pb);
	k->client = c;
	k->ops = *ops;
	k->arg = arg;
	pb.journal = pb_bytes(span_str(c->journal));
	pb.group = pb_bytes(consume->group);
	if (consume->stream.n) {
		pb.source_case = CAIRN__JOURNAL__V1__CONSUME_REQUEST__SOURCE_STREAM;
		pb.stream = pb_bytes(consume->stream);
	} else if (consume->category.n) {
		pb.source_case = CAIRN__JOURNAL__V1__CONSUME_REQUEST__SOURCE_CATEGORY;
		pb.category = pb_bytes(consume->category);
	}
	pb.types = pack_spans(consume->types, pb.n_types = consume->type_count);
	pb.stream_prefixes =
		pack_spans(consume->stream_prefixes, pb.n_stream_prefixes = consume->stream_prefix_count);
	pb.from_end = consume->from_end;
	pb.window = consume->window;
	pb.partitions = consume->partitions;
	pb.address = pb_bytes(consume->address);
	list_push_back(&c->reads, &k->node);
	k->call = grpc_channel_call(c->channel, JOURNAL_METHOD("Consume"), &none, -1, false, &consumer_ops, k);
	consumer_send(k, &pb);
	mem_free(pb.types);
	mem_free(pb.stream_prefixes);
	return k;
}

void client_consumer_ack(struct client_consumer *k, uint64_t position)
{
	PB(ConsumeRequest) pb;

	cairn__journal__v1__consume_request__init(&pb);
	pb.n_ack = 1;
	pb.ack = &position;
	consumer_send(k, &pb);
}

void client_consumer_nack(struct client_consumer *k, uint64_t position, uint32_t delay_ms)
{
	PB(ConsumeRequest) pb;
	PB(Nack) nack = CAIRN__JOURNAL__V1__NACK__INIT, *nacks = &nack;

	cairn__journal__v1__consume_request__init(&pb);
	nack.position = position;
	nack.delay_ms = delay_ms;
	pb.n_nack = 1;
	pb.nack = &nacks;
	consumer_send(k, &pb);
}

void client_consumer_park(struct client_consumer *k, uint64_t position, struct span reason, bool goes_on)
{
	PB(ConsumeRequest) pb;
	PB(Park) park = CAIRN__JOURNAL__V1__PARK__INIT, *parks = &park;

	cairn__journal__v1__consume_request__init(&pb);
	park.position = position;
	park.reason = pb_bytes(reason);
	park.goes_on = goes_on;
	pb.n_park = 1;
	pb.park = &parks;
	consumer_send(k, &pb);
}

void client_consumer_finish(struct client_consumer *k)
{
	must(!k->finished);
	k->finished = true;
	grpc_call_half_close(k->call);
}

void client_consumer_cancel(struct client_consumer *k)
{
	grpc_call_cancel(k->call);
}

void client_consumer_hold(struct client_consumer *k, bool hold)
{
	grpc_call_hold_read(k->call, hold);
}
