/* decide: every rule, and the order of checks. Facts are written down, no storage is asked. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "base/must.h"
#include "journal/decide.h"

struct known_stream {
	const char *name;
	uint64_t sequence, live_records;
};
struct known_id {
	unsigned id;
	const char *stream;
	uint64_t position, sequence;
	uint32_t kind;
	bool last_of_append;
};

/* The log that the facts describe: head 10. Appends: {0}, {1 2}, {3 4s}, {5 in x, 6 in y}, ... 9. */
static const struct known_stream streams[] = {
	{"x", 5, 6},
	{"y", 1, 1},
	{"deleted", 3, 0},
};
static const struct known_id ids[] = {
	{1, "x", 0, 1, RECORD_EVENT, true},    {2, "x", 1, 2, RECORD_EVENT, false},
	{3, "x", 2, 3, RECORD_EVENT, true},    {4, "x", 3, 4, RECORD_EVENT, false},
	{5, "x", 4, 4, RECORD_SNAPSHOT, true}, {6, "x", 5, 5, RECORD_EVENT, false},
	{7, "y", 6, 1, RECORD_EVENT, true},
};
#define HEAD 10
#define NOW ((struct wall_time){5000})
#define LAST ((struct wall_time){4000})
#define COMMITTED 3000

static void facts(struct decide *d)
{
	for (size_t i = 0; i < d->stream_count; i++)
		for (size_t k = 0; k < ARRAY_LEN(streams); k++)
			if (span_eq_str(d->streams[i].name, streams[k].name)) {
				d->streams[i].exists = true;
				d->streams[i].sequence = streams[k].sequence;
				d->streams[i].live_records = streams[k].live_records;
			}
	for (size_t i = 0; i < d->id_count; i++)
		for (size_t k = 0; k < ARRAY_LEN(ids); k++) {
			uint8_t id[RECORD_ID_BYTES];
			id_of(ids[k].id, id);
			if (memcmp(id, d->ids[i].id, sizeof(id)) != 0)
				continue;
			d->ids[i].exists = true;
			d->ids[i].stream = span_str(ids[k].stream);
			d->ids[i].position = ids[k].position;
			d->ids[i].sequence = ids[k].sequence;
			d->ids[i].kind = ids[k].kind;
			d->ids[i].last_of_append = ids[k].last_of_append;
			d->ids[i].commit_time = (struct wall_time){COMMITTED};
		}
}

/* Does the record before this position end an append, in that log? */
static bool ends_before(uint64_t position)
{
	for (size_t k = 0; k < ARRAY_LEN(ids); k++)
		if (ids[k].position + 1 == position)
			return ids[k].last_of_append;
	return true;
}

static struct decide_outcome decide_all(struct append **appends, size_t count)
{
	struct decide d;
	struct decide_outcome outcome;
	decide_init(&d);
	decide_begin(&d);
	for (size_t i = 0; i < count; i++)
		decide_add(&d, appends[i]);
	facts(&d);
	for (size_t i = 0; i < count; i++) {
		uint64_t position;
		if (decide_asks_before(&d, appends[i], &position))
			appends[i]->repeats_whole = ends_before(position);
	}
	decide_run(&d, HEAD, NOW, LAST, appends, count, &outcome);
	decide_release(&d);
	return outcome;
}

/* One append alone: its answer. */
static enum err_code decide_one(struct append *a)
{
	decide_all(&a, 1);
	return a->answer.code;
}

/* Is it decided so? Frees it. */
static void expect(int line, struct append *a, enum err_code code, uint64_t sequence_found)
{
	enum err_code got = decide_one(a);
	cr_expect(got == code, "line %d: %s, expected %s", line, err_name(got), err_name(code));
	cr_expect((got == ERR_OK) == (a->answer.refusal == NULL));
	if (got == ERR_CONFLICT) {
		cr_expect(a->answer.refusal->has_sequence_found);
		cr_expect(a->answer.refusal->sequence_found == sequence_found, "line %d: found %llu", line,
			  (unsigned long long)a->answer.refusal->sequence_found);
		cr_expect(a->answer.refusal->stream.n > 0);
	}
	if (got != ERR_OK)
		cr_expect(!a->writes);
	append_unref(a);
}
#define EXPECT(code, sequence_found, ...) expect(__LINE__, APPEND(__VA_ARGS__), code, sequence_found)

/* ---- expectations and conditions -------------------------------------------------------------- */

Test(decide, any_always_holds)
{
	EXPECT(ERR_OK, 0, {.stream = "x", .ids = {50}});
	EXPECT(ERR_OK, 0, {.stream = "new", .ids = {50}});
	EXPECT(ERR_OK, 0, {.stream = "deleted", .ids = {50}});
}

