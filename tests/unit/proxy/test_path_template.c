#include <config.h>

#include "proxy/path_template.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/must.h"

/* Matches and prints the values as "a|b"; "-" where it does not match, "!" for a broken escape. */
static void check_match(const char *template, const char *path, const char *expected)
{
	struct path_template *t = NULL;
	struct err err = {0};
	cr_assert_eq(path_template_parse(span_str(template), &t, &err), ERR_OK, "%s: %s", template, err.text);
	struct arena a;
	arena_init(&a, 64 * 1024);
	struct span values[PATH_VARIABLES_MAX];
	enum err_code code = path_template_match(t, span_str(path), &a, values, &err);
	char got[1024] = "";
	size_t n = 0;
	for (size_t i = 0; code == ERR_OK && i < path_template_variables(t); i++)
		n += (size_t)snprintf(got + n, sizeof(got) - n, "%s%.*s", i ? "|" : "", SPAN_ARG(values[i]));
	if (code)
		snprintf(got, sizeof(got), "%s", code == ERR_INVALID ? "!" : "-");
	cr_expect_str_eq(got, expected, "%s on %s: got \"%s\", expected \"%s\"", template, path, got,
			 expected);
	arena_release(&a);
	path_template_free(t);
}

Test(path_template, matches_literals_and_single_segments)
{
	check_match("/v1/carts", "/v1/carts", "");
	check_match("/v1/carts", "/v1/cart", "-");
	check_match("/v1/carts", "/v1/carts/", "-");
	check_match("/v1/carts", "/v1", "-");
	check_match("/v1/a%20b", "/v1/a b", "");
	check_match("/v1/ab", "/v1/%61b", "");
	check_match("/v1/*/items", "/v1/x/items", "");
	check_match("/v1/*/items", "/v1//items", "-");
	check_match("/", "/", "");
	check_match("/", "/x", "-");
}

Test(path_template, binds_variables_and_decodes_them_once)
{
	check_match("/cart/{user_id}", "/cart/u1", "u1");
	check_match("/cart/{user_id}/items/{item.id}", "/cart/u1/items/i%2F2", "u1|i/2");
	check_match("/cart/{user_id}", "/cart/a%2520b", "a%20b");
	check_match("/cart/{user_id}", "/cart/a+b", "a+b");
	check_match("/cart/{user_id}", "/cart/", "-");
	check_match("/cart/{user_id}", "/cart/a/b", "-");
	check_match("/cart/{user_id}", "/cart/%zz", "!");
	check_match("/v1/{name=shelves/*/books/*}", "/v1/shelves/1/books/2", "shelves/1/books/2");
	check_match("/v1/{name=shelves/*/books/*}", "/v1/shelves/1/book/2", "-");
	check_match("/v1/{name=files/**}", "/v1/files/a/b%2Fc", "files/a/b/c");
	check_match("/v1/{rest=**}", "/v1/a/b", "a/b");
	check_match("/v1/{rest=**}", "/v1", "");
	check_match("/v1/{rest=**}", "/v1/", "");
}

Test(path_template, takes_a_verb_only_at_the_end)
{
	check_match("/v1/{id}:cancel", "/v1/7:cancel", "7");
	check_match("/v1/{id}:cancel", "/v1/7", "-");
	check_match("/v1/{id}:cancel", "/v1/7:other", "-");
	check_match("/v1/{id}:cancel", "/v1/a:b:cancel", "a:b");
	check_match("/v1/{id}", "/v1/7:cancel", "7:cancel");
	check_match("/v1/{id}:cancel", "/v1:cancel/7", "-");
}

Test(path_template, counts_literals_for_the_choice_between_bindings)
{
	struct path_template *t = NULL;
	cr_assert_eq(path_template_parse(SPAN("/v1/{a=x/*}/y:go"), &t, NULL), ERR_OK);
	cr_expect_eq(path_template_literals(t), 3);
	cr_expect(span_eq(path_template_verb(t), SPAN("go")));
	cr_expect_eq(path_template_variables(t), 1);
	cr_expect(span_eq(path_template_variable(t, 0), SPAN("a")));
	path_template_free(t);
}

Test(path_template, refuses_bad_templates_and_says_where)
{
	static const struct {
		const char *text, *error;
	} rows[] = {
		{"", "path template: it must begin with '/' at character 1"},
		{"v1", "path template: it must begin with '/' at character 1"},
		{"/v1/", "path template: a segment is expected at character 5"},
		{"/v1//x", "path template: a segment is expected at character 5"},
		{"/v1/{}", "path template: a field name is expected at character 6"},
		{"/v1/{a", "path template: '}' is expected at character 7"},
		{"/v1/{a=b/{c}}", "path template: a variable inside a variable at character 10"},
		{"/v1/**/x", "path template: nothing may follow '**' at character 8"},
		{"/v1/{a=**}/x", "path template: nothing may follow '**' at character 12"},
		{"/v1/{a=**}/{b}", "path template: nothing may follow '**' at character 14"},
		{"/v1/x:", "path template: a verb without '/', ':', '{' and '*' is expected at character 7"},
		{"/v1/x?y", "path template: unexpected character at character 6"},
		{"/v1/%zz", "path template: broken %-escape at character 8"},
		{"/v1/{a.}", "path template: a field name is expected at character 8"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct path_template *t = NULL;
		struct err err = {0};
		cr_expect_eq(path_template_parse(span_str(rows[i].text), &t, &err), ERR_INVALID, "%s",
			     rows[i].text);
		cr_expect_str_eq(err.text, rows[i].error, "%s: got \"%s\"", rows[i].text, err.text);
		cr_expect_null(t);
		path_template_free(t);
	}
}
