/* Roots and proofs of a Merkle tree (RFC 6962, section 2.1), from the hashes of its whole subtrees. Pure: where the
 * hashes come from is the source's. Private to src/journal; client_verify.h verifies. */
#ifndef CAIRN_JOURNAL_TREE_PROOF_H
#define CAIRN_JOURNAL_TREE_PROOF_H

#include <stdint.h>

#include "base/err.h"
#include "record/record.h"

#define TREE_PROOF_HASHES 128 /* more than any proof in a tree of 2^63 leaves has */

struct tree_hash {
	uint8_t bytes[RECORD_HASH_BYTES];
};

/* The hash over the leaves [index << height, (index + 1) << height), all of which are in the tree. */
struct tree_source {
	enum err_code (*node)(void *arg, unsigned height, uint64_t index, struct tree_hash *ret, struct err *err);
	void *arg;
};

struct tree_proof {
	struct tree_hash hashes[TREE_PROOF_HASHES];
	size_t count;
};

/* Of the tree's first `size` leaves. */
enum err_code tree_root(const struct tree_source *s, uint64_t size, struct tree_hash *ret, struct err *err);
/* index < size. */
enum err_code tree_inclusion(const struct tree_source *s, uint64_t index, uint64_t size, struct tree_proof *ret,
			     struct err *err);
/* old <= size; empty if they are the same or old is 0. */
enum err_code tree_consistency(const struct tree_source *s, uint64_t old, uint64_t size, struct tree_proof *ret,
			       struct err *err);

/* The root over count hashes, a power of two, each of them of a subtree of the same height. */
void tree_fold(const struct tree_hash *hashes, size_t count, struct tree_hash *ret);

#endif
