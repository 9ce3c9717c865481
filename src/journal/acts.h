/* What the journal writes itself at someone's request. Each function makes an append: it is given to
 * journal_append() and answered like any other (journal.h), and it is the caller's until then. They check
 * form: ERR_INVALID or ERR_LIMIT say what is wrong. Any thread. */
#ifndef CAIRN_JOURNAL_ACTS_H
#define CAIRN_JOURNAL_ACTS_H

#include "journal/journal.h"

#define SESSIONS_STREAM_NAME "$sessions"
#define GRANTS_STREAM_PREFIX "$grants-" /* and the service's name */

/* ---- sessions -------------------------------------------------------------------------------- */

/* The liveness of a process: what it holds is its own until the log says that the session has ended. */
struct journal_session_begin {
	uint8_t id[RECORD_ID_BYTES]; /* chosen by the caller (uuid_v7()); repeating it begins it once */
	const struct span *services; /* that it serves, namespace included */
	size_t service_count;
	uint32_t ttl_ms;     /* without a beat for so long it ends */
	struct span address; /* where others reach the process, or empty */
	struct span actor;
};
enum err_code journal_session_begin_new(const struct journal *j, const struct journal_session_begin *request,
					struct append **ret, struct append_refusal *ret_refusal);
/* That the process lives. ERR_NOT_FOUND: the session has ended. Whoever counts on it counts from before he
 * asked, on his own clock. */
enum err_code journal_session_beat_new(const struct journal *j, const uint8_t session[RECORD_ID_BYTES],
				       struct append **ret, struct append_refusal *ret_refusal);
uint64_t journal_session_beats(const struct append *a); /* as answered, ERR_OK: how many there have been */
/* One that has ended, or never was, is no error. */
enum err_code journal_session_end_new(const struct journal *j, const uint8_t session[RECORD_ID_BYTES],
				      struct span actor, struct append **ret,
				      struct append_refusal *ret_refusal);

/* ---- grants ---------------------------------------------------------------------------------- */

/* A slot of a service is granted to one session at a time; each grant is a new epoch of the slot. The end of
 * the session frees the slot, for the next grant: what the old holder appends is taken until then. */
struct journal_grant {
	uint32_t slot;
	uint64_t epoch; /* 0: the slot has never been granted */
	uint8_t session[RECORD_ID_BYTES];
	bool released; /* given back */
};
struct journal_claim {
	struct span service; /* one that the session began with */
	uint32_t slot;
	uint8_t session[RECORD_ID_BYTES];
	struct span actor;
};
/* Answers with the slot's newest grant (journal_grant_of()): the session's own, new or held already, or
 * another's who holds it. ERR_NOT_FOUND: the session has ended. ERR_CONFLICT: it does not serve that. */
enum err_code journal_grant_claim_new(const struct journal *j, const struct journal_claim *claim,
				      struct append **ret, struct append_refusal *ret_refusal);
/* Gives back what is still its own. */
enum err_code journal_grant_release_new(const struct journal *j, const struct journal_claim *claim,
					uint64_t epoch, struct append **ret,
					struct append_refusal *ret_refusal);
const struct journal_grant *journal_grant_of(const struct append *a); /* as answered, ERR_OK */

struct journal_session {
	uint8_t id[RECORD_ID_BYTES];
	uint32_t ttl_ms;
	struct span address;
};
struct journal_grants {
	struct journal_session *sessions; /* those that live and serve it */
	size_t session_count;
	struct journal_grant *grants; /* the newest of each slot that was ever granted */
	size_t grant_count;
};
/* Who holds what, as of the answer's cursor; writes nothing. */
enum err_code journal_grants_look_new(const struct journal *j, struct span service, struct append **ret,
				      struct append_refusal *ret_refusal);
const struct journal_grants *journal_grants_of(const struct append *a); /* as answered, ERR_OK */

/* What must still be so for an append to be taken: this grant is the slot's newest and not given back, or
 * this session lives. As found, of a refusal: the slot's newest grant (epoch 0: none), or the session. */
struct journal_fence {
	bool by_session;
	struct span service; /* of a grant, with slot and epoch */
	uint32_t slot;
	uint64_t epoch;
	uint8_t session[RECORD_ID_BYTES]; /* by_session; as found of a grant: who holds it */
};

/* ---- incarnations ---------------------------------------------------------------------------- */

/* The journal's history was cut back to `fork`, at most the head, and goes on: the next incarnation begins. */
struct journal_incarnation {
	uint64_t fork;
	bool loss;	    /* records were lost, and it is accepted; else a backup was restored */
	struct span reason; /* 1 to LIMIT_REASON_BYTES bytes */
	struct span actor;
};
enum err_code journal_incarnation_new(const struct journal *j, const struct journal_incarnation *request,
				      struct append **ret, struct append_refusal *ret_refusal);

/* ---- deleting, truncating, erasing ------------------------------------------------------------- */

