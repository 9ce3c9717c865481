#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/window.h"

#include "base/mem.h"
#include "base/must.h"
#include "record/record.h"

#define WINDOW_LEAST_BYTES (8 * KIB)
#define WINDOW_MOST_BYTES (256 * KIB)
/* Enough to see a frame's header, or a record's tag, length and position. */
#define WINDOW_PEEK_BYTES ((size_t)FRAME_HEADER_BYTES)

void file_window_init(struct window *w, struct segments *segments)
{
	*w = (struct window){.segments = segments, .ahead = WINDOW_LEAST_BYTES};
}

void file_window_release(struct window *w)
{
	file_segment_put(w->segments, w->segment);
	mem_free(w->bytes);
	*w = (struct window){0};
}

static enum err_code window_corrupt(const struct window *w, uint64_t offset, const char *what,
				    struct err *err)
{
	return file_segment_corrupt(w->segments, w->segment, offset, what, err);
}

static uint64_t window_end(const struct window *w)
{
	return atomic_load_explicit(&w->segment->end, memory_order_acquire);
}

static enum err_code window_read(const struct window *w, uint64_t offset, uint8_t *to, size_t n,
				 struct err *err)
{
	size_t got;
	int r = file_io_read_all(w->segments->io, w->segment->fd, to, n, offset, &got);
	if (r) {
		char *path = file_segment_path(w->segments, w->segment);
		err_set_errno(err, ERR_IO, -r, "cannot read %s at byte %llu", path,
			      (unsigned long long)offset);
		mem_free(path);
		return ERR_IO;
	}
	return got < n ? window_corrupt(w, offset + got, "the file ends before the log does", err) : ERR_OK;
}

/* The file's bytes from offset on, at least n of them; *ret_p may have more behind it. */
static enum err_code window_ensure(struct window *w, uint64_t offset, size_t n, const uint8_t **ret_p,
				   struct err *err)
{
	if (offset >= w->at && offset + n <= w->at + w->n) {
		*ret_p = w->bytes + (offset - w->at);
		return ERR_OK;
	}
	uint64_t end = window_end(w);
	if (n > end - offset)
		return window_corrupt(w, offset, "the log ends within a record", err);
	bool sequential = w->n > 0 && offset >= w->at && offset <= w->at + w->n;
	w->ahead = !sequential                    ? WINDOW_LEAST_BYTES
		   : w->ahead < WINDOW_MOST_BYTES ? 2 * w->ahead
						  : WINDOW_MOST_BYTES;
	size_t size = n > w->ahead ? n : w->ahead;
	if (size > end - offset)
		size = (size_t)(end - offset);
	if (size > w->cap) {
		size_t cap = size > WINDOW_MOST_BYTES ? size : WINDOW_MOST_BYTES;
		uint8_t *bytes = mem_try_alloc(cap);
		if (!bytes)
			return err_set(err, ERR_NOMEM, "no memory to read %zu bytes of the log", cap);
		mem_free(w->bytes);
		w->bytes = bytes;
		w->cap = cap;
	}
	w->n = 0;
	enum err_code code = window_read(w, offset, w->bytes, size, err);
	if (code)
		return code;
	w->at = offset;
	w->n = size;
	*ret_p = w->bytes;
	return ERR_OK;
}

void file_window_trim(struct window *w)
{
	if (w->cap <= WINDOW_MOST_BYTES)
		return;
	mem_free(w->bytes);
	w->bytes = NULL;
	w->n = w->cap = 0;
}

static enum err_code window_enter(struct window *w, uint64_t position, struct err *err)
{
	struct segment *segment;
	enum err_code code = file_segment_get(w->segments, position, &segment, err);
	if (code)
		return code;
	if (segment == w->segment) {
		file_segment_put(w->segments, segment);
		return ERR_OK;
	}
	file_segment_put(w->segments, w->segment);
	w->segment = segment;
	w->at = 0;
	w->n = 0;
	return ERR_OK;
}

/* Is the position in this segment, ahead, and not behind a place that is better to begin from? (Of a
 * position in a later segment the last place here says nothing, so the end must not be reached.) */
static bool window_is_near(const struct window *w, uint64_t position)
{
	if (!w->segment || position < w->position || position < w->segment->first ||
	    atomic_load_explicit(&w->segment->retired, memory_order_relaxed))
		return false;
	if (position == w->position)
		return true;
	return w->offset < window_end(w) && file_segment_place(w->segment, position).offset <= w->offset &&
	       position - w->position < PLACE_EVERY_BYTES / 50;
}

enum err_code file_window_seek(struct window *w, uint64_t position, struct err *err)
{
	enum err_code code = ERR_OK;
	if (!window_is_near(w, position))
		code = file_window_seek_place(w, position, err);
	if (code)
		return code;
	while (w->position < position) {
		struct window_record skipped;
		code = file_window_next_head(w, &skipped, err);
		if (code)
			return code;
	}
	return ERR_OK;
}

enum err_code file_window_seek_place(struct window *w, uint64_t position, struct err *err)
{
	enum err_code code = window_enter(w, position, err);
	if (code)
		return code;
	struct place place = file_segment_place(w->segment, position);
	w->position = w->segment->first + place.delta;
	w->offset = place.offset;
	return ERR_OK;
}

