#include <config.h>

#include "base/text.h"

#include "base/endian.h"

size_t utf8_char(struct span s, uint32_t *ret)
{
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t c = s.p[0];
	size_t len = c < 0x80 ? 1 : c >> 5 == 6 ? 2 : c >> 4 == 14 ? 3 : c >> 3 == 30 ? 4 : 0;
	if (len == 0 || len > s.n)
		return 0;
	if (len > 1)
		c &= 0x7Fu >> len;
	for (size_t i = 1; i < len; i++) {
		if ((s.p[i] & 0xC0) != 0x80)
			return 0;
		c = c << 6 | (s.p[i] & 0x3F);
	}
	if (c < least[len] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
		return 0;
	*ret = c;
	return len;
}

/* How many bytes from i on are printable ASCII for certain: eight at a time, as most text is. */
static size_t ascii_run(struct span s, size_t i)
{
	const uint64_t each = 0x0101010101010101;
	size_t start = i;
	for (; i + 8 <= s.n; i += 8) {
		uint64_t w = get_le64(s.p + i);
		/* The top bit of a byte is set in one of these if it is above 0x7F, below 0x20 or 0x7F. */
		if ((w | ((w - each * 0x20) & ~w) | (w + each)) & each * 0x80)
			break;
	}
	while (i < s.n && s.p[i] >= 0x20 && s.p[i] < 0x7F)
		i++;
	return i - start;
}

static bool utf8_check(struct span s, bool controls_ok)
{
	uint32_t c;
	for (size_t i = ascii_run(s, 0), len; i < s.n; i += len + ascii_run(s, i + len)) {
		len = utf8_char(span_skip(s, i), &c);
		if (len == 0)
			return false;
		if (!controls_ok && (c < 0x20 || (c >= 0x7F && c < 0xA0)))
			return false;
	}
	return true;
}

bool utf8_valid(struct span s)
{
	return utf8_check(s, true);
}

bool utf8_valid_no_controls(struct span s)
{
	return utf8_check(s, false);
}

int hex_value(uint8_t digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	uint8_t c = digit | 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum err_code hex_encode(struct buf *out, struct span s)
{
	static const char digits[] = "0123456789abcdef";
	if (s.n > SIZE_MAX / 2)
		return ERR_LIMIT;
	enum err_code e = buf_reserve(out, s.n * 2);
	if (e)
		return e;
	for (size_t i = 0; i < s.n; i++) {
		out->p[out->n++] = (uint8_t)digits[s.p[i] >> 4];
		out->p[out->n++] = (uint8_t)digits[s.p[i] & 15];
	}
	return ERR_OK;
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

enum err_code base64_encode(struct buf *out, struct span s, bool pad)
{
	if (s.n > SIZE_MAX / 2)
		return ERR_LIMIT;
	size_t tail = s.n % 3, n = s.n / 3 * 4 + (tail == 0 ? 0 : pad ? 4 : tail + 1);
	enum err_code e = buf_reserve(out, n);
	if (e)
		return e;
	uint8_t *at = out->p + out->n;
	out->n += n;
	size_t i = 0;
	for (; i + 3 <= s.n; i += 3) {
		uint32_t v = (uint32_t)s.p[i] << 16 | (uint32_t)s.p[i + 1] << 8 | s.p[i + 2];
		for (int shift = 18; shift >= 0; shift -= 6)
			*at++ = (uint8_t)base64_digits[v >> shift & 63];
	}
	if (tail == 0)
		return ERR_OK;
	uint32_t v = (uint32_t)s.p[i] << 16 | (tail == 2 ? (uint32_t)s.p[i + 1] << 8 : 0);
	*at++ = (uint8_t)base64_digits[v >> 18];
	*at++ = (uint8_t)base64_digits[v >> 12 & 63];
	if (tail == 2)
		*at++ = (uint8_t)base64_digits[v >> 6 & 63];
	else if (pad)
		*at++ = '=';
	if (pad)
		*at = '=';
	return ERR_OK;
}

static int base64_value(uint8_t c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' || c == '-' ? 62 : c == '/' || c == '_' ? 63 : -1;
}

enum err_code base64_decode(struct buf *out, struct span s)
{
	/* Padding is only ever right where it fills the last group of four. */
	size_t n = s.n;
	if (n % 4 == 0 && n > 0 && s.p[n - 1] == '=') {
		n--;
		if (s.p[n - 1] == '=')
			n--;
	}
	if (n % 4 == 1)
		return ERR_INVALID;
	size_t bytes = n / 4 * 3 + (n % 4 ? n % 4 - 1 : 0), at = 0;
	enum err_code e = buf_reserve(out, bytes);
	if (e)
		return e;
	uint32_t acc = 0;
	unsigned int bits = 0;
	for (size_t i = 0; i < n; i++) {
		int v = base64_value(s.p[i]);
		if (v < 0)
			return ERR_INVALID;
		acc = acc << 6 | (uint32_t)v;
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out->p[out->n + at++] = (uint8_t)(acc >> bits);
		}
	}
	out->n += at;
	return ERR_OK;
}

enum err_code percent_decode(struct buf *out, struct span s)
{
	enum err_code e = buf_reserve(out, s.n);
	if (e)
		return e;
	size_t at = 0;
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = s.p[i];
		if (c == '%') {
			int high = s.n - i > 2 ? hex_value(s.p[i + 1]) : -1;
			int low = high >= 0 ? hex_value(s.p[i + 2]) : -1;
			if (low < 0)
				return ERR_INVALID;
			c = (uint8_t)(high << 4 | low);
			i += 2;
		}
		out->p[out->n + at++] = c;
	}
	out->n += at;
	return ERR_OK;
}

bool parse_u64(struct span s, uint64_t *ret)
{
	uint64_t v = 0;
	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v))
			return false;
	}
	*ret = v;
	return true;
}

bool parse_i64(struct span s, int64_t *ret)
{
	bool negative = s.n > 0 && s.p[0] == '-';
	uint64_t v;
	if (!parse_u64(negative ? span_skip(s, 1) : s, &v))
		return false;
	if (v > (uint64_t)INT64_MAX + (negative ? 1 : 0))
		return false;
	*ret = negative ? (int64_t)(0 - v) : (int64_t)v;
	return true;
}
