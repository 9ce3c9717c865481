/* Retention and compaction on a journal with its threads, over memory, over files with small
 * segments, and on Postgres. */
#include <config.h>

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "fixture.h"
#include "journal/acts.h"
#include "journal/group_load.h"
#include "journal/spent.h"
#include "storage/file/file.h"
#include "tests/contract/postgres.h"
#include "tests/unit/scale.h"

enum backend { MEMORY, ON_FILE, ON_POSTGRES };

struct rig {
	enum backend backend;
	char dir[64];
	struct journal *journal;
	struct storage *storage; /* the journal's */
	struct mailbox mailbox;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool woken;
	unsigned next_id;
	/* of the last act or append */
	bool done;
	enum err_code code;
	size_t records;
	struct journal_compacted compacted;
	int64_t min_age_ms, every_ms;
};

static void rig_wake(void *arg)
{
	struct rig *r = arg;
	pthread_mutex_lock(&r->lock);
	r->woken = true;
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

static void rig_start(struct rig *r)
{
	struct err err = {0};
	if (r->backend == ON_FILE) {
		struct storage_config config = {.location = span_str(r->dir), .clock = &clock_system};
		struct file_options options = file_options_default;
		options.segment_bytes = 64 * KIB;
		options.recent_records = 500;
		cr_assert_eq(file_open_with(&config, &options, &r->storage, &err), ERR_OK, "%s", err.text);
	} else {
		struct storage_config config = {.clock = &clock_system};
		char uri[200] = "memory";
		if (r->backend == ON_POSTGRES)
			postgres_uri(span_str(r->dir + 5), uri, sizeof(uri));
		cr_assert_eq(storage_open(uri, &config, &r->storage, &err), ERR_OK, "%s", err.text);
	}
	struct journal_config config = {
		.storage = r->storage, .threads = true, .compact_min_age_ms = r->min_age_ms,
		.compact_every_ms = r->every_ms};
	cr_assert_eq(journal_open(&config, &r->journal, &err), ERR_OK, "%s", err.text);
}

static void rig_open(struct rig *r, enum backend backend)
{
	*r = (struct rig){.backend = backend, .dir = "/tmp/compact.XXXXXX"};
	if (backend == ON_POSTGRES)
		postgres_needed();
	log_setup(LOG_WARN, LOG_LOGFMT);
	cr_assert(mkdtemp(r->dir)); /* its name is the database's, too */
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->cond, NULL);
	mailbox_init(&r->mailbox, rig_wake, r);
	rig_start(r);
}

static void rig_close(struct rig *r)
{
	char command[96];
	journal_stop(r->journal);
	mailbox_drain(&r->mailbox);
	journal_close(r->journal);
	mailbox_release(&r->mailbox);
	if (r->backend == ON_POSTGRES)
		postgres_drop(span_str(r->dir + 5));
	snprintf(command, sizeof(command), "rm -rf '%s'", r->dir);
	cr_assert_eq(system(command), 0);
}

static void rig_wait(struct rig *r)
{
	while (!r->done) {
		pthread_mutex_lock(&r->lock);
		while (!r->woken)
			pthread_cond_wait(&r->cond, &r->lock);
		r->woken = false;
		pthread_mutex_unlock(&r->lock);
		mailbox_drain(&r->mailbox);
	}
}

static void rig_done(struct append *append, void *arg)
{
	struct rig *r = arg;
	const struct append_answer *answer = append_answer(append);
	r->code = answer->code;
	r->records = answer->code ? 0 : answer->record_count;
	r->done = true;
	append_unref(append);
}

static void rig_give(struct rig *r, struct append *a)
{
	struct err err = {0};
	r->done = false;
	cr_assert_eq(journal_append(r->journal, &a, &r->mailbox, rig_done, r, &err), ERR_OK, "%s", err.text);
	rig_wait(r);
}

