/* What a consumer group has in hand: which records are with the consumer, which streams wait, and how far
 * everything is done. No I/O: records, acknowledgements and the time in; what to deliver and what to write down
 * out. Private to src/journal.
 *
 * The log is read in order (the main path), and every record is with the consumer until it is acknowledged. One
 * that the consumer gives back (nack) makes its stream wait: what was sent of that stream after it counts as not
 * sent, the main path passes the stream's records over, and when the delay is over the stream is read on its own,
 * one record at a time, until it has caught up with the main path. Other streams do not wait for it.
 *
 * A record that is parked makes its stream wait in the same way, without an end, until it is replayed or skipped;
 * or it is put aside alone, and its stream goes on. What waits and what is parked are marks, which are written down:
 *
 *	            nack ┌──────────┐ due     ┌─────────┐ found  ┌──────┐ ack: on with the next of the stream
 *	record ─────────▶│   DUE    │────────▶│ READING │───────▶│ SENT │────────▶ DUE
 *	   │        ┌───▶│          │◀────────│         │        └──────┘
 *	   │ park   │    └──────────┘  stale  └────┬────┘ nothing more: the stream is on the main path again
 *	   │        │ replay, skip                 │ found the parked one
 *	   │    ┌───┴────┐                         │
 *	   └───▶│ PARKED │◀────────────────────────┘
 *	        └────────┘ */
#ifndef CAIRN_JOURNAL_GROUP_H
#define CAIRN_JOURNAL_GROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

struct group;

struct group *group_new(size_t window); /* so many records may be with the consumer at once */
void group_free(struct group *g);	/* NULL is fine */

/* Once, first: as it was written down. Below `below` all is done but for the streams that wait. */
void group_restore(struct group *g, uint64_t below);
/* False: it waits already. */
struct group_mark {
	struct span stream;
	uint64_t position;  /* of its records those from here on are to come */
	bool parked;	    /* it waits behind the record at parked_at, or will when it has come there */
	uint64_t parked_at;
	bool skip;	    /* that one is to be passed over then */
	bool alone;	    /* only the record at `position` is put aside, parked or to be delivered again */
};
bool group_restore_waiting(struct group *g, const struct group_mark *mark);

/* Something is with the consumer, or being read for it. */
bool group_is_busy(const struct group *g);
bool group_has_room(const struct group *g);
/* The main path has come to this record; there must be room. True: it is to be delivered. */
bool group_offer(struct group *g, uint64_t position, struct span stream);
/* The main path has passed all below the position. */
void group_passed(struct group *g, uint64_t position);

/* False: it is not with the consumer. */
bool group_has(const struct group *g, uint64_t position, struct span *ret_stream);
bool group_ack(struct group *g, uint64_t position);
enum group_nack { GROUP_NACKED, GROUP_NOT_THERE, GROUP_TOO_MANY_WAIT };
enum group_nack group_nack(struct group *g, uint64_t position, int64_t due_us);

/* The record is parked, and its stream waits behind it or goes on without it. What is done already stays done: it
 * need not be with the consumer, for that is how what was noted since the marks were written is brought in. */
enum group_nack group_park(struct group *g, struct span stream, uint64_t position, bool goes_on);
/* Parked records are to be delivered again, or skipped: all, those of a stream, or the one at a position. Returns
 * how many they are. */
struct group_choice {
	struct span stream; /* or empty */
	bool by_position;
	uint64_t position;
	bool skip;
};
size_t group_unpark(struct group *g, const struct group_choice *choice);

/* A stream that is to be read on: its first record in [*from, *below) is wanted by group_caught(). One at a
 * time. False: none is due, or there is no room. */
bool group_catch_up(struct group *g, int64_t now_us, struct span *ret_stream, uint64_t *ret_from,
		    uint64_t *ret_below);
/* What came of it: found at a position, which is then to be delivered, or nothing. */
void group_caught(struct group *g, bool found, uint64_t position);
/* When the next stream is due; false: none waits. */
bool group_due(const struct group *g, int64_t *ret_us);

/* To be written down: everything below is done but for the streams that wait, each at its position. */
uint64_t group_below(const struct group *g);
size_t group_waiting_count(const struct group *g);
void group_waiting(const struct group *g, size_t i, struct group_mark *ret);
size_t group_parked_count(const struct group *g);
/* Has that changed since it was last asked to forget? */
bool group_moved(const struct group *g);
void group_written(struct group *g);

#endif
