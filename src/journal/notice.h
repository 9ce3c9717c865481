/* What an operator is told of the clock and of a full disk: once when it begins and once when it ends. The
 * sequencer's thread alone. Private to src/journal. */
#ifndef CAIRN_JOURNAL_NOTICE_H
#define CAIRN_JOURNAL_NOTICE_H

#include <stdbool.h>

#include "base/clock.h"
#include "base/err.h"

struct notices {
	const struct clock *clock;
	struct wall_time seen_wall; /* by the clock, when it was looked at last */
	struct mono_time seen_mono;
	bool clock_behind; /* far behind the last record, and that has been said */
	uint64_t full;	   /* appends refused since there is no room; 0: there is, as far as is known */
};

void notice_init(struct notices *w, const struct clock *clock);
/* The time now. */
struct wall_time notice_clock(struct notices *w, struct wall_time last_commit);
/* So many appends found no room. */
void notice_full(struct notices *w, const struct err *err, size_t count);
/* Something was written. */
void notice_room(struct notices *w);

#endif
