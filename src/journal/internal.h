/* What the files of src/journal share: the journal itself. Private to src/journal. */
#ifndef CAIRN_JOURNAL_INTERNAL_H
#define CAIRN_JOURNAL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "journal/compact.h"
#include "journal/incarnation.h"
#include "journal/journal.h"
#include "journal/reader.h"
#include "journal/sequencer.h"
#include "journal/tail.h"
#include "journal/tree.h"

struct journal {
	uint32_t magic;
	struct storage *storage;
	const struct clock *clock;
	bool threads;
	bool stopped; /* the owner's thread alone */
	uint64_t seed[2]; /* of the hashes of names and ids */
	int64_t not_before_wait_us;

	uint8_t journal_id[16];
	struct cuts *cuts; /* of its history */
	atomic_ullong head; /* durable; moved by the sequencer alone */
	_Atomic int64_t last_commit_us;

	struct sequencer *sequencer;
	struct pool *pool;
	struct tail *tail;
	struct compactor *compactor; /* NULL: by hand */
	struct tree *tree;	     /* the same */

	pthread_t others; /* looks after what other processes write; there if others_run */
	bool others_run;
	atomic_bool others_over;
};

/* The sequencer tells that the durable head is now here, and what was appended below it (count 0: it
 * is not known, another writer did). Appends are referenced, not taken. */
void journal_committed(struct journal *j, uint64_t head, struct wall_time last_commit,
		       struct append **appends, size_t count);

#endif
