/* What a start does; format.h says it in words. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "storage/file/recovery.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"

struct found_segment {
	uint64_t number, first;
};

struct recovery {
	struct file_store *s;
	struct scan scan;
	struct found_segment *found;
	size_t found_n, found_cap;
	char **unfinished;
	size_t unfinished_n;
	bool clean_there, clean; /* the mark of a clean stop is there; and can be believed */
	struct clean_mark clean_mark;
	/* The newest that the index had, to be used or not: nothing at or before it may be bad. */
	bool marked;
	struct index_mark mark;
	/* Where a seal that has not come whole was to be, or 0; what is before it had been synced. */
	uint64_t torn_seal;
	/* The last segment's last whole frame. */
	uint64_t last_frame;
	size_t last_frame_bytes;
};

/* --- what is there -------------------------------------------------------------------------------------- */

/* A file of ours that was being made when the process died. Others' files are not ours to delete. */
static bool is_unfinished(const char *name)
{
	char of[SEGMENT_NAME_BYTES];
	uint64_t number, first;
	size_t n = strlen(name);
	if (n < 4 || strcmp(name + n - 4, ".new") != 0 || n - 4 >= sizeof(of))
		return false;
	memcpy(of, name, n - 4);
	of[n - 4] = '\0';
	return strcmp(of, "clean") == 0 || file_segment_name_parse(of, &number, &first);
}

static void on_name(const char *name, void *arg)
{
	struct recovery *r = arg;
	struct found_segment it;
	if (is_unfinished(name)) {
		r->unfinished = mem_xrealloc(r->unfinished, (r->unfinished_n + 1) * sizeof(char *));
		r->unfinished[r->unfinished_n++] = mem_xstrdup(name);
		return;
	}
	if (!file_segment_name_parse(name, &it.number, &it.first))
		return;
	if (r->found_n == r->found_cap) {
		r->found_cap = r->found_cap ? 2 * r->found_cap : 16;
		r->found = mem_xrealloc(r->found, r->found_cap * sizeof(*r->found));
	}
	r->found[r->found_n++] = it;
}

static int found_cmp(const void *a, const void *b)
{
	const struct found_segment *x = a, *y = b;
	return (x->number > y->number) - (x->number < y->number);
}

static enum err_code list_directory(struct recovery *r, struct err *err)
{
	struct file_store *s = r->s;
	int e = s->io->list(s->io->arg, s->dir, on_name, r);
	if (e)
		return err_set_errno(err, ERR_IO, -e, "cannot list %s", s->dir);
	for (size_t i = 0; i < r->unfinished_n && !s->read_only; i++) {
		char *path = mem_xprintf("%s/%s", s->dir, r->unfinished[i]);
		e = s->io->unlink(s->io->arg, path);
		if (e)
			err_set_errno(err, ERR_IO, -e, "cannot delete %s, which is unfinished", path);
		mem_free(path);
		if (e)
			return ERR_IO;
	}
	if (r->found_n > 0)
		qsort(r->found, r->found_n, sizeof(*r->found), found_cmp);
	for (size_t i = 0; i < r->found_n; i++) {
		const struct found_segment *it = &r->found[i];
		if (it->number != i + 1 || (i == 0 && it->first != 0))
			return err_set(err, ERR_CORRUPT,
				       "%s: segment %zu is missing: restore it from a backup", s->dir, i + 1);
		if (i > 0 && it->first <= r->found[i - 1].first)
			return err_set(err, ERR_CORRUPT,
				       "%s: the names of segments %zu and %zu do not fit each other", s->dir,
				       i, i + 1);
	}
	return ERR_OK;
}

