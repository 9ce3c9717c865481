/* The pool of reader threads, each with its own storage_reader: blocking reads, one job after another,
 * and jobs that wait for the head to reach a position. With no threads, pool_step() runs what waits.
 * Private to src/journal. */
#ifndef CAIRN_JOURNAL_READER_H
#define CAIRN_JOURNAL_READER_H

#include "base/list.h"
#include "journal/journal.h"

struct pool;

/* Embedded by whoever reads. States: IDLE -> PARKED -> QUEUED -> RUNNING -> (answered on the mailbox)
 * IDLE. All but `run` and `done` are the pool's. */
enum job_state { JOB_IDLE, JOB_PARKED, JOB_QUEUED, JOB_RUNNING };
struct job {
	/* On a reader thread; in_time is false if the head has not reached the position in time. */
	void (*run)(struct job *job, struct storage_reader *reader, bool in_time);
	/* Then on the mailbox, once. */
	void (*done)(struct job *job);
	struct mailbox *mailbox;

	struct list_node node;
	struct task task;
	enum job_state state;
	uint64_t not_before;
	struct mono_time deadline;
	bool in_time;
	bool refused; /* for `done`: the pool was stopping, `run` was not called */
};

struct pool_config {
	struct storage *storage;
	const struct clock *clock;
	unsigned thread_count; /* 0: none, pool_step() */
};

enum err_code pool_new(const struct pool_config *config, struct pool **ret, struct err *err);
void pool_stop(struct pool *p); /* ends the threads; jobs that wait are run to their end first */
void pool_free(struct pool *p);
bool pool_step(struct pool *p); /* true if anything was done */

/* Any thread. Runs the job as soon as a thread is free and the head (journal_head, as the pool was told)
 * has reached not_before, but for that no longer than wait_us. */
void pool_submit(struct pool *p, struct job *job, uint64_t not_before, int64_t wait_us);
/* From the mailbox's thread: takes the job back if it has not begun. False: done will be called. */
bool pool_withdraw(struct pool *p, struct job *job);
/* Any thread: the durable head is here now. */
void pool_head_moved(struct pool *p, uint64_t head);

#endif
