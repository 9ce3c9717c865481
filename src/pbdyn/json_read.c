/* The JSON reader: RFC 8259, strictly. */
#include <config.h>

#include "pbdyn/json.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/text.h"

/* --- places and errors --- */

static size_t add_text(char *to, size_t n, size_t cap, struct span text)
{
	for (size_t i = 0; i < text.n && n + 1 < cap; i++)
		to[n++] = text.p[i] < 0x20 || text.p[i] == 0x7f ? '?' : (char)text.p[i];
	return n;
}

static size_t add_place(char *to, size_t n, size_t cap, const struct json_place *place)
{
	char index[32];
	if (!place)
		return n;
	n = add_place(to, n, cap, place->up);
	if (!place->name.p) {
		int len = snprintf(index, sizeof(index), "[%zu]", place->index);
		return add_text(to, n, cap, span_of(index, (size_t)len));
	}
	if (n)
		n = add_text(to, n, cap, SPAN("."));
	return add_text(to, n, cap, place->name);
}

enum err_code pbjson_locate(const struct json_reader *r, enum err_code code)
{
	char path[200];
	size_t line = 1, column = 1;
	if (!r->err)
		return code;
	for (size_t i = 0; i < r->token_at; i++) {
		column = r->text.p[i] == '\n' ? 1 : column + 1;
		line += r->text.p[i] == '\n';
	}
	size_t n = add_place(path, 0, sizeof(path), r->place);
	path[n] = 0;
	err_wrap(r->err, "line %zu, column %zu%s%s", line, column, n ? ", at " : "", path);
	return code;
}

enum err_code pbjson_fail(const struct json_reader *r, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX / 2];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	err_set(r->err, ERR_INVALID, "%s", text);
	return pbjson_locate(r, ERR_INVALID);
}

enum err_code pbjson_expected(const struct json_reader *r, const char *what)
{
	static const char *const names[] = {
		[JSON_OBJECT] = "an object", [JSON_OBJECT_END] = "\"}\"", [JSON_ARRAY] = "an array",
		[JSON_ARRAY_END] = "\"]\"",  [JSON_COLON] = "\":\"",      [JSON_COMMA] = "\",\"",
		[JSON_STRING] = "a string",  [JSON_NUMBER] = "a number",  [JSON_TRUE] = "true",
		[JSON_FALSE] = "false",      [JSON_NULL] = "null",        [JSON_END] = "the end of the text",
	};
	return pbjson_fail(r, "expected %s, found %s", what, names[r->token]);
}

/* --- tokens --- */

