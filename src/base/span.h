/* Borrowed bytes: a pointer and a length, never owning, never terminated. Passed by value. */
#ifndef CAIRN_BASE_SPAN_H
#define CAIRN_BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct span {
	const uint8_t *p;
	size_t n;
};

#define SPAN(literal) ((struct span){(const uint8_t *)("" literal), sizeof(literal) - 1})
/* For printf("%.*s"): only for text known to be short. */
#define SPAN_ARG(s) ((int)((s).n > 4096 ? 4096 : (s).n)), ((const char *)(s).p)

static inline struct span span_of(const void *p, size_t n)
{
	return (struct span){(const uint8_t *)p, n};
}
static inline struct span span_str(const char *text) /* NULL gives the empty span */
{
	return (struct span){(const uint8_t *)text, text ? strlen(text) : 0};
}
static inline bool span_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
/* Byte order, shorter first among equal prefixes: <0, 0, >0. */
static inline int span_cmp(struct span a, struct span b)
{
	size_t n = a.n < b.n ? a.n : b.n;
	int c = n ? memcmp(a.p, b.p, n) : 0;
	return c ? c : (a.n > b.n) - (a.n < b.n);
}
static inline bool span_starts(struct span s, struct span prefix)
{
	return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}
static inline struct span span_skip(struct span s, size_t n) /* n <= s.n */
{
	return (struct span){s.p + n, s.n - n};
}
static inline struct span span_first(struct span s, size_t n) /* n <= s.n */
{
	return (struct span){s.p, n};
}
/* Index of the first byte c, or s.n. */
static inline size_t span_find(struct span s, uint8_t c)
{
	const void *at = s.n ? memchr(s.p, c, s.n) : NULL;
	return at ? (size_t)((const uint8_t *)at - s.p) : s.n;
}
static inline bool span_eq_str(struct span s, const char *text)
{
	return span_eq(s, span_str(text));
}
/* The same but for the case of ASCII letters. */
static inline bool span_eq_nocase(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || strncasecmp((const char *)a.p, (const char *)b.p, a.n) == 0);
}
/* Without the spaces and tabs at both ends. */
static inline struct span span_trim(struct span s)
{
	while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
		s = span_skip(s, 1);
	while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
		s.n--;
	return s;
}

#endif
