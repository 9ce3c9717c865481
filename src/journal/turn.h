/* Whose turn a background job of the journal is, where several cairnd write to one database: the turn is a grant of
 * slot 0 of the job's own service, held by a session that is begun for the pass and ended with it. Where nobody else
 * writes it is always ours, and nothing is written. A pass that outlives its session does no harm, only work twice.
 * One thread at a time. Private to src/journal. */
#ifndef CAIRN_JOURNAL_TURN_H
#define CAIRN_JOURNAL_TURN_H

#include "journal/acts.h"
#include "journal/await.h"

struct turn {
	struct await *await;
	struct span service; /* "$compaction" */
	uint8_t session[RECORD_ID_BYTES];
	bool held;
	struct mono_time beaten;
};

/* *ret_ours false: another one has it. */
enum err_code turn_take(struct turn *t, bool *ret_ours, struct err *err);
void turn_beat(struct turn *t); /* goes on: to be called every second or so */
void turn_give(struct turn *t);

#endif
