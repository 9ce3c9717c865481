/* What a real SDK sent: its descriptor set links, in any order of files and without the imports that
 * other SDKs leave out. */
#include <config.h>

#include "helper.h"

#include <stdio.h>
#include <stdlib.h>

#define FILES_MAX 32

struct real {
	uint8_t bytes[64 * 1024];
	struct span set;
	struct span files[FILES_MAX];
	size_t file_count;
	struct span services[FILES_MAX];
	size_t service_count;
};

static struct span field_in(struct span message, uint32_t number)
{
	struct pb_wire_field f;
	while (pb_wire_next(&message, &f) > 0) {
		if (f.number == number)
			return f.bytes;
	}
	return (struct span){0};
}

static void real_read(struct real *r, const char *name)
{
	char path[4096];
	const char *source = getenv("CAIRN_SRCDIR");
	struct pb_wire_field f;
	snprintf(path, sizeof(path), "%s/tests/data/discovery/%s", source ? source : ".", name);
	FILE *file = fopen(path, "rb");
	cr_assert_not_null(file, "%s", path);
	struct span spec = span_of(r->bytes, fread(r->bytes, 1, sizeof(r->bytes), file));
	fclose(file);
	r->set = field_in(spec, 1);
	r->file_count = r->service_count = 0;
	while (pb_wire_next(&spec, &f) > 0) {
		if (f.number == 2)
			r->services[r->service_count++] = field_in(f.bytes, 2);
	}
	for (struct span rest = r->set; pb_wire_next(&rest, &f) > 0;)
		r->files[r->file_count++] = f.bytes;
	cr_assert_gt(r->file_count, 5);
}

/* A pool of some of the files, in the order of `order`. */
static enum err_code link_some(const struct real *r, const size_t *order, size_t n, struct pb_pool **ret,
			       struct err *err)
{
	struct buf set;
	buf_init(&set, MIB);
	for (size_t i = 0; i < n; i++)
		cr_assert_eq(pb_put_bytes(&set, 1, r->files[order[i]]), ERR_OK);
	struct span bytes = buf_span(&set);
	enum err_code code = pb_pool_new(&bytes, 1, ret, err);
	buf_release(&set);
	return code;
}

Test(real, go_tck_links_as_it_came)
{
	static struct real r;
	struct pb_pool *pool;
	struct err err = {0};
	real_read(&r, "go-support-0.3.0-tck.spec");
	cr_assert_eq(pb_pool_new(&r.set, 1, &pool, &err), ERR_OK, "%s", err.text);
	cr_assert_eq(r.service_count, 15);
	for (size_t i = 0; i < r.service_count; i++) {
		const struct pb_service *s = pb_find_service(pool, r.services[i]);
		cr_assert_not_null(s, "%.*s", SPAN_ARG(r.services[i]));
		cr_assert_gt(s->method_count, 0);
	}
	size_t n;
	const struct pb_file *const *files = pb_pool_files(pool, &n);
	for (size_t i = 0; i < n; i++)
		cr_assert(!files[i]->placeholder, "%.*s", SPAN_ARG(files[i]->name));
	pb_pool_unref(pool);
}

Test(real, go_cart_has_its_keys_and_http_rules)
{
	static struct real r;
	struct pb_pool *pool;
	struct err err = {0};
	struct arena arena;
	struct span rule;
	bool value;
	arena_init(&arena, MIB);
	real_read(&r, "go-support-0.3.0-shoppingcart.spec");
	cr_assert_eq(pb_pool_new(&r.set, 1, &pool, &err), ERR_OK, "%s", err.text);
	const struct pb_method *add =
		pb_find_method(pool, SPAN("com.example.shoppingcart.ShoppingCart.AddItem"));
	cr_assert_not_null(add);
	const struct pb_field *user = pb_field_by_name(add->input, SPAN("userId"));
	cr_assert_not_null(user);
	cr_assert(pb_option_bool(user->options, 1080, &value) && value);
	cr_assert(pb_option_message(add->options, 72295728, &arena, &rule));
	cr_assert(span_eq_str(field_in(rule, 4), "/cart/{user_id}/items/add"), "%.*s",
		  SPAN_ARG(field_in(rule, 4)));
	cr_assert(span_eq_str(field_in(rule, 7), "*"));
	pb_pool_unref(pool);
	arena_release(&arena);
}

Test(real, go_tck_links_in_any_order)
{
	static struct real r;
	size_t order[FILES_MAX];
	uint64_t state = 1;
	real_read(&r, "go-support-0.3.0-tck.spec");
	for (size_t i = 0; i < r.file_count; i++)
		order[i] = i;
	for (int round = 0; round < 50; round++) {
		struct pb_pool *pool;
		struct err err = {0};
		cr_assert_eq(link_some(&r, order, r.file_count, &pool, &err), ERR_OK, "%s", err.text);
		cr_assert_not_null(
			pb_find_method(pool, SPAN("com.example.shoppingcart.ShoppingCart.AddItem")));
		pb_pool_unref(pool);
		for (size_t i = r.file_count - 1; i > 0; i--) {
			state = state * 6364136223846793005U + 1442695040888963407U;
			size_t k = (size_t)(state >> 33) % (i + 1), t = order[i];
			order[i] = order[k];
			order[k] = t;
		}
	}
}

/* The Python SDK sends the user's files and five others; none of ours at all is less still. */
Test(real, go_tck_links_without_what_it_imports)
{
	static struct real r;
	size_t kept[FILES_MAX], n = 0;
	struct pb_pool *pool;
	struct err err = {0};
	real_read(&r, "go-support-0.3.0-tck.spec");
	for (size_t i = 0; i < r.file_count; i++) {
		if (!span_starts(field_in(r.files[i], 1), SPAN("google/")) &&
		    !span_starts(field_in(r.files[i], 1), SPAN("cloudstate/")))
			kept[n++] = i;
	}
	cr_assert_lt(n, r.file_count - 5);
	cr_assert_eq(link_some(&r, kept, n, &pool, &err), ERR_OK, "%s", err.text);
	for (size_t i = 0; i < r.service_count; i++)
		cr_assert_not_null(pb_find_service(pool, r.services[i]));
	pb_pool_unref(pool);
}
