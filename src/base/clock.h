/* Time, injected: two kinds that cannot be mixed up by accident.
 *
 * Monotonic time (struct mono_time; CLOCK_BOOTTIME, so that a suspended machine's leases run out) is for
 * durations, leases and time-outs. Wall time (struct wall_time; microseconds since 1970) is only ever
 * written down, never compared for order. Code takes a `const struct clock *`; tests bring their own. */
#ifndef CAIRN_BASE_CLOCK_H
#define CAIRN_BASE_CLOCK_H

#include <stdint.h>

struct mono_time {
	int64_t us;
};
struct wall_time {
	int64_t us;
};

struct clock {
	struct mono_time (*mono_now)(void *arg);
	struct wall_time (*wall_now)(void *arg);
	void *arg;
};

extern const struct clock clock_system;

static inline struct mono_time clock_mono(const struct clock *c)
{
	return c->mono_now(c->arg);
}
static inline struct wall_time clock_wall(const struct clock *c)
{
	return c->wall_now(c->arg);
}
static inline int64_t mono_since_us(struct mono_time now, struct mono_time then)
{
	return now.us - then.us;
}

/* RFC 3339 in UTC with microseconds, "2026-11-23T20:51:20.000123Z"; buffer of at least 32 bytes. */
void wall_format(struct wall_time t, char buf[32]);

#endif
