/* The decoder: foreign bytes in, spans into them out. Fields that this program does not know are
 * skipped; what it knows must have the wire type of the .proto. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "record/record.h"

#include "base/must.h"
#include "record/wire.h"

enum err_code record_next(struct span *run, struct span *ret_entry, struct span *ret_whole,
			  struct err *err)
{
	if (run->n == 0)
		return ERR_NOT_FOUND;
	if (run->p[0] != TAG_RESPONSE_ENTRY)
		return err_set(err, ERR_CORRUPT, "no record begins here: byte 0x%02x", run->p[0]);
	struct span rest = span_skip(*run, 1), entry;
	if (!wire_take_bytes(&rest, &entry))
		return err_set(err, ERR_CORRUPT, "a record's length is wrong: %zu bytes are left", run->n);
	if (entry.n < ENTRY_POSITION_BYTES || entry.p[0] != TAG_ENTRY_POSITION)
		return err_set(err, ERR_CORRUPT, "a record has no position");
	if (ret_whole)
		*ret_whole = span_first(*run, run->n - rest.n);
	*ret_entry = entry;
	*run = rest;
	return ERR_OK;
}

uint64_t record_position(struct span entry)
{
	must(entry.n >= ENTRY_POSITION_BYTES);
	return get_le64(entry.p + 1);
}

bool record_peek(struct span entry, uint32_t *ret_kind, struct span *ret_stream)
{
	struct wire_field field = {0};
	uint32_t kind = 0;
	if (entry.n < ENTRY_POSITION_BYTES)
		return false;
	struct span rest = span_skip(entry, ENTRY_POSITION_BYTES);
	uint64_t tag, n;
	if (!wire_take_varint(&rest, &tag) || tag != TAG_ENTRY_HEADER || !wire_take_varint(&rest, &n))
		return false;
	if (n < rest.n)
		rest = span_first(rest, (size_t)n);
	while (wire_take_field(&rest, &field)) {
		if (field.number == TAG_HEADER_KIND >> 3 && field.type == WIRE_VARINT)
			kind = (uint32_t)field.value;
		if (field.number == TAG_HEADER_STREAM >> 3 && field.type == WIRE_BYTES) {
			*ret_kind = kind;
			*ret_stream = field.bytes;
			return true;
		}
	}
	return false;
}

static enum err_code corrupt(struct err *err, const char *what, struct span whole, const uint8_t *at)
{
	return err_set(err, ERR_CORRUPT, "%s (byte %zu of %zu of the record)", what,
		       (size_t)(at - whole.p), whole.n);
}

/* Header fields that hold bytes, by number. */
static struct span *header_bytes(struct record_view *v, uint32_t number)
{
	switch (number) {
	case TAG_HEADER_STREAM >> 3:
		return &v->stream;
	case TAG_HEADER_ID >> 3:
		return &v->id;
	case TAG_HEADER_TYPE >> 3:
		return &v->type;
	case TAG_HEADER_CONTENT_TYPE >> 3:
		return &v->content_type;
	case TAG_HEADER_ACTOR >> 3:
		return &v->actor;
	case TAG_HEADER_KEY_ID >> 3:
		return &v->key_id;
	default:
		return NULL;
	}
}

static enum wire_type header_type(uint32_t number)
{
	switch (number) {
	case TAG_HEADER_SEQUENCE >> 3:
	case TAG_HEADER_TIME >> 3:
		return WIRE_FIXED64;
	case TAG_HEADER_FORMAT >> 3:
	case TAG_HEADER_KIND >> 3:
	case TAG_HEADER_LAST >> 3:
		return WIRE_VARINT;
	default:
		return WIRE_BYTES;
	}
}

