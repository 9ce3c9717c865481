/* The sequencer over a scripted storage: batches, MOVED, FULL, REFUSED, UNKNOWN, FAILED; the answers'
 * time; group commit; back-pressure. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "journal/sequencer.h"

static void submit(struct bench *b, struct append *a, struct done *d)
{
	cr_assert(journal_append(b->journal, &a, &b->mailbox, on_done, d, NULL) == ERR_OK);
}

static void release_all(struct done *d, size_t count)
{
	for (size_t i = 0; i < count; i++)
		done_release(&d[i]);
}

Test(sequencer, commits_all_that_wait_as_one_batch)
{
	struct bench b;
	struct done d[3] = {0};
	bench_open(&b);
	submit(&b, APPEND({.stream = "x", .ids = {1, 2}}), &d[0]);
	submit(&b, APPEND({.stream = "y", .expect = APPEND_EXISTS, .ids = {3}}), &d[1]);
	submit(&b, APPEND({.stream = "x", .ids = {4}}), &d[2]);
	cr_assert(journal_step(b.journal));
	cr_assert(b.fake->appends == 1);
	cr_assert(b.fake->lookups == 1);
	cr_assert(b.fake->last_count == 3);
	mailbox_drain(&b.mailbox);
	cr_assert(d[0].code == ERR_OK);
	cr_assert(d[1].code == ERR_CONFLICT);
	cr_assert(d[2].code == ERR_OK);
	cr_assert(append_answer(d[2].append)->first_position == 2);
	cr_assert(!journal_step(b.journal));
	release_all(d, 3);
	bench_close(&b);
}

/* Nothing may have been answered while its batch is being made durable. */
static void look_for_answers(struct fake *f, const struct storage_record *records, size_t count)
{
	struct bench *b = f->arg;
	(void)records;
	(void)count;
	cr_expect(mailbox_drain(&b->mailbox) == 0, "answered before it is durable");
	cr_expect(f->appends == 1 || journal_head(b->journal) == 1, "the head is ahead of what is durable");
}

Test(sequencer, no_answer_leaves_before_its_batch_is_durable)
{
	struct bench b;
	struct done d[4] = {0};
	bench_open(&b);
	b.fake->on_append = look_for_answers;
	b.fake->arg = &b;
	submit(&b, APPEND({.stream = "x", .ids = {1}}), &d[0]);
	bench_run(&b);
	/* Nor do refusals, repeats and appends that write nothing. */
	submit(&b, APPEND({.stream = "x", .expect = APPEND_NONE, .ids = {2}}), &d[1]);
	submit(&b, APPEND({.stream = "x", .ids = {1}}), &d[2]);
	submit(&b, append_of(NULL, 0, CONDITIONS({SPAN("x"), APPEND_EXISTS, 0})), &d[3]);
	bench_run(&b);
	cr_assert(b.fake->appends == 2); /* the second with nothing, to see that the facts still hold */
	cr_assert(b.fake->last_count == 0);
	cr_assert(d[1].code == ERR_CONFLICT);
	cr_assert(d[2].code == ERR_OK);
	cr_assert(append_answer(d[2].append)->repeated);
	cr_assert(d[3].code == ERR_OK);
	release_all(d, 4);
	bench_close(&b);
}

Test(sequencer, appended_events_keep_their_order)
{
	struct bench b;
	struct done d = {0};
	struct got g = {0};
	struct journal_read *read;
	struct journal_query q = {.source = STORAGE_STREAM, .name = SPAN("x")};
	bench_open(&b);
	bench_append(&b, APPEND({.stream = "x", .ids = {1, 2, 3}}), &d);
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	struct span run = buf_span(&g.page->body), entry;
	for (unsigned i = 0; i < 3; i++) {
		struct record_view v;
		char data[32];
		snprintf(data, sizeof(data), "event %u", i + 1);
		cr_assert(record_next(&run, &entry, NULL, NULL) == ERR_OK);
		cr_assert(record_decode(entry, &v, NULL) == ERR_OK);
		cr_expect(v.position == i);
		cr_expect(v.sequence == i + 1, "record %u has sequence %llu", i,
			  (unsigned long long)v.sequence);
		cr_expect(span_eq_str(v.data, data));
		cr_expect(v.last_of_append == (i == 2));
	}
	journal_read_close(read);
	got_clear(&g);
	done_release(&d);
	bench_close(&b);
}

