#include <config.h>

#include "proxy/transcode.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/must.h"
#include "tests/unit/proxy/http_pool.h"

struct world {
	struct pb_pool *pool;
	struct http_bindings *bindings;
	struct arena arena;
};

static void setup(struct world *w)
{
	w->pool = http_pool_load();
	w->bindings = http_pool_bindings(w->pool);
	arena_init(&w->arena, 4 * MIB);
}

static void teardown(struct world *w)
{
	arena_release(&w->arena);
	http_bindings_free(w->bindings);
	pb_pool_unref(w->pool);
}

/* Sends the request through transcode_in; the message's JSON, or "! error". */
static const char *in(struct world *w, const char *verb, const char *target, const char *content_type,
		      const char *body)
{
	static char got[4096];
	struct span path = span_str(target);
	size_t q = span_find(path, '?');
	struct http_match m;
	struct err err = {0};
	cr_assert_eq(
		http_bindings_find(w->bindings, span_str(verb), span_first(path, q), &w->arena, &m, &err),
		ERR_OK, "%s %s: %s", verb, target, err.text);
	struct transcode_request r = {&m, span_skip(path, q < path.n ? q + 1 : q), span_str(content_type),
				      span_str(body)};
	struct buf payload, json;
	buf_init(&payload, 1 * MIB);
	buf_init(&json, 1 * MIB);
	if (transcode_in(&r, &w->arena, &payload, &err)) {
		snprintf(got, sizeof(got), "! %s", err.text);
	} else {
		struct pb_msg *msg;
		cr_assert_eq(
			pb_msg_parse(m.binding->method->input, buf_span(&payload), &w->arena, &msg, &err),
			ERR_OK);
		cr_assert_eq(pb_json_print(msg, &json, &err), ERR_OK);
		snprintf(got, sizeof(got), "%s", buf_cstr(&json));
	}
	buf_release(&payload);
	buf_release(&json);
	return got;
}

#define EMPTY "\"blob\":\"\",\"flag\":false}"
#define JSON "application/json"

static void expect_in(struct world *w, const char *verb, const char *target, const char *content_type,
		      const char *body, const char *expected)
{
	const char *got = in(w, verb, target, content_type, body);
	if (expected[0] == '!')
		cr_expect(got[0] == '!' && strstr(got, expected + 2), "%s %s %s: got %s, expected %s", verb,
			  target, body, got, expected);
	else
		cr_expect_str_eq(got, expected, "%s %s %s: got %s, expected %s", verb, target, body, got,
				 expected);
}

Test(transcode, puts_path_query_and_body_together)
{
	struct world w;
	setup(&w);
	expect_in(&w, "GET",
		  "/v1/things/a%2Fb?count=7&inner.city=K%C3%B6ln+am&tags=x&tags=y&colour=RED&flag=true", "",
		  "",
		  "{\"id\":\"a/b\",\"count\":\"7\",\"inner\":{\"city\":\"K\xC3\xB6ln am\",\"number\":0},"
		  "\"tags\":[\"x\",\"y\"],\"colour\":\"RED\",\"blob\":\"\",\"flag\":true}");
	expect_in(&w, "GET", "/v1/colours/1/5", "", "",
		  "{\"id\":\"\",\"count\":\"5\",\"tags\":[],\"colour\":\"RED\"," EMPTY);
	expect_in(&w, "PUT", "/v1/things/p", JSON "; charset=utf-8", "{\"id\":\"body\",\"count\":\"3\"}",
		  "{\"id\":\"p\",\"count\":\"3\",\"tags\":[],\"colour\":\"NONE\"," EMPTY);
	/* With body "*" the query counts for nothing, be it wrong. */
	expect_in(&w, "PUT", "/v1/things/p?count=9&nope=%zz", JSON, "{}",
		  "{\"id\":\"p\",\"count\":\"0\",\"tags\":[],\"colour\":\"NONE\"," EMPTY);
	expect_in(&w, "PUT", "/v1/things/p", "", "",
		  "{\"id\":\"p\",\"count\":\"0\",\"tags\":[],\"colour\":\"NONE\"," EMPTY);
	expect_in(&w, "POST", "/v1/things/p:change?count=2", JSON, "{\"city\":\"Bonn\"}",
		  "{\"id\":\"p\",\"count\":\"2\",\"inner\":{\"city\":\"Bonn\",\"number\":0},"
		  "\"tags\":[],\"colour\":\"NONE\"," EMPTY);
	expect_in(&w, "GET", "/any/x/y", "", "",
		  "{\"id\":\"\",\"count\":\"0\",\"inner\":{\"city\":\"x/y\",\"number\":0},"
		  "\"tags\":[],\"colour\":\"NONE\"," EMPTY);
	teardown(&w);
}

