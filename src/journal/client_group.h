/* A consumer of a durable group (Consume in journal.proto), of the journal's client. The rules are those of
 * client.h: on the loop's thread, what is borrowed is copied, no callback inside the call that caused it.
 *
 *	struct client_consumer *k = client_consume(c, &(struct client_consume){.group = SPAN("mail")}, &ops, arg);
 *	on_record: do it; client_consumer_ack(k, record->position) when it is done, or nack, or park
 *
 * Each partition of a group has one consumer at a time, whichever server it is on; one unless the group was made with
 * more. Who has none waits for his turn. Every
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
	uint32_t partitions; /* of a group that is new, or that it must have; 0: 1, or whatever it has */
	uint32_t window;     /* events that may be unacknowledged; 0: 100, at most 1000 */
	struct span address; /* of this consumer, for people; or empty */
};

/* All optional but on_record and on_done. An event whose CRC is wrong ends the call with DATA_LOSS. */
struct client_consumer_ops {
	/* Once for each partition that it gets: all of it before the position is done but for streams that wait. */
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
/* It is put aside, noted in "$parked-GROUP" with the reason, of at most 1000 bytes: its stream waits behind it until it
 * is replayed or skipped, or goes on without it. */
void client_consumer_park(struct client_consumer *k, uint64_t position, struct span reason, bool goes_on);

/* No more acknowledgements: what they moved is written down, then on_done comes. */
void client_consumer_finish(struct client_consumer *k);
/* on_done follows with CANCELLED. */
void client_consumer_cancel(struct client_consumer *k);
/* While held, no more than the window arrives. */
void client_consumer_hold(struct client_consumer *k, bool hold);

/* ---- what groups are at -------------------------------------------------------------------------- */

struct client_group_partition {
	struct span group, consumer; /* its address; empty: there is none */
	uint32_t partition, partitions;
	uint64_t position, behind; /* before it all is done but for what waits; so many records of the journal follow */
	uint64_t waiting, parked;
};
struct client_page_of_groups {
	const struct client_group_partition *partitions;
	size_t count;
	struct span next_page_token; /* empty: no more */
};
/* page is NULL on failure; everything is valid during the call. */
typedef void client_groups_fn(const struct client_page_of_groups *page, const struct client_error *error, void *arg);
void client_list_groups(struct client *c, struct span prefix, struct span page_token, int64_t deadline_ms,
			client_groups_fn *done, void *arg);

struct client_group_mark {
	struct span stream;
	uint64_t position; /* its records from here on are to come */
	bool parked;	   /* behind the record at parked_at, or that record alone */
	uint64_t parked_at;
	bool alone;
};
struct client_page_of_marks {
	const struct client_group_mark *marks;
	size_t count;
	uint64_t next; /* 0: no more */
};
typedef void client_marks_fn(const struct client_page_of_marks *page, const struct client_error *error, void *arg);
void client_list_group_marks(struct client *c, struct span group, uint64_t from, int64_t deadline_ms,
			     client_marks_fn *done, void *arg);

enum client_group_act_kind { CLIENT_GROUP_REPLAY, CLIENT_GROUP_SKIP, CLIENT_GROUP_PARK };
struct client_group_act {
	enum client_group_act_kind kind;
	struct span group, stream, reason;
	bool by_position;
	uint64_t position;
	bool goes_on;
};
/* acted is NULL on failure. */
struct client_group_acted {
	struct client_cursor cursor;
	uint64_t records;
};
typedef void client_group_act_fn(const struct client_group_acted *acted, const struct client_error *error, void *arg);
void client_act_on_group(struct client *c, const struct client_group_act *act, int64_t deadline_ms,
			 client_group_act_fn *done, void *arg);

#endif