Test(sequencer, batches_end_at_their_limits)
{
	struct bench b;
	struct done d[4] = {0};
	struct test_request r;
	struct append_refusal refusal;
	uint8_t *data = mem_xalloc(2 * MIB);
	bench_open(&b);
	for (unsigned i = 0; i < 4; i++) {
		struct append *a;
		request_of(&r, PARTS({.stream = "x", .ids = {i + 1}}), NULL, 0);
		r.records[0][0].data = span_of(data, 3 * MIB / 2);
		cr_assert(append_new(b.journal, &r.request, &a, &refusal) == ERR_OK);
		submit(&b, a, &d[i]);
	}
	journal_step(b.journal);
	cr_assert(b.fake->last_count == 2); /* a third would exceed 4 MiB */
	journal_step(b.journal);
	cr_assert(b.fake->last_count == 2);
	bench_run(&b);
	release_all(d, 4);
	mem_free(data);
	/* And 4,096 appends. */
	struct done *many = mem_xalloc(5000 * sizeof(*many));
	for (unsigned i = 0; i < 5000; i++)
		submit(&b, APPEND({.stream = "y", .ids = {100 + i}}), &many[i]);
	journal_step(b.journal);
	cr_assert(b.fake->last_count == LIMIT_BATCH_APPENDS);
	bench_run(&b);
	for (unsigned i = 0; i < 5000; i++)
		cr_assert(many[i].calls == 1);
	release_all(many, 5000);
	mem_free(many);
	bench_close(&b);
}

/* An append of conditions alone: it has no records, and is not free for all that. */
static struct append *conditions_of(struct bench *b, size_t count)
{
	struct append_condition *conditions = mem_xalloc(count * sizeof(*conditions));
	char (*names)[32] = mem_xalloc(count * sizeof(*names));
	struct append_refusal refusal;
	struct append *a = NULL;
	for (size_t i = 0; i < count; i++) {
		snprintf(names[i], sizeof(names[i]), "stream %zu", i);
		conditions[i] = (struct append_condition){.name = span_str(names[i]), .expect = APPEND_NONE};
	}
	struct append_request request = {.conditions = conditions, .condition_count = count};
	cr_assert(append_new(b->journal, &request, &a, &refusal) == ERR_OK, "%s", refusal.err.text);
	mem_free(conditions);
	mem_free(names);
	return a;
}

Test(sequencer, conditions_count_in_a_batch_and_in_the_queue)
{
	struct bench b;
	static struct done d[200];
	size_t count = 0, answered = 0;
	bench_open(&b);
	for (; journal_has_room(b.journal); count++) {
		cr_assert(count < ARRAY_LEN(d), "the queue never fills");
		submit(&b, conditions_of(&b, LIMIT_APPEND_RECORDS), &d[count]);
	}
	journal_step(b.journal);
	mailbox_drain(&b.mailbox);
	for (size_t i = 0; i < count; i++)
		answered += d[i].calls;
	cr_assert(answered == LIMIT_BATCH_KEYS / LIMIT_APPEND_RECORDS, "%zu in one batch", answered);
	bench_run(&b);
	for (size_t i = 0; i < count; i++)
		cr_assert(d[i].calls == 1 && d[i].code == ERR_OK);
	release_all(d, count);
	bench_close(&b);
}

Test(sequencer, one_append_alone_may_exceed_a_batch)
{
	struct bench b;
	struct done d = {0};
	struct test_request r;
	struct append_refusal refusal;
	struct append *a;
	uint8_t *data = mem_xalloc(2 * MIB);
	bench_open(&b);
	request_of(&r, PARTS({.stream = "x", .ids = {1, 2, 3, 4, 5, 6}}), NULL, 0);
	for (unsigned i = 0; i < 6; i++)
		r.records[0][i].data = span_of(data, 2 * MIB);
	cr_assert(append_new(b.journal, &r.request, &a, &refusal) == ERR_OK);
	bench_append(&b, a, &d);
	cr_assert(d.code == ERR_OK);
	cr_assert(b.fake->last_count == 6);
	done_release(&d);
	mem_free(data);
	bench_close(&b);
}

/* ---- what storage may answer ---------------------------------------------------------------------- */

static void write_x(struct fake *f)
{
	fake_write_behind(f, "x", 900 + (unsigned)f->appends);
}

