/* The reader pool: see reader.h. */
#include <config.h>

#include "journal/reader.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "base/mem.h"
#include "base/metrics.h"
#include "base/must.h"

#define NOBODY_PARKED UINT64_MAX

struct pool_thread {
	struct pool *pool;
	struct storage_reader *reader;
	pthread_t thread;
};

struct pool {
	struct pool_config config;
	struct pool_thread *threads; /* one without a thread when thread_count is 0 */
	size_t thread_count;         /* of those that have a reader */
	size_t running;              /* of those that have a thread */

	atomic_ullong head;
	atomic_ullong parked_lowest; /* the lowest position anyone waits for */

	pthread_mutex_t lock; /* guards the rest, and all jobs */
	pthread_cond_t wake;
	struct list queue, parked;
	struct mono_time earliest; /* while jobs are parked, a thread that sleeps wakes then */
	bool stopping;
};

static void job_post(struct task *task)
{
	struct job *job = CONTAINER_OF(task, struct job, task);
	must(job->state == JOB_RUNNING);
	job->state = JOB_IDLE;
	job->done(job);
}

/* ---- parked jobs; all under the lock --------------------------------------------------------- */

static void queue_job(struct pool *p, struct job *job, bool in_time)
{
	list_remove(&job->node);
	job->in_time = in_time;
	job->state = JOB_QUEUED;
	list_push_back(&p->queue, &job->node);
}

/* Queues what has been reached, or has waited long enough; finds the lowest position still waited for,
 * and the earliest deadline (false if nothing is parked). */
static bool sweep_parked(struct pool *p, struct mono_time now, struct mono_time *ret_earliest)
{
	uint64_t head = atomic_load(&p->head), lowest = NOBODY_PARKED;
	bool any = false;
	struct list_node *next;
	for (struct list_node *n = list_first(&p->parked); n; n = next) {
		next = list_next(&p->parked, n);
		struct job *job = CONTAINER_OF(n, struct job, node);
		if (job->not_before <= head) {
			queue_job(p, job, true);
			continue;
		}
		if (p->stopping || mono_since_us(now, job->deadline) >= 0) {
			queue_job(p, job, false);
			continue;
		}
		if (job->not_before < lowest)
			lowest = job->not_before;
		if (!any || job->deadline.us < ret_earliest->us)
			*ret_earliest = job->deadline;
		any = true;
	}
	atomic_store(&p->parked_lowest, lowest);
	if (any)
		p->earliest = *ret_earliest;
	return any;
}

void pool_head_moved(struct pool *p, uint64_t head)
{
	atomic_store(&p->head, head);
	if (atomic_load(&p->parked_lowest) > head)
		return;
	pthread_mutex_lock(&p->lock);
	struct mono_time earliest;
	sweep_parked(p, clock_mono(p->config.clock), &earliest);
	pthread_mutex_unlock(&p->lock);
	pthread_cond_broadcast(&p->wake);
}

/* Under the lock. Who waits is announced before the head is read again: whoever moves it then sees it. */
static bool must_wait(struct pool *p, uint64_t not_before)
{
	if (not_before <= atomic_load(&p->head))
		return false;
	if (not_before < atomic_load(&p->parked_lowest))
		atomic_store(&p->parked_lowest, not_before);
	return not_before > atomic_load(&p->head);
}

void pool_submit(struct pool *p, struct job *job, uint64_t not_before, int64_t wait_us)
{
	must(job->state == JOB_IDLE);
	must(job->run);
	must(job->done);
	must(job->mailbox);
	job->task.run = job_post;
	job->in_time = true;
	job->refused = false;
	job->not_before = not_before;
	pthread_mutex_lock(&p->lock);
	if (p->stopping) {
		job->refused = true;
		job->state = JOB_RUNNING;
		pthread_mutex_unlock(&p->lock);
		mailbox_post(job->mailbox, &job->task);
		return;
	}
	bool wake = true;
	if (must_wait(p, not_before)) {
		job->deadline = clock_mono(p->config.clock);
		job->deadline.us += wait_us;
		job->state = JOB_PARKED;
		/* Only for a deadline that nobody knows of yet. */
		wake = list_empty(&p->parked) || job->deadline.us < p->earliest.us;
		if (wake)
			p->earliest = job->deadline;
		list_push_back(&p->parked, &job->node);
	} else {
		job->state = JOB_QUEUED;
		list_push_back(&p->queue, &job->node);
	}
	pthread_mutex_unlock(&p->lock);
	if (wake)
		pthread_cond_signal(&p->wake);
}

