#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/segment.h"

#include "base/mem.h"
#include "base/must.h"

void file_segments_init(struct segments *s, const struct fileio *io, const char *dir,
			size_t max_segment_bytes)
{
	*s = (struct segments){.io = io, .dir = dir, .max_segment_bytes = max_segment_bytes};
	must(pthread_mutex_init(&s->lock, NULL) == 0);
}

static void segment_close(struct segments *s, struct segment *segment)
{
	if (segment->fd < 0)
		return;
	s->io->close(s->io->arg, segment->fd);
	segment->fd = -1;
	mem_free(segment->places);
	segment->places = NULL;
	segment->place_cap = 0;
	atomic_store(&segment->place_count, 0);
	s->open--;
}

void file_segments_release(struct segments *s)
{
	for (size_t i = 0; i < s->count; i++) {
		must(s->items[i]->refs == 0 || i + 1 == s->count);
		segment_close(s, s->items[i]);
		mem_free(s->items[i]);
	}
	mem_free(s->items);
	pthread_mutex_destroy(&s->lock);
}

struct segment *file_segments_add(struct segments *s, uint64_t number, uint64_t first, int fd)
{
	struct segment *segment = mem_xalloc(sizeof(*segment));
	segment->number = number;
	segment->first = first;
	segment->fd = fd;
	atomic_store(&segment->end, SEGMENT_HEADER_BYTES);
	must(pthread_mutex_lock(&s->lock) == 0);
	must(s->count == 0 || s->items[s->count - 1]->first < first);
	if (s->count == s->cap) {
		s->cap = s->cap ? 2 * s->cap : 16;
		s->items = mem_xrealloc(s->items, s->cap * sizeof(struct segment *));
	}
	s->items[s->count++] = segment;
	if (fd >= 0) {
		/* Never moved while it grows, for readers look at it; pages not reached cost nothing. */
		segment->place_cap =
			(uint32_t)((s->max_segment_bytes + LIMIT_FRAME_BYTES) / PLACE_EVERY_BYTES + 2);
		segment->places = mem_xalloc(segment->place_cap * sizeof(struct place));
		segment->refs = 1;
		s->open++;
	}
	must(pthread_mutex_unlock(&s->lock) == 0);
	return segment;
}

struct segment *file_segments_last(struct segments *s)
{
	must(pthread_mutex_lock(&s->lock) == 0);
	struct segment *last = s->count ? s->items[s->count - 1] : NULL;
	must(pthread_mutex_unlock(&s->lock) == 0);
	return last;
}

char *file_segment_path(const struct segments *s, const struct segment *segment)
{
	char name[SEGMENT_NAME_BYTES];
	file_segment_name(name, segment->number, segment->first);
	return mem_xprintf("%s/%s", s->dir, name);
}

enum err_code file_segment_corrupt(const struct segments *s, const struct segment *segment, uint64_t offset,
				   const char *what, struct err *err)
{
	char *path = file_segment_path(s, segment);
	err_set(err, ERR_CORRUPT,
		"%s: byte %llu: %s; restore this file from a backup (records before and after it can be "
		"read)",
		path, (unsigned long long)offset, what);
	mem_free(path);
	return ERR_CORRUPT;
}

static enum err_code segment_io(const struct segments *s, const struct segment *segment, int r,
				const char *what, struct err *err)
{
	char *path = file_segment_path(s, segment);
	err_set_errno(err, ERR_IO, -r, "cannot %s %s", what, path);
	mem_free(path);
	return ERR_IO;
}

enum err_code file_segment_read_header(const struct segments *s, const struct segment *segment,
				       struct segment_header *ret, struct err *err)
{
	uint8_t bytes[SEGMENT_HEADER_BYTES];
	struct segment_header header = {0};
	size_t n, at;
	int r = file_io_read_all(s->io, segment->fd, bytes, sizeof(bytes), 0, &n);
	if (r)
		return segment_io(s, segment, r, "read", err);
	if (n < sizeof(bytes))
		return file_segment_corrupt(s, segment, n, "the segment header is cut", err);
	const char *wrong = file_segment_header_get(bytes, &header, &at);
	if (wrong)
		return file_segment_corrupt(s, segment, at, wrong, err);
	if (header.format != FILE_FORMAT) {
		char *path = file_segment_path(s, segment);
		err_set(err, ERR_UNSUPPORTED,
			"%s has format %u and this program knows format %u: use a later program", path,
			header.format, FILE_FORMAT);
		mem_free(path);
		return ERR_UNSUPPORTED;
	}
	if (header.number != segment->number || header.first != segment->first)
		return file_segment_corrupt(s, segment, 32,
					    "the segment has another file's number or position", err);
	*ret = header;
	return ERR_OK;
}