Test(sequencer, moved_is_decided_again_on_new_facts)
{
	struct bench b;
	struct done d[3] = {0};
	bench_open(&b);
	b.fake->on_moved = write_x;
	FAKE_SCRIPT(b.fake, STORAGE_MOVED, STORAGE_MOVED);
	submit(&b, APPEND({.stream = "x", .expect = APPEND_NONE, .ids = {1}}), &d[0]);
	submit(&b, APPEND({.stream = "x", .expect = APPEND_EXACTLY, .sequence = 2, .ids = {2}}), &d[1]);
	submit(&b, APPEND({.stream = "y", .expect = APPEND_NONE, .ids = {3}}), &d[2]);
	bench_run(&b);
	cr_assert(b.fake->appends == 3);
	cr_assert(d[0].code == ERR_CONFLICT); /* it would have held at first */
	cr_assert(append_answer(d[0].append)->refusal->sequence_found == 2);
	cr_assert(d[1].code == ERR_OK);
	cr_assert(append_answer(d[1].append)->first_position == 2);
	cr_assert(d[2].code == ERR_OK);
	cr_assert(append_answer(d[2].append)->first_position == 3);
	cr_assert(journal_head(b.journal) == 4);
	release_all(d, 3);
	bench_close(&b);
}

Test(sequencer, subscribers_see_what_another_writer_appended)
{
	struct bench b;
	struct done d = {0};
	struct got g = {0};
	struct journal_read *read;
	struct journal_query q = {.source = STORAGE_STREAM, .name = SPAN("x"), .live = true};
	bench_open(&b);
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	cr_assert(g.page->caught_up);
	journal_read_next(read);
	b.fake->on_moved = write_x;
	FAKE_SCRIPT(b.fake, STORAGE_MOVED);
	bench_append(&b, APPEND({.stream = "y", .ids = {1}}), &d);
	cr_assert(g.calls == 2);
	cr_assert_str_eq(got_positions(&g), "0");
	journal_read_close(read);
	got_clear(&g);
	done_release(&d);
	bench_close(&b);
}

Test(sequencer, a_full_disk_is_known_not_written_and_appends_resume)
{
	struct bench b;
	struct done d[3] = {0};
	bench_open(&b);
	FAKE_SCRIPT(b.fake, STORAGE_FULL);
	submit(&b, APPEND({.stream = "x", .ids = {1}}), &d[0]);
	submit(&b, APPEND({.stream = "x", .expect = APPEND_EXISTS, .ids = {2}}), &d[1]);
	bench_run(&b);
	cr_assert(d[0].code == ERR_FULL);
	cr_assert(d[1].code == ERR_FULL);
	cr_assert(strstr(append_answer(d[0].append)->refusal->err.text, "nothing was written"));
	cr_assert(strstr(append_answer(d[0].append)->refusal->err.text, "fake disk is full"));
	cr_assert(journal_head(b.journal) == 0);
	bench_append(&b, APPEND({.stream = "x", .ids = {1}}), &d[2]);
	cr_assert(d[2].code == ERR_OK);
	cr_assert(!append_answer(d[2].append)->repeated);
	release_all(d, 3);
	bench_close(&b);
}

Test(sequencer, a_full_disk_does_not_make_a_repeat_unwritten)
{
	struct bench b;
	struct done d[5] = {0};
	bench_open(&b);
	bench_append(&b, APPEND({.stream = "x", .ids = {1}}), &d[0]);
	/* One whose answer was lost comes again, in a batch for which there is no room. */
	FAKE_SCRIPT(b.fake, STORAGE_FULL);
	submit(&b, APPEND({.stream = "y", .ids = {2}}), &d[1]);
	submit(&b, APPEND({.stream = "x", .expect = APPEND_NONE, .ids = {1}}), &d[2]);
	submit(&b, APPEND({.stream = "y", .ids = {2}}), &d[3]);
	bench_run(&b);
	cr_assert(d[1].code == ERR_FULL);
	cr_assert(d[2].code == ERR_OK, "%s", append_answer(d[2].append)->refusal->err.text);
	cr_assert(append_answer(d[2].append)->repeated);
	cr_assert(append_answer(d[2].append)->first_position == 0);
	cr_assert(d[3].code == ERR_FULL); /* of what the batch itself has not written */
	/* And when even that cannot be asked, it is unknown, not "nothing". */
	FAKE_SCRIPT(b.fake, STORAGE_FULL, STORAGE_UNKNOWN);
	submit(&b, APPEND({.stream = "x", .ids = {1}}), &d[4]);
	struct done other = {0};
	submit(&b, APPEND({.stream = "y", .ids = {2}}), &other);
	bench_run(&b);
	cr_assert(d[4].code == ERR_UNAVAILABLE);
	cr_assert(other.code == ERR_FULL);
	cr_assert(journal_head(b.journal) == 1);
	release_all(&other, 1);
	release_all(d, 5);
	bench_close(&b);
}

