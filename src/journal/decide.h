/* Decide: the one place where it is decided what is appended. A pure function: facts and requests in,
 * in order; records' numbers and answers out. No I/O, no clock, no threads. Private to src/journal.
 *
 *	decide_begin(&d);
 *	decide_add(&d, append);			// each of a batch: collects what must be looked up
 *	storage_lookup(..., d.streams, d.stream_count, d.ids, d.id_count, ...);
 *	decide_run(&d, head, now, last, appends, count, &outcome);
 *
 * Order of checks (form and limits were checked when the append was built):
 *  1. idempotency: an append all of whose ids are in the log, in the same streams and the same order, as
 *     one whole append, is a repeat: it gets the first result, whatever it expects. If only some match,
 *     or in another shape, ERR_EXISTS.
 *  2. fences, in order: the first that does not hold refuses the append, with the one found.
 *  3. conditions, in order; then expectations, in order: the first that fails answers for the whole
 *     append, with the sequence found.
 *  4. of an act, its own rule (act.h).
 * What an append was granted is a fact for those after it in the same batch. */
#ifndef CAIRN_JOURNAL_DECIDE_H
#define CAIRN_JOURNAL_DECIDE_H

#include "journal/append.h"
#include "journal/ledger.h"

struct decide_slot {
	uint32_t batch; /* the slot is used if this is the present one */
	uint32_t index;
	uint64_t hash;
};
struct decide_table {
	struct decide_slot *slots;
	size_t cap; /* power of two, or 0 */
};
/* Who holds an id in this batch: an append that was accepted. */
struct decide_owner {
	const struct append *append;
	size_t item;
};

struct decide {
	uint32_t batch;
	struct storage_stream_fact *streams; /* to be looked up; then as decided so far */
	size_t stream_count, stream_cap;
	struct storage_id_fact *ids;
	struct decide_owner *owners; /* one each id */
	size_t id_count, id_cap;
	struct decide_table stream_table, id_table;
	struct ledger *ledger; /* as of the head of the facts; takes the changes of acts. NULL: no acts, no fences */
	const struct storage_stream_fact **act_streams; /* for the rule of an act */
	size_t act_stream_cap;
};

void decide_init(struct decide *d);
void decide_release(struct decide *d);

/* Forgets the last batch. */
void decide_begin(struct decide *d);
/* Adds an append's keys; its names must live until the batch is done. */
void decide_add(struct decide *d, struct append *a);
/* For a possible repeat: the position of the record with the append's first id, whose predecessor must be
 * asked whether it ends an append (a->repeats_whole). False if there is nothing to ask. */
bool decide_asks_before(const struct decide *d, const struct append *a, uint64_t *ret_position);

struct decide_outcome {
	size_t records; /* to be appended, at head and above */
	struct wall_time commit_time;
};
/* Decides all, in order; numbers the records of those that write (append->writes). Facts are used up. */
void decide_run(struct decide *d, uint64_t head, struct wall_time now, struct wall_time last_commit,
		struct append **appends, size_t count, struct decide_outcome *ret);

#endif
