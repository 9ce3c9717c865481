/* What storage.h promises, asked of every backend. */
#include <config.h>

#include <stdio.h>

#include "fixture.h"

CONTRACT(empty, has_an_identity_and_nothing_in_it)
{
	static const uint8_t none[16];
	struct storage_head head;
	struct storage_query q = EVERYTHING;
	struct storage_stream_info info[4];
	size_t n = 9;
	storage_head(f->s, &head);
	cr_assert_eq(head.head, 0u);
	cr_assert_eq(head.last_commit.us, 0);
	cr_assert(memcmp(head.journal_id, none, 16) != 0);
	check_read(f, &q);
	q.backward = true;
	q.from = UINT64_MAX;
	check_read(f, &q);
	q.source = STORAGE_STREAM;
	q.name = SPAN("a");
	check_read(f, &q);
	check_facts(f, SPAN("a"));
	check_snapshot(f, SPAN("a"), UINT64_MAX, UINT64_MAX);
	cr_assert_eq(storage_list(f->r, SPAN(""), SPAN(""), 4, &f->arena, info, &n, &f->err), ERR_OK);
	cr_assert_eq(n, 0u);
	cr_assert_eq(batch_try(f, 0, &f->err), STORAGE_OK); /* nothing, at the head */
}

CONTRACT(append, is_seen_at_once)
{
	struct storage_head head;
	struct storage_query q = EVERYTHING;
	for (int i = 0; i < 5; i++) {
		append_one(f, "cart|a", RECORD_EVENT);
		check_read(f, &q);
		check_facts(f, SPAN("cart|a"));
		storage_head(f->s, &head);
		cr_assert_eq(head.last_commit.us, f->records[f->n - 1].time_us);
	}
}

CONTRACT(append, elsewhere_than_at_the_head_has_moved)
{
	struct storage_query q = EVERYTHING;
	append_one(f, "a", RECORD_EVENT);
	cr_assert_eq(batch_try(f, 0, &f->err), STORAGE_MOVED);
	cr_assert_eq(batch_try(f, 2, &f->err), STORAGE_MOVED);
	cr_assert_eq(batch_try(f, 1, &f->err), STORAGE_OK);
	batch_add(f, "a", RECORD_EVENT, 1, 0);
	cr_assert_eq(batch_try(f, 7, &f->err), STORAGE_MOVED);
	cr_assert_eq(f->err.code, ERR_OK);
	check_read(f, &q);
	append_one(f, "a", RECORD_EVENT);
	check_read(f, &q);
}

/* ---- sessions' rows ---------------------------------------------------------------------------- */

/* Its count, or -1 if it has no row. */
static int64_t beats_of(struct fixture *f, enum storage_beat beat, uint8_t session)
{
	struct storage_session row = {.id = {session}, .ttl_ms = 1000};
	cr_assert_eq(storage_session_beat(f->s, beat, &row, 1, &f->err), ERR_OK, "%s", f->err.text);
	return row.exists ? (int64_t)row.beats : -1;
}

static void begin_session(struct fixture *f, uint8_t session)
{
	batch_add(f, "$sessions", RECORD_SESSION_BEGUN, 20, 0);
	batch_session(f, &(struct storage_session_change){.id = {session}, .ttl_ms = 1000});
	batch_append(f);
}

static enum storage_outcome end_session(struct fixture *f, uint8_t session, uint64_t beats)
{
	batch_add(f, "$sessions", RECORD_SESSION_ENDED, 20, 0);
	batch_session(f, &(struct storage_session_change){.id = {session}, .ends = true, .beats = beats});
	return batch_try(f, f->batch_at, &f->err);
}

CONTRACT(sessions, rows_begin_and_end_with_their_records)
{
	struct storage_query q = EVERYTHING;
	q.include_system = true;
	cr_assert_eq(beats_of(f, STORAGE_BEAT, 1), -1);
	begin_session(f, 1);
	begin_session(f, 2);
	cr_assert_eq(beats_of(f, STORAGE_BEAT_READ, 1), 0);
	cr_assert_eq(beats_of(f, STORAGE_BEAT, 1), 1);
	cr_assert_eq(beats_of(f, STORAGE_BEAT, 1), 2);
	cr_assert_eq(beats_of(f, STORAGE_BEAT_READ, 1), 2);
	cr_assert_eq(beats_of(f, STORAGE_BEAT_READ, 2), 0);
	cr_assert_eq(end_session(f, 1, 2), STORAGE_OK);
	cr_assert_eq(beats_of(f, STORAGE_BEAT, 1), -1);
	cr_assert_eq(beats_of(f, STORAGE_BEAT_READ, 1), -1);
	cr_assert_eq(beats_of(f, STORAGE_BEAT, 2), 1);
	check_read(f, &q);
}

