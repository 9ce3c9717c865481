#include <config.h>

#include "base/mailbox.h"

#include "base/must.h"

void mailbox_init(struct mailbox *m, void (*wake)(void *arg), void *arg)
{
	*m = (struct mailbox){.wake = wake, .wake_arg = arg};
	m->last_next = &m->first;
	int r = pthread_mutex_init(&m->lock, NULL);
	must(r == 0);
}

void mailbox_release(struct mailbox *m)
{
	/* A poster may still be on its way out of the lock that made its task visible. */
	pthread_mutex_lock(&m->lock);
	must(!m->first);
	pthread_mutex_unlock(&m->lock);
	int r = pthread_mutex_destroy(&m->lock);
	must(r == 0);
}

void mailbox_post(struct mailbox *m, struct task *task)
{
	must(task->run);
	task->next = NULL;
	pthread_mutex_lock(&m->lock);
	*m->last_next = task;
	m->last_next = &task->next;
	/* Woken under the lock: the owner cannot drain and release the mailbox before wake() is done. */
	if (!m->wake_sent && m->wake) {
		m->wake_sent = true;
		m->wake(m->wake_arg);
	}
	pthread_mutex_unlock(&m->lock);
}

size_t mailbox_drain(struct mailbox *m)
{
	pthread_mutex_lock(&m->lock);
	struct task *task = m->first;
	m->first = NULL;
	m->last_next = &m->first;
	m->wake_sent = false;
	pthread_mutex_unlock(&m->lock);
	size_t count = 0;
	while (task) {
		struct task *next = task->next; /* run() may free the task */
		task->run(task);
		task = next;
		count++;
	}
	return count;
}
