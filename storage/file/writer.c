/* Appending: one frame a batch, one sync a frame, a new segment when one is full. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/plant.h"
#include "storage/file/file.h"

static bool no_room(int r)
{
	return r == -ENOSPC || r == -EDQUOT;
}

/* Appends end until restart: what is on the disk is not known any more. */
static enum storage_outcome fail_for(struct file_store *s, const struct err *why, struct err *err)
{
	s->failed = *why;
	err_wrap(&s->failed, "appends have ended until the server is restarted, which recovers");
	log_error("storage failed", LOG_ERR(&s->failed));
	err_set(err, ERR_IO, "%s", s->failed.text);
	return STORAGE_FAILED;
}

static enum storage_outcome fail(struct file_store *s, int r, const char *what, struct err *err)
{
	struct err why = {0};
	char *path = file_segment_path(&s->segments, s->last);
	err_set_errno(&why, ERR_IO, -r, "cannot %s %s", what, path);
	mem_free(path);
	return fail_for(s, &why, err);
}

static enum storage_outcome full(struct file_store *s, int r, struct err *err)
{
	metric_add(METRIC_FILE_FULL, 1);
	err_set_errno(err, ERR_FULL, -r, "no room in %s, nothing was written", s->dir);
	return STORAGE_FULL;
}

/* Writes a frame behind the last one, or leaves the file as it was, or fails. */
static enum storage_outcome write_frame(struct file_store *s, size_t frame_bytes, struct err *err)
{
	const struct fileio *io = s->io;
	int r = file_io_write_all(io, s->last->fd, s->frame, frame_bytes, s->last_end);
	if (no_room(r)) {
		int cut = io->ftruncate(io->arg, s->last->fd, s->last_end);
		return cut ? fail(s, cut, "cut back", err) : full(s, r, err);
	}
	if (r)
		return fail(s, r, "write", err);
	struct mono_time begun = clock_mono(s->clock);
	r = plant("fdatasync-skipped") ? 0 : io->fdatasync(io->arg, s->last->fd);
	if (r)
		return fail(s, r, "sync", err);
	metric_observe_us(METRIC_FILE_SYNC, mono_since_us(clock_mono(s->clock), begun));
	s->last_end += frame_bytes;
	return STORAGE_OK;
}

static enum err_code reserve_frame(struct file_store *s, size_t bytes, struct err *err)
{
	if (bytes <= s->frame_cap)
		return ERR_OK;
	size_t cap = s->frame_cap ? s->frame_cap : 64 * KIB;
	while (cap < bytes)
		cap *= 2;
	uint8_t *frame = mem_try_realloc(s->frame, cap);
	if (!frame)
		return err_set(err, ERR_NOMEM, "no memory for a batch of %zu bytes", bytes);
	s->frame = frame;
	s->frame_cap = cap;
	return ERR_OK;
}

/* --- segments ------------------------------------------------------------------------------------------ */

static enum err_code make_failed(const char *path, int r, const char *what, struct err *err)
{
	return err_set_errno(err, no_room(r) ? ERR_FULL : ERR_IO, -r, "cannot %s %s", what, path);
}

enum err_code file_make_segment(struct file_store *s, uint64_t number, uint64_t first, int *ret_fd,
				struct err *err)
{
	const struct fileio *io = s->io;
	char name[SEGMENT_NAME_BYTES];
	uint8_t bytes[SEGMENT_HEADER_BYTES];
	struct segment_header header = {
		.number = number, .first = first, .created_us = clock_wall(s->clock).us};
	memcpy(header.journal_id, s->journal_id, 16);
	file_segment_header_put(bytes, &header);
	file_segment_name(name, number, first);
	char *path = mem_xprintf("%s/%s", s->dir, name), *made = mem_xprintf("%s.new", path);

