/* Reflection from a descriptor pool that never changes, so any loop may ask. */
#include <config.h>

#include "journal/reflection.h"

#include "base/map.h"
#include "base/mem.h"
#include "base/must.h"
#include "pbdyn/pbdyn.h"

/* Made at build time from the .proto files: a FileDescriptorSet. */
extern const uint8_t journal_descriptor_set[];
extern const size_t journal_descriptor_set_bytes;

#define REFLECTION_MAGIC 0x4ef1ec70
struct journal_reflection {
	uint32_t magic;
	struct pb_pool *pool;
	struct grpc_reflection_source source;
};

static const struct pb_pool *pool_of(void *arg)
{
	return OBJ_CAST(struct journal_reflection, arg, REFLECTION_MAGIC)->pool;
}

static void reflect_services(void *arg, void (*add)(void *to, struct span name), void *to)
{
	size_t n;
	const struct pb_service *const *services = pb_pool_services(pool_of(arg), &n);

	for (size_t i = 0; i < n; i++)
		if (services[i]->file->set_index == 0) /* not what the pool brings along */
			add(to, services[i]->full_name);
}

typedef void add_file_fn(void *to, struct span file_name, struct span file);

static void add_with_dependencies(const struct pb_file *file, struct map *seen, add_file_fn *add, void *to)
{
	if (file->placeholder || map_get(seen, file->name))
		return;
	map_put(seen, file->name, seen); /* any value: it is a set */
	add(to, file->name, file->raw);
	for (size_t i = 0; i < file->dep_count; i++)
		add_with_dependencies(file->deps[i], seen, add, to);
}

static void add_file(const struct pb_file *file, add_file_fn *add, void *to)
{
	struct map seen;

	if (!file)
		return;
	map_init(&seen);
	add_with_dependencies(file, &seen, add, to);
	map_release(&seen);
}

static void reflect_file(void *arg, struct span name, add_file_fn *add, void *to)
{
	add_file(pb_find_file(pool_of(arg), name), add, to);
}

static void reflect_symbol(void *arg, struct span symbol, add_file_fn *add, void *to)
{
	add_file(pb_find_symbol_file(pool_of(arg), symbol), add, to);
}

static void reflect_extension(void *arg, struct span type, int32_t number, add_file_fn *add, void *to)
{
	const struct pb_field *field =
		number > 0 ? pb_find_extension(pool_of(arg), type, (uint32_t)number) : NULL;

	add_file(field ? field->file : NULL, add, to);
}

static bool reflect_extension_numbers(void *arg, struct span type, void (*add)(void *to, int32_t number),
				      void *to)
{
	size_t n;
	const struct pb_field *const *fields = pb_find_extensions(pool_of(arg), type, &n);

	for (size_t i = 0; i < n; i++)
		add(to, (int32_t)fields[i]->number);
	return n > 0 || pb_find_type(pool_of(arg), type);
}

struct journal_reflection *journal_reflection_new(struct grpc_server *server)
{
	struct journal_reflection *r = mem_xalloc(sizeof(*r));
	struct span set = span_of(journal_descriptor_set, journal_descriptor_set_bytes);
	struct err err = {0};

	r->magic = REFLECTION_MAGIC;
	must(!pb_pool_new(&set, 1, &r->pool, &err)); /* our own files, linked at build time */
	r->source = (struct grpc_reflection_source){
		.services = reflect_services,
		.file_by_name = reflect_file,
		.file_by_symbol = reflect_symbol,
		.file_by_extension = reflect_extension,
		.extension_numbers = reflect_extension_numbers,
		.arg = r,
	};
	grpc_reflection_add(server, &r->source);
	return r;
}

void journal_reflection_free(struct journal_reflection *r)
{
	if (!r)
		return;
	must(r->magic == REFLECTION_MAGIC);
	pb_pool_unref(r->pool);
	r->magic = 0;
	mem_free(r);
}