static bool is_hex(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* A string from behind its opening quote to behind the closing one; escapes are checked for form. */
static enum err_code scan_string(struct json_reader *r)
{
	const uint8_t *p = r->text.p;
	size_t begin = r->at, i = r->at, n = r->text.n;
	r->escaped = false;
	while (i < n && p[i] != '"') {
		if (p[i] < 0x20)
			return pbjson_fail(r, "a string holds a control character");
		if (p[i++] != '\\')
			continue;
		r->escaped = true;
		if (i == n)
			break;
		if (p[i] == 'u') {
			bool whole = n - i > 4 && is_hex(p[i + 1]) && is_hex(p[i + 2]) && is_hex(p[i + 3]) &&
				     is_hex(p[i + 4]);
			if (!whole)
				return pbjson_fail(r, "a \\u escape needs four hex digits");
			i += 5;
		} else if (p[i] && strchr("\"\\/bfnrt", p[i])) {
			i++;
		} else {
			return pbjson_fail(r, "a string has an unknown escape");
		}
	}
	if (i >= n)
		return pbjson_fail(r, "a string has no end");
	r->raw = span_of(p + begin, i - begin);
	r->at = i + 1;
	r->token = JSON_STRING;
	return ERR_OK;
}

static enum err_code scan_word(struct json_reader *r, const char *word, enum json_token token)
{
	struct span rest = span_skip(r->text, r->token_at), want = span_str(word);
	if (!span_starts(rest, want))
		return pbjson_fail(r, "this is not JSON");
	r->at = r->token_at + want.n;
	r->token = token;
	return ERR_OK;
}

static enum err_code scan_number(struct json_reader *r)
{
	size_t i = r->token_at;
	while (i < r->text.n && r->text.p[i] && strchr("+-.0123456789eE", r->text.p[i]))
		i++;
	r->raw = span_of(r->text.p + r->token_at, i - r->token_at);
	if (!number_is_json(r->raw))
		return pbjson_fail(r, "this is not JSON");
	r->at = i;
	r->token = JSON_NUMBER;
	return ERR_OK;
}

enum err_code pbjson_advance(struct json_reader *r)
{
	const uint8_t *p = r->text.p;
	while (r->at < r->text.n &&
	       (p[r->at] == ' ' || p[r->at] == '\n' || p[r->at] == '\r' || p[r->at] == '\t'))
		r->at++;
	r->token_at = r->at;
	if (r->at == r->text.n) {
		r->token = JSON_END;
		return ERR_OK;
	}
	switch (p[r->at]) {
	case '{': r->token = JSON_OBJECT; break;
	case '}': r->token = JSON_OBJECT_END; break;
	case '[': r->token = JSON_ARRAY; break;
	case ']': r->token = JSON_ARRAY_END; break;
	case ':': r->token = JSON_COLON; break;
	case ',': r->token = JSON_COMMA; break;
	case '"': r->at++; return scan_string(r);
	case 't': return scan_word(r, "true", JSON_TRUE);
	case 'f': return scan_word(r, "false", JSON_FALSE);
	case 'n': return scan_word(r, "null", JSON_NULL);
	default: return scan_number(r);
	}
	r->at++;
	return ERR_OK;
}

enum err_code pbjson_begin(struct json_reader *r, struct span text, struct arena *arena, struct err *err)
{
	*r = (struct json_reader){.text = text, .arena = arena, .err = err, .lookahead_left = 16 * text.n};
	if (!utf8_valid(text))
		return pbjson_fail(r, "the text is not UTF-8");
	return pbjson_advance(r);
}

/* --- strings --- */

static uint32_t hex4(const uint8_t *p)
{
	uint32_t v = 0;
	for (int i = 0; i < 4; i++) {
		uint32_t c = p[i];
		v = v << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
	}
	return v;
}

static size_t put_utf8(uint8_t *to, uint32_t c)
{
	if (c < 0x80) {
		to[0] = (uint8_t)c;
		return 1;
	}
	size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	for (size_t i = n; i-- > 1; c >>= 6)
		to[i] = (uint8_t)(0x80 | (c & 0x3f));
	to[0] = (uint8_t)((0xf00 >> n) | c); /* 0xc0, 0xe0, 0xf0 */
	return n;
}

/* The character behind "\u" at raw[i], which may take the other half of a surrogate pair with it. */
static bool take_unicode(struct span raw, size_t *i, uint32_t *ret)
{
	uint32_t c = hex4(raw.p + *i);
	*i += 4;
	if (c >= 0xdc00 && c <= 0xdfff)
		return false;
	if (c >= 0xd800 && c <= 0xdbff) {
		if (raw.n - *i < 6 || raw.p[*i] != '\\' || raw.p[*i + 1] != 'u')
			return false;
		uint32_t low = hex4(raw.p + *i + 2);
		if (low < 0xdc00 || low > 0xdfff)
			return false;
		*i += 6;
		c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
	}
	*ret = c;
	return true;
}

static enum err_code unescape(const struct json_reader *r, struct span *ret)
{
	static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
	struct span raw = r->raw;
	uint8_t *to = arena_alloc(r->arena, raw.n + 1); /* never longer than its escapes */
	size_t n = 0;
	if (!to)
		return arena_exhausted(r->err);
	for (size_t i = 0; i < raw.n;) {
		uint32_t c = raw.p[i++];
		if (c != '\\') {
			to[n++] = (uint8_t)c;
			continue;
		}
		c = raw.p[i++];
		if (c != 'u') {
			to[n++] = (uint8_t)meanings[strchr(letters, (int)c) - letters];
		} else {
			if (!take_unicode(raw, &i, &c))
				return pbjson_fail(r, "a string holds half a surrogate pair");
			n += put_utf8(to + n, c);
		}
	}
	*ret = span_of(to, n);
	return ERR_OK;
}

enum err_code pbjson_string(const struct json_reader *r, struct span *ret)
{
	if (r->escaped)
		return unescape(r, ret);
	*ret = r->raw;
	return ERR_OK;
}

enum err_code pbjson_string_dup(const struct json_reader *r, struct span *ret)
{
	if (r->escaped)
		return unescape(r, ret);
	*ret = arena_dup(r->arena, r->raw);
	return ret->p || r->raw.n == 0 ? ERR_OK : arena_exhausted(r->err);
}

/* --- structure --- */

enum err_code pbjson_object_next(struct json_reader *r, bool *first, struct span *ret_key, bool *ret_done)
{
	enum err_code code;
	if (*first && (code = pbjson_advance(r))) /* the brace */
		return code;
	*ret_done = r->token == JSON_OBJECT_END;
	if (*ret_done)
		return pbjson_advance(r);
	if (!*first) {
		if (r->token != JSON_COMMA)
			return pbjson_expected(r, "\",\" or \"}\"");
		if ((code = pbjson_advance(r)))
			return code;
	}
	*first = false;
	if (r->token != JSON_STRING)
		return pbjson_expected(r, "a field name in quotes");
	if ((code = pbjson_string(r, ret_key)) || (code = pbjson_advance(r)))
		return code;
	if (r->token != JSON_COLON)
		return pbjson_expected(r, "\":\"");
	return pbjson_advance(r);
}

enum err_code pbjson_array_next(struct json_reader *r, bool *first, bool *ret_done)
{
	enum err_code code;
	bool begins = *first;
	if (begins && (code = pbjson_advance(r))) /* the bracket */
		return code;
	*first = false;
	*ret_done = r->token == JSON_ARRAY_END;
	if (*ret_done)
		return pbjson_advance(r);
	if (begins)
		return ERR_OK;
	if (r->token != JSON_COMMA)
		return pbjson_expected(r, "\",\" or \"]\"");
	return pbjson_advance(r);
}

/* Brackets are counted, not matched: whoever skips reads the same text properly afterwards. */
enum err_code pbjson_skip(struct json_reader *r)
{
	size_t open = 0;
	do {
		enum err_code code;
		switch (r->token) {
		case JSON_OBJECT:
		case JSON_ARRAY: open++; break;
		case JSON_OBJECT_END:
		case JSON_ARRAY_END:
			if (open == 0)
				return pbjson_expected(r, "a value");
			open--;
			break;
		case JSON_COLON:
		case JSON_COMMA:
			if (open == 0)
				return pbjson_expected(r, "a value");
			break;
		case JSON_END: return pbjson_expected(r, "a value");
		default: break;
		}
		if ((code = pbjson_advance(r)))
			return code;
	} while (open);
	return ERR_OK;
}
