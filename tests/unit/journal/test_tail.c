/* The tail: the ring, and who is woken by what. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/must.h"
#include "journal/tail.h"

struct sleeper {
	struct tail_waiter waiter;
	unsigned woken;
};

static void on_wake(struct tail_waiter *w)
{
	CONTAINER_OF(w, struct sleeper, waiter)->woken++;
}

static void join(struct tail *t, struct sleeper *s, struct mailbox *m, enum storage_source source,
		 struct span name)
{
	*s = (struct sleeper){.waiter = {.wake = on_wake}};
	tail_join(t, &s->waiter, m, source, name);
}

/* Publishes an append at the tail's end, as the sequencer would have decided it. */
static void publish(struct tail *t, struct append *a)
{
	a->answer.first_position = tail_end(t);
	a->writes = true;
	tail_publish(t, &a, 1, a->answer.first_position + a->item_count);
	append_unref(a);
}

static uint64_t collect_one(struct tail *t, uint64_t position)
{
	struct append *a;
	size_t count;
	cr_assert(tail_collect(t, position, &a, 1, &count));
	if (count == 0)
		return UINT64_MAX;
	uint64_t first = a->answer.first_position;
	append_unref(a);
	return first;
}

Test(tail, gives_the_append_that_holds_a_position)
{
	struct tail *t = tail_new(10);
	struct append *many[8];
	size_t count;
	cr_assert(collect_one(t, 10) == UINT64_MAX);
	publish(t, APPEND({.stream = "x", .ids = {1, 2, 3}}));
	publish(t, APPEND({.stream = "x", .ids = {4}}));
	publish(t, APPEND({.stream = "x", .ids = {5, 6}}));
	cr_assert(tail_end(t) == 16);
	const uint64_t first[] = {10, 10, 10, 13, 14, 14, UINT64_MAX};
	for (uint64_t i = 0; i < 7; i++)
		cr_expect(collect_one(t, 10 + i) == first[i], "position %llu", (unsigned long long)i + 10);
	cr_assert(tail_collect(t, 11, many, 8, &count));
	cr_assert(count == 3);
	for (size_t i = 0; i < count; i++)
		append_unref(many[i]);
	cr_assert(!tail_collect(t, 9, many, 8, &count)); /* storage has it */
	tail_free(t);
}

Test(tail, keeps_the_newest_appends_only)
{
	struct tail *t = tail_new(0);
	struct append *a;
	size_t count;
	for (unsigned i = 0; i < LIMIT_TAIL_APPENDS + 10; i++)
		publish(t, APPEND({.stream = "x", .ids = {i + 1}}));
	cr_assert(!tail_collect(t, 9, &a, 1, &count));
	cr_assert(collect_one(t, 10) == 10);
	cr_assert(collect_one(t, LIMIT_TAIL_APPENDS + 9) == LIMIT_TAIL_APPENDS + 9);
	tail_free(t);
}

Test(tail, keeps_no_more_bytes_than_its_limit)
{
	struct tail *t = tail_new(0);
	struct append *a;
	size_t count;
	for (unsigned i = 0; i < 5; i++) {
		a = APPEND({.stream = "x", .ids = {i + 1}});
		a->memory_bytes = LIMIT_TAIL_BYTES / 3;
		publish(t, a);
	}
	cr_assert(!tail_collect(t, 1, &a, 1, &count));
	cr_assert(collect_one(t, 2) == 2);
	/* One that is larger than the ring is alone in it. */
	a = APPEND({.stream = "x", .ids = {9}});
	a->memory_bytes = LIMIT_TAIL_BYTES + 1;
	publish(t, a);
	cr_assert(!tail_collect(t, 4, &a, 1, &count));
	cr_assert(collect_one(t, 5) == 5);
	tail_free(t);
}

