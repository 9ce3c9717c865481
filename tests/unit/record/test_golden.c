/* The bytes are the format: what is in tests/data/record/golden.txt must come out for ever. To print
 * the file anew (for a new sample, never for a changed one): CAIRN_PRINT_GOLDEN=1 ./unit_record. */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>

#include <criterion/criterion.h>
#include <openssl/evp.h>

#include "base/limits.h"
#include "base/text.h"
#include "samples.h"

/* RFC 6962: the root over leaf hashes [0, n). */
static void tree_root(const uint8_t (*leaves)[RECORD_HASH_BYTES], size_t n, uint8_t ret[RECORD_HASH_BYTES])
{
	uint8_t node[1 + 2 * RECORD_HASH_BYTES] = {0x01};
	if (n == 0) {
		cr_assert(EVP_Digest("", 0, ret, NULL, EVP_sha256(), NULL) == 1);
		return;
	}
	if (n == 1) {
		memcpy(ret, leaves[0], RECORD_HASH_BYTES);
		return;
	}
	size_t half = 1;
	while (half * 2 < n)
		half *= 2;
	tree_root(leaves, half, node + 1);
	tree_root(leaves + half, n - half, node + 1 + RECORD_HASH_BYTES);
	cr_assert(EVP_Digest(node, sizeof(node), ret, NULL, EVP_sha256(), NULL) == 1);
}

static void put_line(struct buf *text, const char *word, struct span bytes)
{
	cr_assert_eq(buf_append_str(text, word), ERR_OK);
	cr_assert_eq(hex_encode(text, bytes), ERR_OK);
	cr_assert_eq(buf_append_byte(text, '\n'), ERR_OK);
}

static void golden_text(struct buf *text)
{
	uint8_t leaves[SAMPLE_COUNT][RECORD_HASH_BYTES];
	for (size_t i = 0; i < SAMPLE_COUNT; i++) {
		struct buf bytes;
		struct sample sample;
		struct record_view view;
		struct span run, entry;
		buf_init(&bytes, LIMIT_RECORD_BYTES);
		sample_get(i, &sample);
		sample_encode(&sample, &bytes);
		run = buf_span(&bytes);
		put_line(text, "entry ", run);
		cr_assert_eq(record_next(&run, &entry, NULL, NULL), ERR_OK);
		cr_assert_eq(record_decode(entry, &view, NULL), ERR_OK);
		record_leaf(&view, leaves[i]);
		put_line(text, "leaf ", span_of(leaves[i], RECORD_HASH_BYTES));
		buf_release(&bytes);
	}
	for (size_t n = 0; n <= SAMPLE_COUNT; n++) {
		uint8_t root[RECORD_HASH_BYTES];
		tree_root((const uint8_t(*)[RECORD_HASH_BYTES])leaves, n, root);
		put_line(text, "root ", span_of(root, sizeof(root)));
	}
}

Test(golden, entries_leaves_and_roots_never_change)
{
	struct buf text;
	static char golden[64 * 1024];
	char path[4096];
	buf_init(&text, sizeof(golden));
	golden_text(&text);
	if (getenv("CAIRN_PRINT_GOLDEN"))
		fprintf(stderr, "%s", buf_cstr(&text));

	snprintf(path, sizeof(path), "%s/tests/data/record/golden.txt",
		 getenv("CAIRN_SRCDIR") ? getenv("CAIRN_SRCDIR") : ".");
	FILE *f = fopen(path, "r");
	cr_assert(f, "cannot open %s", path);
	size_t n = fread(golden, 1, sizeof(golden), f);
	fclose(f);
	cr_assert(span_eq(span_of(golden, n), buf_span(&text)), "the bytes of a record have changed");
	buf_release(&text);
}
