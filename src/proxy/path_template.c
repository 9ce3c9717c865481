#include <config.h>

#include "proxy/path_template.h"

#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"

enum segment_kind { SEGMENT_LITERAL, SEGMENT_ONE, SEGMENT_REST };

struct segment {
	enum segment_kind kind;
	struct span literal; /* percent-decoded, in `text` */
};

struct variable {
	struct span field_path;
	size_t first, count; /* the segments it covers */
};

struct path_template {
	uint8_t *text; /* a copy of the template, which the spans point into */
	struct span verb;
	struct segment segments[PATH_SEGMENTS_MAX];
	size_t segment_count;
	struct variable variables[PATH_VARIABLES_MAX];
	size_t variable_count;
	size_t literal_count;
};

/* --- parsing -------------------------------------------------------------------------------------- */

struct parser {
	struct path_template *t;
	struct span rest;
	size_t length; /* of the whole text, for error places */
	struct err *err;
};

static enum err_code parse_fail(struct parser *p, const char *what)
{
	return err_set(p->err, ERR_INVALID, "path template: %s at character %zu", what,
		       p->length - p->rest.n + 1);
}

static bool at(const struct parser *p, char c)
{
	return p->rest.n > 0 && p->rest.p[0] == (uint8_t)c;
}

static bool take(struct parser *p, char c)
{
	if (!at(p, c))
		return false;
	p->rest = span_skip(p->rest, 1);
	return true;
}

/* Decodes %XX in place (the result is never longer). */
static enum err_code literal_decode(struct parser *p, struct span raw, struct span *ret)
{
	struct buf decoded;
	buf_init(&decoded, raw.n + 1);
	enum err_code code = percent_decode(&decoded, raw);
	if (!code) {
		uint8_t *place = p->t->text + (raw.p - p->t->text);
		if (decoded.n > 0)
			memcpy(place, decoded.p, decoded.n);
		*ret = span_of(place, decoded.n);
	}
	buf_release(&decoded);
	return code == ERR_INVALID ? parse_fail(p, "broken %-escape") : code;
}

static enum err_code parse_literal(struct parser *p, struct segment *ret)
{
	size_t n = 0;
	while (n < p->rest.n && !memchr("/{}*:?=#", p->rest.p[n], 8) && p->rest.p[n] > ' ')
		n++;
	if (n == 0)
		return parse_fail(p, "a segment is expected");
	struct span raw = span_first(p->rest, n);
	p->rest = span_skip(p->rest, n);
	ret->kind = SEGMENT_LITERAL;
	p->t->literal_count++;
	return literal_decode(p, raw, &ret->literal);
}

static enum err_code add_plain_segment(struct parser *p)
{
	struct path_template *t = p->t;
	if (t->segment_count == PATH_SEGMENTS_MAX)
		return parse_fail(p, "too many segments");
	if (t->segment_count > 0 && t->segments[t->segment_count - 1].kind == SEGMENT_REST)
		return parse_fail(p, "nothing may follow '**'");
	struct segment *s = &t->segments[t->segment_count];
	if (take(p, '*')) {
		s->kind = take(p, '*') ? SEGMENT_REST : SEGMENT_ONE;
	} else {
		enum err_code code = parse_literal(p, s);
		if (code)
			return code;
	}
	t->segment_count++;
	return ERR_OK;
}

static bool is_identifier_byte(uint8_t c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
	       (!first && c >= '0' && c <= '9');
}

static enum err_code parse_field_path(struct parser *p, struct span *ret)
{
	const uint8_t *start = p->rest.p;
	bool first = true;
	while (p->rest.n > 0) {
		uint8_t c = p->rest.p[0];
		if (c == '.' && !first)
			first = true;
		else if (is_identifier_byte(c, first))
			first = false;
		else
			break;
		p->rest = span_skip(p->rest, 1);
	}
	if (first)
		return parse_fail(p, "a field name is expected");
	*ret = span_of(start, (size_t)(p->rest.p - start));
	return ERR_OK;
}

