/* Acts: records that the server makes, decided by a rule of their own, and the ledger they are kept in. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/must.h"
#include "journal/act.h"
#include "journal/incarnation.h"
#include "journal/session.h"
#include "journal/wire.h"

static struct append *begin_of(struct bench *b, unsigned session)
{
	static const struct span services[] = {{(const uint8_t *)"carts", 5}, {(const uint8_t *)"users", 5}};
	struct journal_session_begin begin = {.services = services,
					      .service_count = 2,
					      .ttl_ms = 10000,
					      .address = SPAN("10.0.0.1:9000"),
					      .actor = SPAN("ip:10.0.0.1")};
	struct append_refusal refusal;
	struct append *a = NULL;
	id_of(session, begin.id);
	if (journal_session_begin_new(b->journal, &begin, &a, &refusal))
		cr_assert_fail("%s", refusal.err.text);
	return a;
}

static struct append *end_of(struct bench *b, unsigned session)
{
	uint8_t id[RECORD_ID_BYTES];
	struct append_refusal refusal;
	struct append *a = NULL;
	id_of(session, id);
	if (journal_session_end_new(b->journal, id, SPAN(""), &a, &refusal))
		cr_assert_fail("%s", refusal.err.text);
	return a;
}

/* Runs one append; how it was answered, and how many records it wrote. */
static size_t run_one(struct bench *b, struct append *a, enum err_code code)
{
	struct done d = {0};
	bench_append(b, a, &d);
	cr_expect(d.code == code, "%s, expected %s", err_name(d.code), err_name(code));
	size_t records = append_answer(d.append)->record_count;
	done_release(&d);
	return records;
}

/* All that is queued is decided as one batch. */
static void run_batch(struct bench *b, struct append **appends, struct done *done, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		done[i] = (struct done){0};
		cr_assert(journal_append(b->journal, &appends[i], &b->mailbox, on_done, &done[i], NULL) ==
			  ERR_OK);
	}
	bench_run(b);
	for (size_t i = 0; i < count; i++)
		cr_assert(done[i].calls == 1);
}

static void session_begun_data(unsigned session, struct buf *out)
{
	PB(SessionBegun) pb = CAIRN__JOURNAL__V1__SESSION_BEGUN__INIT;
	uint8_t id[RECORD_ID_BYTES];
	id_of(session, id);
	pb.session = pb_bytes(span_of(id, sizeof(id)));
	pb.ttl_ms = 1000;
	act_pack(&pb.base, out);
}

static void session_ended_data(unsigned session, struct buf *out)
{
	PB(SessionEnded) pb = CAIRN__JOURNAL__V1__SESSION_ENDED__INIT;
	uint8_t id[RECORD_ID_BYTES];
	id_of(session, id);
	pb.session = pb_bytes(span_of(id, sizeof(id)));
	act_pack(&pb.base, out);
}

Test(act, is_a_record_that_can_be_read)
{
	struct bench b;
	struct got g = {0};
	struct journal_read *read;
	struct journal_query q = {.source = STORAGE_STREAM, .name = SPAN("$sessions")};
	bench_open(&b);
	cr_assert(run_one(&b, begin_of(&b, 1), ERR_OK) == 1);
	cr_assert(journal_read_open(b.journal, &q, &b.mailbox, on_page, &g, &read, NULL) == ERR_OK);
	bench_next(&b, read, &g);
	cr_assert(g.page && g.page->records == 1);
	struct span run = buf_span(&g.page->body), entry;
	struct record_view v;
	cr_assert(record_next(&run, &entry, NULL, NULL) == ERR_OK);
	cr_assert(record_decode(entry, &v, NULL) == ERR_OK);
	cr_expect(v.kind == RECORD_SESSION_BEGUN);
	cr_expect(v.sequence == 0);
	cr_expect(v.last_of_append);
	cr_expect(v.commit_time.us == b.clock.wall_us);
	cr_expect(span_eq_str(v.type, "cairn.journal.v1.SessionBegun"));
	cr_expect(span_eq_str(v.content_type, "application/x-protobuf"));
	cr_expect(span_eq_str(v.actor, "ip:10.0.0.1"));
	uint8_t id[RECORD_ID_BYTES];
	id_of(1, id);
	cr_expect(span_eq(v.id, span_of(id, sizeof(id))));
	struct arena arena;
	arena_init(&arena, 65536);
	PB(SessionBegun) *pb = act_unpack(PB_TYPE(session_begun), &arena, v.data);
	cr_assert(pb);
	cr_expect(span_eq(pb_span(pb->session), span_of(id, sizeof(id))));
	cr_expect(pb->n_services == 2 && span_eq_str(pb_span(pb->services[1]), "users"));
	cr_expect(pb->ttl_ms == 10000);
	cr_expect(span_eq_str(pb_span(pb->address), "10.0.0.1:9000"));
	arena_release(&arena);
	got_clear(&g);
	journal_read_close(read);
	bench_close(&b);
}

