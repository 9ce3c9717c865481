/* What a consumer group has in hand: its rules one by one, then chance against a log that is looked at whole. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/group.h"
#include "tests/unit/scale.h"

static bool offer(struct group *g, uint64_t position, const char *stream)
{
	return group_offer(g, position, span_str(stream));
}

/* Takes the stream that is due; "" if none is. */
static const char *catch_up(struct group *g, int64_t now, uint64_t *from, uint64_t *below)
{
	static char name[32];
	struct span stream;
	if (!group_catch_up(g, now, &stream, from, below))
		return "";
	snprintf(name, sizeof(name), "%.*s", SPAN_ARG(stream));
	return name;
}

Test(group, is_done_below_the_first_that_is_open)
{
	struct group *g = group_new(10);
	group_restore(g, 5);
	cr_expect(group_below(g) == 5 && !group_moved(g));
	cr_expect(offer(g, 7, "a") && offer(g, 8, "b") && offer(g, 9, "a"));
	cr_expect(group_below(g) == 7);
	cr_expect(group_ack(g, 8));
	cr_expect(group_below(g) == 7);
	cr_expect(group_ack(g, 7));
	cr_expect(group_below(g) == 9);
	cr_expect(group_ack(g, 9));
	cr_expect(group_below(g) == 10);
	group_passed(g, 20);
	cr_expect(group_below(g) == 20 && group_moved(g));
	group_written(g);
	cr_expect(!group_moved(g));
	cr_expect(!group_ack(g, 9));
	group_free(g);
}

Test(group, has_room_for_its_window)
{
	struct group *g = group_new(2);
	cr_expect(group_has_room(g) && offer(g, 0, "a"));
	cr_expect(group_has_room(g) && offer(g, 1, "b"));
	cr_expect(!group_has_room(g));
	group_ack(g, 0);
	cr_expect(group_has_room(g));
	group_free(g);
}

Test(group, a_stream_waits_and_catches_up)
{
	struct group *g = group_new(10);
	uint64_t from, below;
	int64_t due;
	cr_expect(!group_due(g, &due));
	offer(g, 0, "a");
	offer(g, 1, "b");
	offer(g, 2, "a");
	cr_expect(group_nack(g, 0, 1000) == GROUP_NACKED);
	cr_expect(!group_ack(g, 2)); /* taken back with it */
	cr_expect(group_waiting_count(g) == 1);
	cr_expect(!offer(g, 3, "a")); /* passed over */
	cr_expect(offer(g, 4, "b"));
	cr_expect(group_due(g, &due) && due == 1000);
	cr_expect_str_eq(catch_up(g, 999, &from, &below), "");
	cr_expect_str_eq(catch_up(g, 1000, &from, &below), "a");
	cr_expect(from == 0 && below == 5);
	cr_expect_str_eq(catch_up(g, 1000, &from, &below), ""); /* one at a time */
	group_caught(g, true, 0);
	cr_expect(group_below(g) == 1); /* what waits does not hold the others */
	cr_expect(group_ack(g, 0));
	cr_expect_str_eq(catch_up(g, 0, &from, &below), "a");
	cr_expect(from == 1);
	group_caught(g, true, 2);
	group_ack(g, 2);
	cr_expect_str_eq(catch_up(g, 0, &from, &below), "a");
	cr_expect(!offer(g, 5, "a")); /* passed over while it is looked for */
	group_caught(g, false, 0);
	cr_expect_str_eq(catch_up(g, 0, &from, &below), "a");
	cr_expect(from == 3 && below == 6);
	group_caught(g, true, 5);
	group_ack(g, 5);
	cr_expect_str_eq(catch_up(g, 0, &from, &below), "a");
	group_caught(g, false, 0);
	cr_expect(group_waiting_count(g) == 0);
	cr_expect(offer(g, 6, "a"));
	group_free(g);
}

Test(group, a_record_given_back_while_its_stream_is_read_comes_first)
{
	struct group *g = group_new(10);
	uint64_t from, below;
	struct group_mark mark;
	struct span stream;
	offer(g, 0, "a");
	offer(g, 1, "a");
	group_nack(g, 1, 0);
	cr_expect_str_eq(catch_up(g, 0, &from, &below), "a");
	cr_expect(from == 1);
	cr_expect(group_nack(g, 0, 50) == GROUP_NACKED);
	group_caught(g, true, 1); /* too late */
	cr_expect(!group_has(g, 1, &stream));
	group_waiting(g, 0, &mark);
	cr_expect(mark.position == 0);
	cr_expect_str_eq(catch_up(g, 49, &from, &below), "");
	cr_expect_str_eq(catch_up(g, 50, &from, &below), "a");
	cr_expect(from == 0);
	group_free(g);
}

