/* The indexer: moves the tables of newest records into the index, a table at a time, so that no commit
 * waits for it, unless it has fallen so far behind that memory would grow without bound. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>
#include <time.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/must.h"
#include "storage/file/file.h"

/* A table may grow to this many times its size before appends wait for the one being moved. */
#define TABLE_GROWTH 4
/* How long compaction waits for the index to have what it removes. */
#define INDEX_WAIT_S 30

static bool table_is_due(const struct file_store *s, const struct recent *table, size_t times)
{
	return table->log_bytes >= times * s->options.recent_bytes ||
	       table->n >= times * s->options.recent_records;
}

enum err_code file_index_table(struct file_store *s, const struct recent *table, struct err *err)
{
	struct index_mark mark = {.position = table->first + table->n - 1,
				  .segment = table->frame_segment,
				  .frame_offset = table->frame_offset};
	struct window_record found;
	struct record_view record;
	memcpy(mark.journal_id, s->journal_id, 16);
	enum err_code code = file_fetch(&s->indexer_window, mark.position, &found, err);
	if (!code)
		code = record_decode_trusted(found.entry, &record, err);
	if (!code)
		record_leaf(&record, mark.leaf);
	file_window_trim(&s->indexer_window);
	if (code)
		return code;
	/* Held, for the writer may begin another one meanwhile. */
	struct segment *segment;
	code = file_segment_get(&s->segments, mark.position, &segment, err);
	if (code)
		return code;
	bool last = segment == file_segments_last(&s->segments);
	int fault = s->options.index_fault ? atomic_load(s->options.index_fault) : ERR_OK;
	code = fault ? err_set(err, (enum err_code)fault, "index: a test lets it fail")
		     : file_index_write(s->index, table, &mark, last ? segment : NULL, err);
	file_segment_put(&s->segments, segment);
	if (!code)
		metric_set(METRIC_FILE_INDEX_MARK, (int64_t)mark.position + 1);
	return code;
}

/* Takes the table that is being filled, unless one is in hand from an attempt that failed. */
static struct recent *take_table(struct file_store *s)
{
	must(pthread_rwlock_wrlock(&s->lock) == 0);
	if (!s->moving && s->filling->n > 0) {
		s->moving = s->filling;
		s->filling = file_recent_new(s->moving->first + s->moving->n);
	}
	struct recent *table = s->moving;
	must(pthread_rwlock_unlock(&s->lock) == 0);
	return table;
}

static void drop_table(struct file_store *s)
{
	must(pthread_rwlock_wrlock(&s->lock) == 0);
	struct recent *table = s->moving;
	s->moving = NULL;
	must(pthread_rwlock_unlock(&s->lock) == 0);
	file_recent_unref(table);
}

static enum err_code move_one(struct file_store *s, struct err *err)
{
	struct recent *table = take_table(s);
	if (!table)
		return ERR_OK;
	struct mono_time begun = clock_mono(s->clock);
	enum err_code code = file_index_table(s, table, err);
	metric_set(METRIC_FILE_INDEX_FAILING, code != ERR_OK);
	if (code) {
		metric_add(METRIC_FILE_INDEX_ERRORS, 1);
		if (code == ERR_CORRUPT)
			file_index_condemn(s->index_dir);
		return code;
	}
	metric_observe_us(METRIC_FILE_INDEX_SECONDS, mono_since_us(clock_mono(s->clock), begun));
	metric_add(METRIC_FILE_INDEXED, (int64_t)table->n);
	drop_table(s);
	return ERR_OK;
}

enum err_code file_index_now(struct storage *storage, struct err *err)
{
	struct file_store *s = file_store_of(storage);
	must(!s->indexer_runs);
	enum err_code code = move_one(s, err); /* one that an attempt before left behind */
	return code ? code : move_one(s, err);
}

/* Waits to be woken, or for the time to pass; false when it is to stop. After a failure only time wakes it:
 * whoever waits is told of the failure meanwhile. */
static bool wait_for_work(struct file_store *s)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += FILE_INDEX_EVERY_MS % 1000 * 1000000L;
	until.tv_sec += FILE_INDEX_EVERY_MS / 1000 + until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	must(pthread_mutex_lock(&s->indexer_lock) == 0);
	while ((!s->indexer_asked || s->indexer_err.code) && !s->indexer_stop)
		if (pthread_cond_timedwait(&s->indexer_wake, &s->indexer_lock, &until) == ETIMEDOUT)
			break;
	s->indexer_asked = false;
	bool go_on = !s->indexer_stop;
	must(pthread_mutex_unlock(&s->indexer_lock) == 0);
	return go_on;
}