CONTRACT(sessions, an_end_whose_count_has_changed_has_moved)
{
	struct storage_query q = EVERYTHING;
	q.include_system = true;
	begin_session(f, 1);
	cr_assert_eq(beats_of(f, STORAGE_BEAT, 1), 1);
	cr_assert_eq(end_session(f, 1, 0), STORAGE_MOVED);
	cr_assert_eq(f->err.code, ERR_OK);
	check_read(f, &q);
	cr_assert_eq(beats_of(f, STORAGE_BEAT_READ, 1), 1);
	/* The whole batch: nothing of it is there. */
	batch_add(f, "a", RECORD_EVENT, 10, 0);
	cr_assert_eq(end_session(f, 1, 2), STORAGE_MOVED);
	check_read(f, &q);
	cr_assert_eq(end_session(f, 1, 1), STORAGE_OK);
	check_read(f, &q);
}

CONTRACT_DURABLE(sessions, rows_are_there_again_when_they_are_made)
{
	begin_session(f, 1);
	fixture_reopen(f);
	cr_assert(beats_of(f, STORAGE_BEAT_MAKE, 1) >= -1);
	int64_t before = beats_of(f, STORAGE_BEAT_READ, 1);
	cr_assert(before >= 0);
	cr_assert_eq(beats_of(f, STORAGE_BEAT, 1), before + 1);
	cr_assert_eq(end_session(f, 1, (uint64_t)before + 1), STORAGE_OK);
	cr_assert_eq(beats_of(f, STORAGE_BEAT, 1), -1);
}

CONTRACT(append, several_streams_in_one_batch)
{
	struct storage_query q = EVERYTHING;
	for (int i = 0; i < 100; i++) {
		char name[32];
		snprintf(name, sizeof(name), "cart|%d", i % 13);
		batch_add(f, name, RECORD_EVENT, 30, 0);
	}
	batch_append(f);
	check_read(f, &q);
	for (int i = 0; i < 14; i++) {
		char name[32];
		snprintf(name, sizeof(name), "cart|%d", i);
		check_facts(f, span_str(name));
	}
}

CONTRACT(append, the_largest_batches)
{
	struct storage_query q = EVERYTHING;
	append_one(f, "small", RECORD_EVENT);
	for (int i = 0; i < 5; i++)
		batch_add(f, "large", RECORD_EVENT, 3 * MIB - 300, 0);
	batch_append(f);
	for (size_t i = 0; i < LIMIT_APPEND_RECORDS; i++)
		batch_add(f, i % 3 ? "many" : "few", RECORD_EVENT, 0, 0);
	batch_append(f);
	append_one(f, "small", RECORD_EVENT);
	check_read(f, &q);
	q.backward = true;
	q.from = UINT64_MAX;
	check_read(f, &q);
	q.source = STORAGE_STREAM;
	q.name = SPAN("many");
	check_read(f, &q);
	check_facts(f, SPAN("few"));
	check_facts(f, SPAN("large"));
}

CONTRACT(ids, are_found_with_all_that_is_known_of_them)
{
	for (int i = 0; i < 300; i++) {
		batch_add(f, i % 2 ? "x|1" : "$topic-t|k", i % 5 ? RECORD_EVENT : RECORD_SNAPSHOT, 10, 0);
		if (i % 7 == 0)
			batch_append(f);
	}
	batch_append(f);
	struct storage_id_fact facts[31];
	uint64_t head;
	for (size_t from = 0; from + 30 <= f->n; from += 30) {
		memset(facts, 0, sizeof(facts));
		for (size_t i = 0; i < 30; i++)
			memcpy(facts[i].id, f->records[from + i].id, RECORD_ID_BYTES);
		memset(facts[30].id, 0xee, RECORD_ID_BYTES);
		cr_assert_eq(storage_lookup(f->s, NULL, 0, facts, 31, &f->arena, &head, &f->err), ERR_OK);
		cr_assert_eq(head, f->n);
		cr_assert(!facts[30].exists);
		for (size_t i = 0; i < 30; i++) {
			const struct model_record *m = &f->records[from + i];
			cr_assert(facts[i].exists, "%s: id of %zu", f->row->name, from + i);
			cr_assert_eq(facts[i].position, from + i);
			cr_assert_eq(facts[i].sequence, m->sequence);
			cr_assert_eq(facts[i].commit_time.us, m->time_us);
			cr_assert_eq(facts[i].kind, m->kind);
			cr_assert_eq(facts[i].last_of_append, m->last_of_append);
			cr_assert(span_eq(facts[i].stream, m->stream));
		}
	}
}

