/* Acts of the client: one unary call each. */
#include <config.h>

#include "journal/client_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"

struct act_call {
	struct client *client;
	client_withhold_fn *done;
	void *arg;
};

static void act_on_done(const struct grpc_result *result, struct span reply, void *arg)
{
	struct act_call *ac = arg;
	struct client_error error;
	struct client_withheld acted = {0};
	const PB(ActResponse) *pb = NULL;
	struct arena a;

	arena_init(&a, 4 * LIMIT_GRPC_MESSAGE_BYTES);
	client_error_of_result(ac->client, result, &error);
	if (result->code == GRPC_OK) {
		pb = (void *)grpc_unpack(PB_TYPE(act_response), &a, reply);
		if (!pb)
			error = (struct client_error){.code = GRPC_INTERNAL,
						      .text = SPAN("the server's answer is malformed")};
	}
	if (pb) {
		acted.stream_count = pb->stream_count;
		acted.nothing = pb->nothing;
		acted.sequence = pb->n_streams == 1 ? pb->streams[0]->sequence : 0;
		client_unpack_cursor(pb->cursor, &acted.cursor);
	}
	ac->done(pb ? &acted : NULL, &error, ac->arg);
	arena_release(&a);
	mem_free(ac);
}

static void act_start(struct client *c, const char *path, const ProtobufCMessage *message,
		      int64_t deadline_ms, client_withhold_fn *done, void *arg)
{
	struct act_call *ac = mem_xalloc(sizeof(*ac));
	size_t n = 0;
	uint8_t *bytes = client_pack(message, &n);

	must(bytes); /* names, a reason and some numbers */
	*ac = (struct act_call){c, done, arg};
	grpc_channel_unary(c->channel, path, span_of(bytes, n), deadline_ms > 0 ? deadline_ms : -1,
			   deadline_ms > 0, act_on_done, ac);
	mem_free(bytes);
}

void client_delete(struct client *c, struct span stream, struct span reason, int64_t deadline_ms,
		   client_withhold_fn *done, void *arg)
{
	PB(DeleteRequest) pb = CAIRN__JOURNAL__V1__DELETE_REQUEST__INIT;

	pb.journal = pb_bytes(span_str(c->journal));
	pb.stream = pb_bytes(stream);
	pb.reason = pb_bytes(reason);
	act_start(c, JOURNAL_METHOD("Delete"), &pb.base, deadline_ms, done, arg);
}

void client_truncate(struct client *c, struct span stream, uint64_t before_sequence, struct span reason,
		     int64_t deadline_ms, client_withhold_fn *done, void *arg)
{
	PB(TruncateRequest) pb = CAIRN__JOURNAL__V1__TRUNCATE_REQUEST__INIT;

	pb.journal = pb_bytes(span_str(c->journal));
	pb.stream = pb_bytes(stream);
	pb.reason = pb_bytes(reason);
	pb.before_sequence = before_sequence;
	act_start(c, JOURNAL_METHOD("Truncate"), &pb.base, deadline_ms, done, arg);
}

void client_erase(struct client *c, const struct client_erasure *e, int64_t deadline_ms, client_withhold_fn *done,
		  void *arg)
{
	PB(EraseRequest) pb;

	cairn__journal__v1__erase_request__init(&pb);
	pb.journal = pb_bytes(span_str(c->journal));
	if (e->stream.n) {
		pb.what_case = CAIRN__JOURNAL__V1__ERASE_REQUEST__WHAT_STREAM;
		pb.stream = pb_bytes(e->stream);
	} else {
		pb.what_case = CAIRN__JOURNAL__V1__ERASE_REQUEST__WHAT_PREFIX;
		pb.prefix = pb_bytes(e->prefix);
	}
	pb.reason = pb_bytes(e->reason);
	pb.from_sequence = e->from_sequence;
	pb.to_sequence = e->to_sequence;
	pb.keep_snapshots = e->keep_snapshots;
	act_start(c, JOURNAL_METHOD("Erase"), &pb.base, deadline_ms, done, arg);
}

void client_set_retention(struct client *c, const struct client_retention *rule, int64_t deadline_ms,
			  client_withhold_fn *done, void *arg)
{
	PB(SetRetentionRequest) pb;

	cairn__journal__v1__set_retention_request__init(&pb);
	pb.journal = pb_bytes(span_str(c->journal));
	if (rule->stream.n) {
		pb.what_case = CAIRN__JOURNAL__V1__SET_RETENTION_REQUEST__WHAT_STREAM;
		pb.stream = pb_bytes(rule->stream);
	} else {
		pb.what_case = CAIRN__JOURNAL__V1__SET_RETENTION_REQUEST__WHAT_CATEGORY;
		pb.category = pb_bytes(rule->category);
	}
	pb.reason = pb_bytes(rule->reason);
	pb.max_count = rule->max_count;
	pb.max_age_ms = rule->max_age_ms;
	pb.before_sequence = rule->before_sequence;
	act_start(c, JOURNAL_METHOD("SetRetention"), &pb.base, deadline_ms, done, arg);
}

struct compact_call {
	struct client *client;
	client_compact_fn *done;
	void *arg;
};

static void compact_on_done(const struct grpc_result *result, struct span reply, void *arg)
{
	struct compact_call *cc = arg;
	struct client_error error;
	struct client_compacted done = {0};
	const PB(CompactResponse) *pb = NULL;
	struct arena a;

	arena_init(&a, 4 * LIMIT_GRPC_MESSAGE_BYTES);
	client_error_of_result(cc->client, result, &error);
	if (result->code == GRPC_OK) {
		pb = (void *)grpc_unpack(PB_TYPE(compact_response), &a, reply);
		if (!pb)
			error = (struct client_error){.code = GRPC_INTERNAL,
						      .text = SPAN("the server's answer is malformed")};
	}
	if (pb)
		done = (struct client_compacted){pb->units,  pb->rewritten,    pb->removed,
						 pb->erased, pb->bytes_before, pb->bytes_after};
	cc->done(pb ? &done : NULL, &error, cc->arg);
	arena_release(&a);
	mem_free(cc);
}

void client_compact(struct client *c, int64_t deadline_ms, client_compact_fn *done, void *arg)
{
	PB(CompactRequest) pb = CAIRN__JOURNAL__V1__COMPACT_REQUEST__INIT;
	struct compact_call *cc = mem_xalloc(sizeof(*cc));
	size_t n = 0;

	pb.journal = pb_bytes(span_str(c->journal));
	uint8_t *bytes = client_pack(&pb.base, &n);
	must(bytes);
	*cc = (struct compact_call){c, done, arg};
	grpc_channel_unary(c->channel, JOURNAL_METHOD("Compact"), span_of(bytes, n),
			   deadline_ms > 0 ? deadline_ms : -1, true, compact_on_done, cc);
	mem_free(bytes);
}
