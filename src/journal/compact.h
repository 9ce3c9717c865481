/* Compaction: takes off the disk what acts withhold and what retention rules say is not needed. One thread, one
 * unit (file: a segment) at a time, each first announced by a record in "$acts" that lists what goes. Runs by
 * itself now and then, and when asked. Private to src/journal; acts.h has what others call. */
#ifndef CAIRN_JOURNAL_COMPACT_H
#define CAIRN_JOURNAL_COMPACT_H

#include "journal/acts.h"

struct compactor;
struct compactor_config {
	struct journal *journal;
	int64_t min_age_us;	   /* nothing younger goes */
	int64_t every_ms;	   /* how often it looks by itself; 0: only when asked */
	int64_t rate_bytes_second; /* read and written at most; 0: no limit */
};

enum err_code compactor_new(const struct compactor_config *config, struct compactor **ret, struct err *err);
void compactor_start(struct compactor *c);
/* Ends it at the next record or so; who waits is told that it did not come through. */
void compactor_stop(struct compactor *c); /* NULL is fine */
void compactor_free(struct compactor *c); /* after it was stopped; NULL is fine */

#endif
