/* Verifying what a journal proves: checkpoints (C2SP tlog-checkpoint, a signed note with an Ed25519 signature),
 * inclusion and consistency proofs (RFC 9162, sections 2.1.3 and 2.1.4). Pure; any thread. A proof that does not
 * hold is ERR_CORRUPT, and err says what does not fit. */
#ifndef CAIRN_JOURNAL_CLIENT_VERIFY_H
#define CAIRN_JOURNAL_CLIENT_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "record/record.h"

#define VERIFY_KEY_BYTES 32	  /* an Ed25519 public key */
#define VERIFY_SIGNATURE_BYTES 64
#define VERIFY_NAME_BYTES ((size_t)200) /* of a key, and the origin of a checkpoint */
#define VERIFY_NOTE_BYTES ((size_t)4096) /* a checkpoint with its signatures */

/* Whose signature is looked for: "NAME+KEYID+BASE64", as Go's note.NewVerifier() takes it. */
struct verify_key {
	char name[VERIFY_NAME_BYTES + 1];
	uint8_t public_key[VERIFY_KEY_BYTES];
	uint8_t id[4];
};
/* From name and key. ERR_INVALID: the name is too long or has a space or a '+'. */
enum err_code verify_key_set(struct span name, const uint8_t public_key[VERIFY_KEY_BYTES], struct verify_key *ret,
			     struct err *err);
enum err_code verify_key_parse(struct span text, struct verify_key *ret, struct err *err);
enum err_code verify_key_text(const struct verify_key *key, struct buf *out);

struct verify_checkpoint {
	struct span origin; /* within the note */
	uint64_t size;
	uint8_t root[RECORD_HASH_BYTES];
};
/* Key NULL: whatever its signatures are. Else the origin must be the key's name, and its signature right. ERR_INVALID:
 * it is no checkpoint. */
enum err_code verify_checkpoint(struct span note, const struct verify_key *key, struct verify_checkpoint *ret,
				struct err *err);

/* `hashes` is count times RECORD_HASH_BYTES bytes. */
enum err_code verify_inclusion(uint64_t index, uint64_t size, const uint8_t leaf[RECORD_HASH_BYTES],
			       const uint8_t *hashes, size_t count, const uint8_t root[RECORD_HASH_BYTES],
			       struct err *err);
enum err_code verify_consistency(uint64_t old_size, const uint8_t old_root[RECORD_HASH_BYTES], uint64_t size,
				 const uint8_t root[RECORD_HASH_BYTES], const uint8_t *hashes, size_t count,
				 struct err *err);

#endif
