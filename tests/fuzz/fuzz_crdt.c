/* The CRDT fold under bytes of anybody. The first byte says what follows: 0 a snapshot; otherwise records, each
 * a byte of session (0: the session of the next byte ends), a byte of `observed` counted back, a byte of length
 * and a delta. What must hold: two folds of the same records, one of which goes through its snapshot each time,
 * have the same snapshot; a function that was told of each step believes what one believes that was told at the
 * end; whatever is resolved can be applied. */
#include <config.h>

#include <stdint.h>
#include <stdlib.h>

#include "base/limits.h"
#include "base/must.h"
#include "cloudstate/crdt.pb-c.h"
#include "proxy/crdt_fold.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t sessions[1][CRDT_SESSION_BYTES] = {{1}};

static struct buf saved(const struct crdt_fold *f)
{
	struct buf b;
	buf_init(&b, 8 * MIB);
	must(crdt_fold_save(f, &b, NULL) == ERR_OK);
	return b;
}

static struct crdt_fold *reloaded(struct crdt_fold *f)
{
	struct crdt_fold *back = NULL;
	struct buf b = saved(f), again;
	must(crdt_fold_load(buf_span(&b), &back, NULL) == ERR_OK);
	again = saved(back);
	must(span_eq(buf_span(&b), buf_span(&again)));
	buf_release(&b);
	buf_release(&again);
	crdt_fold_free(f);
	return back;
}

/* Only a type that is fixed once can be told. */
static void tell(struct crdt_told *t, const struct crdt_fold *f, bool *ret_told)
{
	struct crdt_nodes nodes = {.self = {1}, .live = sessions, .live_count = 1};
	const Cloudstate__Crdt__CrdtDelta *delta = NULL;
	struct arena a;
	arena_init(&a, 64 * MIB);
	enum err_code code = crdt_told_tell(t, f, &nodes, &a, &delta, NULL);
	must(code == ERR_OK || code == ERR_CONFLICT);
	*ret_told = delta != NULL;
	if (code == ERR_OK) {
		must(crdt_told_tell(t, f, &nodes, &a, &delta, NULL) == ERR_OK);
		must(!delta);
	}
	arena_release(&a);
}

static void snapshot(struct span bytes)
{
	struct crdt_fold *f = NULL;
	bool any;
	if (crdt_fold_load(bytes, &f, NULL))
		return;
	f = reloaded(f);
	struct crdt_told *t = crdt_told_new();
	tell(t, f, &any);
	must(any == (crdt_fold_type(f) != CRDT_NONE));
	crdt_told_free(t);
	crdt_fold_free(f);
}

struct world {
	struct crdt_fold *plain, *through;
	struct crdt_told *told;
	uint64_t sequence;
	struct arena arena;
};

static void delta(struct world *w, uint8_t session, uint8_t back, struct span bytes)
{
	const struct ProtobufCMessageDescriptor *type = &cloudstate__crdt__crdt_delta__descriptor;
	const Cloudstate__Crdt__CrdtDelta *d = (const void *)crdt_unpack(type, &w->arena, bytes), *to = NULL;
	struct crdt_record r = {.session = {session},
				.sequence = ++w->sequence,
				.observed = w->sequence > back ? w->sequence - back : 0,
				.delta = d};
	struct crdt_told *own = crdt_told_new();
	bool any;
	if (d && !crdt_resolve(w->plain, d, 7, &w->arena, &to, NULL)) {
		(void)crdt_told_own(own, d, NULL);
		r.delta = to ? to : d;
	}
	if (d) {
		must(crdt_fold_apply(w->plain, &r, NULL) == ERR_OK);
		must(crdt_fold_apply(w->through, &r, NULL) == ERR_OK);
		tell(own, w->plain, &any);
	}
	crdt_told_free(own);
}

static void records(struct span rest)
{
	struct world w = {crdt_fold_new(), crdt_fold_new(), crdt_told_new(), 0, {0}};
	bool any;
	arena_init(&w.arena, 64 * MIB);
	while (rest.n >= 3) {
		uint8_t session = rest.p[0] & 3, second = rest.p[1];
		size_t n = rest.p[2] < rest.n - 3 ? rest.p[2] : rest.n - 3;
		if (session) {
			delta(&w, session, second, span_of(rest.p + 3, n));
		} else {
			crdt_fold_end_session(w.plain, (uint8_t[CRDT_SESSION_BYTES]){second & 3});
			crdt_fold_end_session(w.through, (uint8_t[CRDT_SESSION_BYTES]){second & 3});
		}
		w.through = reloaded(w.through);
		tell(w.told, w.plain, &any);
		rest = span_skip(rest, 3 + n);
	}
	struct buf a = saved(w.plain), b = saved(w.through);
	must(span_eq(buf_span(&a), buf_span(&b)));
	buf_release(&a);
	buf_release(&b);
	crdt_fold_free(w.plain);
	crdt_fold_free(w.through);
	crdt_told_free(w.told);
	arena_release(&w.arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size && !data[0])
		snapshot(span_of(data + 1, size - 1));
	else if (size)
		records(span_of(data + 1, size - 1));
	return 0;
}
