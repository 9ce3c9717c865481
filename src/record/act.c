/* Acts upon streams: what their records say, and what becomes of the records they are upon. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "record/record.h"

#include "base/must.h"
#include "record/hash.h"
#include "record/wire.h"

const char *record_kind_name(uint32_t kind)
{
	switch (kind) {
	case RECORD_EVENT: return "event";
	case RECORD_SNAPSHOT: return "snapshot";
	case RECORD_DELETE: return "delete";
	case RECORD_TRUNCATE: return "truncate";
	case RECORD_ERASE: return "erase";
	case RECORD_RETENTION: return "retention";
	case RECORD_COMPACTION: return "compaction";
	case RECORD_SESSION_BEGUN: return "session begun";
	case RECORD_SESSION_ENDED: return "session ended";
	case RECORD_GRANT: return "grant";
	case RECORD_GROUP_OFFSET: return "group offset";
	case RECORD_PARKED: return "parked";
	case RECORD_GROUP_ACT: return "group act";
	default: return "unknown";
	}
}

bool record_kind_takes_sequence(uint32_t kind)
{
	return kind == RECORD_EVENT || kind == RECORD_DELETE || kind == RECORD_ERASE;
}

bool record_kind_is_content(uint32_t kind)
{
	return kind != RECORD_DELETE && kind != RECORD_TRUNCATE && kind != RECORD_ERASE &&
	       kind != RECORD_RETENTION && kind != RECORD_COMPACTION;
}

/* Numbers of the fields of Truncation and Erasure. */
enum { TRUNCATION_POSITION = 3, ERASURE_FROM = 2, ERASURE_TO = 3, ERASURE_KEEP = 4, ERASURE_PREFIX = 5 };

/* The numbers in the data by field, up to 7, and which fields are there. False: malformed. */
static bool data_fields(struct span data, uint64_t numbers[8], uint32_t *ret_there)
{
	*ret_there = 0;
	while (data.n > 0) {
		struct wire_field field;
		if (!wire_take_field(&data, &field))
			return false;
		if (field.number > 7)
			continue;
		if (field.type == WIRE_VARINT)
			numbers[field.number] = field.value;
		*ret_there |= 1u << field.number;
	}
	return true;
}

bool record_act_get(const struct record_view *view, struct record_act *ret)
{
	uint64_t numbers[8] = {0};
	uint32_t there;
	struct record_act act = {0};
	if (view->kind != RECORD_DELETE && view->kind != RECORD_TRUNCATE && view->kind != RECORD_ERASE)
		return false;
	if (view->content != RECORD_BODY)
		return false;
	if (!data_fields(view->data, numbers, &there))
		return false;
	if (view->kind == RECORD_DELETE) {
		act.hide_below = view->position;
	} else if (view->kind == RECORD_TRUNCATE) {
		act.hide_below =
			there & 1u << TRUNCATION_POSITION ? numbers[TRUNCATION_POSITION] : view->position;
	} else {
		if (there & 1u << ERASURE_PREFIX)
			return false;
		act.erases = true;
		act.erase_all = numbers[ERASURE_FROM] == 0 && numbers[ERASURE_TO] == 0;
		act.erase_from = numbers[ERASURE_FROM];
		act.erase_to = act.erase_all ? UINT64_MAX : numbers[ERASURE_TO];
		act.erase_snapshots = !numbers[ERASURE_KEEP];
	}
	*ret = act;
	return true;
}

bool record_act_erases(const struct record_act *act, uint64_t act_position, const struct record_view *view)
{
	if (!act->erases || view->position >= act_position || !record_kind_is_content(view->kind))
		return false;
	if (view->kind == RECORD_SNAPSHOT)
		return act->erase_snapshots && view->sequence >= act->erase_from;
	if (!record_kind_takes_sequence(view->kind))
		return act->erase_all;
	return view->sequence >= act->erase_from && view->sequence <= act->erase_to;
}

bool record_is_removed(struct span entry)
{
	return entry.n > ENTRY_POSITION_BYTES && entry.p[ENTRY_POSITION_BYTES] == TAG_ENTRY_LEAF_HASH;
}

bool record_has_body(struct span entry)
{
	struct record_view v;
	if (!record_decode_header(entry, &v))
		return false;
	const uint8_t *content = v.header.p + v.header.n;
	return content < entry.p + entry.n && *content == TAG_ENTRY_BODY;
}

/* position, perhaps a header, a hash, the CRC. */
static enum err_code put_hashed(struct buf *out, uint64_t position, struct span header, uint8_t hash_tag,
				const uint8_t hash[RECORD_HASH_BYTES])
{
	size_t header_n = header.p ? 1 + wire_varint_bytes(header.n) + header.n : 0;
	size_t entry_n = ENTRY_POSITION_BYTES + header_n + 2 + RECORD_HASH_BYTES + ENTRY_CRC_BYTES;
	size_t whole_n = 1 + wire_varint_bytes(entry_n) + entry_n;
	enum err_code code = buf_reserve(out, whole_n);
	if (code)
		return code;
	uint8_t *p = out->p + out->n;
	*p++ = TAG_RESPONSE_ENTRY;
	p = wire_put_varint(p, entry_n);
	uint8_t *entry = p;
	*p++ = TAG_ENTRY_POSITION;
	put_le64(p, position);
	p += 8;
	if (header.p) {
		*p++ = TAG_ENTRY_HEADER;
		p = wire_put_varint(p, header.n);
		memcpy(p, header.p, header.n);
		p += header.n;
	}
	*p++ = hash_tag;
	*p++ = RECORD_HASH_BYTES;
	memcpy(p, hash, RECORD_HASH_BYTES);
	p += RECORD_HASH_BYTES;
	uint32_t crc = record_crc32c(0, span_of(entry, (size_t)(p - entry)));
	*p++ = TAG_ENTRY_CRC;
	put_le32(p, crc);
	p += 4;
	must((size_t)(p - entry) == entry_n);
	out->n += whole_n;
	return ERR_OK;
}

enum err_code record_put_erased(struct buf *out, const struct record_view *view)
{
	uint8_t hash[RECORD_HASH_BYTES];
	must(view->content != RECORD_LEAF_HASH);
	record_body_hash(view, hash);
	return put_hashed(out, view->position, view->header, TAG_ENTRY_BODY_HASH, hash);
}

enum err_code record_put_removed(struct buf *out, const struct record_view *view)
{
	uint8_t hash[RECORD_HASH_BYTES];
	record_leaf(view, hash);
	return put_hashed(out, view->position, (struct span){0}, TAG_ENTRY_LEAF_HASH, hash);
}
