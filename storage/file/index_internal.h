/* Shared by index.c, index_write.c and index_read.c. */
#ifndef CAIRN_STORAGE_FILE_INDEX_INTERNAL_H
#define CAIRN_STORAGE_FILE_INDEX_INTERNAL_H

#include <pthread.h>

#include <lmdb.h>

#include "base/endian.h"
#include "storage/file/index.h"

#define STREAM_CHUNK_ENTRIES 120   /* with key and header about 1 KiB: four to a page */
#define CATEGORY_CHUNK_ENTRIES 240 /* about 2 KiB: what LMDB still keeps within a page */
#define CHUNK_HEADER_BYTES 16
#define CHUNK_BYTES(entries) (CHUNK_HEADER_BYTES + 8 * (entries))
/* The last four bytes are INDEX_FORMAT: an index of another one is made anew. */
#define MARK_BYTES (16 + 8 + RECORD_HASH_BYTES + 8 + 8 + 4)
#define INDEX_FORMAT 2u
#define LIVE_BYTES 16
#define ACT_BYTES 25 /* before the name */

struct index {
	MDB_env *env;
	MDB_dbi meta, names[2], chunks[2], sequences, snapshots, ids, live, acts, places; /* [enum index_list] */
	/* Views hold it for reading; growing the map needs it alone. */
	pthread_rwlock_t map_lock;
	size_t map_bytes;
	pthread_mutex_t write_lock; /* LMDB has one writer, and it must not be one when the map grows */
	/* The writer's: what `places` holds. */
	uint64_t places_segment;
	uint32_t places_count;
};

struct index_view {
	struct index *index;
	MDB_txn *txn;
	bool begun;
	uint64_t below;
};

static inline MDB_val val_of(const void *p, size_t n)
{
	return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}
static inline MDB_val val_span(struct span s)
{
	return val_of(s.p, s.n);
}
static inline struct span val_get(MDB_val v)
{
	return span_of(v.mv_data, v.mv_size);
}

/* LMDB has no empty keys, and no category is named "|". */
static inline struct span name_key(struct span name)
{
	return name.n ? name : SPAN("|");
}

static inline void key_put(uint8_t key[16], uint64_t number, uint64_t position)
{
	put_be64(key, number);
	put_be64(key + 8, position);
}
/* Is this the key of something of that number? */
static inline bool key_is(MDB_val key, uint64_t number)
{
	return key.mv_size >= 16 && get_be64(key.mv_data) == number;
}
static inline uint64_t key_position(MDB_val key)
{
	return get_be64((const uint8_t *)key.mv_data + 8);
}

static inline size_t chunk_count(MDB_val v)
{
	return v.mv_size < CHUNK_HEADER_BYTES ? 0 : (v.mv_size - CHUNK_HEADER_BYTES) / 8;
}
static inline uint64_t chunk_entry(MDB_val v, size_t i)
{
	return get_le64((const uint8_t *)v.mv_data + CHUNK_HEADER_BYTES + 8 * i);
}

/* Records of one stream that are given, when they are not all of them. */
struct live_row {
	bool there;
	uint64_t live, hidden_below;
};
static inline struct live_row live_get(MDB_val v)
{
	const uint8_t *p = v.mv_data;
	return v.mv_size < LIVE_BYTES ? (struct live_row){0}
				      : (struct live_row){true, get_le64(p), get_le64(p + 8)};
}

/* Sets the error of an LMDB call; MDB_NOTFOUND is not for it. */
enum err_code file_index_fail(struct err *err, int r, const char *what);

#endif