Test(act, form_is_checked_before_it_is_taken)
{
	struct bench b;
	bench_open(&b);
	static const struct span good = {(const uint8_t *)"s", 1};
	struct span bad[] = {{0}, {(const uint8_t *)"a\nb", 3}};
	struct journal_session_begin begins[] = {
		{.services = &good, .service_count = 1, .ttl_ms = 1000},               /* id of zeros */
		{.id = {1}, .services = &good, .service_count = 1, .ttl_ms = 99},      /* too short */
		{.id = {1}, .services = &good, .service_count = 1, .ttl_ms = 3600001}, /* too long */
		{.id = {1}, .services = &bad[0], .service_count = 1, .ttl_ms = 1000},
		{.id = {1}, .services = &bad[1], .service_count = 1, .ttl_ms = 1000},
		{.id = {1}, .ttl_ms = 1000, .address = bad[1]},
	};
	for (size_t i = 0; i < ARRAY_LEN(begins); i++) {
		struct append_refusal refusal;
		struct append *a = NULL;
		cr_expect(journal_session_begin_new(b.journal, &begins[i], &a, &refusal) == ERR_INVALID,
			  "%zu", i);
		cr_expect(refusal.err.text[0]);
		cr_expect(a == NULL);
	}
	bench_close(&b);
}

Test(act, those_of_one_batch_see_each_other)
{
	struct bench b;
	struct done done[5];
	bench_open(&b);
	struct append *appends[] = {end_of(&b, 1), begin_of(&b, 1), end_of(&b, 1), end_of(&b, 1),
				    begin_of(&b, 2)};
	static const size_t records[] = {0, 1, 1, 0, 1};
	run_batch(&b, appends, done, 5);
	for (size_t i = 0; i < 5; i++) {
		cr_expect(done[i].code == ERR_OK, "%zu", i);
		cr_expect(append_answer(done[i].append)->record_count == records[i], "%zu", i);
		done_release(&done[i]);
	}
	cr_expect(journal_head(b.journal) == 3);
	cr_expect(run_one(&b, end_of(&b, 2), ERR_OK) == 1);
	bench_close(&b);
}

Test(act, repeated_is_the_first_result)
{
	struct bench b;
	struct done d = {0};
	bench_open(&b);
	run_one(&b, begin_of(&b, 1), ERR_OK);
	bench_append(&b, begin_of(&b, 1), &d);
	cr_expect(d.code == ERR_OK);
	cr_expect(append_answer(d.append)->repeated);
	cr_expect(append_answer(d.append)->first_position == 0);
	done_release(&d);
	/* Ended, it is not begun again by the same id. */
	run_one(&b, end_of(&b, 1), ERR_OK);
	bench_append(&b, begin_of(&b, 1), &d);
	cr_expect(append_answer(d.append)->repeated);
	done_release(&d);
	cr_expect(run_one(&b, end_of(&b, 1), ERR_OK) == 0);
	cr_expect(journal_head(b.journal) == 2);
	bench_close(&b);
}

