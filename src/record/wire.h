/* Protobuf's wire format, as much as a record needs. Private to src/record. */
#ifndef CAIRN_RECORD_WIRE_H
#define CAIRN_RECORD_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/endian.h"
#include "base/span.h"

enum wire_type { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };
#define WIRE_TAG(field, type) ((uint8_t)((field) << 3 | (type)))

/* Tags of fields with numbers up to 15 are one byte each. */
enum wire_tag {
	TAG_RESPONSE_ENTRY = WIRE_TAG(1, WIRE_BYTES),

	TAG_ENTRY_POSITION = WIRE_TAG(1, WIRE_FIXED64),
	TAG_ENTRY_HEADER = WIRE_TAG(2, WIRE_BYTES),
	TAG_ENTRY_BODY = WIRE_TAG(3, WIRE_BYTES),
	TAG_ENTRY_BODY_HASH = WIRE_TAG(4, WIRE_BYTES),
	TAG_ENTRY_LEAF_HASH = WIRE_TAG(5, WIRE_BYTES),
	TAG_ENTRY_CRC = WIRE_TAG(15, WIRE_FIXED32),

	TAG_HEADER_FORMAT = WIRE_TAG(1, WIRE_VARINT),
	TAG_HEADER_SEQUENCE = WIRE_TAG(2, WIRE_FIXED64),
	TAG_HEADER_TIME = WIRE_TAG(3, WIRE_FIXED64),
	TAG_HEADER_KIND = WIRE_TAG(4, WIRE_VARINT),
	TAG_HEADER_STREAM = WIRE_TAG(5, WIRE_BYTES),
	TAG_HEADER_ID = WIRE_TAG(6, WIRE_BYTES),
	TAG_HEADER_TYPE = WIRE_TAG(7, WIRE_BYTES),
	TAG_HEADER_CONTENT_TYPE = WIRE_TAG(8, WIRE_BYTES),
	TAG_HEADER_ACTOR = WIRE_TAG(9, WIRE_BYTES),
	TAG_HEADER_KEY_ID = WIRE_TAG(10, WIRE_BYTES),
	TAG_HEADER_LAST = WIRE_TAG(11, WIRE_VARINT),

	TAG_BODY_SALT = WIRE_TAG(1, WIRE_BYTES),
	TAG_BODY_DATA = WIRE_TAG(2, WIRE_BYTES),
	TAG_BODY_METADATA = WIRE_TAG(3, WIRE_BYTES),

	TAG_METADATA_KEY = WIRE_TAG(1, WIRE_BYTES),
	TAG_METADATA_VALUE = WIRE_TAG(2, WIRE_BYTES),
};

/* Bytes of an Entry before its header: the position's tag and value. After its content: the CRC's. */
#define ENTRY_POSITION_BYTES ((size_t)9)
#define ENTRY_CRC_BYTES ((size_t)5)

static inline size_t wire_varint_bytes(uint64_t v)
{
	size_t n = 1;
	while (v >= 0x80) {
		v >>= 7;
		n++;
	}
	return n;
}

static inline uint8_t *wire_put_varint(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

/* Takes a varint of at most ten bytes off the span; false when it is cut or longer. */
static inline bool wire_take_varint(struct span *s, uint64_t *ret)
{
	if (s->n > 0 && s->p[0] < 0x80) {
		*ret = s->p[0];
		*s = span_skip(*s, 1);
		return true;
	}
	uint64_t v = 0;
	for (size_t i = 0; i < s->n && i < 10; i++) {
		if (i == 9 && s->p[i] > 1)
			return false;
		v |= (uint64_t)(s->p[i] & 0x7f) << (7 * i);
		if (s->p[i] < 0x80) {
			*ret = v;
			*s = span_skip(*s, i + 1);
			return true;
		}
	}
	return false;
}

static inline bool wire_take_bytes(struct span *s, struct span *ret)
{
	uint64_t n;
	if (!wire_take_varint(s, &n) || n > s->n)
		return false;
	*ret = span_first(*s, (size_t)n);
	*s = span_skip(*s, (size_t)n);
	return true;
}

/* One field: number (field), and its value as number or bytes. */
struct wire_field {
	uint32_t number;
	enum wire_type type;
	uint64_t value;	   /* VARINT, FIXED64, FIXED32 */
	struct span bytes; /* BYTES */
};

/* Takes the next field off a message; false when it is malformed (groups are, too). */
static inline bool wire_take_field(struct span *s, struct wire_field *ret)
{
	uint64_t tag;
	if (!wire_take_varint(s, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
		return false;
	ret->number = (uint32_t)(tag >> 3);
	switch (tag & 7) {
	case WIRE_VARINT:
		ret->type = WIRE_VARINT;
		return wire_take_varint(s, &ret->value);
	case WIRE_BYTES:
		ret->type = WIRE_BYTES;
		return wire_take_bytes(s, &ret->bytes);
	case WIRE_FIXED64:
		if (s->n < 8)
			return false;
		ret->type = WIRE_FIXED64;
		ret->value = get_le64(s->p);
		*s = span_skip(*s, 8);
		return true;
	case WIRE_FIXED32:
		if (s->n < 4)
			return false;
		ret->type = WIRE_FIXED32;
		ret->value = get_le32(s->p);
		*s = span_skip(*s, 4);
		return true;
	default:
		return false;
	}
}

#endif
