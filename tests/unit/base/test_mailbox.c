#include <config.h>

#include "base/mailbox.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/must.h"

struct item {
	struct task task;
	int from, number;
};

static struct mailbox box;
static int ran[1000], ran_count;

static void item_run(struct task *task)
{
	ran[ran_count++] = CONTAINER_OF(task, struct item, task)->number;
}

static void count_wake(void *arg)
{
	(*(int *)arg)++;
}

Test(mailbox, runs_in_order_and_wakes_once_between_drains)
{
	int wakes = 0;
	struct item items[5];
	mailbox_init(&box, count_wake, &wakes);
	cr_assert(mailbox_drain(&box) == 0);
	for (int i = 0; i < 5; i++) {
		items[i] = (struct item){.task.run = item_run, .number = i};
		mailbox_post(&box, &items[i].task);
	}
	cr_assert(wakes == 1);
	cr_assert(ran_count == 0, "posting never runs anything");
	cr_assert(mailbox_drain(&box) == 5);
	for (int i = 0; i < 5; i++)
		cr_assert(ran[i] == i);
	mailbox_post(&box, &items[0].task);
	cr_assert(wakes == 2);
	cr_assert(mailbox_drain(&box) == 1);
	mailbox_release(&box);
}

static void repost(struct task *task)
{
	item_run(task);
	if (ran_count < 3)
		mailbox_post(&box, task);
}

Test(mailbox, what_a_task_posts_waits_for_the_next_drain)
{
	int wakes = 0;
	struct item item = {.task.run = repost, .number = 1};
	mailbox_init(&box, count_wake, &wakes);
	mailbox_post(&box, &item.task);
	cr_assert(mailbox_drain(&box) == 1);
	cr_assert(wakes == 2, "a task posted by a task wakes the owner again");
	cr_assert(mailbox_drain(&box) == 1);
	cr_assert(mailbox_drain(&box) == 1);
	cr_assert(mailbox_drain(&box) == 0);
	cr_assert(wakes == 3);
	mailbox_release(&box);
}

static void run_free(struct task *task)
{
	mem_free(CONTAINER_OF(task, struct item, task));
	ran_count++;
}

Test(mailbox, a_task_may_free_itself)
{
	mailbox_init(&box, NULL, NULL);
	for (int i = 0; i < 3; i++) {
		struct item *item = mem_xalloc(sizeof(*item));
		item->task.run = run_free;
		mailbox_post(&box, &item->task);
	}
	cr_assert(mailbox_drain(&box) == 3);
	cr_assert(ran_count == 3);
	mailbox_release(&box);
}

Test(mailbox, releasing_a_full_one_is_a_bug, .signal = SIGABRT)
{
	struct item item = {.task.run = item_run};
	mailbox_init(&box, NULL, NULL);
	mailbox_post(&box, &item.task);
	mailbox_release(&box);
}

enum { POSTERS = 4, POSTS = 5000 };
static int wake_fd, next_of[POSTERS];

static void wake_eventfd(void *arg)
{
	uint64_t one = 1;
	ssize_t n = write(*(int *)arg, &one, sizeof(one));
	must(n == sizeof(one));
}

static void check_order(struct task *task)
{
	struct item *item = CONTAINER_OF(task, struct item, task);
	must(item->number == next_of[item->from]);
	next_of[item->from]++;
	mem_free(item);
}

static void *post_many(void *arg)
{
	for (int i = 0; i < POSTS; i++) {
		struct item *item = mem_xalloc(sizeof(*item));
		*item = (struct item){.task.run = check_order, .from = (int)(intptr_t)arg, .number = i};
		mailbox_post(&box, &item->task);
	}
	return NULL;
}

Test(mailbox, loses_and_reorders_nothing_between_threads)
{
	wake_fd = eventfd(0, 0);
	mailbox_init(&box, wake_eventfd, &wake_fd);
	pthread_t threads[POSTERS];
	for (int i = 0; i < POSTERS; i++)
		pthread_create(&threads[i], NULL, post_many, (void *)(intptr_t)i);
	size_t total = 0;
	while (total < POSTERS * POSTS) { /* a lost wake-up would hang here, and the test's time-out be red */
		uint64_t wakes;
		cr_assert(read(wake_fd, &wakes, sizeof(wakes)) == sizeof(wakes));
		total += mailbox_drain(&box);
	}
	mailbox_release(&box); /* the last poster may still be inside mailbox_post() */
	for (int i = 0; i < POSTERS; i++) {
		pthread_join(threads[i], NULL);
		cr_assert(next_of[i] == POSTS);
	}
	close(wake_fd);
}
