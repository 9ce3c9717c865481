/* The segments of one log: which there are, and a bounded number of them open for reading.
 *
 * A segment is in use between file_segment_get() and file_segment_put(); others may be closed to keep the
 * number of open files and of loaded place tables small. The last one is being written: its places and its
 * end grow while readers use them, and are published in that order. Any thread. */
#ifndef CAIRN_STORAGE_FILE_SEGMENT_H
#define CAIRN_STORAGE_FILE_SEGMENT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/err.h"
#include "storage/file/fileio.h"
#include "storage/file/format.h"

struct segment {
	uint64_t number, first; /* never change */

	/* Set by the writer for the last one, by loading for the others; read by anyone who holds it. */
	_Atomic uint64_t end; /* offset behind its last durable commit */
	struct place *places; /* the first place_count are valid */
	_Atomic uint32_t place_count;
	uint32_t place_cap;
	int fd; /* -1: not open */
	/* Compaction has put another in its place: who holds it may read on in it, and then lets go. */
	atomic_bool retired;

	/* Under the list's lock. */
	unsigned refs;
	uint64_t last_use;
};

struct segments {
	const struct fileio *io;
	const char *dir;
	uint8_t journal_id[16];
	size_t max_segment_bytes; /* before a new one is begun; a single frame may exceed it */

	pthread_mutex_t lock;
	struct segment **items; /* in order */
	size_t count, cap;
	size_t open;
	uint64_t uses;
};

void file_segments_init(struct segments *s, const struct fileio *io, const char *dir,
			size_t max_segment_bytes);
/* Closes all; none is in use but the last, whose reference the writer has. */
void file_segments_release(struct segments *s);

/* Adds one behind the others. With fd >= 0 it is the one being written: fd is taken, and the caller has a
 * reference. */
struct segment *file_segments_add(struct segments *s, uint64_t number, uint64_t first, int fd);
struct segment *file_segments_last(struct segments *s); /* NULL if there is none */

/* The segment that has the position, which is below the head. */
enum err_code file_segment_get(struct segments *s, uint64_t position, struct segment **ret, struct err *err);
void file_segment_put(struct segments *s, struct segment *segment); /* NULL is fine */

/* Where the position's segment begins and the next one does (UINT64_MAX: it is the last). */
void file_segment_bounds(struct segments *s, uint64_t position, uint64_t *ret_first, uint64_t *ret_end);
/* The file of a sealed segment, which the caller holds, has been replaced: whoever gets it from now on opens the
 * new one. */
void file_segment_replace(struct segments *s, struct segment *old);

char *file_segment_path(const struct segments *s, const struct segment *segment); /* for mem_free() */
/* ERR_CORRUPT: "PATH: byte OFFSET: what; what to do". */
enum err_code file_segment_corrupt(const struct segments *s, const struct segment *segment, uint64_t offset,
				   const char *what, struct err *err);

/* Reads and checks the header of a segment that is open: whose it is is left to the caller.
 * ERR_UNSUPPORTED: it has a later format. */
enum err_code file_segment_read_header(const struct segments *s, const struct segment *segment,
				       struct segment_header *ret, struct err *err);
/* Reads a sealed segment's seal: its places into segment->places, its end, and the position that the
 * next one begins with. ERR_NOT_FOUND (err untouched) when it is not sealed. With ret_torn, for the last
 * segment, that is so too when there is a trailer but not the whole seal: then *ret_torn is where the trailer
 * says that the seal is, else 0. */
enum err_code file_segment_load_seal(const struct segments *s, struct segment *segment, uint64_t *ret_next,
				     uint64_t *ret_torn, struct err *err);

/* The writer's: a record at offset, if it is PLACE_EVERY_BYTES behind the place before. */
void file_segment_note(struct segment *segment, uint64_t position, uint64_t offset);
/* The last place at or before the position. */
struct place file_segment_place(const struct segment *segment, uint64_t position);

#endif