CONTRACT(snapshots, stand_at_the_sequence_they_name)
{
	append_one(f, "s", RECORD_EVENT);
	append_one(f, "s", RECORD_SNAPSHOT);
	append_one(f, "s", RECORD_EVENT);
	append_one(f, "s", RECORD_EVENT);
	append_one(f, "s", RECORD_SNAPSHOT);
	append_one(f, "s", RECORD_SNAPSHOT);
	append_one(f, "other", RECORD_SNAPSHOT);
	check_facts(f, SPAN("s"));
	for (uint64_t at = 0; at < 5; at++)
		for (uint64_t below = 0; below <= f->n; below++) {
			check_snapshot(f, SPAN("s"), at, below);
			check_snapshot(f, SPAN("other"), at, below);
			check_snapshot(f, SPAN("none"), at, below);
		}
	check_snapshot(f, SPAN("s"), UINT64_MAX, UINT64_MAX);
	struct storage_query q = EVERYTHING;
	q.source = STORAGE_STREAM;
	q.name = SPAN("s");
	q.by_sequence = true;
	for (q.from = 0; q.from < 6; q.from++)
		for (int backward = 0; backward < 2; backward++) {
			q.backward = backward;
			check_read(f, &q);
		}
}

CONTRACT(read, categories_are_names_not_prefixes)
{
	static const char *const names[] = {"cart|1",  "cart|2", "cart",  "cart2|1",   "car|1",
					    "$cart|1", "cart||", "|none", "\xc3\xa4|1"};
	static const char *const categories[] = {"cart", "car", "cart2", "$cart", "\xc3\xa4", "c", "nothing"};
	for (int round = 0; round < 30; round++)
		for (size_t i = 0; i < ARRAY_LEN(names); i++)
			batch_add(f, names[i], RECORD_EVENT, 3, 0);
	batch_append(f);
	struct storage_query q = EVERYTHING;
	q.source = STORAGE_CATEGORY;
	for (size_t i = 0; i < ARRAY_LEN(categories); i++) {
		q.name = span_str(categories[i]);
		q.backward = false;
		q.from = 0;
		check_read(f, &q);
		q.backward = true;
		q.from = UINT64_MAX;
		check_read(f, &q);
	}
}

CONTRACT(read, names_may_have_all_their_bytes)
{
	char a[LIMIT_STREAM_NAME_BYTES + 1], b[LIMIT_STREAM_NAME_BYTES + 1];
	memset(a, 'a', LIMIT_STREAM_NAME_BYTES);
	a[LIMIT_STREAM_NAME_BYTES] = '\0';
	memcpy(b, a, sizeof(a));
	b[LIMIT_STREAM_NAME_BYTES - 1] = 'b';
	append_one(f, a, RECORD_EVENT);
	append_one(f, b, RECORD_EVENT);
	append_one(f, "|", RECORD_EVENT);
	check_facts(f, span_str(a));
	check_facts(f, span_str(b));
	check_facts(f, SPAN("|"));
	struct storage_query q = EVERYTHING;
	q.source = STORAGE_STREAM;
	q.name = span_str(b);
	check_read(f, &q);
	q.source = STORAGE_CATEGORY;
	check_read(f, &q);
}

