/* Any bytes as the JSON of a message: what is accepted comes back the same by way of wire bytes and JSON. */
#include <config.h>

#include "pbdyn_types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Wire bytes to JSON and back to wire bytes. Limits may be exceeded, nothing else. */
static bool go_round(const struct pb_type *type, struct arena *arena, const struct buf *from,
		     struct buf *json, struct buf *to)
{
	struct pb_msg *msg;
	enum err_code code = pb_msg_parse(type, buf_span(from), arena, &msg, NULL);
	if (!code) {
		buf_clear(json);
		code = pb_json_print(msg, json, NULL);
	}
	if (!code)
		code = pb_json_parse(type, buf_span(json), arena, &msg, NULL);
	if (!code) {
		buf_clear(to);
		code = pb_msg_write(msg, to, NULL);
	}
	must(code == ERR_OK || code == ERR_LIMIT);
	return code == ERR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pb_msg *msg;
	struct arena arena;
	struct buf first, second, third, json;
	struct err err = {0};
	if (size == 0)
		return 0;
	const struct pb_type *type = fuzz_type(data[0]);
	arena_init(&arena, 32 * MIB);
	buf_init(&first, 4 * MIB);
	buf_init(&second, 4 * MIB);
	buf_init(&third, 4 * MIB);
	buf_init(&json, 8 * MIB);
	/* proto2 scalars that are unset come back set to their default: hence the second round. */
	if (pb_json_parse(type, span_of(data + 1, size - 1), &arena, &msg, &err) == ERR_OK &&
	    pb_msg_write(msg, &first, NULL) == ERR_OK && go_round(type, &arena, &first, &json, &second) &&
	    go_round(type, &arena, &second, &json, &third))
		must(span_eq(buf_span(&second), buf_span(&third)));
	buf_release(&json);
	buf_release(&third);
	buf_release(&second);
	buf_release(&first);
	arena_release(&arena);
	return 0;
}
