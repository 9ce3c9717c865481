/* Who has to leave memory. */
#include <config.h>

#include <criterion/criterion.h>

#include "base/must.h"
#include "proxy/residence.h"

static struct residence r;
static struct resident a, b, c;

static void setup(void)
{
	residence_init(&r, 100);
	residence_settle(&r, &a, 40, true);
	residence_settle(&r, &b, 40, true);
}
TestSuite(residence, .init = setup);

Test(residence, nobody_leaves_within_the_bound)
{
	residence_settle(&r, &c, 20, true);
	cr_assert_null(residence_surplus(&r));
}

Test(residence, who_was_used_longest_ago_leaves_first)
{
	residence_settle(&r, &a, 40, false); /* used again */
	residence_settle(&r, &a, 40, true);
	residence_settle(&r, &c, 40, true);
	cr_assert_eq(residence_surplus(&r), &b);
	residence_leave(&r, &b);
	cr_assert_null(residence_surplus(&r));
	residence_settle(&r, &c, 90, true); /* what is told of an idle one is no use of it */
	cr_assert_eq(residence_surplus(&r), &a);
}

Test(residence, who_is_busy_stays)
{
	residence_settle(&r, &a, 4000, false);
	cr_assert_eq(residence_surplus(&r), &b);
	residence_leave(&r, &b);
	cr_assert_null(residence_surplus(&r));
	residence_settle(&r, &a, 4000, true);
	cr_assert_eq(residence_surplus(&r), &a);
}

Test(residence, who_leaves_counts_no_more)
{
	residence_leave(&r, &a);
	residence_leave(&r, &a);
	cr_assert_eq(r.bytes, 40);
	residence_leave(&r, &b);
	cr_assert_eq(r.bytes, 0);
	residence_settle(&r, &c, 1000, true);
	cr_assert_eq(residence_surplus(&r), &c);
}
