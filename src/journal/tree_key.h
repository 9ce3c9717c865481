/* The journal's signing key (Ed25519), and checkpoints as signed notes. Private to src/journal. */
#ifndef CAIRN_JOURNAL_TREE_KEY_H
#define CAIRN_JOURNAL_TREE_KEY_H

#include "base/buf.h"
#include "journal/client_verify.h"
#include "journal/tree_proof.h"

struct tree_key;

/* A private key in PEM. The name is that of the key, and the origin of what it signs. ERR_INVALID says what is wrong
 * with it; the text is not in the error. */
enum err_code tree_key_load(struct span pem, struct span name, struct tree_key **ret, struct err *err);
/* The same from a file, which is made, with a new key in it, if it is not there. One process at a time. */
enum err_code tree_key_keep(const char *path, struct span name, struct tree_key **ret, struct err *err);
/* One that ends with the process. */
struct tree_key *tree_key_new(struct span name);
void tree_key_free(struct tree_key *key); /* NULL is fine */

const struct verify_key *tree_key_public(const struct tree_key *key);

/* The checkpoint of a tree with this root, signed. */
enum err_code tree_key_checkpoint(const struct tree_key *key, uint64_t size, const struct tree_hash *root,
				  struct buf *out);

#endif
