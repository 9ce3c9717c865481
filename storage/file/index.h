/* The index: from names, ids and sequences to positions, in LMDB. Made from the log alone and only from
 * its durable part; never on the way of a commit. The one file that knows LMDB is index*.c.
 *
 * Databases (all numbers in keys big-endian, so that they sort; in values little-endian):
 *	meta		"mark"			the last record that is in: struct index_mark
 *	streams		name			number: the position of the stream's first record
 *	categories	name ("|" for none)	number: the position of the category's first record
 *	stream_chunks	number, first position	base sequence, base count, up to 120 entries (recent.h)
 *	category_chunks	number, first position	the same, up to 240
 *	sequences	number, base sequence	first position of the chunk; not for a stream's first chunk
 *	snapshots	number, sequence, position	nothing
 *	ids		record id		position
 *	live		number			live records, position below which content is hidden: of streams
 *						with acts or removed records; of others all are live
 *	acts		position		what the act does, name of its stream
 *	places		segment, delta		offset: places of the segment being written
 * Positions, never offsets, but for `places`, which a seal replaces.
 *
 * Threads: one writes (index_write), any number look (each with its own view). */
#ifndef CAIRN_STORAGE_FILE_INDEX_H
#define CAIRN_STORAGE_FILE_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/span.h"
#include "record/record.h"
#include "storage/file/recent.h"
#include "storage/file/segment.h"

struct index;

/* The newest record in the index: it must be in the log exactly like this. */
struct index_mark {
	uint8_t journal_id[16];
	uint64_t position;
	uint8_t leaf[RECORD_HASH_BYTES];
	uint64_t segment, frame_offset; /* where its frame was: a hint */
};

/* Opens or makes the index in the directory. map_bytes is address space, not memory, and is doubled when it
 * is full. ERR_CORRUPT when what is there cannot be used. */
enum err_code file_index_open(const char *dir, size_t map_bytes, bool read_only, struct index **ret,
			      struct err *err);
void file_index_close(struct index *index); /* NULL is fine */
/* Deletes its files; the index is closed. */
/* A write has found the index damaged: the next start makes it anew. The mark of that is a file in it. */
void file_index_condemn(const char *dir);
bool file_index_is_condemned(const char *dir);
enum err_code file_index_delete(const char *dir, struct err *err);

/* Moves a table into the index, with places of the segment being written (NULL: none) up to the mark, in
 * one durable transaction. ERR_FULL: no room, nothing has changed. */
enum err_code file_index_write(struct index *index, const struct recent *recent,
			       const struct index_mark *mark, const struct segment *segment, struct err *err);

/* A record that is being removed from the log. */
struct index_removed {
	struct span stream;
	uint64_t position, sequence;
	uint32_t kind;
};
/* Marks their entries, so that nobody looks for them, and counts them off, in one durable transaction; again does
 * nothing. They are in the index. Sorts the list. */
enum err_code file_index_remove(struct index *index, struct index_removed *list, size_t count,
				struct err *err);

/* A look at the index as of one moment; short, for it keeps old pages alive. */
struct index_view;
enum err_code file_index_view_new(struct index *index, struct index_view **ret, struct err *err);
void file_index_view_free(struct index_view *v); /* NULL is fine */
enum err_code file_index_view_begin(struct index_view *v, struct err *err);
void file_index_view_end(struct index_view *v);
/* Records below this position are in the index, as of this view. */
uint64_t file_index_view_below(const struct index_view *v);

/* Within a view. Functions that find something return ERR_NOT_FOUND (err untouched) if there is nothing. */
enum index_list { INDEX_STREAM, INDEX_CATEGORY };
enum err_code file_index_number(struct index_view *v, enum index_list list, struct span name,
				uint64_t *ret_number, struct err *err);
struct index_fact {
	uint64_t sequence, last_position;
	uint64_t live, hidden_below; /* live ones, when content below the position is hidden */
};
enum err_code file_index_fact(struct index_view *v, uint64_t number, struct index_fact *ret, struct err *err);
/* How many live records the stream has at or above a position. */
enum err_code file_index_live(struct index_view *v, uint64_t number, uint64_t from, uint64_t *ret,
			      struct err *err);
/* All acts. */
typedef void index_act_fn(struct span stream, uint64_t position, const struct record_act *act, void *arg);
enum err_code file_index_acts(struct index_view *v, index_act_fn *fn, void *arg, struct err *err);
/* Entries from a position on, in one direction, below a bound; *n in: room, out: how many. *ret_end: there
 * are no more. */
enum err_code file_index_entries(struct index_view *v, enum index_list list, uint64_t number, uint64_t from,
				 bool backward, uint64_t below, uint64_t *entries, size_t *n, bool *ret_end,
				 struct err *err);
/* The first record given of the stream that took the sequence or a later one. */
enum err_code file_index_sequence(struct index_view *v, uint64_t number, uint64_t sequence,
				  uint64_t hidden_below, uint64_t *ret_position, struct err *err);
enum err_code file_index_snapshot(struct index_view *v, uint64_t number, uint64_t at_sequence, uint64_t below,
				  struct recent_snapshot *ret, struct err *err);
enum err_code file_index_id(struct index_view *v, const uint8_t id[RECORD_ID_BYTES], uint64_t *ret_position,
			    struct err *err);
/* Names of streams, from `after` (exclusive) on; copies into the arena. */
struct index_name {
	struct span name;
	uint64_t number;
};
enum err_code file_index_names(struct index_view *v, struct span prefix, struct span after, size_t max,
			       struct arena *a, struct index_name *ret, size_t *ret_n, struct err *err);
enum err_code file_index_mark_get(struct index_view *v, struct index_mark *ret, struct err *err);
/* Puts the places that are kept for the segment into it. */
enum err_code file_index_places(struct index_view *v, struct segment *segment, struct err *err);

#endif
