/* Removing records: the segment is written anew beside the old one, synced, and put into its place by one
 * rename. A frame keeps its first position and its count, for a removed record still has a position and its
 * leaf; offsets, and so the CRCs and the places, are new.
 *
 * The index is told before the rename: a crash in between leaves records that nobody looks for, and that the next
 * compaction removes; the other way round its counts would be wrong. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "storage/file/recovery.h"

/* Names of the streams of one segment's records. */
#define NAMES_BYTES (1024 * MIB)

struct rewrite {
	struct file_store *s;
	struct segment *segment; /* held */
	const struct storage_removal *list;
	size_t count, at;
	char *path, *made;
	int fd;
	uint64_t offset; /* in the new file */
	struct buf frame;
	struct place *places;
	size_t place_n, place_cap;
	/* For the index. */
	struct index_removed *removed;
	size_t removed_n;
	struct arena names;
};

enum err_code file_unit(struct storage_reader *r, uint64_t position, struct storage_unit *ret,
			struct err *err)
{
	struct file_reader *reader = (struct file_reader *)r;
	must(reader->magic == FILE_READER_MAGIC);
	struct file_store *s = reader->store;
	uint64_t head = atomic_load(&s->head);
	struct segment *segment;
	must(position < head);
	file_segment_bounds(&s->segments, position, &ret->first, &ret->end);
	ret->open = ret->end == UINT64_MAX;
	if (ret->open)
		ret->end = head;
	enum err_code code = file_segment_get(&s->segments, position, &segment, err);
	if (code)
		return code;
	ret->bytes = atomic_load(&segment->end);
	ret->removable = !s->read_only;
	file_segment_put(&s->segments, segment);
	return ERR_OK;
}

void file_close_unit(struct storage *storage)
{
	atomic_store(&file_store_of(storage)->close_segment, true);
}

static enum err_code made_failed(const struct rewrite *w, int r, const char *what, struct err *err)
{
	bool full = r == -ENOSPC || r == -EDQUOT;
	return err_set_errno(err, full ? ERR_FULL : ERR_IO, -r, "cannot %s %s", what, w->made);
}

static enum err_code write_bytes(struct rewrite *w, const void *p, size_t n, struct err *err)
{
	int r = file_io_write_all(w->s->io, w->fd, p, n, w->offset);
	if (r)
		return made_failed(w, r, "write", err);
	w->offset += n;
	return ERR_OK;
}

static void note_place(struct rewrite *w, uint64_t position, uint64_t offset)
{
	if (w->place_n > 0 && offset < (uint64_t)w->places[w->place_n - 1].offset + PLACE_EVERY_BYTES)
		return;
	if (w->place_n == w->place_cap) {
		w->place_cap = w->place_cap ? 2 * w->place_cap : 1024;
		w->places = mem_xrealloc(w->places, w->place_cap * sizeof(*w->places));
	}
	must(offset <= UINT32_MAX);
	w->places[w->place_n++] = (struct place){(uint32_t)(position - w->segment->first), (uint32_t)offset};
}

static enum err_code note_removed(struct rewrite *w, const struct record_view *view, struct err *err)
{
	struct span stream = arena_dup(&w->names, view->stream);
	if (!stream.p)
		return err_set(err, ERR_NOMEM, "no memory for the names of a segment's streams");
	w->removed[w->removed_n++] =
		(struct index_removed){stream, view->position, view->sequence, view->kind};
	return ERR_OK;
}

/* One record, as it is to be from now on. */
static enum err_code put_record(struct rewrite *w, struct span entry, struct span whole, struct err *err)
{
	struct record_view view;
	uint64_t position = record_position(entry);
	while (w->at < w->count && w->list[w->at].position < position)
		w->at++;
	if (plant("compaction-loses-a-record") && position % 8 == 5) {
		struct record_view lost;
		if (record_decode(entry, &lost, NULL) == ERR_OK)
			return record_put_removed(&w->frame, &lost);
	}
	bool listed = w->at < w->count && w->list[w->at].position == position;
	if (!listed || record_is_removed(entry))
		return buf_append_span(&w->frame, whole);
	enum err_code code = record_decode(entry, &view, err);
	if (code)
		return code;
	if (w->list[w->at].body_only)
		return record_put_erased(&w->frame, &view);
	code = note_removed(w, &view, err);
	return code ? code : record_put_removed(&w->frame, &view);
}

static enum err_code put_frame(struct rewrite *w, const struct scan_frame *frame, struct err *err)
{
	struct span records = frame->records, entry, whole;
	enum err_code code = ERR_OK;
	buf_clear(&w->frame);
	if (buf_reserve(&w->frame, FRAME_HEADER_BYTES))
		return err_set(err, ERR_NOMEM, "no memory for a frame");
	w->frame.n = FRAME_HEADER_BYTES;
	while (!code && record_next(&records, &entry, &whole, NULL) == ERR_OK) {
		note_place(w, record_position(entry), w->offset + w->frame.n);
		code = put_record(w, entry, whole, err);
	}
	if (code)
		return err && err->code ? code : err_set(err, code, "no memory for a frame");
	const struct frame_at at = {w->s->journal_id, w->segment->number, w->offset};
	file_frame_put(w->frame.p, &at, FRAME_COMMIT, frame->header.first, frame->header.count,
		       w->frame.n - FRAME_HEADER_BYTES);
	return write_bytes(w, w->frame.p, w->frame.n, err);
}

