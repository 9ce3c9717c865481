/* Sessions, grants and fences: their rules, in time that the tests make. */
#include <config.h>

#include "tests/unit/journal/fixture.h"

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/must.h"
#include "journal/act.h"
#include "journal/acts.h"
#include "journal/internal.h"
#include "journal/session.h"
#include "journal/wire.h"

#define TTL_MS 1000

static struct append *must_be(struct append *a, const struct append_refusal *refusal)
{
	cr_assert(a, "%s", refusal->err.text);
	return a;
}

static struct append *begin_of(struct bench *b, unsigned session)
{
	static const struct span services[] = {{(const uint8_t *)"carts", 5}, {(const uint8_t *)"users", 5}};
	struct journal_session_begin begin = {.services = services,
					      .service_count = 2,
					      .ttl_ms = TTL_MS,
					      .address = SPAN("a:1")};
	struct append_refusal refusal;
	struct append *a = NULL;
	id_of(session, begin.id);
	journal_session_begin_new(b->journal, &begin, &a, &refusal);
	return must_be(a, &refusal);
}

static struct append *beat_of(struct bench *b, unsigned session)
{
	uint8_t id[RECORD_ID_BYTES];
	struct append_refusal refusal;
	struct append *a = NULL;
	id_of(session, id);
	journal_session_beat_new(b->journal, id, &a, &refusal);
	return must_be(a, &refusal);
}

static struct append *end_of(struct bench *b, unsigned session)
{
	uint8_t id[RECORD_ID_BYTES];
	struct append_refusal refusal;
	struct append *a = NULL;
	id_of(session, id);
	journal_session_end_new(b->journal, id, SPAN(""), &a, &refusal);
	return must_be(a, &refusal);
}

static struct append *expire_of(struct bench *b, unsigned session, uint64_t beats)
{
	uint8_t id[RECORD_ID_BYTES];
	struct append_refusal refusal;
	struct append *a = NULL;
	id_of(session, id);
	session_expire_build(id, beats, b->journal->seed, b->journal->clock, &a, &refusal);
	return must_be(a, &refusal);
}

static struct journal_claim claim_for(const char *service, uint32_t slot, unsigned session)
{
	struct journal_claim claim = {.service = span_str(service), .slot = slot};
	id_of(session, claim.session);
	return claim;
}

static struct append *claim_of(struct bench *b, const char *service, uint32_t slot, unsigned session)
{
	struct journal_claim claim = claim_for(service, slot, session);
	struct append_refusal refusal;
	struct append *a = NULL;
	journal_grant_claim_new(b->journal, &claim, &a, &refusal);
	return must_be(a, &refusal);
}

static struct append *release_of(struct bench *b, const char *service, uint32_t slot, unsigned session,
				 uint64_t epoch)
{
	struct journal_claim claim = claim_for(service, slot, session);
	struct append_refusal refusal;
	struct append *a = NULL;
	journal_grant_release_new(b->journal, &claim, epoch, &a, &refusal);
	return must_be(a, &refusal);
}

/* Runs it; how many records it wrote. */
static size_t run(struct bench *b, struct append *a, enum err_code code)
{
	struct done d = {0};
	bench_append(b, a, &d);
	cr_expect(d.code == code, "%s, expected %s: %s", err_name(d.code), err_name(code),
		  d.code ? append_answer(d.append)->refusal->err.text : "");
	size_t records = append_answer(d.append)->record_count;
	done_release(&d);
	return records;
}
#define RUN(b, a, code, records)                                                           \
	do {                                                                               \
		size_t got_ = run(b, a, code);                                             \
		cr_expect(got_ == (records), "line %d: %zu records", __LINE__, got_);      \
	} while (0)

static uint64_t run_beat(struct bench *b, unsigned session, enum err_code code)
{
	struct done d = {0};
	bench_append(b, beat_of(b, session), &d);
	cr_expect(d.code == code, "%s, expected %s", err_name(d.code), err_name(code));
	uint64_t beats = d.code ? 0 : journal_session_beats(d.append);
	done_release(&d);
	return beats;
}