static void *indexer_main(void *arg)
{
	struct file_store *s = file_store_of(arg);
	while (wait_for_work(s)) {
		struct err err = {0};
		move_one(s, &err);
		must(pthread_mutex_lock(&s->indexer_lock) == 0);
		if (err.code && !s->indexer_err.code)
			log_warn(err.code == ERR_CORRUPT
					 ? "the index is damaged, a restart makes it anew: appends go on as long "
					   "as there is room in memory"
					 : "the index could not be written, will be tried again: appends go on "
					   "as long as there is room in memory",
				 LOG_ERR(&err));
		else if (!err.code && s->indexer_err.code)
			log_info("the index can be written again", LOG_STR("index", s->index_dir));
		s->indexer_err = err;
		must(pthread_cond_broadcast(&s->indexer_done) == 0);
		must(pthread_mutex_unlock(&s->indexer_lock) == 0);
	}
	return NULL;
}

void file_indexer_start(struct file_store *s)
{
	if (s->options.index_by_hand || s->read_only)
		return;
	must(pthread_create(&s->indexer, NULL, indexer_main, s) == 0);
	s->indexer_runs = true;
}

void file_indexer_stop(struct file_store *s)
{
	if (!s->indexer_runs)
		return;
	must(pthread_mutex_lock(&s->indexer_lock) == 0);
	s->indexer_stop = true;
	must(pthread_cond_signal(&s->indexer_wake) == 0);
	must(pthread_mutex_unlock(&s->indexer_lock) == 0);
	must(pthread_join(s->indexer, NULL) == 0);
	s->indexer_runs = false;
}

/* Under indexer_lock: is there still a table in hand? */
static bool still_moving(struct file_store *s)
{
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	bool moving = s->moving != NULL;
	must(pthread_rwlock_unlock(&s->lock) == 0);
	return moving;
}

static uint64_t indexed_below(struct file_store *s)
{
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	uint64_t below = s->moving ? s->moving->first : s->filling->first;
	must(pthread_rwlock_unlock(&s->lock) == 0);
	return below;
}

enum err_code file_indexer_wait(struct file_store *s, uint64_t below, struct err *err)
{
	struct timespec until;
	if (indexed_below(s) >= below)
		return ERR_OK;
	if (!s->indexer_runs)
		return file_index_now(&s->base, err);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += INDEX_WAIT_S;
	bool in_time = true;
	must(pthread_mutex_lock(&s->indexer_lock) == 0);
	while (in_time && !s->indexer_stop && indexed_below(s) < below) {
		s->indexer_asked = true;
		must(pthread_cond_signal(&s->indexer_wake) == 0);
		in_time = pthread_cond_timedwait(&s->indexer_done, &s->indexer_lock, &until) == 0;
	}
	must(pthread_mutex_unlock(&s->indexer_lock) == 0);
	if (indexed_below(s) >= below)
		return ERR_OK;
	return err_set(err, ERR_UNAVAILABLE, "the index of %s lags behind its log: try again", s->dir);
}

enum err_code file_indexer_keep_up(struct file_store *s, struct err *err)
{
	/* Only this thread fills the table, but the indexer may take it away. */
	must(pthread_rwlock_rdlock(&s->lock) == 0);
	bool due = table_is_due(s, s->filling, 1), late = table_is_due(s, s->filling, TABLE_GROWTH);
	must(pthread_rwlock_unlock(&s->lock) == 0);
	if (!due)
		return ERR_OK;
	if (!s->indexer_runs)
		return file_index_now(&s->base, err);
	enum err_code code = ERR_OK;
	must(pthread_mutex_lock(&s->indexer_lock) == 0);
	s->indexer_asked = true;
	must(pthread_cond_signal(&s->indexer_wake) == 0);
	if (late) {
		metric_add(METRIC_FILE_INDEX_WAITS, 1);
		while (still_moving(s) && !s->indexer_err.code)
			pthread_cond_wait(&s->indexer_done, &s->indexer_lock);
		code = s->indexer_err.code;
		if (code)
			*err = s->indexer_err;
	}
	must(pthread_mutex_unlock(&s->indexer_lock) == 0);
	return code;
}
