#include <config.h>

#include "proxy/http_binding.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/must.h"
#include "tests/unit/proxy/http_pool.h"

Test(http_binding, refuses_each_faulty_rule_by_name)
{
	static const struct {
		const char *service, *error;
	} rows[] = {
		{"UnknownField", "nope"},
		{"RepeatedField", "a repeated field in the path: \"tags\""},
		{"MessageField", "a message field in the path: \"inner\""},
		{"FieldTwice", "a field twice in the path: \"id\""},
		{"BodyOnGet", "a body on GET: \"*\""},
		{"ScalarBody", "a body field that is no message: \"id\""},
		{"UnknownBody", "an unknown body field \"nope\""},
		{"RestNotLast", "nothing may follow '**'"},
		{"Nested", "nested additional bindings"},
		{"OtherSelector", "a selector of another method: \"test.http.Things.Plain\""},
		{"NoPattern", "a rule without a pattern"},
	};
	struct pb_pool *pool = http_pool_load();
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char name[64], method[96];
		snprintf(name, sizeof(name), "test.http.%s", rows[i].service);
		snprintf(method, sizeof(method), "google.api.http of test.http.%s.M: ", rows[i].service);
		const struct pb_service *service = pb_find_service(pool, span_str(name));
		cr_assert_not_null(service);
		struct http_bindings *b = NULL;
		struct err err = {0};
		cr_expect_eq(http_bindings_new(&service, 1, &b, &err), ERR_INVALID);
		cr_expect_not_null(strstr(err.text, rows[i].error), "%s: got \"%s\"", name, err.text);
		cr_expect_not_null(strstr(err.text, method), "%s: got \"%s\"", name, err.text);
		cr_expect_null(b);
	}
	pb_pool_unref(pool);
}

/* "Method|value|value", or "-" with nothing bound, "!" for a broken escape. */
static void check_find(const struct http_bindings *b, const char *verb, const char *path,
		       const char *expected)
{
	struct arena a;
	arena_init(&a, 64 * 1024);
	struct http_match m;
	char got[256];
	enum err_code code = http_bindings_find(b, span_str(verb), span_str(path), &a, &m, NULL);
	if (code) {
		snprintf(got, sizeof(got), "%s", code == ERR_INVALID ? "!" : "-");
	} else {
		size_t n = (size_t)snprintf(got, sizeof(got), "%.*s", SPAN_ARG(m.binding->method->name));
		for (size_t i = 0; i < path_template_variables(m.binding->path); i++)
			n += (size_t)snprintf(got + n, sizeof(got) - n, "|%.*s", SPAN_ARG(m.values[i]));
	}
	cr_expect_str_eq(got, expected, "%s %s: got %s, expected %s", verb, path, got, expected);
	arena_release(&a);
}

Test(http_binding, finds_by_method_literals_and_verb)
{
	struct pb_pool *pool = http_pool_load();
	struct http_bindings *b = http_pool_bindings(pool);
	check_find(b, "POST", "/test.http.Things/Plain", "Plain");
	check_find(b, "GET", "/test.http.Things/Plain", "-");
	check_find(b, "POST", "/test.http.Things/Get", "-"); /* has a rule, so no default path */
	check_find(b, "GET", "/v1/things/a%20b", "Get|a b");
	check_find(b, "HEAD", "/v1/things/x", "Get|x");
	check_find(b, "GET", "/v1/things/special", "Special"); /* more literals win */
	check_find(b, "PUT", "/v1/things/special", "Put|special");
	check_find(b, "PUT", "/v1/things/x", "Put|x");
	check_find(b, "DELETE", "/v1/things/x", "-");
	check_find(b, "GET", "/v1/colours/RED/7", "Get|RED|7");
	check_find(b, "POST", "/v1/things/x:change", "Change|x");
	check_find(b, "GET", "/v1/things/x:change", "-"); /* :change is a verb of that path */
	check_find(b, "GET", "/v1/things/x:other", "Get|x:other");
	check_find(b, "OPTIONS", "/any/a/b", "Any|a/b");
	check_find(b, "GET", "/v1/things/%zz", "!");
	check_find(b, "GET", "/", "-");
	cr_expect_eq(http_bindings_of(b, pb_find_method(pool, SPAN("test.http.Things.Put")))->verb.n, 3);
	cr_expect_null(http_bindings_of(b, pb_find_method(pool, SPAN("test.http.Nested.M"))));
	http_bindings_free(b);
	pb_pool_unref(pool);
}
