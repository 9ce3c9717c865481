/* The encoder: fields in the order of their numbers, empty ones left out but for the four that are
 * patched later, which have a fixed width and are always there. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "record/encode.h"

#include "base/limits.h"
#include "base/must.h"
#include "base/random.h"
#include "record/wire.h"

struct sizes {
	size_t header, body, entry, whole;
};

static size_t field_bytes(struct span s)
{
	return s.n ? 1 + wire_varint_bytes(s.n) + s.n : 0;
}

static size_t metadata_bytes(const struct record_metadata *m)
{
	return field_bytes(m->key) + field_bytes(m->value);
}

static size_t nested_bytes(size_t n)
{
	return 1 + wire_varint_bytes(n) + n;
}

static struct sizes sizes_of(const struct record_new *r)
{
	struct sizes s;
	s.header = 1 + wire_varint_bytes(RECORD_FORMAT) + 9 + 9 + 1 + wire_varint_bytes(r->kind) +
		   field_bytes(r->stream) + 2 + RECORD_ID_BYTES + field_bytes(r->type) +
		   field_bytes(r->content_type) + field_bytes(r->actor) + field_bytes(r->key_id) +
		   (r->last_of_append ? 2 : 0);
	s.body = 2 + RECORD_SALT_BYTES + field_bytes(r->data);
	for (size_t i = 0; i < r->metadata_count; i++)
		s.body += nested_bytes(metadata_bytes(&r->metadata[i]));
	s.entry = ENTRY_POSITION_BYTES + nested_bytes(s.header) + nested_bytes(s.body) + ENTRY_CRC_BYTES;
	s.whole = nested_bytes(s.entry);
	return s;
}

size_t record_encoded_bytes(const struct record_new *r)
{
	return sizes_of(r).whole;
}

static uint8_t *put_bytes(uint8_t *p, uint8_t tag, struct span s)
{
	if (s.n == 0)
		return p;
	*p++ = tag;
	p = wire_put_varint(p, s.n);
	memcpy(p, s.p, s.n);
	return p + s.n;
}

static uint8_t *put_fixed64(uint8_t *p, uint8_t tag, const uint8_t *start, size_t *ret_at)
{
	*p++ = tag;
	*ret_at = (size_t)(p - start);
	memset(p, 0, 8);
	return p + 8;
}

static uint8_t *put_header(uint8_t *p, const struct record_new *r, const uint8_t *start,
			   struct record_place *place)
{
	*p++ = TAG_HEADER_FORMAT;
	p = wire_put_varint(p, RECORD_FORMAT);
	p = put_fixed64(p, TAG_HEADER_SEQUENCE, start, &place->sequence_at);
	p = put_fixed64(p, TAG_HEADER_TIME, start, &place->time_at);
	*p++ = TAG_HEADER_KIND;
	p = wire_put_varint(p, r->kind);
	p = put_bytes(p, TAG_HEADER_STREAM, r->stream);
	p = put_bytes(p, TAG_HEADER_ID, span_of(r->id, RECORD_ID_BYTES));
	p = put_bytes(p, TAG_HEADER_TYPE, r->type);
	p = put_bytes(p, TAG_HEADER_CONTENT_TYPE, r->content_type);
	p = put_bytes(p, TAG_HEADER_ACTOR, r->actor);
	p = put_bytes(p, TAG_HEADER_KEY_ID, r->key_id);
	if (r->last_of_append) {
		*p++ = TAG_HEADER_LAST;
		*p++ = 1;
	}
	return p;
}

static uint8_t *put_body(uint8_t *p, const struct record_new *r)
{
	*p++ = TAG_BODY_SALT;
	*p++ = RECORD_SALT_BYTES;
	random_bytes(p, RECORD_SALT_BYTES);
	p += RECORD_SALT_BYTES;
	p = put_bytes(p, TAG_BODY_DATA, r->data);
	for (size_t i = 0; i < r->metadata_count; i++) {
		*p++ = TAG_BODY_METADATA;
		p = wire_put_varint(p, metadata_bytes(&r->metadata[i]));
		p = put_bytes(p, TAG_METADATA_KEY, r->metadata[i].key);
		p = put_bytes(p, TAG_METADATA_VALUE, r->metadata[i].value);
	}
	return p;
}

enum err_code record_encode(struct buf *out, const struct record_new *r, struct record_place *ret,
			    struct err *err)
{
	must(out);
	must(r);
	must(ret);
	if (r->data.n > LIMIT_RECORD_BYTES)
		return err_set(err, ERR_LIMIT, "record exceeds %zu bytes", LIMIT_RECORD_BYTES);
	struct sizes sizes = sizes_of(r);
	if (sizes.whole > LIMIT_RECORD_BYTES)
		return err_set(err, ERR_LIMIT, "record exceeds %zu bytes", LIMIT_RECORD_BYTES);
	enum err_code code = buf_reserve(out, sizes.whole);
	if (code)
		return err_set(err, code, "no memory for a record of %zu bytes", sizes.whole);

	struct record_place place = {.at = out->n, .n = sizes.whole};
	uint8_t *p = out->p + out->n;
	*p++ = TAG_RESPONSE_ENTRY;
	p = wire_put_varint(p, sizes.entry);
	p = put_fixed64(p, TAG_ENTRY_POSITION, out->p, &place.position_at);
	*p++ = TAG_ENTRY_HEADER;
	p = wire_put_varint(p, sizes.header);
	p = put_header(p, r, out->p, &place);
	*p++ = TAG_ENTRY_BODY;
	p = wire_put_varint(p, sizes.body);
	p = put_body(p, r);
	*p++ = TAG_ENTRY_CRC;
	place.crc_at = (size_t)(p - out->p);
	put_le32(p, 0);
	p += 4;
	must(p == out->p + place.at + place.n);
	out->n += sizes.whole;
	*ret = place;
	return ERR_OK;
}

void record_patch(uint8_t *buffer, const struct record_place *place, uint64_t position,
		  uint64_t sequence, struct wall_time commit_time)
{
	must(buffer);
	must(place->crc_at + 4 == place->at + place->n);
	put_le64(buffer + place->position_at, position);
	put_le64(buffer + place->sequence_at, sequence);
	put_le64(buffer + place->time_at, (uint64_t)commit_time.us);
	size_t entry_at = place->position_at - 1, tag_at = place->crc_at - 1;
	put_le32(buffer + place->crc_at,
		 record_crc32c(0, span_of(buffer + entry_at, tag_at - entry_at)));
}
