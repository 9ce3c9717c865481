/* Any bytes as the body of a gRPC-Web request, binary and text. What messages are found must be those that are framed
 * again; what is put as text must be read back. */
#include <config.h>

#include "base/limits.h"
#include "base/must.h"
#include "proxy/grpc_web_frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_body(struct span body)
{
	struct span rest = body, message;
	struct buf again, text, back;
	enum grpc_code code;
	buf_init(&again, 1 * MIB);
	buf_init(&text, 2 * MIB);
	buf_init(&back, 1 * MIB);
	while (grpc_web_next_message(&rest, &message, &code)) {
		must(!grpc_web_put_frame(&again, 0, message, false));
		must(!grpc_web_put_frame(&text, 0, message, true));
	}
	must(code == GRPC_OK || code == GRPC_INVALID_ARGUMENT || code == GRPC_UNIMPLEMENTED);
	must((code == GRPC_OK) == (rest.n == 0));
	must(span_eq(buf_span(&again), span_first(body, body.n - rest.n)));
	must(!grpc_web_decode_text(buf_span(&text), &back));
	must(span_eq(buf_span(&back), buf_span(&again)));
	buf_release(&back);
	buf_release(&text);
	buf_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct span body = span_of(data, size);
	struct buf decoded;
	if (size > 256 * KIB)
		return 0;
	try_body(body);
	buf_init(&decoded, 1 * MIB);
	if (!grpc_web_decode_text(body, &decoded))
		try_body(buf_span(&decoded));
	buf_release(&decoded);
	return 0;
}