	enum err_code code = ERR_OK;
	int fd = io->open(io->arg, made, FILEIO_WRITE | FILEIO_CREATE | FILEIO_EMPTY);
	int r = fd < 0 ? fd : 0;
	if (!r) {
		/* Room beforehand is only for speed: that it is missing will be seen by whoever writes. */
		r = io->preallocate(io->arg, fd, s->options.segment_bytes);
		if (no_room(r) || r == -EOPNOTSUPP || r == -ENOSYS)
			r = 0;
	}
	if (!r)
		r = file_io_write_all(io, fd, bytes, sizeof(bytes), 0);
	if (!r)
		r = io->fdatasync(io->arg, fd);
	if (r)
		code = make_failed(made, r, "make", err);
	if (!code) {
		r = io->rename(io->arg, made, path);
		if (r)
			code = make_failed(path, r, "rename", err);
		else if ((r = io->sync_dir(io->arg, s->dir)))
			code = err_set_errno(err, ERR_IO, -r, "cannot sync %s", s->dir);
	}
	if (code && fd >= 0) {
		io->close(io->arg, fd);
		io->unlink(io->arg, made);
	}
	mem_free(path);
	mem_free(made);
	if (!code)
		*ret_fd = fd;
	return code;
}

/* Puts the last frame of the segment: its places, and where they are. */
static enum storage_outcome seal(struct file_store *s, struct err *err)
{
	struct segment *last = s->last;
	uint32_t count = atomic_load(&last->place_count);
	size_t n = (size_t)count * PLACE_BYTES + TRAILER_BYTES;
	if (reserve_frame(s, FRAME_HEADER_BYTES + n, err))
		return STORAGE_REFUSED;
	uint8_t *p = s->frame + FRAME_HEADER_BYTES;
	for (uint32_t i = 0; i < count; i++, p += PLACE_BYTES)
		file_place_put(p, last->places[i]);
	file_trailer_put(p, s->last_end);
	const struct frame_at at = {s->journal_id, last->number, s->last_end};
	file_frame_put(s->frame, &at, FRAME_SEAL, atomic_load(&s->head), count, n);
	enum storage_outcome outcome = write_frame(s, FRAME_HEADER_BYTES + n, err);
	if (outcome)
		return outcome;
	s->last_sealed = true;
	/* Gives back what was reserved behind the end and not used. */
	int r = s->io->ftruncate(s->io->arg, last->fd, s->last_end);
	return r ? fail(s, r, "cut", err) : STORAGE_OK;
}

static enum storage_outcome begin_segment(struct file_store *s, struct err *err)
{
	int fd;
	uint64_t head = atomic_load(&s->head);
	struct err why = {0};
	enum err_code code = file_make_segment(s, s->last->number + 1, head, &fd, &why);
	if (code == ERR_FULL)
		return full(s, -why.sys_errno, err);
	if (code)
		return fail_for(s, &why, err);
	file_segment_put(&s->segments, s->last);
	s->last = file_segments_add(&s->segments, s->last->number + 1, head, fd);
	s->last_end = SEGMENT_HEADER_BYTES;
	s->last_sealed = false;
	metric_add(METRIC_FILE_SEGMENTS, 1);
	return STORAGE_OK;
}

static enum storage_outcome make_room(struct file_store *s, size_t frame_bytes, struct err *err)
{
	bool empty = s->last_end == SEGMENT_HEADER_BYTES;
	if (!s->last_sealed) {
		bool asked = atomic_exchange(&s->close_segment, false);
		if (empty || (s->last_end + frame_bytes <= s->options.segment_bytes && !asked))
			return STORAGE_OK;
		enum storage_outcome outcome = seal(s, err);
		if (outcome)
			return outcome;
	}
	return begin_segment(s, err);
}

/* --- appending ----------------------------------------------------------------------------------------- */

static size_t records_bytes(const struct storage_record *records, size_t count)
{
	size_t sum = 0;
	for (size_t i = 0; i < count; i++)
		sum += records[i].bytes.n;
	return sum;
}

static void build_frame(struct file_store *s, uint64_t first, const struct storage_record *records,
			size_t count, size_t bytes)
{
	uint8_t *p = s->frame + FRAME_HEADER_BYTES;
	for (size_t i = 0; i < count; i++) {
		must(records[i].position == first + i);
		memcpy(p, records[i].bytes.p, records[i].bytes.n);
		p += records[i].bytes.n;
	}
	const struct frame_at at = {s->journal_id, s->last->number, s->last_end};
	file_frame_put(s->frame, &at, FRAME_COMMIT, first, (uint32_t)count, bytes);
}

