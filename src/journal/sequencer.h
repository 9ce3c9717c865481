/* The sequencer: gives every append its place, and commits in groups. One thread, or by hand.
 *
 * It takes all appends that wait (LIMIT_BATCH_BYTES, LIMIT_BATCH_APPENDS, LIMIT_BATCH_KEYS; one alone may exceed them),
 * looks up the facts, decides, appends, and only then answers, whatever the answer. The next batch
 * gathers meanwhile and is decided only after this one is durable: nothing is speculative. After a
 * batch of k > 1 it waits until k wait again, at most a tenth of the recent sync time.
 *
 * What storage answers: OK: all get what was decided. MOVED: the facts are looked up again and the batch
 * is decided again. FULL: all get ERR_FULL, known not written. REFUSED: the batch is committed one by one,
 * so that only the culprit fails. UNKNOWN: all get ERR_UNAVAILABLE, the next batch goes on. FAILED: the
 * same, and no append is accepted any more. Private to src/journal. */
#ifndef CAIRN_JOURNAL_SEQUENCER_H
#define CAIRN_JOURNAL_SEQUENCER_H

#include "journal/append.h"

struct sequencer;

/* What it needs of the journal: `committed` is called on the sequencer's thread as in internal.h. */
struct sequencer_config {
	struct storage *storage;
	const struct clock *clock;
	int64_t slow_append_us;
	void (*committed)(void *arg, uint64_t head, struct wall_time last_commit, struct append **appends,
			  size_t count);
	void *arg;
	struct cuts *cuts; /* the ledger's; it outlives the sequencer */
	uint64_t seed[2]; /* of the hashes of names and ids */
};
enum err_code sequencer_new(const struct sequencer_config *config, struct sequencer **ret, struct err *err);
void sequencer_free(struct sequencer *s); /* after sequencer_stop() */

void sequencer_start(struct sequencer *s); /* its thread */
/* Takes no more; what waits is still decided and answered before it returns. */
void sequencer_stop(struct sequencer *s);
/* Others have appended: storage knows of it, and the thread tells readers soon. Any thread. */
void sequencer_look(struct sequencer *s);
/* Without a thread: one batch of what waits; false if nothing did. */
bool sequencer_step(struct sequencer *s);

enum err_code sequencer_append(struct sequencer *s, struct append **append, struct err *err);
bool sequencer_cancel(struct sequencer *s, struct append *a);
bool sequencer_has_room(const struct sequencer *s);
bool sequencer_takes_appends(const struct sequencer *s);
void sequencer_when_room(struct sequencer *s, struct journal_room *room);

/* How long to wait for k appends, given the time of recent syncs: the rule, for its test. */
int64_t sequencer_gather_us(size_t last_batch, int64_t recent_sync_us);

#endif