static enum err_code read_clean(struct recovery *r, struct err *err)
{
	struct file_store *s = r->s;
	uint8_t bytes[CLEAN_BYTES];
	size_t n = 0;
	char *path = mem_xprintf("%s/clean", s->dir);
	int fd = s->io->open(s->io->arg, path, FILEIO_READ);
	int e = fd == -ENOENT ? 0 : fd < 0 ? fd : 0;
	if (fd >= 0) {
		r->clean_there = true;
		e = file_io_read_all(s->io, fd, bytes, sizeof(bytes), 0, &n);
		s->io->close(s->io->arg, fd);
		r->clean = !e && n == sizeof(bytes) && file_clean_get(bytes, &r->clean_mark);
		if (!e && !r->clean)
			log_warn("the mark of a clean stop is damaged, recovering as after a crash",
				 LOG_STR("path", path));
	}
	enum err_code code = e ? err_set_errno(err, ERR_IO, -e, "cannot read %s", path) : ERR_OK;
	mem_free(path);
	return code;
}

/* --- segments ------------------------------------------------------------------------------------------- */

static enum err_code begin_journal(struct recovery *r, struct err *err)
{
	struct file_store *s = r->s;
	int fd;
	if (r->clean || r->marked)
		return err_set(err, ERR_CORRUPT,
			       "%s had a journal of %llu records or more, and its segments are gone: restore "
			       "them, or delete %s/clean and %s to begin an empty one",
			       s->dir,
			       (unsigned long long)(r->clean ? r->clean_mark.head : r->mark.position + 1),
			       s->dir, s->index_dir);
	if (!s->restoring)
		uuid_v4(s->journal_id);
	memcpy(s->segments.journal_id, s->journal_id, 16);
	enum err_code code = file_sync_parent(s, err);
	if (!code && s->restoring)
		code = file_begin_restoring(s, err);
	if (!code)
		code = file_make_segment(s, 1, 0, &fd, err);
	if (code)
		return code;
	s->last = file_segments_add(&s->segments, 1, 0, fd);
	return ERR_OK;
}

static enum err_code open_last(struct recovery *r, struct err *err)
{
	struct file_store *s = r->s;
	const struct found_segment *last = &r->found[r->found_n - 1];
	struct segment_header header;
	char name[SEGMENT_NAME_BYTES];
	file_segment_name(name, last->number, last->first);
	char *path = mem_xprintf("%s/%s", s->dir, name);
	int fd = s->io->open(s->io->arg, path, s->read_only ? FILEIO_READ : FILEIO_WRITE);
	if (fd < 0)
		err_set_errno(err, ERR_IO, -fd, "cannot open %s", path);
	mem_free(path);
	if (fd < 0)
		return ERR_IO;
	for (size_t i = 0; i + 1 < r->found_n; i++)
		file_segments_add(&s->segments, r->found[i].number, r->found[i].first, -1);
	s->last = file_segments_add(&s->segments, last->number, last->first, fd);
	enum err_code code = file_segment_read_header(&s->segments, s->last, &header, err);
	if (code)
		return code;
	memcpy(s->journal_id, header.journal_id, 16);
	memcpy(s->segments.journal_id, header.journal_id, 16);
	return ERR_OK;
}

/* --- the index ------------------------------------------------------------------------------------------ */

static enum err_code remake_index(struct file_store *s, const char *why, struct err *err)
{
	file_index_view_free(s->view);
	s->view = NULL;
	file_index_close(s->index);
	s->index = NULL;
	if (s->read_only)
		return err_set(
			err, ERR_UNAVAILABLE,
			"the index of %s cannot be used (%s): start the server on it once, which makes "
			"it anew",
			s->dir, why);
	log_warn("the index is made anew", LOG_STR("journal", s->dir), LOG_STR("because", why));
	metric_add(METRIC_FILE_INDEX_REMADE, 1);
	enum err_code code = file_index_delete(s->index_dir, err);
	if (!code)
		code = file_index_open(s->index_dir, s->options.index_map_bytes, false, &s->index, err);
	if (!code)
		code = file_index_view_new(s->index, &s->view, err);
	return code;
}

