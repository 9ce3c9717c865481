/* Verifying checkpoints and proofs: see client_verify.h. */
#include <config.h>

#include "journal/client_verify.h"

#include <openssl/evp.h>

#include "base/must.h"
#include "base/text.h"

#define ALGORITHM_ED25519 0x01
#define SIGNATURE_LINE "\xe2\x80\x94 " /* an em dash and a space */

/* ---- keys ------------------------------------------------------------------------------------- */

enum err_code verify_key_set(struct span name, const uint8_t public_key[VERIFY_KEY_BYTES], struct verify_key *ret,
			     struct err *err)
{
	uint8_t text[VERIFY_NAME_BYTES + 2 + VERIFY_KEY_BYTES], hash[RECORD_HASH_BYTES];
	if (name.n == 0 || name.n > VERIFY_NAME_BYTES || !utf8_valid_no_controls(name) ||
	    span_find(name, ' ') < name.n || span_find(name, '+') < name.n)
		return err_set(err, ERR_INVALID, "a key's name has 1 to %zu bytes, no space and no '+'",
			       VERIFY_NAME_BYTES);
	memcpy(text, name.p, name.n);
	text[name.n] = '\n';
	text[name.n + 1] = ALGORITHM_ED25519;
	memcpy(text + name.n + 2, public_key, VERIFY_KEY_BYTES);
	record_sha256(span_of(text, name.n + 2 + VERIFY_KEY_BYTES), hash);
	memcpy(ret->name, name.p, name.n);
	ret->name[name.n] = '\0';
	memcpy(ret->public_key, public_key, VERIFY_KEY_BYTES);
	memcpy(ret->id, hash, sizeof(ret->id));
	return ERR_OK;
}

enum err_code verify_key_parse(struct span text, struct verify_key *ret, struct err *err)
{
	struct span name = span_first(text, span_find(text, '+')), id = {0};
	struct span rest = name.n < text.n ? span_skip(text, name.n + 1) : (struct span){0};
	struct buf key, hex;
	bool right = false;
	id = span_first(rest, span_find(rest, '+'));
	rest = id.n < rest.n ? span_skip(rest, id.n + 1) : (struct span){0};
	buf_init(&key, 1 + VERIFY_KEY_BYTES);
	buf_init(&hex, 8);
	if (base64_decode(&key, rest) == ERR_OK && key.n == 1 + VERIFY_KEY_BYTES && key.p[0] == ALGORITHM_ED25519 &&
	    verify_key_set(name, key.p + 1, ret, NULL) == ERR_OK)
		right = hex_encode(&hex, span_of(ret->id, sizeof(ret->id))) == ERR_OK && span_eq(buf_span(&hex), id);
	buf_release(&key);
	buf_release(&hex);
	return right ? ERR_OK
		     : err_set(err, ERR_INVALID,
			       "\"%.*s\" is no verifier key: they are NAME+KEYID+BASE64, of Ed25519, and the key id "
			       "must be that of name and key",
			       SPAN_ARG(span_first(text, text.n < 300 ? text.n : 300)));
}

enum err_code verify_key_text(const struct verify_key *key, struct buf *out)
{
	uint8_t tagged[1 + VERIFY_KEY_BYTES] = {ALGORITHM_ED25519};
	memcpy(tagged + 1, key->public_key, VERIFY_KEY_BYTES);
	enum err_code code = buf_printf(out, "%s+", key->name);
	if (!code)
		code = hex_encode(out, span_of(key->id, sizeof(key->id)));
	if (!code)
		code = buf_append_byte(out, '+');
	return code ? code : base64_encode(out, span_of(tagged, sizeof(tagged)), true);
}

static bool signature_holds(const struct verify_key *key, struct span text, struct span signature)
{
	EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key->public_key, VERIFY_KEY_BYTES);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	must(context);
	bool holds = pkey && EVP_DigestVerifyInit(context, NULL, NULL, NULL, pkey) == 1 &&
		     EVP_DigestVerify(context, signature.p, signature.n, text.p, text.n) == 1;
	EVP_MD_CTX_free(context);
	EVP_PKEY_free(pkey);
	return holds;
}

/* ---- checkpoints ------------------------------------------------------------------------------ */