CONTRACT(read, a_page_has_at_least_one_record_and_stops_in_time)
{
	for (int i = 0; i < 20; i++)
		batch_add(f, "a", RECORD_EVENT, (size_t)i * 100, 0);
	batch_append(f);
	struct storage_query q = EVERYTHING;
	struct storage_page page;
	struct buf out;
	q.max_bytes = 1;
	buf_init(&out, MIB);
	cr_assert_eq(storage_read(f->r, &q, &out, &page, &f->err), ERR_OK);
	cr_assert_eq(page.records, 1u);
	cr_assert_eq(page.next, 1u);
	cr_assert(!page.end);
	buf_clear(&out);
	q.max_bytes = f->records[0].bytes.n + f->records[1].bytes.n;
	cr_assert_eq(storage_read(f->r, &q, &out, &page, &f->err), ERR_OK);
	cr_assert_eq(page.records, 2u);
	buf_clear(&out);
	q.max_bytes--;
	cr_assert_eq(storage_read(f->r, &q, &out, &page, &f->err), ERR_OK);
	cr_assert_eq(page.records, 1u);
	/* What is in the buffer stays there and does not count. */
	q.max_bytes++;
	cr_assert_eq(storage_read(f->r, &q, &out, &page, &f->err), ERR_OK);
	cr_assert_eq(page.records, 2u);
	cr_assert_eq(out.n, 2 * f->records[0].bytes.n + f->records[1].bytes.n);
	buf_release(&out);
	for (q.max_bytes = 1; q.max_bytes < 5000; q.max_bytes += 371)
		check_read(f, &q);
}

/* Two records that are wanted, and many between and around them that are not. */
CONTRACT(read, looks_through_no_more_than_it_may)
{
	for (size_t i = 0; i < 2000; i++) {
		batch_add(f, i % 2 ? "c|a" : "c|b", i == 700 || i == 1300 ? RECORD_SNAPSHOT : RECORD_EVENT, 100,
			  0);
		batch_add(f, "$s", RECORD_EVENT, 100, 0);
		if (i % 100 == 99)
			batch_append(f);
	}
	struct storage_page page;
	struct buf out;
	buf_init(&out, 8 * MIB);
	for (unsigned i = 0; i < 6; i++) {
		struct storage_query q = EVERYTHING;
		size_t pages = 0, records = 0;
		q.source = (enum storage_source)(i / 2);
		q.name = q.source == STORAGE_ALL ? SPAN("") : q.source == STORAGE_STREAM ? SPAN("c|b") : SPAN("c");
		q.backward = i % 2;
		q.from = q.backward ? UINT64_MAX : 0;
		q.kinds = 1u << RECORD_SNAPSHOT;
		q.max_scan_bytes = q.source == STORAGE_ALL ? 50 * KIB : 100 * STORAGE_ENTRY_BYTES;
		check_read(f, &q);
		do {
			buf_clear(&out);
			cr_assert_eq(storage_read(f->r, &q, &out, &page, &f->err), ERR_OK, "%s", f->err.text);
			records += page.records;
			pages++;
			q.from = page.next;
		} while (!page.end);
		cr_assert_eq(records, 2u, "%s", f->row->name);
		cr_assert_geq(pages, 8u, "%s: %zu pages", f->row->name, pages);
	}
	/* Without kinds, system streams alone are passed over. */
	struct storage_query q = EVERYTHING;
	q.from = f->n;
	for (size_t i = 0; i < 300; i++)
		batch_add(f, "$s", RECORD_EVENT, 100, 0);
	batch_append(f);
	q.max_scan_bytes = 10 * KIB;
	buf_clear(&out);
	cr_assert_eq(storage_read(f->r, &q, &out, &page, &f->err), ERR_OK);
	cr_assert_eq(page.records, 0u);
	cr_assert(!page.end);
	cr_assert_lt(page.next, f->n);
	check_read(f, &q);
	buf_release(&out);
}

CONTRACT(read, records_of_all_sizes_beside_one_another)
{
	static const size_t sizes[] = {3,	   300 * KIB, 0,	 20, 20, 256 * KIB, 255 * KIB, 4, 4000, 3000,
				       3 * MIB - 400, 1,	      257 * KIB, 9000, 2 * MIB,   30,	  2 * MIB};
	static const char *const names[] = {"big|1", "$big", "big|2"};
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		batch_add(f, names[i % 3], i % 4 == 1 ? RECORD_SNAPSHOT : RECORD_EVENT, sizes[i], 0);
		if (i % 2)
			batch_append(f);
	}
	batch_append(f);
	struct storage_query q = EVERYTHING;
	for (unsigned i = 0; i < 48; i++) {
		q.source = i & 1 ? STORAGE_ALL : i & 2 ? STORAGE_STREAM : STORAGE_CATEGORY;
		q.name = i & 1 ? SPAN("") : i & 2 ? SPAN("big|1") : SPAN("big");
		q.include_system = i & 2;
		q.backward = i & 4;
		q.from = q.backward ? UINT64_MAX : 0;
		q.kinds = i & 8 ? 1u << RECORD_SNAPSHOT : 0;
		q.max_bytes = i < 16 ? 1 : i < 32 ? MIB : 8 * MIB;
		check_read(f, &q);
	}
	q = EVERYTHING;
	for (q.from = 0; q.from < f->n; q.from++)
		check_read(f, &q);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		check_snapshot(f, span_str(names[i]), UINT64_MAX, UINT64_MAX);
}

