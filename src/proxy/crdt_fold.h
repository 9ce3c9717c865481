/* CRDTs as a fold over an entity's stream, in the order of the log (DESIGN 5). No I/O, no clock.
 *
 * Every change is a record: a session (the proxy process that wrote it), `observed` (the sequence up to which
 * that proxy's function had been told of the stream) and a CrdtDelta. The log's order is total and every record
 * is there once, so a fold that has applied the same records is the same everywhere; what was concurrent is
 * decided by `observed` alone:
 *
 *	counters are sums; a flag once set stays set; of a register's writes the greatest clock wins, and of
 *	equal ones the later; a gset only grows;
 *	an element of a set and an entry of a map keep the sequence of each session's newest add or update, and
 *	one number for all sessions that have ended (the greatest of theirs: it is struck only when all are). A
 *	removal or clear by session W, with `observed` p, strikes W's number and every number <= p. What has no
 *	number left is gone, with its value; an update that comes after it begins at the type's zero.
 *	A session has one vote, which goes when the session ends.
 *	The first delta fixes the type: a delta of another type is ignored. After a delete nothing counts.
 *
 * A function is told differences between what it must believe (struct crdt_told) and the fold.
 *
 *	crdt_fold_apply(fold, &record, &err);				// for each record, in order
 *	crdt_told_tell(told, fold, &nodes, &arena, &delta, &err);	// delta: for the function, or NULL
 *	crdt_told_own(told, delta, &err);				// the function's own: it believes it now
 *	crdt_resolve(fold, delta, wall_ms, &arena, &to_record, &err);	// checked, with clocks that are numbers
 *
 * Messages are unpacked by crdt_unpack(), which bounds their nesting: all functions here recurse over it. After
 * ERR_NOMEM a fold or a told value is not to be used any more, only freed. One thread. */
#ifndef CAIRN_PROXY_CRDT_FOLD_H
#define CAIRN_PROXY_CRDT_FOLD_H

#include <stdbool.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

struct Cloudstate__Crdt__CrdtDelta;
struct ProtobufCMessageDescriptor;
struct ProtobufCMessage;

#define CRDT_SESSION_BYTES 16

/* Numbered as CrdtDelta's members are. */
enum crdt_type {
	CRDT_NONE,
	CRDT_GCOUNTER,
	CRDT_PNCOUNTER,
	CRDT_GSET,
	CRDT_ORSET,
	CRDT_LWWREGISTER,
	CRDT_FLAG,
	CRDT_ORMAP,
	CRDT_VOTE
};
const char *crdt_type_name(enum crdt_type type); /* as in the protocol: "GCounter", ... */

/* ---- the fold ---------------------------------------------------------------------------------------- */

struct crdt_fold;
struct crdt_fold *crdt_fold_new(void);
void crdt_fold_free(struct crdt_fold *f); /* NULL is fine */

struct crdt_record {
	uint8_t session[CRDT_SESSION_BYTES]; /* not all zero */
	uint64_t sequence;		     /* greater than that of the record before */
	uint64_t position;		     /* in the log */
	uint64_t observed;
	const struct Cloudstate__Crdt__CrdtDelta *delta; /* NULL: the CRDT is deleted */
};
/* ERR_NOMEM alone: what does not fit the fold is ignored, by every replica alike. */
enum err_code crdt_fold_apply(struct crdt_fold *f, const struct crdt_record *record, struct err *err);
/* The stream goes up to there, without a record for the fold. */
void crdt_fold_skip_to(struct crdt_fold *f, uint64_t sequence);
/* The session has ended, and all that it wrote is applied: its numbers are the ended sessions' now, its vote is
 * gone. The value of nothing but votes changes. */
void crdt_fold_end_session(struct crdt_fold *f, const uint8_t session[CRDT_SESSION_BYTES]);

