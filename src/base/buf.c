#include <config.h>

#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/mem.h"
#include "base/must.h"

/* One byte more than cap_bytes is always allocated, for the terminator of buf_cstr() and buf_printf(). */
#define BUF_FIRST_BYTES 64

void buf_init(struct buf *b, size_t max_bytes)
{
	must(max_bytes > 0);
	must(max_bytes < SIZE_MAX);
	*b = (struct buf){.max_bytes = max_bytes};
}

void buf_release(struct buf *b)
{
	mem_free(b->p);
	*b = (struct buf){.max_bytes = b->max_bytes};
}

void buf_clear(struct buf *b)
{
	b->n = 0;
}

enum err_code buf_reserve(struct buf *b, size_t n)
{
	must(b->n <= b->cap_bytes);
	must(b->cap_bytes <= b->max_bytes);
	if (n <= b->cap_bytes - b->n && b->p)
		return ERR_OK;
	if (n > b->max_bytes - b->n)
		return ERR_LIMIT;
	size_t need = b->n + n, cap = b->cap_bytes > b->max_bytes / 2 ? b->max_bytes : b->cap_bytes * 2;
	if (cap < BUF_FIRST_BYTES)
		cap = BUF_FIRST_BYTES < b->max_bytes ? BUF_FIRST_BYTES : b->max_bytes;
	if (cap < need)
		cap = need;
	uint8_t *p = mem_try_realloc(b->p, cap + 1);
	if (!p)
		return ERR_NOMEM;
	b->p = p;
	b->cap_bytes = cap;
	return ERR_OK;
}

enum err_code buf_append(struct buf *b, const void *p, size_t n)
{
	if (n == 0)
		return ERR_OK;
	enum err_code e = buf_reserve(b, n);
	if (e)
		return e;
	memcpy(b->p + b->n, p, n);
	b->n += n;
	return ERR_OK;
}

enum err_code buf_append_span(struct buf *b, struct span s)
{
	return buf_append(b, s.p, s.n);
}

enum err_code buf_append_byte(struct buf *b, uint8_t byte)
{
	return buf_append(b, &byte, 1);
}

enum err_code buf_append_str(struct buf *b, const char *text)
{
	return buf_append(b, text, strlen(text));
}

enum err_code buf_printf(struct buf *b, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	must(len >= 0);
	size_t n = (size_t)len;
	enum err_code e = buf_reserve(b, n);
	if (e)
		return e;
	va_start(ap, fmt);
	len = vsnprintf((char *)b->p + b->n, n + 1, fmt, ap);
	va_end(ap);
	must((size_t)len == n);
	b->n += n;
	return ERR_OK;
}

void buf_shrink(struct buf *b)
{
	uint8_t *p = b->p && b->n < b->cap_bytes ? mem_try_realloc(b->p, b->n + 1) : NULL;
	if (!p)
		return;
	b->p = p;
	b->cap_bytes = b->n;
}

void buf_consume(struct buf *b, size_t n)
{
	must(n <= b->n);
	b->n -= n;
	if (b->n && n)
		memmove(b->p, b->p + n, b->n);
}

const char *buf_cstr(struct buf *b)
{
	if (buf_reserve(b, 0))
		return NULL;
	b->p[b->n] = 0;
	return (const char *)b->p;
}

uint8_t *buf_detach(struct buf *b, size_t *ret_n)
{
	uint8_t *p = b->p;
	*ret_n = b->n;
	*b = (struct buf){.max_bytes = b->max_bytes};
	return p;
}
