#include <config.h>

#include "base/random.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

Test(random, bytes_fill_every_length_and_differ)
{
	uint8_t a[2000], b[2000];
	for (size_t n = 16; n < sizeof(a); n += 61) {
		memset(a, 0, sizeof(a));
		memset(b, 0, sizeof(b));
		random_bytes(a, n);
		random_bytes(b, n);
		cr_assert(memcmp(a, b, n) != 0);
		bool tail = false;
		for (size_t i = n - 16; i < n; i++)
			tail |= a[i] != 0;
		cr_assert(tail, "the last bytes of %zu were not written", n);
		for (size_t i = n; i < sizeof(a); i++)
			cr_assert(a[i] == 0, "nothing is written behind the end");
	}
	random_bytes(a, 0);
	cr_assert(random_u64() != random_u64());
}

Test(random, a_child_does_not_repeat_its_parent)
{
	uint64_t theirs, ours;
	int fds[2];
	random_u64(); /* the pool is full now */
	cr_assert(pipe(fds) == 0);
	pid_t pid = fork();
	if (pid == 0) {
		theirs = random_u64();
		_exit(write(fds[1], &theirs, sizeof(theirs)) == sizeof(theirs) ? 0 : 1);
	}
	ours = random_u64();
	cr_assert(read(fds[0], &theirs, sizeof(theirs)) == sizeof(theirs));
	cr_assert(ours != theirs);
	cr_assert(waitpid(pid, NULL, 0) == pid);
}

Test(random, uuid_v4_is_marked)
{
	uint8_t a[UUID_BYTES], b[UUID_BYTES];
	uuid_v4(a);
	uuid_v4(b);
	cr_assert(memcmp(a, b, UUID_BYTES) != 0);
	cr_assert(a[6] >> 4 == 4);
	cr_assert(a[8] >> 6 == 2);
}

static int64_t fake_us;
static struct wall_time fake_wall(void *arg)
{
	(void)arg;
	return (struct wall_time){fake_us};
}
static const struct clock fake = {.wall_now = fake_wall};

Test(random, uuid_v7_carries_the_time)
{
	uint8_t u[UUID_BYTES];
	char text[UUID_TEXT_BYTES];
	fake_us = 1645557742000999; /* the time of RFC 9562's example, and 0.999 ms */
	uuid_v7(&fake, u);
	uuid_format(u, text);
	cr_assert(strncmp(text, "017f22e2-79b0-7ffb-", 19) == 0, "%s", text);
	cr_assert(u[8] >> 6 == 2);
	fake_us = -5;
	uuid_v7(&fake, u);
	cr_assert(u[6] >> 4 == 7);
}

Test(random, uuid_v7_of_one_thread_only_rises)
{
	uint8_t last[UUID_BYTES] = {0}, u[UUID_BYTES];
	fake_us = 1700000000000000;
	for (int i = 0; i < 20000; i++) {
		if (i % 1000 == 999)
			fake_us -= 50000; /* the clock is set back */
		else
			fake_us += i % 3;
		uuid_v7(&fake, u);
		cr_assert(memcmp(u, last, UUID_BYTES) > 0);
		cr_assert(u[6] >> 4 == 7);
		memcpy(last, u, UUID_BYTES);
	}
}

Test(random, uuid_text_both_ways)
{
	uint8_t u[UUID_BYTES], v[UUID_BYTES];
	char text[UUID_TEXT_BYTES];
	uuid_v4(u);
	uuid_format(u, text);
	cr_assert(strlen(text) == 36);
	cr_assert(uuid_parse(span_str(text), v) == 0);
	cr_assert(memcmp(u, v, UUID_BYTES) == 0);
	cr_assert(uuid_parse(SPAN("017F22E2-79b0-7cc3-98C4-dc0c0c07398f"), v) == 0);
	uuid_format(v, text);
	cr_assert_str_eq(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
}

Test(random, uuid_parse_refuses_what_is_none)
{
	static const char *const bad[] = {
		"", "017f22e2", "017f22e279b07cc398c4dc0c0c07398f", "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
		"017f22e2-79b0-7cc3-98c4-dc0c0c07398ff", "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
		"017f22e2-79b0-7cc3-98c4_dc0c0c07398f", "017f22e-279b0-7cc3-98c4-dc0c0c07398f",
		"{17f22e2-79b0-7cc3-98c4-dc0c0c07398}", "017f22e2-79b0-7cc3-98c4-dc0c0c0739-f",
	};
	uint8_t v[UUID_BYTES] = {1, 2, 3};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert(uuid_parse(span_str(bad[i]), v) == -1, "%s", bad[i]);
	cr_assert(v[0] == 1 && v[1] == 2 && v[2] == 3, "the output is written only on success");
}
