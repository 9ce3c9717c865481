/* Any interleaving of writers, with any lag of what they observed, gives the same value on every replica: the
 * one that the model finds in the history, and every function believes it in the end. */
#include <config.h>

#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/mem.h"
#include "crdt_model.h"

#define RUNS 4000u
#define REPLICAS 3u
#define STEPS 60u
#define RECORDS_MAX 200u

struct replica {
	unsigned session; /* 1 to MODEL_SESSIONS */
	struct crdt_fold *fold;
	struct crdt_told *told;
	struct fn_value *fn; /* NULL: its function has no value */
	uint64_t observed;
	uint64_t own; /* its newest record */
	unsigned ended; /* sessions whose end it was told of, as bits */
};

struct world {
	uint64_t seed, random;
	struct arena arena;
	struct replica replicas[REPLICAS];
	struct model_op log[RECORDS_MAX];
	size_t records;
	unsigned sessions, live; /* made so far; as bits */
	uint64_t last[MODEL_SESSIONS + 1]; /* each session's newest record */
	enum crdt_type type;
};

static uint64_t chance(struct world *w, uint64_t below)
{
	return model_random(&w->random, below);
}

static void session_id(unsigned session, uint8_t ret[CRDT_SESSION_BYTES])
{
	memset(ret, 0, CRDT_SESSION_BYTES);
	ret[3] = (uint8_t)session;
}

static void check(enum err_code code, const struct err *err)
{
	cr_assert(!code, "%s", err->text);
}

static void catch_up(struct world *w, struct replica *r, uint64_t to)
{
	struct err err = {0};
	for (uint64_t s = crdt_fold_sequence(r->fold) + 1; s <= to; s++) {
		const struct model_op *op = &w->log[s - 1];
		struct crdt_record record = {.sequence = s, .observed = op->observed, .delta = op->delta};
		session_id(op->session, record.session);
		check(crdt_fold_apply(r->fold, &record, &err), &err);
	}
}

static void tell(struct world *w, struct replica *r)
{
	uint8_t live[MODEL_SESSIONS][CRDT_SESSION_BYTES];
	struct crdt_nodes nodes = {.live = (const uint8_t(*)[CRDT_SESSION_BYTES])live};
	const delta_t *delta = NULL;
	struct err err = {0};
	session_id(r->session, nodes.self);
	for (unsigned s = 1; s <= MODEL_SESSIONS; s++)
		if (w->live >> s & 1)
			session_id(s, live[nodes.live_count++]);
	if (crdt_fold_deleted(r->fold))
		return;
	check(crdt_told_tell(r->told, r->fold, &nodes, &w->arena, &delta, &err), &err);
	r->observed = crdt_fold_sequence(r->fold);
	if (!delta)
		return;
	if (!r->fn)
		r->fn = fn_new((enum crdt_type)delta->delta_case);
	fn_told(r->fn, delta);
}

/* Over the wire and back, as everything else that is recorded. */
static const delta_t *packed(struct world *w, const delta_t *delta)
{
	size_t n = protobuf_c_message_get_packed_size(&delta->base);
	uint8_t *bytes = arena_alloc(&w->arena, n + 1);
	protobuf_c_message_pack(&delta->base, bytes);
	const delta_t *back =
		(const void *)crdt_unpack(&cloudstate__crdt__crdt_delta__descriptor, &w->arena, span_of(bytes, n));
	cr_assert_not_null(back);
	return back;
}

static void record(struct world *w, struct replica *r, const delta_t *delta)
{
	uint64_t sequence = w->records + 1;
	w->log[w->records++] = (struct model_op){
		.session = r->session, .sequence = sequence, .observed = r->observed, .delta = delta};
	r->own = w->last[r->session] = w->records;
}

static void write_own(struct world *w, struct replica *r)
{
	struct err err = {0};
	const delta_t *resolved = NULL;
	catch_up(w, r, r->own);
	/* The first delta is appended where there is none, else it is refused and the function told. */
	if (crdt_fold_type(r->fold) == CRDT_NONE && w->records) {
		catch_up(w, r, 1);
		tell(w, r);
	}
	if (w->records == RECORDS_MAX || crdt_fold_deleted(r->fold))
		return;
	if (!r->fn)
		r->fn = fn_new(w->type);
	delta_t *delta = fn_change(r->fn, &w->arena, &w->random, MODEL_DEPTH);
	check(crdt_told_own(r->told, delta, &err), &err);
	check(crdt_resolve(r->fold, delta, (int64_t)chance(w, 1000), &w->arena, &resolved, &err), &err);
	bool all_seen = r->observed == w->records;
	if (resolved)
		record(w, r, packed(w, resolved));
	if (all_seen && resolved)
		r->observed = w->records;
}

static void through_snapshot(struct replica *r)
{
	struct buf bytes;
	struct err err = {0};
	struct crdt_fold *back = NULL;
	buf_init(&bytes, 1 << 20);
	check(crdt_fold_save(r->fold, &bytes, &err), &err);
	check(crdt_fold_load(buf_span(&bytes), &back, &err), &err);
	crdt_fold_free(r->fold);
	r->fold = back;
	buf_release(&bytes);
}

