#include <config.h>

#include "proxy/http_binding.h"

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"

#define OPTION_HTTP 72295728u

/* Field numbers of google.api.HttpRule. */
enum {
	RULE_SELECTOR = 1,
	RULE_GET = 2,
	RULE_PUT = 3,
	RULE_POST = 4,
	RULE_DELETE = 5,
	RULE_PATCH = 6,
	RULE_BODY = 7,
	RULE_CUSTOM = 8,
	RULE_ADDITIONAL = 11,
	RULE_RESPONSE_BODY = 12
};

struct http_bindings {
	struct http_binding *items;
	size_t n, cap;
};

/* --- building ---------------------------------------------------------------------------------------- */

/* A rule as it stands in the option. */
struct rule {
	struct span selector, verb, path, body, response_body;
	struct span additional[16];
	size_t additional_count;
};

static enum err_code rule_fail(const struct pb_method *m, struct err *err, const char *what,
			       struct span subject)
{
	return err_set(err, ERR_INVALID, "google.api.http of %.*s: %s%s%.*s%s", SPAN_ARG(m->full_name), what,
		       subject.n ? " \"" : "", SPAN_ARG(subject), subject.n ? "\"" : "");
}

static bool rule_custom(struct span bytes, struct rule *r)
{
	struct pb_wire_field f;
	int got;
	r->verb = r->path = span_of(NULL, 0);
	while ((got = pb_wire_next(&bytes, &f)) > 0) {
		if (f.wire != PB_BYTES_FIELD)
			continue;
		if (f.number == 1)
			r->verb = f.bytes;
		else if (f.number == 2)
			r->path = f.bytes;
	}
	return got == 0;
}

static void rule_pattern(struct rule *r, const char *verb, struct span path)
{
	r->verb = span_str(verb);
	r->path = path;
}

static enum err_code rule_read(const struct pb_method *m, struct span bytes, struct rule *r, struct err *err)
{
	struct pb_wire_field f;
	int got;
	*r = (struct rule){0};
	while ((got = pb_wire_next(&bytes, &f)) > 0) {
		if (f.wire != PB_BYTES_FIELD)
			continue;
		switch (f.number) {
		case RULE_SELECTOR: r->selector = f.bytes; break;
		case RULE_GET: rule_pattern(r, "GET", f.bytes); break;
		case RULE_PUT: rule_pattern(r, "PUT", f.bytes); break;
		case RULE_POST: rule_pattern(r, "POST", f.bytes); break;
		case RULE_DELETE: rule_pattern(r, "DELETE", f.bytes); break;
		case RULE_PATCH: rule_pattern(r, "PATCH", f.bytes); break;
		case RULE_BODY: r->body = f.bytes; break;
		case RULE_RESPONSE_BODY: r->response_body = f.bytes; break;
		case RULE_CUSTOM:
			if (!rule_custom(f.bytes, r))
				return rule_fail(m, err, "malformed custom pattern", SPAN(""));
			break;
		case RULE_ADDITIONAL:
			if (r->additional_count == ARRAY_LEN(r->additional))
				return rule_fail(m, err, "more than 16 additional bindings", SPAN(""));
			r->additional[r->additional_count++] = f.bytes;
			break;
		default: break;
		}
	}
	return got == 0 ? ERR_OK : rule_fail(m, err, "malformed rule", SPAN(""));
}

static enum err_code bind_variables(struct http_binding *b, struct err *err)
{
	size_t n = path_template_variables(b->path);
	b->variables = mem_xalloc((n ? n : 1) * sizeof(b->variables[0]));
	for (size_t i = 0; i < n; i++) {
		struct span name = path_template_variable(b->path, i);
		struct err why = {0};
		if (pb_path_find(b->method->input, name, &b->variables[i], &why))
			return rule_fail(b->method, err, why.text, SPAN(""));
		const struct pb_path *p = &b->variables[i];
		const struct pb_field *last = p->at[p->n - 1];
		if (last->repeated)
			return rule_fail(b->method, err, "a repeated field in the path:", name);
		if (last->sub)
			return rule_fail(b->method, err, "a message field in the path:", name);
		for (size_t k = 0; k < i; k++)
			if (span_eq(path_template_variable(b->path, k), name))
				return rule_fail(b->method, err, "a field twice in the path:", name);
	}
	return ERR_OK;
}