/* The frame is durable: lets readers see it. Order: places, end, facts, head. */
static void publish(struct file_store *s, uint64_t frame_at, const struct storage_record *records,
		    size_t count)
{
	uint64_t offset = frame_at + FRAME_HEADER_BYTES;
	for (size_t i = 0; i < count; i++) {
		file_segment_note(s->last, records[i].position, offset);
		offset += records[i].bytes.n;
		if (!records[i].removed)
			file_facts_update(s, &records[i]);
	}
	must(offset == s->last_end);
	atomic_store_explicit(&s->last->end, offset, memory_order_release);
	must(pthread_rwlock_wrlock(&s->lock) == 0);
	for (size_t i = 0; i < count; i++) {
		struct record_act act;
		if (records[i].removed) {
			file_recent_add_removed(s->filling, records[i].bytes.n);
			continue;
		}
		bool acts = file_act_of(&records[i], &act);
		if (acts)
			marks_apply(s->marks, records[i].stream, records[i].position, &act);
		file_recent_add(s->filling, &records[i], acts ? &act : NULL);
	}
	s->filling->frame_segment = s->last->number;
	s->filling->frame_offset = frame_at;
	if (!records[count - 1].removed)
		s->last_commit = records[count - 1].commit_time;
	atomic_store_explicit(&s->head, records[count - 1].position + 1, memory_order_release);
	must(pthread_rwlock_unlock(&s->lock) == 0);
}

enum storage_outcome file_append(struct storage *storage, uint64_t expected_head,
				 const struct storage_record *records, size_t count, struct err *err)
{
	struct file_store *s = file_store_of(storage);
	if (s->read_only) {
		err_set(err, ERR_UNSUPPORTED, "%s is open for reading only", s->dir);
		return STORAGE_REFUSED;
	}
	if (s->failed.code) {
		err_set(err, ERR_IO, "%s", s->failed.text);
		return STORAGE_FAILED;
	}
	if (expected_head != atomic_load(&s->head) || !session_rows_hold(&s->sessions, records, count))
		return STORAGE_MOVED;
	if (count == 0)
		return STORAGE_OK;
	size_t bytes = records_bytes(records, count);
	if (bytes > LIMIT_FRAME_BYTES) {
		err_set(err, ERR_LIMIT, "a batch of %zu bytes is larger than a frame", bytes);
		return STORAGE_REFUSED;
	}
	struct err why = {0};
	enum err_code code = file_indexer_keep_up(s, &why);
	if (code == ERR_FULL)
		return full(s, -why.sys_errno, err);
	if (code)
		return fail_for(s, &why, err);
	enum storage_outcome outcome = make_room(s, FRAME_HEADER_BYTES + bytes, err);
	if (outcome)
		return outcome;
	if (reserve_frame(s, FRAME_HEADER_BYTES + bytes, err))
		return STORAGE_REFUSED;
	uint64_t frame_at = s->last_end;
	build_frame(s, expected_head, records, count, bytes);
	outcome = write_frame(s, FRAME_HEADER_BYTES + bytes, err);
	if (outcome == STORAGE_OK) {
		publish(s, frame_at, records, count);
		session_rows_commit(&s->sessions, records, count);
	}
	return outcome;
}

enum err_code file_put_clean(struct file_store *s, struct err *err)
{
	const struct fileio *io = s->io;
	struct clean_mark mark = {
		.segment = s->last->number, .end = s->last_end, .head = atomic_load(&s->head)};
	uint8_t bytes[CLEAN_BYTES];
	memcpy(mark.journal_id, s->journal_id, 16);
	file_clean_put(bytes, &mark);
	char *path = mem_xprintf("%s/clean", s->dir), *made = mem_xprintf("%s/clean.new", s->dir);
	int fd = io->open(io->arg, made, FILEIO_WRITE | FILEIO_CREATE | FILEIO_EMPTY);
	int r = fd < 0 ? fd : file_io_write_all(io, fd, bytes, sizeof(bytes), 0);
	if (!r)
		r = io->fdatasync(io->arg, fd);
	/* The mark says where the log ends; a cut back for want of room has not been synced yet. */
	if (!r)
		r = io->fdatasync(io->arg, s->last->fd);
	if (fd >= 0)
		io->close(io->arg, fd);
	if (!r)
		r = io->rename(io->arg, made, path);
	if (!r)
		r = io->sync_dir(io->arg, s->dir);
	mem_free(path);
	mem_free(made);
	return r ? err_set_errno(err, ERR_IO, -r, "cannot mark %s as cleanly closed", s->dir) : ERR_OK;
}
