/* Acts: what the server itself writes into the log at someone's request: sessions begun and ended, grants,
 * deletions and so on. An act is an append whose records are not known when it is asked for: the sequencer
 * decides it by its own rule, from the facts as of its turn, and then encodes what the rule says. System
 * streams ("$sessions", "$grants-...") are written by acts alone.
 *
 * To add an act is to write one file with its rule (struct act_ops) and, if its records are facts for later
 * decisions, their apply function; and to add a line for each record kind to the table in act.c:
 *
 *	struct my_act { struct act act; ... };		// what was asked, and what was decided
 *	act_append_new(journal, &(struct act_request){.act = &my->act, .records = ...}, &append, &refusal);
 *	journal_append(journal, &append, mailbox, on_done, arg, &err);
 *	on_done: append_answer(append); append_act(append)	// my_act, with what was decided
 *
 * Private to src/journal. */
#ifndef CAIRN_JOURNAL_ACT_H
#define CAIRN_JOURNAL_ACT_H

#include "base/arena.h"
#include "journal/append.h"
#include "journal/ledger.h"

struct ProtobufCMessage;
struct ProtobufCMessageDescriptor;

#define ACT_CONTENT_TYPE "application/x-protobuf"

/* What a rule may look at: all as of its turn, what was decided before it in the same batch included. */
struct act_facts {
	const struct ledger *ledger;
	const struct storage_stream_fact *const *streams; /* one each record, in the request's order */
};

enum act_verdict {
	ACT_WRITES,  /* its records are appended */
	ACT_HOLDS,   /* what was asked for is so already: nothing is written, the answer is OK */
	ACT_REFUSED, /* append_refuse() has been called */
};

struct act;
struct act_ops {
	/* The rule. Pure but for what it notes in the act; it may run more than once (when the log has
	 * moved), and the last time counts. It runs after the checks that all appends have: a repeat (by
	 * id), fences, conditions, expectations. */
	enum act_verdict (*decide)(struct act *act, struct append *a, const struct act_facts *facts);
	/* Appends the data of the i-th record, as decided: a message of record.proto, mostly by act_pack(). NULL
	 * for an act without records. */
	void (*encode)(struct act *act, size_t i, struct buf *out);
	void (*free)(struct act *act); /* with the append; any thread */
};
struct act { /* embedded in each act's own struct */
	const struct act_ops *ops;
	/* The session (RECORD_ID_BYTES, the act's own) whose row its rule wants to see; NULL: none. */
	const uint8_t *session;
	struct storage_session row;
	/* Decided: its first record begins or ends a session. */
	bool changes_session;
	struct storage_session_change change;
	/* The session that beats once the batch is durable; `row` then has its count. NULL: none. */
	const uint8_t *beats;
};

struct act_record {
	uint32_t kind; /* a row of the table in act.c */
	struct span stream;
	struct span id; /* RECORD_ID_BYTES, or empty: one is made, and a retry is another act */
};
struct act_request { /* borrowed, but for the act */
	struct act *act;
	const struct act_record *records; /* each in another stream */
	size_t record_count;
	size_t data_max; /* bytes that the data of one record takes at most */
	const struct journal_fence *fences;
	size_t fence_count;
	struct span actor; /* the authenticated peer, or empty */
};
/* Checks form and takes the act, also when it fails (it is freed then). Any thread. */
enum err_code act_append_new(const struct journal *j, const struct act_request *request, struct append **ret,
			     struct append_refusal *ret_refusal);
/* The same without a journal, as append_build(). */
enum err_code act_append_build(const struct act_request *request, const uint64_t seed[2],
			       const struct clock *clock, struct append **ret,
			       struct append_refusal *ret_refusal);
/* The act of an append that carries one, else NULL. */
struct act *append_act(const struct append *a);

/* Helpers for encode and apply. */
void act_pack(const struct ProtobufCMessage *message, struct buf *out);
/* NULL: malformed, or larger than the arena may get. */
void *act_unpack(const struct ProtobufCMessageDescriptor *type, struct arena *a, struct span data);

/* --- the table of record kinds, for decide, the sequencer and the ledger ------------------------------ */

struct act_kind {
	uint32_t kind;
	const char *type; /* of the records: the message's full name */
	/* What the record says to the ledger; NULL if it is no fact for later decisions. */
	ledger_apply_fn *apply;
	/* The system stream in which, or (ending in '-') the prefix of those in which the ledger looks for
	 * records of this kind when the journal is opened. */
	const char *streams;
	/* What the record does to its stream's facts besides being one more live record; or NULL. */
	void (*touch)(struct storage_stream_fact *fact);
};
const struct act_kind *act_kind_find(uint32_t kind); /* NULL: no act's */
const struct act_kind *act_kinds(size_t *ret_count);

/* --- for decide and the sequencer --------------------------------------------------------------------- */

/* Its rule's verdict; then, granted and numbered: the data of its records, into a->act_data. */
enum act_verdict act_decide(struct append *a, const struct act_facts *facts);
void act_encode_data(struct append *a);
struct span act_item_data(const struct append *a, const struct append_item *item);
/* The records themselves, into a->bytes, ready to be patched. */
void act_encode_records(struct append *a);

#endif
