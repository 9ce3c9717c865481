/* The tree's thread: see tree.h. */
#include <config.h>

#include "journal/tree.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/internal.h"
#include "journal/tree_key.h"
#include "journal/tree_tiles.h"

/* It waits so long for more before it goes on: pages are larger then, and it is woken less often. What others have
 * appended may come as a tile that they have made. */
#define TRAIL_MS 20
#define TRAIL_OTHERS_MS 500
/* After trouble with the storage. */
#define AGAIN_MS 500
#define KEY_NAME_BYTES (sizeof("cairn/") + UUID_TEXT_BYTES)
#define KEY_TEXT_BYTES (VERIFY_NAME_BYTES + 80)

struct ask {
	struct task task;
	struct ask *next;
	struct mailbox *mailbox;
	tree_done_fn *done;
	void *arg;
	struct tree_query query;
	int64_t deadline_us; /* monotonic */
	struct tree_answer answer;
	struct err err;
	struct buf note;
};

struct tree {
	struct journal *journal;
	struct storage_reader *reader;
	struct tree_key *key; /* or NULL */
	struct buf key_text;
	bool shared; /* other processes append to the storage */
	pthread_t thread;
	bool started;

	pthread_mutex_t lock;
	pthread_cond_t wake, moved;
	struct ask *first, **last_next; /* under lock: those that the thread has not seen */
	unsigned waiters;		/* under lock: in tree_reached() */
	bool urged;			/* under lock: one of them, or an ask, has come */
	atomic_bool stopping, idle, ours;
	atomic_ullong size;

	/* The thread's own. */
	struct tiles tiles;
	struct ask *asks; /* that wait for the tree */
	struct err trouble;
};

static int64_t now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Under lock. False: the time is over. */
static bool wait_until(struct tree *t, pthread_cond_t *cond, int64_t until_us)
{
	struct timespec until = {until_us / 1000000, until_us % 1000000 * 1000};
	return pthread_cond_timedwait(cond, &t->lock, &until) != ETIMEDOUT;
}

/* ---- answering --------------------------------------------------------------------------------- */

static void ask_run(struct task *task)
{
	struct ask *a = CONTAINER_OF(task, struct ask, task);
	a->done(a->err.code ? NULL : &a->answer, a->err.code ? &a->err : NULL, a->arg);
	buf_release(&a->note);
	mem_free(a);
}

static void ask_answer(struct ask *a)
{
	if (!a->err.code)
		metric_add(METRIC_TREE_PROOFS, 1);
	a->task.run = ask_run;
	mailbox_post(a->mailbox, &a->task);
}

static uint64_t needed(const struct tree_query *q)
{
	uint64_t most = q->size > q->not_before ? q->size : q->not_before;
	if (q->what == TREE_CONSISTENCY && q->old_size > most)
		most = q->old_size;
	return q->what == TREE_INCLUSION && q->position >= most ? q->position + 1 : most;
}

static enum err_code prove(struct tree *t, struct ask *a)
{
	struct tree_source s = tiles_source(&t->tiles);
	struct tree_answer *r = &a->answer;
	const struct tree_query *q = &a->query;
	r->size = q->size ? q->size : t->tiles.size;
	enum err_code code = tree_root(&s, r->size, &r->root, &a->err);
	if (!code && q->what == TREE_INCLUSION) {
		code = s.node(s.arg, 0, q->position, &r->leaf, &a->err);
		if (!code)
			code = tree_inclusion(&s, q->position, r->size, &r->proof, &a->err);
	} else if (!code && q->what == TREE_CONSISTENCY) {
		code = tree_root(&s, q->old_size, &r->old_root, &a->err);
		if (!code)
			code = tree_consistency(&s, q->old_size, r->size, &r->proof, &a->err);
	}
	if (code || !t->key)
		return code;
	code = tree_key_checkpoint(t->key, r->size, &r->root, &a->note);
	if (code)
		return err_set(&a->err, code, "no memory for a checkpoint");
	r->note = buf_span(&a->note);
	r->key = buf_span(&t->key_text);
	return ERR_OK;
}

