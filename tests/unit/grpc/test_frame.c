#include <config.h>

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"
#include "grpc/frame.h"
#include "grpc/gzip.h"
#include "grpc/outq.h"

TestSuite(frame, .timeout = 60);

static void put(struct buf *out, bool compressed, struct span message)
{
	uint8_t prefix[FRAME_PREFIX_BYTES];
	frame_prefix(prefix, compressed, message.n);
	cr_assert_eq(buf_append(out, prefix, sizeof(prefix)), ERR_OK);
	cr_assert_eq(buf_append_span(out, message), ERR_OK);
}

Test(frame, messages_come_out_whatever_the_pieces)
{
	struct buf wire;
	buf_init(&wire, 1 * MIB);
	put(&wire, false, SPAN("one"));
	put(&wire, false, SPAN(""));
	put(&wire, false, SPAN("three"));
	for (size_t chunk = 1; chunk <= wire.n; chunk++) {
		struct deframer d;
		struct span rest = buf_span(&wire), message = {0};
		unsigned n = 0;
		deframer_init(&d, 100);
		cr_assert(deframer_empty(&d));
		while (rest.n) {
			struct span piece = span_first(rest, chunk < rest.n ? chunk : rest.n);
			rest = span_skip(rest, piece.n);
			while (deframer_next(&d, &piece, &message, NULL) > 0)
				n++;
			cr_assert_eq(piece.n, 0);
		}
		cr_assert_eq(n, 3);
		cr_assert(deframer_empty(&d));
		deframer_release(&d);
	}
	buf_release(&wire);
}

static enum err_code first_error(struct span bytes, size_t max_bytes, bool may_compress)
{
	struct deframer d;
	struct span message;
	struct err err = {0};
	deframer_init(&d, max_bytes);
	d.may_compress = may_compress;
	while (deframer_next(&d, &bytes, &message, &err) > 0)
		;
	deframer_release(&d);
	return err.code;
}

Test(frame, what_is_wrong_is_an_error)
{
	cr_assert_eq(first_error(SPAN("\2\0\0\0\0"), 100, true), ERR_INVALID);
	cr_assert_eq(first_error(SPAN("\1\0\0\0\1x"), 100, false), ERR_INVALID);
	cr_assert_eq(first_error(SPAN("\1\0\0\0\1x"), 100, true), ERR_INVALID);
	cr_assert_eq(first_error(SPAN("\0\0\0\0\x65"), 100, true), ERR_LIMIT);
	cr_assert_eq(first_error(SPAN("\0\xff\xff\xff\xff"), 100, true), ERR_LIMIT);
	cr_assert_eq(first_error(SPAN("\0\0\0\0\x64"), 100, true), ERR_OK);
}

Test(frame, a_length_that_is_only_promised_takes_no_memory)
{
	struct deframer d;
	struct span bytes = SPAN("\0\x01\0\0\0x"), message;
	deframer_init(&d, 64 * MIB);
	cr_assert_eq(deframer_next(&d, &bytes, &message, NULL), 0);
	cr_assert_lt(d.body.cap_bytes, 64 * KIB);
	cr_assert_not(deframer_empty(&d));
	deframer_release(&d);
}

Test(frame, gzip_goes_round_and_is_limited)
{
	struct buf packed, wire;
	uint8_t *plain = mem_xalloc(100000);
	buf_init(&packed, 1 * MIB);
	buf_init(&wire, 1 * MIB);
	for (size_t i = 0; i < 100000; i++)
		plain[i] = (uint8_t)(i % 50);
	cr_assert_eq(gzip_deflate(&packed, span_of(plain, 100000)), ERR_OK);
	cr_assert_lt(packed.n, 5000);
	put(&wire, true, buf_span(&packed));
	cr_assert_eq(first_error(buf_span(&wire), 100000, true), ERR_OK);
	cr_assert_eq(first_error(buf_span(&wire), 99999, true), ERR_LIMIT);
	/* Cut off, and with something behind it. */
	buf_clear(&wire);
	put(&wire, true, span_first(buf_span(&packed), packed.n - 1));
	cr_assert_eq(first_error(buf_span(&wire), 100000, true), ERR_INVALID);
	buf_append_byte(&packed, 'x');
	buf_clear(&wire);
	put(&wire, true, buf_span(&packed));
	cr_assert_eq(first_error(buf_span(&wire), 100000, true), ERR_INVALID);
	/* No room for what gzip makes of it. */
	struct buf small;
	buf_init(&small, 10);
	cr_assert_eq(gzip_deflate(&small, SPAN("abcdefghij")), ERR_LIMIT);
	buf_release(&small);
	buf_release(&packed);
	buf_release(&wire);
	mem_free(plain);
}

