/* The fixed parts of the files; see format.h for what they are. No I/O. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/format.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/endian.h"
#include "base/must.h"
#include "base/text.h"
#include "record/record.h"

static const uint8_t segment_magic[8] = {'C', 'A', 'I', 'R', 'N', 'S', 'E', 'G'};
static const uint8_t clean_magic[8] = {'C', 'A', 'I', 'R', 'N', 'E', 'N', 'D'};
static const uint8_t frame_magic[4] = {'C', 'F', 'r', 'm'};
static const uint8_t trailer_magic[4] = {'C', 'E', 'n', 'd'};

void file_segment_header_put(uint8_t p[SEGMENT_HEADER_BYTES], const struct segment_header *h)
{
	memset(p, 0, SEGMENT_HEADER_BYTES);
	memcpy(p, segment_magic, sizeof(segment_magic));
	put_le32(p + 8, FILE_FORMAT);
	memcpy(p + 16, h->journal_id, 16);
	put_le64(p + 32, h->number);
	put_le64(p + 40, h->first);
	put_le64(p + 48, (uint64_t)h->created_us);
	put_le32(p + 60, record_crc32c(0, span_of(p, 60)));
}

const char *file_segment_header_get(const uint8_t p[SEGMENT_HEADER_BYTES], struct segment_header *ret,
				    size_t *ret_byte)
{
	*ret_byte = 0;
	if (memcmp(p, segment_magic, sizeof(segment_magic)) != 0)
		return "the segment header's magic is wrong";
	*ret_byte = 60;
	if (get_le32(p + 60) != record_crc32c(0, span_of(p, 60)))
		return "the segment header's checksum is wrong";
	ret->format = get_le32(p + 8);
	if (ret->format != FILE_FORMAT)
		return NULL;
	memcpy(ret->journal_id, p + 16, 16);
	ret->number = get_le64(p + 32);
	ret->first = get_le64(p + 40);
	ret->created_us = (int64_t)get_le64(p + 48);
	return NULL;
}

static uint32_t frame_crc(const uint8_t *frame, const struct frame_at *at, size_t n)
{
	uint8_t where[32];
	memcpy(where, at->journal_id, 16);
	put_le64(where + 16, at->segment);
	put_le64(where + 24, at->offset);
	uint32_t crc = record_crc32c(0, span_of(where, sizeof(where)));
	return record_crc32c(crc, span_of(frame + 8, FRAME_HEADER_BYTES - 8 + n));
}

void file_frame_put(uint8_t *frame, const struct frame_at *at, enum frame_kind kind, uint64_t first,
		    uint32_t count, size_t n)
{
	must(n <= LIMIT_FRAME_BYTES);
	memset(frame, 0, FRAME_HEADER_BYTES);
	memcpy(frame, frame_magic, sizeof(frame_magic));
	put_le32(frame + 8, (uint32_t)n);
	frame[12] = (uint8_t)kind;
	put_le64(frame + 16, first);
	put_le32(frame + 24, count);
	put_le32(frame + 4, frame_crc(frame, at, n));
}

bool file_frame_is_here(struct span bytes)
{
	return bytes.n >= sizeof(frame_magic) && memcmp(bytes.p, frame_magic, sizeof(frame_magic)) == 0;
}

void file_frame_header_get(const uint8_t *frame, struct frame_header *ret)
{
	ret->crc = get_le32(frame + 4);
	ret->n = get_le32(frame + 8);
	ret->kind = frame[12];
	ret->first = get_le64(frame + 16);
	ret->count = get_le32(frame + 24);
}

const char *file_frame_check(struct span bytes, const struct frame_at *at, struct frame_header *ret)
{
	if (!file_frame_is_here(bytes))
		return "no frame begins here";
	if (bytes.n < FRAME_HEADER_BYTES)
		return "a frame's header is cut";
	file_frame_header_get(bytes.p, ret);
	if (ret->n > LIMIT_FRAME_BYTES)
		return "a frame is longer than frames are";
	if (ret->n > bytes.n - FRAME_HEADER_BYTES)
		return "a frame is cut";
	if (ret->crc != frame_crc(bytes.p, at, ret->n))
		return "a frame's checksum is wrong";
	if (ret->kind != FRAME_COMMIT && ret->kind != FRAME_SEAL)
		return "a frame has a kind that this program does not know: use a later one";
	return NULL;
}

void file_place_put(uint8_t *p, struct place place)
{
	put_le32(p, place.delta);
	put_le32(p + 4, place.offset);
}

struct place file_place_get(const uint8_t *p)
{
	return (struct place){get_le32(p), get_le32(p + 4)};
}

void file_trailer_put(uint8_t p[TRAILER_BYTES], uint64_t seal_offset)
{
	put_le64(p, seal_offset);
	memcpy(p + 8, trailer_magic, sizeof(trailer_magic));
	put_le32(p + 12, record_crc32c(0, span_of(p, 12)));
}

bool file_trailer_get(const uint8_t p[TRAILER_BYTES], uint64_t *ret_seal_offset)
{
	if (memcmp(p + 8, trailer_magic, sizeof(trailer_magic)) != 0 ||
	    get_le32(p + 12) != record_crc32c(0, span_of(p, 12)))
		return false;
	*ret_seal_offset = get_le64(p);
	return true;
}

void file_clean_put(uint8_t p[CLEAN_BYTES], const struct clean_mark *mark)
{
	memset(p, 0, CLEAN_BYTES);
	memcpy(p, clean_magic, sizeof(clean_magic));
	put_le32(p + 8, FILE_FORMAT);
	memcpy(p + 16, mark->journal_id, 16);
	put_le64(p + 32, mark->segment);
	put_le64(p + 40, mark->end);
	put_le64(p + 48, mark->head);
	put_le32(p + 60, record_crc32c(0, span_of(p, 60)));
}

bool file_clean_get(const uint8_t p[CLEAN_BYTES], struct clean_mark *ret)
{
	if (memcmp(p, clean_magic, sizeof(clean_magic)) != 0 || get_le32(p + 8) != FILE_FORMAT ||
	    get_le32(p + 60) != record_crc32c(0, span_of(p, 60)))
		return false;
	memcpy(ret->journal_id, p + 16, 16);
	ret->segment = get_le64(p + 32);
	ret->end = get_le64(p + 40);
	ret->head = get_le64(p + 48);
	return true;
}

void file_segment_name(char ret[SEGMENT_NAME_BYTES], uint64_t number, uint64_t first)
{
	int n = snprintf(ret, SEGMENT_NAME_BYTES, "%010" PRIu64 "-%020" PRIu64 ".segment", number, first);
	must(n > 0);
	must(n < SEGMENT_NAME_BYTES);
}

bool file_segment_name_parse(const char *name, uint64_t *ret_number, uint64_t *ret_first)
{
	struct span s = span_str(name), suffix = SPAN(".segment");
	if (s.n != 10 + 1 + 20 + suffix.n || s.p[10] != '-' || !span_eq(span_skip(s, 31), suffix))
		return false;
	return parse_u64(span_first(s, 10), ret_number) &&
	       parse_u64(span_first(span_skip(s, 11), 20), ret_first);
}