static void replica_begin(struct world *w, struct replica *r)
{
	r->session = ++w->sessions;
	r->told = crdt_told_new();
	r->observed = r->own = 0;
	w->live |= 1u << r->session;
	if (!r->fold)
		r->fold = crdt_fold_new();
}

static void replica_restart(struct world *w, struct replica *r)
{
	w->live &= ~(1u << r->session);
	crdt_told_free(r->told);
	fn_free(r->fn);
	r->fn = NULL;
	r->own = 0;
	replica_begin(w, r);
	tell(w, r);
}

/* Of a session whose records it has all applied. */
static void hear_of_ends(struct world *w, struct replica *r)
{
	for (unsigned s = 1; s <= w->sessions; s++) {
		uint8_t id[CRDT_SESSION_BYTES];
		session_id(s, id);
		if (w->live >> s & 1 || r->ended >> s & 1 || crdt_fold_sequence(r->fold) < w->last[s])
			continue;
		crdt_fold_end_session(r->fold, id);
		r->ended |= 1u << s;
	}
}

static void step(struct world *w)
{
	struct replica *r = &w->replicas[chance(w, REPLICAS)];
	uint64_t behind = w->records - crdt_fold_sequence(r->fold);
	switch (chance(w, 12)) {
	case 0:
	case 1:
		catch_up(w, r, crdt_fold_sequence(r->fold) + chance(w, behind + 1));
		break;
	case 2:
	case 3:
		catch_up(w, r, r->own);
		tell(w, r);
		break;
	case 4:
		through_snapshot(r);
		break;
	case 5:
		hear_of_ends(w, r);
		break;
	case 6:
		if (w->sessions < MODEL_SESSIONS && !chance(w, 4))
			replica_restart(w, r);
		break;
	case 7:
		if (!chance(w, 150) && w->records && w->records < RECORDS_MAX)
			record(w, r, NULL);
		break;
	default:
		write_own(w, r);
		break;
	}
}

static void expect_same(struct world *w, struct replica *r, const char *want)
{
	char *got = NULL, *believed = NULL;
	size_t n = 0;
	FILE *out = open_memstream(&got, &n);
	struct crdt_told *fresh = crdt_told_new(), *told = r->told;
	struct fn_value *fn = r->fn;
	r->told = fresh;
	r->fn = NULL;
	tell(w, r);
	if (crdt_fold_deleted(r->fold))
		fprintf(out, "deleted");
	else
		fn_print(r->fn, out);
	fclose(out);
	fn_free(r->fn);
	r->told = told;
	r->fn = fn;
	cr_assert_str_eq(got, want, "seed %llu: a replica has %s, the history %s", (unsigned long long)w->seed,
			 got, want);
	tell(w, r);
	out = open_memstream(&believed, &n);
	fn_print(r->fn, out);
	fclose(out);
	if (!crdt_fold_deleted(r->fold))
		cr_assert_str_eq(believed, want, "seed %llu: a function believes %s, the history says %s",
				 (unsigned long long)w->seed, believed, want);
	crdt_told_free(fresh);
	free(got);
	free(believed);
}

static size_t run(uint64_t seed)
{
	struct world *w = mem_xalloc(sizeof *w);
	char *want = NULL;
	size_t n = 0;
	w->seed = w->random = seed;
	arena_init(&w->arena, 256u << 20);
	w->type = (enum crdt_type)(1 + chance(w, CRDT_VOTE + 3));
	if (w->type > CRDT_VOTE) /* maps most, for they hold all others */
		w->type = CRDT_ORMAP;
	for (unsigned i = 0; i < REPLICAS; i++)
		replica_begin(w, &w->replicas[i]);
	for (unsigned i = 0; i < STEPS; i++)
		step(w);
	FILE *out = open_memstream(&want, &n);
	model_history_print(w->log, w->records, w->live, out);
	fclose(out);
	for (unsigned i = 0; i < REPLICAS; i++) {
		catch_up(w, &w->replicas[i], w->records);
		if (chance(w, 2))
			hear_of_ends(w, &w->replicas[i]);
		expect_same(w, &w->replicas[i], want);
		crdt_fold_free(w->replicas[i].fold);
		crdt_told_free(w->replicas[i].told);
		fn_free(w->replicas[i].fn);
	}
	free(want);
	arena_release(&w->arena);
	size_t records = w->records;
	mem_free(w);
	return records;
}

Test(crdt_property, every_replica_and_function_comes_to_the_historys_value)
{
	const char *seed = getenv("CAIRN_SEED");
	uint64_t first = seed ? strtoull(seed, NULL, 10) : 1;
	size_t records = 0;
	for (uint64_t i = 0; i < RUNS; i++)
		records += run(first + i);
	cr_assert_gt(records, 10 * RUNS, "the runs write too little to say anything: %zu records", records);
}