/* Takes a line off, without its end. False: there is no end of a line. */
static bool take_line(struct span *text, struct span *ret)
{
	size_t n = span_find(*text, '\n');
	if (n == text->n)
		return false;
	*ret = span_first(*text, n);
	*text = span_skip(*text, n + 1);
	return true;
}

/* Is the line this key's signature of the text? *ret_seen: it says that it is. */
static bool line_signs(struct span line, const struct verify_key *key, struct span text, bool *ret_seen)
{
	struct span rest = span_skip(line, strlen(SIGNATURE_LINE)), name = span_first(rest, span_find(rest, ' '));
	struct buf signature;
	bool right = false;
	if (name.n == rest.n || !span_eq_str(name, key->name))
		return false;
	buf_init(&signature, sizeof(key->id) + VERIFY_SIGNATURE_BYTES);
	if (base64_decode(&signature, span_skip(rest, name.n + 1)) == ERR_OK &&
	    signature.n == sizeof(key->id) + VERIFY_SIGNATURE_BYTES &&
	    memcmp(signature.p, key->id, sizeof(key->id)) == 0) {
		*ret_seen = true;
		right = signature_holds(key, text, span_skip(buf_span(&signature), sizeof(key->id)));
	}
	buf_release(&signature);
	return right;
}

static enum err_code check_signatures(struct span lines, struct span text, const struct verify_key *key,
				      struct err *err)
{
	struct span line;
	bool seen = false;
	while (take_line(&lines, &line)) {
		if (!span_starts(line, span_str(SIGNATURE_LINE)))
			return err_set(err, ERR_INVALID, "a line behind the checkpoint is no signature");
		if (line_signs(line, key, text, &seen))
			return ERR_OK;
	}
	if (seen)
		return err_set(err, ERR_CORRUPT, "the checkpoint's signature is not right: it was changed, or "
			       "another key has the same name and id");
	return err_set(err, ERR_CORRUPT, "the checkpoint is not signed by %s with that key", key->name);
}

enum err_code verify_checkpoint(struct span note, const struct verify_key *key, struct verify_checkpoint *ret,
				struct err *err)
{
	struct span rest = note, origin, size, root, line;
	struct buf hash;
	if (!take_line(&rest, &origin) || !take_line(&rest, &size) || !take_line(&rest, &root) || origin.n == 0)
		return err_set(err, ERR_INVALID, "this is no checkpoint: it has not three lines");
	buf_init(&hash, RECORD_HASH_BYTES);
	bool right = parse_u64(size, &ret->size) && (size.n == 1 || size.p[0] != '0') &&
		     base64_decode(&hash, root) == ERR_OK && hash.n == RECORD_HASH_BYTES;
	if (right)
		memcpy(ret->root, hash.p, RECORD_HASH_BYTES);
	buf_release(&hash);
	if (!right)
		return err_set(err, ERR_INVALID, "this is no checkpoint: its second line is no size, or its third no "
			       "hash in base64");
	ret->origin = origin;
	do { /* extensions, up to an empty line */
		if (!take_line(&rest, &line))
			return err_set(err, ERR_INVALID, "this is no checkpoint: no empty line ends it");
	} while (line.n > 0);
	if (!key)
		return ERR_OK;
	if (!span_eq_str(origin, key->name))
		return err_set(err, ERR_CORRUPT, "the checkpoint is of \"%.*s\", the key of \"%s\"",
			       SPAN_ARG(span_first(origin, origin.n < 200 ? origin.n : 200)), key->name);
	return check_signatures(rest, span_of(note.p, (size_t)(rest.p - note.p) - 1), key, err);
}

/* ---- proofs ----------------------------------------------------------------------------------- */

static bool same(const uint8_t a[RECORD_HASH_BYTES], const uint8_t b[RECORD_HASH_BYTES])
{
	return memcmp(a, b, RECORD_HASH_BYTES) == 0;
}

