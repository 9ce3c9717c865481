/* The Merkle tree over the log: a thread that trails the durable head, and gives checkpoints and proofs. It is never
 * on the way of an append: a commit only tells it that there is something. Private to src/journal. */
#ifndef CAIRN_JOURNAL_TREE_H
#define CAIRN_JOURNAL_TREE_H

#include "journal/journal.h"
#include "journal/tree_proof.h"

struct tree;

/* signing_key: a private key in PEM, or NULL: then one is made and kept in the storage's own directory, if it has
 * one; storage that is gone with the process gets one that is; storage that several share gets none, and its
 * checkpoints are not signed. */
enum err_code tree_new(struct journal *j, const char *signing_key, struct tree **ret, struct err *err);
void tree_start(struct tree *t);
void tree_stop(struct tree *t); /* who waits is told; NULL is fine */
void tree_free(struct tree *t); /* after it was stopped; NULL is fine */

/* The durable head has moved, by appends of this process or of others. Any thread, never blocks for long. */
void tree_head_moved(struct tree *t, bool ours);
/* Is everything below the position in the tree? Waits for at most ms. Any thread but the tree's. */
bool tree_reached(struct tree *t, uint64_t position, int64_t ms);

enum tree_what { TREE_CHECKPOINT, TREE_INCLUSION, TREE_CONSISTENCY };
struct tree_query {
	enum tree_what what;
	uint64_t size;	     /* of the tree; 0: all that is durable when it is asked for, or more */
	uint64_t not_before; /* waits until the tree has come so far; ERR_UNAVAILABLE if it does not in time */
	uint64_t position;   /* INCLUSION: of which record */
	uint64_t old_size;   /* CONSISTENCY: with which tree */
};
struct tree_answer {
	uint64_t size;
	struct tree_hash root;
	struct tree_hash leaf;	   /* INCLUSION */
	struct tree_hash old_root; /* CONSISTENCY */
	struct tree_proof proof;
	struct span note; /* the signed checkpoint; empty: there is no key */
	struct span key;  /* that verifies it */
};
/* Either of answer and err is NULL; both live during the callback. */
typedef void tree_done_fn(const struct tree_answer *answer, const struct err *err, void *arg);
/* Once, on the mailbox. What names records beyond the head: ERR_NOT_FOUND. ERR_UNAVAILABLE at once (nothing accepted):
 * the journal is stopping. ERR_UNSUPPORTED: it has no threads. */
enum err_code tree_ask(struct journal *j, const struct tree_query *query, struct mailbox *mailbox,
		       tree_done_fn *done, void *arg, struct err *err);

#endif