/* All sessions in it had begun before this position of the log: that of the snapshot which it was loaded from. */
void crdt_fold_began_before(struct crdt_fold *f, uint64_t position);
struct crdt_nodes;
/* The sessions that have written and are sure to have ended: they are not among those that live, and began before
 * the position up to which those are known. The caller frees *ret; NULL if there are none. */
size_t crdt_fold_ended(const struct crdt_fold *f, const struct crdt_nodes *nodes, uint64_t position,
		       uint8_t (**ret)[CRDT_SESSION_BYTES]);
/* It depends on who lives: there is a vote in it. */
bool crdt_fold_has_votes(const struct crdt_fold *f);
size_t crdt_fold_session_count(const struct crdt_fold *f); /* that it tells apart, the ended ones not among them */

size_t crdt_fold_bytes(const struct crdt_fold *f); /* of memory, about: goes through all of it. NULL is fine */
uint64_t crdt_fold_sequence(const struct crdt_fold *f); /* of the newest record applied; 0: none */
bool crdt_fold_deleted(const struct crdt_fold *f);
enum crdt_type crdt_fold_type(const struct crdt_fold *f); /* CRDT_NONE before the first delta, and once deleted */

/* The fold as the data of a snapshot (cairn.crdt.v1.Fold), and back. ERR_LIMIT: it does not fit into out.
 * ERR_INVALID: the bytes are no fold. */
enum err_code crdt_fold_save(const struct crdt_fold *f, struct buf *out, struct err *err);
enum err_code crdt_fold_load(struct span bytes, struct crdt_fold **ret, struct err *err);

/* ---- the function's side ----------------------------------------------------------------------------- */

/* The sessions that live, for votes. */
struct crdt_nodes {
	uint8_t self[CRDT_SESSION_BYTES];
	const uint8_t (*live)[CRDT_SESSION_BYTES]; /* self among them */
	size_t live_count;
};

/* The plain value that the function must believe: what it was told, and its own changes since. */
struct crdt_told;
struct crdt_told *crdt_told_new(void);
void crdt_told_free(struct crdt_told *t); /* NULL is fine */
size_t crdt_told_bytes(const struct crdt_told *t); /* as crdt_fold_bytes() */
/* The function has changed its value so. ERR_INVALID: a Flag that it believed to be set was switched off, which
 * is a fault of the function. What else does not fit is found by crdt_resolve(). */
enum err_code crdt_told_own(struct crdt_told *t, const struct Cloudstate__Crdt__CrdtDelta *delta,
			    struct err *err);
/* What the function is to be told so that it believes what the fold says: NULL when it does already. From then
 * on it counts as told. A value that was never told goes out whole, at zero as an empty message. ERR_LIMIT when
 * the arena is full. */
enum err_code crdt_told_tell(struct crdt_told *t, const struct crdt_fold *f, const struct crdt_nodes *nodes,
			     struct arena *a, const struct Cloudstate__Crdt__CrdtDelta **ret, struct err *err);

/* The function's delta as it is to be recorded: checked against the value as this proxy sees it, clocks made
 * numbers (CUSTOM), updates of entries that are gone left out. NULL when nothing is left to record. ERR_INVALID
 * is a fault of the function and says which; ERR_LIMIT when the arena is full. */
enum err_code crdt_resolve(const struct crdt_fold *f, const struct Cloudstate__Crdt__CrdtDelta *delta,
			   int64_t wall_ms, struct arena *a, const struct Cloudstate__Crdt__CrdtDelta **ret,
			   struct err *err);

/* Unpacks a message that may hold deltas: like grpc_unpack(), but NULL also when it is nested too deeply. */
struct ProtobufCMessage *crdt_unpack(const struct ProtobufCMessageDescriptor *type, struct arena *a,
				     struct span bytes);
/* What an arena for that needs for n bytes: many small elements have many small structs. */
#define CRDT_ARENA_BYTES(n) ((size_t)(n) * 12 + 64 * (size_t)1024)

#endif