static enum err_code check_header(const struct segments *s, const struct segment *segment, struct err *err)
{
	struct segment_header header;
	enum err_code code = file_segment_read_header(s, segment, &header, err);
	if (!code && memcmp(header.journal_id, s->journal_id, 16) != 0)
		return file_segment_corrupt(s, segment, 16, "the segment is of another journal", err);
	return code;
}

/* The places of a seal frame that has been found valid. */
static enum err_code take_places(const struct segments *s, struct segment *segment, const uint8_t *frame,
				 const struct frame_header *header, uint64_t offset, struct err *err)
{
	uint64_t before = SEGMENT_HEADER_BYTES;
	if (header->count == 0 || header->n != header->count * PLACE_BYTES + TRAILER_BYTES)
		return file_segment_corrupt(s, segment, offset, "a seal's places do not fill it", err);
	struct place *places = mem_xalloc(header->count * sizeof(struct place));
	for (uint32_t i = 0; i < header->count; i++) {
		places[i] = file_place_get(frame + FRAME_HEADER_BYTES + (size_t)i * PLACE_BYTES);
		bool rises = i == 0 ? places[i].delta == 0 : places[i].delta > places[i - 1].delta;
		if (!rises || places[i].offset < before || places[i].offset >= offset) {
			mem_free(places);
			return file_segment_corrupt(s, segment, offset, "a seal's places do not rise", err);
		}
		before = places[i].offset;
	}
	mem_free(segment->places);
	segment->places = places;
	segment->place_cap = header->count;
	atomic_store(&segment->place_count, header->count);
	atomic_store(&segment->end, offset);
	return ERR_OK;
}

enum err_code file_segment_load_seal(const struct segments *s, struct segment *segment, uint64_t *ret_next,
				     uint64_t *ret_torn, struct err *err)
{
	if (ret_torn)
		*ret_torn = 0;
	uint8_t trailer[TRAILER_BYTES];
	uint64_t offset;
	size_t n;
	int64_t size = s->io->size(s->io->arg, segment->fd);
	if (size < 0)
		return segment_io(s, segment, (int)size, "stat", err);
	if (size < SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + TRAILER_BYTES)
		return ERR_NOT_FOUND;
	int r = file_io_read_all(s->io, segment->fd, trailer, sizeof(trailer),
				 (uint64_t)size - sizeof(trailer), &n);
	if (r)
		return segment_io(s, segment, r, "read", err);
	if (n < sizeof(trailer) || !file_trailer_get(trailer, &offset) || offset < SEGMENT_HEADER_BYTES ||
	    offset > (uint64_t)size - FRAME_HEADER_BYTES - TRAILER_BYTES)
		return ERR_NOT_FOUND;

	size_t length = (size_t)((uint64_t)size - offset);
	if (length > FRAME_HEADER_BYTES + LIMIT_FRAME_BYTES)
		return ERR_NOT_FOUND;
	uint8_t *frame = mem_xalloc(length);
	struct frame_header header = {0};
	enum err_code code;
	r = file_io_read_all(s->io, segment->fd, frame, length, offset, &n);
	if (r) {
		code = segment_io(s, segment, r, "read", err);
	} else {
		const struct frame_at at = {s->journal_id, segment->number, offset};
		const char *wrong = file_frame_check(span_of(frame, n), &at, &header);
		if (!wrong && (header.kind != FRAME_SEAL || header.n + FRAME_HEADER_BYTES != length))
			wrong = "a sealed segment does not end with its seal";
		if (wrong && ret_torn) {
			*ret_torn = offset;
			code = ERR_NOT_FOUND;
		} else {
			code = wrong ? file_segment_corrupt(s, segment, offset, wrong, err)
				     : take_places(s, segment, frame, &header, offset, err);
		}
	}
	mem_free(frame);
	if (!code)
		*ret_next = header.first;
	return code;
}

/* The least recently used ones that nobody holds go first. */
static void close_some(struct segments *s)
{
	while (s->open > LIMIT_FILE_SEGMENTS_OPEN) {
		struct segment *oldest = NULL;
		for (size_t i = 0; i < s->count; i++) {
			struct segment *it = s->items[i];
			if (it->fd >= 0 && it->refs == 0 && (!oldest || it->last_use < oldest->last_use))
				oldest = it;
		}
		if (!oldest)
			return;
		segment_close(s, oldest);
	}
}

