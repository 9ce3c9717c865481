/* Checkpoint, InclusionProof and ConsistencyProof. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/tree.h"

struct proof_call {
	struct journal_service *service;
	struct grpc_call *call; /* a reference */
	enum tree_what what;
};

static void checkpoint_to(const struct tree_answer *answer, PB(TreeCheckpoint) *ret)
{
	cairn__journal__v1__tree_checkpoint__init(ret);
	ret->size = answer->size;
	ret->root = pb_bytes(span_of(answer->root.bytes, sizeof(answer->root.bytes)));
	ret->note = pb_bytes(answer->note);
	ret->verifier_key = pb_bytes(answer->key);
}

static void hashes_to(const struct tree_proof *proof, ProtobufCBinaryData *ret)
{
	for (size_t i = 0; i < proof->count; i++)
		ret[i] = pb_bytes(span_of(proof->hashes[i].bytes, sizeof(proof->hashes[i].bytes)));
}

static void proof_reply(struct proof_call *pc, const struct tree_answer *answer)
{
	ProtobufCBinaryData hashes[TREE_PROOF_HASHES];
	PB(TreeCheckpoint) checkpoint;

	checkpoint_to(answer, &checkpoint);
	hashes_to(&answer->proof, hashes);
	if (pc->what == TREE_CHECKPOINT) {
		PB(CheckpointResponse) pb = CAIRN__JOURNAL__V1__CHECKPOINT_RESPONSE__INIT;

		pb.checkpoint = &checkpoint;
		grpc_call_reply_pb(pc->call, &pb.base);
	} else if (pc->what == TREE_INCLUSION) {
		PB(InclusionProofResponse) pb = CAIRN__JOURNAL__V1__INCLUSION_PROOF_RESPONSE__INIT;

		pb.leaf_hash = pb_bytes(span_of(answer->leaf.bytes, sizeof(answer->leaf.bytes)));
		pb.n_hashes = answer->proof.count;
		pb.hashes = hashes;
		pb.checkpoint = &checkpoint;
		grpc_call_reply_pb(pc->call, &pb.base);
	} else {
		PB(ConsistencyProofResponse) pb = CAIRN__JOURNAL__V1__CONSISTENCY_PROOF_RESPONSE__INIT;

		pb.old_root = pb_bytes(span_of(answer->old_root.bytes, sizeof(answer->old_root.bytes)));
		pb.n_hashes = answer->proof.count;
		pb.hashes = hashes;
		pb.checkpoint = &checkpoint;
		grpc_call_reply_pb(pc->call, &pb.base);
	}
}

static void proof_on_done(const struct tree_answer *answer, const struct err *err, void *arg)
{
	struct proof_call *pc = arg;

	if (err)
		grpc_call_finish_err(pc->call, err);
	else
		proof_reply(pc, answer);
	grpc_call_unref(pc->call);
	mem_free(pc);
}

/* What the three have in common, once the request has been read into the query. */
static void proof_start(struct grpc_call *call, struct journal_service *s, ProtobufCBinaryData journal,
			const PB(Cursor) *not_before, struct tree_query *q)
{
	struct proof_call *pc = mem_xalloc(sizeof(*pc));
	struct journal_cursor cursor;
	struct err err = {0};

	*pc = (struct proof_call){s, grpc_call_ref(call), q->what};
	if (!service_check_journal(journal, &err) &&
	    !service_cursor_of(not_before, "not_before", &cursor, &err) &&
	    !(cursor.incarnation && journal_cursor_check(s->journal, &cursor, true, NULL, &err))) {
		q->not_before = cursor.position;
		tree_ask(s->journal, q, loop_mailbox(grpc_call_loop(call)), proof_on_done, pc, &err);
	}
	if (err.code)
		proof_on_done(NULL, &err, pc);
}

static void proof_malformed(struct grpc_call *call, const char *what)
{
	struct err err = {0};

	err_set(&err, ERR_INVALID, "the request is no %s", what);
	grpc_call_finish_err(call, &err);
}

void service_checkpoint(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	const PB(CheckpointRequest) *pb = (void *)grpc_unpack(PB_TYPE(checkpoint_request), &a, request);
	if (pb)
		proof_start(call, s, pb->journal, pb->not_before,
			    &(struct tree_query){.what = TREE_CHECKPOINT, .size = pb->size});
	else
		proof_malformed(call, "CheckpointRequest");
	arena_release(&a);
}

void service_inclusion_proof(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	const PB(InclusionProofRequest) *pb = (void *)grpc_unpack(PB_TYPE(inclusion_proof_request), &a, request);
	if (pb)
		proof_start(call, s, pb->journal, pb->not_before,
			    &(struct tree_query){
				    .what = TREE_INCLUSION, .position = pb->position, .size = pb->size});
	else
		proof_malformed(call, "InclusionProofRequest");
	arena_release(&a);
}

void service_consistency_proof(struct grpc_call *call, struct span request, void *arg)
{
	struct journal_service *s = OBJ_CAST(struct journal_service, arg, SERVICE_MAGIC);
	struct arena a;

	arena_init(&a, SERVICE_ARENA_BYTES);
	const PB(ConsistencyProofRequest) *pb =
		(void *)grpc_unpack(PB_TYPE(consistency_proof_request), &a, request);
	if (pb)
		proof_start(call, s, pb->journal, pb->not_before,
			    &(struct tree_query){
				    .what = TREE_CONSISTENCY, .old_size = pb->old_size, .size = pb->size});
	else
		proof_malformed(call, "ConsistencyProofRequest");
	arena_release(&a);
}
