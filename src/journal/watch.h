/* The rows of sessions (storage.h), and who beats no more. A session's end is decided by whoever has seen the
 * same count for the whole ttl on his own clock, looking often enough to have seen it change: who was asleep
 * himself begins to count anew. The sequencer's thread alone. Private to src/journal. */
#ifndef CAIRN_JOURNAL_WATCH_H
#define CAIRN_JOURNAL_WATCH_H

#include "journal/ledger.h"
#include "journal/append.h"

struct watch;

/* Makes the rows of the sessions that live. */
enum err_code watch_new(struct storage *storage, struct ledger *ledger, const struct clock *clock,
			const uint64_t seed[2], struct watch **ret, struct err *err);
void watch_free(struct watch *w); /* NULL is fine */

/* Before a batch is decided: the rows that its acts ask for. */
enum err_code watch_read(struct watch *w, struct append **appends, size_t count, struct err *err);
/* A batch is durable: beats for those that asked and were granted it; who has ended is refused. */
void watch_beat(struct watch *w, struct append **appends, size_t count);

/* When the next look is due; false: there is nothing to look at. */
bool watch_due(const struct watch *w, struct mono_time *ret);
/* Looks. The ends of those that are over are chained by `next`, to be appended; NULL: none. */
struct append *watch_look(struct watch *w);

#endif
