/* The journal: opening, closing, what it is; wires sequencer, pool and tail together. */
#include <config.h>

#include "journal/journal.h"

#include "base/must.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/plant.h"
#include "base/random.h"
#include "journal/internal.h"
#include "journal/read.h"
#include "journal/withhold.h"

#define JOURNAL_MAGIC 0x6a726e6cu
#define READER_THREADS 2
#define NOT_BEFORE_WAIT_MS 5000
#define SLOW_APPEND_MS 1000

uint64_t journal_head(const struct journal *j)
{
	return atomic_load(&j->head);
}

struct journal_cursor journal_cursor_at(const struct journal *j, uint64_t position)
{
	struct journal_cursor c = {.incarnation = cuts_incarnation(j->cuts), .position = position};
	memcpy(c.journal_id, j->journal_id, sizeof(c.journal_id));
	return c;
}

void journal_info(const struct journal *j, struct journal_info *ret)
{
	*ret = (struct journal_info){.head = journal_cursor_at(j, journal_head(j)),
				     .last_commit = {atomic_load(&j->last_commit_us)},
				     .storage_name = j->storage->ops->name,
				     .takes_appends = sequencer_takes_appends(j->sequencer) &&
						      storage_ready(j->storage, NULL)};
}

enum err_code journal_cursor_check(const struct journal *j, const struct journal_cursor *cursor,
				   bool may_wait, uint64_t *ret_fork, struct err *err)
{
	if (memcmp(cursor->journal_id, j->journal_id, sizeof(j->journal_id)) != 0) {
		char theirs[UUID_TEXT_BYTES], ours[UUID_TEXT_BYTES];
		uuid_format(cursor->journal_id, theirs);
		uuid_format(j->journal_id, ours);
		return err_set(err, ERR_INVALID, "cursor is of journal %s, this is %s", theirs, ours);
	}
	uint64_t incarnation = cuts_incarnation(j->cuts), fork = cuts_fork_of(j->cuts, cursor->incarnation);
	if (fork == UINT64_MAX) {
		if (may_wait || cursor->position <= journal_head(j))
			return ERR_OK;
		fork = journal_head(j);
	}
	if (cursor->position <= fork || plant("fork-ignored"))
		return ERR_OK;
	if (ret_fork)
		*ret_fork = fork;
	return err_set(err, ERR_CONFLICT,
		       "cursor (incarnation %llu, position %llu) lies beyond a cut of this journal's history "
		       "(incarnation %llu): both are the same up to position %llu, go on from there",
		       (unsigned long long)cursor->incarnation, (unsigned long long)cursor->position,
		       (unsigned long long)incarnation, (unsigned long long)fork);
}

void journal_committed(struct journal *j, uint64_t head, struct wall_time last_commit,
		       struct append **appends, size_t count)
{
	must(head >= journal_head(j));
	atomic_store(&j->last_commit_us, last_commit.us);
	atomic_store(&j->head, head);
	metric_set(METRIC_JOURNAL_HEAD, (int64_t)head);
	/* What an act withholds must not be given from the ring either: it begins anew behind the batch. */
	bool withheld = false;
	for (size_t i = 0; i < count && !plant("erased-served-from-tail"); i++)
		withheld = withheld || withhold_is_in(appends[i]);
	if (count > 0 && !withheld)
		tail_publish(j->tail, appends, count, head);
	else
		tail_skip(j->tail, head);
	pool_head_moved(j->pool, head);
	if (j->tree)
		tree_head_moved(j->tree, count > 0);
}

static void on_committed(void *arg, uint64_t head, struct wall_time last_commit, struct append **appends,
			 size_t count)
{
	journal_committed(OBJ_CAST(struct journal, arg, JOURNAL_MAGIC), head, last_commit, appends, count);
}

/* ---- other writers --------------------------------------------------------------------------- */

#define WATCH_MS 1000

static void *others_thread(void *arg)
{
	struct journal *j = OBJ_CAST(struct journal, arg, JOURNAL_MAGIC);
	uint64_t seen = journal_head(j), head = 0;
	while (!atomic_load(&j->others_over)) {
		struct err err = {0};
		uint64_t known = journal_head(j) > seen ? journal_head(j) : seen;
		enum err_code code = storage_watch(j->storage, known, WATCH_MS, &head, &err);
		if (code == ERR_UNSUPPORTED)
			break;
		if (code || head <= known)
			continue;
		seen = head;
		sequencer_look(j->sequencer);
	}
	return NULL;
}

static void others_start(struct journal *j)
{
	int r = pthread_create(&j->others, NULL, others_thread, j);
	must(r == 0);
	j->others_run = true;
}

static void others_stop(struct journal *j)
{
	if (!j->others_run)
		return;
	atomic_store(&j->others_over, true);
	storage_watch_end(j->storage);
	pthread_join(j->others, NULL);
	j->others_run = false;
}

/* ---- opening and closing --------------------------------------------------------------------- */

static void journal_free(struct journal *j)
{
	compactor_free(j->compactor);
	tree_free(j->tree);
	sequencer_free(j->sequencer);
	cuts_free(j->cuts);
	pool_free(j->pool);
	tail_free(j->tail);
	storage_close(j->storage);
	j->magic = 0;
	mem_free(j);
}

