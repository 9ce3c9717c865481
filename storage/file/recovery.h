/* Private to recovery.c and scan.c: going through the frames of a log at start. */
#ifndef CAIRN_STORAGE_FILE_RECOVERY_H
#define CAIRN_STORAGE_FILE_RECOVERY_H

#include "storage/file/file.h"

/* Reads a file in pieces, whole frames at a time. */
struct scan {
	struct file_store *s;
	struct segment *segment;
	uint64_t size;     /* of the part to be scanned */
	uint64_t offset;   /* of the next frame */
	uint64_t position; /* that it must have */

	uint8_t *bytes;
	uint64_t at;
	size_t n, cap;
};

void file_scan_init(struct scan *scan, struct file_store *s);
void file_scan_release(struct scan *scan);
void file_scan_begin(struct scan *scan, struct segment *segment, uint64_t size, uint64_t offset,
		     uint64_t position);
/* The next frame, checked by every condition of format.h; bytes are valid until the next call.
 * ERR_NOT_FOUND at the end of the part; ERR_CORRUPT says what is wrong with what is at scan->offset
 * (no path: the caller decides what it means). */
struct scan_frame {
	struct frame_header header;
	struct span whole;   /* with its header */
	struct span records; /* commit */
	uint64_t offset;
};
enum err_code file_scan_next(struct scan *scan, struct scan_frame *ret, struct err *err);
/* The frame at scan->offset, whatever its position; false when it is not valid. Nothing moves. */
bool file_scan_peek(struct scan *scan, struct scan_frame *ret);
/* Is there a valid frame anywhere behind the offset? */
enum err_code file_scan_find_valid(struct scan *scan, uint64_t after, bool *ret_found, uint64_t *ret_offset,
				   struct err *err);

#endif