/* Does it live, by the journal's own word? A beat would change what is looked at. */
static bool lives(struct bench *b, unsigned session)
{
	struct append_refusal refusal;
	struct append *a = NULL;
	struct done d = {0};
	uint8_t id[RECORD_ID_BYTES];
	id_of(session, id);
	journal_grants_look_new(b->journal, SPAN("carts"), &a, &refusal);
	bench_append(b, must_be(a, &refusal), &d);
	cr_assert(d.code == ERR_OK);
	const struct journal_grants *all = journal_grants_of(d.append);
	bool found = false;
	for (size_t i = 0; i < all->session_count; i++)
		found = found || memcmp(all->sessions[i].id, id, sizeof(id)) == 0;
	done_release(&d);
	return found;
}

static void pass_ms(struct bench *b, int64_t ms)
{
	b->clock.mono_us += ms * 1000;
	b->clock.wall_us += ms * 1000;
	bench_run(b);
}

/* ---- sessions -------------------------------------------------------------------------------- */

Test(session, beats_are_counted_until_it_ends)
{
	struct bench b;
	bench_open(&b);
	run_beat(&b, 1, ERR_NOT_FOUND);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	cr_expect(run_beat(&b, 1, ERR_OK) == 1);
	cr_expect(run_beat(&b, 1, ERR_OK) == 2);
	RUN(&b, end_of(&b, 1), ERR_OK, 1);
	run_beat(&b, 1, ERR_NOT_FOUND);
	cr_expect(journal_head(b.journal) == 2); /* a beat is no history */
	bench_close(&b);
}

Test(session, beats_of_one_batch_count_once_and_an_end_refuses_them)
{
	struct bench b;
	struct done d[4] = {0};
	bench_open(&b);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	struct append *first[] = {beat_of(&b, 1), beat_of(&b, 1)};
	for (size_t i = 0; i < 2; i++)
		cr_assert(!journal_append(b.journal, &first[i], &b.mailbox, on_done, &d[i], NULL));
	bench_run(&b);
	cr_expect(journal_session_beats(d[0].append) == 1 && journal_session_beats(d[1].append) == 1);
	struct append *then[] = {beat_of(&b, 1), end_of(&b, 1)};
	for (size_t i = 0; i < 2; i++)
		cr_assert(!journal_append(b.journal, &then[i], &b.mailbox, on_done, &d[2 + i], NULL));
	bench_run(&b);
	/* Whoever beats learns of an end that was made durable with it. */
	cr_expect(d[2].code == ERR_NOT_FOUND);
	cr_expect(d[3].code == ERR_OK);
	for (size_t i = 0; i < 4; i++)
		done_release(&d[i]);
	bench_close(&b);
}

Test(session, ends_when_its_ttl_has_passed_without_a_beat)
{
	struct bench b;
	bench_open(&b);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	for (int i = 0; i < 50; i++) { /* it is kept as long as it beats in time */
		pass_ms(&b, 100);
		if (i % 9 == 8)
			run_beat(&b, 1, ERR_OK);
		cr_assert(lives(&b, 1), "after %d ms", (i + 1) * 100);
	}
	run_beat(&b, 1, ERR_OK);
	int64_t beaten = b.clock.mono_us;
	while (lives(&b, 1) && b.clock.mono_us - beaten < 10 * TTL_MS * 1000)
		pass_ms(&b, 10);
	int64_t after_ms = (b.clock.mono_us - beaten) / 1000;
	cr_expect(after_ms >= TTL_MS, "%lld ms", (long long)after_ms);
	cr_expect(after_ms <= TTL_MS * 3 / 2 + 20, "%lld ms", (long long)after_ms);
	run_beat(&b, 1, ERR_NOT_FOUND);
	cr_expect(journal_head(b.journal) == 2);
	bench_close(&b);
}

