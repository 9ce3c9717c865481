/* The memory backend's state. Private to storage/memory. */
#ifndef CAIRN_STORAGE_MEMORY_INTERNAL_H
#define CAIRN_STORAGE_MEMORY_INTERNAL_H

#include <pthread.h>

#include "base/map.h"
#include "base/must.h"
#include "base/random.h"
#include "storage/marks.h"
#include "storage/sessions.h"
#include "storage/storage.h"

#define MEMORY_MAGIC 0x6d656d73u
#define READER_MAGIC 0x6d656d72u

/* Positions, ascending. */
struct positions {
	uint64_t *p;
	size_t n, cap, pending; /* pending: room that the batch being prepared will need */
};

struct stream {
	struct span name; /* owned */
	struct category *category;
	struct positions all, sequenced, snapshots; /* sequenced: kinds that take a sequence */
	uint64_t sequence, live;
	uint64_t hidden_below; /* as the marks have it */
};

struct category {
	struct positions all;
};

struct record {
	struct span bytes;   /* in a batch's block, or its own */
	struct block *block; /* NULL: its own */
	struct stream *stream;
	uint64_t sequence;
	struct wall_time commit_time;
	uint8_t id[RECORD_ID_BYTES];
	uint32_t kind;
	bool last_of_append, removed;
};

struct block { /* of one batch's bytes */
	size_t used; /* records whose bytes are in it */
};

struct memory {
	struct storage base;
	uint32_t magic;
	uint8_t journal_id[UUID_BYTES];

	struct session_rows sessions; /* the sequencer's thread alone */
	pthread_rwlock_t lock; /* guards all below */
	struct record *records;
	size_t count, cap;
	struct marks *marks;
	struct map streams, categories; /* name -> struct stream, struct category */
	/* Ids: position + 1 by hash, linear probing, at most half full. */
	uint64_t *ids;
	size_t ids_cap;
	uint64_t ids_seed[2];
	/* All streams by name: the first `sorted` of them are in order. */
	struct stream **by_name;
	size_t by_name_count, by_name_cap, sorted;
	struct map tiles; /* struct tile_key -> STORAGE_TILE_BYTES */
};

struct memory_reader {
	struct storage_reader base;
	uint32_t magic;
	struct memory *memory;
};

static inline struct memory *memory_of(struct storage *s)
{
	struct memory *m = CONTAINER_OF(s, struct memory, base);
	must(m->magic == MEMORY_MAGIC);
	return m;
}

static inline struct memory *memory_of_reader(struct storage_reader *r)
{
	struct memory_reader *reader = CONTAINER_OF(r, struct memory_reader, base);
	must(reader->magic == READER_MAGIC);
	return reader->memory;
}

static inline void lock_read(struct memory *m)
{
	int r = pthread_rwlock_rdlock(&m->lock);
	must(r == 0);
}

static inline void lock_write(struct memory *m)
{
	int r = pthread_rwlock_wrlock(&m->lock);
	must(r == 0);
}

static inline void unlock(struct memory *m)
{
	int r = pthread_rwlock_unlock(&m->lock);
	must(r == 0);
}

/* Is the record one of those that `none` asks for? */
static inline bool memory_is_live(const struct stream *stream, const struct record *r, uint64_t position)
{
	return record_kind_is_content(r->kind) && !r->removed && position >= stream->hidden_below;
}

/* Gives the memory of a record's bytes back. */
void memory_bytes_drop(struct record *r);

storage_list_fn memory_list;
storage_stat_fn memory_stat;
storage_unit_fn memory_unit;
storage_close_unit_fn memory_close_unit;
storage_tile_put_fn memory_tile_put;
storage_tile_get_fn memory_tile_get;
void memory_tiles_free(struct memory *m);
storage_remove_fn memory_remove;

#endif