Test(act, what_did_not_become_durable_is_no_fact)
{
	struct bench b;
	bench_open(&b);
	FAKE_SCRIPT(b.fake, STORAGE_FULL, STORAGE_UNKNOWN);
	run_one(&b, begin_of(&b, 1), ERR_FULL);
	run_one(&b, begin_of(&b, 2), ERR_UNAVAILABLE);
	cr_expect(run_one(&b, end_of(&b, 1), ERR_OK) == 0);
	cr_expect(run_one(&b, end_of(&b, 2), ERR_OK) == 0);
	/* Nor is an end. */
	cr_expect(run_one(&b, begin_of(&b, 1), ERR_OK) == 1);
	FAKE_SCRIPT(b.fake, STORAGE_FULL);
	run_one(&b, end_of(&b, 1), ERR_FULL);
	cr_expect(run_one(&b, end_of(&b, 1), ERR_OK) == 1);
	bench_close(&b);
}

Test(act, of_unknown_outcome_is_a_fact_if_it_was_written)
{
	struct bench b;
	bench_open(&b);
	b.fake->unknown_writes = true;
	FAKE_SCRIPT(b.fake, STORAGE_UNKNOWN);
	run_one(&b, begin_of(&b, 1), ERR_UNAVAILABLE);
	cr_expect(run_one(&b, end_of(&b, 1), ERR_OK) == 1);
	bench_close(&b);
}

static void another_ends(struct fake *f)
{
	struct buf data;
	buf_init(&data, 1024);
	session_ended_data(1, &data);
	fake_write_record(f, "$sessions", RECORD_SESSION_ENDED, buf_span(&data));
	buf_release(&data);
}

/* Another writer ends the session between the look-up and the append. */
Test(act, is_decided_again_when_the_log_has_moved)
{
	struct bench b;
	struct done done[2];
	bench_open(&b);
	run_one(&b, begin_of(&b, 1), ERR_OK);
	b.fake->on_moved = another_ends;
	FAKE_SCRIPT(b.fake, STORAGE_MOVED);
	struct append *appends[] = {begin_of(&b, 2), end_of(&b, 1)};
	run_batch(&b, appends, done, 2);
	cr_expect(done[0].code == ERR_OK && append_answer(done[0].append)->record_count == 1);
	cr_expect(done[1].code == ERR_OK && append_answer(done[1].append)->record_count == 0);
	done_release(&done[0]);
	done_release(&done[1]);
	cr_expect(journal_head(b.journal) == 3);
	cr_expect(run_one(&b, end_of(&b, 2), ERR_OK) == 1);
	bench_close(&b);
}

/* Another writer ends the session, and takes both of its records off the log, before we have read of it. */
static void another_ends_and_compacts(struct fake *f)
{
	const struct storage_removal list[] = {{.position = 0}, {.position = 1}};
	Cairn__Journal__V1__Compaction pb = CAIRN__JOURNAL__V1__COMPACTION__INIT;
	struct storage_reader *reader;
	struct err err = {0};
	struct buf data;
	another_ends(f);
	pb.end = 2;
	buf_init(&data, 1024);
	act_pack(&pb.base, &data);
	fake_write_record(f, "$acts", RECORD_COMPACTION, buf_span(&data));
	buf_release(&data);
	cr_assert_eq(storage_reader_open(f->inner, &reader, &err), ERR_OK);
	cr_assert_eq(storage_remove(reader, list, ARRAY_LEN(list), &err), ERR_OK, "%s", err.text);
	storage_reader_close(reader);
}

Test(act, what_another_has_compacted_meanwhile_is_over)
{
	struct bench b;
	bench_open(&b);
	run_one(&b, begin_of(&b, 1), ERR_OK);
	b.fake->on_moved = another_ends_and_compacts;
	FAKE_SCRIPT(b.fake, STORAGE_MOVED);
	run_one(&b, begin_of(&b, 2), ERR_OK);
	cr_expect(run_one(&b, end_of(&b, 1), ERR_OK) == 0, "the session lives on");
	cr_expect(run_one(&b, end_of(&b, 2), ERR_OK) == 1);
	bench_close(&b);
}

