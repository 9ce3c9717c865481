/* A partition of a consumer group as the log says it is: the newest offset that was written down, and what was parked,
 * replayed and skipped since then. Read by a thread of the pool; the answer comes on the mailbox.
 *
 *	group_load(journal, &(struct group_load){.group = g, .window = 1}, mailbox, on_loaded, arg);
 *
 * Private to src/journal. */
#ifndef CAIRN_JOURNAL_GROUP_LOAD_H
#define CAIRN_JOURNAL_GROUP_LOAD_H

#include "journal/acts.h"
#include "journal/group.h"
#include "journal/wire.h"

struct group_load {
	struct span group;
	uint32_t partition;
	size_t window;	     /* of group_new() */
	uint64_t not_before; /* the head is there, or it fails */
};
struct group_loaded {
	struct group *hand; /* NULL: there is no such group; else the callee's to free, or to take and set to NULL */
	uint64_t acts_below; /* of `$parked-NAME` everything below is in it */
	uint32_t partitions;
};
/* Once, on the mailbox; loaded is valid during the call. err is NULL on success. */
typedef void group_load_fn(struct group_loaded *loaded, const struct err *err, void *arg);
void group_load(struct journal *j, const struct group_load *what, struct mailbox *mailbox, group_load_fn *done,
		void *arg);

/* Carries out one record of `$parked-NAME`, if it is this partition's: one of the two that park, or an act. `since`:
 * Parked records from here on are the caller's own, who has carried them out. */
void group_take_act(struct group *g, const struct record_view *record, uint32_t partition, uint32_t partitions,
		    uint64_t since);

/* As it is written down, and answered. The name is borrowed. */
void group_mark_to(const struct group_mark *mark, PB(GroupWaiting) *ret);

#endif
