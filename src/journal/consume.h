/* One consumer of a group, and the partitions of the group that it has. Private to the service.
 *
 * service_consume.c is the call: its session, its share of the partitions, requests. consume_part.c is one partition
 * that it was granted: what of it is read, sent and written down.
 *
 *	part  IDLE ──claimed──▶ LOADING ──▶ ACTIVE ──it is another's share──▶ LEAVING
 *	        ▲                                                                │ nothing is open
 *	        └────────────────────────── RELEASING ◀──────────────────────────┘
 */
#ifndef CAIRN_JOURNAL_CONSUME_H
#define CAIRN_JOURNAL_CONSUME_H

#include "journal/acts.h"
#include "journal/group.h"
#include "journal/service_internal.h"

#define CONSUME_CALL_MAGIC 0xc0254ca1
#define CONSUME_PART_MAGIC 0xc02547a7

enum part_state { PART_IDLE, PART_CLAIMING, PART_LOADING, PART_ACTIVE, PART_LEAVING, PART_RELEASING };
enum consume_state { CONSUME_OPENING, CONSUME_BEGINNING, CONSUME_OPEN, CONSUME_CLOSED };

struct consume_call;
struct consume_part {
	uint32_t magic;
	struct consume_call *call;
	uint32_t index;
	enum part_state state;
	struct journal_fence fence;
	uint64_t claimed; /* just after the grant */

	struct group *hand;			  /* from ACTIVE on */
	uint64_t acts_below;			  /* of `$parked-NAME` what is below has been carried out */
	struct journal_read *records, *acts, *behind; /* behind: of a stream that catches up */
	bool asked;				  /* a page of records is under way */
	struct journal_page *page;		  /* being handed out */
	struct span run;			  /* what is left of it */
	struct loop_timer *due, *write;
	bool write_set, rewrite;
	size_t told_waiting, told_parked; /* to the metrics */
	struct group_place place;	  /* the same; while it is ACTIVE or LEAVING */
};

struct consume_call {
	uint32_t magic;
	struct journal_service *service;
	struct service_loop *loop;
	struct grpc_call *call; /* a reference */
	struct list_node node;	/* in loop->consumers */
	enum consume_state state;
	bool over;	  /* the end has been sent or has come */
	bool half_closed; /* no acknowledgements come any more */
	size_t refs;	  /* the call itself, acts and looks under way */
	size_t under_way;
	char actor[SERVICE_ACTOR_BYTES];

	struct arena arena; /* what the first request says */
	PB(ConsumeRequest) *open;
	struct span group, grants; /* its name, and that of its service */
	uint8_t session[RECORD_ID_BYTES];
	bool began;
	struct loop_timer *beat, *again;

	struct consume_part *parts; /* of the group, once it is known how many */
	uint32_t part_count;

	/* Who else there is: looked at anew when one of these two tells of a change. */
	struct journal_read *sessions, *owners;
	bool looking, look_again;
	uint8_t *others; /* ids of the sessions of the group, as of the last look */
	size_t other_count;
	struct buf told; /* of who has the partitions, packed */
};

/* ---- service_consume.c ------------------------------------------------------------------------- */

void consume_unref(struct consume_call *cc);
void consume_end(struct consume_call *cc, enum grpc_code code, struct span text);
void consume_fail(struct consume_call *cc, const struct err *err);
void consume_lost(struct consume_call *cc);
/* Takes the append; fn is called with the outcome unless the call is closed by then. part may be NULL. */
typedef void consume_act_fn(struct consume_call *cc, struct consume_part *part, const struct append *append,
			    uint64_t position);
void consume_act(struct consume_call *cc, struct append *append, consume_act_fn *fn, struct consume_part *part,
		 uint64_t position);
extern const char consume_too_many[];
/* Looks who has what, and takes or gives back partitions accordingly. */
void consume_share(struct consume_call *cc);

/* ---- consume_part.c ---------------------------------------------------------------------------- */

void part_init(struct consume_part *part, struct consume_call *cc, uint32_t index);
void part_release(struct consume_part *part);
/* It was granted: goes on where it is. */
void part_take(struct consume_part *part);
/* Another is to have it: nothing more is sent, and it is given back when nothing is open. */
void part_leave(struct consume_part *part);
/* At once: what was reached is written down. */
void part_close(struct consume_part *part);
void part_pump(struct consume_part *part);
void part_park(struct consume_part *part, uint64_t position, struct span reason, bool goes_on);
/* What the first request asks for; mem_free() the spans afterwards. */
void consume_query(const struct consume_call *cc, struct journal_query *q, struct span **ret_spans);

#endif
