#include <config.h>

#include "proxy/grpc_web_frame.h"

#include "base/endian.h"
#include "base/must.h"
#include "base/text.h"

#define HEADER_BYTES 5

enum err_code grpc_web_decode_text(struct span text, struct buf *out)
{
	while (text.n) {
		size_t n = span_find(text, '=');
		while (n < text.n && text.p[n] == '=')
			n++;
		enum err_code code = n % 4 ? ERR_INVALID : base64_decode(out, span_first(text, n));
		if (code)
			return code;
		text = span_skip(text, n);
	}
	return ERR_OK;
}

bool grpc_web_next_message(struct span *body, struct span *ret, enum grpc_code *ret_code)
{
	*ret_code = GRPC_OK;
	if (!body->n)
		return false;
	if (body->n < HEADER_BYTES || get_be32(body->p + 1) > body->n - HEADER_BYTES) {
		*ret_code = GRPC_INVALID_ARGUMENT;
		return false;
	}
	if (body->p[0] != 0) {
		*ret_code = GRPC_UNIMPLEMENTED;
		return false;
	}
	*ret = span_of(body->p + HEADER_BYTES, get_be32(body->p + 1));
	*body = span_skip(*body, HEADER_BYTES + ret->n);
	return true;
}

enum err_code grpc_web_put_frame(struct buf *out, uint8_t flags, struct span bytes, bool text)
{
	uint8_t header[HEADER_BYTES] = {flags};
	struct buf frame;
	must(bytes.n <= UINT32_MAX);
	put_be32(header + 1, (uint32_t)bytes.n);
	buf_init(&frame, bytes.n + HEADER_BYTES);
	struct buf *to = text ? &frame : out;
	enum err_code code = buf_append(to, header, sizeof header);
	if (!code)
		code = buf_append_span(to, bytes);
	if (!code && text)
		code = base64_encode(out, buf_span(&frame), true);
	buf_release(&frame);
	return code;
}
