/* What the files of the service share; see service.h. */
#ifndef CAIRN_JOURNAL_SERVICE_INTERNAL_H
#define CAIRN_JOURNAL_SERVICE_INTERNAL_H

#include "base/arena.h"
#include "base/list.h"
#include "journal/group_meter.h"
#include "journal/service.h"
#include "journal/wire.h"

/* What unpacking one request may take: the message, its copies, and the messages inside it. */
#define SERVICE_ARENA_BYTES (4 * LIMIT_GRPC_MESSAGE_BYTES)

/* One event loop's calls that do not end by themselves. */
struct service_loop {
	struct task drain;
	struct loop *loop;
	struct journal_service *service;
	struct list appends, reads, watches, consumers;
	bool draining;
};

#define SERVICE_MAGIC 0x5e41ce00
struct journal_service {
	uint32_t magic;
	struct journal *journal;
	struct service_loop *loops;
	size_t loop_count;
	struct group_meter groups; /* that are consumed here */
	struct grpc_method methods[26];
};

/* service.c */
struct service_loop *service_loop_of(struct journal_service *s, const struct loop *loop);
/* Only the one journal with the empty name is here. */
enum err_code service_check_journal(ProtobufCBinaryData name, struct err *err);
/* Absent: incarnation 0. ERR_INVALID: an id of another length, incarnation 0. */
enum err_code service_cursor_of(const PB(Cursor) *pb, const char *field, struct journal_cursor *ret,
				struct err *err);
void service_cursor_to(const struct journal_cursor *cursor, PB(Cursor) *ret);

/* service_append.c */
void service_append_open(struct grpc_call *call, void *arg);
void service_append_stream_open(struct grpc_call *call, void *arg);
void service_appends_drain(struct service_loop *l);
/* Who asks, as records name him. */
#define SERVICE_ACTOR_BYTES 80
void service_actor_of(const struct grpc_call *call, char *actor, size_t size);

/* service_read.c */
void service_read_open(struct grpc_call *call, void *arg);
void service_load_open(struct grpc_call *call, void *arg);
void service_backup_open(struct grpc_call *call, void *arg);
void service_subscribe_open(struct grpc_call *call, void *arg);
void service_reads_drain(struct service_loop *l);

/* service_acts.c: a unary call that is one act or several. Make it, put an append into each of its places and run
 * it: reply() is called when all are durable and none was refused; err set beforehand ends the call. */
struct acts_call {
	struct journal_service *service;
	struct grpc_call *call; /* a reference */
	struct append **appends;
	size_t count, under_way;
	void (*reply)(struct acts_call *ac);
	struct err err;
	char actor[SERVICE_ACTOR_BYTES];
};
struct acts_call *service_acts_new(struct grpc_call *call, struct journal_service *s, size_t count,
				   void (*reply)(struct acts_call *ac));
void service_acts_run(struct acts_call *ac);
/* For reply(): just after the last of them. */
struct journal_cursor service_acts_cursor(const struct acts_call *ac);
void service_begin_session(struct grpc_call *call, struct span request, void *arg);
void service_beat_session(struct grpc_call *call, struct span request, void *arg);
void service_end_session(struct grpc_call *call, struct span request, void *arg);
void service_claim_grants(struct grpc_call *call, struct span request, void *arg);
void service_release_grants(struct grpc_call *call, struct span request, void *arg);
struct journal_grant;
void service_grant_to(const struct journal_grant *g, PB(Grant) *ret);

/* service_watch.c */
void service_watch_grants_open(struct grpc_call *call, void *arg);
void service_watches_drain(struct service_loop *l);

/* service_group.c */
void service_list_groups(struct grpc_call *call, struct span request, void *arg);
void service_list_group_marks(struct grpc_call *call, struct span request, void *arg);
void service_act_on_group(struct grpc_call *call, struct span request, void *arg);

/* service_consume.c */
void service_consume_open(struct grpc_call *call, void *arg);
void service_consumers_drain(struct service_loop *l);

/* service_facts.c */
void service_stat(struct grpc_call *call, struct span request, void *arg);
void service_list_streams(struct grpc_call *call, struct span request, void *arg);

/* service_compact.c */
void service_set_retention(struct grpc_call *call, struct span request, void *arg);
void service_compact(struct grpc_call *call, struct span request, void *arg);

/* service_proof.c */
void service_checkpoint(struct grpc_call *call, struct span request, void *arg);
void service_inclusion_proof(struct grpc_call *call, struct span request, void *arg);
void service_consistency_proof(struct grpc_call *call, struct span request, void *arg);

/* service_withhold.c */
void service_delete(struct grpc_call *call, struct span request, void *arg);
void service_truncate(struct grpc_call *call, struct span request, void *arg);
void service_erase(struct grpc_call *call, struct span request, void *arg);

#endif
