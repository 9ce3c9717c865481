/* A consumer of a durable group (Consume in journal.proto), of the journal's client. The rules are those of
 * client.h: on the loop's thread, what is borrowed is copied, no callback inside the call that caused it.
 *
 *	struct client_consumer *k = client_consume(c, &(struct client_consume){.group = SPAN("mail")}, &ops, arg);
 *	on_record: do it; client_consumer_ack(k, record->position) when it is done, or nack, or park
 *
 * One consumer of a group is active at a time, whichever server it is on; the others wait for their turn. Every
 * event is delivered at least once: again if it was given back, if the consumer went before acknowledging it, or
 * acknowledged it in the last 5 s before the server died. A stream's events come in order. A consumer ends with
 * its connection; the caller opens another, which goes on where the group is. */
#ifndef CAIRN_JOURNAL_CLIENT_GROUP_H
#define CAIRN_JOURNAL_CLIENT_GROUP_H

#include "journal/client.h"

struct client_consumer;

struct client_consume {
	struct span group;
	struct span stream, category; /* at most one of them; none: everything */
	const struct span *types, *stream_prefixes;
	size_t type_count, stream_prefix_count;
	bool from_end;	     /* a group that is new begins with what is appended from now on */
	uint32_t window;     /* events that may be unacknowledged; 0: 100, at most 1000 */
	struct span address; /* of this consumer, for people; or empty */
};

/* All optional but on_record and on_done. An event whose CRC is wrong ends the call with DATA_LOSS. */
struct client_consumer_ops {
	/* Once: it is this consumer's turn; all before the position is done but for streams that wait. */
	void (*on_active)(struct client_consumer *k, uint64_t position, void *arg);
	void (*on_record)(struct client_consumer *k, const struct record_view *record, void *arg);
	/* Parking it is durable now. */
	void (*on_parked)(struct client_consumer *k, uint64_t position, void *arg);
	/* Exactly once, and last; k is gone afterwards. GRPC_OK: after client_consumer_finish(). UNAVAILABLE: consume
	 * again. */
	void (*on_done)(struct client_consumer *k, const struct client_error *error, void *arg);
};

struct client_consumer *client_consume(struct client *c, const struct client_consume *consume,
				       const struct client_consumer_ops *ops, void *arg);

/* The event at the position is done. One that was taken back meanwhile is passed over, here and below. */
void client_consumer_ack(struct client_consumer *k, uint64_t position);
/* Again after the delay; what was delivered of its stream after it is taken back, and comes after it. */
void client_consumer_nack(struct client_consumer *k, uint64_t position, uint32_t delay_ms);
/* Never again; it is noted in "$parked-GROUP" with the reason, of at most 1000 bytes. */
void client_consumer_park(struct client_consumer *k, uint64_t position, struct span reason);

/* No more acknowledgements: what they moved is written down, then on_done comes. */
void client_consumer_finish(struct client_consumer *k);
/* on_done follows with CANCELLED. */
void client_consumer_cancel(struct client_consumer *k);
/* While held, no more than the window arrives. */
void client_consumer_hold(struct client_consumer *k, bool hold);

#endif
