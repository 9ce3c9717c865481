/* What is known of the newest records, which the index has not got yet: ids, and for each stream and
 * category the positions. One table holds a run of records without a gap; it is filled while it is the
 * newest, then moved into the index as a whole, then dropped.
 *
 * A table has no lock: the store's lock guards the one being filled; one that is being moved does not
 * change. But the chain of streams, its names too, does not change where it is there, so whoever has a
 * reference goes through it without the lock. Sizes are bounded by whoever fills it (LIMIT_FILE_RECENT_*). */
#ifndef CAIRN_STORAGE_FILE_RECENT_H
#define CAIRN_STORAGE_FILE_RECENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/map.h"
#include "base/span.h"
#include "record/record.h"
#include "storage/storage.h"

/* A record's position and what reads filter by, in one number. */
#define ENTRY_POSITION_SHIFT 8
#define ENTRY_SEQUENCE_BIT 0x80u /* it took the stream's next sequence */
#define ENTRY_KIND_MASK 0x7fu    /* kinds above are all the last one */

static inline uint64_t entry_of(uint64_t position, uint32_t kind)
{
	return position << ENTRY_POSITION_SHIFT |
	       (record_kind_takes_sequence(kind) ? ENTRY_SEQUENCE_BIT : 0) |
	       (kind < ENTRY_KIND_MASK ? kind : ENTRY_KIND_MASK);
}
static inline uint64_t entry_position(uint64_t entry)
{
	return entry >> ENTRY_POSITION_SHIFT;
}
static inline bool entry_takes_sequence(uint64_t entry)
{
	return entry & ENTRY_SEQUENCE_BIT;
}
/* Of an entry whose record has been removed only position and sequence bit are left. */
#define ENTRY_REMOVED_MASK (~(uint64_t)ENTRY_KIND_MASK)
static inline bool entry_is_content(uint64_t entry)
{
	uint32_t kind = (uint32_t)entry & ENTRY_KIND_MASK;
	return kind && record_kind_is_content(kind);
}
/* Is the record given to readers, when content below the position is hidden? */
static inline bool entry_is_given(uint64_t entry, uint64_t hidden_below)
{
	return (entry & ENTRY_KIND_MASK) && (!entry_is_content(entry) || entry_position(entry) >= hidden_below);
}
static inline bool entry_wanted(uint64_t entry, uint32_t kinds)
{
	uint32_t kind = (uint32_t)entry & ENTRY_KIND_MASK;
	if (kind == 0)
		return false;
	return kinds == 0 || (kind < 32 && (kinds >> kind & 1));
}

struct recent_snapshot {
	uint64_t sequence, position;
};

/* An entry whose sequence does not follow the one before: compaction has removed what was between. */
struct recent_gap {
	size_t index;
	uint64_t before; /* its sequence less one */
};

/* The records of one stream, or of one category, that are in the table. */
struct recent_list {
	struct recent_list *next;
	struct span name; /* owned */
	uint64_t *entries;
	size_t n, cap;
	/* Streams only. */
	uint64_t first_sequence, sequence; /* of the first and last that took one; 0 if none did */
	struct recent_snapshot *snapshots;
	size_t snapshot_n, snapshot_cap;
	struct recent_gap *gaps;
	size_t gap_n, gap_cap;
	size_t content;	       /* entries that are */
	uint64_t hidden_below; /* by an act that is in the table; 0: none */
	bool has_acts;
};

struct recent_act {
	struct span stream; /* of the list */
	uint64_t position;
	struct record_act act;
};

struct recent {
	uint64_t first; /* position of the first record */
	size_t n;
	size_t log_bytes;
	struct wall_time last_commit;
	/* Where the last whole frame is. */
	uint64_t frame_segment, frame_offset;

	uint8_t (*ids)[RECORD_ID_BYTES];
	size_t id_cap;
	uint32_t *slots; /* by hash of the id: its index and one, or 0 */
	size_t slot_cap;
	uint64_t seed[2];

	struct map streams, categories;
	struct recent_list *stream_list, *category_list; /* newest first */
	struct recent_act *acts;
	size_t act_n, act_cap;

	atomic_uint refs;
	/* Streams by name, as far as somebody has asked; under order_lock, which is taken alone. */
	pthread_mutex_t order_lock;
	const struct recent_list **order;
	size_t order_n, order_cap;
};

struct recent *file_recent_new(uint64_t first); /* with one reference */
struct recent *file_recent_ref(struct recent *r); /* NULL is fine */
void file_recent_unref(struct recent *r);	  /* the same */

/* The record at position first + n; act: what it does to its stream, or NULL. */
void file_recent_add(struct recent *r, const struct storage_record *record, const struct record_act *act);
/* The same, of a record that has been removed. */
void file_recent_add_removed(struct recent *r, size_t bytes);

const struct recent_list *file_recent_stream(const struct recent *r, struct span name);
const struct recent_list *file_recent_category(const struct recent *r, struct span name);
/* False when it is not there. */
bool file_recent_id(const struct recent *r, const uint8_t id[RECORD_ID_BYTES], uint64_t *ret_position);
/* Stands for the id of a record that has been removed. */
bool file_recent_id_is_none(const uint8_t id[RECORD_ID_BYTES]);

/* The streams of a table as of one moment: taken under the store's lock, used without. */
struct recent_names {
	struct recent *table; /* a reference, or NULL */
	const struct recent_list *newest;
	size_t count;
};
struct recent_names file_recent_names(struct recent *r); /* NULL is fine */
/* Calls `each` with the streams whose names begin with prefix and come after `after`, by name, until it says
 * false. Each name is put in order once in the life of a table. */
void file_recent_each_name(const struct recent_names *names, struct span prefix, struct span after,
			   bool each(const struct recent_list *list, void *arg), void *arg);

/* Index of the first entry at or after the position, or n. */
size_t file_recent_list_find(const struct recent_list *list, uint64_t position);
/* Position of the first record given that took the sequence or a later one; false if there is none. */
bool file_recent_list_sequence(const struct recent_list *list, uint64_t sequence, uint64_t hidden_below,
			       uint64_t *ret_position);
/* How many of the entries are content that is not hidden. */
size_t file_recent_list_live(const struct recent_list *list, uint64_t hidden_below);

#endif
