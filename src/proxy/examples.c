#include <config.h>

#include "proxy/examples.h"

#include "base/limits.h"
#include "proxy/http_binding.h"

#define SAMPLE_DEPTH 3 /* messages in messages that a sample fills in */

/* --- sample values ------------------------------------------------------------------------------------ */

/* A scalar's text as in a path: an identifier, a small number, a name of the enum. */
static const char *sample_scalar(const struct pb_field *field)
{
	switch (field->kind) {
	case PB_STRING: return "demo";
	case PB_BYTES: return "ZGVtbw==";
	case PB_BOOL: return "true";
	case PB_ENUM: return NULL; /* by number: every enum has its zero */
	default: return "1";
	}
}

static bool is_quoted(const struct pb_field *field)
{
	return field->kind == PB_STRING || field->kind == PB_BYTES;
}

static enum err_code sample_message(const struct pb_type *type, unsigned depth, const struct pb_path *skip,
				    size_t skip_count, struct buf *out);

static enum err_code sample_value(const struct pb_field *field, unsigned depth, struct buf *out)
{
	if (field->sub)
		return sample_message(field->sub, depth + 1, NULL, 0, out);
	const char *text = sample_scalar(field);
	return buf_printf(out, is_quoted(field) ? "\"%s\"" : "%s", text ? text : "0");
}

/* Only fields that are plainly what they look like: no lists, maps, oneof members, and no well-known types.
 */
static bool is_sampled(const struct pb_field *field, unsigned depth)
{
	if (field->repeated || field->oneof || field->proto3_optional)
		return false;
	return !field->sub || (field->sub->wkt == PB_WKT_NONE && depth < SAMPLE_DEPTH &&
			       !span_starts(field->sub->full_name, SPAN("google.")));
}

static bool is_skipped(const struct pb_field *field, const struct pb_path *skip, size_t skip_count)
{
	for (size_t i = 0; i < skip_count; i++)
		if (skip[i].n == 1 && skip[i].at[0] == field)
			return true;
	return false;
}

static enum err_code sample_message(const struct pb_type *type, unsigned depth, const struct pb_path *skip,
				    size_t skip_count, struct buf *out)
{
	const char *comma = "";
	enum err_code code = buf_append_byte(out, '{');
	for (size_t i = 0; !code && i < type->field_count; i++) {
		const struct pb_field *field = type->by_number[i];
		if (!is_sampled(field, depth) || is_skipped(field, skip, skip_count))
			continue;
		code = buf_printf(out, "%s\"%.*s\":", comma, SPAN_ARG(field->json_name));
		comma = ",";
		if (!code)
			code = sample_value(field, depth, out);
	}
	return code ? code : buf_append_byte(out, '}');
}

/* --- the lines ---------------------------------------------------------------------------------------- */

const struct spec_method *example_method(const struct spec_service *service)
{
	for (size_t i = 0; i < service->method_count; i++) {
		const struct spec_method *m = &service->methods[i];
		const struct http_binding *b = http_bindings_of(service->spec->bindings, m->pb);
		if (b && span_eq(b->verb, SPAN("GET")))
			return m;
	}
	for (size_t i = 0; i < service->method_count; i++) {
		struct span name = service->methods[i].pb->name;
		if (span_starts(name, SPAN("Get")) || span_starts(name, SPAN("List")) ||
		    span_starts(name, SPAN("Read")))
			return &service->methods[i];
	}
	return service->method_count ? &service->methods[0] : NULL;
}

enum err_code example_curl(const struct spec_method *method, int port, struct buf *out)
{
	const struct http_binding *b = http_bindings_of(method->service->spec->bindings, method->pb);
	if (!b)
		return ERR_NOT_FOUND;
	struct buf path;
	buf_init(&path, 16 * KIB);
	const char *samples[PATH_VARIABLES_MAX];
	size_t n = path_template_variables(b->path);
	for (size_t i = 0; i < n; i++)
		samples[i] = sample_scalar(b->variables[i].at[b->variables[i].n - 1]);
	enum err_code code = path_template_expand(b->path, samples, &path);
	bool any_verb = span_eq(b->verb, SPAN("*"));
	if (!code && (any_verb || span_eq(b->verb, SPAN("GET"))))
		code = buf_append_str(out, "curl");
	else if (!code)
		code = buf_printf(out, "curl -X %.*s", SPAN_ARG(b->verb));
	if (!code)
		code = buf_printf(out, " http://127.0.0.1:%d%.*s", port, SPAN_ARG(buf_span(&path)));
	if (!code && b->body != HTTP_BODY_NONE) {
		code = buf_append_str(out, " -H 'content-type: application/json' -d '");
		if (!code)
			code = sample_message(b->body_field ? b->body_field->sub : method->pb->input, 0,
					      b->variables, n, out);
		if (!code)
			code = buf_append_byte(out, '\'');
	}
	buf_release(&path);
	return code;
}

enum err_code example_grpcurl(const struct spec_method *method, int port, struct buf *out)
{
	enum err_code code = buf_append_str(out, "grpcurl -plaintext -d '");
	if (!code)
		code = sample_message(method->pb->input, 0, NULL, 0, out);
	if (!code)
		code = buf_printf(out, "' 127.0.0.1:%d %.*s/%.*s", port, SPAN_ARG(method->service->name),
				  SPAN_ARG(method->pb->name));
	return code;
}