Test(group, what_was_sent_before_its_stream_came_to_wait_is_open)
{
	struct group *g = group_new(10);
	struct group_mark mark;
	offer(g, 0, "a");
	offer(g, 1, "b");
	offer(g, 2, "a");
	group_nack(g, 2, 1000);
	group_waiting(g, 0, &mark);
	cr_expect(mark.position == 0);
	group_ack(g, 0);
	group_waiting(g, 0, &mark);
	cr_expect(mark.position == 2);
	group_free(g);
}

Test(group, so_many_streams_may_wait)
{
	struct group *g = group_new(1);
	char name[32];
	for (size_t i = 0; i < LIMIT_GROUP_WAITING; i++) {
		snprintf(name, sizeof(name), "s%zu", i);
		offer(g, i, name);
		cr_assert(group_nack(g, i, 1000) == GROUP_NACKED);
	}
	offer(g, LIMIT_GROUP_WAITING, "one more");
	cr_expect(group_nack(g, LIMIT_GROUP_WAITING, 1000) == GROUP_TOO_MANY_WAIT);
	cr_expect(group_nack(g, 5, 1000) == GROUP_NOT_THERE);
	group_free(g);
}

/* Takes what is found of a stream that is due, at the position; NOTHING: there is none. */
#define NOTHING UINT64_MAX
static void read_on(struct group *g, const char *stream, uint64_t position)
{
	uint64_t from, below;
	cr_assert_str_eq(catch_up(g, 0, &from, &below), stream);
	group_caught(g, position != NOTHING, position);
}

static size_t unpark(struct group *g, const char *stream, bool skip)
{
	return group_unpark(g, &(struct group_choice){.stream = span_str(stream), .skip = skip});
}

Test(group, a_stream_waits_behind_a_parked_record)
{
	struct group *g = group_new(10);
	uint64_t from, below;
	struct span stream;
	group_restore(g, 0);
	cr_assert(offer(g, 0, "a") && offer(g, 1, "b") && offer(g, 2, "a"));
	cr_expect(group_park(g, SPAN("a"), 0, false) == GROUP_NACKED);
	cr_expect(!group_has(g, 0, &stream) && !group_has(g, 2, &stream), "what was sent after it is taken back");
	cr_expect(group_ack(g, 1));
	cr_expect(!offer(g, 3, "a") && offer(g, 4, "b"));
	cr_expect(group_ack(g, 4));
	cr_expect_str_eq(catch_up(g, INT64_MAX - 1, &from, &below), "", "no time ends it");
	cr_expect(group_parked_count(g) == 1 && group_below(g) == 5);
	cr_expect(unpark(g, "b", false) == 0);
	cr_expect(unpark(g, "a", false) == 1 && unpark(g, "a", false) == 0);
	read_on(g, "a", 0);
	cr_expect(group_has(g, 0, &stream) && group_ack(g, 0));
	read_on(g, "a", 2);
	cr_expect(group_ack(g, 2));
	read_on(g, "a", 3);
	cr_expect(group_ack(g, 3));
	read_on(g, "a", NOTHING);
	cr_expect(group_waiting_count(g) == 0 && offer(g, 5, "a"));
	group_free(g);
}

Test(group, a_parked_record_is_skipped)
{
	struct group *g = group_new(10);
	struct span stream;
	cr_assert(offer(g, 0, "a") && offer(g, 1, "a"));
	group_park(g, SPAN("a"), 0, false);
	cr_expect(unpark(g, "", true) == 1);
	read_on(g, "a", 0);
	cr_expect(!group_has(g, 0, &stream));
	read_on(g, "a", 1);
	cr_expect(group_has(g, 1, &stream));
	group_free(g);
}

Test(group, what_is_open_before_a_parked_record_stays_so)
{
	struct group *g = group_new(10), *next = group_new(10);
	struct group_mark mark;
	struct span stream;
	cr_assert(offer(g, 0, "a") && offer(g, 1, "a"));
	group_park(g, SPAN("a"), 1, false);
	cr_expect(group_has(g, 0, &stream));
	group_waiting(g, 0, &mark);
	cr_expect(mark.position == 0 && mark.parked && mark.parked_at == 1);
	group_restore(next, group_below(g));
	cr_assert(group_restore_waiting(next, &mark));
	cr_expect(group_below(next) == 0 && !offer(next, 0, "a") && !offer(next, 1, "a") && !offer(next, 2, "a"));
	cr_expect(unpark(next, "a", true) == 1, "and it is skipped when it is its turn");
	read_on(next, "a", 0);
	cr_expect(group_ack(next, 0));
	read_on(next, "a", 1);
	cr_expect(!group_has(next, 1, &stream));
	read_on(next, "a", 2);
	cr_expect(group_has(next, 2, &stream));
	group_free(g);
	group_free(next);
}