/* A session that serves so much that four of them fill a page. */
static void another_begins_large(struct fake *f, unsigned session)
{
	static char name[400];
	PB(SessionBegun) pb = CAIRN__JOURNAL__V1__SESSION_BEGUN__INIT;
	ProtobufCBinaryData services[700];
	uint8_t id[RECORD_ID_BYTES];
	struct buf data;
	memset(name, 's', sizeof(name));
	for (size_t i = 0; i < ARRAY_LEN(services); i++)
		services[i] = (ProtobufCBinaryData){sizeof(name), (uint8_t *)name};
	id_of(session, id);
	pb.session = pb_bytes(span_of(id, sizeof(id)));
	pb.services = services;
	pb.n_services = ARRAY_LEN(services);
	pb.ttl_ms = 1000;
	buf_init(&data, MIB);
	act_pack(&pb.base, &data);
	fake_write_record(f, "$sessions", RECORD_SESSION_BEGUN, buf_span(&data));
	buf_release(&data);
}

/* Another process's compaction: the first session, which ended at 6. */
static void another_takes_the_first(struct fake *f)
{
	const struct storage_removal list[] = {{.position = 0}, {.position = 6}};
	struct storage_reader *reader;
	struct err err = {0};
	cr_assert_eq(storage_reader_open(f->inner, &reader, &err), ERR_OK);
	cr_assert_eq(storage_remove(reader, list, ARRAY_LEN(list), &err), ERR_OK, "%s", err.text);
	storage_reader_close(reader);
}

Test(act, what_another_compacts_while_a_start_reads_is_over)
{
	struct fake *f = fake_new();
	struct cuts *cuts = cuts_new();
	struct ledger *l = ledger_new(cuts);
	struct storage_reader *reader;
	struct err err = {0};
	uint8_t id[RECORD_ID_BYTES];
	f->shared = true;
	for (unsigned n = 1; n <= 6; n++)
		another_begins_large(f, n);
	another_ends(f);
	f->after_page = another_takes_the_first;
	cr_assert_eq(storage_reader_open(&f->base, &reader, &err), ERR_OK);
	cr_assert_eq(ledger_load(l, reader, 7, &err), ERR_OK, "%s", err.text);
	cr_assert(!f->after_page, "it was one page");
	id_of(1, id);
	cr_expect(!ledger_session(l, id), "a session that has ended lives");
	for (unsigned n = 2; n <= 6; n++) {
		id_of(n, id);
		cr_expect(ledger_session(l, id) != NULL);
	}
	cr_expect(ledger_session_count(l) == 5);
	storage_reader_close(reader);
	ledger_free(l);
	cuts_free(cuts);
	storage_close(&f->base);
}

Test(act, facts_are_there_again_after_a_restart)
{
	struct bench b;
	bench_open(&b);
	run_one(&b, begin_of(&b, 1), ERR_OK);
	run_one(&b, begin_of(&b, 2), ERR_OK);
	run_one(&b, end_of(&b, 1), ERR_OK);
	bench_restart(&b);
	cr_expect(run_one(&b, end_of(&b, 1), ERR_OK) == 0);
	cr_expect(run_one(&b, end_of(&b, 2), ERR_OK) == 1);
	bench_close(&b);
}

/* ---- the ledger alone ------------------------------------------------------------------------ */

static void apply_session(struct ledger *l, uint32_t kind, unsigned session)
{
	struct buf data;
	uint8_t id[RECORD_ID_BYTES];
	id_of(session, id);
	buf_init(&data, 1024);
	if (kind == RECORD_SESSION_BEGUN)
		session_begun_data(session, &data);
	else
		session_ended_data(session, &data);
	ledger_apply(l, &(struct ledger_record){.kind = kind,
						.stream = SPAN("$sessions"),
						.data = buf_span(&data),
						.id = id});
	buf_release(&data);
}

static bool lives(const struct ledger *l, unsigned session)
{
	uint8_t id[RECORD_ID_BYTES];
	id_of(session, id);
	return ledger_session(l, id) != NULL;
}