/* The whole journal was asleep, its beats may wait in the queue: it begins to count anew. */
Test(session, is_not_ended_by_who_was_asleep)
{
	struct bench b;
	bench_open(&b);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	pass_ms(&b, 100);
	pass_ms(&b, 100);
	pass_ms(&b, 100 * TTL_MS);
	cr_expect(lives(&b, 1));
	cr_expect(run_beat(&b, 1, ERR_OK) == 1);
	for (int i = 0; i < 9; i++)
		pass_ms(&b, 100);
	cr_expect(lives(&b, 1));
	for (int i = 0; i < 9; i++)
		pass_ms(&b, 100);
	cr_expect(!lives(&b, 1));
	bench_close(&b);
}

Test(session, is_not_ended_while_beats_cannot_be_read)
{
	struct bench b;
	bench_open(&b);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	b.fake->beats_fail = true;
	for (int i = 0; i < 100; i++)
		pass_ms(&b, 100);
	run_beat(&b, 1, ERR_UNAVAILABLE);
	b.fake->beats_fail = false;
	cr_expect(lives(&b, 1));
	cr_expect(run_beat(&b, 1, ERR_OK) == 1);
	bench_close(&b);
}

Test(session, end_by_time_is_written_only_if_the_count_is_the_same)
{
	struct bench b;
	bench_open(&b);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	run_beat(&b, 1, ERR_OK);
	RUN(&b, expire_of(&b, 1, 0), ERR_OK, 0);
	cr_expect(lives(&b, 1));
	RUN(&b, expire_of(&b, 1, 1), ERR_OK, 1);
	cr_expect(!lives(&b, 1));
	bench_close(&b);
}

/* Another process's server takes a beat between the look at the row and the append. */
static void beat_behind(struct fake *f, const struct storage_record *records, size_t count)
{
	struct storage_session row = {0};
	(void)records;
	if (count == 0)
		return;
	f->on_append = NULL;
	id_of(1, row.id);
	cr_assert(storage_session_beat(f->inner, STORAGE_BEAT, &row, 1, NULL) == ERR_OK);
	cr_assert(row.exists);
}

Test(session, end_by_time_meets_a_beat)
{
	struct bench b;
	bench_open(&b);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	b.fake->on_append = beat_behind;
	RUN(&b, expire_of(&b, 1, 0), ERR_OK, 0);
	cr_expect(lives(&b, 1));
	/* One who ends it himself does not mind. */
	b.fake->on_append = beat_behind;
	RUN(&b, end_of(&b, 1), ERR_OK, 1);
	cr_expect(!lives(&b, 1));
	bench_close(&b);
}

Test(session, beats_on_a_full_disk)
{
	struct bench b;
	struct done d[2] = {0};
	bench_open(&b);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	FAKE_SCRIPT(b.fake, STORAGE_FULL);
	struct append *both[] = {APPEND({.stream = "x", .ids = {1}}), beat_of(&b, 1)};
	for (size_t i = 0; i < 2; i++)
		cr_assert(!journal_append(b.journal, &both[i], &b.mailbox, on_done, &d[i], NULL));
	bench_run(&b);
	cr_expect(d[0].code == ERR_FULL);
	cr_expect(d[1].code == ERR_OK);
	done_release(&d[0]);
	done_release(&d[1]);
	bench_close(&b);
}

Test(session, lives_on_over_a_restart_with_its_whole_ttl)
{
	struct bench b;
	bench_open(&b);
	RUN(&b, begin_of(&b, 1), ERR_OK, 1);
	for (int i = 0; i < 8; i++)
		pass_ms(&b, 100);
	bench_restart(&b);
	for (int i = 0; i < 9; i++)
		pass_ms(&b, 100);
	cr_expect(lives(&b, 1));
	for (int i = 0; i < 9; i++)
		pass_ms(&b, 100);
	cr_expect(!lives(&b, 1));
	bench_close(&b);
}

/* ---- grants ---------------------------------------------------------------------------------- */