static void collect(struct span line, void *arg)
{
	cr_assert_eq(buf_append_span(arg, line), ERR_OK);
}

static size_t lines_with(struct buf *text, const char *what)
{
	size_t n = 0;
	for (const char *at = buf_cstr(text); (at = strstr(at, what)); at++)
		n++;
	return n;
}

Test(sequencer, a_full_disk_is_logged_when_it_begins_and_when_it_ends)
{
	struct bench b;
	struct buf text;
	buf_init(&text, MIB);
	bench_open(&b);
	log_setup(LOG_INFO, LOG_LOGFMT);
	log_set_sink(collect, &text);
	int64_t before = metric_get(METRIC_APPENDS_NO_ROOM);
	for (unsigned round = 0; round < 2; round++) {
		buf_clear(&text);
		for (unsigned i = 1; i <= 21; i++) {
			struct done d = {0};
			/* The last finds room; an empty one in between says nothing about it. */
			if (i == 10)
				FAKE_SCRIPT(b.fake, STORAGE_OK);
			else if (i < 21)
				FAKE_SCRIPT(b.fake, STORAGE_FULL);
			bench_append(&b,
				     i == 10 ? append_of(NULL, 0, CONDITIONS({SPAN("x"), APPEND_ANY, 0}))
					     : APPEND({.stream = "x", .ids = {100 * round + i}}),
				     &d);
			cr_assert(d.code == (i == 10 || i == 21 ? ERR_OK : ERR_FULL));
			done_release(&d);
		}
		cr_expect(lines_with(&text, "no room for appends") == 1, "%s", buf_cstr(&text));
		cr_expect(lines_with(&text, "fake disk is full") == 1);
		cr_expect(lines_with(&text, "there is room for appends again") == 1);
		cr_expect(lines_with(&text, "refused=19") == 1);
	}
	cr_expect(metric_get(METRIC_APPENDS_NO_ROOM) - before == 38);
	log_set_sink(NULL, NULL);
	log_setup(LOG_OFF, LOG_LOGFMT);
	buf_release(&text);
	bench_close(&b);
}

Test(sequencer, only_what_meets_damage_fails)
{
	struct bench b;
	struct done d[9] = {0};
	struct buf text;
	buf_init(&text, MIB);
	bench_open(&b);
	b.fake->damaged_id = 5;
	log_setup(LOG_INFO, LOG_LOGFMT);
	log_set_sink(collect, &text);
	for (unsigned i = 0; i < 7; i++)
		submit(&b, APPEND({.stream = "x", .expect = APPEND_EXACTLY, .sequence = i < 5 ? i : i - 1,
				   .ids = {i + 1}}),
		       &d[i]);
	d[4].code = ERR_OK;
	bench_run(&b);
	for (unsigned i = 0; i < 7; i++) {
		cr_expect(d[i].calls == 1);
		cr_expect(d[i].code == (i == 4 ? ERR_CORRUPT : ERR_OK), "%u", i);
	}
	cr_expect(strstr(append_answer(d[4].append)->refusal->err.text, "nothing was written"));
	cr_expect(strstr(append_answer(d[4].append)->refusal->err.text, "fake damage"));
	cr_expect(journal_head(b.journal) == 6);
	/* Two at once are one line. */
	submit(&b, APPEND({.stream = "x", .ids = {5}}), &d[7]);
	submit(&b, APPEND({.stream = "y", .ids = {5}}), &d[8]);
	bench_run(&b);
	cr_expect(d[7].code == ERR_CORRUPT);
	cr_expect(d[8].code == ERR_CORRUPT);
	cr_expect(lines_with(&text, "damaged record") == 2, "%s", buf_cstr(&text));
	log_set_sink(NULL, NULL);
	log_setup(LOG_OFF, LOG_LOGFMT);
	buf_release(&text);
	release_all(d, 9);
	bench_close(&b);
}

