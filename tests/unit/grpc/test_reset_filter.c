#include <config.h>

#include <criterion/criterion.h>
#include <string.h>

#include "grpc/reset_filter.h"

TestSuite(reset_filter, .timeout = 60);

/* A client's preface, then frames whose payload is their place in the list; those of type 3 are resets. */
static size_t sent(uint8_t *out, const uint8_t types[], size_t n, bool without_stream_5)
{
	size_t at = 24;
	memset(out, 'p', at);
	for (size_t i = 0; i < n; i++) {
		const uint8_t length = types[i] == 3 ? 4 : (uint8_t)(i * 7 % 40), stream = (uint8_t)(2 * i + 1);
		if (without_stream_5 && types[i] == 3 && stream == 5)
			continue;
		const uint8_t head[9] = {0, 0, length, types[i], 0, 0x80, 0, 0, stream};
		memcpy(out + at, head, 9);
		memset(out + at + 9, (int)i, length);
		at += 9u + length;
	}
	return at;
}

/* However the bytes come, all of them go on but for the resets that are dropped, and each reset is shown. */
Test(reset_filter, drops_what_it_is_told_to_and_nothing_else)
{
	const uint8_t types[] = {4, 1, 3, 3, 0, 8, 3, 1, 0};
	uint8_t in[512], want[512], got[512];
	size_t in_n = sent(in, types, sizeof(types), false), want_n = sent(want, types, sizeof(types), true);
	cr_assert(want_n == in_n - 13);
	for (size_t piece = 1; piece <= in_n; piece++) {
		struct reset_filter filter;
		size_t got_n = 0;
		unsigned shown = 0;
		reset_filter_init(&filter);
		for (size_t at = 0; at < in_n; at += piece) {
			struct span bytes = {in + at, in_n - at < piece ? in_n - at : piece};
			while (bytes.n) {
				uint32_t reset;
				size_t before = bytes.n;
				struct span some = reset_filter_next(&filter, &bytes, &reset);
				cr_assert(bytes.n < before);
				shown = reset ? shown * 100 + reset : shown;
				if (reset == 5) {
					reset_filter_drop(&filter);
					continue;
				}
				memcpy(got + got_n, some.p ? some.p : in, some.n);
				got_n += some.n;
			}
		}
		cr_assert(shown == 50713, "in pieces of %zu: %u", piece, shown);
		cr_assert(got_n == want_n && !memcmp(got, want, want_n), "in pieces of %zu", piece);
	}
}
