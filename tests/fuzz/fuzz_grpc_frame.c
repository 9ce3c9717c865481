/* Any bytes as a stream of gRPC messages: the same messages come out whatever the pieces, none is larger than
 * the limit, and an error says what was wrong. The first byte says the piece's size. */
#include <config.h>

#include "base/limits.h"
#include "base/must.h"
#include "grpc/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGE_MAX_BYTES ((size_t)20000)

struct outcome {
	struct buf bytes; /* of all messages */
	size_t messages;
	enum err_code code;
	bool empty;
};

static struct outcome deframe(struct span all, size_t chunk)
{
	struct outcome got = {0};
	struct deframer d;
	struct err err = {0};
	deframer_init(&d, MESSAGE_MAX_BYTES);
	d.may_compress = true;
	buf_init(&got.bytes, 64 * MIB);
	while (all.n && got.code == ERR_OK) {
		struct span piece = span_first(all, all.n < chunk ? all.n : chunk), message;
		int r;
		all = span_skip(all, piece.n);
		while ((r = deframer_next(&d, &piece, &message, &err)) > 0) {
			must(message.n <= MESSAGE_MAX_BYTES);
			must(buf_append_span(&got.bytes, message) == ERR_OK);
			got.messages++;
		}
		must(r < 0 || piece.n == 0);
		if (r < 0)
			got.code = err.code;
	}
	must((got.code != ERR_OK) == (err.text[0] != 0));
	got.empty = deframer_empty(&d);
	deframer_release(&d);
	return got;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	struct span all = span_of(data + 1, size - 1);
	struct outcome whole = deframe(all, size), pieces = deframe(all, data[0] ? data[0] : 1);
	must(whole.messages == pieces.messages);
	must(whole.code == pieces.code);
	must(span_eq(buf_span(&whole.bytes), buf_span(&pieces.bytes)));
	must(whole.code || whole.empty == pieces.empty);
	buf_release(&whole.bytes);
	buf_release(&pieces.bytes);
	return 0;
}