static void grant_is(struct bench *b, int line, struct append *a, uint64_t epoch, unsigned session, bool released,
		     size_t records)
{
	struct done d = {0};
	uint8_t id[RECORD_ID_BYTES];
	id_of(session, id);
	bench_append(b, a, &d);
	cr_assert(d.code == ERR_OK, "line %d: %s", line, d.code ? append_answer(d.append)->refusal->err.text : "");
	const struct journal_grant *g = journal_grant_of(d.append);
	cr_expect(g->epoch == epoch, "line %d: epoch %llu", line, (unsigned long long)g->epoch);
	cr_expect(memcmp(g->session, id, sizeof(id)) == 0, "line %d", line);
	cr_expect(g->released == released, "line %d", line);
	cr_expect(append_answer(d.append)->record_count == records, "line %d", line);
	done_release(&d);
}
#define GRANT_IS(b, a, ...) grant_is(b, __LINE__, a, __VA_ARGS__)

static void two_sessions(struct bench *b)
{
	bench_open(b);
	run(b, begin_of(b, 1), ERR_OK);
	run(b, begin_of(b, 2), ERR_OK);
}

Test(grant, one_holder_a_slot_and_an_epoch_each_grant)
{
	struct bench b;
	two_sessions(&b);
	GRANT_IS(&b, claim_of(&b, "carts", 7, 1), 1, 1, false, 1);
	GRANT_IS(&b, claim_of(&b, "carts", 7, 1), 1, 1, false, 0); /* held already */
	GRANT_IS(&b, claim_of(&b, "carts", 7, 2), 1, 1, false, 0); /* another's */
	GRANT_IS(&b, claim_of(&b, "carts", 8, 2), 1, 2, false, 1); /* another slot */
	GRANT_IS(&b, claim_of(&b, "users", 7, 2), 1, 2, false, 1); /* another service */
	/* The holder's end frees it for the next. */
	run(&b, end_of(&b, 1), ERR_OK);
	GRANT_IS(&b, claim_of(&b, "carts", 7, 2), 2, 2, false, 1);
	/* Giving it back does too; of an epoch that is over, or another's, nothing happens. */
	GRANT_IS(&b, release_of(&b, "carts", 7, 2, 1), 2, 2, false, 0);
	GRANT_IS(&b, release_of(&b, "carts", 7, 1, 2), 2, 2, false, 0);
	GRANT_IS(&b, release_of(&b, "carts", 7, 2, 2), 2, 2, true, 1);
	GRANT_IS(&b, release_of(&b, "carts", 7, 2, 2), 2, 2, true, 0);
	GRANT_IS(&b, claim_of(&b, "carts", 7, 2), 3, 2, false, 1);
	bench_close(&b);
}

Test(grant, is_for_sessions_that_live_and_serve)
{
	struct bench b;
	two_sessions(&b);
	run(&b, end_of(&b, 1), ERR_OK);
	RUN(&b, claim_of(&b, "carts", 0, 1), ERR_NOT_FOUND, 0);
	RUN(&b, claim_of(&b, "carts", 0, 3), ERR_NOT_FOUND, 0);
	RUN(&b, claim_of(&b, "orders", 0, 2), ERR_CONFLICT, 0);
	bench_close(&b);
}

Test(grant, form_is_checked)
{
	struct bench b;
	struct append_refusal refusal;
	struct append *a = NULL;
	bench_open(&b);
	struct journal_claim bad[] = {claim_for("", 0, 1), claim_for("a\nb", 0, 1),
				      claim_for("carts", LIMIT_SLOTS, 1)};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		cr_expect(journal_grant_claim_new(b.journal, &bad[i], &a, &refusal) == ERR_INVALID, "%zu", i);
		cr_expect(journal_grant_release_new(b.journal, &bad[i], 1, &a, &refusal) == ERR_INVALID);
	}
	bench_close(&b);
}

