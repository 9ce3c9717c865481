/* Records of sessions, grants and groups that nobody has a use for any more: both of a session that has ended, of each
 * slot all grants but the newest, of each partition of a group all offsets but the newest. Compaction takes them, so
 * that a start reads what lives and not what ever was. Private to src/journal. */
#ifndef CAIRN_JOURNAL_SPENT_H
#define CAIRN_JOURNAL_SPENT_H

#include "journal/ledger.h"

#define SPENT_NONE UINT64_MAX

struct spent {
	struct spent_record {
		uint64_t position;
		/* The end of a session goes with its beginning or after it, never before: else it would live again. */
		uint64_t after; /* SPENT_NONE: it may go by itself */
		bool goes;
	} *list; /* by position */
	size_t n, cap, later; /* later: how many are too young yet */
	struct wall_time until;
};

/* Reads the system streams; to be released. What was needed after `until` is left out. */
enum err_code spent_load(struct storage_reader *reader, uint64_t head, struct wall_time until, struct spent *ret,
			 struct err *err);
void spent_release(struct spent *s);
/* How many lie in [first, end), and the position of the first (SPENT_NONE if there is none). */
size_t spent_between(const struct spent *s, uint64_t first, uint64_t end, uint64_t *ret_first);
/* Whether the record there may go now; if so it is noted that it does. */
bool spent_take(struct spent *s, uint64_t position);
/* Those in [first, end) that were taken stay after all. */
void spent_give_back(struct spent *s, uint64_t first, uint64_t end);

#endif
