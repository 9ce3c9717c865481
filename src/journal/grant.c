/* Grants and fences: see grant.h. */
#include <config.h>

#include "journal/grant.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "base/random.h"
#include "journal/session.h"
#include "journal/wire.h"

#define GRANT_ARENA_BYTES (64 * KIB)
#define GRANT_DATA_BYTES (LIMIT_SERVICE_NAME_BYTES + 64)

struct grant_act {
	struct act act;
	enum { GRANT_CLAIM, GRANT_RELEASE, GRANT_LOOK } what;
	uint32_t slot;
	uint64_t epoch; /* release */
	uint8_t session[RECORD_ID_BYTES];
	struct journal_grant result;
	struct journal_grants all; /* look */
	size_t session_cap, grant_cap;
	struct span service; /* behind the struct */
};

static struct grant_act *grant_of(struct act *act)
{
	return CONTAINER_OF(act, struct grant_act, act);
}

bool grant_is_free(const struct ledger *l, const struct ledger_grant *g)
{
	return !g || g->released || !ledger_session(l, g->session);
}

static void result_of(struct grant_act *ga, const struct ledger_grant *g)
{
	ga->result = (struct journal_grant){.slot = ga->slot};
	if (!g)
		return;
	ga->result.epoch = g->epoch;
	ga->result.released = g->released;
	memcpy(ga->result.session, g->session, sizeof(g->session));
}

static bool serves(const struct ledger_session *s, struct span service)
{
	for (size_t i = 0; i < s->service_count; i++)
		if (span_eq(s->services[i], service))
			return true;
	return false;
}

/* ---- claim and release ----------------------------------------------------------------------- */

static enum act_verdict claim_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	struct grant_act *ga = grant_of(act);
	const struct ledger_session *s = ledger_session(facts->ledger, ga->session);
	const struct ledger_grant *newest = ledger_grant(facts->ledger, ga->service, ga->slot);
	result_of(ga, newest);
	if (!s) {
		session_refuse_ended(a, ga->session);
		return ACT_REFUSED;
	}
	if (!serves(s, ga->service)) {
		char id[UUID_TEXT_BYTES];
		uuid_format(ga->session, id);
		err_set(&append_refuse(a, ERR_CONFLICT)->err, ERR_CONFLICT,
			"session %s did not begin with service \"%.*s\": name it when the session begins", id,
			SPAN_ARG(ga->service));
		return ACT_REFUSED;
	}
	if (!grant_is_free(facts->ledger, newest)) /* the session's own, or another's: the result says */
		return ACT_HOLDS;
	ga->result = (struct journal_grant){.slot = ga->slot, .epoch = newest ? newest->epoch + 1 : 1};
	memcpy(ga->result.session, ga->session, sizeof(ga->session));
	return ACT_WRITES;
}

static enum act_verdict release_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	struct grant_act *ga = grant_of(act);
	const struct ledger_grant *newest = ledger_grant(facts->ledger, ga->service, ga->slot);
	(void)a;
	result_of(ga, newest);
	if (!newest || newest->released || newest->epoch != ga->epoch ||
	    memcmp(newest->session, ga->session, sizeof(ga->session)) != 0)
		return ACT_HOLDS;
	ga->result.released = true;
	return ACT_WRITES;
}

static void grant_encode(struct act *act, size_t i, struct buf *out)
{
	struct grant_act *ga = grant_of(act);
	PB(Grant) pb = CAIRN__JOURNAL__V1__GRANT__INIT;
	must(i == 0);
	pb.service = pb_bytes(ga->service);
	pb.slot = ga->slot;
	pb.epoch = ga->result.epoch;
	pb.session = pb_bytes(span_of(ga->result.session, RECORD_ID_BYTES));
	pb.released = ga->result.released;
	act_pack(&pb.base, out);
}

bool grant_apply(struct ledger *l, const struct ledger_record *record)
{
	struct arena arena;
	arena_init(&arena, GRANT_ARENA_BYTES);
	const PB(Grant) *pb = act_unpack(PB_TYPE(grant), &arena, record->data);
	bool ok = pb && pb->session.len == RECORD_ID_BYTES && pb->slot < LIMIT_SLOTS && pb->epoch > 0;
	if (ok) {
		struct ledger_grant g = {.slot = pb->slot, .epoch = pb->epoch, .released = pb->released};
		memcpy(g.session, pb->session.data, sizeof(g.session));
		ledger_grant_set(l, pb_span(pb->service), &g);
	}
	arena_release(&arena);
	return ok;
}