Test(group, a_record_parked_alone_lets_its_stream_go_on)
{
	struct group *g = group_new(10);
	struct group_mark mark;
	struct span stream;
	cr_assert(offer(g, 0, "a") && offer(g, 1, "a"));
	group_park(g, SPAN("a"), 0, true);
	cr_expect(!group_has(g, 0, &stream) && group_ack(g, 1) && offer(g, 2, "a"));
	group_waiting(g, 0, &mark);
	cr_expect(mark.alone && mark.parked && mark.position == 0);
	cr_expect(unpark(g, "", false) == 1);
	read_on(g, "a", 0);
	cr_expect(group_has(g, 0, &stream) && group_nack(g, 0, -1) == GROUP_NACKED);
	cr_expect(group_has(g, 2, &stream), "nothing was taken back with it");
	read_on(g, "a", 0);
	cr_expect(group_ack(g, 0) && group_waiting_count(g) == 0);
	group_free(g);
}

Test(group, what_was_noted_since_the_marks_were_written_is_brought_in)
{
	struct group *g = group_new(10);
	struct span stream;
	group_restore(g, 10);
	group_restore_waiting(g, &(struct group_mark){.stream = SPAN("w"), .position = 5});
	cr_expect(group_park(g, SPAN("a"), 9, false) == GROUP_NOT_THERE, "it was done");
	cr_expect(group_park(g, SPAN("w"), 4, false) == GROUP_NOT_THERE);
	cr_expect(group_park(g, SPAN("w"), 7, false) == GROUP_NACKED);
	cr_expect(group_park(g, SPAN("a"), 12, false) == GROUP_NACKED);
	cr_expect(group_park(g, SPAN("b"), 13, true) == GROUP_NACKED);
	read_on(g, "w", 6);
	cr_expect(group_ack(g, 6));
	read_on(g, "w", 7);
	cr_expect(!group_has(g, 7, &stream));
	cr_expect(!offer(g, 12, "a") && !offer(g, 13, "b") && offer(g, 14, "b"));
	cr_expect(group_parked_count(g) == 3);
	group_free(g);
}

Test(group, a_parked_record_that_is_gone_holds_nobody_up)
{
	struct group *g = group_new(10);
	struct span stream;
	group_restore(g, 10);
	group_restore_waiting(g, &(struct group_mark){.stream = SPAN("a"), .position = 3, .parked = true,
						      .parked_at = 5});
	read_on(g, "a", 8);
	cr_expect(group_has(g, 8, &stream) && group_parked_count(g) == 0);
	group_free(g);
}

/* ---- chance ---------------------------------------------------------------------------------- */

#define LOG 60
#define STREAMS 4

struct world {
	unsigned stream[LOG];
	bool acked[LOG];  /* ever, or skipped */
	bool aside[LOG];  /* was parked alone: its stream goes on without it */
	struct group *g;
	size_t offered;   /* on the main path */
	int64_t now;
	uint64_t seed;
};

static uint64_t roll(struct world *w, uint64_t below)
{
	w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
	return (w->seed >> 33) % below;
}

static const char *name_of(unsigned stream)
{
	static const char *const names[STREAMS] = {"a", "b", "c", "d"};
	return names[stream];
}

/* A delivery: nothing that comes after it in its stream is with the consumer. */
static void delivered(const struct world *w, uint64_t position)
{
	struct span stream;
	for (uint64_t p = position + 1; p < LOG; p++)
		if (w->stream[p] == w->stream[position] && !w->aside[p] && !w->aside[position])
			cr_assert(!group_has(w->g, p, &stream), "%llu comes after %llu",
				  (unsigned long long)position, (unsigned long long)p);
}

/* Whoever went on from what is written down now would be given everything that was never acknowledged. */
static void check_nothing_lost(const struct world *w)
{
	for (uint64_t p = 0; p < LOG; p++) {
		bool covered = w->acked[p] || p >= group_below(w->g), waits = false, aside = false;
		for (size_t i = 0; i < group_waiting_count(w->g); i++) {
			struct group_mark mark;
			group_waiting(w->g, i, &mark);
			if (mark.alone) {
				aside = aside || mark.position == p;
				continue;
			}
			if (!span_eq_str(mark.stream, name_of(w->stream[p])))
				continue;
			cr_assert(!waits);
			waits = true; /* then the main path passes it over */
			covered = w->acked[p] || mark.position <= p;
		}
		covered = covered || aside;
		cr_assert(covered, "position %llu would be lost", (unsigned long long)p);
	}
}

/* Another consumer goes on from what is written down. */
static void change_consumer(struct world *w)
{
	struct group *next = group_new(1 + roll(w, 8));
	group_restore(next, group_below(w->g));
	for (size_t i = 0; i < group_waiting_count(w->g); i++) {
		struct group_mark mark;
		group_waiting(w->g, i, &mark);
		cr_assert(group_restore_waiting(next, &mark));
	}
	w->offered = group_below(w->g);
	group_free(w->g);
	w->g = next;
}

