/* The tree as far as it is built: its right edge in memory, whole tiles of 256 hashes in storage. Private to
 * src/journal; one thread, that of tree.c. */
#ifndef CAIRN_JOURNAL_TREE_TILES_H
#define CAIRN_JOURNAL_TREE_TILES_H

#include <stdatomic.h>

#include "base/buf.h"
#include "journal/tree_proof.h"
#include "storage/storage.h"

#define TILES_CACHED 16

struct tile {
	struct tree_hash hashes[STORAGE_TILE_HASHES];
};

struct tiles {
	struct storage_reader *reader; /* the owner's */
	atomic_bool *stop;	       /* ends what takes long, with ERR_UNAVAILABLE; the owner's */
	uint64_t size;		       /* records in the tree */
	struct tile edge[STORAGE_TILE_LEVELS]; /* (size >> 8 * level) % 256 hashes each */
	struct buf page;		       /* of raw records */
	/* Tiles used last. */
	struct tile cached[TILES_CACHED];
	struct {
		unsigned level;
		uint64_t index, used; /* used 0: empty */
	} cached_is[TILES_CACHED];
	uint64_t clock;
	bool put_failed; /* the last put: said once */
};

void tiles_init(struct tiles *t, struct storage_reader *reader, atomic_bool *stop);
void tiles_release(struct tiles *t);

/* Begins where the tiles in storage end, below the head: the newest of them is compared with the log. If it is of
 * another history (the log was put back to an older state), all are made anew. */
enum err_code tiles_resume(struct tiles *t, uint64_t head, struct err *err);
/* Goes on by one page of the log, or by a tile that another process has made, if `shared`. size < head. */
enum err_code tiles_step(struct tiles *t, uint64_t head, bool shared, struct err *err);

/* A source for tree_proof.h; nodes above the size are not there. */
struct tree_source tiles_source(struct tiles *t);

#endif