Test(sequencer, what_storage_refuses_fails_alone)
{
	struct bench b;
	struct done d[3] = {0};
	bench_open(&b);
	b.fake->refuse_stream = "bad";
	submit(&b, APPEND({.stream = "x", .ids = {1}}), &d[0]);
	submit(&b, APPEND({.stream = "bad", .ids = {2}}), &d[1]);
	submit(&b, APPEND({.stream = "x", .expect = APPEND_EXACTLY, .sequence = 1, .ids = {3}}), &d[2]);
	bench_run(&b);
	cr_assert(d[0].code == ERR_OK);
	cr_assert(d[1].code == ERR_INTERNAL);
	cr_assert(d[2].code == ERR_OK);
	cr_assert(append_answer(d[2].append)->first_position == 1);
	cr_assert(journal_head(b.journal) == 2);
	for (size_t i = 0; i < 3; i++)
		cr_assert(d[i].calls == 1);
	release_all(d, 3);
	bench_close(&b);
}

static void unknown_outcome(bool written)
{
	struct bench b;
	struct done d[3] = {0};
	bench_open(&b);
	b.fake->unknown_writes = written;
	FAKE_SCRIPT(b.fake, STORAGE_UNKNOWN);
	bench_append(&b, APPEND({.stream = "x", .ids = {1}}), &d[0]);
	cr_assert(d[0].code == ERR_UNAVAILABLE);
	cr_assert(strstr(append_answer(d[0].append)->refusal->err.text, "outcome is unknown"));
	/* The repetition settles it, exactly once, and the log goes on. */
	bench_append(&b, APPEND({.stream = "x", .expect = APPEND_NONE, .ids = {1}}), &d[1]);
	cr_assert(d[1].code == ERR_OK);
	cr_assert(append_answer(d[1].append)->repeated == written);
	cr_assert(append_answer(d[1].append)->first_position == 0);
	bench_append(&b, APPEND({.stream = "x", .ids = {2}}), &d[2]);
	cr_assert(append_answer(d[2].append)->first_position == 1);
	cr_assert(journal_head(b.journal) == 2);
	release_all(d, 3);
	bench_close(&b);
}

Test(sequencer, an_unknown_outcome_is_said_and_settled_by_repetition)
{
	unknown_outcome(false);
	unknown_outcome(true);
}

Test(sequencer, what_was_written_in_spite_of_an_unknown_outcome_is_seen_at_once)
{
	struct bench b;
	struct done d = {0};
	struct got g = {0};
	struct journal_read *read;
	struct journal_query q = {.source = STORAGE_STREAM, .name = SPAN("x"), .live = true};
	bench_open(&b);
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	cr_assert(g.page->caught_up);
	journal_read_next(read);
	b.fake->unknown_writes = true;
	FAKE_SCRIPT(b.fake, STORAGE_UNKNOWN);
	bench_append(&b, APPEND({.stream = "x", .ids = {1, 2}}), &d);
	cr_assert(d.code == ERR_UNAVAILABLE);
	cr_assert(journal_head(b.journal) == 2);
	cr_assert(g.calls == 2);
	cr_assert_str_eq(got_positions(&g), "0 1");
	journal_read_close(read);
	got_clear(&g);
	done_release(&d);
	bench_close(&b);
}

Test(sequencer, a_clock_far_from_the_last_record_is_counted_and_never_goes_back)
{
	struct bench b;
	struct done d[4] = {0};
	int64_t newest = 0;
	bench_open(&b);
	int64_t jumps = metric_get(METRIC_CLOCK_JUMPS), start = b.clock.wall_us;
	/* Idle is not far; a jump is, then the way back, then it has caught up. */
	static const struct {
		int64_t wall_s, mono_s, behind_s, jumps;
	} steps[] = {{86400, 86400, 0, 0}, {86400 + 3600, 86400, 0, 1}, {86400 + 60, 86460, 3540, 1},
		     {86400 + 3700, 86400 + 3700, 0, 1}};
	int64_t mono = b.clock.mono_us;
	for (unsigned i = 0; i < ARRAY_LEN(steps); i++) {
		b.clock.wall_us = start + steps[i].wall_s * 1000000;
		b.clock.mono_us = mono + steps[i].mono_s * 1000000;
		bench_append(&b, APPEND({.stream = "x", .ids = {i + 1}}), &d[i]);
		cr_assert(d[i].code == ERR_OK);
		cr_expect(metric_get(METRIC_CLOCK_BEHIND_SECONDS) == steps[i].behind_s, "step %u", i);
		cr_expect(append_answer(d[i].append)->commit_time.us >= newest);
		newest = append_answer(d[i].append)->commit_time.us;
		cr_expect(metric_get(METRIC_CLOCK_JUMPS) - jumps == steps[i].jumps, "step %u", i);
	}
	release_all(d, 4);
	bench_close(&b);
}

