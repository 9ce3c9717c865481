#define _GNU_SOURCE /* memmem */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/recovery.h"

#include "base/mem.h"
#include "base/must.h"

#define SCAN_BYTES (1 * MIB)

void file_scan_init(struct scan *scan, struct file_store *s)
{
	*scan = (struct scan){.s = s};
}

void file_scan_release(struct scan *scan)
{
	mem_free(scan->bytes);
	*scan = (struct scan){0};
}

void file_scan_begin(struct scan *scan, struct segment *segment, uint64_t size, uint64_t offset,
		     uint64_t position)
{
	scan->segment = segment;
	scan->size = size;
	scan->offset = offset;
	scan->position = position;
	scan->at = 0;
	scan->n = 0;
}

/* Bytes from offset on: n of them, or as many as there are. */
static enum err_code scan_bytes(struct scan *scan, uint64_t offset, size_t n, struct span *ret,
				struct err *err)
{
	must(offset <= scan->size);
	if (n > scan->size - offset)
		n = (size_t)(scan->size - offset);
	if (offset < scan->at || offset + n > scan->at + scan->n) {
		size_t want = n > SCAN_BYTES ? n : SCAN_BYTES, got;
		if (want > scan->size - offset)
			want = (size_t)(scan->size - offset);
		if (want > scan->cap) {
			uint8_t *bytes = mem_try_realloc(scan->bytes, want);
			if (!bytes)
				return err_set(err, ERR_NOMEM, "no memory to read %zu bytes", want);
			scan->bytes = bytes;
			scan->cap = want;
		}
		scan->n = 0;
		const struct fileio *io = scan->s->io;
		int r = file_io_read_all(io, scan->segment->fd, scan->bytes, want, offset, &got);
		if (r) {
			char *path = file_segment_path(&scan->s->segments, scan->segment);
			err_set_errno(err, ERR_IO, -r, "cannot read %s", path);
			mem_free(path);
			return ERR_IO;
		}
		if (got < want)
			return err_set(err, ERR_IO, "a segment of %s shrinks while it is read", scan->s->dir);
		scan->at = offset;
		scan->n = got;
	}
	*ret = span_of(scan->bytes + (offset - scan->at), n);
	return ERR_OK;
}

/* Condition 4: whole records, as many as it says, with the positions it says. */
static const char *check_records(struct span records, const struct frame_header *header)
{
	uint64_t position = header->first;
	uint32_t count = 0;
	if (header->count == 0)
		return "a commit has no records";
	while (records.n > 0) {
		struct span entry;
		if (record_next(&records, &entry, NULL, NULL))
			return "a commit's records are not whole";
		if (record_position(entry) != position++)
			return "a record has another position than its commit says";
		count++;
	}
	return count == header->count ? NULL : "a commit has another number of records than it says";
}

/* The frame at scan->offset by conditions 1, 2 and 4; *ret_wrong is what is wrong with it, or NULL. */
static enum err_code look(struct scan *scan, struct scan_frame *ret, const char **ret_wrong, struct err *err)
{
	struct span bytes;
	enum err_code code = scan_bytes(scan, scan->offset, FRAME_HEADER_BYTES, &bytes, err);
	if (code)
		return code;
	size_t length = FRAME_HEADER_BYTES;
	if (bytes.n == FRAME_HEADER_BYTES && file_frame_is_here(bytes)) {
		struct frame_header header;
		file_frame_header_get(bytes.p, &header);
		if (header.n <= LIMIT_FRAME_BYTES)
			length += header.n;
	}
	code = scan_bytes(scan, scan->offset, length, &bytes, err);
	if (code)
		return code;
	const struct frame_at at = {scan->s->journal_id, scan->segment->number, scan->offset};
	const char *wrong = file_frame_check(bytes, &at, &ret->header);
	if (!wrong) {
		ret->whole = span_first(bytes, FRAME_HEADER_BYTES + ret->header.n);
		ret->records = span_skip(ret->whole, FRAME_HEADER_BYTES);
		ret->offset = scan->offset;
		if (ret->header.kind == FRAME_COMMIT)
			wrong = check_records(ret->records, &ret->header);
	}
	*ret_wrong = wrong;
	return ERR_OK;
}

bool file_scan_peek(struct scan *scan, struct scan_frame *ret)
{
	const char *wrong = NULL;
	return scan->offset < scan->size && look(scan, ret, &wrong, NULL) == ERR_OK && !wrong;
}

enum err_code file_scan_next(struct scan *scan, struct scan_frame *ret, struct err *err)
{
	const char *wrong = NULL;
	if (scan->offset >= scan->size)
		return ERR_NOT_FOUND;
	enum err_code code = look(scan, ret, &wrong, err);
	if (code)
		return code;
	if (!wrong && ret->header.first != scan->position)
		wrong = "a frame has another position than the one before it leads to";
	if (wrong)
		return err_set(err, ERR_CORRUPT, "%s", wrong);
	scan->offset += ret->whole.n;
	if (ret->header.kind == FRAME_COMMIT)
		scan->position += ret->header.count;
	return ERR_OK;
}

enum err_code file_scan_find_valid(struct scan *scan, uint64_t after, bool *ret_found, uint64_t *ret_offset,
				   struct err *err)
{
	*ret_found = false;
	for (uint64_t offset = after + 1; offset + FRAME_HEADER_BYTES <= scan->size; offset++) {
		struct span bytes;
		enum err_code code = scan_bytes(scan, offset, SCAN_BYTES, &bytes, err);
		if (code)
			return code;
		const void *hit = memmem(bytes.p, bytes.n, "CFrm", 4);
		if (!hit) {
			if (offset + bytes.n >= scan->size)
				return ERR_OK;
			offset += bytes.n - 4; /* the magic may lie across the border */
			continue;
		}
		offset += (uint64_t)((const uint8_t *)hit - bytes.p);
		code = scan_bytes(scan, offset, FRAME_HEADER_BYTES + LIMIT_FRAME_BYTES, &bytes, err);
		if (code)
			return code;
		struct frame_header header;
		const struct frame_at at = {scan->s->journal_id, scan->segment->number, offset};
		if (!file_frame_check(bytes, &at, &header)) {
			*ret_found = true;
			*ret_offset = offset;
			return ERR_OK;
		}
	}
	return ERR_OK;
}
