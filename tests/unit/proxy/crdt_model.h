/* CRDTs as the contract words them, written without the fold: the value of a whole history by brute force, and
 * a function that holds a plain value. Elements are the bytes 0 to MODEL_KEYS - 1, values are compared as text. */
#ifndef CRDT_MODEL_H
#define CRDT_MODEL_H

#include <stdio.h>

#include "base/arena.h"
#include "cloudstate/crdt.pb-c.h"
#include "proxy/crdt_fold.h"

#define MODEL_KEYS 5
#define MODEL_DEPTH 2 /* maps in one another */
#define MODEL_SESSIONS 8

typedef Cloudstate__Crdt__CrdtDelta delta_t;
#define DELTA(NAME) CLOUDSTATE__CRDT__CRDT_DELTA__DELTA_##NAME

/* One record of the history. */
struct model_op {
	unsigned session; /* 1 to MODEL_SESSIONS */
	uint64_t sequence, observed;
	const delta_t *delta; /* NULL: deleted */
};

/* Messages, in the arena. */
delta_t *model_delta(struct arena *a, enum crdt_type type);
Google__Protobuf__Any *model_key(struct arena *a, unsigned key);
unsigned model_key_of(const Google__Protobuf__Any *any);

/* A delta in text, as "(orset -1 +23)". */
void model_delta_print(const delta_t *d, FILE *out);

/* The value after the whole history, in text; sessions that live as bits 1 << session. */
void model_history_print(const struct model_op *ops, size_t n, unsigned live, FILE *out);
/* A delta that is a whole value, in text. */
void model_whole_print(const delta_t *delta, FILE *out);

/* What a function holds. */
struct fn_value {
	enum crdt_type type;
	int64_t number;	 /* counters; a register's value, -1: none */
	unsigned keys;	 /* of a set, as bits */
	bool flag, self; /* self: its vote */
	int votes_for, total_voters;
	struct fn_value *entries[MODEL_KEYS];
};
struct fn_value *fn_new(enum crdt_type type);
void fn_free(struct fn_value *v);
void fn_told(struct fn_value *v, const delta_t *delta); /* aborts when an SDK would be puzzled */
void fn_print(const struct fn_value *v, FILE *out);
/* A change of its own, made and applied. */
delta_t *fn_change(struct fn_value *v, struct arena *a, uint64_t *random, unsigned depth);

uint64_t model_random(uint64_t *state, uint64_t below);

#endif