Test(grant, of_two_claims_in_one_batch_one_wins)
{
	struct bench b;
	struct done d[2] = {0};
	two_sessions(&b);
	struct append *claims[] = {claim_of(&b, "carts", 0, 2), claim_of(&b, "carts", 0, 1)};
	for (size_t i = 0; i < 2; i++)
		cr_assert(!journal_append(b.journal, &claims[i], &b.mailbox, on_done, &d[i], NULL));
	bench_run(&b);
	for (size_t i = 0; i < 2; i++) {
		uint8_t id[RECORD_ID_BYTES];
		id_of(2, id);
		cr_expect(memcmp(journal_grant_of(d[i].append)->session, id, sizeof(id)) == 0);
		done_release(&d[i]);
	}
	cr_expect(journal_head(b.journal) == 3);
	bench_close(&b);
}

/* Another server grants the slot between the look-up and the append. */
static void grant_behind(struct fake *f)
{
	PB(Grant) pb = CAIRN__JOURNAL__V1__GRANT__INIT;
	uint8_t id[RECORD_ID_BYTES];
	struct buf data;
	id_of(2, id);
	buf_init(&data, 1024);
	pb.service = pb_bytes(SPAN("carts"));
	pb.epoch = 1;
	pb.session = pb_bytes(span_of(id, sizeof(id)));
	act_pack(&pb.base, &data);
	fake_write_record(f, "$grants-carts", RECORD_GRANT, buf_span(&data));
	buf_release(&data);
}

Test(grant, is_decided_again_when_the_log_has_moved)
{
	struct bench b;
	two_sessions(&b);
	b.fake->on_moved = grant_behind;
	FAKE_SCRIPT(b.fake, STORAGE_MOVED);
	GRANT_IS(&b, claim_of(&b, "carts", 0, 1), 1, 2, false, 0);
	bench_close(&b);
}

Test(grant, is_none_if_it_did_not_become_durable)
{
	struct bench b;
	two_sessions(&b);
	FAKE_SCRIPT(b.fake, STORAGE_FULL);
	RUN(&b, claim_of(&b, "carts", 0, 1), ERR_FULL, 0);
	GRANT_IS(&b, claim_of(&b, "carts", 0, 2), 1, 2, false, 1);
	bench_close(&b);
}

Test(grant, is_known_after_a_restart)
{
	struct bench b;
	two_sessions(&b);
	GRANT_IS(&b, claim_of(&b, "carts", 3, 1), 1, 1, false, 1);
	GRANT_IS(&b, claim_of(&b, "users", 4, 2), 1, 2, false, 1);
	GRANT_IS(&b, release_of(&b, "users", 4, 2, 1), 1, 2, true, 1);
	bench_restart(&b);
	GRANT_IS(&b, claim_of(&b, "carts", 3, 2), 1, 1, false, 0);
	GRANT_IS(&b, claim_of(&b, "users", 4, 1), 2, 1, false, 1);
	bench_close(&b);
}

Test(grant, look_shows_who_serves_and_holds)
{
	struct bench b;
	struct append_refusal refusal;
	struct append *a = NULL;
	struct done d = {0};
	uint8_t id[RECORD_ID_BYTES];
	id_of(2, id);
	two_sessions(&b);
	run(&b, end_of(&b, 1), ERR_OK);
	run(&b, claim_of(&b, "users", 5, 2), ERR_OK);
	journal_grants_look_new(b.journal, SPAN("users"), &a, &refusal);
	bench_append(&b, must_be(a, &refusal), &d);
	const struct journal_grants *all = journal_grants_of(d.append);
	cr_assert(all->session_count == 1 && all->grant_count == 1);
	cr_expect(memcmp(all->sessions[0].id, id, sizeof(id)) == 0);
	cr_expect(all->sessions[0].ttl_ms == TTL_MS);
	cr_expect(span_eq_str(all->sessions[0].address, "a:1"));
	cr_expect(all->grants[0].slot == 5 && all->grants[0].epoch == 1);
	cr_expect(append_answer(d.append)->cursor_position == 4);
	done_release(&d);
	bench_close(&b);
}

