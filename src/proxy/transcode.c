#include <config.h>

#include "proxy/transcode.h"


#include "base/must.h"
#include "base/text.h"
#include "proxy/headers.h"

/* Field numbers of google.api.HttpBody. */
enum { HTTP_BODY_CONTENT_TYPE = 1, HTTP_BODY_DATA = 2 };

static bool is_http_body(const struct pb_type *type)
{
	return type && span_eq(type->full_name, SPAN("google.api.HttpBody"));
}

/* --- requests ---------------------------------------------------------------------------------------- */

/* "application/json", with or without parameters, in any case. */
static bool is_json(struct span content_type)
{
	struct span type = span_trim(span_first(content_type, span_find(content_type, ';')));
	return span_eq_nocase(type, SPAN("application/json"));
}

static enum err_code fill_http_body(struct pb_msg *body, const struct transcode_request *r, struct err *err)
{
	if (!utf8_valid(r->content_type))
		return err_set(err, ERR_INVALID, "content-type is not valid UTF-8");
	const struct pb_type *type = pb_msg_type(body);
	const struct pb_field *content_type = pb_field_by_number(type, HTTP_BODY_CONTENT_TYPE);
	const struct pb_field *data = pb_field_by_number(type, HTTP_BODY_DATA);
	if (content_type && content_type->kind == PB_STRING)
		pb_msg_set(body, content_type, (union pb_value){.bytes = r->content_type});
	if (data && data->kind == PB_BYTES)
		pb_msg_set(body, data, (union pb_value){.bytes = r->body});
	return ERR_OK;
}

static enum err_code check_content_type(const struct transcode_request *r, struct err *err)
{
	if (r->content_type.n == 0 && r->body.n == 0)
		return ERR_OK;
	if (is_json(r->content_type))
		return ERR_OK;
	if (r->content_type.n == 0)
		return err_set(err, ERR_INVALID, "content-type is missing; %.*s takes application/json",
			       SPAN_ARG(r->match->binding->method->full_name));
	return err_set(err, ERR_INVALID, "content-type \"%.*s\" is not taken by %.*s; send application/json",
		       SPAN_ARG(r->content_type), SPAN_ARG(r->match->binding->method->full_name));
}

static struct span json_of(const struct transcode_request *r)
{
	return r->content_type.n == 0 && r->body.n == 0 ? SPAN("{}") : r->body;
}

/* The body alone: *ret_msg is the request message with what the body says. */
static enum err_code body_in(const struct transcode_request *r, struct arena *a, struct pb_msg **ret_msg,
			     struct err *err)
{
	const struct http_binding *b = r->match->binding;
	const struct pb_type *input = b->method->input;
	enum err_code code;
	if (b->body == HTTP_BODY_ALL && !is_http_body(input)) {
		code = check_content_type(r, err);
		if (!code && pb_json_parse(input, json_of(r), a, ret_msg, err))
			code = err_wrap(err, "request body");
		return code;
	}
	struct pb_msg *msg = pb_msg_new(input, a);
	if (!msg)
		return err_set(err, ERR_NOMEM, "request: out of memory");
	*ret_msg = msg;
	if (b->body == HTTP_BODY_NONE)
		return ERR_OK;
	if (b->body == HTTP_BODY_ALL)
		return fill_http_body(msg, r, err);
	if (is_http_body(b->body_field->sub)) {
		struct pb_msg *sub = pb_msg_sub(msg, b->body_field);
		return sub ? fill_http_body(sub, r, err) : err_set(err, ERR_NOMEM, "request: out of memory");
	}
	code = check_content_type(r, err);
	if (!code && pb_json_parse_field(msg, b->body_field, json_of(r), err))
		code = err_wrap(err, "request body");
	return code;
}

static enum err_code path_in(const struct transcode_request *r, struct pb_msg *msg, struct err *err)
{
	const struct http_binding *b = r->match->binding;
	for (size_t i = 0; i < path_template_variables(b->path); i++) {
		if (pb_path_set_text(msg, &b->variables[i], r->match->values[i], err)) {
			struct span name = path_template_variable(b->path, i);
			return err_wrap(err, "path variable %.*s", SPAN_ARG(name));
		}
	}
	return ERR_OK;
}

/* A part of a query string: '+' is a space there, then %XX. */
static enum err_code query_decode(struct span raw, struct arena *a, struct span *ret, struct err *err)
{
	struct span copy = arena_dup(a, raw);
	if (!copy.p)
		return err_set(err, ERR_NOMEM, "query: out of memory");
	uint8_t *p = (uint8_t *)(uintptr_t)copy.p; /* ours, just made */
	for (size_t i = 0; i < copy.n; i++)
		if (p[i] == '+')
			p[i] = ' ';
	struct buf decoded;
	buf_init(&decoded, copy.n + 1);
	enum err_code code = percent_decode(&decoded, copy);
	if (code == ERR_INVALID)
		err_set(err, code, "query: broken %%-escape in \"%.*s\"", SPAN_ARG(raw));
	if (!code && decoded.n > 0)
		memcpy(p, decoded.p, decoded.n);
	*ret = span_of(p, decoded.n);
	buf_release(&decoded);
	return code;
}