static void rig_append(struct rig *r, const char *stream, const char *data, bool snapshot)
{
	struct append_record record = {.type = SPAN("t"), .data = span_str(data)};
	struct append_stream s = {.name = span_str(stream), .events = &record, .event_count = 1};
	if (snapshot)
		s = (struct append_stream){.name = span_str(stream), .snapshot = &record};
	struct append_request request = {.streams = &s, .stream_count = 1};
	struct append_refusal refusal = {0};
	struct append *a;
	cr_assert_eq(append_new(r->journal, &request, &a, &refusal), ERR_OK, "%s", refusal.err.text);
	rig_give(r, a);
	cr_assert_eq(r->code, ERR_OK);
}

/* One event each of so many streams "PREFIX|N", in one append. */
static void rig_append_many(struct rig *r, const char *prefix, size_t count, size_t bytes)
{
	struct append_record record = {.type = SPAN("t")};
	struct append_stream *s = mem_xalloc(count * sizeof(*s));
	char (*names)[64] = mem_xalloc(count * sizeof(*names));
	char *data = mem_xalloc(bytes + 1);
	memset(data, 'v', bytes);
	record.data = span_of(data, bytes);
	for (size_t i = 0; i < count; i++) {
		snprintf(names[i], sizeof(names[i]), "%s|%zu", prefix, i);
		s[i] = (struct append_stream){.name = span_str(names[i]), .events = &record, .event_count = 1};
	}
	struct append_request request = {.streams = s, .stream_count = count};
	struct append_refusal refusal = {0};
	struct append *a;
	cr_assert_eq(append_new(r->journal, &request, &a, &refusal), ERR_OK, "%s", refusal.err.text);
	rig_give(r, a);
	cr_assert_eq(r->code, ERR_OK);
	mem_free(s);
	mem_free(names);
	mem_free(data);
}

static void rig_withhold(struct rig *r, uint32_t kind, const char *stream, uint64_t from)
{
	struct span name = span_str(stream);
	struct journal_withhold q = {.kind = kind,
				     .streams = &name,
				     .stream_count = 1,
				     .reason = SPAN("asked"),
				     .from_sequence = from,
				     .to_sequence = from};
	struct append_refusal refusal = {0};
	struct append *a;
	cr_assert_eq(journal_withhold_new(r->journal, &q, &a, &refusal), ERR_OK, "%s", refusal.err.text);
	rig_give(r, a);
	cr_assert_eq(r->code, ERR_OK);
}

static void rig_rule(struct rig *r, bool category, const char *name, uint64_t max_count, int64_t max_age_us)
{
	struct journal_retention q = {.category = category,
				      .name = span_str(name),
				      .max_count = max_count,
				      .max_age_us = max_age_us,
				      .reason = SPAN("enough")};
	struct append_refusal refusal = {0};
	struct append *a;
	cr_assert_eq(journal_retention_new(r->journal, &q, &a, &refusal), ERR_OK, "%s", refusal.err.text);
	rig_give(r, a);
	cr_assert_eq(r->code, ERR_OK);
}

static void on_compacted(const struct journal_compacted *result, const struct err *err, void *arg)
{
	struct rig *r = arg;
	r->code = err ? err->code : ERR_OK;
	cr_assert(!err, "%s", err ? err->text : "");
	r->compacted = *result;
	r->done = true;
}

static void rig_compact(struct rig *r)
{
	struct err err = {0};
	r->done = false;
	cr_assert_eq(journal_compact(r->journal, SPAN("me"), &r->mailbox, on_compacted, r, &err), ERR_OK, "%s",
		     err.text);
	rig_wait(r);
}

/* Where others may compact, too, a pass begins a session, claims its turn, and ends the session. */
static size_t of_turn(const struct rig *r)
{
	return r->backend == ON_POSTGRES ? 3 : 0;
}

struct seen {
	size_t records, bodies, removed;
	uint64_t sequences;
};