Test(sequencer, a_failed_store_takes_no_more_appends)
{
	struct bench b;
	struct done d[2] = {0};
	struct err err = {0};
	bench_open(&b);
	FAKE_SCRIPT(b.fake, STORAGE_FAILED);
	submit(&b, APPEND({.stream = "x", .ids = {1}}), &d[0]);
	journal_step(b.journal);
	struct append *a = APPEND({.stream = "x", .ids = {2}});
	cr_assert(journal_append(b.journal, &a, &b.mailbox, on_done, &d[1], &err) == ERR_UNAVAILABLE);
	cr_assert(strstr(err.text, "restart"));
	append_unref(a);
	bench_run(&b);
	cr_assert(d[0].code == ERR_UNAVAILABLE);
	cr_assert(d[1].calls == 0);
	release_all(d, 1);
	bench_close(&b);
}

Test(sequencer, a_failed_look_up_writes_nothing)
{
	struct bench b;
	struct done d[2] = {0};
	bench_open(&b);
	b.fake->lookup_fails = true;
	bench_append(&b, APPEND({.stream = "x", .ids = {1}}), &d[0]);
	cr_assert(d[0].code == ERR_UNAVAILABLE);
	cr_assert(strstr(append_answer(d[0].append)->refusal->err.text, "nothing was written"));
	cr_assert(b.fake->appends == 0);
	bench_append(&b, APPEND({.stream = "x", .ids = {1}}), &d[1]);
	cr_assert(d[1].code == ERR_OK);
	release_all(d, 2);
	bench_close(&b);
}

Test(sequencer, a_repeat_is_found_in_the_log)
{
	struct bench b;
	struct done d[5] = {0};
	bench_open(&b);
	bench_append(&b, APPEND({.stream = "x", .ids = {1, 2}}), &d[0]);
	bench_append(&b, APPEND({.stream = "x", .ids = {3}}, {.stream = "y", .ids = {4}}), &d[1]);
	bench_append(&b, APPEND({.stream = "x", .ids = {3}}, {.stream = "y", .ids = {4}}), &d[2]);
	cr_assert(d[2].code == ERR_OK);
	cr_assert(append_answer(d[2].append)->repeated);
	cr_assert(append_answer(d[2].append)->first_position == 2);
	/* The end of an append is not that append: what is before it tells. */
	bench_append(&b, APPEND({.stream = "y", .ids = {4}}), &d[3]);
	cr_assert(d[3].code == ERR_EXISTS);
	bench_append(&b, APPEND({.stream = "x", .ids = {2}}), &d[4]);
	cr_assert(d[4].code == ERR_EXISTS);
	cr_assert(journal_head(b.journal) == 4);
	release_all(d, 5);
	bench_close(&b);
}

/* ---- back-pressure -------------------------------------------------------------------------------- */

struct room_told {
	unsigned calls;
};

static void on_room(void *arg)
{
	((struct room_told *)arg)->calls++;
}

