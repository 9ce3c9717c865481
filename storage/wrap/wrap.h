/* Backends that wrap another one. They promise what it promises and pass the same contract suite.
 *
 * trace ("trace:URI") writes a line to the log for every call: what was asked, what came of it, how long it
 * took. faulty makes calls fail by script or by chance; for tests, so it has no URI. Both take the store
 * they wrap: closing the wrapper closes it. */
#ifndef CAIRN_STORAGE_WRAP_H
#define CAIRN_STORAGE_WRAP_H

#include "storage/storage.h"

extern const struct storage_ops storage_trace;
extern const struct storage_ops storage_faulty;

/* Takes inner. */
struct storage *storage_trace_new(struct storage *inner);
struct storage *storage_faulty_new(struct storage *inner, uint64_t seed);

enum faulty_op {
	FAULTY_LOOKUP,
	FAULTY_APPEND, /* of at least one record */
	FAULTY_READER_OPEN,
	FAULTY_READ,
	FAULTY_SNAPSHOT,
	FAULTY_LIST,
	FAULTY_STAT,
	FAULTY_SESSION_BEAT,
	FAULTY_REMOVE,
	FAULTY_TILE_PUT,
	FAULTY_TILE_GET,
	FAULTY_OPS
};

/* One thing to go wrong. */
struct faulty_rule {
	enum faulty_op op;
	uint64_t nth;                 /* the n-th such call from now, once; 0: by chance, again and again */
	unsigned per_mille;           /* by chance: how often */
	enum storage_outcome outcome; /* FAULTY_APPEND: anything but STORAGE_OK */
	enum err_code code;           /* the others: anything but ERR_OK; ERR_NOT_FOUND is for snapshots and tiles */
	/* FAULTY_APPEND with STORAGE_UNKNOWN or STORAGE_FAILED: it is done nevertheless. */
	bool done;
};

/* Any thread. After STORAGE_FAILED every append fails, as the contract says, until storage_faulty_heal(). */
void storage_faulty_add(struct storage *faulty, const struct faulty_rule *rule);
/* Drops all rules, and a failure. */
void storage_faulty_heal(struct storage *faulty);
/* Calls of the kind so far. */
uint64_t storage_faulty_calls(struct storage *faulty, enum faulty_op op);

#endif