/* The next segment, whose first record is the next one. */
static enum err_code window_roll(struct window *w, struct err *err)
{
	const struct segment *before = w->segment;
	uint64_t end = w->offset;
	enum err_code code = window_enter(w, w->position, err);
	if (code)
		return code;
	if (w->segment == before || w->segment->first != w->position)
		return window_corrupt(w, end, "the segment has fewer records than it should", err);
	w->offset = SEGMENT_HEADER_BYTES;
	return ERR_OK;
}

/* Its length is at p; the record is made to lie in the window, as much of it as is wanted. */
static enum err_code window_take(struct window *w, const uint8_t *p, size_t peek, bool head_will_do,
				 struct window_record *ret, struct err *err)
{
	uint64_t n = 0;
	size_t i = 1;
	for (unsigned shift = 0; i < peek && shift < 35; i++, shift += 7) {
		n |= (uint64_t)(p[i] & 0x7f) << shift;
		if (p[i] < 0x80)
			break;
	}
	if (i >= peek || p[i] >= 0x80 || i + 1 + n > LIMIT_RECORD_BYTES)
		return window_corrupt(w, w->offset, "a record's length is wrong", err);
	size_t whole = i + 1 + (size_t)n;
	if (whole > window_end(w) - w->offset)
		return window_corrupt(w, w->offset, "the log ends within a record", err);
	bool head = head_will_do && whole > WINDOW_MOST_BYTES;
	enum err_code code = window_ensure(w, w->offset, head ? WINDOW_LEAST_BYTES : whole, &p, err);
	if (code)
		return code;
	ret->bytes = whole;
	ret->whole = span_of(p, head ? WINDOW_LEAST_BYTES : whole);
	ret->entry = span_skip(ret->whole, i + 1);
	struct span run = ret->whole;
	if (!head && (record_next(&run, &ret->entry, NULL, NULL) || run.n != 0))
		return window_corrupt(w, w->offset, "a record's framing is wrong", err);
	if (record_position(ret->entry) != w->position)
		return window_corrupt(w, w->offset, "a record has another position than its place says", err);
	ret->position = w->position++;
	ret->offset = w->offset;
	w->offset += whole;
	return ERR_OK;
}

static enum err_code window_next(struct window *w, bool head_will_do, struct window_record *ret,
				 struct err *err)
{
	must(w->segment);
	for (;;) {
		uint64_t end = window_end(w);
		enum err_code code;
		if (w->offset >= end) {
			code = window_roll(w, err);
			if (code)
				return code;
			end = window_end(w);
		}
		size_t peek =
			end - w->offset < WINDOW_PEEK_BYTES ? (size_t)(end - w->offset) : WINDOW_PEEK_BYTES;
		const uint8_t *p;
		code = window_ensure(w, w->offset, peek, &p, err);
		if (code)
			return code;
		if (p[0] == 0x0a)
			return window_take(w, p, peek, head_will_do, ret, err);
		struct frame_header header;
		if (peek < FRAME_HEADER_BYTES || !file_frame_is_here(span_of(p, peek)))
			return window_corrupt(w, w->offset, "neither a record nor a frame begins here", err);
		file_frame_header_get(p, &header);
		if (header.kind != FRAME_COMMIT || header.first != w->position)
			return window_corrupt(w, w->offset, "a frame has a wrong kind or position", err);
		w->offset += FRAME_HEADER_BYTES;
	}
}

enum err_code file_window_next(struct window *w, struct window_record *ret, struct err *err)
{
	return window_next(w, false, ret, err);
}

enum err_code file_window_next_head(struct window *w, struct window_record *ret, struct err *err)
{
	return window_next(w, true, ret, err);
}

enum err_code file_window_copy(struct window *w, const struct window_record *record, struct buf *out,
			       struct err *err)
{
	struct err why = {0};
	struct span run, entry;
	enum err_code code = buf_reserve(out, record->bytes);
	if (code)
		return err_set(err, code, "no room for a record of %zu bytes", record->bytes);
	uint8_t *to = out->p + out->n;
	if (record->bytes > WINDOW_MOST_BYTES) {
		code = window_read(w, record->offset, to, record->bytes, err);
	} else {
		const uint8_t *p;
		code = window_ensure(w, record->offset, record->bytes, &p, err);
		if (!code)
			memcpy(to, p, record->bytes);
	}
	if (code)
		return code;
	run = span_of(to, record->bytes);
	if (record_next(&run, &entry, NULL, &why) || run.n != 0 || record_check_crc(entry, &why))
		return window_corrupt(w, record->offset, why.code ? why.text : "a record's framing is wrong",
				      err);
	out->n += record->bytes;
	return ERR_OK;
}

enum err_code file_window_hold_stretch(struct window *w, struct err *err)
{
	must(w->segment);
	uint32_t count = atomic_load_explicit(&w->segment->place_count, memory_order_acquire);
	struct place here = file_segment_place(w->segment, w->position);
	uint64_t end = window_end(w);
	uint32_t low = 0, high = count;
	while (low < high) { /* the first place behind this one */
		uint32_t middle = low + (high - low) / 2;
		if (w->segment->places[middle].delta <= here.delta)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < count && w->segment->places[low].offset <= end)
		end = w->segment->places[low].offset;
	const uint8_t *p;
	if (end - w->offset > WINDOW_MOST_BYTES)
		return ERR_OK;
	return window_ensure(w, w->offset, (size_t)(end - w->offset), &p, err);
}
