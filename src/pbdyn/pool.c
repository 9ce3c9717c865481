/* The pool: made once, then only looked things up in. */
#include <config.h>

#include "pbdyn/load.h"

#include <stdlib.h>

#include "base/mem.h"
#include "base/random.h"

static void pool_free(struct pb_pool *pool)
{
	arena_release(&pool->arena);
	pool->magic = 0;
	mem_free(pool);
}

static enum err_code build(struct loader *l, const struct span *sets, size_t set_count)
{
	enum err_code code = ERR_OK;
	for (size_t i = 0; i < set_count && !code; i++) {
		struct span copy = arena_dup(&l->pool->arena, sets[i]);
		code = copy.p || sets[i].n == 0 ? load_set(l, copy, i) : load_exhausted(l);
	}
	if (code || (code = load_set(l, span_of(pbdyn_builtin_set, pbdyn_builtin_set_bytes), set_count)))
		return code;
	return link_pool(l);
}

enum err_code pb_pool_new(const struct span *sets, size_t set_count, struct pb_pool **ret, struct err *err)
{
	struct pb_pool *pool = mem_try_alloc(sizeof(*pool));
	if (!pool)
		return err_set(err, ERR_NOMEM, "no memory for a descriptor pool");
	*pool = (struct pb_pool){.magic = POOL_MAGIC, .self = pool};
	arena_init(&pool->arena, LIMIT_POOL_BYTES);
	random_bytes(pool->seed, sizeof(pool->seed));
	struct loader l = {.pool = pool, .err = err};
	arena_init(&l.scratch, LIMIT_POOL_BYTES);
	LOAD_LIST_INIT(&l.files);
	LOAD_LIST_INIT(&l.types);
	LOAD_LIST_INIT(&l.fields);
	LOAD_LIST_INIT(&l.methods);
	LOAD_LIST_INIT(&l.services);
	LOAD_LIST_INIT(&l.symbols);
	LOAD_LIST_INIT(&l.extensions);
	enum err_code code = build(&l, sets, set_count);
	arena_release(&l.scratch);
	if (!code && !(pool->refs = arena_alloc(&pool->arena, sizeof(*pool->refs))))
		code = load_exhausted(&l);
	if (code) {
		pool_free(pool);
		return code;
	}
	atomic_init(pool->refs, 1);
	*ret = pool;
	return ERR_OK;
}

const struct pb_pool *pb_pool_ref(const struct pb_pool *pool)
{
	must(pool->magic == POOL_MAGIC);
	atomic_fetch_add_explicit(pool->refs, 1, memory_order_relaxed);
	return pool;
}

void pb_pool_unref(const struct pb_pool *pool)
{
	if (!pool)
		return;
	must(pool->magic == POOL_MAGIC);
	if (atomic_fetch_sub_explicit(pool->refs, 1, memory_order_acq_rel) == 1)
		pool_free(pool->self);
}

static const void *find(const struct pb_pool *pool, struct span full_name, enum symbol_kind kind)
{
	const struct symbol *s = symbol_find(pool->symbols, pool->symbol_count, full_name);
	return s && s->kind == kind ? s->what : NULL;
}

const struct pb_type *pb_find_type(const struct pb_pool *pool, struct span full_name)
{
	return find(pool, full_name, SYMBOL_TYPE);
}

const struct pb_enum *pb_find_enum(const struct pb_pool *pool, struct span full_name)
{
	return find(pool, full_name, SYMBOL_ENUM);
}

const struct pb_service *pb_find_service(const struct pb_pool *pool, struct span full_name)
{
	return find(pool, full_name, SYMBOL_SERVICE);
}

const struct pb_method *pb_find_method(const struct pb_pool *pool, struct span full_name)
{
	return find(pool, full_name, SYMBOL_METHOD);
}

const struct pb_field *pb_find_field(const struct pb_pool *pool, struct span full_name)
{
	const struct pb_field *f = find(pool, full_name, SYMBOL_FIELD);
	return f ? f : find(pool, full_name, SYMBOL_EXTENSION);
}

static int compare_file_name(const void *name, const void *file)
{
	return span_cmp(*(const struct span *)name, (*(const struct pb_file *const *)file)->name);
}

const struct pb_file *pb_find_file(const struct pb_pool *pool, struct span name)
{
	const struct pb_file *const *found = bsearch(&name, pool->files_by_name, pool->file_count,
						     sizeof(struct pb_file *), compare_file_name);
	return found ? *found : NULL;
}

const struct pb_file *pb_find_symbol_file(const struct pb_pool *pool, struct span full_name)
{
	const struct symbol *s = symbol_find(pool->symbols, pool->symbol_count, full_name);
	return s ? s->file : NULL;
}

const struct pb_field *const *pb_find_extensions(const struct pb_pool *pool, struct span extended_type,
						 size_t *ret_count)
{
	size_t low = 0, high = pool->extension_count, n = 0;
	while (low < high) { /* the first that is not before extended_type */
		size_t middle = low + (high - low) / 2;
		if (span_cmp(pool->extensions[middle].extended, extended_type) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	while (low + n < pool->extension_count && span_eq(pool->extensions[low + n].extended, extended_type))
		n++;
	*ret_count = n;
	return n ? &pool->extension_fields[low] : NULL;
}

const struct pb_field *pb_find_extension(const struct pb_pool *pool, struct span extended_type,
					 uint32_t number)
{
	size_t n;
	const struct pb_field *const *of_type = pb_find_extensions(pool, extended_type, &n);
	for (size_t i = 0; i < n; i++) {
		if (of_type[i]->number == number)
			return of_type[i];
	}
	return NULL;
}

const struct pb_file *const *pb_pool_files(const struct pb_pool *pool, size_t *ret_count)
{
	*ret_count = pool->file_count;
	return pool->files;
}

const struct pb_service *const *pb_pool_services(const struct pb_pool *pool, size_t *ret_count)
{
	*ret_count = pool->service_count;
	return pool->services;
}

const struct pb_enum_value *pb_enum_by_number(const struct pb_enum *e, int32_t number)
{
	size_t low = 0, high = e->value_count;
	while (low < high) { /* the first that is not below number: of aliases the first declared */
		size_t middle = low + (high - low) / 2;
		if (e->by_number[middle]->number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low < e->value_count && e->by_number[low]->number == number ? e->by_number[low] : NULL;
}

static int compare_value_name(const void *name, const void *value)
{
	return span_cmp(*(const struct span *)name, (*(const struct pb_enum_value *const *)value)->name);
}

const struct pb_enum_value *pb_enum_by_name(const struct pb_enum *e, struct span name)
{
	const struct pb_enum_value *const *found =
		bsearch(&name, e->by_name, e->value_count, sizeof(*e->by_name), compare_value_name);
	return found ? *found : NULL;
}

const struct pb_type *pb_find_type_by_url(const struct pb_pool *pool, struct span type_url)
{
	size_t slash = span_find(type_url, '/');
	return slash == type_url.n ? NULL : pb_find_type(pool, span_skip(type_url, slash + 1));
}