static enum err_code parse_segments(struct parser *p, bool in_variable);

static enum err_code parse_variable(struct parser *p)
{
	struct path_template *t = p->t;
	if (t->variable_count == PATH_VARIABLES_MAX)
		return parse_fail(p, "too many variables");
	struct variable *v = &t->variables[t->variable_count];
	v->first = t->segment_count;
	enum err_code code = parse_field_path(p, &v->field_path);
	if (code)
		return code;
	if (take(p, '=')) {
		code = parse_segments(p, true);
	} else if (t->segment_count == PATH_SEGMENTS_MAX) {
		code = parse_fail(p, "too many segments");
	} else if (t->segment_count > 0 && t->segments[t->segment_count - 1].kind == SEGMENT_REST) {
		code = parse_fail(p, "nothing may follow '**'");
	} else {
		t->segments[t->segment_count++].kind = SEGMENT_ONE;
	}
	if (code)
		return code;
	if (!take(p, '}'))
		return parse_fail(p, "'}' is expected");
	v->count = t->segment_count - v->first;
	t->variable_count++;
	return ERR_OK;
}

static enum err_code parse_segments(struct parser *p, bool in_variable)
{
	do {
		enum err_code code;
		if (at(p, '{') && in_variable)
			return parse_fail(p, "a variable inside a variable");
		if (take(p, '{'))
			code = parse_variable(p);
		else
			code = add_plain_segment(p);
		if (code)
			return code;
	} while (take(p, '/'));
	return ERR_OK;
}

static enum err_code parse_verb(struct parser *p)
{
	if (!take(p, ':'))
		return ERR_OK;
	struct span raw = p->rest;
	if (raw.n == 0 || span_find(raw, '/') < raw.n || span_find(raw, ':') < raw.n ||
	    span_find(raw, '{') < raw.n || span_find(raw, '*') < raw.n)
		return parse_fail(p, "a verb without '/', ':', '{' and '*' is expected");
	p->rest = span_skip(raw, raw.n);
	return literal_decode(p, raw, &p->t->verb);
}

enum err_code path_template_parse(struct span text, struct path_template **ret, struct err *err)
{
	must(ret != NULL);
	struct path_template *t = mem_xalloc(sizeof(*t));
	t->text = mem_xdup(text.p, text.n);
	struct parser p = {t, span_of(t->text, text.n), text.n, err};
	enum err_code code;
	if (!take(&p, '/'))
		code = parse_fail(&p, "it must begin with '/'");
	else if (p.rest.n == 0)
		code = ERR_OK; /* "/" alone: no segments */
	else
		code = parse_segments(&p, false);
	if (!code)
		code = parse_verb(&p);
	if (!code && p.rest.n > 0)
		code = parse_fail(&p, "unexpected character");
	if (code) {
		path_template_free(t);
		return code;
	}
	*ret = t;
	return ERR_OK;
}

void path_template_free(struct path_template *t)
{
	if (!t)
		return;
	mem_free(t->text);
	mem_free(t);
}

size_t path_template_variables(const struct path_template *t)
{
	return t->variable_count;
}

struct span path_template_variable(const struct path_template *t, size_t i)
{
	must(i < t->variable_count);
	return t->variables[i].field_path;
}

struct span path_template_verb(const struct path_template *t)
{
	return t->verb;
}

size_t path_template_literals(const struct path_template *t)
{
	return t->literal_count;
}

/* --- matching ----------------------------------------------------------------------------------------- */

static enum err_code decode_into(struct arena *a, struct span raw, struct span *ret, struct err *err)
{
	if (span_find(raw, '%') == raw.n) {
		*ret = raw;
		return ERR_OK;
	}
	struct buf decoded;
	buf_init(&decoded, raw.n + 1);
	enum err_code code = percent_decode(&decoded, raw);
	if (!code) {
		*ret = arena_dup(a, buf_span(&decoded));
		code = ret->p ? ERR_OK : err_set(err, ERR_NOMEM, "request path: out of memory");
	} else if (code == ERR_INVALID) {
		err_set(err, ERR_INVALID, "request path: broken %%-escape in \"%.*s\"", SPAN_ARG(raw));
	}
	buf_release(&decoded);
	return code;
}

