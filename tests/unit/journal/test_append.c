/* Building an append: every rule of form, each with an error that says what, where and which rule. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/mem.h"

static const uint64_t seed[2] = {3, 4};

static enum err_code build(struct test_request *r, struct append **ret, struct append_refusal *refusal)
{
	*ret = NULL;
	return append_build(&r->request, seed, &clock_system, ret, refusal);
}

static void expect_refused(int line, struct test_request *r, enum err_code code, const char *text,
			   const char *stream)
{
	struct append_refusal refusal;
	struct append *a;
	enum err_code got = build(r, &a, &refusal);
	cr_expect(got == code, "line %d: %s", line, err_name(got));
	if (got == ERR_OK) {
		append_unref(a);
		return;
	}
	cr_expect(strstr(refusal.err.text, text), "line %d: %s", line, refusal.err.text);
	cr_expect(span_eq_str(refusal.stream, stream), "line %d: stream %.*s", line,
		  SPAN_ARG(refusal.stream));
}
#define EXPECT_REFUSED(code, text, stream) expect_refused(__LINE__, &r, code, text, stream)

Test(append, encodes_its_records_side_by_side)
{
	struct append *a = APPEND({.stream = "x", .ids = {1, 2}, .snapshot = 3}, {.stream = "y", .ids = {4}});
	struct span run = buf_span(&a->bytes), entry;
	cr_assert(a->item_count == 4);
	for (size_t i = 0; i < a->item_count; i++) {
		struct record_view v;
		cr_assert(record_next(&run, &entry, NULL, NULL) == ERR_OK);
		cr_assert(span_eq(entry, append_item_entry(a, &a->items[i])));
		cr_assert(record_decode_trusted(entry, &v, NULL) == ERR_OK);
		cr_assert(v.kind == (i == 2 ? RECORD_SNAPSHOT : RECORD_EVENT));
		cr_assert(span_eq_str(v.stream, i < 3 ? "x" : "y"));
		cr_assert(v.last_of_append == (i == 3)); /* of the append, not of the stream */
		cr_assert(memcmp(v.id.p, a->items[i].id, RECORD_ID_BYTES) == 0);
	}
	cr_assert(run.n == 0);
	append_unref(a);
}

Test(append, stamps_the_actor)
{
	struct test_request r;
	struct append_refusal refusal;
	struct append *a;
	struct record_view v;
	request_of(&r, PARTS({.stream = "x", .ids = {1}}), NULL, 0);
	r.request.actor = SPAN("ip:127.0.0.1");
	cr_assert(build(&r, &a, &refusal) == ERR_OK);
	cr_assert(record_decode_trusted(append_item_entry(a, &a->items[0]), &v, NULL) == ERR_OK);
	cr_assert(span_eq_str(v.actor, "ip:127.0.0.1"));
	append_unref(a);
}

Test(append, makes_ids_that_are_missing)
{
	struct test_request r;
	struct append_refusal refusal;
	struct append *a;
	request_of(&r, PARTS({.stream = "x", .ids = {1, 2}}), NULL, 0);
	r.records[0][0].id = r.records[0][1].id = (struct span){0};
	cr_assert(build(&r, &a, &refusal) == ERR_OK);
	cr_assert(a->items[0].id_made);
	cr_assert(a->items[0].id[6] >> 4 == 7); /* UUIDv7 */
	cr_assert(memcmp(a->items[0].id, a->items[1].id, RECORD_ID_BYTES) != 0);
	append_unref(a);
}

Test(append, refuses_bad_streams)
{
	struct test_request r;
	char longest[LIMIT_STREAM_NAME_BYTES + 2];
	request_of(&r, NULL, 0, NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "append is empty", "");
	request_of(&r, PARTS({.stream = "", .ids = {1}}), NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "stream name is empty", "");
	memset(longest, 'n', sizeof(longest));
	longest[sizeof(longest) - 1] = 0;
	request_of(&r, PARTS({.stream = longest, .ids = {1}}), NULL, 0);
	EXPECT_REFUSED(ERR_LIMIT, "stream name has 501 bytes", longest);
	request_of(&r, PARTS({.stream = "a\xff", .ids = {1}}), NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "UTF-8", "a\xff");
	request_of(&r, PARTS({.stream = "$acts", .ids = {1}}), NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "begin with '$'", "$acts");
	request_of(&r, PARTS({.stream = "x"}), NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "neither events nor a snapshot", "x");
	request_of(&r, PARTS({.stream = "x", .ids = {1}}, {.stream = "x", .ids = {2}}), NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "\"x\" occurs twice", "x");
	request_of(&r, PARTS({.stream = "x", .ids = {1}}), CONDITIONS({SPAN("x"), APPEND_ANY, 0}));
	EXPECT_REFUSED(ERR_INVALID, "condition on stream \"x\", which is written", "x");
	request_of(&r, PARTS({.stream = "x", .ids = {1}}), CONDITIONS({SPAN(""), APPEND_ANY, 0}));
	EXPECT_REFUSED(ERR_INVALID, "condition on stream", "");
	request_of(&r, PARTS({.stream = "x", .expect = (enum append_expect)9, .ids = {1}}), NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "unknown expectation 9", "x");
}