/* By a reader of storage: raw, or as given; of a stream, or (NULL) of everything. */
static struct seen rig_see(struct rig *r, const char *stream, bool raw)
{
	struct storage_query q = {.source = stream ? STORAGE_STREAM : STORAGE_ALL,
				  .name = span_str(stream),
				  .include_system = true,
				  .raw = raw,
				  .below_position = UINT64_MAX,
				  .max_bytes = MIB};
	struct storage_page page = {0};
	struct storage_reader *reader;
	struct seen seen = {0};
	struct err err = {0};
	struct buf buf;
	buf_init(&buf, 8 * MIB);
	cr_assert_eq(storage_reader_open(r->storage, &reader, &err), ERR_OK);
	while (!page.end) {
		struct span run, entry;
		struct record_view v;
		buf_clear(&buf);
		cr_assert_eq(storage_read(reader, &q, &buf, &page, &err), ERR_OK, "%s", err.text);
		for (run = buf_span(&buf); record_next(&run, &entry, NULL, NULL) == ERR_OK;) {
			cr_assert_eq(record_decode(entry, &v, &err), ERR_OK, "%s", err.text);
			seen.records++;
			seen.bodies += record_has_body(entry);
			seen.removed += record_is_removed(entry);
			seen.sequences = seen.sequences * 10 + (stream ? v.sequence : 0);
		}
		q.from = page.next;
	}
	storage_reader_close(reader);
	buf_release(&buf);
	return seen;
}

static struct criterion_test_params all_backends(void)
{
	static enum backend backends[] = {MEMORY, ON_FILE, ON_POSTGRES};
	return cr_make_param_array(enum backend, backends, 3);
}
#define COMPACT(name_)                                      \
	static void compact_##name_(struct rig *r);         \
	ParameterizedTestParameters(compact, name_)         \
	{                                                   \
		return all_backends();                              \
	}                                                   \
	ParameterizedTest(enum backend *backend, compact, name_) \
	{                                                   \
		struct rig rig;                             \
		rig_open(&rig, *backend);                      \
		compact_##name_(&rig);                      \
		rig_close(&rig);                            \
	}                                                   \
	static void compact_##name_(struct rig *r)

COMPACT(takes_what_was_deleted_and_the_bodies_of_what_was_erased)
{
	for (int i = 0; i < 4; i++) {
		rig_append(r, "a|1", "one", false);
		rig_append(r, "a|2", "two", false);
	}
	rig_append(r, "a|2", "state", true);
	rig_withhold(r, RECORD_DELETE, "a|1", 0);
	rig_withhold(r, RECORD_ERASE, "a|2", 2);
	struct seen before = rig_see(r, NULL, false);
	rig_compact(r);
	cr_assert_eq(r->compacted.rewritten, 1u);
	cr_assert_eq(r->compacted.removed, 4u);
	cr_assert_eq(r->compacted.erased, 2u); /* the event and the snapshot */
	uint64_t before_bytes = r->compacted.bytes_before, after_bytes = r->compacted.bytes_after;
	if (r->backend == ON_FILE) { /* elsewhere the announcement may be of the same unit */
		cr_assert_lt(after_bytes, before_bytes);
		cr_assert_eq((uint64_t)metric_get(METRIC_COMPACTED_BYTES), before_bytes - after_bytes);
	}
	cr_assert_eq(metric_get(METRIC_COMPACTION_SECONDS), 1);
	struct seen given = rig_see(r, NULL, false), stored = rig_see(r, NULL, true);
	cr_assert_eq(given.records, before.records + 1 + of_turn(r)); /* what was removed is listed */
	cr_assert_eq(given.bodies, before.bodies + 1 + of_turn(r));
	cr_assert_eq(stored.removed, 4u);
	cr_assert_eq(stored.bodies, given.bodies, "a body that is not given is still there");
	rig_append(r, "a|1", "again", false);
	cr_assert_eq(rig_see(r, "a|1", false).sequences, 56u); /* the deletion and the event after it */
	rig_compact(r);
	cr_assert_eq(r->compacted.rewritten, r->backend == ON_POSTGRES, "there is nothing left but of the last turn");
	cr_assert_eq(r->compacted.removed, r->backend == ON_POSTGRES ? 2u : 0u);
}