static void park(struct world *w, uint64_t p)
{
	struct span stream;
	bool goes_on = roll(w, 3) == 0, is_sent = group_has(w->g, p, &stream);
	if (!is_sent && roll(w, 10) > 0)
		return; /* seldom one that is not with the consumer */
	enum group_nack result = group_park(w->g, span_str(name_of(w->stream[p])), p, goes_on);
	cr_assert(result != GROUP_TOO_MANY_WAIT);
	cr_assert(!is_sent || result == GROUP_NACKED);
	w->aside[p] = w->aside[p] || (result == GROUP_NACKED && goes_on);
	cr_assert(!group_has(w->g, p, &stream));
}

static void choose(struct world *w, bool all)
{
	struct group_choice choice = {.skip = !all && roll(w, 3) == 0};
	size_t chosen = 0;
	if (!all && roll(w, 2) == 0)
		choice.stream = span_str(name_of((unsigned)roll(w, STREAMS)));
	if (!all && roll(w, 2) == 0) {
		choice.by_position = true;
		choice.position = roll(w, LOG);
	}
	for (size_t i = 0; i < group_waiting_count(w->g); i++) {
		struct group_mark mark;
		group_waiting(w->g, i, &mark);
		if (!mark.parked || mark.skip || (choice.by_position && mark.parked_at != choice.position) ||
		    (choice.stream.n && !span_eq(choice.stream, mark.stream)))
			continue;
		chosen++;
		if (choice.skip)
			w->acked[mark.parked_at] = true;
	}
	cr_assert(group_unpark(w->g, &choice) == chosen);
}

static void read_behind(struct world *w)
{
	struct span stream;
	uint64_t from, below;
	if (!group_catch_up(w->g, w->now, &stream, &from, &below))
		return;
	bool meanwhile = roll(w, 3) == 0;
	for (uint64_t p = 0; p < LOG && meanwhile; p++)
		if (roll(w, 10) == 0)
			group_nack(w->g, p, w->now + (int64_t)roll(w, 3));
		else if (roll(w, 20) == 0)
			park(w, p);
	uint64_t p = from;
	while (p < below && !span_eq_str(stream, name_of(w->stream[p])))
		p++;
	group_caught(w->g, p < below, p);
	if (p < below && group_has(w->g, p, &stream))
		delivered(w, p);
}

static void step(struct world *w, bool calm)
{
	uint64_t p = roll(w, LOG);
	struct span stream;
	switch (roll(w, calm ? 4 : 7)) {
	case 0:
		if (w->offered < LOG && group_has_room(w->g)) {
			uint64_t at = w->offered++;
			if (offer(w->g, at, name_of(w->stream[at])))
				delivered(w, at);
		}
		break;
	case 1:
		for (uint64_t i = 0; i < LOG; i++, p = (p + 1) % LOG)
			if (group_has(w->g, p, &stream)) {
				w->acked[p] = true;
				cr_assert(group_ack(w->g, p));
				break;
			}
		break;
	case 2: read_behind(w); break;
	case 3: choose(w, calm); break;
	case 4: group_nack(w->g, p, w->now + (int64_t)roll(w, 5)); break;
	case 5:
		if (roll(w, 10) == 0)
			change_consumer(w);
		break;
	case 6: park(w, p); break;
	default: break;
	}
	w->now++;
}

static bool all_done(const struct world *w)
{
	return w->offered == LOG && group_below(w->g) == LOG && group_waiting_count(w->g) == 0;
}

Test(group, loses_nothing_and_keeps_order_by_chance)
{
	const char *given = getenv("CAIRN_SEED");
	uint64_t seed = given ? strtoull(given, NULL, 10) : random_u64();
	size_t rounds = test_scaled(2000);
	printf("# CAIRN_SEED=%llu\n", (unsigned long long)seed);
	for (size_t round = 0; round < rounds; round++) {
		struct world w = {.seed = seed + round};
		for (size_t i = 0; i < LOG; i++)
			w.stream[i] = (unsigned)roll(&w, STREAMS);
		w.g = group_new(1 + roll(&w, 8));
		for (size_t i = 0; i < 300; i++) {
			step(&w, false);
			check_nothing_lost(&w);
		}
		size_t steps = 0;
		while (!all_done(&w) && steps++ < 100000)
			step(&w, true);
		cr_assert(all_done(&w), "round %zu does not come to an end", round);
		for (size_t i = 0; i < LOG; i++)
			cr_assert(w.acked[i], "round %zu: %zu was never acknowledged", round, i);
		group_free(w.g);
	}
}