static const char *const random_names[] = {"cart|1", "cart|2",   "cart|3", "order|1", "order|2",
					   "$acts",  "$group-g", "x",      "cart",    "unused"};

static void random_act(struct fixture *f, const char *stream)
{
	uint64_t newest = model_sequence(f, span_str(stream), f->n), from = 1 + fixture_random(f, newest + 1);
	switch (fixture_random(f, 8)) {
	case 0: batch_add_act(f, stream, RECORD_DELETE, 0, 0, false); break;
	case 1: batch_add_act(f, stream, RECORD_ERASE, 0, 0, fixture_random(f, 2)); break;
	case 2:
	case 3:
		batch_add_act(f, stream, RECORD_TRUNCATE, fixture_random(f, f->n + 1), 0, false);
		break;
	default:
		batch_add_act(f, stream, RECORD_ERASE, from, from + fixture_random(f, 4),
			      fixture_random(f, 2));
	}
}

static void random_batches(struct fixture *f, size_t records, bool acts)
{
	while (f->n < records) {
		size_t count = 1 + fixture_random(f, fixture_random(f, 10) == 0 ? 60 : 4);
		for (size_t i = 0; i < count; i++) {
			uint32_t kind = fixture_random(f, 8) == 0 ? RECORD_SNAPSHOT : RECORD_EVENT;
			/* One stream much longer than the others. */
			uint64_t which =
				fixture_random(f, 3) ? 0 : fixture_random(f, ARRAY_LEN(random_names) - 1);
			size_t bytes = fixture_random(f, 50) ? fixture_random(f, 200) : 9000;
			if (fixture_random(f, 40) == 0)
				kind = 40;
			if (acts && fixture_random(f, 15) == 0)
				random_act(f, random_names[which]);
			batch_add(f, random_names[which], kind, bytes, 0);
		}
		batch_append(f);
	}
}

static void random_queries(struct fixture *f, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct storage_query q = {0};
		q.source = (enum storage_source)fixture_random(f, 3);
		struct span stream = span_str(random_names[fixture_random(f, ARRAY_LEN(random_names))]);
		if (q.source != STORAGE_ALL)
			q.name = q.source == STORAGE_STREAM ? stream : record_category(stream);
		q.include_system = fixture_random(f, 2);
		q.backward = fixture_random(f, 2);
		q.by_sequence = q.source == STORAGE_STREAM && fixture_random(f, 2);
		q.kinds = fixture_random(f, 2) ? 0 : 1u << (1 + fixture_random(f, 2));
		q.from = fixture_random(f, 20) ? fixture_random(f, f->n + 3) : UINT64_MAX;
		q.below_position = fixture_random(f, 3) ? UINT64_MAX : fixture_random(f, f->n + 3);
		q.max_bytes = fixture_random(f, 2) ? MIB : 1 + fixture_random(f, 3000);
		q.max_records = fixture_random(f, 3) ? 0 : 1 + fixture_random(f, 50);
		q.max_scan_bytes = fixture_random(f, 3) ? 0 : 1 + fixture_random(f, 5000);
		check_read(f, &q);
		if (i % 4 == 0)
			check_snapshot(f, stream, fixture_random(f, f->n), fixture_random(f, f->n + 3));
	}
}

CONTRACT(read, agrees_with_a_model_over_random_logs_and_questions)
{
	for (size_t n = 50; n <= 1600; n *= 2) {
		random_batches(f, n, false);
		random_queries(f, 150);
		for (size_t i = 0; i < ARRAY_LEN(random_names); i++)
			check_facts(f, span_str(random_names[i]));
	}
}

/* --- acts ----------------------------------------------------------------------------------------------- */

