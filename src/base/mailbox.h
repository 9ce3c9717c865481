/* A mailbox: tasks from any thread, run in order by one.
 *
 * Completions travel by it: the sequencer posts to the mailbox of the worker that asked. The owner is
 * woken by wake(arg), called at most once between two drains, from the posting thread, and must not
 * block (a worker's wake writes to an eventfd; a test's does nothing and drains by hand). */
#ifndef CAIRN_BASE_MAILBOX_H
#define CAIRN_BASE_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* Embedded in whatever is sent; owned by the mailbox from post until run() is called. */
struct task {
	struct task *next;
	void (*run)(struct task *task);
};

struct mailbox {
	pthread_mutex_t lock;
	struct task *first, **last_next;
	bool wake_sent;
	void (*wake)(void *arg);
	void *wake_arg;
};

void mailbox_init(struct mailbox *m, void (*wake)(void *arg), void *arg);
void mailbox_release(struct mailbox *m); /* must be empty */
void mailbox_post(struct mailbox *m, struct task *task);
/* Runs what was posted before the call, in order; tasks posted by these wait for the next drain.
 * Returns how many ran. Owner's thread only. */
size_t mailbox_drain(struct mailbox *m);

#endif
