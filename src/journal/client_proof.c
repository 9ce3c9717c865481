/* Checkpoints and proofs of the client: one unary call each. */
#include <config.h>

#include "journal/client_proof.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/client_internal.h"

struct proof_call {
	struct client *client;
	enum { CHECKPOINT, INCLUSION, CONSISTENCY } what;
	client_proof_fn *done;
	void *arg;
};

static bool unpack_hash(ProtobufCBinaryData b, uint8_t ret[RECORD_HASH_BYTES])
{
	if (b.len == RECORD_HASH_BYTES)
		memcpy(ret, b.data, RECORD_HASH_BYTES);
	return b.len == RECORD_HASH_BYTES;
}

static bool unpack_hashes(const ProtobufCBinaryData *hashes, size_t n, struct arena *a, struct client_proof *ret)
{
	uint8_t *all = client_zalloc(a, n * RECORD_HASH_BYTES + 1);

	for (size_t i = 0; i < n; i++)
		if (!unpack_hash(hashes[i], all + i * RECORD_HASH_BYTES))
			return false;
	ret->hashes = all;
	ret->count = n;
	return true;
}

/* False: malformed. */
static bool unpack(const struct proof_call *pc, struct span reply, struct arena *a, struct client_proof *ret)
{
	const PB(TreeCheckpoint) *checkpoint = NULL;
	bool right = true;

	if (pc->what == CHECKPOINT) {
		const PB(CheckpointResponse) *pb = (void *)grpc_unpack(PB_TYPE(checkpoint_response), a, reply);

		checkpoint = pb ? pb->checkpoint : NULL;
	} else if (pc->what == INCLUSION) {
		const PB(InclusionProofResponse) *pb =
			(void *)grpc_unpack(PB_TYPE(inclusion_proof_response), a, reply);

		checkpoint = pb ? pb->checkpoint : NULL;
		right = pb && unpack_hash(pb->leaf_hash, ret->leaf) &&
			unpack_hashes(pb->hashes, pb->n_hashes, a, ret);
	} else {
		const PB(ConsistencyProofResponse) *pb =
			(void *)grpc_unpack(PB_TYPE(consistency_proof_response), a, reply);

		checkpoint = pb ? pb->checkpoint : NULL;
		right = pb && unpack_hash(pb->old_root, ret->old_root) &&
			unpack_hashes(pb->hashes, pb->n_hashes, a, ret);
	}
	if (!right || !checkpoint || !unpack_hash(checkpoint->root, ret->root))
		return false;
	ret->size = checkpoint->size;
	ret->note = pb_span(checkpoint->note);
	ret->verifier_key = pb_span(checkpoint->verifier_key);
	return true;
}

static void proof_on_done(const struct grpc_result *result, struct span reply, void *arg)
{
	struct proof_call *pc = arg;
	struct client_proof proof = {0};
	struct client_error error;
	struct arena a;
	bool right = false;

	arena_init(&a, 4 * LIMIT_GRPC_MESSAGE_BYTES);
	client_error_of_result(pc->client, result, &error);
	if (result->code == GRPC_OK) {
		right = unpack(pc, reply, &a, &proof);
		if (!right)
			error = (struct client_error){.code = GRPC_INTERNAL,
						      .text = SPAN("the server's answer is malformed")};
	}
	pc->done(right ? &proof : NULL, &error, pc->arg);
	arena_release(&a);
	mem_free(pc);
}

static void proof_start(struct client *c, const char *path, const ProtobufCMessage *message, int64_t deadline_ms,
			struct proof_call *pc)
{
	size_t n = 0;
	uint8_t *bytes = client_pack(message, &n);

	must(bytes); /* some numbers */
	grpc_channel_unary(c->channel, path, span_of(bytes, n), deadline_ms > 0 ? deadline_ms : -1,
			   deadline_ms > 0, proof_on_done, pc);
	mem_free(bytes);
}

void client_checkpoint(struct client *c, uint64_t size, int64_t deadline_ms, client_proof_fn *done, void *arg)
{
	PB(CheckpointRequest) pb = CAIRN__JOURNAL__V1__CHECKPOINT_REQUEST__INIT;
	struct proof_call *pc = mem_xalloc(sizeof(*pc));

	*pc = (struct proof_call){c, CHECKPOINT, done, arg};
	pb.journal = pb_bytes(span_str(c->journal));
	pb.size = size;
	proof_start(c, JOURNAL_METHOD("Checkpoint"), &pb.base, deadline_ms, pc);
}

void client_inclusion_proof(struct client *c, uint64_t position, uint64_t size, int64_t deadline_ms,
			    client_proof_fn *done, void *arg)
{
	PB(InclusionProofRequest) pb = CAIRN__JOURNAL__V1__INCLUSION_PROOF_REQUEST__INIT;
	struct proof_call *pc = mem_xalloc(sizeof(*pc));

	*pc = (struct proof_call){c, INCLUSION, done, arg};
	pb.journal = pb_bytes(span_str(c->journal));
	pb.position = position;
	pb.size = size;
	proof_start(c, JOURNAL_METHOD("InclusionProof"), &pb.base, deadline_ms, pc);
}

void client_consistency_proof(struct client *c, uint64_t old_size, uint64_t size, int64_t deadline_ms,
			      client_proof_fn *done, void *arg)
{
	PB(ConsistencyProofRequest) pb = CAIRN__JOURNAL__V1__CONSISTENCY_PROOF_REQUEST__INIT;
	struct proof_call *pc = mem_xalloc(sizeof(*pc));

	*pc = (struct proof_call){c, CONSISTENCY, done, arg};
	pb.journal = pb_bytes(span_str(c->journal));
	pb.old_size = old_size;
	pb.size = size;
	proof_start(c, JOURNAL_METHOD("ConsistencyProof"), &pb.base, deadline_ms, pc);
}