static enum err_code open_index(struct recovery *r, struct err *err)
{
	struct file_store *s = r->s;
	struct err why = {0};
	enum err_code code =
		file_index_open(s->index_dir, s->options.index_map_bytes, s->read_only, &s->index, &why);
	if (!code)
		code = file_index_view_new(s->index, &s->view, &why);
	if (!code) {
		code = file_index_view_begin(s->view, &why);
		if (!code) {
			code = file_index_mark_get(s->view, &r->mark, &why);
			r->marked = code == ERR_OK;
			file_index_view_end(s->view);
			return code == ERR_NOT_FOUND ? ERR_OK
			       : code                ? remake_index(s, why.text, err)
						     : ERR_OK;
		}
	}
	return remake_index(s, why.text, err);
}

/* The segment whose frame the mark names, opened; NULL when there is none. */
static struct segment *marked_segment(struct recovery *r, uint64_t *ret_size)
{
	struct file_store *s = r->s;
	struct segment *segment;
	if (r->mark.position < s->last->first) {
		if (file_segment_get(&s->segments, r->mark.position, &segment, NULL))
			return NULL;
		*ret_size = atomic_load(&segment->end);
	} else {
		segment = s->last;
		int64_t size = s->io->size(s->io->arg, segment->fd);
		if (size < 0)
			return NULL;
		*ret_size = (uint64_t)size;
	}
	if (segment->number == r->mark.segment && (segment != s->last || r->mark.frame_offset < *ret_size))
		return segment;
	if (segment != s->last)
		file_segment_put(&s->segments, segment);
	return NULL;
}

/* The frame whose last record the mark names. In a segment that has been written anew by compaction it is
 * elsewhere than the mark says. */
static bool mark_frame(struct recovery *r, struct segment *segment, uint64_t size, struct scan_frame *ret)
{
	uint64_t next = r->mark.position + 1;
	file_scan_begin(&r->scan, segment, size, r->mark.frame_offset, 0);
	if (r->mark.frame_offset < size && file_scan_peek(&r->scan, ret) && ret->header.kind == FRAME_COMMIT &&
	    ret->header.first + ret->header.count == next)
		return true;
	if (segment == r->s->last)
		return false;
	file_scan_begin(&r->scan, segment, size, SEGMENT_HEADER_BYTES, segment->first);
	while (file_scan_next(&r->scan, ret, NULL) == ERR_OK) {
		if (ret->header.kind == FRAME_COMMIT && ret->header.first + ret->header.count == next) {
			r->mark.frame_offset = ret->offset;
			return true;
		}
	}
	return false;
}

/* Is the mark's record, exactly, the last one of the frame it names? */
static bool mark_is_in_log(struct recovery *r, uint64_t *ret_frame_first)
{
	uint64_t size;
	struct scan_frame frame;
	struct record_view record = {0};
	uint8_t leaf[RECORD_HASH_BYTES];
	if (memcmp(r->mark.journal_id, r->s->journal_id, 16) != 0)
		return false;
	struct segment *segment = marked_segment(r, &size);
	if (!segment)
		return false;
	bool same = mark_frame(r, segment, size, &frame);
	if (same) {
		struct span records = frame.records, entry;
		while (record_next(&records, &entry, NULL, NULL) == ERR_OK)
			if (record_decode(entry, &record, NULL))
				same = false;
		same = same && record.position == r->mark.position;
	}
	if (same) {
		record_leaf(&record, leaf);
		same = memcmp(leaf, r->mark.leaf, sizeof(leaf)) == 0;
	}
	if (same)
		*ret_frame_first = frame.header.first;
	if (segment != r->s->last)
		file_segment_put(&r->s->segments, segment);
	return same;
}

/* --- frames --------------------------------------------------------------------------------------------- */