/* ---- look ------------------------------------------------------------------------------------ */

static void look_release(struct grant_act *ga)
{
	for (size_t i = 0; i < ga->all.session_count; i++)
		mem_free((void *)(uintptr_t)ga->all.sessions[i].address.p);
	ga->all.session_count = ga->all.grant_count = 0;
}

static void look_session(struct ledger_session *s, void *arg)
{
	struct grant_act *ga = arg;
	if (!serves(s, ga->service))
		return;
	if (ga->all.session_count == ga->session_cap) {
		ga->session_cap = ga->session_cap ? 2 * ga->session_cap : 8;
		ga->all.sessions = mem_xrealloc(ga->all.sessions, ga->session_cap * sizeof(*ga->all.sessions));
	}
	struct journal_session *to = &ga->all.sessions[ga->all.session_count++];
	*to = (struct journal_session){.ttl_ms = s->ttl_ms};
	memcpy(to->id, s->id, sizeof(to->id));
	to->address = span_of(mem_xdup(s->address.p ? s->address.p : (const uint8_t *)"", s->address.n),
			      s->address.n);
}

static void look_grant(const struct ledger_grant *g, void *arg)
{
	struct grant_act *ga = arg;
	if (ga->all.grant_count == ga->grant_cap) {
		ga->grant_cap = ga->grant_cap ? 2 * ga->grant_cap : 16;
		ga->all.grants = mem_xrealloc(ga->all.grants, ga->grant_cap * sizeof(*ga->all.grants));
	}
	struct journal_grant *to = &ga->all.grants[ga->all.grant_count++];
	*to = (struct journal_grant){.slot = g->slot, .epoch = g->epoch, .released = g->released};
	memcpy(to->session, g->session, sizeof(to->session));
}

static enum act_verdict look_decide(struct act *act, struct append *a, const struct act_facts *facts)
{
	struct grant_act *ga = grant_of(act);
	(void)a;
	look_release(ga);
	ledger_each_session(facts->ledger, look_session, ga);
	ledger_each_grant(facts->ledger, ga->service, look_grant, ga);
	return ACT_HOLDS;
}

/* ---- making them ----------------------------------------------------------------------------- */

static void grant_free(struct act *act)
{
	struct grant_act *ga = grant_of(act);
	look_release(ga);
	mem_free(ga->all.sessions);
	mem_free(ga->all.grants);
	mem_free(ga);
}

static const struct act_ops claim_ops = {claim_decide, grant_encode, grant_free};
static const struct act_ops release_ops = {release_decide, grant_encode, grant_free};
static const struct act_ops look_ops = {look_decide, NULL, grant_free};

static struct grant_act *grant_new(const struct act_ops *ops, struct span service)
{
	struct grant_act *ga = mem_xalloc(sizeof(*ga) + service.n);
	ga->act.ops = ops;
	ga->service = span_of((uint8_t *)(ga + 1), service.n);
	memcpy(ga + 1, service.p, service.n);
	return ga;
}

static enum err_code grant_check(struct span service, uint32_t slot, struct append_refusal *refusal)
{
	*refusal = (struct append_refusal){0};
	if (session_check_service(service, &refusal->err))
		return err_wrap(&refusal->err, "grant");
	if (slot >= LIMIT_SLOTS)
		return err_set(&refusal->err, ERR_INVALID, "grant: slot is %u: they are below %d", slot,
			       LIMIT_SLOTS);
	return ERR_OK;
}

static enum err_code grant_append(const struct journal *j, struct grant_act *ga, struct span actor,
				  struct append **ret, struct append_refusal *refusal)
{
	char stream[sizeof(GRANTS_STREAM_PREFIX) + LIMIT_SERVICE_NAME_BYTES];
	int n = snprintf(stream, sizeof(stream), GRANTS_STREAM_PREFIX "%.*s", SPAN_ARG(ga->service));
	must(n > 0 && (size_t)n < sizeof(stream));
	struct act_record record = {.kind = RECORD_GRANT, .stream = span_of(stream, (size_t)n)};
	struct act_request act = {.act = &ga->act,
				  .records = &record,
				  .record_count = 1,
				  .data_max = GRANT_DATA_BYTES,
				  .actor = actor};
	return act_append_new(j, &act, ret, refusal);
}