COMPACT(keeps_what_rules_keep_and_of_each_stream_the_newest)
{
	for (int i = 0; i < 5; i++) {
		rig_append(r, "v|1", "x", false);
		rig_append(r, "v|2", "x", false);
		rig_append(r, "w|1", "x", false);
		rig_append(r, "w|2", "x", false);
		if (i == 1)
			rig_append(r, "v|2", "state", true);
	}
	rig_rule(r, true, "v", 2, 0);
	rig_rule(r, false, "v|1", 3, 0); /* its own wins */
	rig_rule(r, true, "w", 0, 1);	 /* all is too old */
	rig_rule(r, false, "w|2", 1, 0);
	rig_rule(r, false, "w|2", 0, 0); /* none any more: the category's */
	rig_append(r, "x", "x", false);
	usleep(2000); /* older than a microsecond, by any clock */
	rig_compact(r);
	cr_assert_eq(rig_see(r, "v|1", false).sequences, 345u);
	cr_assert_eq(rig_see(r, "v|2", false).sequences, 245u, "the newest snapshot stays");
	cr_assert_eq(rig_see(r, "w|1", false).sequences, 5u);
	cr_assert_eq(rig_see(r, "w|2", false).sequences, 5u);
	struct storage_stream_fact fact = {.name = SPAN("v|2")};
	struct storage_reader *reader;
	struct storage_stream_info info;
	struct arena arena;
	struct err err = {0};
	bool exists;
	arena_init(&arena, MIB);
	cr_assert_eq(storage_reader_open(r->storage, &reader, &err), ERR_OK);
	cr_assert_eq(storage_stat(reader, fact.name, &arena, &info, &exists, &err), ERR_OK);
	cr_assert_eq(info.records, 3u);
	cr_assert_eq(info.sequence, 5u);
	storage_reader_close(reader);
	arena_release(&arena);
}

COMPACT(leaves_alone_what_is_young)
{
	journal_close(r->journal);
	mailbox_drain(&r->mailbox);
	r->min_age_ms = 3600000;
	rig_start(r);
	rig_append(r, "a|1", "one", false);
	rig_append(r, "a|1", "one", false);
	rig_withhold(r, RECORD_DELETE, "a|1", 0);
	rig_compact(r);
	cr_assert_eq(r->compacted.rewritten, 0u);
}

/* What an act withholds is younger than compaction takes when it comes by for the first time, and lies in the part
 * of the log that is written to. */
COMPACT(by_itself_comes_again_for_what_was_too_young)
{
	journal_close(r->journal);
	mailbox_drain(&r->mailbox);
	r->min_age_ms = 300;
	r->every_ms = 10;
	rig_start(r);
	rig_append(r, "a|1", "one", false);
	rig_append(r, "a|1", "two", false);
	rig_withhold(r, RECORD_ERASE, "a|1", 1);
	size_t stored = 1, given = 0;
	for (int i = 0; i < 3000 && stored > given; i++) {
		stored = rig_see(r, NULL, true).bodies;
		given = rig_see(r, NULL, false).bodies; /* later: there may be more by then, of compaction's own */
		usleep(10000);
	}
	cr_assert_leq(stored, given, "an erased body is still there");
}