static bool literal_matches(struct span raw, struct span literal, struct arena *a)
{
	struct span decoded;
	return !decode_into(a, raw, &decoded, NULL) && span_eq(decoded, literal);
}

/* Takes "word" off a path that ends in ":word"; false if it does not end in the template's verb. */
static bool strip_verb(const struct path_template *t, struct span *path, struct arena *a)
{
	if (t->verb.n == 0)
		return true;
	for (size_t i = path->n; i > 0 && path->p[i - 1] != '/'; i--) {
		if (path->p[i - 1] != ':')
			continue;
		if (!literal_matches(span_skip(*path, i), t->verb, a))
			return false;
		*path = span_first(*path, i - 1);
		return true;
	}
	return false;
}

/* Cuts the path into one piece a template segment; false if the shapes differ. */
static bool match_segments(const struct path_template *t, struct span path, struct arena *a,
			   struct span pieces[PATH_SEGMENTS_MAX])
{
	if (t->segment_count == 0)
		return path.n == 0;
	bool more = true; /* is there another segment in the path? */
	for (size_t i = 0; i < t->segment_count; i++) {
		const struct segment *s = &t->segments[i];
		if (s->kind == SEGMENT_REST) {
			pieces[i] = more ? path : span_of(path.p, 0);
			return true; /* parsing made sure that it is the last */
		}
		if (!more)
			return false;
		size_t n = span_find(path, '/');
		pieces[i] = span_first(path, n);
		more = n < path.n;
		path = span_skip(path, more ? n + 1 : n);
		if (pieces[i].n == 0)
			return false;
		if (s->kind == SEGMENT_LITERAL && !literal_matches(pieces[i], s->literal, a))
			return false;
	}
	return !more;
}

enum err_code path_template_match(const struct path_template *t, struct span path, struct arena *a,
				  struct span *ret_values, struct err *err)
{
	struct span pieces[PATH_SEGMENTS_MAX], values[PATH_VARIABLES_MAX];
	if (path.n == 0 || path.p[0] != '/')
		return ERR_NOT_FOUND;
	path = span_skip(path, 1);
	if (!strip_verb(t, &path, a) || !match_segments(t, path, a, pieces))
		return ERR_NOT_FOUND;
	for (size_t i = 0; i < t->variable_count; i++) {
		const struct variable *v = &t->variables[i];
		struct span first = pieces[v->first], last = pieces[v->first + v->count - 1];
		struct span raw = span_of(first.p, (size_t)(last.p + last.n - first.p));
		enum err_code code = decode_into(a, raw, &values[i], err);
		if (code)
			return code;
	}
	if (t->variable_count > 0)
		memcpy(ret_values, values, t->variable_count * sizeof(values[0]));
	return ERR_OK;
}

/* --- examples
 * ----------------------------------------------------------------------------------------------- */

enum err_code path_template_expand(const struct path_template *t, const char *const *values, struct buf *out)
{
	enum err_code code = ERR_OK;
	size_t next_variable = 0;
	if (t->segment_count == 0)
		code = buf_append_byte(out, '/');
	for (size_t i = 0; !code && i < t->segment_count; i++) {
		const struct segment *s = &t->segments[i];
		const struct variable *v = &t->variables[next_variable];
		bool inside = next_variable < t->variable_count && i >= v->first;
		const char *value = inside && values[next_variable] ? values[next_variable]
				    : inside                        ? "0"
								    : "x";
		code = buf_append_byte(out, '/');
		if (!code && s->kind == SEGMENT_LITERAL)
			code = buf_append_span(out, s->literal);
		else if (!code)
			code = buf_append_str(out, value);
		if (inside && i + 1 == v->first + v->count)
			next_variable++;
	}
	if (!code && t->verb.n > 0)
		code = buf_printf(out, ":%.*s", SPAN_ARG(t->verb));
	return code;
}