enum err_code journal_grant_claim_new(const struct journal *j, const struct journal_claim *claim,
				      struct append **ret, struct append_refusal *ret_refusal)
{
	if (grant_check(claim->service, claim->slot, ret_refusal))
		return ret_refusal->err.code;
	struct grant_act *ga = grant_new(&claim_ops, claim->service);
	ga->slot = claim->slot;
	memcpy(ga->session, claim->session, sizeof(ga->session));
	return grant_append(j, ga, claim->actor, ret, ret_refusal);
}

enum err_code journal_grant_release_new(const struct journal *j, const struct journal_claim *claim,
					uint64_t epoch, struct append **ret,
					struct append_refusal *ret_refusal)
{
	if (grant_check(claim->service, claim->slot, ret_refusal))
		return ret_refusal->err.code;
	struct grant_act *ga = grant_new(&release_ops, claim->service);
	ga->slot = claim->slot;
	ga->epoch = epoch;
	memcpy(ga->session, claim->session, sizeof(ga->session));
	return grant_append(j, ga, claim->actor, ret, ret_refusal);
}

enum err_code journal_grants_look_new(const struct journal *j, struct span service, struct append **ret,
				      struct append_refusal *ret_refusal)
{
	if (grant_check(service, 0, ret_refusal))
		return ret_refusal->err.code;
	struct grant_act *ga = grant_new(&look_ops, service);
	return act_append_new(j, &(struct act_request){.act = &ga->act}, ret, ret_refusal);
}

const struct journal_grant *journal_grant_of(const struct append *a)
{
	struct act *act = append_act(a);
	must(act);
	must(act->ops == &claim_ops || act->ops == &release_ops);
	must(append_answer(a)->code == ERR_OK);
	return &grant_of(act)->result;
}

const struct journal_grants *journal_grants_of(const struct append *a)
{
	struct act *act = append_act(a);
	must(act);
	must(act->ops == &look_ops);
	must(append_answer(a)->code == ERR_OK);
	return &grant_of(act)->all;
}

/* ---- fences ---------------------------------------------------------------------------------- */

static bool refuse_session(struct append *a, const struct journal_fence *f)
{
	struct append_refusal *r = append_refuse(a, ERR_CONFLICT);
	char id[UUID_TEXT_BYTES];
	uuid_format(f->session, id);
	a->fence_found = (struct journal_fence){.by_session = true};
	memcpy(a->fence_found.session, f->session, sizeof(f->session));
	r->fence_found = &a->fence_found;
	err_set(&r->err, ERR_CONFLICT, "fence: session %s has ended, or never began: nothing of it is taken", id);
	return false;
}

static bool refuse_grant(struct append *a, const struct journal_fence *f, const struct ledger_grant *newest)
{
	struct append_refusal *r = append_refuse(a, ERR_CONFLICT);
	a->fence_found = (struct journal_fence){.service = f->service, .slot = f->slot};
	if (newest) {
		a->fence_found.epoch = newest->epoch;
		memcpy(a->fence_found.session, newest->session, sizeof(newest->session));
	}
	r->fence_found = &a->fence_found;
	if (!newest)
		err_set(&r->err, ERR_CONFLICT, "fence: slot %u of service \"%.*s\" has never been granted",
			f->slot, SPAN_ARG(f->service));
	else if (newest->epoch == f->epoch)
		err_set(&r->err, ERR_CONFLICT, "fence: epoch %llu of slot %u of service \"%.*s\" was released",
			(unsigned long long)f->epoch, f->slot, SPAN_ARG(f->service));
	else
		err_set(&r->err, ERR_CONFLICT,
			"fence: slot %u of service \"%.*s\" is at epoch %llu, not %llu: another holds it now",
			f->slot, SPAN_ARG(f->service), (unsigned long long)newest->epoch,
			(unsigned long long)f->epoch);
	return false;
}

bool fences_hold(const struct ledger *l, struct append *a)
{
	for (size_t i = 0; i < a->fence_count; i++) {
		const struct journal_fence *f = &a->fences[i];
		if (plant("fence-ignored"))
			continue;
		if (f->by_session) {
			if (!ledger_session(l, f->session))
				return refuse_session(a, f);
			continue;
		}
		const struct ledger_grant *newest = ledger_grant(l, f->service, f->slot);
		if (!newest || newest->released || newest->epoch != f->epoch)
			return refuse_grant(a, f, newest);
	}
	return true;
}
