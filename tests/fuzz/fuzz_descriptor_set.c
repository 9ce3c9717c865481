/* Any bytes as a FileDescriptorSet: an error, or a pool in which everything can be looked at and used. */
#include <config.h>

#include "base/limits.h"
#include "base/must.h"
#include "pbdyn/pbdyn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_type(const struct pb_type *type, struct arena *arena, struct buf *out)
{
	struct pb_msg *msg;
	if (pb_msg_parse(type, SPAN("\x0a\x00\x12\x02\x08\x01"), arena, &msg, NULL))
		return;
	buf_clear(out);
	if (pb_msg_write(msg, out, NULL) == ERR_OK)
		(void)pb_json_print(msg, out, NULL);
	for (size_t i = 0; i < type->field_count; i++) {
		const struct pb_field *f = &type->fields[i];
		must(pb_field_by_number(type, f->number) == f);
		must(pb_field_by_name(type, f->json_name) == f);
		must(pb_field_by_name(type, f->name));
		must(pb_find_field(type->file->pool, f->full_name) == f);
	}
	(void)pb_json_parse(type, SPAN("{\"a\":{},\"value\":[1],\"@type\":\"x/a.B\"}"), arena, &msg, NULL);
}

static void use_service(const struct pb_pool *pool, const struct pb_service *s, struct arena *arena,
			struct buf *out)
{
	bool value;
	struct span bytes;
	must(pb_find_service(pool, s->full_name) == s);
	for (size_t i = 0; i < s->method_count; i++) {
		const struct pb_method *m = &s->methods[i];
		must(pb_find_method(pool, m->full_name) == m);
		must(pb_find_symbol_file(pool, m->full_name) == s->file);
		pb_option_bool(m->options, 1081, &value);
		pb_option_message(m->options, 72295728, arena, &bytes);
		use_type(m->input, arena, out);
		use_type(m->output, arena, out);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span set = span_of(data, size);
	struct pb_pool *pool;
	struct arena arena;
	struct buf out;
	size_t n;
	if (pb_pool_new(&set, 1, &pool, NULL))
		return 0;
	arena_init(&arena, 4 * MIB);
	buf_init(&out, MIB);
	const struct pb_service *const *services = pb_pool_services(pool, &n);
	for (size_t i = 0; i < n; i++)
		use_service(pool, services[i], &arena, &out);
	const struct pb_file *const *files = pb_pool_files(pool, &n);
	for (size_t i = 0; i < n; i++) {
		must(pb_find_file(pool, files[i]->name) == files[i]);
		for (size_t k = 0; k < files[i]->dep_count; k++)
			must(files[i]->deps[k]);
	}
	must(pb_find_type(pool, SPAN("google.protobuf.Any")));
	use_type(pb_find_type(pool, SPAN("google.protobuf.Any")), &arena, &out);
	buf_release(&out);
	arena_release(&arena);
	pb_pool_unref(pool);
	return 0;
}