/* Answers what can be answered now; *ret_deadline_us is when the first of the others gives up. */
static void answer_asks(struct tree *t, int64_t *ret_deadline_us)
{
	struct ask **link = &t->asks;
	int64_t now = now_us();
	*ret_deadline_us = INT64_MAX;
	while (*link) {
		struct ask *a = *link;
		uint64_t need = needed(&a->query);
		if (need <= t->tiles.size) {
			prove(t, a);
		} else if (atomic_load(&t->stopping)) {
			err_set(&a->err, ERR_UNAVAILABLE, "the journal is stopping");
		} else if (now >= a->deadline_us) {
			err_set(&a->err, ERR_UNAVAILABLE,
				"the tree has come to %llu records and not to %llu in time%s%s",
				(unsigned long long)t->tiles.size, (unsigned long long)need,
				t->trouble.code ? ": " : "", t->trouble.text);
		} else {
			*ret_deadline_us = a->deadline_us < *ret_deadline_us ? a->deadline_us : *ret_deadline_us;
			link = &a->next;
			continue;
		}
		*link = a->next;
		ask_answer(a);
	}
}

/* ---- the thread -------------------------------------------------------------------------------- */

static void set_size(struct tree *t)
{
	atomic_store(&t->size, t->tiles.size);
	metric_set(METRIC_TREE_SIZE, (int64_t)t->tiles.size);
	pthread_mutex_lock(&t->lock);
	if (t->waiters)
		pthread_cond_broadcast(&t->moved);
	pthread_mutex_unlock(&t->lock);
}

/* Said once for each kind of trouble, and when it is over. */
static void note_trouble(struct tree *t, const struct err *err)
{
	if (err->code && strcmp(err->text, t->trouble.text) != 0)
		log_warn("the tree does not go on; it is tried again", LOG_U64("position", t->tiles.size),
			 LOG_ERR(err));
	else if (!err->code && t->trouble.code)
		log_info("the tree goes on", LOG_U64("position", t->tiles.size));
	t->trouble = *err;
}

/* Takes what was asked for meanwhile. */
static void take_asks(struct tree *t)
{
	pthread_mutex_lock(&t->lock);
	struct ask **link = &t->asks;
	while (*link)
		link = &(*link)->next;
	*link = t->first;
	t->first = NULL;
	t->last_next = &t->first;
	t->urged = false;
	pthread_mutex_unlock(&t->lock);
}

/* Sleeps until there is something to do, or the time. `until_us` INT64_MAX: no time. */
static void sleep_until(struct tree *t, int64_t until_us, bool until_head_moves)
{
	uint64_t size = t->tiles.size;
	bool in_time = true;
	pthread_mutex_lock(&t->lock);
	while (in_time && !atomic_load(&t->stopping) && !t->urged) {
		/* Each time: a commit that was counted already may have taken it away and woken us for nothing. */
		atomic_store(&t->idle, until_head_moves);
		if (until_head_moves && journal_head(t->journal) > size)
			break;
		if (until_us == INT64_MAX)
			pthread_cond_wait(&t->wake, &t->lock);
		else
			in_time = wait_until(t, &t->wake, until_us);
	}
	atomic_store(&t->idle, false);
	pthread_mutex_unlock(&t->lock);
}

/* Up to the head, page by page, with answers in between. */
static void catch_up(struct tree *t)
{
	struct err err = {0};
	int64_t deadline_us;
	while (!err.code && !atomic_load(&t->stopping)) {
		uint64_t head = journal_head(t->journal);
		if (t->tiles.size >= head || tiles_step(&t->tiles, head, t->shared, &err))
			break;
		set_size(t);
		take_asks(t);
		answer_asks(t, &deadline_us);
	}
	if (!atomic_load(&t->stopping))
		note_trouble(t, &err);
}