/* Is the field taken by the path or the body, so that the query cannot name it? */
static bool bound_elsewhere(const struct http_binding *b, const struct pb_path *path)
{
	if (b->body == HTTP_BODY_FIELD && path->at[0] == b->body_field)
		return true;
	for (size_t i = 0; i < path_template_variables(b->path); i++) {
		const struct pb_path *v = &b->variables[i];
		if (v->n == path->n && memcmp(v->at, path->at, v->n * sizeof(v->at[0])) == 0)
			return true;
	}
	return false;
}

/* Is a singular field at the end of the path set already? */
static bool path_is_set(const struct pb_msg *msg, const struct pb_path *path)
{
	for (size_t i = 0; i + 1 < path->n; i++) {
		msg = pb_msg_get(msg, path->at[i]).msg;
		if (!msg)
			return false;
	}
	return pb_msg_has(msg, path->at[path->n - 1]);
}

static enum err_code parameter_in(const struct transcode_request *r, struct span raw, struct arena *a,
				  struct pb_msg *msg, struct err *err)
{
	size_t eq = span_find(raw, '=');
	struct span name, value;
	enum err_code code = query_decode(span_first(raw, eq), a, &name, err);
	if (!code)
		code = query_decode(span_skip(raw, eq < raw.n ? eq + 1 : eq), a, &value, err);
	if (code)
		return code;
	struct pb_path path;
	const struct http_binding *b = r->match->binding;
	if (pb_path_find(b->method->input, name, &path, err))
		return err_wrap(err, "query parameter \"%.*s\"", SPAN_ARG(name));
	if (bound_elsewhere(b, &path))
		return err_set(err, ERR_INVALID,
			       "query parameter \"%.*s\": the field is set by the path or "
			       "the body",
			       SPAN_ARG(name));
	if (!path.at[path.n - 1]->repeated && path_is_set(msg, &path))
		return err_set(err, ERR_INVALID,
			       "query parameter \"%.*s\" stands twice, but the field is "
			       "not repeated",
			       SPAN_ARG(name));
	code = pb_path_set_text(msg, &path, value, err);
	return code ? err_wrap(err, "query parameter \"%.*s\"", SPAN_ARG(name)) : ERR_OK;
}

static enum err_code query_in(const struct transcode_request *r, struct arena *a, struct pb_msg *msg,
			      struct err *err)
{
	struct span rest = r->query;
	if (r->match->binding->body == HTTP_BODY_ALL)
		return ERR_OK; /* the whole message is the body's */
	while (rest.n > 0) {
		size_t n = span_find(rest, '&');
		struct span raw = span_first(rest, n);
		rest = span_skip(rest, n < rest.n ? n + 1 : n);
		enum err_code code = raw.n ? parameter_in(r, raw, a, msg, err) : ERR_OK;
		if (code)
			return code;
	}
	return ERR_OK;
}

enum err_code transcode_in(const struct transcode_request *request, struct arena *a, struct buf *payload,
			   struct err *err)
{
	must(request->match->binding != NULL);
	struct pb_msg *msg;
	enum err_code code = body_in(request, a, &msg, err);
	if (!code)
		code = query_in(request, a, msg, err);
	if (!code)
		code = path_in(request, msg, err);
	return code ? code : pb_msg_write(msg, payload, err);
}

/* --- replies ------------------------------------------------------------------------------------------- */

static enum err_code http_body_out(const struct pb_msg *msg, struct arena *a, struct buf *body,
				   struct span *ret_content_type, struct err *err)
{
	const struct pb_type *type = pb_msg_type(msg);
	const struct pb_field *ct_field = pb_field_by_number(type, HTTP_BODY_CONTENT_TYPE);
	const struct pb_field *data_field = pb_field_by_number(type, HTTP_BODY_DATA);
	struct span content_type = {0};
	if (ct_field && ct_field->kind == PB_STRING)
		content_type = pb_msg_get(msg, ct_field).bytes;
	*ret_content_type = SPAN("application/octet-stream");
	if (!headers_value_legal(content_type))
		return err_set(err, ERR_INVALID, "reply of type %.*s: content_type is no header's value",
			       SPAN_ARG(type->full_name));
	if (content_type.n > 0) {
		*ret_content_type = arena_dup(a, content_type);
		if (!ret_content_type->p)
			return err_set(err, ERR_NOMEM, "reply: out of memory");
	}
	if (data_field && data_field->kind == PB_BYTES)
		return buf_append_span(body, pb_msg_get(msg, data_field).bytes);
	return ERR_OK;
}

bool transcode_is_raw(const struct http_binding *binding)
{
	const struct pb_field *field = binding->response_field;
	return field ? !field->repeated && is_http_body(field->sub) : is_http_body(binding->method->output);
}

enum err_code transcode_out(const struct http_binding *binding, struct span reply, struct arena *a,
			    struct buf *body, struct span *ret_content_type, struct err *err)
{
	struct pb_msg *msg;
	const struct pb_field *field = binding->response_field;
	if (pb_msg_parse(binding->method->output, reply, a, &msg, err))
		return err_wrap(err, "reply of %.*s", SPAN_ARG(binding->method->full_name));
	if (field && transcode_is_raw(binding)) {
		struct pb_msg *sub = pb_msg_sub(msg, field);
		return sub ? http_body_out(sub, a, body, ret_content_type, err)
			   : err_set(err, ERR_NOMEM, "reply: out of memory");
	}
	if (transcode_is_raw(binding))
		return http_body_out(msg, a, body, ret_content_type, err);
	*ret_content_type = SPAN("application/json");
	return field ? pb_json_print_field(msg, field, body, err) : pb_json_print(msg, body, err);
}
