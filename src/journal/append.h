/* An append between being built by a worker and being answered: its records, encoded; what it expects;
 * what was decided. Private to src/journal.
 *
 * Who may touch it: the worker that builds it; then, from journal_append() on, the sequencer; from its
 * callback on, everyone who holds a reference, and nobody writes any more. */
#ifndef CAIRN_JOURNAL_APPEND_H
#define CAIRN_JOURNAL_APPEND_H

#include <stdatomic.h>

#include "journal/acts.h"
#include "journal/journal.h"

/* One record. */
struct append_item {
	struct record_place place;
	uint64_t sequence; /* decided */
	uint64_t id_hash;
	uint8_t id[RECORD_ID_BYTES];
	bool id_made; /* by this server, now: it cannot be in the log */
	uint32_t kind;
	uint32_t target;
	uint32_t id_key; /* decide's */
	size_t data_at, data_n; /* an act's, in act_data */
};

/* One stream that is written: items [first, first + count). */
struct append_target {
	struct span name; /* in the append's block */
	uint64_t hash;
	enum append_expect expect;
	uint64_t expect_sequence;
	size_t first, count;
	uint64_t sequence;   /* decided: the newest after the append */
	uint32_t stream_key; /* decide's */
};

struct append_check {
	struct span name;
	uint64_t hash;
	enum append_expect expect;
	uint64_t expect_sequence;
	uint32_t stream_key;
};

enum append_state { APPEND_BUILT, APPEND_QUEUED, APPEND_WITHDRAWN, APPEND_TAKEN, APPEND_ANSWERED };

struct append {
	uint32_t magic;
	atomic_uint refs;

	struct append_item *items; /* these point into this block */
	size_t item_count;
	struct append_target *targets;
	size_t target_count;
	struct append_check *checks;
	size_t check_count;
	struct journal_fence *fences; /* this too */
	size_t fence_count;
	struct journal_fence fence_found; /* of a refusal */
	struct buf bytes;    /* the records, encoded, side by side */
	size_t memory_bytes; /* all of it, for what keeps appends */
	size_t batch_bytes;  /* what its records take at most: an act's are not encoded before it is decided */
	size_t queue_bytes;  /* what it holds while it waits */

	/* An act (act.h): its rule, and the data of its records as decided. */
	struct act *act; /* NULL: an append */
	struct buf act_data;
	size_t act_data_max; /* of one record */
	struct span actor;

	/* Asked by. */
	struct mailbox *mailbox;
	append_done_fn *done;
	void *arg;

	enum append_state state; /* under the sequencer's lock until TAKEN */
	struct append *next;     /* in the queue; then in the chain that is answered with one task */
	struct mono_time queued;

	/* Decided. */
	bool repeats_whole; /* fact: the record before the one with the first id ends an append */
	bool writes;        /* accepted and new */
	struct append_answer answer;
	struct task task;
};

/* append_new() without a journal: the seed is that of the sequencer's tables. */
enum err_code append_build(const struct append_request *request, const uint64_t seed[2],
			   const struct clock *clock, struct append **ret,
			   struct append_refusal *ret_refusal);

static inline struct span append_item_bytes(const struct append *a, const struct append_item *item)
{
	return span_of(a->bytes.p + item->place.at, item->place.n);
}
/* The Entry alone, without tag and length. */
static inline struct span append_item_entry(const struct append *a, const struct append_item *item)
{
	size_t entry_at = item->place.position_at - 1;
	return span_of(a->bytes.p + entry_at, item->place.at + item->place.n - entry_at);
}

/* The refusal to fill in, made at the first call. */
struct append_refusal *append_refuse(struct append *a, enum err_code code);
/* Forgets what was decided, to decide again. */
void append_reset(struct append *a);

#endif