CONTRACT(acts, a_deleted_stream_is_empty_and_goes_on_counting)
{
	struct storage_query q = EVERYTHING;
	for (int i = 0; i < 3; i++)
		append_one(f, "s|1", RECORD_EVENT);
	append_one(f, "s|1", RECORD_SNAPSHOT);
	append_one(f, "s|2", RECORD_EVENT);
	batch_add_act(f, "s|1", RECORD_DELETE, 0, 0, false);
	batch_append(f);
	struct storage_stream_fact fact = {.name = SPAN("s|1")};
	uint64_t head;
	cr_assert_eq(storage_lookup(f->s, &fact, 1, NULL, 0, &f->arena, &head, &f->err), ERR_OK);
	cr_assert(fact.exists);
	cr_assert_eq(fact.live_records, 0u);
	cr_assert_eq(fact.sequence, 4u);
	check_facts(f, SPAN("s|1"));
	check_snapshot(f, SPAN("s|1"), UINT64_MAX, UINT64_MAX);
	for (int source = 0; source < 3; source++) {
		q.source = (enum storage_source)source;
		q.name = source == STORAGE_ALL ? SPAN("") : source == STORAGE_STREAM ? SPAN("s|1") : SPAN("s");
		for (int backward = 0; backward < 2; backward++) {
			q.backward = backward;
			q.from = backward ? UINT64_MAX : 0;
			check_read(f, &q);
		}
	}
	append_one(f, "s|1", RECORD_EVENT);
	check_facts(f, SPAN("s|1"));
	cr_assert_eq(f->records[f->n - 1].sequence, 5u);
	check_read(f, &q);
}

CONTRACT(acts, an_erased_body_is_withheld_at_once)
{
	struct storage_query q = EVERYTHING;
	for (int i = 0; i < 4; i++) {
		append_one(f, "s|1", RECORD_EVENT);
		append_one(f, "s|1", RECORD_SNAPSHOT);
	}
	batch_add_act(f, "s|1", RECORD_ERASE, 2, 3, false);
	batch_append(f);
	check_read(f, &q);
	for (uint64_t at = 0; at < 6; at++)
		check_snapshot(f, SPAN("s|1"), at, UINT64_MAX);
	check_facts(f, SPAN("s|1"));
	struct storage_stream_info info;
	bool exists;
	cr_assert_eq(storage_stat(f->r, SPAN("s|1"), &f->arena, &info, &exists, &f->err), ERR_OK);
	cr_assert_eq(info.erased_below, 0u);
	batch_add_act(f, "s|1", RECORD_ERASE, 0, 0, true);
	batch_append(f);
	cr_assert_eq(storage_stat(f->r, SPAN("s|1"), &f->arena, &info, &exists, &f->err), ERR_OK);
	cr_assert_eq(info.erased_below, f->n - 1);
	check_read(f, &q);
	q.raw = q.include_system = true;
	check_read(f, &q);
}

/* An erasure in another stream that names a prefix says what was done, and does nothing. */
CONTRACT(acts, are_taken_with_the_batch_that_brings_them)
{
	struct storage_query q = EVERYTHING;
	append_one(f, "s", RECORD_EVENT);
	batch_add(f, "s", RECORD_EVENT, 5, 0);
	batch_add(f, "t", RECORD_EVENT, 5, 0);
	batch_add_act(f, "s", RECORD_DELETE, 0, 0, false);
	batch_add(f, "s", RECORD_EVENT, 5, 0);
	batch_add_act(f, "t", RECORD_TRUNCATE, 0, 0, false);
	batch_append(f);
	check_read(f, &q);
	check_facts(f, SPAN("s"));
	check_facts(f, SPAN("t"));
}

CONTRACT(acts, agree_with_the_model_over_random_logs_and_questions)
{
	for (size_t n = 50; n <= 1600; n *= 2) {
		random_batches(f, n, true);
		random_queries(f, 150);
		for (size_t i = 0; i < ARRAY_LEN(random_names); i++)
			check_facts(f, span_str(random_names[i]));
	}
}

/* --- removing ------------------------------------------------------------------------------------------- */

static int pick_withheld(struct fixture *f, size_t position)
{
	const struct model_record *m = &f->records[position];
	return m->hidden ? 2 : m->erased ? 1 : 0;
}

static int pick_any(struct fixture *f, size_t position)
{
	(void)position;
	return (int)fixture_random(f, 6) % 3;
}

static void remove_everywhere(struct fixture *f, fixture_pick *pick)
{
	struct storage_unit unit = {0};
	for (uint64_t at = 0; at < f->n; at = unit.end) {
		cr_assert_eq(storage_unit(f->r, at, &unit, &f->err), ERR_OK, "%s", f->err.text);
		fixture_remove(f, at, pick);
	}
}