bool pool_withdraw(struct pool *p, struct job *job)
{
	pthread_mutex_lock(&p->lock);
	bool withdrawn = job->state == JOB_PARKED || job->state == JOB_QUEUED;
	if (withdrawn) {
		list_remove(&job->node);
		job->state = JOB_IDLE;
	}
	pthread_mutex_unlock(&p->lock);
	return withdrawn;
}

/* ---- running --------------------------------------------------------------------------------- */

/* Runs one job, if there is one; called and returns under the lock. */
static bool run_one(struct pool *p, struct storage_reader *reader)
{
	struct list_node *n = list_pop_front(&p->queue);
	if (!n)
		return false;
	struct job *job = CONTAINER_OF(n, struct job, node);
	job->state = JOB_RUNNING;
	pthread_mutex_unlock(&p->lock);
	job->run(job, reader, job->in_time);
	mailbox_post(job->mailbox, &job->task); /* the job may be gone from here on */
	pthread_mutex_lock(&p->lock);
	return true;
}

static void sleep_until(struct pool *p, struct mono_time now, struct mono_time until)
{
	int64_t us = mono_since_us(until, now);
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	int64_t nsec = t.tv_nsec + us % 1000000 * 1000;
	t.tv_sec += (time_t)(us / 1000000 + nsec / 1000000000);
	t.tv_nsec = (long)(nsec % 1000000000);
	int r = pthread_cond_timedwait(&p->wake, &p->lock, &t);
	must(r == 0 || r == ETIMEDOUT);
}

static void *pool_thread_main(void *arg)
{
	struct pool_thread *t = arg;
	struct pool *p = t->pool;
	pthread_mutex_lock(&p->lock);
	for (;;) {
		/* With nobody parked it sleeps until a job comes: a minute at most does no harm. */
		struct mono_time now = clock_mono(p->config.clock), earliest = {now.us + 60000000};
		sweep_parked(p, now, &earliest);
		if (run_one(p, t->reader))
			continue;
		if (p->stopping)
			break;
		sleep_until(p, now, earliest);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

bool pool_step(struct pool *p)
{
	must(p->running == 0);
	pthread_mutex_lock(&p->lock);
	struct mono_time now = clock_mono(p->config.clock), earliest;
	sweep_parked(p, now, &earliest);
	bool any = false;
	while (run_one(p, p->threads[0].reader))
		any = true;
	pthread_mutex_unlock(&p->lock);
	return any;
}

enum err_code pool_new(const struct pool_config *config, struct pool **ret, struct err *err)
{
	must(config->storage);
	must(config->clock);
	struct pool *p = mem_xalloc(sizeof(*p));
	size_t count = config->thread_count ? config->thread_count : 1;
	p->config = *config;
	p->threads = mem_xalloc(count * sizeof(*p->threads));
	list_init(&p->queue);
	list_init(&p->parked);
	atomic_init(&p->parked_lowest, NOBODY_PARKED);
	struct storage_head head;
	storage_head(config->storage, &head);
	atomic_init(&p->head, head.head);
	int r = pthread_mutex_init(&p->lock, NULL);
	must(r == 0);
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	must(r == 0);
	r = pthread_cond_init(&p->wake, &attr);
	must(r == 0);
	pthread_condattr_destroy(&attr);
	for (; p->thread_count < count; p->thread_count++) {
		struct pool_thread *t = &p->threads[p->thread_count];
		t->pool = p;
		enum err_code code = storage_reader_open(config->storage, &t->reader, err);
		if (code) {
			pool_free(p);
			return code;
		}
	}
	for (; p->running < config->thread_count; p->running++) {
		struct pool_thread *t = &p->threads[p->running];
		r = pthread_create(&t->thread, NULL, pool_thread_main, t);
		must(r == 0);
	}
	*ret = p;
	return ERR_OK;
}

void pool_stop(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_mutex_unlock(&p->lock);
	pthread_cond_broadcast(&p->wake);
	for (; p->running > 0; p->running--)
		pthread_join(p->threads[p->running - 1].thread, NULL);
	while (pool_step(p))
		;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	must(p->running == 0);
	must(list_empty(&p->queue));
	must(list_empty(&p->parked));
	for (size_t i = 0; i < p->thread_count; i++)
		storage_reader_close(p->threads[i].reader);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	mem_free(p->threads);
	mem_free(p);
}