/* Takes a frame's records into the tables; those the index has are passed over. */
static enum err_code take_frame(struct recovery *r, const struct scan_frame *frame, struct err *err)
{
	struct file_store *s = r->s;
	struct span records = frame->records, entry, whole;
	while (record_next(&records, &entry, &whole, NULL) == ERR_OK) {
		struct record_view view;
		uint64_t offset = frame->offset + (uint64_t)(whole.p - frame->whole.p);
		struct err why = {0};
		if (record_decode(entry, &view, &why))
			return file_segment_corrupt(&s->segments, r->scan.segment, offset, why.text, err);
		if (r->scan.segment == s->last)
			file_segment_note(s->last, view.position, offset);
		if (view.content == RECORD_LEAF_HASH) {
			if (view.position >= s->filling->first)
				file_recent_add_removed(s->filling, whole.n);
			continue;
		}
		s->last_commit = view.commit_time;
		if (view.position < s->filling->first)
			continue;
		struct storage_record record = {.bytes = whole,
						.position = view.position,
						.sequence = view.sequence,
						.kind = view.kind,
						.stream = view.stream,
						.id = view.id.p,
						.commit_time = view.commit_time,
						.last_of_append = view.last_of_append};
		struct record_act act;
		bool acts = record_act_get(&view, &act);
		if (acts)
			marks_apply(s->marks, view.stream, view.position, &act);
		file_recent_add(s->filling, &record, acts ? &act : NULL);
	}
	s->filling->frame_segment = r->scan.segment->number;
	s->filling->frame_offset = frame->offset;
	return ERR_OK;
}

/* Moves the table when it is large: an index of any size is made in bounded memory. */
static enum err_code keep_small(struct recovery *r, struct err *err)
{
	struct file_store *s = r->s;
	if (s->read_only ||
	    (s->filling->log_bytes < s->options.recent_bytes && s->filling->n < s->options.recent_records))
		return ERR_OK;
	/* The window that the mark is read through may look only at what has an end. */
	atomic_store(&r->scan.segment->end, r->scan.offset > atomic_load(&r->scan.segment->end)
						    ? r->scan.offset
						    : atomic_load(&r->scan.segment->end));
	return file_index_now(&s->base, err);
}

static enum err_code scan_sealed(struct recovery *r, struct segment *segment, uint64_t offset,
				 uint64_t position, struct err *err)
{
	struct scan_frame frame;
	struct err why = {0};
	uint64_t end = atomic_load(&segment->end);
	enum err_code code;
	file_scan_begin(&r->scan, segment, end, offset, position);
	while (!(code = file_scan_next(&r->scan, &frame, &why))) {
		if (frame.header.kind != FRAME_COMMIT)
			return file_segment_corrupt(&r->s->segments, segment, frame.offset,
						    "a seal lies within its segment", err);
		code = take_frame(r, &frame, err);
		if (!code)
			code = keep_small(r, err);
		if (code)
			return code;
	}
	if (code == ERR_CORRUPT)
		return file_segment_corrupt(&r->s->segments, segment, r->scan.offset, why.text, err);
	if (code != ERR_NOT_FOUND) {
		if (err)
			*err = why;
		return code;
	}
	return ERR_OK;
}

/* Has the index seen what was at the offset of the last segment? Then it had been synced. */
static bool is_protected(const struct recovery *r, uint64_t offset)
{
	return r->marked && memcmp(r->mark.journal_id, r->s->journal_id, 16) == 0 &&
	       r->mark.segment == r->s->last->number && offset <= r->mark.frame_offset;
}

