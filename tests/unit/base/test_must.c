#include <config.h>

#include "base/must.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THING_MAGIC 0x74686e67u
struct thing {
	uint32_t magic;
	int n;
};

Test(must, holds)
{
	int calls = 0;
	must(++calls == 1);
	cr_assert(calls == 1, "the condition is evaluated exactly once");
}

Test(must, broken_aborts, .signal = SIGABRT)
{
	must(1 == 2);
}

Test(must, unreachable_state_aborts, .signal = SIGABRT)
{
	unreachable_state("of the test");
}

Test(must, names_condition_and_place)
{
	int fds[2];
	cr_assert(pipe(fds) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDERR_FILENO);
		close(fds[1]);
		must(0 && "the sky");
		_exit(0);
	}
	close(fds[1]);
	char text[4096];
	size_t n = 0;
	for (ssize_t got; n < sizeof(text) - 1 && (got = read(fds[0], text + n, sizeof(text) - 1 - n)) > 0;)
		n += (size_t)got;
	text[n] = 0;
	int status;
	cr_assert(waitpid(pid, &status, 0) == pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	cr_assert(strstr(text, "the sky"), "%s", text);
	cr_assert(strstr(text, "test_must.c:"), "%s", text);
}

Test(must, cast_of_the_right_object)
{
	struct thing t = {THING_MAGIC, 7};
	void *arg = &t;
	cr_assert(OBJ_CAST(struct thing, arg, THING_MAGIC)->n == 7);
	cr_assert(CONTAINER_OF(&t.n, struct thing, n) == &t);
	int numbers[3];
	cr_assert(ARRAY_LEN(numbers) == 3);
}

Test(must, cast_of_a_freed_object_aborts, .signal = SIGABRT)
{
	struct thing t = {0, 7};
	void *arg = &t;
	OBJ_CAST(struct thing, arg, THING_MAGIC)->n = 1;
}

Test(must, cast_of_nothing_aborts, .signal = SIGABRT)
{
	void *arg = NULL;
	OBJ_CAST(struct thing, arg, THING_MAGIC)->n = 1;
}
