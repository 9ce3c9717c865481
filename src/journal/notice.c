/* What the sequencer says of the clock and of a full disk: see notice.h. */
#include <config.h>

#include "journal/notice.h"

#include "base/log.h"
#include "base/metrics.h"

#define CLOCK_FAR_US ((int64_t)60 * 1000000)

void notice_init(struct notices *w, const struct clock *clock)
{
	*w = (struct notices){.clock = clock, .seen_wall = clock_wall(clock), .seen_mono = clock_mono(clock)};
}

/* Nothing depends on the clock but the time that records are dated with; that never goes back. So a clock
 * that is far behind the last record, or that jumps ahead and takes all later records along, is the
 * operator's to know of. (How old the last record is says nothing: a journal may be idle.) */
struct wall_time notice_clock(struct notices *w, struct wall_time last_commit)
{
	struct wall_time now = clock_wall(w->clock);
	struct mono_time mono = clock_mono(w->clock);
	int64_t behind_us = last_commit.us - now.us;
	int64_t jump_us = now.us - w->seen_wall.us - mono_since_us(mono, w->seen_mono);
	w->seen_wall = now;
	w->seen_mono = mono;
	metric_set(METRIC_CLOCK_BEHIND_SECONDS, behind_us > 0 ? behind_us / 1000000 : 0);
	if (behind_us >= CLOCK_FAR_US && !w->clock_behind) {
		w->clock_behind = true;
		log_warn("the clock is far behind the newest record: until it has caught up, records are "
			 "dated alike; is it right?",
			 LOG_I64("behind_seconds", behind_us / 1000000));
	} else if (behind_us <= 0 && w->clock_behind) {
		w->clock_behind = false;
		log_info("the clock has caught up with the newest record");
	}
	if (jump_us >= CLOCK_FAR_US) {
		metric_add(METRIC_CLOCK_JUMPS, 1);
		log_warn("the clock has jumped ahead: what is appended now is dated by it, and nothing later "
			 "will be dated earlier; is it right?",
			 LOG_I64("jump_seconds", jump_us / 1000000));
	}
	return now;
}

/* A disk is full for long and is written to often: the log says when it begins and when it ends, and
 * cairn_appends_total counts what is refused in between. */
void notice_full(struct notices *w, const struct err *err, size_t count)
{
	if (w->full == 0)
		log_error("no room for appends: all are refused until there is some", LOG_ERR(err));
	w->full += count;
}

void notice_room(struct notices *w)
{
	if (w->full > 0)
		log_info("there is room for appends again", LOG_U64("refused", w->full));
	w->full = 0;
}
