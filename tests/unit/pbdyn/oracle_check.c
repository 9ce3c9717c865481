/* Answers questions about pbdyn on stdin, for json_oracle (Python) to compare with its own protobuf.
 *
 * A request is a little-endian length and that many bytes: one letter, then arguments, each with its own
 * length before it. An answer is a length, one byte (0: ok, else the error code) and the result, which is
 * the error's text if it is one.
 *
 *	S set            a new pool from a FileDescriptorSet
 *	J type json      JSON to canonical wire bytes
 *	P type wire      wire bytes to JSON
 *	W type wire      wire bytes to canonical wire bytes
 *	T type path text the wire bytes of a message with one field set from text
 *	K type keys wire entity key, the keys' names joined with ',' */
#include <config.h>

#include <stdio.h>

#include "base/endian.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "pbdyn/pbdyn.h"

static bool read_exact(void *p, size_t n)
{
	return fread(p, 1, n, stdin) == n;
}

static struct span take(struct span *rest)
{
	must(rest->n >= 4);
	uint32_t n = get_le32(rest->p);
	must(rest->n - 4 >= n);
	struct span s = span_of(rest->p + 4, n);
	*rest = span_skip(*rest, 4 + (size_t)n);
	return s;
}

static enum err_code answer_key(const struct pb_type *type, struct span names, struct span wire,
				struct buf *out, struct err *err)
{
	const struct pb_field *keys[16];
	size_t n = 0;
	while (names.n) {
		size_t comma = span_find(names, ',');
		must(n < 16);
		keys[n] = pb_field_by_name(type, span_first(names, comma));
		must(keys[n++]);
		names = span_skip(names, comma < names.n ? comma + 1 : comma);
	}
	return pb_key_print(keys, n, wire, out, err);
}

static enum err_code answer(struct pb_pool *pool, uint8_t op, struct span args, struct arena *arena,
			    struct buf *out, struct err *err)
{
	struct pb_msg *msg = NULL;
	struct pb_path path;
	enum err_code code;
	struct span name = take(&args), first = take(&args);
	const struct pb_type *type = pb_find_type(pool, name);
	must(type);
	switch (op) {
	case 'J': code = pb_json_parse(type, first, arena, &msg, err); break;
	case 'P':
	case 'W': code = pb_msg_parse(type, first, arena, &msg, err); break;
	case 'K': return answer_key(type, first, take(&args), out, err);
	case 'T':
		msg = pb_msg_new(type, arena);
		must(msg);
		code = pb_path_find(type, first, &path, err);
		if (!code)
			code = pb_path_set_text(msg, &path, take(&args), err);
		break;
	default: unreachable_state("op");
	}
	if (code)
		return code;
	return op == 'P' ? pb_json_print(msg, out, err) : pb_msg_write(msg, out, err);
}

static void reply(enum err_code code, struct span result)
{
	uint8_t head[5];
	put_le32(head, (uint32_t)result.n + 1);
	head[4] = (uint8_t)code;
	fwrite(head, 1, sizeof(head), stdout);
	if (result.n)
		fwrite(result.p, 1, result.n, stdout);
	fflush(stdout);
}

int main(void)
{
	struct pb_pool *pool = NULL;
	struct buf out;
	uint8_t head[4];
	buf_init(&out, 64 * MIB);
	while (read_exact(head, sizeof(head))) {
		struct err err = {0};
		struct arena arena;
		enum err_code code;
		uint32_t n = get_le32(head);
		uint8_t *request = mem_xalloc(n);
		must(read_exact(request, n));
		arena_init(&arena, 64 * MIB);
		buf_clear(&out);
		struct span args = span_of(request + 1, n - 1);
		if (request[0] == 'S') {
			struct span set = take(&args);
			pb_pool_unref(pool);
			pool = NULL;
			code = pb_pool_new(&set, 1, &pool, &err);
		} else {
			code = answer(pool, request[0], args, &arena, &out, &err);
		}
		must(code == err.code);
		reply(code, code ? span_str(err.text) : buf_span(&out));
		arena_release(&arena);
		mem_free(request);
	}
	pb_pool_unref(pool);
	buf_release(&out);
	return 0;
}