/* Bytes that are no valid frame, at the end of the last segment: cut them off, or refuse. */
static enum err_code cut_tail(struct recovery *r, const char *wrong, struct err *err)
{
	struct file_store *s = r->s;
	struct scan *scan = &r->scan;
	uint64_t bad = scan->offset, valid = 0;
	bool found = false;
	char what[ERR_TEXT_MAX];
	if (r->clean) {
		snprintf(what, sizeof(what), "%s, in a log that was closed cleanly", wrong);
		return file_segment_corrupt(&s->segments, s->last, bad, what, err);
	}
	if (is_protected(r, bad) || bad < r->torn_seal) {
		snprintf(what, sizeof(what), "%s, and what was here has been synced before", wrong);
		return file_segment_corrupt(&s->segments, s->last, bad, what, err);
	}
	enum err_code code = file_scan_find_valid(scan, bad, &found, &valid, err);
	if (code)
		return code;
	if (found) {
		snprintf(what, sizeof(what), "%s, and a valid one follows it at byte %llu", wrong,
			 (unsigned long long)valid);
		return file_segment_corrupt(&s->segments, s->last, bad, what, err);
	}
	if (scan->size - bad > FRAME_HEADER_BYTES + LIMIT_FRAME_BYTES) {
		snprintf(what, sizeof(what), "%s, and %llu bytes follow, more than one frame has", wrong,
			 (unsigned long long)(scan->size - bad));
		return file_segment_corrupt(&s->segments, s->last, bad, what, err);
	}
	char *path = file_segment_path(&s->segments, s->last);
	log_warn("cut off a commit that was not finished, which nobody was told had succeeded",
		 LOG_STR("path", path), LOG_U64("byte", bad), LOG_U64("bytes", scan->size - bad),
		 LOG_STR("because", wrong));
	if (!s->read_only) {
		int e = s->io->ftruncate(s->io->arg, s->last->fd, bad);
		if (!e)
			e = s->io->fdatasync(s->io->arg, s->last->fd);
		if (e)
			code = err_set_errno(err, ERR_IO, -e, "cannot cut %s to %llu bytes", path,
					     (unsigned long long)bad);
	}
	mem_free(path);
	return code;
}

static enum err_code scan_last(struct recovery *r, uint64_t size, uint64_t offset, uint64_t position,
			       struct err *err)
{
	struct file_store *s = r->s;
	struct scan_frame frame;
	struct err why = {0};
	enum err_code code;
	file_scan_begin(&r->scan, s->last, size, offset, position);
	while (!(code = file_scan_next(&r->scan, &frame, &why))) {
		if (frame.header.kind == FRAME_SEAL) {
			/* It would have been found from the file's end. */
			r->scan.offset = frame.offset;
			code = ERR_CORRUPT;
			err_set(&why, ERR_CORRUPT, "a seal that does not end its file");
			break;
		}
		r->last_frame = frame.offset;
		r->last_frame_bytes = frame.whole.n;
		/* The index is of durable records. Those before this frame had been synced before it was
		 * written; this one, if it is the last, may be in the page cache only. */
		code = keep_small(r, err);
		if (!code)
			code = take_frame(r, &frame, err);
		if (code)
			return code;
	}
	if (code == ERR_CORRUPT)
		code = cut_tail(r, why.text, err);
	else if (code == ERR_NOT_FOUND)
		code = ERR_OK;
	else if (err)
		*err = why;
	s->last_end = r->scan.offset;
	atomic_store(&s->last->end, r->scan.offset);
	return code;
}

/* Once more in place, and synced: what a crash left may be in the page cache only. */
static enum err_code rewrite_last(struct recovery *r, uint64_t offset, size_t n, struct err *err)
{
	struct file_store *s = r->s;
	const struct fileio *io = s->io;
	size_t got = 0;
	if (plant("last-frame-not-rewritten"))
		return ERR_OK;
	uint8_t *bytes = mem_try_alloc(n);
	if (!bytes)
		return err_set(err, ERR_NOMEM, "no memory for a frame of %zu bytes", n);
	int e = file_io_read_all(io, s->last->fd, bytes, n, offset, &got);
	if (!e && got < n)
		e = -EIO;
	if (!e)
		e = file_io_write_all(io, s->last->fd, bytes, n, offset);
	if (!e)
		e = io->fdatasync(io->arg, s->last->fd);
	if (!e)
		e = io->sync_dir(io->arg, s->dir);
	mem_free(bytes);
	if (!e)
		return ERR_OK;
	char *path = file_segment_path(&s->segments, s->last);
	err_set_errno(err, e == -ENOSPC || e == -EDQUOT ? ERR_FULL : ERR_IO, -e,
		      "cannot write the last commit of %s again", path);
	mem_free(path);
	return err ? err->code : ERR_IO;
}