static enum err_code bind_body(struct http_binding *b, const struct rule *r, struct err *err)
{
	const struct pb_method *m = b->method;
	if (r->body.n > 0 && span_eq(b->verb, SPAN("GET")))
		return rule_fail(m, err, "a body on GET:", r->body);
	if (span_eq(r->body, SPAN("*"))) {
		b->body = HTTP_BODY_ALL;
	} else if (r->body.n > 0) {
		b->body = HTTP_BODY_FIELD;
		b->body_field = pb_field_by_name(m->input, r->body);
		if (!b->body_field)
			return rule_fail(m, err, "an unknown body field", r->body);
		if (b->body_field->repeated || !b->body_field->sub)
			return rule_fail(m, err, "a body field that is no message:", r->body);
	}
	if (r->response_body.n == 0)
		return ERR_OK;
	b->response_field = pb_field_by_name(m->output, r->response_body);
	if (!b->response_field)
		return rule_fail(m, err, "an unknown response_body field", r->response_body);
	return ERR_OK;
}

static struct http_binding *bindings_add(struct http_bindings *all, const struct pb_method *m)
{
	if (all->n == all->cap) {
		all->cap = all->cap ? 2 * all->cap : 16;
		all->items = mem_xrealloc(all->items, all->cap * sizeof(all->items[0]));
	}
	all->items[all->n] = (struct http_binding){.method = m};
	return &all->items[all->n++];
}

static enum err_code bind_rule(struct http_bindings *all, const struct pb_method *m, const struct rule *r,
			       struct err *err)
{
	if (r->verb.n == 0)
		return rule_fail(m, err, "a rule without a pattern", SPAN(""));
	if (r->selector.n > 0 && !span_eq(r->selector, m->full_name))
		return rule_fail(m, err, "a selector of another method:", r->selector);
	struct http_binding *b = bindings_add(all, m);
	b->verb = span_of(mem_xdup(r->verb.p, r->verb.n), r->verb.n);
	struct err why = {0};
	if (path_template_parse(r->path, &b->path, &why)) {
		rule_fail(m, err, why.text, SPAN(""));
		return err_wrap(err, "path \"%.*s\"", SPAN_ARG(r->path));
	}
	enum err_code code = bind_variables(b, err);
	return code ? code : bind_body(b, r, err);
}

static enum err_code bind_default(struct http_bindings *all, const struct pb_method *m, struct err *err)
{
	char *path = mem_xprintf("/%.*s/%.*s", SPAN_ARG(m->service->full_name), SPAN_ARG(m->name));
	struct rule r = {.verb = SPAN("POST"), .path = span_str(path), .body = SPAN("*")};
	enum err_code code = bind_rule(all, m, &r, err);
	mem_free(path);
	return code;
}

static enum err_code bind_method(struct http_bindings *all, const struct pb_method *m, struct arena *a,
				 struct err *err)
{
	struct span option;
	if (!pb_option_message(m->options, OPTION_HTTP, a, &option))
		return bind_default(all, m, err);
	struct rule r, extra;
	enum err_code code = rule_read(m, option, &r, err);
	if (!code)
		code = bind_rule(all, m, &r, err);
	for (size_t i = 0; !code && i < r.additional_count; i++) {
		code = rule_read(m, r.additional[i], &extra, err);
		if (!code && extra.additional_count > 0)
			code = rule_fail(m, err, "nested additional bindings", SPAN(""));
		if (!code)
			code = bind_rule(all, m, &extra, err);
	}
	return code;
}