Test(decide, none_holds_without_live_records)
{
	EXPECT(ERR_OK, 0, {.stream = "new", .expect = APPEND_NONE, .ids = {50}});
	EXPECT(ERR_OK, 0, {.stream = "deleted", .expect = APPEND_NONE, .ids = {50}});
	EXPECT(ERR_CONFLICT, 5, {.stream = "x", .expect = APPEND_NONE, .ids = {50}});
}

Test(decide, exists_holds_with_live_records)
{
	EXPECT(ERR_OK, 0, {.stream = "x", .expect = APPEND_EXISTS, .ids = {50}});
	EXPECT(ERR_CONFLICT, 3, {.stream = "deleted", .expect = APPEND_EXISTS, .ids = {50}});
	EXPECT(ERR_CONFLICT, 0, {.stream = "new", .expect = APPEND_EXISTS, .ids = {50}});
}

Test(decide, exactly_holds_at_the_newest_sequence)
{
	EXPECT(ERR_OK, 0, {.stream = "x", .expect = APPEND_EXACTLY, .sequence = 5, .ids = {50}});
	EXPECT(ERR_OK, 0, {.stream = "deleted", .expect = APPEND_EXACTLY, .sequence = 3, .ids = {50}});
	EXPECT(ERR_OK, 0, {.stream = "new", .expect = APPEND_EXACTLY, .sequence = 0, .ids = {50}});
	EXPECT(ERR_CONFLICT, 5, {.stream = "x", .expect = APPEND_EXACTLY, .sequence = 4, .ids = {50}});
	EXPECT(ERR_CONFLICT, 5, {.stream = "x", .expect = APPEND_EXACTLY, .sequence = 6, .ids = {50}});
	EXPECT(ERR_CONFLICT, 3, {.stream = "deleted", .expect = APPEND_EXACTLY, .sequence = 0, .ids = {50}});
	EXPECT(ERR_CONFLICT, 0, {.stream = "new", .expect = APPEND_EXACTLY, .sequence = 1, .ids = {50}});
}

Test(decide, one_failing_stream_refuses_the_whole_append)
{
	EXPECT(ERR_CONFLICT, 1, {.stream = "x", .ids = {50}},
	       {.stream = "y", .expect = APPEND_EXACTLY, .sequence = 2, .ids = {51}});
}

Test(decide, conditions_hold_or_refuse)
{
	struct append *a =
		append_of(PARTS({.stream = "new", .ids = {50}}),
			  CONDITIONS({SPAN("x"), APPEND_EXACTLY, 5}, {SPAN("y"), APPEND_EXISTS, 0}));
	cr_expect(decide_one(a) == ERR_OK);
	append_unref(a);
	a = append_of(PARTS({.stream = "new", .ids = {50}}),
		      CONDITIONS({SPAN("x"), APPEND_EXACTLY, 5}, {SPAN("y"), APPEND_NONE, 0}));
	cr_expect(decide_one(a) == ERR_CONFLICT);
	cr_expect(span_eq_str(a->answer.refusal->stream, "y"));
	cr_expect(a->answer.refusal->sequence_found == 1);
	append_unref(a);
}

Test(decide, conditions_alone_write_nothing)
{
	struct append *a = append_of(NULL, 0, CONDITIONS({SPAN("x"), APPEND_EXACTLY, 5}));
	struct decide_outcome outcome = decide_all(&a, 1);
	cr_expect(a->answer.code == ERR_OK);
	cr_expect(!a->writes);
	cr_expect(outcome.records == 0);
	cr_expect(a->answer.record_count == 0);
	cr_expect(a->answer.commit_time.us == 0);
	cr_expect(a->answer.cursor_position == HEAD);
	append_unref(a);
	a = append_of(NULL, 0, CONDITIONS({SPAN("x"), APPEND_EXACTLY, 4}));
	cr_expect(decide_one(a) == ERR_CONFLICT);
	append_unref(a);
}

/* ---- numbers ------------------------------------------------------------------------------------ */

Test(decide, events_take_the_next_sequences_in_order)
{
	struct append *a =
		APPEND({.stream = "x", .ids = {50, 51, 52}, .snapshot = 53}, {.stream = "new", .ids = {54}});
	struct decide_outcome outcome = decide_all(&a, 1);
	const uint64_t sequences[] = {6, 7, 8, 8, 1};
	cr_assert(outcome.records == 5);
	for (size_t i = 0; i < 5; i++)
		cr_expect(a->items[i].sequence == sequences[i], "record %zu: %llu", i,
			  (unsigned long long)a->items[i].sequence);
	cr_expect(a->targets[0].sequence == 8);
	cr_expect(a->targets[1].sequence == 1);
	cr_expect(a->writes);
	cr_expect(!a->answer.repeated);
	cr_expect(a->answer.first_position == HEAD);
	cr_expect(a->answer.record_count == 5);
	cr_expect(a->answer.cursor_position == HEAD + 5);
	append_unref(a);
}

