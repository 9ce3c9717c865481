#include <config.h>

#include "base/log.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"

static struct buf lines;

static void collect(struct span line, void *arg)
{
	cr_assert(buf_append_span(arg, line) == ERR_OK);
}

static void setup(void)
{
	buf_init(&lines, 64 * MIB);
	log_set_sink(collect, &lines);
	log_setup(LOG_DEBUG, LOG_LOGFMT);
}
static void teardown(void)
{
	log_set_sink(NULL, NULL);
	log_setup(LOG_INFO, LOG_LOGFMT);
	buf_release(&lines);
}
TestSuite(log, .init = setup, .fini = teardown);

/* The line so far, without its time, which must look like one. */
static const char *rest(const char *before, const char *after)
{
	const char *text = buf_cstr(&lines);
	size_t n = strlen(before), when = strlen("2026-11-23T20:51:20.000123Z");
	cr_assert(strncmp(text, before, n) == 0, "%s", text);
	cr_assert(text[n + 10] == 'T');
	cr_assert(text[n + when - 1] == 'Z');
	cr_assert(strncmp(text + n + when, after, strlen(after)) == 0, "%s", text);
	return text + n + when + strlen(after);
}

Test(log, logfmt_has_time_level_message_and_fields)
{
	struct err err = {0};
	err_set(&err, ERR_IO, "disk on fire");
	log_info("journal opened", LOG_STR("path", "/var/lib"), LOG_U64("head", UINT64_MAX), LOG_I64("n", -3),
		 LOG_F64("ratio", 0.25), LOG_SPAN("s", SPAN("x")), LOG_ERR(&err));
	cr_assert_str_eq(rest("time=", " "),
			 "level=info msg=\"journal opened\" path=/var/lib head=18446744073709551615 n=-3 "
			 "ratio=0.25 s=x error=\"disk on fire\"\n");
}

Test(log, logfmt_quotes_what_could_be_misread)
{
	static const struct {
		struct span value;
		const char *text;
	} cases[] = {
		{SPAN(""), "\"\""},
		{SPAN("plain"), "plain"},
		{SPAN("two words"), "\"two words\""},
		{SPAN("a=b"), "\"a=b\""},
		{SPAN("say \"x\""), "\"say \\\"x\\\"\""},
		{SPAN("back\\slash"), "\"back\\\\slash\""},
		{SPAN("a\nb\rc\td"), "\"a\\nb\\rc\\td\""},
		{SPAN("\x01\x1b[31m\x7f"), "\"\\u0001\\u001b[31m\\u007f\""},
		{SPAN("csi\xC2\x9B"), "\"csi\\u009b\""},
		{SPAN("caf\xC3\xA9"), "caf\xC3\xA9"},
		{SPAN("bad\xFF\xC3"), "\"bad\xEF\xBF\xBD\xEF\xBF\xBD\""},
		{SPAN("nul\0x"), "\"nul\\u0000x\""},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		buf_clear(&lines);
		log_warn("m", LOG_SPAN("v", cases[i].value));
		char want[100];
		snprintf(want, sizeof(want), "%s\n", cases[i].text);
		cr_assert_str_eq(rest("time=", " level=warn msg=m v="), want);
	}
}

Test(log, json_is_one_object_a_line)
{
	log_setup(LOG_DEBUG, LOG_JSON);
	log_error("it \"broke\"", LOG_STR("path", "/x"), LOG_U64("n", 7), LOG_I64("m", -7), LOG_F64("f", 1.5),
		  LOG_F64("inf", (double)INFINITY), LOG_F64("neg", -(double)INFINITY),
		  LOG_F64("nan", (double)NAN), LOG_SPAN("b", SPAN("a\xFF\n")));
	cr_assert_str_eq(rest("{\"time\":\"", "\""),
			 ",\"level\":\"error\",\"msg\":\"it \\\"broke\\\"\",\"path\":\"/x\",\"n\":7,\"m\":-7,"
			 "\"f\":1.5,\"inf\":\"Infinity\",\"neg\":\"-Infinity\",\"nan\":\"NaN\","
			 "\"b\":\"a\xEF\xBF\xBD\\n\"}\n");
}

Test(log, a_line_may_have_no_fields)
{
	log_debug("here");
	cr_assert_str_eq(rest("time=", " "), "level=debug msg=here\n");
}

Test(log, levels_below_the_threshold_are_silent)
{
	log_setup(LOG_WARN, LOG_LOGFMT);
	cr_assert_not(log_enabled(LOG_INFO));
	cr_assert(log_enabled(LOG_WARN));
	log_debug("x");
	log_info("x");
	cr_assert(lines.n == 0);
	log_warn("x");
	cr_assert(lines.n > 0);
	buf_clear(&lines);
	log_setup(LOG_OFF, LOG_LOGFMT);
	log_error("x");
	cr_assert(lines.n == 0);
	cr_assert_not(log_enabled(LOG_OFF));
}

Test(log, a_long_value_is_cut_visibly)
{
	char value[20000];
	memset(value, 'v', sizeof(value));
	memcpy(value + LIMIT_LOG_VALUE_BYTES - 2, "\xE2\x82\xAC", 3); /* stands across the cut */
	log_info("m", LOG_SPAN("v", span_of(value, sizeof(value))), LOG_STR("after", "x"));
	const char *text = rest("time=", " level=info msg=m v=\"");
	cr_assert(strspn(text, "v") == LIMIT_LOG_VALUE_BYTES - 2);
	cr_assert_str_eq(text + LIMIT_LOG_VALUE_BYTES - 2, "...(20000 bytes)\" after=x\n");
}

Test(log, a_line_that_cannot_be_built_is_reported_as_lost)
{
	mem_test_fail_at(1);
	log_info("hello");
	mem_test_fail_at(0);
	cr_assert(strstr(buf_cstr(&lines), "a log line was lost"));
	static const char bells[LIMIT_LOG_VALUE_BYTES] = "";
	struct span v = span_of(bells, sizeof(bells));
	buf_clear(&lines);
	log_info("m", LOG_SPAN("a", v), LOG_SPAN("b", v), LOG_SPAN("c", v), LOG_SPAN("d", v),
		 LOG_SPAN("e", v), LOG_SPAN("f", v));
	cr_assert(strstr(buf_cstr(&lines), "a log line was lost"));
}

static void *write_lines(void *arg)
{
	for (int i = 0; i < 200; i++)
		log_info("from a thread", LOG_STR("pad", arg));
	return NULL;
}

Test(log, lines_of_many_threads_stay_whole_on_stderr)
{
	log_set_sink(NULL, NULL);
	FILE *file = tmpfile();
	cr_assert(file);
	int saved = dup(STDERR_FILENO);
	dup2(fileno(file), STDERR_FILENO);
	char pad[3000];
	memset(pad, 'p', sizeof(pad) - 1);
	pad[sizeof(pad) - 1] = 0;
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, write_lines, pad);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(file);
	char line[4000];
	int count = 0;
	while (fgets(line, sizeof(line), file)) {
		count++;
		const char *tail = strstr(line, " level=info msg=\"from a thread\" pad=p");
		cr_assert(tail == line + strlen("time=2026-11-23T20:51:20.000123Z"), "%.100s", line);
		cr_assert(strspn(strchr(tail, '\"') + 20, "p") == sizeof(pad) - 1);
	}
	cr_assert(count == 800);
	fclose(file);
}
