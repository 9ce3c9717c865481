/* Any bytes as a message: what is accepted is written in a form that stays as it is when read again. */
#include <config.h>

#include "pbdyn_types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_msg *msg, *again;
	struct arena arena;
	struct buf first, second;
	if (size == 0)
		return 0;
	const struct pb_type *type = fuzz_type(data[0]);
	struct span wire = span_of(data + 1, size - 1);
	arena_init(&arena, 16 * MIB);
	buf_init(&first, 4 * MIB);
	buf_init(&second, 16 * MIB);
	if (pb_msg_parse(type, wire, &arena, &msg, NULL) == ERR_OK &&
	    pb_msg_write(msg, &first, NULL) == ERR_OK) {
		must(pb_msg_parse(type, buf_span(&first), &arena, &again, NULL) == ERR_OK);
		must(pb_msg_write(again, &second, NULL) == ERR_OK);
		must(span_eq(buf_span(&first), buf_span(&second)));
		buf_clear(&second);
		(void)pb_json_print(msg, &second, NULL);
	}
	for (size_t i = 0; i < type->field_count; i++) {
		const struct pb_field *key = &type->fields[i];
		buf_clear(&second);
		(void)pb_key_print(&key, 1, wire, &second, NULL);
	}
	buf_release(&second);
	buf_release(&first);
	arena_release(&arena);
	return 0;
}
