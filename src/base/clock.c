#include <config.h>

#include "base/clock.h"

#include <stdio.h>
#include <time.h>

#include "base/must.h"

static int64_t clock_read_us(clockid_t id)
{
	struct timespec t;
	int r = clock_gettime(id, &t);
	must(r == 0);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static struct mono_time system_mono_now(void *arg)
{
	(void)arg;
	return (struct mono_time){clock_read_us(CLOCK_BOOTTIME)};
}

static struct wall_time system_wall_now(void *arg)
{
	(void)arg;
	return (struct wall_time){clock_read_us(CLOCK_REALTIME)};
}

const struct clock clock_system = {.mono_now = system_mono_now, .wall_now = system_wall_now};

void wall_format(struct wall_time t, char buf[32])
{
	int64_t seconds = t.us / 1000000, us = t.us % 1000000;
	if (us < 0) {
		us += 1000000;
		seconds--;
	}
	struct tm tm;
	time_t s = (time_t)seconds;
	must(gmtime_r(&s, &tm)); /* 64 bits of microseconds always fit into a year of int */
	size_t n = strftime(buf, 32, "%FT%T", &tm);
	must(n > 0);
	int m = snprintf(buf + n, 32 - n, ".%06dZ", (int)us);
	must(m == 8);
}