Test(decide, a_snapshot_alone_names_the_newest_sequence)
{
	struct append *a = APPEND({.stream = "x", .snapshot = 50}, {.stream = "new", .snapshot = 51});
	decide_all(&a, 1);
	cr_expect(a->items[0].sequence == 5);
	cr_expect(a->items[1].sequence == 0);
	append_unref(a);
}

Test(decide, a_deleted_stream_goes_on_counting)
{
	struct append *a = APPEND({.stream = "deleted", .expect = APPEND_NONE, .ids = {50}});
	decide_all(&a, 1);
	cr_expect(a->items[0].sequence == 4);
	append_unref(a);
}

Test(decide, commit_time_is_the_clock_or_the_last)
{
	struct decide d;
	struct decide_outcome outcome;
	struct append *a = APPEND({.stream = "new", .ids = {50}});
	decide_init(&d);
	decide_begin(&d);
	decide_add(&d, a);
	decide_run(&d, HEAD, (struct wall_time){7}, (struct wall_time){5}, &a, 1, &outcome);
	cr_expect(a->answer.commit_time.us == 7);
	decide_begin(&d);
	decide_add(&d, a);
	decide_run(&d, HEAD, (struct wall_time){7}, (struct wall_time){9}, &a, 1, &outcome);
	cr_expect(a->answer.commit_time.us == 9);
	decide_release(&d);
	append_unref(a);
}

/* ---- idempotency -------------------------------------------------------------------------------- */

static void expect_repeat(int line, struct append *a, uint64_t first_position, uint64_t sequence)
{
	decide_all(&a, 1);
	cr_expect(a->answer.code == ERR_OK, "line %d", line);
	cr_expect(a->answer.repeated, "line %d", line);
	cr_expect(!a->writes, "line %d", line);
	cr_expect(a->answer.first_position == first_position, "line %d", line);
	cr_expect(a->answer.record_count == a->item_count, "line %d", line);
	cr_expect(a->answer.cursor_position == first_position + a->item_count, "line %d", line);
	cr_expect(a->answer.commit_time.us == COMMITTED, "line %d", line);
	cr_expect(a->targets[a->target_count - 1].sequence == sequence, "line %d", line);
	append_unref(a);
}
#define EXPECT_REPEAT(position, sequence, ...) \
	expect_repeat(__LINE__, APPEND(__VA_ARGS__), position, sequence)

Test(decide, a_repeat_returns_the_first_result)
{
	EXPECT_REPEAT(0, 1, {.stream = "x", .ids = {1}});
	EXPECT_REPEAT(1, 3, {.stream = "x", .ids = {2, 3}});
	EXPECT_REPEAT(3, 4, {.stream = "x", .ids = {4}, .snapshot = 5});
	EXPECT_REPEAT(5, 1, {.stream = "x", .ids = {6}}, {.stream = "y", .ids = {7}});
}

Test(decide, a_repeat_is_one_whatever_it_expects)
{
	EXPECT_REPEAT(0, 1, {.stream = "x", .expect = APPEND_NONE, .ids = {1}});
	EXPECT_REPEAT(1, 3, {.stream = "x", .expect = APPEND_EXACTLY, .sequence = 1, .ids = {2, 3}});
	struct append *a =
		append_of(PARTS({.stream = "x", .ids = {1}}), CONDITIONS({SPAN("y"), APPEND_NONE, 0}));
	expect_repeat(__LINE__, a, 0, 1);
}

Test(decide, a_repeat_in_part_is_refused)
{
	EXPECT(ERR_EXISTS, 0, {.stream = "x", .ids = {1, 50}});   /* one more */
	EXPECT(ERR_EXISTS, 0, {.stream = "x", .ids = {50, 1}});   /* one before */
	EXPECT(ERR_EXISTS, 0, {.stream = "x", .ids = {2}});       /* its first part */
	EXPECT(ERR_EXISTS, 0, {.stream = "x", .ids = {3}});       /* its last part */
	EXPECT(ERR_EXISTS, 0, {.stream = "x", .ids = {1, 2, 3}}); /* two at once */
	EXPECT(ERR_EXISTS, 0, {.stream = "x", .ids = {3, 2}});    /* another order */
	EXPECT(ERR_EXISTS, 0, {.stream = "y", .ids = {1}});       /* another stream */
	EXPECT(ERR_EXISTS, 0, {.stream = "x", .snapshot = 1});    /* another kind */
	EXPECT(ERR_EXISTS, 0, {.stream = "y", .ids = {7}}, {.stream = "x", .ids = {6}});
	EXPECT(ERR_EXISTS, 0, {.stream = "new", .ids = {50}}, {.stream = "x", .ids = {1}});
}

