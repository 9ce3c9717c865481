/* The tail: what was committed last, in memory, and who waits for more.
 *
 * A ring of references to the newest appends (LIMIT_TAIL_BYTES, LIMIT_TAIL_APPENDS), without gaps. And
 * interest tables: who waits for a stream, for a category, for anything. A commit touches only those who
 * wait for what it wrote, and wakes each worker at most once, with one task: those who wait for anything
 * are not even looked at by the sequencer.
 *
 * Whoever waits for a stream that stays quiet is woken now and then all the same, so that his position
 * moves: after TAIL_IDLE_RECORDS, or more when many wait, and a few with each commit, so that no commit
 * pays for all of them. Private to src/journal. */
#ifndef CAIRN_JOURNAL_TAIL_H
#define CAIRN_JOURNAL_TAIL_H

#include <stdatomic.h>

#include "base/list.h"
#include "journal/append.h"

#define TAIL_IDLE_RECORDS ((uint64_t)4096)

struct tail;
struct interest;
struct tail_desk;

/* One who waits; embedded in a live read. The tail's, but for `wake`. */
struct tail_waiter {
	void (*wake)(struct tail_waiter *w); /* on the mailbox's thread; it waits no more */
	struct list_node node;
	struct list_node idle;     /* of those that wait for a stream or category: who has waited longest */
	struct interest *interest; /* NULL: anything */
	struct tail_desk *desk;
	bool waiting;
	uint64_t position; /* nothing that it wants is below */
	uint64_t told;     /* the position its reader was told last, for checkpoints */
	struct list_node joined;
	atomic_ullong reached; /* its reader has all below; UINT64_MAX: not known yet. Its owner sets it */
};

struct tail *tail_new(uint64_t head);
/* Nobody waits any more, and no task of it is in a mailbox. */
void tail_free(struct tail *t);

/* The sequencer: these were committed, side by side, up to head. */
void tail_publish(struct tail *t, struct append **appends, size_t count, uint64_t head);
/* The sequencer: the head is here, and what is below was not seen: the ring begins anew, all are woken. */
void tail_skip(struct tail *t, uint64_t head);
/* A live read comes and goes; source and name as in its query; on the mailbox's thread. */
void tail_join(struct tail *t, struct tail_waiter *w, struct mailbox *mailbox, enum storage_source source,
	       struct span name);
void tail_leave(struct tail *t, struct tail_waiter *w);
/* Waits from `position` on, unless there is something at or above it by now: false. */
bool tail_wait(struct tail *t, struct tail_waiter *w, uint64_t position, uint64_t told);

/* How far live reads are behind the end: the greatest distance in records, and how many are at all. A look at each of
 * them, under the lock. Any thread. */
void tail_lag(struct tail *t, uint64_t *ret_greatest, size_t *ret_behind);
/* Where the ring ends: the position of what is committed next. */
uint64_t tail_end(struct tail *t);
/* References to up to `max` appends, from the one that holds the position. *ret_count is 0 at the end.
 * False: the position has left the ring, storage has it. */
bool tail_collect(struct tail *t, uint64_t position, struct append **ret, size_t max, size_t *ret_count);

#endif