static void check_all(struct fixture *f)
{
	struct storage_query q = EVERYTHING;
	check_read(f, &q);
	q.raw = q.include_system = true;
	check_read(f, &q);
	random_queries(f, 100);
	for (size_t i = 0; i < ARRAY_LEN(random_names); i++)
		check_facts(f, span_str(random_names[i]));
}

CONTRACT(remove, takes_nothing_from_what_is_given)
{
	for (size_t n = 100; n <= 800; n *= 2) {
		random_batches(f, n, true);
		storage_close_unit(f->s);
		append_one(f, "x", RECORD_EVENT);
		remove_everywhere(f, pick_withheld);
		check_all(f);
	}
}

CONTRACT(remove, leaves_the_others_and_every_leaf)
{
	for (size_t n = 100; n <= 800; n *= 2) {
		random_batches(f, n, true);
		storage_close_unit(f->s);
		append_one(f, "x", RECORD_EVENT);
		remove_everywhere(f, pick_any);
		check_all(f);
		remove_everywhere(f, pick_any);
		check_all(f);
	}
}

CONTRACT(remove, an_id_that_is_gone_may_come_again)
{
	append_one(f, "s", RECORD_EVENT);
	append_one(f, "s", RECORD_EVENT);
	storage_close_unit(f->s);
	append_one(f, "x", RECORD_EVENT);
	const struct storage_removal first = {.position = 0};
	struct storage_id_fact facts[2] = {0};
	uint64_t head;
	cr_assert_eq(storage_remove(f->r, &first, 1, &f->err), ERR_OK, "%s", f->err.text);
	memcpy(facts[0].id, f->records[0].id, RECORD_ID_BYTES);
	memcpy(facts[1].id, f->records[1].id, RECORD_ID_BYTES);
	cr_assert_eq(storage_lookup(f->s, NULL, 0, facts, 2, &f->arena, &head, &f->err), ERR_OK);
	cr_assert(!facts[0].exists);
	cr_assert(facts[1].exists);
}

CONTRACT_DURABLE(remove, an_index_made_anew_gives_the_same_facts)
{
	for (size_t n = 200; n <= 800; n *= 2) {
		random_batches(f, n, true);
		storage_close_unit(f->s);
		append_one(f, "x", RECORD_EVENT);
		remove_everywhere(f, pick_any);
		fixture_reopen(f);
		check_all(f);
		fixture_reopen_unindexed(f);
		check_all(f);
		remove_everywhere(f, pick_withheld);
		fixture_reopen(f);
		check_all(f);
	}
}

CONTRACT_DURABLE(reopen, everything_is_as_it_was)
{
	struct storage_head before, after;
	for (size_t n = 100; n <= 800; n *= 2) {
		random_batches(f, n, false);
		storage_head(f->s, &before);
		fixture_reopen(f);
		storage_head(f->s, &after);
		cr_assert_eq(before.head, after.head);
		cr_assert_eq(before.last_commit.us, after.last_commit.us);
		cr_assert(memcmp(before.journal_id, after.journal_id, 16) == 0);
		random_queries(f, 80);
		for (size_t i = 0; i < ARRAY_LEN(random_names); i++)
			check_facts(f, span_str(random_names[i]));
		struct storage_id_fact fact = {0};
		uint64_t head;
		for (size_t i = 0; i < f->n; i += 17) {
			memcpy(fact.id, f->records[i].id, RECORD_ID_BYTES);
			cr_assert_eq(storage_lookup(f->s, NULL, 0, &fact, 1, &f->arena, &head, &f->err),
				     ERR_OK);
			cr_assert(fact.exists);
			cr_assert_eq(fact.position, i);
		}
	}
}

