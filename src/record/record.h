/* The record: encoding, patching, decoding, CRC and leaf hash of one Entry (proto/cairn/journal/v1/
 * record.proto). No I/O, no state; any thread.
 *
 * A record is encoded once, by a worker, behind the tag and length that it has inside a response
 * (field 1, length-delimited), so a run of encoded records *is* the body of a response. The sequencer
 * then patches four fields of fixed width in place: position, sequence, commit time, CRC-32C.
 *
 *	struct record_place place;
 *	record_encode(&buf, &new_record, &place, &err);		// by the worker
 *	record_patch(buf.p, &place, position, sequence, now);	// by the sequencer
 *	record_next(&run, &entry); record_decode(entry, &view, &err);	// by whoever reads
 */
#ifndef CAIRN_RECORD_H
#define CAIRN_RECORD_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/span.h"

#define RECORD_FORMAT 1u
#define RECORD_ID_BYTES 16
#define RECORD_SALT_BYTES 16
#define RECORD_HASH_BYTES 32

/* Kinds that this program writes; others may be read and are passed on. */
enum record_kind {
	RECORD_EVENT = 1,
	RECORD_SNAPSHOT = 2,
	RECORD_DELETE = 3,
	RECORD_TRUNCATE = 4,
	RECORD_ERASE = 5,
	RECORD_RETENTION = 6,
	RECORD_SESSION_BEGUN = 7,
	RECORD_SESSION_ENDED = 8,
	RECORD_GRANT = 9,
	RECORD_GROUP_OFFSET = 10,
	RECORD_PARKED = 11,
	RECORD_COMPACTION = 12,
	RECORD_INCARNATION = 13,
	RECORD_GROUP_ACT = 14,
};
const char *record_kind_name(uint32_t kind); /* "event", ..., "kind 17" is given as "unknown" */
/* Does a record of this kind take the stream's next sequence? */
bool record_kind_takes_sequence(uint32_t kind);
/* Is a record of this kind part of what its stream holds, to be counted, deleted, truncated and erased? Acts
 * upon a stream are not: they stay. */
bool record_kind_is_content(uint32_t kind);

struct record_metadata {
	struct span key, value;
};

/* What is to be encoded. Borrowed. */
struct record_new {
	uint32_t kind;
	struct span stream;
	uint8_t id[RECORD_ID_BYTES];
	struct span type, content_type, actor, key_id;
	struct span data;
	const struct record_metadata *metadata;
	size_t metadata_count;
	bool last_of_append;
};

/* Where one encoded record is in its buffer: offsets from the buffer's first byte. */
struct record_place {
	size_t at, n; /* the whole record, tag and length included */
	size_t position_at, sequence_at, time_at, crc_at; /* the values' bytes */
};

/* Form rules: names, types, sizes (limits.h), an id that is not all zeros. ERR_INVALID or ERR_LIMIT
 * names the field and the rule. */
enum err_code record_check(const struct record_new *r, struct err *err);
/* A stream's name: UTF-8, 1 to 500 bytes, no control characters. */
enum err_code record_check_stream(struct span name, struct err *err);
/* The part before the first '|' (the whole name if there is none). */
struct span record_category(struct span stream);
static inline bool record_stream_is_system(struct span stream)
{
	return stream.n > 0 && stream.p[0] == '$';
}

/* Appends the encoding of a record that has passed record_check(), with a fresh salt and the patched
 * fields zero. ERR_LIMIT when the encoding exceeds LIMIT_RECORD_BYTES, ERR_NOMEM. */
enum err_code record_encode(struct buf *out, const struct record_new *r, struct record_place *ret,
			    struct err *err);
/* Fills in position, sequence and time, then the CRC. */
void record_patch(uint8_t *buffer, const struct record_place *place, uint64_t position,
		  uint64_t sequence, struct wall_time commit_time);
/* last_of_append is part of the hashed header: it is set before patching. */

enum record_content { RECORD_BODY, RECORD_BODY_HASH, RECORD_LEAF_HASH };