static bool resume(struct tree *t)
{
	struct err err = {0};
	bool done = tiles_resume(&t->tiles, journal_head(t->journal), &err) == ERR_OK;
	if (!atomic_load(&t->stopping))
		note_trouble(t, &err);
	if (done)
		set_size(t);
	else
		t->tiles.size = 0;
	return done;
}

static void *tree_main(void *arg)
{
	struct tree *t = arg;
	bool resumed = false;
	while (!atomic_load(&t->stopping)) {
		int64_t deadline_us;
		resumed = resumed || resume(t);
		take_asks(t);
		if (resumed)
			catch_up(t);
		answer_asks(t, &deadline_us);
		if (t->trouble.code) {
			int64_t again_us = now_us() + AGAIN_MS * 1000;
			sleep_until(t, again_us < deadline_us ? again_us : deadline_us, false);
			continue;
		}
		sleep_until(t, deadline_us, true);
		/* There is something: a little later there is more. Who asks is not kept waiting. */
		bool ours = atomic_exchange(&t->ours, false) || !t->shared;
		if (journal_head(t->journal) > t->tiles.size && !t->asks)
			sleep_until(t, now_us() + (ours ? TRAIL_MS : TRAIL_OTHERS_MS) * 1000, false);
	}
	return NULL;
}

void tree_head_moved(struct tree *t, bool ours)
{
	if (ours && !atomic_load_explicit(&t->ours, memory_order_relaxed))
		atomic_store(&t->ours, true);
	if (!atomic_load(&t->idle) || !atomic_exchange(&t->idle, false))
		return;
	pthread_mutex_lock(&t->lock);
	pthread_cond_signal(&t->wake);
	pthread_mutex_unlock(&t->lock);
}

bool tree_reached(struct tree *t, uint64_t position, int64_t ms)
{
	int64_t until_us = now_us() + ms * 1000;
	bool in_time = true;
	pthread_mutex_lock(&t->lock);
	t->waiters++;
	t->urged = true;
	pthread_cond_signal(&t->wake);
	while (atomic_load(&t->size) < position && in_time && !atomic_load(&t->stopping))
		in_time = wait_until(t, &t->moved, until_us);
	t->waiters--;
	pthread_mutex_unlock(&t->lock);
	return atomic_load(&t->size) >= position;
}

/* ---- asking ------------------------------------------------------------------------------------ */

static enum err_code check_query(const struct journal *j, const struct tree_query *q, struct err *err)
{
	uint64_t head = journal_head(j), size = q->size ? q->size : UINT64_MAX;
	/* A position that the caller knows of will come. */
	if (q->not_before > head)
		head = q->not_before;
	if (q->size > head)
		return err_set(err, ERR_NOT_FOUND, "there is no tree of %llu records: the journal has %llu",
			       (unsigned long long)q->size, (unsigned long long)head);
	if (q->what == TREE_INCLUSION && q->position >= head)
		return err_set(err, ERR_NOT_FOUND, "there is no record at position %llu: the journal has %llu",
			       (unsigned long long)q->position, (unsigned long long)head);
	if (q->what == TREE_INCLUSION && q->position >= size)
		return err_set(err, ERR_INVALID, "position %llu is not in a tree of %llu records",
			       (unsigned long long)q->position, (unsigned long long)size);
	if (q->what == TREE_CONSISTENCY && q->old_size > head)
		return err_set(err, ERR_NOT_FOUND, "there is no tree of %llu records: the journal has %llu",
			       (unsigned long long)q->old_size, (unsigned long long)head);
	if (q->what == TREE_CONSISTENCY && q->old_size > size)
		return err_set(err, ERR_INVALID, "a tree of %llu records is not the beginning of one of %llu",
			       (unsigned long long)q->old_size, (unsigned long long)size);
	return ERR_OK;
}