/* One act upon streams; what it withholds is withheld once it is answered. Refused: ERR_NOT_FOUND (there is no
 * such stream), ERR_CONFLICT (a sequence is beyond the newest, which the refusal tells; or the stream has grown
 * since before_position was looked up). One that changes nothing writes nothing. */
struct journal_withhold {
	uint32_t kind; /* RECORD_DELETE, _TRUNCATE, _ERASE */
	const struct span *streams;
	size_t stream_count; /* 1, but for erasing */
	struct span reason;  /* 1 to LIMIT_REASON_BYTES bytes */
	struct span actor;
	/* Truncate: what is below the sequence. The position is that of the first record given that has the
	 * sequence or a later one; without, the newest sequence must be the one before: all goes. */
	uint64_t before_sequence, before_position;
	bool has_before_position;
	/* Erase: events with these sequences, inclusive; both 0: the stream as a whole. Snapshots at or after
	 * the first go with them, unless they are kept. */
	uint64_t from_sequence, to_sequence;
	bool keep_snapshots;
	/* Erase: also a record in "$acts", of the prefix and how many streams it stands for in all. */
	bool has_prefix;
	struct span prefix;
	uint64_t prefix_streams;
};
enum err_code journal_withhold_new(const struct journal *j, const struct journal_withhold *request,
				   struct append **ret, struct append_refusal *ret_refusal);

/* ---- retention, compaction --------------------------------------------------------------------- */

/* Sets the rule for a stream or a category; with all bounds 0 there is none any more. */
struct journal_retention {
	bool category;
	struct span name;
	uint64_t max_count; /* newest sequences that are kept */
	int64_t max_age_us;
	uint64_t before_sequence;
	struct span reason, actor;
};
enum err_code journal_retention_new(const struct journal *j, const struct journal_retention *request,
				    struct append **ret, struct append_refusal *ret_refusal);

struct journal_compacted {
	uint64_t units, rewritten; /* looked through, and changed (files: segments) */
	uint64_t removed, erased;  /* records, and bodies alone */
	uint64_t bytes_before, bytes_after; /* of those that were rewritten */
};
/* err is NULL on success. */
typedef void journal_compact_fn(const struct journal_compacted *result, const struct err *err, void *arg);
/* Goes through all of the log as it is now; done runs once, on the mailbox. What is asked for meanwhile comes after
 * it. ERR_UNAVAILABLE: the journal is stopping. */
enum err_code journal_compact(struct journal *j, struct span actor, struct mailbox *mailbox,
			      journal_compact_fn *done, void *arg, struct err *err);

/* ---- consumer groups ------------------------------------------------------------------------- */

#define GROUP_STREAM_PREFIX "$group-"   /* and the group's name: its offsets; also the name of its service */
#define GROUP_STREAM_BYTES (16 + LIMIT_GROUP_NAME_BYTES)

struct group_mark; /* group.h */
enum err_code journal_group_check(struct span group, struct err *err); /* its name */
/* Of the offsets of a partition, into the buffer of GROUP_STREAM_BYTES. */
struct span journal_group_stream(struct span group, uint32_t partition, char *buf);
/* `$parked-NAME`, where it is recorded what is parked and what people decide about it; into such a buffer, too. */
struct span journal_parked_stream(struct span group, char *buf);
#define PARKED_STREAM_KINDS (UINT32_C(1) << RECORD_PARKED | UINT32_C(1) << RECORD_GROUP_ACT)
/* In which partition a stream is. */
uint32_t journal_group_partition_of(struct span stream, uint32_t partitions);

/* The group begins at the position. One that has been made stays as it is. */
enum err_code journal_group_make_new(const struct journal *j, struct span group, uint32_t partitions,
				     uint64_t position, struct span actor, struct append **ret,
				     struct append_refusal *ret_refusal);
struct journal_group_offset {
	struct span group;
	uint32_t partition, partitions;
	uint64_t position; /* everything below is done but for what is marked */
	uint64_t acts_below;
	const struct group_mark *marks;
	size_t mark_count;
};
/* Both are taken only if the fence holds. */
enum err_code journal_group_offset_new(const struct journal *j, const struct journal_group_offset *offset,
				       const struct journal_fence *fence, struct append **ret,
				       struct append_refusal *ret_refusal);
struct journal_park {
	struct span group, stream, reason;
	uint64_t position;
	bool goes_on;
};
enum err_code journal_park_new(const struct journal *j, const struct journal_park *park,
			       const struct journal_fence *fence, struct append **ret,
			       struct append_refusal *ret_refusal);
/* What an operator wants: GroupAct in record.proto. */
struct journal_group_act {
	struct span group, stream, reason, actor;
	uint32_t act; /* of GroupAct */
	bool by_position;
	uint64_t position;
	bool goes_on;
};
enum err_code journal_group_act_new(const struct journal *j, const struct journal_group_act *request,
				    struct append **ret, struct append_refusal *ret_refusal);

#endif
