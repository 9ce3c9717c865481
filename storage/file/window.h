/* A window on the log: reads records by position, forwards from where it stands or from a place nearby.
 * Sequential use reads ahead in growing pieces, of 256 KiB at most; larger records go past it into whatever
 * they are copied to, or widen it until it is trimmed. What it returns points into it and is valid until its
 * next use. One thread at a time. */
#ifndef CAIRN_STORAGE_FILE_WINDOW_H
#define CAIRN_STORAGE_FILE_WINDOW_H

#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"
#include "storage/file/segment.h"

struct window {
	struct segments *segments;
	struct segment *segment; /* held; NULL before the first use */
	uint64_t position;       /* of the next record */
	uint64_t offset;         /* of it, or of the frame header before it */

	uint8_t *bytes; /* the file's bytes from `at` on */
	uint64_t at;
	size_t n, cap, ahead;
};

/* A record in the log: the Entry, the same with tag and length, and where it is. Of a head, entry and whole
 * are cut short where the window ends. */
struct window_record {
	struct span entry, whole;
	size_t bytes; /* with tag and length, be it in the window or not */
	uint64_t position, offset;
};

void file_window_init(struct window *w, struct segments *segments);
void file_window_release(struct window *w);

/* Goes to the record with the position, which is below the head. */
enum err_code file_window_seek(struct window *w, uint64_t position, struct err *err);
/* Goes to the last place at or before the position. */
enum err_code file_window_seek_place(struct window *w, uint64_t position, struct err *err);
/* Takes the next record. ERR_CORRUPT names the file and the byte; the CRC is not computed. */
enum err_code file_window_next(struct window *w, struct window_record *ret, struct err *err);
/* The same, but a record larger than the window is given by its first 8 KiB. */
enum err_code file_window_next_head(struct window *w, struct window_record *ret, struct err *err);
/* Appends a record of the segment in which the window stands to *out and checks it, its CRC too. */
enum err_code file_window_copy(struct window *w, const struct window_record *record, struct buf *out,
			       struct err *err);
/* Reads the bytes from the next record on to the place after it at once, unless the window is too small for
 * them. */
enum err_code file_window_hold_stretch(struct window *w, struct err *err);
/* Gives memory back that a large record has widened it by. */
void file_window_trim(struct window *w);

#endif