Test(decide, a_refused_repeat_names_the_record)
{
	struct append *a = APPEND({.stream = "new", .ids = {50}}, {.stream = "y", .ids = {3}});
	cr_assert(decide_one(a) == ERR_EXISTS);
	cr_expect(span_eq_str(a->answer.refusal->stream, "y"));
	cr_expect(strstr(a->answer.refusal->err.text, "c1000000-0000-0000-0000-000000000003"));
	cr_expect(strstr(a->answer.refusal->err.text, "position 2"));
	append_unref(a);
}

Test(decide, ids_made_by_the_server_repeat_nothing)
{
	struct test_request r;
	struct append_refusal refusal;
	struct append *a;
	static const uint64_t seed[2] = {1, 2};
	request_of(&r, PARTS({.stream = "x", .ids = {1}}), NULL, 0);
	r.records[0][0].id = (struct span){0};
	cr_assert(append_build(&r.request, seed, &clock_system, &a, &refusal) == ERR_OK);
	cr_expect(decide_one(a) == ERR_OK);
	cr_expect(!a->answer.repeated);
	append_unref(a);
	/* Beside one that exists: part of it is new. */
	request_of(&r, PARTS({.stream = "x", .ids = {2, 3}}), NULL, 0);
	r.records[0][1].id = (struct span){0};
	cr_assert(append_build(&r.request, seed, &clock_system, &a, &refusal) == ERR_OK);
	cr_expect(decide_one(a) == ERR_EXISTS);
	append_unref(a);
}

/* ---- the order of checks -------------------------------------------------------------------------- */

Test(decide, idempotency_comes_before_conditions_and_expectations)
{
	/* A repeat in part whose condition and expectation fail too: EXISTS. */
	struct append *a = append_of(PARTS({.stream = "x", .expect = APPEND_NONE, .ids = {1, 50}}),
				     CONDITIONS({SPAN("y"), APPEND_NONE, 0}));
	cr_expect(decide_one(a) == ERR_EXISTS);
	append_unref(a);
}

Test(decide, conditions_come_before_expectations_and_the_first_failure_answers)
{
	struct append *a = append_of(PARTS({.stream = "x", .expect = APPEND_NONE, .ids = {50}},
					   {.stream = "new", .expect = APPEND_EXISTS, .ids = {51}}),
				     CONDITIONS({SPAN("deleted"), APPEND_NONE, 0},
						{SPAN("y"), APPEND_NONE, 0}, {SPAN("z"), APPEND_EXISTS, 0}));
	cr_assert(decide_one(a) == ERR_CONFLICT);
	cr_expect(span_eq_str(a->answer.refusal->stream, "y"));
	append_unref(a);
	a = APPEND({.stream = "x", .expect = APPEND_NONE, .ids = {50}},
		   {.stream = "new", .expect = APPEND_EXISTS, .ids = {51}});
	cr_assert(decide_one(a) == ERR_CONFLICT);
	cr_expect(span_eq_str(a->answer.refusal->stream, "x"));
	append_unref(a);
}

/* ---- within one batch ------------------------------------------------------------------------------- */

static void release_all(struct append **appends, size_t count)
{
	for (size_t i = 0; i < count; i++)
		append_unref(appends[i]);
}