Test(tail, a_reference_keeps_what_the_ring_drops)
{
	struct tail *t = tail_new(0);
	struct append *a;
	size_t count;
	publish(t, APPEND({.stream = "x", .ids = {1}}));
	cr_assert(tail_collect(t, 0, &a, 1, &count));
	tail_skip(t, 5);
	cr_assert(a->item_count == 1);
	cr_assert(span_eq_str(a->targets[0].name, "x"));
	append_unref(a);
	tail_free(t);
}

Test(tail, a_commit_wakes_only_those_it_touches)
{
	struct tail *t = tail_new(0);
	struct mailbox m;
	struct sleeper x, y, cat, all;
	mailbox_init(&m, NULL, NULL);
	join(t, &x, &m, STORAGE_STREAM, SPAN("c|x"));
	join(t, &y, &m, STORAGE_STREAM, SPAN("d|y"));
	join(t, &cat, &m, STORAGE_CATEGORY, SPAN("c"));
	join(t, &all, &m, STORAGE_ALL, SPAN(""));
	cr_assert(tail_wait(t, &x.waiter, 0, 0));
	cr_assert(tail_wait(t, &y.waiter, 0, 0));
	cr_assert(tail_wait(t, &cat.waiter, 0, 0));
	cr_assert(tail_wait(t, &all.waiter, 0, 0));
	publish(t, APPEND({.stream = "e", .ids = {1}}, {.stream = "c|z", .ids = {2}}));
	cr_assert(x.woken + y.woken + cat.woken + all.woken == 0); /* only on the mailbox */
	cr_assert(mailbox_drain(&m) == 1);                         /* one task for all of them */
	cr_assert(x.woken == 0);
	cr_assert(y.woken == 0);
	cr_assert(cat.woken == 1);
	cr_assert(cat.waiter.position == 1); /* nothing for it below */
	cr_assert(all.woken == 1);
	/* They wait no more until they ask again. */
	publish(t, APPEND({.stream = "c|x", .ids = {3}}));
	cr_assert(mailbox_drain(&m) == 1);
	cr_assert(x.woken == 1);
	cr_assert(x.waiter.position == 2);
	cr_assert(cat.woken == 1);
	cr_assert(all.woken == 1);
	tail_leave(t, &x.waiter);
	tail_leave(t, &y.waiter);
	tail_leave(t, &cat.waiter);
	tail_leave(t, &all.waiter);
	cr_assert(mailbox_drain(&m) == 0);
	tail_free(t);
	mailbox_release(&m);
}

Test(tail, who_wants_what_is_there_already_does_not_wait)
{
	struct tail *t = tail_new(0);
	struct mailbox m;
	struct sleeper x;
	mailbox_init(&m, NULL, NULL);
	join(t, &x, &m, STORAGE_STREAM, SPAN("x"));
	publish(t, APPEND({.stream = "x", .ids = {1}}));
	cr_assert(!tail_wait(t, &x.waiter, 0, 0));
	cr_assert(tail_wait(t, &x.waiter, 1, 0));
	tail_leave(t, &x.waiter);
	tail_free(t);
	mailbox_release(&m);
}

Test(tail, each_worker_gets_one_task_however_many_wait)
{
	struct tail *t = tail_new(0);
	struct mailbox m[2];
	struct sleeper s[20];
	for (size_t i = 0; i < 2; i++)
		mailbox_init(&m[i], NULL, NULL);
	for (size_t i = 0; i < 20; i++) {
		join(t, &s[i], &m[i % 2], STORAGE_ALL, SPAN(""));
		cr_assert(tail_wait(t, &s[i].waiter, 0, 0));
	}
	publish(t, APPEND({.stream = "x", .ids = {1}}));
	publish(t, APPEND({.stream = "x", .ids = {2}}));
	cr_assert(mailbox_drain(&m[0]) == 1);
	cr_assert(mailbox_drain(&m[1]) == 1);
	for (size_t i = 0; i < 20; i++) {
		cr_assert(s[i].woken == 1);
		tail_leave(t, &s[i].waiter);
	}
	tail_free(t);
	for (size_t i = 0; i < 2; i++)
		mailbox_release(&m[i]);
}