CONTRACT(list, is_in_order_and_goes_on_after_a_name)
{
	static const char *const names[] = {"b|2", "a", "b|1", "b", "$x", "c|\xc3\xa4", "b|10", "ab"};
	static const char *const sorted[] = {"$x", "a", "ab", "b", "b|1", "b|10", "b|2", "c|\xc3\xa4"};
	for (int round = 0; round < 20; round++)
		for (size_t i = 0; i < ARRAY_LEN(names); i++) {
			append_one(f, names[i], RECORD_EVENT);
		}
	struct storage_stream_info info[8];
	size_t n;
	for (size_t max = 1; max <= 8; max++) {
		struct span after = SPAN("");
		for (size_t at = 0; at < ARRAY_LEN(sorted); at += n) {
			cr_assert_eq(storage_list(f->r, SPAN(""), after, max, &f->arena, info, &n, &f->err),
				     ERR_OK);
			cr_assert_eq(n, at + max <= 8 ? max : 8 - at);
			for (size_t i = 0; i < n; i++) {
				cr_assert(span_eq_str(info[i].name, sorted[at + i]));
				cr_assert_eq(info[i].sequence, 20u);
				cr_assert_eq(info[i].records, 20u);
				cr_assert_eq(info[i].last_position - info[i].first_position, 152u);
			}
			after = info[n - 1].name;
		}
	}
	cr_assert_eq(storage_list(f->r, SPAN("b|"), SPAN(""), 8, &f->arena, info, &n, &f->err), ERR_OK);
	cr_assert_eq(n, 3u);
	cr_assert(span_eq_str(info[0].name, "b|1"));
	cr_assert_eq(storage_list(f->r, SPAN("b|"), SPAN("b|10"), 8, &f->arena, info, &n, &f->err), ERR_OK);
	cr_assert_eq(n, 1u);
	cr_assert_eq(storage_list(f->r, SPAN("b|"), SPAN("zzz"), 8, &f->arena, info, &n, &f->err), ERR_OK);
	cr_assert_eq(n, 0u);
	cr_assert_eq(storage_list(f->r, SPAN("zzz"), SPAN(""), 8, &f->arena, info, &n, &f->err), ERR_OK);
	cr_assert_eq(n, 0u);
}

/* ---- tiles ----------------------------------------------------------------------------------- */

static void tile_of(uint8_t tile[STORAGE_TILE_BYTES], unsigned salt)
{
	for (size_t i = 0; i < STORAGE_TILE_BYTES; i++)
		tile[i] = (uint8_t)(i * 31 + salt + i / 256 * salt);
}

static void check_tile(struct fixture *f, unsigned level, uint64_t index, unsigned salt)
{
	uint8_t tile[STORAGE_TILE_BYTES], found[STORAGE_TILE_BYTES];
	tile_of(tile, salt);
	cr_assert_eq(storage_tile_get(f->r, level, index, found, &f->err), ERR_OK, "%u/%llu: %s", level,
		     (unsigned long long)index, f->err.text);
	cr_assert(memcmp(tile, found, sizeof(tile)) == 0);
}

static void put_tile(struct fixture *f, unsigned level, uint64_t index, unsigned salt)
{
	uint8_t tile[STORAGE_TILE_BYTES];
	tile_of(tile, salt);
	cr_assert_eq(storage_tile_put(f->r, level, index, tile, &f->err), ERR_OK, "%s", f->err.text);
}

CONTRACT(tiles, are_what_was_put_last_and_nothing_else_is_there)
{
	uint8_t found[STORAGE_TILE_BYTES];
	append_one(f, "s", RECORD_EVENT);
	cr_assert_eq(storage_tile_get(f->r, 0, 0, found, &f->err), ERR_NOT_FOUND);
	cr_assert_eq(f->err.code, ERR_OK);
	for (unsigned i = 0; i < 20; i++)
		put_tile(f, i % STORAGE_TILE_LEVELS, i * i, i);
	for (unsigned i = 0; i < 20; i++)
		check_tile(f, i % STORAGE_TILE_LEVELS, i * i, i);
	put_tile(f, 3, 9, 77);
	check_tile(f, 3, 9, 77);
	check_tile(f, 3, 121, 11);
	/* Between two that are there, and behind the last. */
	cr_assert_eq(storage_tile_get(f->r, 3, 10, found, &f->err), ERR_NOT_FOUND);
	cr_assert_eq(storage_tile_get(f->r, 3, 1000, found, &f->err), ERR_NOT_FOUND);
	cr_assert_eq(f->err.code, ERR_OK);
}

CONTRACT_DURABLE(tiles, of_a_store_that_is_closed_and_opened_are_right)
{
	append_one(f, "s", RECORD_EVENT);
	for (unsigned i = 0; i < 10; i++)
		put_tile(f, i / 5, i, i);
	fixture_reopen(f);
	for (unsigned i = 0; i < 10; i++)
		check_tile(f, i / 5, i, i);
}
