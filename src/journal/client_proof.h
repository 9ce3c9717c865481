/* What the journal's client asks for of the Merkle tree. The rules are those of client.h: on the loop's thread, each
 * callback runs once. Nothing is verified here: client_verify.h does that. */
#ifndef CAIRN_JOURNAL_CLIENT_PROOF_H
#define CAIRN_JOURNAL_CLIENT_PROOF_H

#include "journal/client.h"

/* What came of it; what an operation does not tell is empty. Lives during the callback. */
struct client_proof {
	uint64_t size;
	uint8_t root[RECORD_HASH_BYTES];
	struct span note, verifier_key; /* empty: the server has no key */
	uint8_t leaf[RECORD_HASH_BYTES], old_root[RECORD_HASH_BYTES];
	const uint8_t *hashes; /* count times RECORD_HASH_BYTES bytes */
	size_t count;
};
/* answer is NULL when error->code is not GRPC_OK. */
typedef void client_proof_fn(const struct client_proof *answer, const struct client_error *error, void *arg);

/* size 0: all that is durable now, or more. */
void client_checkpoint(struct client *c, uint64_t size, int64_t deadline_ms, client_proof_fn *done, void *arg);
void client_inclusion_proof(struct client *c, uint64_t position, uint64_t size, int64_t deadline_ms,
			    client_proof_fn *done, void *arg);
void client_consistency_proof(struct client *c, uint64_t old_size, uint64_t size, int64_t deadline_ms,
			      client_proof_fn *done, void *arg);

#endif