/* A decoded record: spans point into the entry's bytes. */
struct record_view {
	uint64_t position;
	uint64_t sequence;
	struct wall_time commit_time;
	uint32_t format, kind;
	struct span stream, id, type, content_type, actor, key_id;
	bool last_of_append;
	enum record_content content;
	struct span salt, data;	       /* RECORD_BODY */
	struct span metadata_fields;   /* RECORD_BODY: iterate with record_metadata_next() */
	struct span hash;	       /* RECORD_BODY_HASH, RECORD_LEAF_HASH */
	struct span header, body;      /* the raw bytes that are hashed */
};

/* Takes the next record off a run of them: *ret_entry is the Entry itself, *ret_whole (may be NULL) with
 * its tag and length. ERR_NOT_FOUND at the end of the run, ERR_CORRUPT when the framing is wrong. */
enum err_code record_next(struct span *run, struct span *ret_entry, struct span *ret_whole,
			  struct err *err);
/* Checks the CRC and decodes; ERR_CORRUPT says what is wrong at which byte. Unknown kinds and unknown
 * header fields are no error. */
enum err_code record_decode(struct span entry, struct record_view *ret, struct err *err);
/* Decodes without computing the CRC: for bytes that were checked on their way in. */
enum err_code record_decode_trusted(struct span entry, struct record_view *ret, struct err *err);
/* The CRC alone: ERR_CORRUPT when it is not the one of the bytes before it. */
enum err_code record_check_crc(struct span entry, struct err *err);
/* Position alone, without decoding the rest (entry is at least 9 bytes of a valid record). */
uint64_t record_position(struct span entry);
/* Kind and stream alone, for filters: cheaper than decoding, and the entry's first bytes up to the stream's
 * name are enough. False when the record has no header (it was removed by compaction) or is malformed. */
bool record_peek(struct span entry, uint32_t *ret_kind, struct span *ret_stream);
/* Position and header alone: the content is not looked at, and the entry may be cut short behind the header.
 * False when there is no header or it is malformed. */
bool record_decode_header(struct span entry, struct record_view *ret);
/* Has compaction removed it? Then it has no header, and only its leaf hash is left. */
bool record_is_removed(struct span entry);
/* Is its body there, neither removed nor erased? The entry may be cut short behind the header and a byte. */
bool record_has_body(struct span entry);

/* What an act (RECORD_DELETE, _TRUNCATE, _ERASE) does to the records before it in its stream, those that are
 * content. Read from its body's data, one of the messages Deletion, Truncation, Erasure of record.proto. */
struct record_act {
	uint64_t hide_below; /* position: those below are not given any more; 0: none */
	bool erases;	     /* the bodies of: */
	uint64_t erase_from, erase_to; /* events with these sequences, inclusive */
	bool erase_snapshots;	       /* and snapshots that name erase_from or a later one */
	bool erase_all;		       /* all events, whatever their number: the stream as a whole */
};
/* False: it is no act upon a stream, or its body is not what this program understands. */
bool record_act_get(const struct record_view *view, struct record_act *ret);
/* Does an erasure at act_position withhold the body of this record of its stream? */
bool record_act_erases(const struct record_act *act, uint64_t act_position, const struct record_view *view);

/* Appends the record, tag and length included, with its body's hash instead of its body; or with nothing but
 * position and leaf hash. CRC and leaf are right. ERR_NOMEM, ERR_LIMIT as of the buffer. */
enum err_code record_put_erased(struct buf *out, const struct record_view *view);
enum err_code record_put_removed(struct buf *out, const struct record_view *view);

/* Iterates over a view's metadata: false at the end. Start with *state = 0. */
bool record_metadata_next(const struct record_view *view, size_t *state, struct record_metadata *ret);

/* CRC-32C (Castagnoli; "123456789" gives e3069283) of what `so_far` covers (0: nothing) and then s. */
uint32_t record_crc32c(uint32_t so_far, struct span s);

/* SHA-256(0x00 || header || SHA-256(body)), whatever is left of the content. */
void record_leaf(const struct record_view *view, uint8_t ret[RECORD_HASH_BYTES]);
/* SHA-256(0x01 || left || right): a node above two others (RFC 6962). ret may be one of them. */
void record_node(const uint8_t left[RECORD_HASH_BYTES], const uint8_t right[RECORD_HASH_BYTES],
		 uint8_t ret[RECORD_HASH_BYTES]);
/* SHA-256 of the bytes. */
void record_sha256(struct span s, uint8_t ret[RECORD_HASH_BYTES]);

#endif
