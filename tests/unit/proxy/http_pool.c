#include <config.h>

#include "tests/unit/proxy/http_pool.h"

#include <criterion/criterion.h>

/* http_set.c, made from http_test.proto */
extern const uint8_t http_test_set[];
extern const size_t http_test_set_bytes;

struct pb_pool *http_pool_load(void)
{
	struct span set = span_of(http_test_set, http_test_set_bytes);
	struct pb_pool *pool = NULL;
	struct err err = {0};
	cr_assert_eq(pb_pool_new(&set, 1, &pool, &err), ERR_OK, "%s", err.text);
	return pool;
}

struct http_bindings *http_pool_bindings(const struct pb_pool *pool)
{
	const struct pb_service *service = pb_find_service(pool, SPAN("test.http.Things"));
	cr_assert_not_null(service);
	struct http_bindings *b = NULL;
	struct err err = {0};
	cr_assert_eq(http_bindings_new(&service, 1, &b, &err), ERR_OK, "%s", err.text);
	return b;
}
