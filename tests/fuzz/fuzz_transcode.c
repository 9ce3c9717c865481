/* Any bytes as an HTTP request to the methods of http_test.proto, and as a path template. What is accepted
 * must parse as the method's message. Lines: a path template, "VERB TARGET", a content type; then the body. */
#include <config.h>

#include "base/limits.h"
#include "base/must.h"
#include "proxy/transcode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* http_set.c, made from http_test.proto */
extern const uint8_t http_test_set[];
extern const size_t http_test_set_bytes;

static struct span take_line(struct span *rest)
{
	size_t n = span_find(*rest, '\n');
	struct span line = span_first(*rest, n);
	*rest = span_skip(*rest, n < rest->n ? n + 1 : n);
	return line;
}

static const struct http_bindings *bindings(void)
{
	static struct http_bindings *built; /* with its pool, for the life of the process */
	if (!built) {
		struct span set = span_of(http_test_set, http_test_set_bytes);
		struct pb_pool *pool;
		must(pb_pool_new(&set, 1, &pool, NULL) == ERR_OK);
		const struct pb_service *service = pb_find_service(pool, SPAN("test.http.Things"));
		must(http_bindings_new(&service, 1, &built, NULL) == ERR_OK);
	}
	return built;
}

static void try_template(struct span text, struct span path, struct arena *a)
{
	struct path_template *t;
	struct span values[PATH_VARIABLES_MAX];
	if (path_template_parse(text, &t, NULL))
		return;
	enum err_code code = path_template_match(t, path, a, values, NULL);
	must(code == ERR_OK || code == ERR_NOT_FOUND || code == ERR_INVALID);
	path_template_free(t);
}

static void try_request(struct span verb, struct span target, struct span type, struct span body, struct arena *a)
{
	struct http_match match;
	size_t q = span_find(target, '?');
	if (http_bindings_find(bindings(), verb, span_first(target, q), a, &match, NULL))
		return;
	struct transcode_request request = {&match, span_skip(target, q < target.n ? q + 1 : q), type, body};
	struct buf payload, answer;
	struct pb_msg *msg;
	struct span answer_type;
	buf_init(&payload, 1 * MIB);
	buf_init(&answer, 8 * MIB);
	if (!transcode_in(&request, a, &payload, NULL))
		must(pb_msg_parse(match.binding->method->input, buf_span(&payload), a, &msg, NULL) == ERR_OK);
	/* The body as a reply too. */
	transcode_out(match.binding, body, a, &answer, &answer_type, NULL);
	buf_release(&answer);
	buf_release(&payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span rest = span_of(data, size);
	struct arena a;
	if (size > 64 * KIB)
		return 0;
	arena_init(&a, 16 * MIB);
	struct span template = take_line(&rest), request = take_line(&rest), type = take_line(&rest);
	size_t space = span_find(request, ' ');
	struct span target = span_skip(request, space < request.n ? space + 1 : space);
	try_template(template, target, &a);
	try_request(span_first(request, space), target, type, rest, &a);
	arena_release(&a);
	return 0;
}
