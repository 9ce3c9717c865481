/* A window on the log: reads records by position, forwards from where it stands or from a place nearby.
 * Sequential use reads ahead in growing pieces. What it returns points into it and is valid until its
 * next use. One thread at a time. */
#ifndef CAIRN_STORAGE_FILE_WINDOW_H
#define CAIRN_STORAGE_FILE_WINDOW_H

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

/* A record in the log: the Entry, the same with tag and length, and where it is. */
struct window_record {
	struct span entry, whole;
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
/* Makes the bytes from the next record on to the place after it lie in the window as one, so that records
 * of this stretch stay valid until the next seek. Sets the first position behind the stretch. */
enum err_code file_window_hold_stretch(struct window *w, uint64_t *ret_next_position, struct err *err);

#endif