/* ---- fences ---------------------------------------------------------------------------------- */

static struct journal_fence fence_of(const char *service, uint32_t slot, uint64_t epoch)
{
	return (struct journal_fence){.service = span_str(service), .slot = slot, .epoch = epoch};
}

static struct journal_fence session_fence(unsigned session)
{
	struct journal_fence f = {.by_session = true};
	id_of(session, f.session);
	return f;
}

/* An append of one event to x, expecting so, with these fences. */
static struct append *fenced(struct bench *b, unsigned id, enum append_expect expect,
			     const struct journal_fence *fences, size_t count)
{
	static struct test_request r;
	struct append_refusal refusal;
	struct append *a = NULL;
	request_of(&r, PARTS({.stream = "x", .expect = expect, .ids = {id}}), NULL, 0);
	r.request.fences = fences;
	r.request.fence_count = count;
	append_new(b->journal, &r.request, &a, &refusal);
	return must_be(a, &refusal);
}

static void refused_by(struct bench *b, int line, struct append *a, uint64_t epoch, unsigned holder)
{
	struct done d = {0};
	uint8_t id[RECORD_ID_BYTES] = {0};
	if (holder)
		id_of(holder, id);
	bench_append(b, a, &d);
	cr_assert(d.code == ERR_CONFLICT, "line %d: %s", line, err_name(d.code));
	const struct append_refusal *r = append_answer(d.append)->refusal;
	cr_assert(r->fence_found, "line %d: %s", line, r->err.text);
	cr_expect(r->fence_found->epoch == epoch, "line %d", line);
	cr_expect(memcmp(r->fence_found->session, id, sizeof(id)) == 0, "line %d", line);
	cr_expect(!r->has_sequence_found && r->stream.n == 0, "line %d", line);
	done_release(&d);
}
#define REFUSED_BY(b, a, ...) refused_by(b, __LINE__, a, __VA_ARGS__)

Test(fence, is_the_newest_grant_of_its_slot)
{
	struct bench b;
	two_sessions(&b);
	struct journal_fence first = fence_of("carts", 0, 1), second = fence_of("carts", 0, 2);
	REFUSED_BY(&b, fenced(&b, 100, APPEND_ANY, &first, 1), 0, 0); /* never granted */
	run(&b, claim_of(&b, "carts", 0, 1), ERR_OK);
	RUN(&b, fenced(&b, 101, APPEND_ANY, &first, 1), ERR_OK, 1);
	REFUSED_BY(&b, fenced(&b, 102, APPEND_ANY, &second, 1), 1, 1);
	/* The end of its session does not invalidate it: only the next grant does. */
	run(&b, end_of(&b, 1), ERR_OK);
	RUN(&b, fenced(&b, 103, APPEND_ANY, &first, 1), ERR_OK, 1);
	run(&b, claim_of(&b, "carts", 0, 2), ERR_OK);
	REFUSED_BY(&b, fenced(&b, 104, APPEND_ANY, &first, 1), 2, 2);
	RUN(&b, fenced(&b, 105, APPEND_ANY, &second, 1), ERR_OK, 1);
	/* Given back, it holds no more. */
	run(&b, release_of(&b, "carts", 0, 2, 2), ERR_OK);
	REFUSED_BY(&b, fenced(&b, 106, APPEND_ANY, &second, 1), 2, 2);
	bench_close(&b);
}

Test(fence, may_be_a_live_session)
{
	struct bench b;
	two_sessions(&b);
	struct journal_fence live = session_fence(1), unknown = session_fence(3);
	RUN(&b, fenced(&b, 100, APPEND_ANY, &live, 1), ERR_OK, 1);
	REFUSED_BY(&b, fenced(&b, 101, APPEND_ANY, &unknown, 1), 0, 3);
	run(&b, end_of(&b, 1), ERR_OK);
	REFUSED_BY(&b, fenced(&b, 102, APPEND_ANY, &live, 1), 0, 1);
	bench_close(&b);
}