/* Many value streams under one rule, written again and again, while they are read and appended to. */
COMPACT(many_value_streams_under_one_rule)
{
	size_t streams = test_scaled(r->backend == ON_POSTGRES ? 1000 : 3000);
	rig_rule(r, true, "v", 1, 0);
	for (int round = 0; round < 4; round++)
		for (size_t i = 0; i < streams; i += 1000) {
			char prefix[32];
			snprintf(prefix, sizeof(prefix), "v|%zu", i);
			rig_append_many(r, prefix, streams - i < 1000 ? streams - i : 1000, 20);
		}
	rig_append(r, "other", "x", false);
	struct err err = {0};
	r->done = false;
	cr_assert_eq(journal_compact(r->journal, SPAN("me"), &r->mailbox, on_compacted, r, &err), ERR_OK);
	for (int i = 0; i < 20; i++) { /* it serves meanwhile */
		struct seen seen = rig_see(r, "v|0|1", false);
		cr_assert(seen.records >= 1 && seen.sequences % 10 == 4);
	}
	rig_wait(r);
	cr_assert_eq(r->compacted.removed, 3 * streams);
	struct seen given = rig_see(r, NULL, false);
	cr_assert_eq(given.records, streams + 2 + r->compacted.rewritten + of_turn(r));
	cr_assert_lt(r->compacted.bytes_after, r->compacted.bytes_before);
	rig_append(r, "v|0|1", "x", false);
	cr_assert_eq(rig_see(r, "v|0|1", false).sequences, 45u);
}

/* ---- sessions and grants that are over --------------------------------------------------------- */

#define CARTS SPAN("carts")

struct crowd {
	struct rig *rig;
	size_t waiting;
};

static void crowd_done(struct append *append, void *arg)
{
	struct crowd *crowd = arg;
	cr_assert_eq(append_answer(append)->code, ERR_OK);
	append_unref(append);
	crowd->rig->done = --crowd->waiting == 0;
}

static void session_id(uint8_t id[RECORD_ID_BYTES], size_t n)
{
	memset(id, 7, RECORD_ID_BYTES);
	memcpy(id, &n, sizeof(n));
}

static struct append *session_act(struct rig *r, size_t n, bool ends)
{
	struct span carts = CARTS;
	struct journal_session_begin begin = {.services = &carts, .service_count = 1, .ttl_ms = 600000};
	struct append_refusal refusal = {0};
	struct append *a;
	session_id(begin.id, n);
	enum err_code code = ends ? journal_session_end_new(r->journal, begin.id, SPAN(""), &a, &refusal)
				  : journal_session_begin_new(r->journal, &begin, &a, &refusal);
	cr_assert_eq(code, ERR_OK, "%s", refusal.err.text);
	return a;
}

/* Sessions [from, to) begin, or end, in as few batches as it takes. */
static void sessions_all(struct rig *r, size_t from, size_t to, bool ends)
{
	struct crowd crowd = {r, to - from};
	struct err err = {0};
	r->done = false;
	for (size_t n = from; n < to; n++) {
		struct append *a = session_act(r, n, ends);
		cr_assert_eq(journal_append(r->journal, &a, &r->mailbox, crowd_done, &crowd, &err), ERR_OK, "%s",
			     err.text);
	}
	rig_wait(r);
}

/* Its epoch. */
static uint64_t claim(struct rig *r, size_t session, uint32_t slot)
{
	struct journal_claim q = {.service = CARTS, .slot = slot};
	struct append_refusal refusal = {0};
	struct append *a;
	session_id(q.session, session);
	cr_assert_eq(journal_grant_claim_new(r->journal, &q, &a, &refusal), ERR_OK, "%s", refusal.err.text);
	append_ref(a);
	rig_give(r, a);
	cr_assert_eq(r->code, ERR_OK);
	const struct journal_grant *grant = journal_grant_of(a);
	cr_assert(memcmp(grant->session, q.session, RECORD_ID_BYTES) == 0, "another session holds it");
	uint64_t epoch = grant->epoch;
	append_unref(a);
	return epoch;
}