Test(append, takes_the_system_streams_of_clients)
{
	append_unref(APPEND({.stream = "$schema-cart", .ids = {1}}));
	append_unref(APPEND({.stream = "$topic-t|key", .ids = {1}}));
}

Test(append, refuses_bad_records)
{
	struct test_request r;
	struct record_metadata m = {SPAN("$own"), SPAN("v")};
	request_of(&r, PARTS({.stream = "x", .ids = {1, 2}}), NULL, 0);
	r.records[0][1].type = (struct span){0};
	EXPECT_REFUSED(ERR_INVALID, "stream \"x\": event 1: type is empty", "x");
	request_of(&r, PARTS({.stream = "x", .ids = {1}, .snapshot = 2}), NULL, 0);
	r.records[0][8].id.n = 15;
	EXPECT_REFUSED(ERR_INVALID, "snapshot: id has 15 bytes", "x");
	request_of(&r, PARTS({.stream = "x", .ids = {1}}), NULL, 0);
	r.records[0][0].metadata = &m;
	r.records[0][0].metadata_count = 1;
	EXPECT_REFUSED(ERR_INVALID, "metadata key \"$own\"", "x");
	request_of(&r, PARTS({.stream = "x", .ids = {1}}), NULL, 0);
	memset(r.ids[0][0], 0, RECORD_ID_BYTES);
	EXPECT_REFUSED(ERR_INVALID, "all zeros", "x");
	request_of(&r, PARTS({.stream = "x", .ids = {1}}), NULL, 0);
	uint8_t *large = mem_xalloc(LIMIT_RECORD_BYTES + 1);
	r.records[0][0].data = span_of(large, LIMIT_RECORD_BYTES + 1);
	EXPECT_REFUSED(ERR_LIMIT, "record exceeds", "x");
	mem_free(large);
}

Test(append, refuses_an_id_that_is_used_twice)
{
	struct test_request r;
	request_of(&r, PARTS({.stream = "x", .ids = {1, 2, 1}}), NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "c1000000-0000-0000-0000-000000000001 is used twice", "x");
	request_of(&r, PARTS({.stream = "x", .ids = {1}}, {.stream = "y", .snapshot = 1}), NULL, 0);
	EXPECT_REFUSED(ERR_INVALID, "used twice", "y");
}

Test(append, refuses_more_than_its_limits)
{
	struct test_request r;
	struct append_refusal refusal;
	struct append *a;
	size_t count = LIMIT_APPEND_RECORDS + 1;
	struct append_record *records = mem_xalloc(count * sizeof(*records));
	for (size_t i = 0; i < count; i++)
		records[i].type = SPAN("t");
	request_of(&r, PARTS({.stream = "x"}), NULL, 0);
	r.streams[0].events = records;
	r.streams[0].event_count = count;
	EXPECT_REFUSED(ERR_LIMIT, "more than 10000 records", "");
	r.streams[0].event_count = count - 1;
	cr_assert(build(&r, &a, &refusal) == ERR_OK, "%s", refusal.err.text);
	cr_assert(a->item_count == LIMIT_APPEND_RECORDS);
	append_unref(a);
	/* And one more as a snapshot. */
	r.streams[0].snapshot = &records[0];
	EXPECT_REFUSED(ERR_LIMIT, "more than 10000 records", "");
	r.streams[0].snapshot = NULL;
	/* 16 MiB, by records that are each allowed. */
	uint8_t *data = mem_xalloc(2 * MIB);
	for (size_t i = 0; i < 8; i++)
		records[i].data = span_of(data, 2 * MIB);
	r.streams[0].event_count = 8;
	EXPECT_REFUSED(ERR_LIMIT, "append exceeds 16777216 bytes", "x");
	r.streams[0].event_count = 7;
	cr_assert(build(&r, &a, &refusal) == ERR_OK);
	append_unref(a);
	mem_free(data);
	mem_free(records);
}

Test(append, survives_every_failing_allocation)
{
	struct test_request r;
	struct append_refusal refusal;
	struct append *a;
	request_of(&r, PARTS({.stream = "x", .ids = {1, 2}}, {.stream = "y", .ids = {3}}), NULL, 0);
	mem_test_fail_at(0);
	cr_assert(build(&r, &a, &refusal) == ERR_OK);
	append_unref(a);
	unsigned long count = mem_test_fail_at(0);
	cr_assert(count >= 3);
	for (unsigned long i = 1; i <= count; i++) {
		mem_test_fail_at(i);
		cr_expect(build(&r, &a, &refusal) == ERR_NOMEM, "allocation %lu", i);
		cr_expect(a == NULL);
	}
	mem_test_fail_at(0);
}
