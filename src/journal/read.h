/* A read: its handle, and the two ways in which it gets its pages: from storage on a reader thread
 * (read_storage.c), and, live reads only, from the tail on the mailbox's thread (read_tail.c). Private
 * to src/journal.
 *
 *	IDLE --next--> STORAGE (a job of the pool) --> IDLE, a page or an error is delivered
 *	     --next--> HOP (a task to ourselves) --> the tail: a page, or WAITING, or STORAGE if it has left
 *	WAITING --woken by a commit--> the tail again
 *	ENDED: the last page or an error was delivered; close is all that is left */
#ifndef CAIRN_JOURNAL_READ_H
#define CAIRN_JOURNAL_READ_H

#include "journal/internal.h"

/* A page's entries: the service's own fields fit into the response behind them. */
#define READ_PAGE_BYTES (LIMIT_RESPONSE_BYTES - JOURNAL_PAGE_SPARE)
/* How much one job reads for a filter that wants little of it, before it shows how far it is. */
#define READ_SCAN_BYTES (4 * MIB)
/* A live reader that is sent nothing is told its position after so many records. */
#define READ_CHECKPOINT_RECORDS TAIL_IDLE_RECORDS

enum read_state { READ_IDLE, READ_STORAGE, READ_HOP, READ_WAITING, READ_ENDED };

/* What is wanted, beyond what storage can be asked for. */
struct read_filter {
	struct span *types, *prefixes; /* owned, and so is what they point to (in `text`) */
	size_t type_count, prefix_count;
	uint8_t *text;
	uint64_t min_position;               /* backward: stop below it */
	uint64_t min_time_us;                /* live: skip until a record is not before it */
	uint64_t min_sequence, max_sequence; /* stop outside (0: no bound) */
	uint64_t skip_to_sequence;           /* skip until an event has this sequence (0: no more) */
};

struct journal_read {
	uint32_t magic;
	struct journal *journal;
	struct mailbox *mailbox;
	journal_page_fn *on_page;
	void *arg;

	enum read_state state;
	bool closed; /* freed when the job or the task on its way arrives */
	struct job job;
	struct task hop;
	struct tail_waiter waiter;

	/* What. */
	enum storage_source source;
	struct span name; /* owned */
	bool include_system, backward, live, load, has_at_sequence, raw;
	uint32_t kinds;
	struct read_filter filter;
	uint64_t records_left; /* UINT64_MAX: no maximum */
	struct journal_cursor not_before;

	/* Where: touched by whoever has the read (the mailbox's thread, or the job). */
	bool begun, from_end, by_sequence;
	uint64_t at;          /* position, or sequence while by_sequence */
	uint64_t below;       /* not live: exclusive bound on positions */
	uint64_t to_position; /* forward: inclusive, UINT64_MAX: none */
	/* Times, until the first page has found out which positions they are. */
	bool from_by_time, to_by_time;
	uint64_t from_time_us, to_time_us;
	uint64_t load_at, load_newest;
	uint64_t erased_below; /* load: what is below the position and erased is left out */
	bool skip_erased;
	uint64_t told; /* live: the position in the last page, or by sequence 0 */
	bool told_caught_up;

	/* What the job brought. */
	struct journal_page *page; /* NULL: an error, or (to_tail) nothing in storage */
	bool to_tail, ended;
	struct err err;
};

/* On a reader thread: fills in what the job brought. */
void read_from_storage(struct journal_read *r, struct storage_reader *reader, bool in_time);
/* On the mailbox's thread: delivers a page, waits, or goes back to storage. */
void read_from_tail(struct journal_read *r);

struct journal_page *read_page_new(const struct journal_read *r);
/* Gives the page to the caller; r may be gone afterwards. */
void read_deliver(struct journal_read *r, struct journal_page *page, bool ended);
void read_submit(struct journal_read *r, uint64_t not_before);

/* Filters on decoded records: does it want this one? stop: it and all after it are out of bounds. */
enum read_verdict { READ_TAKE, READ_SKIP, READ_STOP };
/* What may be told of where it is: it may wait at a position beyond what is durable. */
uint64_t read_position_known(const struct journal_read *r);
bool read_has_filter(const struct journal_read *r);
enum read_verdict read_wants(struct journal_read *r, const struct record_view *v);
/* What storage would be asked for: kind and stream. */
bool read_source_has(const struct journal_read *r, uint32_t kind, struct span stream);

#endif