static enum err_code segment_open(struct segments *s, size_t i, struct err *err)
{
	struct segment *segment = s->items[i];
	char *path = file_segment_path(s, segment);
	int fd = s->io->open(s->io->arg, path, FILEIO_READ);
	mem_free(path);
	if (fd < 0)
		return segment_io(s, segment, fd, "open", err);
	segment->fd = fd;
	s->open++;
	uint64_t next = 0;
	enum err_code code = check_header(s, segment, err);
	if (!code)
		code = file_segment_load_seal(s, segment, &next, NULL, err);
	if (code == ERR_NOT_FOUND)
		code = file_segment_corrupt(s, segment, SEGMENT_HEADER_BYTES,
					    "the segment is followed by another and has no seal", err);
	if (!code && i + 1 < s->count && s->items[i + 1]->first != next)
		code = file_segment_corrupt(
			s, segment, atomic_load(&segment->end) + 16,
			"the next segment begins with another position than the seal says", err);
	if (code)
		segment_close(s, segment);
	return code;
}

/* Index of the one that has the position; under the lock. */
static size_t segment_find(const struct segments *s, uint64_t position)
{
	size_t low = 0, high = s->count; /* items[low].first <= position */
	must(s->count > 0);
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (s->items[middle]->first <= position)
			low = middle;
		else
			high = middle;
	}
	must(s->items[low]->first <= position);
	return low;
}

void file_segment_bounds(struct segments *s, uint64_t position, uint64_t *ret_first, uint64_t *ret_end)
{
	must(pthread_mutex_lock(&s->lock) == 0);
	size_t i = segment_find(s, position);
	*ret_first = s->items[i]->first;
	*ret_end = i + 1 < s->count ? s->items[i + 1]->first : UINT64_MAX;
	must(pthread_mutex_unlock(&s->lock) == 0);
}

void file_segment_replace(struct segments *s, struct segment *old)
{
	struct segment *segment = mem_xalloc(sizeof(*segment));
	segment->number = old->number;
	segment->first = old->first;
	segment->fd = -1;
	atomic_store(&segment->end, SEGMENT_HEADER_BYTES);
	must(pthread_mutex_lock(&s->lock) == 0);
	size_t i = segment_find(s, old->first);
	must(s->items[i] == old);
	must(old->refs > 0);
	must(i + 1 < s->count);
	s->items[i] = segment;
	atomic_store(&old->retired, true);
	must(pthread_mutex_unlock(&s->lock) == 0);
}

enum err_code file_segment_get(struct segments *s, uint64_t position, struct segment **ret, struct err *err)
{
	enum err_code code = ERR_OK;
	must(pthread_mutex_lock(&s->lock) == 0);
	size_t low = segment_find(s, position);
	struct segment *segment = s->items[low];
	if (segment->fd < 0)
		code = segment_open(s, low, err);
	if (!code) {
		segment->refs++;
		segment->last_use = ++s->uses;
		*ret = segment;
		close_some(s);
	}
	must(pthread_mutex_unlock(&s->lock) == 0);
	return code;
}

void file_segment_put(struct segments *s, struct segment *segment)
{
	if (!segment)
		return;
	must(pthread_mutex_lock(&s->lock) == 0);
	must(segment->refs > 0);
	if (--segment->refs == 0 && atomic_load(&segment->retired)) {
		segment_close(s, segment);
		mem_free(segment);
	}
	must(pthread_mutex_unlock(&s->lock) == 0);
}

void file_segment_note(struct segment *segment, uint64_t position, uint64_t offset)
{
	uint32_t n = atomic_load_explicit(&segment->place_count, memory_order_relaxed);
	if (n > 0 && offset < (uint64_t)segment->places[n - 1].offset + PLACE_EVERY_BYTES)
		return;
	must(n < segment->place_cap);
	must(position - segment->first <= UINT32_MAX);
	must(offset <= UINT32_MAX);
	segment->places[n] = (struct place){(uint32_t)(position - segment->first), (uint32_t)offset};
	atomic_store_explicit(&segment->place_count, n + 1, memory_order_release);
}

struct place file_segment_place(const struct segment *segment, uint64_t position)
{
	uint32_t n = atomic_load_explicit(&segment->place_count, memory_order_acquire);
	uint32_t low = 0, high = n;
	must(n > 0);
	must(position >= segment->first);
	while (high - low > 1) {
		uint32_t middle = low + (high - low) / 2;
		if (segment->places[middle].delta <= position - segment->first)
			low = middle;
		else
			high = middle;
	}
	return segment->places[low];
}
