/* What is counted, as text. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/limits.h"
#include "proxy/stats.h"

static struct stats stats;
static struct buf out;

static void begin(void)
{
	stats_init(&stats);
	buf_init(&out, MIB);
}

static void end(void)
{
	stats_release(&stats);
	buf_release(&out);
}

TestSuite(stats, .init = begin, .fini = end);

Test(stats, a_topics_name_may_be_anything)
{
	stats_count_published(&stats, SPAN("plain"));
	stats_count_published(&stats, SPAN("a\"b\\c"));
	stats_count_published(&stats, SPAN("plain"));
	cr_assert(!stats_render(&stats, &out));
	const char *text = buf_cstr(&out);
	cr_expect(strstr(text, "\ncairn_proxy_topic_published_total{topic=\"plain\"} 2\n"));
	cr_expect(strstr(text, "\ncairn_proxy_topic_published_total{topic=\"a\\\"b\\\\c\"} 1\n"));
}

Test(stats, no_more_topics_are_named_than_the_limit)
{
	char name[32];
	size_t named = 0;
	for (size_t i = 0; i < LIMIT_TOPICS_COUNTED + 10; i++) {
		snprintf(name, sizeof name, "t%zu", i);
		stats_count_published(&stats, span_str(name));
	}
	cr_assert(!stats_render(&stats, &out));
	for (const char *at = buf_cstr(&out); (at = strstr(at, "_published_total{topic=")); at++)
		named++;
	cr_expect_eq(named, LIMIT_TOPICS_COUNTED);
}
