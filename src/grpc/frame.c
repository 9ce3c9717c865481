#include <config.h>

#include "grpc/frame.h"

#include "base/endian.h"
#include "base/limits.h"
#include "base/must.h"
#include "grpc/gzip.h"

/* Memory of a message larger than this is given back once it has been delivered. */
#define DEFRAMER_KEEP_BYTES (64 * KIB)

void deframer_init(struct deframer *d, size_t max_bytes)
{
	*d = (struct deframer){.max_bytes = max_bytes};
	buf_init(&d->body, max_bytes);
	buf_init(&d->inflated, max_bytes);
}

void deframer_release(struct deframer *d)
{
	buf_release(&d->body);
	buf_release(&d->inflated);
}

bool deframer_empty(const struct deframer *d)
{
	return d->prefix_n == 0 || d->delivered;
}

void frame_prefix(uint8_t prefix[FRAME_PREFIX_BYTES], bool compressed, size_t message_bytes)
{
	must(message_bytes <= UINT32_MAX);
	prefix[0] = compressed;
	put_be32(prefix + 1, (uint32_t)message_bytes);
}

static void deframer_forget(struct buf *b, size_t max_bytes)
{
	if (b->cap_bytes > DEFRAMER_KEEP_BYTES) {
		buf_release(b);
		buf_init(b, max_bytes);
	}
	buf_clear(b);
}

static int deframer_check_prefix(struct deframer *d, struct err *err)
{
	d->want_bytes = get_be32(d->prefix + 1);
	if (d->prefix[0] > 1) {
		err_set(err, ERR_INVALID, "message with unknown flags 0x%02x", d->prefix[0]);
		return -1;
	}
	if (d->prefix[0] && !d->may_compress) {
		err_set(err, ERR_INVALID, "compressed message, but grpc-encoding names no compression");
		return -1;
	}
	if (d->want_bytes > d->max_bytes) {
		err_set(err, ERR_LIMIT, "message of %zu bytes is larger than the limit of %zu", d->want_bytes,
			d->max_bytes);
		return -1;
	}
	return 0;
}

/* Gathers the message; true once it is whole, in place if the input holds all of it. */
static bool deframer_collect(struct deframer *d, struct span *input, struct span *ret_body, struct err *err)
{
	if (d->body.n == 0 && input->n >= d->want_bytes) {
		*ret_body = span_first(*input, d->want_bytes);
		*input = span_skip(*input, d->want_bytes);
		return true;
	}
	size_t take = d->want_bytes - d->body.n;
	if (take > input->n)
		take = input->n;
	enum err_code rc = buf_append(&d->body, input->p, take);
	if (rc) {
		err_set(err, rc, "message of %zu bytes: %s", d->want_bytes, err_name(rc));
		return false;
	}
	*input = span_skip(*input, take);
	*ret_body = buf_span(&d->body);
	return d->body.n == d->want_bytes;
}

int deframer_next(struct deframer *d, struct span *input, struct span *ret_message, struct err *err)
{
	if (d->delivered) {
		deframer_forget(&d->body, d->max_bytes);
		d->prefix_n = 0;
		d->delivered = false;
	}
	deframer_forget(&d->inflated, d->max_bytes);
	while (d->prefix_n < FRAME_PREFIX_BYTES) {
		if (input->n == 0)
			return 0;
		d->prefix[d->prefix_n++] = input->p[0];
		*input = span_skip(*input, 1);
		if (d->prefix_n == FRAME_PREFIX_BYTES && deframer_check_prefix(d, err))
			return -1;
	}
	struct err cause = {0};
	struct span body = {0};
	if (!deframer_collect(d, input, &body, &cause)) {
		if (cause.code == ERR_OK)
			return 0;
		err_set(err, cause.code, "%s", cause.text);
		return -1;
	}
	if (d->prefix[0]) {
		enum err_code rc = gzip_inflate(&d->inflated, body, err);
		if (rc)
			return -1;
		body = buf_span(&d->inflated);
	}
	d->delivered = true;
	*ret_message = body;
	return 1;
}