Test(decide, requests_of_one_batch_see_each_other)
{
	struct append *a[] = {
		APPEND({.stream = "new", .expect = APPEND_NONE, .ids = {50, 51}}),
		APPEND({.stream = "new", .expect = APPEND_NONE, .ids = {52}}),
		APPEND({.stream = "new", .expect = APPEND_EXACTLY, .sequence = 2, .ids = {53}}),
		APPEND({.stream = "new", .expect = APPEND_EXACTLY, .sequence = 2, .ids = {54}}),
		APPEND({.stream = "new", .expect = APPEND_EXISTS, .ids = {55}}),
		append_of(NULL, 0, CONDITIONS({SPAN("new"), APPEND_EXACTLY, 4})),
	};
	struct decide_outcome outcome = decide_all(a, ARRAY_LEN(a));
	cr_expect(outcome.records == 4);
	cr_expect(a[0]->answer.code == ERR_OK);
	cr_expect(a[1]->answer.code == ERR_CONFLICT);
	cr_expect(a[1]->answer.refusal->sequence_found == 2);
	cr_expect(a[2]->answer.code == ERR_OK);
	cr_expect(a[2]->answer.first_position == HEAD + 2);
	cr_expect(a[2]->items[0].sequence == 3);
	cr_expect(a[3]->answer.code == ERR_CONFLICT);
	cr_expect(a[3]->answer.refusal->sequence_found == 3);
	cr_expect(a[4]->answer.code == ERR_OK);
	cr_expect(a[4]->answer.first_position == HEAD + 3);
	cr_expect(a[5]->answer.code == ERR_OK);
	cr_expect(a[5]->answer.cursor_position == HEAD + 4);
	release_all(a, ARRAY_LEN(a));
}

Test(decide, a_repeat_within_the_batch_returns_the_first_result)
{
	struct append *a[] = {
		APPEND({.stream = "x",
			.expect = APPEND_EXACTLY,
			.sequence = 5,
			.ids = {50, 51},
			.snapshot = 52}),
		APPEND({.stream = "x",
			.expect = APPEND_EXACTLY,
			.sequence = 5,
			.ids = {50, 51},
			.snapshot = 52}),
		APPEND({.stream = "x", .ids = {51}}),
		APPEND({.stream = "x", .ids = {50, 51}}),
		APPEND({.stream = "x", .ids = {50, 51, 52}}),
		APPEND({.stream = "y", .ids = {50, 51}, .snapshot = 52}),
		APPEND({.stream = "x", .ids = {1, 50}}),
	};
	struct decide_outcome outcome = decide_all(a, ARRAY_LEN(a));
	cr_expect(outcome.records == 3);
	cr_expect(a[0]->writes);
	cr_expect(a[1]->answer.code == ERR_OK);
	cr_expect(a[1]->answer.repeated);
	cr_expect(!a[1]->writes);
	cr_expect(a[1]->answer.first_position == HEAD);
	cr_expect(a[1]->targets[0].sequence == 7);
	cr_expect(a[1]->answer.commit_time.us == NOW.us);
	for (size_t i = 2; i < ARRAY_LEN(a); i++)
		cr_expect(a[i]->answer.code == ERR_EXISTS, "append %zu", i);
	release_all(a, ARRAY_LEN(a));
}

Test(decide, what_was_refused_leaves_its_ids_free)
{
	struct append *a[] = {
		APPEND({.stream = "x", .expect = APPEND_NONE, .ids = {50}}),
		APPEND({.stream = "x", .ids = {50}}),
	};
	decide_all(a, ARRAY_LEN(a));
	cr_expect(a[0]->answer.code == ERR_CONFLICT);
	cr_expect(a[1]->answer.code == ERR_OK);
	cr_expect(!a[1]->answer.repeated);
	cr_expect(a[1]->writes);
	release_all(a, ARRAY_LEN(a));
}

Test(decide, deciding_again_forgets_what_was_decided)
{
	struct append *a = APPEND({.stream = "x", .expect = APPEND_EXACTLY, .sequence = 4, .ids = {50}});
	cr_expect(decide_one(a) == ERR_CONFLICT);
	a->targets[0].expect_sequence = 5;
	cr_expect(decide_one(a) == ERR_OK);
	cr_expect(a->answer.refusal == NULL);
	cr_expect(a->answer.first_position == HEAD);
	append_unref(a);
}

Test(decide, tables_grow_and_are_forgotten_between_batches)
{
	struct decide d;
	struct decide_outcome outcome;
	static struct append *a[3000];
	decide_init(&d);
	for (unsigned round = 0; round < 3; round++) {
		decide_begin(&d);
		for (unsigned i = 0; i < ARRAY_LEN(a); i++) {
			char name[32];
			snprintf(name, sizeof(name), "s%u", i % 1500);
			a[i] = APPEND({.stream = name, .ids = {100 + i}});
			decide_add(&d, a[i]);
		}
		cr_assert(d.stream_count == 1500);
		cr_assert(d.id_count == 3000);
		decide_run(&d, 0, NOW, LAST, a, ARRAY_LEN(a), &outcome);
		cr_assert(outcome.records == 3000);
		for (unsigned i = 0; i < ARRAY_LEN(a); i++)
			cr_assert(a[i]->items[0].sequence == 1 + i / 1500);
		release_all(a, ARRAY_LEN(a));
	}
	decide_release(&d);
}