Test(transcode, says_what_is_wrong_and_where)
{
	struct world w;
	setup(&w);
	expect_in(&w, "GET", "/v1/things/a?nope=1", "", "", "! query parameter \"nope\"");
	expect_in(&w, "GET", "/v1/things/a?count=x", "", "", "! query parameter \"count\"");
	expect_in(&w, "GET", "/v1/things/a?count=1&count=2", "", "",
		  "! query parameter \"count\" stands twice");
	expect_in(&w, "GET", "/v1/things/a?id=b", "", "", "! query parameter \"id\": the field is set by");
	expect_in(&w, "GET", "/v1/things/a?id=%zz", "", "", "! query: broken %-escape");
	expect_in(&w, "POST", "/v1/things/p:change?inner.city=x", JSON, "{}", "! the field is set by");
	expect_in(&w, "GET", "/v1/colours/BLUE/5", "", "", "! path variable colour");
	expect_in(&w, "GET", "/v1/colours/RED/5x", "", "", "! path variable count");
	expect_in(&w, "PUT", "/v1/things/p", JSON, "{", "! request body");
	expect_in(&w, "PUT", "/v1/things/p", JSON, "{\"nope\":1}", "! request body");
	expect_in(&w, "PUT", "/v1/things/p", "text/plain", "{}",
		  "! content-type \"text/plain\" is not taken");
	expect_in(&w, "PUT", "/v1/things/p", "application/jsonx", "{}", "! content-type");
	expect_in(&w, "PUT", "/v1/things/p", "", "{}", "! content-type is missing");
	teardown(&w);
}

Test(transcode, passes_http_bodies_through_raw)
{
	struct world w;
	setup(&w);
	expect_in(&w, "POST", "/v1/upload", "image/\xff", "x", "! content-type is not valid UTF-8");
	expect_in(&w, "POST", "/v1/upload", "image/png", "\x01\x02",
		  "{\"contentType\":\"image/png\",\"data\":\"AQI=\",\"extensions\":[]}");
	expect_in(
		&w, "POST", "/v1/upload/u", "text/x", "hi",
		"{\"id\":\"u\",\"count\":\"0\",\"tags\":[],\"colour\":\"NONE\",\"blob\":\"\",\"flag\":false,"
		"\"raw\":{\"contentType\":\"text/x\",\"data\":\"aGk=\",\"extensions\":[]}}");
	teardown(&w);
}

static void expect_out(struct world *w, const char *method, struct span reply, const char *content_type,
		       const char *body)
{
	const struct pb_method *m = pb_find_method(w->pool, span_str(method));
	struct buf out;
	buf_init(&out, 1 * MIB);
	struct span type = {0};
	struct err err = {0};
	cr_assert_eq(transcode_out(http_bindings_of(w->bindings, m), reply, &w->arena, &out, &type, &err),
		     ERR_OK, "%s", err.text);
	cr_expect(span_eq(type, span_str(content_type)), "%s: %.*s", method, SPAN_ARG(type));
	cr_expect(span_eq(buf_span(&out), span_str(body)), "%s: %.*s", method, SPAN_ARG(buf_span(&out)));
	buf_release(&out);
}

/* A content type of the function's own could else end the headers where it likes. */
Test(transcode, a_content_type_that_is_no_header_value_is_an_error)
{
	struct world w;
	setup(&w);
	struct buf out;
	buf_init(&out, 1 * MIB);
	struct span type = {0};
	struct err err = {0};
	const struct pb_method *m = pb_find_method(w.pool, SPAN("test.http.Things.Upload"));
	cr_assert_eq(transcode_out(http_bindings_of(w.bindings, m), SPAN("\x0a\x07x\r\na: b\x12\x02zz"),
				   &w.arena, &out, &type, &err),
		     ERR_INVALID);
	cr_expect(strstr(err.text, "content_type"), "%s", err.text);
	buf_release(&out);
	teardown(&w);
}

Test(transcode, prints_replies_whole_or_one_field_of_them)
{
	struct world w;
	setup(&w);
	struct span reply = SPAN("\x0a\x02hi\x12\x06\x0a\x04"
				 "Bonn");
	expect_out(&w, "test.http.Things.Plain", reply, JSON,
		   "{\"message\":\"hi\",\"inners\":[{\"city\":\"Bonn\",\"number\":0}]}");
	expect_out(&w, "test.http.Things.Plain", SPAN(""), JSON, "{\"message\":\"\",\"inners\":[]}");
	expect_out(&w, "test.http.Things.Special", reply, JSON, "[{\"city\":\"Bonn\",\"number\":0}]");
	expect_out(&w, "test.http.Things.Upload", SPAN("\x0a\x03x/y\x12\x02zz"), "x/y", "zz");
	expect_out(&w, "test.http.Things.Upload", SPAN("\x12\x02zz"), "application/octet-stream", "zz");
	expect_out(&w, "test.http.Things.UploadField", SPAN("\x22\x06\x0a\x01t\x12\x01z"), "t", "z");
	teardown(&w);
}
