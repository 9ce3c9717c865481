/* Checksum and leaf hash: the two third-party functions of this folder. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "record/hash.h"

#include <pthread.h>

#include <isa-l/crc.h>
#include <openssl/evp.h>

#include "base/must.h"

uint32_t record_crc32c(uint32_t so_far, struct span s)
{
	/* ISA-L leaves the inversion before and after to its caller, and takes no const pointer. */
	uint32_t crc = ~so_far;
	while (s.n > 0) {
		size_t n = s.n < (1u << 30) ? s.n : (1u << 30);
		crc = crc32_iscsi((unsigned char *)(uintptr_t)s.p, (int)n, crc);
		s = span_skip(s, n);
	}
	return ~crc;
}

/* The algorithm is fetched once and each thread keeps one context: fetching and allocating would cost
 * more than hashing a small record. */
static pthread_once_t hash_once = PTHREAD_ONCE_INIT;
static pthread_key_t hash_context_key;
static EVP_MD *hash_sha256;

static void hash_context_free(void *context)
{
	EVP_MD_CTX_free(context);
}

static void hash_setup(void)
{
	hash_sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	must(hash_sha256);
	must(pthread_key_create(&hash_context_key, hash_context_free) == 0);
}

static EVP_MD_CTX *hash_context(void)
{
	must(pthread_once(&hash_once, hash_setup) == 0);
	EVP_MD_CTX *context = pthread_getspecific(hash_context_key);
	if (!context) {
		context = EVP_MD_CTX_new();
		must(context);
		must(pthread_setspecific(hash_context_key, context) == 0);
	}
	return context;
}

static void hash_spans(const struct span *parts, size_t count, uint8_t ret[RECORD_HASH_BYTES])
{
	EVP_MD_CTX *context = hash_context();
	must(EVP_DigestInit_ex2(context, hash_sha256, NULL) == 1);
	for (size_t i = 0; i < count; i++)
		must(EVP_DigestUpdate(context, parts[i].p, parts[i].n) == 1);
	must(EVP_DigestFinal_ex(context, ret, NULL) == 1);
}

void record_body_hash(const struct record_view *view, uint8_t ret[RECORD_HASH_BYTES])
{
	if (view->content == RECORD_BODY_HASH)
		memcpy(ret, view->hash.p, RECORD_HASH_BYTES);
	else
		hash_spans(&view->body, 1, ret);
}

void record_leaf(const struct record_view *view, uint8_t ret[RECORD_HASH_BYTES])
{
	uint8_t body_hash[RECORD_HASH_BYTES];
	must(view);
	if (view->content == RECORD_LEAF_HASH) {
		memcpy(ret, view->hash.p, RECORD_HASH_BYTES);
		return;
	}
	record_body_hash(view, body_hash);
	const struct span parts[] = {SPAN("\0"), view->header, span_of(body_hash, sizeof(body_hash))};
	hash_spans(parts, ARRAY_LEN(parts), ret);
}

void record_node(const uint8_t left[RECORD_HASH_BYTES], const uint8_t right[RECORD_HASH_BYTES],
		 uint8_t ret[RECORD_HASH_BYTES])
{
	uint8_t node[1 + 2 * RECORD_HASH_BYTES] = {0x01};
	memcpy(node + 1, left, RECORD_HASH_BYTES);
	memcpy(node + 1 + RECORD_HASH_BYTES, right, RECORD_HASH_BYTES);
	record_sha256(span_of(node, sizeof(node)), ret);
}

void record_sha256(struct span s, uint8_t ret[RECORD_HASH_BYTES])
{
	hash_spans(&s, 1, ret);
}