enum err_code verify_inclusion(uint64_t index, uint64_t size, const uint8_t leaf[RECORD_HASH_BYTES],
			       const uint8_t *hashes, size_t count, const uint8_t root[RECORD_HASH_BYTES],
			       struct err *err)
{
	uint8_t hash[RECORD_HASH_BYTES];
	uint64_t at = index, last = size - 1;
	if (index >= size)
		return err_set(err, ERR_CORRUPT, "position %llu is not in a tree of %llu", (unsigned long long)index,
			       (unsigned long long)size);
	memcpy(hash, leaf, sizeof(hash));
	for (size_t i = 0; i < count; i++) {
		const uint8_t *other = hashes + i * RECORD_HASH_BYTES;
		if (last == 0)
			return err_set(err, ERR_CORRUPT, "the proof has %zu hashes too many", count - i);
		if (at % 2 == 1 || at == last) {
			record_node(other, hash, hash);
			while (at % 2 == 0 && at != 0) {
				at /= 2;
				last /= 2;
			}
		} else {
			record_node(hash, other, hash);
		}
		at /= 2;
		last /= 2;
	}
	if (last != 0)
		return err_set(err, ERR_CORRUPT, "the proof has too few hashes");
	if (!same(hash, root))
		return err_set(err, ERR_CORRUPT, "the record at position %llu is not the one in the tree of %llu: "
			       "what it and the proof hash to is not the checkpoint's root",
			       (unsigned long long)index, (unsigned long long)size);
	return ERR_OK;
}

/* Both roots from the proof's hashes; false: their number is wrong. */
static bool two_roots(uint64_t old_size, uint64_t size, const uint8_t *old_root, const uint8_t *hashes, size_t count,
		      uint8_t ret_old[RECORD_HASH_BYTES], uint8_t ret_new[RECORD_HASH_BYTES])
{
	uint64_t at = old_size - 1, last = size - 1;
	size_t i = 0;
	while (at % 2 == 1) {
		at /= 2;
		last /= 2;
	}
	/* An old tree that is one whole subtree is the first hash itself. */
	const uint8_t *first = at == 0 ? old_root : i < count ? hashes + i++ * RECORD_HASH_BYTES : NULL;
	if (!first)
		return false;
	memcpy(ret_old, first, RECORD_HASH_BYTES);
	memcpy(ret_new, first, RECORD_HASH_BYTES);
	for (; i < count; i++) {
		const uint8_t *other = hashes + i * RECORD_HASH_BYTES;
		if (last == 0)
			return false;
		if (at % 2 == 1 || at == last) {
			record_node(other, ret_old, ret_old);
			record_node(other, ret_new, ret_new);
			while (at % 2 == 0 && at != 0) {
				at /= 2;
				last /= 2;
			}
		} else {
			record_node(ret_new, other, ret_new);
		}
		at /= 2;
		last /= 2;
	}
	return last == 0;
}

enum err_code verify_consistency(uint64_t old_size, const uint8_t old_root[RECORD_HASH_BYTES], uint64_t size,
				 const uint8_t root[RECORD_HASH_BYTES], const uint8_t *hashes, size_t count,
				 struct err *err)
{
	uint8_t old_hash[RECORD_HASH_BYTES], new_hash[RECORD_HASH_BYTES];
	if (old_size > size)
		return err_set(err, ERR_CORRUPT, "a tree of %llu does not go on as one of %llu",
			       (unsigned long long)old_size, (unsigned long long)size);
	bool right = true;
	if (old_size == 0) {
		record_sha256((struct span){0}, old_hash);
		memcpy(new_hash, root, sizeof(new_hash));
		right = count == 0;
	} else if (old_size == size) {
		memcpy(old_hash, root, sizeof(old_hash));
		memcpy(new_hash, root, sizeof(new_hash));
		right = count == 0;
	} else {
		right = two_roots(old_size, size, old_root, hashes, count, old_hash, new_hash);
	}
	if (!right)
		return err_set(err, ERR_CORRUPT, "the proof has a wrong number of hashes, %zu", count);
	if (!same(old_hash, old_root))
		return err_set(err, ERR_CORRUPT, "the log of %llu records is not a beginning of the one of %llu: the "
			       "proof gives another root for it", (unsigned long long)old_size,
			       (unsigned long long)size);
	if (!same(new_hash, root))
		return err_set(err, ERR_CORRUPT, "the log of %llu records does not follow from the one of %llu: the "
			       "proof gives another root for it", (unsigned long long)size,
			       (unsigned long long)old_size);
	return ERR_OK;
}
