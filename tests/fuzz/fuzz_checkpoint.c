/* Any bytes as a checkpoint, a key behind a zero, and what follows as a proof: what is accepted is within the bytes and
 * says what they say, a key's text comes out as it went in, and no proof of made-up hashes holds. */
#include <config.h>

#include "base/endian.h"
#include "base/must.h"
#include "journal/client_verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_key(struct span text)
{
	struct verify_key key, again;
	struct buf out;
	if (verify_key_parse(text, &key, NULL))
		return;
	buf_init(&out, VERIFY_NOTE_BYTES);
	must(verify_key_text(&key, &out) == ERR_OK);
	must(verify_key_parse(buf_span(&out), &again, NULL) == ERR_OK);
	must(strcmp(key.name, again.name) == 0);
	must(memcmp(key.public_key, again.public_key, sizeof(key.public_key)) == 0);
	buf_release(&out);
}

static void check_note(struct span note, struct span key_text)
{
	struct verify_checkpoint c;
	struct verify_key key;
	struct err err = {0};
	enum err_code code = verify_checkpoint(note, NULL, &c, &err);
	must((code != ERR_OK) == (err.text[0] != 0));
	must(code == ERR_OK || code == ERR_INVALID);
	if (!code)
		must(c.origin.n > 0 && c.origin.p == note.p && c.origin.n < note.n);
	if (verify_key_parse(key_text, &key, NULL))
		return;
	err_clear(&err);
	enum err_code signed_code = verify_checkpoint(note, &key, &c, &err);
	must((signed_code != ERR_OK) == (err.text[0] != 0));
	must(!code || signed_code); /* what is no checkpoint is not signed either */
}

static void check_proof(struct span s)
{
	if (s.n < 16 + 2 * RECORD_HASH_BYTES)
		return;
	uint64_t a = get_le64(s.p), b = get_le64(s.p + 8);
	const uint8_t *one = s.p + 16, *other = one + RECORD_HASH_BYTES, *hashes = other + RECORD_HASH_BYTES;
	size_t count = (s.n - 16) / RECORD_HASH_BYTES - 2;
	bool same = memcmp(one, other, RECORD_HASH_BYTES) == 0;
	enum err_code code = verify_inclusion(a, b, one, hashes, count, other, NULL);
	must(code == ERR_CORRUPT || (code == ERR_OK && b == 1 && same));
	code = verify_consistency(a, one, b, other, hashes, count, NULL);
	must(code == ERR_CORRUPT || (code == ERR_OK && count == 0 && (a == 0 || (a == b && same))));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span all = span_of(data, size), note = span_first(all, span_find(all, 0));
	struct span rest = note.n < all.n ? span_skip(all, note.n + 1) : (struct span){0};
	struct span key = span_first(rest, span_find(rest, 0));
	check_note(note, key);
	check_key(key);
	if (key.n < rest.n)
		check_proof(span_skip(rest, key.n + 1));
	return 0;
}
