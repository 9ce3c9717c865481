#include <config.h>

#include "base/endian.h"

#include <criterion/criterion.h>
#include <string.h>

Test(endian, byte_order_is_explicit)
{
	uint8_t p[8];
	put_le32(p, 0x01020304);
	cr_assert(memcmp(p, "\x04\x03\x02\x01", 4) == 0);
	put_be32(p, 0x01020304);
	cr_assert(memcmp(p, "\x01\x02\x03\x04", 4) == 0);
	put_le64(p, 0x0102030405060708);
	cr_assert(memcmp(p, "\x08\x07\x06\x05\x04\x03\x02\x01", 8) == 0);
	put_be64(p, 0x0102030405060708);
	cr_assert(memcmp(p, "\x01\x02\x03\x04\x05\x06\x07\x08", 8) == 0);
}

Test(endian, reads_back_what_was_put)
{
	static const uint64_t values[] = {0, 1, 0x80, 0xFF00FF00, 0xFFFFFFFF, 0x8000000000000000, UINT64_MAX};
	uint8_t p[8];
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		put_le64(p, values[i]);
		cr_assert(get_le64(p) == values[i]);
		put_be64(p, values[i]);
		cr_assert(get_be64(p) == values[i]);
		put_le32(p, (uint32_t)values[i]);
		cr_assert(get_le32(p) == (uint32_t)values[i]);
		put_be32(p, (uint32_t)values[i]);
		cr_assert(get_be32(p) == (uint32_t)values[i]);
	}
}
