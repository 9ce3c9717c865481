/* For threads of the journal's own that may block: an append is given to the sequencer, and its answer waited for.
 * One thread at a time. Private to src/journal. */
#ifndef CAIRN_JOURNAL_AWAIT_H
#define CAIRN_JOURNAL_AWAIT_H

#include <pthread.h>

#include "base/mailbox.h"
#include "journal/journal.h"

struct await {
	struct journal *journal;
	struct mailbox mailbox;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool woken; /* under lock: the mailbox has something */
	struct append *answered;
};

void await_init(struct await *w, struct journal *j);
void await_release(struct await *w);
/* Takes the append. ERR_OK: it is durable, and *ret is the append as answered, the caller's to unref (NULL: it is not
 * wanted). Otherwise the refusal's code and text. */
enum err_code await_append(struct await *w, struct append *append, struct append **ret, struct err *err);

#endif