Test(fence, comes_after_repeats_and_before_expectations)
{
	struct bench b;
	struct done d = {0};
	two_sessions(&b);
	run(&b, claim_of(&b, "carts", 0, 1), ERR_OK);
	struct journal_fence fence = fence_of("carts", 0, 1);
	RUN(&b, fenced(&b, 100, APPEND_NONE, &fence, 1), ERR_OK, 1);
	run(&b, end_of(&b, 1), ERR_OK);
	run(&b, claim_of(&b, "carts", 0, 2), ERR_OK);
	/* Now neither the fence nor the expectation holds. */
	bench_append(&b, fenced(&b, 100, APPEND_NONE, &fence, 1), &d);
	cr_expect(d.code == ERR_OK && append_answer(d.append)->repeated);
	done_release(&d);
	REFUSED_BY(&b, fenced(&b, 101, APPEND_NONE, &fence, 1), 2, 2);
	fence.epoch = 2;
	bench_append(&b, fenced(&b, 101, APPEND_NONE, &fence, 1), &d);
	cr_expect(d.code == ERR_CONFLICT);
	cr_expect(append_answer(d.append)->refusal->has_sequence_found);
	cr_expect(append_answer(d.append)->refusal->fence_found == NULL);
	done_release(&d);
	bench_close(&b);
}

Test(fence, the_first_that_does_not_hold_answers)
{
	struct bench b;
	two_sessions(&b);
	run(&b, claim_of(&b, "carts", 0, 1), ERR_OK);
	struct journal_fence both[] = {fence_of("carts", 0, 9), session_fence(3)};
	REFUSED_BY(&b, fenced(&b, 100, APPEND_ANY, both, 2), 1, 1);
	both[0].epoch = 1;
	REFUSED_BY(&b, fenced(&b, 101, APPEND_ANY, both, 2), 0, 3);
	both[1] = session_fence(2);
	RUN(&b, fenced(&b, 102, APPEND_ANY, both, 2), ERR_OK, 1);
	bench_close(&b);
}

Test(fence, sees_a_grant_of_the_same_batch)
{
	struct bench b;
	struct done d[3] = {0};
	two_sessions(&b);
	run(&b, claim_of(&b, "carts", 0, 1), ERR_OK);
	run(&b, end_of(&b, 1), ERR_OK);
	struct journal_fence first = fence_of("carts", 0, 1);
	struct append *batch[] = {fenced(&b, 100, APPEND_ANY, &first, 1), claim_of(&b, "carts", 0, 2),
				  fenced(&b, 101, APPEND_ANY, &first, 1)};
	for (size_t i = 0; i < 3; i++)
		cr_assert(!journal_append(b.journal, &batch[i], &b.mailbox, on_done, &d[i], NULL));
	bench_run(&b);
	cr_expect(d[0].code == ERR_OK);
	cr_expect(d[1].code == ERR_OK);
	cr_expect(d[2].code == ERR_CONFLICT);
	for (size_t i = 0; i < 3; i++)
		done_release(&d[i]);
	bench_close(&b);
}

Test(fence, form_is_checked)
{
	struct bench b;
	static struct test_request r;
	struct append_refusal refusal;
	struct append *a = NULL;
	bench_open(&b);
	request_of(&r, PARTS({.stream = "x", .ids = {1}}), NULL, 0);
	struct journal_fence bad[] = {fence_of("", 0, 1), fence_of("carts", LIMIT_SLOTS, 1)};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		r.request.fences = &bad[i];
		r.request.fence_count = 1;
		cr_expect(append_new(b.journal, &r.request, &a, &refusal) == ERR_INVALID);
	}
	static struct journal_fence many[LIMIT_APPEND_FENCES + 1];
	r.request.fences = many;
	r.request.fence_count = ARRAY_LEN(many);
	cr_expect(append_new(b.journal, &r.request, &a, &refusal) == ERR_LIMIT);
	bench_close(&b);
}