enum err_code http_bindings_new(const struct pb_service *const *services, size_t service_count,
				struct http_bindings **ret, struct err *err)
{
	struct http_bindings *all = mem_xalloc(sizeof(*all));
	struct arena a; /* holds only options that came in several pieces */
	arena_init(&a, 1 * MIB);
	enum err_code code = ERR_OK;
	for (size_t s = 0; !code && s < service_count; s++)
		for (size_t i = 0; !code && i < services[s]->method_count; i++)
			code = bind_method(all, &services[s]->methods[i], &a, err);
	arena_release(&a);
	if (code)
		http_bindings_free(all);
	else
		*ret = all;
	return code;
}

void http_bindings_free(struct http_bindings *b)
{
	if (!b)
		return;
	for (size_t i = 0; i < b->n; i++) {
		mem_free((void *)(uintptr_t)b->items[i].verb.p);
		path_template_free(b->items[i].path);
		mem_free(b->items[i].variables);
	}
	mem_free(b->items);
	mem_free(b);
}

/* --- finding -----------------------------------------------------------------------------------------------
 */

struct search {
	struct span verb, path;
	struct arena *arena;
	struct http_match *best; /* of the caller; binding NULL while there is none */
	bool path_known;         /* some binding has the path, with whatever method */
	bool broken_escape;
	struct err *err;
};

/* Looks among the bindings that have a verb in the path, or among those that have none. */
static enum err_code search_among(const struct http_bindings *b, bool with_verb, struct search *s)
{
	size_t best_literals = 0;
	for (size_t i = 0; i < b->n; i++) {
		const struct http_binding *item = &b->items[i];
		if ((path_template_verb(item->path).n > 0) != with_verb)
			continue;
		struct span values[PATH_VARIABLES_MAX];
		struct err why = {0};
		enum err_code code = path_template_match(item->path, s->path, s->arena, values, &why);
		if (code == ERR_NOT_FOUND)
			continue;
		if (code == ERR_INVALID) {
			s->broken_escape = true;
			err_set(s->err, code, "%s", why.text);
			continue;
		}
		if (code)
			return err_set(s->err, code, "%s", why.text);
		s->path_known = true;
		if (!span_eq(item->verb, SPAN("*")) && !span_eq(item->verb, s->verb))
			continue;
		size_t literals = path_template_literals(item->path);
		if (s->best->binding && literals < best_literals)
			continue;
		best_literals = literals;
		s->best->binding = item;
		memcpy(s->best->values, values, path_template_variables(item->path) * sizeof(values[0]));
	}
	return ERR_OK;
}

enum err_code http_bindings_find(const struct http_bindings *b, struct span verb, struct span path,
				 struct arena *a, struct http_match *ret, struct err *err)
{
	struct http_match best = {0};
	struct err escape = {0};
	struct search s = {verb, path, a, &best, false, false, &escape};
	enum err_code code = search_among(b, true, &s);
	if (!code && !s.path_known && !s.broken_escape)
		code = search_among(b, false, &s);
	if (!code && best.binding) {
		*ret = best;
		return ERR_OK;
	}
	if (code || s.broken_escape)
		return err_set(err, escape.code, "%s", escape.text);
	if (s.path_known)
		return err_set(err, ERR_NOT_FOUND,
			       "no method of this function is bound to %.*s %.*s (other "
			       "HTTP methods are)",
			       SPAN_ARG(verb), SPAN_ARG(path));
	return err_set(err, ERR_NOT_FOUND, "no method of this function is bound to the path %.*s",
		       SPAN_ARG(path));
}

const struct http_binding *http_bindings_of(const struct http_bindings *b, const struct pb_method *method)
{
	for (size_t i = 0; i < b->n; i++)
		if (b->items[i].method == method)
			return &b->items[i];
	return NULL;
}
