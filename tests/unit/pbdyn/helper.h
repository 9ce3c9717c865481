/* What the pbdyn tests share: the pool of the test's .proto files, and steps that must succeed. */
#ifndef CAIRN_TESTS_PBDYN_HELPER_H
#define CAIRN_TESTS_PBDYN_HELPER_H

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"
#include "pbdyn/pbdyn.h"

/* kinds.proto, kinds2.proto and shop.proto, without their imports. */
extern const uint8_t pbdyn_test_set[];
extern const size_t pbdyn_test_set_bytes;

struct fixture {
	struct pb_pool *pool;
	struct arena arena;
	struct buf out;
	struct err err;
};

static inline void fixture_init(struct fixture *f)
{
	struct span set = span_of(pbdyn_test_set, pbdyn_test_set_bytes);
	*f = (struct fixture){0};
	arena_init(&f->arena, 16 * MIB);
	buf_init(&f->out, 16 * MIB);
	cr_assert_eq(pb_pool_new(&set, 1, &f->pool, &f->err), ERR_OK, "%s", f->err.text);
}

static inline void fixture_release(struct fixture *f)
{
	buf_release(&f->out);
	arena_release(&f->arena);
	pb_pool_unref(f->pool);
}

static inline const struct pb_type *type_of(const struct fixture *f, const char *name)
{
	const struct pb_type *t = pb_find_type(f->pool, span_str(name));
	cr_assert_not_null(t, "%s", name);
	return t;
}

static inline const struct pb_field *field_of(const struct fixture *f, const char *full_name)
{
	const struct pb_field *field = pb_find_field(f->pool, span_str(full_name));
	cr_assert_not_null(field, "%s", full_name);
	return field;
}

static inline bool says(const struct err *err, const char *part)
{
	return strstr(err->text, part) != NULL;
}

#endif