Test(sequencer, says_when_it_is_full_and_when_there_is_room_again)
{
	struct bench b;
	struct done d[40] = {0};
	struct room_told told = {0}, at_once = {0};
	struct test_request r;
	struct append_refusal refusal;
	uint8_t *data = mem_xalloc(3 * MIB);
	size_t count = 0;
	bench_open(&b);
	struct journal_room now = {.mailbox = &b.mailbox, .fn = on_room, .arg = &at_once};
	journal_when_room(b.journal, &now);
	cr_assert(at_once.calls == 0);
	mailbox_drain(&b.mailbox);
	cr_assert(at_once.calls == 1);
	for (; journal_has_room(b.journal); count++) {
		struct append *a;
		cr_assert(count < ARRAY_LEN(d));
		request_of(&r, PARTS({.stream = "x", .ids = {(unsigned)count + 1}}), NULL, 0);
		r.records[0][0].data = span_of(data, 5 * MIB / 2);
		cr_assert(append_new(b.journal, &r.request, &a, &refusal) == ERR_OK);
		submit(&b, a, &d[count]);
	}
	cr_assert(count == 26); /* 64 MiB */
	struct journal_room room = {.mailbox = &b.mailbox, .fn = on_room, .arg = &told};
	journal_when_room(b.journal, &room);
	size_t steps = 0;
	for (; !told.calls; steps++) {
		cr_assert(journal_step(b.journal));
		mailbox_drain(&b.mailbox);
	}
	cr_assert(steps == 14); /* one large append a batch, until half is gone */
	bench_run(&b);
	cr_assert(told.calls == 1);
	release_all(d, count);
	mem_free(data);
	bench_close(&b);
}

/* ---- group commit --------------------------------------------------------------------------------- */

Test(sequencer, waits_for_k_at_most_a_tenth_of_the_sync_time)
{
	cr_expect(sequencer_gather_us(0, 10000) == 0);
	cr_expect(sequencer_gather_us(1, 10000) == 0); /* never with one client */
	cr_expect(sequencer_gather_us(2, 10000) == 1000);
	cr_expect(sequencer_gather_us(64, 500) == 50);
}

/* A journal with threads, and clients that append again when they are answered. */
struct clients {
	struct bench b;
	atomic_uint open;    /* clients that are not through */
	atomic_uint waiting; /* of those, who has asked and is not answered */
};
struct client {
	struct clients *all;
	unsigned left, id;
};

static void client_next(struct client *c);

static void client_done(struct append *a, void *arg)
{
	struct client *c = arg;
	cr_assert(append_answer(a)->code == ERR_OK);
	append_unref(a);
	atomic_fetch_sub(&c->all->waiting, 1);
	if (--c->left)
		client_next(c);
	else
		atomic_fetch_sub(&c->all->open, 1);
}

static void client_next(struct client *c)
{
	char stream[32];
	snprintf(stream, sizeof(stream), "client-%u", c->id);
	struct append *a = APPEND({.stream = stream, .ids = {c->id * 1000 + c->left}});
	cr_assert(journal_append(c->all->b.journal, &a, &c->all->b.mailbox, client_done, c, NULL) == ERR_OK);
	atomic_fetch_add(&c->all->waiting, 1);
}

/* On the sequencer's thread: a batch is on its way until every client has asked for something. */
static void until_all_wait(struct fake *f, const struct storage_record *records, size_t count)
{
	struct clients *all = f->arg;
	(void)records;
	(void)count;
	while (atomic_load(&all->waiting) != atomic_load(&all->open))
		sched_yield();
}

/* Returns how many batches it took. */
static size_t run_clients(unsigned count, unsigned each)
{
	struct clients all = {0};
	struct bench *b = &all.b;
	struct client clients[64];
	atomic_store(&all.open, count);
	b->fake = fake_new();
	b->fake->on_append = until_all_wait;
	b->fake->arg = &all;
	mailbox_init(&b->mailbox, NULL, NULL);
	struct journal_config config = {.storage = &b->fake->base, .threads = true};
	cr_assert(journal_open(&config, &b->journal, NULL) == ERR_OK);
	for (unsigned i = 0; i < count; i++) {
		clients[i] = (struct client){&all, each, i + 1};
		client_next(&clients[i]);
	}
	while (atomic_load(&all.open) > 0)
		if (!mailbox_drain(&b->mailbox))
			sched_yield();
	journal_stop(b->journal);
	mailbox_drain(&b->mailbox);
	size_t batches = b->fake->appends;
	cr_assert(journal_head(b->journal) == (uint64_t)count * each);
	journal_close(b->journal);
	mailbox_release(&b->mailbox);
	return batches;
}

Test(sequencer, groups_what_arrives_while_a_batch_is_on_its_way)
{
	/* What is asked for while one batch is on its way is the next: at most two batches for each round. */
	size_t batches = run_clients(16, 10);
	cr_expect(batches <= 21, "%zu batches for 160 appends of 16 clients", batches);
	cr_assert(run_clients(1, 20) == 20);
}
