#include <config.h>

#include "grpc/outq.h"

#include "base/mem.h"
#include "base/must.h"

/* From this size on a copied piece gets memory of its own, so that moving it on shares it. */
#define OUT_SHARE_BYTES ((size_t)4096)
/* Below this size a piece of shared memory is rather copied than described. */
#define OUT_REF_MIN_BYTES ((size_t)1024)

struct out_ref {
	unsigned refs;
	void (*free_fn)(void *arg);
	void *free_arg;
	uint8_t bytes[]; /* where the bytes are our own copy */
};

struct out_seg {
	struct out_seg *next;
	const uint8_t *p;
	size_t n;
	struct out_ref *ref; /* whose bytes p points into; NULL: in this block */
	size_t cap_bytes;    /* of bytes[] */
	uint8_t bytes[];
};

static void ref_drop(struct out_ref *ref)
{
	if (!ref || --ref->refs)
		return;
	if (ref->free_fn)
		ref->free_fn(ref->free_arg);
	mem_free(ref);
}

static void seg_push(struct outq *q, struct out_seg *seg)
{
	seg->next = NULL;
	if (q->last)
		q->last->next = seg;
	else
		q->first = seg;
	q->last = seg;
	q->n += seg->n;
}

static void seg_pop(struct outq *q)
{
	struct out_seg *seg = q->first;
	q->first = seg->next;
	if (!q->first)
		q->last = NULL;
	ref_drop(seg->ref);
	if (!seg->ref && seg->cap_bytes == q->block_bytes && !q->spare)
		q->spare = seg;
	else
		mem_free(seg);
}

void outq_init(struct outq *q, size_t block_bytes)
{
	*q = (struct outq){.block_bytes = block_bytes};
}

void outq_release(struct outq *q)
{
	while (q->first)
		seg_pop(q);
	mem_free(q->spare);
	q->spare = NULL;
	q->n = 0;
}

static struct out_seg *seg_new(struct outq *q, size_t cap_bytes)
{
	struct out_seg *seg = NULL;
	if (cap_bytes == q->block_bytes && q->spare) {
		seg = q->spare;
		q->spare = NULL;
	} else {
		if (cap_bytes > SIZE_MAX - sizeof(*seg))
			return NULL;
		seg = mem_try_alloc(sizeof(*seg) + cap_bytes);
		if (!seg)
			return NULL;
	}
	seg->next = NULL;
	seg->p = seg->bytes;
	seg->n = 0;
	seg->ref = NULL;
	seg->cap_bytes = cap_bytes;
	return seg;
}

/* The bytes from p on belong to ref; takes one reference of it on success. */
static enum err_code seg_push_ref(struct outq *q, struct out_ref *ref, const uint8_t *p, size_t n)
{
	struct out_seg *seg = seg_new(q, 0);
	if (!seg)
		return ERR_NOMEM;
	seg->ref = ref;
	seg->p = p;
	seg->n = n;
	ref->refs++;
	seg_push(q, seg);
	return ERR_OK;
}

static size_t seg_room(const struct outq *q)
{
	const struct out_seg *seg = q->last;
	if (!seg || seg->ref)
		return 0;
	return seg->cap_bytes - (size_t)(seg->p - seg->bytes) - seg->n;
}

static void seg_put(struct outq *q, const void *p, size_t n)
{
	struct out_seg *seg = q->last;
	memcpy(seg->bytes + (seg->p - seg->bytes) + seg->n, p, n);
	seg->n += n;
	q->n += n;
}

static enum err_code outq_append_own(struct outq *q, const void *p, size_t n)
{
	if (n > SIZE_MAX - sizeof(struct out_ref))
		return ERR_NOMEM;
	struct out_ref *ref = mem_try_alloc(sizeof(*ref) + n);
	if (!ref)
		return ERR_NOMEM;
	*ref = (struct out_ref){0};
	memcpy(ref->bytes, p, n);
	if (seg_push_ref(q, ref, ref->bytes, n)) {
		mem_free(ref);
		return ERR_NOMEM;
	}
	return ERR_OK;
}

enum err_code outq_append(struct outq *q, const void *p, size_t n)
{
	if (n == 0)
		return ERR_OK;
	if (n <= seg_room(q)) {
		seg_put(q, p, n);
		return ERR_OK;
	}
	if (n >= OUT_SHARE_BYTES)
		return outq_append_own(q, p, n);
	struct out_seg *seg = seg_new(q, n > q->block_bytes ? n : q->block_bytes);
	if (!seg)
		return ERR_NOMEM;
	seg_push(q, seg);
	seg_put(q, p, n);
	return ERR_OK;
}

enum err_code outq_append_ref(struct outq *q, struct span piece, void (*free_fn)(void *arg), void *free_arg)
{
	struct out_ref *ref = piece.n ? mem_try_alloc(sizeof(*ref)) : NULL;
	if (ref) {
		*ref = (struct out_ref){.free_fn = free_fn, .free_arg = free_arg};
		if (seg_push_ref(q, ref, piece.p, piece.n) == ERR_OK)
			return ERR_OK;
		mem_free(ref);
	}
	if (free_fn)
		free_fn(free_arg);
	return piece.n ? ERR_NOMEM : ERR_OK;
}

enum err_code outq_move(struct outq *dst, struct outq *src, size_t n)
{
	must(n <= src->n);
	while (n) {
		struct out_seg *seg = src->first;
		size_t take = seg->n < n ? seg->n : n;
		enum err_code rc = seg->ref && take >= OUT_REF_MIN_BYTES
					   ? seg_push_ref(dst, seg->ref, seg->p, take)
					   : outq_append(dst, seg->p, take);
		if (rc)
			return rc;
		outq_consume(src, take);
		n -= take;
	}
	return ERR_OK;
}

int outq_iov(const struct outq *q, struct iovec *iov, int max)
{
	int count = 0;
	for (const struct out_seg *seg = q->first; seg && count < max; seg = seg->next) {
		/* writev() does not write to it; iovec has no const. */
		iov[count].iov_base = (void *)(uintptr_t)seg->p;
		iov[count].iov_len = seg->n;
		count++;
	}
	return count;
}

void outq_consume(struct outq *q, size_t n)
{
	must(n <= q->n);
	q->n -= n;
	while (n) {
		struct out_seg *seg = q->first;
		size_t take = seg->n < n ? seg->n : n;
		seg->p += take;
		seg->n -= take;
		n -= take;
		if (seg->n == 0)
			seg_pop(q);
	}
}
