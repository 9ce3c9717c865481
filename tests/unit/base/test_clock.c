#include <config.h>

#include "base/clock.h"

#include <criterion/criterion.h>
#include <stdint.h>

static void check_format(int64_t us, const char *expected)
{
	char text[32];
	wall_format((struct wall_time){us}, text);
	cr_assert_str_eq(text, expected);
}

Test(clock, wall_time_is_rfc_3339)
{
	check_format(0, "1970-01-01T00:00:00.000000Z");
	check_format(1795467080000123, "2026-11-23T20:51:20.000123Z");
	check_format(951782400999999, "2000-02-29T00:00:00.999999Z");
	check_format(253402300799999999, "9999-12-31T23:59:59.999999Z");
}

Test(clock, times_before_1970_round_down)
{
	check_format(-1, "1969-12-31T23:59:59.999999Z");
	check_format(-1000000, "1969-12-31T23:59:59.000000Z");
}

Test(clock, the_extremes_fit_the_buffer)
{
	check_format(INT64_MAX, "294247-01-10T04:00:54.775807Z");
	check_format(INT64_MIN, "-290308-12-21T19:59:05.224192Z");
}

Test(clock, system_clock_moves_forward)
{
	struct mono_time a = clock_mono(&clock_system);
	struct mono_time b = clock_mono(&clock_system);
	cr_assert(mono_since_us(b, a) >= 0);
	cr_assert(clock_wall(&clock_system).us > 1700000000000000, "wall time is in microseconds");
}

static struct mono_time fixed_mono(void *arg)
{
	return (struct mono_time){*(int64_t *)arg};
}
static struct wall_time fixed_wall(void *arg)
{
	return (struct wall_time){*(int64_t *)arg * 2};
}

Test(clock, is_injected)
{
	int64_t now = 21;
	const struct clock c = {fixed_mono, fixed_wall, &now};
	cr_assert(clock_mono(&c).us == 21);
	cr_assert(clock_wall(&c).us == 42);
	now = 30;
	cr_assert(mono_since_us(clock_mono(&c), (struct mono_time){21}) == 9);
}
