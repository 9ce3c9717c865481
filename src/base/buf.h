/* A growing byte buffer with a hard maximum: the only way to collect bytes whose number a peer decides.
 *
 *	struct buf b;
 *	buf_init(&b, LIMIT_RECORD_BYTES);
 *	if (buf_append(&b, p, n)) ...		// ERR_LIMIT or ERR_NOMEM, the buffer unchanged
 *	buf_release(&b);
 *
 * Bytes between p and p + n are valid; nothing is terminated (buf_cstr() terminates for a reader of C
 * strings). Appending may move p. One thread at a time. */
#ifndef CAIRN_BASE_BUF_H
#define CAIRN_BASE_BUF_H

#include "base/err.h"
#include "base/span.h"

struct buf {
	uint8_t *p;
	size_t n;
	size_t cap_bytes;
	size_t max_bytes;
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_release(struct buf *b); /* frees the contents; b may be initialised again */
void buf_clear(struct buf *b);	 /* n = 0, keeps the memory */

enum err_code buf_append(struct buf *b, const void *p, size_t n);
enum err_code buf_append_span(struct buf *b, struct span s);
enum err_code buf_append_byte(struct buf *b, uint8_t byte);
enum err_code buf_append_str(struct buf *b, const char *text);
enum err_code buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Room for n more bytes, uninitialised, at b->p + b->n; the caller adds what it wrote to b->n. */
enum err_code buf_reserve(struct buf *b, size_t n);

/* Gives memory back that the contents do not need. */
void buf_shrink(struct buf *b);

/* Drops the first n bytes (n <= b->n). */
void buf_consume(struct buf *b, size_t n);

static inline struct span buf_span(const struct buf *b)
{
	return span_of(b->p, b->n);
}

/* The contents as a C string, valid until the next change; NULL when out of memory or room. */
const char *buf_cstr(struct buf *b);

/* Hands the memory to the caller, who frees it with mem_free(); b is empty afterwards. */
uint8_t *buf_detach(struct buf *b, size_t *ret_n);

#endif