static void header_number(struct record_view *v, const struct wire_field *field)
{
	switch (field->number) {
	case TAG_HEADER_FORMAT >> 3:
		v->format = (uint32_t)field->value;
		break;
	case TAG_HEADER_SEQUENCE >> 3:
		v->sequence = field->value;
		break;
	case TAG_HEADER_TIME >> 3:
		v->commit_time.us = (int64_t)field->value;
		break;
	case TAG_HEADER_KIND >> 3:
		v->kind = (uint32_t)field->value;
		break;
	case TAG_HEADER_LAST >> 3:
		v->last_of_append = field->value != 0;
		break;
	default:
		break;
	}
}

static enum err_code decode_header(struct span entry, struct record_view *v, struct err *err)
{
	struct span rest = v->header;
	while (rest.n > 0) {
		const uint8_t *at = rest.p;
		struct wire_field field;
		if (!wire_take_field(&rest, &field))
			return corrupt(err, "header is malformed", entry, at);
		if (field.number > TAG_HEADER_LAST >> 3)
			continue;
		if (field.type != header_type(field.number))
			return corrupt(err, "header field has a wrong type", entry, at);
		struct span *bytes = header_bytes(v, field.number);
		if (bytes)
			*bytes = field.bytes;
		else
			header_number(v, &field);
	}
	if (v->id.n != RECORD_ID_BYTES)
		return corrupt(err, "record id has not 16 bytes", entry, v->header.p);
	if (v->stream.n == 0)
		return corrupt(err, "record has no stream", entry, v->header.p);
	return ERR_OK;
}

bool record_decode_header(struct span entry, struct record_view *ret)
{
	if (entry.n < ENTRY_POSITION_BYTES || entry.p[0] != TAG_ENTRY_POSITION)
		return false;
	struct record_view v = {.position = record_position(entry)};
	struct span rest = span_skip(entry, ENTRY_POSITION_BYTES);
	if (rest.n == 0 || rest.p[0] != TAG_ENTRY_HEADER)
		return false;
	rest = span_skip(rest, 1);
	if (!wire_take_bytes(&rest, &v.header) || decode_header(entry, &v, NULL))
		return false;
	*ret = v;
	return true;
}

static enum err_code decode_body(struct span entry, struct record_view *v, struct err *err)
{
	struct span rest = v->body;
	while (rest.n > 0) {
		const uint8_t *at = rest.p;
		struct wire_field field;
		if (!wire_take_field(&rest, &field))
			return corrupt(err, "body is malformed", entry, at);
		if (field.number > TAG_BODY_METADATA >> 3)
			continue;
		if (field.type != WIRE_BYTES)
			return corrupt(err, "body field has a wrong type", entry, at);
		if (field.number == TAG_BODY_SALT >> 3)
			v->salt = field.bytes;
		else if (field.number == TAG_BODY_DATA >> 3)
			v->data = field.bytes;
		else if (!v->metadata_fields.p)
			v->metadata_fields = span_of(at, (size_t)(v->body.p + v->body.n - at));
	}
	return ERR_OK;
}

/* What the Entry holds, by field: sets header, body or hash, and content. */
static enum err_code entry_field(struct span entry, const struct wire_field *field, const uint8_t *at,
				 struct record_view *v, bool *have_content, struct err *err)
{
	switch (field->number) {
	case TAG_ENTRY_HEADER >> 3:
		v->header = field->bytes;
		break;
	case TAG_ENTRY_BODY >> 3:
		v->body = field->bytes;
		v->content = RECORD_BODY;
		*have_content = true;
		break;
	case TAG_ENTRY_BODY_HASH >> 3:
	case TAG_ENTRY_LEAF_HASH >> 3:
		if (field->bytes.n != RECORD_HASH_BYTES)
			return corrupt(err, "hash has not 32 bytes", entry, at);
		v->hash = field->bytes;
		v->content = field->number == TAG_ENTRY_BODY_HASH >> 3 ? RECORD_BODY_HASH :
									 RECORD_LEAF_HASH;
		*have_content = true;
		break;
	default: /* position is read, the others are of a later format */
		return ERR_OK;
	}
	if (field->type != WIRE_BYTES)
		return corrupt(err, "record field has a wrong type", entry, at);
	return ERR_OK;
}