/* --- all of it ------------------------------------------------------------------------------------------ */

static enum err_code check_clean(struct recovery *r, uint64_t size, struct err *err)
{
	struct file_store *s = r->s;
	if (!r->clean)
		return ERR_OK;
	const struct clean_mark *m = &r->clean_mark;
	if (memcmp(m->journal_id, s->journal_id, 16) != 0)
		return err_set(err, ERR_CORRUPT, "%s/clean is of another journal: delete it if that is right",
			       s->dir);
	if (m->segment != s->last->number || m->end != size)
		return file_segment_corrupt(&s->segments, s->last, m->segment == s->last->number ? size : 0,
					    "the log was closed cleanly and had another end", err);
	return ERR_OK;
}

/* The mark is not in the log and the index is to be deleted, with what it knows: is a frame that it saw
 * synced damaged? */
static enum err_code check_before_remake(struct recovery *r, uint64_t size, struct err *err)
{
	struct file_store *s = r->s;
	struct scan_frame frame;
	struct err why = {0};
	enum err_code code;
	if (memcmp(r->mark.journal_id, s->journal_id, 16) != 0)
		return ERR_OK;
	file_scan_begin(&r->scan, s->last, size, SEGMENT_HEADER_BYTES, s->last->first);
	while (!(code = file_scan_next(&r->scan, &frame, &why)))
		;
	if (code == ERR_CORRUPT && is_protected(r, r->scan.offset))
		return cut_tail(r, why.text, err);
	if (r->mark.position >= r->scan.position)
		log_error("the log ends before what the index had: records are missing",
			  LOG_STR("journal", s->dir), LOG_U64("head", r->scan.position),
			  LOG_U64("index_head", r->mark.position + 1));
	return ERR_OK;
}

static void mark_act(struct span stream, uint64_t position, const struct record_act *act, void *arg)
{
	marks_apply(arg, stream, position, act);
}

/* Where to begin: at the mark's frame, or at the log's first. */
static enum err_code begin(struct recovery *r, uint64_t size, size_t *ret_segment, uint64_t *ret_offset,
			   uint64_t *ret_position, struct err *err)
{
	struct file_store *s = r->s;
	uint64_t first = 0;
	enum err_code code = ERR_OK;
	*ret_segment = 0;
	*ret_offset = SEGMENT_HEADER_BYTES;
	*ret_position = 0;
	bool condemned = file_index_is_condemned(s->index_dir);
	bool use = r->marked && !condemned && mark_is_in_log(r, ret_position);
	if (use) {
		first = r->mark.position + 1;
		*ret_segment = (size_t)r->mark.segment - 1;
		*ret_offset = r->mark.frame_offset;
	} else if (r->marked && !plant("index-mark-ahead-of-log")) {
		code = check_before_remake(r, size, err);
		if (!code)
			code = remake_index(s, condemned ? "a write has found it damaged"
							 : "its mark is not in the log", err);
	} else if (condemned) {
		code = remake_index(s, "a write has found it damaged", err);
	} else if (s->read_only && s->segments.count > 1) {
		code = remake_index(s, "it is empty", err);
	}
	s->filling = file_recent_new(first);
	metric_set(METRIC_FILE_INDEX_MARK, (int64_t)first);
	if (code || !use)
		return code;
	code = file_index_view_begin(s->view, err);
	if (code)
		return code;
	code = file_index_acts(s->view, mark_act, s->marks, err);
	if (!code && *ret_segment + 1 == s->segments.count)
		code = file_index_places(s->view, s->last, err);
	file_index_view_end(s->view);
	return code;
}

