/* Incarnations: see incarnation.h. */
#include <config.h>

#include "journal/incarnation.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/acts.h"
#include "journal/internal.h"
#include "journal/wire.h"
#include "journal/withhold.h"

#define ARENA_BYTES (16 * KIB)

/* ---- cuts ------------------------------------------------------------------------------------- */

struct cut {
	uint64_t incarnation, fork;
};
struct cuts {
	pthread_mutex_t lock;
	struct cut *list; /* by incarnation */
	size_t n;
	atomic_ullong newest; /* asked for with every answer */
};

struct cuts *cuts_new(void)
{
	struct cuts *c = mem_xalloc(sizeof(*c));
	must(pthread_mutex_init(&c->lock, NULL) == 0);
	atomic_init(&c->newest, 1);
	return c;
}

void cuts_free(struct cuts *c)
{
	if (!c)
		return;
	pthread_mutex_destroy(&c->lock);
	mem_free(c->list);
	mem_free(c);
}

static pthread_mutex_t *lock_of(const struct cuts *c)
{
	return (pthread_mutex_t *)(uintptr_t)&c->lock;
}

void cuts_add(struct cuts *c, uint64_t incarnation, uint64_t fork)
{
	pthread_mutex_lock(lock_of(c));
	if (incarnation > atomic_load(&c->newest)) {
		c->list = mem_xrealloc(c->list, (c->n + 1) * sizeof(*c->list));
		c->list[c->n++] = (struct cut){incarnation, fork};
		atomic_store(&c->newest, incarnation);
	}
	pthread_mutex_unlock(lock_of(c));
}

uint64_t cuts_incarnation(const struct cuts *c)
{
	return atomic_load(&c->newest);
}

uint64_t cuts_fork_of(const struct cuts *c, uint64_t incarnation)
{
	uint64_t fork = UINT64_MAX;
	pthread_mutex_lock(lock_of(c));
	for (size_t i = 0; i < c->n; i++)
		if (c->list[i].incarnation > incarnation && c->list[i].fork < fork)
			fork = c->list[i].fork;
	if (incarnation > atomic_load(&c->newest))
		fork = 0;
	pthread_mutex_unlock(lock_of(c));
	return fork;
}

/* ---- the act ---------------------------------------------------------------------------------- */

struct incarnate {
	struct act act;
	uint64_t incarnation, fork; /* the former as decided */
	PB(Incarnation__Cause) cause;
	size_t reason_n;
	uint8_t reason[];
};

static enum act_verdict incarnate_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	struct incarnate *in = CONTAINER_OF(act, struct incarnate, act);
	(void)a;
	in->incarnation = ledger_incarnation(facts->ledger) + 1;
	return ACT_WRITES;
}

static void incarnate_encode(struct act *act, size_t i, struct buf *out)
{
	const struct incarnate *in = CONTAINER_OF(act, struct incarnate, act);
	PB(Incarnation) pb = CAIRN__JOURNAL__V1__INCARNATION__INIT;
	(void)i;
	pb.incarnation = in->incarnation;
	pb.fork = in->fork;
	pb.cause = in->cause;
	pb.reason = pb_bytes(span_of(in->reason, in->reason_n));
	act_pack(&pb.base, out);
}

static void incarnate_free(struct act *act)
{
	mem_free(CONTAINER_OF(act, struct incarnate, act));
}

static const struct act_ops incarnate_ops = {incarnate_decide, incarnate_encode, incarnate_free};

enum err_code journal_incarnation_new(const struct journal *j, const struct journal_incarnation *request,
				      struct append **ret, struct append_refusal *ret_refusal)
{
	*ret_refusal = (struct append_refusal){0};
	if (withhold_check_reason(request->reason, &ret_refusal->err))
		return ret_refusal->err.code;
	uint8_t id[RECORD_ID_BYTES];
	uuid_v7(j->clock, id);
	struct incarnate *in = mem_xalloc(sizeof(*in) + request->reason.n);
	in->act.ops = &incarnate_ops;
	in->fork = request->fork;
	in->cause = request->loss ? CAIRN__JOURNAL__V1__INCARNATION__CAUSE__CAUSE_LOSS_ACCEPTED
				  : CAIRN__JOURNAL__V1__INCARNATION__CAUSE__CAUSE_RESTORED;
	in->reason_n = request->reason.n;
	memcpy(in->reason, request->reason.p, request->reason.n);
	struct act_record record = {RECORD_INCARNATION, SPAN(INCARNATIONS_STREAM), span_of(id, sizeof(id))};
	struct act_request act = {.act = &in->act,
				  .records = &record,
				  .record_count = 1,
				  .data_max = LIMIT_REASON_BYTES + 64,
				  .actor = request->actor};
	return act_append_new(j, &act, ret, ret_refusal);
}

bool incarnation_apply(struct ledger *l, const struct ledger_record *record)
{
	struct arena arena;
	arena_init(&arena, ARENA_BYTES);
	const PB(Incarnation) *pb = act_unpack(PB_TYPE(incarnation), &arena, record->data);
	bool ok = pb && pb->incarnation > 1 && pb->fork <= record->position;
	if (ok)
		ledger_cut(l, pb->incarnation, pb->fork);
	arena_release(&arena);
	return ok;
}