enum err_code tree_ask(struct journal *j, const struct tree_query *query, struct mailbox *mailbox,
		       tree_done_fn *done, void *arg, struct err *err)
{
	struct tree *t = j->tree;
	if (!t)
		return err_set(err, ERR_UNSUPPORTED, "this journal has no thread that makes its tree");
	if (check_query(j, query, err))
		return err->code;
	struct ask *a = mem_xalloc(sizeof(*a));
	a->mailbox = mailbox;
	a->done = done;
	a->arg = arg;
	a->query = *query;
	if (!query->size && query->not_before < journal_head(j))
		a->query.not_before = journal_head(j);
	a->deadline_us = now_us() + j->not_before_wait_us;
	buf_init(&a->note, VERIFY_NOTE_BYTES);
	pthread_mutex_lock(&t->lock);
	bool stopping = atomic_load(&t->stopping);
	if (!stopping) {
		*t->last_next = a;
		t->last_next = &a->next;
		t->urged = true;
		pthread_cond_signal(&t->wake);
	}
	pthread_mutex_unlock(&t->lock);
	if (stopping) {
		mem_free(a);
		return err_set(err, ERR_UNAVAILABLE, "the journal is stopping");
	}
	return ERR_OK;
}

/* ---- beginning and ending ---------------------------------------------------------------------- */

static enum err_code open_key(struct tree *t, const char *signing_key, struct err *err)
{
	struct journal *j = t->journal;
	char id[UUID_TEXT_BYTES], name[KEY_NAME_BYTES];
	const char *directory = storage_directory(j->storage);
	enum err_code code = ERR_OK;
	uuid_format(j->journal_id, id);
	snprintf(name, sizeof(name), "cairn/%s", id);
	if (signing_key) {
		code = tree_key_load(span_str(signing_key), span_str(name), &t->key, err);
	} else if (directory) {
		char *path = mem_xprintf("%s/signing-key.pem", directory);
		code = tree_key_keep(path, span_str(name), &t->key, err);
		mem_free(path);
	} else if (!t->shared) {
		t->key = tree_key_new(span_str(name));
	}
	if (!code && t->key)
		code = verify_key_text(tree_key_public(t->key), &t->key_text);
	return code;
}

enum err_code tree_new(struct journal *j, const char *signing_key, struct tree **ret, struct err *err)
{
	struct tree *t = mem_xalloc(sizeof(*t));
	t->journal = j;
	t->shared = storage_is_shared(j->storage);
	buf_init(&t->key_text, KEY_TEXT_BYTES);
	enum err_code code = open_key(t, signing_key, err);
	if (!code)
		code = storage_reader_open(j->storage, &t->reader, err);
	if (code) {
		tree_key_free(t->key);
		buf_release(&t->key_text);
		mem_free(t);
		return code;
	}
	tiles_init(&t->tiles, t->reader, &t->stopping);
	t->last_next = &t->first;
	pthread_condattr_t attr;
	must(pthread_condattr_init(&attr) == 0);
	must(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
	must(pthread_cond_init(&t->wake, &attr) == 0);
	must(pthread_cond_init(&t->moved, &attr) == 0);
	pthread_condattr_destroy(&attr);
	must(pthread_mutex_init(&t->lock, NULL) == 0);
	*ret = t;
	return ERR_OK;
}

void tree_start(struct tree *t)
{
	must(pthread_create(&t->thread, NULL, tree_main, t) == 0);
	t->started = true;
}

void tree_stop(struct tree *t)
{
	int64_t deadline_us;
	if (!t || !t->started)
		return;
	pthread_mutex_lock(&t->lock);
	atomic_store(&t->stopping, true);
	pthread_cond_broadcast(&t->wake);
	pthread_cond_broadcast(&t->moved);
	pthread_mutex_unlock(&t->lock);
	must(pthread_join(t->thread, NULL) == 0);
	t->started = false;
	take_asks(t);
	answer_asks(t, &deadline_us);
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	must(!t->started);
	tiles_release(&t->tiles);
	storage_reader_close(t->reader);
	tree_key_free(t->key);
	buf_release(&t->key_text);
	pthread_cond_destroy(&t->wake);
	pthread_cond_destroy(&t->moved);
	pthread_mutex_destroy(&t->lock);
	mem_free(t);
}
