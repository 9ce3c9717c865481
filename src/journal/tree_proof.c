/* Roots and proofs: see tree_proof.h. */
#include <config.h>

#include "journal/tree_proof.h"

#include "base/must.h"
#include "base/plant.h"

void tree_fold(const struct tree_hash *hashes, size_t count, struct tree_hash *ret)
{
	struct tree_hash stack[64];
	size_t depth = 0;
	must(count > 0);
	must((count & (count - 1)) == 0);
	for (size_t i = 0; i < count; i++) {
		stack[depth++] = hashes[i];
		for (size_t n = i + 1; n % 2 == 0; n /= 2, depth--)
			record_node(stack[depth - 2].bytes, stack[depth - 1].bytes, stack[depth - 2].bytes);
	}
	must(depth == 1);
	*ret = stack[0];
}

/* The height of the left subtree of a tree of n leaves: the largest power of two below n. */
static unsigned left_height(uint64_t n)
{
	must(n > 1);
	return 63 - (unsigned)__builtin_clzll(n - 1);
}

/* Over the leaves [first, end): from whole subtrees, the largest first, so first is at one of that size. */
static enum err_code range(const struct tree_source *s, uint64_t first, uint64_t end, struct tree_hash *ret,
			   struct err *err)
{
	struct tree_hash parts[64];
	size_t n = 0;
	must(first < end);
	for (uint64_t at = first; at < end; n++) {
		unsigned height = 63 - (unsigned)__builtin_clzll(end - at);
		enum err_code code = s->node(s->arg, height, at >> height, &parts[n], err);
		if (code)
			return code;
		at += (uint64_t)1 << height;
	}
	bool swapped = plant("tree-odd-edge") && n > 2;
	for (*ret = parts[--n]; n > 0; n--) {
		if (swapped)
			record_node(ret->bytes, parts[n - 1].bytes, ret->bytes);
		else
			record_node(parts[n - 1].bytes, ret->bytes, ret->bytes);
	}
	return ERR_OK;
}

enum err_code tree_root(const struct tree_source *s, uint64_t size, struct tree_hash *ret, struct err *err)
{
	if (size > 0)
		return range(s, 0, size, ret, err);
	record_sha256((struct span){0}, ret->bytes);
	return ERR_OK;
}

/* What was gathered from the root down, from the leaf up. */
static void turn(struct tree_proof *p)
{
	for (size_t i = 0; i < p->count / 2; i++) {
		struct tree_hash h = p->hashes[i];
		p->hashes[i] = p->hashes[p->count - 1 - i];
		p->hashes[p->count - 1 - i] = h;
	}
}

static enum err_code put_range(const struct tree_source *s, uint64_t first, uint64_t end, struct tree_proof *p,
			       struct err *err)
{
	must(p->count < TREE_PROOF_HASHES);
	return range(s, first, end, &p->hashes[p->count++], err);
}

enum err_code tree_inclusion(const struct tree_source *s, uint64_t index, uint64_t size, struct tree_proof *ret,
			     struct err *err)
{
	uint64_t first = 0, end = size;
	enum err_code code = ERR_OK;
	must(index < size);
	ret->count = 0;
	while (!code && end - first > 1) {
		uint64_t middle = first + ((uint64_t)1 << left_height(end - first));
		if (index < middle) {
			code = put_range(s, middle, end, ret, err);
			end = middle;
		} else {
			code = put_range(s, first, middle, ret, err);
			first = middle;
		}
	}
	turn(ret);
	return code;
}

enum err_code tree_consistency(const struct tree_source *s, uint64_t old, uint64_t size, struct tree_proof *ret,
			       struct err *err)
{
	uint64_t first = 0, end = size;
	enum err_code code = ERR_OK;
	must(old <= size);
	ret->count = 0;
	if (old == 0 || old == size)
		return ERR_OK;
	/* Down to where the old tree's last subtree ends; it is a part of the proof unless it is the old tree. */
	while (!code && end != old) {
		uint64_t middle = first + ((uint64_t)1 << left_height(end - first));
		if (old <= middle) {
			code = put_range(s, middle, end, ret, err);
			end = middle;
		} else {
			code = put_range(s, first, middle, ret, err);
			first = middle;
		}
	}
	if (!code && first > 0)
		code = put_range(s, first, end, ret, err);
	turn(ret);
	return code;
}