Test(ledger, undo_gives_back_what_was)
{
	struct cuts *cuts = cuts_new();
	struct ledger *l = ledger_new(cuts);
	ledger_begin(l);
	apply_session(l, RECORD_SESSION_BEGUN, 1);
	apply_session(l, RECORD_SESSION_BEGUN, 2);
	ledger_keep(l, 2);
	ledger_begin(l);
	apply_session(l, RECORD_SESSION_ENDED, 1);
	apply_session(l, RECORD_SESSION_BEGUN, 3);
	apply_session(l, RECORD_SESSION_ENDED, 3);
	apply_session(l, RECORD_SESSION_BEGUN, 4);
	cr_expect(!lives(l, 1) && lives(l, 2) && !lives(l, 3) && lives(l, 4));
	cr_expect(ledger_session_count(l) == 2);
	ledger_undo(l);
	cr_expect(lives(l, 1) && lives(l, 2) && !lives(l, 3) && !lives(l, 4));
	cr_expect(ledger_session_count(l) == 2);
	cr_expect(ledger_head(l) == 2);
	ledger_begin(l);
	apply_session(l, RECORD_SESSION_BEGUN, 4);
	apply_session(l, RECORD_SESSION_ENDED, 2);
	ledger_keep(l, 4);
	cr_expect(lives(l, 1) && !lives(l, 2) && lives(l, 4));
	ledger_free(l);
	cuts_free(cuts);
}

Test(ledger, passes_over_what_it_does_not_understand)
{
	struct cuts *cuts = cuts_new();
	struct ledger *l = ledger_new(cuts);
	uint8_t id[RECORD_ID_BYTES];
	id_of(1, id);
	ledger_begin(l);
	ledger_apply(l, &(struct ledger_record){.kind = RECORD_SESSION_BEGUN,
						.stream = SPAN("$sessions"),
						.data = SPAN("\xff\xff"),
						.id = id});
	ledger_apply(l, &(struct ledger_record){.kind = 77, .stream = SPAN("$sessions"), .id = id});
	ledger_keep(l, 2);
	cr_expect(ledger_session_count(l) == 0);
	ledger_free(l);
	cuts_free(cuts);
}

static void apply_cut(struct ledger *l, uint64_t incarnation, uint64_t fork)
{
	uint8_t data[32];
	PB(Incarnation) pb = CAIRN__JOURNAL__V1__INCARNATION__INIT;
	pb.incarnation = incarnation;
	pb.fork = fork;
	size_t n = cairn__journal__v1__incarnation__pack(&pb, data);
	ledger_apply(l, &(struct ledger_record){.kind = RECORD_INCARNATION,
						.position = 100,
						.stream = SPAN("$incarnations"),
						.data = span_of(data, n)});
}

Test(cuts, the_least_fork_since_a_cursors_incarnation_counts)
{
	struct cuts *cuts = cuts_new();
	struct ledger *l = ledger_new(cuts);
	cr_expect(cuts_incarnation(cuts) == 1);
	cr_expect(cuts_fork_of(cuts, 1) == UINT64_MAX && cuts_fork_of(cuts, 2) == 0);
	ledger_begin(l);
	apply_cut(l, 2, 50);
	cr_expect(ledger_incarnation(l) == 2);
	cr_expect(cuts_incarnation(cuts) == 1, "it is not durable yet");
	ledger_undo(l);
	cr_expect(ledger_incarnation(l) == 1);
	ledger_begin(l);
	apply_cut(l, 2, 50);
	apply_cut(l, 3, 101); /* beyond its own record: no cut */
	ledger_keep(l, 101);
	ledger_begin(l);
	apply_cut(l, 3, 70);
	apply_cut(l, 4, 20);
	apply_cut(l, 4, 10); /* known */
	ledger_keep(l, 103);
	cr_expect(cuts_incarnation(cuts) == 4);
	cr_expect(cuts_fork_of(cuts, 1) == 20 && cuts_fork_of(cuts, 2) == 20 && cuts_fork_of(cuts, 3) == 20);
	cr_expect(cuts_fork_of(cuts, 4) == UINT64_MAX && cuts_fork_of(cuts, 5) == 0);
	ledger_free(l);
	cuts_free(cuts);
}