static void gzip_scenario(struct span plain)
{
	struct buf packed, back;
	buf_init(&packed, 1 * MIB);
	buf_init(&back, 1 * MIB);
	if (gzip_deflate(&packed, plain) == ERR_OK && gzip_inflate(&back, buf_span(&packed), NULL) == ERR_OK)
		cr_assert(span_eq(buf_span(&back), plain));
	buf_release(&packed);
	buf_release(&back);
}

Test(frame, gzip_survives_every_failing_allocation)
{
	static const uint8_t plain[70000];
	mem_test_fail_at(0);
	gzip_scenario(span_of(plain, sizeof(plain)));
	unsigned long count = mem_test_fail_at(0);
	for (unsigned long i = 1; i <= count; i++) {
		mem_test_fail_at(i);
		gzip_scenario(span_of(plain, sizeof(plain)));
	}
	mem_test_fail_at(0);
}

/* ---- the queue of output ----------------------------------------------------------------------------- */

static void count_free(void *arg)
{
	++*(unsigned *)arg;
}

static size_t take_all(struct outq *q, uint8_t *to)
{
	struct iovec iov[4];
	size_t n = 0;
	int count;
	while ((count = outq_iov(q, iov, 4))) {
		size_t part = 0;
		for (int i = 0; i < count; i++) {
			memcpy(to + n + part, iov[i].iov_base, iov[i].iov_len);
			part += iov[i].iov_len;
		}
		outq_consume(q, part);
		n += part;
	}
	return n;
}

Test(frame, queued_bytes_keep_their_order_and_references_end_once)
{
	static uint8_t large[50000], got[200000], want[200000];
	struct outq from, to;
	unsigned freed = 0;
	size_t n = 0;
	for (size_t i = 0; i < sizeof(large); i++)
		large[i] = (uint8_t)(i * 13);
	outq_init(&from, 512);
	outq_init(&to, 4096);
	for (int round = 0; round < 3; round++) {
		cr_assert_eq(outq_append(&from, "abc", 3), ERR_OK);
		cr_assert_eq(outq_append_ref(&from, span_of(large, sizeof(large)), count_free, &freed),
			     ERR_OK);
		cr_assert_eq(outq_append(&from, large, 6000), ERR_OK);
		memcpy(want + n, "abc", 3);
		memcpy(want + n + 3, large, sizeof(large));
		memcpy(want + n + 3 + sizeof(large), large, 6000);
		n += 3 + sizeof(large) + 6000;
	}
	cr_assert_eq(from.n, n);
	while (from.n)
		cr_assert_eq(outq_move(&to, &from, from.n < 16384 ? from.n : 16384), ERR_OK);
	cr_assert_eq(freed, 0, "they are in the other queue now");
	cr_assert_eq(take_all(&to, got), n);
	cr_assert_eq(memcmp(got, want, n), 0);
	cr_assert_eq(freed, 3);
	cr_assert_eq(outq_append_ref(&from, span_of(large, 10), count_free, &freed), ERR_OK);
	cr_assert_eq(outq_append_ref(&from, span_of(large, 0), count_free, &freed), ERR_OK);
	outq_release(&from);
	cr_assert_eq(freed, 5);
	outq_release(&to);
}
