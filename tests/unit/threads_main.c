/* Runs Criterion's tests without Criterion's library, for builds with ThreadSanitizer: the library maps
 * memory at addresses that ThreadSanitizer keeps for itself, and aborts. The tests are the same; each runs
 * in a forked process of its own, and a race, a crash, a wrong exit or a minute's silence fails it.
 * Understands --tap (its only output) and --filter SUITE/NAME with wildcards. */
#include <config.h>

#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include <fnmatch.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST_MAX_S 300 /* as in tests/run-tap */
#define SKIPPED 77     /* exit status */

/* Where Test() and TestSuite() register; the linker makes the names. */
extern struct criterion_test *__start_cr_tst[], *__stop_cr_tst[];
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *__stop_cr_sts[] __attribute__((weak));

/* What the macros of <criterion/assert.h> call. */
struct criterion_options criterion_options;
static void *current_param;
static int failures;

void criterion_internal_test_setup(void)
{
}
void criterion_internal_test_teardown(void)
{
}
void criterion_internal_test_main(void (*fn)(void))
{
	if (current_param)
		((void (*)(void *))fn)(current_param);
	else
		fn();
}
void cri_asserts_passed_incr(void)
{
}
void criterion_abort_test(void)
{
	_exit(1);
}
void criterion_continue_test(void)
{
	__atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
}
void criterion_skip_test(const char *format, ...)
{
	va_list ap;
	va_start(ap, format);
	printf("# ");
	vprintf(format, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
	_exit(SKIPPED);
}
void criterion_send_assert(struct criterion_assert_stats *stats)
{
	if (!stats->passed)
		printf("# %s:%u: %s\n", stats->file, stats->line, stats->message);
	fflush(stdout);
}
char *cr_translate_assert_msg(int msg_index, ...)
{
	va_list ap;
	va_start(ap, msg_index);
	char *text = strdup(va_arg(ap, char *));
	va_end(ap);
	return text;
}
int cr_asprintf(char **ret, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(ret, fmt, ap);
	va_end(ap);
	return n;
}
void cr_asprintf_free(char *text)
{
	free(text);
}

static const struct criterion_test_extra_data *suite_of(const struct criterion_test *test)
{
	static const struct criterion_test_extra_data none;
	for (struct criterion_suite **s = __start_cr_sts; s < __stop_cr_sts; s++)
		if (strcmp((*s)->name, test->category) == 0)
			return (*s)->data;
	return &none;
}

static void test_body(const struct criterion_test *test)
{
	const struct criterion_test_extra_data *suite = suite_of(test);
	void (*const steps[])(void) = {suite->init, test->data->init, test->test, test->data->fini,
				       suite->fini};
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (steps[i])
			steps[i]();
	exit(failures ? 1 : 0); /* not _exit(): the sanitizer has its last word in exit() */
}

static int test_run(const struct criterion_test *test, int number)
{
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		alarm(TEST_MAX_S);
		test_body(test);
	}
	int status = 0, wanted_signal = test->data->signal ? test->data->signal : suite_of(test)->signal;
	waitpid(pid, &status, 0);
	int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
	bool skipped = !signal && code == SKIPPED;
	int ok = skipped || (signal == wanted_signal && (signal || code == test->data->exit_code));
	printf("%s %d - %s::%s", ok ? "ok" : "not ok", number, test->category, test->name);
	if (skipped)
		printf(" # SKIP for the reason above");
	if (!ok)
		printf(" signal %d, exit status %d", signal, code);
	putchar('\n');
	return ok;
}

static int params_run(const struct criterion_test *test, int *number)
{
	struct criterion_test_params params = test->data->param_();
	int failed = 0;
	for (size_t i = 0; i < params.length; i++) {
		current_param = (char *)params.params + i * params.size;
		failed += !test_run(test, ++*number);
	}
	if (params.cleanup)
		params.cleanup(&params);
	current_param = NULL;
	return failed;
}

int main(int argc, char **argv)
{
	const char *filter = "*";
	int number = 0, failed = 0;
	for (int i = 1; i + 1 < argc; i++)
		if (strcmp(argv[i], "--filter") == 0)
			filter = argv[i + 1];
	for (struct criterion_test **t = __start_cr_tst; t < __stop_cr_tst; t++) {
		const struct criterion_test *test = *t;
		if (fnmatch(filter, test->data->identifier_, 0) != 0)
			continue;
		if (test->data->disabled || suite_of(test)->disabled)
			printf("ok %d - %s::%s # SKIP disabled\n", ++number, test->category, test->name);
		else if (test->data->kind_ == CR_TEST_PARAMETERIZED)
			failed += params_run(test, &number);
		else
			failed += !test_run(test, ++number);
	}
	printf("1..%d\n", number);
	return failed ? 1 : 0;
}