static enum err_code open_parts(struct journal *j, const struct journal_config *config, struct err *err)
{
	struct storage_head head;
	storage_head(j->storage, &head);
	memcpy(j->journal_id, head.journal_id, sizeof(j->journal_id));
	atomic_init(&j->head, head.head);
	atomic_init(&j->last_commit_us, head.last_commit.us);
	metric_set(METRIC_JOURNAL_HEAD, (int64_t)head.head);
	j->tail = tail_new(head.head);
	if (config->threads && tree_new(j, config->signing_key, &j->tree, err))
		return err->code;
	unsigned threads = config->reader_threads ? config->reader_threads : READER_THREADS;
	struct pool_config pool = {
		.storage = j->storage, .clock = j->clock, .thread_count = config->threads ? threads : 0};
	enum err_code code = pool_new(&pool, &j->pool, err);
	if (code)
		return code;
	struct sequencer_config sequencer = {
		.storage = j->storage,
		.clock = j->clock,
		.slow_append_us = (config->slow_append_ms ? config->slow_append_ms : SLOW_APPEND_MS) * 1000,
		.committed = on_committed,
		.arg = j,
		.cuts = j->cuts,
		.seed = {j->seed[0], j->seed[1]}};
	code = sequencer_new(&sequencer, &j->sequencer, err);
	if (code)
		pool_stop(j->pool);
	return code;
}

static enum err_code open_compactor(struct journal *j, const struct journal_config *config, struct err *err)
{
	struct compactor_config compactor = {.journal = j,
					     .min_age_us = config->compact_min_age_ms * 1000,
					     .every_ms = config->compact_every_ms,
					     .rate_bytes_second = config->compact_rate_bytes};
	return config->threads ? compactor_new(&compactor, &j->compactor, err) : ERR_OK;
}

enum err_code journal_open(const struct journal_config *config, struct journal **ret, struct err *err)
{
	must(config);
	must(ret);
	must(!config->storage != !config->storage_uri);
	struct journal *j = mem_xalloc(sizeof(*j));
	j->magic = JOURNAL_MAGIC;
	j->cuts = cuts_new();
	j->clock = config->clock ? config->clock : &clock_system;
	j->threads = config->threads;
	j->seed[0] = random_u64();
	j->seed[1] = random_u64();
	int64_t wait_ms = config->not_before_wait_ms ? config->not_before_wait_ms : NOT_BEFORE_WAIT_MS;
	j->not_before_wait_us = wait_ms * 1000;
	enum err_code code = ERR_OK;
	j->storage = config->storage;
	if (!j->storage) {
		struct storage_config storage = {.clock = j->clock, .address = config->address};
		code = storage_open(config->storage_uri, &storage, &j->storage, err);
	}
	if (!code)
		code = open_compactor(j, config, err);
	if (!code)
		code = open_parts(j, config, err);
	if (code) {
		journal_free(j);
		return code;
	}
	if (config->threads) {
		sequencer_start(j->sequencer);
		tree_start(j->tree);
		compactor_start(j->compactor);
		others_start(j);
	}
	*ret = j;
	return ERR_OK;
}

bool journal_step(struct journal *j)
{
	must(!j->threads);
	bool any = sequencer_step(j->sequencer);
	return pool_step(j->pool) || any;
}

void journal_stop(struct journal *j)
{
	must(j->magic == JOURNAL_MAGIC);
	if (j->stopped)
		return;
	j->stopped = true;
	compactor_stop(j->compactor);
	others_stop(j);
	tree_stop(j->tree);
	sequencer_stop(j->sequencer);
	pool_stop(j->pool);
}

void journal_close(struct journal *j)
{
	if (!j)
		return;
	journal_stop(j);
	journal_free(j);
}

/* ---- appending ------------------------------------------------------------------------------- */

enum err_code journal_append(struct journal *j, struct append **append, struct mailbox *mailbox,
			     append_done_fn *done, void *arg, struct err *err)
{
	must(append);
	must(*append);
	must(mailbox);
	must(done);
	struct append *a = *append;
	a->mailbox = mailbox;
	a->done = done;
	a->arg = arg;
	return sequencer_append(j->sequencer, append, err);
}

bool journal_append_cancel(struct journal *j, struct append *a)
{
	return sequencer_cancel(j->sequencer, a);
}

bool journal_has_room(const struct journal *j)
{
	return sequencer_has_room(j->sequencer);
}

void journal_when_room(struct journal *j, struct journal_room *room)
{
	sequencer_when_room(j->sequencer, room);
}

void journal_measure(struct journal *j)
{
	uint64_t greatest;
	size_t behind;
	must(j->magic == JOURNAL_MAGIC);
	tail_lag(j->tail, &greatest, &behind);
	metric_set(METRIC_SUBSCRIPTION_LAG_RECORDS, (int64_t)greatest);
	metric_set(METRIC_SUBSCRIPTIONS_BEHIND, (int64_t)behind);
}