enum err_code record_decode_trusted(struct span entry, struct record_view *ret, struct err *err)
{
	must(ret);
	if (entry.n < ENTRY_POSITION_BYTES + ENTRY_CRC_BYTES || entry.p[0] != TAG_ENTRY_POSITION)
		return err_set(err, ERR_CORRUPT, "record of %zu bytes has no position and checksum",
			       entry.n);
	struct record_view v = {.position = record_position(entry)};
	struct span content = span_first(entry, entry.n - ENTRY_CRC_BYTES);
	if (content.p[content.n] != TAG_ENTRY_CRC)
		return corrupt(err, "record does not end with its checksum", entry,
			       content.p + content.n);
	struct span rest = span_skip(content, ENTRY_POSITION_BYTES);
	bool have_content = false;
	while (rest.n > 0) {
		const uint8_t *at = rest.p;
		struct wire_field field = {0};
		if (!wire_take_field(&rest, &field))
			return corrupt(err, "record is malformed", entry, at);
		enum err_code code = entry_field(entry, &field, at, &v, &have_content, err);
		if (code)
			return code;
	}
	if (!have_content)
		return corrupt(err, "record has neither body nor hash", entry, entry.p);
	enum err_code code = ERR_OK;
	if (v.content != RECORD_LEAF_HASH)
		code = v.header.p ? decode_header(entry, &v, err) :
				    corrupt(err, "record has no header", entry, entry.p);
	if (!code && v.content == RECORD_BODY)
		code = decode_body(entry, &v, err);
	if (!code)
		*ret = v;
	return code;
}

enum err_code record_decode(struct span entry, struct record_view *ret, struct err *err)
{
	enum err_code code = record_check_crc(entry, err);
	return code ? code : record_decode_trusted(entry, ret, err);
}

enum err_code record_check_crc(struct span entry, struct err *err)
{
	if (entry.n < ENTRY_POSITION_BYTES + ENTRY_CRC_BYTES)
		return err_set(err, ERR_CORRUPT, "record of %zu bytes has no position and checksum",
			       entry.n);
	size_t tag_at = entry.n - ENTRY_CRC_BYTES;
	if (entry.p[tag_at] != TAG_ENTRY_CRC)
		return corrupt(err, "record does not end with its checksum", entry, entry.p + tag_at);
	uint32_t stored = get_le32(entry.p + tag_at + 1);
	uint32_t computed = record_crc32c(0, span_first(entry, tag_at));
	if (stored != computed)
		return err_set(err, ERR_CORRUPT,
			       "checksum of record %llu is wrong: stored %08x, computed %08x",
			       (unsigned long long)record_position(entry), stored, computed);
	return ERR_OK;
}

bool record_metadata_next(const struct record_view *view, size_t *state, struct record_metadata *ret)
{
	must(*state <= view->metadata_fields.n);
	struct span rest = span_skip(view->metadata_fields, *state);
	while (rest.n > 0) {
		struct wire_field field;
		if (!wire_take_field(&rest, &field))
			break;
		if (field.number != TAG_BODY_METADATA >> 3 || field.type != WIRE_BYTES)
			continue;
		struct record_metadata m = {0};
		struct span inner = field.bytes;
		while (inner.n > 0 && wire_take_field(&inner, &field)) {
			if (field.type != WIRE_BYTES)
				continue;
			if (field.number == TAG_METADATA_KEY >> 3)
				m.key = field.bytes;
			else if (field.number == TAG_METADATA_VALUE >> 3)
				m.value = field.bytes;
		}
		*state = view->metadata_fields.n - rest.n;
		*ret = m;
		return true;
	}
	*state = view->metadata_fields.n;
	return false;
}