Test(tail, one_that_leaves_after_being_touched_is_not_woken)
{
	struct tail *t = tail_new(0);
	struct mailbox m;
	struct sleeper x, all;
	mailbox_init(&m, NULL, NULL);
	join(t, &x, &m, STORAGE_STREAM, SPAN("x"));
	join(t, &all, &m, STORAGE_ALL, SPAN(""));
	cr_assert(tail_wait(t, &x.waiter, 0, 0));
	cr_assert(tail_wait(t, &all.waiter, 0, 0));
	publish(t, APPEND({.stream = "x", .ids = {1}}));
	tail_leave(t, &x.waiter);
	tail_leave(t, &all.waiter);
	mailbox_drain(&m);
	cr_assert(x.woken == 0);
	cr_assert(all.woken == 0);
	tail_free(t);
	mailbox_release(&m);
}

Test(tail, a_skip_wakes_everyone_and_empties_the_ring)
{
	struct tail *t = tail_new(0);
	struct mailbox m;
	struct sleeper x, cat, all;
	struct append *a;
	size_t count;
	mailbox_init(&m, NULL, NULL);
	join(t, &x, &m, STORAGE_STREAM, SPAN("x"));
	join(t, &cat, &m, STORAGE_CATEGORY, SPAN("c"));
	join(t, &all, &m, STORAGE_ALL, SPAN(""));
	cr_assert(tail_wait(t, &x.waiter, 0, 0));
	cr_assert(tail_wait(t, &cat.waiter, 0, 0));
	cr_assert(tail_wait(t, &all.waiter, 0, 0));
	tail_skip(t, 7);
	mailbox_drain(&m);
	cr_assert(x.woken == 1);
	cr_assert(x.waiter.position == 0); /* it may be anywhere above */
	cr_assert(cat.woken == 1);
	cr_assert(all.woken == 1);
	cr_assert(tail_end(t) == 7);
	cr_assert(!tail_collect(t, 0, &a, 1, &count));
	tail_leave(t, &x.waiter);
	tail_leave(t, &cat.waiter);
	tail_leave(t, &all.waiter);
	tail_free(t);
	mailbox_release(&m);
}

Test(tail, wakes_those_that_are_far_behind_what_they_were_told_a_few_at_a_time)
{
	struct tail *t = tail_new(0);
	struct mailbox m;
	struct sleeper near, far[6];
	unsigned woken = 0;
	mailbox_init(&m, NULL, NULL);
	tail_skip(t, 2 * TAIL_IDLE_RECORDS);
	for (size_t i = 0; i < 6; i++) {
		join(t, &far[i], &m, i % 2 ? STORAGE_STREAM : STORAGE_CATEGORY, SPAN("x"));
		cr_assert(tail_wait(t, &far[i].waiter, 2 * TAIL_IDLE_RECORDS, TAIL_IDLE_RECORDS + 1));
	}
	join(t, &near, &m, STORAGE_STREAM, SPAN("x"));
	cr_assert(tail_wait(t, &near.waiter, 2 * TAIL_IDLE_RECORDS, TAIL_IDLE_RECORDS + 3));
	publish(t, APPEND({.stream = "z", .ids = {1}}));
	mailbox_drain(&m);
	for (size_t i = 0; i < 6; i++)
		woken += far[i].woken;
	cr_assert(woken == 4);
	cr_assert(far[0].waiter.position == 2 * TAIL_IDLE_RECORDS + 1);
	publish(t, APPEND({.stream = "z", .ids = {2}}));
	mailbox_drain(&m);
	cr_assert(far[5].woken == 1);
	cr_assert(near.woken == 0);
	for (size_t i = 0; i < 6; i++)
		tail_leave(t, &far[i].waiter);
	tail_leave(t, &near.waiter);
	tail_free(t);
	mailbox_release(&m);
}