static enum err_code append_fenced(struct rig *r, const struct journal_fence *fence)
{
	struct append_record record = {.type = SPAN("t"), .data = SPAN("fenced")};
	struct append_stream s = {.name = SPAN("f|1"), .events = &record, .event_count = 1};
	struct append_request request = {.streams = &s, .stream_count = 1, .fences = fence, .fence_count = 1};
	struct append_refusal refusal = {0};
	struct append *a;
	cr_assert_eq(append_new(r->journal, &request, &a, &refusal), ERR_OK, "%s", refusal.err.text);
	rig_give(r, a);
	return r->code;
}

static void check_fences(struct rig *r, size_t ended, uint64_t newest)
{
	struct journal_fence of_slot = {.service = CARTS, .slot = 1}, of_session = {.by_session = true};
	for (uint64_t epoch = 1; epoch <= newest + 1; epoch++) {
		of_slot.epoch = epoch;
		cr_assert_eq(append_fenced(r, &of_slot), epoch == newest ? ERR_OK : ERR_CONFLICT, "epoch %llu of %llu",
			     (unsigned long long)epoch, (unsigned long long)newest);
	}
	session_id(of_session.session, 0);
	cr_assert_eq(append_fenced(r, &of_session), ERR_OK, "the session that lives");
	session_id(of_session.session, ended);
	cr_assert_eq(append_fenced(r, &of_session), ERR_CONFLICT, "a session that has ended");
}

/* Begins so many and ends them; each of the first three has slot 1 in its turn, the one that lives has slot 0. */
static void live_through(struct rig *r, size_t sessions)
{
	sessions_all(r, 0, 1, false);
	cr_assert_eq(claim(r, 0, 0), 1u);
	for (size_t n = 1; n < sessions; n += 1000) {
		size_t to = n + 1000 < sessions ? n + 1000 : sessions;
		sessions_all(r, n, to, false);
		for (size_t i = n; n == 1 && i <= 3; i++) {
			cr_assert_eq(claim(r, i, 1), i);
			sessions_all(r, i, i + 1, true);
		}
		sessions_all(r, n == 1 ? 4 : n, to, true);
	}
	rig_append(r, "other", "x", false);
}

COMPACT(takes_sessions_that_have_ended_and_grants_that_are_not_the_newest)
{
	size_t sessions = test_scaled(10000) + 1000;
	live_through(r, sessions);
	cr_assert_eq(rig_see(r, "$sessions", false).records, 2 * sessions - 1);
	rig_compact(r);
	cr_assert_eq(r->compacted.removed, 2 * (sessions - 1) + 2);
	cr_assert_eq(rig_see(r, "$sessions", false).records, r->backend == ON_POSTGRES ? 1u + 2 : 1u);
	cr_assert_eq(rig_see(r, "$grants-carts", false).records, 2u);
	check_fences(r, 3, 3);
	rig_compact(r);
	cr_assert_eq(rig_see(r, "$sessions", false).records, r->backend == ON_POSTGRES ? 1u + 2 : 1u);
	if (r->backend == MEMORY)
		return;
	journal_close(r->journal);
	mailbox_drain(&r->mailbox);
	int64_t read = metric_get(METRIC_STORAGE_READ_RECORDS);
	metric_set(METRIC_FILE_INDEX_MARK, -1);
	rig_start(r);
	if (r->backend == ON_FILE)
		cr_assert_eq((uint64_t)metric_get(METRIC_FILE_INDEX_MARK), journal_head(r->journal));
	read = metric_get(METRIC_STORAGE_READ_RECORDS) - read;
	/* The tree's thread, which is under way by now, reads some hundreds. */
	cr_assert_lt(read, 1000, "%lld records were read at the start", (long long)read);
	check_fences(r, 3, 3);
	sessions_all(r, sessions, sessions + 1, false);
	cr_assert_eq(claim(r, sessions, 1), 4u, "epochs go on");
	check_fences(r, 3, 4);
}

