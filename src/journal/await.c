/* Appends with an answer that is waited for: see await.h. */
#include <config.h>

#include "journal/await.h"

#include "base/must.h"
#include "journal/internal.h"

static void on_wake(void *arg)
{
	struct await *w = arg;
	pthread_mutex_lock(&w->lock);
	w->woken = true;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

static void on_answered(struct append *append, void *arg)
{
	struct await *w = arg;
	w->answered = append;
}

void await_init(struct await *w, struct journal *j)
{
	*w = (struct await){.journal = j};
	must(pthread_mutex_init(&w->lock, NULL) == 0);
	must(pthread_cond_init(&w->wake, NULL) == 0);
	mailbox_init(&w->mailbox, on_wake, w);
}

void await_release(struct await *w)
{
	mailbox_release(&w->mailbox);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
}

enum err_code await_append(struct await *w, struct append *append, struct append **ret, struct err *err)
{
	w->answered = NULL;
	enum err_code code = journal_append(w->journal, &append, &w->mailbox, on_answered, w, err);
	if (code) {
		append_unref(append);
		return code;
	}
	while (!w->answered) {
		pthread_mutex_lock(&w->lock);
		while (!w->woken)
			pthread_cond_wait(&w->wake, &w->lock);
		w->woken = false;
		pthread_mutex_unlock(&w->lock);
		mailbox_drain(&w->mailbox);
	}
	const struct append_answer *answer = append_answer(w->answered);
	if (answer->code)
		code = err_set(err, answer->code, "%s", answer->refusal->err.text);
	if (!code && ret)
		*ret = w->answered;
	else
		append_unref(w->answered);
	return code;
}