static enum err_code scan_all(struct recovery *r, uint64_t size, bool sealed, struct err *err)
{
	struct file_store *s = r->s;
	size_t i;
	uint64_t offset, position;
	enum err_code code = begin(r, size, &i, &offset, &position, err);
	for (; !code && i + 1 < s->segments.count; i++) {
		struct segment *segment;
		code = file_segment_get(&s->segments, r->found[i].first, &segment, err);
		if (code)
			break;
		code = scan_sealed(r, segment, offset, position, err);
		file_segment_put(&s->segments, segment);
		offset = SEGMENT_HEADER_BYTES;
		position = r->scan.position;
		if (!code && position != r->found[i + 1].first)
			code = file_segment_corrupt(&s->segments, segment, r->scan.offset,
						    "the segment has fewer records than it should", err);
	}
	if (code)
		return code;
	if (sealed) {
		code = scan_sealed(r, s->last, offset, position, err);
		r->last_frame = atomic_load(&s->last->end);
		r->last_frame_bytes = (size_t)(size - r->last_frame);
		s->last_end = size;
	} else {
		code = scan_last(r, size, offset, position, err);
	}
	if (!code && r->clean && r->clean_mark.head != r->scan.position)
		code = file_segment_corrupt(&s->segments, s->last, s->last_end,
					    "the log was closed cleanly and had another head", err);
	return code;
}

static enum err_code settle(struct recovery *r, struct err *err)
{
	struct file_store *s = r->s;
	enum err_code code = ERR_OK;
	if (s->read_only)
		return ERR_OK;
	if (!r->clean && r->last_frame_bytes > 0)
		code = rewrite_last(r, r->last_frame, r->last_frame_bytes, err);
	else if (!r->clean)
		code = rewrite_last(r, 0, SEGMENT_HEADER_BYTES, err);
	if (!code && r->clean_there) {
		char *path = mem_xprintf("%s/clean", s->dir);
		int e = s->io->unlink(s->io->arg, path);
		if (!e)
			e = s->io->sync_dir(s->io->arg, s->dir);
		if (e)
			code = err_set_errno(err, ERR_IO, -e, "cannot delete %s", path);
		mem_free(path);
	}
	return code;
}

static enum err_code recover(struct recovery *r, struct err *err)
{
	struct file_store *s = r->s;
	enum err_code code = list_directory(r, err);
	if (!code)
		code = read_clean(r, err);
	if (!code && s->restoring && r->found_n > 0)
		return err_set(err, ERR_CONFLICT, "%s has a journal: a backup is restored into an empty store only",
			       s->dir);
	if (!code && s->read_only && r->found_n == 0)
		return err_set(err, ERR_NOT_FOUND, "%s has no journal", s->dir);
	if (!code)
		code = open_index(r, err);
	if (!code)
		code = r->found_n ? open_last(r, err) : begin_journal(r, err);
	if (code)
		return code;
	int64_t size = s->io->size(s->io->arg, s->last->fd);
	if (size < 0)
		return err_set_errno(err, ERR_IO, (int)-size, "cannot stat the last segment of %s", s->dir);
	code = check_clean(r, (uint64_t)size, err);
	if (code)
		return code;
	uint64_t next = 0;
	code = file_segment_load_seal(&s->segments, s->last, &next, &r->torn_seal, err);
	if (code && code != ERR_NOT_FOUND)
		return code;
	s->last_sealed = code == ERR_OK;
	code = scan_all(r, (uint64_t)size, s->last_sealed, err);
	if (!code && s->last_sealed && next != r->scan.position)
		code = file_segment_corrupt(&s->segments, s->last, r->last_frame,
					    "the seal has another position than its records lead to", err);
	if (!code) {
		atomic_store(&s->head, r->scan.position);
		code = settle(r, err);
	}
	return code;
}

enum err_code file_recover(struct file_store *s, struct err *err)
{
	struct recovery r = {.s = s};
	file_scan_init(&r.scan, s);
	enum err_code code = recover(&r, err);
	file_scan_release(&r.scan);
	for (size_t i = 0; i < r.unfinished_n; i++)
		mem_free(r.unfinished[i]);
	mem_free(r.unfinished);
	mem_free(r.found);
	return code;
}