static void write_offset(struct rig *r, const struct journal_fence *fence, uint32_t partition, uint64_t position)
{
	struct journal_group_offset offset = {
		.group = SPAN("g"), .partition = partition, .partitions = 2, .position = position};
	struct append_refusal refusal = {0};
	struct append *a;
	cr_assert_eq(journal_group_offset_new(r->journal, &offset, fence, &a, &refusal), ERR_OK, "%s",
		     refusal.err.text);
	rig_give(r, a);
	cr_assert_eq(r->code, ERR_OK);
}

static void on_group_loaded(struct group_loaded *loaded, const struct err *err, void *arg)
{
	uint64_t *below = arg;
	cr_assert(!err && loaded->hand);
	*below = group_below(loaded->hand);
}

COMPACT(keeps_the_newest_offset_of_a_partition_alone)
{
	struct journal_fence fence = {.service = CARTS};
	sessions_all(r, 0, 1, false);
	fence.epoch = claim(r, 0, 0);
	for (uint64_t n = 1; n <= 20; n++)
		write_offset(r, &fence, n % 2, n);
	rig_append(r, "other", "x", false);
	rig_compact(r);
	cr_assert_eq(r->compacted.removed, 18u);
	for (uint32_t partition = 0; partition < 2; partition++) {
		uint64_t below = 0;
		cr_assert_eq(rig_see(r, partition ? "$group.1-g" : "$group-g", false).records, 1u);
		group_load(r->journal,
			   &(struct group_load){.group = SPAN("g"), .partition = partition, .window = 1},
			   &r->mailbox, on_group_loaded, &below);
		for (int i = 0; i < 1000 && !below; i++) {
			usleep(1000);
			mailbox_drain(&r->mailbox);
		}
		cr_assert_eq(below, partition ? 19u : 20u);
	}
}

/* No rule, no act: what became needless is reason enough. */
COMPACT(by_itself_takes_what_many_ended_sessions_leave)
{
	journal_close(r->journal);
	mailbox_drain(&r->mailbox);
	r->every_ms = 10;
	rig_start(r);
	size_t sessions = 6000, left = sessions / 2;
	live_through(r, sessions);
	for (int i = 0; i < 3000 && rig_see(r, "$sessions", false).records > left; i++)
		usleep(10000);
	cr_assert_leq(rig_see(r, "$sessions", false).records, left, "ended sessions are kept");
	check_fences(r, 3, 3);
}

/* While the beginning cannot go, the end stays: here as the beginning lies in a part that is not due. */
Test(compact, the_end_of_a_session_does_not_go_before_its_beginning)
{
	struct spent_record list[] = {{.position = 3, .after = SPENT_NONE}, {.position = 9, .after = 3}};
	struct spent s = {.list = list, .n = 2};
	uint64_t first;
	cr_assert_not(spent_take(&s, 9));
	cr_assert(spent_take(&s, 3));
	cr_assert(spent_take(&s, 9));
	spent_give_back(&s, 0, 5);
	cr_assert_not(spent_take(&s, 9), "the beginning stays after all");
	cr_assert_not(spent_take(&s, 4));
	cr_assert_eq(spent_between(&s, 4, 10, &first), 1u);
	cr_assert_eq(first, 9u);
	cr_assert_eq(spent_between(&s, 4, 9, &first), 0u);
	cr_assert_eq(first, SPENT_NONE);
	struct spent_record alone = {.position = 9, .after = 3};
	s = (struct spent){.list = &alone, .n = 1};
	cr_assert_not(spent_take(&s, 9), "its beginning is not known to be gone");
}

Test(compact, asked_of_a_journal_without_threads_says_so)
{
	struct bench b;
	struct err err = {0};
	bench_open(&b);
	cr_assert_eq(journal_compact(b.journal, SPAN("me"), &b.mailbox, on_compacted, NULL, &err),
		     ERR_UNSUPPORTED);
	bench_close(&b);
}