static enum err_code put_seal(struct rewrite *w, uint64_t next, struct err *err)
{
	size_t n = w->place_n * PLACE_BYTES + TRAILER_BYTES;
	buf_clear(&w->frame);
	if (buf_reserve(&w->frame, FRAME_HEADER_BYTES + n))
		return err_set(err, ERR_NOMEM, "no memory for a seal");
	uint8_t *p = w->frame.p + FRAME_HEADER_BYTES;
	for (size_t i = 0; i < w->place_n; i++, p += PLACE_BYTES)
		file_place_put(p, w->places[i]);
	file_trailer_put(p, w->offset);
	const struct frame_at at = {w->s->journal_id, w->segment->number, w->offset};
	file_frame_put(w->frame.p, &at, FRAME_SEAL, next, (uint32_t)w->place_n, n);
	return write_bytes(w, w->frame.p, FRAME_HEADER_BYTES + n, err);
}

static enum err_code put_header(struct rewrite *w, struct err *err)
{
	uint8_t bytes[SEGMENT_HEADER_BYTES];
	size_t n;
	int r = file_io_read_all(w->s->io, w->segment->fd, bytes, sizeof(bytes), 0, &n);
	if (r || n < sizeof(bytes))
		return err_set_errno(err, ERR_IO, r ? -r : EIO, "cannot read %s", w->path);
	return write_bytes(w, bytes, sizeof(bytes), err);
}

/* Writes and syncs the new file. */
static enum err_code make_file(struct rewrite *w, struct err *err)
{
	const struct fileio *io = w->s->io;
	struct scan scan;
	struct scan_frame frame;
	w->fd = io->open(io->arg, w->made, FILEIO_WRITE | FILEIO_CREATE | FILEIO_EMPTY);
	if (w->fd < 0)
		return made_failed(w, w->fd, "make", err);
	enum err_code code = put_header(w, err);
	file_scan_init(&scan, w->s);
	file_scan_begin(&scan, w->segment, atomic_load(&w->segment->end), SEGMENT_HEADER_BYTES,
			w->segment->first);
	while (!code) {
		struct err why = {0};
		code = file_scan_next(&scan, &frame, &why);
		if (code == ERR_CORRUPT)
			code = file_segment_corrupt(&w->s->segments, w->segment, scan.offset, why.text, err);
		else if (code && code != ERR_NOT_FOUND && err)
			*err = why;
		if (!code)
			code = put_frame(w, &frame, err);
	}
	uint64_t next = scan.position;
	file_scan_release(&scan);
	if (code != ERR_NOT_FOUND)
		return code;
	code = put_seal(w, next, err);
	if (code)
		return code;
	int r = io->fdatasync(io->arg, w->fd);
	return r ? made_failed(w, r, "sync", err) : ERR_OK;
}

/* The new file takes the old one's place. */
static enum err_code put_in_place(struct rewrite *w, struct err *err)
{
	struct file_store *s = w->s;
	enum err_code code = ERR_OK;
	if (w->removed_n > 0)
		code = file_index_remove(s->index, w->removed, w->removed_n, err);
	if (code)
		return code;
	atomic_store(&s->facts_stale, true);
	int r = s->io->rename(s->io->arg, w->made, w->path);
	if (r)
		return made_failed(w, r, "rename", err);
	file_segment_replace(&s->segments, w->segment);
	r = s->io->sync_dir(s->io->arg, s->dir);
	return r ? err_set_errno(err, ERR_IO, -r, "cannot sync %s", s->dir) : ERR_OK;
}

static enum err_code rewrite_segment(struct rewrite *w, struct err *err)
{
	struct file_store *s = w->s;
	w->path = file_segment_path(&s->segments, w->segment);
	w->made = mem_xprintf("%s.new", w->path);
	w->removed = mem_xalloc(w->count * sizeof(*w->removed));
	arena_init(&w->names, NAMES_BYTES);
	buf_init(&w->frame, 2 * LIMIT_FRAME_BYTES);
	enum err_code code = make_file(w, err);
	if (!code)
		code = put_in_place(w, err);
	if (w->fd >= 0)
		s->io->close(s->io->arg, w->fd);
	if (code && w->fd >= 0)
		s->io->unlink(s->io->arg, w->made);
	arena_release(&w->names);
	buf_release(&w->frame);
	mem_free(w->places);
	mem_free(w->removed);
	mem_free(w->path);
	mem_free(w->made);
	return code;
}

enum err_code file_remove(struct storage_reader *r, const struct storage_removal *list, size_t count,
			  struct err *err)
{
	struct file_reader *reader = (struct file_reader *)r;
	must(reader->magic == FILE_READER_MAGIC);
	struct file_store *s = reader->store;
	struct rewrite w = {.s = s, .list = list, .count = count, .fd = -1};
	uint64_t first, end;
	if (s->read_only)
		return err_set(err, ERR_UNSUPPORTED, "%s is open for reading only", s->dir);
	file_segment_bounds(&s->segments, list[0].position, &first, &end);
	must(end != UINT64_MAX);
	must(list[count - 1].position < end);
	enum err_code code = file_indexer_wait(s, end, err);
	if (!code)
		code = file_segment_get(&s->segments, first, &w.segment, err);
	if (code)
		return code;
	code = rewrite_segment(&w, err);
	file_segment_put(&s->segments, w.segment);
	return code;
}
